package server

import (
	"testing"
	"time"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/server/evloop"
	"github.com/portask/portask/broker/topic"
	"github.com/portask/portask/broker/wire"
)

// smallSockets makes the kernel take little for a peer that does not read; less
// than two segments of loopback (64 KiB) would wait for delayed acknowledgements.
var smallSockets = evloop.Options{SendBufferBytes: 128 << 10}

// tinySockets makes it take next to nothing.
var tinySockets = evloop.Options{SendBufferBytes: 16 << 10}

// Two hundred consumers with endless credit that do not read a byte: a good one
// gets everything, the producer is not held up, memory stays within the tail,
// and a stuck one that comes to life gets everything too.
func TestStuckConsumersCostThemselvesOnly(t *testing.T) {
	stuck, batches := 200, 192
	if raceEnabled {
		stuck, batches = 50, 96
	}
	const messages, size = 64, 1 << 10
	onEach(t, func(t *testing.T, s setting) {
		const tail = 2 << 20
		b := s.start(t, Options{Loops: 2, TailBytes: tail, Network: smallSockets})
		b.topic("t", topic.Config{Visibility: message.AckAccepted})
		var lame []*reader
		for range stuck {
			p := dial(t, b, 4<<10)
			p.greet(&wire.Hello{})
			r := p.reader()
			h, ok := r.subscribe(wire.Subscribe{Topic: "t", Start: wire.StartLatest, Credit: 1 << 40})
			r.parts[h], r.at[0], r.keep = 0, ok.Start, true
			lame = append(lame, r)
		}
		ws := workers{t: t}
		ready := make(chan struct{})
		ws.start("good consumer", func(f failer) {
			r := join(f, b).reader()
			r.follow("t", 1, wire.StartLatest, 1<<20)
			close(ready)
			r.until(batches * messages)
		})
		<-ready
		most := int64(0)
		p := join(t, b).producer(1, wire.OpenProducer{Topic: "t", Ack: message.AckAccepted, CreditWanted: 1 << 20})
		for i := range batches {
			p.send(0, messages, size)
			if i%16 == 0 {
				most = max(most, b.Stats().Pool.LiveBytes)
			}
		}
		p.drain()
		ws.wait()
		most = max(most, b.Stats().Pool.LiveBytes)
		// The tail, per loop a receive chunk and what is on its way, and what the
		// producer may have sent before it is stored.
		if limit := int64(tail+b.opts.Loops*(2<<20)) + int64(p.ok.Credit); most > limit {
			t.Errorf("%d bytes of the pool in use, more than %d", most, limit)
		}
		if c := b.Stats().Counters; c.Connections != uint64(stuck+2) {
			t.Errorf("%d connections, %d were opened", c.Connections, stuck+2)
		}
		for _, r := range lame[:3] {
			r.until(batches * messages)
		}
		if c := b.Stats(); c.HistoryReads == 0 || c.Leases == 0 {
			t.Errorf("the stuck ones were not behind: %+v", c.Counters)
		}
	})
}

// A subscription without credit does not hold up another of its connection.
func TestCreditIsPerSubscription(t *testing.T) {
	onEach(t, func(t *testing.T, s setting) {
		b := s.start(t, Options{Loops: 1})
		b.topic("t", topic.Config{Partitions: 2})
		r := join(t, b).reader()
		r.follow("t", 2, wire.StartEarliest, 0)
		p := join(t, b).producer(1, wire.OpenProducer{Topic: "t", Ack: message.AckAccepted})
		for range 5 {
			p.send(0, 10, 100)
			p.send(1, 10, 100)
		}
		p.drain()
		for h, part := range r.parts {
			r.grant(h, 1<<20)
			r.until(r.got + 50)
			if r.at[part] != 50 {
				t.Fatalf("partition %d is at %d", part, r.at[part])
			}
		}
	})
}

// Who takes nothing of a frame for SlowConsumer is closed, and no one else.
func TestSlowConsumerIsClosed(t *testing.T) {
	onEach(t, func(t *testing.T, s setting) {
		b := s.start(t, Options{Loops: 1, SlowConsumer: 300 * time.Millisecond, Network: smallSockets})
		b.topic("t", topic.Config{Visibility: message.AckAccepted})
		slow := dial(t, b, 4<<10)
		slow.greet(&wire.Hello{})
		slow.subscribe(wire.Subscribe{Topic: "t", Credit: 1 << 40})
		idle := join(t, b) // subscribed, silent, and not slow: nothing waits for it
		idle.subscribe(wire.Subscribe{Topic: "t", Credit: 0})
		good := join(t, b).reader()
		good.follow("t", 1, wire.StartLatest, 1<<20)
		p := join(t, b).producer(1, wire.OpenProducer{Topic: "t", Ack: message.AckAccepted})
		for range 32 {
			p.send(0, 64, 1<<10)
			p.drain()
			good.until(good.got + 64) // no more than its socket takes waits for it
		}
		for began := time.Now(); b.Stats().Connections == 4; {
			good.ping() // a round trip, so that the wait is not a spin
			if time.Since(began) > patience {
				t.Fatal("the slow consumer lives")
			}
		}
		slow.lost()
		idle.ping()
		if c := b.Stats().Counters; c.Connections != 3 || c.Subscriptions != 2 {
			t.Fatalf("left: %+v", c)
		}
		p.send(0, 1, 10)
		p.drain()
		good.until(32*64 + 1)
	})
}

// A long history read 1 KiB at a time through a small window arrives byte by
// byte: partial writes, from memory and by sendfile, continue where they ended.
func TestHistoryThroughANarrowPipe(t *testing.T) {
	onAll(t, func(t *testing.T, s setting) {
		b := s.start(t, Options{Loops: 1, TailBytes: 1, Network: tinySockets})
		b.topic("t", topic.Config{Visibility: message.AckAccepted, SegmentBytes: 256 << 10})
		p := join(t, b).producer(1, wire.OpenProducer{Topic: "t", Ack: message.AckAccepted})
		const batches, messages = 50, 60
		for i := range batches {
			p.send(0, messages, 1000+i)
		}
		p.drain()
		for _, max := range []uint32{0, 1, 100_000} {
			narrow := dial(t, b, 4<<10)
			narrow.chunk = 1 << 10
			narrow.greet(&wire.Hello{})
			r := narrow.reader()
			h, _ := r.subscribe(wire.Subscribe{Topic: "t", Credit: 1 << 40, MaxDeliverBytes: max})
			r.parts[h], r.at[0], r.keep = 0, 0, true
			r.until(batches * messages)
			if max == 1 && r.frames != batches {
				t.Errorf("%d frames of one batch for %d batches", r.frames, batches)
			}
			r.ping()
			r.cut()
		}
		if b.Stats().HistoryReads == 0 {
			t.Error("nothing was read from the log")
		}
	})
}

// A consumer whose credit ran out falls behind what memory holds, is served from
// the log when it has credit again, and from memory when it has caught up.
func TestConsumerFallsBehindAndCatchesUp(t *testing.T) {
	onEach(t, func(t *testing.T, s setting) {
		b := s.start(t, Options{Loops: 1, TailBytes: 1 << 20})
		b.topic("t", topic.Config{Visibility: message.AckAccepted})
		r := join(t, b).reader()
		h, _ := r.subscribe(wire.Subscribe{Topic: "t", Start: wire.StartLatest, Credit: 1})
		r.parts[h], r.keep = 0, true
		p := join(t, b).producer(1, wire.OpenProducer{Topic: "t", Ack: message.AckAccepted})
		const batches, messages = 100, 64
		for range batches {
			p.send(0, messages, 1<<10)
		}
		p.drain()
		r.deliver() // what one byte of credit is worth
		before := b.Stats()
		if before.Delivers != 1 || before.HistoryReads != 0 {
			t.Fatalf("served beyond its credit: %+v", before.Counters)
		}
		r.grant(h, 1<<40)
		r.until(batches * messages)
		behind := b.Stats()
		if behind.HistoryReads == 0 {
			t.Fatalf("not served from the log: %+v", behind.Counters)
		}
		for range 20 {
			p.send(0, 3, 100)
			p.drain()
			r.until(r.got + 3)
		}
		if after := b.Stats(); after.HistoryReads != behind.HistoryReads || after.Delivers != behind.Delivers+20 {
			t.Fatalf("at the tail it is served from the log: %+v", after.Counters)
		}
	})
}

// A consumer with much to catch up on and endless credit does not keep another
// subscription of its connection waiting: they take turns.
func TestSubscriptionsOfAConnectionTakeTurns(t *testing.T) {
	onEach(t, func(t *testing.T, s setting) {
		b := s.start(t, Options{Loops: 1, Network: tinySockets})
		b.topic("t", topic.Config{Partitions: 3, Visibility: message.AckAccepted})
		p := join(t, b).producer(1, wire.OpenProducer{Topic: "t", Ack: message.AckAccepted})
		const batches, messages = 60, 64
		for range batches {
			for part := range uint32(3) {
				p.send(part, messages, 1<<10)
			}
		}
		p.drain()
		narrow := dial(t, b, 4<<10)
		narrow.greet(&wire.Hello{})
		r := narrow.reader()
		for part := range uint32(3) {
			h, _ := r.subscribe(wire.Subscribe{Topic: "t", Partition: part, MaxDeliverBytes: 64 << 10})
			r.parts[h], r.at[part], r.keep = part, 0, true
		}
		for h := range r.parts {
			r.grant(h, 1<<40)
		}
		for r.got < 3*batches*messages {
			r.deliver()
			lead, last := r.at[0], r.at[0]
			for _, at := range r.at {
				lead, last = max(lead, at), min(last, at)
			}
			// A turn serves up to eight frames before the next credit is read.
			if lead-last > 16*messages {
				t.Fatalf("one partition is %d messages ahead of another: %v", lead-last, r.at)
			}
		}
	})
}

// A batch that does not fit into the largest frame a consumer takes ends its
// subscription, not its connection; from memory and from the log.
func TestBatchLargerThanTheConsumersFrame(t *testing.T) {
	onEach(t, func(t *testing.T, s setting) {
		for _, tail := range []int{1, 16 << 20} {
			b := s.start(t, Options{Loops: 1, TailBytes: tail})
			b.topic("t", topic.Config{Visibility: message.AckAccepted, SegmentBytes: 8 << 20})
			k := dial(t, b, 0)
			k.greet(&wire.Hello{MaxFrame: wire.MinMaxFrame})
			h, _ := k.subscribe(wire.Subscribe{Topic: "t", Credit: 1 << 30})
			p := join(t, b).producer(1, wire.OpenProducer{Topic: "t", Ack: message.AckAccepted})
			p.send(0, 3, 1<<20-1000)
			p.drain()
			e := k.refused(0, fault.TooLarge, "max_frame")
			if e.Bits != fault.BitClosesHandle || e.Limit != wire.MinMaxFrame || e.Value < 3<<20-3000 {
				t.Fatalf("%+v", e)
			}
			k.grant(h, 1) // crossed with the end
			k.ping()
			corr := k.ask(0, wire.OpFetch, &wire.Fetch{Topic: "t"})
			k.refused(corr, fault.TooLarge, "max_frame")
			r := join(t, b).reader()
			r.follow("t", 1, wire.StartEarliest, 1<<20)
			r.until(3)
		}
	})
}
