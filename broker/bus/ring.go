package bus

import "sync/atomic"

// ring is a bounded queue of tasks from many goroutines to many, without a lock:
// Dmitry Vyukov's bounded MPMC queue. Each slot has a number that says whose turn
// it is. With n slots, for the k-th push (from 0), which uses slot k mod n:
//
//	seq = k      free      ── push k wins head: k → k+1 ──▶  claimed (still k)
//	claimed      the task is stored, then seq = k+1 ──────▶  full
//	seq = k+1    full      ── pop k wins tail: k → k+1 ───▶  taken (still k+1)
//	taken        the task is read, then seq = k+n ────────▶  free, for push k+n
//
// So a task is read by who won tail and after it was stored, which the race
// detector sees by seq. A goroutine that is stopped in mid-push hides what was
// pushed behind it until it goes on: pop and ready say that there is nothing, and
// who pushes looks for a worker after seq was stored, not before.
type ring struct {
	slots []slot
	mask  uint64

	_    [64]byte // each end has its cache line
	head atomic.Uint64
	_    [64]byte
	tail atomic.Uint64
	_    [64]byte
}

type slot struct {
	seq  atomic.Uint64
	task *Task
}

// ringSlots is a power of two: 8 KiB a lane. What does not fit costs a lock.
const ringSlots = 512

func (r *ring) init() {
	r.slots, r.mask = make([]slot, ringSlots), ringSlots-1
	for i := range r.slots {
		r.slots[i].seq.Store(uint64(i))
	}
}

// push reports false if the ring is full: as many tasks are in it, or being
// taken, as it has slots.
func (r *ring) push(t *Task) bool {
	for {
		k := r.head.Load()
		s := &r.slots[k&r.mask]
		switch turn := int64(s.seq.Load() - k); {
		case turn < 0:
			return false
		case turn == 0 && r.head.CompareAndSwap(k, k+1):
			s.task = t
			s.seq.Store(k + 1)
			return true
		}
	}
}

// pop returns nil if there is nothing to take.
func (r *ring) pop() *Task {
	for {
		k := r.tail.Load()
		s := &r.slots[k&r.mask]
		switch turn := int64(s.seq.Load() - (k + 1)); {
		case turn < 0:
			return nil
		case turn == 0 && r.tail.CompareAndSwap(k, k+1):
			t := s.task
			s.task = nil
			s.seq.Store(k + uint64(len(r.slots)))
			return t
		}
	}
}

// ready reports whether pop would find something.
func (r *ring) ready() bool {
	for {
		k := r.tail.Load()
		switch turn := int64(r.slots[k&r.mask].seq.Load() - (k + 1)); {
		case turn < 0:
			return false
		case turn == 0:
			return true
		}
	}
}

// len counts the tasks in the ring, those that are being pushed included.
func (r *ring) len() int {
	tail := r.tail.Load() // first: head is never behind it
	return int(r.head.Load() - tail)
}
