package adaptive

import "math/bits"

// What an arm costs for a byte of input, in this order.
const (
	outAxis    = iota // bytes of output
	encodeAxis        // nanoseconds of encoding
	decodeAxis        // nanoseconds of decoding
	costAxes
)

// costs are three such numbers for each arm.
type costs [Arms][costAxes]float64

// Raw costs a copy, both ways: 0.02 ns/B from 4 KiB on, as measured with the
// others; this package does not look closer.
var rawCosts = [costAxes]float64{1, 0.02, 0.02}

// Sizes of bodies fall into classes, two to an octave; everything that depends
// on the size is computed for the middle of a class.
const classes = 64

func classOf(size int) uint8 {
	n := bits.Len(uint(size)) // size is at least SmallBytes
	return uint8(min(2*n+(size>>(n-2)&1), classes-1))
}

// classBytes is the middle of a class.
func classBytes(class uint8) float64 {
	n := int(class / 2)
	low := float64(uint64(1) << (n - 1))
	if class%2 == 0 {
		return low * 1.25
	}
	return low * 1.75
}

// model is an artefact made ready: by profile, size and arm.
type model struct {
	Model
	profiles int
	weight   []float64           // of each profile; the sum is 1
	logs     [][len(Sizes)]costs // binary logarithms
	lin      [][len(Sizes)]costs // the numbers themselves
	signs    [][len(Sizes)][Axes]float64
	mean     [len(Sizes)]costs // of logs, weighted
}

func (m *model) build(a *Artefact) {
	m.Model, m.profiles = a.Model, len(a.Profiles)
	m.weight = make([]float64, m.profiles)
	m.logs = make([][len(Sizes)]costs, m.profiles)
	m.lin = make([][len(Sizes)]costs, m.profiles)
	m.signs = make([][len(Sizes)][Axes]float64, m.profiles)
	sum := 0.0
	for i := range a.Profiles {
		sum += a.Profiles[i].Weight
	}
	for i := range a.Profiles {
		p := &a.Profiles[i]
		m.weight[i] = p.Weight / sum
		for s := range Sizes {
			for k, v := range p.Signs[s] {
				m.signs[i][s][k] = float64(v) / 100
			}
			for k, v := range rawCosts {
				m.logs[i][s][Raw][k], m.lin[i][s][Raw][k] = log2(v), v
			}
			for arm, c := range p.Costs[s] {
				for k, v := range c {
					m.logs[i][s][arm+1][k] = float64(v) / 100
					m.lin[i][s][arm+1][k] = exp2(float64(v) / 100)
				}
			}
			for arm := range Arms {
				for k := range costAxes {
					m.mean[s][arm][k] += float64(m.weight[i] * m.logs[i][s][arm][k])
				}
			}
		}
	}
}

// place is where a size lies between those of the profiles: at s it counts with
// 1-f, at s+1 with f. Below the smallest, f is negative, to -1: costs for a byte
// grow on as they did.
type place struct {
	s int
	f float64
}

var places = func() (p [classes]place) {
	for c := range uint8(classes) {
		if c < 2*7 {
			p[c] = place{0, -1}
			continue
		}
		x := float64((log2(classBytes(c)) - 10) / 2)
		s := int(min(max(x, 0), float64(len(Sizes)-2)))
		p[c] = place{s, min(max(x-float64(s), -1), 1)}
	}
	return p
}()

func (p place) of(low, high float64) float64 { return low + float64((high-low)*p.f) }
