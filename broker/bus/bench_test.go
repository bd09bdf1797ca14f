package bus

import (
	"fmt"
	"maps"
	"slices"
	"sync"
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

// A task from a goroutine to a worker and its end back, with some under way: a
// pool of the bus beside goroutines that wait on a channel, on a condition, and
// one that is begun for each task.
func BenchmarkDispatch(b *testing.B) {
	const workers = 4
	for _, underway := range []int{1, 16, 256} {
		ways := map[string]func(done func(i int)) (dispatch func(i int), end func()){
			"bus": func(done func(int)) (func(int), func()) {
				p := New(Options{Workers: workers, Lanes: []Lane{{Name: "a"}, {Name: "b"}, {Name: "c"}}})
				tasks := make([]Task, underway)
				for i := range tasks {
					tasks[i].Bind(p, i%3, func() bool { done(i); return false })
				}
				return func(i int) { tasks[i].Schedule() }, p.Close
			},
			"channel": func(done func(int)) (func(int), func()) {
				c := make(chan int, underway)
				var wg sync.WaitGroup
				for range workers {
					wg.Go(func() {
						for i := range c {
							done(i)
						}
					})
				}
				return func(i int) { c <- i }, func() { close(c); wg.Wait() }
			},
			"condition": func(done func(int)) (func(int), func()) {
				var mu sync.Mutex
				more := sync.NewCond(&mu)
				var queue []int
				closing := false
				var wg sync.WaitGroup
				for range workers {
					wg.Go(func() {
						mu.Lock()
						defer mu.Unlock()
						for {
							for len(queue) == 0 && !closing {
								more.Wait()
							}
							if len(queue) == 0 {
								return
							}
							i := queue[0]
							queue = append(queue[:0], queue[1:]...)
							mu.Unlock()
							done(i)
							mu.Lock()
						}
					})
				}
				put := func(i int) {
					mu.Lock()
					queue = append(queue, i)
					more.Signal()
					mu.Unlock()
				}
				return put, func() {
					mu.Lock()
					closing = true
					more.Broadcast()
					mu.Unlock()
					wg.Wait()
				}
			},
			"goroutine": func(done func(int)) (func(int), func()) {
				return func(i int) { go done(i) }, func() {}
			},
		}
		for _, way := range slices.Sorted(maps.Keys(ways)) {
			b.Run(fmt.Sprintf("underway=%d/way=%s", underway, way), func(b *testing.B) {
				free := make(chan int, underway)
				for i := range underway {
					free <- i
				}
				dispatch, end := ways[way](func(i int) { free <- i })
				b.ReportAllocs()
				for b.Loop() {
					dispatch(<-free)
				}
				for range underway {
					<-free
				}
				end()
			})
		}
	}
}
