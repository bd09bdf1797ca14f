package html

import (
	"fmt"
	"html/template"
	"math"
	"strings"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/report/figure"
	"github.com/portask/portask/loadgen/report/plot"
	"github.com/portask/portask/loadgen/scenario"
)

// chartFigure is a chart on the page, in two shapes.
type chartFigure struct {
	Title, Text  string
	Wide, Narrow template.HTML
}

// chartData is what the page's script says under the pointer.
type chartData struct {
	Unit  string       `json:"unit"` // ns, B, B/s, n, cpu
	X     []float64    `json:"x"`
	Lines []dataSeries `json:"lines"`
}

type dataSeries struct {
	Name string     `json:"name"`
	Y    []*float64 `json:"y"` // null: a gap
}

// Shapes of a chart, px.
const (
	fullWidth, wideWidth, narrowWidth = 1120, 556, 344
	fullHeight, wideHeight            = 320, 260
	narrowHeight                      = 240
)

// pending is a chart that is drawn when it is known how many there are.
type pending struct {
	c           *plot.Chart
	title, text string
}

// add takes a chart; key and unit are for the script, which knows those with a
// time axis; empty: it leaves this one alone.
func (v *view) add(c *plot.Chart, key, unit, title, text string, full bool) {
	c.Title, c.Data = title+". "+text, key
	if full {
		v.full = append(v.full, pending{c, title, text})
	} else {
		v.half = append(v.half, pending{c, title, text})
	}
	if key == "" {
		return
	}
	d := &chartData{Unit: unit}
	for i := range c.Lines {
		l := &c.Lines[i]
		d.X = l.X
		s := dataSeries{Name: l.Name}
		for _, y := range l.Y {
			if math.IsNaN(y) {
				s.Y = append(s.Y, nil)
				continue
			}
			y = rounded(y)
			s.Y = append(s.Y, &y)
		}
		d.Lines = append(d.Lines, s)
	}
	v.data[key] = d
}

// draw draws all charts. Of an odd number in two columns the first takes both.
func (v *view) draw() {
	full := v.full
	if len(v.half)%2 == 1 {
		full, v.half = append(full, v.half[0]), v.half[1:]
	}
	figure := func(p pending, w, h int) chartFigure {
		return chartFigure{Title: p.title, Text: p.text, Wide: template.HTML(p.c.SVG(w, h)), Narrow: template.HTML(p.c.SVG(narrowWidth, narrowHeight))} // SVG escapes its texts
	}
	for _, p := range full {
		v.Main = append(v.Main, figure(p, fullWidth, fullHeight))
	}
	for _, p := range v.half {
		v.Figures = append(v.Figures, figure(p, wideWidth, wideHeight))
	}
}

// rounded keeps four digits: the script shows three.
func rounded(x float64) float64 {
	if x == 0 {
		return 0
	}
	scale := math.Pow(10, 3-math.Floor(math.Log10(math.Abs(x))))
	return math.Round(x*scale) / scale
}

// bins merges neighbours so that a chart has at most barsMax points: rates are
// averaged over their time, of latencies the worst is kept, so no spike is lost.
const barsMax = 420

type bin struct {
	at, seconds                           float64
	offered, sent, acked, delivered       float64
	outstanding, generator, spin          float64
	p50, p99, p999, top, lag99, lagTop    float64
	ackP99, targetCPU, targetRSS, targetN float64
}

func binned(series []load.Interval) []bin {
	per := (len(series) + barsMax - 1) / barsMax
	var out []bin
	for i := 0; i < len(series); i += max(per, 1) {
		var b bin
		for k := i; k < min(i+per, len(series)); k++ {
			x := &series[k]
			s := x.Seconds()
			b.seconds += s
			b.at = x.End
			b.offered += x.Offered
			b.sent += float64(x.Sent)
			b.acked += float64(x.Acked)
			b.delivered += float64(x.Delivered)
			b.outstanding = max(b.outstanding, float64(x.Outstanding))
			b.generator += x.Generator * s
			b.spin += x.Spin * s
			l := &x.Latency
			b.p50, b.p99, b.p999, b.top = max(b.p50, float64(l.E2E.P50)), max(b.p99, float64(l.E2E.P99)), max(b.p999, float64(l.E2E.P999)), max(b.top, float64(l.E2E.Max))
			b.ackP99 = max(b.ackP99, float64(l.Ack.P99))
			b.lag99, b.lagTop = max(b.lag99, float64(l.Lag.P99)), max(b.lagTop, float64(l.Lag.Max))
			if t := x.Target; t != nil {
				b.targetCPU += t.CPUs * s
				b.targetRSS = max(b.targetRSS, float64(t.RSSBytes))
				b.targetN += s
			}
		}
		out = append(out, b)
	}
	return out
}

// trimmed leaves out what is left of the last second: a rate over milliseconds
// is noise.
func trimmed(series []load.Interval) []load.Interval {
	if n := len(series); n > 2 && series[n-1].Seconds() < 0.5*series[n-2].Seconds() {
		return series[:n-1]
	}
	return series
}

// column makes a line of bins; zero is a gap where gaps is set.
func column(all []bin, gaps bool, of func(*bin) float64) (x, y []float64) {
	for i := range all {
		b := &all[i]
		v := of(b)
		if gaps && v == 0 {
			v = math.NaN()
		}
		x, y = append(x, (b.at-b.seconds/2)), append(y, v)
	}
	return x, y
}

// charts draws everything that is known over time, and the percentiles.
func (v *view) charts(m *load.Measured, s *scenario.Scenario, o Options) {
	all := binned(trimmed(m.Series))
	end := 0.0
	if n := len(all); n > 0 {
		end = all[n-1].at
	}
	bands := v.bands(m)
	time := plot.Axis{Min: 0, Max: max(end, 1e-3), Label: seconds(end)}
	chart := func(y plot.Axis, lines ...plot.Line) *plot.Chart {
		return &plot.Chart{X: time, Y: y, Bands: bands, Lines: lines}
	}
	line := func(name, class, dash string, wide, gaps bool, of func(*bin) float64) plot.Line {
		x, y := column(all, gaps, of)
		return plot.Line{Name: name, Class: class, Dash: dash, Wide: wide, X: x, Y: y}
	}
	rate := func(of func(*bin) float64) func(*bin) float64 {
		return func(b *bin) float64 { return of(b) / max(b.seconds, 1e-9) }
	}
	open := v.Loop == scenario.OpenLoop
	latency := plot.Axis{Kind: plot.Log, Label: figure.Latency}

	c := chart(latency,
		line("p50", "s1", "", false, true, func(b *bin) float64 { return b.p50 }),
		line("p99", "s2", "", true, true, func(b *bin) float64 { return b.p99 }),
		line("p99.9", "s3", "6 3", false, true, func(b *bin) float64 { return b.p999 }),
		line("max", "s5", "1.5 3", false, true, func(b *bin) float64 { return b.top }))
	c.Levels = levels(s)
	text := "From the intended send time until the message was delivered and verified."
	if !open {
		text = "Service time: from sending until delivery. It says nothing about a load that does not wait."
	}
	v.add(c, "latency", "ns", "Latency over time", text, true)
	if o.Heat != nil {
		v.heat(o.Heat, time, bands)
	}

	v.percentiles(m)

	lines := []plot.Line{}
	if open {
		lines = append(lines, line("offered", "s4", "7 4", true, false, rate(func(b *bin) float64 { return b.offered })))
	}
	lines = append(lines, line("sent", "s3", "2 2", false, false, rate(func(b *bin) float64 { return b.sent })),
		line("delivered", "s1", "", true, false, rate(func(b *bin) float64 { return b.delivered })))
	v.add(chart(plot.Axis{Label: figure.Short, Title: "msg/s"}, lines...), "rate", "n", "Throughput", "Messages a second: due by the schedule, sent, delivered and verified.", false)

	backlog := line("backlog", "s2", "", true, false, func(b *bin) float64 { return b.outstanding })
	backlog.Area = true
	v.add(chart(plot.Axis{Label: figure.Short, Title: "messages"}, backlog), "backlog", "n", "Backlog", "Sent, and not delivered yet. It must not grow.", false)

	cpu := []plot.Line{}
	if hasTarget(all) {
		cpu = append(cpu, line("target", "s1", "", true, false, func(b *bin) float64 { return b.targetCPU / max(b.targetN, 1e-9) }))
	}
	cpu = append(cpu, line("generator", "s5", "5 3", false, false, func(b *bin) float64 { return max(0, b.generator-b.spin) / max(b.seconds, 1e-9) }))
	if x, y := v.samples(end, func(i int) float64 { return v.Evidence.Samples[i].CPUs }); x != nil && !hasTarget(all) {
		cpu = append([]plot.Line{{Name: "target", Class: "s1", Wide: true, X: x, Y: y}}, cpu...)
	}
	v.add(chart(plot.Axis{Label: cpus, Title: "processors"}, cpu...), "cpu", "cpu", "CPU", "Processors in use: the target's, and the generator's work (spinning left out).", false)

	var memory []plot.Line
	if hasTarget(all) {
		memory = append(memory, line("RSS", "s1", "", true, true, func(b *bin) float64 { return b.targetRSS }))
	} else if x, y := v.samples(end, func(i int) float64 { return float64(v.Evidence.Samples[i].RSSBytes) }); x != nil {
		memory = append(memory, plot.Line{Name: "RSS", Class: "s1", Wide: true, X: x, Y: y})
	}
	if x, y := v.samples(end, func(i int) float64 { return float64(v.Evidence.Samples[i].HeapBytes) }); x != nil && highest(y) > 0 {
		memory = append(memory, plot.Line{Name: "Go heap", Class: "s3", Dash: "5 3", X: x, Y: y})
	}
	if len(memory) > 0 {
		v.add(chart(plot.Axis{Label: figure.Bytes, Binary: true}, memory...), "memory", "B", "Memory of the target", "Resident set, and objects on the heap where the broker tells.", false)
	}
	v.device(chart, end)

	if open {
		c := chart(latency,
			line("p99", "s4", "", true, true, func(b *bin) float64 { return b.lag99 }),
			line("max", "s5", "1.5 3", false, true, func(b *bin) float64 { return b.lagTop }))
		v.add(c, "lag", "ns", "Dispatch lag", "How late the generator itself was. No latency near it means anything.", false)
	}
}

// quiet: a device that moves fewer bytes a second is not drawn.
const quiet = 1024

// device draws the target's disk and network, if anything is known of them.
func (v *view) device(chart func(plot.Axis, ...plot.Line) *plot.Chart, end float64) {
	if v.Evidence == nil {
		return
	}
	e := v.Evidence.Samples
	var lines []plot.Line
	for _, l := range []struct {
		name, class, dash string
		of                func(i int) float64
	}{
		{"disk write", "s2", "", func(i int) float64 { return e[i].DiskWrite }},
		{"disk read", "s4", "6 3", func(i int) float64 { return e[i].DiskRead }},
		{"net in", "s1", "", func(i int) float64 { return e[i].NetIn }},
		{"net out", "s3", "2 2", func(i int) float64 { return e[i].NetOut }},
	} {
		if x, y := v.samples(end, l.of); x != nil && highest(y) > quiet {
			lines = append(lines, plot.Line{Name: l.name, Class: l.class, Dash: l.dash, X: x, Y: y})
		}
	}
	if len(lines) > 0 {
		v.add(chart(plot.Axis{Label: figure.Bytes, Binary: true, Title: "a second"}, lines...), "device", "B", "Disk and network", "Bytes a second: the device under its data, its sockets.", false)
	}
	names := map[string]bool{}
	for i := range e {
		for n := range e[i].LatencyP99 {
			names[n] = true
		}
	}
	lines = nil
	for i, l := range v.Evidence.Latencies {
		if !names[l.Name] || i > 5 {
			continue
		}
		x, y := v.samples(end, func(i int) float64 {
			if p := e[i].LatencyP99[l.Name]; p > 0 {
				return float64(p)
			}
			return math.NaN()
		})
		lines = append(lines, plot.Line{Name: short(l.Name), Class: fmt.Sprintf("s%d", i+1), Dash: [...]string{"", "6 3", "2 2", "8 3 2 3", "", "4 4"}[i], X: x, Y: y})
	}
	if len(lines) > 0 {
		v.add(chart(plot.Axis{Kind: plot.Log, Label: figure.Latency}, lines...), "inside", "ns", "Inside of the broker, p99", "What it measures itself, of each of its intervals: where the time goes.", false)
	}
}

// short names a latency of the broker in the room beside a chart.
func short(name string) string { return strings.TrimPrefix(name, "produce_") }

// samples makes a line of the evidence between 0 and end; nil without any.
func (v *view) samples(end float64, of func(i int) float64) (x, y []float64) {
	if v.Evidence == nil {
		return nil, nil
	}
	e := v.Evidence.Samples
	per := (len(e) + barsMax - 1) / barsMax
	for i := 0; i < len(e); i += max(per, 1) {
		worst := math.NaN()
		for k := i; k < min(i+per, len(e)); k++ {
			if w := of(k); math.IsNaN(worst) || w > worst {
				worst = w
			}
		}
		if at := e[i].At; at >= 0 && at <= end+0.5 {
			x, y = append(x, min(at, end)), append(y, worst)
		}
	}
	return x, y
}

func highest(y []float64) float64 {
	top := 0.0
	for _, v := range y {
		if v > top {
			top = v
		}
	}
	return top
}

func hasTarget(all []bin) bool {
	for i := range all {
		if all[i].targetN > 0 {
			return true
		}
	}
	return false
}

// bands are phases, and what happened to the target.
func (v *view) bands(m *load.Measured) []plot.Band {
	var out []plot.Band
	for i := range m.Phases {
		p := &m.Phases[i]
		b := plot.Band{At: p.Start, Until: p.Start + p.Seconds, Name: p.Name, Class: "phase"}
		if !p.Measured {
			b.Class = "idle"
		}
		out = append(out, b)
	}
	for i := range v.Result.Faults {
		f := &v.Result.Faults[i]
		out = append(out, plot.Band{At: f.At, Until: f.At + max(f.For, 0.01), Name: f.Kind, Class: "fault"})
		if f.Recovered && f.Recovery > 0 {
			out = append(out, plot.Band{At: f.At + f.For, Until: f.At + f.For + f.Recovery, Class: "recovery"})
		}
	}
	if v.Evidence != nil {
		for _, f := range v.Evidence.Files {
			if f.Name == "cpu.pb.gz" {
				out = append(out, plot.Band{At: f.At, Until: f.Until, Name: "profile", Class: "profile"})
			}
		}
	}
	return out
}

// levels are the latency objectives of the whole run.
func levels(s *scenario.Scenario) []plot.Level {
	if s == nil {
		return nil
	}
	var out []plot.Level
	for i := range s.Objectives {
		if o := &s.Objectives[i]; o.AtMost > 0 && len(o.Metric) > 4 && o.Metric[:4] == "e2e_" {
			name := "objective " + o.Metric[4:] + " ≤ " + figure.Latency(float64(o.AtMost))
			if o.Phase != "" {
				name += " (" + o.Phase + ")"
			}
			out = append(out, plot.Level{At: float64(o.AtMost), Name: name})
		}
	}
	return out
}

// percentiles draws the distributions over the whole run, the axis by nines.
func (v *view) percentiles(m *load.Measured) {
	h := &m.Total.Histograms
	if h.E2E == nil && h.Ack == nil {
		return
	}
	c := &plot.Chart{X: plot.Axis{Kind: plot.Nines, Min: 0, Label: nines, Title: "percentile"}, Y: plot.Axis{Kind: plot.Log, Label: figure.Latency}}
	most := 0.9
	add := func(h *hdrhistogram.Histogram, name, class, dash string, wide bool) {
		if h == nil || h.TotalCount() == 0 {
			return
		}
		l := plot.Line{Name: name, Class: class, Dash: dash, Wide: wide}
		// As far as there are values: the last step is the largest one.
		last := 1 - 1/float64(h.TotalCount())
		for n := 0.0; ; n += 0.05 {
			p := min(1-math.Pow(10, -n), last)
			l.X, l.Y = append(l.X, p), append(l.Y, float64(max(h.ValueAtQuantile(100*p), 1000)))
			if p >= last || n > 7 {
				break
			}
		}
		most = max(most, last)
		c.Lines = append(c.Lines, l)
	}
	add(h.E2E, "delivered", "s1", "", true)
	add(h.Ack, "acked", "s2", "6 3", false)
	if v.Loop == scenario.OpenLoop {
		add(h.Service, "sent→ack", "s3", "2 2", false)
		add(h.Lag, "lag", "s5", "1.5 3", false)
	}
	c.X.Max = most
	v.add(c, "", "", "Latency by percentile", "All measured phases; each step to the right is ten times rarer. Drawn from 1 µs up.", false)
}

// nines labels 0.999 as 99.9 %.
func nines(p float64) string {
	s := fmt.Sprintf("%.7g", math.Round(p*1e9)/1e7)
	return s + " %"
}

// seconds labels a time axis that ends at end.
func seconds(end float64) func(float64) string {
	return func(v float64) string {
		switch {
		case end >= 4*3600:
			return fmt.Sprintf("%.4g h", v/3600)
		case end >= 600:
			return fmt.Sprintf("%.4g min", v/60)
		}
		return fmt.Sprintf("%.4g s", v)
	}
}

func cpus(v float64) string { return fmt.Sprintf("%.3g", v) }
