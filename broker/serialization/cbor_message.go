package serialization

import (
	"encoding/binary"
	"slices"
	"unicode/utf8"
	"unsafe"

	"github.com/fxamacker/cbor/v2"
	"github.com/oklog/ulid/v2"

	"github.com/portask/portask/broker/message"
)

// A message in CBOR: a map with one-character text keys in their sorted order,
// each left out where the field is zero or nil.
//
//	┌──────┬─────────────────┬───────────────┬──────────────────────┬──────┬──────┐
//	│ 0xa0 │ "d" due time    │ "e" encoding  │ "h" headers          │ "i"  │ "k"  │
//	│ + n  │ int, µs         │ uint, 0-3     │ array of [name,value]│ id   │ key  │
//	├──────┼─────────────────┼───────────────┼──────────────────────┼──────┼──────┤
//	│      │ "o" offset      │ "p" priority  │ "t" timestamp        │ "v"  │ "x"  │
//	│      │ int             │ uint, 0-7     │ int, µs              │ value│expiry│
//	└──────┴─────────────────┴───────────────┴──────────────────────┴──────┴──────┘
//
// Id (16 bytes), key, value and header values are byte strings; a header's name
// is text if it is UTF-8, else a byte string. This is the core deterministic
// encoding: there is one form of each message. The decoder here reads that form
// and leaves every other to the library (generalCBOR), which is also the
// encoder's oracle in tests.
//
// By hand and not by the library, since a 1 KiB message takes a tenth of the
// time so, allocates nothing, and is decoded without a copy.
const (
	keyDue       = 'd'
	keyEncoding  = 'e'
	keyHeaders   = 'h'
	keyID        = 'i'
	keyKey       = 'k'
	keyOffset    = 'o'
	keyPriority  = 'p'
	keyTimestamp = 't'
	keyValue     = 'v'
	keyExpiry    = 'x'

	oneCharText = cborText | 1 // what begins each key
)

// checkMessage refuses what no batch can carry, in either direction.
func checkMessage(op string, m *message.Message, lim *Limits) error {
	switch {
	case m.Priority > message.MaxPriority:
		return invalid(op, "priority", "is %d, must be at most %d", m.Priority, message.MaxPriority)
	case !m.Encoding.Valid():
		return invalid(op, "encoding", "%v is none", m.Encoding)
	case len(m.Headers) > lim.Headers:
		return tooLarge(op, "headers", len(m.Headers), lim.Headers)
	}
	return nil
}

func (c *cborCodec) AppendMessage(dst []byte, m *message.Message) ([]byte, error) {
	if err := checkMessage(opAppendCBOR, m, &c.lim); err != nil {
		return dst, err
	}
	// Eleven heads of at most 9 bytes, ten keys of 2, an id; then what varies.
	need := 140 + len(m.Value) + len(m.Key)
	for i := range m.Headers {
		need += 19 + len(m.Headers[i].Key) + len(m.Headers[i].Value)
	}
	if need > c.lim.Bytes {
		// Close to the limit the exact size decides.
		if n := sizeCBOR(m); n > c.lim.Bytes {
			return dst, tooLarge(opAppendCBOR, "bytes", n, c.lim.Bytes)
		}
	}
	dst = slices.Grow(dst, need)
	at, fields := len(dst), 0
	dst = append(dst, cborMap)
	if m.DueTime != 0 {
		fields++
		dst = appendCBORInt(append(dst, oneCharText, keyDue), m.DueTime)
	}
	if m.Encoding != 0 {
		fields++
		dst = append(dst, oneCharText, keyEncoding, byte(m.Encoding)) // below 24: one byte
	}
	if len(m.Headers) > 0 {
		fields++
		dst = appendCBORHead(append(dst, oneCharText, keyHeaders), cborArray, uint64(len(m.Headers)))
		for i := range m.Headers {
			h := &m.Headers[i]
			name := byte(cborText)
			if !utf8.ValidString(h.Key) {
				name = cborBytes
			}
			dst = append(appendCBORHead(append(dst, cborArray|2), name, uint64(len(h.Key))), h.Key...)
			dst = append(appendCBORHead(dst, cborBytes, uint64(len(h.Value))), h.Value...)
		}
	}
	if !m.ID.IsZero() {
		fields++
		dst = append(append(dst, oneCharText, keyID, cborBytes|byte(len(m.ID))), m.ID[:]...)
	}
	if m.Key != nil {
		fields++
		dst = append(appendCBORHead(append(dst, oneCharText, keyKey), cborBytes, uint64(len(m.Key))), m.Key...)
	}
	if m.Offset != 0 {
		fields++
		dst = appendCBORInt(append(dst, oneCharText, keyOffset), int64(m.Offset))
	}
	if m.Priority != 0 {
		fields++
		dst = append(dst, oneCharText, keyPriority, m.Priority) // below 24: one byte
	}
	if m.Timestamp != 0 {
		fields++
		dst = appendCBORInt(append(dst, oneCharText, keyTimestamp), m.Timestamp)
	}
	if m.Value != nil {
		fields++
		dst = append(appendCBORHead(append(dst, oneCharText, keyValue), cborBytes, uint64(len(m.Value))), m.Value...)
	}
	if m.Expiry != 0 {
		fields++
		dst = appendCBORInt(append(dst, oneCharText, keyExpiry), m.Expiry)
	}
	dst[at] = cborMap | byte(fields) // at most 10: one byte
	return dst, nil
}

// appendCBORHead appends a major type with its argument in the shortest form.
func appendCBORHead(dst []byte, major byte, arg uint64) []byte {
	switch {
	case arg < 24:
		return append(dst, major|byte(arg))
	case arg < 1<<8:
		return append(dst, major|24, byte(arg))
	case arg < 1<<16:
		return binary.BigEndian.AppendUint16(append(dst, major|25), uint16(arg))
	case arg < 1<<32:
		return binary.BigEndian.AppendUint32(append(dst, major|26), uint32(arg))
	}
	return binary.BigEndian.AppendUint64(append(dst, major|27), arg)
}

func appendCBORInt(dst []byte, v int64) []byte {
	if v < 0 {
		return appendCBORHead(dst, cborNegative, uint64(^v))
	}
	return appendCBORHead(dst, cborUint, uint64(v))
}

func sizeCBORHead(arg uint64) int {
	switch {
	case arg < 24:
		return 1
	case arg < 1<<8:
		return 2
	case arg < 1<<16:
		return 3
	case arg < 1<<32:
		return 5
	}
	return 9
}

func sizeCBORInt(v int64) int { return sizeCBORHead(uint64(v ^ v>>63)) }

// sizeCBOR is the exact length of m encoded.
func sizeCBOR(m *message.Message) int {
	n := 1
	for _, v := range [...]int64{m.DueTime, int64(m.Encoding), int64(m.Offset), int64(m.Priority), m.Timestamp, m.Expiry} {
		if v != 0 {
			n += 2 + sizeCBORInt(v)
		}
	}
	for _, b := range [...][]byte{m.Key, m.Value} {
		if b != nil {
			n += 2 + sizeCBORHead(uint64(len(b))) + len(b)
		}
	}
	if !m.ID.IsZero() {
		n += 2 + 1 + len(m.ID)
	}
	if len(m.Headers) > 0 {
		n += 2 + sizeCBORHead(uint64(len(m.Headers)))
		for i := range m.Headers {
			h := &m.Headers[i]
			n += 1 + sizeCBORHead(uint64(len(h.Key))) + len(h.Key) + sizeCBORHead(uint64(len(h.Value))) + len(h.Value)
		}
	}
	return n
}

// DecodeMessage aliases src if the message is in the form that AppendMessage
// writes, and copies otherwise.
func (c *cborCodec) DecodeMessage(src []byte, m *message.Message) (rest []byte, err error) {
	headers := m.Headers[:0]
	if n, ok := parseCBOR(src, m, headers, &c.lim); ok {
		return src[n:], nil
	}
	return c.generalDecode(src, m, headers)
}

// parseCBOR reads a message in the form that AppendMessage writes; ok is false
// for every other, valid or not.
func parseCBOR(b []byte, m *message.Message, headers []message.Header, lim *Limits) (n int, ok bool) {
	if len(b) == 0 || b[0]&0xe0 != cborMap || b[0]&0x1f >= 24 {
		return 0, false
	}
	*m = message.Message{Headers: headers}
	p := cborParser{b: b, pos: 1}
	last := byte(0)
	for range b[0] & 0x1f {
		if len(b)-p.pos < 3 || b[p.pos] != oneCharText {
			return 0, false
		}
		key := b[p.pos+1]
		if key <= last { // not sorted, or twice
			return 0, false
		}
		last = key
		p.pos += 2
		switch key {
		case keyDue:
			m.DueTime = p.int()
		case keyEncoding:
			m.Encoding = message.Encoding(p.small())
		case keyHeaders:
			m.Headers = p.headers(headers, lim)
		case keyID:
			id := p.bytes(cborBytes)
			if len(id) != len(m.ID) {
				return 0, false
			}
			m.ID = ulid.ULID(id)
		case keyKey:
			m.Key = p.bytes(cborBytes)
		case keyOffset:
			m.Offset = message.Offset(p.int())
		case keyPriority:
			m.Priority = p.small()
		case keyTimestamp:
			m.Timestamp = p.int()
		case keyValue:
			m.Value = p.bytes(cborBytes)
		case keyExpiry:
			m.Expiry = p.int()
		default:
			return 0, false
		}
		if p.bad {
			return 0, false
		}
	}
	elements := 1 + 2*int(b[0]&0x1f) + 3*len(m.Headers)
	if p.pos > lim.Bytes || elements > lim.Elements || m.Priority > message.MaxPriority || !m.Encoding.Valid() {
		return 0, false
	}
	return p.pos, true
}

// cborParser reads items in their shortest form. bad is sticky, and all results
// after it are meaningless.
type cborParser struct {
	b   []byte
	pos int
	bad bool
}

// head reads the argument of an item of this major type.
func (p *cborParser) head(major byte) uint64 {
	if p.pos == len(p.b) || p.b[p.pos]&0xe0 != major {
		p.bad = true
		return 0
	}
	info := p.b[p.pos] & 0x1f
	p.pos++
	if info < 24 {
		return uint64(info)
	}
	rest := p.b[p.pos:]
	var arg, least uint64
	switch {
	case info == 24 && len(rest) >= 1:
		arg, least = uint64(rest[0]), 24
	case info == 25 && len(rest) >= 2:
		arg, least = uint64(binary.BigEndian.Uint16(rest)), 1<<8
	case info == 26 && len(rest) >= 4:
		arg, least = uint64(binary.BigEndian.Uint32(rest)), 1<<16
	case info == 27 && len(rest) >= 8:
		arg, least = binary.BigEndian.Uint64(rest), 1<<32
	default:
		p.bad = true
		return 0
	}
	p.bad = p.bad || arg < least
	p.pos += 1 << (info - 24)
	return arg
}

func (p *cborParser) int() int64 {
	if p.pos == len(p.b) {
		p.bad = true
		return 0
	}
	major := p.b[p.pos] & 0xe0
	if major != cborUint && major != cborNegative {
		p.bad = true
		return 0
	}
	arg := p.head(major)
	p.bad = p.bad || arg > 1<<63-1
	if major == cborNegative {
		return ^int64(arg)
	}
	return int64(arg)
}

// small reads a number below 24, which is all that priority and encoding need.
func (p *cborParser) small() byte {
	if p.pos == len(p.b) || p.b[p.pos] >= 24 {
		p.bad = true
		return 0
	}
	p.pos++
	return p.b[p.pos-1]
}

// bytes returns a view of a string of this major type, never nil unless bad.
func (p *cborParser) bytes(major byte) []byte {
	n := p.head(major)
	if p.bad || n > uint64(len(p.b)-p.pos) {
		p.bad = true
		return nil
	}
	end := p.pos + int(n)
	b := p.b[p.pos:end:end]
	p.pos = end
	return b
}

func (p *cborParser) headers(dst []message.Header, lim *Limits) []message.Header {
	n := p.head(cborArray)
	if n > uint64(lim.Headers) {
		p.bad = true
	}
	for range n {
		if p.bad || p.pos == len(p.b) || p.b[p.pos] != cborArray|2 {
			p.bad = true
			return dst
		}
		p.pos++
		major := byte(cborText)
		if p.pos < len(p.b) && p.b[p.pos]&0xe0 == cborBytes {
			major = cborBytes
		}
		name := p.bytes(major)
		if p.bad || utf8.Valid(name) != (major == cborText) {
			p.bad = true
			return dst
		}
		value := p.bytes(cborBytes)
		dst = append(dst, message.Header{Key: unsafe.String(unsafe.SliceData(name), len(name)), Value: value})
	}
	return dst
}

// generalMessage is a message for the library.
type generalMessage struct {
	Due       int64           `cbor:"d,omitempty"`
	Encoding  uint8           `cbor:"e,omitempty"`
	Headers   []generalHeader `cbor:"h,omitempty"`
	ID        []byte          `cbor:"i,omitempty"`
	Key       *[]byte         `cbor:"k,omitempty"`
	Offset    int64           `cbor:"o,omitempty"`
	Priority  uint8           `cbor:"p,omitempty"`
	Timestamp int64           `cbor:"t,omitempty"`
	Value     *[]byte         `cbor:"v,omitempty"`
	Expiry    int64           `cbor:"x,omitempty"`
}

type generalHeader struct {
	_     struct{} `cbor:",toarray"`
	Name  generalName
	Value []byte
}

// generalName is text or a byte string.
type generalName string

// UnmarshalCBOR implements cbor.Unmarshaler.
func (n *generalName) UnmarshalCBOR(b []byte) error {
	if len(b) > 0 && b[0]&0xe0 == cborBytes {
		var raw []byte
		err := cbor.Unmarshal(b, &raw)
		*n = generalName(raw)
		return err
	}
	var text string
	err := cbor.Unmarshal(b, &text)
	*n = generalName(text)
	return err
}

// generalDecode is DecodeMessage by the library.
func (c *cborCodec) generalDecode(src []byte, m *message.Message, headers []message.Header) ([]byte, error) {
	n, err := scanCBOR(src, &c.lim)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, cutOff(opDecodeCBOR, len(src))
	}
	if src[0]&0xe0 != cborMap {
		return nil, invalid(opDecodeCBOR, "message", "is no map")
	}
	var g generalMessage
	if err := c.strict.Unmarshal(src[:n], &g); err != nil {
		return nil, misfit(opDecodeCBOR, err)
	}
	*m = message.Message{
		Offset: message.Offset(g.Offset), Timestamp: g.Timestamp, Priority: g.Priority, Encoding: message.Encoding(g.Encoding),
		Headers: headers, DueTime: g.Due, Expiry: g.Expiry,
	}
	if g.Key != nil {
		m.Key = *g.Key
	}
	if g.Value != nil {
		m.Value = *g.Value
	}
	if len(g.Headers) > c.lim.Headers {
		return nil, tooLarge(opDecodeCBOR, "headers", len(g.Headers), c.lim.Headers)
	}
	for _, h := range g.Headers {
		if h.Value == nil {
			h.Value = []byte{} // a header's value has no null
		}
		m.Headers = append(m.Headers, message.Header{Key: string(h.Name), Value: h.Value})
	}
	switch len(g.ID) {
	case 0:
	case len(m.ID):
		m.ID = ulid.ULID(g.ID)
	default:
		return nil, invalid(opDecodeCBOR, "id", "has %d bytes, want %d", len(g.ID), len(m.ID))
	}
	return src[n:], checkMessage(opDecodeCBOR, m, &c.lim)
}
