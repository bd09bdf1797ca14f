// Package history keeps what each gate measured of its head as one line a run
// in a file that only grows, and finds in the series where a level changed.
//
// Times are kept as ratios to a calibration kernel of the same run, so that
// lines of different machines and of busy hours can stand in one series; the
// raw figure stands beside it. Objectives and counters are ratios and counts
// already. The gate compares two revisions in the same minutes and needs none
// of this; the history finds what many small steps add up to.
package history

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/portask/portask/ci/internal/jsonl"
	"github.com/portask/portask/ci/stat"
	"github.com/portask/portask/ci/verdict"
)

// Version of a line.
const Version = 1

// Path of the file below a repository.
const Path = "benchdata/history.jsonl"

// Line is one run.
type Line struct {
	Version  int              `json:"version"`
	When     time.Time        `json:"when"`
	Commit   string           `json:"commit"`
	Decision verdict.Decision `json:"decision"`
	// CPU is the processor's model and Cores how many there were.
	CPU string `json:"cpu,omitempty"`
	// Calibration is the kernel that times are divided by, and its nanoseconds
	// per operation in this run. Empty: no control ran, and the line has no
	// times.
	Calibration   string  `json:"calibration,omitempty"`
	CalibrationNs float64 `json:"calibration_ns,omitempty"`
	// Values by the series' names.
	Values map[string]Value `json:"values"`
}

// Value is one figure.
type Value struct {
	// V is a ratio to the calibration kernel for a benchmark, else the figure
	// itself.
	V    float64 `json:"v"`
	Unit string  `json:"unit"`
	// Ns of a benchmark, per operation.
	Ns float64 `json:"ns,omitempty"`
	// Higher is better.
	Higher bool `json:"higher,omitempty"`
}

// Of makes a line of a verdict. An invalid run has none: ok is false.
func Of(v *verdict.Verdict) (l Line, ok bool) {
	if v.Decision == verdict.Invalid {
		return l, false
	}
	l = Line{Version: Version, When: v.Started.UTC().Truncate(time.Second), Commit: v.Head.Commit, Decision: v.Decision, Values: map[string]Value{}}
	if v.Head.Dirty {
		l.Commit += "+"
	}
	for _, f := range v.Machine {
		if f.Key == "cpu" {
			l.CPU = f.Value
		}
	}
	// The first control by name, so that it is the same one in each run.
	for _, c := range slices.SortedFunc(slices.Values(v.Controls), func(a, b verdict.Entry) int {
		return strings.Compare(a.Bench.String(), b.Bench.String())
	}) {
		if c.HeadNs > 0 && c.BaseNs > 0 {
			l.Calibration, l.CalibrationNs = c.Bench.String(), math.Sqrt(c.HeadNs*c.BaseNs) // both are the same program
			break
		}
	}
	for _, e := range v.Entries {
		if e.HeadNs > 0 && l.CalibrationNs > 0 {
			l.Values[e.Bench.String()] = Value{V: e.HeadNs / l.CalibrationNs, Unit: "calibration units", Ns: e.HeadNs}
		}
	}
	for _, o := range v.Objectives {
		if o.Decision != verdict.Skipped {
			l.Values["objective "+o.Name] = Value{V: o.Value, Unit: o.Unit, Higher: !o.Upper}
		}
	}
	for _, c := range v.Counters {
		if c.Decision != verdict.Skipped {
			l.Values["counter "+c.Name] = Value{V: c.Head, Unit: c.Unit}
		}
	}
	return l, len(l.Values) > 0
}

// Append adds the line at the end of the file, which is made with its
// directory if need be. The write is one call: lines of two programs do not mix.
func Append(name string, l Line) error { return jsonl.Append(name, l) }

// Bounds of what Read takes.
const (
	lineBytesMax = 1 << 20
	linesMax     = 100_000
)

// ReadFile reads a file of lines; one that is not there has none. Errors name
// file and line.
func ReadFile(name string) ([]Line, error) {
	var lines []Line
	err := jsonl.ReadFile(name, lineBytesMax, linesMax, parseInto(&lines))
	return lines, err
}

// Read reads lines in their order. One of a newer version, or one that is not
// JSON, is an error that names its number.
func Read(r io.Reader) ([]Line, error) {
	var lines []Line
	err := jsonl.Read(r, lineBytesMax, linesMax, parseInto(&lines))
	return lines, err
}

func parseInto(lines *[]Line) func([]byte) error {
	return func(b []byte) error {
		var l Line
		if err := json.Unmarshal(b, &l); err != nil {
			return err
		}
		if l.Version != Version {
			return fmt.Errorf("version %d, want %d", l.Version, Version)
		}
		for name, v := range l.Values {
			if math.IsNaN(v.V) || math.IsInf(v.V, 0) {
				return fmt.Errorf("%s is %v", name, v.V)
			}
		}
		*lines = append(*lines, l)
		return nil
	}
}

// Series is one figure over the runs.
type Series struct {
	Name, Unit string
	Higher     bool // is better
	Points     []Point
	// Changes are where the level changed, by the rule of stat.Changes over
	// the logarithms of the values.
	Changes []Change
}

// Point is one run's value.
type Point struct {
	When   time.Time
	Commit string
	V, Ns  float64
}

// minChange is the least change that is told. Counters that never move make any
// difference significant, the last bit of a logarithm included.
const minChange = 0.005

// Change of level. By is a share: +0.05 is five per cent more.
type Change struct {
	At     int // in Points: the first of the new level
	Commit string
	By     float64
	P      float64
	// Worse: in the direction that nobody wants.
	Worse bool
}

// SeriesOf arranges lines as series, sorted by name, with their changes. Of
// runs of one commit all are kept. Times that were divided by another kernel
// than that of the last line stay out.
func SeriesOf(lines []Line) []Series {
	calibration := ""
	for _, l := range lines {
		if l.Calibration != "" {
			calibration = l.Calibration
		}
	}
	byName := map[string]*Series{}
	for _, l := range lines {
		for name, v := range l.Values {
			if v.Ns > 0 && l.Calibration != calibration || !(v.V > 0) {
				continue
			}
			s := byName[name]
			if s == nil {
				s = &Series{Name: name}
				byName[name] = s
			}
			s.Unit, s.Higher = v.Unit, v.Higher
			s.Points = append(s.Points, Point{When: l.When, Commit: l.Commit, V: v.V, Ns: v.Ns})
		}
	}
	var out []Series
	for _, s := range byName {
		logs := make([]float64, len(s.Points))
		for i, p := range s.Points {
			logs[i] = math.Log(p.V)
		}
		for _, c := range stat.Changes(logs, stat.ChangeWindow, stat.ChangeP) {
			by := math.Exp(c.After-c.Before) - 1
			if math.Abs(by) < minChange {
				continue
			}
			s.Changes = append(s.Changes, Change{At: c.At, Commit: s.Points[c.At].Commit, By: by, P: c.P, Worse: by > 0 != s.Higher})
		}
		out = append(out, *s)
	}
	slices.SortFunc(out, func(a, b Series) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Text prints the series whose names match: the last value, how it moved, and
// each change of level.
func Text(w io.Writer, series []Series) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%-64s %5s %11s %9s  %s\n", "series", "runs", "last", "since 1st", "unit")
	for _, s := range series {
		n := len(s.Points)
		last := s.Points[n-1]
		fmt.Fprintf(&b, "%-64s %5d %11.4g %+8.1f%%  %s\n", s.Name, n, last.V, 100*(last.V/s.Points[0].V-1), s.Unit)
		for _, c := range s.Changes {
			word := "better"
			if c.Worse {
				word = "WORSE"
			}
			fmt.Fprintf(&b, "    %s %+.1f %% since run %d, %.10s of %s (p %.2g)\n", word, 100*c.By, c.At+1, c.Commit, s.Points[c.At].When.Format("2006-01-02"), c.P)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
