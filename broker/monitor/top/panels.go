package top

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/portask/portask/broker/monitor"
)

// indent is the width of labels.
const indent = 9

// header says who, and in what state.
func (v *View) header(w int) []Line {
	clock := ""
	if !v.Clock.IsZero() {
		clock = v.Clock.Format(time.TimeOnly)
	}
	if v.Paused {
		clock = "PAUSED  " + clock
	}
	r := v.Report
	if r == nil {
		first := Line{strong("portask top")}
		state := Line{faint("waiting for the first figures")}
		if v.Gone != "" {
			state = Line{{"NO BROKER: ", Alarm}, {v.Gone, Plain}}
		}
		return []Line{ends(first, clock, w, v.Glyphs.Cut), state}
	}
	who := Line{strong("portask top"), text("  "), strong(r.Node)}
	for _, s := range []string{r.Version, r.Engine, r.Address} {
		if s != "" {
			who = append(who, text("  "+s))
		}
	}
	who = append(who, text("  up "+span(r.Uptime)))
	var state Line
	switch {
	case v.Gone != "":
		state = Line{{"STALE", Alarm}, {" by " + span(v.Age) + ": the broker does not answer: " + v.Gone, Warn}}
		return []Line{ends(who, clock, w, v.Glyphs.Cut), state}
	case r.Ready:
		state = Line{text("ready")}
	default:
		state = Line{{"NOT READY", Alarm}}
	}
	t := &r.Totals
	connection := "connection"
	if w < 100 {
		connection = "conn"
	}
	for _, s := range []string{
		count(int(t.Connections), connection), count(int(t.Producers), "producer"), count(int(t.Subscriptions), "subscription"),
		count(t.Topics, "topic"), count(t.Partitions, "partition"),
	} {
		state = append(state, faint("  "), text(s))
	}
	return []Line{ends(who, clock, w, v.Glyphs.Cut), state}
}

// ends puts text at the right end of a line.
func ends(l Line, s string, w int, mark string) Line {
	if s == "" {
		return l
	}
	n := w - width(s)
	l = l.fit(n-2, mark).pad(n)
	return append(l, faint(s))
}

// flows is what comes in and goes out, with its recent past.
func (v *View) flows(w int) []Line {
	line := func(name string, f *Flow, of func(*point) float64) Line {
		messages, bytes := "-", "-"
		if v.Rates.Interval > 0 {
			messages, bytes = number(f.Messages), sizeOf(f.Bytes)+"/s"
		}
		l := Line{faint(left(name, indent)), strong(right(messages, 6)), faint(" msg/s"), text(right(bytes, 14)), text("  ")}
		room := w - l.Width() - 22
		if room < 8 {
			return l
		}
		room = min(room, 120)
		values, most, covered := v.History.spark(room, v.Window, of)
		if values == nil {
			return l
		}
		return append(l, Span{v.Glyphs.spark(values, most), Accent}, faint("  most "+number(most)+" in "+shortSpan(covered)))
	}
	return []Line{
		line("in", &v.Rates.In, func(p *point) float64 { return p.in }),
		line("out", &v.Rates.Out, func(p *point) float64 { return p.out }),
	}
}

// shortSpan writes a round span of time in one unit where it can.
func shortSpan(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0fs", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0fm", d.Minutes())
	}
	return fmt.Sprintf("%.0fh", d.Hours())
}

// latencyLabels are the lines of the table of latencies, and in which order.
var latencyLabels = []struct{ name, label string }{
	{monitor.LatencyAccepted, "produce, accepted"},
	{monitor.LatencyDurable, "produce, durable"},
	{monitor.LatencySync, "sync"},
	{monitor.LatencyDeliver, "deliver"},
}

// latencies are of the last interval and, where there is room, since the start.
func (v *View) latencies(w int) []Line {
	if len(v.Report.Latencies) == 0 {
		return nil
	}
	title := "last " + every(v.Report.Interval.Round(100*time.Millisecond))
	if v.Report.Interval <= 0 || len(title) > 16 {
		title = "latency"
	}
	const name, column = 18, 8
	all := w >= name+8*column
	cell := func(q *monitor.Quantiles, d time.Duration) string {
		if q.Count == 0 {
			return right("-", column)
		}
		return right(latency(d), column)
	}
	head := faint(left("latency", name) + right("p50", column) + right("p99", column) + right("p99.9", column) + right("max", column) + right("count", column))
	if all {
		head.Text += right("| all p50", column+3) + right("p99", column) + right("p99.9", column)
	}
	head.Text = left(title, name) + head.Text[name:]
	lines := []Line{{head}}
	for _, row := range latencyLabels {
		l := named(v.Report.Latencies, -1, row.name, func(l *monitor.Latency) string { return l.Name })
		if l == nil {
			continue
		}
		q, t := &l.Last, &l.Total
		line := Line{text(left(row.label, name)), text(cell(q, q.P50)), strong(cell(q, q.P99)), text(cell(q, q.P999) + cell(q, q.Max)),
			faint(right(whole(int64(min(q.Count, 1<<62))), column))}
		if all {
			line = append(line, faint("  |"+cell(t, t.P50)+cell(t, t.P99)+cell(t, t.P999)))
		}
		lines = append(lines, line)
	}
	return lines
}

// item is a label and a value.
func item(label, value string) Line { return Line{faint(label + " "), text(value)} }

// process is what the broker spends.
func (v *View) process(w int) []Line {
	p, r := &v.Report.Process, &v.Rates.Process
	var items []Line
	if v.Rates.SampleInterval > 0 {
		cpu := fmt.Sprintf("%.2f", r.CPUs)
		if p.MaxProcs > 0 {
			cpu += fmt.Sprintf("/%d", p.MaxProcs)
		}
		items = append(items, item("cpu", cpu))
	}
	heap := size(p.HeapBytes)
	if p.HeapGoalBytes > 0 {
		heap = pair(p.HeapBytes, p.HeapGoalBytes)
	}
	items = append(items, item("rss", size(p.RSSBytes)), item("heap", heap))
	fds := fmt.Sprint(p.FDs)
	if p.FDLimit > 0 {
		fds += "/" + fmt.Sprint(p.FDLimit)
	}
	items = append(items, item("fds", fds), item("goroutines", fmt.Sprint(p.Goroutines)), item("threads", fmt.Sprint(p.Threads)))
	if v.Rates.Interval > 0 {
		items = append(items, item("gc", percent(r.GCShare)+" of cpu, "+number(r.GCs)+"/s"), item("allocates", sizeOf(r.AllocBytes)+"/s"),
			item("syncs", number(v.Rates.Syncs)+"/s"), item("syscalls", number(v.Rates.Syscalls)+"/s"))
		if v.Rates.HistoryReads > 0 {
			items = append(items, item("reads from log", number(v.Rates.HistoryReads)+"/s"))
		}
	}
	lines := flow("broker", items, indent, w, v.Glyphs.Cut)
	if v.tight() {
		lines = limit(lines, 2)
	}
	return lines
}

// host is the machine, its disk and network, pressure, and the control group: what
// matters most comes first, since a tight frame ends after three lines.
func (v *View) host(w int) []Line {
	m, r := &v.Report.System, &v.Rates.System
	known := v.Rates.SampleInterval > 0
	var items []Line
	if known {
		busy := append(Line{faint("cpu ")}, v.Glyphs.bar(r.Busy, 8)...)
		items = append(items, append(busy, text(fmt.Sprintf(" %s of %d", percent(r.Busy), m.Processors))),
			item("steal", percent(r.Steal)), item("iowait", percent(r.IOWait)))
	}
	items = append(items, item("load", fmt.Sprintf("%.1f %.1f %.1f", m.Load1, m.Load5, m.Load15)))
	if m.MemoryBytes > 0 {
		items = append(items, item("memory free", pair(m.AvailableBytes, m.MemoryBytes)))
	}
	d, s := m.Disk, &v.Report.Storage
	switch {
	case d != nil:
		items = append(items, item("disk free", pair(d.FreeBytes, d.TotalBytes)))
		if known && d.Device != "" {
			items = append(items, item("write", sizeOf(r.DiskWriteBytes)+"/s"), item("busy", percent(r.DiskBusy)))
		}
	case s.TotalBytes > 0:
		items = append(items, item("free", pair(s.FreeBytes, s.TotalBytes)))
	}
	if p := m.Pressure; p != nil {
		items = append(items, slices.Concat(item("stalled cpu", percent(p.CPU.Some10)), item(" mem", percent(p.Memory.Some10)), item(" io", percent(p.IO.Some10))))
	}
	if m.Network != nil && known {
		items = append(items, append(item("net in", sizeOf(r.NetworkIn)+"/s"), item(" out", sizeOf(r.NetworkOut)+"/s")...))
	}
	if c := m.Cgroup; c != nil {
		switch {
		case c.MemoryLimitBytes > 0:
			items = append(items, item("cgroup memory", pair(c.MemoryBytes, c.MemoryLimitBytes)))
		case c.MemoryBytes > 0:
			items = append(items, item("cgroup memory", size(c.MemoryBytes)))
		}
		if c.CPUs > 0 {
			items = append(items, item("quota", fmt.Sprintf("%.3g cpus, held back %s", c.CPUs, percent(r.Throttled))))
		}
	}
	if m.SwapUsedBytes > 0 {
		items = append(items, item("swap", pair(m.SwapUsedBytes, m.SwapBytes)))
	}
	if known && d != nil && d.Device != "" {
		items = append(items, item("disk read", sizeOf(r.DiskReadBytes)+"/s"))
	}
	lines := flow("host", items, indent, w, v.Glyphs.Cut)
	if v.tight() {
		lines = limit(lines, 3)
	}
	return lines
}

// gauge is a name and figures and, where share is not negative, a bar between.
type gauge struct {
	name, figures string
	share         float64
}

// Two gauges stand in 80 columns and three in 118.
const (
	gaugeWidth = 35
	gaugeName  = 10
	gaugeBar   = 8
)

func (v *View) gauge(g gauge) Line {
	l := Line{faint(left(fit(g.name, gaugeName, v.Glyphs.Cut), gaugeName) + " ")}
	if g.share >= 0 {
		l = append(append(l, v.Glyphs.bar(g.share, gaugeBar)...), text(" "))
	}
	return append(l, text(g.figures)).fit(gaugeWidth, v.Glyphs.Cut).pad(gaugeWidth)
}

// gauges puts them into as many columns as there is room for. A tight frame has
// one line of the fullest.
func (v *View) gauges(label string, all []gauge, w int) []Line {
	if len(all) == 0 {
		return nil
	}
	per := max(1, (w-indent)/(gaugeWidth+1))
	if w >= indent+2*gaugeWidth+1 {
		per = max(per, 2)
	}
	if v.tight() && len(all) > per {
		slices.SortStableFunc(all, func(a, b gauge) int { return cmp.Compare(b.share, a.share) })
		all = all[:per]
	}
	var lines []Line
	for len(all) > 0 {
		n := min(per, len(all))
		l := Line{faint(left(label, indent))}
		for i, g := range all[:n] {
			if i > 0 {
				l = append(l, text(" "))
			}
			l = append(l, v.gauge(g)...)
		}
		lines = append(lines, l)
		all, label = all[n:], ""
	}
	return lines
}

// memory shows the pools against their bounds, and the credit that is left.
func (v *View) memory(w int) []Line {
	var all []gauge
	for _, p := range v.Report.Pools {
		g := gauge{p.Name, size(p.LiveBytes), -1}
		if p.LimitBytes > 0 {
			g.figures, g.share = pair(p.LiveBytes, p.LimitBytes), share(p.LiveBytes, p.LimitBytes)
		}
		all = append(all, g)
	}
	if t := &v.Report.Totals; t.CreditFreeBytes > 0 || t.Producers > 0 {
		all = append(all, gauge{"credit", size(t.CreditFreeBytes) + " left", -1})
	}
	return v.gauges("memory", all, w)
}

// queues shows depth against capacity.
func (v *View) queues(w int) []Line {
	var all []gauge
	for _, q := range v.Report.Queues {
		g := gauge{q.Name, whole(q.Depth), -1}
		if q.Capacity > 0 {
			g.figures += "/" + whole(q.Capacity)
			g.share = share(q.Depth, q.Capacity)
		}
		if r := named(v.Rates.Queues, -1, q.Name, func(q *QueueRates) string { return q.Name }); r != nil && r.Added > 0 {
			g.figures += " " + number(r.Added) + "/s"
		}
		all = append(all, g)
	}
	return v.gauges("queues", all, w)
}

// warnings is a line each, in words; the last one counts what has no room.
func (v *View) warnings(w, most int) []Line {
	all := v.Rates.Warnings
	if v.Report == nil || v.Gone != "" {
		return nil
	}
	var lines []Line
	for i, s := range all[:min(most, len(all))] {
		if more := len(all) - most; more > 0 && i == most-1 {
			tail := fmt.Sprintf(" (and %d more)", more)
			s = fit(s, w-len("! ")-len(tail), v.Glyphs.Cut) + tail
		}
		lines = append(lines, Line{{"! ", Alarm}, {s, Warn}})
	}
	return lines
}

// keys is the last line: what can be pressed.
func (v *View) keys(w int) []Line {
	if !v.Keys {
		return nil
	}
	var l Line
	for _, k := range [][2]string{
		{"q", "quit"}, {"?", "help"}, {"p", "pause"}, {"r b l n", "sort"}, {"i", "invert"}, {"up down", "scroll"}, {"+ -", "every " + every(v.Every)},
	} {
		if len(l) > 0 {
			l = append(l, text("  "))
		}
		l = append(l, strong(k[0]), faint(" "+k[1]))
	}
	return []Line{l.fit(w, v.Glyphs.Cut)}
}

// every writes an interval: 1s, 500ms, 1m.
func every(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	return s
}
