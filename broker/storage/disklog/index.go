package disklog

import (
	"sort"

	"github.com/portask/portask/broker/message"
)

// The sparse index has an entry for the first batch of a segment and for each
// batch that begins indexBytes or more after the last entry. At maxEntries it
// keeps every second entry and doubles the distance, so an index never holds
// more than 96 KiB: 16 KiB apart at the end of a segment of 64 MiB.
const (
	indexBytes = 4 << 10
	maxEntries = 4096
)

// entry says where a batch is.
//
//	 0               8       12      16              24
//	┌───────────────┬───────┬───────┬───────────────┐
//	│  base offset  │ posit.│ before│  max before   │
//	│      i64      │  u32  │  u32  │    i64 µs     │
//	└───────────────┴───────┴───────┴───────────────┘
type entry struct {
	off       message.Offset
	pos       uint32
	before    uint32 // batches in the segment before this one
	maxBefore int64  // latest message timestamp of those; noTime if there are none
}

func (e *entry) put(b []byte) {
	le.PutUint64(b, uint64(e.off))
	le.PutUint32(b[8:], e.pos)
	le.PutUint32(b[12:], e.before)
	le.PutUint64(b[16:], uint64(e.maxBefore))
}

func (e *entry) parse(b []byte) {
	*e = entry{off: message.Offset(le.Uint64(b)), pos: le.Uint32(b[8:]), before: le.Uint32(b[12:]), maxBefore: int64(le.Uint64(b[16:]))}
}

// gap is a range of offsets of a segment that is lost, and where its bytes are.
type gap struct {
	from, next message.Offset // equal if there are only bytes that are no batch
	pos, len   uint32
}

func (g *gap) put(b []byte) {
	le.PutUint64(b, uint64(g.from))
	le.PutUint64(b[8:], uint64(g.next))
	le.PutUint32(b[16:], g.pos)
	le.PutUint32(b[20:], g.len)
}

func (g *gap) parse(b []byte) {
	*g = gap{from: message.Offset(le.Uint64(b)), next: message.Offset(le.Uint64(b[8:])), pos: le.Uint32(b[16:]), len: le.Uint32(b[20:])}
}

// index is a growing sparse index. Entries in the slice are not changed, so a
// copy of the slice may be read while add appends.
type index struct {
	entries []entry
	every   uint32 // bytes between entries; 0 means indexBytes
}

// add is called for every batch, in order.
func (x *index) add(e entry) {
	if n := len(x.entries); n > 0 && e.pos-x.entries[n-1].pos < max(x.every, indexBytes) {
		return
	}
	if len(x.entries) >= maxEntries {
		thin := make([]entry, 0, maxEntries)
		for i := 0; i < len(x.entries); i += 2 {
			thin = append(thin, x.entries[i])
		}
		x.entries = thin
		x.every = 2 * max(x.every, indexBytes)
	}
	x.entries = append(x.entries, e)
}

// The searches below return the last entry for which something holds; entry 0
// if it holds for none. The index must not be empty.

func lastAtOffset(x []entry, off message.Offset) int {
	return max(0, sort.Search(len(x), func(i int) bool { return x[i].off > off })-1)
}

func lastAtPos(x []entry, pos int64) int {
	return max(0, sort.Search(len(x), func(i int) bool { return int64(x[i].pos) > pos })-1)
}

// lastBeforeTime finds the interval with the first batch whose time is at or
// after us.
func lastBeforeTime(x []entry, us int64) int {
	return max(0, sort.Search(len(x), func(i int) bool { return x[i].maxBefore >= us })-1)
}
