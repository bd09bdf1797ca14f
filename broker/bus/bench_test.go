package bus

import (
	"fmt"
	"maps"
	"slices"
	"testing"
)

// What a storage worker hands to an event loop: acks, one or a batch at a time,
// from several goroutines to one.
func BenchmarkMail(b *testing.B) {
	for _, batch := range []int{1, 16} {
		for _, producers := range []int{1, 2, 4, 8} {
			for _, name := range slices.Sorted(maps.Keys(mailQueues())) {
				b.Run(fmt.Sprintf("batch=%d/producers=%d/queue=%s", batch, producers, name), func(b *testing.B) {
					b.ReportAllocs()
					n := max(b.N/(producers*batch), 1) * producers * batch
					mailPump(mailQueues()[name](), n, producers, batch, false)
					b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "items/s")
				})
			}
		}
	}
}

// What event loops hand to storage workers: tasks, one at a time, from several
// goroutines to four.
func BenchmarkTasks(b *testing.B) {
	for _, producers := range []int{1, 2, 4, 8} {
		for _, name := range slices.Sorted(maps.Keys(taskQueues())) {
			b.Run(fmt.Sprintf("producers=%d/queue=%s", producers, name), func(b *testing.B) {
				b.ReportAllocs()
				n := max(b.N/producers, 1) * producers
				taskPump(taskQueues()[name](), n, producers, 4, false)
				b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "items/s")
			})
		}
	}
}
