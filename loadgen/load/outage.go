package load

import (
	"sync/atomic"
	"time"
)

// outage separates the latencies of messages that an outage of the broker
// touched from the others. It begins with BeginOutage. In each partition it
// lasts until, after EndOutage, a message that was due during the outage or
// later is delivered within outageOver of its intended time: the backlog is
// worked off. A message belongs to the outage if it was due before that and
// delivered after the beginning.
type outage struct {
	begin  atomic.Int64   // ns on the run's clock, 0: there was none
	up     atomic.Bool    // the broker is back
	caught []atomic.Int64 // by partition: intended time of the message that ended it, 0: not yet
	all    *recorder
}

// outageOver is what counts as on time again.
const outageOver = 50 * time.Millisecond

// took records a delivery's latency if it belongs to the outage.
func (o *outage) took(partition uint32, intended, now int64) bool {
	begin := o.begin.Load()
	if begin == 0 {
		return false
	}
	caught := o.caught[partition].Load()
	if caught == 0 && o.up.Load() && intended >= begin && now-intended < int64(outageOver) {
		caught = intended
		o.caught[partition].Store(caught)
	}
	if caught != 0 && intended >= caught {
		return false
	}
	o.all.record(now - intended)
	return true
}

// BeginOutage says that the broker is about to be stopped. There may be one
// outage a run.
func (r *Run) BeginOutage() { r.outage.begin.CompareAndSwap(0, max(1, r.clock.Now())) }

// EndOutage says that the broker serves again.
func (r *Run) EndOutage() { r.outage.up.Store(true) }

// Outage is what an outage did to latency.
type Outage struct {
	// Seconds from the beginning until the last partition had caught up; 0 if
	// one never did.
	Seconds float64   `json:"seconds"`
	Delay   Quantiles `json:"delay"` // intended to delivered, of the messages it touched
}

func (o *outage) result() *Outage {
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
	out := &Outage{Delay: quantiles(merged([]*recorder{o.all}))}
	if last > 0 {
		out.Seconds = float64(last-begin) / 1e9
	}
	return out
}
