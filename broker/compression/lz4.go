package compression

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"slices"

	"github.com/pierrec/lz4/v4"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

// LZ4 bodies use the frame format (LZ4 Frame Format Description 1.6.4), which
// is what Kafka's clients read and write, around the library's block coder:
//
//	u32 magic 0x184D2204
//	u8  FLG  version 01, blocks independent, no checksums, no content size
//	u8  BD   block maximum: 4 = 64 KiB, 5 = 256 KiB, 6 = 1 MiB, 7 = 4 MiB
//	u8  HC   second byte of xxHash32(FLG, BD)
//	{ u32 length, top bit = stored raw; block }…
//	u32 0    end mark
//
// The frame costs 15 bytes and no time over a bare block, because it is
// written and read here straight from and to the caller's slices; the
// library's own frame Writer and Reader copy once more. A body fits one block
// up to 4 MiB, the limit of a batch. The raw bit matters: CompressBlock may
// return a length equal to or above the input's, so nothing is inferred from
// lengths.
//
// The reader accepts what other writers produce: linked blocks, content size,
// checksums (skipped: the batch's CRC32C covers the same bytes). It refuses
// dictionaries, skippable frames and anything after the end mark.
const (
	lz4Magic     = 0x184D2204
	lz4Stored    = 1 << 31
	lz4HeadBytes = 4 + 3
	lz4BlockMax  = 4 << 20

	lz4Version     = 1 << 6
	lz4Independent = 1 << 5
	lz4BlockSum    = 1 << 4
	lz4ContentSize = 1 << 3
	lz4ContentSum  = 1 << 2
	lz4Reserved    = 1 << 1
	lz4Dictionary  = 1 << 0
)

var errLZ4Frame = errors.New("malformed lz4 frame")

// boundLZ4: the frame with every block stored raw.
func boundLZ4(n int) int {
	blocks := (n + lz4BlockMax - 1) / lz4BlockMax
	return lz4HeadBytes + 4*blocks + n + 4
}

func appendLZ4(dst, src []byte, level Level) ([]byte, error) {
	dst = slices.Grow(dst, boundLZ4(len(src)))
	desc := [2]byte{lz4Version | lz4Independent, lz4BlockDescriptor(len(src))}
	dst = binary.LittleEndian.AppendUint32(dst, lz4Magic)
	dst = append(dst, desc[0], desc[1], byte(xxh32(desc[:])>>8))
	for len(src) > 0 {
		block := src[:min(len(src), lz4BlockMax)]
		src = src[len(block):]
		at := len(dst)
		body := dst[at+4 : at+4+len(block)-1] // one short: a block must get smaller
		n := compressLZ4Block(body, block, level)
		if n == 0 { // the short destination did not suffice
			dst = binary.LittleEndian.AppendUint32(dst, uint32(len(block))|lz4Stored)
			dst = append(dst, block...)
			continue
		}
		dst = binary.LittleEndian.AppendUint32(dst, uint32(n))
		dst = dst[:len(dst)+n]
	}
	return binary.LittleEndian.AppendUint32(dst, 0), nil
}

// lz4BlockDescriptor returns BD for the smallest block maximum that holds n.
func lz4BlockDescriptor(n int) byte {
	switch {
	case n <= 64<<10:
		return 4 << 4
	case n <= 256<<10:
		return 5 << 4
	case n <= 1<<20:
		return 6 << 4
	}
	return 7 << 4
}

// lz4Frame is a parsed frame header.
type lz4Frame struct {
	flags    byte
	blockMax int
	size     int64 // content size, -1 if not given
}

func parseLZ4Frame(src []byte) (f lz4Frame, rest []byte, err error) {
	if len(src) < lz4HeadBytes || binary.LittleEndian.Uint32(src) != lz4Magic {
		return f, nil, errLZ4Frame
	}
	desc := src[4:6]
	f.flags, f.size = src[4], -1
	rest = src[6:]
	if f.flags>>6 != 1 || f.flags&lz4Reserved != 0 || src[5]&0x8f != 0 || src[5]>>4 < 4 {
		return f, nil, errLZ4Frame
	}
	f.blockMax = 1 << (8 + 2*(src[5]>>4))
	if f.flags&lz4ContentSize != 0 {
		if len(rest) < 8 {
			return f, nil, errLZ4Frame
		}
		f.size = int64(binary.LittleEndian.Uint64(rest))
		desc, rest = src[4:14], rest[8:]
	}
	if f.flags&lz4Dictionary != 0 {
		return f, nil, errLZ4Frame
	}
	if len(rest) < 1 || rest[0] != byte(xxh32(desc)>>8) {
		return f, nil, errLZ4Frame
	}
	return f, rest[1:], nil
}

func decodeLZ4(dst, src []byte, declared int) ([]byte, error) {
	n := len(dst)
	f, src, err := parseLZ4Frame(src)
	if err != nil {
		return dst, damaged(message.LZ4, err)
	}
	if f.size >= 0 && f.size != int64(declared) {
		return dst, problem(fault.Corrupted, "decompress", "uncompressed_len").WithDetail("lz4 frame names a content of %d bytes, %d declared", f.size, declared)
	}
	dst = room(dst, declared)
	for {
		if len(src) < 4 {
			return dst[:n], damaged(message.LZ4, errLZ4Frame)
		}
		head := binary.LittleEndian.Uint32(src)
		src = src[4:]
		if head == 0 {
			break
		}
		size := int(head &^ lz4Stored)
		if size > f.blockMax || size > len(src) {
			return dst[:n], damaged(message.LZ4, errLZ4Frame)
		}
		block := src[:size]
		src = src[size:]
		at := len(dst)
		left := declared - (at - n)
		if head&lz4Stored != 0 {
			if size > left {
				return dst[:n], overflow(message.LZ4, declared)
			}
			dst = append(dst, block...)
		} else {
			out := dst[at : at+min(left, f.blockMax)]
			var m int
			if f.flags&lz4Independent != 0 || at == n {
				m, err = lz4.UncompressBlock(block, out)
			} else {
				m, err = lz4.UncompressBlockWithDict(block, out, dst[max(n, at-64<<10):at])
			}
			if err != nil {
				// The library says the same for damage and for a destination
				// that is too short.
				return dst[:n], damaged(message.LZ4, err)
			}
			dst = dst[:at+m]
		}
		if f.flags&lz4BlockSum != 0 {
			if len(src) < 4 {
				return dst[:n], damaged(message.LZ4, errLZ4Frame)
			}
			src = src[4:]
		}
	}
	if f.flags&lz4ContentSum != 0 {
		if len(src) < 4 {
			return dst[:n], damaged(message.LZ4, errLZ4Frame)
		}
		src = src[4:]
	}
	if len(src) != 0 {
		return dst[:n], damaged(message.LZ4, errLZ4Frame)
	}
	if got := len(dst) - n; got != declared {
		return dst[:n], mismatch(message.LZ4, declared, got)
	}
	return dst, nil
}

// xxh32 is xxHash32 with seed 0 for inputs below 16 bytes, all a frame
// descriptor needs.
func xxh32(b []byte) uint32 {
	const p1, p2, p3, p4, p5 = 2654435761, 2246822519, 3266489917, 668265263, 374761393
	h := uint32(p5) + uint32(len(b))
	for ; len(b) >= 4; b = b[4:] {
		h += binary.LittleEndian.Uint32(b) * p3
		h = bits.RotateLeft32(h, 17) * p4
	}
	for _, c := range b {
		h += uint32(c) * p5
		h = bits.RotateLeft32(h, 11) * p1
	}
	h ^= h >> 15
	h *= p2
	h ^= h >> 13
	h *= p3
	return h ^ h>>16
}
