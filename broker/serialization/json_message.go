package serialization

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"unicode/utf8"
	"unsafe"

	"github.com/oklog/ulid/v2"

	"github.com/portask/portask/broker/message"
)

// A message in JSON is an object with the names of jsonMessage, those that are
// zero or nil left out. As in CBOR the codec writes it by hand and reads its own
// form by hand, in any order and with any white space; what else JSON allows (a
// name twice, in capitals, null, a number with a fraction) is left to the
// library, which is also the oracle in tests.

// jsonMessage is a message in JSON. Bytes are text where they are UTF-8, and
// base64 under the other name where not, so that nothing is replaced silently.
type jsonMessage struct {
	Offset    message.Offset `json:"offset,omitempty"`
	Timestamp int64          `json:"timestamp,omitempty"`
	ID        string         `json:"id,omitempty"`
	Priority  uint8          `json:"priority,omitempty"`
	Encoding  string         `json:"encoding,omitempty"`
	Key       *string        `json:"key,omitempty"`
	KeyBytes  []byte         `json:"key_base64,omitempty"`
	Value     *string        `json:"value,omitempty"`
	ValBytes  []byte         `json:"value_base64,omitempty"`
	Headers   []jsonHeader   `json:"headers,omitempty"`
	DueTime   int64          `json:"due_time,omitempty"`
	Expiry    int64          `json:"expiry,omitempty"`
}

type jsonHeader struct {
	Name      *string `json:"name,omitempty"`
	NameBytes []byte  `json:"name_base64,omitempty"`
	Value     *string `json:"value,omitempty"`
	ValBytes  []byte  `json:"value_base64,omitempty"`
}

// TextOrBytes is how JSON shows bytes here: as a string if b is UTF-8, else as
// themselves (base64 in a []byte field); of nil neither. The bytes alias b.
func TextOrBytes(b []byte) (*string, []byte) {
	if b == nil {
		return nil, nil
	}
	if utf8.Valid(b) {
		s := string(b)
		return &s, nil
	}
	return nil, b
}

// either is the inverse of TextOrBytes.
func either(field string, text *string, raw []byte) ([]byte, error) {
	if text == nil {
		return raw, nil
	}
	if raw != nil {
		return nil, invalid(opDecodeJSON, field, "is there both as text and in base64")
	}
	return []byte(*text), nil
}

// AppendMessage writes what the library writes of a jsonMessage, byte for byte.
func (c *jsonCodec) AppendMessage(dst []byte, m *message.Message) ([]byte, error) {
	err := checkMessage(opAppendJSON, m, &c.lim)
	if err != nil {
		return dst, err
	}
	var out []byte
	if c.o.Indent == "" {
		out = c.appendMessage(dst, m)
	} else if out, err = c.generalAppend(dst, m); err != nil {
		return dst, err
	}
	if n := len(out) - len(dst); n > c.lim.Bytes {
		return dst, tooLarge(opAppendJSON, "bytes", n, c.lim.Bytes)
	}
	return out, nil
}

func (c *jsonCodec) appendMessage(dst []byte, m *message.Message) []byte {
	dst = append(dst, '{')
	at := len(dst)
	number := func(name string, v int64) {
		if v != 0 {
			dst = strconv.AppendInt(append(dst, name...), v, 10)
		}
	}
	number(`,"offset":`, int64(m.Offset))
	number(`,"timestamp":`, m.Timestamp)
	if !m.ID.IsZero() {
		dst = append(dst, `,"id":"`...)
		var text [ulid.EncodedSize]byte
		_ = m.ID.MarshalTextTo(text[:]) // never fails: it has the size
		dst = append(append(dst, text[:]...), '"')
	}
	number(`,"priority":`, int64(m.Priority))
	if m.Encoding != message.Raw {
		dst = append(append(append(dst, `,"encoding":"`...), m.Encoding.String()...), '"')
	}
	if m.Key != nil {
		dst = c.appendEither(dst, `,"key":`, `,"key_base64":`, m.Key)
	}
	if m.Value != nil {
		dst = c.appendEither(dst, `,"value":`, `,"value_base64":`, m.Value)
	}
	for i := range m.Headers {
		h := &m.Headers[i]
		if i == 0 {
			dst = append(dst, `,"headers":[`...)
		} else {
			dst = append(dst, ',')
		}
		dst = append(dst, '{')
		start := len(dst)
		dst = c.appendEither(dst, `,"name":`, `,"name_base64":`, unsafe.Slice(unsafe.StringData(h.Key), len(h.Key)))
		if h.Value != nil {
			dst = c.appendEither(dst, `,"value":`, `,"value_base64":`, h.Value)
		}
		dst = append(withoutComma(dst, start), '}')
	}
	if len(m.Headers) > 0 {
		dst = append(dst, ']')
	}
	number(`,"due_time":`, m.DueTime)
	number(`,"expiry":`, m.Expiry)
	return append(withoutComma(dst, at), '}')
}

// withoutComma removes the comma in front of the first field, at start.
func withoutComma(b []byte, start int) []byte {
	if len(b) == start {
		return b
	}
	return append(b[:start], b[start+1:]...)
}

// appendEither appends b under the first name as a string, or in base64 under
// the second if it is not UTF-8. A []byte that is empty is not left out: only
// nil is.
func (c *jsonCodec) appendEither(dst []byte, text, raw string, b []byte) []byte {
	if utf8.Valid(b) {
		return c.appendString(append(dst, text...), b)
	}
	return append(base64.StdEncoding.AppendEncode(append(append(dst, raw...), '"'), b), '"')
}

// plainJSON are the bytes that stand for themselves in a string, and need no
// closer look. 0xe2 begins U+2028 and U+2029, which JavaScript cannot have in a
// string and the library escapes.
var plainJSON = func() (t [2][256]bool) {
	for i := range 256 {
		plain := i >= ' ' && i != '"' && i != '\\' && i != 0xe2
		t[0][i] = plain
		t[1][i] = plain && i != '<' && i != '>' && i != '&'
	}
	return t
}()

// appendString appends s, which is UTF-8, in quotes.
func (c *jsonCodec) appendString(dst, s []byte) []byte {
	plain := &plainJSON[0]
	if c.o.EscapeHTML {
		plain = &plainJSON[1]
	}
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); i++ {
		b := s[i]
		if plain[b] || b == 0xe2 && !(i+2 < len(s) && s[i+1] == 0x80 && s[i+2]&^1 == 0xa8) {
			continue
		}
		dst = append(dst, s[start:i]...)
		switch b {
		case '"', '\\':
			dst = append(dst, '\\', b)
		case '\b':
			dst = append(dst, '\\', 'b')
		case '\f':
			dst = append(dst, '\\', 'f')
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		case 0xe2:
			dst = append(dst, `\u202`...)
			dst = append(dst, '8'+s[i+2]&1)
			i += 2
		default:
			const digits = "0123456789abcdef"
			dst = append(dst, '\\', 'u', '0', '0', digits[b>>4], digits[b&15])
		}
		start = i + 1
	}
	return append(append(dst, s[start:]...), '"')
}

// generalAppend is AppendMessage by the library.
func (c *jsonCodec) generalAppend(dst []byte, m *message.Message) ([]byte, error) {
	j := jsonMessage{
		Offset: m.Offset, Timestamp: m.Timestamp, Priority: m.Priority,
		DueTime: m.DueTime, Expiry: m.Expiry,
	}
	if !m.ID.IsZero() {
		j.ID = m.ID.String()
	}
	if m.Encoding != message.Raw {
		j.Encoding = m.Encoding.String()
	}
	j.Key, j.KeyBytes = TextOrBytes(m.Key)
	j.Value, j.ValBytes = TextOrBytes(m.Value)
	for i := range m.Headers {
		h := &m.Headers[i]
		var jh jsonHeader
		jh.Name, jh.NameBytes = TextOrBytes([]byte(h.Key))
		jh.Value, jh.ValBytes = TextOrBytes(h.Value)
		j.Headers = append(j.Headers, jh)
	}
	return c.AppendValue(dst, &j)
}

// generalDecode is DecodeMessage by the library.
func (c *jsonCodec) generalDecode(src []byte, m *message.Message, headers message.Headers) ([]byte, error) {
	n, err := c.Size(src)
	if err == nil && n == 0 {
		err = cutOff(opDecodeJSON, len(src))
	}
	if err == nil {
		err = checkUTF8(src[:n])
	}
	if err != nil {
		return nil, err
	}
	if i := skipSpace(src, 0); src[i] != '{' {
		return nil, invalid(opDecodeJSON, "message", "is no object")
	}
	var j jsonMessage
	d := json.NewDecoder(bytes.NewReader(src[:n]))
	d.DisallowUnknownFields()
	if err := jsonError(d.Decode(&j)); err != nil {
		return nil, err
	}
	*m = message.Message{
		Offset: j.Offset, Timestamp: j.Timestamp, Priority: j.Priority,
		Headers: headers, DueTime: j.DueTime, Expiry: j.Expiry,
	}
	if j.ID != "" {
		if m.ID, err = ulid.ParseStrict(j.ID); err != nil {
			return nil, misfit(opDecodeJSON, fmt.Errorf("id: %w", err))
		}
	}
	if j.Encoding != "" {
		if m.Encoding, err = message.ParseEncoding(j.Encoding); err != nil {
			return nil, misfit(opDecodeJSON, err)
		}
	}
	if m.Key, err = either("key", j.Key, j.KeyBytes); err != nil {
		return nil, err
	}
	if m.Value, err = either("value", j.Value, j.ValBytes); err != nil {
		return nil, err
	}
	if len(j.Headers) > c.lim.Headers {
		return nil, tooLarge(opDecodeJSON, "headers", len(j.Headers), c.lim.Headers)
	}
	for _, h := range j.Headers {
		name, err := either("headers.name", h.Name, h.NameBytes)
		if err != nil {
			return nil, err
		}
		value, err := either("headers.value", h.Value, h.ValBytes)
		if err != nil {
			return nil, err
		}
		if value == nil {
			value = []byte{} // a header's value has no null
		}
		m.Headers = append(m.Headers, message.Header{Key: string(name), Value: value})
	}
	return src[n:], checkMessage(opDecodeJSON, m, &c.lim)
}

// DecodeMessage aliases src where a string has no escapes, and copies otherwise.
func (c *jsonCodec) DecodeMessage(src []byte, m *message.Message) ([]byte, error) {
	headers := m.Headers[:0]
	if n, ok := parseJSON(src, m, headers, &c.lim); ok {
		return src[n:], nil
	}
	return c.generalDecode(src, m, headers)
}

// encodingOf is message.ParseEncoding that allocates nothing.
func encodingOf(name []byte) (e message.Encoding, ok bool) {
	for e = message.Raw; e.Valid(); e++ {
		if e.String() == string(name) {
			return e, true
		}
	}
	return 0, false
}

// parseJSON reads a message in the usual form; ok is false for every other,
// valid or not.
func parseJSON(b []byte, m *message.Message, headers message.Headers, lim *Limits) (n int, ok bool) {
	*m = message.Message{Headers: headers}
	p := jsonParser{b: b, elements: 1, lim: lim}
	var seen uint16
	once := func(bit uint16) {
		p.bad = p.bad || seen&bit != 0
		seen |= bit
	}
	p.object(func(name []byte) {
		switch string(name) {
		case "offset":
			once(1)
			m.Offset = message.Offset(p.int())
		case "timestamp":
			once(2)
			m.Timestamp = p.int()
		case "id":
			once(4)
			if text := p.string(); len(text) > 0 {
				id, err := ulid.ParseStrict(unsafe.String(unsafe.SliceData(text), len(text)))
				p.bad = p.bad || err != nil
				m.ID = id
			}
		case "priority":
			once(8)
			v := p.int()
			p.bad = p.bad || v < 0 || v > message.MaxPriority
			m.Priority = uint8(v)
		case "encoding":
			once(16)
			if m.Encoding, ok = encodingOf(p.string()); !ok {
				p.bad = true
			}
		case "key":
			once(32)
			m.Key = p.string()
		case "key_base64":
			once(32)
			m.Key = p.base64()
		case "value":
			once(64)
			m.Value = p.string()
		case "value_base64":
			once(64)
			m.Value = p.base64()
		case "headers":
			once(128)
			p.array(func() { p.header(m) })
		case "due_time":
			once(256)
			m.DueTime = p.int()
		case "expiry":
			once(512)
			m.Expiry = p.int()
		default:
			p.bad = true
		}
	})
	n = skipSpace(b, p.pos)
	if p.bad || n > lim.Bytes || p.elements > lim.Elements || !utf8.Valid(b[:n]) {
		return 0, false
	}
	return n, true
}
