// Package trial is one run of the gate over a repository: it prepares a session
// of two revisions, lets the rules ask it for rounds, and completes the verdict
// with what the session knows. The command's gate and the laboratory's test of
// itself are the same trial.
package trial

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/portask/portask/ci/bench"
	"github.com/portask/portask/ci/gate"
	"github.com/portask/portask/ci/sample"
	"github.com/portask/portask/ci/verdict"
)

// Then is called with the session still open, to look at what failed. It may
// add to the verdict.
type Then func(ctx context.Context, s *bench.Session, v *verdict.Verdict, series []sample.Series) error

// Run measures and judges. The verdict is combined from what is in it so far;
// who adds to it combines it again. then may be nil, and is not called if there
// is an error. progress gets a line for each step.
func Run(ctx context.Context, plan bench.Plan, o gate.Options, progress func(string), then Then) (_ *verdict.Verdict, _ []sample.Series, err error) {
	begin := time.Now()
	s, err := bench.Prepare(ctx, plan, progress)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	o.Seed, o.Log = plan.Seed, progress
	v, series, err := gate.Run(ctx, source{s, s.Benches()}, o)
	if err != nil {
		return nil, nil, err
	}
	v.Base, v.Head, v.Machine = s.Revision(sample.Base), s.Revision(sample.Head), s.Machine()
	v.Started = begin.UTC()
	for _, p := range s.Problems() {
		v.Entries = append(v.Entries, problem(p))
	}
	v.Seconds = time.Since(begin).Seconds()
	v.Combine()
	if then != nil {
		if err := then(ctx, s, v, series); err != nil {
			return v, series, err
		}
	}
	return v, series, nil
}

// problem is an entry for what the session could not prepare. What the base
// cannot do is no fault of the head.
func problem(p bench.Problem) verdict.Entry {
	e := verdict.Entry{
		Bench:    sample.Bench{Module: p.Module, Package: p.Package, Name: strings.TrimPrefix(p.Bench, "Benchmark")},
		Decision: verdict.Skipped, Reason: fmt.Sprintf("the %s: %v", p.Side, p.Err),
	}
	if p.Side == sample.Head {
		e.Decision = verdict.Invalid
	}
	return e
}

// source lets the gate ask a session.
type source struct {
	s        *bench.Session
	subjects []*bench.Subject
}

func (s source) Subjects() []gate.Subject {
	out := make([]gate.Subject, len(s.subjects))
	for i, b := range s.subjects {
		out[i] = gate.Subject{
			Bench: b.Bench, Metric: b.Metric, Control: b.Control, Identical: b.Identical, New: b.New, Changed: b.Changed, Risk: b.Risk(),
		}
	}
	return out
}

func (s source) Round(ctx context.Context, i int, stage sample.Stage) (sample.Round, error) {
	return s.s.Round(ctx, s.subjects[i], stage)
}

func (s source) Series(i int) sample.Series { return s.subjects[i].Series() }
