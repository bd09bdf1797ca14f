// Package live shows a run while it goes on: on a terminal a table that is drawn
// over itself, with the last minute as sparklines; elsewhere a line a second.
package live

import (
	"fmt"
	"io"
	"math"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/report"
	"github.com/portask/portask/loadgen/report/figure"
)

// Options of a Display.
type Options struct {
	// Title says what runs, on one line.
	Title string
	// Plain writes a line a second even to a terminal.
	Plain bool
	// NoColor leaves colours out; what they say is also there as text.
	NoColor bool
	// Size is the terminal's, asked before each drawing; nil: w is none. A
	// terminal too small for the table gets lines.
	Size func() (columns, rows int)
}

// Display shows snapshots. Safe for concurrent use.
type Display struct {
	mu    sync.Mutex
	w     io.Writer
	o     Options
	drawn int // lines of the table that stand above the cursor
	past  []load.Interval
	last  *load.Snapshot
}

// history is how many intervals the sparklines reach back.
const history = 120

// The table's columns, and what it needs of a terminal.
const (
	nameWidth, valueWidth = 19, 14
	columnsMin, rowsMin   = 56, 18
)

// New shows on w.
func New(w io.Writer, o Options) *Display { return &Display{w: w, o: o} }

// Update shows the state after another interval.
func (d *Display) Update(s load.Snapshot) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last = &s
	d.past = append(d.past, s.Last)
	if len(d.past) > history {
		d.past = append(d.past[:0], d.past[len(d.past)-history:]...)
	}
	columns, ok := d.room()
	if !ok {
		d.drawn = 0
		fmt.Fprintln(d.w, report.Progress(s))
		return
	}
	d.draw(columns)
}

// Event writes a line that stays, above the table.
func (d *Display) Event(text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.clear()
	fmt.Fprintln(d.w, text)
	if columns, ok := d.room(); ok && d.last != nil {
		d.draw(columns)
	}
}

// End takes the table away: the result is to follow.
func (d *Display) End() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.clear()
	d.last = nil
}

func (d *Display) room() (columns int, ok bool) {
	if d.o.Plain || d.o.Size == nil {
		return 0, false
	}
	columns, rows := d.o.Size()
	return columns, columns >= columnsMin && rows >= rowsMin
}

// clear erases the table.
func (d *Display) clear() {
	if d.drawn > 0 {
		fmt.Fprintf(d.w, "\x1b[%dA\x1b[J", d.drawn)
		d.drawn = 0
	}
}

// draw writes the table in one piece, over the one before.
func (d *Display) draw(columns int) {
	lines := d.table(columns)
	var b strings.Builder
	if d.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", d.drawn)
	}
	for _, l := range lines {
		b.WriteString(l)
		b.WriteString("\x1b[K\n")
	}
	b.WriteString("\x1b[J")
	d.drawn = len(lines)
	_, _ = io.WriteString(d.w, b.String())
}

// Colours, by meaning.
const (
	strong = "1"
	soft   = "2"
	warn   = "33"
	bad    = "1;31"
)

func (d *Display) paint(code, s string) string {
	if d.o.NoColor || code == "" || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// table is the state as lines, none wider than the terminal.
func (d *Display) table(columns int) []string {
	s := d.last
	v := &s.Last
	seconds := max(v.Seconds(), 1e-9)
	width := columns - nameWidth - valueWidth - 3 // of sparklines
	var out []string
	row := func(name, value, color string, log bool, of func(*load.Interval) float64) {
		line := " " + pad(name, nameWidth) + d.paint(color, padLeft(value, valueWidth))
		if of != nil {
			y := make([]float64, 0, len(d.past))
			for i := range d.past {
				y = append(y, of(&d.past[i]))
			}
			line += "  " + d.paint(soft, spark(y, width, log))
		}
		out = append(out, line)
	}
	perSecond := func(n func(*load.Interval) float64) func(*load.Interval) float64 {
		return func(v *load.Interval) float64 { return n(v) / max(v.Seconds(), 1e-9) }
	}
	latency := func(ns int64) string {
		if ns == 0 {
			return "–"
		}
		return figure.Latency(float64(ns))
	}

	done := min(max(float64(s.Elapsed)/max(float64(s.Planned), 1), 0), 1)
	clock := fmt.Sprintf("%.0f / %.0f s", min(s.Elapsed, s.Planned).Seconds(), s.Planned.Seconds())
	if s.Elapsed > s.Planned {
		clock = fmt.Sprintf("draining for %.0f s", (s.Elapsed - s.Planned).Seconds())
	}
	phase := v.Phase
	if phase != "" {
		phase = "  " + phase
	}
	title := cut(d.o.Title, max(10, columns-utf8.RuneCountInString(phase)-utf8.RuneCountInString(clock)-6))
	gap := max(1, columns-2-utf8.RuneCountInString(title)-utf8.RuneCountInString(phase)-utf8.RuneCountInString(clock))
	out = append(out, " "+d.paint(strong, title)+d.paint(soft, phase)+strings.Repeat(" ", gap)+clock, " "+d.paint(soft, bar(done, columns-2)))

	if v.Offered > 0 {
		row("offered", figure.Rate(v.Offered/seconds)+" /s", "", false, perSecond(func(v *load.Interval) float64 { return v.Offered }))
	}
	row("sent", figure.Rate(float64(v.Sent)/seconds)+" /s", "", false, perSecond(func(v *load.Interval) float64 { return float64(v.Sent) }))
	row("delivered", figure.Rate(float64(v.Delivered)/seconds)+" /s", strong, false, perSecond(func(v *load.Interval) float64 { return float64(v.Delivered) }))
	l := &v.Latency
	row("end to end p50", latency(p50(v)), "", true, func(v *load.Interval) float64 { return float64(p50(v)) })
	row("           p99", latency(p99(v)), strong, true, func(v *load.Interval) float64 { return float64(p99(v)) })
	row("           p99.9", latency(tail(v)), "", true, func(v *load.Interval) float64 { return float64(tail(v)) })
	row("acknowledged p99", latency(acked(v)), "", true, func(v *load.Interval) float64 { return float64(acked(v)) })
	if l.Lag.Count > 0 {
		color, name := "", "dispatch lag p99"
		if l.Late() {
			color, name = warn, "dispatch lag p99 !"
		}
		row(name, latency(l.Lag.P99), color, true, func(v *load.Interval) float64 { return float64(v.Latency.Lag.P99) })
	}
	row("backlog", figure.Count(v.Outstanding), "", false, func(v *load.Interval) float64 { return float64(v.Outstanding) })
	if s.Failed > 0 {
		row("errors", figure.Count(s.Failed), bad, false, func(v *load.Interval) float64 { return float64(v.Failed) })
	} else {
		row("errors", "0", "", false, nil)
	}
	if t := v.Target; t != nil {
		row("target CPU", figure.Percent(t.CPUs), "", false, target(func(t *load.TargetSample) float64 { return t.CPUs }))
		row("target memory", figure.Bytes(float64(t.RSSBytes)), "", false, target(func(t *load.TargetSample) float64 { return float64(t.RSSBytes) }))
	}
	row("generator CPU", figure.Percent(max(0, v.Generator-v.Spin)), "", false, func(v *load.Interval) float64 { return max(0, v.Generator-v.Spin) })
	return out
}

// Latencies of an interval, 0 where there is none to be shown: the generator was
// the limit in it, by the rule by which a run is invalid, or its p99.9 is of too
// few messages.
var (
	p50   = known(func(l *load.Latencies) int64 { return l.E2E.P50 })
	p99   = known(func(l *load.Latencies) int64 { return l.E2E.P99 })
	acked = known(func(l *load.Latencies) int64 { return l.Ack.P99 })
	tail  = known(func(l *load.Latencies) int64 {
		ns, ok := l.E2E.Tail()
		if !ok {
			return 0
		}
		return ns
	})
)

func known(of func(*load.Latencies) int64) func(*load.Interval) int64 {
	return func(v *load.Interval) int64 {
		if v.Latency.Late() {
			return 0
		}
		return of(&v.Latency)
	}
}

func target(of func(*load.TargetSample) float64) func(*load.Interval) float64 {
	return func(v *load.Interval) float64 {
		if v.Target == nil {
			return 0
		}
		return of(v.Target)
	}
}

var blocks = []rune("▁▂▃▄▅▆▇█")

// spark draws the last values that fit into width: from 0, or by their
// logarithms from the least to the greatest. None and 0 are a space.
func spark(y []float64, width int, log bool) string {
	if width <= 0 {
		return ""
	}
	y = y[max(0, len(y)-width):]
	lo, hi := math.Inf(1), 0.0
	for _, v := range y {
		if v > 0 {
			lo, hi = min(lo, v), max(hi, v)
		}
	}
	var b strings.Builder
	for _, v := range y {
		if !(v > 0) || hi == 0 {
			b.WriteByte(' ')
			continue
		}
		share := v / hi
		if log {
			// A factor of 4 at least from bottom to top: jitter is not drawn as drama.
			bottom := min(lo, hi/4)
			share = math.Log(v/bottom) / math.Log(hi/bottom)
		}
		b.WriteRune(blocks[min(int(share*float64(len(blocks))), len(blocks)-1)])
	}
	return b.String()
}

func bar(done float64, width int) string {
	n := int(done*float64(width) + 0.5)
	return strings.Repeat("━", n) + strings.Repeat("─", max(0, width-n))
}

func pad(s string, n int) string { return s + strings.Repeat(" ", max(0, n-utf8.RuneCountInString(s))) }
func padLeft(s string, n int) string {
	return strings.Repeat(" ", max(0, n-utf8.RuneCountInString(s))) + s
}

func cut(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}
