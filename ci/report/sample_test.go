package report

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/portask/portask/ci/history"
	"github.com/portask/portask/ci/sample"
	"github.com/portask/portask/ci/verdict"
)

// example is a verdict with one of everything, the same each time.
func example(d verdict.Decision) *Document {
	random := rand.New(rand.NewPCG(7, 7))
	v := &verdict.Verdict{
		Command: "perflab gate --base HEAD~1", Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Seconds: 252, MeasureSeconds: 180, Seed: 42,
		Base:        verdict.Revision{Name: "HEAD~1", Commit: "0123456789abcdef0123", Subject: "wire: frames", Origin: "first parent"},
		Head:        verdict.Revision{Name: "HEAD", Commit: "fedcba9876543210fedc", Subject: "wire: <b>encode</b> twice", Dirty: true},
		Rules:       verdict.Rules{MinEffectCPU: 0.02, MinEffectWall: 0.03, Equivalence: 0.03, ConfirmAlpha: 0.005, BudgetSeconds: 300},
		Environment: sample.Environment{BusyShare: 0.83, StealShare: 0.012, Load1: 2.4, CPUPressure: 0.36, AvailableB: 5 << 30, ThrottledS: 0.2},
		Machine:     []verdict.Fact{{Key: "cpu", Value: "CPU X 3000"}, {Key: "go", Value: "go1.26"}},
		Rounds:      96, Disturbed: 3, Raw: "benchdata/gate/raw.txt",
	}
	entry := func(module, pkg, name string, effect, sd float64, rounds int, dec verdict.Decision) verdict.Entry {
		e := verdict.Entry{
			Bench: sample.Bench{Module: module, Package: pkg, Name: name}, Metric: "cpu-ns/op", Decision: dec, MinEffect: 0.02,
			BaseNs: 1234, HeadNs: 1234 * (1 + effect), AllocsBase: 2, AllocsHead: 2, Reason: fmt.Sprintf("%+.1f %% in %d rounds", 100*effect, rounds),
		}
		var sum float64
		for i := range rounds {
			dot := verdict.Dot{Round: i, Stage: sample.Screen, Effect: effect + sd*random.NormFloat64(), Pairs: 50}
			if i >= 8 {
				dot.Stage = sample.Confirm
			}
			if random.Float64() < 0.1 {
				dot.Interference, dot.Dropped, dot.Pairs = "steal 12 %", 9, 41
			}
			sum += dot.Effect
			e.Dots = append(e.Dots, dot)
		}
		m, half := sum/float64(rounds), 2.4*sd/math.Sqrt(float64(rounds))
		e.Effect = verdict.Estimate{Effect: m, Low: m - half, High: m + half, Confidence: 0.95, Rounds: rounds, Pairs: 50 * rounds, SD: sd, P: 0.01}
		return e
	}
	v.Entries = []verdict.Entry{
		entry("broker", "./wire", "Encode/frame=produce", 0.004, 0.011, 8, verdict.Pass),
		entry("broker", "./compression", "Compress/algorithm=zstd/level=1/size=64KiB/content=json-logs", -0.012, 0.012, 8, verdict.Pass),
		entry("broker", "./serialization", "Encode/codec=cbor/size=1KiB", -0.141, 0.014, 8, verdict.Pass),
		entry("broker", "./storage/disklog", "Append/ack=accepted/batch=64", 0.009, 0.021, 16, verdict.Pass),
		{Bench: sample.Bench{Module: "broker", Package: "./mempool", Name: "Lease"}, Decision: verdict.Skipped, Identical: true},
		{Bench: sample.Bench{Module: "broker", Package: "./bus", Name: "Ring"}, Decision: verdict.Skipped, New: true},
		{Bench: sample.Bench{Module: "broker", Package: "./queue", Name: "Claim"}, Decision: verdict.Skipped, Reason: "the budget was spent"},
	}
	if d == verdict.Fail {
		e := entry("broker", "./server", "Produce/ack=accepted", 0.058, 0.012, 32, verdict.Fail)
		e.AllocsHead = 3
		e.Top = []verdict.Function{
			{Name: "github.com/portask/portask/broker/server.(*session).produce", Kind: "cpu", Base: 240, Head: 309, Sigmas: 9.1},
			{Name: "runtime.mallocgc", Kind: "cpu", Base: 20, Head: 41, Sigmas: 4.2},
			{Name: "github.com/portask/portask/broker/server.(*session).produce", Kind: "alloc", Base: 64, Head: 128, Sigmas: 30},
		}
		e.Notes = []string{"broker/server/produce.go:88: make([]byte, n) escapes to heap", "no longer inlined: header.valid (cost 84 exceeds budget 80)"}
		v.Entries = append(v.Entries, e)
	}
	if d == verdict.Inconclusive || d == verdict.Fail {
		e := entry("broker", "./partition", "Fetch/consumers=4", 0.024, 0.05, 24, verdict.Inconclusive)
		e.Commits = 2
		v.Entries = append(v.Entries, e)
	}
	v.Controls = []verdict.Entry{
		entry("ci", "./kernel/calibrate", "Arithmetic", 0.001, 0.008, 8, verdict.Pass),
		entry("ci", "./kernel/calibrate", "Copy", -0.003, 0.012, 8, verdict.Pass),
		entry("ci", "./kernel/calibrate", "Checksum", 0.002, 0.009, 8, verdict.Pass),
	}
	target, unmet := 0.8, 1.0
	v.Objectives = []verdict.Objective{
		{Name: "accepted-throughput-over-kernel", Unit: "ratio", Kernel: "log", Value: 0.91, Low: 0.87, High: 0.95, Turns: 9, Bound: 0.8, Target: &target, Met: true, Decision: verdict.Pass},
		{Name: "durable-throughput-over-accepted", Unit: "ratio", Value: 0.62, Low: 0.55, High: 0.7, Turns: 9, Bound: 0.4, Target: &unmet, Decision: verdict.Pass},
		{Name: "syscalls-per-batch", Unit: "count", Value: 3.4, Low: 3.4, High: 3.4, Upper: true, Bound: 4, Met: true, Decision: verdict.Pass},
		{Name: "idle-connection-bytes", Unit: "B", Upper: true, Bound: 250, Decision: verdict.Skipped, Reason: "no descriptors"},
	}
	v.Counters = []verdict.Counter{
		{Name: "allocs/op broker/wire.Encode", Unit: "allocs/op", Base: 0, Head: 0, Limit: 0.005, Decision: verdict.Pass},
		{Name: "instructions broker/wire.Encode", Unit: "Ir/op", Base: 1204, Head: 1207, Limit: 0.01, Decision: verdict.Pass},
	}
	if d == verdict.Fail {
		v.Counters = append(v.Counters, verdict.Counter{Name: "allocs/op broker/server.Produce", Unit: "allocs/op", Base: 2, Head: 3, Limit: 0.005, Decision: verdict.Fail, Reason: "one more allocation in all of 3 repeats",
			Top:   []verdict.Function{{Name: "github.com/portask/portask/broker/server.(*session).header", Kind: "objects", Base: 0, Head: 1}},
			Notes: []string{"new: broker/server/produce.go: moved to heap: h"}})
	}
	v.Waivers = []verdict.Waiver{{Name: "broker/wire.Decode", Max: 0.08, Reason: "checks lengths | now", Commit: "fedcba9876543210"}}
	v.Combine()
	doc := &Document{Verdict: v, Benchstat: "benchstat says\n"}
	for i := range v.Entries {
		e := &v.Entries[i]
		if e.Effect.Rounds == 0 {
			continue
		}
		s := sample.Series{Bench: e.Bench}
		for r := range 8 {
			round := sample.Round{Index: r}
			for range 50 {
				t := 1e7 * math.Exp(0.05*math.Abs(random.NormFloat64()))
				if random.Float64() < 0.01 {
					t *= 1.8
				}
				round.Pairs = append(round.Pairs, sample.Pair{Base: sample.Slice{N: 8000, Ns: int64(t), CPUNs: int64(t)},
					Head: sample.Slice{N: 8000, Ns: int64(t), CPUNs: int64(t * (1 + e.Effect.Effect) * math.Exp(0.01*random.NormFloat64()))}})
			}
			s.Rounds = append(s.Rounds, round)
		}
		doc.Series = append(doc.Series, s)
	}
	var lines []history.Line
	for i := range 40 {
		l := history.Line{Version: 1, When: v.Started.AddDate(0, 0, i), Commit: fmt.Sprintf("%07x", 0xabc000+i), Calibration: "x", CalibrationNs: 1, Values: map[string]history.Value{}}
		level := 3.0
		if i >= 25 {
			level *= 1.04
		}
		l.Values["broker/server.Produce/ack=accepted"] = history.Value{V: level * (1 + 0.004*random.NormFloat64()), Unit: "calibration units", Ns: 900}
		l.Values["objective accepted-throughput-over-kernel"] = history.Value{V: 0.9 + 0.01*random.NormFloat64(), Unit: "ratio", Higher: true}
		lines = append(lines, l)
	}
	doc.History = history.SeriesOf(lines)
	return doc
}
