package history

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/portask/portask/ci/sample"
	"github.com/portask/portask/ci/verdict"
)

func gate(ns, calibration float64) *verdict.Verdict {
	return &verdict.Verdict{
		Decision: verdict.Pass, Started: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), Head: verdict.Revision{Commit: "abc", Dirty: true},
		Machine: []verdict.Fact{{Key: "cpu", Value: "CPU X"}},
		Entries: []verdict.Entry{
			{Bench: sample.Bench{Module: "broker", Package: "./wire", Name: "Encode"}, HeadNs: ns},
			{Bench: sample.Bench{Module: "broker", Package: "./wire", Name: "Skipped"}},
		},
		Controls: []verdict.Entry{
			{Bench: sample.Bench{Module: "ci", Package: "./kernel/calibrate", Name: "Copy"}, HeadNs: 7, BaseNs: 7},
			{Bench: sample.Bench{Module: "ci", Package: "./kernel/calibrate", Name: "Arithmetic"}, HeadNs: calibration * 2, BaseNs: calibration / 2},
		},
		Objectives: []verdict.Objective{{Name: "throughput", Unit: "ratio", Value: 0.9, Decision: verdict.Pass}, {Name: "not run", Decision: verdict.Skipped}},
		Counters:   []verdict.Counter{{Name: "allocs", Unit: "allocs/op", Head: 2, Decision: verdict.Pass}},
	}
}

func TestTimesAreRatiosToTheControlOfTheRun(t *testing.T) {
	l, ok := Of(gate(300, 100))
	want := Line{
		Version: 1, When: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Commit: "abc+", Decision: verdict.Pass, CPU: "CPU X",
		Calibration: "ci/kernel/calibrate.Arithmetic", CalibrationNs: 100,
		Values: map[string]Value{
			"broker/wire.Encode":   {V: 3, Unit: "calibration units", Ns: 300},
			"objective throughput": {V: 0.9, Unit: "ratio", Higher: true},
			"counter allocs":       {V: 2, Unit: "allocs/op"},
		},
	}
	if !ok || !reflect.DeepEqual(l, want) {
		t.Errorf("got  %+v\nwant %+v", l, want)
	}
	v := gate(300, 100)
	v.Decision = verdict.Invalid
	if _, ok := Of(v); ok {
		t.Error("an invalid run entered the history")
	}
	v = gate(300, 100)
	v.Controls = nil
	if l, ok := Of(v); !ok || len(l.Values) != 2 {
		t.Errorf("without a control: %v, %v; times have nothing to be a ratio to", l.Values, ok)
	}
}

func TestAppendOnlyGrows(t *testing.T) {
	name := filepath.Join(t.TempDir(), "benchdata", "history.jsonl")
	if lines, err := ReadFile(name); err != nil || lines != nil {
		t.Fatalf("no file: %v, %v", lines, err)
	}
	var want []Line
	for i := range 3 {
		l, _ := Of(gate(float64(100+i), 100))
		want = append(want, l)
		if err := Append(name, l); err != nil {
			t.Fatal(err)
		}
	}
	got, err := ReadFile(name)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\ngot  %+v\nwant %+v", err, got, want)
	}
}

func TestReadNamesTheLine(t *testing.T) {
	for text, want := range map[string]string{
		"{\"version\":1}\n{": "line 2", "{\"version\":2}": "version 2", "\n\n{\"version\":1,\"values\":{\"a\":{\"v\":1e999}}}": "line 3",
	} {
		if _, err := Read(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// Ten small steps that no gate would fail add up; a machine twice as slow does
// not show.
func TestChangesOfLevel(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var lines []Line
	for i := range 60 {
		machine := 1.0
		if i >= 20 {
			machine = 2 // from here on another machine ran it
		}
		ns := 100 * machine * math.Exp(0.005*random.NormFloat64())
		if i >= 40 {
			ns *= 1.06
		}
		l, _ := Of(gate(ns, 50*machine))
		l.Commit = fmt.Sprint("commit", i)
		lines = append(lines, l)
	}
	for _, s := range SeriesOf(lines) {
		if s.Name != "broker/wire.Encode" {
			if len(s.Changes) != 0 {
				t.Errorf("%s changed: %+v", s.Name, s.Changes)
			}
			continue
		}
		if len(s.Points) != 60 || len(s.Changes) != 1 {
			t.Fatalf("%d points, changes %+v; want one change", len(s.Points), s.Changes)
		}
		c := s.Changes[0]
		if c.At < 37 || c.At > 43 || c.Commit != fmt.Sprint("commit", c.At) || c.By < 0.05 || c.By > 0.07 || !c.Worse {
			t.Errorf("%+v, want +6 %% near 40, worse", c)
		}
		var b bytes.Buffer
		if err := Text(&b, []Series{s}); err != nil || !strings.Contains(b.String(), "WORSE") || !strings.Contains(b.String(), c.Commit) {
			t.Errorf("%v\n%s", err, b.String())
		}
	}
}

func TestOtherKernelsStayOut(t *testing.T) {
	old, _ := Of(gate(100, 50))
	old.Calibration = "something else"
	now, _ := Of(gate(100, 50))
	for _, s := range SeriesOf([]Line{old, now}) {
		want := 2
		if s.Name == "broker/wire.Encode" {
			want = 1
		}
		if len(s.Points) != want {
			t.Errorf("%s has %d points, want %d", s.Name, len(s.Points), want)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("{\"version\":1,\"values\":{\"a\":{\"v\":1,\"ns\":3}},\"calibration\":\"x\"}\n"))
	f.Add([]byte("{\"version\":1}\n\n{\"version\":1,\"commit\":\"é\"}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		lines, err := Read(bytes.NewReader(b))
		if err != nil {
			return
		}
		SeriesOf(lines)
	})
}
