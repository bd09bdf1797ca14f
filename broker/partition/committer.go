package partition

import (
	"context"
	"sync"
	"time"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/monitor/latency"
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
	// Latency takes the durations of appends and syncs; nil measures nothing.
	Latency *latency.Set
}

// Committer runs syncs, deferred appends and the background syncs of all
// partitions on a few goroutines. Each partition is in each list at most once,
// so the lists are bounded by the number of partitions.
type Committer struct {
	opts CommitterOptions

	mu      sync.Mutex
	work    sync.Cond  // on mu
	syncs   fifo       // guarded by mu
	writes  fifo       // guarded by mu
	trims   fifo       // guarded by mu
	soon    background // guarded by mu
	late    background // guarded by mu
	closing bool       // guarded by mu
	wg      sync.WaitGroup
}

// fifo is a queue of partitions.
type fifo struct {
	list []*Partition // list[head:] wait
	head int
}

func (q *fifo) empty() bool { return q.head == len(q.list) }

func (q *fifo) push(p *Partition) { q.list = append(q.list, p) }

func (q *fifo) pop() *Partition {
	p := q.list[q.head]
	q.list[q.head] = nil
	q.head++
	if q.head == len(q.list) {
		q.list, q.head = q.list[:0], 0
	} else if q.head >= 64 && q.head*2 >= len(q.list) {
		n := copy(q.list, q.list[q.head:])
		clear(q.list[n:])
		q.list, q.head = q.list[:n], 0
	}
	return p
}

// background is a list of partitions that are synced together when its timer
// fires. The timer runs only while the list has members.
type background struct {
	list  []*Partition
	timer *time.Timer
}

// WithDefaults returns o with what is not positive replaced by its default.
func (o CommitterOptions) WithDefaults() CommitterOptions {
	if o.Workers <= 0 {
		o.Workers = 4
	}
	if o.VisibleAfter <= 0 {
		o.VisibleAfter = 5 * time.Millisecond
	}
	if o.DurableAfter <= 0 {
		o.DurableAfter = 5 * time.Second
	}
	return o
}

// NewCommitter starts the workers; Close ends them.
func NewCommitter(o CommitterOptions) *Committer {
	o = o.WithDefaults()
	c := &Committer{opts: o}
	c.work.L = &c.mu
	for range o.Workers {
		c.wg.Go(c.run)
	}
	return c
}

// run takes writes, syncs and trims in turns, so that none starves another: a
// partition that is always written to keeps coming back.
func (c *Committer) run() {
	c.mu.Lock()
	defer c.mu.Unlock()
	kinds := [...]struct {
		queue *fifo
		do    func(*Partition) (again bool)
	}{{&c.writes, func(p *Partition) bool { return p.write(-1) }}, {&c.syncs, (*Partition).runSync}, {&c.trims, (*Partition).trim}}
	for turn, idle := 0, 0; ; turn++ {
		k := &kinds[turn%len(kinds)]
		switch {
		case !k.queue.empty():
			idle = 0
			p := k.queue.pop()
			c.mu.Unlock()
			again := k.do(p)
			c.mu.Lock()
			if again {
				c.again(k.queue, p)
			}
		case idle < len(kinds)-1:
			idle++
		case c.closing:
			return
		default:
			idle = 0
			c.work.Wait()
		}
	}
}

// again queues p behind the others, which is fair among partitions. The caller
// takes one from the queues at once; if there is more, it is for someone else.
func (c *Committer) again(q *fifo, p *Partition) {
	alone := c.writes.empty() && c.syncs.empty() && c.trims.empty()
	q.push(p)
	if !alone {
		c.work.Signal()
	}
}

// sync queues p for a sync; called with p.mu held.
func (c *Committer) sync(p *Partition) {
	c.mu.Lock()
	c.syncs.push(p)
	c.work.Signal()
	c.mu.Unlock()
}

// Write hands the writer role of p to a worker.
func (c *Committer) Write(p *Partition) {
	c.mu.Lock()
	c.writes.push(p)
	c.work.Signal()
	c.mu.Unlock()
}

// trim queues p for its retention; called with p.mu held.
func (c *Committer) trim(p *Partition) {
	c.mu.Lock()
	c.trims.push(p)
	c.work.Signal()
	c.mu.Unlock()
}

// later queues p for the background sync; called with p.mu held.
func (c *Committer) later(p *Partition, visible bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return // no partition is open any more that could want it
	}
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

// Quiesce refuses new batches and waits until those admitted are answered. What
// nobody waits for may stay unsynced. If ctx ends first its error is returned,
// and the batches are answered all the same.
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

// Close quiesces the partition and closes its log, which syncs it. It waits for
// reads that are under way; later ones fail with fault.Closed.
func (p *Partition) Close(ctx context.Context) error {
	if err := p.Quiesce(ctx); err != nil {
		return err
	}
	p.open.Lock()
	defer p.open.Unlock()
	return p.log.Close()
}

// Marks is a snapshot of a partition's offsets.
type Marks struct {
	Start, Visible, Written, Durable message.Offset
	Epoch                            uint64
	Bytes                            int64
	Fenced                           bool
	Failed                           bool // Fenced, or about to be: the log has failed
	Corruptions                      int64
	// Since the partition was opened: what was appended.
	Batches, Messages, Appended uint64 // Appended in bytes
	Segments                    int
}

// Marks reads the partition's offsets and size.
func (p *Partition) Marks() Marks {
	ls, start := p.log.Stats(), p.log.Start()
	p.mu.Lock()
	defer p.mu.Unlock()
	return Marks{Start: start, Visible: p.st.Visible(), Written: p.st.written, Durable: p.st.durable, Epoch: p.epoch,
		Bytes: ls.Bytes, Fenced: p.st.fence != nil, Failed: p.st.fence != nil || ls.Failed, Corruptions: int64(ls.Corruptions),
		Batches: p.count.batches, Messages: uint64(p.st.written - p.count.from), Appended: p.count.bytes, Segments: ls.Segments}
}
