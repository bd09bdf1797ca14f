package scenario

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// value is a scalar of a scenario: how it is read, written and described.
type value interface {
	// set reads text, which was a scalar of kind k in a file, or kindText on a
	// command line. The error says what is wanted.
	set(text string, k kind) error
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
func (v stringValue) set(text string, k kind) error {
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
func (v oneOf) set(text string, _ kind) error {
	if !slices.Contains(v.names, text) {
		err := fmt.Errorf("%s: want one of %s", quoted(text), v.want())
		if n := nearest(text, v.names); n != "" {
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
func (v parsed) set(text string, _ kind) error {
	if err := v.check(text); err != nil {
		return err
	}
	*v.at = text
	return nil
}

type boolValue struct{ at *bool }

func (v boolValue) want() string { return "true, false" }
func (v boolValue) text() string { return strconv.FormatBool(*v.at) }
func (v boolValue) set(text string, k kind) error {
	if text != "true" && text != "false" {
		return fmt.Errorf("%s: want true or false", quoted(text))
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
func (v intValue) set(text string, _ kind) error {
	n, err := strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 10, 64)
	if err != nil || n < int64(v.min) || n > int64(v.max) {
		return fmt.Errorf("%s: want %s", quoted(text), v.want())
	}
	*v.at = int(n)
	return nil
}

type uintValue struct{ at *uint64 }

func (v uintValue) want() string { return "a whole number, from 0" }
func (v uintValue) text() string { return strconv.FormatUint(*v.at, 10) }
func (v uintValue) set(text string, _ kind) error {
	n, err := strconv.ParseUint(strings.ReplaceAll(text, "_", ""), 10, 64)
	if err != nil {
		return fmt.Errorf("%s: want %s", quoted(text), v.want())
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
func (v floatValue) set(text string, _ kind) error {
	f, err := strconv.ParseFloat(strings.ReplaceAll(text, "_", ""), 64)
	if err != nil || !(f >= v.min && f <= v.max) {
		return fmt.Errorf("%s: want %s", quoted(text), v.want())
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
	s := fmt.Sprintf("a duration, %s to %s", formatDuration(v.min), formatDuration(v.max))
	if v.auto != "" {
		s += ", or " + v.auto
	}
	return s
}
func (v durationValue) text() string {
	if v.auto != "" && *v.at < 0 {
		return v.auto
	}
	return formatDuration(*v.at)
}
func (v durationValue) set(text string, _ kind) error {
	if v.auto != "" && text == v.auto {
		*v.at = -1
		return nil
	}
	d, err := parseDuration(text)
	if err != nil || d < v.min || d > v.max {
		return fmt.Errorf("%s: want %s", quoted(text), v.want())
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
	return fmt.Sprintf("a size, %s to %s", formatSize(v.min), formatSize(v.max))
}
func (v sizeValue) text() string { return formatSize(*v.at) }
func (v sizeValue) set(text string, _ kind) error {
	n, err := ParseSize(text)
	if err != nil || n < v.min || n > v.max {
		return fmt.Errorf("%s: want %s", quoted(text), v.want())
	}
	*v.at = n
	return nil
}

// parseDuration takes what time.ParseDuration does, without signs, and days:
// 1d12h. A bare 0 is one; other numbers need a unit.
func parseDuration(s string) (time.Duration, error) {
	bad := fmt.Errorf("%s: want a duration such as 30s or 5m", quoted(s))
	if s == "" || strings.ContainsAny(s, "+-") {
		return 0, bad
	}
	var days time.Duration
	if head, rest, ok := strings.Cut(s, "d"); ok {
		n, err := strconv.ParseUint(head, 10, 16)
		if err != nil {
			return 0, bad
		}
		days = time.Duration(n) * 24 * time.Hour
		if s = rest; s == "" {
			return days, nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || d > math.MaxInt64-days {
		return 0, bad
	}
	return days + d, nil
}

// formatDuration writes d without units that are 0: 5m, 1h, 500ms.
func formatDuration(d time.Duration) string {
	s := d.String()
	if t, ok := strings.CutSuffix(s, "m0s"); ok {
		s = t + "m"
	}
	if t, ok := strings.CutSuffix(s, "h0m"); ok {
		s = t + "h"
	}
	return s
}

var sizeUnits = []struct {
	name  string
	shift int
}{{"GiB", 30}, {"MiB", 20}, {"KiB", 10}, {"B", 0}}

// ParseSize reads a number of bytes: 1024, 64KiB, 1MiB, 2GiB.
func ParseSize(s string) (int, error) {
	digits, shift := s, 0
	for _, u := range sizeUnits {
		if d, ok := strings.CutSuffix(s, u.name); ok {
			digits, shift = d, u.shift
			break
		}
	}
	n, err := strconv.ParseUint(strings.ReplaceAll(digits, "_", ""), 10, 40)
	if err != nil || n > math.MaxInt>>shift {
		return 0, fmt.Errorf("%s: want a size such as 1024 or 64KiB", quoted(s))
	}
	return int(n) << shift, nil
}

func formatSize(n int) string {
	for _, u := range sizeUnits {
		if n != 0 && n%(1<<u.shift) == 0 {
			return strconv.Itoa(n>>u.shift) + u.name
		}
	}
	return strconv.Itoa(n) + "B"
}

func quoted(s string) string {
	const most = 60
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strconv.Quote(s)
}

// nearest is the name that was probably meant, empty if none is near: the
// fewest letters changed (Levenshtein), at most a third of them or two.
func nearest(s string, names []string) string {
	best, bestAt := "", 1+max(2, len(s)/3)
	for _, n := range names {
		if d := distance(s, n); d < bestAt {
			best, bestAt = n, d
		}
	}
	return best
}

// distance is Levenshtein's, over bytes, of names cut to 64 of them.
func distance(a, b string) int {
	const most = 64
	a, b = a[:min(len(a), most)], b[:min(len(b), most)]
	var row [most + 1]int
	for j := range len(b) + 1 {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := diagonal
			if a[i] != b[j] {
				d = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], d
		}
	}
	return row[len(b)]
}
