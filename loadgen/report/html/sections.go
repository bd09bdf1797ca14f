package html

import (
	"fmt"
	"strings"

	"github.com/portask/portask/loadgen/evidence"
	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/report/figure"
	"github.com/portask/portask/loadgen/scenario"
)

// ns writes a latency for tables; nothing was measured: a dash.
func ns(v int64) string {
	if v == 0 {
		return "–"
	}
	return figure.Latency(float64(v))
}

// tile adds a key figure: a number and its unit behind a space.
func (v *view) tile(name, value, note string) {
	number, unit, _ := strings.Cut(value, " ")
	v.Tiles = append(v.Tiles, tile{Name: name, Value: number, Unit: unit, Note: note})
}

// tail is the p99.9, or that there are too few values for one.
func tail(q *load.Quantiles) string {
	if v, ok := q.Tail(); ok {
		return ns(v)
	}
	return figure.None
}

func (v *view) tiles(m *load.Measured) {
	t := &m.Total
	add := v.tile
	note := fmt.Sprintf("%.1f MB/s of values", t.DeliveredMBps)
	if t.Offered > 0 {
		note = figure.Rate(t.Offered) + " offered · " + note
	}
	add("delivered", figure.Rate(t.Delivered)+" msg/s", note)
	l := &t.Latency
	of := "end to end"
	if v.Loop == scenario.ClosedLoop {
		of = "service time"
	}
	note = "acknowledged " + ns(l.Ack.P50)
	if len(v.Result.Faults) > 0 {
		note = "without the faults"
	}
	add(of+" p50", ns(l.E2E.P50), note)
	add("p99", ns(l.E2E.P99), "acknowledged "+ns(l.Ack.P99))
	add("p99.9", tail(&l.E2E), "longest "+ns(l.E2E.Max))
	c := v.Counts
	bad := c.Violations()
	x := tile{Name: "lost or damaged", Value: figure.Count(bad), Unit: "of " + figure.Count(c.Sent), Note: "every one is verified"}
	if bad > 0 && len(v.Violations) > 0 {
		x.Class = "bad"
	}
	v.Tiles = append(v.Tiles, x)
	if u := v.Result.Target; u != nil {
		add("target's CPU a million", fmt.Sprintf("%.2f s", u.CPUPerMillion), figure.Bytes(float64(u.RSSMaxBytes))+" RSS at most")
	}
}

// goals holds the objectives against what was measured.
func (v *view) goals(s *scenario.Scenario, m *load.Measured) {
	if s == nil {
		return
	}
	for i := range s.Objectives {
		o := &s.Objectives[i]
		p := &m.Total
		name := strings.NewReplacer("p99_9", "p99.9", "_", " ", "e2e", "end to end").Replace(o.Metric)
		if o.Phase != "" {
			name += ", phase " + o.Phase
			for k := range m.Phases {
				if m.Phases[k].Name == o.Phase {
					p = &m.Phases[k]
				}
			}
		}
		g := goal{Name: name}
		switch o.Metric {
		case "delivered_rate", "acked_rate":
			got := p.Delivered
			if o.Metric == "acked_rate" {
				got = p.Acked
			}
			g.Want, g.Got, g.Met = "≥ "+figure.Rate(o.AtLeast)+" msg/s", figure.Rate(got)+" msg/s", got >= o.AtLeast
		default:
			got, ok := quantile(&p.Latency, o.Metric)
			if !ok {
				continue
			}
			g.Want, g.Got, g.Met = "≤ "+figure.Latency(float64(o.AtMost)), ns(got), got <= int64(o.AtMost)
		}
		v.Goals = append(v.Goals, g)
	}
}

// quantile is the value of an objective's metric: e2e_p99.
func quantile(l *load.Latencies, metric string) (int64, bool) {
	of, name, _ := strings.Cut(metric, "_")
	q := map[string]*load.Quantiles{"e2e": &l.E2E, "ack": &l.Ack, "service": &l.Service, "lag": &l.Lag}[of]
	if q == nil {
		return 0, false
	}
	got, ok := map[string]int64{"p50": q.P50, "p90": q.P90, "p99": q.P99, "p99_9": q.P999, "max": q.Max}[name]
	return got, ok
}

func (v *view) latencies(m *load.Measured) {
	v.Latencies.Head = []string{"", "p50", "p90", "p99", "p99.9", "max", "mean", "values"}
	row := func(name string, q load.Quantiles) {
		if q.Count > 0 {
			v.Latencies.add(name, ns(q.P50), ns(q.P90), ns(q.P99), tail(&q), ns(q.Max), figure.Latency(q.Mean), figure.Count(uint64(q.Count)))
		}
	}
	l := &m.Total.Latency
	apart := ""
	if len(v.Result.Faults) > 0 {
		apart = ", faults apart"
	}
	from := "intended"
	if v.Loop == scenario.ClosedLoop {
		from = "sent"
	}
	row(from+" → delivered and verified"+apart, l.E2E)
	row(from+" → acknowledged"+apart, l.Ack)
	if v.Loop == scenario.OpenLoop {
		row("sent → acknowledged", l.Service)
		row("dispatch lag, the generator's own error", l.Lag)
	}
	for i := range v.Result.Faults {
		f := &v.Result.Faults[i]
		row(fmt.Sprintf("delivered, in the fault %s at %s", f.Kind, figure.Seconds(f.At)), f.E2E)
	}
}

func (v *view) phases(m *load.Measured) {
	v.Phases.Head = []string{"phase", "length", "offered/s", "sent/s", "acknowledged/s", "delivered/s", "p50", "p99", "p99.9", "held back"}
	for i := range m.Phases {
		p := &m.Phases[i]
		name := p.Name
		if !p.Measured {
			name += " (not measured)"
		}
		offered := "–"
		if p.Offered > 0 {
			offered = figure.Rate(p.Offered)
		}
		l := &p.Latency.E2E
		v.Phases.add(name, figure.Seconds(p.Seconds), offered, figure.Rate(p.Sent), figure.Rate(p.Acked), figure.Rate(p.Delivered), ns(l.P50), ns(l.P99), tail(l), figure.Count(p.HeldBack))
	}
}

func (v *view) fates() {
	c := v.Counts
	add := func(n uint64, name, meaning, class string) {
		if class == "must" {
			class = "good"
			if n > 0 {
				class = "bad"
			}
		}
		v.Fates = append(v.Fates, fate{name, figure.Count(n), meaning, class})
	}
	add(c.Sent, "sent", "handed to the client", "")
	add(c.Acked, "acknowledged", "at the level of the run", "")
	add(c.Delivered, "delivered and verified", "first deliveries, compared byte for byte", "")
	lost := "must"
	if v.Ack == "none" {
		lost = ""
	}
	add(c.Lost, "lost", "acknowledged, and never delivered", lost)
	add(c.Duplicated, "duplicated", "delivered again", "must")
	add(c.Reordered, "reordered", "after a later message of the same producer and partition", "must")
	add(c.Corrupt, "corrupt", "not what was sent", "must")
	add(c.Phantom, "phantom", "never sent", "must")
	add(c.Misplaced, "misplaced", "from another partition than sent to", "must")
	add(v.OffsetsBack, "offsets used again", "a delivery at an offset that was passed", "must")
	if c.UnackedDelivered > 0 {
		add(c.UnackedDelivered, "delivered though not acknowledged", "allowed: the answer was lost, not the message", "")
	}
	if c.Failed > 0 {
		add(c.Failed, "given up by the client", "allowed: it said so", "")
	}
	if c.Unanswered > 0 {
		add(c.Unanswered, "unanswered", "without an outcome at the end", "")
	}
	if c.Foreign > 0 {
		add(c.Foreign, "of other producers", "allowed: others may use the topic", "")
	}
}

// addFact leaves out what is not known.
func addFact(to *[]fact, name, value string) {
	if value != "" && value != "0" {
		*to = append(*to, fact{Name: name, Value: value})
	}
}

func (v *view) facts() {
	add := addFact
	p := &v.Document.Payload
	add(&v.Payload, "values", p.Describe)
	size := fmt.Sprintf("%s; %.0f B in the mean", p.Size, p.MeanBytes)
	if p.Sizes.Min != p.Sizes.Max {
		size += fmt.Sprintf("; p50 %d, p99 %d, max %d", p.Sizes.P50, p.Sizes.P99, p.Sizes.Max)
	}
	add(&v.Payload, "size", size)
	if p.Keys != "none" {
		add(&v.Payload, "keys", p.Keys)
	}
	add(&v.Payload, "codec", p.Codec)
	add(&v.Payload, "entropy", fmt.Sprintf("%.2f bits a byte", p.Entropy))
	add(&v.Payload, "zstd level 1", fmt.Sprintf("%.2f : 1 in batches, %.2f : 1 each by itself", p.Zstd1, p.Zstd1Single))
	if w := &v.Wire; w.Batches > 0 {
		add(&v.Payload, "on the wire", fmt.Sprintf("%s of batches as %s: %.2f : 1", figure.Bytes(float64(w.RawBytes)), figure.Bytes(float64(w.Bytes)), w.Compression))
		add(&v.Payload, "messages a batch", fmt.Sprintf("%.1f", w.MessagesPerBatch))
		if w.Retries > 0 {
			add(&v.Payload, "batches sent again", fmt.Sprintf("%d, of them %d recognised as duplicates", w.Retries, w.Duplicates))
		}
	}
	v.target(func(name, value string) { add(&v.Target, name, value) })
	for _, t := range v.Topics {
		if len(v.Target) < 24 {
			add(&v.Target, "topic", fmt.Sprintf("%s: %d partitions, visibility %s", t.Name, t.Partitions, t.Visibility))
		}
	}
	v.machine(func(name, value string) { add(&v.Machine, name, value) })
	v.broker()
}

func (v *view) faults() {
	v.Faults.Head = []string{"fault", "began", "lasted", "on time again after", "messages", "lost", "given up", "duplicated", "p50", "p99", "max"}
	for i := range v.Result.Faults {
		f := &v.Result.Faults[i]
		recovery := "never"
		if f.Recovered {
			recovery = figure.Seconds(f.Recovery)
		}
		v.Faults.add(f.Kind, figure.Seconds(f.At), figure.Seconds(f.For), recovery, figure.Count(uint64(f.Of.Messages)), figure.Count(uint64(f.Of.Lost)),
			figure.Count(uint64(f.Of.GivenUp)), figure.Count(uint64(f.Of.Duplicated)), ns(f.E2E.P50), ns(f.E2E.P99), ns(f.E2E.Max))
	}
}

func (v *view) target(add func(name, value string)) {
	add("system", strings.TrimSpace(v.System.System+" "+v.System.Version))
	add("survives, once acknowledged", fmt.Sprint(v.Durability))
	if e := v.Evidence; e != nil {
		add("engine", e.Engine)
		add("built with", e.Go)
		add("evidence from", strings.Join(e.Sources, "; "))
	}
	if u := v.Result.Target; u != nil {
		add("CPU", fmt.Sprintf("%.2f s; %.2f s per million messages", u.CPUSeconds, u.CPUPerMillion))
		add("memory", fmt.Sprintf("%s RSS at the end, %s at most", figure.Bytes(float64(u.RSSBytes)), figure.Bytes(float64(u.RSSMaxBytes))))
		add("descriptors", fmt.Sprint(u.FDs))
	}
}

func (v *view) machine(add func(name, value string)) {
	g := &v.Generator
	add("generator's work", fmt.Sprintf("%s of its processors; %.1f s spun by the pacer besides", figure.Percent(g.Share), g.SpinSeconds))
	add("taken by the host (steal)", figure.Percent(g.Steal))
	pacing := "exact"
	if !g.ExactPacing {
		pacing = "by timer: latencies below 5 ms are the generator's"
	}
	if v.Loop == scenario.OpenLoop {
		add("pacing", pacing)
	}
	if v.Environment != nil {
		v.environment(v.Environment, add)
	}
}

func (v *view) environment(e *evidence.Environment, add func(name, value string)) {
	add("processor", fmt.Sprintf("%s, %d", e.CPU, e.Processors))
	add("memory", figure.Bytes(float64(e.MemoryBytes)))
	add("kernel", e.Kernel)
	add("Go", fmt.Sprintf("%s, GOMAXPROCS %d", e.Go, e.MaxProcs))
	add("governor", e.Governor)
	add("clock source", e.ClockSource)
	add("huge pages", e.HugePages)
	add("virtual machine", e.Virtual)
	if e.CgroupCPUs > 0 {
		add("control group", fmt.Sprintf("%.2g processors", e.CgroupCPUs))
	}
	if e.CgroupMemoryBytes > 0 {
		add("its memory", figure.Bytes(float64(e.CgroupMemoryBytes)))
	}
	add("load when it began", fmt.Sprintf("%.2f", e.Load1))
	add("descriptor limit", fmt.Sprint(e.OpenFiles))
	add("loadgen", strings.TrimSpace(e.Loadgen+" "+e.Revision))
	if e.Race {
		add("built with", "the race detector: no figure means anything")
	}
}

// broker is what the target says of itself.
func (v *view) broker() {
	e := v.Evidence
	if e == nil {
		return
	}
	if len(e.Latencies) > 0 {
		v.Broker.Head = []string{"inside of the broker, since its start", "p50", "p99", "p99.9", "max", "values"}
		for _, l := range e.Latencies {
			v.Broker.add(strings.ReplaceAll(l.Name, "_", " "), ns(l.P50), ns(l.P99), ns(l.P999), ns(l.Max), figure.Count(l.Count))
		}
	}
	add := func(name, format string, args ...any) {
		v.Totals = append(v.Totals, fact{Name: name, Value: fmt.Sprintf(format, args...)})
	}
	if t := e.Totals; t != nil {
		n := max(1, float64(t.Messages))
		add("messages in", "%s in %s batches: %.1f a batch", figure.Count(t.Messages), figure.Count(t.Batches), n/max(1, float64(t.Batches)))
		add("CPU", "%.2f s, %.0f %% of it collecting garbage (%d times)", t.CPUSeconds, 100*t.GCCPUSeconds/max(t.CPUSeconds, 1e-9), t.GCs)
		add("system calls of the loops", "%s: %.2f a message", figure.Count(t.Syscalls), float64(t.Syscalls)/n)
		add("allocations", "%.2f and %.0f B a message", float64(t.AllocObjects)/n, float64(t.AllocBytes)/n)
		add("syncs", "%s, %s writes", figure.Count(t.Syncs), figure.Count(t.Writes))
		add("sockets", "%s in, %s out", figure.Bytes(float64(t.SocketIn)), figure.Bytes(float64(t.SocketOut)))
		if t.Errors+t.Refused+t.Duplicates+t.HistoryReads > 0 {
			add("unusual", "%d errors, %d offers that found a queue full, %d duplicates, %d reads of history", t.Errors, t.Refused, t.Duplicates, t.HistoryReads)
		}
		if t.Steal > 0.001 || t.ThrottledSec > 0 {
			add("its machine", "steal %s, throttled for %.1f s", figure.Percent(t.Steal), t.ThrottledSec)
		}
	}
	if e.BreachCount > 0 {
		add("intervals above an objective", "%d, the first at %s: %s %s", e.BreachCount, figure.Seconds(e.Breaches[0].At), strings.ReplaceAll(e.Breaches[0].Metric, "_", " "), ns(e.Breaches[0].Got))
	}
	for _, f := range e.Files {
		v.Files = append(v.Files, fact{Name: f.Name, Value: figure.Bytes(float64(f.Bytes)), Note: f.What})
	}
}
