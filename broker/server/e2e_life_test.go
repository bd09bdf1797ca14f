package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/server/evloop"
	"github.com/portask/portask/broker/topic"
	"github.com/portask/portask/broker/wire"
)

// A peer that is silent for three intervals is taken for dead, one that pings is
// not, however little else it says.
func TestHeartbeats(t *testing.T) {
	t.Parallel() // it waits
	onEach(t, func(t *testing.T, s setting) {
		b := s.start(t, Options{Loops: 2})
		// A peer is rightly taken for dead when the machine gives nobody a turn for
		// so long: that says nothing.
		for range 5 {
			if heartbeats(t, b) {
				return
			}
			t.Log("the test itself was silent for two intervals")
		}
		t.Error("it is too slow here to ping once in an interval")
	})
}

func heartbeats(t *testing.T, b *broker) (valid bool) {
	began := time.Now()
	dead, alive := dial(t, b, 0), dial(t, b, 0)
	dead.greet(&wire.Hello{HeartbeatMs: 1})
	alive.greet(&wire.Hello{HeartbeatMs: 1})
	interval := time.Duration(dead.hello.HeartbeatMs) * time.Millisecond
	if interval != wire.MinHeartbeat {
		t.Fatalf("an interval of %v", interval)
	}
	ws := workers{t: t}
	gone := make(chan struct{})
	ws.start("dead peer", func(f failer) {
		defer close(gone)
		dead.failer = f
		dead.lost()
		if d := time.Since(began); d < 3*interval {
			f.Fatalf("closed after %v", d)
		}
	})
	last, silent := began, time.Duration(0)
	defer ws.wait()
	defer func() {
		if v := recover(); v != nil {
			failure, lost := v.(workerFailure)
			if !lost {
				panic(v)
			}
			if silent = max(silent, time.Since(last)); silent < 2*interval {
				t.Errorf("who pings: %s, silent for %v at most", failure, silent)
				valid = true
			}
		}
	}()
	alive.failer = worker{}
	beat := time.NewTicker(interval / 2)
	defer beat.Stop()
	for {
		select {
		case <-beat.C:
		case <-gone:
			alive.ping()
			return true
		}
		silent = max(silent, time.Since(last))
		last = time.Now()
		alive.ping()
	}
}

// A graceful stop tells everybody, answers what is in flight and returns when
// all have left; what was acknowledged is there after the restart, and nothing
// else is.
func TestShutdownAnswersWhatIsInFlight(t *testing.T) {
	onAll(t, func(t *testing.T, s setting) {
		dir := t.TempDir()
		b := s.start(t, Options{Loops: 2, Engine: s.open(t, dir)})
		b.goodbye = time.Hour // nobody is cut off, however slow this is
		b.topic("t", topic.Config{Partitions: 2})
		const producers = 4
		var busy, sent atomic.Int64
		ws := workers{t: t}
		for i := range producers {
			ws.start(fmt.Sprintf("producer %d", i), func(f failer) {
				p := join(f, b).producer(uint32(i), wire.OpenProducer{Topic: "t", Ack: b.opts.Engine.Levels().Strongest()})
				for n := 0; !p.bye; {
					if p.inFlight == 16 {
						p.take()
						continue
					}
					p.send(uint32(i%2), 10, 500)
					if n++; n == 50 {
						busy.Add(1)
					}
				}
				p.drain()
				sent.Add(int64(p.acked) * 10)
				p.call(0, wire.OpClose, &wire.Close{}, &wire.Empty{})
				p.ended()
			})
		}
		ws.start("consumer", func(f failer) {
			r := join(f, b).reader()
			r.follow("t", 2, wire.StartEarliest, 1<<20)
			for {
				h, body := r.frame()
				if h.Opcode != wire.OpGoAway {
					r.delivered(h, body)
					continue
				}
				var bye wire.GoAway
				if err := bye.Parse(body); err != nil || bye.Reason != wire.GoAwayShuttingDown || bye.DrainMs == 0 {
					f.Fatalf("%+v, %v", bye, err)
				}
				// What is new is refused, what there is goes on.
				corr := r.ask(0, wire.OpOpenProducer, &wire.OpenProducer{Topic: "t", Ack: message.AckAccepted})
				for h, body = r.frame(); h.Opcode == wire.OpDeliver; h, body = r.frame() {
					r.delivered(h, body)
				}
				var e wire.Error
				if h.Correlation != corr || e.Parse(body) != nil || e.Code != fault.ShuttingDown || e.Bits&fault.BitRetryable == 0 {
					f.Fatalf("%s, instead of a refusal", describe(h, body))
				}
				r.cut()
				return
			}
		})
		for began := time.Now(); busy.Load() < producers; {
			b.Stats() // passes through the loops, so that the wait is not a spin
			if time.Since(began) > patience {
				t.Fatal("the producers do not get going")
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := b.Shutdown(ctx); err != nil {
			t.Fatalf("shutdown, although all leave by themselves: %v", err)
		}
		ws.wait()
		if c, err := net.Dial("tcp", b.Addr().String()); err == nil {
			c.Close()
			t.Error("the port is still open")
		}
		b.end()
		if s.store != "disklog" {
			return
		}
		b = s.start(t, Options{Loops: 1, Engine: s.open(t, dir)})
		r := join(t, b).reader()
		r.follow("t", 2, wire.StartEarliest, 1<<20)
		r.until(int(sent.Load()))
		for i := range uint32(2) {
			var ok wire.ListOffsetsOK
			r.call(0, wire.OpListOffsets, &wire.ListOffsets{Topic: "t", Partition: i, Start: wire.StartLatest}, &ok)
			if ok.LogEnd != r.at[i] {
				t.Errorf("partition %d ends at %d, acknowledged until %d", i, ok.LogEnd, r.at[i])
			}
		}
	})
}

// Who does not leave when asked to is closed when the time that GOAWAY named is
// over, also a consumer in mid-frame; a deadline of the caller's comes first.
func TestShutdownDoesNotWaitForTheStubborn(t *testing.T) {
	t.Parallel() // it waits
	onEach(t, func(t *testing.T, s setting) {
		for _, tt := range []struct{ goodbye, limit time.Duration }{{time.Hour, 300 * time.Millisecond}, {300 * time.Millisecond, patience}} {
			b := s.start(t, Options{Loops: 2, Network: evloop.Options{
				SendBufferBytes: smallSockets.SendBufferBytes,
				CloseTimeout:    500 * time.Millisecond, // peers here do not read before the end
			}})
			b.goodbye = tt.goodbye
			b.topic("t", topic.Config{Visibility: message.AckAccepted})
			stuck := dial(t, b, 4<<10)
			stuck.greet(&wire.Hello{})
			stuck.subscribe(wire.Subscribe{Topic: "t", Credit: 1 << 40})
			idle, silent := join(t, b), dial(t, b, 0)
			p := join(t, b).producer(1, wire.OpenProducer{Topic: "t", Ack: message.AckAccepted})
			for range 32 {
				p.send(0, 64, 1<<10)
			}
			p.drain()

			ctx, cancel := context.WithTimeout(t.Context(), tt.limit)
			began := time.Now()
			err := b.Shutdown(ctx)
			cancel()
			took := time.Since(began)
			if tt.limit < tt.goodbye {
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("with %v: %v after %v", tt.limit, err, took)
				}
			} else if err != nil || took < tt.goodbye {
				t.Errorf("%v after %v", err, took)
			}
			var bye wire.GoAway
			if h, body := idle.frame(); h.Opcode != wire.OpGoAway || bye.Parse(body) != nil {
				t.Errorf("the idle peer got %s", describe(h, body))
			}
			idle.ended()
			silent.lost()
			stuck.lost()
			p.lost()
			b.end()
		}
	})
}

// Close under fire from fifty clients returns, leaves nothing running, and keeps
// what was acknowledged.
func TestCloseUnderFire(t *testing.T) {
	onAll(t, func(t *testing.T, s setting) {
		dir := t.TempDir()
		b := s.start(t, Options{Loops: 2, Engine: s.open(t, dir)})
		b.topic("t", topic.Config{Partitions: 4})
		const clients = 50
		acked := make([]atomic.Int64, clients) // messages
		ws := workers{t: t}
		for i := range clients {
			ws.start(fmt.Sprintf("client %d", i), func(f failer) {
				// Whatever fails now is the end of the connection.
				defer func() {
					if v := recover(); v != nil {
						if _, ended := v.(workerFailure); !ended || b.alive() {
							panic(v)
						}
					}
				}()
				p := join(f, b).producer(uint32(i), wire.OpenProducer{Topic: "t", Ack: message.AckAccepted, CreditWanted: 64 << 10})
				p.onAck = func(uint32, *wire.ProduceOK) { acked[i].Add(5) }
				for n := 0; ; n++ {
					p.send(uint32(i%4), 5, 500)
					p.drain()
					switch n % 8 {
					case 0:
						p.call(0, wire.OpMetadata, &wire.MetadataRequest{}, &wire.Metadata{})
					case 4:
						h, _ := p.subscribe(wire.Subscribe{Topic: "t", Partition: uint32(n % 4)})
						p.call(h, wire.OpUnsubscribe, &wire.Unsubscribe{}, &wire.Empty{})
					}
				}
			})
		}
		for began := time.Now(); b.Stats().BatchesIn < 20*clients; {
			if time.Since(began) > patience {
				t.Fatal("the clients do not get going")
			}
		}
		b.end()
		ws.wait()
		if s.store != "disklog" {
			return
		}
		b = s.start(t, Options{Loops: 1, Engine: s.open(t, dir)})
		r := join(t, b).reader()
		r.follow("t", 4, wire.StartEarliest, 1<<20)
		want := 0
		for i := range uint32(4) {
			var ok wire.ListOffsetsOK
			corr := r.ask(0, wire.OpListOffsets, &wire.ListOffsets{Topic: "t", Partition: i, Start: wire.StartLatest})
			for {
				h, body := r.frame()
				if h.Correlation == corr && ok.Parse(body) == nil {
					break
				}
				r.delivered(h, body)
			}
			want += int(ok.LogEnd)
		}
		r.until(want)
		for i := range acked {
			if have := r.next[[2]uint32{uint32(i % 4), uint32(i)}]; have < uint64(acked[i].Load()) {
				t.Errorf("client %d: %d messages of %d acknowledged ones", i, have, acked[i].Load())
			}
		}
	})
}

// alive reports that the server was not told to stop.
func (b *broker) alive() bool {
	select {
	case <-b.stop:
		return false
	default:
		return true
	}
}

// Without authentication only loopback is served, unless it is asked for by name.
func TestOnlyLoopbackIsServedUnasked(t *testing.T) {
	for _, tc := range []struct {
		listen   string
		insecure bool
		ok       bool
	}{
		{"127.0.0.1:0", false, true},
		{"127.0.0.2:0", false, true},
		{"localhost:0", false, true},
		{"0.0.0.0:0", true, true},
		{"0.0.0.0:0", false, false},
		{":0", false, false},
		{"[::]:0", false, false},
		{"192.0.2.1:0", false, false},
		{"example.com:0", false, false},
		{"127.0.0.1", false, false},
		{"127.0.0.1", true, false},
	} {
		s, err := New(Options{Listen: tc.listen, Insecure: tc.insecure, Engine: openMem(t, 1<<20), Loops: 1})
		if tc.ok {
			if err != nil {
				t.Errorf("%s: %v", tc.listen, err)
			} else if err := s.Close(); err != nil {
				t.Errorf("%s: close: %v", tc.listen, err)
			}
			continue
		}
		var e *fault.Error
		if !errors.As(err, &e) || e.Code != fault.Invalid || e.Field != "listen" {
			t.Errorf("%s, insecure %t: %v", tc.listen, tc.insecure, err)
		}
		if err == nil {
			s.Close()
		}
	}
}
