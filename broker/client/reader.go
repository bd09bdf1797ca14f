package client

import (
	"errors"
	"io"
	"sync/atomic"

	"github.com/portask/portask/broker/wire"
)

// frameReader reads frames from a connection through a small buffer. Frames
// larger than it are read past it.
type frameReader struct {
	nc    io.Reader
	reads *atomic.Uint64 // counts reads that brought something; may be nil
	buf   []byte
	r, w  int // unread bytes are buf[r:w]
}

// readBytes takes 700 PRODUCE_OK frames with one read, and is the most that is
// copied of a delivery.
const readBytes = 32 << 10

func newFrameReader(nc io.Reader) *frameReader {
	return &frameReader{nc: nc, buf: make([]byte, readBytes)}
}

func (f *frameReader) readSome(b []byte) (int, error) {
	n, err := f.nc.Read(b)
	if n > 0 {
		if f.reads != nil {
			f.reads.Add(1)
		}
		return n, nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return 0, err
}

// fill makes at least n bytes available, n <= len(buf).
func (f *frameReader) fill(n int) error {
	if f.w-f.r >= n {
		return nil
	}
	if f.r > 0 {
		f.w = copy(f.buf, f.buf[f.r:f.w])
		f.r = 0
	}
	for f.w < n {
		m, err := f.readSome(f.buf[f.w:])
		if err != nil {
			if f.w > 0 && errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		f.w += m
	}
	return nil
}

// header returns the next frame's header and whole length without consuming
// it. view or read of that length must follow.
func (f *frameReader) header(maxFrame int) (wire.Header, int, error) {
	if err := f.fill(wire.HeaderBytes); err != nil {
		return wire.Header{}, 0, err
	}
	h, err := wire.ParseHeader(f.buf[f.r:f.w], maxFrame)
	if err != nil {
		return h, 0, err
	}
	return h, h.FrameBytes(), nil
}

// view consumes n bytes and returns them, valid until the next call of any
// method; nil if they do not fit the buffer, then nothing is consumed.
func (f *frameReader) view(n int) ([]byte, error) {
	if n > len(f.buf) {
		return nil, nil
	}
	if err := f.fill(n); err != nil {
		return nil, err
	}
	b := f.buf[f.r : f.r+n : f.r+n]
	f.r += n
	return b, nil
}

// read fills b.
func (f *frameReader) read(b []byte) error {
	n := copy(b, f.buf[f.r:f.w])
	f.r += n
	for n < len(b) {
		m, err := f.readSome(b[n:])
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		n += m
	}
	return nil
}
