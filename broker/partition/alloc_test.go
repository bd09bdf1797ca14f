package partition

import (
	"fmt"
	"testing"

	"github.com/portask/portask/broker/mempool"
	"github.com/portask/portask/broker/message"
)

// load produces the same bytes again and again, as turns of a number of batches.
type load struct {
	r     *rig
	env   message.Envelope
	bytes []byte
	chunk *mempool.Chunk
	level message.AckLevel
	acked chan int
}

func newLoad(tb testing.TB, level message.AckLevel, count, valueBytes int) *load {
	l := &load{level: level, acked: make(chan int, 1024)}
	l.r = newRig(tb, rigOptions{visibility: accepted, engine: func(d *double) { d.null = true }})
	l.r.sink.onDone = nil
	l.r.p.opts.Sink = l
	l.bytes = encode(tb, message.Producer{ID: 1}, count, valueBytes)
	l.env = parse(tb, l.bytes)
	l.chunk = l.r.chunk(l.bytes)
	tb.Cleanup(l.chunk.Release)
	return l
}

func (l *load) Complete(_ int, c []Completion) { l.acked <- len(c) }
func (l *load) Advanced(int, *Partition)       {}

// turn produces n batches, writes them and waits for their acks.
func (l *load) turn(tb testing.TB, n int) {
	b := l.chunk.B[frameBytes : frameBytes+len(l.bytes)]
	var flush bool
	for range n {
		res, err := l.r.p.Produce(&l.env, b, l.chunk, frameBytes, l.level, Token{Bytes: uint32(len(b))}, 1)
		if err != nil {
			tb.Fatal(err)
		}
		flush = flush || res.Flush
		l.env.BaseSequence += l.env.Count
	}
	if flush {
		l.r.p.Flush(0)
	}
	for n > 0 {
		n -= <-l.acked
	}
}

// Once warm, a batch of an idempotent producer passes through the partition
// without an allocation, its ack, tail entry and share of a sync included.
func TestNothingIsAllocatedPerBatch(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for _, level := range []message.AckLevel{none, accepted, durable} {
		for _, batches := range []int{1, 8} {
			t.Run(fmt.Sprintf("ack=%v/turn=%d", level, batches), func(t *testing.T) {
				l := newLoad(t, level, 1, 10)
				for range 2 * tailMax {
					l.turn(t, batches)
				}
				if n := testing.AllocsPerRun(200, func() { l.turn(t, batches) }); n != 0 {
					t.Errorf("%v allocations a turn", n)
				}
			})
		}
	}
}

// A reader at the tail costs no allocation either.
func TestReadTailAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	l := newLoad(t, accepted, 1, 10)
	l.turn(t, 100)
	buf := make([]Slice, 0, 64)
	if n := testing.AllocsPerRun(200, func() {
		got, _ := l.r.p.ReadTail(50, 1<<20, buf)
		if len(got) != 50 {
			t.Fatalf("%d slices", len(got))
		}
		for i := range got {
			got[i].Release()
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkProduce is the partition alone: admission, writer role, acks and tail
// over an engine that keeps nothing. value is that of each message, batch the
// messages of a batch, turn the batches that one loop brings at once.
func BenchmarkProduce(b *testing.B) {
	for _, level := range []message.AckLevel{accepted, durable} {
		for _, turn := range []int{1, 8} {
			b.Run(fmt.Sprintf("engine=null/ack=%v/batch=64/value=1KiB/turn=%d", level, turn), func(b *testing.B) {
				l := newLoad(b, level, 64, 1<<10)
				b.SetBytes(int64(turn * len(l.bytes)))
				b.ReportAllocs()
				for b.Loop() {
					l.turn(b, turn)
				}
				b.ReportMetric(float64(b.N*turn*64)/b.Elapsed().Seconds(), "msg/s")
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*turn), "ns/batch")
			})
		}
	}
}
