package loopback

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/loadgen/driver"
)

// errRefused answers what Behaviour.RefuseEvery chose.
var errRefused = errors.New("refused, as the target was told to")

// load is messages of one partition on their way: values and keys back to back.
type load struct {
	bytes []byte
	items []item
}

// item is one message of a load.
type item struct {
	slot       *slot
	key, value int32 // bytes
	time       int64
	offset     message.Offset
}

func (l *load) reset() { l.bytes, l.items = l.bytes[:0], l.items[:0] }

// add copies m.
func (l *load) add(m *message.Message, s *slot) {
	l.bytes = append(append(l.bytes, m.Key...), m.Value...)
	l.items = append(l.items, item{slot: s, key: int32(len(m.Key)), value: int32(len(m.Value)), time: m.Timestamp})
}

// loads are kept for reuse, shared by all of a process: they travel from
// producers to consumers.
var loads = sync.Pool{New: func() any { return new(load) }}

// producer fills a load for each partition and serves them on a goroutine of
// its own, as large as they have become.
type producer struct {
	d      *Driver
	t      *topic
	buffer int
	ctx    context.Context // ends with the producer; for waits of the serving goroutine
	cancel context.CancelFunc
	ended  chan struct{}

	mu       sync.Mutex
	open     []*load // by partition; guarded by mu, like all that follows
	dirty    []int   // partitions with something in open
	buffered int     // bytes not yet served
	waiting  int     // in Send
	work     sync.Cond
	space    chan struct{} // capacity 1: buffered became smaller
	closing  bool
	idle     chan struct{} // closed when nothing is left, nil while nobody asks

	messages, batches, bytes atomic.Uint64
}

func (c *conn) Producer(_ context.Context, o driver.ProducerOptions) (driver.Producer, error) {
	t, err := c.d.topic(o.Topic)
	if err != nil {
		return nil, err
	}
	if !o.Ack.Valid() {
		return nil, fmt.Errorf("ack level %d", o.Ack)
	}
	p := &producer{d: c.d, t: t, buffer: o.BufferBytes, ended: make(chan struct{}), space: make(chan struct{}, 1)}
	if p.buffer == 0 {
		p.buffer = bufferBytes
	}
	p.work.L = &p.mu
	p.open = make([]*load, len(t.partitions))
	p.ctx, p.cancel = context.WithCancel(context.Background())
	go p.serve()
	c.onClose(p.abort)
	return p, nil
}

type slot struct {
	p        *producer
	answered func(error)
}

func (p *producer) Slot(answered func(error)) driver.Slot { return &slot{p, answered} }

func (s *slot) Send(ctx context.Context, partition uint32, m *message.Message) error {
	p := s.p
	if int(partition) >= len(p.open) {
		return fmt.Errorf("topic %s has no partition %d", p.t.t.Name, partition)
	}
	n := len(m.Key) + len(m.Value)
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.buffered > 0 && p.buffered+n > p.buffer && !p.closing {
		p.waiting++
		p.mu.Unlock()
		var err error
		select {
		case <-p.space:
		case <-ctx.Done():
			err = ctx.Err()
		case <-p.ended:
		}
		p.mu.Lock()
		p.waiting--
		if err != nil {
			p.letIn() // the signal may have been for another
			return err
		}
	}
	if p.closing {
		p.letIn()
		return driver.ErrClosed
	}
	l := p.open[partition]
	if l == nil {
		l = loads.Get().(*load)
		p.open[partition] = l
		p.dirty = append(p.dirty, int(partition))
	}
	l.add(m, s)
	p.messages.Add(1)
	if p.buffered == 0 || len(p.dirty) == 1 && len(l.items) == 1 {
		p.work.Signal()
	}
	p.buffered += n
	if p.buffered < p.buffer {
		p.letIn()
	}
	return nil
}

// letIn wakes one Send that waits. mu is held.
func (p *producer) letIn() {
	if p.waiting > 0 {
		select {
		case p.space <- struct{}{}:
		default:
		}
	}
}

// serve answers and hands over what was sent, until the producer is closed and
// nothing is left.
func (p *producer) serve() {
	defer close(p.ended)
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		for len(p.dirty) == 0 && !p.closing {
			p.work.Wait()
		}
		if len(p.dirty) == 0 {
			return
		}
		at := p.dirty[0]
		p.dirty = append(p.dirty[:0], p.dirty[1:]...)
		l := p.open[at]
		p.open[at] = nil
		p.mu.Unlock()
		n := len(l.bytes)
		p.batches.Add(1)
		p.bytes.Add(uint64(n))
		p.d.serve(p.ctx, p.t.partitions[at], l)
		p.mu.Lock()
		p.buffered -= n
		p.letIn()
		if p.buffered == 0 && len(p.dirty) == 0 && p.idle != nil {
			close(p.idle)
			p.idle = nil
		}
	}
}

func (p *producer) Congested() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.buffered > p.buffer/2
}

func (p *producer) Stats() driver.ProducerStats {
	n := p.bytes.Load()
	return driver.ProducerStats{Messages: p.messages.Load(), Batches: p.batches.Load(), WireBytes: n, RawBytes: n}
}

func (p *producer) Flush(ctx context.Context) error {
	p.mu.Lock()
	if p.buffered == 0 && len(p.dirty) == 0 {
		p.mu.Unlock()
		return nil
	}
	if p.idle == nil {
		p.idle = make(chan struct{})
	}
	idle := p.idle
	p.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-p.ended:
		return driver.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *producer) Close(ctx context.Context) error {
	err := p.Flush(ctx)
	p.abort()
	if errors.Is(err, driver.ErrClosed) {
		return nil
	}
	return err
}

// abort ends serve; what is left is answered with ErrClosed, since ctx has
// ended when it is served.
func (p *producer) abort() {
	p.mu.Lock()
	p.closing = true
	p.work.Signal()
	p.mu.Unlock()
	p.cancel()
	<-p.ended
}

// serve answers the messages of l and hands them to the partition's consumer.
// If ctx ends, they are answered with driver.ErrClosed instead.
func (d *Driver) serve(ctx context.Context, p *partition, l *load) {
	if ctx.Err() == nil && d.b.faulty() {
		if l = d.misbehave(ctx, l); l == nil {
			return
		}
	}
	ok := p.deliver(ctx, l) // takes l, if it is true: see there
	if ok {
		return
	}
	for i := range l.items {
		if s := l.items[i].slot; s != nil {
			s.answered(driver.ErrClosed)
		}
	}
	l.reset()
	loads.Put(l)
}

// deliver waits for room, answers the messages, and gives l to the partition's
// consumer. False if ctx ended before; then l is the caller's.
func (p *partition) deliver(ctx context.Context, l *load) bool {
	p.order.Lock()
	defer p.order.Unlock()
	p.mu.Lock()
	if p.sink != nil && p.queued > queueBytes {
		stop := context.AfterFunc(ctx, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.space.Broadcast()
		})
		defer stop()
	}
	for p.sink != nil && p.queued > queueBytes && ctx.Err() == nil {
		p.space.Wait()
	}
	if ctx.Err() != nil {
		p.mu.Unlock()
		return false
	}
	for i := range l.items {
		l.items[i].offset = p.end
		p.end++
	}
	k := p.sink
	p.mu.Unlock()
	for i := range l.items {
		if s := l.items[i].slot; s != nil {
			s.answered(nil)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if k == nil || p.sink != k {
		l.reset()
		loads.Put(l)
		return true
	}
	p.queued += len(l.bytes)
	k.push(p, l)
	return true
}

// misbehave applies the driver's behaviour to l, and returns it or what it has
// become; nil if everything in it was thrown away.
func (d *Driver) misbehave(ctx context.Context, l *load) *load {
	b, first := &d.b, d.served.Load()+1
	pause := func(message uint64, t time.Duration) {
		began := time.Now()
		wait(ctx, t)
		d.did.pause(Pause{first, message, time.Since(began)})
	}
	d.began.CompareAndSwap(0, time.Now().UnixNano())
	if b.Stall > 0 {
		from := d.began.Load() + int64(b.StallAt)
		if now := time.Now().UnixNano(); now >= from && now < from+int64(b.Stall) {
			pause(first, time.Duration(from+int64(b.Stall)-now))
		}
	}
	every := func(n uint64, count uint64) bool { return n > 0 && count%n == 0 }
	out := loads.Get().(*load)
	at := 0
	var kept struct {
		item
		bytes []byte
	}
	for _, it := range l.items {
		n := int(it.key + it.value)
		bytes := l.bytes[at : at+n]
		at += n
		c := d.served.Add(1)
		if every(b.SlowEvery, c) {
			pause(c, b.Slow)
		}
		refuse := every(b.RefuseEvery, c)
		if refuse {
			d.did.refused.Add(1)
			it.slot.answered(errRefused)
			it.slot = nil
		}
		if every(b.DropEvery, c) {
			d.did.dropped.Add(1)
			if it.slot != nil {
				it.slot.answered(nil)
			}
			continue
		}
		if every(b.FlipEvery, c) && n > 0 {
			d.did.flipped.Add(1)
			bytes[int(c*7919)%n] ^= 1 << (c % 8)
		}
		if every(b.ReorderEvery, c) && kept.bytes == nil {
			kept.item, kept.bytes = it, bytes
			continue
		}
		out.bytes, out.items = append(out.bytes, bytes...), append(out.items, it)
		if every(b.DuplicateEvery, c) {
			d.did.duplicated.Add(1)
			it.slot = nil
			out.bytes, out.items = append(out.bytes, bytes...), append(out.items, it)
		}
		if kept.bytes != nil {
			out.bytes, out.items = append(out.bytes, kept.bytes...), append(out.items, kept.item)
			kept.bytes = nil
			d.did.reordered.Add(1)
		}
	}
	if kept.bytes != nil { // the last of its load: in its place after all
		out.bytes, out.items = append(out.bytes, kept.bytes...), append(out.items, kept.item)
	}
	l.reset()
	loads.Put(l)
	if len(out.items) == 0 {
		out.reset()
		loads.Put(out)
		return nil
	}
	return out
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
