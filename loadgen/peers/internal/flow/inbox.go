package flow

import (
	"context"
	"iter"
	"sync"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/loadgen/driver"
)

// Inbox is a driver.Consumer's queue between a client's callbacks, which put
// single messages, and Poll, which takes all that a partition has. Poll and the
// batch belong to one goroutine; the rest may be called from any.
type Inbox struct {
	max  int // messages of one partition
	wake chan struct{}
	quit chan struct{}

	mu      sync.Mutex
	queues  []queue // guarded by mu, like what follows
	next    int     // queue that is looked at first
	queued  int     // messages in all queues and in the batch that is out
	handled uint64  // messages ever put
	errs    []error
	closed  bool
	room    sync.Cond // of mu: a queue was taken, or closed

	current batch // owned by the goroutine that polls
}

// Item is a message as the client gave it.
type Item struct {
	Value  []byte
	Offset message.Offset
}

// queue is one partition's. spare is what the batch before it used.
type queue struct {
	partition uint32
	items     []Item
}

// NewInbox makes an inbox for the partitions, each of which holds max messages:
// Put waits beyond.
func NewInbox(partitions []uint32, max int) *Inbox {
	b := &Inbox{max: max, wake: make(chan struct{}, 1), quit: make(chan struct{}), queues: make([]queue, len(partitions))}
	for i, p := range partitions {
		b.queues[i].partition = p
	}
	b.room.L = &b.mu
	b.current.in = b
	b.current.all = b.current.each
	return b
}

// Put adds a message to the partition of that index. The inbox keeps
// item.Value. It reports false if the inbox is closed.
func (b *Inbox) Put(index int, item Item) bool {
	b.mu.Lock()
	q := &b.queues[index]
	for len(q.items) >= b.max && !b.closed {
		b.room.Wait()
	}
	if b.closed {
		b.mu.Unlock()
		return false
	}
	q.items = append(q.items, item)
	b.queued++
	b.handled++
	first := b.queued == 1
	b.mu.Unlock()
	if first {
		b.signal()
	}
	return true
}

// Fail lets the next Poll return err. At most a few are kept.
func (b *Inbox) Fail(err error) {
	const most = 8
	b.mu.Lock()
	if len(b.errs) < most && !b.closed {
		b.errs = append(b.errs, err)
	}
	b.mu.Unlock()
	b.signal()
}

func (b *Inbox) signal() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// Handled is how many messages were put.
func (b *Inbox) Handled() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.handled
}

// Empty reports whether everything that was put has been polled and released.
func (b *Inbox) Empty() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.queued == 0
}

// Poll implements driver.Consumer.
func (b *Inbox) Poll(ctx context.Context) (driver.Batch, error) {
	b.current.Release()
	for {
		b.mu.Lock()
		if b.closed {
			b.mu.Unlock()
			return nil, driver.ErrClosed
		}
		if len(b.errs) > 0 {
			err := b.errs[0]
			b.errs = b.errs[1:]
			b.mu.Unlock()
			return nil, err
		}
		if b.take() {
			b.mu.Unlock()
			b.room.Broadcast()
			return &b.current, nil
		}
		b.mu.Unlock()
		select {
		case <-b.wake:
		case <-b.quit:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// take moves a partition's messages into the batch. mu is held.
func (b *Inbox) take() bool {
	for range b.queues {
		q := &b.queues[b.next]
		if b.next++; b.next == len(b.queues) {
			b.next = 0
		}
		if len(q.items) > 0 {
			c := &b.current
			c.partition = q.partition
			c.items, q.items = q.items, c.items[:0]
			return true
		}
	}
	return false
}

// Close ends the inbox; it may be called more than once.
func (b *Inbox) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.closed = true
		close(b.quit)
		b.room.Broadcast()
	}
}

// batch implements driver.Batch; there is one for an inbox.
type batch struct {
	in        *Inbox
	partition uint32
	items     []Item
	m         message.Message
	// all is each, bound once.
	all iter.Seq2[*message.Message, error]
}

func (c *batch) Partition() uint32 { return c.partition }

func (c *batch) Messages() iter.Seq2[*message.Message, error] { return c.all }

func (c *batch) each(yield func(*message.Message, error) bool) {
	for i := range c.items {
		c.m.Value, c.m.Offset = c.items[i].Value, c.items[i].Offset
		if !yield(&c.m, nil) {
			return
		}
	}
}

func (c *batch) Release() {
	n := len(c.items)
	if n == 0 {
		return
	}
	clear(c.items) // values are the client's memory
	c.items = c.items[:0]
	c.in.mu.Lock()
	c.in.queued -= n
	c.in.mu.Unlock()
}
