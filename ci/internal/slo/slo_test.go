package slo

import (
	"errors"
	"math"
	"path/filepath"
	"strings"
	"testing"
)

func TestShippedObjectivesAreValid(t *testing.T) {
	f, err := Load(filepath.Join("..", "..", "..", "configs", "slo.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"accepted-throughput-over-kernel", "syscalls-per-batch", "idle-connection-bytes"} {
		if _, ok := f.Find(name); !ok {
			t.Errorf("%s: not in configs/slo.yaml", name)
		}
	}
}

func TestParseReportsEveryViolation(t *testing.T) {
	_, err := Parse([]byte(`
version: 7
objectives:
  - {name: Bad Name, unit: furlong, min: 1, max: 2, why: x}
  - {name: twice, unit: count, max: 1, why: x}
  - {name: twice, unit: count, max: 1, target: 3}
  - {name: nan, unit: ratio, max: .nan, why: x}
`))
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		"version 7", `name "Bad Name"`, `unit "furlong"`, "exactly one of min and max",
		`"twice": named twice`, "target 3 is weaker", `"twice": why is empty`, `"nan": bound NaN`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error does not mention %q:\n%v", want, err)
		}
	}
}

func TestParseRefusesUnknownKeys(t *testing.T) {
	if _, err := Parse([]byte("version: 1\nobjectives:\n  - {name: a, unit: count, maximum: 1, why: x}\n")); err == nil {
		t.Fatal("a misspelt bound was accepted")
	}
	if _, err := Parse(nil); err == nil {
		t.Fatal("an empty file was accepted")
	}
}

func parse(t *testing.T) *File {
	t.Helper()
	f, err := Parse([]byte(`
version: 1
objectives:
  - {name: upper, unit: count, max: 4, target: 2, why: x}
  - {name: lower, unit: ratio, min: 0.8, why: x}
`))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestCheck(t *testing.T) {
	f := parse(t)
	tests := []struct {
		name       string
		value      float64
		ok, target bool
	}{
		{"upper", 4, true, false},
		{"upper", 2, true, true},
		{"upper", 4.0001, false, false},
		{"upper", math.NaN(), false, false},
		{"lower", 0.8, true, true},
		{"lower", 0.79, false, true},
		{"lower", math.NaN(), false, true},
	}
	for _, tt := range tests {
		o, _ := f.Find(tt.name)
		if v := o.Check(tt.value); v.OK != tt.ok || v.TargetMet != tt.target {
			t.Errorf("%s %v: ok=%v target=%v, want %v %v", tt.name, tt.value, v.OK, v.TargetMet, tt.ok, tt.target)
		}
	}
}

func TestReport(t *testing.T) {
	var out strings.Builder
	r := NewReport(parse(t), &out)
	r.Add("upper", 3)
	if err := r.Err("upper"); err != nil {
		t.Fatal(err)
	}
	if err := r.Err("upper", "lower"); !errors.Is(err, ErrMissed) || !strings.Contains(err.Error(), "lower: not measured") {
		t.Fatalf("unmeasured objective: %v", err)
	}
	r.Add("lower", 0.5)
	r.Add("renamed", 1)
	err := r.Err("upper", "lower")
	for _, want := range []string{"lower: 0.5, want at least 0.8", "renamed: not in the objectives file"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q: %v", want, err)
		}
	}
	if got := out.String(); !strings.Contains(got, "ok   upper") || !strings.Contains(got, "MISS lower") || !strings.Contains(got, "target 2 NOT MET") {
		t.Errorf("report:\n%s", got)
	}
}
