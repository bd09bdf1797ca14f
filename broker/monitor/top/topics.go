package top

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// column is one of the table of topics.
type column struct {
	title string
	width int
	from  int // the frame's width from which it is shown
	order Order
	sorts bool // by order
	cell  func(t *TopicRates, known bool) string
}

var topicColumns = []column{
	{title: "MSG/S", width: 8, order: ByRate, sorts: true, cell: func(t *TopicRates, known bool) string {
		return ifKnown(known, number(t.Stored.Messages))
	}},
	{title: "BYTES/S", width: 12, cell: func(t *TopicRates, known bool) string { return ifKnown(known, sizeOf(t.Stored.Bytes)) }},
	{title: "MSG/BATCH", width: 11, from: 100, cell: func(t *TopicRates, known bool) string {
		if t.Stored.Batches <= 0 {
			return "-"
		}
		return ifKnown(known, number(t.Stored.Messages/t.Stored.Batches))
	}},
	{title: "BYTES", width: 12, order: ByBytes, sorts: true, cell: func(t *TopicRates, _ bool) string { return size(t.Bytes) }},
	{title: "LAG", width: 9, order: ByLag, sorts: true, cell: func(t *TopicRates, _ bool) string { return whole(t.Lag) }},
	{title: "STORED", width: 10, from: 100, cell: func(t *TopicRates, _ bool) string { return number(float64(t.messages)) }},
	{title: "PARTS", width: 7, cell: func(t *TopicRates, _ bool) string { return fmt.Sprint(t.Partitions) }},
	{title: "SEGMENTS", width: 10, from: 100, cell: func(t *TopicRates, _ bool) string { return fmt.Sprint(t.segments) }},
	{title: "VISIBLE", width: 10, from: 100, cell: func(t *TopicRates, _ bool) string { return t.visibility }},
}

func ifKnown(known bool, s string) string {
	if !known {
		return "-"
	}
	return s
}

// healthWidth is the last column, "2 failed".
const healthWidth = 12

// topics is the table: its head, and as many topics as fit into room lines, all
// if that is negative.
func (v *View) topics(w, room int) []Line {
	list := slices.Clone(v.Rates.Topics)
	sortTopics(list, v.Order, v.Turned)
	rows := room - 1
	if room < 0 {
		rows = len(list)
	}
	rows = max(rows, 0)
	v.Scroll = max(0, min(v.Scroll, len(list)-rows))

	var columns []column
	used := healthWidth
	for _, c := range topicColumns {
		if w >= c.from {
			columns = append(columns, c)
			used += c.width
		}
	}
	name := w - used
	for name < 16 && len(columns) > 1 { // a narrow terminal shows names and rates
		last := columns[len(columns)-1]
		columns = columns[:len(columns)-1]
		name += last.width
	}
	order := v.Glyphs.Down
	if v.Turned != (v.Order == ByName) {
		order = v.Glyphs.Up
	}
	title := "TOPIC"
	if v.Order == ByName {
		title += order
	}
	if hidden := len(list) + v.Report.TopicsOmitted - min(rows, len(list)-v.Scroll); hidden > 0 {
		title += fmt.Sprintf(" (%d of %d)", min(rows, len(list)-v.Scroll), len(list)+v.Report.TopicsOmitted)
	}
	head := Line{role(left(fit(title, name-1, v.Glyphs.Cut), name), v.Order == ByName)}
	for _, c := range columns {
		t := c.title
		if c.sorts && c.order == v.Order {
			t += order
		}
		head = append(head, role(right(t, c.width), c.sorts && c.order == v.Order))
	}
	head = append(head, faint(right("HEALTH", healthWidth)))
	lines := []Line{head}
	for i := v.Scroll; i < len(list) && i < v.Scroll+rows; i++ {
		t := &list[i]
		l := Line{text(left(fit(t.Name, name-1, v.Glyphs.Cut), name))}
		for _, c := range columns {
			l = append(l, text(right(c.cell(t, t.Known), c.width)))
		}
		lines = append(lines, append(l, health(t)))
	}
	if len(list) == 0 {
		lines = append(lines, Line{faint("no topics yet: portask topic create NAME")})
	}
	return lines
}

func role(s string, sorted bool) Span {
	if sorted {
		return strong(s)
	}
	return faint(s)
}

func health(t *TopicRates) Span {
	switch {
	case t.Failed > 0:
		return Span{right(fmt.Sprintf("%d failed", t.Failed), healthWidth), Alarm}
	case t.Corruptions > 0:
		return Span{right("damaged", healthWidth), Warn}
	}
	return faint(right("ok", healthWidth))
}

// sortTopics orders by the figure, and what is equal by name.
func sortTopics(list []TopicRates, o Order, turned bool) {
	slices.SortFunc(list, func(a, b TopicRates) int {
		var c int
		switch o {
		case ByRate:
			c = cmp.Compare(b.Stored.Messages, a.Stored.Messages)
		case ByBytes:
			c = cmp.Compare(b.Bytes, a.Bytes)
		case ByLag:
			c = cmp.Compare(b.Lag, a.Lag)
		}
		c = cmp.Or(c, strings.Compare(a.Name, b.Name))
		if turned {
			c = -c
		}
		return c
	})
}

// help explains the screen.
func help(w int, mark string) []Line {
	var lines []Line
	for _, h := range [][2]string{
		{"q ctrl+c", "end"},
		{"p space", "pause: figures stay as they are"},
		{"r b l n", "sort topics by rate, bytes, lag, name"},
		{"i, or the same again", "sort the other way round"},
		{"up down pgup pgdn home end", "scroll topics; j and k too"},
		{"+ -", "look less often, more often"},
		{"in, out", "batches taken from producers, handed to consumers"},
		{"latencies", "of the broker's last interval | since its start"},
		{"produce", "from reading a batch to queueing its answer"},
		{"deliver", "from becoming visible to being with the kernel"},
		{"cpu", "processors kept busy/that may be used"},
		{"LAG", "messages stored, not yet both durable and visible"},
		{"BYTES", "that can be read"},
	} {
		const n = 28
		lines = append(lines, Line{strong(left(h[0], n)), text(h[1])}.fit(w, mark))
	}
	return lines
}
