package adaptive

import "math"

// Arithmetic whose results are the same on every processor. Addition,
// multiplication, division and square root are, by IEEE 754. Three things are
// not, and are not used here:
//
//   - math.Log2, math.Exp and their like, some of which are assembly that rounds
//     otherwise. log2 and exp2 below are tables and linear interpolation, good to
//     3e-6, which is more than any measurement has.
//   - x*y + z compiled to one instruction that rounds once (arm64 and others).
//     The language forbids it across an explicit conversion, so each product that
//     is added stands in float64(...). A test compiles the package for arm64 and
//     finds no such instruction.
//   - sums whose order is that of a map.

const tableBits = 8

// logTable is log2(1 + i/256).
var logTable = func() (t [1<<tableBits + 1]float64) {
	for i := range t {
		// Digit by digit: squaring doubles the logarithm.
		y, bit := 1+float64(float64(i)/(1<<tableBits)), 0.5
		if y >= 2 {
			t[i] = 1
			continue
		}
		for range 40 {
			y *= y
			if y >= 2 {
				y /= 2
				t[i] += bit
			}
			bit /= 2
		}
	}
	return t
}()

// expTable is 2^(i/256).
var expTable = func() (t [1<<tableBits + 1]float64) {
	for i := range t {
		y, root := 1.0, 2.0
		for bit := 1 << tableBits; bit > 0; bit >>= 1 {
			if i&bit != 0 {
				y *= root
			}
			root = math.Sqrt(root)
		}
		t[i] = y
	}
	return t
}()

// log2 of x, which is positive, finite and not below 1e-300.
func log2(x float64) float64 {
	const exponent = 52 // bits below it
	b := math.Float64bits(x)
	m := math.Float64frombits(b&(1<<exponent-1) | 1023<<exponent) // in [1, 2)
	f := float64((m - 1) * (1 << tableBits))
	i := int(f)
	f -= float64(i)
	return float64(int(b>>exponent)-1023) + (logTable[i] + float64((logTable[i+1]-logTable[i])*f))
}

// exp2 is 2 to the x, for x held between -60 and 60.
func exp2(x float64) float64 {
	x = min(max(x, -60), 60)
	e := math.Floor(x)
	f := float64((x - e) * (1 << tableBits))
	i := int(f)
	f -= float64(i)
	power := math.Float64frombits(uint64(1023+int(e)) << 52)
	return float64((expTable[i] + float64((expTable[i+1]-expTable[i])*f)) * power)
}
