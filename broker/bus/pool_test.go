package bus

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const producers = 8

// plain is a pool without control lanes.
func plain(workers int) *Pool { return New(Options{Workers: workers, Lanes: []Lane{{Name: "work"}}}) }

// Eight producers, each with tasks of its own: every task runs once, and on one
// worker in the order in which its producer scheduled it.
func TestEveryScheduledTaskRunsOnce(t *testing.T) {
	const each = 20_000
	for _, workers := range []int{1, 4} {
		p := plain(workers)
		ran := make([][]atomic.Int32, producers)
		var order [producers][]int // of the one worker
		var wg sync.WaitGroup
		for i := range producers {
			ran[i] = make([]atomic.Int32, each)
			wg.Go(func() {
				tasks := make([]Task, each)
				for k := range tasks {
					tasks[k].Bind(p, 0, func() bool {
						ran[i][k].Add(1)
						if workers == 1 {
							order[i] = append(order[i], k)
						}
						return false
					})
					if !tasks[k].Schedule() {
						t.Error("refused by an open pool")
					}
				}
			})
		}
		wg.Wait()
		p.Close()
		for i := range ran {
			for k := range ran[i] {
				if n := ran[i][k].Load(); n != 1 {
					t.Fatalf("%d workers: task %d of producer %d ran %d times", workers, k, i, n)
				}
			}
			if workers == 1 && (len(order[i]) != each || !slices.IsSorted(order[i])) {
				t.Errorf("producer %d: %d runs, in order: %v", i, len(order[i]), slices.IsSorted(order[i]))
			}
		}
		if s := p.Stats(); s.Lanes[0].Taken != producers*each || s.Lanes[0].Depth != 0 || s.Busy != 0 || s.Workers != 0 || s.Started > 1<<20 {
			t.Errorf("%+v", s)
		}
	}
}

// Partitions with a queue and one task each: their items come out once, in the
// order of each producer, never on two workers at a time, although the workers
// take whatever comes.
func TestPartitionsKeepTheirOrder(t *testing.T) {
	const partitions, each = 32, 3000
	type item struct{ producer, seq int }
	p := New(Options{Workers: 4, Lanes: []Lane{{Name: "write"}, {Name: "sync"}}})
	type part struct {
		Task
		mu     sync.Mutex
		queue  []item
		inside atomic.Bool
		out    []item // without a lock: one run at a time
	}
	parts := make([]*part, partitions)
	for i := range parts {
		q := &part{}
		parts[i] = q
		q.Bind(p, i%2, func() bool {
			if q.inside.Swap(true) {
				t.Error("two runs of a task at a time")
			}
			q.mu.Lock()
			n := min(len(q.queue), 3)
			q.out = append(q.out, q.queue[:n]...)
			q.queue = q.queue[n:]
			more := len(q.queue) > 0
			q.mu.Unlock()
			q.inside.Store(false)
			return more
		})
	}
	var wg sync.WaitGroup
	for i := range producers {
		wg.Go(func() {
			for seq := range each {
				q := parts[(i+seq)%partitions]
				q.mu.Lock()
				q.queue = append(q.queue, item{i, seq})
				q.mu.Unlock()
				q.Schedule()
			}
		})
	}
	wg.Wait()
	p.Close()
	total := 0
	for n, q := range parts {
		last := map[int]int{}
		for _, it := range q.out {
			if before, ok := last[it.producer]; ok && before >= it.seq {
				t.Fatalf("partition %d: %d of producer %d after %d", n, it.seq, it.producer, before)
			}
			last[it.producer] = it.seq
		}
		total += len(q.out)
	}
	if total != producers*each {
		t.Errorf("%d of %d items came out", total, producers*each)
	}
}

// Schedules of a queued or running task are not lost: the last run of all sees
// what every caller did before.
func TestTheLastRunSeesEverything(t *testing.T) {
	for range 50 {
		p := plain(2)
		var stored, seen [producers]atomic.Int64
		var task Task
		task.Bind(p, 0, func() bool {
			for i := range seen {
				seen[i].Store(stored[i].Load())
			}
			return false
		})
		var wg sync.WaitGroup
		for i := range producers {
			wg.Go(func() {
				for range 200 {
					stored[i].Add(1)
					task.Schedule()
				}
			})
		}
		wg.Wait()
		p.Close()
		for i := range seen {
			if n := seen[i].Load(); n != 200 {
				t.Fatalf("the last run saw %d of 200 of producer %d", n, i)
			}
		}
	}
}

// What is stored before Schedule may be read by the run without a lock, also when
// the task was queued already. The race detector looks on.
func TestScheduleOrdersMemory(t *testing.T) {
	p := plain(1)
	hold, busy := make(chan struct{}), Task{}
	busy.Bind(p, 0, func() bool { <-hold; return false })
	busy.Schedule()
	var plainValue int
	var task Task
	task.Bind(p, 0, func() bool { plainValue++; return false })
	task.Schedule()
	var wg sync.WaitGroup
	wg.Go(func() {
		plainValue = 41 // nobody else touches it: the worker is held
		task.Schedule() // changes nothing but for the order
		close(hold)
	})
	wg.Wait()
	p.Close()
	if plainValue != 42 {
		t.Error(plainValue)
	}
}

// holder is a task that runs until it is told to end.
type holder struct {
	Task
	begun, end chan struct{}
}

func hold(p *Pool, lane int) *holder {
	h := &holder{begun: make(chan struct{}), end: make(chan struct{})}
	h.Bind(p, lane, func() bool { close(h.begun); <-h.end; return false })
	h.Schedule()
	return h
}

const (
	control = 0
	bulk    = 1
)

func twoSides(workers int) *Pool {
	return New(Options{Workers: workers, Lanes: []Lane{{Name: "control", Control: true}, {Name: "bulk"}, {Name: "more"}}})
}

// A control task that comes last, behind a thousand others, runs first.
func TestControlOvertakes(t *testing.T) {
	p := twoSides(1)
	h := hold(p, bulk)
	<-h.begun
	var order []int
	tasks := make([]Task, 1001)
	for i := range tasks {
		lane := bulk
		if i == 1000 {
			lane = control
		}
		tasks[i].Bind(p, lane, func() bool { order = append(order, i); return false })
		tasks[i].Schedule()
	}
	close(h.end)
	p.Close()
	if len(order) != 1001 || order[0] != 1000 || !slices.IsSorted(order[1:]) {
		t.Errorf("%d runs, the first %v", len(order), order[:min(3, len(order))])
	}
	if s := p.Stats().Lanes[bulk]; s.Deepest != 1000 || s.Waited != 1000 {
		t.Errorf("%+v", s)
	}
}

// However much of one side hangs, the other has a worker.
func TestNeitherSideStarvesTheOther(t *testing.T) {
	for _, stuck := range []int{control, bulk} {
		synctest.Test(t, func(t *testing.T) {
			p := twoSides(4)
			var holders []*holder
			for range 10 {
				holders = append(holders, hold(p, stuck))
			}
			synctest.Wait()
			if s := p.Stats(); s.Busy != 3 || s.Lanes[stuck].Depth != 7 {
				t.Errorf("%+v", s)
			}
			done := 0
			other := make([]Task, 100)
			for i := range other {
				other[i].Bind(p, bulk-stuck, func() bool { done++; return false })
				other[i].Schedule()
			}
			synctest.Wait()
			if done != len(other) {
				t.Errorf("%d of %d tasks beside stuck ones", done, len(other))
			}
			for _, h := range holders {
				close(h.end)
			}
			p.Close()
		})
	}
}

// A lane that never empties leaves every second turn to the lane beside it.
func TestLanesTakeTurns(t *testing.T) {
	p := twoSides(1)
	h := hold(p, bulk)
	<-h.begun
	var order []int
	tasks := make([]Task, 12)
	for i := range tasks {
		lane := 1 + i/10 // ten of one lane, then two of the other
		tasks[i].Bind(p, lane, func() bool { order = append(order, lane); return false })
		tasks[i].Schedule()
	}
	close(h.end)
	p.Close()
	if want := []int{2, 1, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1}; !slices.Equal(order, want) {
		t.Errorf("took lanes %v, want %v", order, want)
	}
}

// Workers come with the backlog, up to the bound, and go after it; then nothing
// of the pool stirs, neither a worker nor a timer.
func TestWorkersFollowTheLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(Options{Workers: 5, Lanes: []Lane{{}}, IdleAfter: time.Second})
		var holders []*holder
		for i := range 8 {
			holders = append(holders, hold(p, 0))
			synctest.Wait()
			if s := p.Stats(); s.Workers != min(i+1, 5) || s.Busy != s.Workers || s.Lanes[0].Depth != max(0, i-4) {
				t.Errorf("%d tasks that wait for something: %+v", i+1, s)
			}
		}
		time.Sleep(time.Hour) // busy workers stay
		for _, h := range holders {
			close(h.end)
		}
		synctest.Wait()
		if s := p.Stats(); s.Workers != 5 || s.Busy != 0 || s.Lanes[0].Waited != 3 {
			t.Errorf("%+v", s)
		}
		// A trickle needs one worker, and keeps that one.
		var trickle Task
		trickle.Bind(p, 0, func() bool { return false })
		for range 40 {
			time.Sleep(100 * time.Millisecond)
			trickle.Schedule()
		}
		synctest.Wait()
		if s := p.Stats(); s.Workers != 1 || s.Started != 5 {
			t.Errorf("a trickle: %+v", s)
		}
		time.Sleep(2*time.Second + 1)
		synctest.Wait()
		before := p.Stats()
		p.mu.Lock()
		armed := p.armed
		p.mu.Unlock()
		if before.Workers != 0 || armed {
			t.Errorf("idle: %d workers, timer set: %v", before.Workers, armed)
		}
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if s := p.Stats(); s.Started != before.Started || s.Woken != before.Woken {
			t.Errorf("woke %d workers and began %d in an idle day", s.Woken-before.Woken, s.Started-before.Started)
		}
		trickle.Schedule()
		synctest.Wait()
		if s := p.Stats(); s.Lanes[0].Taken != 49 || s.Workers != 1 {
			t.Errorf("after a day: %+v", s)
		}
		p.Close()
	})
}

// A task that wants to run again goes behind those that wait.
func TestAgainIsFair(t *testing.T) {
	p := plain(1)
	h := hold(p, 0)
	<-h.begun
	var order []string
	var greedy, quiet Task
	greedy.Bind(p, 0, func() bool { order = append(order, "greedy"); return len(order) < 4 })
	quiet.Bind(p, 0, func() bool { order = append(order, "quiet"); return false })
	greedy.Schedule()
	quiet.Schedule()
	close(h.end)
	p.Close()
	if want := []string{"greedy", "quiet", "greedy", "greedy"}; !slices.Equal(order, want) {
		t.Error(order)
	}
}

// Close runs what is queued and what that schedules; later there is no run, and
// the caller is told.
func TestCloseRunsWhatIsScheduled(t *testing.T) {
	p := plain(3)
	var ran atomic.Int32
	tasks := make([]Task, 100)
	for i := range tasks {
		tasks[i].Bind(p, 0, func() bool {
			if ran.Add(1) <= 100 && i+1 < len(tasks) {
				tasks[i+1].Schedule()
			}
			return false
		})
	}
	tasks[0].Schedule()
	p.Close()
	if n := ran.Load(); n != 100 {
		t.Errorf("%d runs", n)
	}
	if tasks[0].Schedule() {
		t.Error("a closed pool says it will run a task")
	}
	p.Close()
	empty := plain(1)
	empty.Close()
}

// Workers that park and end all the time against producers that find them so: no
// task is left alone.
func TestNoTaskIsLeftAlone(t *testing.T) {
	p := New(Options{Workers: 3, Lanes: []Lane{{Control: true}, {}}, IdleAfter: time.Microsecond})
	defer p.Close()
	var wg sync.WaitGroup
	for i := range producers {
		wg.Go(func() {
			done := make(chan struct{})
			var task Task
			task.Bind(p, i%2, func() bool { done <- struct{}{}; return false })
			for range 3000 {
				task.Schedule()
				<-done // for ever, if it were lost: the test's time limit tells
			}
		})
	}
	wg.Wait()
}
