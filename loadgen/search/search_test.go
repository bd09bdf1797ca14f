package search

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// system is a simulated one: a queue whose latency rises as 1/(1-load), as of
// M/M/1, measured with noise, and that falls behind above its capacity.
type system struct {
	capacity float64
	base     time.Duration // p99 without load
	noise    float64       // deviation of the logarithm of p99
	// hiccup is the share of probes that the machine spoils: ten times the p99.
	hiccup float64
	random *rand.Rand
	// drift is by how much the capacity falls with each probe.
	drift float64
	// generator is the rate above which probes are invalid; 0: none.
	generator float64
	flaky     float64 // share of probes that are invalid at any rate

	probes int
}

const objective = time.Millisecond

// truth is the rate at which four probes of five pass, which is what confirmed
// means: p99 is below the objective by 0.84 deviations of the noise.
func (s *system) truth() float64 {
	return s.capacity * (1 - float64(s.base)*math.Exp(0.8416*s.noise)/float64(objective))
}

func (s *system) probe(_ context.Context, rate float64) (Point, error) {
	s.probes++
	capacity := s.capacity * (1 - s.drift*float64(s.probes))
	p := Point{Achieved: min(rate, capacity), BacklogRising: 1}
	load := rate / capacity
	if load < 0.9999 {
		p.P99 = int64(float64(s.base) / (1 - load))
	} else {
		p.P99, p.Backlog, p.BacklogRising = int64(time.Second), rate-capacity, 0.001
	}
	f := math.Exp(s.noise * s.random.NormFloat64())
	if s.random.Float64() < s.hiccup {
		f *= 10
	}
	p.P99 = int64(float64(p.P99) * f)
	p.P50, p.P999 = p.P99/4, p.P99*3
	p.Margin = float64(p.P99) / float64(objective)
	switch {
	case s.generator > 0 && rate > s.generator || s.random.Float64() < s.flaky:
		p.Verdict, p.Why = Invalid, "its dispatch lag"
	case p.P99 > int64(objective) || p.Achieved < 0.99*rate:
		p.Verdict, p.Why = Fail, "too slow"
	default:
		p.Verdict = Pass
	}
	return p, nil
}

// The value is within the resolution of the truth for at least 95 % of seeds,
// with a bounded number of probes.
func TestSimulatedSystems(t *testing.T) {
	for name, tt := range map[string]struct {
		s          system
		from       float64
		resolution float64
		meanProbes float64
	}{
		"exact":                   {system{capacity: 123_456, base: 20 * time.Microsecond}, 1000, 0.05, 30},
		"noise of 15 %":           {system{capacity: 200_000, base: 30 * time.Microsecond, noise: 0.15}, 1000, 0.05, 34},
		"noise of 40 %":           {system{capacity: 80_000, base: 30 * time.Microsecond, noise: 0.4}, 1000, 0.05, 36},
		"a gentle slope":          {system{capacity: 50_000, base: 200 * time.Microsecond, noise: 0.1}, 1000, 0.05, 36},
		"every tenth is spoiled":  {system{capacity: 90_000, base: 30 * time.Microsecond, noise: 0.15, hiccup: 0.1}, 1000, 0.05, 44},
		"from above":              {system{capacity: 3_000, base: 30 * time.Microsecond, noise: 0.15}, 100_000, 0.05, 44},
		"a slow machine gets old": {system{capacity: 100_000, base: 30 * time.Microsecond, noise: 0.15, drift: 0.0005}, 1000, 0.05, 40},
		"coarse":                  {system{capacity: 100_000, base: 30 * time.Microsecond, noise: 0.2}, 1000, 0.2, 24},
		"some are invalid":        {system{capacity: 100_000, base: 30 * time.Microsecond, noise: 0.15, flaky: 0.03}, 1000, 0.05, 40},
	} {
		t.Run(name, func(t *testing.T) {
			const seeds = 300
			right, found, most, total := 0, 0, 0, 0
			worst := 0.0
			for seed := range uint64(seeds) {
				s := tt.s
				s.random = rand.New(rand.NewPCG(seed, 9))
				res, err := Run(t.Context(), Options{From: tt.from, Resolution: tt.resolution, Seed: seed}, s.probe, nil)
				if err != nil {
					t.Fatal(err)
				}
				total += len(res.Points)
				most = max(most, len(res.Points))
				if res.Outcome != Found {
					continue
				}
				found++
				truth := s.truth() * (1 - s.drift*float64(len(res.Points))/2)
				off := res.Value/truth - 1
				if math.Abs(off) > math.Abs(worst) {
					worst = off
				}
				if math.Abs(off) <= res.Resolution && res.Value < res.Refuted {
					right++
				}
			}
			t.Logf("%d found, %d right of %d; worst %+.1f %%; %.1f probes in the mean, at most %d", found, right, seeds, 100*worst, float64(total)/seeds, most)
			if right < seeds*95/100 || most > 60 || float64(total)/seeds > tt.meanProbes {
				t.Errorf("%d of %d right, at most %d probes, %.1f in the mean; want 95 %%, 60 and %v", right, seeds, most, float64(total)/seeds, tt.meanProbes)
			}
		})
	}
}

// The value is confirmed and what lies above it refuted, by fresh probes in
// mixed order.
func TestConfirmation(t *testing.T) {
	s := system{capacity: 100_000, base: 30 * time.Microsecond, noise: 0.1, random: rand.New(rand.NewPCG(4, 4))}
	res, err := Run(t.Context(), Options{Seed: 1}, s.probe, nil)
	if err != nil || res.Outcome != Found {
		t.Fatal(res, err)
	}
	pass, fail, swaps := 0, 0, 0
	last := 0.0
	for _, p := range res.Points {
		if p.Stage != confirming {
			continue
		}
		switch {
		case p.Offered == res.Value && p.Verdict == Pass:
			pass++
		case p.Offered == res.Refuted && p.Verdict == Fail:
			fail++
		}
		if last != 0 && p.Offered != last {
			swaps++
		}
		last = p.Offered
	}
	if pass < 3 || fail < 2 || swaps < 2 {
		t.Errorf("%d passes at the value, %d failures above it, %d changes between them", pass, fail, swaps)
	}
	if !strings.Contains(res.String(), "are sustained") || res.ExitStatus() != 0 || len(res.Curve) < 5 {
		t.Errorf("%s; %d levels", res, len(res.Curve))
	}
	for i := 1; i < len(res.Curve); i++ {
		if res.Curve[i].Offered <= res.Curve[i-1].Offered {
			t.Errorf("the curve is not in order at %d", i)
		}
	}
}

// Where the generator is the limit there is no number.
func TestGeneratorWasTheLimit(t *testing.T) {
	for seed := range uint64(100) {
		s := system{capacity: 1e6, base: time.Microsecond, noise: 0.1, generator: 40_000, random: rand.New(rand.NewPCG(seed, 1))}
		res, err := Run(t.Context(), Options{Seed: seed}, s.probe, nil)
		if err != nil || res.Outcome != Generator || res.Value != 0 || res.Limited < 40_000 || res.Limited > 90_000 || res.ExitStatus() != 3 {
			t.Fatalf("seed %d: %+v, %v", seed, res, err)
		}
		if text := res.String(); !strings.Contains(text, "the generator was the limit at") {
			t.Error(text)
		}
	}
}

func TestEnds(t *testing.T) {
	quick := system{capacity: 1e9, base: time.Microsecond, random: rand.New(rand.NewPCG(1, 1))}
	res, err := Run(t.Context(), Options{Max: 5000}, quick.probe, nil)
	if err != nil || res.Outcome != AtLeast || res.Value > 5000 || res.Value < 4700 || res.ExitStatus() != 0 {
		t.Errorf("%+v, %v", res, err)
	}
	slow := system{capacity: 1, base: time.Microsecond, random: rand.New(rand.NewPCG(1, 1))}
	if res, err = Run(t.Context(), Options{Min: 100}, slow.probe, nil); err != nil || res.Outcome != Below || res.ExitStatus() != 2 {
		t.Errorf("%+v, %v", res, err)
	}
	if res, err = Run(t.Context(), Options{ProbesMax: 4}, quick.probe, nil); err != nil || res.Outcome != Unsettled || len(res.Points) != 4 || res.ExitStatus() != 3 {
		t.Errorf("%+v, %v", res, err)
	}
	broken := errors.New("broken")
	if _, err := Run(t.Context(), Options{}, func(context.Context, float64) (Point, error) { return Point{}, broken }, nil); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	res, err = Run(ctx, Options{}, func(ctx context.Context, rate float64) (Point, error) {
		cancel()
		return Point{}, ctx.Err()
	}, nil)
	if err != nil || res.Outcome != Ended || res.ExitStatus() != 3 {
		t.Errorf("%+v, %v", res, err)
	}
	// Whatever a system answers, the search ends.
	r := rand.New(rand.NewPCG(3, 3))
	for range 500 {
		res, err := Run(t.Context(), Options{Seed: r.Uint64(), ProbesMax: 200}, func(context.Context, float64) (Point, error) {
			return Point{Verdict: []Verdict{Pass, Fail, Pass, Fail, Pass, Fail, Invalid}[r.IntN(7)], Margin: r.Float64() * 3}, nil
		}, nil)
		if err != nil || len(res.Points) > 200 || res.Outcome == "" {
			t.Fatalf("%+v, %v", res, err)
		}
	}
	for _, o := range []Options{{Resolution: 1}, {From: 5}, {Max: 1}, {ProbesMax: 1}} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
	violated := &Result{Outcome: Found, Points: []Point{{Violations: []string{"1 lost"}}}}
	if violated.ExitStatus() != 4 {
		t.Error("a broken promise is not the exit status")
	}
}
