package bus

import (
	"sync"
	"sync/atomic"
)

// Box hands values from many goroutines to one, in the order of Put. The one
// takes all of them at once, by swapping slices, so that a warm box allocates
// nothing and its lock is short and rare. The zero Box is empty and ready.
//
//	            Put: true, wake the owner       Put: false
//	┌───────┐ ────────────────────────▶ ┌──────┐ ───┐
//	│ empty │                           │ full │    │
//	└───────┘ ◀──────────────────────── └──────┘ ◀──┘
//	                    Take
//
// It has no bound of its own: each sender has been granted what it puts there.
type Box[T any] struct {
	any     atomic.Bool // items is not empty; stored under mu
	mu      sync.Mutex
	items   []T    // guarded by mu
	deepest int    // guarded by mu
	put     uint64 // guarded by mu
}

// Put appends values, which it copies, and reports whether the box was empty:
// then the caller wakes the owner, after Put. Any goroutine.
func (b *Box[T]) Put(v ...T) (first bool) {
	if len(v) == 0 {
		return false
	}
	b.mu.Lock()
	first = len(b.items) == 0
	b.items = append(b.items, v...)
	if first {
		b.any.Store(true)
	}
	b.put += uint64(len(v))
	b.deepest = max(b.deepest, len(b.items))
	b.mu.Unlock()
	return first
}

// Take empties the box and returns what was in it; the box goes on with the
// memory of last, whose values it forgets. Only the owner calls it, with what it
// took the time before. An empty box costs a load: what is being put there at
// that moment comes with a wake of its own.
func (b *Box[T]) Take(last []T) []T {
	clear(last)
	if !b.any.Load() {
		return last[:0]
	}
	b.mu.Lock()
	b.any.Store(false)
	last, b.items = b.items, last[:0]
	b.mu.Unlock()
	return last
}

// BoxStats are a box's figures.
type BoxStats struct {
	Depth   int    // values in it now
	Deepest int    // most that were in it at once
	Put     uint64 // since it was made
}

// Add sums s and those of another box. Their depths may have been at their most
// at different times.
func (s *BoxStats) Add(o BoxStats) {
	s.Depth += o.Depth
	s.Deepest += o.Deepest
	s.Put += o.Put
}

// Stats takes a snapshot; any goroutine.
func (b *Box[T]) Stats() BoxStats {
	b.mu.Lock()
	defer b.mu.Unlock()
	return BoxStats{Depth: len(b.items), Deepest: b.deepest, Put: b.put}
}
