package client

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/wire"
)

// fake is a broker in memory that speaks wire over any net.Conn, with hooks to
// misbehave. It keeps the promises of the protocol on its own: it validates
// batches, recognises duplicates, and fails the test when the client sends
// without credit.
type fake struct {
	t *testing.T

	mu       sync.Mutex
	topics   map[string]*fakeTopic
	lastID   uint64
	handle   uint32
	sessions map[*session]struct{}
	down     bool // refuse connections
	dials    int
	seed     message.Seed // of deliveries

	// hook sees each frame first; true: it was handled. Called with mu held.
	hook  func(s *session, h wire.Header, payload []byte) bool
	grant uint64 // credit of a producer

	advice wire.Advice       // for producers that ask
	load   *wire.Load        // in HELLO_OK; nil: none
	dicts  map[uint32][]byte // of every topic
	gets   int               // DICTIONARY_GETs
	wg     sync.WaitGroup
}

type fakeTopic struct {
	id    [16]byte
	parts []*fakePart
}

type fakePart struct {
	start     message.Offset
	end       message.Offset
	batches   [][]byte // stamped
	producers map[uint64]*fakeProducer
}

type fakeProducer struct {
	next uint32
	last []fakeStored // at most 5
}

type fakeStored struct {
	seq  uint32
	base message.Offset
}

type session struct {
	f         *fake
	nc        net.Conn
	wmu       sync.Mutex
	producers map[uint32]*fakeHandle
	subs      map[uint32]*fakeSub
	hello     wire.Hello
}

type fakeHandle struct {
	topic  string
	ack    message.AckLevel
	id     uint64
	credit int64
	wants  wire.AdviceWants
}

type fakeSub struct {
	topic  string
	part   uint32
	next   message.Offset
	credit int64
	max    uint32
}

func newFake(t *testing.T) *fake {
	f := &fake{t: t, topics: make(map[string]*fakeTopic), sessions: make(map[*session]struct{}), grant: 1 << 20}
	return f
}

func (f *fake) topic(name string, partitions int) *fake {
	f.mu.Lock()
	defer f.mu.Unlock()
	ft := &fakeTopic{id: [16]byte{byte(len(f.topics) + 1)}}
	for range partitions {
		ft.parts = append(ft.parts, &fakePart{producers: make(map[uint64]*fakeProducer)})
	}
	f.topics[name] = ft
	return f
}

// dial is a WithDialer over net.Pipe, so that virtual time works.
func (f *fake) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dials++
	if f.down {
		return nil, errors.New("connection refused")
	}
	ours, theirs := net.Pipe()
	f.accept(ours)
	return theirs, nil
}

// accept serves nc. mu is held.
func (f *fake) accept(nc net.Conn) {
	s := &session{f: f, nc: nc, producers: make(map[uint32]*fakeHandle), subs: make(map[uint32]*fakeSub)}
	f.sessions[s] = struct{}{}
	f.wg.Go(func() {
		err := s.serve()
		_ = nc.Close()
		f.mu.Lock()
		delete(f.sessions, s)
		f.mu.Unlock()
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrClosedPipe) && !errors.Is(err, net.ErrClosed) && !errors.Is(err, errCut) {
			f.t.Logf("session: %v", err)
		}
	})
}

var errCut = errors.New("cut")

// stop closes everything and waits.
func (f *fake) stop() {
	f.cut()
	f.wg.Wait()
}

// cut breaks all connections.
func (f *fake) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range f.sessions {
		_ = s.nc.Close()
	}
}

func (f *fake) set(g func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	g()
}

func (s *session) serve() error {
	var preface [wire.PrefaceBytes]byte
	if _, err := io.ReadFull(s.nc, preface[:]); err != nil {
		return err
	}
	if _, _, err := wire.ParsePreface(preface[:]); err != nil {
		return err
	}
	in := newFrameReader(s.nc)
	for {
		h, n, err := in.header(wire.DefaultMaxFrame)
		if err != nil {
			return err
		}
		b := make([]byte, n)
		if err := in.read(b); err != nil {
			return err
		}
		if err := s.handle(h, wire.PayloadOf(b)); err != nil {
			return err
		}
	}
}

func (s *session) handle(h wire.Header, payload []byte) error {
	f := s.f
	f.mu.Lock()
	var out [][]byte
	var err error
	if f.hook == nil || !f.hook(s, h, payload) {
		out, err = s.answer(h, payload)
	}
	f.mu.Unlock()
	for _, b := range out {
		s.write(b)
	}
	if h.Opcode == wire.OpProduce || h.Opcode == wire.OpSubscribe || h.Opcode == wire.OpCredit {
		f.deliver()
	}
	return err
}

// write sends whole frames. It must not be called with f.mu held.
func (s *session) write(b []byte) {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	_, _ = s.nc.Write(b) // a broken connection shows at the next read
}

// later sends frames from a goroutine of its own: for hooks, which hold f.mu.
func (s *session) later(b ...[]byte) {
	s.f.wg.Go(func() {
		for _, x := range b {
			s.write(x)
		}
	})
}

func reply(h wire.Header, p wire.Payload) []byte {
	return wire.AppendFrame(nil, wire.Header{Opcode: h.Opcode.Response(), Correlation: h.Correlation, Handle: h.Handle}, p)
}

func refuse(h wire.Header, err error) []byte {
	x := wire.FromError(err, h.Opcode)
	return wire.AppendFrame(nil, wire.Header{Opcode: wire.OpError.Response(), Correlation: h.Correlation, Handle: h.Handle}, &x)
}

// answer does what a broker should. f.mu is held.
func (s *session) answer(h wire.Header, payload []byte) (out [][]byte, err error) {
	f := s.f
	one := func(p wire.Payload) ([][]byte, error) { return [][]byte{reply(h, p)}, nil }
	no := func(err error) ([][]byte, error) { return [][]byte{refuse(h, err)}, nil }
	must := func(err error) {
		if err != nil {
			f.t.Errorf("the client sent a bad %v: %v", h.Opcode, err)
		}
	}
	switch h.Opcode {
	case wire.OpHello:
		must(s.hello.Parse(payload))
		ok := wire.HelloOK{
			Version: 1, MaxFrame: wire.DefaultMaxFrame, MaxBatch: 4 << 20, MaxMessage: 1 << 20,
			HeartbeatMs: wire.NegotiateHeartbeat(s.hello.HeartbeatMs), ServerVersion: "fake", ClusterID: "c", NodeID: "n",
		}
		if f.load != nil {
			ok.HasLoad, ok.Load = true, *f.load
		}
		return one(&ok)
	case wire.OpPing:
		var x wire.Ping
		must(x.Parse(payload))
		return one(&x)
	case wire.OpPing.Response():
		return nil, nil
	case wire.OpMetadata:
		var x wire.MetadataRequest
		must(x.Parse(payload))
		return f.metadata(h, x.Topics), nil
	case wire.OpOpenProducer:
		var x wire.OpenProducer
		must(x.Parse(payload))
		t := f.topics[x.Topic]
		if t == nil {
			return no(fault.New(fault.NotFound, "open producer").WithField("topic"))
		}
		if x.Idempotent && x.ProducerID == 0 {
			f.lastID++
			x.ProducerID = f.lastID
		}
		f.handle++
		s.producers[f.handle] = &fakeHandle{topic: x.Topic, ack: x.Ack, id: x.ProducerID, credit: int64(f.grant), wants: x.Wants}
		h.Handle = f.handle
		return one(&wire.OpenProducerOK{ProducerID: x.ProducerID, ProducerEpoch: x.ProducerEpoch,
			Partitions: uint32(len(t.parts)), Credit: f.grant, MaxBatch: 4 << 20, TopicID: t.id, Advice: wanted(f.advice, x.Wants)})
	case wire.OpDictionaryGet:
		var x wire.DictionaryGet
		must(x.Parse(payload))
		f.gets++
		d := f.dicts[x.ID]
		if d == nil {
			return no(fault.New(fault.NotFound, "load dictionary").WithField("dictionary"))
		}
		return one(&wire.Dictionary{Bytes: d})
	case wire.OpProduce:
		return s.produce(h, payload)
	case wire.OpCloseProducer:
		delete(s.producers, h.Handle)
		return one(new(wire.Empty))
	case wire.OpSubscribe:
		var x wire.Subscribe
		must(x.Parse(payload))
		t := f.topics[x.Topic]
		if t == nil || int(x.Partition) >= len(t.parts) {
			return no(fault.New(fault.NotFound, "subscribe"))
		}
		p := t.parts[x.Partition]
		from := p.start
		switch x.Start {
		case wire.StartLatest:
			from = p.end
		case wire.StartOffset:
			from = message.Offset(x.StartValue)
			if from < p.start || from > p.end {
				return no(fault.New(fault.OutOfRange, "subscribe").WithLimit(x.StartValue, int64(p.end)))
			}
		}
		f.handle++
		s.subs[f.handle] = &fakeSub{topic: x.Topic, part: x.Partition, next: from, credit: int64(x.Credit), max: x.MaxDeliverBytes}
		h.Handle = f.handle
		return one(&wire.SubscribeOK{Start: from, LogStart: p.start, HWM: p.end, LogEnd: p.end})
	case wire.OpCredit:
		var x wire.Credit
		must(x.Parse(payload))
		if sub := s.subs[h.Handle]; sub != nil {
			sub.credit += int64(x.Bytes)
		}
		return nil, nil
	case wire.OpUnsubscribe:
		delete(s.subs, h.Handle)
		return one(new(wire.Empty))
	case wire.OpListOffsets:
		var x wire.ListOffsets
		must(x.Parse(payload))
		t := f.topics[x.Topic]
		if t == nil {
			return no(fault.New(fault.NotFound, "list offsets"))
		}
		p := t.parts[x.Partition]
		return one(&wire.ListOffsetsOK{Offset: p.start, LogStart: p.start, HWM: p.end, LogEnd: p.end, TimestampUs: 77})
	case wire.OpTopicCreate:
		var x wire.TopicCreate
		must(x.Parse(payload))
		if f.topics[x.Name] != nil {
			return no(fault.New(fault.Exists, "create topic").WithField("topic"))
		}
		t := &fakeTopic{}
		for range x.Partitions {
			t.parts = append(t.parts, &fakePart{producers: make(map[uint64]*fakeProducer)})
		}
		f.topics[x.Name] = t
		return one(f.info(x.Name))
	case wire.OpTopicAlter:
		var x wire.TopicAlter
		must(x.Parse(payload))
		info := f.info(x.Name)
		if x.Mask&wire.AlterRetentionMs != 0 {
			info.RetentionMs = x.RetentionMs
		}
		return one(info)
	case wire.OpTopicDelete:
		var x wire.TopicDelete
		must(x.Parse(payload))
		if f.topics[x.Name] == nil {
			return no(fault.New(fault.NotFound, "delete topic"))
		}
		delete(f.topics, x.Name)
		return one(new(wire.Empty))
	}
	f.t.Errorf("the client sent %v", h.Opcode)
	return nil, nil
}

// wanted is the part of x that a producer asked for.
func wanted(x wire.Advice, wants wire.AdviceWants) wire.Advice {
	if wants&wire.WantCompression == 0 {
		x.HasCompression, x.HasDictionary = false, false
	}
	if wants&wire.WantEncoding == 0 {
		x.HasEncoding = false
	}
	return x
}

// advise sends an ADVICE to every producer that wants some of it, and notes what
// later ones get.
func (f *fake) advise(x wire.Advice) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if x.HasCompression {
		f.advice.HasCompression, f.advice.Algorithm, f.advice.Level = true, x.Algorithm, x.Level
	}
	if x.HasEncoding {
		f.advice.HasEncoding, f.advice.Encoding = true, x.Encoding
	}
	if x.HasDictionary {
		f.advice.HasDictionary, f.advice.Dictionary = true, x.Dictionary
	}
	for s := range f.sessions {
		for h, p := range s.producers {
			if y := wanted(x, p.wants); !y.Empty() {
				s.later(wire.AppendFrame(nil, wire.Header{Opcode: wire.OpAdvice, Handle: h}, &y))
			}
		}
	}
}

func (f *fake) info(name string) *wire.TopicInfo {
	t := f.topics[name]
	if t == nil {
		return &wire.TopicInfo{Name: name, Err: fault.NotFound}
	}
	x := &wire.TopicInfo{Name: name, ID: t.id, Engine: "fake", Levels: 7, Visibility: message.AckAccepted, RetentionMs: -1, RetentionBytes: -1}
	for i, p := range t.parts {
		x.Partitions = append(x.Partitions, wire.PartitionInfo{Index: uint32(i), LogStart: p.start, HWM: p.end, LogEnd: p.end, Durable: p.end})
	}
	return x
}

// metadata answers with a frame for each topic, to show FlagMore.
func (f *fake) metadata(h wire.Header, names []string) (out [][]byte) {
	if len(names) == 0 {
		for n := range f.topics {
			names = append(names, n)
		}
		slices.Sort(names)
	}
	for i, n := range names {
		x := &wire.Metadata{ClusterID: "c", NodeID: "n", Topics: []wire.TopicInfo{*f.info(n)}}
		a := wire.Header{Opcode: h.Opcode.Response(), Correlation: h.Correlation}
		if i < len(names)-1 {
			a.Flags = wire.FlagMore
		}
		out = append(out, wire.AppendFrame(nil, a, x))
	}
	if len(names) == 0 {
		out = append(out, reply(h, &wire.Metadata{ClusterID: "c", NodeID: "n"}))
	}
	return out
}

func (s *session) produce(h wire.Header, payload []byte) (out [][]byte, err error) {
	f := s.f
	no := func(err error) ([][]byte, error) { return [][]byte{refuse(h, err)}, nil }
	ph := s.producers[h.Handle]
	if ph == nil {
		return no(fault.New(fault.HandleUnknown, "produce"))
	}
	size := h.FrameBytes()
	if ph.credit <= 0 {
		f.t.Errorf("the client produced %d bytes with a credit of %d", size, ph.credit)
	}
	part, _, b, err := wire.ParseProduce(payload)
	if err != nil {
		f.t.Errorf("bad PRODUCE: %v", err)
		return nil, err
	}
	e, _, err := message.Validate(b, 0, nil)
	if err != nil {
		f.t.Errorf("bad batch: %v", err)
		return no(err)
	}
	ok := &wire.ProduceOK{Partition: part, AppendTime: 1234567, Credit: uint32(size)}
	p := f.topics[ph.topic].parts[part]
	if ph.id != 0 {
		base, dup, err := p.sequence(ph.id, &e)
		if err != nil {
			if fault.CodeOf(err) == fault.OutOfSequence {
				delete(s.producers, h.Handle)
			}
			return no(err)
		}
		if dup {
			ok.BaseOffset, ok.Flags = base, wire.ProduceDuplicate
			return [][]byte{reply(h, ok)}, nil
		}
	}
	ok.BaseOffset = p.append(slices.Clone(b), f.seed)
	if ph.ack == message.AckNone {
		if h.Correlation != 0 {
			f.t.Errorf("a produce at ack level none has correlation %d", h.Correlation)
		}
		x := &wire.Credit{Bytes: uint64(size)}
		return [][]byte{wire.AppendFrame(nil, wire.Header{Opcode: wire.OpCredit, Handle: h.Handle}, x)}, nil
	}
	return [][]byte{reply(h, ok)}, nil
}

func (p *fakePart) append(b []byte, seed message.Seed) message.Offset {
	e, _ := message.ParseEnvelope(b, nil)
	base := p.end
	message.Stamp(b, base, 1234567, 1, seed)
	p.batches = append(p.batches, b)
	p.end += message.Offset(e.LastOffsetDelta) + 1
	return base
}

func (p *fakePart) sequence(id uint64, e *message.Envelope) (base message.Offset, dup bool, err error) {
	st := p.producers[id]
	if st == nil {
		st = new(fakeProducer)
		p.producers[id] = st
	}
	if e.ProducerID != id {
		return 0, false, fault.New(fault.Invalid, "produce").WithField("producer_id")
	}
	for _, x := range st.last {
		if x.seq == e.BaseSequence {
			return x.base, true, nil
		}
	}
	switch {
	case e.BaseSequence < st.next:
		return 0, false, fault.New(fault.DuplicateSequence, "produce")
	case e.BaseSequence > st.next:
		return 0, false, fault.New(fault.OutOfSequence, "produce").WithLimit(int64(e.BaseSequence), int64(st.next))
	}
	st.next += e.Count
	st.last = append(st.last, fakeStored{e.BaseSequence, p.end})
	if len(st.last) > 5 {
		st.last = st.last[1:]
	}
	return p.end, false, nil
}

// deliver sends what subscriptions may get, one batch a frame.
func (f *fake) deliver() {
	for {
		f.mu.Lock()
		var to *session
		var b []byte
		for s := range f.sessions {
			if b = s.nextDelivery(); b != nil {
				to = s
				break
			}
		}
		if to != nil {
			to.wmu.Lock() // before mu is given up, so that deliveries keep their order
		}
		f.mu.Unlock()
		if to == nil {
			return
		}
		_, _ = to.nc.Write(b)
		to.wmu.Unlock()
	}
}

func (s *session) nextDelivery() []byte {
	for handle, sub := range s.subs {
		t := s.f.topics[sub.topic]
		if t == nil || sub.credit <= 0 {
			continue
		}
		p := t.parts[sub.part]
		for _, b := range p.batches {
			e, _ := message.ParseEnvelope(b, nil)
			if e.EndOffset() <= sub.next {
				continue
			}
			head := wire.DeliverHead{Partition: sub.part, HWM: p.end, LogStart: p.start, Wanted: sub.next,
				Runs: []wire.Run{{Seed: s.f.seed, First: e.BaseOffset, End: e.EndOffset(), Bytes: uint32(len(b)), Batches: 1}}}
			out := wire.AppendDeliverFrame(nil, wire.Header{Opcode: wire.OpDeliver, Handle: handle}, &head)
			out = append(out, b...)
			sub.next = e.EndOffset()
			sub.credit -= int64(len(out))
			return out
		}
	}
	return nil
}

// values returns what is stored in a partition, in order.
func (f *fake) values(topic string, part int) (all []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, b := range f.topics[topic].parts[part].batches {
		all = append(all, valuesOf(f.t, b)...)
	}
	return all
}

func valuesOf(t *testing.T, b []byte) (all []string) {
	e, err := message.ParseEnvelope(b, nil)
	if err != nil {
		t.Error(err)
		return nil
	}
	_, body, err := message.Split(b, &e)
	if err != nil {
		t.Error(err)
		return nil
	}
	var r message.Reader
	r.Reset(&e, body, nil)
	var m message.Message
	for r.Next(&m) {
		all = append(all, string(m.Value))
	}
	if r.Err() != nil {
		t.Error(r.Err())
	}
	return all
}

// client dials the fake over a pipe.
func (f *fake) client(opts ...Option) *Client {
	f.t.Helper()
	c, err := Dial(f.t.Context(), "fake:1", append([]Option{WithDialer(f.dial)}, opts...)...)
	if err != nil {
		f.t.Fatal(err)
	}
	return c
}

func value(s string) *message.Message { return &message.Message{Value: []byte(s), Timestamp: 1} }

func ctxFor(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
