package search

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/scenario"
	"github.com/portask/portask/loadgen/trend"
)

const (
	// achievedMin of the offered rate must be delivered during the probe.
	achievedMin = 0.99
	// A backlog grows if chance explains its growth in fewer than one of twenty
	// probes, and it grows by more than this part of the rate: what lies below
	// changes nothing that a user would see.
	backlogLevel = 0.05
	backlogShare = 0.01
	// hopeless is a backlog, in seconds of the rate, with which a probe has
	// failed and is cut short.
	hopeless = 2.0
	// generatorShare of the processors: above it the generator may be the limit.
	generatorShare = 0.8
)

// Prober probes a deployment with a scenario: its topics, clients and payloads,
// at one rate after the other.
type Prober struct {
	// Scenario is what is run; its phases and objectives are replaced. Of its
	// first measured phase the spacing is kept. It has no faults.
	Scenario *scenario.Scenario
	// Objectives must hold, all of them: latencies.
	Objectives []scenario.Objective
	// Warmup and Duration are the phases of a probe.
	Warmup, Duration time.Duration
	// Config completes a run's configuration: driver, process, progress.
	Config func(*scenario.Scenario) load.Config
}

// Validate reports what cannot be probed.
func (p *Prober) Validate() error {
	switch {
	case len(p.Objectives) == 0:
		return errors.New("no objective: want a latency that must be kept, such as --p99 1ms")
	case p.Scenario.Kind != scenario.KindLoad:
		return fmt.Errorf("a scenario of kind %s has no rate", p.Scenario.Kind)
	case p.Scenario.Loop != scenario.OpenLoop:
		return errors.New("a closed loop has no rate to be searched: want loop open")
	case len(p.Scenario.Faults) > 0:
		return errors.New("the scenario has faults: what is sustained is sustained without them")
	}
	for _, o := range p.Objectives {
		if o.AtMost == 0 {
			return fmt.Errorf("objective %s: want a latency", o.Metric)
		}
	}
	_, err := p.at(1000)
	return err
}

// Objective says the objectives in words.
func (p *Prober) Objective() string {
	var all []string
	for _, o := range p.Objectives {
		all = append(all, fmt.Sprintf("%s at most %v", o.Metric, o.AtMost))
	}
	return strings.Join(all, " and ")
}

// at is the scenario at a rate.
func (p *Prober) at(rate float64) (*scenario.Scenario, error) {
	s := *p.Scenario
	spacing := "even"
	for i := range s.Phases {
		if x := &s.Phases[i]; x.Measured {
			spacing = x.Spacing
			if x.Arrival == "poisson" {
				spacing = "poisson"
			}
			break
		}
	}
	warm := scenario.Phase{Name: "warm-up", Duration: p.Warmup, Arrival: "constant", Spacing: spacing, Rate: rate, Speed: 1}
	main := warm
	main.Name, main.Duration, main.Measured = "probe", p.Duration, true
	s.Phases, s.Objectives = []scenario.Phase{warm, main}, nil
	return &s, s.Validate()
}

// Probe is one run.
func (p *Prober) Probe(ctx context.Context, rate float64) (Point, error) {
	s, err := p.at(rate)
	if err != nil {
		return Point{}, err
	}
	cfg := p.Config(s)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	backlog, cut := 0.0, false
	tell := cfg.OnInterval
	cfg.OnInterval = func(v load.Interval, h load.Histograms) {
		if tell != nil {
			tell(v, h)
		}
		if backlog += v.Offered - float64(v.Delivered+v.Failed); backlog > hopeless*rate && v.Phase != "" {
			cut = true
			cancel()
		}
	}
	r, err := load.New(ctx, cfg)
	if err != nil {
		return Point{}, err
	}
	res, err := r.Execute(ctx)
	if err != nil {
		return Point{}, err
	}
	return p.judge(res, rate, cut), nil
}

// judge says what a run at rate says. The run's own judgement is about whether
// its figures are a result; here a late generator makes latencies look worse
// than they are, and so cannot make a probe pass.
func (p *Prober) judge(res *load.Result, rate float64, cut bool) Point {
	m := res.Measured
	if m == nil {
		m = res.Rejected
	}
	main := &m.Phases[len(m.Phases)-1]
	l := &main.Latency
	x := Point{Offered: rate, Achieved: main.Delivered, Verdict: Pass, P50: l.E2E.P50, P99: l.E2E.P99}
	if v, ok := l.E2E.Tail(); ok {
		x.P999 = v
	}
	for _, v := range res.Violations {
		x.Violations = append(x.Violations, v.String())
	}
	x.Backlog, x.BacklogRising = growth(m, main.Name)
	say := func(v Verdict, format string, args ...any) {
		if x.Verdict == Pass {
			x.Verdict, x.Why = v, fmt.Sprintf(format, args...)
		}
	}
	// A latency that would keep the objective without the generator's own part
	// is in doubt.
	lag, missed, sure := time.Duration(l.Lag.P99), false, false
	for _, o := range p.Objectives {
		got := time.Duration(l.Metric(o.Metric))
		x.Margin = max(x.Margin, float64(got)/float64(o.AtMost))
		if got > o.AtMost {
			missed, sure = true, sure || got-lag > o.AtMost
			say(Fail, "%s %v", o.Metric, got)
		}
	}
	c := res.Counts
	behind := func(format string, args ...any) {
		sure, x.Margin = true, 0
		say(Fail, format, args...)
	}
	for _, v := range res.Invalid {
		switch v.Kind {
		case load.Empty, load.Unsettled:
			behind("%s", v.Text)
		case load.RateMissed:
			x.Verdict, x.Why = Invalid, v.Text
		}
	}
	switch {
	case cut:
		behind("the backlog reached %.0f s of the rate", hopeless)
	case main.Delivered < achievedMin*main.Offered:
		behind("%.1f %% of the rate was delivered", 100*main.Delivered/main.Offered)
	case x.BacklogRising < backlogLevel && x.Backlog > backlogShare*rate:
		behind("the backlog grows by %.0f messages a second", x.Backlog)
	}
	switch {
	case len(res.Violations) > 0:
		say(Fail, "%s", res.Violations[0])
	case c.Failed > 0:
		say(Fail, "%d messages were given up by the client", c.Failed)
	}
	// Was it the generator? Only what failed by latency or rate is in doubt.
	if g := &res.Generator; x.Verdict == Fail && len(res.Violations) == 0 {
		switch {
		case missed && !sure:
			x.Verdict, x.Why = Invalid, fmt.Sprintf("its dispatch lag, p99 %v, is what made the latency miss the objective (%s)", lag, x.Why)
		case g.Share > generatorShare:
			x.Verdict, x.Why = Invalid, fmt.Sprintf("its work took %.0f %% of the processors (%s)", 100*g.Share, x.Why)
		}
	}
	return x
}

// growth is the trend of the backlog, messages due and not yet delivered, over
// the phase's intervals.
func growth(m *load.Measured, phase string) (slope, rising float64) {
	var x, y []float64
	backlog := 0.0
	for i := range m.Series {
		v := &m.Series[i]
		backlog += v.Offered - float64(v.Delivered+v.Failed)
		if v.Phase == phase {
			x, y = append(x, v.End), append(y, backlog)
		}
	}
	t := trend.Of(x, y)
	return t.Slope, t.Rising
}
