package bench

import (
	"compress/gzip"
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"strconv"

	"golang.org/x/perf/benchfmt"

	"github.com/portask/portask/ci/sample"
	"github.com/portask/portask/ci/verdict"
)

// RawIgnored are the keys in which the lines of one comparison differ, to be
// ignored by the stock tool.
var RawIgnored = []string{"commit", "round", "stage", "layout", "steal", "load1", "pressure", "interference"}

// WriteRaw writes series in the Go benchmark format: one line a side and round,
// with the medians over the round's slices of time for each iteration, and the
// means of allocations. What else is known of the round stands above it as keys.
// The stock tool compares the sides:
//
//	benchstat -col 'role@(base head)' -ignore commit,round,stage,layout,steal,load1,pressure,interference FILE
//
// ([RawIgnored] is that list.) machine and revisions are a Session's.
func WriteRaw(w io.Writer, series []sample.Series, machine []verdict.Fact, revisions [2]verdict.Revision) error {
	// The units' lines come first; the writer keeps them with the results.
	for _, line := range []string{
		"Unit cpu-ns/op better=lower assume=nothing\n",
		"Unit ns/op better=lower assume=nothing\n",
		"\n",
	} {
		if _, err := io.WriteString(w, line); err != nil {
			return err
		}
	}
	out := benchfmt.NewWriter(w)
	for i := range series {
		s := &series[i]
		for _, r := range s.Rounds {
			for _, side := range []sample.Side{sample.Base, sample.Head} {
				if len(r.Pairs) == 0 {
					continue
				}
				if err := out.Write(rawResult(s, r, side, machine, revisions)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func rawResult(s *sample.Series, r sample.Round, side sample.Side, machine []verdict.Fact, revisions [2]verdict.Revision) *benchfmt.Result {
	res := &benchfmt.Result{Name: benchfmt.Name(s.Bench.Name)}
	set := func(key, value string) {
		if value != "" {
			res.Config = append(res.Config, benchfmt.Config{Key: key, Value: []byte(value), File: true})
		}
	}
	for _, f := range machine {
		set(f.Key, f.Value)
	}
	pkg := s.Bench
	pkg.Name = ""
	set("pkg", trimDot(pkg.String()))
	set("role", side.String())
	set("commit", revisions[side].Short())
	set("stage", string(r.Stage))
	set("round", strconv.Itoa(r.Index))
	set("layout", strconv.Itoa(r.Seeds[side]))
	set("steal", figure(r.Env.StealShare))
	set("load1", figure(r.Env.Load1))
	set("pressure", figure(r.Env.CPUPressure))
	interference := "none"
	if r.Interference != "" {
		interference = r.Interference
	}
	set("interference", interference)

	var ns, cpu []float64
	var iterations, allocs, bytes int64
	for _, p := range r.Pairs {
		c := p.Base
		if side == sample.Head {
			c = p.Head
		}
		n := float64(max(c.N, 1))
		ns = append(ns, float64(c.Ns)/n)
		cpu = append(cpu, float64(c.CPUNs)/n)
		iterations += int64(c.N)
		allocs += c.Allocs
		bytes += c.Bytes
	}
	res.Iters = int(min(iterations, math.MaxInt32))
	n := float64(max(iterations, 1))
	res.Values = []benchfmt.Value{
		value(median(ns), "ns/op"),
		value(median(cpu), "cpu-ns/op"),
		{Value: float64(bytes) / n, Unit: "B/op"},
		{Value: float64(allocs) / n, Unit: "allocs/op"},
	}
	if s.Metric == sample.CPU {
		res.Name = append(res.Name, "-1"...)
	} else {
		res.Name = fmt.Appendf(res.Name, "-%d", runtime.GOMAXPROCS(0))
	}
	return res
}

// value keeps the figure in nanoseconds in the file: the tool tidies by itself.
// Tenths of picoseconds are more than any clock tells.
func value(ns float64, unit string) benchfmt.Value {
	ns = math.Round(ns*1e4) / 1e4
	return benchfmt.Value{Value: ns * 1e-9, Unit: tidied[unit], OrigValue: ns, OrigUnit: unit}
}

var tidied = map[string]string{"ns/op": "sec/op", "cpu-ns/op": "cpu-sec/op"}

func trimDot(s string) string {
	if len(s) > 1 && s[len(s)-1] == '.' {
		return s[:len(s)-1]
	}
	return s
}

func figure(x float64) string { return strconv.FormatFloat(x, 'g', 4, 64) }

func median(x []float64) float64 {
	s := slices.Sorted(slices.Values(x))
	if len(s) == 0 {
		return 0
	}
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// WritePairs writes every slice as compressed CSV: a line a pair.
func WritePairs(w io.Writer, series []sample.Series) error {
	z := gzip.NewWriter(w)
	c := csv.NewWriter(z)
	_ = c.Write([]string{"bench", "stage", "round", "pair", "head_first", "base_layout", "head_layout", "iterations",
		"base_ns", "base_cpu_ns", "base_delay_ns", "base_allocs", "base_bytes",
		"head_ns", "head_cpu_ns", "head_delay_ns", "head_allocs", "head_bytes"})
	for i := range series {
		s := &series[i]
		name := s.Bench.String()
		for _, r := range s.Rounds {
			for k, p := range r.Pairs {
				line := []string{name, string(r.Stage), strconv.Itoa(r.Index), strconv.Itoa(k), strconv.FormatBool(p.HeadFirst),
					strconv.Itoa(r.Seeds[0]), strconv.Itoa(r.Seeds[1]), strconv.Itoa(p.Base.N)}
				for _, c := range []sample.Slice{p.Base, p.Head} {
					for _, v := range []int64{c.Ns, c.CPUNs, c.DelayNs, c.Allocs, c.Bytes} {
						line = append(line, strconv.FormatInt(v, 10))
					}
				}
				_ = c.Write(line) // the error is kept, and flushed below
			}
		}
	}
	c.Flush()
	if err := c.Error(); err != nil {
		return err
	}
	return z.Close()
}

// WriteSystem writes what the machine did as CSV: a line a round.
func WriteSystem(w io.Writer, series []sample.Series) error {
	c := csv.NewWriter(w)
	_ = c.Write([]string{"bench", "stage", "round", "pairs", "dropped", "seconds", "busy", "steal", "load1", "available_bytes",
		"disk_bytes_per_s", "net_bytes_per_s", "cpu_pressure", "throttled_s", "base_rss_bytes", "head_rss_bytes", "context_switches", "interference"})
	for i := range series {
		s := &series[i]
		for _, r := range s.Rounds {
			e := r.Env
			_ = c.Write([]string{s.Bench.String(), string(r.Stage), strconv.Itoa(r.Index), strconv.Itoa(len(r.Pairs)), strconv.Itoa(r.Dropped),
				figure(e.Seconds), figure(e.BusyShare), figure(e.StealShare), figure(e.Load1), strconv.FormatInt(e.AvailableB, 10),
				figure(e.DiskBytesS), figure(e.NetBytesS), figure(e.CPUPressure), figure(e.ThrottledS),
				strconv.FormatInt(e.BaseRSS, 10), strconv.FormatInt(e.HeadRSS, 10), strconv.FormatInt(e.ContextSwitches, 10), r.Interference})
		}
	}
	c.Flush()
	return c.Error()
}
