// Package compare runs one scenario against several systems in turn and says how
// they compare.
//
// In each turn every target is run once at each point, targets in random order,
// each time in a server process of its own that was just started, with an empty
// directory. Machines drift (the same Redis differed by 1.75 times within an
// hour), so a ratio is made of the two runs of a turn, and the ratios of all
// turns give an estimate with its interval. Targets are set up to promise the
// same of an answered message, as each driver says of itself; unequal ones are
// refused unless that is asked for, and then named. Every message of every run
// is verified. A run that is invalid gives no number, but see Run.Late.
package compare

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/portask/portask/broker/sysmetrics"
	"github.com/portask/portask/loadgen/driver"
	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/peers/server"
	"github.com/portask/portask/loadgen/scenario"
)

// Point is a load at which targets are compared.
type Point struct {
	Name     string // "max", "20000"
	Scenario *scenario.Scenario
}

// Options of Run.
type Options struct {
	// Targets: the first is what the others are held against.
	Targets []Target
	// Unequal allows targets of different durability.
	Unequal bool
	Points  []Point
	Turns   int
	// Seed of the order within turns.
	Seed uint64
	// Calm: before a target's server is started, Compare waits until all
	// programs together use less than so many processors, for CalmWait in all;
	// 0: it does not wait. What a run measures has no part in that.
	Calm     float64
	CalmWait time.Duration
	// RealTime as in load.Config: for every target alike.
	RealTime bool
	// Server is how servers are started; its Dir is where their directories are
	// made and removed.
	Server server.Options
	// Event is told what happens, a line each.
	Event func(string)
	// OnResult is called with each run's result.
	OnResult func(Run, *load.Result) error
}

// Metric is what is compared.
type Metric string

// The metrics.
const (
	Rate   Metric = "delivered_per_s"
	CPU    Metric = "cpu_s_per_million" // of the server's process
	E2E50  Metric = "e2e_p50_ns"
	E2E99  Metric = "e2e_p99_ns"
	Ack50  Metric = "ack_p50_ns"
	Ack99  Metric = "ack_p99_ns"
	MaxRSS Metric = "rss_max_bytes"
)

// Metrics are all of them, as they are shown.
var Metrics = []Metric{Rate, CPU, E2E50, E2E99, Ack50, Ack99, MaxRSS}

// Schema is the version of Report as JSON.
const Schema = 1

// Report is the outcome, also as JSON.
type Report struct {
	Schema  int                `json:"schema"`
	Began   time.Time          `json:"began"`
	Seconds float64            `json:"seconds"`
	Command string             `json:"command,omitempty"`
	Commit  string             `json:"commit,omitempty"`
	Machine sysmetrics.Machine `json:"machine"`
	// Load is the machine's load average when it began.
	Load float64 `json:"load_average"`
	// Calm as in Options, and the seconds it was waited for.
	Calm        float64       `json:"calm_cpus,omitempty"`
	CalmSeconds float64       `json:"calm_wait_s,omitempty"`
	Turns       int           `json:"turns"`
	Seed        uint64        `json:"seed"`
	Base        string        `json:"base"` // target that ratios are to
	Unequal     bool          `json:"unequal"`
	RealTime    bool          `json:"real_time"` // the generator at points with a rate
	Points      []PointReport `json:"points"`
}

// PointReport is what came of a point.
type PointReport struct {
	Name     string  `json:"name"`
	Scenario string  `json:"scenario"`
	Hash     string  `json:"scenario_hash"` // but for the ack level, which is the target's
	Loop     string  `json:"loop"`
	Offered  float64 `json:"offered_per_s,omitempty"`
	Resolved string  `json:"resolved"`
	Cells    []Cell  `json:"targets"`
}

// Cell is a target at a point.
type Cell struct {
	Target      string             `json:"target"`
	Durability  driver.Durability  `json:"durability"`
	System      driver.Description `json:"system"`
	How         string             `json:"how"` // settings of the server
	Unsupported string             `json:"unsupported,omitempty"`
	Runs        []Run              `json:"runs,omitempty"`
	// Median, Min and Max of the valid runs.
	Median map[Metric]float64 `json:"median,omitempty"`
	Min    map[Metric]float64 `json:"min,omitempty"`
	Max    map[Metric]float64 `json:"max,omitempty"`
	// Ratios to the base, of turns in which both were valid.
	Ratios map[Metric]Interval `json:"ratios,omitempty"`
}

// Run is one run of a target at a point.
type Run struct {
	Point  string `json:"point"`
	Target string `json:"target"`
	Turn   int    `json:"turn"`  // from 1
	Order  int    `json:"order"` // in the turn, from 1
	RunID  string `json:"run_id"`
	// Values are empty if the run is invalid; see Late.
	Values     map[Metric]float64 `json:"values,omitempty"`
	Generator  float64            `json:"generator_share"` // of the processors, for its work
	Others     float64            `json:"others_cpus"`     // processors that other programs used meanwhile
	Steal      float64            `json:"steal"`
	Violations []string           `json:"violations,omitempty"`
	Invalid    []string           `json:"invalid,omitempty"`
	// Saturated: it is invalid since the target did not hold the rate.
	Saturated bool `json:"saturated,omitempty"`
	// Late: it is invalid for nothing but the generator's dispatch lag. Every
	// message was sent and delivered in its second, so the server's CPU time and
	// memory count; rates and latencies do not.
	Late bool `json:"late,omitempty"`
}

// Valid reports whether all of the run counts.
func (r *Run) Valid() bool { return len(r.Values) > 0 && !r.Late }

func (o *Options) validate() error {
	switch {
	case len(o.Targets) < 2:
		return fmt.Errorf("%d targets: want two or more", len(o.Targets))
	case len(o.Points) == 0:
		return errors.New("no point to compare at")
	case o.Turns < 1 || o.Turns > 1000:
		return fmt.Errorf("%d turns: want 1 to 1000", o.Turns)
	}
	seen := map[string]bool{}
	for _, t := range o.Targets {
		if seen[t.String()] {
			return fmt.Errorf("target %s is given twice", t)
		}
		seen[t.String()] = true
		if base := o.Targets[0]; t.Durability != base.Durability && !o.Unequal {
			return fmt.Errorf("an answered message of %s survives %q, one of %s %q: that is no fair comparison, and has to be asked for (--unequal)",
				base.Name, base.Durability, t.Name, t.Durability)
		}
	}
	for i := range o.Points {
		if err := o.Points[i].Scenario.Validate(); err != nil {
			return fmt.Errorf("point %s: %w", o.Points[i].Name, err)
		}
	}
	return nil
}

// Compare runs everything. A target that cannot do a scenario is left out there,
// with the reason. If ctx ends, the report is of what was run until then, and
// the error is the context's.
func Compare(ctx context.Context, o Options) (*Report, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	c := &comparison{o: o, rep: &Report{
		Schema: Schema, Began: time.Now(), Machine: sysmetrics.ThisMachine(), Turns: o.Turns, Seed: o.Seed,
		Base: o.Targets[0].String(), Unequal: unequal(o.Targets), RealTime: o.RealTime, Calm: o.Calm,
	}}
	if h, err := sysmetrics.Host(); err == nil {
		c.rep.Load = h.Load1
	}
	for _, p := range o.Points {
		s := p.Scenario
		pr := PointReport{Name: p.Name, Scenario: s.Name, Hash: s.Hash(), Loop: s.Loop, Resolved: string(s.YAML())}
		if s.Loop == scenario.OpenLoop {
			for i := range s.Phases {
				if x := &s.Phases[i]; x.Measured {
					pr.Offered = max(pr.Offered, x.Rate)
				}
			}
		}
		for _, t := range o.Targets {
			pr.Cells = append(pr.Cells, Cell{Target: t.String(), Durability: t.Durability})
		}
		c.rep.Points = append(c.rep.Points, pr)
	}
	err := c.turns(ctx)
	for i := range c.rep.Points {
		c.rep.Points[i].summarise()
	}
	c.rep.Seconds = time.Since(c.rep.Began).Seconds()
	return c.rep, err
}

func unequal(ts []Target) bool {
	return slices.ContainsFunc(ts, func(t Target) bool { return t.Durability != ts[0].Durability })
}

type comparison struct {
	o      Options
	rep    *Report
	waited time.Duration // for calm
}

// calm waits for it, as Options say.
func (c *comparison) calm(ctx context.Context) error {
	const look = 250 * time.Millisecond
	for c.o.Calm > 0 && c.waited < c.o.CalmWait {
		before, err := sysmetrics.Host()
		if err != nil {
			return err
		}
		select {
		case <-time.After(look):
		case <-ctx.Done():
			return ctx.Err()
		}
		after, err := sysmetrics.Host()
		if err != nil {
			return err
		}
		length := after.At.Sub(before.At)
		c.waited += length
		if float64(after.Busy-before.Busy) < c.o.Calm*float64(length) {
			break
		}
	}
	c.rep.CalmSeconds = c.waited.Seconds()
	return nil
}

func (c *comparison) turns(ctx context.Context) error {
	rnd := rand.New(rand.NewPCG(c.o.Seed, 0))
	for turn := 1; turn <= c.o.Turns; turn++ {
		for order, t := range rnd.Perm(len(c.o.Targets)) {
			for p := range c.o.Points {
				if c.rep.Points[p].Cells[t].Unsupported != "" {
					continue
				}
				if err := c.calm(ctx); err != nil {
					return err
				}
				if err := c.target(ctx, t, p, turn, order+1); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// stopTimeout bounds a server's graceful end; it is killed then, which is no
// matter: its directory goes as well.
const stopTimeout = 5 * time.Second

// target runs one target at one point, in a fresh server.
func (c *comparison) target(ctx context.Context, index, at, turn, order int) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	t, p := c.o.Targets[index], c.o.Points[at]
	dir, err := os.MkdirTemp(c.o.Server.Dir, "loadgen-compare-")
	if err != nil {
		return err
	}
	defer func() {
		if rerr := os.RemoveAll(dir); err == nil {
			err = rerr
		}
	}()
	so := c.o.Server
	so.Dir = dir
	s, err := t.Start(ctx, so)
	if err != nil {
		return err
	}
	defer s.Stop(stopTimeout)
	d, err := t.Open(ctx, s)
	if err != nil {
		return err
	}
	defer d.Close()
	cell := &c.rep.Points[at].Cells[index]
	if cell.System, err = d.Describe(ctx); err != nil {
		return fmt.Errorf("%s: %w", t, err)
	}
	cell.How = s.How
	plan := *p.Scenario
	plan.Producers.Ack = t.setup.ack.String()
	if err := d.Check(plan.Needs()); err != nil {
		if driver.AsUnsupported(err) == nil {
			return fmt.Errorf("%s: %w", t, err)
		}
		cell.Unsupported = strings.ReplaceAll(err.Error(), "\n", "; ")
		c.event("%s, %s: %s", t, p.Name, cell.Unsupported)
		return nil
	}
	run, res, err := c.run(ctx, &plan, d, s.PID())
	if err != nil {
		return fmt.Errorf("%s, %s: %w", t, p.Name, err)
	}
	if res.Interrupted {
		return ctx.Err()
	}
	run.Point, run.Target, run.Turn, run.Order = p.Name, t.String(), turn, order
	cell.Runs = append(cell.Runs, run)
	c.event("turn %d, %s, %s: %s", turn, t, p.Name, run.line())
	if c.o.OnResult != nil {
		return c.o.OnResult(run, res)
	}
	return nil
}

func (c *comparison) event(format string, args ...any) {
	if c.o.Event != nil {
		c.o.Event(fmt.Sprintf(format, args...))
	}
}

// run is load.Run with a look at what else the machine did.
func (c *comparison) run(ctx context.Context, s *scenario.Scenario, d driver.Driver, pid int) (Run, *load.Result, error) {
	r, err := load.New(ctx, load.Config{Scenario: s, Driver: d, TargetPID: pid, RealTime: c.o.RealTime})
	if err != nil {
		return Run{}, nil, err
	}
	before, err := sysmetrics.Host()
	if err != nil {
		return Run{}, nil, err
	}
	res, err := r.Execute(ctx)
	if err != nil {
		return Run{}, nil, err
	}
	after, err := sysmetrics.Host()
	if err != nil {
		return Run{}, nil, err
	}
	run := Run{RunID: res.RunID, Generator: res.Generator.Share, Steal: res.Generator.Steal}
	own := res.Generator.CPUSeconds
	if res.Target != nil {
		own += res.Target.CPUSeconds
	}
	if seconds := after.At.Sub(before.At).Seconds(); seconds > 0 {
		run.Others = max(0, ((after.Busy-before.Busy).Seconds()-own)/seconds)
	}
	for _, p := range res.Violations {
		run.Violations = append(run.Violations, p.String())
	}
	run.Late = len(res.Invalid) > 0
	for _, p := range res.Invalid {
		run.Invalid = append(run.Invalid, p.String())
		run.Saturated = run.Saturated || p.Kind == load.Saturated
		run.Late = run.Late && p.Kind == load.DispatchLag
	}
	if len(run.Violations) == 0 {
		run.Values = values(res, run.Late)
	}
	return run, res, nil
}

// values of a result: all of a valid one, some of one in which the generator was
// late, otherwise none.
func values(res *load.Result, late bool) map[Metric]float64 {
	v := map[Metric]float64{}
	if res.Measured != nil {
		m := &res.Measured.Total
		v[Rate], v[E2E50], v[E2E99] = m.Delivered, float64(m.Latency.E2E.P50), float64(m.Latency.E2E.P99)
		v[Ack50], v[Ack99] = float64(m.Latency.Ack.P50), float64(m.Latency.Ack.P99)
	}
	if t := res.Target; t != nil && (late || res.Measured != nil) {
		v[CPU], v[MaxRSS] = t.CPUPerMillion, float64(t.RSSMaxBytes)
	}
	return v
}

// summarise fills medians and ratios.
func (p *PointReport) summarise() {
	for i := range p.Cells {
		c := &p.Cells[i]
		c.Median, c.Min, c.Max = map[Metric]float64{}, map[Metric]float64{}, map[Metric]float64{}
		for _, m := range Metrics {
			var v []float64
			for _, r := range c.Runs {
				if x, ok := r.Values[m]; ok {
					v = append(v, x)
				}
			}
			if len(v) > 0 {
				c.Median[m], c.Min[m], c.Max[m] = median(v), slices.Min(v), slices.Max(v)
			}
		}
		if i == 0 {
			continue
		}
		c.Ratios = map[Metric]Interval{}
		for _, m := range Metrics {
			var own, base []float64
			for _, r := range c.Runs {
				for _, b := range p.Cells[0].Runs {
					if b.Turn == r.Turn { // a value that is missing is 0, and no pair
						own, base = append(own, r.Values[m]), append(base, b.Values[m])
					}
				}
			}
			if x, ok := ratio(own, base); ok {
				c.Ratios[m] = x
			}
		}
	}
}

// ExitStatus is what a command ends with: 4 if a target broke a promise; 3 if
// one has no valid run at a point, unless it did not hold the rate, which is a
// result; 0 otherwise.
func (r *Report) ExitStatus() int {
	status := 0
	for i := range r.Points {
		for j := range r.Points[i].Cells {
			c := &r.Points[i].Cells[j]
			valid := c.Unsupported != ""
			for k := range c.Runs {
				run := &c.Runs[k]
				if len(run.Violations) > 0 {
					return 4
				}
				valid = valid || run.Valid() || run.Saturated
			}
			if !valid {
				status = 3
			}
		}
	}
	return status
}
