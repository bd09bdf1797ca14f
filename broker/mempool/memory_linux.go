//go:build linux && !race

package mempool

import "golang.org/x/sys/unix"

// OffHeap tells whether chunks of 64 KiB and more, and slabs made off the heap,
// lie outside of the memory that the garbage collector counts.
const OffHeap = true

// take gets zeroed memory. A failed mapping yields nil: the pool refuses the
// chunk as it does over its cap.
func take(n int) (mem []byte, mapped bool) {
	if n < 1<<mapShift {
		return make([]byte, n), false
	}
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, false
	}
	return b, true
}

func give(mem []byte) {
	if err := unix.Munmap(mem); err != nil {
		panic("mempool: unmap: " + err.Error())
	}
}
