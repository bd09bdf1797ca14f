package server

import (
	"crypto/rand"
	"encoding/binary"
	"time"
	"unsafe"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/mempool"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/partition"
	"github.com/portask/portask/broker/server/evloop"
	"github.com/portask/portask/broker/topic"
	"github.com/portask/portask/broker/wire"
)

// producer is one OPEN_PRODUCER of a connection.
type producer struct {
	credit   int64  // bytes it may still send; below zero by less than a frame
	grant    int64  // what it has in all, to be returned to the budget
	given    int64  // what it was given first: a grant that was lowered grows back to it
	returned uint32 // credit of batches at ack level none, not yet told
	conn     uint32
	gen      uint32
	next     uint32 // in the connection's list
	prev     uint32
	topic    *topic.Topic
	level    message.AckLevel
	use      uint8
	reports  uint8 // where its REPORT went: reportNone and so on
	wants    wire.AdviceWants
	heard    uint32 // of Server.changes, those that told has
	told     told
}

// granted gives late credit to a producer, if it is still there.
func (l *loop) granted(w waiter) {
	_, p := l.producerOf(w.conn, w.h)
	if p == nil || p.grant != 0 {
		l.srv.budget.give(w.want)
		return
	}
	p.grant, p.given, p.credit = w.want, w.want, p.credit+w.want
	_ = l.send(w.conn, wire.Header{Opcode: wire.OpCredit, Handle: w.h}, &wire.Credit{Bytes: uint64(w.want), Reason: wire.CreditNormal})
}

// producerOf finds a producer by its handle, if it is the connection's own.
func (l *loop) producerOf(c evloop.Conn, handle uint32) (uint32, *producer) {
	i, use := splitHandle(handle)
	if !l.prods.Has(i) {
		return 0, nil
	}
	p := l.prods.Slot(i) // of any use
	if p.use != use || p.conn != c.Index || p.gen != c.Gen || p.level > message.AckDurable {
		return 0, nil
	}
	return i, p
}

func errHandle(what string, h uint32) error {
	return fault.New(fault.HandleUnknown, what).WithField("handle").WithDetail("%d is not open on this connection", h)
}

func (l *loop) openProducer(c evloop.Conn, u *[4]uint32, h wire.Header, payload []byte) error {
	var m wire.OpenProducer
	if err := m.Parse(payload); err != nil {
		return err
	}
	t, err := l.srv.cat.Lookup(m.Topic)
	if err != nil {
		return err
	}
	if lv := l.srv.opts.Engine.Levels(); !lv.Has(m.Ack) {
		return fault.New(fault.LevelUnavailable, "open producer").WithField("ack").
			WithDetail("engine %s gives %s, not %s", l.srv.opts.Engine.Name(), lv, m.Ack)
	}
	if l.drain {
		return fault.New(fault.ShuttingDown, "open producer")
	}
	id, epoch := m.ProducerID, m.ProducerEpoch
	if !m.Idempotent {
		id, epoch = 0, 0
	} else if id == 0 {
		if id, err = newProducerID(); err != nil {
			return err
		}
	}
	if err := takeHandle(u, "open producer"); err != nil {
		return err
	}
	i, p := l.prods.Take()
	if i > handlesMax {
		l.prods.Put(i)
		u[wordState] -= oneHandle
		return fault.New(fault.ResourceExhausted, "open producer").WithField("producers").WithLimit(int64(i), handlesMax)
	}
	l.useCount++
	*p = producer{conn: c.Index, gen: c.Gen, next: u[wordProducers], topic: t, level: m.Ack, use: l.useCount,
		wants: m.Wants, heard: l.srv.changes.Load()}
	l.note(p, l.srv.advice(l.srv.live.Load(), t, m.Wants))
	if p.next != 0 {
		l.prods.At(p.next).prev = i
	}
	u[wordProducers] = i
	handle := handleOf(i, p.use)

	want := int64(m.CreditWanted)
	if most := l.srv.live.Load().producerBytes; want == 0 || want > most {
		want = most
	}
	want = max(want, grantMin)
	if p.grant, err = l.srv.budget.take(want, waiter{l: l, conn: c, h: handle}); err != nil {
		l.removeProducer(u, i, p)
		return err
	}
	p.credit, p.given = p.grant, p.grant
	reason := wire.CreditNormal
	if p.grant == 0 {
		reason = wire.CreditMemory
	}
	return l.send(c, wire.Header{Opcode: wire.OpOpenProducer.Response(), Correlation: h.Correlation, Handle: handle}, &wire.OpenProducerOK{
		ProducerID: id, ProducerEpoch: epoch, Partitions: uint32(len(t.Partitions)), Credit: uint64(p.grant), CreditReason: reason,
		MaxBatch: uint32(l.srv.opts.Limits.BatchBytes), TopicID: t.ID, Advice: p.told.opening(p.wants),
	})
}

// newProducerID returns 63 random bits: ids need no coordination and no state,
// and 10,000 producers collide with a probability of 5e-12.
func newProducerID() (uint64, error) {
	var b [8]byte
	for {
		if _, err := rand.Read(b[:]); err != nil {
			return 0, fault.New(fault.Internal, "open producer").WithCause(err)
		}
		if id := binary.LittleEndian.Uint64(b[:]) >> 1; id != 0 {
			return id, nil
		}
	}
}

func (l *loop) closeProducer(c evloop.Conn, u *[4]uint32, h wire.Header, payload []byte) error {
	if err := new(wire.CloseProducer).Parse(payload); err != nil {
		return err
	}
	i, p := l.producerOf(c, h.Handle)
	if p == nil {
		return errHandle("close producer", h.Handle)
	}
	l.removeProducer(u, i, p)
	return l.send(c, wire.Header{Opcode: wire.OpCloseProducer.Response(), Correlation: h.Correlation, Handle: h.Handle}, &wire.Empty{})
}

// removeProducer drops a producer of a live connection.
func (l *loop) removeProducer(u *[4]uint32, i uint32, p *producer) {
	u[wordState] -= oneHandle
	if p.prev == 0 {
		u[wordProducers] = p.next
	} else {
		l.prods.At(p.prev).next = p.next
	}
	if p.next != 0 {
		l.prods.At(p.next).prev = p.prev
	}
	l.dropProducer(i, p)
}

// dropProducer frees a producer; the connection's list is the caller's.
func (l *loop) dropProducer(i uint32, p *producer) {
	if p.grant > 0 {
		l.srv.budget.give(p.grant)
	} else {
		l.srv.budget.forget(l, handleOf(i, p.use))
	}
	if p.reports != reportNone {
		l.srv.choices.forget(chooserKey{l.id, handleOf(i, p.use)}, p)
	}
	l.note(p, told{})
	*p = producer{level: 0xff} // meets no handle
	l.prods.Put(i)
}

// produce takes one PRODUCE frame: the hot path in.
func (l *loop) produce(c evloop.Conn, h wire.Header, frame []byte, ch *mempool.Chunk) error {
	_, pr := l.producerOf(c, h.Handle)
	if pr == nil {
		l.fail(c, h, errHandle("produce", h.Handle))
		return nil
	}
	if pr.credit <= 0 {
		return l.fatal(c, h, fault.New(fault.CreditExceeded, "produce").WithField("credit").
			WithDetail("the producer has %d bytes left", pr.credit))
	}
	pr.credit -= int64(len(frame))
	tok := partition.Token{Loop: uint32(l.id), Conn: connBits(c), Handle: h.Handle, Correlation: h.Correlation, Bytes: uint32(len(frame)), Received: l.received()}
	num, _, b, err := wire.ParseProduce(wire.PayloadOf(frame))
	if err != nil {
		return l.fatal(c, h, err)
	}
	if err := l.admit(pr, num, b, ch, tok); err != nil {
		pr.credit += int64(tok.Bytes) // an ERROR gives the credit of its batch back
		if closes(err) {
			return l.fatal(c, h, err)
		}
		l.fail(c, h, err)
	}
	return nil
}

// admit checks a batch and hands it to its partition.
func (l *loop) admit(pr *producer, index uint32, b []byte, ch *mempool.Chunk, tok partition.Token) error {
	if l.srv.low.Load() {
		return fault.New(fault.StorageFull, "produce").WithField("storage").
			WithDetail("the disk is nearly full; consuming goes on").WithRetryAfter(time.Second)
	}
	e, _, err := message.Validate(b, 0, &l.srv.opts.Limits)
	if err != nil {
		return err
	}
	if e.Attributes.Control() || e.LastOffsetDelta != e.Count-1 {
		return fault.New(fault.Invalid, "produce").WithField("attributes").
			WithDetail("control batches and batches with holes are the broker's alone")
	}
	if v := l.srv.live.Load(); !v.accepts(e.Attributes) && !v.acceptsLate(e.Attributes, pr.wants, l.now()) {
		return fault.New(fault.NotSupported, "produce").WithField("attributes").
			WithDetail("the broker is configured not to take %s values compressed with %s", e.Attributes.Encoding(), e.Attributes.Algorithm())
	}
	var dictionary uint32
	if e.Attributes.Algorithm() == message.Zstd {
		if dictionary, err = l.checkDictionary(pr.topic, b, &e); err != nil {
			return err
		}
	}
	p, err := pr.topic.Partition(index)
	if err != nil {
		return err
	}
	l.stats.batchesIn++
	l.stats.messagesIn += uint64(e.Count)
	l.stats.bytesIn += uint64(len(b))
	l.stats.uncompressedIn += uint64(e.UncompressedLen)
	l.stats.batchesBy[int(e.Attributes.Algorithm())%Algorithms]++
	off := uint32(uintptr(unsafe.Pointer(unsafe.SliceData(b))) - uintptr(unsafe.Pointer(unsafe.SliceData(ch.B))))
	r, err := p.Produce(&e, b, ch, off, pr.level, tok, l.turn.wall)
	if err != nil {
		return err
	}
	if dictionary != 0 && r.Time > l.turn.wall {
		pr.topic.UsesDictionary(dictionary, r.Time) // the log's time, which goes on where the clock was set back
	}
	// The partition's tail will refer to the chunk weakly. Said now, since a chunk
	// that held one long frame is given back before the turn's end, when the
	// partition takes its reference: it is then kept as the newest of the tail.
	ch.Gen()
	if r.Flush {
		l.flushes = append(l.flushes, p)
	}
	if r.Done {
		l.complete(&partition.Completion{Token: tok, Index: index, Level: pr.level, Duplicate: true, Base: r.Base, Time: r.Time})
	}
	return nil
}

// complete answers one produce.
func (l *loop) complete(a *partition.Completion) {
	c := connOf(a.Conn)
	i, pr := l.producerOf(c, a.Handle)
	if pr == nil {
		return // closed since; its grant went back with it
	}
	if a.Err != nil {
		pr.credit += int64(a.Bytes) // in full, unsaid
		l.fail(c, wire.Header{Opcode: wire.OpProduce, Correlation: a.Correlation, Handle: a.Handle}, a.Err)
		return
	}
	back, reason := l.srv.budget.settle(pr, a.Bytes)
	pr.credit += int64(back)
	if a.Level == message.AckNone {
		pr.returned += back
		if int64(pr.returned) >= pr.grant/4 {
			n := pr.returned
			pr.returned = 0
			_ = l.send(c, wire.Header{Opcode: wire.OpCredit, Handle: a.Handle}, &wire.Credit{Bytes: uint64(n), Reason: reason})
			l.tell(i, pr)
		}
		return
	}
	ok := wire.ProduceOK{Partition: a.Index, BaseOffset: a.Base, AppendTime: a.Time, Credit: back, Pressure: uint8(reason)}
	if a.Duplicate {
		l.stats.duplicates++
		ok.Flags = wire.ProduceDuplicate
	}
	var mark int
	l.buf, mark = wire.BeginFrame(l.buf[:0], wire.Header{Opcode: wire.OpProduce.Response(), Correlation: a.Correlation, Handle: a.Handle})
	l.buf = wire.EndFrame(ok.Append(l.buf), mark)
	if err := l.ev.Send(c, l.buf); err == nil {
		l.stats.acks++
		l.tell(i, pr)
	}
}
