package server

import (
	"encoding/binary"
	"runtime"
	"testing"

	"github.com/portask/portask/broker/mempool"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/storage"
	"github.com/portask/portask/broker/topic"
	"github.com/portask/portask/broker/wire"
)

// flood is a raw producer and a raw consumer that reuse all their memory, so
// that what the process allocates is the broker's. The producer keeps a window
// of batches in flight; the consumer takes DELIVERs without looking inside.
type flood struct {
	p, k     *peer
	producer uint32
	sub      uint32
	frame    []byte // a whole PRODUCE frame, sent again and again
	window   int
	inFlight int
	behind   int // batches sent and not yet delivered
	ack      wire.ProduceOK
}

const (
	floodMessages = 64
	floodValue    = 1 << 10
)

func newFlood(t testing.TB, b *broker, name string, ack message.AckLevel, window int) *flood {
	f := &flood{p: join(t, b), k: join(t, b), window: window}
	s := f.p.producer(1, wire.OpenProducer{Topic: name, Ack: ack})
	f.producer = s.handle
	batch := s.build(0, floodMessages, floodValue)
	f.frame = append(wire.AppendProduceFrame(nil, wire.Header{Correlation: 1, Handle: s.handle}, 0, len(batch)), batch...)
	f.sub, _ = f.k.subscribe(wire.Subscribe{Topic: name, Start: wire.StartLatest, Credit: 1 << 40})
	f.k.in = make([]byte, 2<<20)
	return f
}

// produce sends n batches and waits for all acks.
func (f *flood) produce(n int) {
	for n > 0 || f.inFlight > 0 {
		if n > 0 && f.inFlight < f.window {
			f.p.write(f.frame)
			n--
			f.inFlight++
			continue
		}
		h, b := f.p.frame()
		if h.Opcode != wire.OpProduce.Response() || f.ack.Parse(b) != nil {
			f.p.Fatalf("%s", describe(h, b))
		}
		f.inFlight--
	}
}

// consume takes DELIVERs until n batches came.
func (f *flood) consume(n int) {
	for f.behind += n; f.behind > 0; {
		h, b := f.k.frame()
		if h.Opcode != wire.OpDeliver {
			f.k.Fatalf("%s", describe(h, b))
		}
		runs := int(binary.LittleEndian.Uint16(b[30:]))
		for i := range runs {
			f.behind -= int(binary.LittleEndian.Uint32(b[32+32*i+28:]))
		}
	}
}

// Producing, appending and delivering allocate nothing for a message and at most
// twice for a batch, at the tail, over real sockets; counted in the whole
// process.
func TestAllocationBudget(t *testing.T) {
	if raceEnabled || mempool.LeaseCheck {
		t.Skip("the race detector allocates, and so do checked leases")
	}
	const limit = 2.0 // per batch
	for _, s := range []setting{{"epoll", "disklog"}, {"epoll", "memlog"}} {
		if runtime.GOOS != "linux" {
			s.events = "std"
		}
		for _, level := range []message.AckLevel{message.AckAccepted, message.AckDurable} {
			if s.store == "memlog" && level == message.AckDurable {
				continue // it does not have the level
			}
			t.Run("engine="+s.store+"/ack="+level.String(), func(t *testing.T) {
				b := s.start(t, Options{Loops: 1, Topics: topic.Config{SegmentBytes: 64 << 20}})
				b.topic("t", topic.Config{Visibility: level})
				const batches = 100
				f := newFlood(t, b, "t", level, 8)
				round := func() {
					f.produce(batches)
					f.consume(batches)
				}
				for range 3 { // grown buffers, segments, spare records
					round()
				}
				per := testing.AllocsPerRun(5, round) / batches
				t.Logf("%.2f allocations per batch of %d messages", per, floodMessages)
				if per > limit {
					t.Errorf("%.2f allocations per batch, at most %.0f are allowed", per, limit)
				}
				// Ten times the messages in a batch must not show.
				small := per
				s := f.p.producer(2, wire.OpenProducer{Topic: "t", Ack: level})
				batch := s.build(0, 10*floodMessages, floodValue/10)
				f.frame = append(wire.AppendProduceFrame(nil, wire.Header{Correlation: 1, Handle: s.handle}, 0, len(batch)), batch...)
				round()
				per = testing.AllocsPerRun(5, round) / batches
				if per > limit {
					t.Errorf("%.2f allocations per batch of %d messages, %.2f with a tenth of them", per, 10*floodMessages, small)
				}
			})
		}
	}
}

// At saturation the broker makes at most four system calls for a batch: reads,
// writes and waits of the event loops, writes and syncs of the log.
func TestSystemCallBudget(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("counts system calls of epoll")
	}
	const limit, batches = 4.0, 1500
	s := setting{"epoll", "disklog"}
	for _, level := range []message.AckLevel{message.AckAccepted, message.AckDurable} {
		t.Run("engine="+s.store+"/ack="+level.String(), func(t *testing.T) {
			b := s.start(t, Options{Loops: 1, Topics: topic.Config{SegmentBytes: 256 << 20}})
			b.topic("t", topic.Config{Visibility: level})
			f := newFlood(t, b, "t", level, 32)
			run := func(n int) {
				ws := workers{t: t}
				ws.start("consumer", func(w failer) {
					f.k.failer = w
					f.consume(n)
				})
				f.produce(n)
				ws.wait()
			}
			run(200)
			before, log := b.Stats(), b.cat.ByNum(0).LogStats()
			run(batches)
			after, logAfter := b.Stats(), b.cat.ByNum(0).LogStats()
			calls := func(s Stats, l storage.LogStats) uint64 {
				return s.Loops.Reads + s.Loops.Writes + s.Loops.Sendfiles + s.Loops.Waits + l.Writes + l.Syncs
			}
			per := float64(calls(after, logAfter)-calls(before, log)) / batches
			d := func(a, b uint64) float64 { return float64(b-a) / batches }
			t.Logf("%.2f system calls per batch: read %.2f, write %.2f, sendfile %.2f, wait %.2f, log write %.2f, sync %.2f; %d of %d DELIVERs from history",
				per, d(before.Loops.Reads, after.Loops.Reads), d(before.Loops.Writes, after.Loops.Writes), d(before.Loops.Sendfiles, after.Loops.Sendfiles),
				d(before.Loops.Waits, after.Loops.Waits), d(log.Writes, logAfter.Writes), d(log.Syncs, logAfter.Syncs),
				after.HistoryReads-before.HistoryReads, after.Delivers-before.Delivers)
			if per > limit {
				t.Errorf("%.2f system calls per batch, at most %.0f are allowed", per, limit)
			}
		})
	}
}
