package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/portask/portask/ci/history"
	"github.com/portask/portask/ci/verdict"
	"github.com/portask/portask/loadgen/report/plot"
)

//go:embed page.html
var pageText string

//go:embed style.css
var style string

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"lower":     func(d verdict.Decision) string { return strings.ToLower(string(d)) },
	"sign":      sign,
	"percentOf": func(share float64) string { return strings.TrimSuffix(fmt.Sprintf("%.1f", 100*share), ".0") + " %" },
}).Parse(pageText))

// Shapes of charts, px.
const (
	wideForest, narrowForest = 1120, 344
	wideW, wideH             = 556, 240
	narrowW, narrowH         = 344, 220
)

// Most charts of a kind that the page draws; the rest is in the tables.
const (
	chartsMax        = 16
	historyChartsMax = 24
)

// view is what the template reads.
type view struct {
	V             *verdict.Verdict
	Style         template.CSS
	Page          string
	Subtitle      string
	Open          []string
	Tiles         []tile
	Confidence    float64
	ForestWide    template.HTML
	ForestNarrow  template.HTML
	Skipped       []string
	Explained     []explained
	Objectives    []objectiveRow
	Counters      bool
	EqualCounters int
	Moved         []counterRow
	Rows          []benchRow
	Figures       []figure
	History       []figure
	Waivers       []string
	Facts         []verdict.Fact
	Benchstat     string
}

type tile struct{ Name, Value, Unit, Note, Class string }

type explained struct {
	Name, Reason string
	Top          []functionRow
	Notes        []string
}

type functionRow struct{ Name, Kind, Base, Head, Moved, Sigmas string }

type objectiveRow struct {
	Decision                                   verdict.Decision
	Word                                       string
	Name, Note, Value, Interval, Bound, Target string
	Unmet                                      bool
	Gauge                                      template.HTML
}

type counterRow struct {
	Decision                              verdict.Decision
	Word                                  string
	Name, Note, Base, Head, Change, Limit string
}

type benchRow struct {
	Decision                                                   verdict.Decision
	Word                                                       string
	Name, Reason, Metric, Base, Head, Effect, Interval, Allocs string
	Rounds                                                     int
}

type figure struct {
	Title, Text  string
	Wide, Narrow template.HTML
}

// HTML writes the page.
func HTML(w io.Writer, d *Document) error {
	v := d.Verdict
	p := &view{
		V: v, Style: template.CSS(style), // this package's own
		Page:      fmt.Sprintf("%s: %s", v.Decision, sides(v, "→")),
		Subtitle:  strings.Join(subtitle(v), " · "),
		Skipped:   skipped(v),
		Tiles:     tiles(v),
		Facts:     facts(v),
		Benchstat: d.Benchstat,
	}
	if v.Decision == verdict.Inconclusive {
		p.Open = v.Open()
	}
	if all := compared(append(slices.Clone(v.Entries), v.Controls...)); len(all) > 0 {
		p.Confidence = all[0].Effect.Confidence
	}
	p.ForestWide = template.HTML(forestSVG(v.Entries, v.Controls, wideForest)) // it escapes its texts
	p.ForestNarrow = template.HTML(forestSVG(v.Entries, v.Controls, narrowForest))
	for _, e := range compared(v.Entries) {
		if len(e.Top)+len(e.Notes) > 0 {
			p.Explained = append(p.Explained, explainedOf(e.Bench.String(), e.Reason, e.Top, e.Notes))
		}
	}
	for _, c := range v.Counters {
		if len(c.Top)+len(c.Notes) > 0 {
			p.Explained = append(p.Explained, explainedOf(c.Name, c.Reason, c.Top, c.Notes))
		}
	}
	for _, o := range v.Objectives {
		p.Objectives = append(p.Objectives, objectiveOf(o))
	}
	p.Counters = len(v.Counters) > 0
	shown := moved(v)
	p.EqualCounters = len(v.Counters) - len(shown)
	for _, c := range shown {
		p.Moved = append(p.Moved, counterRow{
			Decision: c.Decision, Word: sign(c.Decision) + " " + string(c.Decision), Name: c.Name, Note: c.Reason, Base: digits(c.Base),
			Head: digits(c.Head) + " " + c.Unit, Change: change(c), Limit: fmt.Sprintf("+%.1f %%", 100*c.Limit),
		})
	}
	for _, e := range compared(v.Entries) {
		p.Rows = append(p.Rows, benchOf(e))
	}
	p.charts(d)
	for _, wv := range v.Waivers {
		use := "not used"
		if wv.Used {
			use = "used"
		}
		p.Waivers = append(p.Waivers, fmt.Sprintf("%s up to %+.1f %%, %s: %s (%.10s)", wv.Name, 100*wv.Max, use, wv.Reason, wv.Commit))
	}
	return page.Execute(w, p)
}

func subtitle(v *verdict.Verdict) []string {
	var out []string
	for _, r := range []struct {
		word string
		rev  verdict.Revision
	}{{"base", v.Base}, {"head", v.Head}} {
		s := r.word + " " + r.rev.Name
		if r.rev.Origin != "" {
			s += " (" + r.rev.Origin + ")"
		}
		if r.rev.Name != "" || r.rev.Origin != "" {
			out = append(out, s)
		}
	}
	return append(out, v.Started.UTC().Format("2006-01-02 15:04:05 MST"), seconds(v.Seconds))
}

func tiles(v *verdict.Verdict) []tile {
	var out []tile
	if rows := compared(v.Entries); len(rows) > 0 {
		worst := slices.MaxFunc(rows, func(a, b verdict.Entry) int {
			switch {
			case a.Effect.Effect < b.Effect.Effect:
				return -1
			case a.Effect.Effect > b.Effect.Effect:
				return 1
			}
			return 0
		})
		t := tile{Name: "Largest slowdown", Value: strings.TrimSuffix(percent(worst.Effect.Effect), " %"), Unit: "%", Note: worst.Bench.String()}
		if worst.Decision == verdict.Fail {
			t.Class = "bad"
		}
		out = append(out, t)
	}
	count := func(name string, n int, bad int, note string) {
		if n == 0 {
			return
		}
		t := tile{Name: name, Value: fmt.Sprint(n - bad), Unit: fmt.Sprintf("of %d", n), Note: note}
		if bad > 0 {
			t.Class = "bad"
		}
		out = append(out, t)
	}
	judged, failed, open := 0, 0, 0
	for _, e := range v.Entries {
		switch {
		case e.Decision == verdict.Skipped:
			continue
		case (e.Decision == verdict.Fail || e.Decision == verdict.Invalid) && e.Waived == nil:
			failed++
		case e.Decision == verdict.Inconclusive:
			open++
		}
		judged++
	}
	note := fmt.Sprintf("not slower; %d skipped", len(v.Entries)-judged)
	if open > 0 {
		note = fmt.Sprintf("did not fail, of which %d open; %d skipped", open, len(v.Entries)-judged)
	}
	count("Benchmarks", judged, failed, note)
	failed = 0
	for _, c := range v.Counters {
		if c.Decision == verdict.Fail && c.Waived == nil {
			failed++
		}
	}
	count("Counters", len(v.Counters), failed, fmt.Sprintf("within their limits; %d moved", len(moved(v))))
	failed = 0
	for _, o := range v.Objectives {
		if o.Decision == verdict.Fail {
			failed++
		}
	}
	count("Objectives", len(v.Objectives), failed, fmt.Sprintf("enforced and kept; %d short of their target", len(notMet(v))))
	failed = 0
	for _, c := range v.Controls {
		if c.Decision == verdict.Fail || c.Decision == verdict.Invalid {
			failed++
		}
	}
	count("Controls", len(v.Controls), failed, "quiet: the same program on both sides")
	if v.Rounds > 0 {
		dropped, all := dropped(v)
		note := "no pair was dropped"
		if dropped > 0 {
			note = fmt.Sprintf("%.1f %% of the pairs dropped", 100*float64(dropped)/float64(all))
		}
		out = append(out, tile{Name: "Rounds disturbed", Value: fmt.Sprint(v.Disturbed), Unit: fmt.Sprintf("of %d", v.Rounds), Note: note})
	}
	return out
}

func explainedOf(name, reason string, top []verdict.Function, notes []string) explained {
	x := explained{Name: name, Reason: reason, Notes: notes}
	for _, f := range top {
		unit := cost
		if f.Kind != "cpu" {
			unit = func(x float64) string { return digits(x) + " " + functionUnit(f.Kind) }
		}
		moved := "+" + unit(f.Head-f.Base)
		if f.Head < f.Base {
			moved = "−" + unit(f.Base-f.Head)
		}
		row := functionRow{Name: f.Name, Kind: f.Kind, Base: unit(f.Base), Head: unit(f.Head), Moved: moved, Sigmas: fmt.Sprintf("%.1f", f.Sigmas)}
		if exact(f.Kind) {
			row.Sigmas = "counted"
		}
		x.Top = append(x.Top, row)
	}
	return x
}

func objectiveOf(o verdict.Objective) objectiveRow {
	r := objectiveRow{
		Decision: o.Decision, Word: sign(o.Decision) + " " + string(o.Decision), Name: o.Name, Value: digits(o.Value) + " " + o.Unit,
		Interval: digits(o.Low) + " to " + digits(o.High), Bound: objectiveBound(o, o.Bound), Unmet: o.Target != nil && !o.Met,
	}
	var about []string
	if o.Kernel != "" {
		about = append(about, "ratio to "+o.Kernel)
	}
	if o.Reason != "" && o.Decision != verdict.Pass {
		about = append(about, o.Reason)
	}
	r.Note = strings.Join(about, "; ")
	if o.Decision == verdict.Skipped {
		r.Value, r.Interval = "", ""
		return r
	}
	if o.Low == o.High {
		r.Interval = ""
	}
	if o.Target != nil {
		r.Target = objectiveBound(o, *o.Target)
	}
	r.Gauge = template.HTML(gauge(o)) // numbers only
	return r
}

// gauge draws value, interval, bound and target on one line that begins at 0.
func gauge(o verdict.Objective) string {
	const w = 150.0
	top := max(o.Value, o.High, o.Bound)
	if o.Target != nil {
		top = max(top, *o.Target)
	}
	if !(top > 0) || math.IsInf(top, 0) {
		return ""
	}
	top *= 1.08
	x := func(v float64) float64 { return min(max(v/top, 0), 1) * w }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 150 16" aria-hidden="true"><rect class="track" x="0" y="6" width="150" height="4" rx="2"/><rect class="low" x="%.1f" y="3" width="%.1f" height="10"/>`, x(o.Low), max(x(o.High)-x(o.Low), 0))
	fmt.Fprintf(&b, `<line class="value" x1="%.1f" x2="%.1f" y1="2" y2="14"/><line class="bound" x1="%.1f" x2="%.1f" y1="0" y2="16"/>`, x(o.Value), x(o.Value), x(o.Bound), x(o.Bound))
	if o.Target != nil {
		fmt.Fprintf(&b, `<line class="target" x1="%.1f" x2="%.1f" y1="0" y2="16"/>`, x(*o.Target), x(*o.Target))
	}
	b.WriteString(`</svg>`)
	return b.String()
}

func benchOf(e verdict.Entry) benchRow {
	r := benchRow{
		Decision: e.Decision, Word: sign(e.Decision) + " " + string(e.Decision), Name: e.Bench.String(), Metric: e.Metric, Base: cost(e.BaseNs),
		Head: cost(e.HeadNs), Effect: percent(e.Effect.Effect), Interval: percent(e.Effect.Low) + " to " + percent(e.Effect.High), Rounds: e.Effect.Rounds,
		Allocs: digits(e.AllocsHead),
	}
	if e.AllocsBase != e.AllocsHead {
		r.Allocs = digits(e.AllocsBase) + " → " + digits(e.AllocsHead)
	}
	if e.Decision != verdict.Pass || e.Waived != nil || e.Changed {
		r.Reason = e.Reason
		if e.Changed {
			r.Reason += "; the benchmark's own source differs"
		}
		if e.Waived != nil {
			r.Reason += "; waived: " + e.Waived.Reason
		}
	}
	return r
}

// charts draws rounds and quantiles of what failed or is open, else of what
// moved most; then the history, series with changes first.
func (p *view) charts(d *Document) {
	add := func(to *[]figure, c *plot.Chart, data, title, text string) {
		c.Title, c.Data = title+". "+text, data
		*to = append(*to, figure{Title: title, Text: text, Wide: template.HTML(c.SVG(wideW, wideH)), Narrow: template.HTML(c.SVG(narrowW, narrowH))}) // SVG escapes its texts
	}
	rows := compared(d.Verdict.Entries)
	shown := 0
	for i := range rows {
		e := &rows[i]
		if shown >= chartsMax || e.Decision == verdict.Pass && shown >= 4 {
			break
		}
		if len(e.Dots) > 0 {
			shown++
			add(&p.Figures, dots(e), fmt.Sprintf("d%d", i), e.Bench.String(), "Rounds in their order: "+e.Metric+" of head against base.")
		}
		for k := range d.Curves {
			if c := &d.Curves[k]; c.Bench == e.Bench && len(c.Q) > 0 && len(c.Q) == len(c.Base) && len(c.Q) == len(c.Head) {
				shown++
				add(&p.Figures, c.chart(), fmt.Sprintf("q%d", i), e.Bench.String(), "Slices of all rounds by quantile, "+c.Unit+".")
			}
		}
	}
	series := slices.Clone(d.History)
	slices.SortStableFunc(series, func(a, b history.Series) int { return len(b.Changes) - len(a.Changes) })
	for i := range series {
		if len(p.History) >= historyChartsMax {
			break
		}
		if s := &series[i]; len(s.Points) >= 2 {
			text := fmt.Sprintf("%d runs", len(s.Points))
			if n := len(s.Changes); n > 0 {
				text += fmt.Sprintf(", %s of level", plural(n, "change"))
			}
			add(&p.History, historyChart(s), fmt.Sprintf("h%d", i), s.Name, text+".")
		}
	}
}

func facts(v *verdict.Verdict) []verdict.Fact {
	var out []verdict.Fact
	add := func(key, format string, args ...any) {
		out = append(out, verdict.Fact{Key: key, Value: fmt.Sprintf(format, args...)})
	}
	add("command", "%s", v.Command)
	add("base", "%s %s", v.Base.Commit, v.Base.Subject)
	add("head", "%s %s", v.Head.Commit, v.Head.Subject)
	add("time", "%s, of which %s measuring; budget %s", seconds(v.Seconds), seconds(v.MeasureSeconds), seconds(v.Rules.BudgetSeconds))
	add("seed", "%d", v.Seed)
	add("rules", "fails from %s (CPU) or %s (time on the wall), one-sided family level %.3g; a benchmark passes once its upper bound is below %s",
		percent(v.Rules.MinEffectCPU), percent(v.Rules.MinEffectWall), v.Rules.ConfirmAlpha, percent(v.Rules.Equivalence))
	add("machine", "%s", environment(v))
	if v.Environment.AvailableB > 0 {
		add("memory available", "%.1f GiB", float64(v.Environment.AvailableB)/(1<<30))
	}
	out = append(out, v.Machine...)
	if v.Raw != "" {
		add("raw samples", "%s", v.Raw)
	}
	return out
}
