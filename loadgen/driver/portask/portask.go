// Package portask drives a Portask deployment through the Go client.
//
// Options mean what the client says they mean. Compression left to the
// deployment is a producer without a policy of its own: it follows the broker's
// advice if the broker gives any, and sends raw batches otherwise.
package portask

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/portask/portask/broker/client"
	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/loadgen/driver"
)

// name of the Kind and the system.
const name = "portask"

// Kind is the driver for commands.
var Kind = driver.Kind{
	Name: name,
	Doc:  "a Portask deployment, through its Go client",
	Addr: "127.0.0.1:7474",
	Settings: map[string]string{
		"heartbeat": "interval between signs of life; the broker is taken for dead after three without one (default: the broker's, 10s)",
	},
	Open: func(ctx context.Context, o driver.Options) (driver.Driver, error) {
		var more []client.Option
		for k, v := range o.Settings {
			switch k {
			case "heartbeat":
				d, err := time.ParseDuration(v)
				if err != nil || d <= 0 {
					return nil, fmt.Errorf("driver %s: heartbeat %q: want a duration such as 1s", name, v)
				}
				more = append(more, client.WithHeartbeat(d))
			default:
				return nil, fmt.Errorf("driver %s has no setting %q", name, k)
			}
		}
		if o.Decisions != nil {
			more = append(more, client.WithDecisionLog(o.Decisions, o.DecisionBytes)) // one log of all clients
		}
		return Open(ctx, o.Addr, more...)
	},
}

// Driver implements driver.Driver.
type Driver struct {
	addr  string
	more  []client.Option
	admin *client.Client
}

// Open connects to the broker at addr. more are given to every client.
func Open(ctx context.Context, addr string, more ...client.Option) (*Driver, error) {
	d := &Driver{addr: addr, more: more}
	var err error
	d.admin, err = d.dial(ctx, "admin")
	return d, err
}

func (d *Driver) dial(ctx context.Context, role string) (*client.Client, error) {
	return client.Dial(ctx, d.addr, append([]client.Option{client.WithName("portask-loadgen " + role)}, d.more...)...)
}

// Name implements driver.Driver.
func (d *Driver) Name() string { return name }

// Describe implements driver.Driver. What a level gives depends on the storage
// engine behind a topic; the text is that of the engine on disk.
func (d *Driver) Describe(context.Context) (driver.Description, error) {
	s := d.admin.Server()
	return driver.Description{
		System: name, Version: s.Version,
		Levels: []driver.Level{
			{Ack: message.AckNone, Name: "none", Gives: driver.Nothing, How: "written to the connection"},
			{Ack: message.AckAccepted, Name: "accepted", Gives: driver.OS, How: "with the broker's operating system"},
			{Ack: message.AckDurable, Name: "durable", Gives: driver.Disk, How: "synced before the answer, many producers at once"},
		},
		Settings: map[string]string{"node": s.NodeID, "cluster": s.ClusterID},
	}, nil
}

// Check implements driver.Driver.
func (d *Driver) Check(n driver.Needs) error {
	if n.Mode != driver.Stream {
		return &driver.Unsupported{Driver: name, What: fmt.Sprintf("delivery mode %s", n.Mode), Why: "the broker has no such mode yet"}
	}
	return nil
}

// Prepare implements driver.Driver.
func (d *Driver) Prepare(ctx context.Context, t driver.Topic) (driver.Topic, error) {
	_, err := d.admin.Admin().CreateTopic(ctx, client.TopicConfig{
		Name: t.Name, Partitions: t.Partitions, Visibility: t.Visibility, Retention: t.Retention, RetentionBytes: t.RetentionBytes,
	})
	if err != nil {
		return driver.Topic{}, err
	}
	return d.Lookup(ctx, t.Name)
}

// Lookup implements driver.Driver.
func (d *Driver) Lookup(ctx context.Context, topic string) (driver.Topic, error) {
	t, err := d.admin.Admin().DescribeTopic(ctx, topic)
	if err != nil {
		return driver.Topic{}, err
	}
	return driver.Topic{
		Name: t.Name, Partitions: len(t.Partitions), Visibility: t.Visibility, Retention: t.Retention, RetentionBytes: t.RetentionBytes,
	}, nil
}

// Drop implements driver.Driver.
func (d *Driver) Drop(ctx context.Context, topic string) error {
	if err := d.admin.Admin().DeleteTopic(ctx, topic); err != nil && !errors.Is(err, fault.NotFound) {
		return err
	}
	return nil
}

// Connect implements driver.Driver.
func (d *Driver) Connect(ctx context.Context, role string) (driver.Conn, error) {
	c, err := d.dial(ctx, role)
	if err != nil {
		return nil, err
	}
	return &conn{d: d, c: c}, nil
}

// Close implements driver.Driver.
func (d *Driver) Close() error { return d.admin.Close() }

type conn struct {
	d *Driver
	c *client.Client
}

func (c *conn) Close() error { return c.c.Close() }

func (c *conn) Producer(ctx context.Context, o driver.ProducerOptions) (driver.Producer, error) {
	p := &producer{buffer: client.DefaultMaxBuffered}
	opts := []client.ProducerOption{client.WithAck(o.Ack), client.WithEncoding(o.Encoding)}
	if o.BatchBytes > 0 {
		opts = append(opts, client.WithBatchBytes(o.BatchBytes))
	}
	if o.Linger >= 0 {
		opts = append(opts, client.WithLinger(o.Linger))
	}
	if !o.Compression.Auto {
		opts = append(opts, client.WithCompression(o.Compression.Policy))
	}
	if o.BufferBytes > 0 {
		p.buffer = o.BufferBytes
		opts = append(opts, client.WithMaxBuffered(o.BufferBytes))
	}
	var err error
	if p.out, err = c.c.Producer(ctx, o.Topic, opts...); err != nil {
		return nil, err
	}
	return p, nil
}

type producer struct {
	out    *client.Producer
	buffer int

	closing sync.Once
}

// slot binds the client's callback once.
type slot struct {
	out      *client.Producer
	answered func(error)
	receive  func(client.Receipt, error)
}

func (p *producer) Slot(answered func(error)) driver.Slot {
	s := &slot{out: p.out, answered: answered}
	s.receive = func(_ client.Receipt, err error) { s.answered(err) }
	return s
}

func (s *slot) Send(ctx context.Context, partition uint32, m *message.Message) error {
	if err := s.out.SendAsyncTo(ctx, partition, m, s.receive); err != nil {
		return closed(err)
	}
	return nil
}

func (p *producer) Congested() bool { return p.out.Stats().Buffered > p.buffer/2 }

func (p *producer) Stats() driver.ProducerStats {
	s := p.out.Stats()
	return driver.ProducerStats{
		Messages: s.Messages, Batches: s.Batches, WireBytes: s.Bytes, RawBytes: s.RawBytes, Retries: s.Retries, Duplicates: s.Duplicates,
	}
}

func (p *producer) Flush(ctx context.Context) error { return closed(p.out.Flush(ctx)) }

// Close closes the client's producer once: a second Close of that one would
// flush what the first gave up.
func (p *producer) Close(ctx context.Context) error {
	var err error
	p.closing.Do(func() { err = p.out.Close(ctx) })
	return err
}

// closed marks the client's end as the driver's.
func closed(err error) error {
	if errors.Is(err, fault.Closed) {
		return fmt.Errorf("%w: %w", driver.ErrClosed, err)
	}
	return err
}

func (c *conn) Consumer(ctx context.Context, o driver.ConsumerOptions) (driver.Consumer, error) {
	if o.Mode != driver.Stream {
		return nil, c.d.Check(driver.Needs{Mode: o.Mode})
	}
	k := &consumer{d: c.d, topic: o.Topic, partitions: slices.Clone(o.Partitions), index: map[uint32]int{}}
	for i, p := range k.partitions {
		k.index[p] = i
	}
	k.next = make([]atomic.Int64, len(k.partitions))
	var err error
	if k.in, err = c.c.Consumer(ctx, o.Topic, client.From(client.Latest), client.Partitions(o.Partitions...)); err != nil {
		return nil, err
	}
	for _, p := range k.in.Positions() {
		if i, ok := k.index[p.Partition]; ok {
			k.next[i].Store(int64(p.Offset))
		}
	}
	k.current.k = k
	return k, nil
}

type consumer struct {
	d          *Driver
	in         *client.Consumer
	topic      string
	partitions []uint32
	index      map[uint32]int // of partitions; immutable
	next       []atomic.Int64 // offset behind what was released, by index
	current    batch          // owned by the polling goroutine

	mu sync.Mutex // serialises CaughtUp
}

type batch struct {
	k *consumer
	b client.Batch
	// held: handed out and not released.
	held bool
}

func (b *batch) Partition() uint32                            { return b.b.Partition }
func (b *batch) Messages() iter.Seq2[*message.Message, error] { return b.b.Messages() }
func (b *batch) Release() {
	if !b.held {
		return
	}
	b.held = false
	if i, ok := b.k.index[b.b.Partition]; ok {
		b.k.next[i].Store(int64(b.b.End))
	}
	b.b.Release()
}

func (k *consumer) Poll(ctx context.Context) (driver.Batch, error) {
	k.current.Release()
	b, err := k.in.Poll(ctx)
	if err != nil {
		return nil, closed(err)
	}
	k.current.b, k.current.held = b, true
	return &k.current, nil
}

// CaughtUp asks for the ends of the log and compares.
func (k *consumer) CaughtUp(ctx context.Context) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	t, err := k.d.admin.Admin().DescribeTopic(ctx, k.topic)
	if err != nil {
		return false, err
	}
	for i, p := range k.partitions {
		if int(p) >= len(t.Partitions) {
			return false, fmt.Errorf("topic %s has no partition %d any more", k.topic, p)
		}
		if k.next[i].Load() < int64(t.Partitions[p].LogEnd) {
			return false, nil
		}
	}
	return true, nil
}

func (k *consumer) Close() error { return k.in.Close() }
