package report

import (
	"cmp"
	"fmt"
	"html"
	"math"
	"slices"
	"strings"

	"github.com/portask/portask/ci/verdict"
)

// forest draws effects with their intervals, one row a benchmark, the band of
// the minimum effect behind each and the rounds' values as dots; controls come
// last. Marks differ in shape as well as colour: a disc passed, a diamond
// failed, a ring is open, a square is a control. What is beyond the axis ends
// in an arrow.
type forest struct {
	b       strings.Builder
	w       float64
	narrow  bool
	x0, x1  float64 // of the effects
	y       float64
	reach   float64 // the axis spans -reach to +reach
	rowStep float64
}

// Shapes of the forest, px.
const (
	forestNames  = 372 // room for names in the wide shape
	forestValues = 150 // and for the figures at the right
	forestRow    = 26
	narrowRow    = 44
	forestTop    = 30
	forestBottom = 34
)

// compared are the entries that have an effect, worst decisions first, then by
// effect.
func compared(entries []verdict.Entry) []verdict.Entry {
	rank := func(e verdict.Entry) int {
		switch e.Decision {
		case verdict.Fail, verdict.Invalid:
			return 0
		case verdict.Inconclusive:
			return 1
		}
		return 2
	}
	var out []verdict.Entry
	for _, e := range entries {
		if e.Effect.Rounds > 0 {
			out = append(out, e)
		}
	}
	slices.SortStableFunc(out, func(a, b verdict.Entry) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(b.Effect.Effect, a.Effect.Effect))
	})
	return out
}

// forestSVG draws the plot w px wide; below 500 names stand above their rows.
// Empty without entries.
func forestSVG(entries, controls []verdict.Entry, w int) string {
	entries, controls = compared(entries), compared(controls)
	if len(entries)+len(controls) == 0 {
		return ""
	}
	f := forest{w: float64(w), narrow: w < 500, x0: forestNames, x1: float64(w) - forestValues, rowStep: forestRow}
	if f.narrow {
		f.x0, f.x1, f.rowStep = 14, float64(w)-14, narrowRow
	}
	f.reach = reach(append(slices.Clone(entries), controls...))
	rows := float64(len(entries) + len(controls))
	gap := 0.0
	if len(controls) > 0 {
		gap = 30
	}
	height := forestTop + rows*f.rowStep + gap + forestBottom
	bottom := height - forestBottom
	f.printf(`<svg class="chart forest" viewBox="0 0 %d %.0f" role="img" aria-label="Effects of head against base with their intervals, %d benchmarks and %d controls">`, w, height, len(entries), len(controls))
	f.axis(bottom)
	f.y = forestTop
	for i := range entries {
		f.row(&entries[i], false)
	}
	if len(controls) > 0 {
		f.y += gap
		f.printf(`<text class="mark" x="%.0f" y="%.1f">controls: the same program on both sides (A/A)</text>`, 4.0, f.y-8)
		f.printf(`<line class="axis" x1="0" x2="%d" y1="%.1f" y2="%.1f"/>`, w, f.y-gap+4, f.y-gap+4)
		for i := range controls {
			f.row(&controls[i], true)
		}
	}
	f.b.WriteString(`</svg>`)
	return f.b.String()
}

// reach is how far the axis goes: all intervals, up to 60 %.
func reach(entries []verdict.Entry) float64 {
	r := 0.04
	for _, e := range entries {
		for _, v := range []float64{e.Effect.Low, e.Effect.High, 1.5 * e.MinEffect} {
			if a := math.Abs(v); a <= 0.6 {
				r = max(r, a*1.08)
			}
		}
		if math.Abs(e.Effect.Effect) > 0.55 {
			r = 0.6
		}
	}
	return r
}

func (f *forest) printf(format string, args ...any) { fmt.Fprintf(&f.b, format, args...) }

// x is the place of an effect, at most some pixels beyond the axis.
func (f *forest) x(effect float64) float64 {
	mid := (f.x0 + f.x1) / 2
	return min(max(mid+effect/f.reach*(f.x1-f.x0)/2, f.x0), f.x1)
}

func (f *forest) axis(bottom float64) {
	step := 0.01
	for _, s := range []float64{0.01, 0.02, 0.05, 0.1, 0.2} {
		step = s
		if n := f.reach / s; n <= 5 || f.narrow && n <= 2.9 {
			break
		}
	}
	for k := -math.Floor(f.reach / step); k*step <= f.reach; k++ {
		x, class, label := f.x(k*step), "grid", fmt.Sprintf("%+.0f %%", 100*k*step)
		if k == 0 {
			class, label = "zero", "equal"
		}
		f.printf(`<line class="%s" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/><text class="tick" x="%.1f" y="%.1f" text-anchor="middle">%s</text>`,
			class, x, x, float64(forestTop)-6, bottom, x, bottom+15, label)
	}
	f.printf(`<text class="tick" x="%.1f" y="%.1f">← head is faster</text><text class="tick" x="%.1f" y="%.1f" text-anchor="end">head is slower →</text>`,
		f.x0, bottom+30, f.x1, bottom+30)
	if !f.narrow {
		f.printf(`<text class="tick" x="%.1f" y="14" text-anchor="end">effect and interval</text>`, f.w-2)
	}
}

func (f *forest) row(e *verdict.Entry, control bool) {
	y := f.y + f.rowStep/2
	if f.narrow {
		y = f.y + 30
	}
	class := map[verdict.Decision]string{verdict.Fail: "fail", verdict.Invalid: "fail", verdict.Inconclusive: "open"}[e.Decision]
	if class == "" {
		class = "ok"
	}
	f.printf(`<g class="row %s"><title>%s: %s. %s</title>`, class, html.EscapeString(e.Bench.String()), e.Decision, html.EscapeString(e.Reason))
	f.printf(`<rect class="effectband" x="%.1f" y="%.1f" width="%.1f" height="18"/>`, f.x(-e.MinEffect), y-9, f.x(e.MinEffect)-f.x(-e.MinEffect))
	room := forestNames/6 - 5
	nameX, nameY := 4.0, y+4
	if f.narrow {
		room, nameY = int((f.w-8)/6.3), f.y+13
	}
	name := e.Bench.String()
	if class != "ok" {
		name = string(e.Decision) + " " + name
	}
	if e.Waived != nil {
		name = "waived " + e.Bench.String()
	}
	f.printf(`<text class="rowname" x="%.1f" y="%.1f">%s</text>`, nameX, nameY, html.EscapeString(middle(name, room)))
	for i, d := range e.Dots {
		if math.Abs(d.Effect) > f.reach {
			continue
		}
		dotClass := "round"
		if d.Interference != "" {
			dotClass = "round disturbed"
		}
		// Neighbours in time are kept apart by a fixed pattern of three lines.
		f.printf(`<circle class="%s" cx="%.1f" cy="%.1f" r="2"/>`, dotClass, f.x(d.Effect), y+float64(i%3-1)*4.5)
	}
	low, high := f.x(e.Effect.Low), f.x(e.Effect.High)
	f.printf(`<line class="interval" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>`, low, high, y, y)
	for _, end := range []struct{ v, x, toward float64 }{{e.Effect.Low, low, 1}, {e.Effect.High, high, -1}} {
		if math.Abs(end.v) > f.reach {
			f.printf(`<path class="interval" fill="none" d="M%.1f %.1fL%.1f %.1fL%.1f %.1f"/>`, end.x+6*end.toward, y-4, end.x, y, end.x+6*end.toward, y+4)
		} else {
			f.printf(`<line class="interval" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>`, end.x, end.x, y-4, y+4)
		}
	}
	x := f.x(e.Effect.Effect)
	switch {
	case control:
		f.printf(`<rect class="effect" x="%.1f" y="%.1f" width="9" height="9"/>`, x-4.5, y-4.5)
	case class == "fail":
		f.printf(`<path class="effect" d="M%.1f %.1fL%.1f %.1fL%.1f %.1fL%.1f %.1fZ"/>`, x-7, y, x, y-7, x+7, y, x, y+7)
	case class == "open":
		f.printf(`<circle class="effect" cx="%.1f" cy="%.1f" r="4.6"/>`, x, y)
	default:
		f.printf(`<circle class="effect" cx="%.1f" cy="%.1f" r="4.4"/>`, x, y)
	}
	if !f.narrow {
		f.printf(`<text class="rowvalue" x="%.1f" y="%.1f" text-anchor="end">%s</text>`, f.w-2, y+4, html.EscapeString(interval(e.Effect)))
	}
	f.b.WriteString(`</g>`)
	f.y += f.rowStep
}

// interval is "+1.2 % (−0.3 to +2.4)".
func interval(e verdict.Estimate) string {
	return fmt.Sprintf("%s (%s to %s)", percent(e.Effect), strings.TrimSuffix(percent(e.Low), " %"), strings.TrimSuffix(percent(e.High), " %"))
}

// percent writes a share with one digit behind the point: +5.1 %.
func percent(share float64) string {
	switch {
	case math.IsNaN(share) || math.IsInf(share, 0):
		return "?"
	case math.Abs(share) >= 0.9995:
		return fmt.Sprintf("%+.0f %%", 100*share)
	}
	return fmt.Sprintf("%+.1f %%", 100*share)
}

// middle shortens s to n characters, leaving both ends: names differ there.
func middle(s string, n int) string {
	r := []rune(s)
	if len(r) <= n || n < 8 {
		return s
	}
	tail := n * 3 / 5
	return string(r[:n-tail-1]) + "…" + string(r[len(r)-tail:])
}
