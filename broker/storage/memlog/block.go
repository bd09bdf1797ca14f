package memlog

import (
	"math"
	"sort"

	"github.com/portask/portask/broker/mempool"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/storage"
)

// markBytes is the distance of entries in a block's index: reads walk over at
// most this much, under 1 µs, and the index takes under 1 % of what it covers.
const markBytes = 4096

// block is a segment: whole batches back to back. What is published of it never
// changes until its memory is given back.
type block struct {
	chunk     *mempool.Chunk
	base, end message.Offset
	used      int   // bytes
	batches   int   // in them
	maxTime   int64 // latest message, µs
	lastTime  int64 // append time of the last batch, µs
	marks     []mark

	snapshot    []byte // producer state below base
	hasSnapshot bool
}

// mark is an entry of the index.
type mark struct {
	base    message.Offset // of a batch
	pos     int            // of its first byte
	batches int            // before it in the block
	maxTime int64          // latest message before it in the block
}

// trusted holds what was validated before it was appended; the limits may have
// changed since.
var trusted = message.Limits{
	BatchBytes: math.MaxInt32, MessageBytes: math.MaxInt32, KeyBytes: math.MaxInt32,
	Headers: math.MaxInt32, HeaderBytes: math.MaxInt32, Messages: math.MaxInt32,
	DecompressedBytes: math.MaxInt32, DecompressedRatio: math.MaxInt32,
}

// envelope reads the batch at pos.
func (b *block) envelope(pos int) message.Envelope {
	e, err := message.ParseEnvelope(b.chunk.B[pos:b.used], &trusted)
	if err != nil {
		panic("memlog: a batch that was appended is none: " + err.Error())
	}
	return e
}

// put copies a batch behind the last one. It must fit.
func (b *block) put(in *storage.Batch) {
	if n := len(b.marks); n == 0 || b.used-b.marks[n-1].pos >= markBytes {
		m := mark{base: in.Base, pos: b.used, batches: b.batches, maxTime: b.maxTime}
		if n == 0 {
			m.maxTime = math.MinInt64
		}
		b.marks = append(b.marks, m)
	}
	copy(b.chunk.B[b.used:], in.Bytes)
	b.used += len(in.Bytes)
	if b.batches == 0 || in.MaxTime > b.maxTime {
		b.maxTime = in.MaxTime
	}
	b.lastTime = in.Time
	b.batches++
	b.end = in.End
}

// read returns the run of whole batches from the one that contains from, or b's
// first, to the last that ends at or before below and fits into maxBytes; with
// first the first batch comes however large it is. Offset below is beyond from.
func (b *block) read(from, below message.Offset, maxBytes int, first bool) storage.Run {
	at := b.seek(func(m *mark) bool { return m.base > from })
	var e message.Envelope
	for {
		e = b.envelope(at.pos)
		if e.EndOffset() > from {
			break
		}
		at.pos += e.Bytes()
		at.batches++
	}
	if e.EndOffset() > below || !first && e.Bytes() > maxBytes {
		return storage.Run{}
	}
	r := storage.Run{First: e.BaseOffset}
	stop := cursor{pos: b.used, batches: b.batches}
	r.End = b.end
	limit := at.pos + max(maxBytes, e.Bytes())
	if b.used > limit || b.end > below {
		// Walk from the last mark that is surely inside, but behind the batch
		// that comes in any case.
		stop = cursor{pos: at.pos + e.Bytes(), batches: at.batches + 1}
		r.End = e.EndOffset()
		if c := b.seek(func(m *mark) bool { return m.pos > limit || m.base > below }); c.pos > stop.pos {
			stop, r.End = c.cursor, c.base
		}
		for stop.pos < b.used {
			e := b.envelope(stop.pos)
			if stop.pos+e.Bytes() > limit || e.EndOffset() > below {
				break
			}
			stop.pos += e.Bytes()
			stop.batches++
			r.End = e.EndOffset()
		}
	}
	r.Mem = b.chunk.B[at.pos:stop.pos:stop.pos]
	r.Len = len(r.Mem)
	r.Batches = stop.batches - at.batches
	return r
}

// cursor is a place between batches.
type cursor struct {
	pos, batches int
}

// place is a cursor with the offset of the batch there.
type place struct {
	cursor
	base message.Offset
}

// seek returns the place of the last mark before the first one that is after,
// or of the first batch.
func (b *block) seek(after func(m *mark) bool) place {
	i := sort.Search(len(b.marks), func(i int) bool { return after(&b.marks[i]) })
	m := &b.marks[max(0, i-1)]
	return place{cursor: cursor{pos: m.pos, batches: m.batches}, base: m.base}
}

// offsetForTime returns the base offset of the first batch with a message at or
// after us. There is one.
func (b *block) offsetForTime(us int64) message.Offset {
	pos := b.seek(func(m *mark) bool { return m.maxTime >= us }).pos
	for {
		e := b.envelope(pos)
		if e.MaxTimestamp() >= us || pos+e.Bytes() >= b.used {
			return e.BaseOffset
		}
		pos += e.Bytes()
	}
}
