package stat

import (
	"math"
	"math/rand/v2"

	"gonum.org/v1/gonum/stat/distuv"
)

// replicates of each round's value that are drawn from its own pairs, and
// draws of rounds for the bootstrap's standard error. The error of a standard
// error from 2,000 draws is 1.6 %.
const (
	replicates = 100
	draws      = 2000
)

// Round is the log-ratios of the pairs of one round. Immutable after NewRound;
// any number of goroutines may read it.
type Round struct {
	value float64
	pairs int
	again []float64
	// clusters are what the round shares with others, by kind: the link layout
	// of the base, that of the head.
	clusters []int
}

// NewRound computes the round's value and its bootstrap replicates. NaN
// log-ratios are left out. Rounds that have the same number at the same place
// of clusters are not taken as independent of each other; none: they are.
func NewRound(logs []float64, seed uint64, clusters ...int) *Round {
	good := make([]float64, 0, len(logs))
	for _, l := range logs {
		if !math.IsNaN(l) && !math.IsInf(l, 0) {
			good = append(good, l)
		}
	}
	r := &Round{pairs: len(good), clusters: clusters, value: math.NaN()}
	if len(good) == 0 {
		return r
	}
	var scratch []float64
	r.value = hodgesLehmann(good, &scratch)
	rng := rand.New(rand.NewPCG(seed, 0x726f756e64))
	r.again = make([]float64, replicates)
	drawn := make([]float64, len(good))
	for i := range r.again {
		for k := range drawn {
			drawn[k] = good[rng.IntN(len(good))]
		}
		r.again[i] = hodgesLehmann(drawn, &scratch)
	}
	return r
}

// Value is the Hodges-Lehmann estimate over the pairs, NaN without pairs.
func (r *Round) Value() float64 { return r.value }

// Pairs is how many log-ratios the value rests on.
func (r *Round) Pairs() int { return r.pairs }

// way is one opinion about the standard error of an effect.
type way struct{ se, df float64 }

// Effect is the mean over rounds, a logarithm, with what is known about its
// error. Its bounds are the widest of: Student's t over rounds; t over the
// means of rounds that share a layout, for each side, where there are at least
// six layouts and twice as many rounds; and t with the standard error of the hierarchical bootstrap,
// which draws rounds and within them pairs.
type Effect struct {
	Mean   float64
	SD     float64 // of the rounds' values
	Rounds int
	Pairs  int
	ways   []way
}

// minClusters is the least number of layouts to compute an error from. With
// fewer, t's quantile is so great that nothing is ever settled.
const minClusters = 6

// NewEffect of the rounds; rounds without a value are left out. The seed
// decides the bootstrap's draws.
func NewEffect(rounds []*Round, seed uint64) Effect {
	good := make([]*Round, 0, len(rounds))
	values := make([]float64, 0, len(rounds))
	e := Effect{}
	for _, r := range rounds {
		if math.IsNaN(r.value) {
			continue
		}
		good = append(good, r)
		values = append(values, r.value)
		e.Pairs += r.pairs
	}
	e.Rounds = len(good)
	mean, se, df := meanAndSE(values)
	e.Mean, e.SD = mean, StdDev(values)
	e.ways = append(e.ways, way{se, df})
	if e.Rounds < 2 {
		return e
	}
	for kind := range len(good[0].clusters) {
		if w, ok := clustered(good, kind); ok {
			e.ways = append(e.ways, w)
		}
	}
	e.ways = append(e.ways, way{bootstrap(good, seed), df})
	return e
}

// clustered is the error over the means of rounds that share cluster kind; not
// ok if there are too few clusters, or if so few rounds share one that the error
// over rounds tells as much with more degrees of freedom.
func clustered(rounds []*Round, kind int) (way, bool) {
	means := make(map[int][2]float64)
	order := make([]int, 0, len(rounds))
	for _, r := range rounds {
		if kind >= len(r.clusters) {
			return way{}, false
		}
		c := r.clusters[kind]
		m, ok := means[c]
		if !ok {
			order = append(order, c)
		}
		means[c] = [2]float64{m[0] + r.value, m[1] + 1}
	}
	if len(order) < minClusters || 2*len(order) > len(rounds) {
		return way{}, false
	}
	x := make([]float64, len(order))
	for i, c := range order {
		x[i] = means[c][0] / means[c][1]
	}
	_, se, df := meanAndSE(x)
	return way{se, df}, true
}

func bootstrap(rounds []*Round, seed uint64) float64 {
	rng := rand.New(rand.NewPCG(seed, 0x626f6f74))
	means := make([]float64, draws)
	x := make([]float64, len(rounds))
	for i := range means {
		for k := range x {
			r := rounds[rng.IntN(len(rounds))]
			x[k] = r.again[rng.IntN(len(r.again))]
		}
		means[i] = trimmedMean(x)
	}
	// From the middle nine tenths, not from the variance: a wild round that is
	// drawn more often than trimming takes away must not decide it.
	low, high := selectKth(means, draws/20), selectKth(means, draws-draws/20)
	n := float64(len(rounds))
	return (high - low) / (2 * 1.6449) * math.Sqrt(n/(n-1))
}

// Lower is the one-sided lower bound at level alpha: below the true effect in
// 1-alpha of all cases.
func (e Effect) Lower(alpha float64) float64 {
	if e.Rounds == 0 {
		return math.Inf(-1)
	}
	return e.Mean - e.half(alpha)
}

// Upper is the one-sided upper bound at level alpha.
func (e Effect) Upper(alpha float64) float64 {
	if e.Rounds == 0 {
		return math.Inf(1)
	}
	return e.Mean + e.half(alpha)
}

func (e Effect) half(alpha float64) float64 {
	h := 0.0
	for _, w := range e.ways {
		if w.df < 1 || math.IsInf(w.se, 1) {
			return math.Inf(1)
		}
		h = max(h, quantileT(1-alpha, w.df)*w.se)
	}
	return h
}

// P is the one-sided probability of an effect at least this great if there is
// none; 1 with fewer than two rounds.
func (e Effect) P() float64 { return e.PAbove(0) }

// PAbove is P for the hypothesis that the effect is not above limit.
func (e Effect) PAbove(limit float64) float64 {
	p := 0.0
	for _, w := range e.ways {
		switch {
		case w.df < 1 || math.IsInf(w.se, 1):
			return 1
		case w.se == 0:
			if e.Mean <= limit {
				p = 1
			}
		default:
			t := distuv.StudentsT{Sigma: 1, Nu: w.df}
			p = max(p, t.CDF(-(e.Mean-limit)/w.se))
		}
	}
	return p
}

// Mirrored is the effect with the sides exchanged.
func (e Effect) Mirrored() Effect {
	e.Mean = -e.Mean
	return e
}

func quantileT(p, df float64) float64 {
	return distuv.StudentsT{Sigma: 1, Nu: df}.Quantile(p)
}
