package fault

import (
	"fmt"
	"strconv"
	"strings"
)

// Detail is one more thing to know of a failure, for programs by its key and for
// people by its place in the text.
type Detail struct {
	Key   string // stable, lower case with underscores
	Value string
}

// With adds a detail. value is formatted at once, so that nothing is kept alive
// or changed later.
func (e *Error) With(key string, value any) *Error {
	var s string
	switch v := value.(type) {
	case string:
		s = v
	case int:
		s = strconv.Itoa(v)
	default:
		s = fmt.Sprint(v)
	}
	e.Details = append(e.Details, Detail{key, s})
	return e
}

// text is the value, quoted where it would not stand for itself.
func (d Detail) text() string {
	if d.Value == "" || strings.ContainsAny(d.Value, " =\"[]\\") || !printable(d.Value) {
		return strconv.Quote(d.Value)
	}
	return d.Value
}

func printable(s string) bool {
	for _, r := range s {
		if !strconv.IsPrint(r) {
			return false
		}
	}
	return true
}

// DetailOf returns the first detail of that key in err's tree, the outermost
// first; of joined errors the first that has one.
func DetailOf(err error, key string) (value string, ok bool) {
	for err != nil {
		if e, is := err.(*Error); is && e != nil {
			for _, d := range e.Details {
				if d.Key == key {
					return d.Value, true
				}
			}
		}
		switch x := err.(type) {
		case interface{ Unwrap() error }:
			err = x.Unwrap()
		case interface{ Unwrap() []error }:
			for _, each := range x.Unwrap() {
				if value, ok = DetailOf(each, key); ok {
					return value, true
				}
			}
			return "", false
		default:
			return "", false
		}
	}
	return "", false
}
