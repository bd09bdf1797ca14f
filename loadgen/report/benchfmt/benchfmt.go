// Package benchfmt writes results in the Go benchmark format, so that the stock
// benchstat groups, compares and tables them:
//
//	benchstat -row .fullname -col 'role@(base head)' -ignore round,pair,order runs.txt
//
// What may differ between two runs that are to be compared stands in the
// configuration lines (commit, role, round, ...), what makes them different
// experiments in the benchmark's name. There is one line a run, and one a
// measured phase if there are several, never one a second: the seconds of a run
// depend on each other, and a test that takes them for independent samples is
// far too sure of itself.
//
// Latencies are in ns, which benchstat scales; ms would be a foreign unit to
// it. An invalid run has no line.
package benchfmt

import (
	"fmt"
	"io"
	"maps"
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/portask/portask/broker/sysmetrics"
	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/scenario"
)

// units tell benchstat which way is better; without them it knows only its own.
// They go first in every file. exact: a count that must not change at all.
const units = `Unit msg/s better=higher
Unit MB/s better=higher
Unit ack-p50-ns better=lower
Unit ack-p99-ns better=lower
Unit ack-p99.9-ns better=lower
Unit e2e-p50-ns better=lower
Unit e2e-p90-ns better=lower
Unit e2e-p99-ns better=lower
Unit e2e-p99.9-ns better=lower
Unit e2e-max-ns better=lower
Unit service-p50-ns better=lower
Unit service-p99-ns better=lower
Unit lag-p99-ns better=lower
Unit cpu-ns/msg better=lower
Unit rss-B better=lower
Unit wire-B/msg better=lower
Unit comp-ratio better=higher
Unit msgs/batch better=higher
Unit lost better=lower assume=exact
Unit dup better=lower assume=exact
Unit reordered better=lower assume=exact
Unit corrupt better=lower assume=exact
`

// Options is what is said beside the result.
type Options struct {
	Commit  string
	Machine sysmetrics.Machine
	// Keys are more configuration lines, such as role and round; see CheckKey.
	Keys map[string]string
}

// CheckKey says what is wrong with a configuration key: benchstat wants a lower
// case letter first, and neither space, upper case nor colon behind it.
func CheckKey(key string) error {
	for i, c := range key {
		if c == ':' || c <= ' ' || c == 0x7f || c >= 'A' && c <= 'Z' || i == 0 && (c < 'a' || c > 'z') {
			return fmt.Errorf("configuration key %q: want a lower case letter, then neither space, colon nor upper case", key)
		}
	}
	if key == "" {
		return fmt.Errorf("configuration key is empty")
	}
	return nil
}

// Write writes a result. Of an invalid run it writes nothing.
func Write(w io.Writer, res *load.Result, o Options) error {
	if res.Measured == nil {
		return nil
	}
	for k := range o.Keys {
		if err := CheckKey(k); err != nil {
			return err
		}
	}
	var b strings.Builder
	b.WriteString(units)
	for _, kv := range [][2]string{
		{"goos", runtime.GOOS}, {"goarch", runtime.GOARCH}, {"cpu", o.Machine.CPU}, {"os", o.Machine.Kernel}, {"go", o.Machine.Go}, {"commit", o.Commit},
		{"system", res.System.System}, {"system-version", res.System.Version}, {"durability", string(res.Durability)},
		{"scenario", res.Scenario}, {"scenario-hash", res.Hash}, {"payload", res.Payload.Source}, {"codec", res.Payload.Codec}, {"arrival", arrival(res)},
	} {
		if _, given := o.Keys[kv[0]]; !given && kv[1] != "" {
			fmt.Fprintf(&b, "%s: %s\n", kv[0], oneLine(kv[1]))
		}
	}
	for _, k := range slices.Sorted(maps.Keys(o.Keys)) {
		fmt.Fprintf(&b, "%s: %s\n", k, oneLine(o.Keys[k]))
	}
	phases := scenarioPhases(res)
	run := newLine(res, &res.Measured.Total, "", rates(phases), o.Machine.Cores)
	run.counts(res)
	run.end(&b)
	if len(phases) > 1 {
		for i := range phases {
			for j := range res.Measured.Phases {
				if p := &res.Measured.Phases[j]; p.Measured && p.Name == phases[i].Name {
					newLine(res, p, p.Name, rates(phases[i:i+1]), o.Machine.Cores).end(&b)
				}
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// line is a benchmark line in the making.
type line struct{ b strings.Builder }

func newLine(res *load.Result, p *load.Phase, phase, rate string, cores int) *line {
	x := &line{}
	fmt.Fprintf(&x.b, "BenchmarkLoad/scenario=%s/mode=%s/ack=%s/visibility=%s", part(res.Scenario), part(res.Loop), part(res.Ack), part(res.Visibility))
	if phase != "" {
		fmt.Fprintf(&x.b, "/phase=%s", part(phase))
	}
	if rate != "" {
		fmt.Fprintf(&x.b, "/rate=%s", rate)
	}
	fmt.Fprintf(&x.b, "/size=%s-%d\t%d", part(res.Payload.Size), max(cores, 1), max(1, int64(math.Round(p.Delivered*p.Seconds))))

	if p.Delivered > 0 {
		x.metric(1e9/p.Delivered, "ns/msg")
	}
	l := &p.Latency
	x.metric(p.Delivered, "msg/s")
	x.metric(p.DeliveredMBps, "MB/s")
	x.metric(float64(l.Ack.P50), "ack-p50-ns")
	x.metric(float64(l.Ack.P99), "ack-p99-ns")
	if v, ok := l.Ack.Tail(); ok {
		x.metric(float64(v), "ack-p99.9-ns")
	}
	x.metric(float64(l.E2E.P50), "e2e-p50-ns")
	x.metric(float64(l.E2E.P90), "e2e-p90-ns")
	x.metric(float64(l.E2E.P99), "e2e-p99-ns")
	if v, ok := l.E2E.Tail(); ok {
		x.metric(float64(v), "e2e-p99.9-ns")
	}
	x.metric(float64(l.E2E.Max), "e2e-max-ns")
	x.metric(float64(l.Service.P50), "service-p50-ns")
	x.metric(float64(l.Service.P99), "service-p99-ns")
	if res.Loop == scenario.OpenLoop {
		x.metric(float64(l.Lag.P99), "lag-p99-ns")
	}
	return x
}

// counts adds what is known of the whole run only.
func (x *line) counts(res *load.Result) {
	if t := res.Target; t != nil {
		x.metric(t.CPUPerMillion*1e3, "cpu-ns/msg")
		x.metric(float64(t.RSSMaxBytes), "rss-B")
	}
	if res.Counts.Sent > 0 && res.Wire.Bytes > 0 {
		x.metric(float64(res.Wire.Bytes)/float64(res.Counts.Sent), "wire-B/msg")
		x.metric(res.Wire.Compression, "comp-ratio")
		x.metric(res.Wire.MessagesPerBatch, "msgs/batch")
	}
	x.metric(float64(res.Counts.Lost), "lost")
	x.metric(float64(res.Counts.Duplicated), "dup")
	x.metric(float64(res.Counts.Reordered), "reordered")
	x.metric(float64(res.Counts.Corrupt), "corrupt")
}

func (x *line) metric(v float64, unit string) { fmt.Fprintf(&x.b, "\t%.6g %s", v, unit) }

func (x *line) end(to *strings.Builder) {
	to.WriteString(x.b.String())
	to.WriteByte('\n')
}

// scenarioPhases are the measured phases as the scenario has them: what was
// asked for names an experiment, what came out is its result. nil if the
// resolved scenario is not there or of another version.
func scenarioPhases(res *load.Result) []scenario.Phase {
	s, err := scenario.Parse("resolved", []byte(res.Resolved))
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(s.Phases, func(p scenario.Phase) bool { return !p.Measured })
}

// arrival is the measured phases' arrival, empty in a closed loop.
func arrival(res *load.Result) string {
	if res.Loop != scenario.OpenLoop {
		return ""
	}
	out := ""
	for _, p := range scenarioPhases(res) {
		a := p.Arrival
		if p.Spacing == "poisson" && a != "trace" {
			a = strings.TrimPrefix(a+"-poisson", "constant-")
		}
		if out != "" && out != a {
			return "mixed"
		}
		out = a
	}
	return out
}

// rates names the rate of phases: 20k, 5k..40k, empty if there is none.
func rates(phases []scenario.Phase) string {
	lo, hi := math.Inf(1), 0.0
	for i := range phases {
		p := &phases[i]
		l, h := p.Rate, p.Rate
		switch p.Arrival {
		case "ramp", "staircase":
			l, h = min(p.Rate, p.To), max(p.Rate, p.To)
		case "bursts":
			l = min(p.Base, p.Rate)
		case "sine":
			l, h = p.Rate-p.Amplitude, p.Rate+p.Amplitude
		case "trace":
			return "trace"
		}
		lo, hi = min(lo, l), max(hi, h)
	}
	switch {
	case hi == 0:
		return ""
	case lo == hi:
		return short(lo)
	}
	return short(lo) + ".." + short(hi)
}

func short(rate float64) string {
	if rate >= 1000 && math.Mod(rate, 100) == 0 {
		return strconv.FormatFloat(rate/1000, 'f', -1, 64) + "k"
	}
	return strconv.FormatFloat(rate, 'f', -1, 64)
}

// part keeps a name from being taken for two parts of one, and a "-8" at its end
// apart from the processors.
func part(s string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r == '/' || r == '=' || r == 0x7f {
			return '_'
		}
		return r
	}, s)
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
