package compression

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// Sizes of what EstimateRatio reads, whatever the length of the input: 32 times
// 16 bytes spread over all of it, 192 bytes in a row near its beginning and up to
// 192 words of 8 bytes spread over the rest.
const (
	estimateSpots   = 32  // places where bytes are counted
	estimateSpot    = 16  // bytes at each, of which every second is counted
	estimateRow     = 192 // positions that later ones are compared with
	estimateProbes  = 192 // positions compared with the row
	estimateSlots   = 512 // of the table of the row
	estimateLeast   = 512 // shorter inputs are not estimated
	estimateCounted = estimateSpots * estimateSpot / 2
)

// EstimateRatio guesses how many times smaller b would become, from a sample of
// at most 2.3 KB, in less than a microsecond. The guess ranks bodies and is no
// prediction of a size: over the 30 kinds of bodies of its test the rank
// correlation with the ratio that the best algorithm reaches is about 0.9; over
// pieces of real files, most of which compress well, it was 0.7 for pieces of 8
// and 16 KiB and 0.5 for those of 64 KiB. Near 1 nothing was found that any
// algorithm could use. An input below 512 bytes is not looked at and is 2.
//
// Two signs are used. Bytes that are not equally frequent: the number of equal
// pairs among those counted estimates the sum of the squares of the frequencies,
// and from it follows the collision entropy (Rényi's, of order 2). And
// repetition: the words at 192 positions in a row are put into a table, which
// tells how often one repeats within it, and every 184th word after them is
// looked up there, so that 200 bytes of the row that come again within 34 KiB are
// met whatever the distance: one payload in each message of a batch. The first
// few repeats say most, whence the roots; the weights are a least-squares fit of
// the logarithm on one half of a corpus of logs, JSON, tables, telemetry, text and
// compressed files, and the correlations are those of the other half.
func EstimateRatio(b []byte) float64 {
	if len(b) < estimateLeast {
		return 2
	}
	s := sampleOf(b)
	// Bits per byte by the frequencies alone; as many pairs as in random bytes,
	// or fewer, are 8.
	order0 := 1.0
	if float64(s.pairs) > pairsRandom {
		order0 = 8 / max(0.2, -math.Log2(float64(s.pairs)/pairsAll))
	}
	near, far := float64(s.near)/estimateRow, float64(s.far)/float64(max(8, s.probes))
	return math.Pow(order0, 0.75) * math.Exp(2.2*math.Sqrt(far)+0.15*math.Sqrt(near))
}

const (
	pairsAll       = estimateCounted * (estimateCounted - 1) / 2
	pairsRandom    = pairsAll / 256.0
	pairsDeviation = 11.3 // of random bytes: the root of pairsRandom
)

// compressible reports whether b shows any sign that something could be saved:
// besides those of EstimateRatio words whose bytes equal those 4 or 8 further on,
// as in arrays of numbers whose high bytes hardly change, and pieces of text.
// It errs on that side: of random bytes it says no in 97 of 100 cases or more,
// of the kinds of bodies of its test, from estimateMinBytes on, it never did
// where the best algorithm would have saved 5 %.
func compressible(b []byte) bool {
	if len(b) < estimateLeast {
		return true
	}
	s := sampleOf(b)
	return !s.random()
}

// sample is what was seen of an input.
type sample struct {
	pairs  int // pairs of equal bytes among the counted
	lanes  int // bytes equal to the one 4 or 8 further on, of 16 looked at in each spot
	plain  int // spots without a byte above 127: 1 in 65,536 of random ones
	near   int // positions of the row whose word stands earlier in it
	far    int // probes whose word stands in the row
	probes int
	text   int // probes whose word has no byte above 127: 1 in 256 of random ones
}

// random reports whether everything is as it would be in random bytes.
func (s sample) random() bool {
	return float64(s.pairs) < pairsRandom+2.5*pairsDeviation &&
		s.lanes < 9 && // 2 are expected
		s.plain == 0 && s.near < 2 && s.far == 0 &&
		s.text <= 2+s.probes/48
}

func sampleOf(b []byte) (s sample) {
	s.spots(b)

	// The row begins after the first eighth: headers stand first.
	var table [estimateSlots]uint16 // tags; 0 is free
	row := len(b) / 8
	last := min(row+estimateRow, len(b)-8)
	for at := row; at < last; at++ {
		slot, tag := estimateHash(binary.LittleEndian.Uint64(b[at:]))
		if table[slot] == tag {
			s.near++
		}
		table[slot] = tag
	}
	for at := last; at+8 <= len(b) && s.probes < estimateProbes; at += estimateRow - 8 {
		w := binary.LittleEndian.Uint64(b[at:])
		slot, tag := estimateHash(w)
		if table[slot] == tag {
			s.far++
		}
		if w&high == 0 {
			s.text++
		}
		s.probes++
	}
	return s
}

// spots fills in what is seen at the spots: pairs, lanes and plain.
func (s *sample) spots(b []byte) {
	var count [256]uint16
	step := (len(b) - estimateSpot) / (estimateSpots - 1)
	pairs := uint32(0)
	for i := range estimateSpots {
		spot := b[i*step:][:estimateSpot]
		x, y := binary.LittleEndian.Uint64(spot), binary.LittleEndian.Uint64(spot[8:])
		if (x|y)&high == 0 {
			s.plain++
		}
		s.lanes += zeroBytes(x^y) + zeroBytes(x^(x>>32|y<<32))
		for j := 0; j < estimateSpot; j += 2 {
			c := spot[j]
			pairs += uint32(count[c])
			count[c]++
		}
	}
	s.pairs = int(pairs)
}

// high is the highest bit of each byte.
const high = 0x8080808080808080

// skewed reports whether the bytes of b, of at least estimateLeast, are so
// unequally frequent that coding them by their frequencies alone saves something:
// by 7.6 bits each or fewer.
func skewed(b []byte) bool {
	var s sample
	s.spots(b)
	return float64(s.pairs) >= pairsRandom+4*pairsDeviation
}

// zeroBytes returns how many of the eight bytes of w are 0.
func zeroBytes(w uint64) int {
	const low7 = 0x7f7f7f7f7f7f7f7f
	return bits.OnesCount64(^((w&low7 + low7) | w | low7))
}

// estimateHash returns the slot and the tag, which is not 0, of the first five
// bytes of w.
func estimateHash(w uint64) (slot int, tag uint16) {
	h := w << 24 * 0x9E3779B185EBCA87
	return int(h >> (64 - 9)), uint16(h>>32) | 1
}

// estimateMinBytes is the least length at which Policy asks before it tries.
// Trying random bytes costs zstd at its fastest level twice as much at 8 KiB and
// three times as much at 64 KiB; below, as little as asking. For brotli and the
// higher levels it is 10 to 400 times as much (BenchmarkEstimate).
const estimateMinBytes = 8 << 10
