// Package plot draws line charts as SVG for a page that embeds them: text and
// strokes take their colours from the page's style sheet, by class, so that one
// drawing serves a light theme, a dark one and paper. A line is told from
// another by its dashes and by the name at its end, not by colour alone.
package plot

import (
	"cmp"
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
)

// Kind of a scale.
type Kind uint8

const (
	Linear Kind = iota
	Log
	// Nines spreads the way to 1 by orders: 0, 0.9, 0.99, 0.999 lie equally far
	// apart.
	Nines
)

// Axis is one direction of a chart. Min and Max may be left 0 for what the lines
// span; a linear vertical axis begins at 0 then.
type Axis struct {
	Kind     Kind
	Min, Max float64
	Binary   bool                 // linear ticks at multiples of powers of two: bytes
	Label    func(float64) string // of a tick
	Title    string               // what it is, with the unit
}

// Line is a series. X and Y are as long; a Y that is NaN is a gap.
type Line struct {
	Name string
	// Class is the style sheet's: s1 to s6 set the colour.
	Class string
	Dash  string // stroke-dasharray; empty: solid
	Wide  bool
	Area  bool // filled below
	Dots  bool // each point has one
	X, Y  []float64
}

// Band is a stretch of the horizontal axis with a name on top; a line if Until is
// not above At.
type Band struct {
	At, Until float64
	Name      string
	Class     string // phase, idle, fault, profile
}

// Level is a horizontal line, such as an objective.
type Level struct {
	At   float64
	Name string
}

// Chart is a drawing in the making.
type Chart struct {
	Title  string // for readers that do not see it
	X, Y   Axis
	Lines  []Line
	Bands  []Band
	Levels []Level
	// Image lies below the lines, over the whole area: a data: URI.
	Image string
	// Data names the chart for the page's script; empty: it is not asked for values.
	Data string
}

// Room around the drawing area, px.
const (
	roomLeft, roomRight = 62, 86
	roomTop, roomBottom = 26, 34
	lineHeight          = 13
)

// SVG draws the chart w by h px large. Coordinates are rounded to a tenth.
func (c *Chart) SVG(w, h int) string {
	d := drawing{c: c, x0: roomLeft, x1: float64(w) - roomRight, y0: roomTop, y1: float64(h) - roomBottom, id: fmt.Sprintf("%s-%d", c.Data, w)}
	if w < 500 {
		d.x0, d.x1 = 52, float64(w)-58
	}
	d.scales()
	d.printf(`<svg class="chart" viewBox="0 0 %d %d" role="img" aria-label="%s" data-chart="%s" data-x0="%.0f" data-x1="%.0f" data-y0="%.0f" data-y1="%.0f" data-min="%g" data-max="%g">`,
		w, h, html.EscapeString(c.Title), html.EscapeString(c.Data), d.x0, d.x1, d.y0, d.y1, d.x.Min, d.x.Max)
	d.bands()
	d.grid()
	if c.Image != "" {
		d.printf(`<image href="%s" x="%.1f" y="%.1f" width="%.1f" height="%.1f" preserveAspectRatio="none" style="image-rendering:pixelated"/>`, c.Image, d.x0, d.y0, d.x1-d.x0, d.y1-d.y0)
	}
	d.lines()
	d.levels()
	d.names()
	d.printf(`<line class="hair" x1="0" x2="0" y1="%.1f" y2="%.1f"/></svg>`, d.y0, d.y1)
	return d.b.String()
}

type drawing struct {
	c              *Chart
	b              strings.Builder
	x, y           Axis
	x0, x1, y0, y1 float64
	id             string
}

func (d *drawing) printf(format string, args ...any) { fmt.Fprintf(&d.b, format, args...) }

// scales fixes both axes.
func (d *drawing) scales() {
	d.x, d.y = d.c.X, d.c.Y
	var xs, ys []float64
	for i := range d.c.Lines {
		xs, ys = append(xs, d.c.Lines[i].X...), append(ys, d.c.Lines[i].Y...)
	}
	for _, l := range d.c.Levels {
		ys = append(ys, l.At)
	}
	d.x.span(xs, false)
	d.y.span(ys, true)
}

// span sets Min and Max where they are not, with some room above for a vertical axis.
func (a *Axis) span(values []float64, vertical bool) {
	if a.Min != 0 || a.Max != 0 {
		return
	}
	lo, hi := math.Inf(1), math.Inf(-1)
	for _, v := range values {
		if !(math.Abs(v) < 1e30) || a.Kind == Log && v < 1e-30 { // no figure of this world
			continue
		}
		lo, hi = min(lo, v), max(hi, v)
	}
	switch {
	case hi < lo:
		lo, hi = 1, 10
		if a.Kind == Linear {
			lo = 0
		}
	case a.Kind == Log:
		lo, hi = lo/1.15, hi*1.15
		if hi/lo < 5 { // a flat line in the middle
			mid := math.Sqrt(lo * hi)
			lo, hi = mid/3.3, mid*3.3
		}
		lo, hi = nice(lo, math.Floor), nice(hi, math.Ceil)
	case a.Kind == Linear && vertical:
		lo, hi = 0, hi*1.08
	}
	if hi <= lo {
		hi = lo + 1
	}
	a.Min, a.Max = lo, hi
}

// nice is the next of 1, 2, 5 times a power of ten in a direction.
func nice(v float64, round func(float64) float64) float64 {
	e := math.Pow(10, math.Floor(math.Log10(v)))
	steps := []float64{1, 2, 5, 10}
	if round(0.5) == 0 { // down
		slices.Reverse(steps)
	}
	for _, s := range steps {
		if round(0.5) == 0 && s*e <= v*1.0001 || round(0.5) == 1 && s*e >= v*0.9999 {
			return s * e
		}
	}
	return v
}

// at is the place of v on the axis, 0 to 1.
func (a *Axis) at(v float64) float64 {
	switch a.Kind {
	case Log:
		return math.Log(max(v, a.Min*1e-9)/a.Min) / math.Log(a.Max/a.Min)
	case Nines:
		n := func(v float64) float64 { return -math.Log10(max(1-v, 1e-12)) }
		return (n(v) - n(a.Min)) / (n(a.Max) - n(a.Min))
	default:
		return (v - a.Min) / (a.Max - a.Min)
	}
}

func (d *drawing) px(v float64) float64 { return d.x0 + d.x.at(v)*(d.x1-d.x0) }
func (d *drawing) py(v float64) float64 {
	return d.y1 - min(max(d.y.at(v), -0.01), 1.01)*(d.y1-d.y0)
}

// ticks returns at most about n places for labels.
func (a *Axis) ticks(n int) []float64 {
	var out []float64
	switch a.Kind {
	case Nines:
		for p := 0.0; ; p++ {
			v := 1 - math.Pow(10, -p)
			if v > a.Max+1e-12 || p > 9 {
				return out
			}
			out = append(out, v)
		}
	case Log:
		for _, steps := range [][]float64{{1, 2, 5}, {1, 3}, {1}} {
			out = out[:0]
			for e := math.Floor(math.Log10(a.Min)); e <= math.Ceil(math.Log10(a.Max)); e++ {
				for _, s := range steps {
					if v := s * math.Pow(10, e); v >= a.Min && v <= a.Max {
						out = append(out, v)
					}
				}
			}
			if len(out) <= n {
				return out
			}
		}
		every := (len(out) + n - 1) / n // decades
		var some []float64
		for i := 0; i < len(out); i += every {
			some = append(some, out[i])
		}
		return some
	default:
		raw := (a.Max - a.Min) / float64(n)
		step := math.Pow(10, math.Floor(math.Log10(raw)))
		for _, m := range []float64{1, 2, 2.5, 5, 10} {
			if m*step >= raw*0.999 {
				step *= m
				break
			}
		}
		if a.Binary {
			step = math.Pow(2, math.Ceil(math.Log2(raw)))
			if step*0.75 >= raw && step >= 4 && a.Max > 3*step {
				step *= 0.75
			}
		}
		first := math.Ceil(a.Min / step)
		for i := range 64 { // not v += step, which a v that is large beside it stays at
			if v := (first + float64(i)) * step; v <= a.Max+step*1e-9 {
				out = append(out, v)
			}
		}
		return out
	}
}

func (a *Axis) label(v float64) string {
	if a.Label == nil {
		return fmt.Sprintf("%g", v)
	}
	return a.Label(v)
}

func (d *drawing) grid() {
	for _, v := range d.y.ticks(int(d.y1-d.y0) / 34) {
		y := d.py(v)
		d.printf(`<line class="grid" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/><text class="tick" x="%.1f" y="%.1f" text-anchor="end">%s</text>`,
			d.x0, d.x1, y, y, d.x0-7, y+3.8, html.EscapeString(d.y.label(v)))
	}
	last := math.Inf(-1)
	for _, v := range d.x.ticks(int(d.x1-d.x0) / 56) {
		x := d.px(v)
		text := d.x.label(v)
		if half := float64(len(text)) * 3.4; x-half < last+4 {
			continue
		} else {
			last = x + half
		}
		d.printf(`<line class="axis" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/><text class="tick" x="%.1f" y="%.1f" text-anchor="middle">%s</text>`,
			x, x, d.y1, d.y1+4, x, d.y1+16, html.EscapeString(text))
	}
	d.printf(`<line class="axis" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>`, d.x0, d.x1, d.y1, d.y1)
	if d.x.Title != "" {
		d.printf(`<text class="tick" x="%.1f" y="%.1f" text-anchor="end">%s</text>`, d.x1, d.y1+30, html.EscapeString(d.x.Title))
	}
	if d.y.Title != "" {
		d.printf(`<text class="tick" x="2" y="11">%s</text>`, html.EscapeString(d.y.Title))
	}
}

// bands are named on top where there is room for the name.
func (d *drawing) bands() {
	free := d.x0
	sorted := slices.SortedStableFunc(slices.Values(d.c.Bands), func(a, b Band) int { return cmp.Compare(a.At, b.At) })
	for _, b := range sorted {
		at, until := max(b.At, d.x.Min), min(b.Until, d.x.Max)
		if at > d.x.Max || b.Until > b.At && until <= at {
			continue
		}
		x := d.px(at)
		right := d.x1
		if b.Until > b.At {
			right = d.px(until)
			d.printf(`<rect class="band %s" x="%.1f" y="%.1f" width="%.1f" height="%.1f"><title>%s</title></rect>`, b.Class, x, d.y0, right-x, d.y1-d.y0, html.EscapeString(b.Name))
		}
		if b.Class != "idle" {
			d.printf(`<line class="edge %s" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>`, b.Class, x, x, d.y0, d.y1)
		}
		need := float64(len(b.Name))*6 + 6
		if b.Class == "fault" || b.Class == "profile" {
			right = d.x1 + 40
		}
		if at := max(x, free); b.Name != "" && at+need <= right+6 && at-x < 40 {
			d.printf(`<text class="mark %s" x="%.1f" y="%.1f">%s</text>`, b.Class, at+3, d.y0-4, html.EscapeString(b.Name))
			free = at + need
		}
	}
}

func (d *drawing) levels() {
	for _, l := range d.c.Levels {
		y := d.py(l.At)
		d.printf(`<line class="level" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"><title>%s</title></line><text class="levelname" x="%.1f" y="%.1f" text-anchor="end">%s</text>`,
			d.x0, d.x1, y, y, html.EscapeString(l.Name), d.x1-4, y-4, html.EscapeString(l.Name))
	}
}

func (d *drawing) lines() {
	d.printf(`<clipPath id="c-%s"><rect x="%.1f" y="%.1f" width="%.1f" height="%.1f"/></clipPath><g clip-path="url(#c-%s)">`, d.id, d.x0-4, d.y0-4, d.x1-d.x0+8, d.y1-d.y0+8, d.id)
	for i := range d.c.Lines {
		l := &d.c.Lines[i]
		var path, area strings.Builder
		open := false
		var firstX, lastX float64
		for k, v := range l.Y {
			if math.IsNaN(v) || d.y.Kind == Log && v <= 0 {
				open = false
				continue
			}
			x, y := d.px(l.X[k]), d.py(v)
			if !open {
				if area.Len() > 0 {
					fmt.Fprintf(&area, "L%.1f %.1fL%.1f %.1fZ", lastX, d.y1, firstX, d.y1)
				}
				fmt.Fprintf(&path, "M%.1f %.1f", x, y)
				fmt.Fprintf(&area, "M%.1f %.1f", x, y)
				firstX, open = x, true
			} else {
				fmt.Fprintf(&path, "L%.1f %.1f", x, y)
				fmt.Fprintf(&area, "L%.1f %.1f", x, y)
			}
			lastX = x
			if l.Dots {
				d.printf(`<circle class="dot %s" cx="%.1f" cy="%.1f" r="3.2"/>`, l.Class, x, y)
			}
		}
		if path.Len() == 0 {
			continue
		}
		if l.Area {
			d.printf(`<path class="area %s" d="%sL%.1f %.1fL%.1f %.1fZ"/>`, l.Class, area.String(), lastX, d.y1, firstX, d.y1)
		}
		wide := ""
		if l.Wide {
			wide = " bold"
		}
		dash := ""
		if l.Dash != "" {
			dash = ` stroke-dasharray="` + l.Dash + `"`
		}
		d.printf(`<path class="line %s%s"%s d="%s"><title>%s</title></path>`, l.Class, wide, dash, path.String(), html.EscapeString(l.Name))
	}
	d.b.WriteString(`</g>`)
}

// names writes each line's name beside its end, moved apart where ends are near
// each other.
func (d *drawing) names() {
	type name struct {
		l       *Line
		y, want float64
	}
	var all []name
	for i := range d.c.Lines {
		l := &d.c.Lines[i]
		for k := len(l.Y) - 1; k >= 0; k-- {
			if v := l.Y[k]; !math.IsNaN(v) && !(d.y.Kind == Log && v <= 0) {
				if l.Name != "" {
					all = append(all, name{l: l, y: d.py(v), want: d.py(v)})
				}
				break
			}
		}
	}
	slices.SortStableFunc(all, func(a, b name) int { return int(math.Copysign(1, a.want-b.want)) })
	for i := range all {
		if i > 0 {
			all[i].y = max(all[i].y, all[i-1].y+lineHeight)
		}
	}
	bottom := d.y1 + 4
	for i := len(all) - 1; i >= 0; i-- {
		all[i].y = min(all[i].y, bottom)
		bottom = all[i].y - lineHeight
	}
	for _, n := range all {
		d.printf(`<line class="lead %s" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/><text class="name %s" x="%.1f" y="%.1f">%s</text>`,
			n.l.Class, d.x1+1, d.x1+6, n.want, n.y, n.l.Class, d.x1+8, n.y+4, html.EscapeString(n.l.Name))
	}
}
