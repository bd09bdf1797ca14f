package report

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/report/figure"
	"github.com/portask/portask/loadgen/scenario"
)

// Word is the verdict in a word or two.
func Word(res *load.Result) string {
	switch res.ExitStatus() {
	case 4:
		return "DATA VIOLATION"
	case 3:
		return "INVALID"
	case 2:
		return "OBJECTIVE MISSED"
	}
	return "VALID"
}

// Markdown writes a summary for a pull request or a wiki: verdict, figures,
// verification, machine. Of an invalid run it writes no latencies and no rates.
func Markdown(w io.Writer, d *Document) error {
	b := bufio.NewWriter(w)
	p := func(format string, args ...any) { fmt.Fprintf(b, format, args...) }
	p("# %s: %s\n\n", md(d.Scenario), Word(d.Result))
	for _, list := range [][]load.Problem{d.Violations, d.Invalid, d.Missed} {
		for _, x := range list {
			p("- **%s**\n", md(x.String()))
		}
	}
	if d.ExitStatus() == 0 {
		p("Every promise about messages was kept, and every objective reached.\n")
	}
	kind := "open loop, latencies from the intended send time"
	if d.Loop == scenario.ClosedLoop {
		kind = "closed loop, latencies are service times"
	}
	p("\n%s %s · ack %s (survives: %s) · visibility %s · %s · %d producers, %d consumers, %d partitions · %s\n\n",
		md(d.System.System), md(d.System.Version), d.Ack, d.Durability, d.Visibility, kind, d.Producers, d.Consumers, d.Partitions, d.Began.UTC().Format("2006-01-02 15:04 MST"))
	if d.Measured != nil {
		d.markdownLatencies(p)
	}
	d.markdownFates(p)
	pl := &d.Payload
	p("\n## Environment\n\n| | |\n| --- | --- |\n| payload | %s; %s of %s |\n", md(pl.Describe), pl.Codec, pl.Stats)
	p("| compression | %.2f : 1, %.1f messages a batch |\n", d.Wire.Compression, d.Wire.MessagesPerBatch)
	if u := d.Target; u != nil {
		p("| target's process | %.2f CPU s per million messages, RSS at most %s |\n", u.CPUPerMillion, figure.Bytes(float64(u.RSSMaxBytes)))
	}
	p("| generator | %s of its processors, steal %s |\n", figure.Percent(d.Generator.Share), figure.Percent(d.Generator.Steal))
	if e := d.Environment; e != nil {
		p("| machine | %s, %d processors, %s, %s |\n| built with | %s, loadgen %s |\n", md(e.CPU), e.Processors, figure.Bytes(float64(e.MemoryBytes)), md(e.Kernel), e.Go, md(e.Loadgen))
	}
	p("| scenario | `%s`, run `%s` |\n", d.Hash, d.RunID)
	for _, n := range d.Notes {
		p("\n> %s\n", md(n))
	}
	return b.Flush()
}

func (d *Document) markdownLatencies(p func(string, ...any)) {
	t := &d.Measured.Total
	p("**%s msg/s** delivered", figure.Rate(t.Delivered))
	if t.Offered > 0 {
		p(" of %s offered", figure.Rate(t.Offered))
	}
	p(", %.1f MB/s of values.\n\n| latency | p50 | p90 | p99 | p99.9 | max |\n| --- | ---: | ---: | ---: | ---: | ---: |\n", t.DeliveredMBps)
	row := func(name string, q load.Quantiles) {
		if q.Count > 0 {
			p("| %s", md(name))
			tail := figure.None
			if v, ok := q.Tail(); ok {
				tail = figure.Latency(float64(v))
			}
			at := func(ns int64) string { return figure.Latency(float64(ns)) }
			p(" | %s | %s | %s | %s | %s |\n", at(q.P50), at(q.P90), at(q.P99), tail, at(q.Max))
		}
	}
	l := &t.Latency
	row("end to end", l.E2E)
	row("acknowledged", l.Ack)
	if d.Loop == scenario.OpenLoop {
		row("sent to acknowledged", l.Service)
		row("dispatch lag (generator)", l.Lag)
	}
	for i := range d.Measured.Phases {
		if x := &d.Measured.Phases[i]; x.Measured && len(d.Measured.Phases) > 2 {
			row(fmt.Sprintf("end to end, phase %s at %s msg/s", x.Name, figure.Rate(x.Delivered)), x.Latency.E2E)
		}
	}
	for i := range d.Faults {
		row("end to end, in the fault "+d.Faults[i].Kind, d.Faults[i].E2E)
	}
	if len(d.Faults) > 0 {
		p("\n")
	}
	for i := range d.Faults {
		p("- %s\n", md(d.Faults[i].String()))
	}
}

func (d *Document) markdownFates(p func(string, ...any)) {
	c := &d.Counts
	p("\n| messages | |\n| --- | ---: |\n")
	for _, r := range []struct {
		name string
		n    uint64
		rare bool
	}{
		{"sent", c.Sent, false}, {"acknowledged", c.Acked, false}, {"delivered and verified", c.Delivered, false},
		{"lost", c.Lost, false}, {"duplicated", c.Duplicated, false}, {"reordered", c.Reordered, false}, {"corrupt", c.Corrupt, false},
		{"phantom", c.Phantom, true}, {"misplaced", c.Misplaced, true}, {"offsets used again", d.OffsetsBack, true},
		{"delivered though not acknowledged (allowed)", c.UnackedDelivered, true}, {"given up by the client (allowed)", c.Failed, true},
	} {
		if r.n > 0 || !r.rare {
			p("| %s | %s |\n", r.name, figure.Count(r.n))
		}
	}
}

// md keeps a text on one line and out of Markdown's own signs.
func md(s string) string {
	return strings.NewReplacer("|", `\|`, "<", "&lt;", "*", `\*`, "`", "'").Replace(strings.Join(strings.Fields(s), " "))
}
