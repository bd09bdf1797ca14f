package compression

import (
	"runtime"
	"sync"
)

// keep is a free list of coders. It holds at most GOMAXPROCS of them (as read
// when it is made): more cannot work at once without waiting for a processor, so a
// coder that finds the list full is left to the garbage collector. A sync.Pool
// would be emptied every second cycle, and building a zstd encoder costs more
// than compressing a batch with it.
//
// Nothing is made before the first take: neither a coder nor the list.
type keep[T any] struct {
	make func() T
	most int

	mu   sync.Mutex
	free []T // guarded by mu
}

func newKeep[T any](make_ func() T) *keep[T] {
	return &keep[T]{make: make_, most: runtime.GOMAXPROCS(0)}
}

// take returns a coder for the caller's exclusive use until give.
func (k *keep[T]) take() T {
	k.mu.Lock()
	if n := len(k.free); n > 0 {
		x := k.free[n-1] // the last one used, whose tables may still be in a cache
		var none T
		k.free[n-1] = none
		k.free = k.free[:n-1]
		k.mu.Unlock()
		return x
	}
	k.mu.Unlock()
	return k.make()
}

// give returns a coder, which must not refer to the caller's slices any more.
func (k *keep[T]) give(x T) {
	k.mu.Lock()
	if len(k.free) < k.most {
		k.free = append(k.free, x)
	}
	k.mu.Unlock()
}

// perLevel builds one free list for each level.
func perLevel[T any](make_ func(Level) T) (ks [levels]*keep[T]) {
	for l := range ks {
		ks[l] = newKeep(func() T { return make_(Level(l)) })
	}
	return ks
}

// appender is an io.Writer that appends to b.
type appender struct{ b []byte }

func (w *appender) Write(p []byte) (int, error) {
	w.b = append(w.b, p...)
	return len(p), nil
}
