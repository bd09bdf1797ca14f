package server

import (
	"errors"
	"testing"
	"time"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/topic"
	"github.com/portask/portask/broker/wire"
)

// A reload takes effect for what comes after it, and nobody who is connected
// notices.
func TestReload(t *testing.T) {
	onEach(t, func(t *testing.T, s setting) {
		o := Options{Loops: 2, Topics: topic.Config{SegmentBytes: 1 << 20}}
		b := s.start(t, o)
		b.topic("t", topic.Config{Visibility: message.AckAccepted})
		open := wire.OpenProducer{Topic: "t", Ack: message.AckAccepted}
		r := join(t, b).reader()
		r.follow("t", 1, wire.StartEarliest, 1<<20)
		p := join(t, b).producer(1, open)
		p.send(0, 10, 100)
		p.drain()
		before := p.ok.Credit

		o.ProducerBytes, o.DeliverBytes = 128<<10, 8<<10
		o.Topics = topic.Config{Partitions: 3, RetentionMs: 1000, RetentionBytes: 5 << 20, SegmentBytes: 64 << 10}
		o.Algorithms, o.Encodings = []message.Algorithm{message.None, message.Zstd}, []message.Encoding{message.Raw}
		if err := b.Reload(o); err != nil {
			t.Fatal(err)
		}

		// The producer that was there goes on with its credit, a new one gets less.
		p.send(0, 10, 100)
		p.drain()
		if q := join(t, b).producer(2, open); q.ok.Credit != 128<<10 || before <= 128<<10 {
			t.Errorf("credit %d, %d before", q.ok.Credit, before)
		}
		r.until(20)

		// A new topic has the new defaults, an old one its own.
		b.topic("new", topic.Config{})
		now, err := b.cat.Lookup("new")
		if err != nil {
			t.Fatal(err)
		}
		old, err := b.cat.Lookup("t")
		if err != nil {
			t.Fatal(err)
		}
		if c := now.Config(); c.Partitions != 3 || c.RetentionMs != 1000 || c.RetentionBytes != 5<<20 || c.SegmentBytes != 64<<10 {
			t.Errorf("new topic: %+v", c)
		}
		if c := old.Config(); c.Partitions != 1 || c.SegmentBytes != 1<<20 || c.RetentionBytes != topic.Unlimited {
			t.Errorf("old topic: %+v", c)
		}

		// A new subscription gets smaller frames: one batch each, here.
		for range 4 {
			p.send(0, 10, 700)
		}
		p.drain()
		r.until(60)
		k := join(t, b).reader()
		sent := b.Stats().Delivers
		k.follow("t", 1, wire.StartEarliest, 1<<20)
		k.until(60)
		if n := b.Stats().Delivers - sent; n < 4 {
			t.Errorf("%d frames for 28 kB at 8 KiB a frame", n)
		}

		// What is not accepted any more is refused with its name, and the
		// connection lives.
		batch := p.build(0, 1, 10)
		batch[48] = batch[48]&^7 | byte(message.LZ4)
		message.Stamp(batch, 0, 0, 0, 0) // the header's checksum
		p.next[0]--                      // it will not be stored
		p.seq[0]--
		corr := p.produce(0, batch)
		h, answer := p.frame()
		var e wire.Error
		if err := e.Parse(answer); err != nil || h.Correlation != corr || fault.Code(e.Code) != fault.NotSupported || e.Field != "attributes" {
			t.Fatalf("%v, %+v", err, e)
		}
		p.credit += p.sizes[corr]
		delete(p.sizes, corr)
		p.inFlight--
		if err := b.Reload(Options{Topics: o.Topics}); err != nil { // all defaults again
			t.Fatal(err)
		}
		p.send(0, 1, 10)
		p.drain()
		r.until(61)
	})
}

// An invalid reload changes nothing, and names every violation.
func TestReloadRefused(t *testing.T) {
	b := setting{"std", "memlog"}.start(t, Options{Loops: 1})
	join(t, b).ping()
	was := b.live.Load()
	err := b.Reload(Options{DeliverBytes: 1, ProducerBytes: 1, SlowConsumer: time.Second})
	if !errors.Is(err, fault.Invalid) || len(split(err)) != 2 {
		t.Errorf("%v", err)
	}
	if b.live.Load() != was {
		t.Error("an invalid reload took effect")
	}
}

// split takes nested joined errors apart.
func split(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var out []error
	for _, e := range joined.Unwrap() {
		out = append(out, split(e)...)
	}
	return out
}

// The time between looks at expired segments, and the patience with slow
// consumers, change while they are being waited for.
func TestReloadWakesTimers(t *testing.T) {
	s := setting{"std", "memlog"}
	o := Options{Loops: 1, RetentionEvery: time.Hour, SlowConsumer: time.Hour, Network: smallSockets}
	b := s.start(t, o)
	b.topic("t", topic.Config{Visibility: message.AckAccepted, SegmentBytes: 64 << 10, RetentionMs: 200})
	slow := dial(t, b, 4<<10)
	slow.greet(&wire.Hello{})
	slow.subscribe(wire.Subscribe{Topic: "t", Credit: 1 << 40})
	p := join(t, b).producer(1, wire.OpenProducer{Topic: "t", Ack: message.AckAccepted})
	for range 32 {
		p.send(0, 64, 1<<10)
	}
	p.drain()
	top, err := b.cat.Lookup("t")
	if err != nil {
		t.Fatal(err)
	}
	o.RetentionEvery, o.SlowConsumer = 10*time.Millisecond, 100*time.Millisecond
	if err := b.Reload(o); err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); b.Stats().Connections > 1 || top.Partitions[0].Marks().Start == 0; {
		p.ping() // a round trip, so that the wait is not a spin
		if time.Since(began) > patience {
			t.Fatalf("%d connections, %+v", b.Stats().Connections, top.Partitions[0].Marks())
		}
	}
	slow.lost()
}
