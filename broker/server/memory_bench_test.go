package server

import (
	"fmt"
	"runtime"
	"runtime/metrics"
	"testing"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/topic"
)

// collected is what the process has spent on memory.
type collected struct{ objects, bytes, cycles, seconds float64 }

func readCollected() (c collected) {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:objects"}, {Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/cycles/total:gc-cycles"}, {Name: "/cpu/classes/gc/total:cpu-seconds"}}
	metrics.Read(s)
	return collected{float64(s[0].Value.Uint64()), float64(s[1].Value.Uint64()), float64(s[2].Value.Uint64()), s[3].Value.Float64()}
}

func (c *collected) add(from, to collected) {
	c.objects += to.objects - from.objects
	c.bytes += to.bytes - from.bytes
	c.cycles += to.cycles - from.cycles
	c.seconds += to.seconds - from.seconds
}

// BenchmarkCollector is what producing and consuming a message of 1 KiB costs the
// garbage collector, with the pool of chunks and with chunks from the Go heap.
// The two take turns, in pairs, over brokers that are otherwise the same; the
// clients in the process allocate nothing.
func BenchmarkCollector(b *testing.B) {
	const batches = 2000 // a turn: 128,000 messages, 125 MiB
	s := setting{"", "disklog"}
	if runtime.GOOS != "linux" {
		s.events = "std"
	}
	names := []string{"pool", "plain"}
	var floods []*flood
	for _, name := range names {
		k := s.start(b, Options{Loops: 1, Topics: topic.Config{SegmentBytes: 64 << 20, RetentionBytes: 128 << 20}, plainMemory: name == "plain"})
		k.topic("t", topic.Config{Visibility: message.AckAccepted})
		floods = append(floods, newFlood(b, k, "t", message.AckAccepted, 8))
	}
	turn := func(f *flood) {
		for range batches / 100 {
			f.produce(100)
			f.consume(100)
		}
	}
	for _, f := range floods {
		turn(f)
	}
	spent := make([]collected, len(floods))
	turns := 0
	for b.Loop() {
		for k := range floods {
			i := (turns + k) % len(floods) // each begins as often
			runtime.GC()
			from := readCollected()
			turn(floods[i])
			spent[i].add(from, readCollected())
		}
		turns++
	}
	b.ReportMetric(0, "ns/op") // two brokers' times together say nothing
	millions := float64(turns) * batches * floodMessages / 1e6
	for i, name := range names {
		for unit, v := range map[string]float64{"objects": spent[i].objects, "MB": spent[i].bytes / 1e6, "GCs": spent[i].cycles, "GC-CPU-ms": spent[i].seconds * 1e3} {
			b.ReportMetric(v/millions, fmt.Sprintf("%s-%s/Mmsg", name, unit))
		}
	}
}
