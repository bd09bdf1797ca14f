// Package pace sends at times that are fixed in advance, and measures how well
// it did.
//
// A generator that sleeps with a timer measures its timer: at 2,000 messages a
// second Go's time.Sleep dispatches half a millisecond late in the median, and
// a broker that answers in 40 us then "has" 550 us. Run therefore locks an
// operating-system thread, sleeps with clock_nanosleep and a timer slack of 1 ns,
// and spins through the last few microseconds; and because no pacer is perfect,
// it keeps a histogram of its own lateness, the dispatch lag, without which no
// latency should be believed.
package pace

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
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

// Schedule yields the intended times of successive messages, ns, never
// decreasing. Not safe for concurrent use.
type Schedule interface{ Next() int64 }

type constant struct {
	start    int64
	rate     float64
	messages float64
}

// Constant is evenly spaced, rate messages a second from start on. Times are
// computed from the count, so that no rounding accumulates.
func Constant(start int64, rate float64) Schedule { return &constant{start: start, rate: rate} }

func (c *constant) Next() int64 {
	t := c.start + int64(c.messages/c.rate*1e9)
	c.messages++
	return t
}

type poisson struct {
	at     float64
	mean   float64 // ns between messages
	random *rand.Rand
}

// Poisson has exponential gaps: arrivals of many independent senders. The same
// seed gives the same times.
func Poisson(start int64, rate float64, seed uint64) Schedule {
	return &poisson{at: float64(start), mean: 1e9 / rate, random: rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15))}
}

func (p *poisson) Next() int64 {
	t := int64(p.at)
	p.at += p.random.ExpFloat64() * p.mean
	return t
}

// Options of Run.
type Options struct {
	Clock    Clock
	Schedule Schedule
	// End is the time at which sending stops: a message due then or later is
	// not sent.
	End int64
	// MeasureFrom is the intended time from which Stats count lag: 0 for all.
	MeasureFrom int64
	// Rate is the schedule's mean rate; it decides how long Run may spin.
	Rate float64
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
}

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
	if !(o.Rate > 0) || math.IsInf(o.Rate, 0) {
		return st, fmt.Errorf("rate %v: want a positive number", o.Rate)
	}
	if o.Quantum == 0 {
		o.Quantum = 50 * time.Microsecond
	}
	now, sleep := o.now, o.sleep
	if now == nil {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		var restore func()
		sleep, restore, st.Exact = precise()
		defer restore()
		now = o.Clock.Now
	}
	gap := int64(1e9 / o.Rate)
	spin := min(int64(spinMax), gap/spinShare)
	quantum := int64(0)
	if gap < int64(o.Quantum) {
		quantum = int64(o.Quantum)
	}
	behind := false // since a send was held back, until nothing is due
	for next := o.Schedule.Next(); next < o.End; {
		if err := ctx.Err(); err != nil {
			return st, err
		}
		t := now()
		if t < next {
			behind = false
			// One sleep may end early (a signal) or late; the loop decides.
			if left := max(next, t+quantum) - t - spin; left > 0 {
				sleep(left)
			}
			for t = now(); t < next; t = now() {
				if next-t > spin {
					sleep(next - t - spin)
				}
			}
		}
		for next <= t && next < o.End {
			before := now()
			switch {
			case next < o.MeasureFrom:
			case behind:
				st.HeldBack++
				st.HeldBackMax = max(st.HeldBackMax, before-next)
			default:
				st.Lag.RecordValue(before - next)
			}
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
