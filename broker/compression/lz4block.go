package compression

import (
	"slices"

	"github.com/pierrec/lz4/v4"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

// A bare LZ4 block (LZ4 Block Format Description) has no header, length or end
// mark: its reader must know the length of the content and where the block ends.
// A batch says both, and yet its bodies are frames, for two reasons: a frame is
// what Kafka's clients read and write, and it can hold a block raw, where a bare
// one that does not compress grows. It costs 15 bytes. The frame is written here
// of the same blocks (see lz4.go), so the block coder stands by itself: for
// programs that keep lengths of their own, and for `portask compress bench`,
// which shows both.

var (
	lz4Fast = newKeep(func() *lz4.Compressor { return new(lz4.Compressor) })
	lz4HC   = perLevel(func(l Level) *lz4.CompressorHC {
		return &lz4.CompressorHC{Level: [levels]lz4.CompressionLevel{lz4.Fast, lz4.Level5, lz4.Level9}[l]}
	})
)

// LZ4BlockBound is the most bytes AppendLZ4Block can add for an input of n bytes.
func LZ4BlockBound(n int) int { return lz4.CompressBlockBound(n) }

// AppendLZ4Block appends src as one bare LZ4 block to dst and returns the longer
// slice: by the fast method at LevelFastest, else by the high one. Otherwise it
// is AppendCompress.
//
// Errors: fault.TooLarge if src exceeds DefaultBytes, fault.Invalid for an
// unknown level.
func AppendLZ4Block(dst, src []byte, level Level) ([]byte, error) {
	if level >= levels {
		return dst, badLevel(level)
	}
	if len(src) > DefaultBytes {
		return dst, problem(fault.TooLarge, "compress", "body").WithLimit(int64(len(src)), DefaultBytes)
	}
	n := len(dst)
	dst = slices.Grow(dst, LZ4BlockBound(len(src)))
	return dst[:n+compressLZ4Block(dst[n:n+LZ4BlockBound(len(src))], src, level)], nil
}

// AppendDecompressLZ4Block appends the content of the bare LZ4 block src, which
// is declared bytes long, to dst. Otherwise it is AppendDecompress.
func AppendDecompressLZ4Block(dst, src []byte, declared int, lim Limits) ([]byte, error) {
	if err := checkDeclared(declared, len(src), lim); err != nil {
		return dst, err
	}
	if len(src) == 0 {
		return dst, damaged(message.LZ4, errLZ4Frame) // even nothing is a block of one byte
	}
	n := len(dst)
	dst = room(dst, declared)
	m, err := lz4.UncompressBlock(src, dst[n:n+declared])
	switch {
	case err != nil: // of damage and of a destination too short alike
		return dst[:n], damaged(message.LZ4, err)
	case m != declared:
		return dst[:n], mismatch(message.LZ4, declared, m)
	}
	return dst[:n+declared], nil
}

// compressLZ4Block writes src as a block to dst and returns its length, 0 if it
// does not fit, which with LZ4BlockBound bytes it always does.
func compressLZ4Block(dst, src []byte, level Level) int {
	var n int
	var err error
	if level == LevelFastest {
		c := lz4Fast.take()
		n, err = c.CompressBlock(src, dst)
		lz4Fast.give(c)
	} else {
		c := lz4HC[level].take()
		n, err = c.CompressBlock(src, dst)
		lz4HC[level].give(c)
	}
	if err != nil {
		return 0
	}
	return n
}
