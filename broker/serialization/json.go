package serialization

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/oklog/ulid/v2"

	"github.com/portask/portask/broker/message"
)

const (
	opAppendJSON = "encode json"
	opDecodeJSON = "decode json"
)

// jsonCodec is encoding/json between bounds.
type jsonCodec struct {
	o   JSONOptions
	lim Limits
}

func newJSON(o JSONOptions, lim Limits) *jsonCodec { return &jsonCodec{o, lim} }

func (*jsonCodec) Encoding() message.Encoding { return message.JSON }

func (c *jsonCodec) AppendValue(dst []byte, v any) ([]byte, error) {
	out, err := appendWith(dst, func(b *bytes.Buffer) error {
		enc := json.NewEncoder(b)
		enc.SetEscapeHTML(c.o.EscapeHTML)
		enc.SetIndent("", c.o.Indent)
		return enc.Encode(v)
	})
	if err != nil {
		return dst, misfit(opAppendJSON, err)
	}
	return out[:len(out)-1], nil // Encode ends with a newline
}

// check bounds src, which is to be one value, before the library sees it.
func (c *jsonCodec) check(src []byte) error {
	n, err := c.Size(src)
	switch {
	case err != nil:
		return err
	case n == 0:
		return cutOff(opDecodeJSON, len(src))
	case n < len(src):
		if err := jsonError(json.Unmarshal(src[:n], new(json.RawMessage))); err != nil {
			return err // the end found is that of no value
		}
		return follows(opDecodeJSON, n, len(src))
	}
	return checkUTF8(src)
}

// checkUTF8 refuses what the library would replace silently.
func checkUTF8(b []byte) error {
	if utf8.Valid(b) {
		return nil
	}
	i := 0
	for {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n <= 1 {
			return corrupt(opDecodeJSON, i, "is no UTF-8")
		}
		i += n
	}
}

func (c *jsonCodec) DecodeValue(src []byte, v any) error {
	if err := c.check(src); err != nil {
		return err
	}
	p, ok := v.(*any)
	if !ok {
		return jsonError(json.Unmarshal(src, v))
	}
	var x any
	d := json.NewDecoder(bytes.NewReader(src))
	d.UseNumber() // a float holds no integer beyond 53 bits
	if err := jsonError(d.Decode(&x)); err != nil {
		return err
	}
	x, err := normal(opDecodeJSON, x)
	if err == nil {
		*p = x
	}
	return err
}

// layout appends src, a value in JSON, in the layout of the options: nothing else
// of it changes, not even the digits of a number. The compact form without
// escapes, which every reader takes, is whatever src has.
func (c *jsonCodec) layout(dst, src []byte) ([]byte, error) {
	if c.o.Indent == "" && !c.o.EscapeHTML {
		return append(dst, src...), nil
	}
	err := c.check(src)
	if err == nil {
		err = jsonError(json.Unmarshal(src, new(json.RawMessage)))
	}
	if err != nil {
		return dst, err
	}
	out, err := appendWith(dst, func(b *bytes.Buffer) error {
		if c.o.Indent == "" {
			json.HTMLEscape(b, src)
			return nil
		}
		if c.o.EscapeHTML {
			var escaped bytes.Buffer
			json.HTMLEscape(&escaped, src)
			src = escaped.Bytes()
		}
		return json.Indent(b, src, "", c.o.Indent)
	})
	if err != nil {
		return dst, jsonError(err)
	}
	return out, nil
}

// jsonError sorts the library's errors: bad syntax, or a value that does not
// fit.
func jsonError(err error) error {
	var syntax *json.SyntaxError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &syntax):
		return corrupt(opDecodeJSON, int(syntax.Offset), "%v", err)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return corrupt(opDecodeJSON, 0, "%v", err)
	}
	return misfit(opDecodeJSON, err)
}

// Size finds the end of the first value by its brackets and quotes; whether it
// is JSON is left to the library.
func (c *jsonCodec) Size(src []byte) (int, error) { return new(jsonScan).size(src, &c.lim) }

// jsonScan looks for the end of a value. It can go on where it stopped when
// more of the same bytes are there. The zero value is at the beginning.
type jsonScan struct {
	pos      int
	depth    int
	elements int
	quoted   bool // pos is in a string
}

// size returns the end of the first value of b and of the white space behind
// it, and starts anew; 0 if b ends before.
func (s *jsonScan) size(b []byte, lim *Limits) (int, error) {
	n, err := s.value(b, lim)
	switch {
	case err != nil:
	case n == 0 && len(b) >= lim.Bytes:
		err = tooLarge(opDecodeJSON, "bytes", len(b)+1, lim.Bytes)
	case n > lim.Bytes:
		err = tooLarge(opDecodeJSON, "bytes", n, lim.Bytes)
	}
	if err != nil {
		n = 0
	}
	if n != 0 || err != nil {
		*s = jsonScan{}
	}
	return n, err
}

func (s *jsonScan) value(b []byte, lim *Limits) (int, error) {
	if s.elements == 0 {
		if s.pos = skipSpace(b, s.pos); s.pos == len(b) {
			return 0, nil
		}
		s.elements = 1
	}
	for s.pos < len(b) {
		c := b[s.pos]
		s.pos++
		switch {
		case s.quoted:
			switch c {
			case '"':
				s.quoted = false
			case '\\':
				s.pos++
				continue
			default:
				continue
			}
		case c == '"':
			s.quoted = true
			continue
		case c == '{' || c == '[':
			if s.depth++; s.depth > lim.Depth {
				return 0, tooLarge(opDecodeJSON, "depth", s.depth, lim.Depth)
			}
			s.elements++ // the first, which no comma announces, if there is one
		case c == ',' || c == ':':
			if s.depth == 0 {
				return 0, corrupt(opDecodeJSON, s.pos-1, "%q outside of an array or object", c)
			}
			s.elements++
		case c == '}' || c == ']':
			if s.depth--; s.depth < 0 {
				return 0, corrupt(opDecodeJSON, s.pos-1, "%q closes nothing", c)
			}
		case s.depth == 0: // a number or a word: up to a delimiter
			for s.pos < len(b) && !bytes.ContainsRune([]byte(" \t\r\n,:{}[]\""), rune(b[s.pos])) {
				s.pos++
			}
		}
		if s.elements > lim.Elements {
			return 0, tooLarge(opDecodeJSON, "elements", s.elements, lim.Elements)
		}
		if s.depth == 0 {
			return skipSpace(b, s.pos), nil
		}
	}
	return 0, nil
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

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

func (c *jsonCodec) AppendMessage(dst []byte, m *message.Message) ([]byte, error) {
	if err := checkMessage(opAppendJSON, m, &c.lim); err != nil {
		return dst, err
	}
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
	out, err := c.AppendValue(dst, &j)
	if n := len(out) - len(dst); err == nil && n > c.lim.Bytes {
		return dst, tooLarge(opAppendJSON, "bytes", n, c.lim.Bytes)
	}
	return out, err
}

func (c *jsonCodec) DecodeMessage(src []byte, m *message.Message) ([]byte, error) {
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
		Headers: m.Headers[:0], DueTime: j.DueTime, Expiry: j.Expiry,
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
