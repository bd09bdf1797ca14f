package mempool

import (
	"reflect"
	"unsafe"
)

// Slab holds records of one type by index, in blocks that never move: growing
// copies nothing, so that a hundred thousand records do not need twice their
// memory for a moment, and a *T stays valid until its record is put.
//
// Index 0 is never given out: it can mean "none". A slab belongs to one
// goroutine at a time. The zero value is empty and on the heap; NewSlabOffHeap
// makes one whose blocks the garbage collector does not count.
//
// A record of a power of two bytes never straddles two cache lines more than it
// must. What a stale index means is the user's affair: records that are found by
// names from outside carry a generation or a use count.
type Slab[T any] struct {
	blocks [][]T
	meta   []blockMeta // by block
	free   []uint32    // a stack: the ones used last stay dense and warm
	top    uint32      // indices from 1 to below it were given out at least once
	off    bool        // blocks are mappings where possible
	trace  slabTrace
}

type blockMeta struct {
	taken  uint16 // records in use
	mapped bool   // else it came from the heap
}

// SlabRecords is how many records a slab takes at a time.
const (
	slabShift   = 10
	SlabRecords = 1 << slabShift
)

// NewSlabOffHeap returns an empty slab whose blocks are mappings where the
// system has them: they get real memory page by page, as records are used. It
// panics if T has pointers, which the garbage collector would not see there.
func NewSlabOffHeap[T any]() Slab[T] {
	if t := reflect.TypeFor[T](); hasPointers(t) {
		panic("mempool: " + t.String() + " has pointers and cannot lie outside of the heap")
	}
	return Slab[T]{off: true}
}

func hasPointers(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Array:
		return t.Len() > 0 && hasPointers(t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			if hasPointers(t.Field(i).Type) {
				return true
			}
		}
		return false
	}
	return t.Kind() > reflect.Complex128 // all kinds behind the numbers have some
}

// Take returns a zeroed record and its index.
func (s *Slab[T]) Take() (uint32, *T) {
	var i uint32
	if n := len(s.free); n > 0 {
		i = s.free[n-1]
		s.free = s.free[:n-1]
	} else {
		i = max(s.top, 1)
		if int(i>>slabShift) == len(s.blocks) {
			b, mapped := s.block()
			s.blocks = append(s.blocks, b)
			s.meta = append(s.meta, blockMeta{mapped: mapped})
		}
		s.top = i + 1
	}
	s.meta[i>>slabShift].taken++
	s.trace.take(i)
	r := s.Slot(i)
	var zero T
	*r = zero
	return i, r
}

// Put frees a record; its pointer and index are dead.
func (s *Slab[T]) Put(i uint32) {
	s.trace.put(i)
	s.meta[i>>slabShift].taken--
	s.free = append(s.free, i)
}

// At returns a record that is taken.
func (s *Slab[T]) At(i uint32) *T {
	s.trace.use(i)
	return &s.blocks[i>>slabShift][i&(SlabRecords-1)]
}

// Slot returns the record of an index from 1 to below Top, taken or not: what
// its last user left is in it.
func (s *Slab[T]) Slot(i uint32) *T { return &s.blocks[i>>slabShift][i&(SlabRecords-1)] }

// Has reports whether Slot may be called with i.
func (s *Slab[T]) Has(i uint32) bool { return i != 0 && i < s.top }

// Top is above all indices given out so far, 0 or 1 if there are none.
func (s *Slab[T]) Top() uint32 { return s.top }

// Live is the number of records in use.
func (s *Slab[T]) Live() int { return max(int(s.top), 1) - 1 - len(s.free) }

// SlabStats are the figures of slabs.
type SlabStats struct {
	Live  int   // records in use
	Bytes int64 // of all blocks
}

// Stats returns the slab's figures.
func (s *Slab[T]) Stats() SlabStats {
	return SlabStats{s.Live(), int64(len(s.blocks)) * s.blockBytes()}
}

// Shrink gives back the blocks at the end without records in use, all of them if
// there are none. It costs a look at every free record if it gives anything, and
// nothing else. Indices that were valid before, of free records, may not be
// afterwards: see Has.
func (s *Slab[T]) Shrink() {
	n := len(s.blocks)
	for n > 0 && s.meta[n-1].taken == 0 {
		n--
	}
	if n == len(s.blocks) {
		return
	}
	s.giveBack(n)
	if n == 0 {
		s.blocks, s.meta, s.free, s.top = nil, nil, nil, 0
	} else {
		s.top = min(s.top, uint32(n)<<slabShift)
		var rest []uint32
		for _, i := range s.free {
			if i < s.top {
				rest = append(rest, i)
			}
		}
		s.free = rest
	}
	s.trace.drop(s.top)
}

// Drop gives back everything, records in use included.
func (s *Slab[T]) Drop() {
	s.giveBack(0)
	*s = Slab[T]{off: s.off}
}

func (s *Slab[T]) blockBytes() int64 {
	var t T
	return int64(unsafe.Sizeof(t)) * SlabRecords
}

// block takes memory for SlabRecords records. Where no mapping can be had they
// come from the heap.
func (s *Slab[T]) block() (records []T, mapped bool) {
	if n := int(s.blockBytes()); s.off && n >= 1<<mapShift {
		if mem, mapped := take(n); mapped {
			return unsafe.Slice((*T)(unsafe.Pointer(&mem[0])), SlabRecords), true
		}
	}
	return make([]T, SlabRecords), false
}

// giveBack ends the blocks from n on.
func (s *Slab[T]) giveBack(n int) {
	for i := n; i < len(s.blocks); i++ {
		if s.meta[i].mapped {
			give(unsafe.Slice((*byte)(unsafe.Pointer(&s.blocks[i][0])), int(s.blockBytes())))
		}
	}
	clear(s.blocks[n:])
	s.blocks, s.meta = s.blocks[:n], s.meta[:n]
}
