package slo

import (
	"fmt"
	"math"
	"slices"

	"github.com/portask/portask/ci/verdict"
)

// Confidence of the interval by which objectives are judged.
const Confidence = 0.95

// Interval is the median of samples and the interval in which the median of the
// measurement lies with at least Confidence, by order statistics: no
// distribution is assumed, and one turn that a neighbour spoilt moves neither.
// It is unbounded below 6 samples, which are too few to say anything with 95 %.
// Of no samples, all three are NaN.
//
// benchmath's interval of the same kind is not used: it is the shortest one, at
// five samples open on one side only, and a bound could be missed by its rule
// with samples that are too few for ours.
func Interval(samples []float64) (median, low, high float64) {
	n := len(samples)
	if n == 0 {
		return math.NaN(), math.NaN(), math.NaN()
	}
	x := slices.Sorted(slices.Values(samples))
	median = (x[(n-1)/2] + x[n/2]) / 2
	// The k-th from either end leaves out the median with the probability that
	// fewer than k of n fair coins show heads, for each end.
	k := 0
	for tail, term := 0.0, math.Pow(0.5, float64(n)); k <= n/2; k++ {
		if tail += term; 2*tail > 1-Confidence {
			break
		}
		term *= float64(n-k) / float64(k+1)
	}
	if k == 0 {
		return median, math.Inf(-1), math.Inf(1)
	}
	return median, x[k-1], x[n-k]
}

// Sample is what one turn told of an objective: a ratio to its kernel, or a
// plain figure.
type Sample struct {
	Value float64 `json:"value"`
	// Worst: the true figure may be better than Value, as where a late generator
	// adds its own delay to a latency, or where other programs took processors
	// that the measured ones wanted. Such a sample can show that a bound is kept,
	// and never that it is missed.
	Worst bool `json:"worst,omitempty"`
}

// Figures are samples of plain values.
func Figures(values []float64) []Sample {
	out := make([]Sample, len(values))
	for i, v := range values {
		out[i] = Sample{Value: v}
	}
	return out
}

// Judge holds the samples of one objective, one for each turn, against its
// bound. exact says that they are counts without noise: then the worst sample
// is the value, and one is enough.
//
//	PASS          the whole interval keeps the bound
//	FAIL          the whole interval misses it
//	INCONCLUSIVE  it lies across, or there are too few samples for one
//
// Samples that are not finite were not measured and do not count.
func (f *File) Judge(o *Objective, samples []Sample, exact bool) verdict.Objective {
	v := verdict.Objective{
		Name: o.Name, Unit: o.Unit, Kernel: o.Kernel, Upper: o.Upper(), Bound: o.Limit(), Target: o.Target, Source: o.Set,
	}
	scale := f.Scale(o)
	var values, best []float64 // as told, and as good as they may be
	late := 0
	for _, s := range samples {
		if math.IsNaN(s.Value) || math.IsInf(s.Value, 0) {
			continue
		}
		values = append(values, s.Value*scale)
		switch {
		case !s.Worst:
			best = append(best, s.Value*scale)
		case o.Upper():
			best = append(best, 0)
			late++
		default:
			best = append(best, math.MaxFloat64)
			late++
		}
	}
	v.Turns = len(values)
	if len(values) == 0 {
		v.Decision, v.Reason = verdict.Inconclusive, "not measured in any turn"
		return v
	}
	var keeps, misses bool
	if exact {
		v.Value = slices.Max(values)
		if !o.Upper() {
			v.Value = slices.Min(values)
		}
		v.Low, v.High = v.Value, v.Value
		keeps, misses = o.Keeps(v.Value), !o.Keeps(v.Value)
	} else {
		v.Value, v.Low, v.High = Interval(values)
		keeps = o.Keeps(v.Low) && o.Keeps(v.High)
		_, low, high := Interval(best)
		misses = !o.Keeps(low) && !o.Keeps(high)
		// JSON has no infinity; the extremes are what is known.
		if math.IsInf(v.Low, 0) || math.IsInf(v.High, 0) {
			v.Low, v.High = slices.Min(values), slices.Max(values)
		}
	}
	v.Met = o.Meets(v.Value)
	switch {
	case keeps:
		v.Decision = verdict.Pass
	case misses:
		v.Decision = verdict.Fail
		v.Reason = fmt.Sprintf("%s, want %s", Figure(v), bound(v, v.Bound))
	default:
		v.Decision = verdict.Inconclusive
		v.Reason = fmt.Sprintf("%s in %d turns does not settle: %s", Figure(v), v.Turns, bound(v, v.Bound))
	}
	if late > 0 {
		note := fmt.Sprintf("in %d of %d turns others had the processors or the generator was late: such a turn cannot show a bound missed", late, v.Turns)
		if v.Reason != "" {
			note = v.Reason + "; " + note
		}
		v.Reason = note
	}
	return v
}
