package main

import (
	"cmp"
	"strconv"
	"strings"
	"time"

	"github.com/portask/portask/broker/message"
)

// typed is a header's value as the command line writes it: exactly one field
// says of what type.
type typed struct {
	kind    valueKind
	text    string // as it was written
	integer int64
	float   float64
	boolean bool
	time    time.Time
}

type valueKind uint8

const (
	isText valueKind = iota
	isInt
	isFloat
	isBool
	isTime
)

// parseTyped takes s for the first it can be: true or false, a whole number, a
// number, a time (RFC 3339), and else text.
func parseTyped(s string) typed {
	v := typed{text: s}
	var err error
	if s == "true" || s == "false" {
		v.kind, v.boolean = isBool, s == "true"
	} else if v.integer, err = strconv.ParseInt(s, 10, 64); err == nil {
		v.kind = isInt
	} else if v.float, err = strconv.ParseFloat(s, 64); err == nil {
		v.kind = isFloat
	} else if v.time, err = time.Parse(time.RFC3339Nano, s); err == nil {
		v.kind = isTime
	}
	return v
}

// set puts v into h.
func (v *typed) set(h *message.Headers, name string) error {
	switch v.kind {
	case isInt:
		h.SetInt(name, v.integer)
	case isFloat:
		h.SetFloat(name, v.float)
	case isBool:
		h.SetBool(name, v.boolean)
	case isTime:
		return h.SetTime(name, v.time)
	default:
		h.SetText(name, v.text)
	}
	return nil
}

// parseHeaders reads what --header says: name=value for text as it is,
// name:=value for a number, true, false or a time, which it must be.
func parseHeaders(pairs []string) (message.Headers, error) {
	var all message.Headers
	for _, p := range pairs {
		name, value, ok := strings.Cut(p, "=")
		plain, wantType := strings.CutSuffix(name, ":")
		if !ok || plain == "" {
			return nil, usagef("--header %q: want name=value, or name:=value for a number, true, false or a time", p)
		}
		v := typed{text: value}
		if wantType {
			if v = parseTyped(value); v.kind == isText {
				return nil, usagef("--header %q: %q is no number, true, false or time (RFC 3339)", p, value)
			}
		}
		var one message.Headers // names may repeat, and a setter replaces
		if err := v.set(&one, plain); err != nil {
			return nil, usagef("--header %q: %v", p, err)
		}
		all = append(all, one...)
	}
	return all, nil
}

const whereHelp = `  NAME, !NAME       the header is there, is not there
  NAME=X, NAME!=X   it is X, it is not (or is not there)
  NAME<X, <=, >, >= it is before or behind X
X is true or false, a number, a time (RFC 3339) or text, and a header is compared as what X is; one that is not of that
type is not equal to it, nor before or behind it.
`

// condition is one --where.
type condition struct {
	name string
	op   string // "" is there, "!" is not, or a comparison
	want typed
}

// operators in the order in which they are looked for at one place.
var operators = []string{"!=", "<=", ">=", "=", "<", ">"}

func parseCondition(s string) (condition, error) {
	if name, ok := strings.CutPrefix(s, "!"); ok && name != "" && !strings.ContainsAny(name, "!=<>") {
		return condition{name: name, op: "!"}, nil
	}
	i := strings.IndexAny(s, "!=<>")
	if i < 0 && s != "" {
		return condition{name: s}, nil
	}
	if i > 0 {
		for _, op := range operators {
			if value, ok := strings.CutPrefix(s[i:], op); ok {
				c := condition{name: s[:i], op: op, want: parseTyped(value)}
				if c.want.kind == isBool && op != "=" && op != "!=" {
					return condition{}, usagef("--where %q: true and false are in no order", s)
				}
				return c, nil
			}
		}
	}
	return condition{}, usagef("--where %q: want NAME, !NAME, NAME=X, or !=, <, <=, > or >=", s)
}

// holds reports whether m is as the condition says.
func (c *condition) holds(m *message.Message) bool {
	switch c.op {
	case "":
		return m.Headers.Has(c.name)
	case "!":
		return !m.Headers.Has(c.name)
	}
	order, ok := c.compare(m.Headers)
	switch c.op {
	case "=":
		return ok && order == 0
	case "!=":
		return !ok || order != 0
	case "<":
		return ok && order < 0
	case "<=":
		return ok && order <= 0
	case ">":
		return ok && order > 0
	}
	return ok && order >= 0
}

// compare returns where the header stands to what is wanted; ok is false if it
// is not there, not of that type, or in no order to it.
func (c *condition) compare(h message.Headers) (order int, ok bool) {
	switch c.want.kind {
	case isInt:
		if v, err := h.Int(c.name); err == nil {
			return cmp.Compare(v, c.want.integer), true
		}
		v, err := h.Float(c.name)
		return cmp.Compare(v, float64(c.want.integer)), err == nil && v == v
	case isFloat:
		v, err := h.Float(c.name)
		return cmp.Compare(v, c.want.float), err == nil && v == v && c.want.float == c.want.float
	case isBool:
		v, err := h.Bool(c.name)
		if v == c.want.boolean {
			return 0, err == nil
		}
		return 1, err == nil
	case isTime:
		v, err := h.Time(c.name)
		return v.Compare(c.want.time), err == nil
	}
	v, err := h.Bytes(c.name)
	return cmp.Compare(string(v), c.want.text), err == nil
}

// conditions must all hold.
type conditions []condition

func parseConditions(texts []string) (conditions, error) {
	var all conditions
	for _, s := range texts {
		c, err := parseCondition(s)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

func (cs conditions) hold(m *message.Message) bool {
	for i := range cs {
		if !cs[i].holds(m) {
			return false
		}
	}
	return true
}
