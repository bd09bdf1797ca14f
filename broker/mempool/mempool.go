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
// What a pool owns follows the demand: see Tune. Slab holds records that are many
// and small by index; Sizer chooses how large a buffer should be.
//
// In builds with the tag leasecheck a pool knows where each reference was taken
// and given: Close reports the chunks that are still held, and a reference given
// twice, or used after it was given, panics with the places of all of them;
// slabs know their records' owners. A reference has no identity: of two holders,
// one that releases twice shows when the other one comes. Without the tag
// nothing of that exists in the program.
//
// Pool and Chunk may be used from any goroutine, the others from one at a time.
package mempool

import (
	"cmp"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Defaults of Options.
const (
	DefaultKeepBytes = 8 << 20
	DefaultMaxBytes  = 64 << 20
	DefaultFreeBytes = 4 << 20
	DefaultKeepFor   = time.Minute
)

// Options bound a pool. A zero field takes the default, a negative one means
// none at all.
type Options struct {
	// KeepBytes is how much retired memory stays readable for weak references.
	KeepBytes int
	// MaxBytes caps the sum of all chunks with a holder, kept ones included.
	MaxBytes int
	// KeepFor is how long a retired chunk is kept at most; it takes a Tune to
	// end it.
	KeepFor time.Duration
	// FreeBytes is what the pool may own beyond MaxBytes: chunks lent and free
	// ones together stay below the sum of both. How much is free within that
	// follows the demand; see Tune.
	FreeBytes int
	// Poison overwrites a chunk when it is freed, so that a reader who holds
	// no reference reads garbage and a test notices. For tests.
	Poison bool
	// Plain makes the pool reuse nothing: every Get takes memory from the Go
	// heap and leaves it to the garbage collector. The yardstick of benchmarks.
	Plain bool
	// Leaked is called by Close with a report if chunks are still held, in builds
	// with the tag leasecheck; nil panics with it. A pool whose chunks may
	// rightly outlive it gives a function that does nothing.
	Leaked func(report string)
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
	// TrimmedBytes were free and given back to the system because the demand of
	// the last Window did not need them.
	TrimmedBytes int64
	MaxBytes     int64 // cap of LiveBytes
}

// Pool lends chunks. Create it with NewPool.
type Pool struct {
	max, keep, freeMax int64 // immutable after NewPool, as the next four
	keepFor            int64 // seconds
	poison, plain      bool
	leaked             func(string)

	live atomic.Int64 // class bytes of chunks with refs > 0
	free atomic.Int64 // class bytes in the free lists

	gets, misses, refused, evicted atomic.Uint64
	trimmed                        atomic.Int64

	closed  atomic.Bool
	classes [classes]class
	fine    [classes]atomic.Bool // steps that are classes; stored by Tune
	ledger  ledger               // of builds with the tag leasecheck

	second atomic.Int64 // counted by Tune
	tuning struct {
		mu   sync.Mutex // taken before the others
		last time.Time  // guarded by mu
	}

	// Lock order: recent.mu and class.mu are never held together.
	recent struct {
		mu    sync.Mutex
		ring  []kept // FIFO: head, count
		head  int
		count int
		bytes int64
	}
}

// kept is a retired chunk and the second in which it was.
type kept struct {
	c  *Chunk
	at int64
}

// class is the free list of one size, a stack so that the memory used last,
// likely still in the cache, is lent first.
type class struct {
	mu     sync.Mutex
	free   []*Chunk // guarded by mu
	demand demand   // guarded by mu
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
	p := &Pool{
		max:     pick(o.MaxBytes, DefaultMaxBytes),
		keep:    pick(o.KeepBytes, DefaultKeepBytes),
		freeMax: pick(o.FreeBytes, DefaultFreeBytes),
		keepFor: int64(cmp.Or(o.KeepFor, DefaultKeepFor) / time.Second),
		poison:  o.Poison || LeaseCheck,
		plain:   o.Plain,
		leaked:  o.Leaked,
	}
	return p
}

// Get lends a chunk of at least n bytes with one reference, held by the caller.
// It returns nil when n exceeds MaxChunkBytes or the chunk would take the pool
// over MaxBytes even after all kept chunks were given up: the caller then waits
// (a socket is left unread) and tries again later.
func (p *Pool) Get(n int) *Chunk {
	at := gridOf(n)
	if at < 0 || p.closed.Load() {
		p.refused.Add(1)
		return nil
	}
	i := at
	if i%steps != 0 && !p.fine[i].Load() {
		i = wholeOf(i)
	}
	size := int64(sizeOf(i))
	for !p.reserve(size) {
		if !p.evictOne() {
			p.refused.Add(1)
			return nil
		}
	}
	p.gets.Add(1)
	if whole := wholeOf(at); whole != i { // the power of two counts for its steps
		k := &p.classes[whole]
		k.mu.Lock()
		k.demand.ask(at)
		k.mu.Unlock()
	}
	k := &p.classes[i]
	k.mu.Lock()
	if i%steps == 0 {
		k.demand.ask(at)
	}
	k.demand.took()
	var c *Chunk
	if last := len(k.free) - 1; last >= 0 {
		c = k.free[last]
		k.free[last] = nil
		k.free = k.free[:last]
	}
	k.mu.Unlock()
	if c != nil {
		p.free.Add(-size)
		c = c.reborn()
	} else if c = p.fresh(i); c == nil {
		k.mu.Lock()
		k.demand.lent--
		k.mu.Unlock()
		p.live.Add(-size)
		p.refused.Add(1)
		return nil
	}
	c.B = c.mem()
	c.lend()
	p.ledger.add(c)
	return c
}

// fresh takes memory for a new chunk, nil if the system has none.
func (p *Pool) fresh(i int) *Chunk {
	size := sizeOf(i)
	for p.live.Load()+p.free.Load() > p.max+p.freeMax { // free chunks of other sizes take the room
		if !p.dropHoarded(i) {
			break
		}
	}
	var mem []byte
	var mapped bool
	if p.plain {
		mem = make([]byte, size)
	} else if mem, mapped = take(size); mem == nil {
		return nil
	}
	p.misses.Add(1)
	return &Chunk{base: &mem[0], mapped: mapped, class: uint8(i), pool: p}
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
	c.trace.note(heldRetire)
	if size > p.keep || p.closed.Load() {
		c.Release()
		return
	}
	r := &p.recent
	r.mu.Lock()
	if r.count == len(r.ring) {
		grown := make([]kept, max(16, 2*len(r.ring)))
		for i := range r.count {
			grown[i] = r.ring[(r.head+i)%len(r.ring)]
		}
		r.ring, r.head = grown, 0
	}
	r.ring[(r.head+r.count)%len(r.ring)] = kept{c, p.second.Load()}
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
	c := r.ring[r.head].c
	r.ring[r.head] = kept{}
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

// dropKeptBefore gives up what was retired up to that second.
func (p *Pool) dropKeptBefore(second int64) {
	r := &p.recent
	r.mu.Lock()
	for r.count > 0 && r.ring[r.head].at <= second {
		c := p.popKept()
		r.mu.Unlock()
		c.Release()
		r.mu.Lock()
	}
	if r.count == 0 {
		r.ring, r.head = nil, 0
	}
	r.mu.Unlock()
}

// put takes back a chunk whose last reference was dropped.
func (p *Pool) put(c *Chunk) {
	size := int64(c.size())
	if p.poison {
		fill(c.mem())
	}
	c.ended()
	p.ledger.remove(c)
	p.live.Add(-size)
	keep := !p.plain
	for keep && !p.reserveFree(size) {
		// A rare huge chunk is not worth the others' places.
		keep = !p.closed.Load() && size <= (p.max+p.freeMax)/8 && p.dropHoarded(int(c.class))
	}
	k := &p.classes[c.class]
	k.mu.Lock()
	k.demand.lent--
	if keep {
		k.free = append(k.free, c)
	}
	k.mu.Unlock()
	if !keep {
		c.drop()
	} else if p.closed.Load() {
		p.clear() // Close may have passed this class before the append
	}
}

// poison is what a freed chunk is overwritten with, if it is.
const poison = 0xDB

func fill(mem []byte) {
	for i := range mem {
		mem[i] = poison
	}
}

// reserveFree adds size to the free bytes unless the pool would then own more
// than MaxBytes and FreeBytes.
func (p *Pool) reserveFree(size int64) bool {
	for {
		v := p.free.Load()
		if v+size > max(p.max+p.freeMax-p.live.Load(), 0) || p.freeMax == 0 {
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
// time until the Window has passed.
func (p *Pool) dropHoarded(want int) bool {
	most, at := 0, want
	for i := range p.classes {
		k := &p.classes[i]
		k.mu.Lock()
		n := len(k.free) * sizeOf(i)
		k.mu.Unlock()
		if n > most {
			most, at = n, i
		}
	}
	if at == want {
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
	if rest == 0 {
		k.free = nil
	}
	return oldest
}

func (p *Pool) discard(cs []*Chunk) {
	for _, c := range cs {
		p.free.Add(-int64(c.size()))
		c.drop()
	}
}

// clear gives all free chunks back to the system.
func (p *Pool) clear() {
	for i := range p.classes {
		k := &p.classes[i]
		k.mu.Lock()
		all := k.takeOldest(len(k.free))
		k.mu.Unlock()
		p.discard(all)
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
	p.clear()
	p.ledger.close(p)
}

// Stats reads the pool's figures.
func (p *Pool) Stats() Stats {
	p.recent.mu.Lock()
	kept := p.recent.bytes
	p.recent.mu.Unlock()
	return Stats{
		LiveBytes: p.live.Load(), KeptBytes: kept, FreeBytes: p.free.Load(),
		Gets: p.gets.Load(), Misses: p.misses.Load(), Refused: p.refused.Load(),
		Evicted: p.evicted.Load(), TrimmedBytes: p.trimmed.Load(), MaxBytes: p.max,
	}
}

// String is for logs.
func (s Stats) String() string {
	return fmt.Sprintf("live=%d kept=%d free=%d gets=%d misses=%d refused=%d evicted=%d trimmed=%d",
		s.LiveBytes, s.KeptBytes, s.FreeBytes, s.Gets, s.Misses, s.Refused, s.Evicted, s.TrimmedBytes)
}
