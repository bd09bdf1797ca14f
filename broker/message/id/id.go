// Package id makes identifiers for messages: ULIDs (github.com/ulid/spec), 48
// bits of milliseconds and 80 random bits, that sort by the order in which one
// [Generator] made them.
//
// Each goroutine is to have a Generator of its own: they need no lock, and two
// of them meet with a probability of about n²/2⁸¹ for n identifiers within one
// millisecond. Order between generators is that of their clocks only.
package id

import (
	crand "crypto/rand"
	"errors"
	"io"
	"math/bits"
	"math/rand/v2"
	"time"

	"github.com/oklog/ulid/v2"
)

// Generator makes strictly increasing ULIDs. It belongs to one goroutine at a
// time. The randomness is ChaCha8 with a seed from the operating system: not to
// be guessed from other generators' identifiers, but an identifier is no
// secret.
type Generator struct {
	entropy *ulid.MonotonicEntropy
	ms      uint64    // of the last identifier; never decreases
	last    ulid.ULID // here and not on the stack, since entropy's reader lets it escape
}

// NewGenerator returns a Generator with fresh randomness.
func NewGenerator() *Generator { return newGenerator(newSource()) }

// newGenerator steps from one identifier to the next within a millisecond by a
// random number below 2³², so that a neighbour is not to be guessed.
func newGenerator(r io.Reader) *Generator {
	return &Generator{entropy: ulid.Monotonic(r, 0)}
}

// New returns an identifier for now, greater than all before. While the clock
// stands or goes backwards, the last millisecond is kept. It allocates nothing.
func (g *Generator) New() ulid.ULID { return g.At(time.Now().UnixMilli()) }

// At is New for a caller that has read the clock already, which is most of
// New's cost. Times that a ULID cannot hold (before 1970, after 10889) become
// the nearest one that it can.
func (g *Generator) At(unixMs int64) ulid.ULID {
	g.ms = min(max(g.ms, uint64(max(unixMs, 0))), ulid.MaxTime())
	for {
		err := g.entropy.MonotonicRead(g.ms, g.last[6:])
		if err == nil {
			break
		}
		// The random part ran over the top, which 2⁴⁸ identifiers within a
		// millisecond make likely, or fewer after a start near the top: the
		// next millisecond is borrowed. The source itself has no errors.
		if !errors.Is(err, ulid.ErrMonotonicOverflow) || g.ms >= ulid.MaxTime() {
			panic("id: " + err.Error())
		}
		g.ms++
	}
	if err := g.last.SetTime(g.ms); err != nil {
		panic("id: " + err.Error()) // bounded above
	}
	return g.last
}

// source is what ulid.MonotonicEntropy takes: a reader, and numbers below n
// directly, which saves it a buffered read for each step.
type source struct{ *rand.ChaCha8 }

func newSource() source {
	var seed [32]byte
	crand.Read(seed[:]) // never fails: it ends the program instead
	return source{rand.NewChaCha8(seed)}
}

// Int63n returns a number in [0, n): the high word of a random one times n,
// which favours some numbers by less than n/2⁶⁴.
func (s source) Int63n(n int64) int64 {
	hi, _ := bits.Mul64(s.Uint64(), uint64(n))
	return int64(hi)
}
