package load

import (
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portask/portask/loadgen/scenario"
	"github.com/portask/portask/loadgen/verify"
)

func valid() *Result {
	p := Phase{
		Name: "main", Measured: true, Seconds: 1, Offered: 1000, Sent: 999, Delivered: 999,
		Latency: Latencies{E2E: Quantiles{P99: 10_000_000}, Ack: Quantiles{P99: 8_000_000}, Lag: Quantiles{P99: 700_000}},
	}
	warm := Phase{Name: "warm-up", Offered: 1000, Sent: 1, Latency: Latencies{Lag: Quantiles{P99: 1e9}}}
	return &Result{
		Loop: scenario.OpenLoop, Ack: "durable", Complete: true, Measured: &Measured{Total: p, Phases: []Phase{warm, p}},
		Counts: verify.Counts{Sent: 10, Acked: 10, Delivered: 10},
	}
}

func TestJudge(t *testing.T) {
	main := func(r *Result) *Phase { return &r.Measured.Phases[1] }
	for _, tt := range []struct {
		name   string
		change func(*Result)
		status int
		kind   string
		says   string
	}{
		{"all well", func(*Result) {}, 0, "", ""},
		{"lost", func(r *Result) { r.Counts.Lost = 3 }, 4, Lost, "3 acknowledged and not delivered"},
		{"lost where nothing is promised", func(r *Result) { r.Counts.Lost = 3; r.Ack = "none" }, 0, "", ""},
		{"duplicated", func(r *Result) { r.Counts.Duplicated = 1 }, 4, Duplicated, "1 delivered more than once"},
		{"reordered", func(r *Result) { r.Counts.Reordered = 1 }, 4, Reordered, "out of order"},
		{"corrupt", func(r *Result) { r.Counts.Corrupt = 1 }, 4, Corrupt, "corrupt"},
		{"phantom", func(r *Result) { r.Counts.Phantom = 1 }, 4, Phantom, "never sent"},
		{"misplaced", func(r *Result) { r.Counts.Misplaced = 1 }, 4, Misplaced, "another partition"},
		{"offset used again", func(r *Result) { r.OffsetsBack = 1 }, 4, OffsetUsed, "offset already used"},
		{"other producers' messages", func(r *Result) { r.Counts.Foreign = 100 }, 0, "", ""},
		{"delivered without an answer", func(r *Result) { r.Counts.UnackedDelivered = 5 }, 0, "", ""},
		{"lag", func(r *Result) { main(r).Latency.Lag.P99 = 900_000 }, 3, DispatchLag, "main: the generator's dispatch lag"},
		{"lag in closed mode", func(r *Result) { main(r).Latency.Lag.P99 = 900_000; r.Loop = scenario.ClosedLoop }, 0, "", ""},
		{"rate missed", func(r *Result) { main(r).Sent = 990 }, 3, RateMissed, "990 messages a second were sent of 1000 offered: the generator"},
		{"rate missed by the target", func(r *Result) { main(r).Sent = 990; main(r).HeldBack = 5 }, 3, Saturated, "the target held 5 messages back"},
		{"two messages at the ends", func(r *Result) { main(r).Sent = 993 }, 0, "", ""},
		{"generator", func(r *Result) { r.Generator.Share = 0.9 }, 3, BusyCPU, "90 % of the processors"},
		{"a pacer that spins", func(r *Result) { r.Generator.SpinSeconds = 900 }, 0, "", ""},
		{"interrupted", func(r *Result) { r.Interrupted = true }, 3, Interrupted, "interrupted"},
		{"not drained", func(r *Result) { r.Complete = false; r.Counts.Unanswered = 7 }, 3, Unsettled, "7 messages without an answer"},
		{"target gone", func(r *Result) { r.Complete = false; r.Counts.Failed = 9 }, 3, Unsettled, "what is stored could not be read"},
		{"nothing", func(r *Result) { r.Counts = verify.Counts{} }, 3, Empty, "nothing was delivered"},
		{"violation before validity", func(r *Result) { r.Counts.Corrupt = 1; main(r).Sent = 1 }, 4, Corrupt, "corrupt"},
	} {
		r := valid()
		tt.change(r)
		r.judge(scenario.Default())
		var all []string
		for _, p := range slices.Concat(r.Violations, r.Invalid, r.Missed) {
			all = append(all, p.Kind+" "+p.String())
		}
		said := strings.Join(all, "; ")
		if got := r.ExitStatus(); got != tt.status || !strings.Contains(said, tt.says) || !strings.Contains(said, tt.kind) || (tt.status == 0) != (said == "") {
			t.Errorf("%s: status %d (%s), want %d with %s %q", tt.name, got, said, tt.status, tt.kind, tt.says)
		}
		if (r.Measured != nil) != r.Valid() || (r.Rejected != nil) == r.Valid() {
			t.Errorf("%s: valid %v, measured %v, rejected %v", tt.name, r.Valid(), r.Measured != nil, r.Rejected != nil)
		}
	}
}

func TestObjectives(t *testing.T) {
	for _, tt := range []struct {
		o    scenario.Objective
		says string
	}{
		{scenario.Objective{Metric: "e2e_p99", AtMost: 10 * time.Millisecond}, ""},
		{scenario.Objective{Metric: "e2e_p99", AtMost: 9 * time.Millisecond}, "e2e_p99 10ms, objective 9ms"},
		{scenario.Objective{Metric: "ack_p99", AtMost: 9 * time.Millisecond, Phase: "main"}, ""},
		{scenario.Objective{Metric: "ack_p99", AtMost: time.Millisecond, Phase: "main"}, "main: ack_p99 8ms"},
		{scenario.Objective{Metric: "delivered_rate", AtLeast: 999}, ""},
		{scenario.Objective{Metric: "delivered_rate", AtLeast: 1000}, "delivered_rate 999 messages a second, objective 1000"},
		{scenario.Objective{Metric: "acked_rate", AtLeast: 1}, "acked_rate 0"},
	} {
		s := scenario.Default()
		s.Objectives = []scenario.Objective{tt.o}
		r := valid()
		r.judge(s)
		said := ""
		for _, p := range r.Missed {
			said += p.String()
		}
		if (said == "") != (tt.says == "") || !strings.Contains(said, tt.says) || (r.ExitStatus() == 2) != (tt.says != "") {
			t.Errorf("%+v: %q, status %d, want %q", tt.o, said, r.ExitStatus(), tt.says)
		}
	}
	// Every metric a scenario may name can be judged.
	for _, m := range scenario.Metrics {
		s := scenario.Default()
		s.Objectives = []scenario.Objective{{Metric: m, AtMost: 1, AtLeast: 1e8}}
		r := valid()
		r.Measured.Total.Latency.Service = Quantiles{P50: 2, P90: 2, P99: 2, P999: 2, Max: 2}
		r.Measured.Total.Latency.E2E, r.Measured.Total.Latency.Ack = r.Measured.Total.Latency.Service, r.Measured.Total.Latency.Service
		r.judge(s)
		if len(r.Missed) != 1 || r.Missed[0].Kind != m {
			t.Errorf("%s: missed %v", m, r.Missed)
		}
	}
}

func TestTargetAcrossARestart(t *testing.T) {
	r := &Run{}
	if err := r.SetTarget(os.Getpid()); err == nil {
		t.Error("a target out of nowhere was accepted")
	}
	var err error
	if r.target, err = newTarget(os.Getpid()); err != nil {
		t.Fatal(err)
	}
	r.target.base -= time.Second // as if a second had been spent
	r.SampleTarget()
	if err := r.SetTarget(os.Getpid()); err != nil {
		t.Fatal(err)
	}
	before := r.target.use(1)
	if before.CPUSeconds < 1 || before.CPUSeconds > 30 {
		t.Errorf("after the restart %v s, want the old process's second", before.CPUSeconds)
	}
	r.SampleTarget()
	if u := r.target.use(1_000_000); u.CPUSeconds <= before.CPUSeconds || math.Abs(u.CPUPerMillion-u.CPUSeconds) > 1e-9*u.CPUSeconds || u.RSSBytes == 0 {
		t.Errorf("use %+v, want more than %v s, and as much for a million", u, before.CPUSeconds)
	}
	if (*target)(nil).use(1) != nil {
		t.Error("use of no target")
	}
}
