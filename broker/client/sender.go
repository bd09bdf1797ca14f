package client

import (
	"slices"
	"time"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/wire"
)

// send is the sender goroutine: it encodes and sends what is due, opens the
// producer on each new connection, and watches the timeouts. It alone takes
// batches out of queues and closes open ones that lingered.
func (p *Producer) send() {
	defer close(p.ended)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		now := time.Now()
		if p.closing || p.dead() {
			p.failAll(p.err)
		}
		if p.closing && p.encoding == 0 { // else an encoder pokes
			p.failSent(p.err)
			return
		}
		p.reopen(now)
		p.check(now)
		if l, b := p.pick(now); b != nil {
			switch {
			case b.buf != nil:
				p.transmit(l, b, now)
			case b.err != nil:
				b.to(message.Dead, time.Now())
				p.unqueue(l)
				l.sent = append(l.sent, b)
				p.settle(l)
			default:
				b.job = jobNone // an encoder that has not begun need not
				p.encode(b)     // the world may have changed meanwhile
			}
			continue
		}
		p.sleepTill = p.wakeAt(now)
		p.sleeping = true
		p.mu.Unlock()
		var tick <-chan time.Time
		if !p.sleepTill.IsZero() {
			timer.Reset(p.sleepTill.Sub(now))
			tick = timer.C
		}
		select {
		case <-p.wake:
		case <-tick:
		}
		p.mu.Lock()
		p.sleeping = false
		select { // a wake-up that crossed the timer has served its purpose
		case <-p.wake:
		default:
		}
	}
}

// dead reports whether an error ended the producer: Close alone does not.
func (p *Producer) dead() bool { return p.err != nil && fault.CodeOf(p.err) != fault.Closed }

// pick returns the next batch that may be sent now, which stays where it is.
func (p *Producer) pick(now time.Time) (*lane, *batch) {
	if p.cn == nil || p.handle == 0 || p.credit <= 0 {
		return nil, nil
	}
	if p.opens > 0 && !now.Before(p.lingerAt) {
		for _, l := range p.active {
			l.due = l.open != nil
		}
		p.lingerAt = now.Add(p.o.linger)
	}
	due := p.flushing > 0 || p.waiting > 0
	for i := 0; i < len(p.active); {
		at := (p.rotor + i) % len(p.active)
		l := p.active[at]
		if b := p.pickFrom(l, now, due); b != nil {
			p.rotor = at // the same lane first: its batches are written together
			return l, b
		}
		if l.open == nil && len(l.queue) == 0 && !l.unfinished() {
			last := len(p.active) - 1
			p.active[at] = p.active[last]
			p.active = p.active[:last]
			l.active = false
			continue
		}
		i++
	}
	return nil, nil
}

// unfinished reports whether something in sent is still to be sent.
func (l *lane) unfinished() bool {
	for _, b := range l.sent {
		if b.life.State() == message.Pending {
			return true
		}
	}
	return false
}

// pickFrom returns the next batch of l that may be sent now: one to be sent
// again, else the oldest never sent, closing the open one if it is time. An
// idempotent producer has its first batch stored before it sends a second:
// a broker takes the first sequence it sees from a producer for the beginning,
// and must not see the second one first.
func (p *Producer) pickFrom(l *lane, now time.Time, due bool) *batch {
	var first *batch // to be sent again
	busy := false    // something is on the wire
	for _, b := range l.sent {
		switch b.life.State() {
		case message.Pending:
			if first == nil {
				first = b
			}
		case message.Processing:
			busy = true
		}
	}
	if first != nil || l.hole {
		// In order, after all outcomes are known: what the broker refused may
		// have left a hole that refused its successors too.
		if !l.resend && (busy || now.Before(l.notBefore)) {
			return nil
		}
		if l.hole {
			p.renumber(l)
		}
		if first != nil {
			l.resend = true
			return first
		}
	}
	l.resend = false
	if len(l.sent) >= inFlightBatches || !l.known && p.o.idempotent && len(l.sent) > 0 {
		return nil
	}
	if len(l.queue) == 0 && l.open != nil && (due || l.due || l.urgent && !busy) {
		p.shut(l)
	}
	if len(l.queue) > 0 && l.queue[0].job != jobRunning {
		return l.queue[0]
	}
	return nil
}

// renumber closes the hole in l's sequence: the batches behind it move up.
// Nothing is on the wire.
func (p *Producer) renumber(l *lane) {
	l.hole = false
	l.next = l.holeAt
	for _, b := range l.sent {
		if b.shift && b.life.State() == message.Pending {
			b.shift, b.unsure = false, false // under its old number it was not stored
			p.stamp(b, l.next)
			l.next += b.env.Count
		}
	}
}

// gone notes that b was refused for good. If it is certain that it is not
// stored, its sequence is free, and must be taken by what follows: the broker
// accepts no gap. If it may be stored, its sequence must not be used for other
// messages, which would be taken for it: there the next batch tells. It is
// accepted, or refused for the gap, which then is certain.
func (p *Producer) gone(b *batch, err error, certain bool) {
	b.err = err
	b.to(message.Dead, time.Now())
	if b.life.Attempts() == 0 || !p.o.idempotent {
		return
	}
	l, seq := b.lane, b.env.BaseSequence
	switch {
	case b.shift: // it stands behind a hole: it is not stored and had no place of its own
	case !certain || b.unsure:
		at := len(l.doubts)
		for at > 0 && before(seq, l.doubts[at-1]) {
			at--
		}
		l.doubts = slices.Insert(l.doubts, at, seq)
	default:
		l.openHole(seq)
		for n := len(l.doubts); n > 0 && before(seq, l.doubts[n-1]); n-- {
			l.doubts = l.doubts[:n-1] // not stored either, without b
		}
		behind := false
		for _, x := range l.sent {
			if behind {
				// The broker cannot have stored it without b, whatever becomes
				// of the attempt that may be on the wire.
				x.shift = true
			}
			behind = behind || x == b
		}
	}
}

// before compares sequences, which wrap around.
func before(a, b uint32) bool { return int32(a-b) < 0 }

func (l *lane) openHole(at uint32) {
	l.resend = false
	if !l.hole || before(at, l.holeAt) {
		l.hole, l.holeAt = true, at
	}
}

// trust: the batch with sequence seq is stored, so all before it are.
func (l *lane) trust(seq uint32) {
	n := 0
	for n < len(l.doubts) && before(l.doubts[n], seq) {
		n++
	}
	l.doubts = slices.Delete(l.doubts, 0, n)
}

// refute: the first unresolved batch was refused for a gap. Of the batches in
// doubt before it a beginning may be stored, but not the last: its place is
// free. Should it be refused there, the one before is not stored either, and so
// on.
func (l *lane) refute() {
	last := len(l.doubts) - 1
	l.openHole(l.doubts[last])
	l.doubts = l.doubts[:last]
	for _, x := range l.sent {
		x.shift = true
	}
}

// stamp writes identity and sequence into b.
func (p *Producer) stamp(b *batch, seq uint32) {
	b.env.ProducerID, b.env.ProducerEpoch, b.env.BaseSequence = p.id, p.epoch, seq
	message.AppendEnvelope(b.buf[:0], &b.env, 0)
}

// unqueue removes the head of l's queue.
func (p *Producer) unqueue(l *lane) {
	l.queue[0].job = jobNone // which takes it from the encoders, if it waits there
	n := copy(l.queue, l.queue[1:])
	l.queue[n] = nil
	l.queue = l.queue[:n]
	p.ready--
}

// transmit hands b, the head of l's queue or one of sent, to the connection.
func (p *Producer) transmit(l *lane, b *batch, now time.Time) {
	if len(b.buf) > p.lim.BatchBytes { // the broker's limit shrank, or compression grew
		p.gone(b, fault.New(fault.TooLarge, p.op).WithField("batch").WithLimit(int64(len(b.buf)), int64(p.lim.BatchBytes)), true)
		if b.life.Attempts() == 0 {
			p.unqueue(l)
			l.sent = append(l.sent, b)
		} else {
			p.ready--
		}
		p.settle(l)
		return
	}
	if b.life.Attempts() == 0 && p.o.idempotent {
		p.stamp(b, l.next)
	}
	frame := wire.HeaderBytes + wire.ProduceHeadBytes + len(b.buf)
	if err := p.cn.produce(p.handle, l.index, b, p.o.ack != message.AckNone); err != nil {
		// The connection takes no more: wait for the next one.
		p.cn, p.handle = nil, 0
		return
	}
	if b.life.Attempts() == 0 {
		p.unqueue(l)
		l.sent = append(l.sent, b)
		l.next += b.env.Count
		p.stats.Batches++
		p.stats.RawBytes += uint64(b.env.UncompressedLen)
	} else {
		p.ready--
		p.stats.Retries++
	}
	p.stats.Bytes += uint64(frame)
	p.credit -= int64(frame)
	p.lastSend = now
	if p.flow != nil {
		b.delivered = p.flow.delivered
	}
	b.to(message.Processing, now)
	b.handle, b.frame = p.handle, frame
}

// wakeAt returns when there is something to do without being woken; zero:
// never.
func (p *Producer) wakeAt(now time.Time) (t time.Time) {
	earlier := func(x time.Time) {
		if t.IsZero() || x.Before(t) {
			t = x
		}
	}
	if p.live > 0 {
		earlier(p.checkAt)
	}
	if p.cn == nil || p.dead() {
		return t
	}
	if p.handle == 0 {
		if !p.opening {
			earlier(p.openAt)
		}
		return t
	}
	if p.credit <= 0 {
		return t
	}
	// With nothing open the end of the linger is slept for all the same: a
	// message that comes before it needs no wake-up.
	if next := p.lastSend.Add(p.o.linger); next.After(now) {
		earlier(next)
	}
	if p.opens > 0 && p.lingerAt.After(now) {
		earlier(p.lingerAt)
	}
	if p.ready > 0 {
		for _, l := range p.active {
			if l.notBefore.After(now) && l.unfinished() {
				earlier(l.notBefore)
			}
		}
	}
	return t
}

// check fails batches whose delivery timeout is over and breaks a connection
// that does not answer.
func (p *Producer) check(now time.Time) {
	if now.Before(p.checkAt) {
		return
	}
	p.checkAt = now.Add(min(max(p.o.delivery/8, time.Millisecond), p.c.cfg.request/8+time.Millisecond))
	if p.live == 0 {
		return
	}
	for _, l := range p.lanes {
		p.expire(l, now)
		for _, b := range l.sent {
			if b.onWire() && p.cn != nil && b.handle == p.handle && b.life.Attempt(now) > p.c.cfg.request {
				p.cn.fail(fault.New(fault.Timeout, p.op).WithDetail("a batch was not answered for %v", p.c.cfg.request))
			}
		}
	}
}

func (p *Producer) expire(l *lane, now time.Time) {
	old := func(b *batch) bool { return b.life.Age(now) > p.o.delivery }
	late := func() error {
		return fault.New(fault.Timeout, p.op).WithDetail("not acknowledged within %v: %s", p.o.delivery, p.stateLocked())
	}
	for _, b := range l.sent {
		if b.told || b.life.State().Final() || !old(b) {
			continue
		}
		if b.onWire() && b.external {
			continue // its bytes are on the wire: they cannot be given back yet
		}
		// It may be stored, so its sequence is used: it stays in sent and is
		// sent until the outcome is known, though nobody waits for it.
		if b.external {
			b.mem = append(b.mem[:0], b.buf...)
			b.buf, b.external = b.mem, false
		}
		b.told = true
		p.tell(b, nil, late())
		if !p.o.idempotent && b.life.State() == message.Pending {
			b.to(message.Expired, now)
			p.ready--
		}
	}
	p.settle(l)
	for len(l.queue) > 0 && old(l.queue[0]) && l.queue[0].job != jobRunning {
		b := l.queue[0]
		p.unqueue(l)
		b.err = late()
		b.to(message.Expired, now)
		l.sent = append(l.sent, b)
	}
	if b := l.open; b != nil && old(b) && len(l.queue) == 0 {
		p.shut(l)
		p.unqueue(l)
		b.err = late()
		b.to(message.Expired, now)
		l.sent = append(l.sent, b)
	}
	p.settle(l)
}

// failAll fails everything that is not on the wire, nor behind a batch that an
// encoder has.
func (p *Producer) failAll(err error) {
	for _, l := range p.lanes {
		p.shut(l)
		for _, b := range l.sent {
			if b.life.State() == message.Pending {
				b.err = err
				b.to(message.Dead, time.Now())
				p.ready--
			}
		}
		for len(l.queue) > 0 && l.queue[0].job != jobRunning {
			b := l.queue[0]
			p.unqueue(l)
			p.reclaim(b)
			b.err = err
			b.to(message.Dead, time.Now())
			l.sent = append(l.sent, b)
		}
		p.settle(l)
	}
}

// reclaim takes back the builder of a batch that was not encoded.
func (p *Producer) reclaim(b *batch) {
	if b.builder != nil {
		b.builder.Reset()
		p.builders = append(p.builders, b.builder)
		b.builder = nil
	}
}

// failSent tells the callbacks of what is on the wire that nobody waits for the
// outcome any more. The bytes are left to the collector.
func (p *Producer) failSent(err error) {
	for _, l := range p.lanes {
		for _, b := range l.sent {
			if !b.told {
				b.told = true
				p.tell(b, nil, err)
			}
		}
		l.sent = nil
	}
	p.live = 0
	p.complete(completion{})
}

// reopen asks for a handle on a new connection, or after the broker closed the
// old one.
func (p *Producer) reopen(now time.Time) {
	if p.cn == nil || p.handle != 0 || p.opening || p.dead() || now.Before(p.openAt) {
		return
	}
	req := wire.OpenProducer{
		Topic: p.topic, Ack: p.o.ack, Idempotent: p.o.idempotent,
		ProducerID: p.id, ProducerEpoch: p.epoch, CreditWanted: p.c.cfg.inFlight, Wants: p.wants(),
	}
	p.asked = now
	if err := p.cn.request(wire.OpOpenProducer, 0, &req, (*opener)(p)); err != nil {
		p.cn = nil
		return
	}
	p.opening = true
}
