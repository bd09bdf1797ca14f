package compression

import (
	"encoding/binary"
	"errors"

	"github.com/klauspost/compress/zstd"

	"github.com/portask/portask/broker/message"
)

const (
	// zstdWindow is the encoder's window. Batches are 64 KiB by default, so a
	// larger one would cost memory (the tables of each pooled encoder grow
	// with it) and find nothing.
	zstdWindow = 256 << 10

	// zstdBlock is the encoder's block at its fastest level; the others use
	// 128 KiB.
	zstdBlock = 64 << 10

	// zstdWindowMax is the largest window accepted from other encoders. The
	// decoder writes straight into the output, so it costs no memory.
	zstdWindowMax = DefaultBytes
)

var (
	zstdEncoders = perLevel(func(l Level) *zstd.Encoder { return newZstdEncoder(l, zstd.WithWindowSize(zstdWindow)) })
	// zstdLiteral are those of appendZstd's second try.
	zstdLiteral = perLevel(func(l Level) *zstd.Encoder {
		return newZstdEncoder(l, zstd.WithWindowSize(zstdWindow), zstd.WithAllLitEntropyCompression(true))
	})
	zstdDecoders = newKeep(func() *zstd.Decoder { return newZstdDecoder() })
)

// newZstdEncoder panics if the options are wrong, which are constants or come
// from a dictionary that was checked.
func newZstdEncoder(l Level, more ...zstd.EOption) *zstd.Encoder {
	level := [levels]zstd.EncoderLevel{zstd.SpeedFastest, zstd.SpeedDefault, zstd.SpeedBetterCompression}[l]
	e, err := zstd.NewWriter(nil, append([]zstd.EOption{zstd.WithEncoderLevel(level),
		zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false), zstd.WithZeroFrames(true)}, more...)...)
	if err != nil {
		panic(err)
	}
	return e
}

func newZstdDecoder(more ...zstd.DOption) *zstd.Decoder {
	d, err := zstd.NewReader(nil, append(more, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(zstdWindowMax), zstd.WithDecodeAllCapLimit(true))...)
	if err != nil {
		panic(err)
	}
	return d
}

// boundZstd: magic 4, descriptor 1, window descriptor 1 unless the frame is a
// single segment (1 KiB < n <= window), content size, 3 bytes a block.
func boundZstd(n int) int {
	head := 4 + 1
	single := n == 0 || n > zstd.MinWindowSize && n <= zstdWindow
	if !single {
		head++
	}
	switch {
	case n < 256: // without a single segment, sizes below 256 are left out
		if single {
			head++
		}
	case n < 65536+256:
		head += 2
	default:
		head += 4
	}
	blocks := max(1, (n+zstdBlock-1)/zstdBlock)
	return head + 3*blocks + n
}

// appendZstd tries twice where the first try saves next to nothing, which took
// it little time: below LevelSmallest the library codes the bytes of a block by
// their frequencies only if it found repeats in it. Digits, hexadecimal, base64
// and arrays of numbers, which have none, became 1.3 to 2.4 times smaller by the
// second try. It costs 1 ns/B, and up to 10 us on short random bodies, so it is
// made of skewed ones only.
func appendZstd(dst, src []byte, level Level) []byte {
	n := len(dst)
	e := zstdEncoders[level].take()
	dst = e.EncodeAll(src, dst)
	zstdEncoders[level].give(e)
	if saved := n + len(src) - len(dst); level == LevelSmallest || saved >= len(src)/16 || len(src) < estimateLeast || !skewed(src) {
		return dst
	}
	e = zstdLiteral[level].take()
	dst = e.EncodeAll(src, dst[:n])
	zstdLiteral[level].give(e)
	return dst
}

// zstdSkipBytes are the magic and the length of a frame that decoders skip (RFC
// 8878, section 3.1.2).
const zstdSkipBytes = 8

// skipZstd appends such a frame of n bytes, zstdSkipBytes at least.
func skipZstd(dst []byte, n int) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, 0x184D2A50)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(n-zstdSkipBytes))
	return append(dst, make([]byte, n-zstdSkipBytes)...)
}

func decodeZstd(dst, src []byte, declared int) ([]byte, error) {
	return decodeZstdWith(zstdDecoders, dst, src, declared)
}

func decodeZstdWith(decoders *keep[*zstd.Decoder], dst, src []byte, declared int) ([]byte, error) {
	n := len(dst)
	dst = room(dst, declared)
	d := decoders.take()
	// The capacity is the cap: the decoder never grows its destination.
	out, err := d.DecodeAll(src, dst[:n:n+declared+decodeSlack])
	decoders.give(d)
	switch {
	case errors.Is(err, zstd.ErrUnknownDictionary):
		return dst, noDictionary(src)
	case errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return dst, overflow(message.Zstd, declared)
	case err != nil:
		return dst, damaged(message.Zstd, err)
	case len(out)-n != declared:
		return dst, mismatch(message.Zstd, declared, len(out)-n)
	}
	return dst[:len(out)], nil // out is a part of dst
}
