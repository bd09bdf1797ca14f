package load

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/loadgen/corpus"
	"github.com/portask/portask/loadgen/driver"
	"github.com/portask/portask/loadgen/driver/loopback"
	"github.com/portask/portask/loadgen/payload"
	"github.com/portask/portask/loadgen/scenario"
)

// adversary stands between a run and a faultless target and does to deliveries
// and answers what a broken broker would.
type adversary struct {
	driver.Driver
	// deliver is given what was received of a partition, in order, and returns
	// what the consumer gets of it. One call at a time. nil: everything.
	deliver func(in delivered) []delivered
	// answer may change or, by returning false, keep an answer. n counts from 1.
	answer func(n int, err error) (error, bool)

	mu      sync.Mutex
	answers int                    // guarded by mu
	strays  map[string][]delivered // for other topics' consumers; guarded by mu
}

// delivered are messages of a partition.
type delivered struct {
	topic     string
	partition uint32
	messages  []*message.Message
}

func (d *adversary) Connect(ctx context.Context, name string) (driver.Conn, error) {
	c, err := d.Driver.Connect(ctx, name)
	return &adversaryConn{c, d}, err
}

type adversaryConn struct {
	driver.Conn
	d *adversary
}

func (c *adversaryConn) Producer(ctx context.Context, o driver.ProducerOptions) (driver.Producer, error) {
	p, err := c.Conn.Producer(ctx, o)
	return &adversaryProducer{p, c.d}, err
}

type adversaryProducer struct {
	driver.Producer
	d *adversary
}

func (p *adversaryProducer) Slot(answered func(error)) driver.Slot {
	return p.Producer.Slot(func(err error) {
		d := p.d
		d.mu.Lock()
		d.answers++
		n := d.answers
		d.mu.Unlock()
		if d.answer != nil {
			var ok bool
			if err, ok = d.answer(n, err); !ok {
				return
			}
		}
		answered(err)
	})
}

func (c *adversaryConn) Consumer(ctx context.Context, o driver.ConsumerOptions) (driver.Consumer, error) {
	k, err := c.Conn.Consumer(ctx, o)
	return &adversaryConsumer{Consumer: k, d: c.d, topic: o.Topic}, err
}

type adversaryConsumer struct {
	driver.Consumer
	d     *adversary
	topic string
	queue []delivered
}

func (k *adversaryConsumer) Poll(ctx context.Context) (driver.Batch, error) {
	for len(k.queue) == 0 {
		b, err := k.Consumer.Poll(ctx)
		if err != nil {
			return nil, err
		}
		in := delivered{topic: k.topic, partition: b.Partition()}
		for m, err := range b.Messages() {
			if err != nil {
				return nil, err
			}
			in.messages = append(in.messages, clone(m))
		}
		b.Release()
		k.d.mu.Lock()
		k.queue = append(k.queue, in)
		if k.d.deliver != nil {
			k.queue = k.d.deliver(in)
		}
		k.queue = append(k.queue, k.d.strays[k.topic]...)
		delete(k.d.strays, k.topic)
		k.d.mu.Unlock()
	}
	x := k.queue[0]
	k.queue = k.queue[1:]
	return adversaryBatch(x), nil
}

func clone(m *message.Message) *message.Message {
	x := *m
	x.Value, x.Key = bytes.Clone(m.Value), bytes.Clone(m.Key)
	return &x
}

type adversaryBatch delivered

func (b adversaryBatch) Partition() uint32 { return b.partition }
func (b adversaryBatch) Release()          {}
func (b adversaryBatch) Messages() iter.Seq2[*message.Message, error] {
	return func(yield func(*message.Message, error) bool) {
		for _, m := range b.messages {
			if !yield(m, nil) {
				return
			}
		}
	}
}

// each does something to every nth message of a run.
func each(n int, do func(k int, in delivered, m *message.Message) []*message.Message) func(delivered) []delivered {
	seen := 0
	return func(in delivered) []delivered {
		out := delivered{topic: in.topic, partition: in.partition}
		for _, m := range in.messages {
			if seen++; seen%n == 0 {
				out.messages = append(out.messages, do(seen/n, in, m)...)
			} else {
				out.messages = append(out.messages, m)
			}
		}
		return []delivered{out}
	}
}

const adversaryRun = 0x1122334455667788

// Everything a broker can do wrong to a message is found, counted to the message
// and judged, in every encoding, in several topics, with keys and without.
func TestAdversary(t *testing.T) {
	const every = 20
	text, err := corpus.Generate("text", 64<<10, 1)
	if err != nil {
		t.Fatal(err)
	}
	// forge makes a value as the run would, for any header.
	forge := func(t *testing.T, run uint64, codec string, h payload.Header) []byte {
		s, err := payload.New(run, 1, 100, 300, [][]byte{text.Bytes})
		if err != nil {
			t.Fatal(err)
		}
		e, err := message.ParseEncoding(codec)
		if err != nil {
			t.Fatal(err)
		}
		x, err := s.Encoder(e)
		if err != nil {
			t.Fatal(err)
		}
		v, err := x.Append(nil, h)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	place := func(in delivered) uint32 { return uint32(in.topic[0]-'a')*2 + in.partition }
	type counts struct{ lost, duplicated, reordered, corrupt, foreign, phantom, misplaced, unacked, offsets int }
	for _, tt := range []struct {
		name    string
		deliver func(t *testing.T, d *adversary, codec string) func(delivered) []delivered
		want    counts // for each message that something was done to
		status  int
	}{
		{"nothing", func(*testing.T, *adversary, string) func(delivered) []delivered {
			return each(every, func(_ int, _ delivered, m *message.Message) []*message.Message { return []*message.Message{m} })
		}, counts{}, 0},
		{"dropped", func(*testing.T, *adversary, string) func(delivered) []delivered {
			return each(every, func(int, delivered, *message.Message) []*message.Message { return nil })
		}, counts{lost: 1}, 4},
		{"twice", func(*testing.T, *adversary, string) func(delivered) []delivered {
			return each(every, func(_ int, _ delivered, m *message.Message) []*message.Message {
				return []*message.Message{m, clone(m)}
			})
		}, counts{duplicated: 1, offsets: 1}, 4},
		{"twice, at an offset of its own", func(*testing.T, *adversary, string) func(delivered) []delivered {
			return each(every, func(_ int, _ delivered, m *message.Message) []*message.Message {
				x := clone(m)
				x.Offset = message.NoOffset
				return []*message.Message{m, x}
			})
		}, counts{duplicated: 1}, 4},
		{"one bit of the value", func(*testing.T, *adversary, string) func(delivered) []delivered {
			return each(every, func(k int, _ delivered, m *message.Message) []*message.Message {
				at := 4 + k*7919%(len(m.Value)-4) // the magic: see the next
				m.Value[at] ^= 1 << (k % 8)
				return []*message.Message{m}
			})
		}, counts{corrupt: 1, lost: 1}, 4},
		{"a bit of the first byte", func(*testing.T, *adversary, string) func(delivered) []delivered {
			return each(every, func(k int, _ delivered, m *message.Message) []*message.Message {
				m.Value[0] ^= 1 << (k % 8)
				return []*message.Message{m}
			})
		}, counts{corrupt: 1, lost: 1}, 4}, // or phantom: see below
		{"a bit of the key", func(*testing.T, *adversary, string) func(delivered) []delivered {
			return each(every, func(k int, _ delivered, m *message.Message) []*message.Message {
				if len(m.Key) == 0 {
					m.Key = []byte("k")
				}
				m.Key[0] ^= 1 << (k % 8)
				return []*message.Message{m}
			})
		}, counts{corrupt: 1, lost: 1}, 4},
		{"cut short", func(*testing.T, *adversary, string) func(delivered) []delivered {
			return each(every, func(_ int, _ delivered, m *message.Message) []*message.Message {
				m.Value = m.Value[:len(m.Value)-1]
				return []*message.Message{m}
			})
		}, counts{corrupt: 1, lost: 1}, 4},
		{"longer", func(*testing.T, *adversary, string) func(delivered) []delivered {
			return each(every, func(_ int, _ delivered, m *message.Message) []*message.Message {
				m.Value = append(m.Value, 0)
				return []*message.Message{m}
			})
		}, counts{corrupt: 1, lost: 1}, 4},
		{"emptied", func(*testing.T, *adversary, string) func(delivered) []delivered {
			return each(every, func(_ int, _ delivered, m *message.Message) []*message.Message {
				m.Value = nil
				return []*message.Message{m}
			})
		}, counts{phantom: 1, lost: 1}, 4},
		{"another's beside it", func(*testing.T, *adversary, string) func(delivered) []delivered {
			return each(every, func(_ int, _ delivered, m *message.Message) []*message.Message {
				return []*message.Message{m, {Value: []byte("another's"), Offset: message.NoOffset}}
			})
		}, counts{phantom: 1}, 4},
		{"another run's beside it", func(t *testing.T, _ *adversary, codec string) func(delivered) []delivered {
			return each(every, func(k int, in delivered, m *message.Message) []*message.Message {
				return []*message.Message{m, {Value: forge(t, adversaryRun+1, codec, payload.Header{Partition: place(in), Sequence: uint64(k)}), Offset: message.NoOffset}}
			})
		}, counts{phantom: 1}, 4},
		{"one that will never be sent", func(t *testing.T, _ *adversary, codec string) func(delivered) []delivered {
			return each(every, func(k int, in delivered, m *message.Message) []*message.Message {
				return []*message.Message{m, {Value: forge(t, adversaryRun, codec, payload.Header{Partition: place(in), Sequence: 1<<40 + uint64(k)}), Offset: message.NoOffset}}
			})
		}, counts{phantom: 1}, 4},
		{"of a producer that is none", func(t *testing.T, _ *adversary, codec string) func(delivered) []delivered {
			return each(every, func(k int, in delivered, m *message.Message) []*message.Message {
				return []*message.Message{m, {Value: forge(t, adversaryRun, codec, payload.Header{Producer: 77, Partition: place(in), Sequence: uint64(k)}), Offset: message.NoOffset}}
			})
		}, counts{phantom: 1}, 4},
		{"in another partition", func(*testing.T, *adversary, string) func(delivered) []delivered {
			seen := 0
			return func(in delivered) []delivered {
				out := []delivered{{topic: in.topic, partition: in.partition}, {topic: in.topic, partition: 1 - in.partition}}
				for _, m := range in.messages {
					at := 0
					if seen++; seen%every == 0 {
						at, m.Offset = 1, message.NoOffset
					}
					out[at].messages = append(out[at].messages, m)
				}
				return out
			}
		}, counts{misplaced: 1}, 4}, // and reordered, where later ones came in the same batch
		{"in another topic", func(_ *testing.T, d *adversary, _ string) func(delivered) []delivered {
			d.strays = map[string][]delivered{}
			return each(every, func(_ int, in delivered, m *message.Message) []*message.Message {
				for _, name := range []string{"a-1122334455667788", "b-1122334455667788"} {
					if name != in.topic {
						x := clone(m)
						x.Offset = message.NoOffset
						d.strays[name] = append(d.strays[name], delivered{name, in.partition, []*message.Message{x}})
					}
				}
				return []*message.Message{m}
			})
		}, counts{misplaced: 1, duplicated: 1}, 4},
		{"long ago, again", func(*testing.T, *adversary, string) func(delivered) []delivered {
			first := map[string]*message.Message{}
			return each(every, func(k int, in delivered, m *message.Message) []*message.Message {
				id := fmt.Sprint(in.topic, in.partition)
				if first[id] == nil {
					first[id] = clone(m)
					first[id].Offset = message.NoOffset
				}
				return []*message.Message{m, clone(first[id])}
			})
		}, counts{duplicated: 1}, 4},
		{"an offset used before", func(*testing.T, *adversary, string) func(delivered) []delivered {
			return each(every, func(_ int, _ delivered, m *message.Message) []*message.Message {
				m.Offset = 0
				return []*message.Message{m}
			})
		}, counts{offsets: 1}, 4},
	} {
		for i, codec := range []string{"raw", "cbor", "json", "msgpack"} {
			t.Run(strings.ReplaceAll(tt.name, " ", "-")+"/codec="+codec, func(t *testing.T) {
				t.Parallel()
				keys := "keys.count=0"
				if i%2 == 1 {
					keys = "keys.count=30"
				}
				s := plan(t, "producers.codec="+codec, keys, "topics.0.name=a", "topics.0.partitions=2", "phases.0.duration=30ms", "phases.1.duration=120ms", "phases.*.rate=4000", "consumers.count=1")
				s.Topics = append(s.Topics, scenario.Topic{Name: "b", Partitions: 2, Visibility: "ack", Share: 1})
				d := &adversary{Driver: loopback.Open(loopback.Behaviour{})}
				touched := 0
				deliver := tt.deliver(t, d, codec)
				d.deliver = func(in delivered) []delivered {
					touched += len(in.messages)
					return deliver(in)
				}
				res := execute(t, s, loopback.Behaviour{}, func(c *Config) { c.Driver, c.RunID = d, adversaryRun })
				n := touched / every
				c := res.Counts
				if n < 10 || c.Sent != 600 || c.Acked != 600 {
					t.Fatalf("%d messages touched; counts %+v", n, c)
				}
				got := counts{int(c.Lost), int(c.Duplicated), int(c.Reordered), int(c.Corrupt), int(c.Foreign), int(c.Phantom), int(c.Misplaced), int(c.UnackedDelivered), int(res.OffsetsBack)}
				want := tt.want
				for _, x := range []*int{&want.lost, &want.duplicated, &want.reordered, &want.corrupt, &want.foreign, &want.phantom, &want.misplaced, &want.unacked, &want.offsets} {
					*x *= n
				}
				switch tt.name {
				case "a bit of the first byte", "cut short", "one bit of the value": // what is beyond recognition is nobody's
					got.corrupt, got.phantom = got.corrupt+got.phantom, 0
				case "in another partition":
					want.reordered = got.reordered
				case "in another topic": // a stray may be left that nobody came for, or be the first to come
					left := len(d.strays["a-1122334455667788"]) + len(d.strays["b-1122334455667788"])
					want.misplaced, want.duplicated = n-left, n-left
					want.reordered = got.reordered
				case "an offset used before": // unless it is the first
					if got.offsets < n-4 {
						want.offsets = -1
					} else {
						want.offsets = got.offsets
					}
				}
				if got != want {
					t.Errorf("%d messages touched: %+v, want %+v", n, got, want)
				}
				status := res.ExitStatus()
				if status == 3 && tt.status == 0 { // a busy machine makes a run invalid
					status = 0
				}
				if status != tt.status || (len(res.Violations) > 0) != (tt.status == 4) {
					t.Errorf("exit status %d, want %d; violations %v", status, tt.status, res.Violations)
				}
			})
		}
	}
}

// Two neighbours change places: one reordering each.
func TestAdversarySwaps(t *testing.T) {
	swaps := 0
	d := &adversary{Driver: loopback.Open(loopback.Behaviour{}), deliver: func(in delivered) []delivered {
		for i := 0; i+1 < len(in.messages); i += 8 {
			a, b := in.messages[i], in.messages[i+1]
			a.Offset, b.Offset = b.Offset, a.Offset
			in.messages[i], in.messages[i+1] = b, a
			swaps++
		}
		return []delivered{in}
	}}
	s := plan(t, "topics.0.partitions=1", "consumers.count=1", "producers.count=1", "phases.*.rate=100000", "phases.*.duration=50ms")
	res := execute(t, s, loopback.Behaviour{}, func(c *Config) { c.Driver = d })
	if c := res.Counts; swaps < 10 || c.Reordered != uint64(swaps) || c.Lost+c.Duplicated+c.Corrupt != 0 || res.ExitStatus() != 4 {
		t.Errorf("%d swaps; counts %+v, status %d", swaps, c, res.ExitStatus())
	}
}

// A message that was refused, or never answered, and arrives: counted, allowed;
// but without an answer the run says nothing.
func TestAdversaryAnswers(t *testing.T) {
	const every = 50
	quick := []string{"phases.*.duration=100ms"}
	res := execute(t, plan(t, quick...), loopback.Behaviour{}, func(c *Config) {
		c.Driver = &adversary{Driver: loopback.Open(loopback.Behaviour{}), answer: func(n int, err error) (error, bool) {
			if n%every == 0 {
				return driver.ErrClosed, true
			}
			return err, true
		}}
	})
	if c := res.Counts; c.UnackedDelivered != c.Sent/every || c.Failed != c.Sent/every || c.Delivered != c.Sent || len(res.Violations) > 0 {
		t.Errorf("refused: counts %+v, violations %v", c, res.Violations)
	}
	res = execute(t, plan(t, quick...), loopback.Behaviour{}, func(c *Config) {
		c.Driver = &adversary{Driver: loopback.Open(loopback.Behaviour{}), answer: func(n int, err error) (error, bool) { return err, n%every != 0 }}
	})
	if c := res.Counts; c.Unanswered != c.Sent/every || c.UnackedDelivered != c.Sent/every || len(res.Violations) > 0 || res.Complete || res.ExitStatus() != 3 {
		t.Errorf("never answered: counts %+v, violations %v, status %d", c, res.Violations, res.ExitStatus())
	}
}

// A target that acknowledges everything and delivers nothing, or nothing any
// more, ends the run although the window is full long before.
func TestABlackHoleEndsTheRun(t *testing.T) {
	for _, loop := range []string{"open", "closed"} {
		for _, after := range []int{0, 300} {
			n := 0
			d := &adversary{Driver: loopback.Open(loopback.Behaviour{}), deliver: func(in delivered) []delivered {
				if n += len(in.messages); n > after {
					return nil
				}
				return []delivered{in}
			}}
			s := plan(t, "limits.window=64", "limits.drain=100ms", "phases.*.duration=2s", "loop="+loop)
			began := time.Now()
			res := execute(t, s, loopback.Behaviour{}, func(c *Config) { c.Driver = d })
			c := res.Counts
			if c.Lost == 0 || c.Lost != c.Acked-c.Delivered || res.ExitStatus() != 4 || !slices.ContainsFunc(res.Errors, func(e string) bool { return strings.Contains(e, "limits.window") }) {
				t.Errorf("%s after %d: counts %+v, errors %q, status %d", loop, after, c, res.Errors, res.ExitStatus())
			}
			if took := time.Since(began); took > 30*time.Second {
				t.Errorf("%s after %d: took %v", loop, after, took)
			}
		}
	}
}

// In a topic that others use, their messages are counted and allowed.
func TestOthersInAnExistingTopic(t *testing.T) {
	d := &adversary{Driver: loopback.Open(loopback.Behaviour{}), deliver: each(10, func(_ int, _ delivered, m *message.Message) []*message.Message {
		return []*message.Message{m, {Value: []byte("another's"), Offset: message.NoOffset}}
	})}
	if _, err := d.Prepare(t.Context(), driver.Topic{Name: "shared", Partitions: 2}); err != nil {
		t.Fatal(err)
	}
	for _, codec := range []string{"raw", "json"} {
		s := plan(t, "topics.0.name=shared", "topics.0.existing=true", "phases.*.duration=60ms", "producers.codec="+codec)
		res := execute(t, s, loopback.Behaviour{}, func(c *Config) { c.Driver = d })
		if c := res.Counts; c.Foreign == 0 || c.Phantom+c.Corrupt+c.Lost != 0 || len(res.Violations) > 0 {
			t.Errorf("%s: counts %+v, violations %v", codec, c, res.Violations)
		}
	}
}
