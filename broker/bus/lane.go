package bus

import (
	"sync"
	"sync/atomic"
)

// lane is a queue of tasks from many goroutines to the workers, in the order of
// push, as far as that is defined among several. Its tasks are in a ring. Those
// that find it full go to a list that is linked through the tasks themselves, and
// so do all that follow until the list is empty again:
//
//	        list is empty             ┌──────┐
//	push ─┬───────────────────▶ ring ─┤ pop  │
//	      │ ring is full, or          │      │
//	      └───────────────────▶ list ─┤ when the ring is empty
//	        list is not               └──────┘
//
// So push always succeeds, and it takes a lock only when more tasks wait than the
// ring has slots: then the workers are behind by hundreds of tasks, and a lock is
// the least of it.
type lane struct {
	pool *Pool
	side *side
	name string
	ring ring

	spilled atomic.Int64 // tasks in the list; stored under mu, after push and before pop
	waited  atomic.Uint64
	deepest atomic.Int64

	mu          sync.Mutex
	first, last *Task         // guarded by mu
	unspilled   atomic.Uint64 // tasks that left the list; stored under mu
}

// side is the control lanes of a pool, or the others: a bound of workers that
// they share.
type side struct {
	most    int32
	running atomic.Int32 // workers that entered
}

func (s *side) full() bool { return s.running.Load() >= s.most }

func (l *lane) push(t *Task) {
	if l.spilled.Load() == 0 && l.ring.push(t) {
		return
	}
	l.mu.Lock()
	if l.first == nil {
		l.first = t
	} else {
		l.last.next = t
	}
	l.last = t
	l.spilled.Add(1)
	l.mu.Unlock()
}

// pop returns the task that waits longest, nil if there is none.
func (l *lane) pop() *Task {
	if t := l.ring.pop(); t != nil || !l.listDue() {
		return t
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.first
	if t == nil || l.ring.len() > 0 { // another was faster
		return nil
	}
	l.first, t.next = t.next, nil
	l.spilled.Add(-1)
	l.unspilled.Add(1)
	return t
}

// listDue reports whether the list's first task is the one that waits longest.
// While somebody is about to push to the ring it is not: who that is may have
// pushed others to the list.
func (l *lane) listDue() bool { return l.spilled.Load() > 0 && l.ring.len() == 0 }

// ready reports whether tasks wait that a worker may take now.
func (l *lane) ready() bool { return !l.side.full() && (l.ring.ready() || l.listDue()) }

// take enters the lane's side and takes a task; nil, and it has not entered, if
// there is none or the side has all the workers it may have.
func (l *lane) take() *Task {
	for l.ready() {
		n := l.side.running.Load()
		if n >= l.side.most || !l.side.running.CompareAndSwap(n, n+1) {
			continue
		}
		t := l.pop()
		if t == nil {
			l.leave()
		}
		return t
	}
	return nil
}

// leave ends what take began. Whoever leaves looks at all lanes before it parks,
// since others may have passed this one by as full.
func (l *lane) leave() { l.side.running.Add(-1) }

// behind notes that a task waits because all workers are at work. Only then a
// lane gets deeper than there are workers.
func (l *lane) behind() {
	l.waited.Add(1)
	depth := l.len()
	for d := l.deepest.Load(); depth > d && !l.deepest.CompareAndSwap(d, depth); d = l.deepest.Load() {
	}
}

func (l *lane) len() int64 { return int64(l.ring.len()) + l.spilled.Load() }

// taken counts what left the lane.
func (l *lane) taken() uint64 { return l.ring.tail.Load() + l.unspilled.Load() }
