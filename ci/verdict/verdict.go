// Package verdict is what one run of the gate concluded, as data: it is filled
// by the rules (ci/gate), by the objectives and the counters, and printed by
// the reports. Its JSON form is verdict.json, kept in benchdata and reports.
//
// Nothing here measures, computes or decides, except [Verdict.Combine], which
// says once what the parts amount to.
package verdict

import (
	"fmt"
	"strings"
	"time"

	"github.com/portask/portask/ci/sample"
)

// Version of the JSON form. A reader refuses a newer one.
const Version = 1

// Decision is the conclusion about one benchmark, objective or counter, or
// about a whole run.
type Decision string

// The decisions.
const (
	// Pass: no change for the worse beyond the minimum effect, shown.
	Pass Decision = "PASS"
	// Fail: a change for the worse, significant and beyond the minimum effect,
	// seen in rounds that were run to confirm it.
	Fail Decision = "FAIL"
	// Inconclusive: neither could be shown within the budget.
	Inconclusive Decision = "INCONCLUSIVE"
	// Invalid: the run cannot be believed; a control alarmed, or nothing could
	// be measured.
	Invalid Decision = "INVALID"
	// Skipped: not compared, see the reason: identical programs, a benchmark
	// that is new, the budget.
	Skipped Decision = "SKIPPED"
)

// ExitStatus of a run. Inconclusive is 0: [Verdict.Combine] leaves it to stand
// only where counters, controls and objectives passed.
func (d Decision) ExitStatus() int {
	switch d {
	case Pass, Inconclusive, Skipped:
		return 0
	case Invalid:
		return 3
	default:
		return 2
	}
}

// Verdict is one run.
type Verdict struct {
	Version  int      `json:"version"`
	Decision Decision `json:"decision"`
	// Reasons are whole sentences, the decisive first.
	Reasons []string  `json:"reasons"`
	Command string    `json:"command"`
	Started time.Time `json:"started"`
	// Seconds is the run's time on the wall, of which MeasureSeconds went by in
	// rounds.
	Seconds        float64  `json:"seconds"`
	MeasureSeconds float64  `json:"measure_seconds"`
	Seed           uint64   `json:"seed"`
	Base           Revision `json:"base"`
	Head           Revision `json:"head"`
	Rules          Rules    `json:"rules"`

	// Entries are the judged benchmarks in the order they were measured.
	Entries []Entry `json:"entries"`
	// Controls are the calibration kernels, the same program on both sides.
	Controls   []Entry     `json:"controls"`
	Counters   []Counter   `json:"counters,omitempty"`
	Objectives []Objective `json:"objectives,omitempty"`
	Waivers    []Waiver    `json:"waivers,omitempty"`

	// Machine are facts that do not change in a run, as benchfmt keys.
	Machine []Fact `json:"machine,omitempty"`
	// Environment is the mean over all rounds; ThrottledS and ContextSwitches
	// are sums, Seconds is the sum.
	Environment sample.Environment `json:"environment"`
	// Rounds measured, of which Disturbed carry a mark of interference.
	Rounds    int `json:"rounds"`
	Disturbed int `json:"disturbed"`
	// Raw is the file of raw samples below benchdata or the report's directory,
	// empty if none was kept.
	Raw string `json:"raw,omitempty"`
}

// Fact is a key of the Go benchmark format and its value.
type Fact struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Revision is one side.
type Revision struct {
	Name    string `json:"name"`   // as it was asked for: "HEAD~1", a tag
	Commit  string `json:"commit"` // full hash
	Subject string `json:"subject,omitempty"`
	// Dirty: the working tree had changes that are not in Commit.
	Dirty bool `json:"dirty,omitempty"`
	// Origin says why this base: "flag", "baseline", "first parent".
	Origin string `json:"origin,omitempty"`
}

// Short is the first ten digits of the commit, with "+" if dirty.
func (r Revision) Short() string {
	s := r.Commit
	if len(s) > 10 {
		s = s[:10]
	}
	if r.Dirty {
		s += "+"
	}
	return s
}

// Rules are the thresholds that the run was judged by. Effects are shares: 0.02
// is two per cent.
type Rules struct {
	MinEffectCPU  float64 `json:"min_effect_cpu"`
	MinEffectWall float64 `json:"min_effect_wall"`
	// MinEffectOther is that of the metric a benchmark is not judged by.
	MinEffectOther float64 `json:"min_effect_other"`
	// Equivalence is the upper bound that passes a benchmark in the screen.
	Equivalence float64 `json:"equivalence"`
	// Suspicious is the effect that sends it to the confirmation.
	Suspicious   float64 `json:"suspicious"`
	ScreenAlpha  float64 `json:"screen_alpha"`
	ConfirmAlpha float64 `json:"confirm_alpha"` // one-sided, of the whole family, before Holm
	ScreenLooks  []int   `json:"screen_looks"`  // rounds after which the screen looks
	ConfirmLooks []int   `json:"confirm_looks"` // fresh rounds after which the confirmation looks
	// TopUpRounds are what the screen adds at most for what stays open, and the
	// confirmation.
	TopUpRounds   int     `json:"top_up_rounds"`
	BudgetSeconds float64 `json:"budget_seconds"`
}

// Estimate is an effect: head against base, as a share of base; +0.05 is five
// per cent slower.
type Estimate struct {
	Effect float64 `json:"effect"`
	// Low and High are the two-sided interval at Confidence, the wider of
	// Student's t over rounds and the bootstrap over rounds and pairs.
	Low        float64 `json:"low"`
	High       float64 `json:"high"`
	Confidence float64 `json:"confidence"`
	// P is one-sided: no slowdown, against slower.
	P      float64 `json:"p"`
	SD     float64 `json:"sd"` // of the rounds' values
	Rounds int     `json:"rounds"`
	Pairs  int     `json:"pairs"`
}

// Percent prints an effect as "+5.04 %".
func Percent(effect float64) string { return fmt.Sprintf("%+.2f %%", 100*effect) }

// Dot is one round's value.
type Dot struct {
	Round        int          `json:"round"`
	Stage        sample.Stage `json:"stage"`
	Effect       float64      `json:"effect"` // of the judged metric
	Pairs        int          `json:"pairs"`
	Dropped      int          `json:"dropped"`
	Interference string       `json:"interference,omitempty"`
}

// Entry is one benchmark.
type Entry struct {
	Bench    sample.Bench `json:"bench"`
	Metric   string       `json:"metric"` // "cpu-ns/op" or "ns/op", the one judged
	Decision Decision     `json:"decision"`
	// Reason is one sentence: "+5.1 % (99.5 % bound +4.2 %) in 8 fresh rounds".
	Reason string `json:"reason"`
	// Effect is the estimate that decided; Screen and Confirm are the stages',
	// nil where a stage did not run. Other is the other metric, which fails a
	// benchmark only from Rules.MinEffectOther on: what sleeps costs no CPU.
	Effect  Estimate  `json:"effect"`
	Screen  *Estimate `json:"screen,omitempty"`
	Confirm *Estimate `json:"confirm,omitempty"`
	Other   *Estimate `json:"other,omitempty"`
	// MinEffect is that of the metric that decided.
	MinEffect float64 `json:"min_effect"`
	// BaseNs and HeadNs are medians over the slices of the judged metric, in
	// nanoseconds per operation.
	BaseNs float64 `json:"base_ns"`
	HeadNs float64 `json:"head_ns"`
	// AllocsBase and AllocsHead are exact per operation, from the same slices.
	AllocsBase float64 `json:"allocs_base"`
	AllocsHead float64 `json:"allocs_head"`
	BytesBase  float64 `json:"bytes_base"`
	BytesHead  float64 `json:"bytes_head"`
	Dots       []Dot   `json:"dots,omitempty"`
	// Identical: both sides' programs are the same bytes; New: base has no such
	// benchmark; Changed: the benchmark's own source differs.
	Identical bool `json:"identical,omitempty"`
	New       bool `json:"new,omitempty"`
	Changed   bool `json:"changed,omitempty"`
	// Commits is for how many gates running, this one included, the benchmark
	// was inconclusive.
	Commits int `json:"commits,omitempty"`
	// Waived is the waiver that lets it pass.
	Waived *Waiver `json:"waived,omitempty"`
	// Top are the functions whose share moved most, worst first; filled by the
	// explanation of a failure.
	Top []Function `json:"top,omitempty"`
	// Notes are lines of the explanation: allocation and escape differences.
	Notes []string `json:"notes,omitempty"`
}

// Function is how the CPU time, the allocation or the instructions of one
// function moved.
type Function struct {
	Name string `json:"name"`
	Kind string `json:"kind"` // "cpu", "alloc", "instructions", "objects"
	// Base and Head are per operation, in nanoseconds, bytes, instructions or
	// objects allocated.
	Base float64 `json:"base"`
	Head float64 `json:"head"`
	// Sigmas is the difference in Poisson standard deviations.
	Sigmas float64 `json:"sigmas"`
}

// Counter is a figure that noise does not touch.
type Counter struct {
	Name     string   `json:"name"` // "allocs/op broker/wire.Encode"
	Unit     string   `json:"unit"`
	Base     float64  `json:"base"`
	Head     float64  `json:"head"`
	Limit    float64  `json:"limit"` // greatest share by which Head may exceed Base
	Decision Decision `json:"decision"`
	Reason   string   `json:"reason,omitempty"`
	Waived   *Waiver  `json:"waived,omitempty"`
	// Top and Notes explain a failure: the functions that allocate more, and the
	// command that shows more.
	Top   []Function `json:"top,omitempty"`
	Notes []string   `json:"notes,omitempty"`
}

// AcceptedPrefix begins the names of counters that hold a run against accepted
// figures, behind "moved " where a commit moved those.
const AcceptedPrefix = "accepted "

// Accepted tells whether Base is an accepted figure instead of one that the run
// counted.
func (c *Counter) Accepted() bool {
	return strings.HasPrefix(strings.TrimPrefix(c.Name, "moved "), AcceptedPrefix)
}

// Objective is a bound of configs/slo.yaml held against a measurement.
type Objective struct {
	Name string `json:"name"`
	Unit string `json:"unit"`
	// Kernel is the calibration kernel of the ratio, empty for a count.
	Kernel string  `json:"kernel,omitempty"`
	Value  float64 `json:"value"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
	Turns  int     `json:"turns"`
	// Upper: Bound and Target are maxima, else minima.
	Upper bool    `json:"upper"`
	Bound float64 `json:"bound"`
	// Target is the mission's figure, nil where the bound is the target. Met
	// tells whether Value reaches it.
	Target   *float64 `json:"target,omitempty"`
	Met      bool     `json:"met"`
	Decision Decision `json:"decision"`
	Reason   string   `json:"reason,omitempty"`
	Source   string   `json:"source,omitempty"` // where bound and constant come from
}

// Waiver is a trailer of the head's commit message:
//
//	perf-accept: NAME MAX% REASON
type Waiver struct {
	Name   string  `json:"name"`
	Max    float64 `json:"max"` // share: 0.08 accepts up to eight per cent
	Reason string  `json:"reason"`
	Commit string  `json:"commit"`
	Used   bool    `json:"used"`
}

// Open are the names of what is inconclusive, in order, those included that
// failed for having been so too often.
func (v *Verdict) Open() []string {
	var names []string
	for _, e := range v.Entries {
		if e.Decision == Inconclusive || e.Decision == Fail && e.Commits > 0 {
			names = append(names, e.Bench.String())
		}
	}
	for _, o := range v.Objectives {
		if o.Decision == Inconclusive {
			names = append(names, o.Name)
		}
	}
	return names
}

// Combine sets Decision and Reasons from the parts and returns the decision:
// Invalid if a control failed or nothing was compared; else Fail if anything failed that no waiver
// covers; else Inconclusive if anything is open; else Pass. Inconclusive
// therefore means that counters, controls and enforced objectives passed.
func (v *Verdict) Combine() Decision {
	var invalid, failed []string
	for _, c := range v.Controls {
		if c.Decision == Fail || c.Decision == Invalid {
			invalid = append(invalid, fmt.Sprintf("control %s alarmed: %s", c.Bench, c.Reason))
		}
	}
	for _, e := range v.Entries {
		switch {
		case e.Decision == Invalid:
			invalid = append(invalid, fmt.Sprintf("%s: %s", e.Bench, e.Reason))
		case e.Decision == Fail && e.Waived == nil:
			failed = append(failed, fmt.Sprintf("%s: %s", e.Bench, e.Reason))
		}
	}
	for _, c := range v.Counters {
		if c.Decision == Fail && c.Waived == nil {
			failed = append(failed, fmt.Sprintf("%s: %s", c.Name, c.Reason))
		}
	}
	for _, o := range v.Objectives {
		if o.Decision == Fail {
			failed = append(failed, fmt.Sprintf("objective %s: %s", o.Name, o.Reason))
		}
	}
	open := v.Open()
	if v.Base.Commit != "" && len(v.Entries)+len(v.Counters)+len(v.Objectives) == 0 {
		invalid = append(invalid, "no benchmark, counter or objective: nothing was compared")
	}
	switch {
	case len(invalid) > 0:
		v.Decision, v.Reasons = Invalid, append(invalid, failed...)
	case len(failed) > 0:
		v.Decision, v.Reasons = Fail, failed
	case len(open) > 0:
		v.Decision = Inconclusive
		v.Reasons = []string{fmt.Sprintf("%d not settled within the budget; counters, controls and objectives passed", len(open))}
	default:
		v.Decision = Pass
		v.Reasons = []string{fmt.Sprintf("%d benchmarks, %d counters, %d objectives: nothing got worse beyond its limit",
			len(v.Entries), len(v.Counters), len(v.Objectives))}
	}
	return v.Decision
}
