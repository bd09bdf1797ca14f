package gate

import (
	"fmt"
	"math"

	"github.com/portask/portask/ci/sample"
	"github.com/portask/portask/ci/stat"
	"github.com/portask/portask/ci/verdict"
)

// phase of a benchmark.
type phase int

const (
	screening phase = iota
	confirming
	settled
)

// judge is the state machine of one benchmark: rounds in, a decision out. Not
// safe for concurrent use.
type judge struct {
	rules   verdict.Rules
	metric  sample.Metric
	control bool
	seed    uint64
	// open is in how many gates running it was inconclusive.
	open int

	phase    phase
	decision verdict.Decision
	reason   string
	// decided is the estimate that decided and the limits it was held against.
	decided   stat.Effect
	decidedBy role
	mirrored  bool
	// why it is confirmed.
	flags [roles]bool

	rounds   [2][roles][]*stat.Round // by phase
	repeated int
	estimate [2][roles]stat.Effect // at the last look, by phase
	looked   [2]bool
	dots     []verdict.Dot
}

// stage says what the next round is for.
func (j *judge) stage() sample.Stage {
	n := len(j.rounds[j.phase][judged])
	planned := j.rules.ScreenLooks
	if j.phase == confirming {
		planned = j.rules.ConfirmLooks
	}
	switch {
	case n >= planned[len(planned)-1]:
		return sample.TopUp
	case j.phase == confirming:
		return sample.Confirm
	default:
		return sample.Screen
	}
}

func (j *judge) looks() []int {
	if j.phase == confirming {
		return confirmLooks(j.rules, j.open)
	}
	return screenLooks(j.rules, j.open)
}

// untilLook is how many rounds are missing at the next look.
func (j *judge) untilLook() int {
	n := len(j.rounds[j.phase][judged])
	for _, l := range j.looks() {
		if l > n {
			return l - n
		}
	}
	return 0
}

// add takes a round of the present stage. family is among how many candidates
// the confirmation's level is shared, this one included.
func (j *judge) add(r sample.Round, family int) {
	var logs [roles][]float64
	for _, as := range []role{judged, other} {
		m := metricOf(j.metric, as)
		logs[as] = make([]float64, len(r.Pairs))
		for i, p := range r.Pairs {
			logs[as][i] = p.LogRatio(m)
		}
	}
	var made [roles]*stat.Round
	for as := range made {
		made[as] = stat.NewRound(logs[as], j.seed+uint64(r.Index)*2+uint64(as), r.Seeds[sample.Base], r.Seeds[sample.Head])
	}
	usable := made[judged].Pairs() >= usablePairs
	dot := verdict.Dot{
		Round: r.Index, Stage: r.Stage, Pairs: made[judged].Pairs(), Dropped: r.Dropped, Interference: r.Interference,
	}
	if v := made[judged].Value(); !math.IsNaN(v) {
		dot.Effect = math.Expm1(v)
	}
	j.dots = append(j.dots, dot)
	if !usable {
		j.repeated++
		if n := len(j.dots); n >= 8 && float64(j.repeated) > repeatShare*float64(n) {
			j.settle(verdict.Inconclusive, fmt.Sprintf("%d of %d rounds had fewer than %d pairs that were not disturbed", j.repeated, n, usablePairs), judged, false)
		}
		return
	}
	for as := range made {
		j.rounds[j.phase][as] = append(j.rounds[j.phase][as], made[as])
	}
	n := len(j.rounds[j.phase][judged])
	for i, look := range j.looks() {
		if look == n {
			j.look(i, family)
			return
		}
	}
}

// look decides after the i-th planned number of rounds.
func (j *judge) look(i, family int) {
	j.measure()
	last := i == len(j.looks())-1
	if j.phase == screening {
		j.lookScreen(last)
	} else {
		j.lookConfirm(i, family, last)
	}
}

// measure computes the estimates of the present phase.
func (j *judge) measure() {
	for as := range j.rounds[j.phase] {
		j.estimate[j.phase][as] = stat.NewEffect(j.rounds[j.phase][as], j.seed)
	}
	j.looked[j.phase] = true
}

// hypotheses are what may be found: an effect as it is or mirrored, in a role.
type hypothesis struct {
	as       role
	mirrored bool
}

func (j *judge) hypotheses() []hypothesis {
	if j.control {
		return []hypothesis{{judged, false}, {judged, true}}
	}
	return []hypothesis{{judged, false}, {other, false}}
}

func (j *judge) effect(h hypothesis) stat.Effect {
	e := j.estimate[j.phase][h.as]
	if h.mirrored {
		return e.Mirrored()
	}
	return e
}

func (j *judge) lookScreen(last bool) {
	open := false
	suspicious := false
	for _, h := range j.hypotheses() {
		l := limitsOf(j.rules, metricOf(j.metric, h.as), h.as)
		e := j.effect(h)
		if e.Mean > l.suspicious && e.Lower(j.rules.ScreenAlpha) > 0 {
			j.flags[h.as] = true
			suspicious = true
		}
		// The other metric need not be shown to be the same.
		if h.as == judged && e.Upper(j.rules.ScreenAlpha) >= l.equivalent {
			open = true
		}
	}
	switch {
	case suspicious:
		j.phase = confirming
	case !open:
		j.settle(verdict.Pass, "", judged, false)
	case last:
		j.settle(verdict.Inconclusive, "", judged, false)
	}
}

func (j *judge) lookConfirm(i, family int, last bool) {
	alpha := j.rules.ConfirmAlpha / float64(max(family, 1))
	if j.control {
		alpha /= 2 // two directions
	}
	level := stat.Levels(alpha, j.looks(), spend)[i]
	open := false
	openAs := judged
	for _, h := range j.hypotheses() {
		l := limitsOf(j.rules, metricOf(j.metric, h.as), h.as)
		e := j.effect(h)
		if e.Mean > l.least && e.Lower(level) > 0 {
			j.settle(verdict.Fail, fmt.Sprintf("%s %s in %d fresh rounds, at least %s at the one-sided level %.2g",
				verdict.Percent(math.Expm1(j.estimate[confirming][h.as].Mean)), metricOf(j.metric, h.as), e.Rounds,
				verdict.Percent(math.Expm1(e.Lower(level))), level), h.as, h.mirrored)
			return
		}
		if (h.as == judged || j.flags[h.as]) && e.Upper(j.rules.ScreenAlpha) >= l.equivalent {
			open, openAs = true, h.as
		}
	}
	switch {
	case !open:
		j.settle(verdict.Pass, "", judged, false)
	case last:
		j.settle(verdict.Inconclusive, "", openAs, false)
	}
}

// stop ends a benchmark that is not settled, because the budget is used up.
func (j *judge) stop(why string) {
	if j.phase == settled {
		return
	}
	if j.phase == confirming && len(j.rounds[confirming][judged]) == 0 {
		// The screen's estimate is what there is.
		j.settle(verdict.Inconclusive, "suspicious in the screen, not confirmed: "+why, judged, false)
		return
	}
	j.measure()
	e := j.estimate[j.phase][judged]
	l := limitsOf(j.rules, j.metric, judged)
	if j.phase == screening && e.Rounds >= j.rules.ScreenLooks[0] && e.Mean <= l.suspicious && e.Upper(j.rules.ScreenAlpha) < l.equivalent {
		j.settle(verdict.Pass, "", judged, false)
		return
	}
	j.settle(verdict.Inconclusive, why, judged, false)
}

// settle ends the benchmark. Without a reason one is made of the estimate.
func (j *judge) settle(d verdict.Decision, reason string, by role, mirrored bool) {
	from := j.phase
	if from == confirming && !j.looked[confirming] {
		from = screening
	}
	j.decided, j.decidedBy, j.mirrored = j.estimate[from][by], by, mirrored
	l := limitsOf(j.rules, metricOf(j.metric, by), by)
	e := j.decided
	if reason == "" {
		switch d {
		case verdict.Inconclusive:
			reason = fmt.Sprintf("%s after %d rounds, but up to %s cannot be excluded (%s would pass)",
				verdict.Percent(math.Expm1(e.Mean)), e.Rounds, percentBound(e.Upper(j.rules.ScreenAlpha)), verdict.Percent(math.Expm1(l.equivalent)))
		default:
			word := "within"
			if e.Mean < -l.suspicious && e.Upper(j.rules.ScreenAlpha) < 0 {
				word = "faster; within"
			}
			reason = fmt.Sprintf("%s, %s %s after %d rounds", verdict.Percent(math.Expm1(e.Mean)), word,
				percentBound(e.Upper(j.rules.ScreenAlpha)), e.Rounds)
		}
	}
	j.phase, j.decision, j.reason = settled, d, reason
}

func percentBound(log float64) string {
	if math.IsInf(log, 0) || math.IsNaN(log) {
		return "any effect"
	}
	return verdict.Percent(math.Expm1(log))
}

// confidence of the intervals that are printed.
const confidence = 0.95

// estimateOf turns an effect into the verdict's form. Bounds that are not
// finite are put where no effect of a measurement is.
func estimateOf(e stat.Effect) verdict.Estimate {
	if e.Rounds == 0 {
		return verdict.Estimate{Confidence: confidence, P: 1}
	}
	bound := func(log float64) float64 { return math.Expm1(min(max(log, math.Log(0.01)), math.Log(100))) }
	tail := (1 - confidence) / 2
	return verdict.Estimate{
		Effect: bound(e.Mean), Low: bound(e.Lower(tail)), High: bound(e.Upper(tail)),
		Confidence: confidence, P: e.P(), SD: e.SD, Rounds: e.Rounds, Pairs: e.Pairs,
	}
}
