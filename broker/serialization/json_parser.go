package serialization

import (
	"bytes"
	"encoding/base64"
	"strconv"
	"unicode/utf8"
	"unsafe"

	"github.com/portask/portask/broker/message"
)

// jsonParser reads JSON. bad is sticky: what is read after it means nothing. It
// counts elements as jsonScan does.
type jsonParser struct {
	b        []byte
	pos      int
	elements int
	lim      *Limits
	bad      bool
}

// token takes c, with white space before it, if it comes next.
func (p *jsonParser) token(c byte) bool {
	p.pos = skipSpace(p.b, p.pos)
	if p.bad || p.pos == len(p.b) || p.b[p.pos] != c {
		return false
	}
	p.pos++
	return true
}

// expect is token that has to come.
func (p *jsonParser) expect(c byte) {
	if !p.token(c) {
		p.bad = true
	}
}

// object calls field for each name, to read its value.
func (p *jsonParser) object(field func(name []byte)) {
	p.expect('{')
	p.elements++
	if p.token('}') {
		return
	}
	for {
		name := p.string()
		p.expect(':')
		p.elements += 2 // with the comma, or the bracket's
		field(name)
		if p.bad {
			return
		}
		if !p.token(',') {
			p.elements--
			p.expect('}')
			return
		}
	}
}

// array calls item for each item, to read it.
func (p *jsonParser) array(item func()) {
	p.expect('[')
	p.elements++
	if p.token(']') {
		return
	}
	for {
		item()
		if p.bad {
			return
		}
		if !p.token(',') {
			p.expect(']')
			return
		}
		p.elements++
	}
}

// header reads a header of m.
func (p *jsonParser) header(m *message.Message) {
	if len(m.Headers) == p.lim.Headers {
		p.bad = true
		return
	}
	var name []byte
	value := []byte{} // a header's value has no null
	var seen uint8
	p.object(func(field []byte) {
		bit := uint8(1)
		switch string(field) {
		case "name":
			name = p.string()
		case "name_base64":
			name = p.base64()
		case "value":
			bit, value = 2, p.string()
		case "value_base64":
			bit, value = 2, p.base64()
		default:
			p.bad = true
		}
		p.bad = p.bad || seen&bit != 0
		seen |= bit
	})
	m.Headers = append(m.Headers, message.Header{Key: unsafe.String(unsafe.SliceData(name), len(name)), Value: value})
}

// int reads a whole number of 64 bits.
func (p *jsonParser) int() int64 {
	p.pos = skipSpace(p.b, p.pos)
	start := p.pos
	if p.pos < len(p.b) && p.b[p.pos] == '-' {
		p.pos++
	}
	first := p.pos
	for p.pos < len(p.b) && p.b[p.pos]-'0' <= 9 {
		p.pos++
	}
	digits := p.b[first:p.pos]
	if len(digits) == 0 || digits[0] == '0' && p.pos-start > 1 {
		p.bad = true
		return 0
	}
	text := p.b[start:p.pos]
	v, err := strconv.ParseInt(unsafe.String(unsafe.SliceData(text), len(text)), 10, 64)
	p.bad = p.bad || err != nil
	return v
}

// string reads a string: a view of it if it has no escapes. It is never nil
// unless bad.
func (p *jsonParser) string() []byte {
	p.expect('"')
	if p.bad {
		return nil
	}
	start := p.pos
	for i, c := range p.b[start:] {
		switch {
		case c == '"':
			p.pos = start + i + 1
			return p.b[start : start+i : start+i]
		case c == '\\':
			return p.unescape(start, i)
		case c < ' ':
			p.bad = true
			return nil
		}
	}
	p.bad = true
	return nil
}

// unescape reads a string that begins at start and has its first escape n bytes
// behind.
func (p *jsonParser) unescape(start, n int) []byte {
	end := start + n
	for ; ; end++ { // memory for it: no escape is shorter than what it stands for
		if end >= len(p.b) {
			p.bad = true
			return nil
		}
		if p.b[end] == '"' {
			break
		}
		if p.b[end] == '\\' {
			end++
		}
	}
	s := p.b[start:end]
	out := make([]byte, 0, len(s))
	for {
		i := bytes.IndexByte(s, '\\')
		part := s
		if i >= 0 {
			part = s[:i]
		}
		for _, c := range part {
			p.bad = p.bad || c < ' '
		}
		out = append(out, part...)
		if i < 0 || p.bad {
			break
		}
		s = s[i+1:] // not empty: the closing quote would be escaped
		c := s[0]
		s = s[1:]
		switch c {
		case '"', '\\', '/':
			out = append(out, c)
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			v, ok := hex4(s)
			if !ok || v&^0x7ff == 0xd800 { // half of a pair: the library knows
				p.bad = true
				return nil
			}
			out = utf8.AppendRune(out, v)
			s = s[4:]
		default:
			p.bad = true
			return nil
		}
	}
	p.pos = end + 1
	return out
}

// hex4 reads four hexadecimal digits.
func hex4(s []byte) (v rune, ok bool) {
	if len(s) < 4 {
		return 0, false
	}
	for _, c := range s[:4] {
		switch {
		case c-'0' <= 9:
			c -= '0'
		case c|0x20-'a' <= 5:
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		v = v<<4 | rune(c)
	}
	return v, true
}

// base64 reads a string of bytes in base64.
func (p *jsonParser) base64() []byte {
	text := p.string()
	if p.bad {
		return nil
	}
	out := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Decode(out, text)
	p.bad = p.bad || err != nil
	return out[:n]
}
