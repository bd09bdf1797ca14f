package client

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/portask/portask/broker/message"
)

// A delivery's times are those of its life: it waits for Poll, is processed until
// Release, and what nobody polls is discarded.
func TestConsumerStats(t *testing.T) {
	story(t, 1, func(t *testing.T, b *fake) {
		c := b.client()
		defer c.Close()
		k := consumer(t, c, From(Earliest))
		b.fill("orders", 0, "abc")
		b.deliver()
		synctest.Wait()
		if s := k.Stats(); s != (ConsumerStats{Pending: 1}) {
			t.Errorf("before the poll: %+v", s)
		}
		time.Sleep(300 * time.Millisecond)
		x, err := k.Poll(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for range x.Messages() {
		}
		time.Sleep(50 * time.Millisecond)
		if s := k.Stats(); s != (ConsumerStats{}) {
			t.Errorf("while it is processed: %+v", s)
		}
		x.Release()
		x.Release() // nothing more happens
		s := k.Stats()
		want := ConsumerStats{Deliveries: 1, Bytes: s.Bytes, Messages: 3, Waiting: 300 * time.Millisecond, Processing: 50 * time.Millisecond, Held: 350 * time.Millisecond}
		if s != want || s.Bytes < message.EnvelopeBytes {
			t.Errorf("%+v, want %+v", s, want)
		}

		// A poll releases the one before; the second is iterated twice.
		b.fill("orders", 0, "de")
		b.deliver()
		b.fill("orders", 0, "f")
		b.deliver()
		synctest.Wait()
		if x, err = k.Poll(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			for range x.Messages() {
			}
		}
		time.Sleep(10 * time.Millisecond)
		if x, err = k.Poll(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s = k.Stats(); s.Deliveries != 2 || s.Messages != 7 || s.Processing != 60*time.Millisecond {
			t.Errorf("%+v", s)
		}
		x.Release() // not iterated

		// What is thrown away was never processed.
		b.fill("orders", 0, "g")
		b.deliver()
		synctest.Wait()
		if err := k.Seek(t.Context(), 0, At(6)); err != nil {
			t.Fatal(err)
		}
		if s = k.Stats(); s.Deliveries != 3 || s.Messages != 7 || s.Discarded != 1 { // the next one may have come already
			t.Errorf("after a seek: %+v", s)
		}
		b.deliver()
		synctest.Wait()
		if s = k.Stats(); s.Pending != 1 {
			t.Errorf("after a seek: %+v", s)
		}
		_ = k.Close()
		if s = k.Stats(); s.Discarded != 2 || s.Pending != 0 {
			t.Errorf("after the end: %+v", s)
		}
	})
}

// Whether messages are expired is the consumer's own clock's to tell.
func TestSkipExpired(t *testing.T) {
	story(t, 1, func(t *testing.T, b *fake) {
		for _, skip := range []bool{true, false} {
			c := b.client()
			var opts []ConsumerOption
			if skip {
				opts = append(opts, SkipExpired())
			}
			k := consumer(t, c, append(opts, From(Earliest))...)
			if skip {
				for i, expiry := range []time.Duration{-time.Second, time.Minute, 0} {
					m := *value(string(rune('a' + i)))
					if m.Expiry = time.Now().Add(expiry).UnixMicro(); expiry == 0 {
						m.Expiry = 0
					}
					b.set(func() { b.topics["orders"].parts[0].append(finished(t, &m), b.seed) })
				}
			}
			b.deliver()
			want := map[bool]string{true: "bc", false: "abc"}[skip]
			if got := read(t, k, len(want)); got != want {
				t.Errorf("skipping %t: %q, want %q", skip, got, want)
			}
			if s := k.Stats(); s.Messages != uint64(len(want)) || s.Expired != uint64(3-len(want)) {
				t.Errorf("skipping %t: %+v", skip, s)
			}
			if skip { // a delivery of nothing else is expired as a whole
				if err := k.Seek(t.Context(), 0, Earliest); err != nil {
					t.Fatal(err)
				}
				b.deliver()
				time.Sleep(2 * time.Minute)
				if got := read(t, k, 1); got != "c" {
					t.Errorf("later: %q", got)
				}
				if s := k.Stats(); s.Expired != 3 {
					t.Errorf("later: %+v", s)
				}
			}
			_ = c.Close()
		}
	})
}

func finished(t *testing.T, m *message.Message) []byte {
	t.Helper()
	b := message.NewBuilder(message.DefaultLimits())
	if err := b.Append(m); err != nil {
		t.Fatal(err)
	}
	out, err := b.Finish(nil, message.Producer{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
