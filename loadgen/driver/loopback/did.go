package loopback

import (
	"sync"
	"sync/atomic"
	"time"
)

// PausesMax are remembered of a driver's pauses; Did.Paused counts them all.
const PausesMax = 1 << 16

// Pause is one wait that the target was told to make. Messages are numbered from
// 1, in the order in which they are served.
type Pause struct {
	// First is the first message that was answered with Message, for which the
	// target waited: those between waited too.
	First, Message uint64
	Took           time.Duration // as it came to be, by the target's clock
}

// Did is what a target says it did: what a generator must find.
type Did struct {
	Served                                           uint64 // messages
	Dropped, Duplicated, Reordered, Flipped, Refused uint64
	Paused                                           uint64
	Pauses                                           []Pause // the first PausesMax
}

// did counts what misbehave does. Safe for concurrent use.
type did struct {
	dropped, duplicated, reordered, flipped, refused atomic.Uint64

	mu     sync.Mutex
	paused uint64  // guarded by mu
	pauses []Pause // guarded by mu
}

func (x *did) pause(p Pause) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.paused++
	if len(x.pauses) < PausesMax {
		x.pauses = append(x.pauses, p)
	}
}

// Did returns what the driver did so far. A faultless one counts nothing.
func (d *Driver) Did() Did {
	x := &d.did
	x.mu.Lock()
	defer x.mu.Unlock()
	return Did{
		Served: d.served.Load(), Dropped: x.dropped.Load(), Duplicated: x.duplicated.Load(), Reordered: x.reordered.Load(),
		Flipped: x.flipped.Load(), Refused: x.refused.Load(), Paused: x.paused, Pauses: append([]Pause(nil), x.pauses...),
	}
}
