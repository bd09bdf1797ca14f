// Package trend tells whether a series of measurements rises, and how fast: the
// Theil-Sen estimator for the slope, the Mann-Kendall test for whether there is
// one. Both ask only how pairs of values compare, so a few outliers, such as a
// collector's pause, neither make a trend nor hide one.
package trend

import (
	"math"
	"slices"
)

// Trend is what a series does.
type Trend struct {
	// Slope of y by x: the median of the slopes of all pairs.
	Slope float64
	// Rising is the probability that a series without trend rises as often as
	// this one; near 1 for one that falls.
	Rising float64
}

// exactMax is the length up to which Rising is exact for a series without ties.
const exactMax = 10

// Of returns the trend of the series y at the places x, which increase. It
// compares all pairs: 240 values cost 30,000 comparisons. A series of fewer
// than three values has no trend: {0, 1}.
//
// Neighbours that resemble each other make a trend more likely by chance; the
// variance is raised for that, by the factor (1+r)/(1-r) for the correlation r
// of neighbours once the slope is taken away (as of Hamed and Rao, 1998, for a
// process of the first order).
func Of(x, y []float64) Trend {
	n := len(y)
	if n < 3 || len(x) != n {
		return Trend{0, 1}
	}
	slopes := make([]float64, 0, n*(n-1)/2)
	s := 0
	ties := false
	for i := range n {
		for j := i + 1; j < n; j++ {
			switch {
			case y[j] > y[i]:
				s++
			case y[j] < y[i]:
				s--
			default:
				ties = true
			}
			if d := x[j] - x[i]; d > 0 {
				slopes = append(slopes, (y[j]-y[i])/d)
			}
		}
	}
	t := Trend{Slope: Median(slopes)}
	if n <= exactMax && !ties {
		t.Rising = exact(n, s)
		return t
	}
	v := variance(y) * spread(x, y, t.Slope)
	if v == 0 {
		t.Rising = 1
		return t
	}
	// The continuity correction: S moves in steps of two.
	z := float64(s)
	switch {
	case s > 0:
		z--
	case s < 0:
		z++
	}
	t.Rising = 0.5 * math.Erfc(z/math.Sqrt(v)/math.Sqrt2)
	return t
}

// variance of S for a series without trend, ties accounted for.
func variance(y []float64) float64 {
	n := float64(len(y))
	v := n * (n - 1) * (2*n + 5)
	sorted := slices.Sorted(slices.Values(y))
	for i := 0; i < len(sorted); {
		j := i
		for j < len(sorted) && sorted[j] == sorted[i] {
			j++
		}
		g := float64(j - i)
		v -= g * (g - 1) * (2*g + 5)
		i = j
	}
	return v / 18
}

// spread is by how much neighbours' likeness raises the variance of S, 1 to 19.
func spread(x, y []float64, slope float64) float64 {
	rest := make([]float64, len(y))
	for i := range y {
		rest[i] = y[i] - slope*x[i]
	}
	var mean, own, next, largest float64
	for i, v := range rest {
		mean += v / float64(len(rest))
		largest = max(largest, math.Abs(y[i]))
	}
	for i, v := range rest {
		own += (v - mean) * (v - mean)
		if i > 0 {
			next += (v - mean) * (rest[i-1] - mean)
		}
	}
	if noise := 1e-9 * largest; own <= float64(len(y))*noise*noise {
		return 1 // a straight line: what is left is rounding
	}
	r := min(max(next/own, 0), 0.9)
	return (1 + r) / (1 - r)
}

// exact is P(S >= s) for a random order of n values: S is n(n-1)/2 less twice
// the inversions, whose distribution is built one value at a time.
func exact(n, s int) float64 {
	pairs := n * (n - 1) / 2
	count := make([]float64, pairs+1) // by inversions, as probabilities
	count[0] = 1
	for k := 2; k <= n; k++ {
		next := make([]float64, pairs+1)
		for i, p := range count {
			if p == 0 {
				continue
			}
			for more := range k {
				if i+more <= pairs {
					next[i+more] += p / float64(k)
				}
			}
		}
		count = next
	}
	p := 0.0
	for i, c := range count {
		if pairs-2*i >= s {
			p += c
		}
	}
	return min(p, 1)
}

// Median of v, which it sorts; 0 if there is nothing.
func Median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	m := len(v) / 2
	if len(v)%2 == 1 {
		return v[m]
	}
	return (v[m-1] + v[m]) / 2
}
