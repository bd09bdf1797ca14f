package compression

import (
	"bytes"

	"github.com/andybalholm/brotli"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

const (
	// brotliWindowLog is the encoder's window, 256 KiB like zstd's.
	brotliWindowLog = 18

	// brotliWindowLogMax is the largest window accepted. The decoder's ring is
	// as large as the window when the stream claims a block that long, before
	// a byte of it is decoded, so this is the memory a hostile body can take:
	// 4 MiB. It is the default of the reference tool.
	brotliWindowLogMax = 22
)

type brotliEncoder struct {
	out appender
	w   *brotli.Writer
}

var brotliEncoders = perLevel(func(l Level) *brotliEncoder {
	e := new(brotliEncoder)
	e.w = brotli.NewWriterOptions(&e.out, brotli.WriterOptions{
		Quality: [levels]int{1, 4, 6}[l], LGWin: brotliWindowLog,
	})
	return e
})

type brotliDecoder struct {
	in  bytes.Reader
	r   *brotli.Reader
	one [1]byte
}

var brotliDecoders = newKeep(func() *brotliDecoder {
	d := new(brotliDecoder)
	d.r = brotli.NewReader(&d.in)
	return d
})

// boundBrotli: RFC 7932's stored form, as in the reference encoder's
// BrotliEncoderMaxCompressedSize: a window header, 4 bytes per 16 KiB, and an
// empty last block.
func boundBrotli(n int) int {
	return 2 + n + 4*(n>>14) + 4 + 1
}

func appendBrotli(dst, src []byte, level Level) ([]byte, error) {
	n := len(dst)
	e := brotliEncoders[level].take()
	e.out.b = dst
	e.w.Reset(&e.out)
	_, err := e.w.Write(src)
	if err == nil {
		err = e.w.Close()
	}
	dst = e.out.b
	e.out.b = nil
	if err != nil {
		return dst[:n], problem(fault.Internal, "compress", "body").WithDetail("brotli encoder failed").WithCause(err)
	}
	brotliEncoders[level].give(e)
	return dst, nil
}

// brotliWindow returns the window's logarithm from the stream's first byte
// (RFC 7932, section 9.1), or 0 if it is not valid.
func brotliWindow(b byte) int {
	if b&1 == 0 {
		return 16
	}
	if n := b >> 1 & 7; n != 0 {
		return 17 + int(n)
	}
	switch n := b >> 4 & 7; n {
	case 0:
		return 17
	case 1: // "large window", not part of the RFC
		return 0
	default:
		return 8 + int(n)
	}
}

func decodeBrotli(dst, src []byte, declared int) ([]byte, error) {
	if len(src) == 0 {
		return dst, mismatch(message.Brotli, declared, 0)
	}
	if w := brotliWindow(src[0]); w > brotliWindowLogMax {
		return dst, problem(fault.TooLarge, "decompress", "brotli window").WithLimit(1<<w, 1<<brotliWindowLogMax)
	} else if w == 0 {
		return dst, damaged(message.Brotli, nil)
	}
	d := brotliDecoders.take()
	d.in.Reset(src)
	_ = d.r.Reset(&d.in) // documented to return nil
	dst, err := readExactly(dst, d.r, declared, &d.one, message.Brotli)
	d.in.Reset(nil)
	_ = d.r.Reset(&d.in)
	brotliDecoders.give(d)
	return dst, err
}
