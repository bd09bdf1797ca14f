// Package slo holds measured values against the objectives of configs/slo.yaml.
//
// Load reads and validates the file once; Check judges one value. A Report
// collects verdicts, and Err tells whether the gate may pass. Nothing here
// measures, and nothing here is safe for concurrent use except reading a
// loaded File.
package slo

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"regexp"

	"go.yaml.in/yaml/v3"
)

// Version is the only file version this package reads.
const Version = 1

// Objective is one bound. Exactly one of Min and Max is set.
type Objective struct {
	Name string `yaml:"name"`
	// Unit is that of Min, Max and Target: "ratio", "count", "B", "s".
	Unit string   `yaml:"unit"`
	Min  *float64 `yaml:"min"`
	Max  *float64 `yaml:"max"`
	// Target is what the project aims at where the enforced bound is weaker.
	Target *float64 `yaml:"target"`
	Why    string   `yaml:"why"`
}

// File is a loaded configs/slo.yaml; immutable after Load.
type File struct {
	Version    int         `yaml:"version"`
	Objectives []Objective `yaml:"objectives"`
}

var nameRE = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

// Load reads and validates an objectives file. All violations are reported
// together, each with the objective it belongs to.
func Load(path string) (*File, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f, err := Parse(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// Parse is Load for bytes in memory.
func Parse(b []byte) (*File, error) {
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	f := new(File)
	if err := dec.Decode(f); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return f, f.validate()
}

func (f *File) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if f.Version != Version {
		bad("version %d: this program reads version %d", f.Version, Version)
	}
	if len(f.Objectives) == 0 {
		bad("objectives: none; a gate without objectives passes everything")
	}
	seen := make(map[string]bool, len(f.Objectives))
	for i := range f.Objectives {
		o := &f.Objectives[i]
		if !nameRE.MatchString(o.Name) {
			bad("objective %d: name %q: want lower-case words joined by hyphens", i, o.Name)
		}
		if seen[o.Name] {
			bad("objective %q: named twice", o.Name)
		}
		seen[o.Name] = true
		if (o.Min == nil) == (o.Max == nil) {
			bad("objective %q: want exactly one of min and max", o.Name)
		}
		switch o.Unit {
		case "ratio", "count", "B", "s":
		default:
			bad("objective %q: unit %q: want ratio, count, B or s", o.Name, o.Unit)
		}
		if o.Why == "" {
			bad("objective %q: why is empty", o.Name)
		}
		for _, v := range []*float64{o.Min, o.Max, o.Target} {
			if v != nil && (math.IsNaN(*v) || math.IsInf(*v, 0) || *v < 0) {
				bad("objective %q: bound %v: want a finite number, at least 0", o.Name, *v)
			}
		}
		if o.Target != nil && o.Min != nil && *o.Target < *o.Min {
			bad("objective %q: target %v is weaker than min %v", o.Name, *o.Target, *o.Min)
		}
		if o.Target != nil && o.Max != nil && *o.Target > *o.Max {
			bad("objective %q: target %v is weaker than max %v", o.Name, *o.Target, *o.Max)
		}
	}
	return errors.Join(errs...)
}

// Find returns the objective of that name.
func (f *File) Find(name string) (*Objective, bool) {
	for i := range f.Objectives {
		if f.Objectives[i].Name == name {
			return &f.Objectives[i], true
		}
	}
	return nil, false
}

// Verdict is one value held against its objective.
type Verdict struct {
	Objective *Objective
	Value     float64
	// OK: the enforced bound holds.
	OK bool
	// TargetMet is false only if the objective has a target and Value misses it.
	TargetMet bool
}

// Check judges value. A NaN misses every bound.
func (o *Objective) Check(value float64) Verdict {
	v := Verdict{Objective: o, Value: value, TargetMet: true}
	if o.Min != nil {
		v.OK = value >= *o.Min
		v.TargetMet = o.Target == nil || value >= *o.Target
	} else {
		v.OK = value <= *o.Max
		v.TargetMet = o.Target == nil || value <= *o.Target
	}
	return v
}

// Bound is the enforced bound in words: "at most 4", "at least 0.8".
func (o *Objective) Bound() string {
	if o.Min != nil {
		return fmt.Sprintf("at least %g", *o.Min)
	}
	return fmt.Sprintf("at most %g", *o.Max)
}

// String is the verdict on one line, bound included.
func (v Verdict) String() string {
	word := "ok  "
	if !v.OK {
		word = "MISS"
	}
	s := fmt.Sprintf("%s %-34s %10.4g %-5s (%s)", word, v.Objective.Name, v.Value, v.Objective.Unit, v.Objective.Bound())
	if !v.TargetMet {
		s += fmt.Sprintf(" target %g NOT MET", *v.Objective.Target)
	}
	return s
}
