// Package loopback is a target inside the generator's own process, with known
// behaviour: what is sent is acknowledged and handed to whoever consumes the
// partition, and nothing is stored. It is the null sink on which the generator
// measures itself, and, told to misbehave, the target whose faults it must find.
//
// Its settings make it slow or wrong in known ways:
//
//	slow=5ms/100         every 100th message takes 5 ms to serve, and what is
//	                     behind it waits
//	stall=1s@3s          3 s after the first message it serves nothing for 1 s
//	drop=10000           every 10,000th message is acknowledged and thrown away
//	duplicate=10000      every 10,000th is delivered twice
//	reorder=10000        every 10,000th is delivered after its successor, but for one
//	                     that is served alone or last of those served together:
//	                     Did counts what was done
//	flip=10000           one bit of every 10,000th is flipped
//	refuse=10000         every 10,000th is answered with an error and delivered
//
// Counts are of all messages of a driver, in the order in which they are served.
package loopback

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/loadgen/driver"
)

const name = "loopback"

// Kind is the driver for commands.
var Kind = driver.Kind{
	Name:     name,
	Doc:      "a null sink in the generator's own process, faultless or wrong in known ways",
	Settings: settings,
	Open: func(_ context.Context, o driver.Options) (driver.Driver, error) {
		b, err := parse(o.Settings)
		if err != nil {
			return nil, err
		}
		return Open(b), nil
	},
}

var settings = map[string]string{
	"slow": "5ms/100: every 100th message takes 5 ms", "stall": "1s@3s: serves nothing for 1 s, from 3 s on",
	"drop": "every nth message is thrown away", "duplicate": "every nth is delivered twice", "reorder": "every nth is delivered after its successor",
	"flip": "one bit of every nth is flipped", "refuse": "every nth is answered with an error",
}

// Behaviour is how the target deviates from a faultless one. The zero value is
// faultless. Every…: of so many messages one is affected; 0: none.
type Behaviour struct {
	Slow                                                            time.Duration
	SlowEvery                                                       uint64
	Stall                                                           time.Duration
	StallAt                                                         time.Duration // after the first message
	DropEvery, DuplicateEvery, ReorderEvery, FlipEvery, RefuseEvery uint64
}

func parse(given map[string]string) (Behaviour, error) {
	var b Behaviour
	counts := map[string]*uint64{"drop": &b.DropEvery, "duplicate": &b.DuplicateEvery, "reorder": &b.ReorderEvery, "flip": &b.FlipEvery, "refuse": &b.RefuseEvery}
	for k, v := range given {
		bad := fmt.Errorf("driver %s: %s=%q: want %s", name, k, v, settings[k])
		switch {
		case k == "slow":
			d, n, ok := strings.Cut(v, "/")
			var err1, err2 error
			b.Slow, err1 = time.ParseDuration(d)
			b.SlowEvery, err2 = strconv.ParseUint(n, 10, 64)
			if !ok || err1 != nil || err2 != nil || b.Slow < 0 || b.SlowEvery == 0 {
				return b, bad
			}
		case k == "stall":
			d, at, ok := strings.Cut(v, "@")
			var err1, err2 error
			b.Stall, err1 = time.ParseDuration(d)
			b.StallAt, err2 = time.ParseDuration(at)
			if !ok || err1 != nil || err2 != nil || b.Stall < 0 || b.StallAt < 0 {
				return b, bad
			}
		case counts[k] != nil:
			n, err := strconv.ParseUint(v, 10, 64)
			if err != nil || n == 0 {
				return b, bad
			}
			*counts[k] = n
		default:
			return b, fmt.Errorf("driver %s has no setting %q: want one of drop, duplicate, flip, refuse, reorder, slow, stall", name, k)
		}
	}
	return b, nil
}

func (b *Behaviour) faulty() bool { return *b != Behaviour{} }

const (
	// bufferBytes is what a producer holds if nothing is said: some ms of work
	// at full rate.
	bufferBytes = 4 << 20
	// queueBytes may wait for a consumer in one partition. Beyond it producers
	// are held back.
	queueBytes = 4 << 20
)

// Driver implements driver.Driver.
type Driver struct {
	b      Behaviour
	served atomic.Uint64
	began  atomic.Int64 // wall clock of the first message, ns
	did    did

	mu     sync.Mutex
	topics map[string]*topic // guarded by mu
}

// Open returns a target of that behaviour.
func Open(b Behaviour) *Driver { return &Driver{b: b, topics: map[string]*topic{}} }

// topic is immutable.
type topic struct {
	t          driver.Topic
	partitions []*partition
}

// partition hands batches to its consumer. Without one they are thrown away.
type partition struct {
	index uint32

	// order is held while a load is answered and handed over, so that loads of
	// several producers arrive in the order of their offsets. Before mu.
	order sync.Mutex

	mu     sync.Mutex
	end    message.Offset // next to be assigned; guarded by mu
	sink   *consumer      // nil: none; guarded by mu
	queued int            // bytes in sink's queue; guarded by mu
	space  sync.Cond      // of mu: queued became smaller, or sink changed
}

// Name implements driver.Driver.
func (d *Driver) Name() string { return name }

// Describe implements driver.Driver.
func (d *Driver) Describe(context.Context) (driver.Description, error) {
	x := driver.Description{System: name, Version: "1"}
	for _, a := range []message.AckLevel{message.AckNone, message.AckAccepted, message.AckDurable} {
		x.Levels = append(x.Levels, driver.Level{Ack: a, Name: a.String(), Gives: driver.Nothing, How: "answered before it is handed over"})
	}
	return x, nil
}

// Check implements driver.Driver.
func (d *Driver) Check(n driver.Needs) error {
	if n.Mode != driver.Stream {
		return &driver.Unsupported{Driver: name, What: fmt.Sprintf("delivery mode %s", n.Mode), Why: "it hands a partition to one consumer"}
	}
	return nil
}

// Prepare implements driver.Driver.
func (d *Driver) Prepare(_ context.Context, t driver.Topic) (driver.Topic, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.topics[t.Name] != nil {
		return t, fmt.Errorf("topic %s exists", t.Name)
	}
	if t.Partitions < 1 {
		return t, fmt.Errorf("topic %s: %d partitions", t.Name, t.Partitions)
	}
	x := &topic{t: t}
	for i := range t.Partitions {
		p := &partition{index: uint32(i)}
		p.space.L = &p.mu
		x.partitions = append(x.partitions, p)
	}
	d.topics[t.Name] = x
	return t, nil
}

// Lookup implements driver.Driver.
func (d *Driver) Lookup(_ context.Context, name string) (driver.Topic, error) {
	x, err := d.topic(name)
	if err != nil {
		return driver.Topic{}, err
	}
	return x.t, nil
}

// Drop implements driver.Driver.
func (d *Driver) Drop(_ context.Context, name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.topics, name)
	return nil
}

func (d *Driver) topic(name string) (*topic, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	x := d.topics[name]
	if x == nil {
		return nil, fmt.Errorf("no topic %s", name)
	}
	return x, nil
}

// Close implements driver.Driver.
func (d *Driver) Close() error { return nil }

// Connect implements driver.Driver.
func (d *Driver) Connect(context.Context, string) (driver.Conn, error) { return &conn{d: d}, nil }

type conn struct {
	d *Driver

	mu   sync.Mutex
	open []func() // closes what was opened; guarded by mu
}

func (c *conn) Close() error {
	c.mu.Lock()
	open := c.open
	c.open = nil
	c.mu.Unlock()
	for _, f := range slices.Backward(open) {
		f()
	}
	return nil
}

func (c *conn) onClose(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open = append(c.open, f)
}
