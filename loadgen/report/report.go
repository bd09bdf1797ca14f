// Package report writes a run's result: a table and a summary for people, JSON
// and CSV for programs. Packages below it write the other forms.
package report

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/report/figure"
	"github.com/portask/portask/loadgen/scenario"
)

// Table writes the result for people. An invalid run's counts are shown, and
// why it is invalid; its rates and latencies are not.
func Table(w io.Writer, res *load.Result) error {
	t := table{w: w}
	kind := "open loop, latencies from the intended time"
	if res.Loop == scenario.ClosedLoop {
		kind = "closed loop, latencies are service times"
	}
	t.row("scenario", "%s (%s), %s", res.Scenario, res.Hash, kind)
	t.row("target", "%s %s, %d topics, %d partitions, ack %s (survives: %s), visibility %s", res.System.System, res.System.Version, len(res.Topics), res.Partitions, res.Ack, res.Durability, res.Visibility)
	t.row("clients", "%d producers, %d consumers", res.Producers, res.Consumers)
	p := &res.Payload
	t.row("payload", "%s; %s of %s", p.Describe, p.Codec, p.Stats)
	if p.Keys != "" && p.Keys != "none" {
		t.row("keys", "%s", p.Keys)
	}
	t.counts(res)
	if m := res.Measured; m != nil {
		t.phase(res, &m.Total)
		measured := 0
		for i := range m.Phases {
			if m.Phases[i].Measured {
				measured++
			}
		}
		for i := range m.Phases {
			if x := &m.Phases[i]; x.Measured && measured > 1 {
				t.row("phase "+x.Name, "%s msg/s delivered%s; e2e p50 %s  p99 %s  p99.9 %s", figure.Rate(x.Delivered), offered(res, x), dur(x.Latency.E2E.P50), dur(x.Latency.E2E.P99), tail(&x.Latency.E2E))
			}
		}
	}
	for i := range res.Faults {
		f := &res.Faults[i]
		t.row("fault "+f.Kind, "%s", f)
		t.latency("end to end, in the fault", f.E2E)
	}
	t.row("compression", "%.2f : 1 (%s of batches as %s on the wire), %.1f messages a batch", res.Wire.Compression, megabytes(res.Wire.RawBytes), megabytes(res.Wire.Bytes), res.Wire.MessagesPerBatch)
	if res.Wire.Retries > 0 {
		t.row("retries", "%d batches sent again, %d of them recognised as duplicates", res.Wire.Retries, res.Wire.Duplicates)
	}
	if u := res.Target; u != nil {
		t.row("target's process", "%.2f CPU s per million messages, RSS %.1f MiB (at most %.1f)", u.CPUPerMillion, mib(u.RSSBytes), mib(u.RSSMaxBytes))
	}
	g := &res.Generator
	priority := ""
	if g.Priority != "" {
		priority = ", priority " + g.Priority
	}
	t.row("generator", "%.0f %% of the processors for its work, %.1f s spun by the pacer%s; steal %.1f %%", 100*g.Share, g.SpinSeconds, priority, 100*g.Steal)
	for _, e := range res.Errors {
		t.row("error", "%s", e)
	}
	for _, n := range res.Notes {
		t.row("note", "%s", n)
	}
	for _, v := range res.Violations {
		t.row("VIOLATION", "%s", v)
	}
	for _, v := range res.Invalid {
		t.row("INVALID", "%s", v)
	}
	for _, v := range res.Missed {
		t.row("MISSED", "%s", v)
	}
	return t.err
}

// counts writes the fate of messages, which is meant whether or not the run is
// valid.
func (t *table) counts(res *load.Result) {
	c := res.Counts
	t.row("messages", "%s sent, %s acknowledged, %s delivered and verified", figure.Count(c.Sent), figure.Count(c.Acked), figure.Count(c.Delivered))
	t.row("lost", "%d", c.Lost)
	t.row("duplicated", "%d", c.Duplicated)
	t.row("reordered", "%d", c.Reordered)
	t.row("corrupt", "%d", c.Corrupt)
	if n := c.Phantom + c.Misplaced + res.OffsetsBack; n > 0 {
		t.row("other faults", "%d phantom, %d misplaced, %d offsets used again", c.Phantom, c.Misplaced, res.OffsetsBack)
	}
	if n := c.Failed + c.UnackedDelivered + c.Foreign; n > 0 {
		t.row("allowed", "%d given up by the client, %d delivered though not acknowledged, %d of other producers", c.Failed, c.UnackedDelivered, c.Foreign)
	}
}

// phase writes what was measured of a phase, or all.
func (t *table) phase(res *load.Result, m *load.Phase) {
	t.row("rate", "%s msg/s delivered%s; %.1f MB/s", figure.Rate(m.Delivered), offered(res, m), m.DeliveredMBps)
	apart := ""
	if len(res.Faults) > 0 {
		apart = ", faults apart"
	}
	name := "end to end" + apart
	t.latency(name, m.Latency.E2E)
	name = "acknowledged"
	if res.Ack == "none" {
		name = "passed on by the client"
	}
	t.latency(name+apart, m.Latency.Ack)
	if res.Loop == scenario.OpenLoop {
		t.latency("dispatch lag (generator)", m.Latency.Lag)
		if m.HeldBack > 0 {
			t.row("held back", "%s messages by the target, up to %s", figure.Count(m.HeldBack), dur(m.HeldBackMax))
		}
	}
}

func offered(res *load.Result, m *load.Phase) string {
	if res.Loop != scenario.OpenLoop {
		return ""
	}
	return ", " + figure.Rate(m.Offered) + " offered"
}

type table struct {
	w   io.Writer
	err error
}

func (t *table) row(name, format string, args ...any) {
	if t.err == nil {
		_, t.err = fmt.Fprintf(t.w, "%-26s %s\n", name, fmt.Sprintf(format, args...))
	}
}

func (t *table) latency(name string, q load.Quantiles) {
	t.row(name, "p50 %s  p99 %s  p99.9 %s  max %s", dur(q.P50), dur(q.P99), tail(&q), dur(q.Max))
}

// tail is the p99.9, or that there are too few values for one.
func tail(q *load.Quantiles) string {
	if v, ok := q.Tail(); ok {
		return dur(v)
	}
	return figure.None
}

// Progress is a snapshot on one line. Latencies of an interval in which the
// generator was the limit are left out, as those of such a run are.
func Progress(s load.Snapshot) string {
	v := &s.Last
	seconds := max(v.Seconds(), 1e-9)
	e2e := fmt.Sprintf("e2e p50 %s p99 %s", dur(v.Latency.E2E.P50), dur(v.Latency.E2E.P99))
	if v.Latency.Late() {
		e2e = "e2e not known, dispatch lag p99 " + dur(v.Latency.Lag.P99)
	}
	line := fmt.Sprintf("%4.0f/%.0f s  sent %s/s  delivered %s/s  %s  outstanding %s",
		s.Elapsed.Seconds(), s.Planned.Seconds(), figure.Rate(float64(v.Sent)/seconds), figure.Rate(float64(v.Delivered)/seconds),
		e2e, figure.Count(v.Outstanding))
	if s.Failed > 0 {
		line += fmt.Sprintf("  failed %s", figure.Count(s.Failed))
	}
	if t := v.Target; t != nil {
		line += fmt.Sprintf("  target %.0f %% CPU, %.0f MiB", 100*t.CPUs, mib(t.RSSBytes))
	}
	return line
}

// dur rounds a latency to three significant digits or so.
func dur(ns int64) string {
	d := time.Duration(ns)
	switch {
	case d >= 10*time.Second:
		d = d.Round(100 * time.Millisecond)
	case d >= time.Second:
		d = d.Round(10 * time.Millisecond)
	case d >= 10*time.Millisecond:
		d = d.Round(100 * time.Microsecond)
	case d >= time.Millisecond:
		d = d.Round(10 * time.Microsecond)
	default:
		d = d.Round(time.Microsecond)
	}
	return strings.Replace(d.String(), "µ", "u", 1)
}

func megabytes(n uint64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

func mib(n int64) float64 { return float64(n) / (1 << 20) }
