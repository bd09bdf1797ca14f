package server

// slabChunk is how many records a slab takes at a time: growing never copies,
// so a hundred thousand subscriptions do not need twice their memory.
const slabChunk = 1024

// slab holds records by index. A loop owns its slabs; records without pointers
// cost the garbage collector nothing. The zero value is empty. Index 0 is never
// given out, so that 0 can mean "none".
type slab[T any] struct {
	chunks [][]T
	free   []uint32
	used   uint32
}

func (s *slab[T]) at(i uint32) *T { return &s.chunks[i/slabChunk][i%slabChunk] }

// get returns the index of a zeroed record.
func (s *slab[T]) get() uint32 {
	if n := len(s.free); n > 0 {
		i := s.free[n-1]
		s.free = s.free[:n-1]
		var zero T
		*s.at(i) = zero
		return i
	}
	if s.used == 0 {
		s.used = 1
	}
	if int(s.used/slabChunk) == len(s.chunks) {
		s.chunks = append(s.chunks, make([]T, slabChunk))
	}
	s.used++
	return s.used - 1
}

func (s *slab[T]) put(i uint32) { s.free = append(s.free, i) }

// has reports whether i was ever given out.
func (s *slab[T]) has(i uint32) bool { return i != 0 && i < s.used }

// Handles on the wire are a record's index and a few bits of its use, so that a
// late frame for a closed handle does not meet the next user of the record.
const (
	handleIndexBits = 24
	handlesMax      = 1<<handleIndexBits - 1
)

func handleOf(i uint32, use uint8) uint32 { return i | uint32(use)<<handleIndexBits }

func splitHandle(h uint32) (i uint32, use uint8) {
	return h & handlesMax, uint8(h >> handleIndexBits)
}

// live is the number of records in use.
func (s *slab[T]) live() uint64 {
	if s.used == 0 {
		return 0
	}
	return uint64(int(s.used) - 1 - len(s.free))
}
