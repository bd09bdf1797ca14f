package serialization

import (
	"encoding/binary"
	"math"
	"slices"
	"unsafe"

	"github.com/oklog/ulid/v2"

	"github.com/portask/portask/broker/message"
)

// A message in MessagePack: an array of ten, in this order.
//
//	┌──────┬────────┬───────────┬────────┬──────────┬──────────┬───────┬──────┬─────────┬──────────┬────────┐
//	│ 0x9a │ offset │ timestamp │ id     │ priority │ encoding │ value │ key  │ headers │ due time │ expiry │
//	│      │ int    │ int, µs   │ 16 B   │ 0-7      │ 0-3      │ bin   │ bin  │ array of│ int, µs  │ int, µs│
//	│      │        │           │ or nil │          │          │ or nil│or nil│ [str,bin│          │        │
//	│      │        │           │        │          │          │       │      │ ] or nil│          │        │
//	└──────┴────────┴───────────┴────────┴──────────┴──────────┴───────┴──────┴─────────┴──────────┴────────┘
//
// By hand, since the library cuts integers that do not fit a field down to
// their low bits without a word; it is the oracle in tests. A header's name is
// str, which MessagePack allows to be any bytes.
const (
	packFields  = 10
	packMessage = packFixArray | packFields
)

func (c *packCodec) AppendMessage(dst []byte, m *message.Message) ([]byte, error) {
	if err := checkMessage(opAppendPack, m, &c.lim); err != nil {
		return dst, err
	}
	at := len(dst)
	need := 80 + len(m.Value) + len(m.Key)
	for i := range m.Headers {
		need += 11 + len(m.Headers[i].Key) + len(m.Headers[i].Value)
	}
	dst = slices.Grow(dst, need)
	dst = append(dst, packMessage)
	dst = appendPackInt(dst, int64(m.Offset))
	dst = appendPackInt(dst, m.Timestamp)
	if m.ID.IsZero() {
		dst = append(dst, packNil)
	} else {
		dst = append(append(dst, packBytes8, byte(len(m.ID))), m.ID[:]...)
	}
	dst = append(dst, m.Priority, byte(m.Encoding)) // below 128: one byte
	dst = appendPackBytes(dst, m.Value)
	dst = appendPackBytes(dst, m.Key)
	if len(m.Headers) == 0 {
		dst = append(dst, packNil)
	} else {
		dst = appendPackArray(dst, len(m.Headers))
		for i := range m.Headers {
			h := &m.Headers[i]
			dst = append(dst, packFixArray|2)
			dst = append(appendPackText(dst, len(h.Key)), h.Key...)
			if h.Value == nil {
				dst = append(dst, packBytes8, 0) // a header's value has no null
			} else {
				dst = appendPackBytes(dst, h.Value)
			}
		}
	}
	dst = appendPackInt(dst, m.DueTime)
	dst = appendPackInt(dst, m.Expiry)
	if n := len(dst) - at; n > c.lim.Bytes {
		return dst[:at], tooLarge(opAppendPack, "bytes", n, c.lim.Bytes)
	}
	return dst, nil
}

// appendPackInt appends v in the shortest form.
func appendPackInt(dst []byte, v int64) []byte {
	switch {
	case v >= 0 && v < 0x80, v < 0 && v >= -32:
		return append(dst, byte(v))
	case v >= 0 && v <= math.MaxUint8:
		return append(dst, packUint8, byte(v))
	case v >= 0 && v <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(dst, packUint8+1), uint16(v))
	case v >= 0 && v <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(dst, packUint8+2), uint32(v))
	case v >= 0:
		return binary.BigEndian.AppendUint64(append(dst, packUint64), uint64(v))
	case v >= math.MinInt8:
		return append(dst, packInt8, byte(v))
	case v >= math.MinInt16:
		return binary.BigEndian.AppendUint16(append(dst, packInt8+1), uint16(v))
	case v >= math.MinInt32:
		return binary.BigEndian.AppendUint32(append(dst, packInt8+2), uint32(v))
	}
	return binary.BigEndian.AppendUint64(append(dst, packInt64), uint64(v))
}

// appendPackLength appends the first byte of an 8, 16 or 32 bit length, and the
// length.
func appendPackLength(dst []byte, first byte, n int) []byte {
	switch {
	case n <= math.MaxUint8:
		return append(dst, first, byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(dst, first+1), uint16(n))
	}
	return binary.BigEndian.AppendUint32(append(dst, first+2), uint32(n))
}

func appendPackBytes(dst, b []byte) []byte {
	if b == nil {
		return append(dst, packNil)
	}
	return append(appendPackLength(dst, packBytes8, len(b)), b...)
}

func appendPackText(dst []byte, n int) []byte {
	if n < 32 {
		return append(dst, packFixText|byte(n))
	}
	return appendPackLength(dst, packText8, n)
}

func appendPackArray(dst []byte, n int) []byte {
	switch {
	case n < 16:
		return append(dst, packFixArray|byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(dst, packArray16), uint16(n))
	}
	return binary.BigEndian.AppendUint32(append(dst, packArray32), uint32(n))
}

// DecodeMessage aliases src.
func (c *packCodec) DecodeMessage(src []byte, m *message.Message) ([]byte, error) {
	// The one walk that checks structure and limits makes the reading below
	// free of both.
	n, err := scanPack(src, &c.lim)
	if err == nil && n == 0 {
		err = cutOff(opDecodePack, len(src))
	}
	if err != nil {
		return nil, err
	}
	p := packParser{b: src[:n]}
	if p.array() != packFields {
		return nil, invalid(opDecodePack, "message", "is no array of %d", packFields)
	}
	*m = message.Message{Headers: m.Headers[:0]}
	m.Offset = message.Offset(p.int("offset"))
	m.Timestamp = p.int("timestamp")
	switch id := p.bytes("id"); len(id) {
	case 0:
	case len(m.ID):
		m.ID = ulid.ULID(id)
	default:
		p.fail("id", "has %d bytes, want %d", len(id), len(m.ID))
	}
	m.Priority = p.small("priority")
	m.Encoding = message.Encoding(p.small("encoding"))
	m.Value = p.bytes("value")
	m.Key = p.bytes("key")
	headers := p.array()
	switch {
	case headers < 0:
		p.fail("headers", "is no array")
	case headers > c.lim.Headers:
		return nil, tooLarge(opDecodePack, "headers", headers, c.lim.Headers)
	}
	for range headers {
		if p.array() != 2 {
			p.fail("headers", "has something else than [name, value]")
		}
		name, value := p.bytes("headers.name"), p.bytes("headers.value")
		if p.err != nil {
			return nil, p.err
		}
		if value == nil {
			value = []byte{} // a header's value has no null
		}
		m.Headers = append(m.Headers, message.Header{Key: unsafe.String(unsafe.SliceData(name), len(name)), Value: value})
	}
	m.DueTime = p.int("due_time")
	m.Expiry = p.int("expiry")
	if p.err != nil {
		return nil, p.err
	}
	return src[n:], checkMessage(opDecodePack, m, &c.lim)
}

// packParser reads items of known types from bytes that scanPack has walked
// over. err is sticky, and all results after it are meaningless.
type packParser struct {
	b   []byte
	pos int
	err error
}

func (p *packParser) fail(field, format string, args ...any) {
	if p.err == nil {
		p.err = invalid(opDecodePack, field, format, args...)
	}
}

// next returns the first byte of the next item. It is there: the array's length
// was checked, or an error is pending.
func (p *packParser) next() byte {
	if p.err != nil || p.pos == len(p.b) {
		return packUnused
	}
	c := p.b[p.pos]
	p.pos++
	return c
}

// number reads a big-endian number.
func (p *packParser) number(width int) uint64 {
	var n uint64
	for _, c := range p.b[p.pos : p.pos+width] {
		n = n<<8 | uint64(c)
	}
	p.pos += width
	return n
}

// array returns the length of an array, 0 for nil, -1 for anything else.
func (p *packParser) array() int {
	switch c := p.next(); {
	case c == packNil:
		return 0
	case c >= packFixArray && c < packFixText:
		return int(c & 0x0f)
	case c == packArray16:
		return int(p.number(2))
	case c == packArray32:
		return int(p.number(4))
	}
	return -1
}

func (p *packParser) int(field string) int64 {
	switch c := p.next(); {
	case c < packFixMap, c >= packFixMinus1:
		return int64(int8(c))
	case c >= packUint8 && c <= packUint64:
		n := p.number(1 << (c - packUint8))
		if n > math.MaxInt64 {
			p.fail(field, "%d has more than 63 bits", n)
		}
		return int64(n)
	case c >= packInt8 && c <= packInt64:
		width := 1 << (c - packInt8)
		shift := 64 - 8*width
		return int64(p.number(width)<<shift) >> shift
	}
	p.fail(field, "is no integer")
	return 0
}

// small reads a number of 8 bits.
func (p *packParser) small(field string) uint8 {
	v := p.int(field)
	if v < 0 || v > math.MaxUint8 {
		p.fail(field, "is %d", v)
	}
	return uint8(v)
}

// bytes returns a view of a string or bytes, nil for nil.
func (p *packParser) bytes(field string) []byte {
	var n int
	switch c := p.next(); {
	case c == packNil:
		return nil
	case c >= packFixText && c < packNil:
		n = int(c & 0x1f)
	case c >= packBytes8 && c <= packBytes32:
		n = int(p.number(1 << (c - packBytes8)))
	case c >= packText8 && c <= packText32:
		n = int(p.number(1 << (c - packText8)))
	default:
		p.fail(field, "is neither a string nor bytes")
		return nil
	}
	end := p.pos + n
	b := p.b[p.pos:end:end]
	p.pos = end
	return b
}
