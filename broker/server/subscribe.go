package server

import (
	"time"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/partition"
	"github.com/portask/portask/broker/server/evloop"
	"github.com/portask/portask/broker/wire"
)

// subscription is one reader of one partition: a cursor and credit, no bytes.
// 56 bytes without pointers. It is in two lists, its connection's and its
// partition's.
type subscription struct {
	cursor   int64 // next offset to deliver
	credit   int64 // bytes of frames it may still get; below zero by less than a frame
	conn     uint32
	gen      uint32
	part     uint32 // partition Num
	connNext uint32
	connPrev uint32
	partNext uint32
	partPrev uint32
	max      uint32 // bytes of batches in one frame
	use      uint8
	flags    uint8
}

const (
	subOpen    uint8 = 1 << iota
	subReady         // in loop.ready
	subReading       // a history job is under way
	subFetch         // a FETCH: one answer, then gone
	subLate          // behind, or not served when it could have been: its delays are its own
)

// fetchWait is what a FETCH needs beyond a subscription.
type fetchWait struct {
	correlation uint32
	deadline    int64 // Loop.now, ms
}

func (s *subscription) connection() evloop.Conn { return evloop.Conn{Index: s.conn, Gen: s.gen} }

func (l *loop) subOf(c evloop.Conn, handle uint32) (uint32, *subscription) {
	i, use := splitHandle(handle)
	if !l.subs.Has(i) {
		return 0, nil
	}
	s := l.subs.Slot(i) // of any use
	if s.flags&subOpen == 0 || s.use != use || s.conn != c.Index || s.gen != c.Gen {
		return 0, nil
	}
	return i, s
}

func (l *loop) subscribe(c evloop.Conn, _ *[4]uint32, h wire.Header, payload []byte) error {
	m := &l.msg.sub
	if err := m.Parse(payload); err != nil {
		return err
	}
	p, err := l.srv.lookup(m.Topic, m.Partition)
	if err != nil {
		return err
	}
	if m.Start == wire.StartTime { // finding a time may read the disk
		return l.subscribeAt(c, h, p, *m)
	}
	off, err := p.Resolve(partition.StartKind(m.Start), m.StartValue)
	if err != nil {
		return err
	}
	return l.subscribed(c, h, p, m, off)
}

// subscribeAt finds the start by time and subscribes then.
func (l *loop) subscribeAt(c evloop.Conn, h wire.Header, p *partition.Partition, m wire.Subscribe) error {
	return l.async(c, h, func() (func(*loop), error) {
		off, err := p.Resolve(partition.StartTime, m.StartValue)
		return func(l *loop) {
			if err := l.subscribed(c, h, p, &m, off); err != nil {
				l.fail(c, h, err)
			}
			l.answered(c, 1)
		}, err
	})
}

// subscribed adds the subscription and answers it.
func (l *loop) subscribed(c evloop.Conn, h wire.Header, p *partition.Partition, m *wire.Subscribe, off message.Offset) error {
	i, s, err := l.addSub(c, p, off)
	if err != nil || s == nil { // nil: the connection ended meanwhile
		return err
	}
	p.Follow(1)
	s.credit = int64(m.Credit)
	s.max = clampDeliver(m.MaxDeliverBytes, l.srv.live.Load().deliverBytes, maxFrame(l.ev.User(c)))
	mk := p.Marks()
	l.msg.subOK = wire.SubscribeOK{Start: off, LogStart: mk.Start, HWM: mk.Visible, LogEnd: mk.Written}
	_ = l.send(c, wire.Header{Opcode: wire.OpSubscribe.Response(), Correlation: h.Correlation, Handle: handleOf(i, s.use)}, &l.msg.subOK)
	l.enqueue(i, s)
	return nil
}

// clampDeliver bounds the batches of a frame by what the subscriber asked for,
// the broker's setting, and half of the largest frame the peer takes.
func clampDeliver(wanted uint32, mine, frame int) uint32 {
	n := uint32(min(mine, frame/2))
	if wanted != 0 {
		n = min(n, wanted)
	}
	return n
}

// addSub makes a subscription that starts at off; nil if the connection is gone.
func (l *loop) addSub(c evloop.Conn, p *partition.Partition, off message.Offset) (uint32, *subscription, error) {
	u := l.ev.User(c)
	if u == nil {
		return 0, nil, nil
	}
	if err := takeHandle(u, "subscribe"); err != nil {
		return 0, nil, err
	}
	i, s := l.subs.Take()
	if i > handlesMax {
		l.subs.Put(i)
		u[wordState] -= oneHandle
		return 0, nil, fault.New(fault.ResourceExhausted, "subscribe").WithField("subscriptions").WithLimit(int64(i), handlesMax)
	}
	l.useCount++
	slot := l.partSlot(p.Num())
	*s = subscription{cursor: int64(off), conn: c.Index, gen: c.Gen, part: p.Num(), connNext: u[wordSubs], partNext: slot.first, use: l.useCount, flags: subOpen}
	if off < p.Visible() {
		s.flags |= subLate
	}
	if next := u[wordSubs]; next != 0 {
		l.subs.At(next).connPrev = i
	}
	u[wordSubs] = i
	if slot.first != 0 {
		l.subs.At(slot.first).partPrev = i
	}
	slot.first = i
	slot.count++
	if slot.count == 1 {
		p.SetInterest(l.id, true)
	}
	return i, s, nil
}

// dropSub takes a subscription out of its partition's list and frees it; the
// connection's list is the caller's.
func (l *loop) dropSub(i uint32, s *subscription) {
	slot := l.partSlot(s.part)
	if s.partPrev != 0 {
		l.subs.At(s.partPrev).partNext = s.partNext
	} else {
		slot.first = s.partNext
	}
	if s.partNext != 0 {
		l.subs.At(s.partNext).partPrev = s.partPrev
	}
	slot.count--
	if p := l.srv.cat.ByNum(s.part); p != nil {
		if slot.count == 0 {
			p.SetInterest(l.id, false)
		}
		if s.flags&subFetch == 0 {
			p.Follow(-1)
		}
	}
	if s.flags&subFetch != 0 {
		delete(l.fetches, i)
	}
	if d := l.half[s.conn]; d != nil && d.sub == i && !d.held {
		delete(l.half, s.conn) // nothing of its frame is out: it must not come behind the answer that ends it
		l.recycle(d)
	}
	if r := l.ahead[i]; r != nil {
		delete(l.ahead, i)
		l.dropRead(r)
	}
	*s = subscription{}
	l.subs.Put(i)
}

// removeSub drops a subscription of a live connection.
func (l *loop) removeSub(i uint32, s *subscription) {
	if u := l.ev.User(s.connection()); u != nil {
		u[wordState] -= oneHandle
		if s.flags&subFetch != 0 {
			u[wordFrame] -= oneFetch
		}
		if s.connPrev == 0 {
			u[wordSubs] = s.connNext
		}
	}
	if s.connPrev != 0 {
		l.subs.At(s.connPrev).connNext = s.connNext
	}
	if s.connNext != 0 {
		l.subs.At(s.connNext).connPrev = s.connPrev
	}
	l.dropSub(i, s)
}

func (l *loop) unsubscribe(c evloop.Conn, _ *[4]uint32, h wire.Header, payload []byte) error {
	if err := new(wire.Unsubscribe).Parse(payload); err != nil {
		return err
	}
	i, s := l.subOf(c, h.Handle)
	if s == nil {
		return errHandle("unsubscribe", h.Handle)
	}
	l.removeSub(i, s)
	return l.send(c, wire.Header{Opcode: wire.OpUnsubscribe.Response(), Correlation: h.Correlation, Handle: h.Handle}, &wire.Empty{})
}

// credit adds to a subscription's credit. A late CREDIT for a handle that was
// closed is no error: the two frames crossed.
func (l *loop) credit(c evloop.Conn, h wire.Header, payload []byte) error {
	var m wire.Credit
	if err := m.Parse(payload); err != nil {
		return err
	}
	i, s := l.subOf(c, h.Handle)
	if s == nil {
		return nil
	}
	s.credit = min(s.credit+int64(m.Bytes), wire.MaxCreditBytes)
	l.enqueue(i, s)
	return nil
}

// fetch is a subscription that gets one frame, as the answer to its request, or
// an empty one when the wait is over.
func (l *loop) fetch(c evloop.Conn, u *[4]uint32, h wire.Header, payload []byte) error {
	var m wire.Fetch
	if err := m.Parse(payload); err != nil {
		return err
	}
	p, err := l.srv.lookup(m.Topic, m.Partition)
	if err != nil {
		return err
	}
	off, err := p.Resolve(partition.StartOffset, int64(m.Offset))
	if err != nil {
		return err
	}
	if n := int64(u[wordFrame]/oneFetch) + 1; n > fetchesPerConn {
		return fault.New(fault.ResourceExhausted, "fetch").WithField("fetches").
			WithDetail("waiting on one connection").WithLimit(n, fetchesPerConn)
	}
	i, s, err := l.addSub(c, p, off)
	if err != nil || s == nil {
		return err
	}
	u[wordFrame] += oneFetch
	s.flags |= subFetch
	s.credit = 1 // one frame
	s.max = clampDeliver(m.MaxBytes, l.srv.live.Load().deliverBytes, maxFrame(u))
	wait := time.Duration(m.MaxWaitMs) * time.Millisecond
	if m.MinBytes == 0 {
		wait = 0
	}
	l.fetches[i] = &fetchWait{correlation: h.Correlation, deadline: l.now() + min(wait, fetchWaitMax).Milliseconds()}
	if off >= p.Visible() && wait == 0 {
		l.fetchEnd(i, s)
		return nil
	}
	l.ev.WantTick(tickEvery)
	l.enqueue(i, s)
	return nil
}

// fetchWaitMax bounds MaxWaitMs, so that a fetch ends within the heartbeat's
// time scale.
const fetchWaitMax = 60 * time.Second

// fetchEnd answers a fetch with what the partition's marks are and no batches.
func (l *loop) fetchEnd(i uint32, s *subscription) {
	f := l.fetches[i]
	if f == nil || s.flags&subReading != 0 {
		return // an answer is on its way
	}
	if d := l.half[s.conn]; d != nil && d.sub == i {
		return
	}
	c := s.connection()
	d := wire.DeliverHead{Wanted: message.Offset(s.cursor)}
	if p := l.srv.cat.ByNum(s.part); p != nil {
		d.Partition, d.HWM, d.LogStart = p.Index(), p.Visible(), p.Start()
	}
	var mark int
	l.buf, mark = wire.BeginFrame(l.buf[:0], wire.Header{Opcode: wire.OpFetch.Response(), Correlation: f.correlation})
	l.buf = wire.EndFrame(wire.AppendDeliverHead(l.buf, &d), mark)
	l.removeSub(i, s)
	_ = l.ev.Send(c, l.buf)
}
