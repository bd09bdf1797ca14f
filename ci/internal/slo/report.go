package slo

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/portask/portask/ci/verdict"
)

// ErrMissed is wrapped by Report.Err when a bound was missed or a value of a
// required objective was never measured.
var ErrMissed = errors.New("objective missed")

// Report collects the verdicts of one run. The zero value is not usable; use
// NewReport. Not safe for concurrent use.
type Report struct {
	file     *File
	out      io.Writer
	verdicts []verdict.Objective
	unknown  []string
}

// NewReport judges against f and prints each verdict to out as it comes.
func NewReport(f *File, out io.Writer) *Report { return &Report{file: f, out: out} }

// Count judges and prints one exact value. A name that is not in the file is an
// error of the run (Err tells it): a renamed measurement must not pass silently.
func (r *Report) Count(name string, value float64) verdict.Objective {
	return r.add(name, Figures([]float64{value}), true)
}

// Turns judges and prints a value that was measured once a turn.
func (r *Report) Turns(name string, samples []Sample) verdict.Objective {
	return r.add(name, samples, false)
}

func (r *Report) add(name string, samples []Sample, exact bool) verdict.Objective {
	o, ok := r.file.Find(name)
	if !ok {
		r.unknown = append(r.unknown, name)
		return verdict.Objective{Name: name, Decision: verdict.Invalid}
	}
	v := r.file.Judge(o, samples, exact)
	r.verdicts = append(r.verdicts, v)
	fmt.Fprintln(r.out, Line(v))
	return v
}

// Err is nil if every name in required was measured and no bound is missed.
// A bound that is open, with the interval across it, is no error: see Open.
func (r *Report) Err(required ...string) error {
	var bad []string
	for _, name := range r.unknown {
		bad = append(bad, name+": not in the objectives file")
	}
	have := make(map[string]bool, len(r.verdicts))
	for _, v := range r.verdicts {
		have[v.Name] = v.Turns > 0
		if v.Decision == verdict.Fail {
			bad = append(bad, v.Name+": "+v.Reason)
		}
	}
	for _, name := range required {
		if !have[name] {
			bad = append(bad, name+": not measured")
		}
	}
	if len(bad) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrMissed, strings.Join(bad, "; "))
}

// Open are the names of objectives whose interval lies across the bound.
func (r *Report) Open() []string {
	var names []string
	for _, v := range r.verdicts {
		if v.Decision == verdict.Inconclusive {
			names = append(names, v.Name)
		}
	}
	return names
}

// Figure is the value with its interval, without the objective's name.
func Figure(v verdict.Objective) string {
	if v.Turns == 0 {
		return "-"
	}
	s := number(v.Value, v.Unit)
	if v.Low != v.High {
		s += " (" + number(v.Low, v.Unit) + " to " + number(v.High, v.Unit) + ")"
	}
	return s
}

// number prints a figure of a unit for people.
func number(x float64, unit string) string {
	switch {
	case unit == "share":
		return fmt.Sprintf("%.3g %%", 100*x)
	case unit == "B" && x >= 1<<20:
		return fmt.Sprintf("%.1f MiB", x/(1<<20))
	case unit == "ns" && x >= 1e9:
		return fmt.Sprintf("%.3g s", x/1e9)
	case unit == "ns" && x >= 1e6:
		return fmt.Sprintf("%.3g ms", x/1e6)
	case unit == "ns" && x >= 1e3:
		return fmt.Sprintf("%.3g us", x/1e3)
	case unit == "ratio" || unit == "count":
		return fmt.Sprintf("%.3g", x)
	}
	return fmt.Sprintf("%.3g %s", x, unit)
}

// bound prints a bound with its direction.
func bound(v verdict.Objective, x float64) string {
	if v.Upper {
		return "at most " + number(x, v.Unit)
	}
	return "at least " + number(x, v.Unit)
}

// Line is a verdict on one line, bound and unmet target included.
func Line(v verdict.Objective) string {
	s := fmt.Sprintf("%-12s %-38s %s, %s", v.Decision, v.Name, Figure(v), bound(v, v.Bound))
	if v.Turns > 1 {
		s += fmt.Sprintf(", %d turns", v.Turns)
	}
	if v.Turns > 0 && !v.Met && v.Target != nil {
		s += "; NOT MET: target " + bound(v, *v.Target)
	}
	return s
}

// Unmet are the objectives whose value misses a target that is not enforced yet.
func Unmet(all []verdict.Objective) []verdict.Objective {
	var out []verdict.Objective
	for _, v := range all {
		if v.Turns > 0 && v.Target != nil && !v.Met {
			out = append(out, v)
		}
	}
	return out
}

// tableHead are the first lines of a Table.
const tableHead = "| objective | measured | at | enforced | target |\n| --- | --- | --- | --- | --- |\n"

// Table is Markdown: every objective with what was measured at which commit, the
// bound that the gate enforces, and the target where that is not met. before is
// the table as it stands: rows of objectives that all does not hold, or that
// were not measured, stay as they are there.
func Table(w io.Writer, f *File, all []verdict.Objective, commit, before string) error {
	rows := make(map[string]string)
	for line := range strings.Lines(before) {
		if rest, ok := strings.CutPrefix(line, "| `"); ok {
			name, _, _ := strings.Cut(rest, "`")
			rows[name] = strings.TrimRight(line, "\n") + "\n"
		}
	}
	for _, v := range all {
		if o, ok := f.Find(v.Name); ok && v.Turns > 0 {
			rows[v.Name] = row(o, v, commit)
		}
	}
	var b strings.Builder
	b.WriteString(tableHead)
	for _, o := range f.Objectives {
		b.WriteString(rows[o.Name])
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func row(o *Objective, v verdict.Objective, commit string) string {
	what := o.Why
	if o.Mission != "" {
		what = o.Mission
	}
	target := "met"
	switch {
	case v.Target != nil && !v.Met:
		target = "**NOT MET**: " + bound(v, *v.Target)
	case !v.Met:
		target = "**missed**"
	case v.Decision == verdict.Inconclusive:
		target = "met, not settled"
	}
	return fmt.Sprintf("| `%s`: %s | %s | %s | %s | %s |\n", v.Name, what, Figure(v), commit, bound(v, o.Limit()), target) // the bound is the file's: it may be tighter than when that was measured
}
