package compare

import (
	"math"
	"math/rand/v2"
	"testing"
)

// Critical values of tables of the signed-rank statistic: P(T <= k) at most
// 0.025.
func TestRankIsThatOfTables(t *testing.T) {
	for n, want := range map[int]int{6: 0, 7: 2, 8: 3, 9: 5, 10: 8, 12: 13, 15: 25, 20: 52} {
		// The table's k is the largest T that is significant; the interval then
		// begins at Walsh average k+1, which has k others below it.
		if k, c := rank(n); k != want || c < wanted {
			t.Errorf("%d pairs: rank %d with confidence %.4f, want %d", n, k, c, want)
		}
	}
	for n, want := range map[int]float64{1: 0, 2: 0.5, 3: 0.75, 4: 0.875, 5: 0.9375} {
		if k, c := rank(n); k != 0 || math.Abs(c-want) > 1e-12 {
			t.Errorf("%d pairs: rank %d with confidence %v, want the whole range with %v", n, k, c, want)
		}
	}
}

func TestRatioOfExactValues(t *testing.T) {
	r, ok := ratio([]float64{2, 4, 8}, []float64{1, 2, 4})
	if !ok || math.Abs(r.Estimate-2) > 1e-9 || math.Abs(r.Low-2) > 1e-9 || math.Abs(r.High-2) > 1e-9 || r.Pairs != 3 {
		t.Errorf("%+v", r)
	}
	if _, ok := ratio([]float64{0, -1}, []float64{1, 1}); ok {
		t.Error("a ratio without a pair")
	}
	if r, _ := ratio([]float64{3}, []float64{2}); r.Estimate != 1.5 || r.Confidence != 0 || r.Low != r.High {
		t.Errorf("of one pair: %+v", r)
	}
}

// Machine drift that both sides of a pair share does not widen the interval, and
// the interval holds the truth as often as it says.
func TestRatioCoversTheTruth(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	const truth, trials, n = 0.2, 2000, 8
	hits := 0
	var confidence float64
	for range trials {
		var a, b []float64
		for range n {
			drift := math.Exp(rnd.NormFloat64())
			a = append(a, truth*drift*math.Exp(0.1*rnd.NormFloat64()))
			b = append(b, drift*math.Exp(0.1*rnd.NormFloat64()))
		}
		r, _ := ratio(a, b)
		confidence = r.Confidence
		if r.Low <= truth && truth <= r.High {
			hits++
		}
		if r.High/r.Low > 2 {
			t.Fatalf("interval %+v is as wide as the drift", r)
		}
	}
	if got := float64(hits) / trials; got < confidence-0.02 {
		t.Errorf("the truth was inside in %.3f of the trials, want %.3f", got, confidence)
	}
}

func TestMedian(t *testing.T) {
	v := []float64{3, 1, 2}
	if median(v) != 2 || v[0] != 3 || median([]float64{1, 2}) != 1.5 || !math.IsNaN(median(nil)) {
		t.Error("median")
	}
}
