// Package search finds the highest rate that a system sustains under an
// objective, by repeated runs.
//
// Search is a state machine without clock or I/O: it says which rate to try
// next and is told what came of it. Rates lie on a grid whose steps are the
// resolution. It goes through three stages:
//
//  1. Bracket: doubling from the first rate until one fails, or halving until
//     one passes. A failure counts when it was seen twice.
//  2. Narrow: the bracket is cut in three. A probe that is far from its limit,
//     by a factor of two, decides by itself; near the edge two rates are probed
//     three times each, in random order, so that a slow change of the machine
//     meets both alike, and the majority decides.
//  3. Confirm: the value and the rate one step above it are probed afresh, again
//     in random order: at least three passes at the value, four times as many as
//     failures, and at least three probes above, most of them failures. Where
//     that does not hold, the value moves.
//
// A probe in which the generator was the limit says nothing. When that happens
// three times at a rate, the search ends, and says so instead of a number.
package search

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// Verdict is what a probe says.
type Verdict string

// The verdicts.
const (
	Pass    Verdict = "pass"
	Fail    Verdict = "fail"
	Invalid Verdict = "invalid" // the generator was the limit
)

// Point is one probe.
type Point struct {
	Offered  float64 `json:"offered_per_s"` // asked for
	Achieved float64 `json:"achieved_per_s"`
	P50      int64   `json:"p50_ns"`
	P99      int64   `json:"p99_ns"`
	P999     int64   `json:"p99_9_ns"` // 0: too few messages for one
	// Backlog is by how many messages a second the backlog grew; BacklogRising
	// the probability of such growth by chance.
	Backlog       float64 `json:"backlog_slope_per_s"`
	BacklogRising float64 `json:"backlog_rising_p"`
	Verdict       Verdict `json:"verdict"`
	Why           string  `json:"why,omitempty"` // of a Fail or an Invalid
	// Margin is how near the probe came to the nearest limit: the measured
	// latency by the objective. 0 if it is not known.
	Margin float64 `json:"margin"`
	Stage  string  `json:"stage"` // set by the Search
	// Violations are promises that the system broke, whatever the rate.
	Violations []string `json:"violations,omitempty"`
}

// Options of a Search. Zero fields take the defaults named here.
type Options struct {
	From       float64 // first rate tried, 1000
	Min, Max   float64 // 10 and 10 million messages a second
	Resolution float64 // step between rates, 0.05
	ProbesMax  int     // 60
	Seed       uint64  // of the order of probes
}

func (o *Options) defaults() error {
	if o.From == 0 {
		o.From = 1000
	}
	if o.Min == 0 {
		o.Min = 10
	}
	if o.Max == 0 {
		o.Max = 10e6
	}
	if o.Resolution == 0 {
		o.Resolution = 0.05
	}
	if o.ProbesMax == 0 {
		o.ProbesMax = 60
	}
	switch {
	case o.Resolution < 0.005 || o.Resolution > 0.5:
		return fmt.Errorf("resolution %v: want 0.005 to 0.5", o.Resolution)
	case o.Min <= 0 || o.From < o.Min || o.Max < o.From:
		return fmt.Errorf("rates from %v, at least %v, at most %v: want them in order", o.From, o.Min, o.Max)
	case o.ProbesMax < 3 || o.ProbesMax > 10_000:
		return fmt.Errorf("%d probes: want 3 to 10000", o.ProbesMax)
	}
	return nil
}

// Outcome is how a search ended.
type Outcome string

// The outcomes.
const (
	Found     Outcome = "found"
	AtLeast   Outcome = "at_least"  // the highest rate allowed passes
	Below     Outcome = "below"     // the lowest rate allowed fails
	Generator Outcome = "generator" // it was the limit
	Unsettled Outcome = "unsettled" // the probes were used up, or the verdicts contradict each other
	Ended     Outcome = "ended"     // from outside
)

// stages.
const (
	bracketing = "bracket"
	narrowing  = "narrow"
	confirming = "confirm"
)

// invalidMax probes at one rate in which the generator was the limit end the
// search: fewer may be an accident of the machine's.
const invalidMax = 3

// tally counts verdicts at one rate.
type tally struct{ pass, fail, invalid int }

// Search is a search under way. Not safe for concurrent use.
type Search struct {
	o      Options
	random *rand.Rand
	step   float64 // log of the factor between neighbours of the grid
	top    int     // place of the highest rate allowed
	bottom int

	points []Point
	stage  string
	tried  map[int]*tally // of the stages before confirm
	fresh  map[int]*tally // of confirm

	// lo passes, hi fails, as far as is known; has says whether they are known.
	lo, hi       int
	hasLo, hasHi bool
	at           int   // bracket: the place to be tried
	queue        []int // to be probed, in this order
	pair         [2]int

	// value and above are to be confirmed.
	value, above int

	current int // place of the probe under way
	outcome Outcome
	ended   bool
	limited float64 // rate at which the generator was the limit
	reason  string
}

// New begins a search.
func New(o Options) (*Search, error) {
	if err := o.defaults(); err != nil {
		return nil, err
	}
	s := &Search{
		o: o, random: rand.New(rand.NewPCG(o.Seed, 0x736561726368)), step: math.Log1p(o.Resolution), stage: bracketing,
		tried: map[int]*tally{}, fresh: map[int]*tally{},
	}
	s.top = int(math.Floor(math.Log(o.Max/o.From)/s.step + 1e-9))
	s.bottom = -int(math.Floor(math.Log(o.From/o.Min)/s.step + 1e-9))
	return s, nil
}

// rate at a place of the grid.
func (s *Search) rate(place int) float64 { return s.o.From * math.Exp(float64(place)*s.step) }

func of(m map[int]*tally, place int) *tally {
	t := m[place]
	if t == nil {
		t = &tally{}
		m[place] = t
	}
	return t
}

// Next says which rate to try; false if the search has ended.
func (s *Search) Next() (float64, bool) {
	if s.ended {
		return 0, false
	}
	if len(s.points) >= s.o.ProbesMax {
		s.end(Unsettled, fmt.Sprintf("the %d probes were used up", s.o.ProbesMax))
		return 0, false
	}
	if !s.choose() {
		return 0, false
	}
	return s.rate(s.current), true
}

// choose sets current.
func (s *Search) choose() bool {
	if s.stage == bracketing {
		s.current = s.at
		return true
	}
	if s.stage == narrowing {
		if s.narrow(); s.stage == narrowing {
			return true
		}
	}
	return s.confirm()
}

func (s *Search) end(o Outcome, reason string) { s.ended, s.outcome, s.reason = true, o, reason }

// Stop ends the search from outside.
func (s *Search) Stop(reason string) {
	if !s.ended {
		s.end(Ended, reason)
	}
}

// Record tells what came of the probe that Next asked for.
func (s *Search) Record(p Point) {
	p.Stage = s.stage
	p.Offered = s.rate(s.current)
	s.points = append(s.points, p)
	m := s.tried
	if s.stage == confirming {
		m = s.fresh
	}
	t := of(m, s.current)
	switch p.Verdict {
	case Invalid:
		if t.invalid++; t.invalid >= invalidMax {
			s.limited = p.Offered
			s.end(Generator, p.Why)
		}
		return // it is asked for again
	case Pass:
		t.pass++
	default:
		t.fail++
	}
	switch s.stage {
	case bracketing:
		s.bracketed(p, t)
	case narrowing:
		s.narrowed(p, t)
	case confirming:
		s.queue = s.queue[1:]
	}
}

// decisive reports whether a probe was far from its limit.
func decisive(p Point) bool { return p.Margin > 0 && (p.Margin < 0.5 || p.Margin > 2) }

// bracketed moves on after a probe at s.at.
func (s *Search) bracketed(p Point, t *tally) {
	double := max(1, int(math.Round(math.Ln2/s.step)))
	switch {
	case p.Verdict == Pass && t.fail == 0, t.pass >= 2:
		s.lo, s.hasLo = s.at, true
		if s.hasHi {
			break
		}
		if s.at == s.top {
			s.beginConfirm(s.top)
			return
		}
		s.at = min(s.at+double, s.top)
		return
	case t.fail >= 2:
		s.hi, s.hasHi = s.at, true
		if s.hasLo {
			break
		}
		if s.at == s.bottom {
			s.end(Below, p.Why)
			return
		}
		s.at = max(s.at-double, s.bottom)
		return
	default:
		return // once more
	}
	s.stage = narrowing
}

// narrow chooses the next place between lo and hi, or goes on to confirm.
func (s *Search) narrow() {
	if len(s.queue) == 0 {
		if s.hi-s.lo <= 1 {
			s.beginConfirm(s.lo)
			return
		}
		s.queue = []int{(s.lo + s.hi) / 2}
		s.pair = [2]int{}
	}
	s.current = s.queue[0]
}

// narrowed moves on after a probe in the bracket.
func (s *Search) narrowed(p Point, t *tally) {
	s.queue = s.queue[1:]
	if len(s.queue) > 0 {
		return
	}
	if s.pair == [2]int{} { // a single probe, in the middle
		if decisive(p) {
			if p.Verdict == Pass {
				s.lo = s.current
			} else {
				s.hi = s.current
			}
			return
		}
		a := s.lo + max(1, (s.hi-s.lo)/3)
		b := s.hi - max(1, (s.hi-s.lo)/3)
		s.pair = [2]int{a, max(a, b)}
		s.queue = s.rounds(s.tried, s.pair[0], s.pair[1])
		if len(s.queue) > 0 {
			return
		}
	}
	passed := func(place int) bool { x := of(s.tried, place); return x.pass > x.fail }
	a, b := s.pair[0], s.pair[1]
	switch {
	case passed(a) && passed(b):
		s.lo = b
	case passed(a):
		s.lo, s.hi = a, b
	case passed(b):
		// A contradiction: noise, or a bump. The higher one is doubted; confirm
		// would walk up from the lower.
		s.lo, s.hi = max(s.lo, a-1), b
	default:
		s.hi = a
	}
	if s.hi <= s.lo {
		s.hi = s.lo + 1
	}
	s.pair = [2]int{}
}

// rounds are the probes that places still need to three each, interleaved: in
// each round every place once, in random order.
func (s *Search) rounds(m map[int]*tally, places ...int) []int {
	var out []int
	for round := range 3 {
		var these []int
		for i, p := range places {
			if i > 0 && p == places[0] {
				continue
			}
			if t := of(m, p); t.pass+t.fail+round < 3 {
				these = append(these, p)
			}
		}
		s.random.Shuffle(len(these), func(i, j int) { these[i], these[j] = these[j], these[i] })
		out = append(out, these...)
	}
	return out
}

func (s *Search) beginConfirm(value int) {
	s.stage, s.queue = confirming, nil
	s.value, s.above = value, value+1
}

// freshMax probes at a place that are neither confirmed nor refuted: its
// verdicts are mixed.
const freshMax = 7

func (t *tally) confirmed() bool { return t.pass >= 3 && t.pass >= 4*t.fail }
func (t *tally) refuted() bool   { return t.pass+t.fail >= 3 && t.fail > t.pass }
func (t *tally) mixed() bool {
	return t.pass+t.fail >= freshMax && !t.confirmed() && !t.refuted()
}
func (t *tally) open() bool { return !t.confirmed() && !t.refuted() && !t.mixed() }

// confirm chooses the next probe of value and above; false at the end.
func (s *Search) confirm() bool {
	for {
		if len(s.queue) > 0 {
			s.current = s.queue[0]
			return true
		}
		v, a := of(s.fresh, s.value), of(s.fresh, s.above)
		high := s.above > s.top // nothing above is allowed
		switch {
		case v.pass+v.fail < 3 || !high && a.pass+a.fail < 3:
			if high {
				s.queue = s.rounds(s.fresh, s.value)
			} else {
				s.queue = s.rounds(s.fresh, s.value, s.above)
			}
		case v.open():
			s.queue = []int{s.value}
		case !v.confirmed(): // refuted, or mixed
			if s.value == s.bottom {
				s.end(Below, "the lowest rate allowed does not pass reliably")
				return false
			}
			if v.refuted() {
				s.above = s.value
			}
			s.value--
		case high:
			s.end(AtLeast, "")
			return false
		case a.confirmed():
			s.value, s.above = s.above, s.above+1
		case a.open():
			s.queue = []int{s.above}
		case a.mixed():
			s.above++
		default:
			s.end(Found, "")
			return false
		}
	}
}

// Probe tries a rate. An error ends the search.
type Probe func(ctx context.Context, rate float64) (Point, error)

// Run searches to the end. progress, if not nil, is told each point. The error
// is the probe's; if it is the context's, the result says that it was stopped.
func Run(ctx context.Context, o Options, probe Probe, progress func(Point)) (*Result, error) {
	s, err := New(o)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	for {
		rate, ok := s.Next()
		if !ok {
			break
		}
		p, err := probe(ctx, rate)
		if ctx.Err() != nil {
			s.Stop("interrupted")
			break
		}
		if err != nil {
			return nil, err
		}
		s.Record(p)
		if progress != nil {
			progress(s.points[len(s.points)-1])
		}
	}
	res := s.Result()
	res.Seconds = time.Since(began).Seconds()
	return res, nil
}
