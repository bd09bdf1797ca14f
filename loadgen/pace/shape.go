package pace

import (
	"fmt"
	"math"
	"time"
)

// Shape is a rate over time, from 0 on. Immutable.
type Shape interface {
	// Rate at time t, messages a second.
	Rate(t time.Duration) float64
	// Due is the integral of the rate over [0, t): how many messages are due.
	Due(t time.Duration) float64
	// When is the latest time, ns, up to which Due is n or less: where the rate
	// is 0, the time at which it begins again. +Inf if Due never passes n.
	When(n float64) float64
}

// Flat is a constant rate.
type Flat float64

func (f Flat) Rate(time.Duration) float64  { return float64(f) }
func (f Flat) Due(t time.Duration) float64 { return float64(f) * t.Seconds() }
func (f Flat) When(n float64) float64 {
	if f <= 0 {
		return math.Inf(1)
	}
	return n / float64(f) * 1e9
}

// Ramp goes from one rate to another in a straight line, and stays there.
type Ramp struct {
	From, To float64
	Over     time.Duration
}

func (r Ramp) slope() float64 { return (r.To - r.From) / r.Over.Seconds() }

func (r Ramp) Rate(t time.Duration) float64 {
	if t >= r.Over {
		return r.To
	}
	return r.From + r.slope()*t.Seconds()
}

func (r Ramp) Due(t time.Duration) float64 {
	s, after := min(t, r.Over).Seconds(), max(0, t-r.Over).Seconds()
	return r.From*s + r.slope()*s*s/2 + r.To*after
}

func (r Ramp) When(n float64) float64 {
	if total := r.Due(r.Over); n >= total {
		return float64(r.Over) + Flat(r.To).When(n-total)
	}
	// The root of slope/2 t² + From t - n, in the form that does not cancel.
	d := math.Sqrt(max(0, r.From*r.From+2*r.slope()*n))
	if r.From+d == 0 {
		return 0
	}
	return 2 * n / (r.From + d) * 1e9
}

// Staircase goes from one rate to another in levels of the same length, and
// stays on the last.
type Staircase struct {
	From, To float64
	Steps    int // at least 2
	Over     time.Duration
}

func (s Staircase) level(i int) float64 {
	return s.From + (s.To-s.From)*float64(min(i, s.Steps-1))/float64(s.Steps-1)
}

func (s Staircase) length() float64 { return s.Over.Seconds() / float64(s.Steps) }

func (s Staircase) Rate(t time.Duration) float64 { return s.level(int(t.Seconds() / s.length())) }

func (s Staircase) Due(t time.Duration) float64 {
	left, sum := t.Seconds(), 0.0
	for i := 0; i < s.Steps-1 && left > 0; i++ {
		part := min(left, s.length())
		sum += s.level(i) * part
		left -= part
	}
	return sum + max(0, left)*s.level(s.Steps-1)
}

func (s Staircase) When(n float64) float64 {
	at := 0.0
	for i := range s.Steps - 1 {
		m := s.level(i) * s.length()
		if n < m {
			return (at + n/s.level(i)) * 1e9
		}
		n -= m
		at += s.length()
	}
	return at*1e9 + Flat(s.level(s.Steps-1)).When(n)
}

// Bursts is one rate for some time and another, which may be 0, for some time,
// again and again.
type Bursts struct {
	Rated, Base float64
	On, Off     time.Duration
}

func (b Bursts) Rate(t time.Duration) float64 {
	if t%(b.On+b.Off) < b.On {
		return b.Rated
	}
	return b.Base
}

func (b Bursts) period() float64 { return b.Rated*b.On.Seconds() + b.Base*b.Off.Seconds() }

func (b Bursts) Due(t time.Duration) float64 {
	k, rest := t/(b.On+b.Off), t%(b.On+b.Off)
	return float64(k)*b.period() + b.Rated*min(rest, b.On).Seconds() + b.Base*max(0, rest-b.On).Seconds()
}

func (b Bursts) When(n float64) float64 {
	m := b.period()
	if m <= 0 {
		return math.Inf(1)
	}
	k := math.Floor(n / m)
	rest := n - k*m
	start := k * float64(b.On+b.Off)
	on := b.Rated * b.On.Seconds()
	switch {
	case rest < on:
		return start + rest/b.Rated*1e9
	case b.Base > 0:
		return start + float64(b.On) + (rest-on)/b.Base*1e9
	}
	return start + float64(b.On+b.Off) // rounding: it is the next burst's first
}

// Sine swings around a mean: Mean + Amplitude sin(2π t / Period), Amplitude at
// most Mean.
type Sine struct {
	Mean, Amplitude float64
	Period          time.Duration
}

func (s Sine) omega() float64 { return 2 * math.Pi / s.Period.Seconds() }

func (s Sine) Rate(t time.Duration) float64 {
	return s.Mean + s.Amplitude*math.Sin(s.omega()*(t%s.Period).Seconds())
}

func (s Sine) Due(t time.Duration) float64 {
	k, rest := t/s.Period, t%s.Period
	return float64(k)*s.Mean*s.Period.Seconds() + s.due(rest.Seconds())
}

// due is Due within the first period, of seconds.
func (s Sine) due(t float64) float64 {
	return s.Mean*t + s.Amplitude/s.omega()*(1-math.Cos(s.omega()*t))
}

// When is Newton's method within brackets: where the rate nears 0, bisection
// takes over.
func (s Sine) When(n float64) float64 {
	if s.Mean <= 0 {
		return math.Inf(1)
	}
	period := s.Period.Seconds()
	k := math.Floor(n / (s.Mean * period))
	n -= k * s.Mean * period
	lo, hi := 0.0, period
	t := min(n/s.Mean, period)
	for range 60 {
		off := s.due(t) - n
		if off > 0 {
			hi = t
		} else {
			lo = t
		}
		if math.Abs(off) < 1e-9*(1+n) || hi-lo < 1e-10 {
			break
		}
		next := t - off/(s.Mean+s.Amplitude*math.Sin(s.omega()*t))
		if !(next > lo && next < hi) {
			next = (lo + hi) / 2
		}
		t = next
	}
	return (k*period + t) * 1e9
}

// Phase is a stretch of a schedule.
type Phase struct {
	Length time.Duration
	Shape  Shape  // nil with a trace
	Trace  *Trace // instead of a shape
	Speed  float64
	// Random: the integral of the rate between messages is exponentially
	// distributed, with mean 1: arrivals of many independent senders. Otherwise
	// message k, from 0, is due when the integral passes k.
	Random bool
}

// Due is the number of messages that are due within [0, t) of the phase: for a
// random one, on average.
func (p *Phase) Due(t time.Duration) float64 {
	t = min(t, p.Length)
	if p.Trace != nil {
		return float64(p.Trace.before(int64(float64(t) * p.Speed)))
	}
	return p.Shape.Due(t)
}

func (p *Phase) validate() error {
	if p.Length <= 0 {
		return fmt.Errorf("phase of %v", p.Length)
	}
	if (p.Shape == nil) == (p.Trace == nil) {
		return fmt.Errorf("a phase needs a shape or a trace")
	}
	if p.Trace != nil && !(p.Speed > 0) {
		return fmt.Errorf("trace at speed %v", p.Speed)
	}
	return nil
}
