package mempool

import (
	"sync/atomic"
	"unsafe"
)

// Chunk is a lent block of memory. B covers the whole class size; its content
// is whatever the previous use left. Who may write to it is agreed among the
// holders; the pool does not care.
//
// All bookkeeping is in one word, so that "still the same use, and now one more
// holder" is a single compare-and-swap:
//
//	 63          33 32    31           0
//	+--------------+----+--------------+
//	| generation   |weak| references   |
//	+--------------+----+--------------+
//
// With generation and references in two words, a reader could check the
// generation, lose the processor while the chunk is recycled, and then add its
// reference to the next use.
type Chunk struct {
	trace trace // of builds with the tag leasecheck; else of no size

	B []byte

	state  atomic.Uint64
	base   *byte // of B as lent, whatever holders did to B
	pool   *Pool
	class  uint8
	mapped bool
}

// size is the class size.
func (c *Chunk) size() int { return sizeOf(int(c.class)) }

// mem is the whole block.
func (c *Chunk) mem() []byte { return unsafe.Slice(c.base, c.size()) }

const (
	refMask  = 1<<32 - 1
	weakBit  = 1 << 32
	genShift = 33
)

// lend starts a new generation with one reference. Only the pool calls it, on a
// chunk nobody holds; TryRetain of older generations may run at the same time.
func (c *Chunk) lend() {
	c.trace.begin()
	g := c.state.Load() >> genShift
	c.state.Store((g+1)<<genShift | 1)
}

// Retain adds a reference. The caller must hold one.
func (c *Chunk) Retain() {
	c.trace.note(tookRetain)
	if n := c.state.Add(1) & refMask; n <= 1 {
		panic("mempool: Retain of a chunk without holder" + c.trace.history())
	}
}

// Release drops one reference; the last one gives the memory back to the pool.
func (c *Chunk) Release() {
	c.trace.note(gaveRelease)
	v := c.state.Add(^uint64(0))
	switch n := v & refMask; n {
	case 0:
		c.pool.put(c)
	case refMask:
		panic("mempool: Release of a chunk without holder" + c.trace.history())
	}
}

// Gen returns the generation of this use, to be kept with the chunk as a weak
// reference, and marks the chunk as weakly referenced: from now on its owner
// must not write again to what it handed out (see Sole). The caller must hold a
// reference.
//
// The generation has 31 bits: a weak reference is mistaken for a later use only
// if the same chunk was lent 2^31 times in between.
func (c *Chunk) Gen() uint32 {
	v := c.state.Load()
	if LeaseCheck && v&refMask == 0 {
		panic("mempool: Gen of a chunk without holder" + c.trace.history())
	}
	if v&weakBit == 0 {
		v = c.state.Or(weakBit)
	}
	return uint32(v >> genShift)
}

// TryRetain adds a reference if the chunk is still in the use of generation gen
// and reports whether it did. It never blocks and may be called on a chunk
// nobody holds.
func (c *Chunk) TryRetain(gen uint32) bool {
	for {
		v := c.state.Load()
		if uint32(v>>genShift) != gen || v&refMask == 0 {
			return false
		}
		if c.state.CompareAndSwap(v, v+1) {
			c.trace.note(tookTryRetain)
			return true
		}
	}
}

// Sole reports that the caller's reference is the only one and no weak
// reference was taken: what lies in the chunk may be overwritten.
func (c *Chunk) Sole() bool {
	v := c.state.Load()
	if LeaseCheck && v&refMask == 0 {
		panic("mempool: Sole of a chunk without holder" + c.trace.history())
	}
	return v&(weakBit|refMask) == 1
}

// Weak reports that Gen was called in this use: Retire the chunk instead of
// releasing it.
func (c *Chunk) Weak() bool { return c.state.Load()&weakBit != 0 }

// drop returns the memory to the system. Nobody holds the chunk; weak
// references to it may live on and keep only this small header.
func (c *Chunk) drop() {
	if c.mapped {
		give(c.mem())
	}
	c.B, c.base = nil, nil
}
