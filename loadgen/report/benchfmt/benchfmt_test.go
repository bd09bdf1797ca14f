package benchfmt

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/perf/benchfmt"
	"golang.org/x/perf/benchproc"

	"github.com/portask/portask/broker/sysmetrics"
	"github.com/portask/portask/loadgen/driver"
	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/payload"
	"github.com/portask/portask/loadgen/scenario"
	"github.com/portask/portask/loadgen/verify"
)

// result of a run of two measured phases, its latencies scaled by f.
func result(t testing.TB, f float64) *load.Result {
	s, err := scenario.Parse("test", []byte(`
version: 1
topics: [{name: a}]
phases:
  - {name: warm-up, duration: 1s, measured: false, rate: 100}
  - {name: slow, duration: 2s, arrival: poisson, rate: 5000}
  - {name: fast, duration: 2s, arrival: poisson, rate: 20000}
`))
	if err != nil {
		t.Fatal(err)
	}
	phase := func(name string, rate float64) load.Phase {
		return load.Phase{
			Name: name, Measured: true, Seconds: 2, Offered: rate * 1.001, Sent: rate, Delivered: rate, DeliveredMBps: rate / 1e3,
			Latency: load.Latencies{
				E2E: load.Quantiles{P50: int64(1e6 * f), P90: int64(2e6 * f), P99: int64(12_345_678 * f), P999: int64(2e7 * f), Max: int64(3e7 * f)},
				Ack: load.Quantiles{P50: 900, P99: 999_999}, Lag: load.Quantiles{P99: 42_000},
			},
		}
	}
	return &load.Result{
		Scenario: "kv-1k", Hash: "0123", Resolved: string(s.YAML()), Loop: "open", Ack: "durable", Visibility: "durable",
		System: driver.Description{System: "portask", Version: "9"}, Durability: driver.Disk,
		Payload:  load.PayloadInfo{Source: "json", Size: "1KiB", Codec: "raw", Stats: payload.Stats{MeanBytes: 1024}},
		Counts:   verify.Counts{Sent: 50_000, Acked: 50_000, Delivered: 50_000, Lost: 7},
		Measured: &load.Measured{Total: phase("total", 12_500), Phases: []load.Phase{{Name: "warm-up"}, phase("slow", 5000), phase("fast", 20_000)}},
		Wire:     load.Wire{MessagesPerBatch: 11.9, Bytes: 20_600_000, Compression: 2.5},
		Target:   &load.TargetUse{CPUPerMillion: 1.25, RSSMaxBytes: 33 << 20},
	}
}

func options(role string, round int) Options {
	return Options{
		Commit: "abc", Machine: sysmetrics.Machine{CPU: "AMD EPYC 9", Kernel: "Linux 6", Go: "go1.26", Cores: 2},
		Keys: map[string]string{"role": role, "round": fmt.Sprint(round)},
	}
}

// read parses with the parser of benchstat; a line that it does not understand
// fails the test.
func read(t *testing.T, b []byte) (all []*benchfmt.Result, units benchfmt.UnitMetadataMap) {
	t.Helper()
	r := benchfmt.NewReader(bytes.NewReader(b), "runs.txt")
	for r.Scan() {
		switch rec := r.Result().(type) {
		case *benchfmt.Result:
			all = append(all, rec.Clone())
		case *benchfmt.UnitMetadata:
		default:
			t.Fatalf("%T: %v", rec, rec)
		}
	}
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
	return all, r.Units()
}

func TestParsedAsWritten(t *testing.T) {
	var b bytes.Buffer
	if err := Write(&b, result(t, 1), options("head", 7)); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(b.String(), "Unit ") {
		t.Errorf("units do not go first:\n%s", b.String())
	}
	all, units := read(t, b.Bytes())
	const base = "Load/scenario=kv-1k/mode=open/ack=durable/visibility=durable"
	names := []string{base + "/rate=5k..20k/size=1KiB-2", base + "/phase=slow/rate=5k/size=1KiB-2", base + "/phase=fast/rate=20k/size=1KiB-2"}
	if len(all) != len(names) {
		t.Fatalf("%d results in:\n%s", len(all), b.String())
	}
	for i, r := range all {
		if string(r.Name) != names[i] {
			t.Errorf("name %s, want %s", r.Name, names[i])
		}
		for k, want := range map[string]string{
			"goos": "linux", "cpu": "AMD EPYC 9", "role": "head", "round": "7", "commit": "abc", "scenario": "kv-1k", "payload": "json", "arrival": "poisson", "system": "portask", "durability": "disk",
		} {
			if got := r.GetConfig(k); got != want && k != "goos" {
				t.Errorf("%s: %q, want %q", k, got, want)
			}
		}
	}
	if all[0].Iters != 25_000 || all[2].Iters != 40_000 {
		t.Errorf("%d and %d messages", all[0].Iters, all[2].Iters)
	}
	// ns became sec, which benchstat prints as us and ms.
	for unit, want := range map[string]float64{"msg/s": 12_500, "e2e-p99-sec": 0.0123457, "lag-p99-sec": 42e-6, "cpu-sec/msg": 1.25e-6, "lost": 7, "wire-B/msg": 412, "rss-B": 33 << 20} {
		if got, ok := all[0].Value(unit); !ok || got < want*0.9999 || got > want*1.0001 {
			t.Errorf("%s %v (%v), want %v", unit, got, ok, want)
		}
	}
	if _, ok := all[1].Value("lost"); ok {
		t.Error("losses of the whole run stand with one phase")
	}
	for _, v := range all[0].Values {
		unit := v.Unit
		if v.OrigUnit != "" {
			unit = v.OrigUnit
		}
		if unit != "ns/msg" && units.GetBetter(v.Unit) == 0 {
			t.Errorf("%s has no direction", unit)
		}
	}
	if units.GetBetter("msg/s") != 1 || units.GetBetter("e2e-p99-sec") != -1 {
		t.Error("a direction is wrong")
	}
}

// Grouped as benchstat does it, rounds ignored: one row a benchmark, one column
// a role, and nothing left over that would forbid comparing.
func TestGroups(t *testing.T) {
	var b bytes.Buffer
	for round := range 3 {
		for _, role := range []string{"base", "head"} {
			if err := Write(&b, result(t, 1+float64(round)/10), options(role, round)); err != nil {
				t.Fatal(err)
			}
		}
	}
	all, _ := read(t, b.Bytes())
	var pp benchproc.ProjectionParser
	filter, err := benchproc.NewFilter("*")
	if err != nil {
		t.Fatal(err)
	}
	project := func(q string) *benchproc.Projection {
		p, err := pp.Parse(q, filter)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	row, col, _ := project(".fullname"), project("role@(base head)"), project("round,.file")
	residue := pp.Residue()
	cells, left := map[[2]benchproc.Key]int{}, map[benchproc.Key]bool{}
	for _, r := range all {
		cells[[2]benchproc.Key{row.Project(r), col.Project(r)}]++
		left[residue.Project(r)] = true
	}
	if len(cells) != 3*2 || len(left) != 1 {
		t.Errorf("%d cells, want 6; %d residues, want 1", len(cells), len(left))
	}
	for _, n := range cells {
		if n != 3 {
			t.Errorf("a cell has %d samples, want 3", n)
		}
	}
}

func TestStockBenchstat(t *testing.T) {
	if out, err := exec.Command("go", "tool", "-n", "benchstat").CombinedOutput(); err != nil {
		t.Skipf("benchstat is not among the tools here (it is in the workspace): %s", out)
	}
	var b bytes.Buffer
	for round := range 6 {
		for role, f := range map[string]float64{"base": 1, "head": 1.5} {
			if err := Write(&b, result(t, f+float64(round)/1000), options(role, round)); err != nil {
				t.Fatal(err)
			}
		}
	}
	file := filepath.Join(t.TempDir(), "runs.txt")
	if err := os.WriteFile(file, b.Bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("go", "tool", "benchstat", "-col", "role@(base head)", "-ignore", "round", file).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{`(?m)^cpu: AMD EPYC 9$`, `e2e-p99-sec`, `phase=fast/rate=20k/size=1KiB-2 +12\.\d+m ± \d+% +18\.\d+m ± \d+% +\+4\d\.\d+% \(p=0\.002 n=6\)`} {
		if !regexp.MustCompile(want).Match(out) {
			t.Errorf("no %s in:\n%s", want, out)
		}
	}
}

func TestInvalidRunHasNoLine(t *testing.T) {
	r := result(t, 1)
	r.Rejected, r.Measured = r.Measured, nil
	var b bytes.Buffer
	if err := Write(&b, r, options("head", 1)); err != nil || b.Len() > 0 {
		t.Errorf("%q, %v", b.String(), err)
	}
}

func TestHostileNames(t *testing.T) {
	r := result(t, 1)
	r.Scenario, r.System.Version = "a b/c=d\n", "1\nBenchmarkX 1 1 ns/op"
	var b bytes.Buffer
	if err := Write(&b, r, options("he\nad", 1)); err != nil {
		t.Fatal(err)
	}
	if all, _ := read(t, b.Bytes()); len(all) != 3 || !strings.HasPrefix(string(all[0].Name), "Load/scenario=a_b_c_d_/mode=") {
		t.Errorf("read as %d results:\n%s", len(all), b.String())
	}
	for _, key := range []string{"", "Role", "a b", "a:", "1a", "aB"} {
		if CheckKey(key) == nil || Write(&b, r, Options{Keys: map[string]string{key: "x"}}) == nil {
			t.Errorf("key %q was accepted", key)
		}
	}
}

func TestRates(t *testing.T) {
	for _, tt := range []struct {
		p    scenario.Phase
		want string
	}{
		{scenario.Phase{Arrival: "constant", Rate: 20_000}, "20k"},
		{scenario.Phase{Arrival: "constant", Rate: 12_500}, "12.5k"},
		{scenario.Phase{Arrival: "constant", Rate: 1234}, "1234"},
		{scenario.Phase{Arrival: "ramp", Rate: 40_000, To: 500}, "500..40k"},
		{scenario.Phase{Arrival: "sine", Rate: 5000, Amplitude: 1000}, "4k..6k"},
		{scenario.Phase{Arrival: "bursts", Rate: 5000, Base: 0}, "0..5k"},
		{scenario.Phase{Arrival: "trace"}, "trace"},
		{scenario.Phase{}, ""},
	} {
		if got := rates([]scenario.Phase{tt.p}); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.p, got, tt.want)
		}
	}
}
