package counters

import (
	"strings"
	"testing"

	"github.com/portask/portask/ci/verdict"
)

func TestDecide(t *testing.T) {
	for _, tt := range []struct {
		what       string
		base, head []float64
		limit      float64
		want       verdict.Decision
	}{
		{"equal", []float64{4, 4, 4}, []float64{4, 4, 4}, 0.005, verdict.Pass},
		{"fewer", []float64{4, 4, 4}, []float64{3, 3, 3}, 0.005, verdict.Pass},
		{"one more", []float64{4, 4, 4}, []float64{5, 5, 5}, 0.005, verdict.Fail},
		{"one more, in spite of the counts' own spread", []float64{5.30, 5.52, 5.41}, []float64{6.3, 6.5, 6.4}, 0.005, verdict.Fail},
		{"repetitions disagree", []float64{4, 4, 4}, []float64{5, 4, 5}, 0.005, verdict.Pass},
		{"within the limit", []float64{1000}, []float64{1009}, 0.01, verdict.Pass},
		{"beyond the limit", []float64{1000}, []float64{1011}, 0.01, verdict.Fail},
		{"the first allocation", []float64{0, 0, 0}, []float64{1, 1, 1}, 0.005, verdict.Fail},
		{"none and none", []float64{0}, []float64{0}, 0.005, verdict.Pass},
		{"the base has none to compare", nil, []float64{1}, 0.005, verdict.Skipped},
	} {
		c := decide("x", "calls", tt.base, tt.head, tt.limit)
		if c.Decision != tt.want || (c.Decision != verdict.Pass) != (c.Reason != "") {
			t.Errorf("%s: %+v, want %s", tt.what, c, tt.want)
		}
		if !strings.Contains(Line(c), string(tt.want)) {
			t.Errorf("%s: line %q", tt.what, Line(c))
		}
	}
}

func TestCeilings(t *testing.T) {
	got := ceilings([]float64{0, 0.1, 0.5, 0.51, 1, 2.2})
	for i, want := range []float64{0, 0.5, 0.5, 1, 1, 2.5} {
		if got[i] != want {
			t.Errorf("%d: %v, want %v", i, got[i], want)
		}
	}
}

func TestParseTotals(t *testing.T) {
	for text, want := range map[string]float64{
		"version: 1\nevents: Ir\n\nfn=(1) main\n1 2\ntotals: 123456789\n": 123456789,
		"events: Ir\nsummary: 12\n":                                       12,
	} {
		if got, err := parseTotals(text); err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "totals:\n", "totals: many\n"} {
		if got, err := parseTotals(text); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestParseCover(t *testing.T) {
	got, err := parseCover("mode: count\na/b.go:1.2,3.4 2 10\na/b.go:4.2,5.4 1 0\na/c.go:1.1,2.2 3 7\n")
	if err != nil || got != 41 {
		t.Errorf("%v, %v; want 41", got, err)
	}
	for _, text := range []string{"", "mode: set\na.go:1.1,2.2 1 1\n", "mode: count\na.go:1.1,2.2 one 1\n"} {
		if got, err := parseCover(text); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func FuzzParseCover(f *testing.F) {
	f.Add("mode: count\na/b.go:1.2,3.4 2 10\n")
	f.Fuzz(func(t *testing.T, s string) {
		parseCover(s)
		parseTotals(s)
	})
}

func TestSyncsOfTheClockAreNoChange(t *testing.T) {
	for head, want := range map[float64]verdict.Decision{0.02: verdict.Pass, 0.06: verdict.Pass, 0.07: verdict.Fail, 1.01: verdict.Fail} {
		c := decideBeyond(clockSyncs, "x", "syncs/batch", []float64{0.01, 0.01, 0.01}, []float64{head, head, head}, limitCalls)
		if c.Decision != want || c.Head != head || c.Base != 0.01 {
			t.Errorf("%v: %+v", head, c)
		}
	}
}
