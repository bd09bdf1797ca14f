// Package figure writes numbers for people: three significant digits and a
// unit, the same in every report.
package figure

import (
	"fmt"
	"math"
	"strconv"
)

// None stands where there is no number, or none that means anything: a p99.9 of
// too few values.
const None = "n/a"

// Latency writes nanoseconds: 850 ns, 42.3 µs, 1.23 ms, 12.3 s, 3.4 min.
func Latency(ns float64) string {
	switch a := math.Abs(ns); {
	case a < 999.5:
		return significant(ns) + " ns"
	case a < 999.5e3:
		return significant(ns/1e3) + " µs"
	case a < 999.5e6:
		return significant(ns/1e6) + " ms"
	case a < 119.5e9:
		return significant(ns/1e9) + " s"
	default:
		return significant(ns/60e9) + " min"
	}
}

// Seconds writes a length of time: 0.25 s, 90 s, 12.5 min, 3.2 h.
func Seconds(s float64) string {
	switch {
	case s < 120:
		return significant(s) + " s"
	case s < 7200:
		return significant(s/60) + " min"
	default:
		return significant(s/3600) + " h"
	}
}

// Bytes writes bytes in powers of 1024: 512 B, 1.5 KiB, 32.4 MiB.
func Bytes(n float64) string { return scaled(n, 1024, " B", " KiB", " MiB", " GiB", " TiB") }

// Short writes a number in little room, for an axis: 950, 12.5k, 1.2M.
func Short(n float64) string { return scaled(n, 1000, "", "k", "M", "G", "T") }

func scaled(n, base float64, units ...string) string {
	i := 0
	for math.Abs(n) >= base*0.9995 && i < len(units)-1 {
		n /= base
		i++
	}
	return significant(n) + units[i]
}

// Rate writes messages a second as a whole number with thousands apart.
func Rate(perSecond float64) string { return Count(uint64(max(perSecond, 0) + 0.5)) }

// Count groups digits by thousands.
func Count(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Percent writes a share of 1: 0.4 %, 51 %.
func Percent(share float64) string {
	if share != 0 && math.Abs(share) < 0.0995 {
		return fmt.Sprintf("%.1f %%", 100*share)
	}
	return fmt.Sprintf("%.0f %%", 100*share)
}

// significant writes three digits, more before the point; no zeros at the end.
func significant(x float64) string {
	digits := 2
	switch a := math.Abs(x); {
	case a >= 99.95:
		digits = 0
	case a >= 9.995:
		digits = 1
	}
	s := strconv.FormatFloat(x, 'f', digits, 64)
	if digits > 0 {
		for s[len(s)-1] == '0' {
			s = s[:len(s)-1]
		}
		if s[len(s)-1] == '.' {
			s = s[:len(s)-1]
		}
	}
	if s == "-0" {
		return "0"
	}
	return s
}
