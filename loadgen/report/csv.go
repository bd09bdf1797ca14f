package report

import (
	"bufio"
	"fmt"
	"io"
	"strconv"

	"github.com/portask/portask/loadgen/load"
)

// csvColumns are the columns of WriteCSV, in their order: a name with its unit,
// and the value of an interval.
var csvColumns = func() []csvColumn {
	f := func(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
	fixed := func(v float64) string { return strconv.FormatFloat(v, 'f', 3, 64) }
	u := func(v uint64) string { return strconv.FormatUint(v, 10) }
	i := func(v int64) string { return strconv.FormatInt(v, 10) }
	all := []csvColumn{
		{"start_s", func(v *load.Interval) string { return fixed(v.Start) }},
		{"end_s", func(v *load.Interval) string { return fixed(v.End) }},
		{"phase", func(v *load.Interval) string { return v.Phase }},
		{"offered", func(v *load.Interval) string { return f(v.Offered) }},
		{"sent", func(v *load.Interval) string { return u(v.Sent) }},
		{"acked", func(v *load.Interval) string { return u(v.Acked) }},
		{"failed", func(v *load.Interval) string { return u(v.Failed) }},
		{"delivered", func(v *load.Interval) string { return u(v.Delivered) }},
		{"delivered_bytes", func(v *load.Interval) string { return u(v.Bytes) }},
		{"held_back", func(v *load.Interval) string { return u(v.HeldBack) }},
		{"outstanding", func(v *load.Interval) string { return u(v.Outstanding) }},
		{"generator_cpus", func(v *load.Interval) string { return fixed(v.Generator) }},
		{"spin_cpus", func(v *load.Interval) string { return fixed(v.Spin) }},
		{"target_cpus", target(func(t *load.TargetSample) string { return fixed(t.CPUs) })},
		{"target_rss_bytes", target(func(t *load.TargetSample) string { return i(t.RSSBytes) })},
		{"target_fds", target(func(t *load.TargetSample) string { return strconv.Itoa(t.FDs) })},
	}
	for _, s := range []struct {
		name string
		of   func(*load.Latencies) *load.Quantiles
	}{
		{"e2e", func(l *load.Latencies) *load.Quantiles { return &l.E2E }},
		{"ack", func(l *load.Latencies) *load.Quantiles { return &l.Ack }},
		{"service", func(l *load.Latencies) *load.Quantiles { return &l.Service }},
		{"lag", func(l *load.Latencies) *load.Quantiles { return &l.Lag }},
	} {
		for _, q := range []struct {
			name string
			of   func(*load.Quantiles) int64
		}{
			{"p50_ns", func(q *load.Quantiles) int64 { return q.P50 }},
			{"p90_ns", func(q *load.Quantiles) int64 { return q.P90 }},
			{"p99_ns", func(q *load.Quantiles) int64 { return q.P99 }},
			{"p99_9_ns", func(q *load.Quantiles) int64 { return q.P999 }},
			{"max_ns", func(q *load.Quantiles) int64 { return q.Max }},
		} {
			all = append(all, csvColumn{s.name + "_" + q.name, func(v *load.Interval) string {
				l := s.of(&v.Latency)
				if l.Count == 0 {
					return "" // none, not 0
				}
				return i(q.of(l))
			}})
		}
	}
	return all
}()

type csvColumn struct {
	name string
	of   func(*load.Interval) string
}

// target is empty where there was no sample.
func target(of func(*load.TargetSample) string) func(*load.Interval) string {
	return func(v *load.Interval) string {
		if v.Target == nil {
			return ""
		}
		return of(v.Target)
	}
}

// WriteCSV writes the intervals, one a line below the columns' names. What was
// not measured is empty. Those of an invalid run are written too: the column
// valid, the last one, is 0 then.
func WriteCSV(w io.Writer, d *Document) error {
	m, valid := d.Shown()
	b := bufio.NewWriter(w)
	for _, c := range csvColumns {
		fmt.Fprint(b, c.name, ",")
	}
	fmt.Fprintln(b, "valid")
	if m != nil {
		last := "0"
		if valid {
			last = "1"
		}
		for i := range m.Series {
			for _, c := range csvColumns {
				b.WriteString(c.of(&m.Series[i])) // names of phases hold no comma, see package scenario
				b.WriteByte(',')
			}
			fmt.Fprintln(b, last)
		}
	}
	return b.Flush()
}
