package server

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
