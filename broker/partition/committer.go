package partition

import (
	"context"
	"sync"
	"time"

	"github.com/portask/portask/broker/bus"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/monitor/latency"
	"github.com/portask/portask/broker/storage"
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

// Committer runs the syncs, deferred appends, trims and background syncs of all
// partitions, on the workers of a bus.Pool: the storage side of the broker. Each
// partition has one task of each kind, so its syncs follow each other, and so do
// its appends; the lanes are as long as there are partitions, at most.
type Committer struct {
	opts CommitterOptions
	pool *bus.Pool

	mu      sync.Mutex
	soon    background // guarded by mu
	late    background // guarded by mu
	closing bool       // guarded by mu
}

// The committer's lanes. Workers serve them in turns, so that none starves
// another: a partition that is always written to keeps coming back.
const (
	laneWrite = iota
	laneSync
	laneTrim
)

// tasks are what a partition has in the committer's lanes.
type tasks struct{ write, sync, trim bus.Task }

func (c *Committer) bind(p *Partition) {
	p.tasks.write.Bind(c.pool, laneWrite, func() bool { return p.write(-1) })
	p.tasks.sync.Bind(c.pool, laneSync, p.runSync)
	p.tasks.trim.Bind(c.pool, laneTrim, p.trim)
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

// NewCommitter makes a committer; Close ends it.
func NewCommitter(o CommitterOptions) *Committer {
	o = o.WithDefaults()
	return &Committer{opts: o, pool: bus.New(bus.Options{Name: "commit", Workers: o.Workers,
		Lanes: []bus.Lane{laneWrite: {Name: "write"}, laneSync: {Name: "sync"}, laneTrim: {Name: "trim"}}})}
}

// Stats are the figures of the committer's workers and lanes.
func (c *Committer) Stats() bus.Stats { return c.pool.Stats() }

// Write hands the writer role of p to a worker.
func (c *Committer) Write(p *Partition) { p.tasks.write.Schedule() }

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
	c.mu.Unlock()
	c.pool.Close()
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
	m, _ := p.Figures()
	return m
}

// Figures are the Marks and the engine's figures, taken at once.
func (p *Partition) Figures() (Marks, storage.LogStats) {
	ls, start := p.log.Stats(), p.log.Start()
	p.mu.Lock()
	defer p.mu.Unlock()
	return Marks{Start: start, Visible: p.st.Visible(), Written: p.st.written, Durable: p.st.durable, Epoch: p.epoch,
		Bytes: ls.Bytes, Fenced: p.st.fence != nil, Failed: p.st.fence != nil || ls.Failed, Corruptions: int64(ls.Corruptions),
		Batches: p.count.batches, Messages: uint64(p.st.written - p.count.from), Appended: p.count.bytes, Segments: ls.Segments}, ls
}
