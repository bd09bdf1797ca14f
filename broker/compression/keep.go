package compression

import "runtime"

// keep is a free list of coders. It holds at most GOMAXPROCS of them (as read
// when the program starts): more cannot work at once without waiting for a
// processor, so a coder that finds the list full is left to the garbage
// collector. A sync.Pool would be emptied every second cycle, and building a
// zstd encoder costs more than compressing a batch with it.
type keep[T any] struct {
	free chan T
	make func() T
}

func newKeep[T any](make_ func() T) *keep[T] {
	return &keep[T]{free: make(chan T, runtime.GOMAXPROCS(0)), make: make_}
}

// take returns a coder for the caller's exclusive use until give.
func (k *keep[T]) take() T {
	select {
	case x := <-k.free:
		return x
	default:
		return k.make()
	}
}

// give returns a coder, which must not refer to the caller's slices any more.
func (k *keep[T]) give(x T) {
	select {
	case k.free <- x:
	default:
	}
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
