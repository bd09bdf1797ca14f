package search

import (
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/portask/portask/loadgen/driver/loopback"
	"github.com/portask/portask/loadgen/driver/portask"
	"github.com/portask/portask/loadgen/launch/launchtest"
	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/scenario"
	"github.com/portask/portask/loadgen/verify"
)

func TestMain(m *testing.M) { launchtest.Main(m, func() error { return goleak.Find() }) }

func prober(t *testing.T, atMost time.Duration) *Prober {
	t.Helper()
	s := scenario.Default()
	s.Payload.Size, s.Payload.Source = "200", "text"
	s.Limits.Drain = 3 * time.Second
	return &Prober{
		Scenario: s, Objectives: []scenario.Objective{{Metric: "e2e_p99", AtMost: atMost}},
		Warmup: 100 * time.Millisecond, Duration: 500 * time.Millisecond,
	}
}

// What a run says about a rate.
func TestJudge(t *testing.T) {
	const ms = int64(time.Millisecond)
	for _, tt := range []struct {
		name    string
		change  func(*load.Result, *load.Phase)
		cut     bool
		verdict Verdict
		why     string
	}{
		{"all well", func(*load.Result, *load.Phase) {}, false, Pass, ""},
		{"late", func(_ *load.Result, p *load.Phase) { p.Latency.E2E.P99 = 11 * ms }, false, Fail, "e2e_p99 11ms"},
		{"the generator was late", func(_ *load.Result, p *load.Phase) { p.Latency.E2E.P99, p.Latency.Lag.P99 = 11*ms, 2*ms }, false, Invalid, "dispatch lag"},
		{"both were late", func(_ *load.Result, p *load.Phase) { p.Latency.E2E.P99, p.Latency.Lag.P99 = 20*ms, 2*ms }, false, Fail, "e2e_p99 20ms"},
		// What a late generator measures is too long, and still within the objective.
		{"a late generator, and a pass", func(r *load.Result, p *load.Phase) {
			p.Latency.Lag.P99 = 8 * ms
			r.Invalid = []load.Problem{{Kind: load.DispatchLag, Text: "too late"}}
			r.Measured, r.Rejected = nil, r.Measured
		}, false, Pass, ""},
		{"not delivered", func(_ *load.Result, p *load.Phase) { p.Delivered = 980 }, false, Fail, "98.0 % of the rate"},
		{"the generator missed its rate", func(r *load.Result, p *load.Phase) {
			p.Delivered = 980
			r.Invalid = []load.Problem{{Kind: load.RateMissed, Text: "fewer were sent"}}
		}, false, Invalid, "fewer were sent"},
		{"the target held messages back", func(r *load.Result, p *load.Phase) {
			p.Delivered = 900
			r.Invalid = []load.Problem{{Kind: load.Saturated, Text: "held back"}}
		}, false, Fail, "90.0 %"},
		{"late since the generator had no processor", func(r *load.Result, p *load.Phase) {
			p.Latency.E2E.P99, r.Generator.Share = 20*ms, 0.9
		}, false, Invalid, "90 % of the processors"},
		{"a backlog that grows", func(r *load.Result, p *load.Phase) {
			for i := range 8 {
				r.Measured.Series = append(r.Measured.Series, load.Interval{Phase: "probe", End: float64(i), Offered: 1000, Delivered: uint64(980 - i%2)})
			}
		}, false, Fail, "the backlog grows by 20"},
		{"a backlog of before", func(r *load.Result, p *load.Phase) {
			for i := range 8 {
				r.Measured.Series = append(r.Measured.Series, load.Interval{Phase: "probe", End: float64(i), Offered: 1000, Delivered: uint64(1020 - i%2)})
			}
		}, false, Pass, ""},
		{"lost", func(r *load.Result, _ *load.Phase) { r.Violations = []load.Problem{{Kind: load.Lost, Text: "1 lost"}} }, false, Fail, "1 lost"},
		{"given up", func(r *load.Result, _ *load.Phase) { r.Counts.Failed = 3 }, false, Fail, "3 messages were given up"},
		{"cut short", func(r *load.Result, _ *load.Phase) { r.Invalid = []load.Problem{{Kind: load.Interrupted}} }, true, Fail, "the backlog reached 2 s"},
		{"nothing was settled", func(r *load.Result, _ *load.Phase) {
			r.Invalid = []load.Problem{{Kind: load.Unsettled, Text: "9 without an answer"}}
		}, false, Fail, "9 without"},
	} {
		r := &load.Result{Counts: verify.Counts{Sent: 1000, Acked: 1000, Delivered: 1000}, Measured: &load.Measured{Phases: []load.Phase{{}, {
			Name: "probe", Seconds: 1, Offered: 1000, Sent: 1000, Delivered: 1000,
			Latency: load.Latencies{E2E: load.Quantiles{P50: 2 * ms, P99: 9 * ms}, Lag: load.Quantiles{P99: ms / 10}},
		}}}}
		tt.change(r, &r.Measured.Phases[1])
		got := prober(t, 10*time.Millisecond).judge(r, 1000, tt.cut)
		if got.Verdict != tt.verdict || !strings.Contains(got.Why, tt.why) || (tt.why == "") != (got.Why == "") || len(got.Violations) != len(r.Violations) {
			t.Errorf("%s: %s (%s), want %s (%s)", tt.name, got.Verdict, got.Why, tt.verdict, tt.why)
		}
	}
}

// A target that takes 2 ms for each message, one after the other, sustains fewer
// than 500 a second. A timer or a machine that is late makes the target slower, or
// its verdicts contradict each other; it makes nothing faster. How near a search
// comes to the truth is in TestSimulatedSystems, without a clock.
func TestSearchOfAKnownSystem(t *testing.T) {
	t.Parallel()
	p := prober(t, 200*time.Millisecond)
	s := p.Scenario
	s.Topics[0].Partitions, s.Consumers.Count, s.Producers.Count = 1, 1, 1
	d := loopback.Open(loopback.Behaviour{Slow: 2 * time.Millisecond, SlowEvery: 1})
	p.Config = func(s *scenario.Scenario) load.Config { return load.Config{Scenario: s, Driver: d} }
	if err := p.Validate(); err != nil {
		t.Fatal(err)
	}
	res, err := Run(t.Context(), Options{From: 50, Resolution: 0.3, ProbesMax: 30}, p.Probe, func(x Point) { t.Log(x.Line()) })
	if err != nil {
		t.Fatal(err)
	}
	res.Objective = p.Objective()
	t.Log(res)
	if res.Violated() || res.Outcome == AtLeast || res.Outcome == Ended || len(res.Points) < 3 || (res.Outcome == Found) != (res.Value > 0) {
		t.Errorf("%+v", res)
	}
	for _, x := range res.Points {
		if x.Verdict == Pass && x.Offered > 510 {
			t.Errorf("passed: %+v", x)
		}
	}
	var b strings.Builder
	if err := res.Table(&b); err != nil || strings.Count(b.String(), "\n") != len(res.Curve)+3 || res.Outcome == Found && !strings.Contains(b.String(), "█") {
		t.Errorf("%v\n%s", err, b.String())
	}
}

// A short search of the real thing: what passes was delivered in time, and
// nothing is lost at any rate.
func TestSearchOfPortask(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a broker")
	}
	t.Parallel()
	b := launchtest.Start(t)
	d, err := portask.Open(t.Context(), b.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	p := prober(t, 250*time.Millisecond)
	p.Scenario.Producers.Ack = "accepted"
	p.Config = func(s *scenario.Scenario) load.Config {
		return load.Config{Scenario: s, Driver: d, TargetPID: b.PID()}
	}
	res, err := Run(t.Context(), Options{From: 2000, Max: 32_000, Resolution: 0.5, ProbesMax: 14}, p.Probe, func(x Point) { t.Log(x.Line()) })
	if err != nil {
		t.Fatal(err)
	}
	res.Objective = p.Objective()
	t.Log(res)
	// Which rate a machine sustains, or whether its generator was the limit, is its
	// affair.
	if res.Violated() || len(res.Points) == 0 || res.Outcome == Ended {
		t.Errorf("%+v", res)
	}
	for _, x := range res.Points {
		if x.Verdict == Pass && (x.P99 > int64(250*time.Millisecond) || x.Achieved < 0.98*x.Offered || x.P50 == 0) {
			t.Errorf("passed: %+v", x)
		}
	}
}

func TestProberRefuses(t *testing.T) {
	for name, change := range map[string]func(*Prober){
		"no objective":  func(p *Prober) { p.Objectives = nil },
		"a closed loop": func(p *Prober) { p.Scenario.Loop = scenario.ClosedLoop },
		"has no rate":   func(p *Prober) { p.Scenario.Kind = scenario.KindConnections },
		"faults":        func(p *Prober) { p.Scenario.Faults = []scenario.Fault{{Kind: scenario.Reset}} },
		"a latency":     func(p *Prober) { p.Objectives[0] = scenario.Objective{Metric: "delivered_rate", AtLeast: 5} },
		"duration":      func(p *Prober) { p.Duration = 0 },
	} {
		p := prober(t, time.Second)
		change(p)
		if err := p.Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
