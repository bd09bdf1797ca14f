package partition

import (
	"sort"

	"github.com/portask/portask/broker/mempool"
	"github.com/portask/portask/broker/message"
)

// waiting is an ack that is owed once everything below need reached level.
type waiting struct {
	need  message.Offset
	level message.AckLevel
	c     Completion
}

// keepEntries is the capacity of queues and rings that a partition keeps
// whatever the load: some 100 KiB of each kind at most. What a burst took
// beyond is given back once it is hardly used, see roomy.
const keepEntries = 1024

// roomy returns s emptied for reuse, or nil if it is large and s used less than
// a quarter of it.
func roomy[T any](s []T) []T {
	if cap(s) > keepEntries && len(s) < cap(s)/4 {
		return nil
	}
	return s[:0]
}

// waitRing is a FIFO of waiting acks. It grows to what the producers' credit
// allows and is reused, so a warm partition allocates nothing.
type waitRing struct {
	buf  []waiting // power of two
	head int
	n    int
	peak int // largest n since the ring was last empty
}

func (r *waitRing) len() int { return r.n }

func (r *waitRing) push(w waiting) {
	if r.n == len(r.buf) {
		grown := make([]waiting, max(16, 2*len(r.buf)))
		for i := range r.n {
			grown[i] = r.buf[(r.head+i)&(len(r.buf)-1)]
		}
		r.buf, r.head = grown, 0
	}
	r.buf[(r.head+r.n)&(len(r.buf)-1)] = w
	r.n++
	r.peak = max(r.peak, r.n)
}

func (r *waitRing) front() *waiting {
	if r.n == 0 {
		return nil
	}
	return &r.buf[r.head]
}

func (r *waitRing) pop() {
	r.buf[r.head] = waiting{}
	r.head = (r.head + 1) & (len(r.buf) - 1)
	if r.n--; r.n == 0 {
		if len(r.buf) > keepEntries && r.peak < len(r.buf)/4 {
			r.buf, r.head = nil, 0
		}
		r.peak = 0
	}
}

// sift moves every ack that is due to dst, in order, and keeps the others.
func (r *waitRing) sift(dst []Completion, due func(*waiting) bool) []Completion {
	for range r.n {
		w := *r.front()
		r.pop()
		if due(&w) {
			dst = append(dst, w.c)
		} else {
			r.push(w)
		}
	}
	return dst
}

// failFrom moves the acks that need anything above from to dst, with err.
func (r *waitRing) failFrom(from message.Offset, err error, dst []Completion) []Completion {
	return r.sift(dst, func(w *waiting) bool {
		if w.need <= from {
			return false
		}
		w.c.Err = err
		return true
	})
}

const (
	tailMin = 16
	// tailMax bounds the recent batches a partition remembers: 512 x 56 B. With
	// 64 KiB batches that is more than the receive chunks stay alive for, with
	// tiny ones a reader further behind gets long runs from the file instead.
	tailMax = 512
)

// tailEntry is a weak reference to a recent batch in a receive chunk: it is
// good as long as the chunk was not recycled (mempool.Chunk.TryRetain).
type tailEntry struct {
	base, end message.Offset
	seed      message.Seed
	chunk     *mempool.Chunk
	gen       uint32
	off, n    uint32
}

// alive reports whether the chunk still holds the batch.
func (e *tailEntry) alive() bool {
	if !e.chunk.TryRetain(e.gen) {
		return false
	}
	e.chunk.Release()
	return true
}

// tailRing remembers the last batches of a partition, oldest first. It owns no
// memory but itself: whoever reads must retain the chunk and may fail to.
type tailRing struct {
	buf  []tailEntry // power of two
	head int
	n    int
}

// push adds the newest batch. The ring grows only while its oldest batch can
// still be read: so all rings together are bounded by what the pool keeps.
func (r *tailRing) push(e tailEntry) {
	if r.n == len(r.buf) {
		if r.n == tailMax || r.n >= tailMin && !r.at(0).alive() {
			r.buf[r.head] = e
			r.head = (r.head + 1) & (len(r.buf) - 1)
			return
		}
		r.resize(max(tailMin, 2*len(r.buf)))
	}
	r.buf[(r.head+r.n)&(len(r.buf)-1)] = e
	r.n++
}

func (r *tailRing) resize(n int) {
	buf := make([]tailEntry, n)
	for i := range r.n {
		buf[i] = *r.at(i)
	}
	r.buf, r.head = buf, 0
}

// shrink forgets the batches that cannot be read any more, and the room that
// they took.
func (r *tailRing) shrink() {
	for r.n > 0 && !r.at(0).alive() {
		*r.at(0) = tailEntry{}
		r.head = (r.head + 1) & (len(r.buf) - 1)
		r.n--
	}
	if r.n == 0 {
		*r = tailRing{}
	} else if n := len(r.buf) / 2; n >= tailMin && r.n <= n/2 {
		r.resize(n)
	}
}

func (r *tailRing) at(i int) *tailEntry { return &r.buf[(r.head+i)&(len(r.buf)-1)] }

// find returns the index of the batch that holds off, or -1.
func (r *tailRing) find(off message.Offset) int {
	if r.n == 0 || off < r.at(0).base || off >= r.at(r.n-1).end {
		return -1
	}
	return sort.Search(r.n, func(i int) bool { return r.at(i).end > off })
}

// Slice is one recent batch in memory. While the caller holds it (from
// ReadTail to Release) the bytes do not change.
type Slice struct {
	Base, End message.Offset
	Seed      message.Seed
	chunk     *mempool.Chunk
	gen       uint32
	off, n    uint32
}

// Bytes is the batch as stored.
func (s *Slice) Bytes() []byte { return s.chunk.B[s.off : s.off+s.n : s.off+s.n] }

// Len is the batch's length in bytes.
func (s *Slice) Len() int { return int(s.n) }

// Release gives the memory back; the Slice may be retained again as long as the
// chunk was not recycled.
func (s *Slice) Release() { s.chunk.Release() }

// Retain takes the memory again after Release and reports whether it is still
// the same.
func (s *Slice) Retain() bool { return s.chunk.TryRetain(s.gen) }

// ReadTail appends to dst the recent visible batches from the one that holds
// from, up to maxBytes (at least one) and cap(dst): the caller's capacity is
// the limit. The slices are retained. Nothing is appended when the batch is no
// longer in memory; the caller then reads the log.
//
// since is when the message at from became visible, by latency.Now; 0 if that is
// not known: nothing was appended, or it is not measured.
func (p *Partition) ReadTail(from message.Offset, maxBytes int, dst []Slice) (_ []Slice, since int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	visible := message.Offset(p.visible.Load())
	i := p.tail.find(from)
	if i < 0 {
		return dst, 0
	}
	for total := 0; i < p.tail.n && len(dst) < cap(dst); i++ {
		e := p.tail.at(i)
		if e.end > visible || (total > 0 && total+int(e.n) > maxBytes) || !e.chunk.TryRetain(e.gen) {
			break
		}
		total += int(e.n)
		dst = append(dst, Slice{Base: e.base, End: e.end, Seed: e.seed, chunk: e.chunk, gen: e.gen, off: e.off, n: e.n})
	}
	return dst, p.visibleSince(from)
}

// InTail reports whether ReadTail is likely to find the batch that holds off.
func (p *Partition) InTail(off message.Offset) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := p.tail.find(off)
	if i < 0 {
		return false
	}
	e := p.tail.at(i)
	if !e.chunk.TryRetain(e.gen) {
		return false
	}
	e.chunk.Release()
	return true
}
