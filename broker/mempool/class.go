package mempool

import "math/bits"

// Sizes of chunks lie on a grid of four steps for each doubling, from 64 B:
//
//	64 80 96 112 | 128 160 192 224 | 256 ...
//
// The powers of two are the classes that every pool has. A step between them
// becomes a class while much is asked for that fits it (see demand.tune): sizes
// in use then waste at most a quarter instead of a half, while sizes asked for
// now and then share the powers of two, where they find memory to reuse.
const (
	minShift = 6  // 64 B
	maxShift = 26 // 64 MiB
	steps    = 4  // of a doubling
	classes  = (maxShift-minShift)*steps + 1

	// fineFrom is the smallest class with steps between: below, a block is
	// cheaper than the accounts.
	fineFrom = 4 << 10

	// mapShift is the smallest class taken from the system directly. Below it
	// a mapping of its own would waste part of its pages and a system call.
	mapShift = 16

	// MinBytes and MaxChunkBytes bound the size classes.
	MinBytes      = 1 << minShift
	MaxChunkBytes = 1 << maxShift
)

// sizeOf returns the size of a place on the grid.
func sizeOf(i int) int { return (steps + i%steps) << (i/steps + minShift - 2) }

// gridOf returns the smallest place that holds n bytes, -1 if there is none.
func gridOf(n int) int {
	if n <= MinBytes {
		return 0
	}
	if n > MaxChunkBytes {
		return -1
	}
	e := bits.Len(uint(n-1)) - 1 // 2^e < n <= 2^(e+1)
	step := 1 << (e - 2)
	return (e-minShift)*steps + (n-1<<e+step-1)/step
}

// wholeOf returns the power of two at or above a place.
func wholeOf(i int) int { return (i + steps - 1) / steps * steps }

// ClassBytes returns the size of the largest chunk that Get(n) lends, the power
// of two at or above n, or 0 if n is larger than MaxChunkBytes.
func ClassBytes(n int) int {
	i := gridOf(n)
	if i < 0 {
		return 0
	}
	return sizeOf(wholeOf(i))
}
