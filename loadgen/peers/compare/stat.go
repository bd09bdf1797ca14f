package compare

import (
	"maps"
	"math"
	"slices"
)

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// median of values, which are not changed; NaN of none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	v := slices.Sorted(slices.Values(values))
	n := len(v)
	if n%2 == 1 {
		return v[n/2]
	}
	return (v[n/2-1] + v[n/2]) / 2
}

// Interval is an estimate with the interval around it.
type Interval struct {
	Estimate float64 `json:"estimate"`
	Low      float64 `json:"low"`
	High     float64 `json:"high"`
	// Confidence that [Low, High] holds the true value; 0 with one pair, which
	// has no interval.
	Confidence float64 `json:"confidence"`
	Pairs      int     `json:"pairs"`
}

// wanted is the confidence that is aimed at. Fewer than six pairs cannot give
// it.
const wanted = 0.95

// ratio estimates how many times base the paired values are: the Hodges-Lehmann
// estimate of the logarithms' ratios, and the interval that belongs to Wilcoxon's
// signed-rank test (Hollander and Wolfe, Nonparametric Statistical Methods, 3.3).
// It assumes that pairs are independent of each other, and nothing of how noise
// is distributed but that it is as often in one's favour as in the other's.
// Values must be above 0; ok is false without any.
func ratio(values, base []float64) (r Interval, ok bool) {
	var logs []float64
	for i := range min(len(values), len(base)) {
		if values[i] > 0 && base[i] > 0 {
			logs = append(logs, math.Log(values[i]/base[i]))
		}
	}
	n := len(logs)
	if n == 0 {
		return Interval{}, false
	}
	var walsh []float64 // means of all pairs of logs, each with itself too
	for i := range logs {
		for j := i; j < n; j++ {
			walsh = append(walsh, (logs[i]+logs[j])/2)
		}
	}
	slices.Sort(walsh)
	k, confidence := rank(n)
	return Interval{
		Estimate: math.Exp(median(walsh)), Low: math.Exp(walsh[k]), High: math.Exp(walsh[len(walsh)-1-k]), Confidence: confidence, Pairs: n,
	}, true
}

// rank returns how many of the Walsh averages lie below an interval, and as many
// above, for the confidence that is wanted, or the highest there is.
func rank(n int) (k int, confidence float64) {
	if n == 1 {
		return 0, 0
	}
	// counts[s] are the ways to choose ranks 1..n with sum s.
	counts := make([]float64, n*(n+1)/2+1)
	counts[0] = 1
	for r := 1; r <= n; r++ {
		for s := len(counts) - 1; s >= r; s-- {
			counts[s] += counts[s-r]
		}
	}
	all := math.Pow(2, float64(n))
	below := counts[0] / all // P(T <= k)
	confidence = 1 - 2*below
	for k+1 < len(counts)/2 {
		below += counts[k+1] / all
		if 1-2*below < wanted {
			break
		}
		k++
		confidence = 1 - 2*below
	}
	return k, confidence
}
