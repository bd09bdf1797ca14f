package report

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/portask/portask/ci/history"
	"github.com/portask/portask/ci/sample"
	"github.com/portask/portask/ci/verdict"
	"github.com/portask/portask/loadgen/report/plot"
)

// Curve is the distribution of one benchmark's slices on both sides: the time
// of an operation, averaged within a slice, by quantile.
type Curve struct {
	Bench sample.Bench `json:"bench"`
	Unit  string       `json:"unit"` // "cpu-ns/op" or "ns/op"
	// Q are quantiles, Base and Head the values there.
	Q    []float64 `json:"q"`
	Base []float64 `json:"base"`
	Head []float64 `json:"head"`
}

// quantiles of a curve; what n slices cannot tell is left out.
var quantiles = []float64{0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999}

// curves sums up each series.
func curves(series []sample.Series) (out []Curve) {
	for i := range series {
		s := &series[i]
		var sides [2][]float64
		for _, r := range s.Rounds {
			for _, p := range r.Pairs {
				for side, slice := range [2]sample.Slice{p.Base, p.Head} {
					v := slice.CPUNs
					if s.Metric == sample.Wall {
						v = slice.Ns
					}
					if v > 0 && slice.N > 0 {
						sides[side] = append(sides[side], float64(v)/float64(slice.N))
					}
				}
			}
		}
		n := min(len(sides[0]), len(sides[1]))
		if n < 10 {
			continue
		}
		c := Curve{Bench: s.Bench, Unit: s.Metric.String()}
		slices.Sort(sides[0])
		slices.Sort(sides[1])
		for _, q := range quantiles {
			if q > 0.5 && (1-q)*float64(n) < 1 {
				break
			}
			c.Q = append(c.Q, q)
			c.Base = append(c.Base, quantile(sides[0], q))
			c.Head = append(c.Head, quantile(sides[1], q))
		}
		out = append(out, c)
	}
	return out
}

// quantile of sorted values, the nearest rank.
func quantile(sorted []float64, q float64) float64 {
	return sorted[min(max(int(math.Ceil(q*float64(len(sorted))))-1, 0), len(sorted)-1)]
}

// dots draws the rounds of one benchmark in their order; the two stages apart.
func dots(e *verdict.Entry) *plot.Chart {
	lines := []plot.Line{
		{Name: "screen", Class: "s5 dots", Dots: true},
		{Name: "confirm", Class: "s1 dots", Dots: true},
		{Name: "disturbed", Class: "s6 dots", Dots: true},
	}
	reach := 2 * e.MinEffect
	for i, d := range e.Dots {
		k := 0
		switch {
		case d.Interference != "":
			k = 2
		case d.Stage == sample.Confirm:
			k = 1
		}
		lines[k].X = append(lines[k].X, float64(i+1))
		lines[k].Y = append(lines[k].Y, 100*d.Effect)
		reach = max(reach, math.Abs(d.Effect))
	}
	reach = min(100*reach*1.1, 60)
	lines = slices.DeleteFunc(lines, func(l plot.Line) bool { return len(l.X) == 0 })
	return &plot.Chart{
		X:      plot.Axis{Min: 0.2, Max: float64(len(e.Dots)) + 0.8, Title: "round", Label: whole},
		Y:      plot.Axis{Min: -reach, Max: reach, Title: "head against base", Label: func(v float64) string { return fmt.Sprintf("%+.3g %%", v) }},
		Lines:  lines,
		Levels: []plot.Level{{At: 100 * e.MinEffect, Name: "minimum effect"}},
	}
}

// whole labels whole numbers only.
func whole(v float64) string {
	if v != math.Trunc(v) {
		return ""
	}
	return fmt.Sprintf("%.0f", v)
}

// chart draws the quantiles of both sides.
func (c *Curve) chart() *plot.Chart {
	top := 0.9
	if n := len(c.Q); n > 0 {
		top = max(top, c.Q[n-1])
	}
	lo, hi := slices.Min(append(slices.Clone(c.Base), c.Head...)), slices.Max(append(slices.Clone(c.Base), c.Head...))
	room := max((hi-lo)*0.15, hi*0.02)
	return &plot.Chart{
		X: plot.Axis{Kind: plot.Nines, Min: 0, Max: top, Title: "quantile of slices", Label: func(q float64) string {
			if q == 0 {
				return "min"
			}
			return strings.TrimRight(strings.TrimRight(fmt.Sprintf("p%.4f", 100*q), "0"), ".")
		}},
		Y: plot.Axis{Min: max(0, lo-room), Max: hi + room, Label: cost, Title: "time of an operation"},
		Lines: []plot.Line{
			{Name: "base", Class: "s5", Dash: "6 3", X: c.Q, Y: c.Base},
			{Name: "head", Class: "s1", Wide: true, X: c.Q, Y: c.Head},
		},
	}
}

// historyMax is how many runs the page draws of each series.
const historyMax = 200

// historyChart draws a series over its runs; changes of level are marked.
func historyChart(s *history.Series) *plot.Chart {
	from := max(0, len(s.Points)-historyMax)
	line := plot.Line{Class: "s1", Dots: true}
	lo, hi := math.Inf(1), math.Inf(-1)
	for i := from; i < len(s.Points); i++ {
		v := s.Points[i].V
		line.X, line.Y = append(line.X, float64(i+1)), append(line.Y, v)
		lo, hi = min(lo, v), max(hi, v)
	}
	room := max((hi-lo)*0.25, hi*0.04)
	c := &plot.Chart{
		X:     plot.Axis{Min: float64(from) + 0.5, Max: float64(max(len(s.Points), from+2)) + 0.5, Title: "run", Label: whole},
		Y:     plot.Axis{Min: max(0, lo-room), Max: hi + room, Label: digits, Title: s.Unit},
		Lines: []plot.Line{line},
	}
	for _, ch := range s.Changes {
		if ch.At < from {
			continue
		}
		class := "good"
		if ch.Worse {
			class = "fault"
		}
		at := float64(ch.At) + 0.5
		c.Bands = append(c.Bands, plot.Band{At: at, Until: at, Class: class, Name: fmt.Sprintf("%+.1f %% %.7s", 100*ch.By, ch.Commit)})
	}
	return c
}
