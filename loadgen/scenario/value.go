package scenario

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/portask/portask/broker/config/document"
)

// value is a scalar of a scenario: how it is read, written and described.
type value interface {
	// set reads the text of a scalar, of a file or a command line. The error says
	// what is wanted.
	set(text string) error
	// text writes it so that set reads it back.
	text() string
	// want describes what is taken, for the documentation: "a duration, 1ms to 24h".
	want() string
}

// stringValue is text of bounded length.
type stringValue struct {
	at  *string
	max int
	doc string // of what is wanted; empty: "text"
}

func (v stringValue) want() string {
	if v.doc != "" {
		return v.doc
	}
	return "text"
}
func (v stringValue) text() string { return *v.at }
func (v stringValue) set(text string) error {
	if len(text) > v.max {
		return fmt.Errorf("%d bytes long: want at most %d", len(text), v.max)
	}
	*v.at = text
	return nil
}

// oneOf is a name from a list.
type oneOf struct {
	at    *string
	names []string
}

func (v oneOf) want() string { return strings.Join(v.names, ", ") }
func (v oneOf) text() string { return *v.at }
func (v oneOf) set(text string) error {
	if !slices.Contains(v.names, text) {
		err := fmt.Errorf("%s: want one of %s", document.Quoted(text), v.want())
		if n := document.Nearest(text, v.names); n != "" {
			err = fmt.Errorf("%w; did you mean %s?", err, n)
		}
		return err
	}
	*v.at = text
	return nil
}

// parsed is text that a function understands.
type parsed struct {
	at    *string
	check func(string) error
	doc   string
}

func (v parsed) want() string { return v.doc }
func (v parsed) text() string { return *v.at }
func (v parsed) set(text string) error {
	if err := v.check(text); err != nil {
		return err
	}
	*v.at = text
	return nil
}

type boolValue struct{ at *bool }

func (v boolValue) want() string { return "true, false" }
func (v boolValue) text() string { return strconv.FormatBool(*v.at) }
func (v boolValue) set(text string) error {
	if text != "true" && text != "false" {
		return fmt.Errorf("%s: want true or false", document.Quoted(text))
	}
	*v.at = text == "true"
	return nil
}

// intValue is a whole number, min to max.
type intValue struct {
	at       *int
	min, max int
}

func (v intValue) want() string { return fmt.Sprintf("a whole number, %d to %d", v.min, v.max) }
func (v intValue) text() string { return strconv.Itoa(*v.at) }
func (v intValue) set(text string) error {
	n, err := strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 10, 64)
	if err != nil || n < int64(v.min) || n > int64(v.max) {
		return fmt.Errorf("%s: want %s", document.Quoted(text), v.want())
	}
	*v.at = int(n)
	return nil
}

type uintValue struct{ at *uint64 }

func (v uintValue) want() string { return "a whole number, from 0" }
func (v uintValue) text() string { return strconv.FormatUint(*v.at, 10) }
func (v uintValue) set(text string) error {
	n, err := strconv.ParseUint(strings.ReplaceAll(text, "_", ""), 10, 64)
	if err != nil {
		return fmt.Errorf("%s: want %s", document.Quoted(text), v.want())
	}
	*v.at = n
	return nil
}

// floatValue is a number, min to max; unit names it in the documentation.
type floatValue struct {
	at       *float64
	min, max float64
	unit     string
}

func (v floatValue) want() string {
	s := fmt.Sprintf("a number, %s to %s", formatFloat(v.min), formatFloat(v.max))
	if v.unit != "" {
		s += " " + v.unit
	}
	return s
}
func (v floatValue) text() string { return formatFloat(*v.at) }
func (v floatValue) set(text string) error {
	f, err := strconv.ParseFloat(strings.ReplaceAll(text, "_", ""), 64)
	if err != nil || !(f >= v.min && f <= v.max) {
		return fmt.Errorf("%s: want %s", document.Quoted(text), v.want())
	}
	*v.at = f
	return nil
}

func formatFloat(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

// durationValue is a time, min to max. auto, if not empty, is a word that
// stands for -1.
type durationValue struct {
	at       *time.Duration
	min, max time.Duration
	auto     string
}

func (v durationValue) want() string {
	s := fmt.Sprintf("a duration, %s to %s", document.FormatDuration(v.min), document.FormatDuration(v.max))
	if v.auto != "" {
		s += ", or " + v.auto
	}
	return s
}
func (v durationValue) text() string {
	if v.auto != "" && *v.at < 0 {
		return v.auto
	}
	return document.FormatDuration(*v.at)
}
func (v durationValue) set(text string) error {
	if v.auto != "" && text == v.auto {
		*v.at = -1
		return nil
	}
	if text == "0" {
		text = "0s"
	}
	d, err := document.ParseDuration(text)
	if err != nil || d < v.min || d > v.max {
		return fmt.Errorf("%s: want %s", document.Quoted(text), v.want())
	}
	*v.at = d
	return nil
}

// sizeValue is a number of bytes.
type sizeValue struct {
	at       *int
	min, max int
}

func (v sizeValue) want() string {
	return fmt.Sprintf("a size, %s to %s", document.FormatSize(int64(v.min)), document.FormatSize(int64(v.max)))
}
func (v sizeValue) text() string { return document.FormatSize(int64(*v.at)) }
func (v sizeValue) set(text string) error {
	n, err := document.ParseSize(text)
	if err != nil || n < int64(v.min) || n > int64(v.max) {
		return fmt.Errorf("%s: want %s", document.Quoted(text), v.want())
	}
	*v.at = int(n)
	return nil
}

// ParseSize reads a number of bytes, at most 1 TiB: 1024, 64KiB, 2GiB.
func ParseSize(s string) (int, error) {
	n, err := document.ParseSize(s)
	if err != nil || n > 1<<40 {
		return 0, fmt.Errorf("%s: want a size such as 1024 or 64KiB, at most 1TiB", document.Quoted(s))
	}
	return int(n), nil
}
