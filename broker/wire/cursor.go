package wire

import (
	"encoding/binary"
	"math"
	"unicode/utf8"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

var le = binary.LittleEndian

func violation(payload, field, format string, args ...any) *fault.Error {
	return fault.New(fault.ProtocolViolation, "parse "+payload).WithField(field).WithDetail(format, args...)
}

// cursor walks through a payload. The first failure is kept in err and makes
// every later read return zero, so that a parser is a list of fields.
type cursor struct {
	name string // of the payload, for errors
	b    []byte // what is left
	err  error
}

func (c *cursor) fail(err error) {
	if c.err == nil {
		c.err = err
	}
	c.b = nil
}

// take returns the next n bytes, nil if there are fewer.
func (c *cursor) take(field string, n int) []byte {
	if c.err != nil {
		return nil
	}
	if n > len(c.b) {
		c.fail(violation(c.name, field, "the payload ends too early").WithLimit(int64(len(c.b)), int64(n)))
		return nil
	}
	b := c.b[:n:n]
	c.b = c.b[n:]
	return b
}

func (c *cursor) u8(field string) uint8 {
	if b := c.take(field, 1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) u16(field string) uint16 {
	if b := c.take(field, 2); b != nil {
		return le.Uint16(b)
	}
	return 0
}

func (c *cursor) u32(field string) uint32 {
	if b := c.take(field, 4); b != nil {
		return le.Uint32(b)
	}
	return 0
}

func (c *cursor) u64(field string) uint64 {
	if b := c.take(field, 8); b != nil {
		return le.Uint64(b)
	}
	return 0
}

func (c *cursor) i64(field string) int64 { return int64(c.u64(field)) }

// offset reads an offset that must exist; NoOffset is refused.
func (c *cursor) offset(field string) message.Offset {
	o := message.Offset(c.i64(field))
	if o < 0 {
		c.fail(violation(c.name, field, "a negative offset").WithLimit(int64(o), 0))
		return 0
	}
	return o
}

// maybeOffset reads an offset or NoOffset.
func (c *cursor) maybeOffset(field string) message.Offset {
	o := message.Offset(c.i64(field))
	if o < message.NoOffset {
		c.fail(violation(c.name, field, "a negative offset").WithLimit(int64(o), int64(message.NoOffset)))
		return 0
	}
	return o
}

func (c *cursor) bool(field string) bool {
	v := c.u8(field)
	if v > 1 {
		c.fail(violation(c.name, field, "not 0 or 1").WithLimit(int64(v), 1))
	}
	return v == 1
}

func (c *cursor) id(field string) (id [16]byte) {
	copy(id[:], c.take(field, len(id)))
	return id
}

func (c *cursor) level(field string) message.AckLevel {
	v := message.AckLevel(c.u8(field))
	if c.err == nil && !v.Valid() {
		c.fail(c.invalid(field, "not a level").WithLimit(int64(v), int64(message.AckDurable)))
	}
	return v
}

// credit reads an amount of credit.
func (c *cursor) credit(field string) uint64 {
	v := c.u64(field)
	if v > MaxCreditBytes {
		c.fail(c.tooLarge(field, "more credit than a peer may grant", int64(min(v, math.MaxInt64)), MaxCreditBytes))
		return 0
	}
	return v
}

// str reads a string of at most max bytes.
func (c *cursor) str(field string, max int) string {
	n := int(c.u16(field))
	if n > max {
		c.fail(c.tooLarge(field, "the string is too long", int64(n), int64(max)))
		return ""
	}
	b := c.take(field, n)
	if !utf8.Valid(b) {
		c.fail(violation(c.name, field, "not UTF-8"))
		return ""
	}
	return string(b)
}

// count checks a count that was read: at most max, and at most as many as fit
// into what is left at least bytes each. It returns 0 after a failure, so
// memory for the entries may be taken without another check.
func (c *cursor) count(field string, n uint32, max, least int) int {
	switch {
	case c.err != nil:
		return 0
	case int64(n) > int64(max):
		c.fail(violation(c.name, field, "too many").WithLimit(int64(n), int64(max)))
		return 0
	case int(n) > len(c.b)/least: // n is at most max by now
		c.fail(violation(c.name, field, "more entries than the payload has room for").WithLimit(int64(n), int64(len(c.b)/least)))
		return 0
	}
	return int(n)
}

// end checks that nothing is left.
func (c *cursor) end() error {
	if c.err == nil && len(c.b) != 0 {
		c.fail(violation(c.name, "payload", "bytes after its end").WithLimit(int64(len(c.b)), 0))
	}
	return c.err
}

// finish reads the option section that ends most payloads, none of whose
// options this version knows, and checks that nothing is left.
func (c *cursor) finish() error {
	c.options(0)
	return c.end()
}

func (c *cursor) invalid(field, format string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, "parse "+c.name).WithField(field).WithDetail(format, args...)
}

func (c *cursor) tooLarge(field, detail string, value, limit int64) *fault.Error {
	return fault.New(fault.TooLarge, "parse "+c.name).WithField(field).WithDetail("%s", detail).WithLimit(value, limit)
}

// topic reads the name of one topic and checks it.
func (c *cursor) topic() string {
	name := c.str("topic", MaxTopicBytes)
	if c.err == nil {
		if err := message.CheckTopicName("parse "+c.name, name); err != nil {
			c.fail(err)
		}
	}
	return name
}

// appendString writes length and bytes. A string beyond the field's limit is
// written all the same, for the receiver to refuse by name; beyond 64 KiB its
// end is cut off, which no limit reaches.
func appendString(dst []byte, s string) []byte {
	s = s[:min(len(s), math.MaxUint16)]
	dst = le.AppendUint16(dst, uint16(len(s)))
	return append(dst, s...)
}

// appendText writes a string meant for people, cut to max bytes at a character's
// border.
func appendText(dst []byte, s string, max int) []byte { return appendString(dst, clip(s, max)) }

func clip(s string, max int) string {
	if len(s) > max {
		s = s[:max]
		for len(s) > 0 && len(s) > max-utf8.UTFMax {
			if r, n := utf8.DecodeLastRuneInString(s); r != utf8.RuneError || n != 1 {
				break
			}
			s = s[:len(s)-1]
		}
	}
	if utf8.ValidString(s) {
		return s
	}
	out := make([]byte, 0, len(s))
	for _, r := range s { // an invalid byte becomes "?", so the length stays within max
		if r == utf8.RuneError {
			r = '?'
		}
		out = utf8.AppendRune(out, r)
	}
	return string(out)
}

func appendBool(dst []byte, v bool) []byte {
	if v {
		return append(dst, 1)
	}
	return append(dst, 0)
}

func appendOffset(dst []byte, o message.Offset) []byte { return le.AppendUint64(dst, uint64(o)) }
