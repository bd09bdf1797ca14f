package redis

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/loadgen/driver"
	"github.com/portask/portask/loadgen/peers/internal/flow"
)

const (
	// pipelineBytes of values are sent at once, if BatchBytes says nothing.
	pipelineBytes = 64 << 10
	// bufferBytes bounds what a producer has unanswered, if nothing is said.
	bufferBytes = 8 << 20
	// entryBytes is what a short message costs beside its value, about: the
	// command's other words.
	entryBytes = 64
)

// producer implements driver.Producer. Each of its pipes is a connection with a
// goroutine, and has some of the partitions.
type producer struct {
	keys    []any // of partitions: strings
	out     *flow.Outstanding
	client  *goredis.Client
	batch   int
	linger  time.Duration
	pipes   []*pipe
	closing sync.Once
	running sync.WaitGroup
	ctx     context.Context // of pipelines; ends with the producer
	cancel  context.CancelFunc

	messages, batches, wire, raw atomic.Uint64
}

// pipe sends what waits, as one pipeline after another.
type pipe struct {
	p     *producer
	work  chan struct{} // capacity 1: something waits, or has become urgent
	mu    sync.Mutex
	queue []*slot // in order; guarded by mu, like what follows
	bytes int     // of queue
	flush bool    // do not wait for the linger
	since time.Time
}

func (c *conn) Producer(ctx context.Context, o driver.ProducerOptions) (driver.Producer, error) {
	d := c.d
	t, err := d.Lookup(ctx, o.Topic)
	if err != nil {
		return nil, err
	}
	if err := d.can.Check(driver.Needs{Mode: driver.Stream, Ack: o.Ack, Compression: o.Compression}); err != nil {
		return nil, err
	}
	p := &producer{batch: pipelineBytes, linger: max(0, o.Linger)}
	if o.BatchBytes > 0 {
		p.batch = o.BatchBytes
	}
	limit := bufferBytes
	if o.BufferBytes > 0 {
		limit = o.BufferBytes
	}
	p.out = flow.NewOutstanding(limit, 1<<20)
	for i := range t.Partitions {
		p.keys = append(p.keys, key(o.Topic, i))
	}
	n := min(d.connections, t.Partitions)
	p.client = d.client(c.role, n)
	p.ctx, p.cancel = context.WithCancel(context.Background())
	for range n {
		x := &pipe{p: p, work: make(chan struct{}, 1)}
		p.pipes = append(p.pipes, x)
		p.running.Go(x.run)
	}
	c.mu.Lock()
	closed := c.closed
	if !closed {
		c.producers = append(c.producers, p)
	}
	c.mu.Unlock()
	if closed {
		p.Close(p.ctx)
		return nil, errClosedConn
	}
	return p, nil
}

// slot is a message and its command, made once.
type slot struct {
	p    *producer
	e    *flow.Entry
	cmd  *goredis.StringCmd
	args []any // the command's: XADD key * v value, or with k key
	key  value
	body value
}

// value is bytes that go-redis writes without a copy.
type value struct{ b []byte }

func (v *value) MarshalBinary() ([]byte, error) { return v.b, nil }

// The words of an entry.
var (
	xadd, star       any = "XADD", "*"
	keyField, vField any = "k", "v"
)

func (p *producer) Slot(answered func(error)) driver.Slot {
	s := &slot{p: p, e: p.out.Entry(answered)}
	s.args = []any{xadd, nil, star, vField, &s.body}
	s.cmd = goredis.NewStringCmd(p.ctx, s.args...)
	return s
}

func (s *slot) Send(ctx context.Context, partition uint32, m *message.Message) error {
	p := s.p
	if int(partition) >= len(p.keys) {
		return fmt.Errorf("no partition %d of %d", partition, len(p.keys))
	}
	n := len(m.Key) + len(m.Value)
	if err := s.e.Take(ctx, n); err != nil {
		return err
	}
	s.body.b = append(s.body.b[:0], m.Value...)
	s.key.b = append(s.key.b[:0], m.Key...)
	if keyed := len(m.Key) > 0; keyed != (len(s.args) == 7) {
		s.args = append(s.args[:3], vField, &s.body)
		if keyed {
			s.args = append(s.args, keyField, &s.key)
		}
		s.cmd = goredis.NewStringCmd(p.ctx, s.args...)
	}
	s.args[1] = p.keys[partition]
	s.cmd.SetErr(nil)
	p.messages.Add(1)
	p.raw.Add(uint64(n))
	p.wire.Add(uint64(n + entryBytes))
	p.pipes[int(partition)%len(p.pipes)].add(s)
	return nil
}

func (x *pipe) add(s *slot) {
	x.mu.Lock()
	first := len(x.queue) == 0
	if first && x.p.linger > 0 {
		x.since = time.Now()
	}
	before := x.bytes
	x.queue = append(x.queue, s)
	x.bytes += len(s.body.b) + len(s.key.b)
	full := before < x.p.batch && x.bytes >= x.p.batch
	x.mu.Unlock()
	if first || full {
		x.signal()
	}
}

func (x *pipe) signal() {
	select {
	case x.work <- struct{}{}:
	default:
	}
}

// run sends until the producer ends. What is queued then has been answered.
func (x *pipe) run() {
	p := x.p
	var batch []*slot
	pl := p.client.Pipeline()
	var linger *time.Timer
	for {
		wait := time.Duration(-1)
		batch, wait = x.take(batch[:0])
		if len(batch) == 0 {
			var late <-chan time.Time
			if wait > 0 {
				linger = time.NewTimer(wait)
				late = linger.C
			}
			select {
			case <-x.work:
			case <-late:
			case <-p.ctx.Done():
				return
			}
			if linger != nil {
				linger.Stop()
			}
			continue
		}
		for _, s := range batch {
			pl.Process(p.ctx, s.cmd)
		}
		p.batches.Add(1)
		_, err := pl.Exec(p.ctx)
		for _, s := range batch {
			if e := s.cmd.Err(); e != nil {
				s.e.Answer(e)
			} else if err != nil && s.cmd.Val() == "" {
				s.e.Answer(err)
			} else {
				s.e.Answer(nil)
			}
		}
	}
}

// take returns what is to be sent now; if that is nothing, how long to wait for
// the linger, or a negative time.
func (x *pipe) take(batch []*slot) ([]*slot, time.Duration) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.queue) == 0 {
		x.flush = false
		return batch, -1
	}
	if x.p.linger > 0 && !x.flush && x.bytes < x.p.batch {
		if wait := x.p.linger - time.Since(x.since); wait > 0 {
			return batch, wait
		}
	}
	n, bytes := 0, 0
	for n < len(x.queue) && bytes < x.p.batch {
		bytes += len(x.queue[n].body.b) + len(x.queue[n].key.b)
		n++
	}
	batch = append(batch, x.queue[:n]...)
	x.queue = x.queue[:copy(x.queue, x.queue[n:])]
	x.bytes -= bytes
	return batch, -1
}

func (p *producer) Congested() bool { return p.out.Congested() }

func (p *producer) Stats() driver.ProducerStats {
	return driver.ProducerStats{Messages: p.messages.Load(), Batches: p.batches.Load(), WireBytes: p.wire.Load(), RawBytes: p.raw.Load()}
}

func (p *producer) Flush(ctx context.Context) error {
	for _, x := range p.pipes {
		x.mu.Lock()
		x.flush = true
		x.mu.Unlock()
		x.signal()
	}
	return p.out.Wait(ctx)
}

func (p *producer) Close(ctx context.Context) error {
	var err error
	p.closing.Do(func() {
		err = p.Flush(ctx)
		p.out.Close()
		p.cancel()
		p.client.Close() // ends a pipeline that waits for its answer
		p.running.Wait()
	})
	return err
}
