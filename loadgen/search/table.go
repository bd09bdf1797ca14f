package search

import (
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
	"time"
)

// Table writes the curve for people, its p99 drawn as bars on a logarithmic
// scale, and the outcome.
func (r *Result) Table(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "offered/s\tachieved/s\tp50\tp99\tp99.9\tbacklog/s\tprobes\t  p99\n")
	lo, hi := math.Inf(1), 0.0
	for _, l := range r.Curve {
		if l.P99 > 0 {
			lo, hi = min(lo, float64(l.P99)), max(hi, float64(l.P99))
		}
	}
	for _, l := range r.Curve {
		fmt.Fprintf(t, "%.0f\t%.0f\t%s\t%s\t%s\t%+.0f\t%s\t  %s\n", l.Offered, l.Achieved, short(l.P50), short(l.P99), short(l.P999), l.Backlog, l.verdicts(), bar(float64(l.P99), lo, hi))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "p99 by rate: %s\n%s\n", r.Spark(), r)
	return err
}

// verdicts writes "3 of 4 pass".
func (l *Level) verdicts() string {
	s := fmt.Sprintf("%d of %d pass", l.Passed, l.Passed+l.Failed)
	if l.Invalid > 0 {
		s += fmt.Sprintf(", %d invalid", l.Invalid)
	}
	return s
}

func short(ns int64) string {
	d := time.Duration(ns)
	switch {
	case d == 0:
		return "-"
	case d < 10*time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}

const barWidth = 24

// level is where v lies between lo and hi on a logarithmic scale, 0 to 1.
func level(v, lo, hi float64) float64 {
	if v <= 0 || hi <= lo {
		return 0
	}
	return math.Log(v/lo) / math.Log(hi/lo)
}

func bar(v, lo, hi float64) string {
	if v <= 0 {
		return ""
	}
	return strings.Repeat("█", 1+int(level(v, lo, hi)*(barWidth-1)))
}

// Spark is the curve in a line: p99 by rate, lowest first, logarithmic.
func (r *Result) Spark() string {
	marks := []rune("▁▂▃▄▅▆▇█")
	lo, hi := math.Inf(1), 0.0
	for _, l := range r.Curve {
		if l.P99 > 0 {
			lo, hi = min(lo, float64(l.P99)), max(hi, float64(l.P99))
		}
	}
	var b strings.Builder
	for _, l := range r.Curve {
		b.WriteRune(marks[int(level(float64(l.P99), lo, hi)*float64(len(marks)-1))])
	}
	return b.String()
}

// Line says what a probe said, for progress.
func (p *Point) Line() string {
	s := fmt.Sprintf("%-7s %8.0f/s  achieved %8.0f/s  p50 %s  p99 %s  p99.9 %s  %s", p.Stage, p.Offered, p.Achieved, short(p.P50), short(p.P99), short(p.P999), p.Verdict)
	if p.Why != "" {
		s += ": " + p.Why
	}
	return s
}
