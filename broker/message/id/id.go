// Package id makes identifiers: ULIDs for messages and topics, short ones for
// people to tell things apart, numeric ones for systems that want 64 bits.
//
// A ULID (github.com/ulid/spec) is 48 bits of milliseconds and 80 random bits,
// and sorts by the order in which one [Generator] made it. Whoever makes many
// has a Generator for each goroutine, which needs no lock; [New] takes one that
// belongs to the processor it runs on. Two generators meet with a probability
// of about n²/2⁸¹ for n identifiers within one millisecond. Order between
// generators is that of their clocks only.
//
// The type is that of github.com/oklog/ulid/v2, which writes and reads text:
// MarshalTextTo into the caller's buffer, ParseStrict, Timestamp.
package id

import (
	crand "crypto/rand"
	"encoding/binary"
	"io"
	"math/bits"
	"math/rand/v2"
	"sync"

	"github.com/oklog/ulid/v2"
)

// Generator makes strictly increasing ULIDs. It belongs to one goroutine at a
// time. The randomness is ChaCha8 with a seed from the operating system: not to
// be guessed from other generators' identifiers, but an identifier is no
// secret.
type Generator struct {
	clock Clock
	src   *rand.ChaCha8

	// The last identifier. ms never decreases.
	ms uint64
	hi uint16 // top 16 random bits
	lo uint64 // the other 64
}

// NewGenerator returns a Generator with fresh randomness.
func NewGenerator() *Generator { return &Generator{src: newSource(crand.Reader)} }

// newSource returns ChaCha8 with a seed from r, which is the operating system.
//
// Go ends the program if the system has no randomness, so r fails only where a
// program has put something else in the place of crypto/rand.Reader. The seed
// then is the runtime's own generator's, which is ChaCha8 too and was seeded by
// the kernel when the process began: identifiers stay unique and are no easier
// to guess.
func newSource(r io.Reader) *rand.ChaCha8 {
	var seed [32]byte
	if _, err := io.ReadFull(r, seed[:]); err != nil {
		for i := 0; i < len(seed); i += 8 {
			binary.LittleEndian.PutUint64(seed[i:], rand.Uint64())
		}
	}
	return rand.NewChaCha8(seed)
}

// New returns an identifier for now, greater than all before. While the clock
// stands or goes backwards, the last millisecond is kept. It allocates nothing.
func (g *Generator) New() ulid.ULID { return g.At(g.clock.Micros() / 1000) }

// Stamp is New with the time it was made for, in µs since the Unix epoch: a
// message needs both, and the clock is most of their cost.
func (g *Generator) Stamp() (ulid.ULID, int64) {
	us := g.clock.Micros()
	return g.At(us / 1000), us
}

// Micros is the time in µs since the Unix epoch, as Stamp takes it.
func (g *Generator) Micros() int64 { return g.clock.Micros() }

// At is New for a caller that has read the clock already. Times that a ULID
// cannot hold (before 1970, after 10889) become the nearest one that it can.
func (g *Generator) At(unixMs int64) ulid.ULID {
	now := min(uint64(max(unixMs, 0)), ulid.MaxTime())
	if now > g.ms || g.hi == 0 && g.lo == 0 { // a new millisecond, or the first of all
		g.ms = max(g.ms, now)
		g.draw()
		return g.id()
	}
	// A step below 2³², so that a neighbour is not to be guessed.
	var carry uint64
	g.lo, carry = bits.Add64(g.lo, g.src.Uint64()>>32+1, 0)
	if g.hi += uint16(carry); carry != 0 && g.hi == 0 {
		// The random part ran over its top, which 2⁴⁸ identifiers within a
		// millisecond make likely, or fewer after a start near the top: the
		// next millisecond is borrowed.
		if g.ms == ulid.MaxTime() {
			panic("id: no identifiers are left")
		}
		g.ms++
		g.draw()
	}
	return g.id()
}

// draw begins a millisecond with new random bits.
func (g *Generator) draw() { g.hi, g.lo = uint16(g.src.Uint64()), g.src.Uint64()|1 }

func (g *Generator) id() (id ulid.ULID) {
	binary.BigEndian.PutUint64(id[:], g.ms<<16|uint64(g.hi))
	binary.BigEndian.PutUint64(id[8:], g.lo)
	return id
}

// generators has one for each processor, in use by one goroutine at a time.
var generators = sync.Pool{New: func() any { return NewGenerator() }}

// New returns an identifier for now. It may be called from any goroutine: it
// takes a generator that nobody else uses at the time, as a rule the
// processor's own. So identifiers made one after the other increase only from
// one millisecond to the next; a Generator keeps its own in order.
func New() ulid.ULID {
	g := generators.Get().(*Generator)
	id := g.New()
	generators.Put(g)
	return id
}
