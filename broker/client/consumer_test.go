package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/wire"
)

// fill stores one batch for each string, whose runes are the messages.
func (f *fake) fill(topic string, part int, batches ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, vs := range batches {
		f.topics[topic].parts[part].append(encoded(f.t, vs), f.seed)
	}
}

func encoded(t *testing.T, vs string) []byte {
	b := message.NewBuilder(message.DefaultLimits())
	for _, v := range vs {
		if err := b.Append(value(string(v))); err != nil {
			t.Fatal(err)
		}
	}
	out, err := b.Finish(nil, message.Producer{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func consumer(t *testing.T, c *Client, opts ...ConsumerOption) *Consumer {
	t.Helper()
	k, err := c.Consumer(t.Context(), "orders", opts...)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// read polls until n messages (or errors) came and returns their values.
func read(t *testing.T, k *Consumer, n int) string {
	t.Helper()
	var all strings.Builder
	for n > 0 {
		b, err := k.Poll(ctxFor(t, time.Hour))
		if err != nil {
			t.Logf("poll: %v", err)
			fmt.Fprintf(&all, "(%v)", fault.CodeOf(err))
			n--
			continue
		}
		for m, err := range b.Messages() {
			if err != nil {
				t.Logf("message: %v", err)
				fmt.Fprintf(&all, "(%v)", fault.CodeOf(err))
			} else {
				all.Write(m.Value)
			}
			n--
		}
		b.Release()
	}
	return all.String()
}

func TestConsume(t *testing.T) {
	story(t, 1, func(t *testing.T, b *fake) {
		b.seed = 42
		b.fill("orders", 0, "abc", "de", "f")
		c := b.client()
		defer c.Close()
		for _, x := range []struct {
			from Start
			want string
		}{
			{Earliest, "abcdefg"}, {At(0), "abcdefg"}, {At(1), "bcdefg"}, {At(3), "defg"}, {At(6), "g"}, {Latest, "g"},
		} {
			k := consumer(t, c, From(x.from))
			b.set(func() { b.topics["orders"].parts[0].end = 6 })
			b.set(func() { b.topics["orders"].parts[0].batches = b.topics["orders"].parts[0].batches[:3] })
			b.fill("orders", 0, "g")
			b.deliver()
			if got := read(t, k, len(x.want)); got != x.want {
				t.Errorf("from %+v: got %s, want %s", x.from, got, x.want)
			}
			if lag := k.Lag(); lag != 0 {
				t.Errorf("from %+v: lag %d at the end", x.from, lag)
			}
			if _, err := k.Poll(ctxFor(t, time.Second)); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("nothing left: %v", err)
			}
			_ = k.Close()
			b.set(func() {
				b.topics["orders"].parts[0].end = 6
				b.topics["orders"].parts[0].batches = b.topics["orders"].parts[0].batches[:3]
			})
		}
	})
}

// TestConsumeAcrossReconnects: connections break, the consumer goes on at the
// next offset without loss or repetition.
func TestConsumeAcrossReconnects(t *testing.T) {
	story(t, 2, func(t *testing.T, b *fake) {
		c := b.client()
		defer c.Close()
		k := consumer(t, c, From(Earliest))
		var got strings.Builder
		for round := range 10 {
			b.fill("orders", 0, string(rune('a'+round)))
			b.fill("orders", 1, string(rune('A'+round)))
			b.deliver()
			if round%2 == 0 {
				synctest.Wait()
				b.cut()
			}
			part := []byte(read(t, k, 2))
			slices.Sort(part)
			got.Write(part)
		}
		if got.String() != "AaBbCcDdEeFfGgHhIiJj" {
			t.Errorf("got %s", got.String())
		}
	})
}

// TestConsumerCredit: the broker never holds more credit than the window, and
// gets it back in steps of half.
func TestConsumerCredit(t *testing.T) {
	story(t, 1, func(t *testing.T, b *fake) {
		var credits []uint64
		b.hook = func(s *session, h wire.Header, payload []byte) bool {
			if h.Opcode == wire.OpCredit {
				var x wire.Credit
				if err := x.Parse(payload); err != nil {
					t.Error(err)
				}
				credits = append(credits, x.Bytes)
			}
			return false
		}
		for range 100 {
			b.fill("orders", 0, "0123456789") // about 230 bytes on the wire
		}
		c := b.client()
		defer c.Close()
		k := consumer(t, c, From(Earliest), WithCredit(2000))
		synctest.Wait()
		var held int
		b.set(func() {
			for s := range b.sessions {
				for _, sub := range s.subs {
					held = int(sub.next)
				}
			}
		})
		if held < 80 || held > 100 {
			t.Errorf("the broker sent %d messages ahead with a credit of 2000 bytes", held)
		}
		if got := read(t, k, 1000); got != strings.Repeat("0123456789", 100) {
			t.Error("messages are missing")
		}
		synctest.Wait()
		b.set(func() {
			if n := len(credits); n < 10 || n > 25 {
				t.Errorf("credit came back in %d steps: %v", n, credits)
			}
			for _, n := range credits {
				if n < 1000 || n > 2000 {
					t.Errorf("a step of %d bytes with a window of 2000", n)
				}
			}
		})
	})
}

func TestConsumerErrors(t *testing.T) {
	story(t, 1, func(t *testing.T, b *fake) {
		b.fill("orders", 0, "abc")
		c := b.client()
		defer c.Close()
		var f *fault.Error
		if _, err := c.Consumer(t.Context(), "orders", From(At(9))); !errors.As(err, &f) || f.Code != fault.OutOfRange || f.Value != 9 || f.Limit != 3 {
			t.Errorf("offset 9 of 3: %v", err)
		}
		if _, err := c.Consumer(t.Context(), "orders", Partitions(4)); !errors.Is(err, fault.NotFound) {
			t.Errorf("partition 4 of 1: %v", err)
		}
		if _, err := c.Consumer(t.Context(), "nowhere"); !errors.Is(err, fault.NotFound) {
			t.Errorf("an unknown topic: %v", err)
		}
		if _, err := c.Consumer(t.Context(), "orders", From(At(-3))); !errors.Is(err, fault.Invalid) {
			t.Errorf("offset -3: %v", err)
		}
		if _, err := c.Consumer(t.Context(), "orders", WithCredit(0)); !errors.Is(err, fault.Invalid) {
			t.Errorf("no credit: %v", err)
		}
	})
}

// TestRetentionOvertakes: the log start passes the consumer while it is away.
// It gets a typed error, and goes on after Seek.
func TestRetentionOvertakes(t *testing.T) {
	story(t, 1, func(t *testing.T, b *fake) {
		b.fill("orders", 0, "abc")
		c := b.client()
		defer c.Close()
		k := consumer(t, c, From(Earliest))
		if got := read(t, k, 3); got != "abc" {
			t.Fatal(got)
		}
		b.set(func() { b.down = true })
		b.cut()
		b.fill("orders", 0, "def", "ghi")
		b.set(func() {
			b.topics["orders"].parts[0].start = 6
			b.topics["orders"].parts[0].batches = b.topics["orders"].parts[0].batches[2:]
			b.down = false
		})
		if _, err := k.Poll(t.Context()); !errors.Is(err, fault.OutOfRange) {
			t.Errorf("poll: %v", err)
		}
		if p := k.Positions(); len(p) != 1 || !errors.Is(p[0].Err, fault.OutOfRange) || p[0].Offset != 3 {
			t.Errorf("positions %+v", p)
		}
		if err := k.Seek(t.Context(), 0, Earliest); err != nil {
			t.Fatal(err)
		}
		if got := read(t, k, 3); got != "ghi" {
			t.Errorf("after seek: %s", got)
		}
		if err := k.Seek(t.Context(), 1, Earliest); !errors.Is(err, fault.NotFound) {
			t.Errorf("seek in partition 1 of 1: %v", err)
		}
	})
}

func TestSeek(t *testing.T) {
	story(t, 1, func(t *testing.T, b *fake) {
		b.fill("orders", 0, "abc", "def")
		c := b.client()
		defer c.Close()
		k := consumer(t, c, From(Earliest))
		if got := read(t, k, 3); got != "abc" {
			t.Fatal(got)
		}
		synctest.Wait() // "def" is received and will be discarded
		if err := k.Seek(t.Context(), 0, At(1)); err != nil {
			t.Fatal(err)
		}
		if got := read(t, k, 5); got != "bcdef" {
			t.Errorf("after seek: %s", got)
		}
		synctest.Wait()
		b.set(func() {
			for s := range b.sessions {
				if len(s.subs) != 1 {
					t.Errorf("%d subscriptions at the broker", len(s.subs))
				}
			}
		})
	})
}

// TestGap: the broker skips a damaged range. The consumer is told once.
func TestGap(t *testing.T) {
	story(t, 1, func(t *testing.T, b *fake) {
		b.fill("orders", 0, "abc", "def", "ghi")
		b.set(func() {
			p := b.topics["orders"].parts[0]
			p.batches = slices.Delete(p.batches, 1, 2)
		})
		c := b.client()
		defer c.Close()
		k := consumer(t, c, From(Earliest))
		if got := read(t, k, 3); got != "abc" {
			t.Fatal(got)
		}
		_, err := k.Poll(t.Context())
		var gap *GapError
		if !errors.As(err, &gap) || gap.From != 3 || gap.Next != 6 || !errors.Is(err, fault.Corrupted) {
			t.Fatalf("gap: %v", err)
		}
		if got := read(t, k, 3); got != "ghi" {
			t.Errorf("after the gap: %s", got)
		}
	})
}

// TestAnnouncedGap: the broker says that it skips a range before it does. The
// consumer is told once, and subscribes behind it after a loss.
func TestAnnouncedGap(t *testing.T) {
	for _, lost := range []bool{false, true} {
		story(t, 1, func(t *testing.T, b *fake) {
			c := b.client()
			defer c.Close()
			k := consumer(t, c, From(Earliest))
			synctest.Wait()
			b.fill("orders", 0, "abc", "def", "ghi")
			b.set(func() {
				p := b.topics["orders"].parts[0]
				p.batches = slices.Delete(p.batches, 1, 2)
				for s := range b.sessions {
					first := s.nextDelivery()
					for h := range s.subs {
						x := wire.FromError(fault.New(fault.Corrupted, "deliver").WithField("offset").WithLimit(3, 6), wire.OpSubscribe)
						s.later(first, wire.AppendFrame(nil, wire.Header{Opcode: wire.OpError.Response(), Handle: h}, &x))
					}
				}
			})
			synctest.Wait()
			if lost {
				b.cut()
			} else {
				b.deliver()
			}
			if got := read(t, k, 3); got != "abc" {
				t.Fatal(got)
			}
			var gap *GapError
			if _, err := k.Poll(t.Context()); !errors.As(err, &gap) || gap.From != 3 || gap.Next != 6 {
				t.Fatalf("gap: %v", err)
			}
			if got := read(t, k, 3); got != "ghi" {
				t.Errorf("after the gap: %s", got)
			}
		})
	}
}

func TestPollRaw(t *testing.T) {
	story(t, 1, func(t *testing.T, b *fake) {
		b.seed = 7
		b.fill("orders", 0, "abc")
		c := b.client()
		defer c.Close()
		k := consumer(t, c, From(At(1)))
		r, err := k.PollRaw(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Runs) != 1 || r.Runs[0].Seed != 7 || r.Wanted != 1 || r.HWM != 3 || r.Partition != 0 {
			t.Errorf("raw delivery %+v", r)
		}
		if err := message.VerifyHeader(r.Batches, 7); err != nil {
			t.Error(err)
		}
		if got := strings.Join(valuesOf(t, r.Batches), ""); got != "abc" {
			t.Errorf("batch of %s", got)
		}
		r.Release()
		r.Release()
	})
}

// TestSubscribeRetries: a retryable refusal delays, another one ends it.
func TestSubscribeRetries(t *testing.T) {
	story(t, 1, func(t *testing.T, b *fake) {
		b.fill("orders", 0, "abc")
		n := 0
		b.hook = func(s *session, h wire.Header, payload []byte) bool {
			if h.Opcode != wire.OpSubscribe {
				return false
			}
			if n++; n < 4 {
				s.later(refuse(h, fault.New(fault.ResourceExhausted, "subscribe")))
				return true
			}
			return false
		}
		c := b.client()
		defer c.Close()
		k := consumer(t, c, From(Earliest))
		if got := read(t, k, 3); got != "abc" || n != 4 {
			t.Errorf("got %s after %d attempts", got, n)
		}
		b.set(func() {
			for s := range b.sessions {
				for h := range s.subs {
					x := wire.FromError(fault.New(fault.NotFound, "deliver").WithField("topic").WithBits(fault.BitClosesHandle), wire.OpSubscribe)
					s.later(wire.AppendFrame(nil, wire.Header{Opcode: wire.OpError.Response(), Handle: h}, &x))
				}
			}
		})
		if _, err := k.Poll(t.Context()); !errors.Is(err, fault.NotFound) {
			t.Errorf("poll: %v", err)
		}
	})
}

func TestConsumerClose(t *testing.T) {
	story(t, 3, func(t *testing.T, b *fake) {
		c := b.client()
		defer c.Close()
		k := consumer(t, c)
		polled := make(chan error)
		go func() { _, err := k.Poll(t.Context()); polled <- err }()
		synctest.Wait()
		_ = k.Close()
		_ = k.Close()
		if err := <-polled; !errors.Is(err, fault.Closed) {
			t.Errorf("poll: %v", err)
		}
		synctest.Wait()
		b.set(func() {
			for s := range b.sessions {
				if len(s.subs) != 0 {
					t.Errorf("%d subscriptions are left at the broker", len(s.subs))
				}
			}
		})
	})
}
