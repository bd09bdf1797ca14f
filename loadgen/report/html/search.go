package html

import (
	"fmt"
	"io"
	"math"

	"github.com/portask/portask/loadgen/evidence"
	"github.com/portask/portask/loadgen/report/figure"
	"github.com/portask/portask/loadgen/report/plot"
	"github.com/portask/portask/loadgen/search"
)

// WriteSearch writes the page of a search: the value, the hockey stick, and
// every probe. e may be nil.
func WriteSearch(w io.Writer, r *search.Result, e *evidence.Environment) error {
	v := newView("search for the highest rate")
	v.Title = r.Scenario
	v.Subtitle = fmt.Sprintf("%s · %s · %d probes in %s", r.System, r.Objective, len(r.Points), figure.Seconds(r.Seconds))
	v.Verdict = found(r)
	v.Page = fmt.Sprintf("%s: %s on %s", v.Verdict.Word, r.Scenario, r.System)
	v.Foot = fmt.Sprintf("Scenario %s, schema %d.", r.Hash, r.Schema)
	if r.Value > 0 {
		v.Tiles = append(v.Tiles, tile{Name: "sustained", Value: figure.Rate(r.Value), Unit: "msg/s", Note: "confirmed by fresh probes"})
	}
	if r.Refuted > 0 {
		v.Tiles = append(v.Tiles, tile{Name: "not sustained", Value: figure.Rate(r.Refuted), Unit: "msg/s", Note: fmt.Sprintf("the next rate above: resolution %.1f %%", 100*r.Resolution)})
	}
	for i := range r.Curve {
		if l := &r.Curve[i]; l.Offered == r.Value {
			v.tile("p99 there", ns(l.P99), fmt.Sprintf("p50 %s, p99.9 %s", ns(l.P50), ns(l.P999)))
		}
	}
	v.hockey(r)
	v.probes(r)
	if e != nil {
		v.environment(e, func(name, value string) { addFact(&v.Machine, name, value) })
	}
	v.draw()
	return v.write(w)
}

func found(r *search.Result) verdict {
	v := verdict{Text: r.String()}
	for _, p := range r.Points {
		for _, x := range p.Violations {
			if len(v.Lines) < 20 {
				v.Lines = append(v.Lines, fmt.Sprintf("at %s msg/s: %s", figure.Rate(p.Offered), x))
			}
		}
	}
	switch r.ExitStatus() {
	case 4:
		v.Class, v.Sign, v.Word = "violation", "✕", "Data violation"
	case 3:
		v.Class, v.Sign, v.Word = "invalid", "?", "No number"
	case 2:
		v.Class, v.Sign, v.Word = "missed", "!", "Below the lowest rate"
	default:
		v.Class, v.Sign, v.Word = "pass", "✓", figure.Rate(r.Value)+" messages a second"
		if r.Outcome == search.AtLeast {
			v.Word = "At least " + v.Word
		}
	}
	return v
}

// hockey draws latency and what was achieved over the rate offered, medians of
// the probes of each rate.
func (v *view) hockey(r *search.Result) {
	latency := []plot.Line{{Name: "p50", Class: "s1", Dots: true}, {Name: "p99", Class: "s2", Wide: true, Dots: true}, {Name: "p99.9", Class: "s3", Dash: "6 3"}}
	achieved := []plot.Line{{Name: "offered", Class: "s5", Dash: "2 3"}, {Name: "achieved", Class: "s1", Wide: true, Dots: true}}
	hi := 0.0
	for _, l := range r.Curve {
		if l.Passed+l.Failed == 0 {
			continue
		}
		for i, y := range [3]int64{l.P50, l.P99, l.P999} {
			x := &latency[i]
			at := float64(y)
			if y == 0 {
				at = math.NaN()
			}
			x.X, x.Y = append(x.X, l.Offered), append(x.Y, at)
		}
		for i, y := range [2]float64{l.Offered, l.Achieved} {
			x := &achieved[i]
			x.X, x.Y = append(x.X, l.Offered), append(x.Y, y)
		}
		hi = max(hi, l.Offered)
	}
	if hi == 0 {
		return
	}
	var bands []plot.Band
	if r.Value > 0 {
		bands = append(bands, plot.Band{At: r.Value, Name: figure.Rate(r.Value), Class: "good"})
	}
	x := plot.Axis{Max: hi * 1.03, Label: figure.Short, Title: "offered, msg/s"}
	v.add(&plot.Chart{X: x, Y: plot.Axis{Kind: plot.Log, Label: figure.Latency}, Lines: latency, Bands: bands}, "", "",
		"Hockey stick", "Latency over the rate offered: medians of the probes of each rate.", true)
	v.add(&plot.Chart{X: x, Y: plot.Axis{Label: figure.Short, Title: "msg/s"}, Lines: achieved, Bands: bands}, "", "",
		"Achieved over offered", "What was delivered while the probe lasted. Where the lines part, the backlog grows.", true)
}

func (v *view) probes(r *search.Result) {
	v.Probes.Head = []string{"stage", "offered/s", "achieved/s", "p50", "p99", "p99.9", "backlog grows by", "verdict"}
	for _, p := range r.Points {
		verdict := string(p.Verdict)
		if p.Why != "" {
			verdict += ": " + p.Why
		}
		v.Probes.add(p.Stage, figure.Rate(p.Offered), figure.Rate(p.Achieved), ns(p.P50), ns(p.P99), ns(p.P999), fmt.Sprintf("%.0f/s", p.Backlog), verdict)
	}
}
