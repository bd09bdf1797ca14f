package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
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

// story runs f in virtual time against a fake broker with a topic of n
// partitions named "orders". No goroutine may be left at its end: synctest
// fails the test otherwise.
func story(t *testing.T, n int, f func(t *testing.T, b *fake)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := newFake(t).topic("orders", n)
		defer b.stop()
		f(t, b)
	})
}

func producer(t *testing.T, c *Client, opts ...ProducerOption) *Producer {
	t.Helper()
	p, err := c.Producer(t.Context(), "orders", opts...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// log collects outcomes in the order of the callbacks.
type outcomes struct {
	mu  sync.Mutex
	all []string
}

func (o *outcomes) cb(name string) func(Receipt, error) {
	return func(r Receipt, err error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		if err != nil {
			o.all = append(o.all, name+" "+fault.CodeOf(err).String())
		} else if r.Duplicate {
			o.all = append(o.all, fmt.Sprintf("%s @%d dup", name, r.Offset))
		} else {
			o.all = append(o.all, fmt.Sprintf("%s @%d", name, r.Offset))
		}
	}
}

func (o *outcomes) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Join(o.all, ", ")
}

func (o *outcomes) want(t *testing.T, want string) {
	t.Helper()
	if got := o.String(); got != want {
		t.Errorf("callbacks:\n got %s\nwant %s", got, want)
	}
}

func sendAll(t *testing.T, p *Producer, o *outcomes, names ...string) {
	t.Helper()
	for _, n := range names {
		if err := p.SendAsync(t.Context(), value(n), o.cb(n)); err != nil {
			t.Fatal(err)
		}
	}
}

// prime has a first message stored: before that only one batch of an idempotent
// producer is in flight.
func prime(t *testing.T, p *Producer) {
	t.Helper()
	if _, err := p.Send(t.Context(), value("0")); err != nil {
		t.Fatal(err)
	}
}

// TestFirstBatchGoesAlone: see prime.
func TestFirstBatchGoesAlone(t *testing.T) {
	story(t, 1, func(t *testing.T, b *fake) {
		c := b.client()
		defer c.Close()
		p := producer(t, c, perMessage)
		n := 0
		b.set(func() {
			b.hook = func(s *session, h wire.Header, payload []byte) bool {
				if h.Opcode == wire.OpProduce {
					n++
				}
				return h.Opcode == wire.OpProduce
			}
		})
		var o outcomes
		sendAll(t, p, &o, "a", "b", "c")
		time.Sleep(time.Second)
		b.set(func() {
			if n != 1 {
				t.Errorf("%d batches are in flight though none was ever stored", n)
			}
		})
	})
}

// perMessage makes every message a batch of its own.
var perMessage = WithBatchBytes(1)

func TestSend(t *testing.T) {
	story(t, 1, func(t *testing.T, b *fake) {
		c := b.client()
		defer c.Close()
		p := producer(t, c)
		for i := range 3 {
			r, err := p.Send(t.Context(), value("v"))
			if err != nil || r.Offset != message.Offset(i) || r.Partition != 0 || r.Duplicate || !r.AppendTime.Equal(time.UnixMicro(1234567)) {
				t.Fatalf("receipt %+v, error %v", r, err)
			}
		}
		if err := p.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Send(t.Context(), value("v")); !errors.Is(err, fault.Closed) {
			t.Errorf("send after close: %v", err)
		}
		b.set(func() {
			for s := range b.sessions {
				if len(s.producers) != 0 {
					t.Error("the producer was not closed at the broker")
				}
			}
		})
	})
}

// TestLinger: after a pause a message leaves at once, those that follow within
// the linger leave together, and a full batch does not wait.
func TestLinger(t *testing.T) {
	story(t, 1, func(t *testing.T, b *fake) {
		c := b.client()
		defer c.Close()
		p := producer(t, c, WithLinger(10*time.Millisecond), WithBatchBytes(1000))
		sent := func() uint64 { synctest.Wait(); return p.Stats().Batches }
		var o outcomes
		time.Sleep(time.Second)
		sendAll(t, p, &o, "a")
		if n := sent(); n != 1 {
			t.Fatalf("after a pause: %d batches, want 1 at once", n)
		}
		sendAll(t, p, &o, "b")
		time.Sleep(5 * time.Millisecond)
		sendAll(t, p, &o, "c")
		if n := sent(); n != 1 {
			t.Fatalf("within the linger: %d batches, want 1", n)
		}
		time.Sleep(5 * time.Millisecond)
		if n := sent(); n != 2 {
			t.Fatalf("after the linger: %d batches, want 2", n)
		}
		for range 3 {
			if err := p.SendAsync(t.Context(), value(strings.Repeat("x", 400)), nil); err != nil {
				t.Fatal(err)
			}
		}
		if n := sent(); n != 3 {
			t.Fatalf("a full batch: %d batches, want 3", n)
		}
		o.want(t, "a @0, b @1, c @2")
	})
}

// TestLingerManyLanes: open batches of all partitions leave in one go, and the
// linger of later ones starts anew.
func TestLingerManyLanes(t *testing.T) {
	story(t, 4, func(t *testing.T, b *fake) {
		c := b.client()
		defer c.Close()
		p := producer(t, c, WithLinger(10*time.Millisecond))
		for range 5 {
			for i := range uint32(4) {
				if err := p.SendAsyncTo(t.Context(), i, value("v"), nil); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(10 * time.Millisecond)
			synctest.Wait()
		}
		// The first message left alone, its three neighbours and 16 others in
		// ticks of up to 4 batches.
		if n := p.Stats().Batches; n > 21 || n < 17 {
			t.Errorf("%d batches for 20 messages in 5 ticks of 4 partitions", n)
		}
	})
}

func TestMixedMessagesMakeBatches(t *testing.T) {
	story(t, 1, func(t *testing.T, b *fake) {
		c := b.client()
		defer c.Close()
		p := producer(t, c, WithLinger(time.Hour))
		if _, err := p.Send(t.Context(), value("first")); err != nil { // the linger is spent
			t.Fatal(err)
		}
		for i := range 6 {
			m := value(fmt.Sprint(i))
			m.Priority = uint8(i / 2)
			if err := p.SendAsync(t.Context(), m, nil); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if n := p.Stats().Batches; n != 3 {
			t.Errorf("%d batches were sent, want 3: two of other priority close theirs at once", n)
		}
		if err := p.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := b.values("orders", 0); !slices.Equal(got, []string{"first", "0", "1", "2", "3", "4", "5"}) {
			t.Errorf("stored %v", got)
		}
	})
}

func TestPartitioning(t *testing.T) {
	story(t, 8, func(t *testing.T, b *fake) {
		c := b.client()
		defer c.Close()
		p := producer(t, c, WithBatchBytes(200))
		for i := range 50 {
			m := value("v")
			m.Key = fmt.Appendf(nil, "key-%d", i)
			r, err := p.Send(t.Context(), m)
			if err != nil || int(r.Partition) != message.PartitionFor(m.Key, 8) {
				t.Fatalf("key %s went to %d: %v", m.Key, r.Partition, err)
			}
		}
		// Without key: one partition until its batch is full, then the next.
		var runs []uint32
		for range 40 {
			err := p.SendAsync(t.Context(), value(strings.Repeat("x", 50)), func(r Receipt, err error) {
				if err == nil && (len(runs) == 0 || runs[len(runs)-1] != r.Partition) {
					runs = append(runs, r.Partition)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(runs) < 8 || len(runs) > 12 {
			t.Errorf("40 messages in batches of 4 went through partitions %v", runs)
		}
		if _, err := p.SendTo(t.Context(), 8, value("v")); !errors.Is(err, fault.NotFound) {
			t.Errorf("partition 8 of 8: %v", err)
		}
		q := producer(t, c, WithPartitioner(func(m *message.Message, n int) int { return n - 1 }))
		if r, err := q.Send(t.Context(), value("v")); err != nil || r.Partition != 7 {
			t.Errorf("own partitioner: %+v, %v", r, err)
		}
	})
}

func TestAckNone(t *testing.T) {
	story(t, 1, func(t *testing.T, b *fake) {
		b.grant = 2000
		c := b.client()
		defer c.Close()
		p := producer(t, c, WithAck(message.AckNone), perMessage)
		var o outcomes
		for i := range 100 {
			sendAll(t, p, &o, fmt.Sprint(i))
		}
		if err := p.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := len(b.values("orders", 0)); n != 100 {
			t.Errorf("%d of 100 arrived", n)
		}
		if !strings.HasPrefix(o.String(), "0 @-1, 1 @-1, 2 @-1") {
			t.Errorf("receipts without offset expected: %.60s", o.String())
		}
	})
}

func TestSendBatch(t *testing.T) {
	story(t, 2, func(t *testing.T, b *fake) {
		c := b.client()
		defer c.Close()
		p := producer(t, c)
		builder := message.NewBuilder(message.DefaultLimits())
		for _, v := range []string{"x", "y", "z"} {
			if err := builder.Append(value(v)); err != nil {
				t.Fatal(err)
			}
		}
		pre, err := builder.Finish(nil, message.Producer{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		var o outcomes
		for i := range 3 { // the same bytes again and again
			done := make(chan struct{})
			cb := o.cb(fmt.Sprint(i))
			err := p.SendBatch(t.Context(), 1, pre, func(r Receipt, err error) { cb(r, err); close(done) })
			if err != nil {
				t.Fatal(err)
			}
			<-done
		}
		o.want(t, "0 @0, 1 @3, 2 @6")
		if got := strings.Join(b.values("orders", 1), ""); got != "xyzxyzxyz" {
			t.Errorf("stored %s", got)
		}
		if err := p.SendBatch(t.Context(), 1, pre[:100], nil); !errors.Is(err, fault.Invalid) {
			t.Errorf("half a batch: %v", err)
		}
		if err := p.SendBatch(t.Context(), 2, pre, nil); !errors.Is(err, fault.NotFound) {
			t.Errorf("partition 2 of 2: %v", err)
		}
	})
}

func TestCompressedBatches(t *testing.T) {
	// Not in virtual time: coders are shared by the whole process, and those of
	// zstd own channels, which synctest allows in one bubble only.
	b := newFake(t).topic("orders", 1)
	defer b.stop()
	c := b.client()
	defer c.Close()
	p := producer(t, c, WithCompression(compression.DefaultPolicy()), WithBatchBytes(8<<10))
	k, err := c.Consumer(t.Context(), "orders", From(Earliest))
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Repeat("compressible ", 100)
	for range 50 {
		if err := p.SendAsync(t.Context(), value(want), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := p.Stats(); s.Bytes*10 > s.RawBytes {
		t.Errorf("%d bytes sent for %d raw", s.Bytes, s.RawBytes)
	}
	for n := 0; n < 50; {
		batch, err := k.Poll(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for m, err := range batch.Messages() {
			if err != nil || string(m.Value) != want || m.Offset != message.Offset(n) {
				t.Fatalf("message %d: %v %v", n, m, err)
			}
			n++
		}
	}
}

// TestCallbackSends: a callback may send.
func TestCallbackSends(t *testing.T) {
	story(t, 1, func(t *testing.T, b *fake) {
		c := b.client()
		defer c.Close()
		p := producer(t, c)
		done := make(chan Receipt)
		err := p.SendAsync(t.Context(), value("a"), func(Receipt, error) {
			if err := p.SendAsync(t.Context(), value("b"), func(r Receipt, err error) { done <- r }); err != nil {
				t.Error(err)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if r := <-done; r.Offset != 1 {
			t.Errorf("offset %d", r.Offset)
		}
	})
}

func TestBadMessages(t *testing.T) {
	story(t, 1, func(t *testing.T, b *fake) {
		c := b.client()
		defer c.Close()
		p := producer(t, c)
		big := &message.Message{Value: make([]byte, 1<<20+1)}
		if err := p.SendAsync(t.Context(), big, nil); !errors.Is(err, fault.TooLarge) {
			t.Errorf("a message above the limit: %v", err)
		}
		big.Value = big.Value[:1<<20]
		if _, err := p.Send(t.Context(), big); err != nil {
			t.Errorf("a message at the limit: %v", err)
		}
		if err := p.SendAsync(t.Context(), &message.Message{Priority: 8}, nil); !errors.Is(err, fault.Invalid) {
			t.Errorf("priority 8: %v", err)
		}
		synctest.Wait() // Send returns from the callback, before the batch is given back
		if s := p.Stats(); s.Buffered != 0 || s.Messages != 1 {
			t.Errorf("refused messages left traces: %+v", s)
		}
		for name, o := range map[string]ProducerOption{
			"ack": WithAck(3), "linger": WithLinger(-1), "batch bytes": WithBatchBytes(0),
			"max buffered": WithMaxBuffered(0), "delivery timeout": WithDeliveryTimeout(0),
		} {
			var f *fault.Error
			if _, err := c.Producer(t.Context(), "orders", o); !errors.As(err, &f) || f.Code != fault.Invalid || f.Field != name {
				t.Errorf("option %s: %v", name, err)
			}
		}
		if _, err := c.Producer(t.Context(), "nowhere"); !errors.Is(err, fault.NotFound) {
			t.Errorf("an unknown topic: %v", err)
		}
		if _, err := c.Producer(t.Context(), "no/where"); !errors.Is(err, fault.Invalid) {
			t.Errorf("a bad topic name: %v", err)
		}
	})
}

// TestCloseEndsEverything: what is left gets fault.Closed, and nobody hangs.
func TestCloseEndsEverything(t *testing.T) {
	story(t, 1, func(t *testing.T, b *fake) {
		c := b.client()
		p := producer(t, c, perMessage, WithMaxBuffered(1000))
		b.set(func() {
			b.hook = func(s *session, h wire.Header, payload []byte) bool { return h.Opcode == wire.OpProduce }
		})
		var o outcomes
		sendAll(t, p, &o, "a", "b", "c", "d", "e", "f", "g")
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := p.Send(t.Context(), value("waits")); !errors.Is(err, fault.Closed) {
				t.Errorf("Send: %v", err)
			}
		})
		wg.Go(func() {
			if err := p.SendAsync(t.Context(), value(strings.Repeat("x", 990)), nil); !errors.Is(err, fault.Closed) {
				t.Errorf("SendAsync with a full buffer: %v", err)
			}
		})
		wg.Go(func() {
			if err := p.Flush(t.Context()); err != nil {
				t.Errorf("Flush: %v", err)
			}
		})
		synctest.Wait()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
		o.want(t, "a closed, b closed, c closed, d closed, e closed, f closed, g closed")
		if _, err := c.Producer(t.Context(), "orders"); !errors.Is(err, fault.Closed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

func TestCloseTimeout(t *testing.T) {
	story(t, 1, func(t *testing.T, b *fake) {
		c := b.client()
		defer c.Close()
		p := producer(t, c)
		b.set(func() {
			b.hook = func(s *session, h wire.Header, payload []byte) bool { return h.Opcode == wire.OpProduce }
		})
		var o outcomes
		sendAll(t, p, &o, "a")
		if err := p.Close(ctxFor(t, time.Second)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("close: %v", err)
		}
		o.want(t, "a closed")
		// Neither waits for callbacks that nobody will call.
		for range 2 {
			if err := p.Close(t.Context()); err != nil {
				t.Errorf("closed again: %v", err)
			}
			if err := p.Flush(t.Context()); err != nil {
				t.Errorf("flush of a closed producer: %v", err)
			}
		}
	})
}
