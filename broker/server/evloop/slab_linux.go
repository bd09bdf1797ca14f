package evloop

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// newRecords takes a block of records from the system: zeroed, given real
// memory page by page as it is used, and outside the heap, so that idle
// connections do not raise the collector's goal.
func newRecords() []record {
	b, err := unix.Mmap(-1, 0, slabRecords*recordBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return make([]record, slabRecords)
	}
	return unsafe.Slice((*record)(unsafe.Pointer(&b[0])), slabRecords)
}

// freeRecords gives a block back. Munmap knows which blocks are mappings; it
// refuses one that came from the heap instead, and the collector takes that.
func freeRecords(r []record) {
	unix.Munmap(unsafe.Slice((*byte)(unsafe.Pointer(&r[0])), slabRecords*recordBytes))
}
