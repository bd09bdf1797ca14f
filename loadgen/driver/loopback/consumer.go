package loopback

import (
	"context"
	"fmt"
	"iter"
	"sync"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/loadgen/driver"
)

// consumer is a queue of loads.
type consumer struct {
	partitions []*partition
	wake       chan struct{} // capacity 1
	quit       chan struct{}

	mu     sync.Mutex
	queue  []delivery // guarded by mu
	head   int        // of queue; guarded by mu
	out    bool       // a batch is handed out; guarded by mu
	closed bool       // guarded by mu

	current batch // owned by the polling goroutine
}

type delivery struct {
	p *partition
	l *load
}

func (c *conn) Consumer(_ context.Context, o driver.ConsumerOptions) (driver.Consumer, error) {
	if err := c.d.Check(driver.Needs{Mode: o.Mode}); err != nil {
		return nil, err
	}
	t, err := c.d.topic(o.Topic)
	if err != nil {
		return nil, err
	}
	k := &consumer{wake: make(chan struct{}, 1), quit: make(chan struct{})}
	k.current.k = k
	k.current.all = k.current.each
	for _, i := range o.Partitions {
		if int(i) >= len(t.partitions) {
			return nil, fmt.Errorf("topic %s has no partition %d", o.Topic, i)
		}
		k.partitions = append(k.partitions, t.partitions[i])
	}
	for _, p := range k.partitions {
		p.mu.Lock()
		p.sink, p.queued = k, 0
		p.space.Broadcast()
		p.mu.Unlock()
	}
	c.onClose(func() { k.Close() })
	return k, nil
}

// push queues a load. The partition's lock is held: it comes before k's.
func (k *consumer) push(p *partition, l *load) {
	k.mu.Lock()
	if k.head > 0 && len(k.queue) == cap(k.queue) { // rather than grow
		n := copy(k.queue, k.queue[k.head:])
		clear(k.queue[n:])
		k.queue, k.head = k.queue[:n], 0
	}
	k.queue = append(k.queue, delivery{p, l})
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

func (k *consumer) Poll(ctx context.Context) (driver.Batch, error) {
	k.current.Release()
	for {
		k.mu.Lock()
		if k.closed {
			k.mu.Unlock()
			return nil, driver.ErrClosed
		}
		if k.head < len(k.queue) {
			d := k.queue[k.head]
			k.queue[k.head] = delivery{}
			if k.head++; k.head == len(k.queue) {
				k.queue, k.head = k.queue[:0], 0
			}
			k.out = true
			k.mu.Unlock()
			k.current.d = d
			return &k.current, nil
		}
		k.mu.Unlock()
		select {
		case <-k.wake:
		case <-k.quit:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (k *consumer) CaughtUp(context.Context) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.head == len(k.queue) && !k.out, nil
}

func (k *consumer) Close() error {
	for _, p := range k.partitions {
		p.mu.Lock()
		if p.sink == k {
			p.sink, p.queued = nil, 0
			p.space.Broadcast()
		}
		p.mu.Unlock()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.closed {
		k.closed = true
		close(k.quit)
	}
	return nil
}

// batch implements driver.Batch; one a consumer.
type batch struct {
	k *consumer
	d delivery
	m message.Message
	// all is each, bound once.
	all iter.Seq2[*message.Message, error]
}

func (b *batch) Partition() uint32 { return b.d.p.index }

func (b *batch) Messages() iter.Seq2[*message.Message, error] { return b.all }

func (b *batch) each(yield func(*message.Message, error) bool) {
	rest := b.d.l.bytes
	for i := range b.d.l.items {
		it := &b.d.l.items[i]
		key, value := rest[:it.key:it.key], rest[it.key:it.key+it.value:it.key+it.value]
		rest = rest[it.key+it.value:]
		b.m.Offset, b.m.Timestamp, b.m.Key, b.m.Value = it.offset, it.time, key, value
		if it.key == 0 {
			b.m.Key = nil
		}
		if !yield(&b.m, nil) {
			return
		}
	}
}

func (b *batch) Release() {
	if b.d.l == nil {
		return
	}
	d := b.d
	b.d = delivery{}
	b.k.mu.Lock()
	b.k.out = false
	b.k.mu.Unlock()
	d.p.mu.Lock()
	if d.p.sink == b.k {
		d.p.queued -= len(d.l.bytes)
		d.p.space.Signal()
	}
	d.p.mu.Unlock()
	d.l.reset()
	loads.Put(d.l)
}
