package load

import (
	"context"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/portask/portask/loadgen/verify"
)

// faults tell the messages that the scenario's faults touched from the others.
// A fault begins with BeginFault. In each lane, the messages of one producer to
// one partition, it lasts until, after EndFault, a message that was due since the
// beginning is delivered on time: the producer is connected and its backlog is
// worked off. A message belongs to a fault if it was due before that and
// delivered after the beginning; of two faults, to the first that was not over.
//
// begin and end are called by one goroutine, delivered and touched by all.
type faults struct {
	onTime  int64 // ns: what counts as on time
	tracker *verify.Tracker
	any     atomic.Bool // one has begun
	all     []faultTrack
}

type faultTrack struct {
	begin, end atomic.Int64   // ns on the run's clock, 0: not yet
	caught     []atomic.Int64 // by lane: intended time of the message that ended it, 0: not yet
	behind     atomic.Int64   // lanes that have not caught up
	last       atomic.Int64   // when the last that has did
	over       atomic.Bool    // all have

	before, ended verify.Mark // stored before begin and end are
	after         verify.Mark // stored before over is
}

func (f *faults) prepare(n, lanes int, onTime time.Duration) {
	f.onTime, f.all = int64(onTime), make([]faultTrack, n)
	for i := range f.all {
		f.all[i].caught = make([]atomic.Int64, lanes)
		f.all[i].behind.Store(int64(lanes))
	}
}

// delivered reports which fault a delivery belongs to, -1 for none, and notes
// which are over by it.
func (f *faults) delivered(lane int, intended, now int64) int {
	if !f.any.Load() {
		return -1
	}
	belongs := -1
	for i := range f.all {
		x := &f.all[i]
		begin := x.begin.Load()
		if begin == 0 {
			continue
		}
		caught := x.caught[lane].Load()
		if caught == 0 && x.end.Load() != 0 && intended >= begin && now-intended < f.onTime {
			caught = intended
			x.caught[lane].Store(caught)
			for last := x.last.Load(); now > last && !x.last.CompareAndSwap(last, now); last = x.last.Load() {
			}
			if x.behind.Add(-1) == 0 {
				x.after = f.tracker.Mark()
				x.over.Store(true)
			}
		}
		if belongs < 0 && (caught == 0 || intended < caught) {
			belongs = i
		}
	}
	return belongs
}

// touched is delivered for an answer, which ends nothing.
func (f *faults) touched(lane int, intended int64) int {
	if !f.any.Load() {
		return -1
	}
	for i := range f.all {
		x := &f.all[i]
		if x.begin.Load() == 0 {
			continue
		}
		if caught := x.caught[lane].Load(); caught == 0 || intended < caught {
			return i
		}
	}
	return -1
}

// parts of the latencies: phases, and faults behind them.
func (r *Run) parts() int { return len(r.s.Phases) + len(r.s.Faults) }

// BeginFault says that fault i of the scenario is about to begin, EndFault that
// it has ended: the target is whole again, if not yet up to date. They are
// called by one goroutine.
func (r *Run) BeginFault(i int) {
	x := &r.faults.all[i]
	x.before = r.tracker.Mark()
	x.begin.Store(max(1, r.clock.Now()))
	r.faults.any.Store(true)
}

// EndFault: see BeginFault.
func (r *Run) EndFault(i int) {
	x := &r.faults.all[i]
	x.ended = r.tracker.Mark()
	x.end.Store(max(1, r.clock.Now()))
}

// Fault is what a fault of the scenario did.
type Fault struct {
	Kind string  `json:"kind"`
	At   float64 `json:"at_s"`    // when it began, since the run's first phase did
	For  float64 `json:"seconds"` // how long it lasted
	// Recovered: every partition was on time again, for every producer. Recovery is how long that
	// took from the fault's end, 0 if it was not reached.
	Recovered bool    `json:"recovered"`
	Recovery  float64 `json:"recovery_s"`

	// Latencies, from intended times, of the messages that were due or on their
	// way between its beginning and the recovery, and their fate.
	E2E Quantiles   `json:"e2e"`
	Ack Quantiles   `json:"ack"`
	Of  verify.Span `json:"counts"`
}

// String says what it did in a line.
func (f *Fault) String() string {
	recovery := "not every partition was on time again"
	if f.Recovered {
		recovery = fmt.Sprintf("%.2f s from its end until every partition was on time again", f.Recovery)
	}
	return fmt.Sprintf("%s at %.1f s for %.2f s: %s; %d messages, %d lost, %d given up, %d duplicated, %d out of order",
		f.Kind, f.At, f.For, recovery, f.Of.Messages, f.Of.Lost, f.Of.GivenUp, f.Of.Duplicated, f.Of.Reordered)
}

// faultResults is called when nothing is on its way any more.
func (r *Run) faultResults() []Fault {
	var out []Fault
	for i := range r.faults.all {
		x := &r.faults.all[i]
		begin, end := x.begin.Load(), x.end.Load()
		if begin == 0 || end == 0 {
			continue // the run was interrupted before
		}
		h := &r.totals[len(r.s.Phases)+i]
		f := Fault{
			Kind: r.s.Faults[i].Kind, At: float64(begin-r.timeline[0]) / 1e9, For: float64(end-begin) / 1e9, Recovered: x.over.Load(),
			E2E: Summarise(h.E2E), Ack: Summarise(h.Ack),
		}
		if f.Recovered {
			f.Of = r.tracker.Between(x.before, x.after, false)
		} else {
			final := r.tracker.Mark()
			f.Of = r.tracker.Between(x.before, final, true)
			f.Recovered = x.quiet(final)
		}
		if f.Recovered {
			f.Recovery = math.Max(0, float64(x.last.Load()-end)/1e9)
		}
		out = append(out, f)
	}
	return out
}

// quiet reports whether the lanes that have not caught up had nothing to catch
// up with: nothing was sent after the fault's end, and all has been delivered.
func (x *faultTrack) quiet(final verify.Mark) bool {
	for lane := range x.caught {
		if x.caught[lane].Load() == 0 && !final.Quiet(x.ended, lane) {
			return false
		}
	}
	return true
}

// lane is the index of a producer's messages to a place.
func (r *Run) lane(producer uint32, place int) int { return int(producer)*len(r.places) + place }

// gate holds consumers back. Safe for concurrent use.
type gate struct {
	held atomic.Int32 // consumers below it wait

	mu    sync.Mutex
	moved chan struct{} // closed when held changes; nil: nobody waits
}

// HoldConsumers makes the first n consumers take nothing, until it is called
// with fewer. One that waits for a batch takes that one first.
func (r *Run) HoldConsumers(n int) { r.gate.hold(n) }

func (g *gate) hold(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held.Store(int32(n))
	if g.moved != nil {
		close(g.moved)
		g.moved = nil
	}
}

// wait returns when consumer i may go on, or ctx has ended.
func (g *gate) wait(ctx context.Context, i int) {
	for int32(i) < g.held.Load() {
		g.mu.Lock()
		if int32(i) >= g.held.Load() {
			g.mu.Unlock()
			return
		}
		if g.moved == nil {
			g.moved = make(chan struct{})
		}
		moved := g.moved
		g.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			return
		}
	}
}

// meanwhileError ends a run without a result.
type meanwhileError struct{ error }

func (e meanwhileError) Unwrap() error { return e.error }

// produceAmid is produce, with Config.Meanwhile beside it.
func (r *Run) produceAmid(ctx, work context.Context) error {
	if r.cfg.Meanwhile == nil {
		return r.produce(ctx, work)
	}
	beside, cancel := context.WithCancel(ctx)
	defer cancel()
	sending, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() {
		err := r.cfg.Meanwhile(beside, r)
		if err != nil {
			stop()
		}
		done <- err
	}()
	err := r.produce(sending, work)
	cancel()
	if e := <-done; e != nil {
		return meanwhileError{e}
	}
	return err
}
