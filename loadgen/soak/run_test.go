package soak

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/portask/portask/loadgen/driver/loopback"
	"github.com/portask/portask/loadgen/launch/launchtest"
	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/scenario"
)

func TestMain(m *testing.M) { launchtest.Main(m, func() error { return goleak.Find() }) }

func TestPlan(t *testing.T) {
	s, err := scenario.Open("steady")
	if err != nil {
		t.Fatal(err)
	}
	plan, note, err := Plan(s, 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if plan.Duration() != 24*time.Hour || len(plan.Phases) != 2 || plan.Phases[1].Arrival != "poisson" || plan.Phases[1].Rate != 10_000 || plan.Phases[0].Measured ||
		plan.Topics[0].RetentionBytes != retentionBytes || note == "" || len(plan.Objectives) != len(s.Objectives) {
		t.Errorf("%s\n%s", note, plan.YAML())
	}
	if s.Topics[0].RetentionBytes != 0 || s.Phases[1].Name != "steady" {
		t.Error("the scenario itself was changed")
	}
	for name, says := range map[string]string{"partitioned": "faults", "closed": "closed loop", "waves": "constant rate"} {
		s, err := scenario.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := Plan(s, time.Hour); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSample(t *testing.T) {
	v := load.Interval{End: 3}
	v.Latency.E2E = load.Quantiles{Count: 9, P99: 1000}
	v.Latency.Lag.P99 = 400
	told := Process{1, 2, 3}
	if s := sample(&v, told); s != (Sample{3 * time.Second, 1, 2, 3, 1000}) {
		t.Errorf("%+v", s)
	}
	v.Target = &load.TargetSample{RSSBytes: 7, FDs: 8}
	v.Latency.Lag.P99 = 600 // the generator's own
	if s := sample(&v, told); s.RSS != 7 || s.FDs != 8 || s.Goroutines != 3 || !math.IsNaN(s.P99) {
		t.Errorf("%+v", s)
	}
}

func TestPoller(t *testing.T) {
	page := "# HELP go_goroutines Number\ngo_goroutines 41\nprocess_open_fds 12 1700000000\nprocess_resident_memory_bytes 3.5e+07\nother{a=\"b\"} 1\n"
	status := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprint(w, page)
	}))
	defer server.Close()
	p, err := NewPoller(t.Context(), server.URL)
	if err != nil || p.Last() != (Process{3.5e7, 12, 41}) {
		t.Fatalf("%+v, %v", p, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p.Run(ctx)
	status = http.StatusForbidden
	if _, err := NewPoller(t.Context(), server.URL); err == nil {
		t.Error("a refusal was accepted")
	}
	status, page = http.StatusOK, "<html>"
	if _, err := NewPoller(t.Context(), server.URL); err == nil || !strings.Contains(err.Error(), "go_goroutines") {
		t.Errorf("a page without metrics: %v", err)
	}
	if x := (*Poller)(nil).Last(); !math.IsNaN(x.RSS) {
		t.Errorf("no poller says %+v", x)
	}
}

// FuzzParse: a page of metrics is a foreign input.
func FuzzParse(f *testing.F) {
	f.Add("go_goroutines 41\nprocess_open_fds NaN\nprocess_resident_memory_bytes -1\n")
	f.Fuzz(func(t *testing.T, page string) {
		x, _ := parse(strings.NewReader(page))
		for _, v := range []float64{x.RSS, x.FDs, x.Goroutines} {
			if v < 0 || math.IsInf(v, 0) {
				t.Errorf("%v", v)
			}
		}
	})
}

// What an alarm does to a run: the exit status, the words, and, if asked for,
// its end.
func TestAlarmEndsTheRun(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	server := httptest.NewServer(nil)
	defer server.Close()
	n := 0.0
	server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n += 200
		fmt.Fprintf(w, "go_goroutines %v\n", n)
	})
	poll, err := NewPoller(t.Context(), server.URL)
	if err != nil {
		t.Fatal(err)
	}
	s := scenario.Default()
	s.Phases[0].Rate, s.Phases[1].Rate, s.Payload.Source = 200, 200, "text"
	plan, _, err := Plan(s, 10*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	plan.Phases[0].Duration = 100 * time.Millisecond
	for i := range plan.Topics {
		plan.Topics[i].RetentionBytes = 0
	}
	var raised []Alarm
	began := time.Now()
	res, err := Run(t.Context(), load.Config{Scenario: plan, Driver: loopback.Open(loopback.Behaviour{})}, Options{Settle: time.Nanosecond, Least: 10 * time.Second}, poll, true,
		func(a Alarm) { raised = append(raised, a) })
	if err != nil {
		t.Fatal(err)
	}
	if len(raised) != 1 || raised[0].Metric != Goroutines || res.ExitStatus() != 2 || time.Since(began) > time.Minute || !res.Run.Interrupted {
		t.Errorf("%v after %v; status %d, alarms %v", raised, time.Since(began), res.ExitStatus(), res.Alarms)
	}
	var b strings.Builder
	if err := res.Table(&b); err != nil || !strings.Contains(b.String(), "ALARM at") || !strings.Contains(b.String(), "goroutines grows by") {
		t.Errorf("%v\n%s", err, b.String())
	}
	b.Reset()
	var back Result
	if err := res.JSON(&b); err != nil || json.Unmarshal([]byte(b.String()), &back) != nil || len(back.Alarms) != 1 || len(back.Series) == 0 || back.RunID != res.Run.RunID {
		t.Errorf("%v\n%s", err, b.String())
	}
	violated := &Result{Run: &load.Result{Violations: []load.Problem{{}}}, Alarms: raised}
	if violated.ExitStatus() != 4 {
		t.Error("a lost message is less than an alarm")
	}
}
