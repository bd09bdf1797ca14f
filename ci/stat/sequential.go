package stat

import (
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/stat/distuv"
)

// OBrienFleming is how much of the one-sided level alpha may be spent when the
// fraction t of the planned rounds, 0 to 1, is there: nearly nothing early,
// all of it at the end. Lan and DeMets, Discrete sequential boundaries for
// clinical trials, 1983.
func OBrienFleming(alpha, t float64) float64 {
	if t <= 0 {
		return 0
	}
	if t >= 1 {
		return alpha
	}
	z := distuv.UnitNormal.Quantile(1 - alpha/2)
	return 2 * distuv.UnitNormal.Survival(z/math.Sqrt(t))
}

// PowerFamily is a spending function between O'Brien-Fleming's and a constant
// one: alpha times t to the power of rho. Kim and DeMets, Design and analysis
// of group sequential tests based on the type I error spending rate function,
// 1987.
func PowerFamily(rho float64) func(alpha, t float64) float64 {
	return func(alpha, t float64) float64 {
		return alpha * math.Pow(min(max(t, 0), 1), rho)
	}
}

// Levels are the one-sided levels at which to test at each look, which sum to
// alpha: a look gets what the spending function grants since the look before.
// The looks are treated as if their errors excluded each other (Bonferroni),
// so no joint distribution is assumed. Looks are numbers of rounds, rising;
// Levels panics otherwise.
func Levels(alpha float64, looks []int, spend func(alpha, t float64) float64) []float64 {
	if len(looks) == 0 || !slices.IsSorted(looks) || looks[0] <= 0 {
		panic(fmt.Sprintf("stat: looks %v do not rise from above 0", looks))
	}
	last := float64(looks[len(looks)-1])
	levels := make([]float64, len(looks))
	spent := 0.0
	for i, n := range looks {
		s := spend(alpha, float64(n)/last)
		levels[i] = s - spent
		spent = s
	}
	return levels
}

// Holm returns the p-values adjusted for having been looked at together: the
// k-th smallest of m times m-k+1, never less than one before it, at most 1.
// Comparing them with alpha keeps the chance of any false alarm below alpha,
// however the tests depend on each other. Holm, A simple sequentially rejective
// multiple test procedure, 1979.
func Holm(p []float64) []float64 {
	order := make([]int, len(p))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case p[a] < p[b]:
			return -1
		case p[a] > p[b]:
			return 1
		}
		return 0
	})
	out := make([]float64, len(p))
	least := 0.0
	for rank, i := range order {
		least = max(least, min(1, p[i]*float64(len(p)-rank)))
		out[i] = least
	}
	return out
}

// ClopperPearson is the exact two-sided interval at the given confidence for a
// probability of which k of n trials were successes. It panics unless
// 0 <= k <= n, 0 < n and 0 < confidence < 1. Clopper and Pearson, The use of
// confidence or fiducial limits illustrated in the case of the binomial, 1934.
func ClopperPearson(k, n int, confidence float64) (low, high float64) {
	if k < 0 || n <= 0 || k > n || confidence <= 0 || confidence >= 1 {
		panic(fmt.Sprintf("stat: %d of %d at confidence %v", k, n, confidence))
	}
	tail := (1 - confidence) / 2
	low, high = 0, 1
	if k > 0 {
		low = distuv.Beta{Alpha: float64(k), Beta: float64(n - k + 1)}.Quantile(tail)
	}
	if k < n {
		high = distuv.Beta{Alpha: float64(k + 1), Beta: float64(n - k)}.Quantile(1 - tail)
	}
	return low, high
}
