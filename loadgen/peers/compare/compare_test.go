package compare

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/portask/portask/loadgen/driver"
	"github.com/portask/portask/loadgen/launch/launchtest"
	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/peers/server"
	"github.com/portask/portask/loadgen/peers/servertest"
	"github.com/portask/portask/loadgen/scenario"
)

func TestMain(m *testing.M) { servertest.Main(m) }

// point is a short closed loop, which is valid on a busy machine too.
func point(t *testing.T, settings ...scenario.Setting) Point {
	t.Helper()
	all := append([]scenario.Setting{
		{Path: "loop", Value: "closed"}, {Path: "phases.0.duration", Value: "50ms"}, {Path: "phases.1.duration", Value: "300ms"},
		{Path: "producers.in_flight", Value: "64"},
	}, settings...)
	s, err := scenario.With(all...)
	if err != nil {
		t.Fatal(err)
	}
	return Point{Name: "max", Scenario: s}
}

func targets(t *testing.T, names ...string) []Target {
	t.Helper()
	var ts []Target
	for _, n := range names {
		x, err := ParseTarget(n, driver.OS)
		if err != nil {
			t.Fatal(err)
		}
		ts = append(ts, x)
	}
	return ts
}

// Every target at every durability it gives starts, is what it says (Open holds
// the driver's word against it), and loses nothing.
func TestEveryTargetAtEveryDurability(t *testing.T) {
	servertest.Redis(t, server.NoPersistence) // installs it where it is missing
	dir := t.TempDir()
	for _, d := range durabilities {
		t.Run(string(d), func(t *testing.T) {
			ts := AllTargets(d)
			if len(ts) < 2 || ts[0].Name != "portask" {
				t.Fatalf("targets %v", ts)
			}
			rep, err := Compare(t.Context(), Options{
				Targets: ts, Points: []Point{point(t)}, Turns: 1, Server: server.Options{Dir: dir, Program: os.Args[0], Portask: launchtest.Binary(t)}, Event: func(s string) { t.Log(s) },
			})
			if err != nil {
				t.Fatal(err)
			}
			cells := rep.Points[0].Cells
			if len(cells) != len(ts) {
				t.Fatalf("%d cells for %d targets", len(cells), len(ts))
			}
			for _, c := range cells {
				if len(c.Runs) != 1 || len(c.Runs[0].Violations) > 0 {
					t.Errorf("%s: %+v", c.Target, c.Runs)
					continue
				}
				r := c.Runs[0]
				if d != driver.Nothing && !r.Valid() { // without acknowledgement a system may drop what it likes
					t.Errorf("%s: %v", c.Target, r.Invalid)
				}
				if r.Valid() && (r.Values[Rate] <= 0 || r.Values[CPU] <= 0 || r.Values[E2E99] <= 0 || r.Values[MaxRSS] <= 0) {
					t.Errorf("%s: values %v", c.Target, r.Values)
				}
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

func TestTurnsAreShuffledPairedAndWritten(t *testing.T) {
	var runs []Run
	var now bytes.Buffer
	rep, err := Compare(t.Context(), Options{
		Targets: targets(t, "nats-jetstream@memory", "nats-core@nothing"), Unequal: true, Turns: 4, Seed: 3,
		Points: []Point{point(t), point(t, scenario.Setting{Path: "keys.count", Value: "10"})},
		Server: server.Options{Dir: t.TempDir(), Program: os.Args[0]},
		OnResult: func(r Run, res *load.Result) error {
			if res.RunID != r.RunID {
				t.Errorf("run %s with result %s", r.RunID, res.RunID)
			}
			runs = append(runs, r)
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(runs) != 8 {
		t.Fatalf("%d runs, want 2 targets in 4 turns; the point with keys is for neither", len(runs))
	}
	orders := map[string]bool{}
	for _, r := range runs {
		if r.Order == 1 {
			orders[r.Target] = true
		}
	}
	if len(orders) != 2 {
		t.Errorf("the same target was first in every turn: %v", orders)
	}
	js, core := rep.Points[0].Cells[0], rep.Points[0].Cells[1]
	if len(js.Ratios) > 0 || !rep.Unequal || rep.Base != "nats-jetstream@memory" {
		t.Errorf("base %s, unequal %v, its ratios %v", rep.Base, rep.Unequal, js.Ratios)
	}
	valid := 0
	for i := range js.Runs {
		if js.Runs[i].Valid() && core.Runs[i].Valid() {
			valid++
		}
	}
	if x := core.Ratios[Rate]; valid > 0 && (x.Pairs != valid || !(x.Low <= x.Estimate && x.Estimate <= x.High)) {
		t.Errorf("ratio %+v of %d pairs", x, valid)
	}
	for _, c := range rep.Points[1].Cells {
		if !strings.Contains(c.Unsupported, "no key") || len(c.Runs) > 0 {
			t.Errorf("%s: unsupported %q, %d runs", c.Target, c.Unsupported, len(c.Runs))
		}
	}
	for name, write := range map[string]func(*bytes.Buffer) error{
		"text":     func(b *bytes.Buffer) error { return rep.Text(b) },
		"markdown": func(b *bytes.Buffer) error { return rep.Markdown(b) },
	} {
		now.Reset()
		if err := write(&now); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"UNEQUAL", "nats-core@nothing", "cannot do this scenario: keys", "closed loop", "storage memory"} {
			if !strings.Contains(now.String(), want) {
				t.Errorf("%s without %q:\n%s", name, want, &now)
			}
		}
	}
	now.Reset()
	var back Report
	if err := rep.JSON(&now); err != nil || json.Unmarshal(now.Bytes(), &back) != nil || len(back.Points[0].Cells) != 2 || back.Points[0].Cells[0].Runs[0].Values[Rate] != js.Runs[0].Values[Rate] {
		t.Errorf("JSON: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	equal := targets(t, "portask", "redis")
	for what, o := range map[string]Options{
		"two or more":  {Targets: equal[:1]},
		"given twice":  {Targets: targets(t, "redis", "redis@os")},
		"--unequal":    {Targets: targets(t, "portask", "nats-core@nothing")},
		"want 1 to":    {Targets: equal, Turns: 1001},
		"no point":     {Targets: equal, Points: []Point{}},
		"no such file": {Targets: equal},
	} {
		if o.Turns == 0 {
			o.Turns = 1
		}
		if o.Points == nil {
			o.Points = []Point{point(t)}
		}
		o.Server = server.Options{Dir: "/nowhere-of-this-name"}
		_, err := Compare(t.Context(), o)
		if err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%v, want %q", err, what)
		}
	}
	for s, want := range map[string]string{
		"kafka": "want one of portask", "nats-core": "does not give durability os", "redis@paper": "want one of nothing", "redis@nothing": "it gives memory, os, disk",
	} {
		if _, err := ParseTarget(s, driver.OS); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", s, err, want)
		}
	}
}

// Of a run in which only the generator was late, what the server used counts, and
// nothing else; of any other invalid run, nothing.
func TestLateRuns(t *testing.T) {
	use := &load.TargetUse{CPUPerMillion: 2, RSSMaxBytes: 3}
	valid := &load.Result{Measured: &load.Measured{Total: load.Phase{Delivered: 10}}, Target: use}
	if v := values(valid, false); v[Rate] != 10 || v[CPU] != 2 || v[MaxRSS] != 3 {
		t.Errorf("valid: %v", v)
	}
	rejected := &load.Result{Rejected: valid.Measured, Target: use}
	if v := values(rejected, true); len(v) != 2 || v[CPU] != 2 || v[MaxRSS] != 3 {
		t.Errorf("late: %v", v)
	}
	if v := values(rejected, false); len(v) != 0 {
		t.Errorf("invalid: %v", v)
	}
	full := func(turn int, cpu float64) Run {
		return Run{Turn: turn, Values: map[Metric]float64{Rate: 10, CPU: cpu, E2E99: 5}}
	}
	late := func(turn int, cpu float64) Run {
		return Run{Turn: turn, Late: true, Invalid: []string{"the generator was late"}, Values: map[Metric]float64{CPU: cpu}}
	}
	p := PointReport{Name: "x", Cells: []Cell{
		{Target: "a@os", Runs: []Run{full(1, 1), full(2, 2), full(3, 1)}},
		{Target: "b@os", Runs: []Run{full(1, 3), late(2, 6), {Turn: 3, Invalid: []string{"nothing was delivered"}}}},
	}}
	p.summarise()
	if x := p.Cells[1].Ratios; math.Abs(x[CPU].Estimate-3) > 1e-9 || x[CPU].Pairs != 2 || x[E2E99].Pairs != 1 || p.Cells[1].Median[Rate] != 10 {
		t.Errorf("ratios %+v", x)
	}
	var b bytes.Buffer
	rep := Report{Base: "a@os", Points: []PointReport{p}}
	if err := rep.Text(&b); err != nil || !strings.Contains(b.String(), "1/3") || !strings.Contains(b.String(), "because the generator was late") {
		t.Errorf("%v:\n%s", err, &b)
	}
}

// An end in the middle leaves no server and no directory, and reports what was
// run.
func TestInterruption(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	dir := t.TempDir()
	rep, err := Compare(ctx, Options{
		Targets: targets(t, "nats-jetstream@memory", "nats-jetstream-fast@memory"), Points: []Point{point(t)}, Turns: 1000,
		Server:   server.Options{Dir: dir, Program: os.Args[0]},
		OnResult: func(Run, *load.Result) error { cancel(); return nil },
	})
	if err == nil || rep == nil || len(rep.Points[0].Cells[0].Runs)+len(rep.Points[0].Cells[1].Runs) != 1 {
		t.Errorf("%+v, %v", rep, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// Waiting for a calm that does not come ends.
func TestCalmIsWaitedForInBounds(t *testing.T) {
	began := time.Now()
	rep, err := Compare(t.Context(), Options{
		Targets: targets(t, "nats-jetstream@memory", "nats-jetstream-fast@memory"), Points: []Point{point(t)}, Turns: 1,
		Server: server.Options{Dir: t.TempDir(), Program: os.Args[0]}, Calm: 1e-12, CalmWait: 300 * time.Millisecond,
	})
	if err != nil || rep.CalmSeconds < 0.3 || rep.CalmSeconds > time.Since(began).Seconds() {
		t.Errorf("waited %.3f s, %v", rep.CalmSeconds, err)
	}
}

func TestTitlesSayWhatIsPromised(t *testing.T) {
	seen := map[string]bool{}
	for _, d := range durabilities {
		seen[(&Report{Points: []PointReport{{Cells: []Cell{{Durability: d}}}}}).title()] = true
	}
	seen[(&Report{Unequal: true}).title()] = true
	if len(seen) != 5 {
		t.Errorf("titles %v", seen)
	}
}

// Of many invalid runs the first are explained, and the rest counted.
func TestFaultsAreShort(t *testing.T) {
	c := Cell{Target: "a@os"}
	for i := range 9 {
		c.Runs = append(c.Runs, Run{Turn: i + 1, Invalid: []string{"late", "slow"}})
	}
	c.Runs[8].Violations = []string{"lost"}
	var b bytes.Buffer
	c.faults(&printer{w: &b}, "- ")
	if got := b.String(); strings.Count(got, "late; slow") != faultsShown || !strings.Contains(got, "in 6 more turns") || !strings.Contains(got, "turn 9: VIOLATION: lost") {
		t.Error(got)
	}
}

func TestExitStatus(t *testing.T) {
	good, bad := Run{Values: map[Metric]float64{Rate: 1}}, Run{Invalid: []string{"x"}}
	saturated, violated := Run{Invalid: []string{"x"}, Saturated: true}, Run{Violations: []string{"x"}}
	for want, cells := range map[int][][]Run{0: {{good, bad}, {saturated}}, 3: {{good}, {bad, bad}}, 4: {{bad}, {good, violated}}} {
		var p PointReport
		for _, runs := range cells {
			p.Cells = append(p.Cells, Cell{Runs: runs})
		}
		p.Cells = append(p.Cells, Cell{Unsupported: "x"})
		if got := (&Report{Points: []PointReport{p}}).ExitStatus(); got != want {
			t.Errorf("status %d, want %d", got, want)
		}
	}
}
