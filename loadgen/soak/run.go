package soak

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/scenario"
)

// Schema is the version of Result as JSON.
const Schema = 1

// retentionBytes of a partition of a topic that the soak makes: a day's load
// must not fill the disk.
const retentionBytes = 256 << 20

// Plan makes a soak of a scenario: a warm-up, and the rate of its first measured
// phase for the rest of length. Topics that keep everything get a bound, of
// which a note tells.
func Plan(s *scenario.Scenario, length time.Duration) (plan *scenario.Scenario, note string, err error) {
	switch {
	case s.Kind != scenario.KindLoad:
		return nil, "", fmt.Errorf("a scenario of kind %s sends nothing", s.Kind)
	case len(s.Faults) > 0:
		return nil, "", errors.New("the scenario has faults: a slope across them says nothing")
	case s.Loop != scenario.OpenLoop:
		return nil, "", errors.New("a closed loop sends more where the target is faster: want loop open")
	}
	x := *s
	x.Topics = append([]scenario.Topic(nil), s.Topics...)
	for i := range x.Topics {
		if t := &x.Topics[i]; !t.Existing && t.Retention == 0 && t.RetentionBytes == 0 {
			t.RetentionBytes = retentionBytes
			note = fmt.Sprintf("new topics keep %d MiB a partition (topics.*.retention_bytes)", retentionBytes>>20)
		}
	}
	var main scenario.Phase
	for i := range s.Phases {
		if p := &s.Phases[i]; p.Measured {
			main = *p
			break
		}
	}
	if a := main.Arrival; a != "constant" && a != "poisson" {
		return nil, "", fmt.Errorf("phase %s: arrival %s: a slope needs a constant rate", main.Name, a)
	}
	warm := main
	warm.Name, warm.Measured, warm.Duration = "warm-up", false, min(10*time.Second, length/10)
	main.Name, main.Duration = "soak", length-warm.Duration
	x.Phases, x.Objectives = []scenario.Phase{warm, main}, nil
	for _, o := range s.Objectives {
		o.Phase = ""
		x.Objectives = append(x.Objectives, o)
	}
	return &x, note, x.Validate()
}

// Scale fits the times of a Monitor to a soak's length: a short one cannot wait
// as long.
func Scale(length time.Duration) Options {
	return Options{Settle: min(time.Minute, length/10), Window: 6 * time.Hour, Least: min(10*time.Minute, length/3)}
}

// Result of a soak.
type Result struct {
	Schema int          `json:"schema"`
	RunID  string       `json:"run_id"`
	Run    *load.Result `json:"-"` // has a file of its own
	Alarms []Alarm      `json:"alarms"`
	Series []Series     `json:"series"`
}

// ExitStatus is what a command ends with: 4 for a broken promise, 2 for an alarm
// or a missed objective, 3 for a run that says nothing.
func (r *Result) ExitStatus() int {
	status := r.Run.ExitStatus()
	if status != 4 && len(r.Alarms) > 0 {
		return 2
	}
	return status
}

// Run soaks. cfg is of a scenario made by Plan; poll may be nil. onAlarm, if not
// nil, is told each alarm when it is raised. With stop the first alarm ends the
// run, which is then no less a result: the alarm is.
func Run(ctx context.Context, cfg load.Config, o Options, poll *Poller, stop bool, onAlarm func(Alarm)) (*Result, error) {
	m := New(o)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	tell := cfg.OnInterval
	cfg.OnInterval = func(v load.Interval, h load.Histograms) {
		if tell != nil {
			tell(v, h)
		}
		if v.Phase == "" {
			return // the drain
		}
		for _, a := range m.Add(sample(&v, poll.Last())) {
			if onAlarm != nil {
				onAlarm(a)
			}
			if stop {
				cancel()
			}
		}
	}
	r, err := load.New(ctx, cfg)
	if err != nil {
		return nil, err
	}
	var polling sync.WaitGroup
	reading, end := context.WithCancel(context.WithoutCancel(ctx))
	if poll != nil {
		polling.Go(func() { poll.Run(reading) })
	}
	res, err := r.Execute(ctx)
	end()
	polling.Wait()
	if err != nil {
		return nil, err
	}
	return &Result{Schema: Schema, RunID: res.RunID, Run: res, Alarms: m.Alarms(), Series: m.Series()}, nil
}

// sample is what an interval and the target's own words say. The process's
// figures come from this machine where it is on it.
func sample(v *load.Interval, p Process) Sample {
	s := Sample{At: time.Duration(v.End * 1e9), RSS: p.RSS, FDs: p.FDs, Goroutines: p.Goroutines, P99: math.NaN()}
	if t := v.Target; t != nil && t.RSSBytes > 0 {
		s.RSS, s.FDs = float64(t.RSSBytes), float64(t.FDs)
	}
	// A latency that is mostly the generator's own lateness is not the target's.
	if l := &v.Latency; l.E2E.Count > 0 && l.Lag.P99 < l.E2E.P99/2 {
		s.P99 = float64(l.E2E.P99)
	}
	return s
}

// Table writes what grew, or did not.
func (r *Result) Table(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "metric\tmedian\tan hour\tby chance\tover time\n")
	for i := range r.Series {
		s := &r.Series[i]
		chance := fmt.Sprintf("%.2g", s.Chance)
		if s.Chance < 1e-9 {
			chance = "< 1e-9"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", s.Metric, s.Metric.format(s.Median), s.Metric.format(s.PerHour), chance, s.spark())
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, a := range r.Alarms {
		if _, err := fmt.Fprintln(w, a); err != nil {
			return err
		}
	}
	if len(r.Alarms) == 0 {
		_, err := fmt.Fprintln(w, "no alarm: nothing grows that matters and that chance does not explain")
		return err
	}
	return nil
}

// String says the alarm with its time.
func (a Alarm) String() string {
	return fmt.Sprintf("ALARM at %v: %s", a.At.Round(time.Second), a.Text)
}

// sparkWidth of a series' line.
const sparkWidth = 40

// spark draws the series, from its least value to its greatest.
func (s *Series) spark() string {
	marks := []rune("▁▂▃▄▅▆▇█")
	lo, hi := math.Inf(1), math.Inf(-1)
	for _, p := range s.Points {
		lo, hi = min(lo, p.Value), max(hi, p.Value)
	}
	var b strings.Builder
	for i := range min(sparkWidth, len(s.Points)) {
		v := s.Points[i*len(s.Points)/min(sparkWidth, len(s.Points))].Value
		at := 0.0
		if hi > lo {
			at = (v - lo) / (hi - lo)
		}
		b.WriteRune(marks[int(at*float64(len(marks)-1))])
	}
	return b.String()
}

// JSON writes the result, indented.
func (r *Result) JSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}
