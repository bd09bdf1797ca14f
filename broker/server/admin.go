package server

import (
	"math"
	"sync"
	"sync/atomic"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/partition"
	"github.com/portask/portask/broker/server/evloop"
	"github.com/portask/portask/broker/topic"
	"github.com/portask/portask/broker/wire"
)

// offload runs what may touch the disk or take long away from the event loops:
// changes of the catalogue, metadata, look-ups by time.
type offload struct {
	jobs chan func()
	wg   sync.WaitGroup

	waiting atomic.Int64 // bytes of requests in jobs
	unsent  atomic.Int64 // bytes of long answers that no event loop has sent yet
}

const (
	offloadWorkers = 2
	// offloadQueue bounds the requests that wait; beyond it a request is refused
	// and may be tried again.
	offloadQueue = 1024
	// waitingBytes bounds the memory of the requests that wait, and unsentBytes
	// that of long answers, but for one of each worker: METADATA is refused then.
	waitingBytes = 32 << 20
	unsentBytes  = 32 << 20
	// longAnswer is the size from which an answer is sent when the connection's
	// queue is empty, frame by frame, instead of at once.
	longAnswer = 64 << 10
)

func newOffload() *offload {
	o := &offload{jobs: make(chan func(), offloadQueue)}
	for range offloadWorkers {
		o.wg.Go(func() {
			for f := range o.jobs {
				f()
			}
		})
	}
	return o
}

func (o *offload) close() {
	close(o.jobs)
	o.wg.Wait()
}

// take adds n bytes to a counter, or refuses them.
func take(held *atomic.Int64, n int, limit int64, what string) error {
	if all := held.Add(int64(n)); all > limit {
		held.Add(-int64(n))
		return fault.New(fault.MemoryExhausted, "session").WithField("requests").WithDetail("too many %s in memory", what).WithLimit(all, limit)
	}
	return nil
}

// async runs f elsewhere and its result on the loop, which is to call answered
// when the answer is sent. An error is answered as the request's. A connection
// with many such requests is not read until some are answered.
func (l *loop) async(c evloop.Conn, h wire.Header, f func() (func(*loop), error)) error {
	o, size := l.srv.offload, h.FrameBytes()
	if err := take(&o.waiting, size, waitingBytes, "requests"); err != nil {
		return err
	}
	select {
	case o.jobs <- func() {
		then, err := f()
		o.waiting.Add(-int64(size))
		l.call(func(l *loop) {
			if err != nil {
				l.fail(c, h, err)
				l.answered(c, 1)
			} else {
				then(l)
			}
		})
	}:
		u := l.ev.User(c)
		if u[wordState] += oneRequest; u[wordState]&requestsMask >= requestsPerConn*oneRequest {
			l.ev.Pause(c)
		}
		return nil
	default:
		o.waiting.Add(-int64(size))
		return fault.New(fault.ResourceExhausted, "session").WithField("requests").WithDetail("too many requests wait").
			WithLimit(offloadQueue+1, offloadQueue)
	}
}

// answered says that n requests of async are done with.
func (l *loop) answered(c evloop.Conn, n uint32) {
	u := l.ev.User(c)
	if u == nil {
		return
	}
	before := u[wordState] & requestsMask
	u[wordState] -= n * oneRequest
	if before >= requestsPerConn*oneRequest && before-n*oneRequest < requestsPerConn*oneRequest {
		l.ev.Resume(c)
	}
}

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
		limit := int64(unsentBytes)
		if h.Opcode != wire.OpMetadata {
			limit = math.MaxInt64 // what was done is not called refused
		}
		if err := take(&l.srv.offload.unsent, total, limit, "answers"); err != nil {
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
		l.srv.offload.unsent.Add(-int64(len(b)))
		_ = l.ev.Send(a.conn, b) // a connection that cannot take it ends, and Closed forgets the rest
	}
	delete(l.long, a.conn.Index)
	l.answered(a.conn, a.count)
}

func (l *loop) forgetLong(a *longAnswers) {
	for _, b := range a.frames {
		l.srv.offload.unsent.Add(-int64(len(b)))
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
			return one(s.info(s.cat.Create(m.Name, topic.Config{Partitions: m.Partitions, Visibility: m.Visibility,
				RetentionMs: m.RetentionMs, RetentionBytes: m.RetentionBytes, SegmentBytes: m.SegmentBytes})))
		}, err
	case wire.OpTopicAlter:
		var m wire.TopicAlter
		err := m.Parse(payload)
		return func() ([]wire.Payload, error) { return one(s.alter(&m)) }, err
	default: // wire.OpTopicDelete
		var m wire.TopicDelete
		err := m.Parse(payload)
		return func() ([]wire.Payload, error) { return one(&wire.Empty{}, s.cat.Delete(m.Name, s.gone)) }, err
	}
}

func (s *Server) alter(m *wire.TopicAlter) (wire.Payload, error) {
	if m.Mask&(wire.AlterPartitions|wire.AlterVisibility) != 0 {
		return nil, fault.New(fault.NotSupported, "alter topic").WithField("mask").
			WithDetail("the number of partitions and the visibility of a topic are for life")
	}
	var ch topic.Change
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
	return s.info(s.cat.Alter(m.Name, ch))
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

func (s *Server) listOffsets(m *wire.ListOffsets) (wire.Payload, error) {
	p, err := s.lookup(m.Topic, m.Partition)
	if err != nil {
		return nil, err
	}
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
