// Package report writes a run's result for people, for programs and for
// benchstat.
package report

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/portask/portask/broker/sysmetrics"
	"github.com/portask/portask/loadgen/load"
)

// JSON writes the result, indented.
func JSON(w io.Writer, res *load.Result) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(res)
}

// units tell benchstat which way is better. They go first in every file.
const units = `Unit msg/s better=higher
Unit MB/s better=higher
Unit ack-p50-ns better=lower
Unit ack-p99-ns better=lower
Unit e2e-p50-ns better=lower
Unit e2e-p99-ns better=lower
Unit e2e-p99.9-ns better=lower
Unit lag-p99-ns better=lower
Unit cpu-ns/msg better=lower
Unit rss-B better=lower
Unit comp-ratio better=higher
Unit msgs/batch better=higher
Unit lost better=lower assume=exact
Unit dup better=lower assume=exact
Unit reordered better=lower assume=exact
Unit corrupt better=lower assume=exact
`

// Bench describes a run for the Go benchmark format.
type Bench struct {
	Scenario string // a name without slashes and spaces
	Payload  string
	Size     string
	Commit   string
	Machine  sysmetrics.Machine
	// Keys are more configuration lines, such as role and round.
	Keys map[string]string
}

// WriteBench writes one line with its configuration. A run is one line: windows
// of one run depend on each other.
func WriteBench(w io.Writer, res *load.Result, d Bench) error {
	var b strings.Builder
	b.WriteString(units)
	fmt.Fprintf(&b, "goos: %s\ngoarch: %s\ncpu: %s\nos: %s\ngo: %s\ncommit: %s\npayload: %s\n",
		runtime.GOOS, runtime.GOARCH, d.Machine.CPU, d.Machine.Kernel, d.Machine.Go, d.Commit, d.Payload)
	if res.Mode == load.Open {
		fmt.Fprintf(&b, "arrival: %s\n", res.Arrival)
	}
	for _, k := range slices.Sorted(maps.Keys(d.Keys)) {
		fmt.Fprintf(&b, "%s: %s\n", k, d.Keys[k])
	}
	fmt.Fprintf(&b, "BenchmarkLoad/scenario=%s/mode=%s/ack=%s/visibility=%s/", d.Scenario, res.Mode, res.Ack, res.Visibility)
	if res.Mode == load.Open {
		fmt.Fprintf(&b, "rate=%.0f/", res.Offered)
	}
	fmt.Fprintf(&b, "size=%s-%d\t%d", d.Size, d.Machine.Cores, max(1, res.Counts.Delivered))
	metric := func(v float64, unit string) { fmt.Fprintf(&b, "\t%.6g %s", v, unit) }
	if res.Delivered > 0 {
		metric(1e9/res.Delivered, "ns/msg")
	}
	metric(res.Delivered, "msg/s")
	metric(res.DeliveredMBps, "MB/s")
	metric(float64(res.AckLatency.P50), "ack-p50-ns")
	metric(float64(res.AckLatency.P99), "ack-p99-ns")
	metric(float64(res.E2E.P50), "e2e-p50-ns")
	metric(float64(res.E2E.P99), "e2e-p99-ns")
	metric(float64(res.E2E.P999), "e2e-p99.9-ns")
	if res.Mode == load.Open {
		metric(float64(res.Lag.P99), "lag-p99-ns")
	}
	if t := res.Target; t != nil {
		metric(t.CPUPerMillion*1e3, "cpu-ns/msg")
		metric(float64(t.RSSMaxBytes), "rss-B")
	}
	metric(res.Compression, "comp-ratio")
	metric(res.MessagesPerBatch, "msgs/batch")
	metric(float64(res.Counts.Lost), "lost")
	metric(float64(res.Counts.Duplicated), "dup")
	metric(float64(res.Counts.Reordered), "reordered")
	metric(float64(res.Counts.Corrupt), "corrupt")
	b.WriteByte('\n')
	_, err := io.WriteString(w, b.String())
	return err
}

// Table writes the result for people.
func Table(w io.Writer, res *load.Result) error {
	t := table{w: w}
	kind := "open loop, latencies from the intended time"
	if res.Mode == load.Closed {
		kind = "closed loop, latencies are service times"
	}
	t.row("run", "%s: %d producers, %d consumers, %d partitions, ack %s, visibility %s", kind, res.Producers, res.Consumers, res.Partitions, res.Ack, res.Visibility)
	c := res.Counts
	t.row("messages", "%s sent, %s acknowledged, %s delivered and verified", count(c.Sent), count(c.Acked), count(c.Delivered))
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
	if res.Mode == load.Open {
		t.row("rate", "%s msg/s delivered, %s offered; %.1f MB/s", perSec(res.Delivered), perSec(res.Offered), res.DeliveredMBps)
	} else {
		t.row("rate", "%s msg/s delivered; %.1f MB/s", perSec(res.Delivered), res.DeliveredMBps)
	}
	name := "end to end"
	if res.Outage != nil {
		name = "end to end, outage apart"
	}
	t.latency(name, res.E2E)
	if o := res.Outage; o != nil {
		over := "until the backlog was worked off: not reached"
		if o.Seconds > 0 {
			over = fmt.Sprintf("%.2f s from the kill until every partition was on time again", o.Seconds)
		}
		t.row("outage", "%s; %s messages due or in flight in it", over, count(uint64(o.Delay.Count)))
		t.latency("end to end, in the outage", o.Delay)
	}
	name = "acknowledged"
	if res.Ack == "none" {
		name = "written to the socket"
	}
	if res.Outage != nil {
		name += ", outage included"
	}
	t.latency(name, res.AckLatency)
	if res.Mode == load.Open {
		t.latency("dispatch lag (generator)", res.Lag)
		if res.HeldBack > 0 {
			t.row("held back", "%s messages by a full client buffer, up to %s", count(res.HeldBack), dur(res.HeldBackMax))
		}
	}
	t.row("compression", "%.2f : 1 (%s of batches as %s on the wire), %.1f messages a batch", res.Compression, megabytes(res.RawBytes), megabytes(res.WireBytes), res.MessagesPerBatch)
	if res.Retries > 0 {
		t.row("retries", "%d batches sent again, %d of them recognised as duplicates", res.Retries, res.Duplicates)
	}
	if u := res.Target; u != nil {
		t.row("broker", "%.2f CPU s per million messages, RSS %.1f MiB (at most %.1f)", u.CPUPerMillion, mib(u.RSSBytes), mib(u.RSSMaxBytes))
	}
	t.row("generator", "%.0f %% of the processors; steal %.1f %%", 100*res.Generator, 100*res.Steal)
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
	return t.err
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
	t.row(name, "p50 %s  p99 %s  p99.9 %s  max %s", dur(q.P50), dur(q.P99), dur(q.P999), dur(q.Max))
}

// Progress is a snapshot on one line.
func Progress(s load.Snapshot) string {
	line := fmt.Sprintf("%4.0f/%.0f s  sent %s/s  delivered %s/s  e2e p50 %s p99 %s  outstanding %s",
		s.Elapsed.Seconds(), s.Planned.Seconds(), perSec(s.SentPerSec), perSec(s.DeliveredPerSec), dur(s.E2E.P50), dur(s.E2E.P99), count(s.Outstanding))
	if s.Failed > 0 {
		line += fmt.Sprintf("  failed %s", count(s.Failed))
	}
	if s.TargetRSS > 0 {
		line += fmt.Sprintf("  broker %.0f %% CPU, %.0f MiB", 100*s.TargetCPU, mib(s.TargetRSS))
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

// count groups digits by thousands.
func count(n uint64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func perSec(v float64) string { return count(uint64(max(v, 0) + 0.5)) }

func megabytes(n uint64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

func mib(n int64) float64 { return float64(n) / (1 << 20) }
