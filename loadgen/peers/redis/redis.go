// Package redis drives Redis streams by go-redis, the client of Redis's own
// makers.
//
// A partition is the stream <topic>:<partition>. A message is an entry with the
// field v, and k if it has a key; its timestamp is not carried. What is sent
// while a pipeline is under way waits and is the next one, at most BatchBytes of
// values (64 KiB if nothing is said): that is how Redis is used at high rates,
// and it adds no waiting at low ones. With Linger a pipeline waits to fill. The
// setting connections gives a producer several, its partitions shared out among
// them, so that order in a partition stays; on two cores two of them were not
// faster than one.
//
// A consumer reads its partitions by XREAD BLOCK with COUNT, the next read being
// under way while one is worked on. It begins behind each stream's last entry.
// Replies are read raw: go-redis's XRead makes a map for each message. An
// entry's id, milliseconds and a counter, is its offset.
//
// The client does not retry: a pipeline sent twice would store it twice.
//
// What an acknowledged message survives is the server's choice, which the driver
// reads from its configuration:
//
//	appendonly no         dies with the process
//	appendfsync no        written to the append-only file before the answer: with
//	                      the operating system
//	appendfsync everysec  the same, but while a sync is under way Redis puts the
//	                      write off for up to two seconds and answers all the
//	                      same: an answered message may die with the process
//	appendfsync always    synced before the answer
package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/loadgen/driver"
	"github.com/portask/portask/loadgen/peers/internal/flow"
)

const (
	name = "redis"
	// defaultAddr is where redis-server listens.
	defaultAddr = "127.0.0.1:6379"
	// ioTimeout bounds one pipeline: syncing to a slow disk may take long.
	ioTimeout = 30 * time.Second
	// closeWait is how long the Close of a Conn waits for answers.
	closeWait = 2 * time.Second
	// partitionsMax bounds a search for partitions.
	partitionsMax = 1 << 16
)

// Kind is the driver, for commands.
var Kind = driver.Kind{
	Name: name,
	Doc:  "Redis streams: pipelined XADD, XREAD",
	Addr: defaultAddr,
	Settings: map[string]string{
		"connections": "of a producer, its partitions shared out among them; default 1",
		"count":       "entries a consumer asks for at a time, of a partition; default " + strconv.Itoa(readCount),
	},
	Open: func(ctx context.Context, o driver.Options) (driver.Driver, error) {
		return Open(ctx, o.Addr, o.Settings)
	},
}

// readCount keeps a reply below 1 MiB with messages of 1 KiB.
const readCount = 500

// redisDriver implements driver.Driver.
type redisDriver struct {
	addr               string
	connections, count int
	admin              *goredis.Client
	version            string
	settings           map[string]string
	can                flow.Can
}

// Open connects to the server at addr. settings are by the names that Kind
// documents.
func Open(ctx context.Context, addr string, settings map[string]string) (driver.Driver, error) {
	d := &redisDriver{addr: addr, connections: 1, count: readCount}
	if addr == "" {
		d.addr = defaultAddr
	}
	for k, v := range settings {
		at := map[string]*int{"connections": &d.connections, "count": &d.count}[k]
		if at == nil {
			return nil, fmt.Errorf("driver %s has no setting %q", name, k)
		}
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > 1<<20 || k == "connections" && n > 64 {
			return nil, fmt.Errorf("driver %s: %s=%q: want a number from 1", name, k, v)
		}
		*at = n
	}
	d.admin = d.client("admin", 2)
	if err := d.ask(ctx); err != nil {
		d.admin.Close()
		return nil, fmt.Errorf("%s: %w", d.addr, err)
	}
	return d, nil
}

// client makes one with at most so many connections.
func (d *redisDriver) client(role string, connections int) *goredis.Client {
	return goredis.NewClient(&goredis.Options{
		Addr: d.addr, ClientName: "portask-loadgen-" + strings.ReplaceAll(role, " ", "-"),
		Protocol: 2, MaxRetries: -1, PoolSize: connections, MaxActiveConns: connections, PipelinePoolSize: -1,
		ReadTimeout: ioTimeout, WriteTimeout: ioTimeout, ReadBufferSize: 256 << 10, WriteBufferSize: 64 << 10, DisableIdentity: true,
	})
}

// ask learns the server's version and what it does with its data.
func (d *redisDriver) ask(ctx context.Context) error {
	info, err := d.admin.Info(ctx, "server").Result()
	if err != nil {
		return err
	}
	for line := range strings.Lines(info) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "redis_version:"); ok {
			d.version = v
		}
	}
	d.settings = map[string]string{"client": "go-redis " + goredis.Version(), "connections": strconv.Itoa(d.connections), "count": strconv.Itoa(d.count)}
	for _, key := range []string{"appendonly", "appendfsync"} {
		v, err := d.admin.ConfigGet(ctx, key).Result()
		if err != nil {
			return fmt.Errorf("CONFIG GET %s: %w", key, err)
		}
		d.settings[key] = v[key]
	}
	d.describe()
	return nil
}

func (d *redisDriver) describe() {
	d.can = flow.Can{
		Name: name, Visible: message.AckAccepted,
		NoNone:      "Redis answers every command",
		NoRetention: "XADD trims by a number of entries or by id, not by age or bytes",
		NoGroups:    "streams are not shared out among the members of a group",
		NoQueues:    "the driver reads by XREAD, which does not acknowledge",
	}
	level := func(a message.AckLevel, gives driver.Durability, how string) {
		d.can.Levels = append(d.can.Levels, driver.Level{Ack: a, Name: a.String(), Gives: gives, How: how})
	}
	fsync := d.settings["appendfsync"]
	d.can.NoLevel = "the server has appendfsync " + fsync
	switch {
	case d.settings["appendonly"] != "yes":
		d.can.NoLevel = "the server has appendonly no"
		delete(d.settings, "appendfsync")
		level(message.AckAccepted, driver.Memory, "answered; appendonly no")
	case fsync == "always":
		d.can.Visible = message.AckDurable
		level(message.AckAccepted, driver.Disk, "answered; appendfsync always")
		level(message.AckDurable, driver.Disk, "answered; appendfsync always")
	case fsync == "no":
		level(message.AckAccepted, driver.OS, "answered; appendfsync no")
	default:
		level(message.AckAccepted, driver.Memory, "answered; appendfsync everysec: the write may be put off while a sync is under way")
	}
}

func (d *redisDriver) Name() string { return name }

func (d *redisDriver) Describe(context.Context) (driver.Description, error) {
	return driver.Description{System: name, Version: d.version, Levels: d.can.Levels, Settings: d.settings}, nil
}

func (d *redisDriver) Check(n driver.Needs) error { return d.can.Check(n) }

func key(topic string, partition int) string { return topic + ":" + strconv.Itoa(partition) }

// maker is the group by which an empty stream is made.
const maker = "loadgen-made-this"

func (d *redisDriver) Prepare(ctx context.Context, t driver.Topic) (driver.Topic, error) {
	if t.Name == "" || t.Partitions < 1 || t.Partitions > partitionsMax {
		return t, fmt.Errorf("topic %q with %d partitions", t.Name, t.Partitions)
	}
	for i := range t.Partitions {
		k := key(t.Name, i)
		if err := d.admin.XGroupCreateMkStream(ctx, k, maker, "$").Err(); err != nil {
			return t, fmt.Errorf("create stream %s: %w", k, err)
		}
		if err := d.admin.XGroupDestroy(ctx, k, maker).Err(); err != nil {
			return t, fmt.Errorf("create stream %s: %w", k, err)
		}
	}
	return driver.Topic{Name: t.Name, Partitions: t.Partitions, Visibility: d.can.Visible}, nil
}

func (d *redisDriver) Lookup(ctx context.Context, topic string) (driver.Topic, error) {
	t := driver.Topic{Name: topic, Visibility: d.can.Visible}
	for t.Partitions < partitionsMax {
		kind, err := d.admin.Type(ctx, key(topic, t.Partitions)).Result()
		if err != nil {
			return t, err
		}
		if kind != "stream" {
			break
		}
		t.Partitions++
	}
	if t.Partitions == 0 {
		return t, fmt.Errorf("no stream %s", key(topic, 0))
	}
	return t, nil
}

func (d *redisDriver) Drop(ctx context.Context, topic string) error {
	t, err := d.Lookup(ctx, topic)
	if t.Partitions == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	for i := range t.Partitions {
		if err := d.admin.Unlink(ctx, key(topic, i)).Err(); err != nil {
			return err
		}
	}
	return nil
}

func (d *redisDriver) Close() error { return d.admin.Close() }

// lastID is a stream's last id.
func (d *redisDriver) lastID(ctx context.Context, k string) (string, error) {
	info, err := d.admin.XInfoStream(ctx, k).Result()
	if err != nil {
		return "", fmt.Errorf("stream %s: %w", k, err)
	}
	return info.LastGeneratedID, nil
}

// offset makes an id, "milliseconds-counter", a number that grows with it. An id
// whose parts are too large for it has none.
func offset(id string) message.Offset {
	ms, n, ok := strings.Cut(id, "-")
	a, err1 := strconv.ParseUint(ms, 10, 63-counterBits)
	b, err2 := strconv.ParseUint(n, 10, counterBits)
	if !ok || err1 != nil || err2 != nil {
		return message.NoOffset
	}
	return message.Offset(a<<counterBits | b)
}

// counterBits leave 43 for the milliseconds, which last until the year 2248, and
// allow a million entries in one.
const counterBits = 20

func (d *redisDriver) Connect(_ context.Context, role string) (driver.Conn, error) {
	return &conn{d: d, role: role}, nil
}

// conn is a set of connections: go-redis has a pool for each client.
type conn struct {
	d    *redisDriver
	role string

	mu        sync.Mutex
	producers []*producer // guarded by mu, like what follows
	consumers []*consumer
	closed    bool
}

var errClosedConn = fmt.Errorf("%w: the connection", driver.ErrClosed)

func (c *conn) Close() error {
	c.mu.Lock()
	producers, consumers := c.producers, c.consumers
	c.producers, c.consumers, c.closed = nil, nil, true
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), closeWait)
	defer cancel()
	var errs []error
	for _, p := range producers {
		p.Close(ctx) // what it could not flush has its answer
	}
	for _, k := range consumers {
		errs = append(errs, k.Close())
	}
	return errors.Join(errs...)
}
