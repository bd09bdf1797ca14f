package document

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

// Regular expressions of what ParseSize and ParseDuration take, for JSON Schemas.
const (
	SizePattern     = `^[0-9]+(B|KiB|MiB|GiB|TiB)?$`
	DurationPattern = `^([0-9]+(\.[0-9]+)?(d|h|m|s|ms|us|µs|ns))+$`
)

// sizeUnits from the largest; each is 1024 times the next.
var sizeUnits = []struct {
	name  string
	shift int
}{{"TiB", 40}, {"GiB", 30}, {"MiB", 20}, {"KiB", 10}, {"B", 0}}

// ParseSize reads a number of bytes: digits with B, KiB, MiB, GiB or TiB, or
// digits alone. It refuses what does not fit an int64.
func ParseSize(s string) (int64, error) {
	shift := 0
	digits := s
	for _, u := range sizeUnits {
		if d, ok := strings.CutSuffix(s, u.name); ok {
			digits, shift = d, u.shift
			break
		}
	}
	n, err := ParseCount(digits)
	if err != nil || strings.ContainsAny(digits, "+-_") {
		return 0, errors.New("want a size such as 64MiB")
	}
	if n > math.MaxInt64>>shift {
		return math.MaxInt64, nil // beyond every limit, which then says so
	}
	return n << shift, nil
}

// FormatSize writes n in the largest unit that divides it; ParseSize reads it
// back.
func FormatSize(n int64) string {
	for _, u := range sizeUnits {
		if n != 0 && n%(1<<u.shift) == 0 {
			return strconv.FormatInt(n>>u.shift, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10) + "B"
}

const day = 24 * time.Hour

// ParseDuration is time.ParseDuration without signs, with a leading number of
// days: 7d, 1d12h. Every number needs its unit.
func ParseDuration(s string) (time.Duration, error) {
	bad := errors.New("want a duration such as 30s, 5m or 7d")
	if s == "" || strings.ContainsAny(s, "+-") {
		return 0, bad
	}
	var days time.Duration
	if head, rest, ok := strings.Cut(s, "d"); ok {
		n, err := ParseCount(head)
		if err != nil || strings.Contains(head, "_") || n > int64(math.MaxInt64/day) {
			return 0, bad
		}
		days = time.Duration(n) * day
		if s = rest; s == "" {
			return days, nil
		}
	}
	if last := s[len(s)-1]; last >= '0' && last <= '9' {
		return 0, bad // time.ParseDuration takes a bare 0
	}
	d, err := time.ParseDuration(s)
	if err != nil || d > math.MaxInt64-days {
		return 0, bad
	}
	return days + d, nil
}

// FormatDuration writes d with the fewest units: 7d, 90s as 1m30s, 5m, 500ms.
// ParseDuration reads it back.
func FormatDuration(d time.Duration) string {
	if d >= day {
		s := strconv.FormatInt(int64(d/day), 10) + "d"
		if d %= day; d == 0 {
			return s
		}
		return s + FormatDuration(d)
	}
	s := d.String()
	if t, ok := strings.CutSuffix(s, "m0s"); ok {
		s = t + "m"
	}
	if t, ok := strings.CutSuffix(s, "h0m"); ok {
		s = t + "h"
	}
	return s
}

// ParseCount reads a whole decimal number, as all three formats write it:
// digits that may be grouped by single underscores, no leading zero.
func ParseCount(s string) (int64, error) {
	digits := strings.TrimLeft(s, "+-")
	if len(s)-len(digits) > 1 || digits == "" || len(digits) > 1 && digits[0] == '0' {
		return 0, strconv.ErrSyntax
	}
	for i := range len(digits) {
		if c := digits[i]; (c < '0' || c > '9') && (c != '_' || i == 0 || i == len(digits)-1 || digits[i-1] == '_') {
			return 0, strconv.ErrSyntax
		}
	}
	n, err := strconv.ParseInt(strings.ReplaceAll(s, "_", ""), 10, 64)
	if err != nil && errors.Is(err, strconv.ErrRange) && s[0] != '-' {
		return math.MaxInt64, nil // beyond every limit, which then says so
	}
	return n, err
}
