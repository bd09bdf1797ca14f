package top

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/portask/portask/broker/monitor"
)

// Order is how topics are sorted.
type Order uint8

const (
	ByRate Order = iota // messages stored per second, most first
	ByBytes
	ByLag
	ByName
)

var orderNames = []string{"rate", "bytes", "lag", "name"}

// String is the order's name.
func (o Order) String() string { return orderNames[o] }

// Orders are the names of all orders.
func Orders() []string { return slices.Clone(orderNames) }

// ParseOrder finds an order by its name.
func ParseOrder(s string) (Order, bool) {
	i := slices.Index(orderNames, s)
	return Order(max(i, 0)), i >= 0
}

// View is all that a frame depends on.
type View struct {
	// Observe and Lose set these. Report is nil before the first, Rates are those
	// up to it.
	Report  *monitor.Report
	Rates   Rates
	History History
	Clock   time.Time // shown in the corner

	// Gone says why the broker does not answer, and Age how old Report is then;
	// empty while it answers.
	Gone string
	Age  time.Duration

	Every  time.Duration // between two frames
	Window time.Duration // of sparklines
	Order  Order
	Turned bool // the other way round
	Scroll int  // topics skipped
	Paused bool
	Help   bool // explains the screen instead of showing topics
	Keys   bool // shows the keys: somebody can press them

	Width  int // columns, at least WidthMin
	Height int // lines; 0 is as many as it takes
	Glyphs Glyphs
}

// WidthMin and HeightMin bound a frame from below: a smaller terminal shows a
// part of it.
const (
	WidthMin  = 40
	HeightMin = 6
)

// wide is the width from which panels stand side by side.

const wide = 118

// warningLines is how many warnings there is always room for.
const warningLines = 2

// tight tells that panels are to be as small as they can.
func (v *View) tight() bool { return v.Height > 0 && v.Height < 30 }

// section is a block of lines; those with the highest rank go first when there
// is no room for all.
type section struct {
	rank  int
	lines []Line
}

// Frame draws the view: at most Height lines of at most Width columns. It
// changes nothing but Scroll, which it brings into range.
func (v *View) Frame() []Line {
	w := max(v.Width, WidthMin)
	head := v.header(w)
	sections := []section{{0, head}}
	if v.Report != nil {
		sections = append(sections, section{1, v.flows(w)})
		if w >= wide {
			half := 61 // of latencies of the last interval; with those since the start
			if w >= wide+40 {
				half = 88
			}
			sections = append(sections, section{2, beside(v.latencies(half-3), append(v.process(w-half), v.host(w-half)...), half, v.Glyphs.Cut)})
		} else {
			sections = append(sections, section{2, v.latencies(w)}, section{3, v.process(w)}, section{6, v.host(w)})
		}
		sections = append(sections, section{4, v.memory(w)}, section{5, v.queues(w)})
	}
	h := v.Height
	if h > 0 {
		h = max(h, HeightMin)
	}
	most := len(v.Rates.Warnings)
	if h > 0 {
		most = min(most, warningLines)
	}
	keys := v.keys(w)
	table := 0 // lines of the whole table
	least := 0 // and how many there must be
	switch {
	case v.Help:
		table = len(help(w, v.Glyphs.Cut))
		least = table
	case v.Report != nil:
		table = max(2, 1+len(v.Rates.Topics))
		least = min(table, 4)
	}
	if h > 0 {
		for total(sections)+least+most+len(keys) > h && len(sections) > 1 {
			worst := 0
			for i := range sections {
				if sections[i].rank > sections[worst].rank {
					worst = i
				}
			}
			sections = slices.Delete(sections, worst, worst+1)
		}
		// What topics do not take, further warnings may.
		most += max(0, h-total(sections)-table-most-len(keys))
	}
	warnings := v.warnings(w, most)

	var lines []Line
	for _, s := range sections {
		lines = append(lines, s.lines...)
	}
	room := -1
	if h > 0 {
		room = max(0, h-len(lines)-len(warnings)-len(keys))
	}
	switch {
	case v.Help:
		lines = append(lines, limit(help(w, v.Glyphs.Cut), room)...)
	case v.Report != nil:
		lines = append(lines, limit(v.topics(w, room), room)...)
	}
	if v.Keys { // warnings and keys stay at the bottom
		for len(lines)+len(warnings)+len(keys) < h {
			lines = append(lines, nil)
		}
	}
	lines = append(append(lines, warnings...), keys...)
	if v.Gone != "" && v.Report != nil { // nobody takes old figures for new ones
		for i := len(head); i < len(lines)-len(warnings)-len(keys); i++ {
			lines[i] = Line{faint(lines[i].String())}
		}
	}
	for i := range lines {
		lines[i] = lines[i].fit(w, v.Glyphs.Cut)
	}
	if h > 0 {
		lines = limit(lines, h)
	}
	return lines
}

func total(sections []section) (n int) {
	for i := range sections {
		n += len(sections[i].lines)
	}
	return n
}

// limit cuts to n lines, if that is not negative.
func limit(lines []Line, n int) []Line {
	if n >= 0 && len(lines) > n {
		return lines[:n]
	}
	return lines
}

// Text is the frame as plain text, each line with its end.
func (v *View) Text() string {
	var b strings.Builder
	for _, l := range v.Frame() {
		b.WriteString(l.String())
		b.WriteByte('\n')
	}
	return b.String()
}

// Summary is the view in one line, for pipes and logs.
func (v *View) Summary() string {
	clock := ""
	if !v.Clock.IsZero() {
		clock = v.Clock.Format(time.TimeOnly) + "  "
	}
	if v.Gone != "" {
		return clock + "no answer: " + v.Gone
	}
	if v.Report == nil {
		return clock + "waiting for the first figures"
	}
	r := &v.Rates
	var b strings.Builder
	b.WriteString(clock)
	if r.Interval > 0 {
		fmt.Fprintf(&b, "in %s msg/s %s/s  out %s msg/s %s/s  ", number(r.In.Messages), sizeOf(r.In.Bytes), number(r.Out.Messages), sizeOf(r.Out.Bytes))
	}
	p99 := ""
	for _, l := range r.Latencies {
		if l.Last.Count > 0 && l.Name != monitor.LatencyAppend {
			p99 += " " + strings.TrimPrefix(l.Name, "produce_") + " " + latency(l.Last.P99)
		}
	}
	if p99 != "" {
		b.WriteString("p99" + p99 + "  ")
	}
	if r.SampleInterval > 0 {
		fmt.Fprintf(&b, "cpu %.2f  ", r.Process.CPUs)
	}
	fmt.Fprintf(&b, "rss %s  %s", size(r.Process.RSSBytes), count(int(r.Connections), "connection"))
	if len(r.Warnings) > 0 {
		b.WriteString("  ! " + strings.Join(r.Warnings, "; "))
	}
	return b.String()
}

// Observe takes the next Report of the broker, which the view owns from then on.
func (v *View) Observe(r *monitor.Report) {
	Clean(r)
	before := v.Rates
	v.Rates = Between(v.Report, r)
	v.Rates.keep(&before)
	v.Rates.Warnings = Warnings(r, &v.Rates)
	v.History.Add(&v.Rates)
	v.Report, v.Gone, v.Age = r, "", 0
}

// Lose notes that the broker did not answer, for a reason, age after the last
// Report.
func (v *View) Lose(reason string, age time.Duration) {
	v.Gone, v.Age = Printable(reason), age
}
