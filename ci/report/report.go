// Package report prints a verdict: one screen of text, Markdown to paste, the
// stock benchstat's own view of the raw samples, and one page of HTML that
// needs nothing else, neither network nor script.
//
// It decides nothing. What it prints is in the verdict, in the samples, or in
// the history that the caller gives.
package report

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/portask/portask/ci/history"
	"github.com/portask/portask/ci/internal/jsonfile"
	"github.com/portask/portask/ci/sample"
	"github.com/portask/portask/ci/verdict"
)

// Document is what a report is made of. Only Verdict is required.
type Document struct {
	Verdict *verdict.Verdict
	// Series are the raw samples of the run; Curves are what is kept of them in
	// the report's directory. Write fills Curves from Series.
	Series []sample.Series
	Curves []Curve
	// History are the series that the page draws, oldest point first.
	History []history.Series
	// Benchstat is the stock tool's output.
	Benchstat string
	// Raw is the file of raw samples in the Go benchmark format, for the stock
	// tool; empty: there is none.
	Raw string
}

// Files that Write makes in a report's directory.
const (
	VerdictJSON  = "verdict.json"
	VerdictMD    = "verdict.md"
	VerdictText  = "verdict.txt"
	BenchstatTxt = "benchstat.txt"
	PageHTML     = "report.html"
	CurvesJSON   = "curves.json"
)

// Write makes all files of a report in dir, which is made if need be. Files of
// an earlier report there are replaced.
func Write(ctx context.Context, dir string, d *Document) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	if len(d.Series) > 0 {
		d.Curves = curves(d.Series)
	}
	if d.Benchstat == "" && d.Raw != "" {
		d.Benchstat = Benchstat(ctx, d.Raw)
	}
	for _, f := range []struct {
		name  string
		write func(io.Writer) error
	}{
		{VerdictJSON, d.Verdict.Write},
		{VerdictText, func(w io.Writer) error { return Text(w, d.Verdict) }},
		{VerdictMD, func(w io.Writer) error { return Markdown(w, d.Verdict) }},
		{PageHTML, func(w io.Writer) error { return HTML(w, d) }},
		{CurvesJSON, func(w io.Writer) error { return json.NewEncoder(w).Encode(d.Curves) }},
		{BenchstatTxt, func(w io.Writer) error { _, err := io.WriteString(w, d.Benchstat); return err }},
	} {
		if f.name == CurvesJSON && len(d.Curves) == 0 || f.name == BenchstatTxt && d.Benchstat == "" {
			continue
		}
		var b bytes.Buffer
		if err := f.write(&b); err != nil {
			return fmt.Errorf("report: %s: %w", f.name, err)
		}
		if err := os.WriteFile(filepath.Join(dir, f.name), b.Bytes(), 0o666); err != nil {
			return err
		}
	}
	return nil
}

// curvesBytesMax bounds curves.json when it is read back.
const curvesBytesMax = 8 << 20

// Read takes back what Write left in dir, so that the report can be made again
// by a later version. Series are not kept there.
func Read(dir string) (*Document, error) {
	d := new(Document)
	var err error
	if d.Verdict, err = verdict.ReadFile(filepath.Join(dir, VerdictJSON)); err != nil {
		return nil, err
	}
	curves := filepath.Join(dir, CurvesJSON)
	if b, err := os.ReadFile(curves); err == nil {
		if len(b) > curvesBytesMax {
			return nil, fmt.Errorf("%s: more than %d bytes", curves, curvesBytesMax)
		}
		if err := jsonfile.Unmarshal(b, &d.Curves); err != nil {
			return nil, fmt.Errorf("%s: %w", curves, err)
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(dir, BenchstatTxt))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	d.Benchstat = string(b)
	return d, nil
}

// facts that every form prints.

// sides is "1234567890 (HEAD~1, first parent) → abcdef0123 (HEAD)".
func sides(v *verdict.Verdict, arrow string) string {
	side := func(r verdict.Revision) string {
		var about []string
		if r.Name != "" && !strings.HasPrefix(r.Commit, r.Name) {
			about = append(about, r.Name)
		}
		if r.Origin != "" {
			about = append(about, r.Origin)
		}
		if len(about) == 0 {
			return r.Short()
		}
		return r.Short() + " (" + strings.Join(about, ", ") + ")"
	}
	return side(v.Base) + " " + arrow + " " + side(v.Head)
}

// counted tells how many of each there were.
func counted(v *verdict.Verdict) string {
	judged := 0
	for _, e := range v.Entries {
		if e.Decision != verdict.Skipped {
			judged++
		}
	}
	s := []string{plural(judged, "benchmark") + " judged"}
	if n := len(v.Entries) - judged; n > 0 {
		s = append(s, fmt.Sprintf("%d skipped", n))
	}
	for _, c := range []struct {
		n    int
		what string
	}{{len(v.Counters), "counter"}, {len(v.Objectives), "objective"}, {len(v.Controls), "control"}} {
		if c.n > 0 {
			s = append(s, plural(c.n, c.what))
		}
	}
	return strings.Join(s, ", ")
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// machine says what else went on.
func environment(v *verdict.Verdict) string {
	e := v.Environment
	s := fmt.Sprintf("%s, %d disturbed; processors busy %.0f %%, stolen %.1f %%, others waited %.0f %% of the time, load %.1f",
		plural(v.Rounds, "round"), v.Disturbed, 100*e.BusyShare, 100*e.StealShare, 100*e.CPUPressure, e.Load1)
	if e.ThrottledS > 0 {
		s += fmt.Sprintf("; the control group was throttled for %.1f s", e.ThrottledS)
	}
	return s
}

// dropped counts pairs that were left out, of all.
func dropped(v *verdict.Verdict) (out, all int) {
	for _, e := range append(v.Entries[:len(v.Entries):len(v.Entries)], v.Controls...) {
		for _, d := range e.Dots {
			out += d.Dropped
			all += d.Dropped + d.Pairs
		}
	}
	return out, all
}

// seconds of a run: 95 s, 4 min 12 s.
func seconds(s float64) string {
	d := time.Duration(s * float64(time.Second)).Round(time.Second)
	if d < 2*time.Minute {
		return fmt.Sprintf("%.0f s", d.Seconds())
	}
	return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
}

// cost of an operation: 850 ns, 42.3 µs.
func cost(ns float64) string {
	switch {
	case ns <= 0:
		return "–"
	case ns < 1e3:
		return digits(ns) + " ns"
	case ns < 1e6:
		return digits(ns/1e3) + " µs"
	case ns < 1e9:
		return digits(ns/1e6) + " ms"
	}
	return digits(ns/1e9) + " s"
}

// digits writes three significant digits.
func digits(x float64) string {
	switch a := max(x, -x); {
	case a >= 1e6:
		return fmt.Sprintf("%.3g", x)
	case a >= 99.95 || x == float64(int64(x)):
		return fmt.Sprintf("%.0f", x)
	case a >= 9.995:
		return fmt.Sprintf("%.1f", x)
	case a >= 0.0995:
		return fmt.Sprintf("%.2f", x)
	}
	return fmt.Sprintf("%.3g", x)
}

// objectiveBound is "≤ 1.3" or "≥ 0.8".
func objectiveBound(o verdict.Objective, bound float64) string {
	if o.Upper {
		return "≤ " + digits(bound)
	}
	return "≥ " + digits(bound)
}

// notMet are the objectives whose target is not reached.
func notMet(v *verdict.Verdict) (out []verdict.Objective) {
	for _, o := range v.Objectives {
		if o.Target != nil && !o.Met {
			out = append(out, o)
		}
	}
	return out
}

// moved are the counters that are not what they were.
func moved(v *verdict.Verdict) (out []verdict.Counter) {
	for _, c := range v.Counters {
		if c.Decision != verdict.Pass && c.Decision != verdict.Skipped || c.Base != c.Head {
			out = append(out, c)
		}
	}
	return out
}

// change of a counter, as a share of its base.
func change(c verdict.Counter) string {
	if c.Base == 0 {
		if c.Head == 0 {
			return "0"
		}
		return "from 0"
	}
	return percent(c.Head/c.Base - 1)
}
