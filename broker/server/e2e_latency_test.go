package server

import (
	"testing"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/monitor/latency"
	"github.com/portask/portask/broker/partition"
	"github.com/portask/portask/broker/topic"
	"github.com/portask/portask/broker/wire"
)

// measured is how many durations of a kind were recorded.
func (b *broker) measured(k latency.Kind) (n uint64) {
	var c latency.Counts
	b.Latency().Read(k, &c)
	for _, v := range c {
		n += v
	}
	return n
}

// Every answered batch is measured once, at its level; deliveries only to those
// who wait for them.
func TestLatencies(t *testing.T) {
	onAll(t, func(t *testing.T, s setting) {
		b := s.start(t, Options{Loops: 2, Measure: true})
		b.topic("t", topic.Config{Partitions: 1, Visibility: message.AckAccepted})
		r := join(t, b).reader()
		r.follow("t", 1, wire.StartLatest, 1<<30)
		r.ping() // the credit has come: a batch before it would find nobody waiting, and not be measured
		r.keep = true
		levels := []message.AckLevel{message.AckNone, message.AckAccepted, message.AckAccepted, message.AckDurable}
		const each = 10
		sent, acks := 0, map[message.AckLevel]uint64{}
		for i, level := range levels {
			if !b.opts.Engine.Levels().Has(level) {
				continue
			}
			p := join(t, b).producer(uint32(i), wire.OpenProducer{Topic: "t", Ack: level})
			for range each {
				p.send(0, 3, 100)
				p.settle()
				sent += 3
				r.until(sent) // it waits for each of them
			}
			acks[level] += each
		}
		b.Stats() // the turns that are under way end: what they delivered is measured
		if n := b.measured(latency.Accepted); n != acks[message.AckAccepted] {
			t.Errorf("%d acks at accepted were measured, want %d", n, acks[message.AckAccepted])
		}
		if n := b.measured(latency.Durable); n != acks[message.AckDurable] {
			t.Errorf("%d acks at durable were measured, want %d", n, acks[message.AckDurable])
		}
		frames := b.Stats().Delivers
		if n := b.measured(latency.Append); n != frames {
			t.Errorf("%d appends were measured, want %d", n, frames)
		}
		if n := b.measured(latency.Deliver); n != frames {
			t.Errorf("%d of %d deliveries were measured", n, frames)
		}

		// Behind, without credit, and at the tail again.
		late := join(t, b).reader()
		h, _ := late.subscribe(wire.Subscribe{Topic: "t", Start: wire.StartEarliest})
		late.parts[h] = 0
		late.keep = true
		late.grant(h, 1<<30)
		late.until(sent)
		b.Stats()
		if n := b.measured(latency.Deliver); n != frames {
			t.Errorf("%d deliveries are measured after a reader of history, %d before it", n, frames)
		}
		if st := b.Stats(); st.MessagesOut != 2*uint64(sent) || st.MessagesIn != uint64(sent) {
			t.Errorf("%d messages in, %d out, want %d and twice that", st.MessagesIn, st.MessagesOut, sent)
		}
	})
}

// Nothing is recorded unless it is asked for.
func TestLatenciesAreOff(t *testing.T) {
	onEach(t, func(t *testing.T, s setting) {
		b := s.start(t, Options{Loops: 1})
		b.topic("t", topic.Config{Visibility: message.AckAccepted})
		p := join(t, b).producer(1, wire.OpenProducer{Topic: "t", Ack: message.AckAccepted})
		p.send(0, 1, 10)
		p.drain()
		tail, since := b.cat.ByNum(0).ReadTail(0, 1, make([]partition.Slice, 0, 1))
		for i := range tail {
			tail[i].Release()
		}
		if b.Latency() != nil || since != 0 {
			t.Error("durations are measured")
		}
	})
}

// A broker that stops says so, and one whose disk is full.
func TestHealth(t *testing.T) {
	onEach(t, func(t *testing.T, s setting) {
		b := s.start(t, Options{Loops: 1})
		b.topic("t", topic.Config{Partitions: 3})
		join(t, b).ping()
		h := b.Health()
		if !h.Serving || h.Draining || h.Partitions != 3 || h.Failed != 0 || h.Space.TotalBytes == 0 || h.Space.Full {
			t.Errorf("a healthy broker: %+v", h)
		}
		if n := len(b.LoopStats()); n != 1 {
			t.Errorf("%d loops", n)
		}
		b.end()
		if h := b.Health(); !h.Draining {
			t.Errorf("after its end: %+v", h)
		}
	})
}
