package client

import (
	"errors"
	"time"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/wire"
)

// connected implements user.
func (p *Producer) connected(cn *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cn, p.handle, p.opening, p.openAt = cn, 0, false, time.Time{}
	p.hints = cn.greeting(time.Now())
	p.openWait.reset()
	p.poke()
}

// disconnected implements user.
func (p *Producer) disconnected(*conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cn, p.handle, p.opening = nil, 0, false
	p.hints = hints{load: wire.UnknownLoad}
	if p.flow != nil {
		*p.flow = flow{} // another connection may take another path
	}
	p.poke()
}

// opener takes the answer to OPEN_PRODUCER.
type opener Producer

func (o *opener) answer(cn *conn, h wire.Header, payload []byte, err error) {
	p := (*Producer)(o)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cn != cn {
		return // the connection went away, or goes
	}
	p.opening = false
	defer p.poke()
	var ok wire.OpenProducerOK
	if err == nil {
		err = ok.Parse(payload)
	}
	if err == nil {
		err = p.agrees(&ok, h.Handle)
	}
	if err != nil {
		if !fault.Retryable(err) {
			p.fatal(err)
			return
		}
		p.openAt = time.Now().Add(max(p.openWait.next(), fault.RetryAfter(err)))
		p.refusal = err
		p.c.cfg.log.Warn("cannot open the producer", "topic", p.topic, "error", err)
		return
	}
	p.openWait.reset()
	p.refusal = nil
	cn.handles[h.Handle] = p
	p.handle, p.id, p.epoch = h.Handle, ok.ProducerID, ok.ProducerEpoch
	p.credit, p.reason = int64(ok.Credit), ok.CreditReason
	p.openedWith(&ok.Advice)
	if p.flow != nil {
		p.flow.answered(time.Since(p.asked))
	}
	p.lim = p.c.cfg.lim
	if n := int(min(ok.MaxBatch, cn.hello.MaxBatch)); n > 0 && n < p.lim.BatchBytes {
		p.lim.BatchBytes = n
	}
	if room := int(cn.hello.MaxFrame) - wire.HeaderBytes - wire.ProduceHeadBytes; room < p.lim.BatchBytes {
		p.lim.BatchBytes = room
	}
	if n := int(cn.hello.MaxMessage); n > 0 && n < p.lim.MessageBytes {
		p.lim.MessageBytes = n
	}
	for i := len(p.lanes); i < int(ok.Partitions); i++ {
		p.lanes = append(p.lanes, &lane{
			index: uint32(i),
			wait:  backoff{least: p.c.cfg.backoffLeast, most: p.c.cfg.backoffMost},
		})
	}
	if !p.opened {
		p.opened = true
		close(p.first)
	}
}

// agrees checks what the broker made of an OPEN_PRODUCER.
func (p *Producer) agrees(ok *wire.OpenProducerOK, handle uint32) error {
	wrong := func(field, detail string, args ...any) error {
		return fault.New(fault.ProtocolViolation, "open producer "+p.topic).WithField(field).WithDetail(detail, args...)
	}
	switch {
	case handle == 0:
		return wrong("handle", "is 0")
	case ok.Partitions == 0 || ok.Partitions > wire.MaxPartitions:
		return wrong("partitions", "is %d", ok.Partitions)
	case p.o.idempotent && ok.ProducerID == 0:
		return wrong("producer_id", "none was assigned")
	case p.opened && p.o.idempotent && (ok.ProducerID != p.id || ok.ProducerEpoch != p.epoch):
		return fault.New(fault.Fenced, "open producer "+p.topic).
			WithDetail("the broker no longer knows producer %d epoch %d", p.id, p.epoch)
	}
	return nil
}

// fatal ends the producer: everything fails with err, now and later. mu is
// held.
func (p *Producer) fatal(err error) {
	if errors.Is(err, fault.NotFound) {
		p.c.dicts.forget(p.topic)
	}
	if p.err == nil {
		p.err = err
	}
	if !p.opened {
		p.opened = true
		close(p.first)
	}
	p.letIn()
	p.poke()
}

// admit implements handled: nothing is delivered to a producer.
func (p *Producer) admit(*conn, int) error {
	return fault.New(fault.ProtocolViolation, "read frame").WithField("handle").
		WithDetail("DELIVER for a producer")
}

// deliver implements handled; admit keeps it from being called.
func (p *Producer) deliver(cn *conn, f *frame) { p.c.frames.put(f) }

// grant implements handled.
func (p *Producer) grant(cn *conn, x wire.Credit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cn == cn {
		p.granted(x.Bytes, x.Reason)
	}
}

// granted adds credit. mu is held.
func (p *Producer) granted(n uint64, reason wire.CreditReason) {
	was := p.credit
	p.credit = min(p.credit+int64(min(n, wire.MaxCreditBytes)), wire.MaxCreditBytes)
	if reason != p.reason && reason != wire.CreditNormal {
		p.c.cfg.log.Warn("the broker limits the producer", "topic", p.topic, "reason", reason.String(), "credit", p.credit)
	}
	p.reason = reason
	if was <= 0 && p.credit > 0 {
		p.poke()
	}
}

// failed implements handled.
func (p *Producer) failed(cn *conn, err error, closed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.c.cfg.log.Warn("the broker reports", "topic", p.topic, "error", err)
	if p.o.ack == message.AckNone {
		p.stats.Dropped++
	}
	if closed && p.cn == cn {
		p.lose(err)
	}
}

// lose handles a handle that the broker closed with err.
func (p *Producer) lose(err error) {
	p.handle = 0
	switch fault.CodeOf(err) {
	case fault.Fenced:
		p.fatal(err)
	default:
		p.openAt = time.Now().Add(p.openWait.next())
	}
	p.poke()
}

// wrote takes back a batch sent at ack level none, written or not. begun: with
// an error, some of it may have reached the broker; at this level a message is
// rather lost, and reported, than stored twice.
func (b *batch) wrote(err error, begun bool) {
	p, l := b.p, b.lane
	p.mu.Lock()
	defer p.mu.Unlock()
	if !b.onWire() {
		return
	}
	now := time.Now()
	switch {
	case err == nil:
		b.to(message.Acknowledged, now)
		p.count(b, now)
		b.ok.BaseOffset = message.NoOffset
	case begun:
		b.err = lostErr(p.c.addr, err)
		b.to(message.Dead, now)
	default:
		p.retry(b)
	}
	p.settle(l) // may release b
	p.resume(l)
}

// answer implements answerer for a PRODUCE.
func (b *batch) answer(cn *conn, h wire.Header, payload []byte, err error) {
	p, l := b.p, b.lane
	p.mu.Lock()
	defer p.mu.Unlock()
	if !b.onWire() {
		return // failed by Close meanwhile
	}
	current := p.cn == cn && p.handle == b.handle
	if err == nil {
		if err = b.ok.Parse(payload); err == nil && b.ok.Partition != l.index {
			err = fault.New(fault.ProtocolViolation, p.op).WithField("partition").
				WithDetail("a produce to partition %d was answered for %d", l.index, b.ok.Partition)
		}
		if err != nil {
			cn.fail(err)
			p.retry(b)
			p.settle(l)
			return
		}
		if current {
			p.granted(uint64(b.ok.Credit), wire.CreditReason(b.ok.Pressure))
		}
		p.store(b)
	} else {
		p.refused(b, current, err)
	}
	p.settle(l) // may release b
	p.resume(l)
}

// store notes that b is stored.
func (p *Producer) store(b *batch) {
	now := time.Now()
	b.to(message.Acknowledged, now)
	p.count(b, now)
	p.refusal = nil
	l := b.lane
	l.wait.reset()
	l.known = true
	l.trust(b.env.BaseSequence)
	if b.ok.Flags&wire.ProduceDuplicate != 0 {
		p.stats.Duplicates++
	}
}

// count notes how long an acknowledged batch took.
func (p *Producer) count(b *batch, now time.Time) {
	p.stats.Acknowledged++
	p.stats.InFlight += b.life.Processing(now)
	p.stats.Held += b.life.Age(now)
	if p.flow != nil && p.o.ack != message.AckNone && b.life.Attempts() == 1 {
		p.flow.acked(now, b.frame, b.delivered, b.life.Processing(now))
	}
}

// refused handles an ERROR for b, or the loss of its connection.
func (p *Producer) refused(b *batch, current bool, err error) {
	info := fault.InfoOf(err)
	code := fault.CodeOf(err)
	if code == fault.ConnectionLost {
		b.unsure = true
		p.retry(b)
		return
	}
	if info.ClosesHandle {
		if current {
			p.lose(err)
		}
	} else if current {
		p.granted(uint64(b.frame), p.reason)
	}
	l := b.lane
	switch {
	case code == fault.DuplicateSequence:
		b.ok = wire.ProduceOK{Partition: l.index, Flags: wire.ProduceDuplicate, BaseOffset: message.NoOffset}
		p.store(b)
	case code == fault.HandleUnknown, code == fault.OutOfSequence && (b.shift || l.before(b)):
		p.retry(b) // refused only because of what happened before it
	case code == fault.OutOfSequence && len(l.doubts) > 0:
		l.refute()
		p.retry(b)
	case info.Retryable:
		b.unsure = b.unsure || code == fault.Timeout
		p.refusal = err
		p.retry(b)
		l.notBefore = time.Now().Add(max(l.wait.next(), fault.RetryAfter(err)))
	case code == fault.Fenced, code == fault.OutOfSequence:
		p.gone(b, err, false)
		p.fatal(err)
	default:
		maybe := code == fault.Internal || code == fault.StorageFailed || code == fault.Canceled || !code.Known()
		p.gone(b, err, !maybe)
	}
}

// before reports whether an unresolved batch stands before b.
func (l *lane) before(b *batch) bool {
	for _, x := range l.sent {
		if x == b {
			return false
		}
		if !x.life.State().Final() {
			return true
		}
	}
	return false
}

// retry marks b to be sent again.
func (p *Producer) retry(b *batch) {
	if b.told && !p.o.idempotent {
		b.to(message.Expired, time.Now()) // nobody waits for it and it closes no gap
		return
	}
	b.to(message.Pending, time.Now())
	b.lane.resend = false
	p.ready++
	p.activate(b.lane)
}

// resume wakes the sender if something waited for an answer on l.
func (p *Producer) resume(l *lane) {
	if p.ready > 0 || l.urgent || l.due || p.flushing > 0 && p.opens > 0 {
		p.poke()
	}
}

// settle passes on what is resolved at the front of l.sent.
func (p *Producer) settle(l *lane) {
	kept := l.sent[:0]
	blocked := false
	for _, b := range l.sent {
		resolved := b.life.State().Final()
		switch {
		case blocked || !resolved && !b.told:
			blocked = true
			kept = append(kept, b)
		case !resolved: // told: waits for its outcome, holds up nobody
			kept = append(kept, b)
		case b.told:
			p.release(b)
		default:
			p.reclaim(b)
			p.tell(b, b, b.err)
		}
	}
	clear(l.sent[len(kept):])
	l.sent = kept
	if p.waiting > 0 && p.hasRoom() {
		p.letIn()
	}
}

// tell queues the callbacks of b; release is b if nothing else is to be done
// with it.
func (p *Producer) tell(b, release *batch, err error) {
	c := completion{b: release, err: err, entries: b.entries, flushes: b.flushes}
	if release == nil {
		b.entries, b.flushes = nil, nil
	}
	if err == nil {
		c.r = Receipt{
			Partition: b.lane.index, Offset: b.ok.BaseOffset,
			Duplicate: b.ok.Flags&wire.ProduceDuplicate != 0,
		}
		if b.ok.AppendTime != 0 {
			c.r.AppendTime = time.UnixMicro(b.ok.AppendTime)
		}
		if b.ok.BaseOffset != message.NoOffset {
			c.step = 1
		}
	} else {
		c.r = Receipt{Partition: b.lane.index, Offset: message.NoOffset}
		p.stats.Failed += uint64(max(len(c.entries), int(b.env.Count)))
	}
	p.complete(c)
}

// complete queues c for the callback goroutine.
func (p *Producer) complete(c completion) {
	p.done = append(p.done, c)
	if len(p.done) == 1 {
		select {
		case p.called <- struct{}{}:
		default:
		}
	}
}

// hasRoom decides when to let waiting goroutines go on: not for every batch,
// but when a quarter of the buffer is free, or nothing is left that would free
// more.
func (p *Producer) hasRoom() bool {
	return p.buffered <= p.o.maxBuffered-p.o.maxBuffered/4 || p.ready == 0
}

// callBack is the goroutine that calls the callbacks.
func (p *Producer) callBack() {
	defer close(p.quit)
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if len(p.done) == 0 {
			ended := false
			p.mu.Unlock()
			select {
			case <-p.called:
			case <-p.ended:
				ended = true
			}
			p.mu.Lock()
			if ended && len(p.done) == 0 {
				return
			}
			continue
		}
		list := p.done
		p.done, p.spareDone = p.spareDone[:0], nil
		p.mu.Unlock()
		for i := range list {
			list[i].call()
		}
		p.mu.Lock()
		for i := range list {
			for _, f := range list[i].flushes {
				if f.left--; f.left == 0 {
					close(f.done)
				}
			}
			if list[i].b != nil {
				p.release(list[i].b)
			}
		}
		clear(list)
		p.spareDone = list[:0]
		if p.waiting > 0 && p.hasRoom() {
			p.letIn()
		}
	}
}

// call tells everybody who waits for the messages of one batch.
func (c *completion) call() {
	r := c.r
	for _, e := range c.entries {
		switch {
		case e.w != nil:
			e.w.r, e.w.err = r, c.err
			e.w.done <- struct{}{}
		case e.cb != nil:
			e.cb(r, c.err)
		}
		r.Offset += c.step
	}
}
