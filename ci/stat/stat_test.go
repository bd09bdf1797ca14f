package stat

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if math.IsNaN(got) || math.Abs(got-want) > tolerance {
		t.Errorf("%s = %.6g, want %.6g within %.2g", what, got, want, tolerance)
	}
}

func TestMedianAgreesWithSorting(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for n := 1; n < 70; n++ {
		x := make([]float64, n)
		for i := range x {
			x[i] = float64(rng.IntN(n)) // many ties
		}
		before := slices.Clone(x)
		got := Median(x)
		if !slices.Equal(x, before) {
			t.Fatal("Median changed its argument")
		}
		slices.Sort(before)
		near(t, "median", got, (before[n/2]+before[(n-1)/2])/2, 0)
	}
	if !math.IsNaN(Median(nil)) {
		t.Error("median of nothing is a number")
	}
}

func TestHodgesLehmann(t *testing.T) {
	// Walsh averages of 1, 2, 4: 1 1.5 2 2.5 3 4.
	near(t, "of three", HodgesLehmann([]float64{4, 1, 2}), 2.25, 1e-12)
	near(t, "with NaN", HodgesLehmann([]float64{4, math.NaN(), 1, 2}), 2.25, 1e-12)
	if !math.IsNaN(HodgesLehmann([]float64{math.NaN()})) {
		t.Error("of nothing is a number")
	}
	// A quarter of wild values does not carry it away.
	x := make([]float64, 40)
	for i := range x {
		x[i] = float64(i%10) / 1000
		if i%4 == 0 {
			x[i] = 50
		}
	}
	if h := HodgesLehmann(x); h > 0.02 {
		t.Errorf("%v with a quarter of the values at 50", h)
	}
}

func TestQuantiles(t *testing.T) {
	// Tables of Student's t.
	near(t, "t7 0.995", quantileT(0.995, 7), 3.4995, 1e-4)
	near(t, "t23 0.995", quantileT(0.995, 23), 2.8073, 1e-4)
	near(t, "t4 0.98", quantileT(0.98, 4), 2.9985, 1e-4)
	near(t, "t7 1-1e-6", quantileT(1-1e-6, 7), 14.2363, 0.3)
}

func TestClopperPearson(t *testing.T) {
	for _, c := range []struct {
		k, n      int
		low, high float64
	}{
		{0, 20, 0, 0.16843}, {0, 100, 0, 0.03622}, {60, 60, 0.94036, 1}, {57, 60, 0.86075, 0.98957}, {5, 10, 0.18709, 0.81291},
	} {
		low, high := ClopperPearson(c.k, c.n, 0.95)
		near(t, "low", low, c.low, 1e-4)
		near(t, "high", high, c.high, 1e-4)
	}
}

func TestHolm(t *testing.T) {
	got := Holm([]float64{0.01, 0.04, 0.03, 0.005})
	for i, want := range []float64{0.03, 0.06, 0.06, 0.02} {
		near(t, "adjusted", got[i], want, 1e-12)
	}
	if got := Holm([]float64{0.9, 0.8}); got[0] != 1 || got[1] != 1 {
		t.Errorf("adjusted beyond 1: %v", got)
	}
}

func TestLooksSpendTheWholeLevelAndNoMore(t *testing.T) {
	for name, spend := range map[string]func(a, t float64) float64{
		"O'Brien-Fleming": OBrienFleming, "power": PowerFamily(2),
	} {
		levels := Levels(0.005, []int{8, 16, 24, 32}, spend)
		near(t, name, sum(levels), 0.005, 1e-12)
		if !slices.IsSorted(levels) || levels[0] <= 0 {
			t.Errorf("%s: %v", name, levels)
		}
	}
	// Lan and DeMets' table for one-sided 0.025: 0.0015 at a half.
	near(t, "spent at a half", OBrienFleming(0.025, 0.5), 0.00153, 1e-5)
}

// With one pair a round and no ties the effect is Student's textbook interval.
func TestEffectIsStudentsInterval(t *testing.T) {
	x := []float64{0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0} // Student's sleep data
	rounds := make([]*Round, len(x))
	for i, v := range x {
		rounds[i] = NewRound([]float64{v}, 1)
	}
	e := NewEffect(rounds, 1)
	near(t, "mean", e.Mean, 0.75, 1e-12)
	near(t, "sd", e.SD, 1.78901, 1e-4)
	near(t, "p", e.P(), 0.1088, 2e-3)
	// The bootstrap may be the wider by its own error.
	near(t, "lower", e.Lower(0.025), -0.52979, 0.06)
	near(t, "upper", e.Upper(0.025), 2.02979, 0.06)
	m := e.Mirrored()
	near(t, "mirrored", m.Lower(0.025), -e.Upper(0.025), 1e-12)
	near(t, "p above its lower bound", e.PAbove(e.Lower(0.025)), 0.025, 1e-6)
}

func TestEffectOfTooLittle(t *testing.T) {
	for _, rounds := range [][]*Round{nil, {NewRound([]float64{0.1}, 1)}, {NewRound(nil, 1), NewRound([]float64{math.NaN()}, 1)}} {
		e := NewEffect(rounds, 1)
		if e.P() != 1 || !math.IsInf(e.Upper(0.1), 1) || !math.IsInf(e.Lower(0.1), -1) {
			t.Errorf("%d rounds prove something: p %v, [%v, %v]", len(rounds), e.P(), e.Lower(0.1), e.Upper(0.1))
		}
	}
	// Rounds that agree exactly have no error.
	same := []*Round{NewRound([]float64{0.1, 0.1}, 1), NewRound([]float64{0.1, 0.1}, 2)}
	if e := NewEffect(same, 1); e.P() > 1e-9 || e.Lower(0.001) < 0.1-1e-9 {
		t.Errorf("p %v, lower %v", e.P(), e.Lower(0.001))
	}
}

// Luck that belongs to a layout must not become significance by repeating it.
func TestSharedLayoutsAreNotIndependent(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	alarms, plain := 0, 0
	const trials = 150
	for trial := range trials {
		luck := make([]float64, 6)
		for i := range luck {
			luck[i] = 0.03 * rng.NormFloat64()
		}
		var with, without []*Round
		for i := range 24 {
			v := []float64{luck[i%6] + 0.003*rng.NormFloat64()}
			with = append(with, NewRound(v, uint64(i), i, i%6))
			without = append(without, NewRound(v, uint64(i)))
		}
		if NewEffect(with, uint64(trial)).P() < 0.01 {
			alarms++
		}
		if NewEffect(without, uint64(trial)).P() < 0.01 {
			plain++
		}
	}
	if alarms > 8 { // 1.5 expected
		t.Errorf("%d of %d alarms at 1 %%", alarms, trials)
	}
	if plain < 2*alarms {
		t.Errorf("without clusters %d alarms, with %d: the test shows nothing", plain, alarms)
	}
}

// noisyRound is what a shared machine gives: pairs with heavy tails (Student's
// t with 2 degrees of freedom) whose noise follows its predecessor, and a luck
// of the round that more pairs do not remove.
func noisyRound(rng *rand.Rand, effect, floor float64, pairs int) *Round {
	luck := floor * rng.NormFloat64()
	logs := make([]float64, pairs)
	ar := 0.0
	for i := range logs {
		t2 := rng.NormFloat64() / math.Sqrt(rng.ExpFloat64()) // Student's t, 2 degrees
		ar = 0.4*ar + 0.03*t2
		logs[i] = effect + luck + ar
	}
	return NewRound(logs, rng.Uint64())
}

func TestFalseAlarmsAndPowerUnderHeavyTails(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	const trials = 150
	alarms, found, covered := 0, 0, 0
	for range trials {
		rounds := make([]*Round, 8)
		for i := range rounds {
			rounds[i] = noisyRound(rng, 0, 0.015, 25)
		}
		e := NewEffect(rounds, rng.Uint64())
		if e.Lower(0.01) > 0 {
			alarms++
		}
		if e.Lower(0.025) < 0 && e.Upper(0.025) > 0 {
			covered++
		}
		for i := range rounds {
			rounds[i] = noisyRound(rng, 0.05, 0.015, 25)
		}
		if NewEffect(rounds, rng.Uint64()).Lower(0.005) > 0 {
			found++
		}
	}
	// Bounds are those of the binomial beyond any doubt, with the seed fixed.
	if alarms > 7 {
		t.Errorf("%d of %d alarms at 1 %%", alarms, trials)
	}
	if covered < 133 {
		t.Errorf("95 %% interval covered %d of %d", covered, trials)
	}
	if found < 144 {
		t.Errorf("found +5 %% in %d of %d", found, trials)
	}
}

func TestEffectIsDeterministic(t *testing.T) {
	make8 := func() Effect {
		rng := rand.New(rand.NewPCG(9, 9))
		rounds := make([]*Round, 24)
		for i := range rounds {
			rounds[i] = noisyRound(rng, 0.01, 0.01, 20)
		}
		return NewEffect(rounds, 5)
	}
	a, b := make8(), make8()
	if a.Lower(0.01) != b.Lower(0.01) || a.P() != b.P() {
		t.Error("the same seed gave two effects")
	}
	if a.Rounds != 24 || a.Pairs != 480 {
		t.Errorf("%d rounds, %d pairs", a.Rounds, a.Pairs)
	}
}

// From 20 rounds on a disturbed round does not move the effect.
func TestTrimming(t *testing.T) {
	var rounds []*Round
	for i := range 24 {
		v := 0.05 + 0.001*float64(i%5-2)
		if i == 7 {
			v = 3
		}
		rounds = append(rounds, NewRound([]float64{v}, uint64(i)))
	}
	e := NewEffect(rounds, 1)
	near(t, "mean", e.Mean, 0.05, 0.001)
	if e.Lower(0.005) < 0.045 {
		t.Errorf("lower bound %v", e.Lower(0.005))
	}
}

func TestChanges(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 11))
	series := func(levels ...float64) []float64 {
		var x []float64
		for _, l := range levels {
			for range 30 {
				x = append(x, l+0.01*rng.NormFloat64())
			}
		}
		return x
	}
	if c := Changes(series(1, 1, 1), ChangeWindow, ChangeP); len(c) != 0 {
		t.Errorf("changes in noise: %+v", c)
	}
	// A large change does not hide a small one.
	got := Changes(series(1, 1.03, 2), ChangeWindow, ChangeP)
	if len(got) != 2 || abs(got[0].At-30) > 2 || abs(got[1].At-60) > 1 {
		t.Fatalf("%+v, want changes at 30 and 60", got)
	}
	near(t, "before", got[0].Before, 1, 0.01)
	near(t, "after", got[0].After, 1.03, 0.01)
	for _, x := range [][]float64{nil, {1}, {1, 2, 1, 2}, {math.NaN(), math.NaN(), 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}} {
		if c := Changes(x, ChangeWindow, ChangeP); len(c) != 0 {
			t.Errorf("%v: %+v", x, c)
		}
	}
	// A step without noise is found where it is.
	if c := Changes([]float64{1, 1, 1, 1, 2, 2, 2, 2}, ChangeWindow, ChangeP); len(c) != 1 || c[0].At != 4 || c[0].P != 0 {
		t.Errorf("step: %+v", c)
	}
}

func abs(i int) int { return max(i, -i) }

func BenchmarkNewRound(b *testing.B) {
	rng := rand.New(rand.NewPCG(7, 7))
	logs := make([]float64, 50)
	for i := range logs {
		logs[i] = rng.NormFloat64()
	}
	for b.Loop() {
		NewRound(logs, 1)
	}
}

func BenchmarkNewEffect(b *testing.B) {
	rng := rand.New(rand.NewPCG(7, 7))
	rounds := make([]*Round, 24)
	for i := range rounds {
		rounds[i] = noisyRound(rng, 0, 0.01, 50)
	}
	for b.Loop() {
		NewEffect(rounds, 1)
	}
}
