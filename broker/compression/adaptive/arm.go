package adaptive

import (
	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/message"
)

// An Arm is one way to encode a body: an algorithm at a level. The zero value is
// Raw. The numbers are those of the event log; the artefact names arms by words.
type Arm uint8

// Arms is how many there are.
const Arms = 12

// Raw leaves a body as it is.
const Raw Arm = 0

// arms, in the order of their numbers. Left out of the 16 combinations are those
// that were the cheapest in the fewest cells of the training rows.
var arms = [Arms]struct {
	name      string
	algorithm message.Algorithm
	level     compression.Level
	memoryMiB int // of one encoder at work, from compression's table
}{
	{"raw", message.None, compression.LevelFastest, 0},
	{"snappy-fastest", message.Snappy, compression.LevelFastest, 0},
	{"snappy-balanced", message.Snappy, compression.LevelBalanced, 0},
	{"lz4-fastest", message.LZ4, compression.LevelFastest, 0},
	{"zstd-fastest", message.Zstd, compression.LevelFastest, 2},
	{"zstd-balanced", message.Zstd, compression.LevelBalanced, 3},
	{"zstd-smallest", message.Zstd, compression.LevelSmallest, 6},
	{"gzip-fastest", message.Gzip, compression.LevelFastest, 1},
	{"gzip-balanced", message.Gzip, compression.LevelBalanced, 1},
	{"brotli-fastest", message.Brotli, compression.LevelFastest, 2},
	{"brotli-balanced", message.Brotli, compression.LevelBalanced, 3},
	{"brotli-smallest", message.Brotli, compression.LevelSmallest, 4},
}

// Valid reports whether a is one of the arms.
func (a Arm) Valid() bool { return a < Arms }

// String is the arm's name: algorithm and level joined by a hyphen, or "raw".
func (a Arm) String() string {
	if a < Arms {
		return arms[a].name
	}
	return "invalid"
}

// ParseArm is the inverse of String.
func ParseArm(s string) (Arm, bool) {
	for i := range arms {
		if arms[i].name == s {
			return Arm(i), true
		}
	}
	return 0, false
}

// Algorithm is how the batch names the arm; message.None for Raw.
func (a Arm) Algorithm() message.Algorithm { return arms[a].algorithm }

// isZstd reports whether a dictionary serves a.
func (a Arm) isZstd() bool { return arms[a].algorithm == message.Zstd }

// Level is the level of the arm's algorithm.
func (a Arm) Level() compression.Level { return arms[a].level }
