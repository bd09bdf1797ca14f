package adaptive

import (
	"math"

	"github.com/portask/portask/broker/compression"
)

// Features are signs of what a body holds. The zero value says that none were
// taken.
type Features struct {
	Valid bool
	compression.Signs
}

// FeaturesOf looks at a sample of body, for some 0.7 µs. They are not valid for
// less than 512 bytes.
func FeaturesOf(body []byte) Features {
	s, ok := compression.SignsOf(body)
	return Features{Valid: ok, Signs: s}
}

// Axes is how many numbers profiles know of features: pairs, lanes, plain, near,
// far, and plain times far.
const Axes = 6

// Vector returns features as numbers of similar spread, each in about [0, 3]:
// the first few repeats say most, whence the roots.
func (f Features) Vector() (v [Axes]float64) {
	v[0] = 0.25 * log2(1+float64(float64(f.Pairs)/128))
	v[1] = math.Sqrt(float64(f.Lanes) / 512)
	v[2] = float64(f.Plain) / 32
	v[3] = math.Sqrt(float64(f.Near) / 192)
	v[4] = math.Sqrt(float64(f.Far) / float64(max(8, f.Probes)))
	// Text that repeats is neither near random nor near a long run.
	v[5] = v[2] * v[4]
	return v
}
