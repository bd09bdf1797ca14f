package gate

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/portask/portask/ci/sample"
	"github.com/portask/portask/ci/verdict"
)

func judgeAll(t *testing.T, s *sim, change ...func(*Options)) *verdict.Verdict {
	t.Helper()
	o := Options{Rules: DefaultRules(), Seed: 5, Now: s.Now, Log: func(l string) { t.Log(l) }}
	for _, c := range change {
		c(&o)
	}
	v, series, err := Run(t.Context(), s, o)
	if err != nil {
		t.Fatal(err)
	}
	rounds := 0
	for i := range series {
		rounds += len(series[i].Rounds)
	}
	if rounds != v.Rounds {
		t.Errorf("verdict counts %d rounds, the series have %d", v.Rounds, rounds)
	}
	v.Combine()
	return v
}

func control(name string) simSubject {
	return simSubject{Subject: Subject{Bench: sample.Bench{Module: "control", Package: ".", Name: name}, Control: true}}
}

func slower(percent float64) simSubject {
	l := math.Log1p(percent / 100)
	return simSubject{cpu: l, wall: l}
}

func TestSlowerBenchmarkFailsAndTheOthersPass(t *testing.T) {
	s := newSim(1, control("alu"), simSubject{}, slower(5), simSubject{})
	v := judgeAll(t, s)
	if v.Decision != verdict.Fail || len(v.Reasons) != 1 || !strings.HasPrefix(v.Reasons[0], "./p.C: +") {
		t.Fatalf("%s %q", v.Decision, v.Reasons)
	}
	e := v.Entries[1]
	if e.Effect.Effect < 0.035 || e.Effect.Effect > 0.065 || e.Confirm == nil || e.Screen == nil || e.Other == nil {
		t.Errorf("%+v", e)
	}
	if e.Confirm.Rounds != s.stages[2][sample.Confirm] || e.Effect != *e.Confirm {
		t.Errorf("the effect %+v does not rest on the %d confirmation rounds alone", e.Effect, s.stages[2][sample.Confirm])
	}
	if e.BaseNs <= 0 || e.HeadNs < e.BaseNs {
		t.Errorf("base %v ns, head %v ns", e.BaseNs, e.HeadNs)
	}
	if len(e.Dots) != s.rounds[2] {
		t.Errorf("%d dots, %d rounds", len(e.Dots), s.rounds[2])
	}
	for _, i := range []int{0, 2} {
		if v.Entries[i].Decision != verdict.Pass {
			t.Errorf("%s: %s", v.Entries[i].Bench, v.Entries[i].Reason)
		}
	}
	if v.Seed != 5 || v.MeasureSeconds < 10 || v.Environment.BusyShare != 0.5 {
		t.Errorf("%+v", v)
	}
}

func TestFasterBenchmarkPasses(t *testing.T) {
	v := judgeAll(t, newSim(2, slower(-8)))
	if v.Decision != verdict.Pass || !strings.Contains(v.Entries[0].Reason, "faster") {
		t.Errorf("%s: %s", v.Decision, v.Entries[0].Reason)
	}
}

// 40 A/A suites with noise as measured, some benchmarks noisier than any that
// the study saw, and lucky and unlucky layouts.
func TestNoFalseAlarmsInSimulation(t *testing.T) {
	open := 0
	for seed := range uint64(40) {
		s := newSim(seed, control("alu"), control("copy"), simSubject{}, simSubject{floor: 0.02, pair: 0.04},
			simSubject{floor: 0.035}, simSubject{layout: 0.01}, simSubject{layout: 0.045}, simSubject{Subject: Subject{Metric: sample.Wall}})
		v, _, err := Run(t.Context(), s, Options{Rules: DefaultRules(), Seed: seed, Now: s.Now})
		if err != nil {
			t.Fatal(err)
		}
		switch v.Combine() {
		case verdict.Pass:
		case verdict.Inconclusive:
			open++
		default:
			t.Errorf("seed %d: %s %q", seed, v.Decision, v.Reasons)
		}
	}
	t.Logf("%d of 40 inconclusive", open)
}

func TestFivePerCentIsFoundUnderNoise(t *testing.T) {
	for name, luck := range map[string]simSubject{"processes": {floor: 0.02}, "layouts": {layout: 0.04}} {
		found := 0
		for seed := range uint64(30) {
			sub := slower(5)
			sub.floor, sub.layout = luck.floor, luck.layout
			s := newSim(seed, sub)
			v, _, err := Run(t.Context(), s, Options{Rules: DefaultRules(), Seed: seed, Now: s.Now})
			if err != nil {
				t.Fatal(err)
			}
			if v.Combine() == verdict.Fail {
				found++
			}
			if v.MeasureSeconds > 90 {
				t.Errorf("seed %d: %.0f s of rounds", seed, v.MeasureSeconds)
			}
		}
		if found < 28 {
			t.Errorf("luck of %s: found in %d of 30", name, found)
		}
	}
}

// A sleep costs no CPU: the metric that is not judged finds it.
func TestSleepIsFoundByTheOtherMetric(t *testing.T) {
	v := judgeAll(t, newSim(3, simSubject{wall: math.Log(1.3)}))
	e := v.Entries[0]
	if v.Decision != verdict.Fail || e.Metric != "ns/op" || e.Effect.Effect < 0.2 || math.Abs(e.MinEffect-0.1) > 1e-9 {
		t.Errorf("%s %+v", v.Decision, e)
	}
	// Where time on the wall is judged, the smaller limit holds.
	v = judgeAll(t, newSim(3, simSubject{Subject: Subject{Metric: sample.Wall}, wall: math.Log(1.08)}))
	if v.Decision != verdict.Fail || math.Abs(v.Entries[0].MinEffect-0.03) > 1e-9 {
		t.Errorf("%s %+v", v.Decision, v.Entries[0])
	}
}

func TestControlThatDiffersMakesTheRunInvalid(t *testing.T) {
	for _, percent := range []float64{6, -6} {
		c := control("alu")
		c.cpu, c.wall = math.Log1p(percent/100), math.Log1p(percent/100)
		v := judgeAll(t, newSim(4, c, simSubject{}))
		if v.Decision != verdict.Invalid || v.Decision.ExitStatus() != 3 || !strings.Contains(v.Reasons[0], "control.alu") {
			t.Errorf("%+v %%: %s %q", percent, v.Decision, v.Reasons)
		}
	}
}

func TestNothingIsMeasuredWithoutADifference(t *testing.T) {
	s := newSim(5, control("alu"), simSubject{Subject: Subject{Identical: true}}, simSubject{Subject: Subject{New: true}})
	v := judgeAll(t, s)
	if v.Decision != verdict.Pass || v.Rounds != 0 || v.Entries[0].Decision != verdict.Skipped || v.Entries[1].Decision != verdict.Skipped {
		t.Errorf("%s after %d rounds: %+v", v.Decision, v.Rounds, v.Entries)
	}
	// An A/A run measures them all the same.
	v = judgeAll(t, newSim(5, control("alu"), simSubject{Subject: Subject{Identical: true}}), func(o *Options) { o.Force = true })
	if v.Decision != verdict.Pass || v.Entries[0].Decision != verdict.Pass || len(v.Controls) != 1 || v.Controls[0].Decision != verdict.Pass {
		t.Errorf("%s: %+v %+v", v.Decision, v.Entries, v.Controls)
	}
}

func TestOneMoreAllocationFails(t *testing.T) {
	v := judgeAll(t, newSim(6, simSubject{allocs: [2]int64{3, 4}}, simSubject{allocs: [2]int64{3, 3}}))
	if v.Decision != verdict.Fail || len(v.Reasons) != 2 || !strings.HasPrefix(v.Reasons[0], "allocs/op ./p.A") {
		t.Errorf("%s %q", v.Decision, v.Reasons)
	}
	for _, e := range v.Entries {
		if e.Decision != verdict.Pass {
			t.Errorf("%s: %s", e.Bench, e.Reason)
		}
	}
	// From none to one.
	if v := judgeAll(t, newSim(6, simSubject{allocs: [2]int64{0, 1}})); v.Decision != verdict.Fail {
		t.Errorf("%s", v.Decision)
	}
	// Fewer is no failure.
	if v := judgeAll(t, newSim(6, simSubject{allocs: [2]int64{4, 3}})); v.Decision != verdict.Pass {
		t.Errorf("%s %q", v.Decision, v.Reasons)
	}
}

func TestWaiverCoversUpToItsLimit(t *testing.T) {
	for _, c := range []struct {
		limit float64
		want  verdict.Decision
	}{{0.10, verdict.Pass}, {0.03, verdict.Fail}} {
		s := newSim(7, slower(6))
		name := s.subjects[0].Bench.String()
		v := judgeAll(t, s, func(o *Options) {
			o.Waivers = []verdict.Waiver{{Name: name, Max: c.limit, Reason: "checksums"}}
		})
		used := c.want == verdict.Pass
		if v.Decision != c.want || v.Waivers[0].Used != used || (v.Entries[0].Waived != nil) != used {
			t.Errorf("limit %v: %s %+v", c.limit, v.Decision, v.Entries[0])
		}
	}
}

func TestThirdTimeOpenFails(t *testing.T) {
	noisy := simSubject{dropped: true}
	for open, want := range []verdict.Decision{verdict.Inconclusive, verdict.Inconclusive, verdict.Fail} {
		s := newSim(8, simSubject{}, noisy)
		v := judgeAll(t, s, func(o *Options) {
			o.Open = map[string]int{s.subjects[1].Bench.String(): open}
		})
		var e verdict.Entry
		for _, x := range v.Entries {
			if x.Bench == s.subjects[1].Bench {
				e = x
			}
		}
		if v.Decision != want || e.Commits != open+1 {
			t.Errorf("open %d before: %s, %+v", open, v.Decision, e)
		}
		if open > 0 && s.order[0] != 1 {
			t.Errorf("open %d before, but measured after %d", open, s.order[0])
		}
	}
}

func TestBudgetLeavesOutWhatTheChangeHardlyTouches(t *testing.T) {
	var subjects []simSubject
	for i := range 20 {
		subjects = append(subjects, simSubject{Subject: Subject{
			Bench: sample.Bench{Module: ".", Package: "./p", Name: fmt.Sprintf("N%02d", i)}, Risk: i % 3,
		}})
	}
	subjects[19].cpu, subjects[19].Risk = math.Log(1.1), 0
	subjects[19].wall = subjects[19].cpu
	s := newSim(9, subjects...)
	v := judgeAll(t, s, func(o *Options) { o.Rules.BudgetSeconds = 90 })
	if v.MeasureSeconds > 91.2 {
		t.Errorf("%v s of a budget of 90", v.MeasureSeconds)
	}
	left := 0
	risky := 0
	for _, e := range v.Entries {
		if e.Decision == verdict.Skipped {
			left++
			if s.risk(e.Bench) == 0 {
				risky++
			}
			if !strings.Contains(e.Reason, "90 s") {
				t.Errorf("reason %q", e.Reason)
			}
		}
	}
	if left == 0 || risky > 0 {
		t.Errorf("%d left out, %d of them touched by the change", left, risky)
	}
	if v.Decision != verdict.Fail || !strings.Contains(v.Reasons[0], "N19") {
		t.Errorf("%s %q", v.Decision, v.Reasons)
	}
}

func TestWhatCannotBeMeasured(t *testing.T) {
	broken := simSubject{err: errors.New("benchmark failed: boom")}
	v := judgeAll(t, newSim(10, broken, simSubject{}))
	if v.Decision != verdict.Invalid || !strings.Contains(v.Reasons[0], "boom") || v.Entries[1].Decision != verdict.Pass {
		t.Errorf("%s %q", v.Decision, v.Reasons)
	}
	// A machine too busy for any pair leaves it open, and the rounds are kept.
	v = judgeAll(t, newSim(10, simSubject{dropped: true}))
	if v.Decision != verdict.Inconclusive || v.Disturbed != v.Rounds || v.Rounds < 8 || !strings.Contains(v.Entries[0].Reason, "not disturbed") {
		t.Errorf("%s, %d of %d disturbed: %+v", v.Decision, v.Disturbed, v.Rounds, v.Entries)
	}
	if len(v.Entries[0].Dots) != v.Rounds {
		t.Errorf("%d dots of %d rounds", len(v.Entries[0].Dots), v.Rounds)
	}
}

func TestNoTimeAtAll(t *testing.T) {
	s := newSim(11, simSubject{cost: time.Hour}, simSubject{cost: time.Hour})
	v := judgeAll(t, s)
	if v.Rounds != 1 || v.Decision != verdict.Inconclusive || v.Entries[0].Decision != verdict.Inconclusive || v.Entries[1].Decision != verdict.Skipped {
		t.Errorf("%s after %d rounds: %+v", v.Decision, v.Rounds, v.Entries)
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := Run(ctx, newSim(12, simSubject{}), Options{Rules: DefaultRules()}); !errors.Is(err, context.Canceled) {
		t.Errorf("err %v", err)
	}
}

func TestTheSameSeedMakesTheSameVerdict(t *testing.T) {
	print := func() string {
		v := judgeAll(t, newSim(13, control("alu"), simSubject{}, slower(4)))
		var b strings.Builder
		if err := v.Write(&b); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	first, second := print(), print()
	if first != second {
		t.Error("two verdicts of the same rounds differ")
	}
}

func TestWaiverTrailers(t *testing.T) {
	got, err := Waivers("abc", "x: y\n\nbody mentions perf-accept: nothing\nperf-accept: broker/wire.Encode 8% the checksum is worth it\n  perf-accept: slo-name 12.5% agreed with the owners\n")
	if err != nil || len(got) != 2 || got[0].Name != "broker/wire.Encode" || got[0].Max != 0.08 || got[0].Reason != "the checksum is worth it" || got[1].Max != 0.125 || got[1].Commit != "abc" {
		t.Fatalf("%+v, %v", got, err)
	}
	for _, bad := range []string{
		"perf-accept:", "perf-accept: x", "perf-accept: x 8 no per cent sign", "perf-accept: x -1% negative limits", "perf-accept: x 501% far too great a limit",
		"Perf-Accept: x", "perf-accept x 8% the colon is missing", "perf_accept: x 8% not the key's spelling", "perf accept: x 8% not the key's spelling",
		"perf-accepts: x 8% not the key's spelling", "perf-accept= x 8% not the separator", "perf-accept: x NaN% not a number at all", "perf-accept: x 8% short", strings.Repeat("perf-accept: x 8% one of too many\n", 21),
	} {
		if w, err := Waivers("abc", bad); err == nil {
			t.Errorf("%q: %+v", bad, w)
		}
	}
}

// As git reads trailers: whoever writes Perf-Accept means it.
func TestWaiverKeyInAnyCase(t *testing.T) {
	for _, line := range []string{"Perf-Accept: a.B 8% agreed with all", "PERF-ACCEPT:a.B 8% agreed with all", "perf-accept : a.B 8% agreed with all", "\tPerf-accept\t: a.B\t8% agreed with all\r"} {
		if got, err := Waivers("abc", "subject\n\n"+line+"\n"); err != nil || len(got) != 1 || got[0].Name != "a.B" || got[0].Max != 0.08 || got[0].Reason != "agreed with all" {
			t.Errorf("%q: %+v, %v", line, got, err)
		}
	}
	for _, prose := range []string{"perf-accept lines are read by the gate", "perf-accepting: a word of its own", "the perf-accept: key"} {
		if got, err := Waivers("abc", prose); err != nil || len(got) != 0 {
			t.Errorf("%q: %+v, %v", prose, got, err)
		}
	}
	if _, err := Waivers("0123456789abcdef", "Perf_Accept: a.B 8% agreed with all"); err == nil || !strings.Contains(err.Error(), "0123456789") || !strings.Contains(err.Error(), "Perf_Accept") {
		t.Errorf("the problem does not name commit and line: %v", err)
	}
}

func FuzzWaivers(f *testing.F) {
	f.Add("perf-accept: a 8% because it is so\n")
	f.Fuzz(func(t *testing.T, message string) {
		ws, err := Waivers("c", message)
		if err != nil && len(ws) > 0 {
			t.Error("waivers beside an error")
		}
		for _, w := range ws {
			if !(w.Max > 0 && w.Max <= waiverMax) || w.Name == "" || strings.ContainsAny(w.Name, " \n") || len(w.Reason) < reasonMin {
				t.Errorf("%+v", w)
			}
		}
	})
}
