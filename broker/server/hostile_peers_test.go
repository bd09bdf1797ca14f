package server

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/server/evloop"
	"github.com/portask/portask/broker/topic"
	"github.com/portask/portask/broker/wire"
)

// halfFrame is the beginning of a PRODUCE frame that declares 4 MiB.
func halfFrame(n int) []byte {
	b := wire.AppendHeader(nil, wire.Header{Length: 4<<20 + 100, Opcode: wire.OpProduce})
	return append(b, make([]byte, n)...)
}

// Five hundred connections leave half a frame open, each with as much of it sent
// as the name says. The others go on, long before the half frames time out, and
// the memory is bounded.
func TestHalfFrames(t *testing.T) {
	conns := 500
	if raceEnabled {
		conns = 150
	}
	for _, tc := range []struct {
		name  string
		bytes int
	}{{"heads", 0}, {"1KiB", 1 << 10}, {"64KiB", 64 << 10}} {
		t.Run("sent="+tc.name, func(t *testing.T) {
			onEach(t, func(t *testing.T, s setting) {
				b := hostileBroker(t, s, Options{})
				w := withBystanders(t, b)
				half := halfFrame(tc.bytes)
				for range conns {
					p := join(t, b)
					// What the broker does not take stays in the sockets' buffers.
					p.write(half)
				}
				for i := range 30 {
					w.memory()
					p := join(t, b)
					q := p.producer(100+uint32(i), wire.OpenProducer{Topic: "good", Ack: message.AckAccepted})
					q.send(0, 5, 20<<10)
					q.drain()
					q.cut()
				}
				w.end()
			})
		})
	}
}

// A peer that sends a byte now and then does not keep its frame open for longer
// than a frame may take, for progress does not extend the time.
func TestDrippingPeer(t *testing.T) {
	t.Parallel() // it waits
	onEach(t, func(t *testing.T, s setting) {
		const limit = 3 * time.Second // nobody else's frame takes as long on a busy machine
		b := hostileBroker(t, s, Options{Network: evloop.Options{PartialTimeout: limit}})
		w := withBystanders(t, b)
		p := join(t, b)
		began := time.Now()
		drip := time.NewTicker(20 * time.Millisecond)
		defer drip.Stop()
		frame := halfFrame(4 << 20)
		for i := 0; ; i++ {
			<-drip.C
			if _, err := p.c.Write(frame[i : i+1]); err != nil {
				break
			}
			if time.Since(began) > patience {
				t.Fatal("it drips on")
			}
		}
		if d := time.Since(began); d < limit {
			t.Errorf("closed after %v", d)
		}
		w.end()
	})
}

// A connection that ends in mid-batch leaves nothing of the batch behind, and
// nothing of itself.
func TestDisconnectInMidBatch(t *testing.T) {
	onEach(t, func(t *testing.T, s setting) {
		b := hostileBroker(t, s, Options{})
		w := withBystanders(t, b)
		b.topic("t", topic.Config{})
		before := b.Stats()
		for i := range 50 {
			p := join(t, b).producer(1, wire.OpenProducer{Topic: "t", Ack: message.AckAccepted})
			batch := p.build(0, 100, 1<<10)
			f := wire.AppendProduceFrame(nil, wire.Header{Correlation: 9, Handle: p.handle}, 0, len(batch))
			f = append(f, batch...)
			p.write(f[:1+len(f)*i/50])
			p.cut()
		}
		for began := time.Now(); b.Stats().Connections != before.Connections; {
			if time.Since(began) > patience {
				t.Fatalf("left: %+v", b.Stats().Counters)
			}
		}
		after := b.Stats()
		if after.Producers != before.Producers || after.Loops.InBorrowedBytes != 0 {
			t.Errorf("left: %+v, %d bytes borrowed", after.Counters, after.Loops.InBorrowedBytes)
		}
		p := join(t, b)
		var ok wire.ListOffsetsOK
		p.call(0, wire.OpListOffsets, &wire.ListOffsets{Topic: "t", Start: wire.StartLatest}, &ok)
		if ok.LogEnd != 0 {
			t.Errorf("%d messages of batches that were cut off", ok.LogEnd)
		}
		w.end()
	})
}

// Handles are a connection's own: those of another one, on the same loop or not,
// are unknown.
func TestForeignHandles(t *testing.T) {
	onEach(t, func(t *testing.T, s setting) {
		b := hostileBroker(t, s, Options{})
		b.topic("t", topic.Config{})
		for range 4 { // loops are given in turn
			owner := join(t, b).producer(1, wire.OpenProducer{Topic: "t", Ack: message.AckAccepted})
			sub, _ := owner.subscribe(wire.Subscribe{Topic: "t"})
			for range 3 {
				thief := join(t, b).producer(2, wire.OpenProducer{Topic: "t", Ack: message.AckAccepted})
				mine := thief.handle
				thief.handle = owner.handle
				if mine == owner.handle {
					continue // the same number on another loop is its own
				}
				var e wire.Error
				thief.onError = func(_ uint32, got *wire.Error) { e = *got }
				thief.send(0, 1, 100)
				thief.drain()
				if e.Code != fault.HandleUnknown || e.Field != "handle" || e.Bits != fault.BitClosesHandle {
					t.Fatalf("a stolen producer: %+v", e)
				}
				thief.refused(thief.ask(sub, wire.OpUnsubscribe, &wire.Unsubscribe{}), fault.HandleUnknown, "handle")
				thief.refused(thief.ask(owner.handle, wire.OpCloseProducer, &wire.CloseProducer{}), fault.HandleUnknown, "handle")
				thief.grant(sub, 1<<30) // ignored
				thief.ping()
			}
			owner.send(0, 1, 100)
			owner.drain()
			if owner.acked != 1 {
				t.Fatal("the owner lost its producer")
			}
			owner.ping() // and no message came: its subscription got no credit
		}
	})
}

// A producer that sends without credit is cut off, and told why.
func TestCreditOverdraw(t *testing.T) {
	onEach(t, func(t *testing.T, s setting) {
		b := s.start(t, Options{Loops: 1, ProduceBytes: 128 << 10, ProducerBytes: 64 << 10})
		b.topic("t", topic.Config{})
		first := join(t, b).producer(1, wire.OpenProducer{Topic: "t", Ack: message.AckAccepted})
		second := join(t, b).producer(2, wire.OpenProducer{Topic: "t", Ack: message.AckAccepted})
		poor := join(t, b).producer(3, wire.OpenProducer{Topic: "t", Ack: message.AckAccepted})
		if first.ok.Credit == 0 || second.ok.Credit == 0 || poor.ok.Credit != 0 || poor.ok.CreditReason != wire.CreditMemory {
			t.Fatalf("granted %d, %d and %d (%v)", first.ok.Credit, second.ok.Credit, poor.ok.Credit, poor.ok.CreditReason)
		}
		waiting := join(t, b).producer(4, wire.OpenProducer{Topic: "t", Ack: message.AckAccepted})
		poor.credit = 1
		corr := poor.send(0, 1, 100)
		e := poor.refused(corr, fault.CreditExceeded, "credit")
		if e.Bits != fault.BitClosesConnection|fault.BitClosesHandle {
			t.Fatalf("%+v", e)
		}
		poor.ended()
		// Who waits is served when another leaves.
		first.cut()
		waiting.send(0, 1, 100)
		waiting.drain()
		if waiting.acked != 1 {
			t.Fatal("not served")
		}
	})
}

// Credit is added up to its bound and no further, and goes on to work.
func TestCreditDoesNotOverflow(t *testing.T) {
	onEach(t, func(t *testing.T, s setting) {
		b := s.start(t, Options{Loops: 1})
		b.topic("t", topic.Config{})
		r := join(t, b).reader()
		r.follow("t", 1, wire.StartEarliest, wire.MaxCreditBytes)
		for h := range r.parts {
			for range 3 {
				r.grant(h, wire.MaxCreditBytes)
			}
		}
		r.keep = true
		p := join(t, b).producer(1, wire.OpenProducer{Topic: "t", Ack: message.AckAccepted})
		for range 10 {
			p.send(0, 10, 100)
		}
		p.drain()
		r.until(100)
	})
}

// Ten thousand subscriptions of one connection, and as many that come and go,
// while messages arrive: each gets them, and in the end nothing is left.
func TestManySubscriptions(t *testing.T) {
	subs := 10_000
	if raceEnabled {
		subs = 2000
	}
	onEach(t, func(t *testing.T, s setting) {
		b := hostileBroker(t, s, Options{})
		w := withBystanders(t, b)
		before := b.Stats().Subscriptions
		b.topic("t", topic.Config{})
		p := join(t, b)
		handles := make(map[uint32]bool, subs)
		const window = 500 // answers in flight: a queue of answers is bounded
		for sent := 0; len(handles) < subs; {
			for ; sent < subs && sent-len(handles) < window; sent++ {
				p.ask(0, wire.OpSubscribe, &wire.Subscribe{Topic: "t", Credit: 1 << 20})
			}
			h, body := p.frame()
			var ok wire.SubscribeOK
			if h.Opcode != wire.OpSubscribe.Response() || ok.Parse(body) != nil || handles[h.Handle] {
				t.Fatalf("subscription %d: %s", len(handles), describe(h, body))
			}
			handles[h.Handle] = true
		}
		q := join(t, b).producer(1, wire.OpenProducer{Topic: "t", Ack: message.AckAccepted})
		q.send(0, 1, 10)
		q.drain()
		for got := map[uint32]bool{}; len(got) < subs; {
			h, body := p.frame()
			if h.Opcode != wire.OpDeliver || got[h.Handle] {
				t.Fatalf("after %d: %s", len(got), describe(h, body))
			}
			got[h.Handle] = true
		}
		if n := b.Stats().Subscriptions; n != before+uint64(subs) {
			t.Errorf("%d subscriptions, %d were opened", n-before, subs)
		}
		p.cut()

		churn := join(t, b)
		for range subs / 10 {
			h, _ := churn.subscribe(wire.Subscribe{Topic: "good", Start: wire.StartLatest, Credit: 1})
			corr := churn.ask(h, wire.OpUnsubscribe, &wire.Unsubscribe{})
			for {
				got, body := churn.frame()
				if got.Opcode == wire.OpUnsubscribe.Response() && got.Correlation == corr {
					break
				}
				if got.Opcode != wire.OpDeliver || got.Handle != h {
					t.Fatalf("while unsubscribing %d: %s", h, describe(got, body))
				}
			}
		}
		churn.ping() // nothing comes on a handle that was closed
		churn.cut()
		for began := time.Now(); b.Stats().Subscriptions != before; {
			if time.Since(began) > patience {
				t.Fatalf("%d subscriptions are left", b.Stats().Subscriptions-before)
			}
		}
		w.end()
	})
}

// Peers that ask and do not read fill their own queue and are cut off; those who
// read on the same loops do not notice.
func TestAskingWithoutReading(t *testing.T) {
	floods := 24
	if raceEnabled {
		floods = 3
	}
	onEach(t, func(t *testing.T, s setting) {
		b := hostileBroker(t, s, Options{SlowConsumer: 500 * time.Millisecond, Network: smallSockets})
		w := withBystanders(t, b)
		for _, tc := range []struct {
			name string
			op   wire.Opcode
			x    wire.Payload
		}{
			{"pings", wire.OpPing, &wire.Ping{}},
			{"metadata", wire.OpMetadata, &wire.MetadataRequest{Topics: make([]string, 1000)}},
			{"fetches", wire.OpFetch, &wire.Fetch{Topic: "good"}},
			{"patient fetches", wire.OpFetch, &wire.Fetch{Topic: "good", Offset: 0, MinBytes: 1, MaxWaitMs: 1 << 30}},
			{"errors", 99, &wire.Empty{}},
		} {
			ask := wire.AppendFrame(nil, wire.Header{Opcode: tc.op}, tc.x)
			began := time.Now()
			var flood []byte
			for len(flood) < 64<<10 {
				flood = append(flood, ask...)
			}
			var all []*peer
			for range floods {
				p := dial(t, b, 4<<10)
				p.greet(&wire.Hello{})
				all = append(all, p)
			}
			var ws workers
			ws.t = t
			for _, p := range all {
				ws.start("flood of "+tc.name, func(f failer) {
					for began := time.Now(); ; {
						if time.Since(began) > patience {
							f.Fatalf("it may ask for ever")
						}
						_ = p.c.SetWriteDeadline(time.Now().Add(patience)) // fails with the write
						if _, err := p.c.Write(flood); err != nil {
							return
						}
					}
				})
			}
			ws.wait()
			w.memory()
			for _, p := range all {
				p.cut()
			}
			t.Logf("%s: %v", tc.name, time.Since(began))
		}
		w.end()
	})
}

// Peers that leave their answers unread use up the loops' output memory, again
// and again. One that produces and consumes on the same connection, with acks
// that wait behind half-written frames, does not pay for it.
func TestUnreadAnswersOfOthers(t *testing.T) {
	onEach(t, func(t *testing.T, s setting) {
		b := hostileBroker(t, s, Options{Network: evloop.Options{SendBufferBytes: 16 << 10, OutBudgetBytes: 512 << 10}})
		b.topic("t", topic.Config{Visibility: message.AckAccepted})
		ping := wire.AppendFrame(nil, wire.Header{Opcode: wire.OpPing}, &wire.Ping{})
		var pings []byte
		for len(pings) < 24<<10 {
			pings = append(pings, ping...)
		}
		ws := workers{t: t}
		stop := make(chan struct{})
		var cut atomic.Int64
		for range 6 {
			ws.start("holder", func(f failer) {
				for {
					p := dial(f, b, 4<<10)
					p.greet(&wire.Hello{})
					for err := error(nil); err == nil; _, err = p.c.Write(pings) {
						select {
						case <-stop:
							p.cut()
							return
						default:
						}
					}
					p.cut()
					cut.Add(1)
				}
			})
		}
		for range b.opts.Loops {
			p := dial(t, b, 8<<10)
			p.chunk = 2 << 10
			p.greet(&wire.Hello{})
			r := p.reader()
			h, at := r.subscribe(wire.Subscribe{Topic: "t", Start: wire.StartLatest, Credit: 1 << 40, MaxDeliverBytes: 32 << 10})
			r.parts[h], r.at[0], r.keep = 0, at.Start, true
			q := p.producer(1, wire.OpenProducer{Topic: "t", Ack: message.AckAccepted})
			q.next[0] = uint64(at.Start)
			r.next[[2]uint32{0, 1}] = uint64(at.Start)
			const batches, messages = 60, 10
			take := func() {
				hd, body := p.frame()
				if hd.Opcode == wire.OpDeliver {
					r.delivered(hd, body)
				} else {
					q.handleFrame(hd, body)
				}
			}
			sent := 0
			for r.got < batches*messages || q.acked < batches || cut.Load() < 8 {
				for sent-q.acked < 8 && sent*messages-r.got < 20*messages {
					q.send(0, messages, 1<<10)
					sent++
				}
				take()
			}
			// What is on its way would come between the messages of the next.
			for r.got < sent*messages || q.acked < sent {
				take()
			}
			cut.Store(0)
		}
		close(stop)
		ws.wait()
	})
}
