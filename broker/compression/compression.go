// Package compression turns the body of a batch into fewer bytes and back.
//
// It knows five algorithms (gzip, snappy, lz4, zstd, brotli), the most each
// can grow an input (Bound), how much output a decoder may produce (Limits),
// and when compressing pays (Policy). The numbers of the algorithms and what
// they mean on the wire belong to package message; the byte formats are:
//
//	gzip    RFC 1952, members may be concatenated
//	snappy  the block format, not the framed one
//	lz4     the frame format, one frame, written without checksums; see lz4.go
//	zstd    RFC 8878 frames, written without checksum
//	brotli  RFC 7932, window of at most 4 MiB
//
// None of them adds a checksum of its own, because the batch carries a CRC32C
// of the compressed bytes.
//
// A body is a whole batch: many messages are compressed in one call, and share
// what they have in common. 64 messages of 250 bytes become 6 times smaller as
// one body, at a tenth of the time, and 1.3 times one by one (BenchmarkBatch).
// Where batches stay small a Dictionary of zstd takes the place of their
// neighbours; TrainDictionary makes one from samples. EstimateRatio looks at a
// sample of a body to say whether trying is worth it.
//
// # Copies
//
// Encoders and decoders write straight into the caller's slice, and with Bound's
// (or declared bytes and 16 more of) room in it nothing is allocated or moved.
// Some keep what they need of the input: zstd's encoder copies bodies that are
// longer than a block or used with a dictionary into its window, brotli's and
// gzip's copy everything into theirs; lz4, snappy and a zstd body of one block
// are read in place. A body that is not worth compressing is not copied at all:
// Policy.Compress leaves dst alone. message.None copies, for callers that want
// one form for all; those that can use src itself should.
//
// # Memory
//
// All functions may be called from any number of goroutines. Coders are kept
// in free lists of at most GOMAXPROCS items per algorithm, level and direction,
// so the memory held when idle is bounded. Nothing is made before it is first
// used, not even the lists. One idle coder holds at most about (MiB, measured by
// a test)
//
//	          fastest  balanced  smallest  decoder
//	gzip      0.8      1.1       1.4       0.1
//	snappy    nothing
//	lz4       0.1      0.8       0.8       nothing
//	zstd      1.8      2.8       5.7       0.2
//	brotli    2.2      2.5       4.3       0.1
//
// of which zstd has a second kind for bodies without repeats, below the smallest
// level, and lists of its own for each Dictionary.
package compression

import (
	"slices"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

// A Level says how much time a coder may spend for a smaller output. The same
// three words map to each library's own scale:
//
//	          fastest  balanced  smallest
//	gzip      1        6         9
//	snappy    normal   better    best
//	lz4       fast     HC 5      HC 9
//	zstd      fastest  default   better
//	brotli    1        4         6
//
// Decoders need no level.
type Level uint8

// The levels. The zero value is the one for a broker's hot path: on the
// training corpus zstd at LevelBalanced buys 1 to 4 % more ratio for 48 to
// 76 % more time, and the higher ones pay only on slow links.
const (
	LevelFastest Level = iota
	LevelBalanced
	LevelSmallest
	levels // number of levels
)

var levelNames = [levels]string{"fastest", "balanced", "smallest"}

// String returns the level's name, as ParseLevel reads it.
func (l Level) String() string {
	if l < levels {
		return levelNames[l]
	}
	return "invalid"
}

// ParseLevel is the inverse of String. An empty string is LevelFastest.
func ParseLevel(s string) (Level, error) {
	if s == "" {
		return LevelFastest, nil
	}
	for i, n := range levelNames {
		if n == s {
			return Level(i), nil
		}
	}
	return 0, problem(fault.Invalid, "parse", "level").WithDetail("%q is not one of fastest, balanced, smallest", s)
}

// Limits bounds what a decoder may produce. It is the reader's own protection:
// a declared length comes from outside and may lie.
type Limits struct {
	// Bytes is the largest output, in bytes. 0 means DefaultBytes.
	Bytes int
	// Ratio is the largest output per byte of input. 0 means DefaultRatio.
	Ratio int
}

// Defaults of Limits, the same as the batch format's: a batch of 4 MiB may
// hold at most 32 MiB, and no algorithm reaches 1000:1 on real messages (zstd
// reaches 30,000:1 on zeros, which Policy avoids by falling back to lz4).
const (
	DefaultBytes = 32 << 20
	DefaultRatio = 1000
)

// max returns the largest output allowed for n bytes of input.
func (l Limits) max(n int) int {
	bytes, ratio := l.Bytes, l.Ratio
	if bytes <= 0 {
		bytes = DefaultBytes
	}
	if ratio <= 0 {
		ratio = DefaultRatio
	}
	if n > bytes/ratio { // ratio*n would exceed bytes, or overflow
		return bytes
	}
	return ratio * n
}

// AppendCompress appends src compressed with a to dst and returns the longer
// slice. The result may be longer than src (by at most Bound): the caller
// decides whether to keep it; see Policy.Compress. message.None copies.
// dst and src must not overlap.
//
// Warm, with room for Bound(a, len(src)) in dst, it allocates nothing for
// every algorithm.
//
// Errors: fault.NotSupported for an unknown algorithm, fault.Invalid for an
// unknown level. On error dst is returned as it was given.
func AppendCompress(dst, src []byte, a message.Algorithm, level Level) ([]byte, error) {
	if level >= levels {
		return dst, badLevel(level)
	}
	switch a {
	case message.None:
		return append(dst, src...), nil
	case message.Gzip:
		return appendGzip(dst, src, level)
	case message.Snappy:
		return appendSnappy(dst, src, level), nil
	case message.LZ4:
		return appendLZ4(dst, src, level)
	case message.Zstd:
		return appendZstd(dst, src, level), nil
	case message.Brotli:
		return appendBrotli(dst, src, level)
	}
	return dst, unknown("compress", a)
}

// AppendDecompress appends the decompressed form of src to dst. declared is
// the length the batch claims, and the result is exactly that long or an
// error. No more than declared bytes (and a slack of 16) are ever added to
// dst, and they are reserved only after declared was compared with the limits;
// beside them a decoder needs working memory of a fixed size, at most 4.1 MiB
// for brotli and below 1 MiB for the others. dst and src must not overlap.
//
// Warm, with room in dst, it allocates nothing for none, gzip, snappy, lz4 and
// zstd.
//
// Errors: fault.TooLarge when declared exceeds lim (with value and limit);
// fault.Corrupted when src is damaged or does not hold exactly declared bytes;
// fault.NotFound for a zstd body that needs a dictionary, whose id
// UnknownDictionary returns (see Dictionary.AppendDecompress);
// fault.NotSupported for an unknown algorithm. On error dst is returned as it
// was given.
func AppendDecompress(dst, src []byte, a message.Algorithm, declared int, lim Limits) ([]byte, error) {
	if err := checkDeclared(declared, len(src), lim); err != nil {
		return dst, err
	}
	switch a {
	case message.None:
		if declared != len(src) {
			return dst, mismatch(a, declared, len(src))
		}
		return append(dst, src...), nil
	case message.Gzip:
		return decodeGzip(dst, src, declared)
	case message.Snappy:
		return decodeSnappy(dst, src, declared)
	case message.LZ4:
		return decodeLZ4(dst, src, declared)
	case message.Zstd:
		return decodeZstd(dst, src, declared)
	case message.Brotli:
		return decodeBrotli(dst, src, declared)
	}
	return dst, unknown("decompress", a)
}

// Bound returns the most bytes AppendCompress can add for an input of n bytes,
// at any level. It panics on an unknown algorithm or a negative n.
//
// The bound is met with equality by some incompressible input for gzip (at
// full blocks), snappy, lz4 and zstd; brotli's is the library's documented
// worst case.
func Bound(a message.Algorithm, n int) int {
	if n < 0 {
		panic("compression: negative length")
	}
	switch a {
	case message.None:
		return n
	case message.Gzip:
		return boundGzip(n)
	case message.Snappy:
		return boundSnappy(n)
	case message.LZ4:
		return boundLZ4(n)
	case message.Zstd:
		return boundZstd(n)
	case message.Brotli:
		return boundBrotli(n)
	}
	panic("compression: unknown algorithm " + a.String())
}

// decodeSlack is added to a decoder's room beyond the declared length: zstd
// and lz4 copy in steps of 16 bytes and fall to a slow path when the last
// step would cross the end of the slice.
const decodeSlack = 16

// room grows dst so that declared bytes and the slack fit after its end.
func room(dst []byte, declared int) []byte {
	return slices.Grow(dst, declared+decodeSlack)
}

func problem(c fault.Code, op, field string) *fault.Error {
	return fault.New(c, op).WithField(field).WithCategory(fault.CategoryCompression)
}

func badLevel(level Level) error {
	return problem(fault.Invalid, "compress", "level").WithLimit(int64(level), int64(levels)-1)
}

// checkDeclared compares a declared length with the limits for n bytes of input.
func checkDeclared(declared, n int, lim Limits) error {
	if declared < 0 {
		return problem(fault.Invalid, "decompress", "uncompressed_len").WithLimit(int64(declared), 0)
	}
	if most := lim.max(n); declared > most {
		return tooLarge(declared, most)
	}
	return nil
}

func unknown(op string, a message.Algorithm) error {
	return problem(fault.NotSupported, op, "algorithm").WithDetail("unknown algorithm %d", uint8(a))
}

func tooLarge(declared, most int) error {
	return problem(fault.TooLarge, "decompress", "uncompressed_len").WithLimit(int64(declared), int64(most))
}

func mismatch(a message.Algorithm, declared, got int) error {
	return problem(fault.Corrupted, "decompress", "uncompressed_len").
		WithDetail("%s body holds %d bytes, %d declared", a, got, declared)
}

// overflow reports a body that holds more than it declared. How much more is
// not known: the decoder was stopped.
func overflow(a message.Algorithm, declared int) error {
	return problem(fault.Corrupted, "decompress", "uncompressed_len").
		WithDetail("%s body holds more than the %d bytes declared", a, declared)
}

func damaged(a message.Algorithm, cause error) error {
	return problem(fault.Corrupted, "decompress", "body").WithDetail("%s body is damaged", a).WithCause(cause)
}
