// Package pace sends at times that are fixed in advance, and measures how well
// it did.
//
// A generator that sleeps with a timer measures its timer: at 2,000 messages a
// second Go's time.Sleep dispatches half a millisecond late in the median, and
// a broker that answers in 40 us then "has" 550 us. Run therefore locks an
// operating-system thread, sleeps with clock_nanosleep and a timer slack of 1 ns,
// spins through the last few microseconds, and takes a priority above ordinary
// threads where the process may; and because no pacer is perfect,
// it keeps a histogram of its own lateness, the dispatch lag, without which no
// latency should be believed.
package pace

import (
	"context"
	"math"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Clock counts nanoseconds since it was made, on the monotonic clock. All times
// of a run are of one Clock.
type Clock struct{ base time.Time }

// NewClock starts at 0.
func NewClock() Clock { return Clock{time.Now()} }

// Now is the time since the clock was made, ns.
func (c Clock) Now() int64 { return int64(time.Since(c.base)) }

// Options of Run.
type Options struct {
	Clock    Clock
	Schedule Schedule
	// End is the time at which sending stops, if not 0: a message due then or
	// later is not sent. A Sequence ends by itself too.
	End int64
	// Observe, if not nil, is told how late each message is handed over instead
	// of Stats. held: because an earlier one was held back by the receiver.
	Observe func(intended, late int64, held bool)
	// Congested, if not nil, is asked after a send that took more than a
	// millisecond without saying that it was held back: was it, or was it this
	// thread's own bad luck?
	Congested func() bool
	// Spun, if not nil, is kept at the time spent spinning, ns: CPU that the
	// pacer took and that is not work. It is an upper bound, since a thread may
	// be descheduled while it spins.
	Spun *atomic.Int64
	// Quantum is the shortest sleep, default 50 us. Above 1/Quantum messages a
	// second, the ones that fall due during a sleep leave together, each with
	// its own intended time: a sleep and a wake cost some 27 us of CPU.
	Quantum time.Duration

	// For tests.
	now   func() int64
	sleep func(ns int64)
}

const (
	// spinMax is what is left of a wait to be spent spinning; wake-ups are
	// rarely later than this.
	spinMax = 60 * time.Microsecond
	// suspectWait is how long a send may last before it is asked why.
	suspectWait = time.Millisecond
	// sleepMax is the longest sleep: it cannot be interrupted when ctx ends.
	sleepMax = 50 * time.Millisecond
	// spinShare bounds spinning to this part of the mean gap, and so the CPU
	// that the pacer takes from what it measures.
	spinShare = 5
)

// Stats is what a Run did.
type Stats struct {
	Sent uint64
	// Lag is how late each message was handed over, measured from its intended
	// time, in ns: the generator's own error. Messages that were late because
	// an earlier send was held back by the receiver are not in it.
	Lag *hdrhistogram.Histogram
	// HeldBack is the number of those messages, and HeldBackMax the longest
	// wait of one of them, ns.
	HeldBack    uint64
	HeldBackMax int64
	// Exact is false where the operating system has no precise sleep: then
	// latencies below 5 ms are the generator's.
	Exact bool
	// Priority is what the operating system let the pacer's thread have.
	Priority string
}

// Ordinary is the Priority of a thread like any other.
const Ordinary = "ordinary"

// NewHistogram returns an empty histogram as all of loadgen uses them: ns, three
// significant digits, up to 10 minutes.
func NewHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1000, int64(10*time.Minute), 3)
}

// Run calls send with each intended time, never before it, until the schedule
// reaches End, ctx ends or send fails. It occupies one operating-system thread
// and, while it spins, one core; give it a processor of its own
// (runtime.GOMAXPROCS) or the messages' other goroutines delay it.
//
// send may block: what is due meanwhile is sent afterwards, at once, with its
// own intended time. send says whether it was the receiver that held it back.
func Run(ctx context.Context, o Options, send func(intended int64) (held bool, err error)) (Stats, error) {
	st := Stats{Lag: NewHistogram()}
	if o.Quantum == 0 {
		o.Quantum = 50 * time.Microsecond
	}
	now, sleep := o.now, o.sleep
	if now == nil {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		var restore func()
		sleep, restore, st.Exact, st.Priority = precise()
		defer restore()
		now = o.Clock.Now
	}
	end := o.End
	if end == 0 {
		end = Never
	}
	spun := o.Spun
	if spun == nil {
		spun = new(atomic.Int64)
	}
	// check looks at the send that began at from and ended before to. A clock
	// reading is saved by taking the next one that is needed anyway.
	from := int64(math.MaxInt64)
	check := func(to int64) bool {
		long := to-from > int64(suspectWait)
		from = math.MaxInt64
		return long && o.Congested != nil && o.Congested()
	}
	behind := false // since a send was held back, until nothing is due
	for next := o.Schedule.Next(); next < end; {
		if err := ctx.Err(); err != nil {
			return st, err
		}
		t := now()
		if check(t) {
			behind = true
		}
		if t < next {
			behind = false
			gap := int64(1e9 / max(o.Schedule.Rate(), 1e-3))
			spin := min(int64(spinMax), gap/spinShare)
			quantum := int64(0)
			if gap < int64(o.Quantum) {
				quantum = int64(o.Quantum)
			}
			// One sleep may end early (a signal) or late; the loop decides.
			if left := max(next, t+quantum) - t - spin; left > 0 {
				sleep(min(left, int64(sleepMax)))
			}
			woke := now()
			for t = woke; t < next; t = now() {
				if next-t > spin {
					spun.Add(t - woke)
					if err := ctx.Err(); err != nil {
						return st, err
					}
					sleep(min(next-t-spin, int64(sleepMax)))
					woke = now()
				}
			}
			spun.Add(t - woke)
		}
		for next <= t && next < end {
			before := now()
			if check(before) {
				behind = true
			}
			switch {
			case o.Observe != nil:
				o.Observe(next, before-next, behind)
			case !behind:
				st.Lag.RecordValue(before - next)
			}
			if behind {
				st.HeldBack++
				st.HeldBackMax = max(st.HeldBackMax, before-next)
			}
			from = before
			held, err := send(next)
			if err != nil {
				return st, err
			}
			st.Sent++
			if held {
				behind = true
				if err := ctx.Err(); err != nil {
					return st, err
				}
			}
			next = o.Schedule.Next()
		}
	}
	return st, nil
}
