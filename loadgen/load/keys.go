package load

import (
	"math"
	"math/rand/v2"

	"github.com/portask/portask/loadgen/scenario"
)

// keys draws the keys of a producer's messages, from 1 on: key k with a
// probability in proportion to k^-skew, or one of the first few, which are hot,
// with a given one. Not safe for concurrent use.
//
// For a skew above 0 it is rejection-inversion (Hörmann and Derflinger, 1996):
// a constant number of draws, whatever the number of keys and the skew.
type keys struct {
	random *rand.Rand
	n      float64
	skew   float64
	hot    uint64  // keys; 0: none
	share  float64 // of the messages that have one of those

	first, last, squeeze float64 // of the hat's integral
}

func newKeys(k scenario.Keys, seed uint64, producer int) *keys {
	x := &keys{random: rand.New(rand.NewPCG(seed, 0x6b657973<<32|uint64(producer))), n: float64(k.Count), skew: k.Skew, hot: uint64(k.Hot), share: k.HotShare}
	if x.skew > 0 {
		x.first = x.integral(1.5) - 1
		x.last = x.integral(x.n + 0.5)
		x.squeeze = 2 - x.inverse(x.integral(2.5)-x.hat(2))
	}
	return x
}

// hat is t^-skew, integral one of its antiderivatives, inverse that one's
// inverse.
func (x *keys) hat(t float64) float64 { return math.Exp(-x.skew * math.Log(t)) }

func (x *keys) integral(t float64) float64 {
	log := math.Log(t)
	return expm1ratio((1-x.skew)*log) * log
}

func (x *keys) inverse(v float64) float64 {
	t := max(v*(1-x.skew), -1)
	return math.Exp(log1pratio(t) * v)
}

// expm1ratio is (e^t - 1) / t, log1pratio log(1 + t) / t, also where t is 0.
func expm1ratio(t float64) float64 {
	if math.Abs(t) > 1e-8 {
		return math.Expm1(t) / t
	}
	return 1 + t/2
}

func log1pratio(t float64) float64 {
	if math.Abs(t) > 1e-8 {
		return math.Log1p(t) / t
	}
	return 1 - t/2
}

func (x *keys) next() uint32 {
	if x.hot > 0 {
		if x.random.Float64() < x.share {
			return 1 + uint32(x.random.Uint64N(x.hot))
		}
		return 1 + uint32(x.hot+x.random.Uint64N(uint64(x.n)-x.hot))
	}
	if x.skew <= 0 {
		return 1 + uint32(x.random.Uint64N(uint64(x.n)))
	}
	for {
		u := x.last + x.random.Float64()*(x.first-x.last)
		t := x.inverse(u)
		k := min(max(math.Round(t), 1), x.n)
		if k-t <= x.squeeze || u >= x.integral(k+0.5)-x.hat(k) {
			return uint32(k)
		}
	}
}
