package server

import (
	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/partition"
	"github.com/portask/portask/broker/server/evloop"
	"github.com/portask/portask/broker/topic"
	"github.com/portask/portask/broker/wire"
)

// admin answers the requests that are not about data.
func (l *loop) admin(c evloop.Conn, h wire.Header, payload []byte) error {
	answer, err := l.srv.request(h.Opcode, payload)
	if err != nil {
		return err
	}
	max := maxFrame(l.ev.User(c))
	return l.async(c, h, func() (func(*loop), error) {
		ps, err := answer()
		if err != nil {
			return nil, err
		}
		out := wire.Header{Opcode: h.Opcode.Response(), Correlation: h.Correlation}
		var frames [][]byte
		total := 0
		for i, p := range ps {
			if out.Flags = 0; i < len(ps)-1 {
				out.Flags = wire.FlagMore
			}
			b := wire.AppendFrame(nil, out, p)
			if len(b) > max {
				return nil, fault.New(fault.TooLarge, "answer").WithField("frame").WithLimit(int64(len(b)), int64(max))
			}
			frames = append(frames, b)
			total += len(b)
		}
		if total < longAnswer {
			return func(l *loop) {
				for _, b := range frames {
					_ = l.ev.Send(c, b) // a connection that cannot take it ends
				}
				l.answered(c, 1)
			}, nil
		}
		if unsent := l.srv.offload.unsent; h.Opcode != wire.OpMetadata && h.Opcode != wire.OpDictionaryGet && h.Opcode != wire.OpPolicyGet {
			unsent.Force(int64(total)) // what was done is not called refused
		} else if err := unsent.Take(int64(total)); err != nil {
			return nil, err
		}
		return func(l *loop) { l.sendLong(c, frames) }, nil
	})
}

// longAnswers are frames for one connection that wait for its queue to empty.
type longAnswers struct {
	conn   evloop.Conn
	frames [][]byte
	count  uint32 // answers
	since  int64  // when a frame was sent last, ms
}

// sendLong sends frames that together are more than a queue holds: the next one
// when the one before is with the kernel.
func (l *loop) sendLong(c evloop.Conn, frames [][]byte) {
	if l.ev.User(c) == nil { // closed meanwhile
		l.forgetLong(&longAnswers{frames: frames})
		return
	}
	a := l.long[c.Index]
	if a == nil {
		a = &longAnswers{conn: c, since: l.now()}
		l.long[c.Index] = a
		l.ev.WantTick(tickEvery)
	}
	a.frames = append(a.frames, frames...)
	a.count++
	l.pushLong(a)
}

func (l *loop) pushLong(a *longAnswers) {
	for len(a.frames) > 0 {
		if l.half[a.conn.Index] != nil || l.ev.Queued(a.conn) > 0 {
			l.ev.WantWritable(a.conn)
			return
		}
		b := a.frames[0]
		a.frames, a.since = a.frames[1:], l.now()
		l.srv.offload.unsent.Give(int64(len(b)))
		_ = l.ev.Send(a.conn, b) // a connection that cannot take it ends, and Closed forgets the rest
	}
	delete(l.long, a.conn.Index)
	l.answered(a.conn, a.count)
}

func (l *loop) forgetLong(a *longAnswers) {
	for _, b := range a.frames {
		l.srv.offload.unsent.Give(int64(len(b)))
	}
}

// request parses a request on the loop and returns what answers it elsewhere.
func (s *Server) request(op wire.Opcode, payload []byte) (func() ([]wire.Payload, error), error) {
	one := func(p wire.Payload, err error) ([]wire.Payload, error) { return []wire.Payload{p}, err }
	switch op {
	case wire.OpMetadata:
		var m wire.MetadataRequest
		err := m.Parse(payload)
		return func() ([]wire.Payload, error) { return s.metadata(m.Topics), nil }, err
	case wire.OpListOffsets:
		var m wire.ListOffsets
		err := m.Parse(payload)
		return func() ([]wire.Payload, error) { return one(s.listOffsets(&m)) }, err
	case wire.OpTopicCreate:
		var m wire.TopicCreate
		err := m.Parse(payload)
		return func() ([]wire.Payload, error) {
			if err := s.checkData("create topic", &m.Data); err != nil {
				return nil, err
			}
			return one(s.info(s.cat.Create(m.Name, topic.Config{Partitions: m.Partitions, Visibility: m.Visibility,
				RetentionMs: m.RetentionMs, RetentionBytes: m.RetentionBytes, SegmentBytes: m.SegmentBytes,
				Compression: m.Data.Compression, Level: m.Data.Level, Encoding: m.Data.Encoding, Strategy: m.Data.Strategy})))
		}, err
	case wire.OpTopicAlter:
		var m wire.TopicAlter
		err := m.Parse(payload)
		return func() ([]wire.Payload, error) { return one(s.alter(&m)) }, err
	case wire.OpTopicDelete:
		var m wire.TopicDelete
		err := m.Parse(payload)
		return func() ([]wire.Payload, error) { return one(&wire.Empty{}, s.cat.Delete(m.Name, s.gone)) }, err
	default:
		f, err := s.dictionaryRequest(op, payload)
		return func() ([]wire.Payload, error) { return one(f()) }, err
	}
}

func (s *Server) alter(m *wire.TopicAlter) (wire.Payload, error) {
	if m.Mask&(wire.AlterPartitions|wire.AlterVisibility) != 0 {
		return nil, fault.New(fault.NotSupported, "alter topic").WithField("mask").
			WithDetail("the number of partitions and the visibility of a topic are for life")
	}
	if err := s.checkData("alter topic", &m.Data); err != nil {
		return nil, err
	}
	var ch topic.Change
	if m.Mask&wire.AlterCompression != 0 {
		ch.Compression = &m.Data.Compression
	}
	if m.Mask&wire.AlterCompressionLevel != 0 {
		ch.Level = &m.Data.Level
	}
	if m.Mask&wire.AlterEncoding != 0 {
		ch.Encoding = &m.Data.Encoding
	}
	if m.Mask&wire.AlterStrategy != 0 {
		ch.Strategy = &m.Data.Strategy
	}
	for _, f := range []struct {
		bit uint32
		dst **int64
		src *int64
	}{
		{wire.AlterRetentionMs, &ch.RetentionMs, &m.RetentionMs},
		{wire.AlterRetentionBytes, &ch.RetentionBytes, &m.RetentionBytes},
		{wire.AlterSegmentBytes, &ch.SegmentBytes, &m.SegmentBytes},
	} {
		if m.Mask&f.bit != 0 {
			*f.dst = f.src
		}
	}
	t, err := s.cat.Alter(m.Name, ch)
	if err == nil {
		s.advise()
	}
	return s.info(t, err)
}

// gone wakes the subscriptions of a deleted topic, which then end.
func (s *Server) gone(t *topic.Topic) {
	for _, p := range t.Partitions {
		s.Advanced(-1, p)
	}
}

func (s *Server) info(t *topic.Topic, err error) (wire.Payload, error) {
	if err != nil {
		return nil, err
	}
	i := s.describe(t)
	return &i, nil
}

func (s *Server) describe(t *topic.Topic) wire.TopicInfo {
	cfg := t.Config()
	i := wire.TopicInfo{Name: t.Name, ID: t.ID, Engine: s.opts.Engine.Name(), Levels: uint8(s.opts.Engine.Levels()),
		Visibility: cfg.Visibility, RetentionMs: cfg.RetentionMs, RetentionBytes: cfg.RetentionBytes, SegmentBytes: cfg.SegmentBytes,
		Data:      wire.TopicData{Compression: cfg.Compression, Level: cfg.Level, Encoding: cfg.Encoding, Dictionary: t.ActiveDictionary(), Strategy: cfg.Strategy},
		CreatedUs: t.CreatedUs, Partitions: make([]wire.PartitionInfo, len(t.Partitions))}
	for k, p := range t.Partitions {
		m := p.Marks()
		h := wire.HealthOK
		switch {
		case m.Fenced:
			h = wire.HealthFailed
		case m.Corruptions > 0:
			h = wire.HealthCorrupted
		case s.low.Load():
			h = wire.HealthReadOnly
		}
		i.Partitions[k] = wire.PartitionInfo{Index: uint32(k), Leader: s.opts.NodeID, Epoch: m.Epoch, LogStart: m.Start, HWM: m.Visible,
			LogEnd: m.Written, Durable: m.Durable, Bytes: m.Bytes, Health: h}
	}
	return i
}

// metadataTopics is how many topics go into one frame of METADATA_OK, at most,
// and metadataPartitions how many partitions: half a MiB either way.
const (
	metadataTopics     = 1000
	metadataPartitions = 4096
)

func (s *Server) metadata(names []string) []wire.Payload {
	var all []wire.TopicInfo
	if len(names) == 0 {
		for _, t := range s.cat.List() {
			all = append(all, s.describe(t))
		}
	}
	for _, n := range names {
		t, err := s.cat.Lookup(n)
		if err != nil {
			all = append(all, wire.TopicInfo{Err: fault.CodeOf(err), Name: n})
			continue
		}
		all = append(all, s.describe(t))
	}
	var out []wire.Payload
	for first := true; first || len(all) > 0; first = false {
		n, parts := 0, 0
		for n < len(all) && n < metadataTopics && (n == 0 || parts+len(all[n].Partitions) <= metadataPartitions) {
			parts += len(all[n].Partitions)
			n++
		}
		out = append(out, &wire.Metadata{ClusterID: s.cat.ClusterID(), NodeID: s.opts.NodeID, Topics: all[:n]})
		all = all[n:]
	}
	return out
}

// listTries bounds how often listOffsets begins again. One retention removes
// several segments at once, and the next one comes much later.
const listTries = 4

func (s *Server) listOffsets(m *wire.ListOffsets) (wire.Payload, error) {
	p, err := s.lookup(m.Topic, m.Partition)
	if err != nil {
		return nil, err
	}
	a, err := s.offsetOf(p, m)
	for try := 1; try < listTries && err == nil && a.Offset < p.Start(); try++ {
		a, err = s.offsetOf(p, m) // retention went past it meanwhile
	}
	if err != nil {
		return nil, err
	}
	return a, nil
}

// offsetOf answers m as of now. If retention removes the batch meanwhile, the
// offset is below the log start by the time it returns.
func (s *Server) offsetOf(p *partition.Partition, m *wire.ListOffsets) (*wire.ListOffsetsOK, error) {
	off, err := p.Resolve(partition.StartKind(m.Start), m.StartValue)
	if err != nil {
		return nil, err
	}
	mk := p.Marks()
	a := &wire.ListOffsetsOK{Offset: off, LogStart: mk.Start, HWM: mk.Visible, LogEnd: mk.Written}
	runs, err := p.Read(off, 1, nil)
	switch fault.CodeOf(err) {
	case fault.None:
	case fault.Corrupted, fault.OutOfRange:
		return a, nil // the batch is lost, or went with the retention just now: the offset still stands
	default:
		return nil, err
	}
	defer releaseRuns(runs)
	if len(runs) > 0 {
		head := make([]byte, message.EnvelopeBytes)
		if r := &runs[0]; r.Mem != nil {
			copy(head, r.Mem)
		} else if _, err := r.File.ReadAt(head, r.Pos); err != nil {
			return nil, fault.New(fault.StorageFailed, "list offsets").WithCause(err)
		}
		e, err := message.ParseEnvelope(head, &s.opts.Limits)
		if err != nil {
			return nil, err
		}
		a.TimestampUs = e.AppendTime
	}
	return a, nil
}

func (s *Server) lookup(name string, index uint32) (*partition.Partition, error) {
	t, err := s.cat.Lookup(name)
	if err != nil {
		return nil, err
	}
	return t.Partition(index)
}
