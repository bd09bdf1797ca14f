package server

import (
	"encoding/binary"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/wire"
)

// A message of these tests says who sent it and the how-manieth of its producer
// in its partition it is; the rest is filled from these two.
const stampBytes = 4 + 8

func stampOf(dst []byte, producer uint32, n uint64, size int) []byte {
	at := len(dst)
	dst = binary.LittleEndian.AppendUint32(dst, producer)
	dst = binary.LittleEndian.AppendUint64(dst, n)
	for len(dst)-at < size {
		dst = append(dst, byte(n)+byte(len(dst)-at)*7)
	}
	return dst
}

// sender is a producer on a peer: it keeps to its credit and numbers what it
// sends.
type sender struct {
	*peer
	handle   uint32
	number   uint32 // in the stamps
	ok       wire.OpenProducerOK
	level    message.AckLevel
	credit   int64
	inFlight int
	sizes    map[uint32]int64 // frames in flight by correlation
	next     map[uint32]uint64
	seq      map[uint32]uint32
	ack      wire.ProduceOK
	acked    int // batches
	dups     int
	bye      bool // GOAWAY came
	onAck    func(corr uint32, ok *wire.ProduceOK)
	onError  func(corr uint32, e *wire.Error) // nil: an ERROR ends the test

	b     *message.Builder
	batch []byte
	value []byte
}

func (p *peer) producer(number uint32, m wire.OpenProducer) *sender {
	p.Helper()
	s := &sender{peer: p, number: number, level: m.Ack, sizes: map[uint32]int64{}, next: map[uint32]uint64{}, seq: map[uint32]uint32{},
		b: message.NewBuilder(message.DefaultLimits())}
	s.handle = p.call(0, wire.OpOpenProducer, &m, &s.ok).Handle
	s.credit = int64(s.ok.Credit)
	return s
}

// build makes the next batch for a partition.
func (s *sender) build(part uint32, n, size int) []byte {
	s.Helper()
	s.b.Reset()
	for range n {
		s.value = stampOf(s.value[:0], s.number, s.next[part], size)
		s.next[part]++
		if err := s.b.Append(&message.Message{Value: s.value, Timestamp: 1}); err != nil {
			s.Fatalf("build a batch: %v", err)
		}
	}
	var err error
	s.batch, err = s.b.Finish(s.batch[:0], message.Producer{ID: s.ok.ProducerID, Epoch: s.ok.ProducerEpoch, Sequence: s.seq[part]}, nil)
	if err != nil {
		s.Fatalf("finish a batch: %v", err)
	}
	if s.ok.ProducerID != 0 {
		s.seq[part] += uint32(n)
	}
	return s.batch
}

// produce sends a batch when there is credit for it.
func (s *sender) produce(part uint32, batch []byte) uint32 {
	s.Helper()
	for s.credit <= 0 {
		s.take()
	}
	s.corr++
	s.out = wire.AppendProduceFrame(s.out[:0], wire.Header{Correlation: s.corr, Handle: s.handle}, part, len(batch))
	s.out = append(s.out, batch...)
	s.write(s.out)
	s.credit -= int64(len(s.out))
	if s.level != message.AckNone {
		s.sizes[s.corr] = int64(len(s.out))
		s.inFlight++
	}
	return s.corr
}

// send builds and produces.
func (s *sender) send(part uint32, n, size int) uint32 {
	s.Helper()
	return s.produce(part, s.build(part, n, size))
}

// take waits for one frame: an ack, credit, a goodbye or an ERROR.
func (s *sender) take() {
	s.Helper()
	h, b := s.frame()
	s.handleFrame(h, b)
}

func (s *sender) handleFrame(h wire.Header, b []byte) {
	s.Helper()
	switch {
	case h.Opcode == wire.OpProduce.Response():
		if err := s.ack.Parse(b); err != nil {
			s.Fatalf("parse an ack: %v", err)
		}
		size, in := s.sizes[h.Correlation]
		if !in || int64(s.ack.Credit) != size {
			s.Fatalf("ack of %d returns %d bytes, %d were spent (%t)", h.Correlation, s.ack.Credit, size, in)
		}
		delete(s.sizes, h.Correlation)
		s.credit += size
		s.inFlight--
		s.acked++
		if s.ack.Flags&wire.ProduceDuplicate != 0 {
			s.dups++
		}
		if s.onAck != nil {
			s.onAck(h.Correlation, &s.ack)
		}
	case h.Opcode == wire.OpCredit:
		var c wire.Credit
		if err := c.Parse(b); err != nil {
			s.Fatalf("parse CREDIT: %v", err)
		}
		s.credit += int64(c.Bytes)
	case h.Opcode == wire.OpGoAway:
		s.bye = true
	case h.Opcode == wire.OpError.Response() && s.onError != nil:
		var e wire.Error
		if err := e.Parse(b); err != nil {
			s.Fatalf("parse ERROR: %v", err)
		}
		if size, in := s.sizes[h.Correlation]; in {
			delete(s.sizes, h.Correlation)
			s.credit += size
			s.inFlight--
		}
		s.onError(h.Correlation, &e)
	default:
		s.Fatalf("%s, while waiting for acks", describe(h, b))
	}
}

// drain waits for all answers.
func (s *sender) drain() {
	s.Helper()
	for s.inFlight > 0 {
		s.take()
	}
}

// settle waits until all that was sent has been taken, also at ack level none: a
// peer that leaves at once may take it along.
func (s *sender) settle() {
	s.Helper()
	s.drain()
	corr := s.ask(0, wire.OpPing, &wire.Ping{})
	for {
		h, b := s.frame()
		if h.Opcode == wire.OpPing.Response() && h.Correlation == corr {
			return
		}
		s.handleFrame(h, b)
	}
}

// reader is a consumer on a peer. It checks that each message comes once and in
// order, and returns the credit of every frame.
type reader struct {
	*peer
	parts  map[uint32]uint32         // partition by handle
	at     map[uint32]message.Offset // next offset by partition
	next   map[[2]uint32]uint64      // next number by partition and producer
	got    int                       // messages
	frames int
	keep   bool // credit is not returned
}

func (p *peer) reader() *reader {
	return &reader{peer: p, parts: map[uint32]uint32{}, at: map[uint32]message.Offset{}, next: map[[2]uint32]uint64{}}
}

// follow subscribes to the partitions of a topic from the start given, each
// with that much credit.
func (r *reader) follow(topic string, parts uint32, start wire.StartKind, credit uint64) {
	r.Helper()
	for i := range parts {
		h, ok := r.subscribe(wire.Subscribe{Topic: topic, Partition: i, Start: start})
		r.parts[h], r.at[i] = i, ok.Start
	}
	for h := range r.parts {
		r.grant(h, credit)
	}
}

// deliver takes one DELIVER.
func (r *reader) deliver() {
	r.Helper()
	h, b := r.frame()
	r.delivered(h, b)
}

func (r *reader) delivered(h wire.Header, b []byte) {
	r.Helper()
	part, in := r.parts[h.Handle]
	if h.Opcode != wire.OpDeliver || !in {
		r.Fatalf("%s, while waiting for messages", describe(h, b))
	}
	r.frames++
	r.batches(b, func(p uint32, m *message.Message) {
		if p != part || m.Offset != r.at[p] {
			r.Fatalf("message at %d/%d, expected %d/%d", p, m.Offset, part, r.at[p])
		}
		r.at[p]++
		r.check(p, m.Value)
	})
	if !r.keep {
		r.grant(h.Handle, uint64(h.FrameBytes()))
	}
}

// check verifies a value and that it is the next one of its producer.
func (r *reader) check(part uint32, v []byte) {
	if len(v) < stampBytes {
		r.Helper()
		r.Fatalf("a value of %d bytes", len(v))
	}
	from, n := binary.LittleEndian.Uint32(v), binary.LittleEndian.Uint64(v[4:])
	for i := stampBytes; i < len(v); i++ {
		if v[i] != byte(n)+byte(i)*7 {
			r.Helper()
			r.Fatalf("message %d of producer %d is damaged at byte %d", n, from, i)
		}
	}
	k := [2]uint32{part, from}
	if n != r.next[k] {
		r.Helper()
		r.Fatalf("message %d of producer %d in partition %d, expected %d", n, from, part, r.next[k])
	}
	r.next[k]++
	r.got++
}

// until receives until n messages came in all.
func (r *reader) until(n int) {
	r.Helper()
	for r.got < n {
		r.deliver()
	}
	if r.got > n {
		r.Fatalf("%d messages, %d were sent", r.got, n)
	}
}
