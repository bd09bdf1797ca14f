package top

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/charmbracelet/x/ansi"

	"github.com/portask/portask/broker/monitor"
)

// Bounds of what is kept of a Report. They are above what a broker sends, see
// monitor.ReportTopics.
const (
	textMax = 300 // bytes of a text; topic names have at most 249
	listMax = 4096
	// uptimeMax keeps sums of durations within their type.
	uptimeMax = 100 * 365 * 24 * time.Hour
)

// Clean makes r safe to be shown: texts are cut to a bound and have no character
// that moves the cursor or hides others, lists and the uptime are cut to a bound.
func Clean(r *monitor.Report) {
	for _, s := range []*string{&r.Version, &r.Go, &r.Node, &r.Cluster, &r.Engine, &r.Address} {
		*s = Printable(*s)
	}
	r.Uptime, r.Sampled = min(max(r.Uptime, 0), uptimeMax), min(max(r.Sampled, 0), uptimeMax)
	cut(&r.Components)
	for i := range r.Components {
		c := &r.Components[i]
		c.Name, c.Reason, c.Code = Printable(c.Name), Printable(c.Reason), Printable(c.Code)
	}
	cut(&r.Loops)
	cut(&r.Latencies)
	for i := range r.Latencies {
		r.Latencies[i].Name = Printable(r.Latencies[i].Name)
	}
	cut(&r.Pools)
	for i := range r.Pools {
		r.Pools[i].Name = Printable(r.Pools[i].Name)
	}
	cut(&r.Queues)
	for i := range r.Queues {
		r.Queues[i].Name = Printable(r.Queues[i].Name)
	}
	cut(&r.Topics)
	for i := range r.Topics {
		t := &r.Topics[i]
		t.Name, t.Visibility = Printable(t.Name), Printable(t.Visibility)
		cut(&t.Partitions)
	}
	if d := r.System.Disk; d != nil {
		d.Path, d.Device = Printable(d.Path), Printable(d.Device)
	}
}

func cut[T any](list *[]T) {
	if len(*list) > listMax {
		*list = (*list)[:listMax]
	}
}

// Printable is s with a question mark for every character that is not a plain
// visible one: controls, escapes, marks that combine, changes of direction,
// broken UTF-8. A long text is cut.
func Printable(s string) string {
	plain := len(s) <= textMax
	for i := 0; i < len(s) && plain; i++ {
		plain = s[i] >= ' ' && s[i] < 0x7f
	}
	if plain {
		return s
	}
	var b strings.Builder
	for _, c := range s {
		if b.Len() >= textMax {
			b.WriteString("...")
			break
		}
		if c == ' ' || c != unicode.ReplacementChar && unicode.In(c, unicode.L, unicode.N, unicode.P, unicode.S) {
			b.WriteRune(c)
		} else {
			b.WriteByte('?')
		}
	}
	return b.String()
}

// width is how many columns s takes.
func width(s string) int {
	for i := 0; i < len(s); i++ {
		if s[i] >= 0x7f {
			return ansi.StringWidth(s)
		}
	}
	return len(s)
}

// fit cuts s to n columns, with the mark where something was cut off.
func fit(s string, n int, mark string) string {
	switch {
	case n <= 0:
		return ""
	case width(s) <= n:
		return s
	}
	return ansi.Truncate(s, n, mark)
}

// left and right fill s up to n columns; what is longer stays.
func left(s string, n int) string  { return s + spaces(n-width(s)) }
func right(s string, n int) string { return spaces(n-width(s)) + s }

func spaces(n int) string { return strings.Repeat(" ", max(0, n)) }

// number writes a rate in at most 6 characters, from 0 to 999 G.
func number(f float64) string {
	switch {
	case math.IsNaN(f) || f < 0:
		return "?"
	case f == 0:
		return "0"
	case f < 9.95:
		return strconv.FormatFloat(f, 'f', 1, 64)
	case f < 9999.5:
		return strconv.FormatFloat(f, 'f', 0, 64)
	}
	for _, unit := range []string{"k", "M", "G", "T", "P"} {
		if f /= 1000; f < 999.95 {
			return strconv.FormatFloat(f, 'f', 1, 64) + unit
		}
	}
	return ">999P"
}

// whole writes a count in at most 6 characters, exactly up to 9999.
func whole(n int64) string {
	if n >= 0 && n < 10_000 {
		return strconv.FormatInt(n, 10)
	}
	return number(float64(n))
}

// size writes bytes in at most 8 characters.
func size(n int64) string { return sizeOf(float64(n)) }

func sizeOf(f float64) string {
	if math.IsNaN(f) || f < 0 {
		return "?"
	}
	if f < 1024 {
		return strconv.FormatFloat(f, 'f', 0, 64) + " B"
	}
	units := []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	for i, unit := range units {
		f /= 1024
		switch {
		case f < 99.95:
			return strconv.FormatFloat(f, 'f', 1, 64) + " " + unit
		case f < 999.5 || i == len(units)-1:
			return strconv.FormatFloat(f, 'f', 0, 64) + " " + unit
		}
	}
	return "?"
}

// pair writes a part and a whole with one unit: "12.0/64.0 MiB".
func pair(part, whole int64) string {
	a, b := size(part), size(whole)
	if x, unit, ok := strings.Cut(a, " "); ok && strings.HasSuffix(b, " "+unit) {
		a = x
	}
	return a + "/" + b
}

// latency writes a duration with three digits: 87us, 1.23ms, 45.6ms, 1.23s.
func latency(d time.Duration) string {
	switch {
	case d < 0:
		return "?"
	case d < time.Microsecond:
		return strconv.FormatInt(int64(d), 10) + "ns"
	case d < 999500:
		return digits(float64(d)/1e3) + "us"
	case d < 999500*1000:
		return digits(float64(d)/1e6) + "ms"
	case d < 1000*time.Second:
		return digits(float64(d)/1e9) + "s"
	}
	return span(d)
}

func digits(f float64) string {
	switch {
	case f < 9.995:
		return strconv.FormatFloat(f, 'f', 2, 64)
	case f < 99.95:
		return strconv.FormatFloat(f, 'f', 1, 64)
	}
	return strconv.FormatFloat(f, 'f', 0, 64)
}

// span writes how long something has lasted, in its two largest units.
func span(d time.Duration) string {
	s := max(0, int64(d/time.Second))
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	case s < 86400:
		return fmt.Sprintf("%dh%02dm", s/3600, s%3600/60)
	}
	return fmt.Sprintf("%dd%02dh", s/86400, s%86400/3600)
}

func percent(share float64) string {
	switch {
	case math.IsNaN(share) || share < 0:
		return "?"
	case share > 0 && share < 0.0995:
		return strconv.FormatFloat(100*share, 'f', 1, 64) + "%"
	}
	return strconv.FormatFloat(100*share, 'f', 0, 64) + "%"
}

// share is part of whole, 0 where there is no whole.
func share(part, whole int64) float64 {
	if whole <= 0 {
		return 0
	}
	return max(0, float64(part)/float64(whole))
}

// count writes a number with its noun: "1 partition", "2 partitions".
func count(n int, noun string) string {
	if n != 1 {
		if strings.HasSuffix(noun, "s") {
			noun += "e"
		}
		noun += "s"
	}
	return strconv.Itoa(n) + " " + noun
}
