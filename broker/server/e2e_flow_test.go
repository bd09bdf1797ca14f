package server

import (
	"fmt"
	"testing"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/storage"
	"github.com/portask/portask/broker/topic"
	"github.com/portask/portask/broker/wire"
)

// Producers of every ack level the engine has write to the partitions of one
// topic at once, consumers that came before, meanwhile and after read them all:
// each message once and in order. What was produced at a lower level than the
// topic's visibility becomes visible by the background sync.
func TestEveryMessageOnceAndInOrder(t *testing.T) {
	const (
		partitions = 4
		perLevel   = 2
		batches    = 40
		messages   = 10
		size       = 300
	)
	onAll(t, func(t *testing.T, s setting) {
		b := s.start(t, Options{Loops: 3})
		levels := b.opts.Engine.Levels()
		for _, visibility := range []message.AckLevel{message.AckAccepted, message.AckDurable} {
			if !levels.Has(visibility) {
				continue
			}
			name := "seen-at-" + visibility.String()
			b.topic(name, topic.Config{Partitions: partitions, Visibility: visibility})
			total := perLevel * batches * messages * countLevels(levels)

			ws := workers{t: t}
			half := make(chan struct{})
			read := func(start wire.StartKind) func(failer) {
				return func(f failer) {
					r := join(f, b).reader()
					r.follow(name, partitions, start, 1<<20)
					r.until(total)
				}
			}
			ready := make(chan struct{})
			ws.start("first consumer", func(f failer) {
				r := join(f, b).reader()
				r.follow(name, partitions, wire.StartLatest, 64<<10)
				close(ready)
				r.until(total)
			})
			ws.start("second consumer", func(f failer) {
				<-half
				read(wire.StartEarliest)(f)
			})
			<-ready
			number := uint32(0)
			for level := message.AckNone; level.Valid(); level++ {
				if !levels.Has(level) {
					continue
				}
				for k := range perLevel {
					number++
					mine := number
					ws.start(fmt.Sprintf("producer %d at %v", mine, level), func(f failer) {
						p := join(f, b).producer(mine, wire.OpenProducer{Topic: name, Ack: level, Idempotent: k == 0, CreditWanted: 64 << 10})
						for i := range batches {
							if mine == 1 && i == batches/2 {
								close(half)
							}
							p.send(uint32(i%partitions), messages, size)
						}
						p.settle()
						if level != message.AckNone && (p.acked != batches || p.dups != 0) {
							f.Fatalf("%d acks, %d of duplicates, for %d batches", p.acked, p.dups, batches)
						}
					})
				}
			}
			ws.wait()
			ws.start("third consumer", read(wire.StartEarliest))
			ws.wait()
		}
	})
}

func countLevels(l storage.Levels) int {
	n := 0
	for a := message.AckNone; a.Valid(); a++ {
		if l.Has(a) {
			n++
		}
	}
	return n
}

// A producer that lost the connection before the ack sends the batch again: the
// answer is the original's, and the log has one.
func TestRetryAfterALostAck(t *testing.T) {
	onAll(t, func(t *testing.T, s setting) {
		dir := t.TempDir()
		o := Options{Loops: 2, Engine: s.open(t, dir)}
		level := o.Engine.Levels().Strongest()
		b := s.start(t, o)
		b.topic("t", topic.Config{Partitions: 2})

		watch := join(t, b).reader()
		watch.follow("t", 2, wire.StartEarliest, 1<<20)
		p := join(t, b).producer(1, wire.OpenProducer{Topic: "t", Ack: level, Idempotent: true})
		if p.ok.ProducerID == 0 {
			t.Fatal("no producer id")
		}
		var bases []message.Offset
		p.onAck = func(_ uint32, ok *wire.ProduceOK) { bases = append(bases, ok.BaseOffset) }
		p.send(1, 3, 100)
		p.drain()
		lost := append([]byte(nil), p.build(1, 4, 100)...)
		p.produce(1, lost)
		watch.until(7) // it is stored, and its ack on the way
		p.cut()

		again := func(b *broker) *sender {
			q := join(t, b).producer(1, wire.OpenProducer{Topic: "t", Ack: level, Idempotent: true, ProducerID: p.ok.ProducerID, ProducerEpoch: p.ok.ProducerEpoch})
			if q.ok.ProducerID != p.ok.ProducerID {
				t.Fatalf("came back as %d, was %d", q.ok.ProducerID, p.ok.ProducerID)
			}
			q.next, q.seq = p.next, p.seq
			q.produce(1, lost)
			q.drain()
			if q.dups != 1 || q.ack.BaseOffset != 3 || q.ack.Partition != 1 {
				t.Fatalf("sent again: %+v", q.ack)
			}
			return q
		}
		q := again(b)
		q.send(1, 1, 100)
		q.drain()
		if q.ack.BaseOffset != 7 || q.dups != 1 {
			t.Fatalf("the next batch: %+v", q.ack)
		}
		watch.until(8)
		if s.store != "disklog" {
			return
		}

		b.end()
		b = s.start(t, Options{Loops: 2, Engine: s.open(t, dir)})
		q = again(b)
		q.send(1, 2, 100)
		q.drain()
		if q.ack.BaseOffset != 8 || q.dups != 1 {
			t.Fatalf("the next batch after the restart: %+v", q.ack)
		}
		r := join(t, b).reader()
		r.follow("t", 2, wire.StartEarliest, 1<<20)
		r.until(10)
	})
}

// A broker that is started again on its directory has every acknowledged
// message, under the same offsets.
func TestRestartKeepsWhatWasAcknowledged(t *testing.T) {
	s := setting{store: "disklog"}
	dir := t.TempDir()
	total := 0
	next := map[uint32]uint64{}
	for round := range 3 {
		b := s.start(t, Options{Loops: 2, Engine: s.open(t, dir)})
		if round == 0 {
			b.topic("t", topic.Config{Partitions: 3, SegmentBytes: 64 << 10})
		}
		p := join(t, b).producer(1, wire.OpenProducer{Topic: "t", Ack: message.AckAccepted})
		p.next = next
		for i := range 60 {
			p.send(uint32(i%3), 5, 1000)
			total += 5
		}
		p.drain()
		r := join(t, b).reader()
		r.follow("t", 3, wire.StartEarliest, 1<<20)
		r.until(total)
		b.end()
	}
}

// Batches of the largest size, from several producers at once, in frames that
// are longer than any receive chunk.
func TestLargestBatches(t *testing.T) {
	onEach(t, func(t *testing.T, s setting) {
		b := s.start(t, Options{Loops: 2, TailBytes: 4 << 20, Topics: topic.Config{SegmentBytes: 16 << 20}})
		b.topic("t", topic.Config{Partitions: 2, Visibility: message.AckAccepted})
		const producers, batches, size = 4, 3, 1<<20 - 1<<10
		ws := workers{t: t}
		ready := make(chan struct{})
		ws.start("consumer", func(f failer) {
			r := join(f, b).reader()
			r.follow("t", 2, wire.StartEarliest, 1<<20)
			close(ready)
			r.until(producers * batches * 4)
		})
		<-ready
		for i := range uint32(producers) {
			ws.start(fmt.Sprintf("producer %d", i), func(f failer) {
				p := join(f, b).producer(i, wire.OpenProducer{Topic: "t", Ack: message.AckAccepted})
				for n := range uint32(batches) {
					p.send(n%2, 4, size) // a batch of nearly 4 MiB
				}
				p.drain()
			})
		}
		ws.wait()
	})
}
