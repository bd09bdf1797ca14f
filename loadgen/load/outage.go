package load

import (
	"sync/atomic"
	"time"
)

// outage separates the latencies of messages that an outage of the target
// touched from the others. It begins with BeginOutage. In each partition it
// lasts until, after EndOutage, a message that was due during the outage or
// later is delivered within outageOver of its intended time: the backlog is
// worked off. A message belongs to the outage if it was due before that and
// delivered after the beginning.
type outage struct {
	begin  atomic.Int64   // ns on the run's clock, 0: there was none
	up     atomic.Bool    // the target is back
	caught []atomic.Int64 // by place: intended time of the message that ended it, 0: not yet
}

// outageOver is what counts as on time again.
const outageOver = 50 * time.Millisecond

// took reports whether a delivery belongs to the outage.
func (o *outage) took(place int, intended, now int64) bool {
	begin := o.begin.Load()
	if begin == 0 {
		return false
	}
	caught := o.caught[place].Load()
	if caught == 0 && o.up.Load() && intended >= begin && now-intended < int64(outageOver) {
		caught = intended
		o.caught[place].Store(caught)
	}
	return caught == 0 || intended < caught
}

// BeginOutage says that the target is about to be stopped. There may be one
// outage a run.
func (r *Run) BeginOutage() { r.outage.begin.CompareAndSwap(0, max(1, r.clock.Now())) }

// EndOutage says that the target serves again.
func (r *Run) EndOutage() { r.outage.up.Store(true) }

// Outage is what an outage did to latency.
type Outage struct {
	// Seconds from the beginning until the last partition had caught up; 0 if
	// one never did.
	Seconds float64   `json:"seconds"`
	Delay   Quantiles `json:"delay"` // intended to delivered, of the messages it touched
}

// result is nil if there was no outage; h holds the latencies it took.
func (o *outage) result(h *Histograms) *Outage {
	begin := o.begin.Load()
	if begin == 0 {
		return nil
	}
	var last int64
	for i := range o.caught {
		c := o.caught[i].Load()
		if c == 0 {
			last = 0
			break
		}
		last = max(last, c)
	}
	out := &Outage{Delay: Summarise(h.E2E)}
	if last > 0 {
		out.Seconds = float64(last-begin) / 1e9
	}
	return out
}
