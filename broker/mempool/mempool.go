// Package mempool lends size-classed, reference-counted blocks of memory and
// accounts for every byte lent.
//
// A Chunk is borrowed with Pool.Get and given back with Chunk.Release by its
// last holder, or with Pool.Retire, which keeps it readable a while longer: the
// newest KeepBytes of retired chunks stay alive. That turns a server's receive
// buffers into a cache of what was received last. Whoever wants to find such
// bytes again without pinning them keeps a weak reference (the chunk, its Gen
// and a range) and asks TryRetain before reading.
//
// A chunk is never given to another use while a reference to it is held. Memory
// of recycled chunks is not cleared.
//
// Chunks of 64 KiB and more are anonymous mappings on Linux, so that they
// neither count as heap nor raise the garbage collector's goal; smaller ones and
// other systems use the heap. Race-detector builds use the heap for all, since
// the detector does not see mappings.
//
// Everything here may be called from any goroutine.
package mempool

import (
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
)

const (
	minShift = 6  // 64 B
	maxShift = 26 // 64 MiB
	classes  = maxShift - minShift + 1

	// mapShift is the smallest class taken from the system directly. Below it
	// a mapping of its own would waste part of its pages and a system call.
	mapShift = 16

	// MinBytes and MaxChunkBytes bound the size classes; each is twice the one
	// before.
	MinBytes      = 1 << minShift
	MaxChunkBytes = 1 << maxShift
)

// Defaults of Options.
const (
	DefaultKeepBytes = 8 << 20
	DefaultMaxBytes  = 64 << 20
	DefaultFreeBytes = 4 << 20
)

// Options bound a pool. A zero field takes the default, a negative one means
// none at all.
type Options struct {
	// KeepBytes is how much retired memory stays readable for weak references.
	KeepBytes int
	// MaxBytes caps the sum of all chunks with a holder, kept ones included.
	MaxBytes int
	// FreeBytes caps what lies in the free lists, beyond MaxBytes.
	FreeBytes int
	// Poison overwrites a chunk when it is freed, so that a reader who holds
	// no reference reads garbage and a test notices. For tests.
	Poison bool
}

// Stats is a snapshot; its fields are read one after another and may disagree
// by the operations in between.
type Stats struct {
	LiveBytes int64 // chunks with at least one holder, kept ones included
	KeptBytes int64 // retired, waiting to be pushed out
	FreeBytes int64 // in the free lists
	Gets      uint64
	Misses    uint64 // Gets that took new memory from the system
	Refused   uint64 // Gets answered with nil
	Evicted   uint64 // kept chunks given up early to stay below MaxBytes
}

// Pool lends chunks. Create it with NewPool.
type Pool struct {
	max, keep, freeMax int64 // immutable after NewPool
	poison             bool

	live atomic.Int64 // class bytes of chunks with refs > 0
	free atomic.Int64 // class bytes in the free lists

	gets, misses, refused, evicted atomic.Uint64

	closed  atomic.Bool
	classes [classes]class

	// Lock order: recent.mu and class.mu are never held together.
	recent struct {
		mu    sync.Mutex
		ring  []*Chunk // FIFO: head, count
		head  int
		count int
		bytes int64
	}
}

// class is the free list of one size, a stack so that the memory used last,
// likely still in the cache, is lent first.
type class struct {
	mu   sync.Mutex
	free []*Chunk
	low  int // fewest entries since the last Trim: what nobody needed
}

// NewPool returns an empty pool; it takes no memory before the first Get.
func NewPool(o Options) *Pool {
	pick := func(v, def int) int64 {
		switch {
		case v == 0:
			return int64(def)
		case v < 0:
			return 0
		}
		return int64(v)
	}
	return &Pool{
		max:     pick(o.MaxBytes, DefaultMaxBytes),
		keep:    pick(o.KeepBytes, DefaultKeepBytes),
		freeMax: pick(o.FreeBytes, DefaultFreeBytes),
		poison:  o.Poison,
	}
}

// ClassBytes returns the size of the chunk that Get(n) lends, or 0 if n is
// larger than MaxChunkBytes.
func ClassBytes(n int) int {
	i := classOf(n)
	if i < 0 {
		return 0
	}
	return 1 << (i + minShift)
}

func classOf(n int) int {
	if n <= MinBytes {
		return 0
	}
	if n > MaxChunkBytes {
		return -1
	}
	return bits.Len(uint(n-1)) - minShift
}

// Get lends a chunk of at least n bytes with one reference, held by the caller.
// It returns nil when n exceeds MaxChunkBytes or the chunk would take the pool
// over MaxBytes even after all kept chunks were given up: the caller then waits
// (a socket is left unread) and tries again later.
func (p *Pool) Get(n int) *Chunk {
	i := classOf(n)
	if i < 0 || p.closed.Load() {
		p.refused.Add(1)
		return nil
	}
	size := int64(1) << (i + minShift)
	for !p.reserve(size) {
		if !p.evictOne() {
			p.refused.Add(1)
			return nil
		}
	}
	p.gets.Add(1)
	k := &p.classes[i]
	k.mu.Lock()
	var c *Chunk
	if last := len(k.free) - 1; last >= 0 {
		c = k.free[last]
		k.free[last] = nil
		k.free = k.free[:last]
		k.low = min(k.low, last)
	}
	k.mu.Unlock()
	if c != nil {
		p.free.Add(-size)
	} else {
		mem, mapped := take(int(size))
		if mem == nil {
			p.live.Add(-size)
			p.refused.Add(1)
			return nil
		}
		p.misses.Add(1)
		c = &Chunk{base: &mem[0], mapped: mapped, class: uint8(i), pool: p}
	}
	c.B = c.mem()
	c.lend()
	return c
}

// reserve adds size to the live bytes unless that exceeds the cap.
func (p *Pool) reserve(size int64) bool {
	for {
		v := p.live.Load()
		if v+size > p.max {
			return false
		}
		if p.live.CompareAndSwap(v, v+size) {
			return true
		}
	}
}

// Retire takes over the caller's reference and drops it once KeepBytes of newer
// chunks were retired, at once if KeepBytes is 0, or earlier if Get needs room.
func (p *Pool) Retire(c *Chunk) {
	size := int64(c.size())
	if size > p.keep || p.closed.Load() {
		c.Release()
		return
	}
	r := &p.recent
	r.mu.Lock()
	if r.count == len(r.ring) {
		grown := make([]*Chunk, max(16, 2*len(r.ring)))
		for i := range r.count {
			grown[i] = r.ring[(r.head+i)%len(r.ring)]
		}
		r.ring, r.head = grown, 0
	}
	r.ring[(r.head+r.count)%len(r.ring)] = c
	r.count++
	r.bytes += size
	for r.bytes > p.keep {
		old := p.popKept()
		// Release takes a class lock, never held with this one.
		r.mu.Unlock()
		old.Release()
		r.mu.Lock()
	}
	r.mu.Unlock()
}

// popKept removes the oldest kept chunk; recent.mu is held and count > 0.
func (p *Pool) popKept() *Chunk {
	r := &p.recent
	c := r.ring[r.head]
	r.ring[r.head] = nil
	r.head = (r.head + 1) % len(r.ring)
	r.count--
	r.bytes -= int64(c.size())
	return c
}

// evictOne drops the oldest kept chunk and reports whether there was one.
func (p *Pool) evictOne() bool {
	p.recent.mu.Lock()
	if p.recent.count == 0 {
		p.recent.mu.Unlock()
		return false
	}
	c := p.popKept()
	p.recent.mu.Unlock()
	p.evicted.Add(1)
	c.Release()
	return true
}

// put takes back a chunk whose last reference was dropped.
func (p *Pool) put(c *Chunk) {
	size := int64(c.size())
	if p.poison {
		mem := c.mem()
		for i := range mem {
			mem[i] = 0xDB
		}
	}
	p.live.Add(-size)
	for !p.reserveFree(size) {
		// A rare huge chunk is not worth the others' places.
		if p.closed.Load() || size > p.freeMax/4 || !p.dropHoarded(c.class) {
			c.drop()
			return
		}
	}
	k := &p.classes[c.class]
	k.mu.Lock()
	k.free = append(k.free, c)
	k.mu.Unlock()
	if p.closed.Load() {
		p.trim(true) // Close may have passed this class before the append
	}
}

func (p *Pool) reserveFree(size int64) bool {
	for {
		v := p.free.Load()
		if v+size > p.freeMax {
			return false
		}
		if p.free.CompareAndSwap(v, v+size) {
			return true
		}
	}
}

// dropHoarded makes room in the full free lists: the class with the most free
// bytes gives up its oldest chunk. It reports false when that class is not
// another one than want. Without it a burst of one size would leave the lists
// full of that size, and the size in use would go to the system and back each
// time until the next Trims.
func (p *Pool) dropHoarded(want uint8) bool {
	most, at := 0, int(want)
	for i := range p.classes {
		k := &p.classes[i]
		k.mu.Lock()
		n := len(k.free) << (i + minShift)
		k.mu.Unlock()
		if n > most {
			most, at = n, i
		}
	}
	if at == int(want) {
		return false
	}
	k := &p.classes[at]
	k.mu.Lock()
	victims := k.takeOldest(min(1, len(k.free)))
	k.mu.Unlock()
	p.discard(victims)
	return true
}

// takeOldest removes n chunks from the bottom of the stack; mu is held.
func (k *class) takeOldest(n int) []*Chunk {
	if n == 0 {
		return nil
	}
	oldest := append([]*Chunk(nil), k.free[:n]...)
	rest := copy(k.free, k.free[n:])
	clear(k.free[rest:])
	k.free = k.free[:rest]
	k.low = min(k.low, rest)
	return oldest
}

func (p *Pool) discard(cs []*Chunk) {
	for _, c := range cs {
		p.free.Add(-int64(c.size()))
		c.drop()
	}
}

// Trim gives half of the free chunks that were not needed since the last Trim
// back to the system. Called about once a second it lets the free lists follow
// the load down: a burst's memory is gone after a few seconds, while what each
// second's traffic uses is never given up.
func (p *Pool) Trim() { p.trim(false) }

func (p *Pool) trim(all bool) {
	for i := range p.classes {
		k := &p.classes[i]
		k.mu.Lock()
		n := (k.low + 1) / 2
		if all {
			n = len(k.free)
		}
		unneeded := k.takeOldest(n)
		k.low = len(k.free)
		k.mu.Unlock()
		p.discard(unneeded)
	}
}

// DropKept gives up all retired chunks, as memory pressure or a shutdown asks.
func (p *Pool) DropKept() {
	for p.evictOne() {
	}
}

// Close gives up the kept and the free chunks. Later Gets return nil; chunks
// still held are returned to the system by their last Release.
func (p *Pool) Close() {
	p.closed.Store(true)
	p.DropKept()
	p.trim(true)
}

// Stats reads the pool's figures.
func (p *Pool) Stats() Stats {
	p.recent.mu.Lock()
	kept := p.recent.bytes
	p.recent.mu.Unlock()
	return Stats{
		LiveBytes: p.live.Load(), KeptBytes: kept, FreeBytes: p.free.Load(),
		Gets: p.gets.Load(), Misses: p.misses.Load(), Refused: p.refused.Load(),
		Evicted: p.evicted.Load(),
	}
}

// String is for logs.
func (s Stats) String() string {
	return fmt.Sprintf("live=%d kept=%d free=%d gets=%d misses=%d refused=%d evicted=%d",
		s.LiveBytes, s.KeptBytes, s.FreeBytes, s.Gets, s.Misses, s.Refused, s.Evicted)
}
