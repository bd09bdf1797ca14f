// Package gate decides whether a candidate is slower than its base. It asks a
// [Source] for rounds, one after the other, until every benchmark is settled or
// the budget is used up, and fills a verdict.
//
// Each benchmark goes through two stages. The *screen* looks after a few rounds:
// an upper bound below the equivalence limit passes it, a lower bound above
// nothing with a suspicious effect sends it on, and what is neither gets one
// top-up. The *confirmation* forgets the screen, measures fresh rounds, and
// fails the benchmark only if the effect is significant, at a level spent over
// the looks and shared with the other candidates, and beyond the minimum effect.
// Choosing what to confirm and confirming it with the same data would find
// something slower in every run.
//
// Controls are the same program on both sides. They go through the same stages
// in both directions; a confirmed control makes the run invalid.
//
// Which metric decides is the benchmark's. The other one fails it only from a
// much greater effect on, so that a sleep, which costs no CPU, is found, and a
// busy machine is not.
//
// Nothing here runs a process or reads a file; the clock is an option.
package gate

import (
	"math"
	"slices"

	"github.com/portask/portask/ci/sample"
	"github.com/portask/portask/ci/stat"
	"github.com/portask/portask/ci/verdict"
)

// DefaultRules are the laboratory's. Where they differ from a textbook, the
// reason was measured; see docs/laboratory.md.
//
// The screen's first look at 5 rounds settles a quiet benchmark in two thirds
// of the time of 8. MinEffectCPU is twice the error that a process brings with
// it.
func DefaultRules() verdict.Rules {
	return verdict.Rules{
		MinEffectCPU:   0.02,
		MinEffectWall:  0.03,
		MinEffectOther: 0.10,
		Equivalence:    0.03,
		Suspicious:     0.01,
		ScreenAlpha:    0.02,
		ConfirmAlpha:   0.005,
		ScreenLooks:    []int{5, 8},
		ConfirmLooks:   []int{8, 16, 24},
		TopUpRounds:    24,
		BudgetSeconds:  300,
	}
}

// spend is how the confirmation's level is spent over its looks: a fifteenth at a
// sixth of the rounds. O'Brien and Fleming's function leaves next to nothing
// there, which Student's t with 7 degrees of freedom hardly ever reaches.
var spend = stat.PowerFamily(1.5)

// usablePairs is the least number of pairs that make a round count; one with
// fewer is measured again, and kept in the data.
const usablePairs = 8

// repeatShare is the part of a benchmark's rounds that may be repeated for want
// of pairs before it counts as open, because of the machine.
const repeatShare = 0.5

// role of a metric in a benchmark.
type role int

const (
	judged role = iota // the benchmark's metric
	other
	roles
)

// metricOf a role.
func metricOf(m sample.Metric, r role) sample.Metric {
	if r == judged {
		return m
	}
	return sample.CPU + sample.Wall - m
}

// limits are the effects of a metric in its role, as logarithms.
type limits struct{ suspicious, least, equivalent float64 }

func limitsOf(r verdict.Rules, m sample.Metric, as role) limits {
	least, suspicious := r.MinEffectCPU, r.Suspicious
	if m == sample.Wall {
		least = r.MinEffectWall
	}
	if as == other {
		least = r.MinEffectOther
		suspicious = r.MinEffectOther
	}
	// Equivalence is stated for CPU and stays in proportion.
	equivalent := least
	if r.MinEffectCPU > 0 {
		equivalent *= r.Equivalence / r.MinEffectCPU
	}
	return limits{math.Log1p(suspicious), math.Log1p(least), math.Log1p(equivalent)}
}

// topUpStep is after how many rounds of its top-up the screen looks again. It
// tests nothing, so it may look as often as it likes.
const topUpStep = 4

// screenLooks are after how many rounds the screen looks. A benchmark that was
// open in so many gates running before gets as many top-ups more.
func screenLooks(r verdict.Rules, open int) []int {
	looks := slices.Clone(r.ScreenLooks)
	end := looks[len(looks)-1] + r.TopUpRounds*(1+open)
	for n := looks[len(looks)-1] + topUpStep; n < end; n += topUpStep {
		looks = append(looks, n)
	}
	return append(looks, end)
}

// confirmLooks are after how many fresh rounds the confirmation looks; the last
// is that of the top-up.
func confirmLooks(r verdict.Rules, open int) []int {
	return append(slices.Clone(r.ConfirmLooks), r.ConfirmLooks[len(r.ConfirmLooks)-1]+r.TopUpRounds*(1+open))
}
