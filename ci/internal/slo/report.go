package slo

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// ErrMissed is wrapped by Report.Err when a bound was missed or a value of a
// required objective was never measured.
var ErrMissed = errors.New("objective missed")

// Report collects the verdicts of one run. The zero value is not usable; use
// NewReport. Not safe for concurrent use.
type Report struct {
	file     *File
	out      io.Writer
	verdicts []Verdict
	unknown  []string
}

// NewReport judges against f and prints each verdict to out as it comes.
func NewReport(f *File, out io.Writer) *Report { return &Report{file: f, out: out} }

// Add judges and prints one value. A name that is not in the file is an error
// of the run (Err tells it): a renamed measurement must not pass silently.
func (r *Report) Add(name string, value float64) Verdict {
	o, ok := r.file.Find(name)
	if !ok {
		r.unknown = append(r.unknown, name)
		return Verdict{}
	}
	v := o.Check(value)
	r.verdicts = append(r.verdicts, v)
	fmt.Fprintln(r.out, v)
	return v
}

// Err is nil if every name in required was measured and every measured value
// holds its bound.
func (r *Report) Err(required ...string) error {
	var bad []string
	for _, name := range r.unknown {
		bad = append(bad, name+": not in the objectives file")
	}
	have := make(map[string]bool, len(r.verdicts))
	for _, v := range r.verdicts {
		have[v.Objective.Name] = true
		if !v.OK {
			bad = append(bad, fmt.Sprintf("%s: %.4g, want %s", v.Objective.Name, v.Value, v.Objective.Bound()))
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
