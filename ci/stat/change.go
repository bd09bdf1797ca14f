package stat

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/stat/distuv"
)

// Change is a place where a series changed its level.
type Change struct {
	// At is the first value of the new level.
	At int
	// Before and After are the means of the two segments.
	Before, After float64
	P             float64
}

// Window and change-point significance that the laboratory uses: those of
// Hunter's successor Otava.
const (
	ChangeWindow = 50
	ChangeP      = 0.001
)

// minSegment is the least number of values a level is known from.
const minSegment = 3

// Changes finds where the level of x changed: a divisive search takes the split
// with the strongest difference, in overlapping windows of window values so
// that an old great change does not hide a small new one; splits weaker than
// 10p are not taken, and then the weakest is merged away until all have Welch's
// t at p or below. Values are taken as they are: give logarithms of ratios. NaN
// is left out of means but keeps its place.
//
// Fleming, Kolaczkowski et al., Hunter: using change point detection to hunt
// for performance regressions, ICPE 2023, which replaces the permutations of
// Matteson and James' E-divisive by the t-test.
func Changes(x []float64, window int, p float64) []Change {
	if window < 4*minSegment {
		window = 4 * minSegment
	}
	found := map[int]bool{}
	step := max(window/2, 1)
	for lo := 0; ; lo += step {
		hi := min(lo+window, len(x))
		divide(x, lo, hi, 10*p, found)
		if hi == len(x) {
			break
		}
	}
	at := make([]int, 0, len(found))
	for i := range found {
		at = append(at, i)
	}
	slices.Sort(at)
	for {
		changes := judge(x, at)
		worst := -1
		for i, c := range changes {
			if c.P > p && (worst < 0 || c.P > changes[worst].P) {
				worst = i
			}
		}
		if worst < 0 {
			return changes
		}
		at = slices.Delete(at, worst, worst+1)
	}
}

// divide marks splits of x[lo:hi), strongest first, down to segments that have
// none at p.
func divide(x []float64, lo, hi int, p float64, found map[int]bool) {
	best, bestP := -1, 1.0
	for i := lo + minSegment; i+minSegment <= hi; i++ {
		if q := welch(x[lo:i], x[i:hi]); q < bestP {
			best, bestP = i, q
		}
	}
	if best < 0 || bestP > p {
		return
	}
	found[best] = true
	divide(x, lo, best, p, found)
	divide(x, best, hi, p, found)
}

func judge(x []float64, at []int) []Change {
	changes := make([]Change, len(at))
	for i, a := range at {
		lo, hi := 0, len(x)
		if i > 0 {
			lo = at[i-1]
		}
		if i+1 < len(at) {
			hi = at[i+1]
		}
		before, _, _ := moments(x[lo:a])
		after, _, _ := moments(x[a:hi])
		changes[i] = Change{At: a, Before: before, After: after, P: welch(x[lo:a], x[a:hi])}
	}
	return changes
}

// welch is the two-sided p-value of equal means without equal variances; 1
// where a side has fewer than minSegment values.
func welch(a, b []float64) float64 {
	ma, va, na := moments(a)
	mb, vb, nb := moments(b)
	if na < minSegment || nb < minSegment {
		return 1
	}
	va, vb = va/na, vb/nb
	if va+vb == 0 {
		if ma == mb {
			return 1
		}
		return 0
	}
	df := (va + vb) * (va + vb) / (va*va/(na-1) + vb*vb/(nb-1))
	return 2 * distuv.StudentsT{Sigma: 1, Nu: df}.CDF(-math.Abs(ma-mb)/math.Sqrt(va+vb))
}

// moments are mean, variance and number of the values that are none.
func moments(x []float64) (mean, variance, n float64) {
	for _, v := range x {
		if !math.IsNaN(v) {
			mean += v
			n++
		}
	}
	if n == 0 {
		return math.NaN(), 0, 0
	}
	mean /= n
	for _, v := range x {
		if !math.IsNaN(v) {
			variance += (v - mean) * (v - mean)
		}
	}
	if n > 1 {
		variance /= n - 1
	}
	return mean, variance, n
}
