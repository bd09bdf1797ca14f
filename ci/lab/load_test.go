package lab

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
)

func TestLoadRunReadsResults(t *testing.T) {
	const valid = `{"schema":2,"counts":{"sent":1000},"measured":{"total":{"delivered_per_s":99000,"latency":{
		"e2e":{"p50_ns":1000000,"p99_ns":9000000},"ack":{"p50_ns":2,"p99_ns":3},"lag":{"p99_ns":4}}}},
		"wire":{"messages_per_batch":64,"compression_ratio":3.5,"bytes":300000},
		"target":{"cpu_s_per_million":1.25,"rss_max_bytes":5000},"generator":{"steal":0.1}}`
	r := LoadRun{Scenario: Scenario{Name: "x", Rate: 100000}}
	if err := r.read([]byte(valid), nil, ""); err != nil {
		t.Fatal(err)
	}
	if r.Rate != 99000 || r.E2EP99 != 9e6 || r.AckP50 != 2 || r.LagP99 != 4 || r.CPUPerMillion != 1.25 || r.PerBatch != 64 || r.WirePerMsg != 300 || r.RSSBytes != 5000 {
		t.Errorf("%+v", r)
	}
	if r.Late() || !r.CPUHolds() {
		t.Error("a valid run is late, or its CPU does not hold")
	}
	late := LoadRun{Scenario: Scenario{Rate: 100000}}
	text := strings.Replace(strings.Replace(valid, "measured", "rejected", 1), `"wire"`, `"invalid":[{"kind":"dispatch_lag"}],"wire"`, 1)
	if err := late.read([]byte(text), exit(t, 3), ""); err != nil {
		t.Fatal(err)
	}
	if !late.Late() || !late.CPUHolds() || !strings.Contains(LoadLine(late), "INVALID: dispatch_lag") {
		t.Errorf("%+v", late)
	}
	late.Invalid = append(late.Invalid, "rate_missed")
	if !late.Late() || !late.CPUHolds() {
		t.Error("a rate missed by one per cent: its latencies are no upper limits, or its CPU does not hold")
	}
	late.Rate = 50000
	if late.Late() || late.CPUHolds() {
		t.Error("half the rate has the latency or the CPU of the scenario")
	}
	late.Rate, late.Invalid = 99000, []string{"unsettled"}
	if late.Late() || late.CPUHolds() {
		t.Error("a run that did not settle counts")
	}
}

func TestLoadRunRefuses(t *testing.T) {
	const violated = `{"schema":2,"rejected":{},"violations":[{"kind":"lost","text":"1 message"}]}`
	r := LoadRun{}
	if err := r.read([]byte(violated), exit(t, 4), ""); !errors.Is(err, ErrViolated) {
		t.Errorf("lost messages: %v", err)
	}
	for name, err := range map[string]error{
		"usage":       r.read(nil, exit(t, 1), "no such flag"),
		"no output":   r.read(nil, nil, ""),
		"old schema":  r.read([]byte(`{"schema":1,"measured":{}}`), nil, ""),
		"no figures":  r.read([]byte(`{"schema":2}`), nil, ""),
		"not started": r.read(nil, exec.ErrNotFound, ""),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// exit is the error of a process that ended with the status.
func exit(t *testing.T, status int) error {
	t.Helper()
	err := exec.Command("sh", "-c", "exit "+string(rune('0'+status))).Run()
	if err == nil {
		t.Fatal("no error")
	}
	return err
}

func TestParseStatus(t *testing.T) {
	m, err := parseStatus(strings.NewReader("Name:\tportask\nVmRSS:\t   17232 kB\nRssAnon:\t    2872 kB\nRssFile:\t   14360 kB\nRssShmem:\t       8 kB\nThreads:\t7\n"))
	if err != nil || m.PrivateBytes != 2880<<10 || m.RSSBytes != 17232<<10 {
		t.Errorf("%+v, %v", m, err)
	}
	for _, text := range []string{"", "VmRSS:\t1 kB\n", "VmRSS:\tx kB\nRssAnon:\t1 kB\n"} {
		if m, err := parseStatus(strings.NewReader(text)); err == nil {
			t.Errorf("%q: %+v", text, m)
		}
	}
}

func FuzzLoadRun(f *testing.F) {
	f.Add([]byte(`{"schema":2,"measured":{"total":{"delivered_per_s":1}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r LoadRun
		if r.read(b, nil, "") == nil {
			LoadLine(r)
		}
	})
}
