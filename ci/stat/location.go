// Package stat is the statistics of the laboratory: the location of paired
// differences, an effect over rounds with bounds at any level, sequential
// looks, the correction for many benchmarks, exact binomial bounds, and change
// points of a series. Everything is a pure function of its arguments; what is
// random takes a seed.
//
// Effects are computed in logarithms, so that twice as slow and twice as fast
// are as far from nothing. Nothing here knows what a benchmark is.
package stat

import (
	"math"
	"slices"
)

// Median of x, which is not changed; NaN for none.
func Median(x []float64) float64 {
	if len(x) == 0 {
		return math.NaN()
	}
	s := slices.Clone(x)
	return medianOf(s)
}

// medianOf reorders s.
func medianOf(s []float64) float64 {
	n := len(s)
	hi := selectKth(s, n/2)
	if n%2 == 1 {
		return hi
	}
	// What is left of the middle is not greater; the greatest of it is the
	// other middle value.
	return (slices.Max(s[:n/2]) + hi) / 2
}

// HodgesLehmann is the median of the means of all pairs of values, each value
// with itself included: nearly as efficient as the mean for normal data, and
// untouched by up to 29 % of wild values. It takes n(n+1)/2 means: 1,275 for a
// round of 50 pairs. NaN values are left out; NaN if none is left.
//
// Hodges and Lehmann, Estimates of location based on rank tests, 1963. Chosen
// over mean, median, trimmed mean and minimum by error measured on A/A rounds.
func HodgesLehmann(x []float64) float64 {
	var scratch []float64
	return hodgesLehmann(x, &scratch)
}

// hodgesLehmann keeps its memory in scratch.
func hodgesLehmann(x []float64, scratch *[]float64) float64 {
	w := (*scratch)[:0]
	for i, a := range x {
		if math.IsNaN(a) {
			continue
		}
		for _, b := range x[i:] {
			if !math.IsNaN(b) {
				w = append(w, (a+b)/2)
			}
		}
	}
	*scratch = w
	if len(w) == 0 {
		return math.NaN()
	}
	return medianOf(w)
}

// selectKth reorders s so that s[k] is what sorting would put there, with
// nothing greater before it, and returns it. Hoare's selection with the median
// of three as pivot; s holds no NaN.
func selectKth(s []float64, k int) float64 {
	lo, hi := 0, len(s)-1
	for lo < hi {
		mid := lo + (hi-lo)/2
		if s[mid] < s[lo] {
			s[mid], s[lo] = s[lo], s[mid]
		}
		if s[hi] < s[lo] {
			s[hi], s[lo] = s[lo], s[hi]
		}
		if s[hi] < s[mid] {
			s[hi], s[mid] = s[mid], s[hi]
		}
		pivot := s[mid]
		i, j := lo, hi
		for i <= j {
			for s[i] < pivot {
				i++
			}
			for pivot < s[j] {
				j--
			}
			if i <= j {
				s[i], s[j] = s[j], s[i]
				i++
				j--
			}
		}
		switch {
		case k <= j:
			hi = j
		case k >= i:
			lo = i
		default:
			return s[k]
		}
	}
	return s[k]
}

// meanAndSE returns the mean of x, its standard error and the error's degrees
// of freedom. From 20 values on it is the mean trimmed by a fifth at each end
// with the error of Tukey and McLaughlin (winsorised variance), so that a round
// which something else disturbed neither moves the effect nor widens it.
func meanAndSE(x []float64) (mean, se, df float64) {
	n := len(x)
	if n == 0 {
		return math.NaN(), math.Inf(1), 0
	}
	s := slices.Clone(x)
	slices.Sort(s)
	g := trimmed(n)
	mean = sum(s[g:n-g]) / float64(n-2*g)
	if n-2*g < 2 {
		return mean, math.Inf(1), 0
	}
	for i := range g {
		s[i], s[n-1-i] = s[g], s[n-1-g]
	}
	m := sum(s) / float64(n)
	var q float64
	for _, v := range s {
		q += (v - m) * (v - m)
	}
	sd := math.Sqrt(q / float64(n-1))
	return mean, sd / (1 - 2*float64(g)/float64(n)) / math.Sqrt(float64(n)), float64(n - 2*g - 1)
}

// trimmed is how many values are cut at each end of n.
func trimmed(n int) int {
	if n < 20 {
		return 0
	}
	return n / 5
}

func trimmedMean(x []float64) float64 {
	slices.Sort(x)
	g := trimmed(len(x))
	return sum(x[g:len(x)-g]) / float64(len(x)-2*g)
}

func sum(x []float64) float64 {
	var s float64
	for _, v := range x {
		s += v
	}
	return s
}

// StdDev is the sample's standard deviation, 0 for fewer than two values.
func StdDev(x []float64) float64 {
	if len(x) < 2 {
		return 0
	}
	m := sum(x) / float64(len(x))
	var q float64
	for _, v := range x {
		q += (v - m) * (v - m)
	}
	return math.Sqrt(q / float64(len(x)-1))
}
