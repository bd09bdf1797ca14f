// Package nats drives NATS: its core, which passes messages on and keeps none,
// and JetStream, which stores them. Both by nats.go, the client of NATS's own
// makers.
//
// # Core
//
// A partition is the subject <topic>.<partition>. Nothing is stored and nothing
// is acknowledged: a message reaches whoever is subscribed when it passes, at
// most once, so the only ack level is none. Messages are published into the
// client's write buffer, which it flushes as soon as it can. What the server
// has not confirmed is bounded (BufferBytes, or confirmBytes): at half of it
// the driver asks by PING, at all of it it waits for the PONG, as the client's
// Flush does. Without that a producer in a closed loop would overrun the
// server, which then cuts off the subscriber. Subscribers have no limit on what
// waits in the client: beyond its default limit it throws messages away.
//
// CaughtUp asks the server by PING, and then waits for the client's queues to
// be empty; what the server threw away does not count.
//
// # JetStream
//
// A partition is a stream of its own, <topic>-<partition>, with one subject, so
// that partitions do not wait for one another's lock; one replica. Acks are the
// server's PubAcks. Two ways of publishing (setting publish):
//
//	async  PublishMsgAsync, with at most max_pending PubAcks outstanding
//	       (4,000 is nats.go's default); each message has an answer of its own
//	fast   the fast-ingest batches of orbit.go's jetstreamext, which are
//	       acknowledged every flow messages. A batch is ended, and then wholly
//	       acknowledged, when no answer came for a linger (10 ms if nothing is
//	       said). More throughput, late answers.
//
// BatchBytes and, with async, Linger mean nothing: the client sends single
// messages and lets its write buffer join them. Consumers are ordered consumers,
// which start behind the stream's last message, take pull_messages at a time,
// and do not acknowledge.
//
// What an acknowledged message survives is the server's choice: with storage
// file the PubAck comes when the operating system has the message, with
// sync_interval always when the device has it. The latter is offered, as ack
// level durable, if the server's monitoring (setting monitor) says so.
package nats

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"

	natsgo "github.com/nats-io/nats.go"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/loadgen/driver"
)

// defaultAddr is where nats-server listens.
const defaultAddr = "127.0.0.1:4222"

// link is a driver's administrative connection and what both drivers share.
type link struct {
	url   string
	admin *natsgo.Conn
}

func open(ctx context.Context, addr string) (*link, error) {
	if addr == "" {
		addr = defaultAddr
	}
	l := &link{url: addr}
	if !strings.Contains(addr, "://") {
		l.url = "nats://" + addr
	}
	var err error
	l.admin, err = l.dial(ctx, "admin", nil)
	return l, err
}

// dial opens a connection. fail is told what goes wrong later, outside of any
// call.
func (l *link) dial(ctx context.Context, role string, fail func(error)) (*natsgo.Conn, error) {
	if fail == nil {
		fail = func(error) {}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	nc, err := natsgo.Connect(l.url,
		natsgo.Name("portask-loadgen "+role),
		natsgo.ErrorHandler(func(_ *natsgo.Conn, _ *natsgo.Subscription, err error) { fail(err) }),
		natsgo.DisconnectErrHandler(func(_ *natsgo.Conn, err error) {
			if err != nil {
				fail(fmt.Errorf("disconnected: %w", err))
			}
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", l.url, err)
	}
	return nc, nil
}

func (l *link) version() string { return l.admin.ConnectedServerVersion() }

func (l *link) Close() error {
	shut(l.admin)
	return nil
}

// shut closes a connection and returns when its goroutines have ended.
func shut(nc *natsgo.Conn) {
	if nc.IsClosed() {
		return
	}
	ended := nc.StatusChanged(natsgo.CLOSED)
	nc.Close()
	<-ended
}

// checkName refuses what is no subject token, or no name of a stream.
func checkName(name string) error {
	bad := name == ""
	for _, r := range name {
		ok := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_'
		bad = bad || !ok
	}
	if bad {
		return fmt.Errorf("topic %q: NATS takes letters, digits, - and _ in a name of a stream", name)
	}
	return nil
}

// subject is that of a partition.
func subject(topic string, partition int) string { return topic + "." + strconv.Itoa(partition) }

func subjects(topic string, partitions int) []string {
	s := make([]string, partitions)
	for i := range s {
		s[i] = subject(topic, i)
	}
	return s
}

func checkTopic(t driver.Topic) error {
	if t.Partitions < 1 {
		return fmt.Errorf("topic %s: %d partitions", t.Name, t.Partitions)
	}
	return checkName(t.Name)
}

// partitionsMax bounds a search for partitions.
const partitionsMax = 1 << 16

// known are the topics that a driver has seen, with their partitions.
type known struct {
	mu sync.Mutex
	n  map[string]int // guarded by mu
}

func (k *known) set(topic string, partitions int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.n == nil {
		k.n = map[string]int{}
	}
	k.n[topic] = partitions
}

func (k *known) forget(topic string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.n, topic)
}

func (k *known) get(topic string) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	n, ok := k.n[topic]
	if !ok {
		return 0, fmt.Errorf("no topic %s", topic)
	}
	return n, nil
}

// conn is a connection with what was opened on it.
type conn struct {
	nc *natsgo.Conn

	mu        sync.Mutex
	producers []interface{ Close(context.Context) error } // guarded by mu, like what follows
	consumers []interface{ Close() error }
	fails     []func(error)
	closed    bool
}

// fail passes an error of the connection to its consumers.
func (c *conn) fail(err error) {
	c.mu.Lock()
	fails := c.fails
	c.mu.Unlock()
	for _, f := range fails {
		f(err)
	}
}

func (c *conn) addProducer(p interface{ Close(context.Context) error }) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.producers = append(c.producers, p)
}

func (c *conn) addConsumer(k interface{ Close() error }, fail func(error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.consumers = append(c.consumers, k)
	c.fails = append(c.fails, fail)
}

func (c *conn) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	producers, consumers := c.producers, c.consumers
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), closeWait)
	defer cancel()
	for _, p := range producers {
		p.Close(ctx) // what it could not flush has its answer
	}
	for _, k := range consumers {
		k.Close()
	}
	shut(c.nc)
	return nil
}

// level makes a driver.Level.
func level(a message.AckLevel, gives driver.Durability, how string) driver.Level {
	return driver.Level{Ack: a, Name: a.String(), Gives: gives, How: how}
}
