package compression

import (
	"slices"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

// Strategy says when a Policy tries to compress.
type Strategy uint8

// The strategies.
const (
	Never     Strategy = iota // keep every body raw
	Always                    // try every body, keep any gain
	Threshold                 // try bodies of MinBytes that do not look random, keep gains of MinSaving
	// Adaptive leaves algorithm and level of each body to package adaptive, which
	// producers ask. A Policy by itself does not: its Compress then does as for
	// Threshold.
	Adaptive
	strategies
)

var strategyNames = [strategies]string{"never", "always", "threshold", "adaptive"}

// String returns the strategy's name, as ParseStrategy reads it.
func (s Strategy) String() string {
	if s < strategies {
		return strategyNames[s]
	}
	return "invalid"
}

// ParseStrategy is the inverse of String.
func ParseStrategy(s string) (Strategy, error) {
	for i, n := range strategyNames {
		if n == s {
			return Strategy(i), nil
		}
	}
	return 0, problem(fault.Invalid, "parse strategy", "strategy").WithDetail("%q is not one of never, always, threshold, adaptive", s)
}

// Policy decides whether, and compresses. It is a value, immutable while in
// use, and its methods may be called concurrently. The zero value never
// compresses.
type Policy struct {
	Strategy  Strategy
	Algorithm message.Algorithm
	Level     Level
	// Dictionary, if not nil, is used for zstd; its readers must have it.
	Dictionary *Dictionary

	// MinBytes is the smallest body Threshold tries. From 8 KiB on it looks at a
	// sample first, for less than a microsecond, and leaves what looks random as
	// it is; see EstimateRatio. With a dictionary, which knows what the sample
	// cannot, it always tries, and from 256 bytes on if MinBytes is more.
	MinBytes int
	// MinSaving is the part of the input that Threshold wants to save, in
	// [0, 1): 0.02 keeps outputs of at most 98 %.
	MinSaving float64
	// MaxRatio is the reader's limit of input to output; 0 means DefaultRatio.
	// No reader would accept a body beyond it (long runs of one byte). zstd's is
	// filled up to it with a frame that decoders skip; a body of gzip or brotli
	// is compressed with lz4 instead, which cannot pass 255:1.
	MaxRatio int
}

// DefaultPolicy compresses bodies from 1 KiB with zstd at its fastest level
// and keeps savings from 2 %. Below 1 KiB a call costs 6 ns/B or more for half
// the ratio; a gain under 2 % does not repay the reader's decoding.
func DefaultPolicy() Policy {
	return Policy{Strategy: Threshold, Algorithm: message.Zstd, MinBytes: 1 << 10, MinSaving: 0.02}
}

// Validate reports the first field outside its range as fault.Invalid.
func (p Policy) Validate() error {
	bad := func(field string) *fault.Error { return problem(fault.Invalid, "compression policy", field) }
	switch {
	case p.Strategy >= strategies:
		return bad("strategy").WithLimit(int64(p.Strategy), int64(strategies)-1)
	case p.Algorithm > message.Brotli:
		return bad("algorithm").WithLimit(int64(p.Algorithm), int64(message.Brotli))
	case p.Level >= levels:
		return bad("level").WithLimit(int64(p.Level), int64(levels)-1)
	case p.MinBytes < 0:
		return bad("min_bytes").WithLimit(int64(p.MinBytes), 0)
	case !(p.MinSaving >= 0 && p.MinSaving < 1):
		return bad("min_saving").WithDetail("%v is not in [0, 1)", p.MinSaving)
	case p.MaxRatio < 0:
		return bad("max_ratio").WithLimit(int64(p.MaxRatio), 0)
	}
	return nil
}

// Bound is the most bytes that Compress needs behind dst for an input of n bytes
// to be sure that it allocates nothing.
func (p Policy) Bound(n int) int {
	if p.Strategy == Never {
		return 0
	}
	bound := max(Bound(p.Algorithm, n), boundLZ4(n)) // lz4: see MaxRatio
	if p.Algorithm == message.Zstd && p.Dictionary != nil {
		bound = max(bound, p.Dictionary.Bound(n))
	}
	return bound
}

// Compress appends src, compressed, to dst and names the algorithm if the
// policy says so and it pays. Otherwise it returns message.None, having
// appended nothing: src is to be sent as it is. It has the form that
// message.Builder.Finish wants. dst and src must not overlap.
func (p Policy) Compress(dst, src []byte) ([]byte, message.Algorithm) {
	most := len(src) - 1 // longest output worth keeping
	switch p.Strategy {
	case Always:
	case Threshold, Adaptive:
		if !p.try(src) {
			return dst, message.None
		}
		most = min(most, len(src)-int(p.MinSaving*float64(len(src))))
	default:
		return dst, message.None
	}
	if p.Algorithm == message.None || most <= 0 {
		return dst, message.None
	}
	ratio := p.MaxRatio
	if ratio == 0 {
		ratio = DefaultRatio
	}
	n := len(dst)
	a, level := p.Algorithm, p.Level
	for {
		var out []byte
		var err error
		if a == message.Zstd && p.Dictionary != nil {
			dst = slices.Grow(dst, p.Dictionary.Bound(len(src)))
			out, err = p.Dictionary.AppendCompress(dst, src, level)
		} else {
			dst = slices.Grow(dst, Bound(a, len(src)))
			out, err = AppendCompress(dst, src, a, level)
		}
		size := len(out) - n
		switch {
		case err != nil || size > most:
			return dst, message.None
		case len(src) <= size*ratio:
			return out, a
		case a == message.Zstd:
			fill := max((len(src)+ratio-1)/ratio-size, zstdSkipBytes)
			if size+fill > most {
				return dst, message.None
			}
			return skipZstd(out, fill), a
		case a == message.LZ4:
			return dst, message.None
		}
		a, level = message.LZ4, LevelFastest
	}
}

// dictionaryMinBytes is the smallest body that a dictionary is tried on: what it
// saves on shorter ones is less than the envelope of the batch.
const dictionaryMinBytes = 256

// try reports whether Threshold tries src.
func (p Policy) try(src []byte) bool {
	if p.Dictionary != nil && p.Algorithm == message.Zstd {
		return len(src) >= min(p.MinBytes, dictionaryMinBytes)
	}
	return len(src) >= p.MinBytes && (len(src) < estimateMinBytes || compressible(src))
}
