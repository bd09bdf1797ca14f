package serialization

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

// A batch of whole messages is the messages one behind the other: a CBOR
// sequence (RFC 8742), lines of JSON, MessagePack items. Batches put together
// are a batch.

// AppendBatch appends all messages to dst. The error names the message, counted
// from 0; dst then ends before it.
func AppendBatch(dst []byte, c Codec, messages iter.Seq[*message.Message]) ([]byte, error) {
	i := 0
	for m := range messages {
		var err error
		if dst, err = c.AppendMessage(dst, m); err != nil {
			return dst, fmt.Errorf("message %d: %w", i, err)
		}
		if c.Encoding() == message.JSON {
			dst = append(dst, '\n')
		}
		i++
	}
	return dst, nil
}

// DecodeBatch decodes all messages of src and appends them to ms, whose memory
// beyond its length is reused, headers included. The messages may alias src.
// The error names the message, counted from 0; those before it are returned.
func DecodeBatch(src []byte, c Codec, ms []message.Message) ([]message.Message, error) {
	had := len(ms)
	ms, err := decodeBatch(src, c, ms)
	if err != nil {
		err = fmt.Errorf("message %d: %w", len(ms)-had, err)
	}
	return ms, err
}

func decodeBatch(src []byte, c Codec, ms []message.Message) ([]message.Message, error) {
	for len(src) > 0 {
		if len(ms) < cap(ms) {
			ms = ms[:len(ms)+1]
		} else {
			ms = append(ms, message.Message{})
		}
		var err error
		if src, err = c.DecodeMessage(src, &ms[len(ms)-1]); err != nil {
			return ms[:len(ms)-1], err
		}
	}
	return ms, nil
}

// Decoder reads a stream of items, one behind the other: whole messages (Next),
// or values (Value). It holds at most Limits.Bytes and belongs to one goroutine
// at a time.
type Decoder struct {
	c    Codec
	r    io.Reader
	lim  Limits
	scan jsonScan // of the item at start, so that nothing is looked at twice

	buf        []byte
	start, end int  // unread bytes are buf[start:end]
	count      int  // items returned
	ended      bool // r has no more
	err        error
}

// decoderBytes is what a Decoder reads at once: many messages of a usual size,
// in one pass over the cache.
const decoderBytes = 64 << 10

// NewDecoder returns a Decoder that reads from r. No item may be longer than
// lim.Bytes.
func NewDecoder(r io.Reader, c Codec, lim Limits) *Decoder {
	return &Decoder{c: c, r: r, lim: lim, buf: make([]byte, min(decoderBytes, lim.Bytes))}
}

// Next appends the messages at hand to ms, at least one; it reads on only if
// there is none. They are valid until the next call. At the end of the stream
// the error is io.EOF; every other error names the message, counted from 0 from
// the beginning of the stream, and comes again at each call.
func (d *Decoder) Next(ms []message.Message) ([]message.Message, error) {
	if d.err != nil {
		return ms, d.err
	}
	n, err := d.whole()
	for n == 0 && err == nil {
		if err = d.fill(); err == nil {
			n, err = d.whole()
		}
	}
	had := len(ms)
	if n > 0 {
		src := d.buf[d.start : d.start+n]
		d.start += n
		ms, err = decodeBatch(src, d.c, ms)
	}
	d.count += len(ms) - had
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("message %d: %w", d.count, err)
	}
	if len(ms) > had {
		d.err, err = err, nil // what was read before the damage comes first
	} else {
		d.err = err
	}
	return ms, err
}

// Value returns the next item as it stands in the stream, white space around it
// included, valid until the next call; whether it is more than well-formed is
// for [Codec.DecodeValue] to say. Errors as of Next.
func (d *Decoder) Value() ([]byte, error) {
	if d.err != nil {
		return nil, d.err
	}
	n, err := d.first()
	for n == 0 && err == nil {
		if err = d.fill(); err == nil {
			n, err = d.first()
		}
	}
	if err != nil {
		if !errors.Is(err, io.EOF) {
			err = fmt.Errorf("value %d: %w", d.count, err)
		}
		d.err = err
		return nil, err
	}
	item := d.buf[d.start : d.start+n : d.start+n]
	d.start += n
	d.count++
	return item, nil
}

// first returns the length of the item at the front of the buffer, 0 if it is
// not whole. A number or word of JSON ends where something else begins: at the
// end of the buffer that is known at the end of the stream only.
func (d *Decoder) first() (int, error) {
	for {
		b := d.buf[d.start:d.end]
		n, err := d.size(b)
		if n == 0 || n < len(b) || d.ended || d.c.Encoding() != message.JSON || bytes.IndexByte([]byte("}]\" \n\r\t"), b[n-1]) >= 0 {
			return n, err
		}
		if err := d.read(); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
	}
}

// whole returns the length of all items that are whole in the buffer.
func (d *Decoder) whole() (int, error) {
	total := 0
	for {
		n, err := d.size(d.buf[d.start+total : d.end])
		if err != nil && total == 0 {
			return 0, err
		}
		if n == 0 {
			return total, nil // an error comes again when it is the first
		}
		total += n
	}
}

func (d *Decoder) size(b []byte) (int, error) {
	if c, ok := d.c.(*jsonCodec); ok {
		return d.scan.size(b, &c.lim)
	}
	return d.c.Size(b)
}

// fill reads more; io.EOF if nothing is left of the stream, and another error if
// something is that is no item.
func (d *Decoder) fill() error {
	err := d.read()
	if !errors.Is(err, io.EOF) {
		return err
	}
	rest := d.buf[d.start:d.end]
	if d.c.Encoding() == message.JSON {
		rest = rest[skipSpace(rest, 0):]
	}
	if len(rest) == 0 {
		return io.EOF
	}
	return corrupt("read messages", d.end-d.start, "the stream ends within a message").WithCause(io.ErrUnexpectedEOF)
}

// read reads more into the buffer, which is doubled if one item fills it; io.EOF
// if there is no more.
func (d *Decoder) read() error {
	if d.ended {
		return io.EOF
	}
	if d.start > 0 {
		d.end = copy(d.buf, d.buf[d.start:d.end])
		d.start = 0
	}
	if d.end == len(d.buf) {
		if len(d.buf) >= d.lim.Bytes {
			return tooLarge("read messages", "bytes", len(d.buf)+1, d.lim.Bytes)
		}
		d.buf = slices.Grow(d.buf, min(len(d.buf), d.lim.Bytes-len(d.buf)))
		d.buf = d.buf[:min(cap(d.buf), d.lim.Bytes)]
	}
	for {
		n, err := d.r.Read(d.buf[d.end:])
		d.end += n
		switch {
		case n > 0:
			return nil
		case errors.Is(err, io.EOF):
			d.ended = true
			return io.EOF
		case err != nil:
			return fault.New(fault.CodeOf(err), "read messages").WithCause(err)
		}
	}
}
