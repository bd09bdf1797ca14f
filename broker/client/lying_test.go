package client

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/wire"
)

// tamper changes the next DELIVER before it is sent.
func (f *fake) tamper(change func(h *wire.DeliverHead, batches []byte) []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range f.sessions {
		b := s.nextDelivery()
		if b == nil {
			f.t.Fatal("nothing to deliver")
		}
		h, _ := wire.ParseHeader(b, 1<<20)
		var head wire.DeliverHead
		batches, err := wire.ParseDeliver(wire.PayloadOf(b), &head)
		if err != nil {
			f.t.Fatal(err)
		}
		batches = change(&head, batches)
		out := wire.AppendDeliverHead(wire.AppendHeader(nil, h), &head)
		s.later(wire.EndFrame(append(out, batches...), 0))
	}
}

// TestLyingDeliveries: what a broker (or a wire, or a disk) may do to batches,
// and the error each gets.
func TestLyingDeliveries(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(h *wire.DeliverHead, b []byte) []byte
		want   string // of the two batches abc, def
	}{
		{"nothing", func(h *wire.DeliverHead, b []byte) []byte { return b }, "abcdef"},
		{"body bit", func(h *wire.DeliverHead, b []byte) []byte { b[len(b)-1] ^= 1; return b }, "(corrupted)def"},
		{"header bit", func(h *wire.DeliverHead, b []byte) []byte { b[40] ^= 2; return b }, "(corrupted)def"},
		{"another segment's batch", func(h *wire.DeliverHead, b []byte) []byte { h.Runs[0].Seed++; return b }, "(corrupted)def"},
		{"magic", func(h *wire.DeliverHead, b []byte) []byte { b[0] = 0; return b }, "(corrupted)def"},
		{"length beyond the run", func(h *wire.DeliverHead, b []byte) []byte { b[4]++; b[72]++; return b }, "(protocol-violation)def"},
		{"enormous length", func(h *wire.DeliverHead, b []byte) []byte { b[7] = 0x7f; return b }, "(too-large)def"},
		{"batch count", func(h *wire.DeliverHead, b []byte) []byte {
			h.Runs[0].Batches = 2
			h.Runs[0].Bytes = uint32(len(b)) + 80
			return append(b, make([]byte, 80)...)
		}, "abc(corrupted)def"},
		{"run of other offsets", func(h *wire.DeliverHead, b []byte) []byte { h.Runs[0].End = 2; return b }, "(protocol-violation)(corrupted)def"},
		{"ranges", func(h *wire.DeliverHead, b []byte) []byte {
			h.Ranges = []wire.Range{{First: 0, End: 1}, {First: 2, End: 9}}
			return b
		}, "acdef"},
		{"wanted", func(h *wire.DeliverHead, b []byte) []byte { h.Wanted = 2; return b }, "cdef"},
	} {
		t.Run(c.name, func(t *testing.T) {
			story(t, 1, func(t *testing.T, b *fake) {
				cl := b.client()
				defer cl.Close()
				k := consumer(t, cl, From(Earliest))
				synctest.Wait()
				b.fill("orders", 0, "abc", "def")
				b.tamper(c.change)
				synctest.Wait()
				b.deliver()
				got := ""
				for !strings.HasSuffix(got, "f") {
					got += read(t, k, 1)
				}
				if got != c.want {
					t.Errorf("got %s, want %s", got, c.want)
				}
			})
		})
	}
}

// TestLyingBroker: what ends the connection, tells the application, and is got
// over by a new connection.
func TestLyingBroker(t *testing.T) {
	deliver := func(h wire.Header, head wire.DeliverHead, b []byte) []byte {
		return append(wire.AppendDeliverFrame(nil, h, &head), b...)
	}
	for _, c := range []struct {
		name string
		lie  func(t *testing.T, s *session, handle uint32) []byte
		want fault.Code // what Poll gets first; None: nothing but the messages
	}{
		{"another partition", func(t *testing.T, s *session, handle uint32) []byte {
			b := encoded(t, "x")
			return deliver(wire.Header{Opcode: wire.OpDeliver, Handle: handle},
				wire.DeliverHead{Partition: 3, HWM: 1, Runs: []wire.Run{{End: 1, Bytes: uint32(len(b)), Batches: 1}}}, b)
		}, fault.ProtocolViolation},
		{"a delivery of nothing but a length", func(t *testing.T, s *session, handle uint32) []byte {
			return wire.EndFrame(append(wire.AppendHeader(nil, wire.Header{Opcode: wire.OpDeliver, Handle: handle}), 1, 2, 3), 0)
		}, fault.ProtocolViolation},
		{"a frame of 100 MiB", func(t *testing.T, s *session, handle uint32) []byte {
			return wire.AppendHeader(nil, wire.Header{Opcode: wire.OpDeliver, Handle: handle, Length: 100 << 20})
		}, fault.None},
		{"an answer to nothing", func(t *testing.T, s *session, handle uint32) []byte {
			return wire.AppendFrame(nil, wire.Header{Opcode: wire.OpProduce.Response(), Correlation: 4711}, &wire.ProduceOK{})
		}, fault.None},
		{"a request", func(t *testing.T, s *session, handle uint32) []byte {
			return wire.AppendFrame(nil, wire.Header{Opcode: wire.OpMetadata, Correlation: 1}, &wire.MetadataRequest{})
		}, fault.None},
		{"half a frame and the end", func(t *testing.T, s *session, handle uint32) []byte {
			s.f.wg.Go(func() { time.Sleep(time.Millisecond); _ = s.nc.Close() })
			return wire.AppendHeader(nil, wire.Header{Opcode: wire.OpDeliver, Handle: handle, Length: 1000})
		}, fault.None},
		{"no subscription of mine", func(t *testing.T, s *session, handle uint32) []byte {
			b := encoded(t, "x")
			return deliver(wire.Header{Opcode: wire.OpDeliver, Handle: handle + 99},
				wire.DeliverHead{HWM: 1, Runs: []wire.Run{{End: 1, Bytes: uint32(len(b)), Batches: 1}}}, b)
		}, fault.None},
		{"news only", func(t *testing.T, s *session, handle uint32) []byte {
			return deliver(wire.Header{Opcode: wire.OpDeliver, Handle: handle}, wire.DeliverHead{HWM: 0}, nil)
		}, fault.None},
		{"old messages again", func(t *testing.T, s *session, handle uint32) []byte {
			return nil
		}, fault.None},
	} {
		t.Run(c.name, func(t *testing.T) {
			story(t, 1, func(t *testing.T, b *fake) {
				cl := b.client()
				defer cl.Close()
				k := consumer(t, cl, From(Earliest))
				b.set(func() {
					for s := range b.sessions {
						for h := range s.subs {
							if out := c.lie(t, s, h); out != nil {
								s.later(out)
							}
						}
					}
				})
				if c.want != fault.None {
					if _, err := k.Poll(ctxFor(t, time.Hour)); !errors.Is(err, c.want) {
						t.Errorf("poll: %v", err)
					}
				}
				time.Sleep(10 * time.Second)
				b.fill("orders", 0, "abc")
				b.deliver()
				if got := read(t, k, 3); got != "abc" {
					t.Errorf("afterwards: %s", got)
				}
			})
		})
	}
}

// TestUninvited: a broker that sends without credit is cut off before its
// frame takes memory.
func TestUninvited(t *testing.T) {
	story(t, 1, func(t *testing.T, b *fake) {
		b.fill("orders", 0, "abc", "def", "ghi")
		c := b.client()
		defer c.Close()
		k := consumer(t, c, From(Earliest), WithCredit(100))
		synctest.Wait() // one delivery took it all
		b.set(func() {
			for s := range b.sessions {
				for _, sub := range s.subs {
					sub.credit = 1000
				}
			}
		})
		b.deliver()
		got := ""
		for !strings.HasSuffix(got, "i") {
			got += read(t, k, 1)
		}
		if got != "abc(credit-exceeded)defghi" {
			t.Errorf("got %s", got)
		}
	})
}

// FuzzDelivery feeds the payload of a DELIVER to the application's side: no
// panic, and messages only from batches whose checksums hold.
func FuzzDelivery(f *testing.F) {
	b := message.NewBuilder(message.DefaultLimits())
	for i := range 3 {
		if err := b.Append(&message.Message{Value: []byte{byte(i)}, Timestamp: 1}); err != nil {
			f.Fatal(err)
		}
	}
	batch, err := b.Finish(nil, message.Producer{}, nil)
	if err != nil {
		f.Fatal(err)
	}
	head := wire.DeliverHead{HWM: 3, Wanted: 1, Ranges: []wire.Range{{First: 0, End: 2}},
		Runs: []wire.Run{{First: 0, End: 3, Bytes: uint32(len(batch)), Batches: 1}}}
	whole := append(wire.AppendDeliverHead(nil, &head), batch...)
	f.Add(whole)
	f.Add(whole[:len(whole)-1])
	head.Runs[0].Batches = 3
	f.Add(append(wire.AppendDeliverHead(nil, &head), batch...))
	f.Fuzz(func(t *testing.T, payload []byte) {
		c := &Client{cfg: defaults()}
		k := &Consumer{c: c, topic: "orders", o: consumerConfig{window: 1 << 20}, wake: make(chan struct{}, 1)}
		s := newSubscription(k, 0)
		s.received, s.position = 0, 0
		cn := newConn(c, "fuzz", nopConn{}, nil, wire.HelloOK{})
		raw := wire.AppendHeader(nil, wire.Header{Opcode: wire.OpDeliver, Length: uint32(12 + len(payload))})
		s.deliver(cn, &frame{b: append(raw, payload...)})
		for range 3 {
			d, err := k.next(canceled(), true)
			if err != nil || d == nil {
				continue
			}
			last := message.Offset(-1)
			for m, err := range (Batch{d: d}).Messages() {
				if err == nil && (m.Offset <= last || m.Offset < d.wanted || m.Offset >= d.end) {
					t.Fatalf("offset %d after %d, wanted %d, end %d", m.Offset, last, d.wanted, d.end)
				} else if err == nil {
					last = m.Offset
				}
			}
		}
	})
}

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

type nopConn struct{ net.Conn }

func (nopConn) Close() error { return nil }
