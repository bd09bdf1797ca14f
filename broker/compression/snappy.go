package compression

import (
	"slices"

	"github.com/golang/snappy"
	"github.com/klauspost/compress/s2"

	"github.com/portask/portask/broker/message"
)

// Snappy is written by klauspost's encoder and read by golang's: the first is
// as fast with a slightly better ratio (0.45 against 0.44 ns/B, 3.20 against
// 3.24 at 64 KiB; 3.40 against 3.06 at 256 KiB on the training corpus) and
// offers levels; two libraries check each other in every round trip.
// BenchmarkSnappy stands both sides of both beside each other.

// boundSnappy: the length as a varint and one literal with its header.
func boundSnappy(n int) int { return s2.MaxEncodedLen(n) }

func appendSnappy(dst, src []byte, level Level) []byte {
	n := len(dst)
	dst = slices.Grow(dst, boundSnappy(len(src)))
	free := dst[n:cap(dst)]
	var out []byte
	switch level {
	case LevelFastest:
		out = s2.EncodeSnappy(free, src)
	case LevelBalanced:
		out = s2.EncodeSnappyBetter(free, src)
	default:
		out = s2.EncodeSnappyBest(free, src)
	}
	return dst[:n+len(out)] // free had the bound, so out is a part of dst
}

func decodeSnappy(dst, src []byte, declared int) ([]byte, error) {
	// The block starts with its own declaration; both must agree before the
	// decoder may take memory by it.
	own, err := snappy.DecodedLen(src)
	if err != nil {
		return dst, damaged(message.Snappy, err)
	}
	if own != declared {
		return dst, mismatch(message.Snappy, declared, own)
	}
	n := len(dst)
	dst = room(dst, declared)
	if _, err := snappy.Decode(dst[n:n+declared], src); err != nil {
		return dst[:n], damaged(message.Snappy, err)
	}
	return dst[:n+declared], nil
}
