package adaptive

import (
	"math"
	"time"

	"github.com/portask/portask/broker/compression"
)

// calibrated are the arms whose speed tells a host's: one that moves memory and
// one that computes.
var calibrated = [...]Arm{4, 1} // zstd-fastest, snappy-fastest

// calibrateFor is how long each of them is run.
const calibrateFor = 20 * time.Millisecond

// Calibration returns the body that hosts are compared on: 64 KiB of lines of
// fields, some of which repeat. It is the same everywhere.
func Calibration() []byte {
	b := make([]byte, 0, 64<<10)
	x := uint64(1)
	for len(b) < cap(b) {
		x = x*6364136223846793005 + 1442695040888963407
		const words = "time=level=info path=/topics/orders status=200 bytes= producer consumer batch durable accepted "
		at := int(x>>33) % (len(words) - 16)
		b = append(b, words[at:at+int(x>>58)%16]...)
		b = append(b, byte('0'+x>>40%10), byte('a'+x>>45%26), byte('0'+x>>50%10), ' ')
	}
	return b[:64<<10]
}

// Measure returns the fewest nanoseconds that each calibrated arm needed for the
// body of Calibration, in some 40 ms.
func Measure() (ns [len(calibrated)]float64, err error) {
	body := Calibration()
	out := make([]byte, 0, compression.Bound(calibrated[0].Algorithm(), len(body)))
	for i, a := range calibrated {
		least := time.Duration(math.MaxInt64)
		for begin := time.Now(); time.Since(begin) < calibrateFor; {
			from := time.Now()
			if _, err := compression.AppendCompress(out[:0], body, a.Algorithm(), a.Level()); err != nil {
				return ns, err
			}
			least = min(least, time.Since(from))
		}
		ns[i] = max(float64(least), 1)
	}
	return ns, nil
}

// HostScale returns how much longer a machine with these figures takes than the
// one the artefact was trained on: the geometric mean over the calibrated arms,
// for Options.HostScale, held between 1/16 and 16. It is measured once a process,
// and recorded with each log, so that replays do not measure.
func (a *Artefact) HostScale(ns [len(calibrated)]float64) float64 {
	sum := 0.0
	for i, v := range ns {
		if !(v > 0) || math.IsInf(v, 0) {
			return 1
		}
		sum += log2(v) - log2(a.Reference[i])
	}
	return min(max(exp2(sum/float64(len(ns))), 1.0/16), 16)
}
