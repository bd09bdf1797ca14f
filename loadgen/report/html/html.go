// Package html writes a run's report as one page that needs nothing else: no
// network, no script to be legible, no font but the reader's own. It follows the
// reader's light or dark theme and prints. The verdict comes first.
//
// Charts are drawn here, as SVG, each in two shapes, for wide and for narrow
// windows; a small script adds a hair line that tells values under the pointer,
// on all time axes at once.
package html

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"strings"

	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/report"
	"github.com/portask/portask/loadgen/scenario"
)

//go:embed page.html
var pageText string

//go:embed style.css
var style string

//go:embed script.js
var script string

var page = template.Must(template.New("page").Parse(pageText))

// Options of Write.
type Options struct {
	// Heat is the latency over time as a heat map; nil: the page has none.
	Heat *Heat
}

// Write writes the page.
func Write(w io.Writer, d *report.Document, o Options) error {
	v := newView("load test report")
	v.Document = d
	v.fill(o)
	v.draw()
	return v.write(w)
}

func newView(kicker string) *view {
	return &view{Style: template.CSS(style), Script: template.JS(script), data: map[string]*chartData{}, Kicker: kicker} // style and script are this package's own
}

func (v *view) write(w io.Writer) error {
	data, err := json.Marshal(v.data)
	if err != nil {
		return err
	}
	v.Data = template.JS(data) // json.Marshal escapes <, > and &
	return page.Execute(w, v)
}

// view is what the template reads.
type view struct {
	*report.Document
	Style  template.CSS
	Script template.JS
	Data   template.JS
	data   map[string]*chartData
	// Charts over the whole width and over half of it, before they are drawn.
	full, half []pending

	Page     string // the window's title
	Kicker   string
	Title    string
	Subtitle string
	Foot     string
	Verdict  verdict
	Tiles    []tile
	Goals    []goal

	// NoResult: the charts show what an invalid run measured.
	NoResult bool
	Main     []chartFigure // over the whole width
	Figures  []chartFigure

	Fates     []fate
	Latencies table
	Phases    table
	Broker    table
	Totals    []fact
	Machine   []fact
	Target    []fact
	Payload   []fact
	Files     []fact
	Faults    table
	Probes    table
	Notes     []string
	YAML      string
}

// verdict is what stands on top.
type verdict struct {
	Class string // pass, invalid, missed, violation
	Sign  string // a shape: the colour says it only again
	Word  string
	Text  string
	Lines []string
}

type tile struct{ Name, Value, Unit, Note, Class string }

type goal struct {
	Name, Want, Got string
	Met             bool
}

type fate struct {
	Name, Count, Meaning, Class string
}

type fact struct{ Name, Value, Note string }

type table struct {
	Head []string
	Rows [][]string
}

func (t *table) add(cells ...string) { t.Rows = append(t.Rows, cells) }

func (v *view) fill(o Options) {
	s, err := scenario.Parse("resolved", []byte(v.Resolved))
	if err != nil {
		s = nil // of another version: what needs it is left out
	}
	m, valid := v.Shown()
	v.NoResult = !valid && m != nil
	v.Title = v.Scenario
	v.Subtitle = subtitle(v.Document, s)
	v.Verdict = judge(v.Document, s)
	v.Page = fmt.Sprintf("%s: %s on %s", v.Verdict.Word, v.Scenario, v.System.System)
	v.Foot = fmt.Sprintf("Where a chart has fewer points than the run had seconds, the worst latency of the merged ones is drawn. Run %s, scenario %s, schema %d.", v.RunID, v.Hash, v.Schema)
	v.YAML = strings.TrimSpace(v.Resolved)
	if valid {
		v.tiles(m)
		v.goals(s, m)
		v.latencies(m)
		v.phases(m)
	}
	v.fates()
	if m != nil {
		v.charts(m, s, o)
	}
	v.faults()
	v.facts()
	v.Notes = append(v.Notes, v.Result.Notes...)
	for _, e := range v.Errors {
		v.Notes = append(v.Notes, "client: "+e)
	}
	if v.Evidence != nil {
		v.Notes = append(v.Notes, v.Evidence.Notes...)
	}
}

func subtitle(d *report.Document, s *scenario.Scenario) string {
	parts := []string{strings.TrimSpace(d.System.System + " " + d.System.Version), "ack " + d.Ack}
	if d.Visibility != "" && d.Visibility != d.Ack {
		parts = append(parts, "visibility "+d.Visibility)
	}
	kind := "open loop"
	if d.Loop == scenario.ClosedLoop {
		kind = "closed loop: latencies are service times"
	}
	parts = append(parts, kind, fmt.Sprintf("%d producers, %d consumers, %d partitions", d.Producers, d.Consumers, d.Partitions))
	if s != nil {
		parts = append(parts, s.Duration().String())
	}
	parts = append(parts, d.Began.UTC().Format("2006-01-02 15:04:05 MST"))
	return strings.Join(parts, " · ")
}

func judge(d *report.Document, s *scenario.Scenario) verdict {
	lines := func(all []load.Problem) (out []string) {
		for _, p := range all {
			out = append(out, p.String())
		}
		return out
	}
	objectives := 0
	if s != nil {
		objectives = len(s.Objectives)
	}
	switch d.ExitStatus() {
	case 4:
		v := verdict{Class: "violation", Sign: "✕", Word: "Data violation", Text: "The target broke a promise about messages.", Lines: lines(d.Violations)}
		if len(d.Invalid) > 0 {
			v.Lines = append(v.Lines, lines(d.Invalid)...)
			v.Text += " The run is invalid besides: its latencies and rates are no result."
		}
		return v
	case 3:
		return verdict{Class: "invalid", Sign: "?", Word: "Invalid", Text: "The generator was the limit, or the run did not end properly: its latencies and rates say nothing about the target. What is said of messages holds.", Lines: lines(d.Invalid)}
	case 2:
		return verdict{Class: "missed", Sign: "!", Word: "Objective missed", Text: "The run is valid, and every promise about messages was kept.", Lines: lines(d.Missed)}
	}
	v := verdict{Class: "pass", Sign: "✓", Word: "Valid", Text: "Every acknowledged message arrived once, in order and intact."}
	if d.Ack == "none" {
		v.Text = "Nothing arrived twice, out of order or damaged; at ack none losses are allowed."
	}
	switch {
	case objectives == 1:
		v.Word = "Objective met"
	case objectives > 1:
		v.Word = "Objectives met"
		v.Text = fmt.Sprintf("All %d of them. %s", objectives, v.Text)
	}
	return v
}
