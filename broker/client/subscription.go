package client

import (
	"errors"
	"fmt"
	"time"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/wire"
)

// subscription is a Consumer's part for one partition, across connections. The
// consumer's mutex guards it.
type subscription struct {
	k         *Consumer
	partition uint32
	start     Start
	ready     chan struct{} // closed by the first answer that is final

	started  bool // ready is closed
	gone     bool // replaced or closed
	asked    bool // a SUBSCRIBE is unanswered
	handle   uint32
	err      error // why it ended
	refusal  error // the last answer that a retry may change; nil once it is subscribed
	wait     backoff
	timer    *time.Timer    // for the next attempt; counted in k.timers while it runs
	received message.Offset // the next offset to be received; NoOffset before it is known
	position message.Offset // the next offset to be polled
	hwm      message.Offset
	logStart message.Offset

	held int // bytes received and not released, as on the wire
	owed int // bytes released and not returned to the broker; below 0, bytes to be released that are not returned
}

func newSubscription(k *Consumer, partition uint32) *subscription {
	return &subscription{
		k: k, partition: partition, start: k.o.start, ready: make(chan struct{}),
		received: message.NoOffset,
		wait:     backoff{least: k.c.cfg.backoffLeast, most: k.c.cfg.backoffMost},
	}
}

func (s *subscription) op(verb string) string {
	return fmt.Sprintf("%s %s-%d", verb, s.k.topic, s.partition)
}

// subscribe sends a SUBSCRIBE: from the start, or from where the subscription
// was. mu is held.
func (s *subscription) subscribe(cn *conn) {
	start := s.start
	if s.received != message.NoOffset {
		start = At(s.received)
	}
	// What is still held counts against the window, and is returned like the
	// rest once it is released. What the last delivery took beyond the window
	// has to be released before: the new handle knows nothing of it.
	s.owed = min(0, s.k.o.window-s.held)
	req := wire.Subscribe{
		Topic: s.k.topic, Partition: s.partition, Start: start.kind, StartValue: start.value,
		Credit: uint64(max(0, s.k.o.window-s.held)), MaxDeliverBytes: uint32(s.k.o.frame),
	}
	if err := cn.request(wire.OpSubscribe, 0, &req, s); err != nil {
		return // the next connection will do
	}
	s.asked = true
}

// leave ends the subscription at the broker. mu is held.
func (s *subscription) leave(cn *conn) {
	if s.handle != 0 {
		_ = cn.request(wire.OpUnsubscribe, s.handle, new(wire.Unsubscribe), &leaving{s.handle}) // lost connection: it is ended
		s.handle = 0
	}
}

// stop ends s for good. mu is held.
func (s *subscription) stop(cn *conn) {
	s.gone = true
	if s.timer != nil && s.timer.Stop() {
		s.timer = nil
		s.k.timers.Done()
	}
	if cn != nil {
		s.leave(cn)
	}
}

// leaving takes the answer to an UNSUBSCRIBE.
type leaving struct{ handle uint32 }

func (w *leaving) answer(cn *conn, _ wire.Header, _ []byte, err error) {
	if cn.lost() == nil {
		delete(cn.handles, w.handle)
	}
}

// answer implements answerer for a SUBSCRIBE.
func (s *subscription) answer(cn *conn, h wire.Header, payload []byte, err error) {
	k := s.k
	k.mu.Lock()
	defer k.mu.Unlock()
	s.asked = false
	var ok wire.SubscribeOK
	if err == nil {
		if err = ok.Parse(payload); err == nil && h.Handle == 0 {
			err = fault.New(fault.ProtocolViolation, s.op("subscribe")).WithField("handle").WithDetail("is 0")
		}
		if err != nil {
			cn.fail(err)
			return
		}
	}
	if s.gone {
		if err == nil {
			cn.handles[h.Handle] = s
			s.handle = h.Handle
			s.leave(cn)
		}
		return
	}
	if err != nil {
		s.ended(cn, err)
		return
	}
	cn.handles[h.Handle] = s
	s.handle = h.Handle
	s.refusal = nil
	s.wait.reset()
	s.hwm, s.logStart = ok.HWM, ok.LogStart
	if s.received == message.NoOffset {
		s.received, s.position = ok.Start, ok.Start
	}
	s.begin()
	s.giveBack(cn) // what was released while the answer was on its way
}

// broke ends s with err, which the application is told by the caller or, if later,
// by the next Poll. What was received is dropped: Seek makes a new beginning. mu
// is held.
func (s *subscription) broke(err error, later bool) {
	k := s.k
	s.err = err
	now := time.Now()
	for _, it := range k.queue.remove(func(it item) bool { return it.sub == s }) {
		k.discard(&it, now)
	}
	if k.cn != nil {
		s.leave(k.cn)
	}
	if later {
		k.queue.unpop(item{sub: s, err: err})
	}
}

func (s *subscription) begin() {
	if !s.started {
		s.started = true
		close(s.ready)
	}
}

// ended handles an error of the subscription. mu is held.
func (s *subscription) ended(cn *conn, err error) {
	s.handle = 0
	k := s.k
	switch {
	case isLost(err) && cn.lost() != nil:
		// connected comes next
	case fault.Retryable(err) || isLost(err):
		d := max(s.wait.next(), fault.RetryAfter(err))
		s.refusal = err
		k.c.cfg.log.Warn("subscribe again", "topic", k.topic, "partition", s.partition, "error", err, "in", d)
		if s.timer != nil {
			return // an attempt waits already
		}
		k.timers.Add(1)
		s.timer = time.AfterFunc(d, func() {
			defer k.timers.Done()
			k.mu.Lock()
			defer k.mu.Unlock()
			s.timer = nil
			if k.cn == cn && !s.gone && !s.asked && s.handle == 0 {
				s.subscribe(cn)
			}
		})
	default:
		if errors.Is(err, fault.NotFound) {
			k.c.dicts.forget(k.topic)
		}
		s.err = fmt.Errorf("%s: %w", s.op("consume"), err)
		if s.started {
			k.arrive(item{sub: s, err: s.err})
		}
		s.begin()
	}
}

// failed implements handled.
func (s *subscription) failed(cn *conn, err error, closed bool) {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	f := fault.Find(err)
	switch {
	case s.gone:
	case closed:
		s.ended(cn, err)
	case f != nil && f.Code == fault.Corrupted && f.HasLimit && message.Offset(f.Value) >= s.received && f.Limit > f.Value:
		// The broker goes on behind a damaged range and says so before the next
		// delivery shows it.
		s.received = message.Offset(f.Limit)
		s.k.arrive(item{sub: s, err: &GapError{Topic: s.k.topic, Partition: s.partition, From: message.Offset(f.Value), Next: s.received}})
	default:
		s.k.arrive(item{sub: s, err: fmt.Errorf("%s: %w", s.op("consume"), err)})
	}
}

// grant implements handled: a consumer has no credit to get.
func (s *subscription) grant(*conn, wire.Credit) {}

// admit implements handled. A broker that sends without credit would fill the
// memory of the client.
func (s *subscription) admit(cn *conn, n int) error {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	if s.held+s.owed < s.k.o.window {
		return nil
	}
	err := fault.New(fault.CreditExceeded, s.op("consume")).WithField("credit").
		WithDetail("the broker sent more than it was allowed").
		WithLimit(int64(s.held+s.owed+n), int64(s.k.o.window))
	return s.lies(err)
}

// lies tells the application that the broker breaks the protocol; the
// connection ends with the same error, and the subscription goes on with the
// next one. mu is held.
func (s *subscription) lies(err error) error {
	if !s.gone {
		s.k.arrive(item{sub: s, err: err})
	}
	return err
}

// deliver implements handled.
func (s *subscription) deliver(cn *conn, f *frame) {
	k := s.k
	_, err := wire.ParseDeliver(wire.PayloadOf(f.b), &cn.head)
	if err == nil && cn.head.Partition != s.partition {
		err = fault.New(fault.ProtocolViolation, s.op("consume")).WithField("partition").
			WithDetail("a delivery of partition %d", cn.head.Partition)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	it := item{sub: s, frame: f, life: message.NewLifecycle(time.Now())}
	if err != nil || s.gone || s.err != nil {
		k.discard(&it, it.life.Created())
		if err != nil {
			cn.fail(s.lies(err))
		}
		return
	}
	s.held += len(f.b)
	if n := len(cn.head.Runs); n > 0 {
		s.received = max(s.received, cn.head.Runs[n-1].End)
	}
	k.arrive(it)
}

// released notes that n bytes are free again and returns them to the broker in
// steps of half the window: few frames, and never so late that the broker
// has to wait for them. mu is held.
func (s *subscription) released(n int) {
	s.held -= n
	s.owed += n
	if s.k.cn != nil {
		s.giveBack(s.k.cn)
	}
}

func (s *subscription) giveBack(cn *conn) {
	if s.handle != 0 && s.owed > 0 && s.owed >= s.k.o.window/2 {
		cn.credit(s.handle, uint64(s.owed))
		s.owed = 0
	}
}
