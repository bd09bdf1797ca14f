package compression

import (
	"bytes"
	"io"

	"github.com/klauspost/compress/gzip"

	"github.com/portask/portask/broker/message"
)

type gzipEncoder struct {
	out appender
	w   *gzip.Writer
}

var gzipEncoders = perLevel(func(l Level) *gzipEncoder {
	e := new(gzipEncoder)
	w, err := gzip.NewWriterLevel(&e.out, [levels]int{1, 6, 9}[l])
	if err != nil {
		panic(err) // the levels are constants
	}
	e.w = w
	return e
})

type gzipDecoder struct {
	in  bytes.Reader
	r   gzip.Reader
	one [1]byte
}

var gzipDecoders = newKeep(func() *gzipDecoder { return new(gzipDecoder) })

// boundGzip: header 10, trailer 8, stored blocks with 5 bytes each, and an empty
// last block of 2. The highest level ends a block after 32,768 literals, the
// others store up to 65,535 bytes.
func boundGzip(n int) int {
	const block = 32768
	return 10 + 8 + n + 5*((n+block-1)/block) + 2
}

func appendGzip(dst, src []byte, level Level) ([]byte, error) {
	n := len(dst)
	e := gzipEncoders[level].take()
	e.out.b = dst
	e.w.Reset(&e.out)
	_, err := e.w.Write(src)
	if err == nil {
		err = e.w.Close()
	}
	dst = e.out.b
	e.out.b = nil
	gzipEncoders[level].give(e)
	if err != nil { // appender never fails, so neither does the writer
		return dst[:n], err
	}
	return dst, nil
}

func decodeGzip(dst, src []byte, declared int) ([]byte, error) {
	d := gzipDecoders.take()
	d.in.Reset(src)
	err := d.r.Reset(&d.in)
	if err == nil {
		dst, err = readExactly(dst, &d.r, declared, &d.one, message.Gzip)
	} else {
		err = damaged(message.Gzip, err)
	}
	d.in.Reset(nil)
	gzipDecoders.give(d)
	return dst, err
}

// readExactly appends declared bytes from r to dst and checks that r ends
// there. On error dst keeps its length.
func readExactly(dst []byte, r io.Reader, declared int, one *[1]byte, a message.Algorithm) ([]byte, error) {
	n := len(dst)
	dst = room(dst, declared)
	got, err := io.ReadFull(r, dst[n:n+declared])
	switch err {
	case nil:
	case io.EOF, io.ErrUnexpectedEOF:
		// ReadFull turns a clean end into ErrUnexpectedEOF, and the readers
		// report a cut stream the same way: one answer for both.
		return dst[:n], mismatch(a, declared, got)
	default:
		return dst[:n], damaged(a, err)
	}
	// The end, with its checksum, is still to be read.
	switch m, err := io.ReadFull(r, one[:]); {
	case m > 0:
		return dst[:n], overflow(a, declared)
	case err != io.EOF:
		return dst[:n], damaged(a, err)
	}
	return dst[:n+declared], nil
}
