package nats

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/loadgen/driver"
	"github.com/portask/portask/loadgen/peers/internal/flow"
)

// async publishes by PublishMsgAsync. It implements driver.Producer.
type async struct {
	js       jetstream.JetStream
	subjects []string
	out      *flow.Outstanding
	closing  sync.Once
	counters

	mu    sync.RWMutex
	slots map[*natsgo.Msg]*asyncSlot // guarded by mu; an entry is never removed
}

// counters are what a producer counts.
type counters struct{ messages, raw, wire atomic.Uint64 }

func (c *counters) add(subject string, reply, value int) {
	c.messages.Add(1)
	c.raw.Add(uint64(value))
	c.wire.Add(pubBytes(subject, reply, value))
}

// Stats: every message is a request of its own.
func (c *counters) Stats() driver.ProducerStats {
	n := c.messages.Load()
	return driver.ProducerStats{Messages: n, Batches: n, WireBytes: c.wire.Load(), RawBytes: c.raw.Load()}
}

func newAsync(nc *natsgo.Conn, o driver.ProducerOptions, partitions, pending int) (*async, error) {
	p := &async{subjects: subjects(o.Topic, partitions), slots: map[*natsgo.Msg]*asyncSlot{}}
	limit := bufferBytes
	if o.BufferBytes > 0 {
		limit = o.BufferBytes
	}
	p.out = flow.NewOutstanding(limit, pending)
	var err error
	// nats.go gives up after 200 ms at its own limit. It is never reached: Take
	// waits before.
	p.js, err = jetstream.New(nc,
		jetstream.WithPublishAsyncMaxPending(2*pending+1),
		jetstream.WithPublishAsyncAckHandler(func(_ jetstream.JetStream, m *natsgo.Msg, _ *jetstream.PubAck) { p.slot(m).e.Answer(nil) }),
		jetstream.WithPublishAsyncErrHandler(func(_ jetstream.JetStream, m *natsgo.Msg, err error) { p.slot(m).e.Answer(err) }),
	)
	return p, err
}

func (p *async) slot(m *natsgo.Msg) *asyncSlot {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.slots[m]
}

type asyncSlot struct {
	p *async
	e *flow.Entry
	m natsgo.Msg // its Data is the slot's until the answer
}

func (p *async) Slot(answered func(error)) driver.Slot {
	s := &asyncSlot{p: p, e: p.out.Entry(answered)}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slots[&s.m] = s
	return s
}

// ackInbox is the length of nats.go's reply subjects: _INBOX.<22>.<6>... A few
// bytes more or less do not matter.
const ackInbox = 20

func (s *asyncSlot) Send(ctx context.Context, partition uint32, m *message.Message) error {
	p := s.p
	if err := sendable(m, partition, len(p.subjects)); err != nil {
		return err
	}
	if err := s.e.Take(ctx, len(m.Value)); err != nil {
		return err
	}
	s.m.Subject = p.subjects[partition]
	s.m.Data = append(s.m.Data[:0], m.Value...)
	if _, err := p.js.PublishMsgAsync(&s.m); err != nil {
		if s.e.Return() {
			return err
		}
		return nil // Close answered it
	}
	p.add(s.m.Subject, ackInbox, len(m.Value))
	return nil
}

func sendable(m *message.Message, partition uint32, partitions int) error {
	if int(partition) >= partitions {
		return fmt.Errorf("no partition %d of %d", partition, partitions)
	}
	if len(m.Key) > 0 {
		return &driver.Unsupported{Driver: jsName, What: "keys", Why: "a message has a subject and no key"}
	}
	return nil
}

func (p *async) Congested() bool { return p.out.Congested() }

func (p *async) Flush(ctx context.Context) error { return p.out.Wait(ctx) }

func (p *async) Close(ctx context.Context) error {
	var err error
	p.closing.Do(func() {
		err = p.out.Wait(ctx)
		p.out.Close()
		// The subscription of the answers ends with the connection.
	})
	return err
}

const (
	// fastLinger ends a batch that got no answer for so long, if nothing is
	// said.
	fastLinger = 10 * time.Millisecond
	// fastAckTimeout bounds the wait for the server in one call.
	fastAckTimeout = 30 * time.Second
	// fastOutstanding acknowledgements: orbit.go's default.
	fastOutstanding = 2
)

// fast publishes in fast-ingest batches, one open at a time for each partition.
// It implements driver.Producer.
type fast struct {
	js     jetstream.JetStream
	out    *flow.Outstanding
	linger time.Duration
	flow   uint16
	lanes  []*fastLane
	counters
	closing sync.Once
	// held: the last Send waited for the server's word on a batch.
	held atomic.Bool
}

// fastLane is one partition.
type fastLane struct {
	p       *fast
	subject string
	timer   *time.Timer // runs while waiting is not empty

	mu       sync.Mutex
	batch    jetstreamext.FastPublisher // nil: none is open; guarded by mu, like what follows
	first    uint64                     // sequence in the batch of waiting[0]
	waiting  []*fastSlot                // sent in the batch, in order, unanswered
	answered uint64                     // ever
	timed    uint64                     // answered when the timer was set
	failed   error                      // told by the client, of the open batch
	closed   bool
	failing  sync.Mutex // guards failed: the client calls with its own lock held
}

type fastSlot struct {
	p   *fast
	e   *flow.Entry
	buf []byte
}

func newFast(nc *natsgo.Conn, o driver.ProducerOptions, partitions, per int) (*fast, error) {
	limit := bufferBytes
	if o.BufferBytes > 0 {
		limit = o.BufferBytes
	}
	p := &fast{out: flow.NewOutstanding(limit, 1<<20), linger: o.Linger, flow: uint16(per)}
	if o.Linger < 0 {
		p.linger = fastLinger
	}
	p.linger = max(p.linger, time.Millisecond)
	var err error
	if p.js, err = jetstream.New(nc); err != nil {
		return nil, err
	}
	for _, s := range subjects(o.Topic, partitions) {
		l := &fastLane{p: p, subject: s}
		l.timer = time.AfterFunc(time.Hour, l.tick)
		l.timer.Stop()
		p.lanes = append(p.lanes, l)
	}
	return p, nil
}

func (p *fast) Slot(answered func(error)) driver.Slot {
	return &fastSlot{p: p, e: p.out.Entry(answered)}
}

func (s *fastSlot) Send(ctx context.Context, partition uint32, m *message.Message) error {
	p := s.p
	if err := sendable(m, partition, len(p.lanes)); err != nil {
		return err
	}
	if err := s.e.Take(ctx, len(m.Value)); err != nil {
		return err
	}
	s.buf = append(s.buf[:0], m.Value...)
	l := p.lanes[partition]
	if err := l.send(s); err != nil && s.e.Return() {
		return err
	}
	p.add(l.subject, ackInbox, len(m.Value))
	return nil
}

// send publishes; what got its acknowledgement meanwhile is answered after the
// lock is free, since an answer may send.
func (l *fastLane) send(s *fastSlot) error {
	// Who has the lock for long waits for the server's answer to the end of a
	// batch; and the client publishes the first message of one as a request.
	waited := !l.mu.TryLock()
	if waited {
		l.mu.Lock()
	}
	l.p.held.Store(waited || l.batch == nil)
	done, err, cause := l.sendLocked(s)
	l.mu.Unlock()
	for _, d := range done {
		d.e.Answer(cause)
	}
	return err
}

// sendLocked returns the slots that are answered now, with what.
func (l *fastLane) sendLocked(s *fastSlot) (done []*fastSlot, err, cause error) {
	if l.closed {
		return nil, driver.ErrClosed, nil
	}
	if l.batch == nil {
		b, err := jetstreamext.NewFastPublisher(l.p.js,
			jetstreamext.FastPublishFlowControl{Flow: l.p.flow, MaxOutstandingAcks: fastOutstanding, AckTimeout: fastAckTimeout},
			jetstreamext.WithFastPublisherErrorHandler(l.fail))
		if err != nil {
			return nil, err, nil
		}
		l.batch, l.first = b, 1
		l.setFailed(nil)
	}
	ack, err := l.batch.Add(l.subject, s.buf)
	l.waiting = append(l.waiting, s)
	if err == nil {
		err = l.getFailed()
	}
	if err != nil { // of any message of the batch; nobody knows which of them arrive
		return l.end(), nil, err
	}
	if len(l.waiting) == 1 {
		l.timed = l.answered
		l.timer.Reset(l.p.linger)
	}
	if ack.AckSequence >= l.first {
		n := min(int(ack.AckSequence-l.first)+1, len(l.waiting))
		done = append(done, l.waiting[:n]...)
		l.waiting = l.waiting[:copy(l.waiting, l.waiting[n:])]
		l.first += uint64(n)
		l.answered += uint64(n)
	}
	return done, nil, nil
}

// end forgets the open batch and returns what waits. mu is held.
func (l *fastLane) end() []*fastSlot {
	done := l.waiting
	l.waiting, l.batch = nil, nil
	l.answered += uint64(len(done))
	return done
}

func (l *fastLane) fail(err error) { l.setFailed(err) }

func (l *fastLane) setFailed(err error) {
	l.failing.Lock()
	defer l.failing.Unlock()
	l.failed = err
}

func (l *fastLane) getFailed() error {
	l.failing.Lock()
	defer l.failing.Unlock()
	return l.failed
}

// tick ends the batch if it got no answer for a linger.
func (l *fastLane) tick() {
	l.mu.Lock()
	if len(l.waiting) > 0 && l.answered != l.timed {
		l.timed = l.answered
		l.timer.Reset(l.p.linger)
		l.mu.Unlock()
		return
	}
	l.mu.Unlock()
	l.commit(context.Background())
}

// commit ends the open batch, so that all of it is acknowledged.
func (l *fastLane) commit(ctx context.Context) {
	l.mu.Lock()
	if l.batch == nil || len(l.waiting) == 0 {
		l.mu.Unlock()
		return
	}
	ctx, cancel := context.WithTimeout(ctx, fastAckTimeout)
	defer cancel()
	_, err := l.batch.Close(ctx)
	done := l.end()
	l.mu.Unlock()
	for _, s := range done {
		s.e.Answer(err)
	}
}

func (p *fast) Congested() bool {
	if p.held.Load() || p.out.Congested() {
		return true
	}
	// A lane waits at so many messages, whatever the buffer holds.
	for _, l := range p.lanes {
		if l.mu.TryLock() {
			full := len(l.waiting) > int(p.flow)
			l.mu.Unlock()
			if full {
				return true
			}
		}
	}
	return false
}

func (p *fast) Flush(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, l := range p.lanes {
		wg.Go(func() { l.commit(ctx) })
	}
	wg.Wait()
	return p.out.Wait(ctx)
}

func (p *fast) Close(ctx context.Context) error {
	var err error
	p.closing.Do(func() {
		if ctx.Err() == nil {
			err = p.Flush(ctx)
		} else {
			err = ctx.Err()
		}
		p.out.Close()
		for _, l := range p.lanes {
			l.mu.Lock()
			l.closed = true
			l.timer.Stop()
			l.mu.Unlock()
		}
	})
	return err
}
