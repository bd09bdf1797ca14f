package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/wire"
)

// how tells how each batch stored in partition 0 was made.
func (f *fake) how() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []string
	for _, b := range f.topics["orders"].parts[0].batches {
		e, err := message.ParseEnvelope(b, nil)
		if err != nil {
			f.t.Fatal(err)
		}
		_, body, err := message.Split(b, &e)
		if err != nil {
			f.t.Fatal(err)
		}
		s := e.Attributes.Algorithm().String() + "/" + e.Attributes.Encoding().String()
		if id, _ := compression.FrameDictionary(body); id != 0 {
			s += fmt.Sprintf("+%08x", id)
		}
		all = append(all, s)
	}
	return strings.Join(all, " ")
}

// The coders that package compression keeps have channels. Those made here,
// outside of any synctest bubble, may be used in all. So may the speed of the host,
// which cannot be measured where the clock stands still.
func init() {
	if _, err := hostSpeed(); err != nil {
		panic(err)
	}
	for level := compression.LevelFastest; level <= compression.LevelSmallest; level++ {
		src := make([]byte, 4096)
		b, err := compression.AppendCompress(nil, src, message.Zstd, level)
		if err == nil {
			_, err = compression.AppendDecompress(nil, b, message.Zstd, len(src), compression.Limits{})
		}
		if err != nil {
			panic(err)
		}
	}
}

// sample is the i-th of many values that are alike.
func sample(i int) []byte {
	return fmt.Appendf(nil, `{"kind":"order","sequence":%d,"status":"delivered","customer":{"id":%d,"country":"NL"},"lines":[{"article":%d,"quantity":%d}]}`, i, i*7919%1000, i*31%97, i%5)
}

func dictionaryOf(t testing.TB, salt string) *compression.Dictionary {
	t.Helper()
	var samples [][]byte
	for i := range 300 {
		samples = append(samples, append([]byte(salt), sample(i)...))
	}
	b, err := compression.TrainDictionary(samples, compression.TrainOptions{MaxBytes: 2 << 10})
	if err != nil {
		t.Fatal(err)
	}
	d, err := compression.ParseDictionary(b)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// send sends one value that compresses well, as a batch of its own.
func send(t *testing.T, p *Producer, m *message.Message) {
	t.Helper()
	if len(m.Value) < 2<<10 {
		m.Value = append(m.Value, make([]byte, 2<<10)...)
	}
	if _, err := p.Send(ctxFor(t, time.Hour), m); err != nil {
		t.Fatal(err)
	}
}

// A producer that was told nothing does as the broker advises from its next
// batch on; one that was told keeps to that; a client that does not know an
// algorithm goes on as before.
func TestAdviceIsFollowed(t *testing.T) {
	story(t, 1, func(t *testing.T, b *fake) {
		c := b.client()
		defer c.Close()
		p := producer(t, c)
		raw := func() *message.Message { return &message.Message{Timestamp: 1} }
		encoded := func() *message.Message {
			m := raw()
			if err := p.Encode(m, strings.Repeat("value ", 500)); err != nil {
				t.Fatal(err)
			}
			return m
		}
		want := ""
		step := func(x wire.Advice, how string) {
			t.Helper()
			b.advise(x)
			synctest.Wait()
			send(t, p, raw())
			if p.Stats().Encoding != message.Raw {
				send(t, p, encoded())
			}
			if want = strings.TrimSpace(want + " " + how); b.how() != want {
				t.Fatalf("stored as\n%s, want\n%s", b.how(), want)
			}
		}
		step(wire.Advice{}, "none/raw")
		step(wire.Advice{HasCompression: true, Algorithm: message.Zstd}, "zstd/raw")
		step(wire.Advice{HasEncoding: true, Encoding: message.CBOR}, "zstd/raw zstd/cbor") // raw bytes stay raw
		step(wire.Advice{HasCompression: true, Algorithm: message.LZ4, Level: 2}, "lz4/raw lz4/cbor")
		step(wire.Advice{HasCompression: true, Algorithm: 77, HasEncoding: true, Encoding: 9}, "lz4/raw lz4/cbor")
		step(wire.Advice{HasCompression: true, Algorithm: message.Zstd, Level: 99}, "lz4/raw lz4/cbor")
		if s := p.Stats(); s.Algorithm != message.LZ4 || s.Level != compression.LevelSmallest || s.Encoding != message.CBOR {
			t.Errorf("%+v", s)
		}

		// After a lost connection what the broker says then holds, and nothing else.
		b.set(func() { b.advice = wire.Advice{HasCompression: true, Algorithm: message.Snappy} })
		b.cut()
		time.Sleep(time.Minute)
		step(wire.Advice{}, "snappy/raw")
		step(wire.Advice{HasEncoding: true, Encoding: message.JSON}, "snappy/raw snappy/json")
		if err := p.SetEncoding(message.MessagePack); err != nil { // by the program, for good
			t.Fatal(err)
		}
		step(wire.Advice{HasEncoding: true, Encoding: message.CBOR}, "snappy/msgpack snappy/msgpack")
	})
}

// A body that becomes too small for any reader is never compressed with another
// algorithm than the advised: the broker may take none.
func TestAdviceIsKeptToBeyondTheRatio(t *testing.T) {
	story(t, 1, func(t *testing.T, b *fake) {
		c := b.client()
		defer c.Close()
		p := producer(t, c)
		for _, a := range []message.Algorithm{message.Zstd, message.Brotli, message.LZ4} {
			b.advise(wire.Advice{HasCompression: true, Algorithm: a})
			synctest.Wait()
			send(t, p, &message.Message{Timestamp: 1, Value: make([]byte, 200<<10)})
		}
		if got := b.how(); got != "zstd/raw none/raw lz4/raw" {
			t.Errorf("stored as %s", got)
		}
	})
}

// What the program chose is not changed by advice, and not even asked for.
func TestAdviceIsNotForcedUpon(t *testing.T) {
	story(t, 1, func(t *testing.T, b *fake) {
		b.advice = wire.Advice{HasCompression: true, Algorithm: message.Gzip, HasEncoding: true, Encoding: message.JSON}
		c := b.client()
		defer c.Close()
		for _, x := range []struct {
			o     ProducerOption
			wants wire.AdviceWants
			how   string
		}{
			{WithCompression(compression.Policy{}), wire.WantEncoding, "none/json"},
			{WithCompression(compression.Policy{Strategy: compression.Always, Algorithm: message.LZ4}), wire.WantEncoding, "lz4/json"},
			{WithEncoding(message.CBOR), wire.WantCompression | wire.WantStrategy, "gzip/cbor"},
			{WithCompression(compression.Policy{Strategy: compression.Adaptive}), wire.WantEncoding | wire.WantLoad, "json"},
		} {
			p := producer(t, c, x.o)
			m := &message.Message{Timestamp: 1}
			if err := p.Encode(m, strings.Repeat("value ", 500)); err != nil {
				t.Fatal(err)
			}
			send(t, p, m)
			b.set(func() {
				for s := range b.sessions {
					for _, h := range s.producers {
						if h.wants != x.wants {
							t.Errorf("%s: asked for advice on %b", x.how, h.wants)
						}
					}
				}
			})
			if how := b.how(); !strings.HasSuffix(how, x.how) {
				t.Errorf("stored as %s, want %s", how, x.how)
			}
			if err := p.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// A producer compresses without a dictionary until it has it, asks once, and
// goes on without one that cannot be got. Consumers ask for what they meet.
func TestAdvisedDictionary(t *testing.T) {
	one, two := dictionaryOf(t, ""), dictionaryOf(t, "another ")
	story(t, 1, func(t *testing.T, b *fake) {
		held := make(chan struct{})
		var holding sync.Once
		b.dicts = map[uint32][]byte{one.ID(): one.Bytes()}
		b.hook = func(s *session, h wire.Header, payload []byte) (handled bool) {
			if h.Opcode == wire.OpDictionaryGet {
				holding.Do(func() { // the first answer comes late
					handled = true
					b.gets++
					b.wg.Go(func() {
						<-held
						s.write(reply(h, &wire.Dictionary{Bytes: one.Bytes()}))
					})
				})
			}
			return handled
		}
		c, other := b.client(), b.client()
		defer c.Close()
		defer other.Close()
		p := producer(t, c)
		msg := func() *message.Message { return &message.Message{Value: sample(1), Timestamp: 1} }
		b.advise(wire.Advice{HasCompression: true, Algorithm: message.Zstd, HasDictionary: true, Dictionary: one.ID()})
		synctest.Wait()
		send(t, p, msg())
		close(held)
		synctest.Wait()
		send(t, p, msg())
		if p.Stats().Dictionary != one.ID() {
			t.Errorf("%+v", p.Stats())
		}
		b.advise(wire.Advice{HasDictionary: true, Dictionary: two.ID()})
		synctest.Wait()
		send(t, p, msg()) // without
		send(t, p, msg())
		b.advise(wire.Advice{HasDictionary: true})
		synctest.Wait()
		send(t, p, msg())
		b.advise(wire.Advice{HasDictionary: true, Dictionary: one.ID()}) // it is there still
		synctest.Wait()
		send(t, p, msg())
		plain, with := "zstd/raw", fmt.Sprintf("zstd/raw+%08x", one.ID())
		if want := strings.Join([]string{plain, with, plain, plain, plain, with}, " "); b.how() != want {
			t.Errorf("stored as\n%s, want\n%s", b.how(), want)
		}
		if b.gets != 2 {
			t.Errorf("asked %d times", b.gets)
		}
		k := consumer(t, other, From(Earliest))
		if got := read(t, k, 6); strings.Count(got, "delivered") != 6 {
			t.Errorf("read %s", got)
		}
		if b.gets != 3 {
			t.Errorf("%d requests after the consumer's", b.gets)
		}
	})
}

// A batch that needs a dictionary nobody has ends the partition before it, with
// an error that names topic and id; nothing is lost: the consumer goes on when it
// is there, or passes over it.
func TestDictionaryThatIsMissing(t *testing.T) {
	d, gone := dictionaryOf(t, ""), dictionaryOf(t, "another ")
	story(t, 1, func(t *testing.T, b *fake) {
		c := b.client()
		defer c.Close()
		b.dicts = map[uint32][]byte{d.ID(): d.Bytes()}
		policy := func(d *compression.Dictionary) ProducerOption {
			return WithCompression(compression.Policy{Strategy: compression.Always, Algorithm: message.Zstd, Dictionary: d})
		}
		for i, x := range []*compression.Dictionary{nil, d, gone, d} {
			p := producer(t, c, policy(x))
			send(t, p, &message.Message{Value: sample(i), Timestamp: 1})
			if err := p.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		k := consumer(t, c, From(Earliest))
		poll := func() (Batch, error) { return k.Poll(ctxFor(t, time.Hour)) }
		expect := func(offset message.Offset) {
			t.Helper()
			batch, err := poll()
			if err != nil || batch.First != offset || batch.End != offset+1 {
				t.Fatalf("[%d, %d), %v; want %d", batch.First, batch.End, err, offset)
			}
			n := 0
			for m, err := range batch.Messages() {
				if err != nil || m.Offset != offset || !strings.HasPrefix(string(m.Value), string(sample(int(offset)))) {
					t.Fatalf("%v, %v", m, err)
				}
				n++
			}
			if n != 1 {
				t.Fatalf("%d messages", n)
			}
			batch.Release()
		}
		missing := func() *DictionaryError {
			t.Helper()
			_, err := poll()
			var e *DictionaryError
			if !errors.As(err, &e) || !errors.Is(err, fault.NotFound) || e.Topic != "orders" || e.ID != gone.ID() || e.From != 2 || e.Next != 3 {
				t.Fatalf("%v", err)
			}
			for _, part := range []string{"orders", fmt.Sprintf("%08x", gone.ID())} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not name %s", err, part)
				}
			}
			if at := k.Positions()[0]; at.Offset != 2 || at.Err == nil {
				t.Errorf("%+v", at)
			}
			return e
		}
		expect(0)
		expect(1)
		e := missing()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := k.Poll(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("went on by itself: %v", err)
		}
		if err := k.Seek(t.Context(), 0, At(e.From)); err != nil { // too early
			t.Fatal(err)
		}
		missing()
		if err := k.Seek(t.Context(), 0, At(e.Next)); err != nil { // over it
			t.Fatal(err)
		}
		expect(3)
		b.set(func() { b.dicts[gone.ID()] = gone.Bytes() })
		if err := k.Seek(t.Context(), 0, At(e.From)); err != nil { // it has appeared
			t.Fatal(err)
		}
		expect(2)
		expect(3)
	})
}

// A delivery whose later batch cannot be read is cut before it.
func TestDeliveryIsCutBeforeAMissingDictionary(t *testing.T) {
	gone := dictionaryOf(t, "")
	story(t, 1, func(t *testing.T, b *fake) {
		c := b.client()
		defer c.Close()
		batch := func(d *compression.Dictionary, base message.Offset) []byte {
			build := message.NewBuilder(message.DefaultLimits())
			if err := build.Append(&message.Message{Value: append(sample(int(base)), make([]byte, 2000)...), Timestamp: 1}); err != nil {
				t.Fatal(err)
			}
			x, err := build.Finish(nil, message.Producer{}, compression.Policy{Strategy: compression.Always, Algorithm: message.Zstd, Dictionary: d}.Compress)
			if err != nil {
				t.Fatal(err)
			}
			message.Stamp(x, base, 1, 1, 0)
			return x
		}
		a, bad := batch(nil, 0), batch(gone, 1)
		b.hook = func(s *session, h wire.Header, payload []byte) bool {
			if h.Opcode != wire.OpSubscribe {
				return false
			}
			h.Handle = 9
			head := wire.DeliverHead{HWM: 2, Runs: []wire.Run{{First: 0, End: 2, Bytes: uint32(len(a) + len(bad)), Batches: 2}}}
			frame := wire.AppendDeliverFrame(nil, wire.Header{Opcode: wire.OpDeliver, Handle: 9}, &head)
			s.later(reply(h, &wire.SubscribeOK{HWM: 2, LogEnd: 2}), append(append(frame, a...), bad...))
			return true
		}
		k := consumer(t, c, From(Earliest))
		got, err := k.Poll(ctxFor(t, time.Hour))
		if err != nil || got.First != 0 || got.End != 1 {
			t.Fatalf("[%d, %d), %v", got.First, got.End, err)
		}
		n := 0
		for _, err := range got.Messages() {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		if n != 1 {
			t.Errorf("%d messages", n)
		}
		got.Release()
		var e *DictionaryError
		if _, err := k.Poll(ctxFor(t, time.Hour)); !errors.As(err, &e) || e.From != 1 || e.Next != 2 {
			t.Fatalf("%v", err)
		}
	})
}

// Many who need one dictionary ask for it once.
func TestDictionaryIsAskedForOnce(t *testing.T) {
	d := dictionaryOf(t, "")
	story(t, 1, func(t *testing.T, b *fake) {
		b.dicts = map[uint32][]byte{d.ID(): d.Bytes()}
		c := b.client()
		defer c.Close()
		c.dicts.use("orders")
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if x, err := c.dicts.get(t.Context(), c.links[0], "orders", d.ID()); err != nil || x.ID() != d.ID() {
					t.Errorf("%v", err)
				}
			})
		}
		wg.Wait()
		if b.gets != 1 {
			t.Errorf("asked %d times", b.gets)
		}
		c.dicts.unuse("orders")
		if c.dicts.known("orders", d.ID()) != nil {
			t.Error("it outlived its users")
		}
		// Of unknown ids nothing is kept.
		c.dicts.use("orders")
		for id := range uint32(100) {
			if _, err := c.dicts.get(t.Context(), c.links[0], "orders", id+1); fault.CodeOf(err) != fault.NotFound {
				t.Fatal(err)
			}
		}
		if x := c.dicts.topics["orders"]; len(x.known) != 0 || len(x.asked) != 0 {
			t.Errorf("%d known, %d asked for", len(x.known), len(x.asked))
		}
	})
}
