package trend

import (
	"math"
	"math/rand/v2"
	"testing"
)

func series(n int, f func(i int) float64) (x, y []float64) {
	for i := range n {
		x, y = append(x, float64(i)), append(y, f(i))
	}
	return x, y
}

func TestSlopeIgnoresOutliers(t *testing.T) {
	got := Of(series(40, func(i int) float64 {
		if i%7 == 3 {
			return 1e6
		}
		return 3*float64(i) + 5
	}))
	if math.Abs(got.Slope-3) > 0.5 || got.Rising > 1e-4 {
		t.Errorf("%+v, want a slope of 3", got)
	}
	if got := Of(series(99, func(i int) float64 { return float64(i) * (1 << 20) / 3 })); got.Rising > 1e-20 {
		t.Errorf("a straight line: %+v", got)
	}
	if got := Of(series(40, func(i int) float64 { return -float64(i) })); got.Slope != -1 || got.Rising < 0.999 {
		t.Errorf("falling: %+v", got)
	}
	if got := Of(series(40, func(int) float64 { return 7 })); got.Slope != 0 || got.Rising != 1 {
		t.Errorf("constant: %+v", got)
	}
	for n := range 3 {
		if got := Of(series(n, func(i int) float64 { return float64(i) })); got != (Trend{0, 1}) {
			t.Errorf("%d values: %+v", n, got)
		}
	}
}

// Published values of the test: P(S >= s) for random orders (Kendall's tables).
func TestExactProbabilities(t *testing.T) {
	for _, tt := range []struct {
		n, s int
		want float64
	}{{4, 6, 1.0 / 24}, {4, 4, 4.0 / 24}, {5, 10, 1.0 / 120}, {5, 8, 5.0 / 120}, {5, 0, 0.592}, {8, 16, 0.031}, {10, 21, 0.036}, {10, -45, 1}} {
		if got := exact(tt.n, tt.s); math.Abs(got-tt.want) > 0.0006 {
			t.Errorf("n %d, S %d: %.4f, want %.4f", tt.n, tt.s, got, tt.want)
		}
	}
}

// Series without trend are called rising as seldom as the level says, also
// those whose neighbours resemble each other; rising ones are found.
func TestLevelAndPower(t *testing.T) {
	const runs, n, level = 2000, 60, 0.01
	r := rand.New(rand.NewPCG(1, 2))
	for _, tt := range []struct {
		name      string
		r, slope  float64
		ties      bool
		most, min float64 // share that is called rising
	}{
		{"noise", 0, 0, false, 0.016, 0},
		{"noise with ties", 0, 0, true, 0.016, 0},
		{"neighbours alike", 0.6, 0, false, 0.035, 0},
		{"rising by a deviation in all", 0, 1.0 / n, false, 1, 0.35},
		{"rising by three", 0, 3.0 / n, false, 1, 0.999},
	} {
		rising := 0
		for range runs {
			last := 0.0
			x, y := series(n, func(i int) float64 {
				last = tt.r*last + r.NormFloat64()*math.Sqrt(1-tt.r*tt.r)
				v := last + tt.slope*float64(i)
				if tt.ties {
					v = math.Round(v)
				}
				return v
			})
			if Of(x, y).Rising < level {
				rising++
			}
		}
		if share := float64(rising) / runs; share > tt.most || share < tt.min {
			t.Errorf("%s: %.3f are called rising, want %v to %v", tt.name, share, tt.min, tt.most)
		}
	}
}
