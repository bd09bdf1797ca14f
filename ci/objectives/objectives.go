// Package objectives measures everything that configs/slo.yaml bounds and judges
// it. Measure runs the lanes: what is a count runs once, what is noisy runs in
// turns in which the lanes and their calibration kernels alternate, so that a
// machine that is slow for a minute slows both sides of a ratio.
//
// A noisy objective that the first turns leave open, or that they show missed,
// gets as many turns again, as far as the budget goes, and is then judged by all
// of its turns. Nothing is left out and nothing is measured a third time.
package objectives

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/portask/portask/ci/internal/counters"
	"github.com/portask/portask/ci/internal/slo"
	"github.com/portask/portask/ci/lab"
	"github.com/portask/portask/ci/verdict"
	"github.com/portask/portask/ci/yardstick"
)

// Options of Measure. Zero numbers take their defaults.
type Options struct {
	Root string // of the repository
	File *slo.File
	Lab  *lab.Lab
	// Lanes to run, of slo.Lanes; default all.
	Lanes []string
	Seed  uint64 // of orders
	// Budget is the time on the wall within which turns that only settle what is
	// open must end; default 5 minutes. The first turns have twice as long: on a
	// machine that does not get through them an objective stays open.
	Budget time.Duration
	// Turns of the saturated lane and of the Go benchmarks, default 9 and 12; of
	// the load lane, default 6, the fewest that have a 95 % interval.
	Turns, BenchTurns, LoadTurns int
	// Load of the saturated lane.
	Load lab.Load
	// Out receives a line for each thing measured.
	Out io.Writer
}

func (o *Options) setDefaults() {
	for _, f := range []struct {
		v   *int
		def int
	}{{&o.Turns, 9}, {&o.BenchTurns, 12}, {&o.LoadTurns, 6}} {
		if *f.v <= 0 {
			*f.v = f.def
		}
	}
	if o.Budget <= 0 {
		o.Budget = 5 * time.Minute
	}
	if len(o.Lanes) == 0 {
		o.Lanes = slo.Lanes
	}
	if o.Load.Measured == 0 {
		o.Load.Measured = 1500 * time.Millisecond
	}
	if o.Load.WarmBytes == 0 {
		o.Load.WarmBytes = 640 << 20 // two and a half times the topic's retention
	}
	o.Load.CountSyscalls = true
}

// Result is what was measured and what it amounts to; it is kept as JSON.
type Result struct {
	// Objectives are in the file's order, those of lanes that did not run left out.
	Objectives []verdict.Objective     `json:"objectives"`
	Samples    map[string][]slo.Sample `json:"samples"` // by objective, one a turn
	Rounds     []lab.Round             `json:"rounds,omitempty"`
	Loads      []lab.LoadRun           `json:"loads,omitempty"`
	Kernels    []yardstick.Reading     `json:"kernels,omitempty"`
	// Others is the share of the processors that other programs took, by turn.
	Others  []float64 `json:"others"`
	Seed    uint64    `json:"seed"`
	Seconds float64   `json:"seconds"`
}

// Err is nil unless an objective is missed.
func (r *Result) Err() error {
	var errs []error
	for _, v := range r.Objectives {
		if v.Decision == verdict.Fail {
			errs = append(errs, fmt.Errorf("%w: %s: %s", slo.ErrMissed, v.Name, v.Reason))
		}
	}
	return errors.Join(errs...)
}

// Open are the names of the objectives that are not settled.
func (r *Result) Open() []string {
	var names []string
	for _, v := range r.Objectives {
		if v.Decision == verdict.Inconclusive {
			names = append(names, v.Name)
		}
	}
	return names
}

// session is one Measure.
type session struct {
	Options
	Result
	random *rand.Rand
	exact  map[string]bool
	begun  time.Time
	fresh  []fresh

	programs   map[string]program // of the benchmark lane, by package
	kernelCPU  float64            // of the log kernel in the latest saturated turn
	halfOfMost int                // messages a second: half of the most that loadgen gets through
}

// turning is a lane that runs in turns.
type turning struct {
	name  string
	turns int
	run   func(context.Context) error
	done  int
	spent time.Duration
}

// Measure runs the lanes and judges. Errors are those of the machinery, and
// lab.ErrViolated if a message was lost; a missed objective is none: see
// Result.Err.
func Measure(ctx context.Context, o Options) (*Result, error) {
	o.setDefaults()
	s := &session{Options: o, random: rand.New(rand.NewPCG(o.Seed, 1)), exact: map[string]bool{}, begun: time.Now()}
	s.Result.Seed, s.Samples = o.Seed, map[string][]slo.Sample{}
	for _, lane := range o.Lanes {
		if !slices.Contains(slo.Lanes, lane) {
			return nil, fmt.Errorf("lane %q: want some of %q", lane, slo.Lanes)
		}
	}
	for _, once := range []struct {
		lane string
		run  func(context.Context) error
	}{{"peers", s.peers}, {"policy", s.policy}, {"budgets", s.budgets}, {"idle", s.idle}, {"start", s.start}} {
		if !s.wants(once.lane) {
			continue
		}
		if err := once.run(ctx); err != nil {
			return nil, fmt.Errorf("lane %s: %w", once.lane, err)
		}
	}
	if err := s.turns(ctx); err != nil {
		return nil, err
	}
	s.Objectives = s.judge()
	s.Seconds = time.Since(s.begun).Seconds()
	return &s.Result, nil
}

func (s *session) wants(lane string) bool { return slices.Contains(s.Lanes, lane) }

func (s *session) printf(format string, args ...any) { fmt.Fprintf(s.Out, format+"\n", args...) }

// turns runs the lanes that take turns, alternating, then tops up.
func (s *session) turns(ctx context.Context) error {
	var lanes []*turning
	if s.wants("benchmark") {
		programs, remove, err := build(ctx, s.Root)
		if err != nil {
			return err
		}
		defer remove()
		s.programs = programs
		lanes = append(lanes, &turning{name: "benchmark", turns: s.BenchTurns, run: s.benchmarkTurn})
	}
	// The load lane needs the log kernel's CPU of its turn.
	if s.wants("saturated") || s.wants("load") {
		lanes = append(lanes, &turning{name: "saturated", turns: s.Turns, run: s.saturatedTurn})
		s.printf("%s", lab.RoundHeader)
	}
	if s.wants("load") {
		lanes = append(lanes, &turning{name: "load", turns: s.LoadTurns, run: s.loadTurn})
	}
	if s.wants("saturated") {
		if err := s.kernelProfile(ctx); err != nil {
			return err
		}
	}
	if err := s.alternate(ctx, lanes, 2*s.Budget); err != nil {
		return err
	}
	again := slices.DeleteFunc(lanes, func(l *turning) bool { return !s.unsettled(l.name) })
	for _, l := range again {
		s.printf("lane %s is not settled after %d turns: as many again, as far as the budget goes", l.name, l.done)
	}
	return s.alternate(ctx, again, s.Budget)
}

// alternate runs each lane for its number of turns, spread evenly over the
// longest. A turn begins only if it will end within the limit since Measure
// began, by what the lane's turns took so far.
func (s *session) alternate(ctx context.Context, lanes []*turning, limit time.Duration) error {
	longest := 0
	for _, l := range lanes {
		longest = max(longest, l.turns)
	}
	for i := range longest {
		for _, l := range lanes {
			if i*l.turns/longest == (i+1)*l.turns/longest {
				continue
			}
			if time.Since(s.begun)+l.spent/time.Duration(max(l.done, 1)) > limit {
				continue
			}
			begin := time.Now()
			if err := s.turn(ctx, l); err != nil {
				return fmt.Errorf("lane %s, turn %d: %w", l.name, l.done+1, err)
			}
			l.done++
			l.spent += time.Since(begin)
		}
	}
	return nil
}

// turn runs one turn, again if its machinery failed: on a busy machine a process
// may not start in time. A broken promise is never tried again. The samples of
// a turn in which others took processors are marked.
func (s *session) turn(ctx context.Context, l *turning) error {
	s.fresh = nil
	before, err := readUsage()
	if err != nil {
		return err
	}
	err = l.run(ctx)
	if err != nil && ctx.Err() == nil && !errors.Is(err, lab.ErrViolated) {
		s.printf("lane %s: turn %d failed and is run again: %v", l.name, l.done+1, err)
		s.fresh = nil
		err = l.run(ctx)
	}
	if err != nil {
		return err
	}
	after, err := readUsage()
	if err != nil {
		return err
	}
	others := othersShare(before, after)
	s.Others = append(s.Others, others)
	if others > disturbedShare {
		s.printf("lane %s: other programs took %.0f %% of the processors in turn %d: it cannot show a bound missed", l.name, 100*others, l.done+1)
	}
	for _, f := range s.fresh {
		if math.IsNaN(f.Value) || math.IsInf(f.Value, 0) {
			continue // not measured in this turn; JSON knows no such number
		}
		f.Worst = f.Worst || others > disturbedShare
		s.Samples[f.objective] = append(s.Samples[f.objective], f.Sample)
	}
	return nil
}

func (s *session) unsettled(lane string) bool {
	for _, o := range s.File.Of(lane) {
		if s.File.Judge(o, s.Samples[o.Name], s.exact[o.Name]).Decision != verdict.Pass {
			return true
		}
	}
	return false
}

func (s *session) judge() []verdict.Objective {
	var out []verdict.Objective
	for i := range s.File.Objectives {
		o := &s.File.Objectives[i]
		if s.wants(o.Lane) {
			out = append(out, s.File.Judge(o, s.Samples[o.Name], s.exact[o.Name]))
		}
	}
	return out
}

// count adds an exact figure, sample one of a turn.
func (s *session) count(name string, v float64) {
	s.exact[name] = true
	s.Samples[name] = append(s.Samples[name], slo.Sample{Value: v})
}

// sample adds a figure of the turn that runs; turn files it.
func (s *session) sample(name string, v float64, worst bool) {
	s.fresh = append(s.fresh, fresh{name, slo.Sample{Value: v, Worst: worst}})
}

// fresh is a sample of the turn that runs.
type fresh struct {
	objective string
	slo.Sample
}

func (s *session) budgets(ctx context.Context) error {
	values, err := counters.Measure(ctx, s.Root, counters.Budgets, io.Discard)
	if err != nil {
		return err
	}
	for _, v := range values {
		s.printf("%s %s: %.3g %s", v.Package, v.Bench, v.Value, v.Unit)
		s.count(v.Objective, v.Value)
	}
	return nil
}

func (s *session) idle(ctx context.Context) error {
	m, err := s.Lab.Idle(ctx)
	if err != nil {
		return err
	}
	s.printf("idle broker with one topic: %.1f MiB of its own, %.1f MiB resident with the program's pages",
		float64(m.PrivateBytes)/(1<<20), float64(m.RSSBytes)/(1<<20))
	s.count("core-memory", float64(m.PrivateBytes))
	// Resident memory comes in pages and in spans of the heap, which moves the
	// slope of one broker by a tenth: the median of three brokers counts.
	var slopes, at100K []float64
	for range idleBrokers {
		c, err := s.Lab.IdleConnections(ctx, lab.ConnSteps)
		if err != nil {
			return err
		}
		for _, p := range c.Points {
			s.printf("%6d idle subscribed connections: broker RSS %.2f MiB", p.Connections, float64(p.RSSBytes)/(1<<20))
		}
		last := c.Points[len(c.Points)-1]
		slopes = append(slopes, c.Slope)
		at100K = append(at100K, float64(last.RSSBytes)+c.Slope*float64(100_000-last.Connections))
	}
	s.count(lab.IdleConnectionBytes, lab.NewSpread(slopes).Median)
	s.count("rss-100k-connections", lab.NewSpread(at100K).Median)
	return nil
}

// idleBrokers is how many brokers' idle connections are weighed.
const idleBrokers = 3

func (s *session) start(ctx context.Context) error {
	r, err := s.Lab.StartTime(ctx, 1<<30, 3)
	if err != nil {
		return err
	}
	clean, killed := lab.NewSpread(r.Clean), lab.NewSpread(r.Killed)
	s.printf("seconds from exec to the first answer on %.2f GiB in the page cache: after a clean stop %s, after SIGKILL %s",
		float64(r.LogBytes)/(1<<30), clean, killed)
	s.count(lab.Start1GiB, max(clean.Median, killed.Median))
	return nil
}
