package slo

import (
	"errors"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portask/portask/ci/verdict"
)

func shipped(t *testing.T) *File {
	t.Helper()
	f, err := Load(filepath.Join("..", "..", "..", "configs", "slo.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestBoundsOnlyTighten: what the gate enforced once it enforces for ever.
func TestBoundsOnlyTighten(t *testing.T) {
	f := shipped(t)
	for name, bound := range map[string]float64{
		"accepted-throughput-over-kernel":  0.80,
		"accepted-cpu-over-kernel":         1.3,
		"durable-throughput-over-accepted": 0.40,
		"kernel-cpu-in-syscalls-and-crc":   0.85,
		"syscalls-per-batch":               4,
		"idle-connection-bytes":            250,
		"start-1gib-log":                   1,
		"produce-allocs-per-batch":         2,
		"deliver-allocs-per-batch":         2,
	} {
		o, ok := f.Find(name)
		if !ok {
			t.Errorf("%s: not in configs/slo.yaml", name)
			continue
		}
		if o.Upper() && o.Limit() > bound || !o.Upper() && o.Limit() < bound {
			t.Errorf("%s: %s, was %v", name, o.Bound(), bound)
		}
	}
}

func TestParseReportsEveryViolation(t *testing.T) {
	_, err := Parse([]byte(`
version: 7
constants:
  - {kernel: Bad, unit: ns, value: 1, fixed: x}
  - {kernel: free, unit: ns, value: 0, fixed: x}
  - {kernel: unfixed, unit: ns, value: 1}
objectives:
  - {name: Bad Name, lane: load, unit: furlong, min: 1, max: 2, why: x, set: x}
  - {name: twice, lane: nowhere, unit: count, max: 1, why: x, set: x}
  - {name: twice, lane: load, unit: count, max: 1, target: 3}
  - {name: nan, lane: load, unit: ratio, max: .nan, why: x, set: x}
  - {name: unscaled, lane: load, kernel: missing, unit: ns, max: 1, why: x, set: x}
`))
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		"version 7", `kernel "Bad"`, `"free": value 0`, `"unfixed": unit and fixed`,
		`name "Bad Name"`, `unit "furlong"`, "exactly one of min and max", `lane "nowhere"`,
		`"twice": named twice`, "target 3 is weaker", `"twice": why and set`, `"nan": bound NaN`, `kernel "missing" has no constant`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error does not mention %q:\n%v", want, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"a misspelt bound": "version: 2\nobjectives:\n  - {name: a, lane: load, unit: count, maximum: 1, why: x, set: x}\n",
		"an empty file":    "",
		"a large file":     strings.Repeat("# comment\n", maxBytes/10+1),
	} {
		if _, err := Parse([]byte(text)); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func parse(t *testing.T) *File {
	t.Helper()
	f, err := Parse([]byte(`
version: 2
constants:
  - {kernel: step, unit: ns, value: 10, fixed: x}
objectives:
  - {name: upper, lane: load, unit: count, max: 4, target: 2, why: x, set: x}
  - {name: lower, lane: load, unit: ratio, min: 0.8, why: x, set: x}
  - {name: scaled, lane: load, kernel: step, unit: ns, max: 50, why: x, set: x}
`))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestJudge(t *testing.T) {
	f := parse(t)
	worst := func(values ...float64) []Sample {
		s := Figures(values)
		for i := range s {
			s[i].Worst = true
		}
		return s
	}
	nan := math.NaN()
	for _, tt := range []struct {
		what, name string
		samples    []Sample
		exact      bool
		decision   verdict.Decision
		value      float64
		met        bool
	}{
		{"a count on the bound", "upper", Figures([]float64{4}), true, verdict.Pass, 4, false},
		{"a count on the target", "upper", Figures([]float64{2}), true, verdict.Pass, 2, true},
		{"the worst of counts", "upper", Figures([]float64{2, 5, 3}), true, verdict.Fail, 5, false},
		{"the worst of minima", "lower", Figures([]float64{0.9, 0.7}), true, verdict.Fail, 0.7, false},
		{"all turns keep it", "lower", Figures([]float64{.81, .82, .83, .84, .85, .86}), false, verdict.Pass, .835, true},
		{"one spoilt turn of nine", "lower", Figures([]float64{.81, .82, .83, .84, .85, .86, .87, .88, .1}), false, verdict.Pass, .84, true},
		{"half across", "lower", Figures([]float64{.7, .75, .79, .81, .85, .9}), false, verdict.Inconclusive, .8, true},
		{"all turns miss it", "lower", Figures([]float64{.7, .71, .72, .73, .74, .75}), false, verdict.Fail, .725, false},
		{"too few turns to fail", "lower", Figures([]float64{.1, .1, .1, .1, .1}), false, verdict.Inconclusive, .1, false},
		{"too few turns to pass", "lower", Figures([]float64{.9, .9, .9, .9, .9}), false, verdict.Inconclusive, .9, true},
		{"not measured", "lower", Figures([]float64{nan, math.Inf(1)}), false, verdict.Inconclusive, 0, false},
		{"nothing", "lower", nil, true, verdict.Inconclusive, 0, false},
		{"scaled by the kernel", "scaled", Figures([]float64{4, 4, 4, 4, 4, 4}), false, verdict.Pass, 40, true},
		{"late and still within", "upper", worst(1, 1, 1, 1, 1, 1), false, verdict.Pass, 1, true},
		{"late cannot fail", "upper", worst(9, 9, 9, 9, 9, 9), false, verdict.Inconclusive, 9, false},
		{"some late do not hide a miss", "upper", append(worst(9), Figures([]float64{9, 9, 9, 9, 9, 9, 9, 9})...), false, verdict.Fail, 9, false},
	} {
		o, _ := f.Find(tt.name)
		v := f.Judge(o, tt.samples, tt.exact)
		if v.Decision != tt.decision || math.Abs(v.Value-tt.value) > 1e-9 || v.Met != tt.met {
			t.Errorf("%s: %s, value %v, met %v; want %s, %v, %v", tt.what, v.Decision, v.Value, v.Met, tt.decision, tt.value, tt.met)
		}
		if math.IsInf(v.Low, 0) || math.IsInf(v.High, 0) {
			t.Errorf("%s: interval %v to %v cannot be written as JSON", tt.what, v.Low, v.High)
		}
		if v.Decision != verdict.Pass && v.Reason == "" {
			t.Errorf("%s: no reason", tt.what)
		}
	}
}

// TestInterval: the ranks are those of the binomial distribution.
func TestInterval(t *testing.T) {
	nine := []float64{9, 8, 7, 6, 5, 4, 3, 2, 1}
	if m, low, high := Interval(nine); m != 5 || low != 2 || high != 8 {
		t.Errorf("nine: %v (%v to %v), want 5 (2 to 8)", m, low, high)
	}
	if nine[0] != 9 {
		t.Error("the caller's slice was sorted")
	}
	for n, rank := range map[int]int{6: 1, 8: 1, 9: 2, 12: 3, 18: 5, 20: 6, 100: 40} { // from tables of the sign test
		x := make([]float64, n)
		for i := range x {
			x[i] = float64(i + 1)
		}
		if _, low, high := Interval(x); low != float64(rank) || high != float64(n+1-rank) {
			t.Errorf("%d samples: %v to %v, want %d to %d", n, low, high, rank, n+1-rank)
		}
	}
	if _, low, high := Interval([]float64{1, 2, 3, 4, 5}); !math.IsInf(low, -1) || !math.IsInf(high, 1) {
		t.Errorf("five: %v to %v, want no bounds", low, high)
	}
}

func TestReport(t *testing.T) {
	var out strings.Builder
	f := parse(t)
	r := NewReport(f, &out)
	r.Count("upper", 3)
	if err := r.Err("upper"); err != nil {
		t.Fatal(err)
	}
	if err := r.Err("upper", "lower"); !errors.Is(err, ErrMissed) || !strings.Contains(err.Error(), "lower: not measured") {
		t.Fatalf("unmeasured objective: %v", err)
	}
	r.Turns("scaled", Figures([]float64{1, 9}))
	if open := r.Open(); len(open) != 1 || open[0] != "scaled" {
		t.Errorf("open: %q", open)
	}
	if err := r.Err("upper", "scaled"); err != nil {
		t.Errorf("an open objective is an error: %v", err)
	}
	r.Count("lower", 0.5)
	r.Count("renamed", 1)
	err := r.Err("upper", "lower")
	for _, want := range []string{"lower: 0.5, want at least 0.8", "renamed: not in the objectives file"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q: %v", want, err)
		}
	}
	for _, want := range []string{
		"PASS         upper                                  3, at most 4; NOT MET: target at most 2\n",
		"FAIL         lower                                  0.5, at least 0.8\n",
		"INCONCLUSIVE scaled                                 50 ns (10 ns to 90 ns), at most 50 ns, 2 turns\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("report lacks %q:\n%s", want, out.String())
		}
	}
	var table, again strings.Builder
	if err := Table(&table, f, r.verdicts, "abc", ""); err != nil {
		t.Fatal(err)
	}
	if want := "| `upper`: x | 3 | abc | at most 4 | **NOT MET**: at most 2 |\n"; !strings.Contains(table.String(), want) {
		t.Errorf("table lacks %q:\n%s", want, table.String())
	}
	o, _ := f.Find("lower")
	if err := Table(&again, f, []verdict.Objective{f.Judge(o, Figures([]float64{.9}), true)}, "def", table.String()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| `upper`: x | 3 | abc |", "| `lower`: x | 0.9 | def | at least 0.8 | met |\n", "| `scaled`: x | 50 ns (10 ns to 90 ns) | abc |"} {
		if !strings.Contains(again.String(), want) {
			t.Errorf("the table made again lacks %q:\n%s", want, again.String())
		}
	}
	if u := Unmet(r.verdicts); len(u) != 1 || u[0].Name != "upper" {
		t.Errorf("unmet: %+v", u)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("version: 2\nobjectives:\n  - {name: a, lane: load, unit: count, max: 1, why: x, set: x}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := Parse(b)
		if err != nil {
			return
		}
		for i := range file.Objectives {
			o := &file.Objectives[i]
			if v := file.Judge(o, Figures([]float64{o.Limit()}), true); file.Scale(o) == 1 && v.Decision != verdict.Pass {
				t.Errorf("%s: the bound itself is %s", o.Name, v.Decision)
			}
		}
	})
}
