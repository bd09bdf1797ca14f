package verdict

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"github.com/portask/portask/ci/sample"
)

func bench(name string, d Decision) Entry {
	return Entry{Bench: sample.Bench{Module: ".", Package: "./x", Name: name}, Decision: d, Reason: "because"}
}

func TestWhatThePartsAmountTo(t *testing.T) {
	waiver := &Waiver{Name: "a", Max: 0.1, Reason: "agreed"}
	waived := bench("a", Fail)
	waived.Waived = waiver
	for _, c := range []struct {
		name   string
		v      Verdict
		want   Decision
		status int
		first  string // what the first reason holds
	}{
		{"nothing, and no base", Verdict{}, Pass, 0, "0 benchmarks"},
		{"nothing was compared", Verdict{Base: Revision{Commit: "0123"}}, Invalid, 3, "nothing was compared"},
		{"all pass", Verdict{Entries: []Entry{bench("a", Pass), bench("b", Skipped)}}, Pass, 0, "nothing got worse"},
		{"one failed", Verdict{Entries: []Entry{bench("a", Pass), bench("b", Fail)}}, Fail, 2, "./x.b"[1:]},
		{"waived", Verdict{Entries: []Entry{waived}}, Pass, 0, ""},
		{"open", Verdict{Entries: []Entry{bench("a", Inconclusive)}}, Inconclusive, 0, "1 not settled"},
		{"open, but a counter failed", Verdict{
			Entries:  []Entry{bench("a", Inconclusive)},
			Counters: []Counter{{Name: "allocs", Decision: Fail}},
		}, Fail, 2, "allocs"},
		{"open, but an objective failed", Verdict{
			Entries:    []Entry{bench("a", Inconclusive)},
			Objectives: []Objective{{Name: "p99", Decision: Fail}},
		}, Fail, 2, "objective p99"},
		{"open objective", Verdict{Objectives: []Objective{{Name: "p99", Decision: Inconclusive}}}, Inconclusive, 0, ""},
		{"a control alarmed", Verdict{
			Entries:  []Entry{bench("a", Fail)},
			Controls: []Entry{bench("alu", Fail)},
		}, Invalid, 3, "control"},
		{"an open control says nothing", Verdict{Controls: []Entry{bench("alu", Inconclusive)}}, Pass, 0, ""},
		{"nothing could be measured", Verdict{Entries: []Entry{bench("a", Invalid)}}, Invalid, 3, "because"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := c.v.Combine()
			if got != c.want || c.v.Decision != c.want || got.ExitStatus() != c.status {
				t.Errorf("%s with status %d, want %s with %d", got, got.ExitStatus(), c.want, c.status)
			}
			if len(c.v.Reasons) == 0 || !strings.Contains(c.v.Reasons[0], c.first) {
				t.Errorf("reasons %q, want first with %q", c.v.Reasons, c.first)
			}
		})
	}
}

func TestRoundTrip(t *testing.T) {
	target := 1.0
	v := &Verdict{
		Seed: 1 << 63, Base: Revision{Name: "HEAD~1", Commit: "0123456789abcdef"}, Head: Revision{Commit: "f", Dirty: true},
		Entries: []Entry{{
			Bench: sample.Bench{Module: "broker", Package: "./wire", Name: "Encode/size=<1>"}, Decision: Fail,
			Effect:  Estimate{Effect: 0.05, Low: 0.04, High: 0.06, Confidence: 0.99, P: 1e-6, SD: 0.01, Rounds: 8, Pairs: 400},
			Confirm: &Estimate{Effect: 0.05}, Dots: []Dot{{Round: 3, Stage: sample.Confirm, Effect: 0.04}},
			Top: []Function{{Name: "f", Kind: "cpu", Sigmas: 4}},
		}},
		Objectives: []Objective{{Name: "p99", Target: &target, Decision: Pass}},
	}
	v.Combine()
	var b bytes.Buffer
	if err := v.Write(&b); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), "size=<1>") {
		t.Error("names are escaped for HTML")
	}
	got, err := Read(&b)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, v) {
		t.Errorf("read %+v\nwrote %+v", got, v)
	}
	if s := v.Base.Short() + " " + v.Head.Short(); s != "0123456789 f+" {
		t.Errorf("short names %q", s)
	}
}

func TestReadRefuses(t *testing.T) {
	for _, s := range []string{"", "{", `{"version":2,"decision":"PASS"}`, `{"version":1,"decision":"SKIPPED"}`, `{"version":1}`} {
		if v, err := Read(strings.NewReader(s)); err == nil {
			t.Errorf("%q read as %+v", s, v)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"version":1,"decision":"PASS","entries":[{"bench":{"name":"a"},"effect":{"effect":1e308}}]}`))
	f.Add([]byte(`{"version":1,"decision":"FAIL","objectives":[{"target":1}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := Read(bytes.NewReader(b))
		if err != nil {
			return
		}
		var first, second bytes.Buffer
		if err := v.Write(&first); err != nil {
			t.Fatal(err)
		}
		again, err := Read(bytes.NewReader(first.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		if err := again.Write(&second); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(first.Bytes(), second.Bytes()) {
			t.Errorf("%s\n%s", first.Bytes(), second.Bytes())
		}
	})
}
