package message

import (
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/portask/portask/broker/fault"
)

// Header is one name and value beside a message's payload.
type Header struct {
	Key   string
	Value []byte
}

// Headers are a message's headers, in their order; names are told apart by
// their case and may repeat. They are few, so a look-up goes through them: an
// index would cost more than it saves.
//
// A value is bytes. The typed accessors below keep what is not bytes as text
// that every client, and a person, can read; FORMAT.md has the forms:
//
//	text   UTF-8 by convention, not checked
//	int    decimal
//	float  the shortest decimal that is the same number, or Inf, -Inf, NaN
//	bool   true or false
//	time   RFC 3339 with up to nanoseconds
//
// Those that read return the first header of the name. Their error is
// fault.NotFound itself, which allocates nothing, if there is none, and a
// *fault.Error Invalid that names the header if its value has another form.
//
// Those that set replace the first header of the name, remove further ones, and
// add one at the end if there is none. They write to memory of their own, never
// to the value before, which may be a view of a batch. Whether the number and
// the size of headers are within the limits is checked by [Builder.Append].
//
// Headers belong to one goroutine at a time, as the message does.
type Headers []Header

// find returns the place of the first header of the name, or -1.
func (h Headers) find(name string) int {
	for i := range h {
		if h[i].Key == name {
			return i
		}
	}
	return -1
}

// Has reports whether there is a header of the name.
func (h Headers) Has(name string) bool { return h.find(name) >= 0 }

// Bytes returns the value as it is, not copied.
func (h Headers) Bytes(name string) ([]byte, error) {
	i := h.find(name)
	if i < 0 {
		return nil, fault.NotFound
	}
	return h[i].Value, nil
}

// Text returns the value as a string, a copy.
func (h Headers) Text(name string) (string, error) {
	b, err := h.Bytes(name)
	return string(b), err
}

// Int returns a whole number.
func (h Headers) Int(name string) (int64, error) {
	b, err := h.Bytes(name)
	if err != nil {
		return 0, err
	}
	v, err := strconv.ParseInt(view(b), 10, 64)
	if err != nil {
		return 0, misread(name, b, "a whole number of 64 bits")
	}
	return v, nil
}

// Float returns a number, a whole one too.
func (h Headers) Float(name string) (float64, error) {
	b, err := h.Bytes(name)
	if err != nil {
		return 0, err
	}
	v, err := strconv.ParseFloat(view(b), 64)
	if err != nil {
		return 0, misread(name, b, "a number")
	}
	return v, nil
}

// Bool returns true or false.
func (h Headers) Bool(name string) (bool, error) {
	b, err := h.Bytes(name)
	switch {
	case err != nil:
		return false, err
	case string(b) == "true":
		return true, nil
	case string(b) == "false":
		return false, nil
	}
	return false, misread(name, b, "true or false")
}

// Time returns a point in time, in the zone it was written in.
func (h Headers) Time(name string) (time.Time, error) {
	b, err := h.Bytes(name)
	if err != nil {
		return time.Time{}, err
	}
	t, err := time.Parse(time.RFC3339Nano, string(b))
	if err != nil {
		return time.Time{}, misread(name, b, "a time as RFC 3339 has it")
	}
	return t, nil
}

// misread says that a header's value is not what was asked for.
func misread(name string, b []byte, want string) error {
	const shown = 40
	return invalid("read header", "headers."+name, "%q is not %s", b[:min(len(b), shown)], want).
		WithCategory(fault.CategoryMessage)
}

// SetBytes sets the value; v is kept, not copied.
func (h *Headers) SetBytes(name string, v []byte) {
	i := h.find(name)
	if i < 0 {
		*h = append(*h, Header{Key: name, Value: v})
		return
	}
	(*h)[i].Value = v
	rest := (*h)[i+1:]
	*h = (*h)[:i+1+len(slices.DeleteFunc(rest, func(x Header) bool { return x.Key == name }))]
}

// SetText sets a string.
func (h *Headers) SetText(name, v string) { h.SetBytes(name, []byte(v)) }

// SetInt sets a whole number.
func (h *Headers) SetInt(name string, v int64) { h.SetBytes(name, strconv.AppendInt(nil, v, 10)) }

// SetFloat sets a number.
func (h *Headers) SetFloat(name string, v float64) {
	text := strconv.AppendFloat(nil, v, 'g', -1, 64)
	if math.IsInf(v, 1) {
		text = text[1:] // the library writes its sign
	}
	h.SetBytes(name, text)
}

// SetBool sets true or false.
func (h *Headers) SetBool(name string, v bool) { h.SetBytes(name, strconv.AppendBool(nil, v)) }

// SetTime sets a point in time. The error is fault.Invalid, and nothing is set,
// for one that RFC 3339 has no form for: a year outside of 0 to 9999, or a zone
// that is no whole minutes, or a day or more, from UTC.
func (h *Headers) SetTime(name string, v time.Time) error {
	text := v.AppendFormat(nil, time.RFC3339Nano)
	_, zone := v.Zone()
	if y := v.Year(); y < 0 || y > 9999 || zone%60 != 0 || zone <= -24*3600 || zone >= 24*3600 {
		return misread(name, text, "a time as RFC 3339 has it")
	}
	h.SetBytes(name, text)
	return nil
}

// Remove removes every header of the name and returns how many there were.
func (h *Headers) Remove(name string) int {
	before := len(*h)
	*h = slices.DeleteFunc(*h, func(x Header) bool { return x.Key == name })
	return before - len(*h)
}

// HeaderContentType is the name of the header that says what a value is, as a
// media type: application/json. The encoding that the batch names is apart from
// it, and is what [Message.Encoding] says.
const HeaderContentType = "content-type"

// ContentType returns what the message says its value is, "" if it does not.
func (h Headers) ContentType() string {
	s, _ := h.Text(HeaderContentType) // "" if there is none
	return s
}

// SetContentType says what the value is.
func (h *Headers) SetContentType(mediaType string) { h.SetText(HeaderContentType, mediaType) }
