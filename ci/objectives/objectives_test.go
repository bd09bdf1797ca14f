package objectives

import (
	"context"
	"errors"
	"math"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portask/portask/ci/internal/counters"
	"github.com/portask/portask/ci/internal/slo"
	"github.com/portask/portask/ci/lab"
	"github.com/portask/portask/ci/policy/check"
	"github.com/portask/portask/ci/verdict"
)

func root() string { return filepath.Join("..", "..") }

func shipped(t *testing.T) *slo.File {
	t.Helper()
	f, err := slo.Load(filepath.Join(root(), "configs", "slo.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// measuredNames are the objectives that this package's lanes tell, by lane.
func measuredNames() map[string][]string {
	names := map[string][]string{
		"saturated": {lab.ThroughputOverKernel, lab.CPUOverKernel, lab.DurableOverAccepted, lab.SyscallsPerBatch, lab.KernelShare, "broker-cpu-per-million"},
		"load":      {"cpu-share-100k-random", "cpu-share-100k-compressible", "e2e-p99-accepted", "e2e-p99-durable", "durable-ack-p50-over-fdatasync"},
		"idle":      {lab.IdleConnectionBytes, "rss-100k-connections", "core-memory"},
		"start":     {lab.Start1GiB},
	}
	for _, b := range counters.Budgets {
		if !slices.Contains(names["budgets"], b.Objective) {
			names["budgets"] = append(names["budgets"], b.Objective)
		}
	}
	for _, b := range benchmarks {
		names["benchmark"] = append(names["benchmark"], b.objective)
	}
	for _, r := range rivals {
		names["peers"] = append(names["peers"], r.objective)
	}
	names["policy"] = check.Names()
	return names
}

// TestFileAndLanesAgree: every objective of the file is told by its lane, and
// every figure that a lane tells has an objective.
func TestFileAndLanesAgree(t *testing.T) {
	f := shipped(t)
	for lane, names := range measuredNames() {
		var have []string
		for _, o := range f.Of(lane) {
			have = append(have, o.Name)
		}
		slices.Sort(have)
		slices.Sort(names)
		if !slices.Equal(have, names) {
			t.Errorf("lane %s: the file has %q, measured are %q", lane, have, names)
		}
	}
}

// TestPeersAreRead: the kept comparison has every figure that is promised.
func TestPeersAreRead(t *testing.T) {
	var out strings.Builder
	res, err := Measure(context.Background(), Options{Root: root(), File: shipped(t), Lanes: []string{"peers"}, Out: &out})
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Objectives) != len(rivals) {
		t.Errorf("%d objectives, want %d", len(res.Objectives), len(rivals))
	}
	for _, v := range res.Objectives {
		if v.Turns != 1 || !(v.Value > 0) {
			t.Errorf("%+v", v)
		}
	}
	if err := res.Err(); err != nil {
		t.Errorf("what is kept misses what is enforced: %v", err)
	}
	if _, err := Measure(context.Background(), Options{Root: t.TempDir(), File: shipped(t), Lanes: []string{"peers"}, Out: &out}); err == nil {
		t.Error("a missing file was no error")
	}
	if _, err := Measure(context.Background(), Options{Root: root(), File: shipped(t), Lanes: []string{"nowhere"}, Out: &out}); err == nil {
		t.Error("an unknown lane was no error")
	}
}

func scripted(t *testing.T, budget time.Duration) *session {
	t.Helper()
	f, err := slo.Parse([]byte(`
version: 2
objectives:
  - {name: a, lane: load, unit: ratio, max: 1, why: x, set: x}
  - {name: b, lane: saturated, unit: ratio, max: 1, why: x, set: x}
`))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	return &session{Options: Options{File: f, Out: &out, Budget: budget, Lanes: []string{"load", "saturated"}},
		Result: Result{Samples: map[string][]slo.Sample{}}, exact: map[string]bool{}, begun: time.Now()}
}

// TestLanesAlternate: the shorter lane is spread over the longer one.
func TestLanesAlternate(t *testing.T) {
	s := scripted(t, time.Hour)
	var order string
	lane := func(name string, turns int) *turning {
		return &turning{name: name, turns: turns, run: func(context.Context) error { order += name; return nil }}
	}
	if err := s.alternate(context.Background(), []*turning{lane("l", 6), lane("s", 3)}, time.Hour); err != nil {
		t.Fatal(err)
	}
	if order != "llsllslls" {
		t.Errorf("order %s", order)
	}
	spent := scripted(t, time.Nanosecond)
	order = ""
	if err := spent.alternate(context.Background(), []*turning{lane("l", 6)}, spent.Budget); err != nil || order != "" {
		t.Errorf("beyond the budget: %q, %v", order, err)
	}
}

// TestUnsettledLanes: open and missed ask for more turns, kept does not.
func TestUnsettledLanes(t *testing.T) {
	s := scripted(t, time.Hour)
	add := func(name string, values ...float64) {
		for _, v := range values {
			s.Samples[name] = append(s.Samples[name], slo.Sample{Value: v})
		}
	}
	add("a", 0.5, 0.5, 0.5, 0.5, 0.5, 0.5)
	add("b", 2, 2, 2, 2, 2, 2)
	if s.unsettled("load") || !s.unsettled("saturated") {
		t.Error("a kept bound is not settled, or a missed one is")
	}
	s.Objectives = s.judge()
	if s.Err() == nil || !errors.Is(s.Err(), slo.ErrMissed) {
		t.Errorf("missed: %v", s.Err())
	}
	add("b", 0.5, 0.5, 0.5, 0.5, 0.5, 0.5)
	s.Objectives = s.judge()
	if s.Err() != nil || !slices.Equal(s.Open(), []string{"b"}) || s.Objectives[1].Decision != verdict.Inconclusive {
		t.Errorf("after turns that disagree: %v, open %q", s.Err(), s.Open())
	}
}

// TestTurnsAreRunAgain: once, unless a promise was broken.
func TestTurnsAreRunAgain(t *testing.T) {
	s := scripted(t, time.Hour)
	for _, tt := range []struct {
		what  string
		errs  []error
		calls int
		ok    bool
	}{
		{"well", []error{nil}, 1, true},
		{"not started in time", []error{errors.New("slow"), nil}, 2, true},
		{"twice", []error{errors.New("slow"), errors.New("slow")}, 2, false},
		{"a message lost", []error{lab.ErrViolated}, 1, false},
	} {
		calls := 0
		err := s.turn(context.Background(), &turning{name: "x", run: func(context.Context) error {
			calls++
			return tt.errs[calls-1]
		}})
		if calls != tt.calls || (err == nil) != tt.ok {
			t.Errorf("%s: %d calls, %v", tt.what, calls, err)
		}
	}
}

// TestDisturbedTurns: what others take of the processors is told from what this
// program and its children take, and marks the samples of the turn.
func TestDisturbedTurns(t *testing.T) {
	at := time.Now()
	from := usage{at: at, all: time.Hour, own: time.Minute}
	cores := time.Duration(runtime.NumCPU())
	for _, tt := range []struct {
		all, own, steal time.Duration
		want            float64
	}{
		{cores * time.Second, cores * time.Second, 0, 0},
		{cores * time.Second, 0, 0, 1},
		{cores * time.Second, cores * time.Second / 2, 0, 0.5},
		{0, 0, cores * time.Second / 4, 0.25},
		{0, time.Second, 0, 0}, // ticks are coarser than what a process is charged
	} {
		got := othersShare(from, usage{at: at.Add(time.Second), all: from.all + tt.all, own: from.own + tt.own, steal: tt.steal})
		if math.Abs(got-tt.want) > 1e-9 {
			t.Errorf("%+v: %v", tt, got)
		}
	}
	if othersShare(from, from) != 0 {
		t.Error("no time went by and others took it")
	}
	s := scripted(t, time.Hour)
	err := s.turn(context.Background(), &turning{name: "load", run: func(context.Context) error {
		s.sample("a", 2, true)
		s.sample("b", 3, false)
		s.sample("b", math.NaN(), false)
		return nil
	}})
	if err != nil || len(s.Samples["a"]) != 1 || len(s.Samples["b"]) != 1 || !s.Samples["a"][0].Worst || len(s.Others) != 1 {
		t.Errorf("%v, samples %v, others %v", err, s.Samples, s.Others)
	}
}

// The lane is all of `perflab policy check` that a gate has: it prints the
// tables and each figure, and a bound that is missed fails the run.
func TestPolicyLaneIsThePolicyCheck(t *testing.T) {
	f := shipped(t)
	o, ok := f.Find("policy-regret-mean")
	if !ok || o.Max == nil {
		t.Fatal("no bound on the policy's mean regret")
	}
	*o.Max /= 1000
	o.Target = nil
	var out strings.Builder
	res, err := Measure(t.Context(), Options{Root: root(), File: f, Lanes: []string{"policy"}, Out: &out})
	if err != nil {
		t.Fatal(err)
	}
	if err := res.Err(); !errors.Is(err, slo.ErrMissed) || !strings.Contains(err.Error(), "policy-regret-mean") || strings.Contains(err.Error(), "policy-regret-p95") {
		t.Errorf("the missed bound, and it alone, fails: %v", err)
	}
	if len(res.Objectives) != len(check.Names()) {
		t.Errorf("%d objectives, the check has %d figures", len(res.Objectives), len(check.Names()))
	}
	for _, want := range append(check.Names(), "stationary: ", "drifting: ", "FAIL") {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not printed", want)
		}
	}
	t.Log(out.String())
}
