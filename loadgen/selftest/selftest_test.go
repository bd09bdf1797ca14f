package selftest

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/portask/portask/loadgen/driver/loopback"
	"github.com/portask/portask/loadgen/launch/launchtest"
	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/verify"
)

func TestMain(m *testing.M) { launchtest.Main(m, func() error { return goleak.Find() }) }

// Every defect is found and counted to the message, also on a busy machine;
// quantiles and speeds are never worse than undecided.
func TestRun(t *testing.T) {
	o := Options{Length: 300 * time.Millisecond, Every: 500, Stall: 200 * time.Millisecond, Broker: launchtest.Binary(t)}
	seen := 0
	o.Done = func(Check) { seen++ }
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	var table, out bytes.Buffer
	if err := r.Table(&table); err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", table.String())
	verdicts := map[string]Verdict{}
	for _, c := range r.Checks {
		verdicts[c.Name] = c.Verdict
		if c.Verdict == Fail || c.Expected == "" || c.Found == "" || (c.Verdict == Pass) != (c.Why == "") {
			t.Errorf("%+v", c)
		}
	}
	for _, name := range []string{"healthy", "drop", "duplicate", "reorder", "flip", "refuse", "sockets, healthy"} {
		if verdicts[name] != Pass {
			t.Errorf("%s: %q", name, verdicts[name])
		}
	}
	for _, name := range []string{"slow", "stall", "throughput", "allocations", "dispatch lag", "sockets, slow", "sockets, stall"} {
		if verdicts[name] == "" {
			t.Errorf("no check %s", name)
		}
	}
	if seen != len(r.Checks) || r.ExitStatus() == 4 {
		t.Errorf("%d of %d checks announced, status %d", seen, len(r.Checks), r.ExitStatus())
	}
	if err := r.WriteJSON(&out); err != nil {
		t.Fatal(err)
	}
	var again Report
	if err := json.Unmarshal(out.Bytes(), &again); err != nil || len(again.Checks) != len(r.Checks) || again.Schema != 1 {
		t.Errorf("%v: %s", err, out.String())
	}
}

// An instrument that misses what the target did fails, and says so.
func TestAMissIsAFailure(t *testing.T) {
	var c Check
	c.compare(verify.Counts{Lost: 3}, verify.Counts{Lost: 2})
	if c.Verdict != Fail || !strings.Contains(c.Why, "expected 3 lost, found 2 lost") {
		t.Errorf("%+v", c)
	}
	c = Check{}
	c.compare(verify.Counts{}, verify.Counts{Duplicated: 1})
	if c.Verdict != Fail {
		t.Errorf("a false alarm: %+v", c)
	}

	at := func(p99, p999 time.Duration) *load.Result {
		m := &load.Measured{}
		m.Total.Latency.E2E = load.Quantiles{P99: int64(p99), P999: int64(p999)}
		return &load.Result{Measured: m}
	}
	const ms = time.Millisecond
	want := load.Quantiles{P99: int64(4 * ms), P999: int64(5 * ms)}
	for _, tt := range []struct {
		p99, p999 time.Duration
		idle      bool
		verdict   Verdict
	}{
		{4 * ms, 5 * ms, true, Pass},
		{4*ms + 400*time.Microsecond, 5 * ms, true, Pass},
		{4 * ms, 4 * ms, false, Fail}, // too little cannot be the machine's doing
		{100 * time.Microsecond, 5 * ms, true, Fail},
		{4 * ms, 6 * ms, true, Fail},
		{4 * ms, 6 * ms, false, Inconclusive},
		{6 * ms, 3 * ms, false, Fail},
	} {
		c := Check{}
		c.quantiles(want, at(tt.p99, tt.p999), toleranceTime, toleranceTime, tt.idle)
		if c.Verdict != tt.verdict || (tt.verdict == Pass) != (c.Why == "") {
			t.Errorf("%+v: %+v", tt, c)
		}
	}
	res := at(4*ms, 5*ms)
	res.Measured, res.Rejected = nil, res.Measured
	res.Invalid = []load.Problem{{Text: "busy"}}
	c = Check{}
	if c.quantiles(want, res, 0, 0, true); c.Verdict != Inconclusive {
		t.Errorf("an invalid run: %+v", c)
	}
	for v, status := range map[Verdict]int{Pass: 0, Skipped: 0, Slow: 2, Inconclusive: 3, Fail: 4} {
		if got := (&Report{Checks: []Check{{Verdict: Pass}, {Verdict: v}}}).ExitStatus(); got != status {
			t.Errorf("%s: status %d, want %d", v, got, status)
		}
	}
}

// The expected distribution is that of a queue worked out by hand.
func TestExpected(t *testing.T) {
	const ms = time.Millisecond
	// 100 messages a millisecond apart; the 50th takes 5 ms: 5, 4, 3, 2, 1.
	q := expected(100, ms, []loopback.Pause{{First: 50, Message: 50, Took: 5 * ms}})
	if q.Count != 100 || q.P50 > 1000 || !near(q.Max, 5*ms) || !near(q.P99, 4*ms) || !near(int64(q.Mean), 150*time.Microsecond) {
		t.Errorf("%+v", q)
	}
	// Two pauses, the second for a message that already waits: 5, 4, 3+2, 4, 3, 2, 1.
	q = expected(100, ms, []loopback.Pause{{First: 50, Message: 50, Took: 5 * ms}, {First: 52, Message: 52, Took: 2 * ms}})
	if !near(int64(q.Mean*100), 24*ms) {
		t.Errorf("%+v", q)
	}
	// Messages of the same load are answered with the one that is waited for.
	q = expected(10, ms, []loopback.Pause{{First: 4, Message: 6, Took: 5 * ms}})
	if q.Count != 10 || !near(int64(q.Mean*10), (5+4+3+2+1)*ms) {
		t.Errorf("%+v", q)
	}
}

func near(ns int64, want time.Duration) bool {
	off := time.Duration(ns) - want
	return max(off, -off) <= want/100
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{{}, {Length: time.Second, Every: 1, Stall: time.Second}, {Length: time.Second, Every: 100}, {Length: time.Hour, Every: 100, Stall: time.Second}} {
		if _, err := Run(t.Context(), o); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
	if o := Defaults(); o.validate() != nil {
		t.Error(o.validate())
	}
}
