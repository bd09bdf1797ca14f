package nats

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/loadgen/driver"
	"github.com/portask/portask/loadgen/peers/internal/flow"
)

const coreName = "nats-core"

// Core is the driver of NATS's core, for commands.
var Core = driver.Kind{
	Name: coreName,
	Doc:  "NATS without JetStream: nothing is stored, at most once",
	Addr: defaultAddr,
	Open: func(ctx context.Context, o driver.Options) (driver.Driver, error) {
		for k := range o.Settings {
			return nil, fmt.Errorf("driver %s has no setting %q", coreName, k)
		}
		return OpenCore(ctx, o.Addr)
	},
}

const (
	// confirmBytes may be with the server, and unconfirmed, if BufferBytes says
	// nothing. Half of it is about 1,000 messages of 1 KiB: a PING costs
	// nothing beside them, and the server's 64 MiB for a subscriber are far.
	confirmBytes = 2 << 20
	// inboxMessages of a partition wait for Poll. Then nats.go queues.
	inboxMessages = 16 << 10
	// closeWait is how long the Close of a Conn waits for answers.
	closeWait = 2 * time.Second
)

// core implements driver.Driver.
type core struct {
	*link
	topics known
	can    flow.Can
}

// OpenCore connects to the server at addr.
func OpenCore(ctx context.Context, addr string) (driver.Driver, error) {
	l, err := open(ctx, addr)
	if err != nil {
		return nil, err
	}
	return &core{link: l, can: flow.Can{
		Name:        coreName,
		Levels:      []driver.Level{level(message.AckNone, driver.Nothing, "written to the connection; at most once")},
		NoLevel:     "core NATS stores and acknowledges nothing",
		NoKeys:      "a message has a subject and no key",
		NoRetention: "core NATS stores nothing",
		NoExisting:  "a subject exists only while somebody subscribes",
		NoGroups:    "a subject has no partitions to share out",
		NoQueues:    "a message given to a queue group is not acknowledged by its member",
	}}, nil
}

func (d *core) Name() string { return coreName }

func (d *core) Describe(context.Context) (driver.Description, error) {
	return driver.Description{System: coreName, Version: d.version(), Levels: d.can.Levels, Settings: map[string]string{
		"client": "nats.go " + natsgo.Version, "storage": "none",
	}}, nil
}

func (d *core) Check(n driver.Needs) error { return d.can.Check(n) }

// Prepare only remembers: a subject needs no creation.
func (d *core) Prepare(_ context.Context, t driver.Topic) (driver.Topic, error) {
	if err := checkTopic(t); err != nil {
		return t, err
	}
	d.topics.set(t.Name, t.Partitions)
	return driver.Topic{Name: t.Name, Partitions: t.Partitions, Visibility: message.AckNone}, nil
}

func (d *core) Lookup(context.Context, string) (driver.Topic, error) {
	return driver.Topic{}, &driver.Unsupported{Driver: coreName, What: "a topic that exists", Why: d.can.NoExisting}
}

func (d *core) Drop(_ context.Context, name string) error {
	d.topics.forget(name)
	return nil
}

func (d *core) Connect(ctx context.Context, role string) (driver.Conn, error) {
	c := &coreConn{d: d}
	var err error
	c.nc, err = d.dial(ctx, role, c.fail)
	return c, err
}

type coreConn struct {
	conn
	d *core
}

func (c *coreConn) Producer(_ context.Context, o driver.ProducerOptions) (driver.Producer, error) {
	n, err := c.d.topics.get(o.Topic)
	if err != nil {
		return nil, err
	}
	if o.Ack != message.AckNone {
		return nil, c.d.can.Check(driver.Needs{Mode: driver.Stream, Ack: o.Ack})
	}
	p := newStreamer(c.nc, o, n)
	c.addProducer(p)
	return p, nil
}

func (c *coreConn) Consumer(ctx context.Context, o driver.ConsumerOptions) (driver.Consumer, error) {
	if o.Mode != driver.Stream {
		return nil, c.d.can.Check(driver.Needs{Mode: o.Mode})
	}
	k := &coreConsumer{nc: c.nc, Inbox: flow.NewInbox(o.Partitions, inboxMessages)}
	for i, p := range o.Partitions {
		s, err := c.nc.Subscribe(subject(o.Topic, int(p)), func(m *natsgo.Msg) {
			k.Put(i, flow.Item{Value: m.Data, Offset: message.NoOffset})
		})
		if err == nil {
			k.subs = append(k.subs, s)
			err = s.SetPendingLimits(-1, -1)
		}
		if err != nil {
			k.Close()
			return nil, fmt.Errorf("subscribe to partition %d: %w", p, err)
		}
	}
	// The answer comes behind the subscriptions: the server has them.
	if err := flush(ctx, c.nc); err != nil {
		k.Close()
		return nil, err
	}
	c.addConsumer(k, k.Fail)
	return k, nil
}

// coreConsumer implements driver.Consumer.
type coreConsumer struct {
	*flow.Inbox
	nc   *natsgo.Conn
	subs []*natsgo.Subscription
}

func (k *coreConsumer) CaughtUp(ctx context.Context) (bool, error) {
	// What the server sent before its answer is with the client.
	if err := flush(ctx, k.nc); err != nil {
		return false, err
	}
	var delivered int64
	for _, s := range k.subs {
		n, _, err := s.Pending()
		if err != nil {
			return false, err
		}
		d, err := s.Delivered()
		if err != nil {
			return false, err
		}
		if n > 0 {
			return false, nil
		}
		delivered += d
	}
	return k.Handled() == uint64(delivered) && k.Empty(), nil
}

func (k *coreConsumer) Close() error {
	k.Inbox.Close()
	for _, s := range k.subs {
		s.Unsubscribe() // an error means that the connection is gone
	}
	return nil
}

// streamer sends without acknowledgement: core NATS, and JetStream at ack level
// none. It implements driver.Producer.
type streamer struct {
	nc       *natsgo.Conn
	subjects []string
	window   int64
	closed   atomic.Bool

	messages, wire atomic.Uint64
	confirmed      atomic.Int64 // bytes the server has confirmed; by whoever holds asking
	sent           atomic.Int64 // bytes published
	asking         atomic.Bool
	confirmedMore  chan struct{} // capacity 1
	asked          sync.WaitGroup
}

func newStreamer(nc *natsgo.Conn, o driver.ProducerOptions, partitions int) *streamer {
	p := &streamer{nc: nc, subjects: subjects(o.Topic, partitions), window: confirmBytes, confirmedMore: make(chan struct{}, 1)}
	if o.BufferBytes > 0 {
		p.window = int64(o.BufferBytes)
	}
	return p
}

type streamerSlot struct {
	p        *streamer
	answered func(error)
}

func (p *streamer) Slot(answered func(error)) driver.Slot { return &streamerSlot{p, answered} }

func (s *streamerSlot) Send(ctx context.Context, partition uint32, m *message.Message) error {
	p := s.p
	switch {
	case p.closed.Load():
		return fmt.Errorf("%w: the producer", driver.ErrClosed)
	case int(partition) >= len(p.subjects):
		return fmt.Errorf("no partition %d", partition)
	case len(m.Key) > 0:
		return &driver.Unsupported{Driver: coreName, What: "keys", Why: "a message has a subject and no key"}
	}
	n := int64(len(m.Value))
	for p.sent.Load() > p.confirmed.Load() && p.sent.Load()+n-p.confirmed.Load() > p.window {
		p.ask()
		select {
		case <-p.confirmedMore:
		case <-ctx.Done():
			return ctx.Err()
		}
		if p.nc.IsClosed() {
			return fmt.Errorf("%w: the connection", driver.ErrClosed)
		}
	}
	if err := p.nc.Publish(p.subjects[partition], m.Value); err != nil {
		return err
	}
	p.messages.Add(1)
	p.wire.Add(pubBytes(p.subjects[partition], 0, len(m.Value)))
	if p.sent.Add(n)-p.confirmed.Load() > p.window/2 {
		p.ask()
	}
	s.answered(nil)
	return nil
}

// ask asks the server to confirm what was sent, unless that is under way.
func (p *streamer) ask() {
	if !p.asking.CompareAndSwap(false, true) {
		return
	}
	at := p.sent.Load()
	p.asked.Go(func() {
		if p.nc.FlushTimeout(confirmWait) == nil {
			p.confirm(at)
		}
		p.asking.Store(false)
		select {
		case p.confirmedMore <- struct{}{}:
		default:
		}
	})
}

// confirm notes that the server has the first at bytes.
func (p *streamer) confirm(at int64) {
	for {
		have := p.confirmed.Load()
		if at <= have || p.confirmed.CompareAndSwap(have, at) {
			return
		}
	}
}

// confirmWait bounds one wait for the server's answer; then the driver asks
// again.
const confirmWait = 5 * time.Second

func (p *streamer) Congested() bool {
	return p.sent.Load()-p.confirmed.Load() > p.window*3/4
}

func (p *streamer) Stats() driver.ProducerStats {
	n := p.messages.Load()
	return driver.ProducerStats{Messages: n, Batches: n, WireBytes: p.wire.Load(), RawBytes: uint64(p.sent.Load())}
}

func (p *streamer) Flush(ctx context.Context) error {
	at := p.sent.Load()
	err := flush(ctx, p.nc)
	if err == nil {
		p.confirm(at)
	}
	return err
}

// flush waits until the server has all that was published.
func flush(ctx context.Context, nc *natsgo.Conn) error {
	if _, ok := ctx.Deadline(); !ok { // nats.go insists on one
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, flushWait)
		defer cancel()
	}
	return nc.FlushWithContext(ctx)
}

// flushWait bounds a flush whose context has no end.
const flushWait = 30 * time.Second

// pubBytes is a message on the wire: PUB subject [reply] length, value.
func pubBytes(subject string, reply, value int) uint64 {
	digits := 1
	for n := value; n >= 10; n /= 10 {
		digits++
	}
	if reply > 0 {
		reply++
	}
	return uint64(len("PUB  \r\n\r\n") + len(subject) + reply + digits + value)
}

func (p *streamer) Close(ctx context.Context) error {
	if p.closed.Swap(true) {
		return nil
	}
	var err error
	if ctx.Err() == nil && !p.nc.IsClosed() {
		err = p.Flush(ctx)
	}
	p.asked.Wait()
	return err
}
