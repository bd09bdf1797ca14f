package gate

import (
	"fmt"
	"math"

	"github.com/portask/portask/ci/sample"
	"github.com/portask/portask/ci/stat"
	"github.com/portask/portask/ci/verdict"
)

// conclude fills the verdict and returns the series.
func (r *run) conclude() []sample.Series {
	var all []sample.Series
	var env environment
	for _, s := range r.subjects {
		if s.active() {
			if len(s.series.Rounds) == 0 {
				s.skipped = fmt.Sprintf("left out: the budget of %.0f s was used up", r.o.Rules.BudgetSeconds)
			} else {
				s.judge.stop(fmt.Sprintf("the budget of %.0f s was used up", r.o.Rules.BudgetSeconds))
			}
		}
		e := r.entry(s)
		if s.Control {
			r.verdict.Controls = append(r.verdict.Controls, e)
		} else {
			r.verdict.Entries = append(r.verdict.Entries, e)
		}
		if len(s.series.Rounds) == 0 {
			continue
		}
		series := r.src.Series(s.index)
		series.Rounds = s.series.Rounds
		all = append(all, series)
		for _, round := range series.Rounds {
			env.add(round)
		}
		if !s.Control && s.failed == nil {
			r.verdict.Counters = append(r.verdict.Counters, r.counters(s, &series)...)
		}
	}
	r.verdict.Environment, r.verdict.Rounds, r.verdict.Disturbed = env.mean()
	return all
}

func (r *run) entry(s *subject) verdict.Entry {
	j := s.judge
	e := verdict.Entry{
		Bench: s.Bench, Metric: s.Metric.String(), Decision: j.decision, Reason: j.reason,
		Identical: s.Identical, New: s.New, Changed: s.Changed, Dots: j.dots,
		MinEffect: math.Expm1(limitsOf(r.o.Rules, metricOf(s.Metric, j.decidedBy), j.decidedBy).least),
		Effect:    estimateOf(j.decided),
	}
	switch {
	case s.failed != nil:
		e.Decision, e.Reason = verdict.Invalid, s.failed.Error()
		return e
	case s.skipped != "":
		e.Decision, e.Reason = verdict.Skipped, s.skipped
		return e
	}
	latest := screening
	for _, p := range []phase{screening, confirming} {
		if j.looked[p] {
			latest = p
		}
	}
	est := func(p phase, as role) *verdict.Estimate {
		if !j.looked[p] {
			return nil
		}
		e := estimateOf(j.estimate[p][as])
		return &e
	}
	e.Screen, e.Confirm, e.Other = est(screening, j.decidedBy), est(confirming, j.decidedBy), est(latest, roles-1-j.decidedBy)
	if j.decidedBy == other {
		e.Metric = metricOf(s.Metric, other).String()
	}
	if s.Changed {
		e.Reason += "; the benchmark's own source differs"
	}
	medians(&e, s.series.Rounds, metricOf(s.Metric, j.decidedBy))
	if n := r.o.Open[s.Bench.String()]; e.Decision == verdict.Inconclusive && !s.Control {
		e.Commits = n + 1
		if e.Commits >= openMax {
			e.Decision = verdict.Fail
			e.Reason = fmt.Sprintf("inconclusive for %d commits running: %s", e.Commits, e.Reason)
		}
	}
	if e.Decision == verdict.Fail && !s.Control {
		e.Waived = r.waive(s.Bench.String(), e.Effect.Effect)
	}
	return e
}

// medians fills what an operation took and allocated.
func medians(e *verdict.Entry, rounds []sample.Round, m sample.Metric) {
	var ns, allocs, bytes [2][]float64
	for _, r := range rounds {
		for _, p := range r.Pairs {
			for side, s := range [2]sample.Slice{p.Base, p.Head} {
				if s.N <= 0 {
					continue
				}
				t := s.CPUNs
				if m == sample.Wall {
					t = s.Ns
				}
				ns[side] = append(ns[side], float64(t)/float64(s.N))
				allocs[side] = append(allocs[side], float64(s.Allocs)/float64(s.N))
				bytes[side] = append(bytes[side], float64(s.Bytes)/float64(s.N))
			}
		}
	}
	if len(ns[0]) == 0 {
		return
	}
	e.BaseNs, e.HeadNs = stat.Median(ns[0]), stat.Median(ns[1])
	e.AllocsBase, e.AllocsHead = stat.Median(allocs[0]), stat.Median(allocs[1])
	e.BytesBase, e.BytesHead = stat.Median(bytes[0]), stat.Median(bytes[1])
}

// Limits of the counters that come from the slices.
const (
	allocsLimit = 0.005
	bytesLimit  = 0.01
	// Less than this an operation is the machine's: a pool emptied by the
	// collector now and then.
	allocsLeast = 0.05
	bytesLeast  = 8
)

// counters are allocations and bytes per operation, which noise does not touch:
// a round's value is the median over its slices, and an increase counts only if
// every round of the head is above every round of the base.
func (r *run) counters(s *subject, series *sample.Series) []verdict.Counter {
	name := s.Bench.String()
	return []verdict.Counter{
		r.counter(name, "allocs/op", series, func(s sample.Slice) float64 { return float64(s.Allocs) }, allocsLimit, allocsLeast),
		r.counter(name, "B/op", series, func(s sample.Slice) float64 { return float64(s.Bytes) }, bytesLimit, bytesLeast),
	}
}

func (r *run) counter(bench, unit string, series *sample.Series, of func(sample.Slice) float64, limit, least float64) verdict.Counter {
	var values [2][]float64
	for _, round := range series.Rounds {
		var side [2][]float64
		for _, p := range round.Pairs {
			for i, s := range [2]sample.Slice{p.Base, p.Head} {
				if s.N > 0 {
					side[i] = append(side[i], of(s)/float64(s.N))
				}
			}
		}
		for i := range side {
			if len(side[i]) > 0 {
				values[i] = append(values[i], stat.Median(side[i]))
			}
		}
	}
	c := verdict.Counter{Name: unit + " " + bench, Unit: unit, Limit: limit, Decision: verdict.Skipped}
	if len(values[0]) < 2 || len(values[1]) < 2 {
		c.Reason = "fewer than two rounds"
		return c
	}
	c.Base, c.Head = stat.Median(values[0]), stat.Median(values[1])
	c.Decision = verdict.Pass
	highest, lowest := values[0][0], values[1][0]
	for i := range values[0] {
		highest = max(highest, values[0][i])
	}
	for i := range values[1] {
		lowest = min(lowest, values[1][i])
	}
	if lowest > highest*(1+limit) && lowest-highest >= least {
		c.Decision = verdict.Fail
		c.Reason = fmt.Sprintf("%.4g, was %.4g, in each of %d rounds", c.Head, c.Base, len(values[1]))
		worse := math.Inf(1)
		if c.Base > 0 {
			worse = c.Head/c.Base - 1
		}
		c.Waived = r.waive(bench, worse)
	}
	return c
}

// waive returns the waiver that covers an effect, marked as used.
func (r *run) waive(name string, effect float64) *verdict.Waiver {
	return Waive(r.verdict.Waivers, name, effect)
}

// environment sums up rounds.
type environment struct {
	sum       sample.Environment
	rounds    int
	disturbed int
}

func (e *environment) add(r sample.Round) {
	e.rounds++
	if r.Interference != "" {
		e.disturbed++
	}
	s, v := &e.sum, r.Env
	s.Seconds += v.Seconds
	s.BusyShare += v.BusyShare
	s.StealShare += v.StealShare
	s.Load1 += v.Load1
	s.AvailableB += v.AvailableB
	s.DiskBytesS += v.DiskBytesS
	s.NetBytesS += v.NetBytesS
	s.CPUPressure += v.CPUPressure
	s.ThrottledS += v.ThrottledS
	s.BaseRSS += v.BaseRSS
	s.HeadRSS += v.HeadRSS
	s.ContextSwitches += v.ContextSwitches
}

func (e *environment) mean() (sample.Environment, int, int) {
	if e.rounds == 0 {
		return sample.Environment{}, 0, 0
	}
	n := float64(e.rounds)
	s := e.sum
	s.BusyShare /= n
	s.StealShare /= n
	s.Load1 /= n
	s.DiskBytesS /= n
	s.NetBytesS /= n
	s.CPUPressure /= n
	s.AvailableB /= int64(e.rounds)
	s.BaseRSS /= int64(e.rounds)
	s.HeadRSS /= int64(e.rounds)
	return s, e.rounds, e.disturbed
}
