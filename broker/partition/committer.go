package partition

import (
	"context"
	"sync"
	"time"

	"github.com/portask/portask/broker/message"
)

// CommitterOptions sets the background work of a broker's partitions.
type CommitterOptions struct {
	// Workers is how many syncs and deferred appends may run at once. Syncs of
	// different files share the device's queue; four keep it busy.
	Workers int
	// VisibleAfter bounds how long a batch that nobody waits for stays
	// invisible on a topic whose visibility is durable.
	VisibleAfter time.Duration
	// DurableAfter bounds how long a batch stays off the device on a topic whose
	// visibility is accepted.
	DurableAfter time.Duration
}

// Committer runs syncs, deferred appends and the background syncs of all
// partitions on a few goroutines. Each partition is in each list at most once,
// so the lists are bounded by the number of partitions.
type Committer struct {
	opts CommitterOptions

	mu      sync.Mutex
	work    sync.Cond    // on mu
	syncs   []*Partition // guarded by mu
	writes  []*Partition // guarded by mu
	soon    background   // guarded by mu
	late    background   // guarded by mu
	closing bool         // guarded by mu
	wg      sync.WaitGroup
}

// background is a list of partitions that are synced together when its timer
// fires. The timer runs only while the list has members.
type background struct {
	list  []*Partition
	timer *time.Timer
}

// NewCommitter starts the workers; Close ends them.
func NewCommitter(o CommitterOptions) *Committer {
	if o.Workers <= 0 {
		o.Workers = 4
	}
	if o.VisibleAfter <= 0 {
		o.VisibleAfter = 5 * time.Millisecond
	}
	if o.DurableAfter <= 0 {
		o.DurableAfter = time.Second
	}
	c := &Committer{opts: o}
	c.work.L = &c.mu
	for range o.Workers {
		c.wg.Go(c.run)
	}
	return c
}

func (c *Committer) run() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case len(c.writes) > 0:
			p := take(&c.writes)
			c.mu.Unlock()
			p.Flush(-1)
			c.mu.Lock()
		case len(c.syncs) > 0:
			p := take(&c.syncs)
			c.mu.Unlock()
			again := p.runSync()
			c.mu.Lock()
			if again {
				c.syncs = append(c.syncs, p) // behind the others: fair among partitions
			}
		case c.closing:
			return
		default:
			c.work.Wait()
		}
	}
}

func take(list *[]*Partition) *Partition {
	l := *list
	p := l[0]
	copy(l, l[1:])
	l[len(l)-1] = nil
	*list = l[:len(l)-1]
	return p
}

// sync queues p for a sync; called with p.mu held.
func (c *Committer) sync(p *Partition) {
	c.mu.Lock()
	c.syncs = append(c.syncs, p)
	c.work.Signal()
	c.mu.Unlock()
}

// Write hands the writer role of p to a worker.
func (c *Committer) Write(p *Partition) {
	c.mu.Lock()
	c.writes = append(c.writes, p)
	c.work.Signal()
	c.mu.Unlock()
}

// later queues p for the background sync; called with p.mu held.
func (c *Committer) later(p *Partition, visible bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, after := &c.late, c.opts.DurableAfter
	if visible {
		b, after = &c.soon, c.opts.VisibleAfter
	}
	b.list = append(b.list, p)
	if len(b.list) > 1 {
		return
	}
	if b.timer == nil {
		b.timer = time.AfterFunc(after, func() { c.due(b) })
	} else {
		b.timer.Reset(after)
	}
}

func (c *Committer) due(b *background) {
	c.mu.Lock()
	list := b.list
	b.list = nil
	c.mu.Unlock()
	for _, p := range list {
		p.background()
	}
}

// Close ends the workers after the work that is queued. Partitions must be
// closed first.
func (c *Committer) Close() {
	c.mu.Lock()
	c.closing = true
	for _, b := range []*background{&c.soon, &c.late} {
		if b.timer != nil {
			b.timer.Stop()
		}
	}
	c.work.Broadcast()
	c.mu.Unlock()
	c.wg.Wait()
}

// signalIdle wakes Close once nobody writes or syncs; called with mu held.
func (p *Partition) signalIdle() {
	if p.idle != nil && !p.writing && !p.syncing {
		close(p.idle)
		p.idle = nil
	}
}

// Quiesce refuses new batches and waits until those admitted are answered.
func (p *Partition) Quiesce(ctx context.Context) error {
	p.mu.Lock()
	p.closed.Store(true)
	var wait chan struct{}
	if p.writing || p.syncing {
		if p.idle == nil {
			p.idle = make(chan struct{})
		}
		wait = p.idle
	}
	p.mu.Unlock()
	if wait == nil {
		return nil
	}
	select {
	case <-wait:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close quiesces the partition and closes its log, which syncs it.
func (p *Partition) Close(ctx context.Context) error {
	if err := p.Quiesce(ctx); err != nil {
		return err
	}
	return p.log.Close()
}

// Marks is a snapshot of a partition's offsets.
type Marks struct {
	Start, Visible, Written, Durable message.Offset
	Epoch                            uint64
	Bytes                            int64
	Fenced                           bool
	Corruptions                      int64
}

// Marks reads the partition's offsets and size.
func (p *Partition) Marks() Marks {
	ls := p.log.Stats()
	p.mu.Lock()
	defer p.mu.Unlock()
	return Marks{Start: p.log.Start(), Visible: p.st.Visible(), Written: p.st.written, Durable: p.st.durable, Epoch: p.log.Epoch(),
		Bytes: ls.Bytes, Fenced: p.st.fence != nil, Corruptions: int64(ls.Corruptions)}
}
