package gate

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/portask/portask/ci/sample"
	"github.com/portask/portask/ci/verdict"
)

// Subject is a benchmark that a source can measure.
type Subject struct {
	Bench  sample.Bench
	Metric sample.Metric
	// Control: the same program on both sides.
	Control bool
	// Identical: the linked programs are the same bytes; New: the base has none;
	// Changed: the benchmark's own source differs.
	Identical, New, Changed bool
	// Risk orders what is measured first if not all can be: lower goes first.
	Risk int
}

// Source measures. Round blocks until the round of the i-th subject is over.
// The gate calls it from one goroutine.
type Source interface {
	Subjects() []Subject
	Round(ctx context.Context, i int, stage sample.Stage) (sample.Round, error)
	// Series is an empty series of the i-th subject with what is known of it
	// after its first round.
	Series(i int) sample.Series
}

// Options of a run. The zero value of each but Rules is usable.
type Options struct {
	Rules verdict.Rules
	Seed  uint64
	// Open is for how many gates running a benchmark has been inconclusive, by
	// name. Those go first, whatever their risk, with longer top-ups; a third
	// time fails.
	Open map[string]int
	// Force measures identical programs too: an A/A run.
	Force   bool
	Waivers []verdict.Waiver
	// Now is the clock, time.Now if nil. It decides only what the budget allows.
	Now func() time.Time
	// Log gets a line for each benchmark that is settled; may be nil.
	Log func(string)
}

// openMax is how many gates running may leave the same benchmark open.
const openMax = 3

// screenShare is the part of the budget that the screen may plan to use; the
// rest is for confirmations and top-ups.
const screenShare = 0.6

// subject is a Subject on its way.
type subject struct {
	Subject
	index   int
	judge   *judge
	series  sample.Series
	cost    time.Duration // of the last round
	skipped string
	failed  error // of the source
	first   bool  // goes first: it was open before
}

type run struct {
	src      Source
	o        Options
	rng      *rand.Rand
	subjects []*subject
	deadline time.Time
	verdict  *verdict.Verdict
}

// Run measures until everything is settled or the budget is used up, and
// returns the verdict on the benchmarks, with the counters that come from the
// same slices, and the raw series. Revisions, objectives, other counters and
// the machine are the caller's to add, who combines the parts afterwards.
//
// Run fails only if ctx ends. A benchmark that cannot be measured is an entry
// with decision Invalid.
func Run(ctx context.Context, src Source, o Options) (*verdict.Verdict, []sample.Series, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = func(string) {}
	}
	begin := o.Now()
	r := &run{
		src: src, o: o, rng: rand.New(rand.NewPCG(o.Seed, 0x67617465)),
		deadline: begin.Add(time.Duration(o.Rules.BudgetSeconds * float64(time.Second))),
		verdict:  &verdict.Verdict{Version: verdict.Version, Seed: o.Seed, Rules: o.Rules, Started: begin.UTC(), Waivers: slices.Clone(o.Waivers)},
	}
	r.prepare()
	if err := r.measure(ctx); err != nil {
		return nil, nil, err
	}
	r.verdict.MeasureSeconds = o.Now().Sub(begin).Seconds()
	return r.verdict, r.conclude(), nil
}

// prepare makes the judges and orders the subjects: controls, then what was
// open, then by risk.
func (r *run) prepare() {
	worth := false
	for i, s := range r.src.Subjects() {
		name := s.Bench.String()
		sub := &subject{Subject: s, index: i, first: r.o.Open[name] > 0}
		sub.judge = &judge{
			rules: r.o.Rules, metric: s.Metric, control: s.Control, seed: r.o.Seed ^ uint64(i)<<32,
			open: r.o.Open[name],
		}
		switch {
		case s.Control:
		case s.New:
			sub.skipped = "new: the base has no such benchmark"
		case s.Identical && !r.o.Force:
			sub.skipped = "both sides' programs are the same bytes"
		default:
			worth = true
		}
		r.subjects = append(r.subjects, sub)
	}
	for _, s := range r.subjects {
		if s.Control && !worth {
			s.skipped = "nothing to control: no benchmark's program differs"
		}
	}
	slices.SortStableFunc(r.subjects, func(a, b *subject) int { return a.rank() - b.rank() })
}

func (s *subject) rank() int {
	switch {
	case s.Control:
		return -2
	case s.first:
		return -1
	}
	return max(s.Risk, 0)
}

func (s *subject) active() bool {
	return s.skipped == "" && s.failed == nil && s.judge.phase != settled
}

// measure goes round after round over all active subjects, in a new order each
// time, so that a benchmark's rounds are apart in time.
func (r *run) measure(ctx context.Context) error {
	for sweep := 0; ; sweep++ {
		var active []*subject
		for _, s := range r.subjects {
			if s.active() {
				active = append(active, s)
			}
		}
		if len(active) == 0 {
			return nil
		}
		// The first sweep keeps the order: it tells what the rest will cost, and
		// the budget may end within it.
		if sweep > 0 {
			r.rng.Shuffle(len(active), func(i, k int) { active[i], active[k] = active[k], active[i] })
		}
		progress := false
		for _, s := range active {
			if !s.active() || !r.affordable(s) {
				continue
			}
			progress = true
			if err := r.round(ctx, s); err != nil {
				return err
			}
		}
		if sweep == 0 {
			r.leaveOut()
		}
		if !progress {
			return nil
		}
	}
}

// affordable: there is time for the round, and after it for what the
// confirmations under way need until they look.
func (r *run) affordable(s *subject) bool {
	left := r.deadline.Sub(r.o.Now()) - s.cost
	if s.judge.phase == screening {
		for _, c := range r.subjects {
			if c.active() && c.judge.phase == confirming {
				left -= time.Duration(c.judge.untilLook()) * c.cost
			}
		}
	}
	return left > 0
}

// leaveOut drops subjects from the end of the order until the screen fits into
// its share of the budget. Controls and what was open before stay, and the first
// benchmark, so that no run passes without having measured any.
func (r *run) leaveOut() {
	planned := time.Duration(screenShare * r.o.Rules.BudgetSeconds * float64(time.Second))
	need := time.Duration(0)
	for _, s := range r.subjects {
		if s.active() {
			need += time.Duration(r.o.Rules.ScreenLooks[0]) * s.cost
		}
	}
	kept := 0
	for _, s := range r.subjects {
		if s.skipped == "" && !s.Control {
			kept++
		}
	}
	for _, s := range slices.Backward(r.subjects) {
		if need <= planned || kept == 1 {
			return
		}
		if !s.active() || s.Control || s.first {
			continue
		}
		kept--
		need -= time.Duration(r.o.Rules.ScreenLooks[0]) * s.cost
		s.skipped = fmt.Sprintf("left out: %.0f s do not suffice for all benchmarks here and now, and the change is less likely to touch this one", r.o.Rules.BudgetSeconds)
		r.o.Log(fmt.Sprintf("%s: %s", s.Bench, s.skipped))
	}
}

func (r *run) round(ctx context.Context, s *subject) error {
	before := r.o.Now()
	stage := s.judge.stage()
	round, err := r.src.Round(ctx, s.index, stage)
	if err != nil && ctx.Err() == nil {
		r.o.Log(fmt.Sprintf("%s: %v; once more", s.Bench, err))
		round, err = r.src.Round(ctx, s.index, stage)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if cost := r.o.Now().Sub(before); s.cost == 0 {
		s.cost = cost
	} else {
		s.cost = (s.cost + cost) / 2 // a round may link a layout
	}
	if err != nil {
		s.failed = err
		r.o.Log(fmt.Sprintf("%s: %v", s.Bench, err))
		return nil
	}
	s.series.Rounds = append(s.series.Rounds, round)
	was := s.judge.phase
	s.judge.add(round, r.family(s))
	switch {
	case s.judge.phase == settled:
		r.o.Log(fmt.Sprintf("%s: %s: %s", s.Bench, s.judge.decision, s.judge.reason))
	case s.judge.phase == confirming && was == screening:
		r.o.Log(fmt.Sprintf("%s: suspicious, %s; to be confirmed in fresh rounds", s.Bench, verdict.Percent(estimateOf(s.judge.estimate[screening][judged]).Effect)))
	}
	return nil
}

// family is how many candidates of the subject's kind are in confirmation and
// not rejected: Holm's step-down, applied at each look.
func (r *run) family(of *subject) int {
	n := 0
	for _, s := range r.subjects {
		if s.Control == of.Control && s.active() && s.judge.phase == confirming {
			n++
		}
	}
	return max(n, 1)
}
