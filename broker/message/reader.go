package message

import (
	"math"
	"unsafe"

	"github.com/oklog/ulid/v2"

	"github.com/portask/portask/broker/fault"
)

// Reader walks through the messages of one decompressed body. It checks all
// that FORMAT.md says of it, for the broker never looks there. A warm Reader
// allocates nothing. The zero value has no messages; call Reset first. It
// belongs to one goroutine at a time.
type Reader struct {
	body []byte // what is left to read
	size int    // of the whole body
	lim  Limits
	err  error

	base        Offset
	firstTime   int64
	maxDelta    int64 // µs
	lastDelta   uint32
	count       uint32
	done        uint32 // messages returned
	nextDelta   uint32 // smallest offset delta allowed next
	priority    uint8
	encoding    Encoding
	due, expiry int64

	headers []Header // of the current message, reused
}

// Reset starts at the first message of body, which is the decompressed body of
// the batch with envelope e; e came from ParseEnvelope. nil limits are the
// default ones. e and lim are not kept, body is. Messages carry no due time
// and expiry unless SetSection follows.
func (r *Reader) Reset(e *Envelope, body []byte, lim *Limits) {
	*r = Reader{
		body:      body,
		size:      len(body),
		lim:       *lim.orDefault(),
		base:      e.BaseOffset,
		firstTime: e.FirstTimestamp,
		maxDelta:  int64(e.MaxTimestampDeltaMs) * 1000,
		lastDelta: e.LastOffsetDelta,
		count:     e.Count,
		priority:  e.Attributes.Priority(),
		encoding:  e.Attributes.Encoding(),
		headers:   r.headers[:0],
	}
	if int64(len(body)) != int64(e.UncompressedLen) {
		r.fail("uncompressed_len", "is %d, the body has %d bytes", e.UncompressedLen, len(body))
	}
}

// SetSection gives the following messages the due time and expiry of s.
func (r *Reader) SetSection(s *Section) { r.due, r.expiry = s.DueTime, s.Expiry }

// Err is why Next stopped: nil at the end of the batch, else a *fault.Error
// (Corrupted, or TooLarge with the limit) that names the message, counted from
// 0, and the field.
func (r *Reader) Err() error { return r.err }

// Next fills m, all of it, with the next message and returns true; false at
// the end and at an error. The slices and strings in m alias body, and
// m.Headers is the reader's: both are valid until the next call of Next at
// most.
func (r *Reader) Next(m *Message) bool {
	if r.err != nil {
		return false
	}
	if r.done == r.count {
		if len(r.body) != 0 {
			r.fail("count", "%d bytes follow the last message", len(r.body))
		}
		return false
	}
	n, k := uvarint(r.body)
	if k == 0 || n > uint64(len(r.body)-k) {
		r.fail("length", "exceeds the body")
		return false
	}
	b := r.body[k : k+int(n) : k+int(n)]
	if !r.decode(b, m) {
		return false
	}
	r.body = r.body[k+int(n):]
	r.done++
	return true
}

// decode fills m from b, the bytes of one message behind its length.
func (r *Reader) decode(b []byte, m *Message) bool {
	if len(b) == 0 {
		return r.fail("attr", "is missing")
	}
	attr := b[0]
	if attr&attrZero != 0 {
		return r.fail("attr", "unknown bits in %#02x", attr)
	}
	b = b[1:]

	u, k := uvarint(b)
	if k == 0 {
		return r.fail("ts_delta", "is no varint")
	}
	b = b[k:]
	delta := unzigzag(u)
	if delta > r.maxDelta {
		return r.fail("ts_delta", "%d µs exceed max_timestamp_delta_ms", delta)
	}
	if delta > 0 && r.firstTime > math.MaxInt64-delta || delta < 0 && r.firstTime < math.MinInt64-delta {
		return r.fail("ts_delta", "overflows the timestamp")
	}
	m.Timestamp = r.firstTime + delta

	u, k = uvarint(b)
	if k == 0 {
		return r.fail("offset_delta", "is no varint")
	}
	b = b[k:]
	// Written so that neither the sum nor last_offset_delta + 1 can overflow.
	if u < uint64(r.nextDelta) || u+uint64(r.count-r.done-1) > uint64(r.lastDelta) || u > uint64(r.lastDelta) {
		return r.fail("offset_delta", "is %d, outside [%d,%d]", u, r.nextDelta, int64(r.lastDelta)-int64(r.count-r.done-1))
	}
	m.Offset = r.base + Offset(u)
	nextDelta := uint32(u) + 1

	m.ID = ulid.ULID{}
	if attr&hasID != 0 {
		if len(b) < len(m.ID) {
			return r.fail("id", "is cut off")
		}
		m.ID = ulid.ULID(b[:len(m.ID)])
		if b = b[len(m.ID):]; m.ID.IsZero() {
			return r.fail("id", "is zero")
		}
	}
	m.Key = nil
	size := 0
	if attr&hasKey != 0 {
		var ok bool
		if m.Key, b, ok = prefixed(b); !ok {
			return r.fail("key", "exceeds the message")
		}
		if size = len(m.Key); size > r.lim.KeyBytes {
			return r.tooLarge("key", size, r.lim.KeyBytes)
		}
	}
	m.Headers = nil
	if attr&hasHeaders != 0 {
		rest, n, ok := r.decodeHeaders(b)
		if !ok {
			return false
		}
		b = rest
		size += n
		m.Headers = r.headers
	}
	m.Value = b
	if attr&nullValue != 0 {
		if len(b) != 0 {
			return r.fail("value", "is null and has %d bytes", len(b))
		}
		m.Value = nil
	}
	if size += len(b); size > r.lim.MessageBytes {
		return r.tooLarge("message_bytes", size, r.lim.MessageBytes)
	}
	m.Priority, m.Encoding, m.DueTime, m.Expiry = r.priority, r.encoding, r.due, r.expiry
	r.nextDelta = nextDelta
	return true
}

// decodeHeaders fills r.headers from the start of b and returns the rest and
// the bytes of all names and values.
func (r *Reader) decodeHeaders(b []byte) (rest []byte, size int, ok bool) {
	n, k := uvarint(b)
	if k == 0 || n == 0 {
		return nil, 0, r.fail("headers", "count is missing")
	}
	if n > uint64(r.lim.Headers) {
		return nil, 0, r.tooLarge("headers", int(min(n, math.MaxInt32)), r.lim.Headers)
	}
	b = b[k:]
	r.headers = r.headers[:0]
	for range n {
		var name, value []byte
		if name, b, ok = prefixed(b); !ok {
			return nil, 0, r.fail("headers", "name exceeds the message")
		}
		if value, b, ok = prefixed(b); !ok {
			return nil, 0, r.fail("headers", "value exceeds the message")
		}
		if size += len(name) + len(value); size > r.lim.HeaderBytes {
			return nil, 0, r.tooLarge("header_bytes", size, r.lim.HeaderBytes)
		}
		r.headers = append(r.headers, Header{Key: view(name), Value: value})
	}
	return b, size, true
}

// prefixed reads a length and that many bytes from b. The result is never nil
// with ok.
func prefixed(b []byte) (x, rest []byte, ok bool) {
	n, k := uvarint(b)
	if k == 0 || n > uint64(len(b)-k) {
		return nil, nil, false
	}
	end := k + int(n)
	return b[k:end:end], b[end:], true
}

// view returns b as a string without copying: the promise that it does not
// change is passed on to the caller of Next. A copy would be the one allocation
// per header.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// fail stores the error that ends the reading and returns false.
func (r *Reader) fail(field, format string, args ...any) bool {
	r.err = corrupted(opRead, field, format, args...).WithCause(r.where())
	return false
}

func (r *Reader) tooLarge(field string, value, limit int) bool {
	r.err = fault.New(fault.TooLarge, opRead).WithField(field).
		WithLimit(int64(value), int64(limit)).WithCause(r.where())
	return false
}

// where says which message is at fault.
func (r *Reader) where() error {
	return &placeError{message: r.done, position: r.size - len(r.body)}
}
