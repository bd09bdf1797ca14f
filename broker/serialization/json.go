package serialization

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"unicode/utf8"

	"github.com/portask/portask/broker/message"
)

const (
	opAppendJSON = "encode json"
	opDecodeJSON = "decode json"
)

// jsonCodec does values by encoding/json between bounds, and whole messages by
// hand (json_message.go), with the library for other forms than AppendMessage
// writes.
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
	pos, quoted := s.pos, s.quoted
	for pos < len(b) {
		if quoted {
			for pos < len(b) && b[pos] != '"' && b[pos] != '\\' {
				pos++
			}
			if pos >= len(b) {
				break
			}
			if b[pos] == '\\' {
				pos += 2 // perhaps behind the end, where it goes on
				continue
			}
			pos++
			quoted = false
			if s.depth == 0 {
				return skipSpace(b, pos), nil
			}
			continue
		}
		c := b[pos]
		pos++
		switch jsonMarks[c] {
		case 0:
			if s.depth > 0 {
				continue
			}
			// A number or a word: up to a delimiter.
			for pos < len(b) && jsonMarks[b[pos]] == 0 && skipSpace(b[pos:pos+1], 0) == 0 {
				pos++
			}
		case '"':
			quoted = true
			continue
		case '{':
			if s.depth++; s.depth > lim.Depth {
				return 0, tooLarge(opDecodeJSON, "depth", s.depth, lim.Depth)
			}
			s.elements++ // the first, which no comma announces, if there is one
		case ',':
			if s.depth == 0 {
				return 0, corrupt(opDecodeJSON, pos-1, "%q outside of an array or object", c)
			}
			s.elements++
		case '}':
			if s.depth--; s.depth < 0 {
				return 0, corrupt(opDecodeJSON, pos-1, "%q closes nothing", c)
			}
		}
		if s.elements > lim.Elements {
			return 0, tooLarge(opDecodeJSON, "elements", s.elements, lim.Elements)
		}
		if s.depth == 0 {
			return skipSpace(b, pos), nil
		}
	}
	s.pos, s.quoted = pos, quoted
	return 0, nil
}

// jsonMarks tells the bytes that structure JSON, by one for each kind.
var jsonMarks = [256]byte{'"': '"', '{': '{', '[': '{', '}': '}', ']': '}', ',': ',', ':': ','}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}
