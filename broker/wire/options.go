package wire

import "github.com/portask/portask/broker/fault"

// Options is the inside of an option section, already checked: entries back to
// back, without the section's own length. It is a view of the frame.
//
//	0        2        4      6
//	┌────────┬────────┬──────┬───────────┬────────┬──────┬─────
//	│ total  │ id     │ len  │ len bytes │ id     │ len  │ ...
//	└────────┴────────┴──────┴───────────┴────────┴──────┴─────
//
// total counts the bytes after itself. A receiver skips an unknown even id and
// refuses an unknown odd one; an id it knows occurs at most once.
type Options []byte

const (
	optionsEmptyBytes = 2 // of a section without options
	optionHeadBytes   = 4
)

// Next returns the first entry and what follows it. It must not be called on
// empty options.
func (o Options) Next() (id uint16, value []byte, rest Options) {
	n := int(le.Uint16(o[2:]))
	return le.Uint16(o), o[optionHeadBytes : optionHeadBytes+n : optionHeadBytes+n], o[optionHeadBytes+n:]
}

// Lookup returns the value of the first entry with the id.
func (o Options) Lookup(id uint16) (value []byte, ok bool) {
	for len(o) > 0 {
		var i uint16
		if i, value, o = o.Next(); i == id {
			return value, true
		}
	}
	return nil, false
}

// AppendOption appends one entry, to build the inside of a section. The value is
// at most 64 KiB - 5 bytes long, so that it fits a section.
func AppendOption(dst []byte, id uint16, value []byte) []byte {
	dst = le.AppendUint16(dst, id)
	dst = le.AppendUint16(dst, uint16(len(value)))
	return append(dst, value...)
}

// appendOptions appends a whole section.
func appendOptions(dst []byte, o Options) []byte {
	dst = le.AppendUint16(dst, uint16(len(o)))
	return append(dst, o...)
}

// options reads an option section and checks its entries. known has bit i set if
// the payload gives the id i, below 64, a meaning.
func (c *cursor) options(known uint64) Options {
	o := Options(c.take("options", int(c.u16("options"))))
	seen := uint64(0)
	for rest := []byte(o); len(rest) > 0; {
		if len(rest) < optionHeadBytes || len(rest)-optionHeadBytes < int(le.Uint16(rest[2:])) {
			c.fail(violation(c.name, "options", "an option ends beyond the section"))
			return nil
		}
		id := le.Uint16(rest)
		bit := uint64(1) << id // 0 from 64 on
		switch {
		case known&bit != 0:
			if seen&bit != 0 {
				c.fail(violation(c.name, "options", "option %d occurs twice", id))
				return nil
			}
			seen |= bit
		case id%2 == 1:
			c.fail(fault.New(fault.NotSupported, "parse "+c.name).WithField("options").
				WithDetail("option %d is unknown and may not be ignored", id))
			return nil
		}
		rest = rest[optionHeadBytes+int(le.Uint16(rest[2:])):]
	}
	return o
}
