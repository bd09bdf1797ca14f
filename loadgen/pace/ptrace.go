package pace

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
)

// A recorded trace (.ptrace) is binary, little-endian:
//
//	┌────────────────────┬─────────┬─────┬─────────┬─────────┬───────────┐
//	│ "#ptrace 2\n" 10 B │ message │ ... │ message │ trailer │ crc32 u32 │
//	└────────────────────┴─────────┴─────┴─────────┴─────────┴───────────┘
//	message: uvarint 1 + (ns since the one before << 1 | has key) · uvarint size · uvarint topic · [key hash u64]
//	trailer: uvarint 0 · uvarint messages · dropped · approximate · resent
//
// The sum (Castagnoli) is of all bytes before it. A file without a trailer, of a
// recorder that was killed, is read as far as it goes.
const ptraceHead = "#ptrace 2\n"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Recorded is what the recorder of a trace says at its end.
type Recorded struct {
	Messages    uint64 `json:"messages"`    // in the trace
	Dropped     uint64 `json:"dropped"`     // seen and left out: the recorder did not keep up, or the trace was full
	Approximate uint64 `json:"approximate"` // of Messages, sizes are the mean of their batch and keys unknown
	Resent      uint64 `json:"resent"`      // sent again by a client, and left out
}

// TraceWriter writes a recorded trace. Not safe for concurrent use.
type TraceWriter struct {
	out  *bufio.Writer
	sum  hash.Hash32
	buf  []byte
	last int64
	said Recorded
	size int64
}

// NewTraceWriter begins a trace on w.
func NewTraceWriter(w io.Writer) (*TraceWriter, error) {
	t := &TraceWriter{sum: crc32.New(castagnoli)}
	t.out = bufio.NewWriterSize(io.MultiWriter(w, t.sum), 64<<10)
	t.buf = append(t.buf, ptraceHead...)
	return t, t.flush()
}

func (t *TraceWriter) flush() error {
	n, err := t.out.Write(t.buf)
	t.size += int64(n)
	t.buf = t.buf[:0]
	return err
}

// Bytes written so far.
func (t *TraceWriter) Bytes() int64 { return t.size }

// Messages written so far.
func (t *TraceWriter) Messages() uint64 { return t.said.Messages }

// Add writes one message. One that is due before the last counts as due with it.
func (t *TraceWriter) Add(x Item) error {
	delta := max(0, x.At-t.last)
	t.last += delta
	u := uint64(delta) << 1
	if x.Key != 0 {
		u |= 1
	}
	t.buf = binary.AppendUvarint(t.buf, u+1)
	t.buf = binary.AppendUvarint(t.buf, uint64(x.Size))
	t.buf = binary.AppendUvarint(t.buf, uint64(x.Topic))
	if x.Key != 0 {
		t.buf = binary.LittleEndian.AppendUint64(t.buf, x.Key)
	}
	t.said.Messages++
	return t.flush()
}

// Close writes the trailer; Messages of r is what was added.
func (t *TraceWriter) Close(r Recorded) error {
	r.Messages = t.said.Messages
	for _, v := range []uint64{0, r.Messages, r.Dropped, r.Approximate, r.Resent} {
		t.buf = binary.AppendUvarint(t.buf, v)
	}
	if err := errors.Join(t.flush(), t.out.Flush()); err != nil {
		return err
	}
	t.buf = binary.LittleEndian.AppendUint32(t.buf, t.sum.Sum32())
	return errors.Join(t.flush(), t.out.Flush())
}

// summing reads bytes and sums what was read.
type summing struct {
	in  *bufio.Reader
	sum uint32
	one [1]byte
}

func (s *summing) ReadByte() (byte, error) {
	b, err := s.in.ReadByte()
	if err == nil {
		s.one[0] = b
		s.sum = crc32.Update(s.sum, castagnoli, s.one[:])
	}
	return b, err
}

func (s *summing) u64() (uint64, error) {
	var b [8]byte
	for i := range b {
		var err error
		if b[i], err = s.ReadByte(); err != nil {
			return 0, err
		}
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}

// readRecorded reads a trace behind its head.
func readRecorded(in *bufio.Reader) (*Trace, error) {
	s := &summing{in: in, sum: crc32.Checksum([]byte(ptraceHead), castagnoli)}
	t := &Trace{}
	at := int64(0)
	for {
		u, err := binary.ReadUvarint(s)
		if err == nil && u == 0 {
			break
		}
		var x Item
		if err == nil {
			u--
			if u>>1 > uint64(1<<62-at) {
				return nil, fmt.Errorf("message %d: a time beyond all times", len(t.items))
			}
			x, err = readItem(s, u&1 == 1)
		}
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			if len(t.items) == 0 {
				return nil, errNoMessages
			}
			return t, nil // the recorder was killed
		case err != nil:
			return nil, fmt.Errorf("message %d: %w", len(t.items), err)
		case len(t.items) == TraceItemsMax:
			return nil, fmt.Errorf("more than %d messages", TraceItemsMax)
		}
		at += int64(u >> 1)
		x.At = at
		t.items = append(t.items, x)
	}
	r := &Recorded{}
	for _, v := range []*uint64{&r.Messages, &r.Dropped, &r.Approximate, &r.Resent} {
		var err error
		if *v, err = binary.ReadUvarint(s); err != nil {
			return nil, fmt.Errorf("trailer: %w", err)
		}
	}
	var end [5]byte
	n, err := io.ReadFull(in, end[:])
	if !errors.Is(err, io.ErrUnexpectedEOF) || n != 4 || binary.LittleEndian.Uint32(end[:]) != s.sum {
		return nil, errors.New("trailer: the checksum is wrong: the trace is damaged")
	}
	if r.Messages != uint64(len(t.items)) {
		return nil, fmt.Errorf("trailer: %d messages, and there are %d", r.Messages, len(t.items))
	}
	if len(t.items) == 0 {
		return nil, errNoMessages
	}
	t.recorded = r
	return t, nil
}

func readItem(s *summing, key bool) (x Item, err error) {
	size, err := binary.ReadUvarint(s)
	if err != nil {
		return x, err
	}
	topic, err := binary.ReadUvarint(s)
	if err != nil {
		return x, err
	}
	if size > traceSizeMax || topic > TraceTopicsMax {
		return x, fmt.Errorf("size %d, topic %d: want at most %d bytes, topic %d", size, topic, traceSizeMax, TraceTopicsMax)
	}
	x.Size, x.Topic = uint32(size), uint32(topic)
	if key {
		x.Key, err = s.u64()
	}
	return x, err
}

// isRecorded looks at the first bytes of a file.
func isRecorded(in *bufio.Reader) bool {
	head, _ := in.Peek(len(ptraceHead))
	return bytes.Equal(head, []byte(ptraceHead))
}
