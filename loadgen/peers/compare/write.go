package compare

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/portask/portask/loadgen/driver"
	"github.com/portask/portask/loadgen/report/figure"
)

// JSON writes the report, indented.
func (r *Report) JSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

// columns of the table: the metrics but MaxRSS's, which is shown as it is.
var columns = []struct {
	m    Metric
	name string
	show func(float64) string
}{
	{Rate, "msg/s", figure.Rate},
	{CPU, "CPU s/M", func(v float64) string { return strconv.FormatFloat(v, 'f', 2, 64) }},
	{E2E50, "e2e p50", figure.Latency},
	{E2E99, "e2e p99", figure.Latency},
	{Ack50, "ack p50", figure.Latency},
	{Ack99, "ack p99", figure.Latency},
	{MaxRSS, "RSS", figure.Bytes},
}

// Text writes the report as a table for a terminal.
func (r *Report) Text(w io.Writer) error {
	p := &printer{w: w}
	r.head(p, "")
	for i := range r.Points {
		x := &r.Points[i]
		p.f("\n%s\n", x.title())
		p.table(x.medians(r), false)
		if t := x.ratios(r); len(t) > 1 {
			p.f("\n  times %s\n", r.Base)
			p.table(t, false)
		}
		x.remarks(p, "  ")
	}
	return p.err
}

// Markdown writes it as a section of a document.
func (r *Report) Markdown(w io.Writer) error {
	p := &printer{w: w}
	p.f("# %s\n\n", r.title())
	r.head(p, "- ")
	for i := range r.Points {
		x := &r.Points[i]
		p.f("\n## %s\n\nMedian (least to most) of the valid runs.\n\n", x.title())
		p.table(x.medians(r), true)
		if t := x.ratios(r); len(t) > 1 {
			p.f("\nTimes %s, of the runs of the same turn (interval):\n\n", r.Base)
			p.table(t, true)
		}
		p.f("\n")
		x.remarks(p, "- ")
	}
	return p.err
}

// title says what is compared.
func (r *Report) title() string {
	if r.Unequal || len(r.Points) == 0 || len(r.Points[0].Cells) == 0 {
		return "Systems of unequal durability"
	}
	switch r.Points[0].Cells[0].Durability {
	case driver.Nothing:
		return "Systems whose answers promise nothing"
	case driver.Memory:
		return "Systems whose answers last as long as the process"
	case driver.OS:
		return "Systems whose answers survive kill -9"
	}
	return "Systems whose answers survive loss of power"
}

type printer struct {
	w   io.Writer
	err error
}

func (p *printer) f(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format, args...)
	}
}

// table writes rows, the first of which is a head.
func (p *printer) table(rows [][]string, markdown bool) {
	if markdown {
		for i, row := range rows {
			p.f("| %s |\n", strings.Join(row, " | "))
			if i == 0 {
				p.f("|%s\n", strings.Repeat(" --- |", len(row)))
			}
		}
		return
	}
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, c := range row {
			width[i] = max(width[i], len([]rune(c)))
		}
	}
	for _, row := range rows {
		line := ""
		for i, c := range row {
			pad := strings.Repeat(" ", width[i]-len([]rune(c)))
			if i == 0 {
				line += c + pad
			} else {
				line += "  " + pad + c
			}
		}
		p.f("  %s\n", strings.TrimRight(line, " "))
	}
}

func (r *Report) head(p *printer, bullet string) {
	if r.Command != "" {
		p.f("%scommand   %s\n", bullet, r.Command)
	}
	if r.Commit != "" {
		p.f("%scommit    %s\n", bullet, r.Commit)
	}
	p.f("%smachine   %s, %d cores, %s, %s; load average %.1f at the beginning\n", bullet, r.Machine.CPU, r.Machine.Cores, r.Machine.Kernel, r.Machine.Go, r.Load)
	least, most, share := r.noise()
	p.f("%swhen      %s, %.0f s; %d turns, order by seed %d\n", bullet, r.Began.UTC().Format("2006-01-02 15:04 UTC"), r.Seconds, r.Turns, r.Seed)
	p.f("%snoise     other programs used %.2f to %.2f processors during the runs (median %.2f)\n", bullet, least, most, share)
	if r.Calm > 0 {
		p.f("%scalm      waited %.0f s in all for less than %.2f processors to be in use before a run\n", bullet, r.CalmSeconds, r.Calm)
	}
	if r.RealTime {
		p.f("%sgenerator at a real-time priority at points with a rate, where the system allows it: its threads come before the server's\n", bullet)
	}
	if r.Unequal {
		p.f("%sUNEQUAL   these targets do not promise the same of an answered message\n", bullet)
	}
}

// noise is what other programs used during runs.
func (r *Report) noise() (least, most, mid float64) {
	var v []float64
	for i := range r.Points {
		for _, c := range r.Points[i].Cells {
			for _, x := range c.Runs {
				v = append(v, x.Others)
			}
		}
	}
	if len(v) == 0 {
		return 0, 0, 0
	}
	least, most = v[0], v[0]
	for _, x := range v {
		least, most = min(least, x), max(most, x)
	}
	return least, most, median(v)
}

func (p *PointReport) title() string {
	if p.Offered > 0 {
		return fmt.Sprintf("%s: %s messages a second, open loop, latencies from the intended time", p.Scenario+" at "+p.Name, figure.Rate(p.Offered))
	}
	return fmt.Sprintf("%s: closed loop, as fast as answers come; latencies are service times", p.Scenario+" at "+p.Name)
}

// label is how a target is called: with its durability where they differ.
func (r *Report) label(c *Cell) string {
	if r.Unequal {
		return c.Target
	}
	name, _, _ := strings.Cut(c.Target, "@")
	return name
}

func (p *PointReport) medians(r *Report) [][]string {
	head := []string{"", "survives", "runs"}
	for _, c := range columns {
		head = append(head, c.name)
	}
	rows := [][]string{head}
	for i := range p.Cells {
		c := &p.Cells[i]
		valid := 0
		for k := range c.Runs {
			if c.Runs[k].Valid() {
				valid++
			}
		}
		row := []string{r.label(c), string(c.Durability), fmt.Sprintf("%d/%d", valid, len(c.Runs))}
		for _, col := range columns {
			v, ok := c.Median[col.m]
			switch {
			case !ok:
				row = append(row, "-")
			case c.Min[col.m] < c.Max[col.m]:
				row = append(row, fmt.Sprintf("%s (%s-%s)", col.show(v), col.show(c.Min[col.m]), col.show(c.Max[col.m])))
			default:
				row = append(row, col.show(v))
			}
		}
		rows = append(rows, row)
	}
	return rows
}

func (p *PointReport) ratios(r *Report) [][]string {
	head := []string{"", "confidence"}
	for _, c := range columns {
		head = append(head, c.name)
	}
	rows := [][]string{head}
	for i := range p.Cells {
		c := &p.Cells[i]
		if len(c.Ratios) == 0 {
			continue
		}
		// Metrics may have different numbers of pairs. One pair has no
		// confidence.
		least, most := 1.0, 0.0
		row := []string{r.label(c), "-"}
		for _, col := range columns {
			x, ok := c.Ratios[col.m]
			if x.Pairs > 1 {
				least, most = min(least, x.Confidence), max(most, x.Confidence)
				row[1] = fmt.Sprintf("%.0f %%", 100*least)
				if least != most {
					row[1] = fmt.Sprintf("%.0f-%.0f %%", 100*least, 100*most)
				}
			}
			switch {
			case !ok:
				row = append(row, "-")
			case x.Pairs > 1:
				row = append(row, fmt.Sprintf("%s (%s-%s)", times(x.Estimate), times(x.Low), times(x.High)))
			default:
				row = append(row, times(x.Estimate))
			}
		}
		rows = append(rows, row)
	}
	return rows
}

// remarks says how targets were set up, and why runs do not count.
func (p *PointReport) remarks(out *printer, bullet string) {
	late := false
	for i := range p.Cells {
		late = late || slices.ContainsFunc(p.Cells[i].Runs, func(r Run) bool { return r.Late })
	}
	if late {
		out.f("%sCPU and RSS are also of runs that are invalid because the generator was late, and for nothing else: the server's work was the same\n", bullet)
	}
	for i := range p.Cells {
		c := &p.Cells[i]
		if c.Unsupported != "" {
			out.f("%s%s: %s\n", bullet, c.Target, c.Unsupported)
			continue
		}
		if c.System.System == "" {
			continue
		}
		how := ""
		for _, l := range c.System.Levels {
			if l.Gives == c.Durability {
				how = l.How
				break
			}
		}
		settings := ""
		for _, k := range sorted(c.System.Settings) {
			if k != "node" && k != "cluster" {
				settings += fmt.Sprintf(", %s %s", k, c.System.Settings[k])
			}
		}
		out.f("%s%s: %s %s; server: %s; answer: %s%s\n", bullet, c.Target, c.System.System, c.System.Version, c.How, how, settings)
		c.faults(out, bullet)
	}
}

// faultsShown of a target at a point are written out.
const faultsShown = 3

// faults says what was wrong with runs: every violation, and the first few
// reasons for which runs are invalid.
func (c *Cell) faults(out *printer, bullet string) {
	invalid := 0
	for i := range c.Runs {
		r := &c.Runs[i]
		for _, v := range r.Violations {
			out.f("%s%s, turn %d: VIOLATION: %s\n", bullet, c.Target, r.Turn, v)
		}
		if len(r.Invalid) > 0 {
			if invalid++; invalid <= faultsShown {
				out.f("%s%s, turn %d: INVALID: %s\n", bullet, c.Target, r.Turn, strings.Join(r.Invalid, "; "))
			}
		}
	}
	if invalid > faultsShown {
		out.f("%s%s: INVALID in %d more turns\n", bullet, c.Target, invalid-faultsShown)
	}
}

// line is a run on one line.
func (r *Run) line() string {
	switch {
	case len(r.Violations) > 0:
		return "VIOLATION: " + strings.Join(r.Violations, "; ")
	case r.Late:
		return fmt.Sprintf("%.2f CPU s per million; the rest is INVALID: %s", r.Values[CPU], strings.Join(r.Invalid, "; "))
	case !r.Valid():
		return "INVALID: " + strings.Join(r.Invalid, "; ")
	}
	return fmt.Sprintf("%s msg/s, %.2f CPU s per million, e2e p50 %s p99 %s", figure.Rate(r.Values[Rate]), r.Values[CPU], figure.Latency(r.Values[E2E50]), figure.Latency(r.Values[E2E99]))
}

// times writes a ratio with three digits.
func times(v float64) string {
	switch {
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}
