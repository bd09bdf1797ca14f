package id

import (
	"fmt"
	"sync"
	"time"
)

// Numeric is an identifier of 63 bits that sorts by time, for systems that want
// a number:
//
//	 63  62                       22 21        12 11         0
//	┌───┬───────────────────────────┬────────────┬────────────┐
//	│ 0 │ ms since 2025, 41 bits    │ node, 10   │ sequence 12│
//	└───┴───────────────────────────┴────────────┴────────────┘
//
// The milliseconds last until 2094.
type Numeric int64

const (
	sequenceBits = 12
	nodeBits     = 10
	timeBits     = 41

	// NodesMax is the number of nodes that numeric identifiers tell apart.
	NodesMax = 1 << nodeBits

	// numericEpoch is 2025-01-01 in ms since the Unix epoch.
	numericEpoch = 1735689600000
)

// Time is when n was made, in whole milliseconds.
func (n Numeric) Time() time.Time {
	return time.UnixMilli(int64(n)>>(sequenceBits+nodeBits) + numericEpoch)
}

// Node is the node that made n.
func (n Numeric) Node() int { return int(n >> sequenceBits & (NodesMax - 1)) }

// Sequence counts the identifiers of one node within a millisecond.
func (n Numeric) Sequence() int { return int(n & (1<<sequenceBits - 1)) }

// NumericGenerator makes strictly increasing numeric identifiers of one node.
// Its methods may be called from any goroutine.
//
// No step of the clock makes it repeat itself: while the clock is behind the
// last identifier, and when more than 4096 are made in a millisecond, it counts
// on from there, into time that is still to come. A clock outside of 2025 to
// 2094 is not followed at all. Only a node that begins anew
// does not know its last identifier: it has to be told (After), or to take
// another number, if the clock may have been set back between.
type NumericGenerator struct {
	node int64

	mu    sync.Mutex
	clock Clock        // guarded by mu
	last  int64        // time and sequence of the last identifier, without node; guarded by mu
	now   func() int64 // ms; nil is clock
}

// NewNumericGenerator returns a generator for a node, 0 to NodesMax-1. No two
// may have the same number at the same time.
func NewNumericGenerator(node int) (*NumericGenerator, error) {
	if node < 0 || node >= NodesMax {
		return nil, fmt.Errorf("id: node %d, want 0 to %d", node, NodesMax-1)
	}
	return &NumericGenerator{node: int64(node), last: -1}, nil
}

// After makes all later identifiers greater than n, of whatever node.
func (g *NumericGenerator) After(n Numeric) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last = max(g.last, int64(n)>>(sequenceBits+nodeBits)<<sequenceBits|(1<<sequenceBits-1))
}

// New returns an identifier for now, greater than all before.
func (g *NumericGenerator) New() Numeric {
	g.mu.Lock()
	defer g.mu.Unlock()
	ms := g.clock.Micros() / 1000
	if g.now != nil {
		ms = g.now()
	}
	// One number holds time and sequence, so counting on carries into the time.
	g.last++
	if ms -= numericEpoch; ms>>timeBits == 0 {
		g.last = max(g.last, ms<<sequenceBits)
	}
	if g.last>>(sequenceBits+timeBits) != 0 {
		panic("id: no numeric identifiers are left")
	}
	return Numeric(g.last>>sequenceBits<<(sequenceBits+nodeBits) | g.node<<sequenceBits | g.last&(1<<sequenceBits-1))
}
