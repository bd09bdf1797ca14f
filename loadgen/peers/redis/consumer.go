package redis

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	goredis "github.com/redis/go-redis/v9"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/loadgen/driver"
)

// block is how long an XREAD waits: the end of a consumer does not depend on it.
const block = 10 * time.Second

// consumer implements driver.Consumer.
type consumer struct {
	d          *redisDriver
	client     *goredis.Client
	partitions []uint32
	keys       []string
	index      map[string]int   // of keys; immutable
	seen       []message.Offset // last offset released, by index; guarded by mu
	mu         sync.Mutex

	replies chan []any // streams with entries, one reply each; errors too
	quit    chan struct{}
	closed  atomic.Bool
	closing sync.Once
	reading sync.WaitGroup

	rest    []any // streams of the reply at hand; owned by the polling goroutine
	current batch // likewise
}

func (c *conn) Consumer(ctx context.Context, o driver.ConsumerOptions) (driver.Consumer, error) {
	d := c.d
	if o.Mode != driver.Stream {
		return nil, d.can.Check(driver.Needs{Mode: o.Mode})
	}
	k := &consumer{
		d: d, client: d.client(c.role, 1), partitions: o.Partitions, index: map[string]int{},
		seen: make([]message.Offset, len(o.Partitions)), replies: make(chan []any, 1), quit: make(chan struct{}),
	}
	k.current.k = k
	k.current.all = k.current.each
	ids := make([]string, len(o.Partitions))
	for i, p := range o.Partitions {
		name := key(o.Topic, int(p))
		var err error
		if ids[i], err = d.lastID(ctx, name); err != nil {
			k.client.Close()
			return nil, err
		}
		k.keys = append(k.keys, name)
		k.index[name] = i
		k.seen[i] = offset(ids[i])
	}
	k.reading.Go(func() { k.read(ids) })
	c.mu.Lock()
	closed := c.closed
	if !closed {
		c.consumers = append(c.consumers, k)
	}
	c.mu.Unlock()
	if closed {
		k.Close()
		return nil, errClosedConn
	}
	return k, nil
}

// read reads from behind ids until the consumer ends.
func (k *consumer) read(ids []string) {
	ctx := context.Background()
	args := []any{"XREAD", "COUNT", k.d.count, "BLOCK", block.Milliseconds(), "STREAMS"}
	for _, name := range k.keys {
		args = append(args, name)
	}
	first := len(args)
	for _, id := range ids {
		args = append(args, id)
	}
	for {
		cmd := goredis.NewSliceCmd(ctx, args...)
		err := k.client.Process(ctx, cmd)
		reply := cmd.Val()
		switch {
		case k.closed.Load():
			return
		case errors.Is(err, goredis.Nil):
			continue // nothing came while it waited
		case err != nil:
			reply = []any{fmt.Errorf("XREAD: %w", err)}
		default:
			for _, x := range reply {
				s, err := parseStream(x)
				if err == nil && len(s.entries) > 0 {
					var e entry
					if e, err = parseEntry(s.entries[len(s.entries)-1]); err == nil {
						args[first+k.index[s.key]] = e.id
					}
				}
				if err != nil {
					reply = []any{err}
					break
				}
			}
		}
		select {
		case k.replies <- reply:
		case <-k.quit:
			return
		}
		if err != nil { // the client has a new connection at the next attempt
			select {
			case <-time.After(100 * time.Millisecond):
			case <-k.quit:
				return
			}
		}
	}
}

// stream is a part of XREAD's reply: a key and its entries, each [id, [field,
// value, ...]].
type stream struct {
	key     string
	entries []any
}

var errReply = errors.New("XREAD: not a reply as Redis documents it")

func parseStream(x any) (stream, error) {
	pair, ok := x.([]any)
	if !ok || len(pair) != 2 {
		return stream{}, errReply
	}
	name, ok1 := pair[0].(string)
	entries, ok2 := pair[1].([]any)
	if !ok1 || !ok2 {
		return stream{}, errReply
	}
	return stream{name, entries}, nil
}

type entry struct {
	id         string
	key, value string
}

func parseEntry(x any) (entry, error) {
	pair, ok := x.([]any)
	if !ok || len(pair) != 2 {
		return entry{}, errReply
	}
	id, ok1 := pair[0].(string)
	fields, ok2 := pair[1].([]any)
	if !ok1 || !ok2 || len(fields)%2 != 0 {
		return entry{}, errReply
	}
	e := entry{id: id}
	for i := 0; i < len(fields); i += 2 {
		name, ok1 := fields[i].(string)
		v, ok2 := fields[i+1].(string)
		if !ok1 || !ok2 {
			return entry{}, errReply
		}
		switch name {
		case "v":
			e.value = v
		case "k":
			e.key = v
		}
	}
	return e, nil
}

// batch implements driver.Batch; there is one for a consumer.
type batch struct {
	k     *consumer
	at    int // index of the partition
	items []any
	m     message.Message
	all   iter.Seq2[*message.Message, error]
}

func (b *batch) Partition() uint32 { return b.k.partitions[b.at] }

func (b *batch) Messages() iter.Seq2[*message.Message, error] { return b.all }

func (b *batch) each(yield func(*message.Message, error) bool) {
	for _, x := range b.items {
		e, err := parseEntry(x)
		if err != nil {
			if !yield(nil, err) {
				return
			}
			continue
		}
		b.m.Offset, b.m.Value, b.m.Key = offset(e.id), bytesOf(e.value), nil
		if e.key != "" {
			b.m.Key = bytesOf(e.key)
		}
		if !yield(&b.m, nil) {
			return
		}
	}
}

// bytesOf are a string's own bytes, which nobody may write to. Copying each
// value would cost the driver's users what the client does not.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

func (b *batch) Release() {
	if b.items == nil {
		return
	}
	e, err := parseEntry(b.items[len(b.items)-1])
	b.items = nil
	if err == nil {
		b.k.mu.Lock()
		b.k.seen[b.at] = offset(e.id)
		b.k.mu.Unlock()
	}
}

func (k *consumer) Poll(ctx context.Context) (driver.Batch, error) {
	k.current.Release()
	for {
		if k.closed.Load() {
			return nil, driver.ErrClosed
		}
		if len(k.rest) > 0 {
			x := k.rest[0]
			k.rest = k.rest[1:]
			if err, ok := x.(error); ok {
				return nil, err
			}
			s, err := parseStream(x)
			if err != nil {
				return nil, err
			}
			if len(s.entries) == 0 {
				continue
			}
			k.current.at, k.current.items = k.index[s.key], s.entries
			return &k.current, nil
		}
		select {
		case k.rest = <-k.replies:
		case <-k.quit:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// CaughtUp asks for the streams' last ids.
func (k *consumer) CaughtUp(ctx context.Context) (bool, error) {
	for i, name := range k.keys {
		id, err := k.d.lastID(ctx, name)
		if err != nil {
			return false, err
		}
		k.mu.Lock()
		behind := k.seen[i] < offset(id)
		k.mu.Unlock()
		if behind {
			return false, nil
		}
	}
	return true, nil
}

func (k *consumer) Close() error {
	k.closing.Do(func() {
		k.closed.Store(true)
		close(k.quit)
		k.client.Close() // ends the read that waits
		k.reading.Wait()
	})
	return nil
}
