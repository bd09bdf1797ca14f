package client

import (
	"context"
	"fmt"
	"math"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/wire"
)

// sink is the least a broker can do, over loopback: it acknowledges produces
// without looking at them, and delivers one and the same batch with ascending
// offsets as long as there is credit. Once warm it allocates nothing, so what a
// benchmark counts is the client's.
type sink struct {
	ln    net.Listener
	batch []byte // to be delivered; nil: none
	per   int    // of it in one delivery
	count uint32 // messages in it
	hwm   message.Offset

	produced atomic.Uint64
}

func newSink(tb testing.TB, partBatch []byte, per int) *sink {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	s := &sink{ln: ln, batch: partBatch, per: per, hwm: 1 << 50}
	if partBatch != nil {
		e, err := message.ParseEnvelope(partBatch, nil)
		if err != nil {
			tb.Fatal(err)
		}
		s.count = e.Count
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			s.serve(nc)
			_ = nc.Close()
		}
	}()
	tb.Cleanup(func() { _ = ln.Close(); <-done })
	return s
}

func (s *sink) serve(nc net.Conn) {
	in := newFrameReader(nc)
	if err := in.read(make([]byte, wire.PrefaceBytes)); err != nil {
		return
	}
	big := make([]byte, wire.DefaultMaxFrame)
	var out []byte
	var credit int64
	var sub uint32
	next := message.Offset(0)
	frame := make([]byte, 0, 8<<20)
	for {
		h, n, err := in.header(wire.DefaultMaxFrame)
		if err != nil {
			return
		}
		b, err := in.view(n)
		if b == nil && err == nil {
			b = big[:n]
			err = in.read(b)
		}
		if err != nil {
			return
		}
		payload := wire.PayloadOf(b)
		ans := wire.Header{Opcode: h.Opcode.Response(), Correlation: h.Correlation, Handle: h.Handle}
		switch h.Opcode {
		case wire.OpHello:
			out = wire.AppendFrame(out, ans, &wire.HelloOK{Version: 1, MaxFrame: wire.DefaultMaxFrame, MaxBatch: 4 << 20, MaxMessage: 1 << 20, HeartbeatMs: 10000})
		case wire.OpOpenProducer:
			ans.Handle = 1
			out = wire.AppendFrame(out, ans, &wire.OpenProducerOK{ProducerID: 7, Partitions: 4, Credit: 16 << 20, MaxBatch: 4 << 20})
		case wire.OpProduce:
			s.produced.Add(1)
			var mark int
			out, mark = wire.BeginFrame(out, ans)
			ok := wire.ProduceOK{Partition: uint32(payload[0]), BaseOffset: 5, AppendTime: 1, Credit: uint32(n)}
			out = wire.EndFrame(ok.Append(out), mark)
		case wire.OpCloseProducer, wire.OpUnsubscribe:
			out = wire.AppendFrame(out, ans, new(wire.Empty))
		case wire.OpMetadata:
			out = wire.AppendFrame(out, ans, &wire.Metadata{Topics: []wire.TopicInfo{{Name: "orders", Partitions: make([]wire.PartitionInfo, 1)}}})
		case wire.OpSubscribe:
			var x wire.Subscribe
			if x.Parse(payload) != nil {
				return
			}
			credit, sub = int64(x.Credit), 2
			ans.Handle = sub
			out = wire.AppendFrame(out, ans, &wire.SubscribeOK{HWM: s.hwm, LogEnd: s.hwm})
		case wire.OpCredit:
			var x wire.Credit
			if x.Parse(payload) != nil {
				return
			}
			credit += int64(x.Bytes)
		}
		if in.r == in.w || len(out) > 32<<10 { // nothing more to read at once
			if _, err := nc.Write(out); err != nil {
				return
			}
			out = out[:0]
		}
		for sub != 0 && credit > 0 {
			frame = s.delivery(frame[:0], sub, next)
			if _, err := nc.Write(frame); err != nil {
				return
			}
			next += message.Offset(s.per) * message.Offset(s.count)
			credit -= int64(len(frame))
		}
	}
}

func (s *sink) delivery(dst []byte, handle uint32, next message.Offset) []byte {
	var runs [1]wire.Run
	runs[0] = wire.Run{First: next, End: next + message.Offset(s.per)*message.Offset(s.count), Bytes: uint32(s.per * len(s.batch)), Batches: uint32(s.per)}
	head := wire.DeliverHead{HWM: s.hwm, Wanted: next, Runs: runs[:]}
	dst = wire.AppendDeliverFrame(dst, wire.Header{Opcode: wire.OpDeliver, Handle: handle}, &head)
	for range s.per {
		at := len(dst)
		dst = append(dst, s.batch...)
		message.Stamp(dst[at:], next, 1, 1, 0)
		next += message.Offset(s.count)
	}
	return dst
}

func (s *sink) client(tb testing.TB) *Client {
	c, err := Dial(tb.Context(), s.ln.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.Close() })
	return c
}

// full returns a batch of n messages of size bytes.
func full(tb testing.TB, n, size int) []byte {
	b := message.NewBuilder(message.DefaultLimits())
	for i := range n {
		v := make([]byte, size)
		for j := range v {
			v[j] = byte(i * j)
		}
		if err := b.Append(&message.Message{Value: v, Timestamp: int64(i)}); err != nil {
			tb.Fatal(err)
		}
	}
	out, err := b.Finish(nil, message.Producer{}, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

// mallocs counts allocations of the whole process while f runs.
func mallocs(f func()) float64 {
	var a, b runtime.MemStats
	runtime.ReadMemStats(&a)
	f()
	runtime.ReadMemStats(&b)
	return float64(b.Mallocs - a.Mallocs)
}

// TestProduceAllocations: none per message, at most 2 per batch. A batch is made
// when more are in flight than ever before, up to a bound, and how many that is
// the scheduler decides: so the least of a few windows counts. A cost of every
// batch is in all of them.
func TestProduceAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for _, policy := range []compression.Policy{{}, compression.DefaultPolicy()} {
		t.Run("compression="+policy.Strategy.String(), func(t *testing.T) {
			s := newSink(t, nil, 0)
			c := s.client(t)
			p, err := c.Producer(t.Context(), "orders", WithCompression(policy), WithLinger(time.Second)) // batches are full, however slow this is
			if err != nil {
				t.Fatal(err)
			}
			m := &message.Message{Value: make([]byte, 1024), Key: []byte("key")}
			cb := func(_ Receipt, err error) {
				if err != nil {
					t.Error(err)
				}
			}
			ctx := context.Background()
			send := func(n int) {
				for range n {
					if err := p.SendAsync(ctx, m, cb); err != nil {
						t.Fatal(err)
					}
				}
				if err := p.Flush(ctx); err != nil {
					t.Fatal(err)
				}
			}
			send(100000)
			const n, windows = 64 * 1000, 8
			least, batches := math.Inf(1), 0.0
			for w := 0; w < windows && least > 2; w++ {
				before := s.produced.Load()
				a := mallocs(func() { send(n) })
				batches = float64(s.produced.Load() - before)
				least = min(least, a/batches)
				t.Logf("%.3f allocations a batch of %.1f messages", a/batches, n/batches)
			}
			if least > 2 {
				t.Errorf("%.2f allocations a batch, in every window", least)
			}
			if n/batches < 60 {
				t.Errorf("%.1f messages a batch", n/batches)
			}
		})
	}
}

// TestConsumeAllocations: none per message; per delivery the two that Go makes
// for the body of a range over a function.
func TestConsumeAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	s := newSink(t, full(t, 64, 1024), 3)
	c := s.client(t)
	k, err := c.Consumer(t.Context(), "orders", From(Earliest))
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	poll := func(deliveries int) (messages int) {
		for range deliveries {
			b, err := k.Poll(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for m, err := range b.Messages() {
				if err != nil || len(m.Value) != 1024 {
					t.Fatal(err)
				}
				messages++
			}
		}
		return messages
	}
	poll(500)
	got := 0
	a := mallocs(func() { got = poll(1000) })
	t.Logf("%.3f allocations a delivery of 192 messages", a/1000)
	if got != 192*1000 || a/1000 > 2.2 {
		t.Errorf("%d messages, %.2f allocations a delivery", got, a/1000)
	}
}

func BenchmarkProduce(b *testing.B) {
	for _, size := range []int{100, 1024} {
		for _, policy := range []compression.Policy{{}, compression.DefaultPolicy()} {
			b.Run(fmt.Sprintf("value=%dB/compression=%s", size, policy.Strategy), func(b *testing.B) {
				s := newSink(b, nil, 0)
				p, err := s.client(b).Producer(b.Context(), "orders", WithCompression(policy))
				if err != nil {
					b.Fatal(err)
				}
				m := &message.Message{Value: make([]byte, size), Timestamp: 1}
				for i := range m.Value {
					m.Value[i] = byte(i * i >> 3)
				}
				ctx := context.Background()
				cb := func(Receipt, error) {}
				b.SetBytes(int64(size))
				b.ReportAllocs()
				cpu := cpuTime()
				began := time.Now()
				for b.Loop() {
					if err := p.SendAsync(ctx, m, cb); err != nil {
						b.Fatal(err)
					}
				}
				if err := p.Flush(ctx); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "msg/s")
				b.ReportMetric(float64((cpuTime()-cpu).Nanoseconds())/float64(b.N), "cpu-ns/msg")
				b.ReportMetric(float64(b.N)/float64(s.produced.Load()), "msg/batch")
			})
		}
	}
}

// BenchmarkSend is one goroutine that waits for each message.
func BenchmarkSend(b *testing.B) {
	s := newSink(b, nil, 0)
	p, err := s.client(b).Producer(b.Context(), "orders")
	if err != nil {
		b.Fatal(err)
	}
	m := &message.Message{Value: make([]byte, 1024), Timestamp: 1}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Send(b.Context(), m); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkConsume(b *testing.B) {
	for _, raw := range []bool{false, true} {
		b.Run(fmt.Sprintf("value=1KiB/raw=%v", raw), func(b *testing.B) {
			s := newSink(b, full(b, 64, 1024), 3)
			k, err := s.client(b).Consumer(b.Context(), "orders", From(Earliest))
			if err != nil {
				b.Fatal(err)
			}
			ctx := context.Background()
			b.SetBytes(192 * 1024)
			b.ReportAllocs()
			cpu := cpuTime()
			n := 0
			for b.Loop() {
				if raw {
					r, err := k.PollRaw(ctx)
					if err != nil {
						b.Fatal(err)
					}
					n += 64 * int(r.Runs[0].Batches)
					continue
				}
				d, err := k.Poll(ctx)
				if err != nil {
					b.Fatal(err)
				}
				for _, err := range d.Messages() {
					if err != nil {
						b.Fatal(err)
					}
					n++
				}
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "msg/s")
			b.ReportMetric(float64((cpuTime()-cpu).Nanoseconds())/float64(n), "cpu-ns/msg")
		})
	}
}
