// Package slo holds measured values against the objectives of configs/slo.yaml.
//
// An objective has an enforced bound and, where Portask is not there yet, the
// mission's target. Load reads and validates the file once. Judge holds the
// samples of one objective, one for each turn of a measurement, against it: by
// their interval, never by one figure. A Report collects verdicts, and Err
// tells whether the gate may pass.
//
// Nothing here measures, and nothing here is safe for concurrent use except
// reading a loaded File.
package slo

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"regexp"
	"slices"

	"go.yaml.in/yaml/v3"
)

// Version is the only file version this package reads. Version 1 had no
// constants, lanes and records of how bounds were set.
const Version = 2

// Constant turns the ratio to a calibration kernel into a figure that one can
// compare with a target in absolute units: figure = measured / kernel x Value.
// Value is the kernel's own figure on the reference machine. It is fixed once;
// changing it would move every bound that uses it.
type Constant struct {
	Kernel string  `yaml:"kernel"`
	Unit   string  `yaml:"unit"`
	Value  float64 `yaml:"value"`
	// Fixed says when, where and by which command.
	Fixed string `yaml:"fixed"`
}

// Objective is one bound. Exactly one of Min and Max is set.
type Objective struct {
	Name string `yaml:"name"`
	// Lane is the measurement that tells the value; see Lanes.
	Lane string `yaml:"lane"`
	// Unit is that of Min, Max and Target: "ratio", "count", "B", "s", "ns" or
	// "share" (of one core).
	Unit string `yaml:"unit"`
	// Kernel names the Constant by which ratios are scaled. Empty: the value is
	// a count, or a plain ratio.
	Kernel string   `yaml:"kernel"`
	Min    *float64 `yaml:"min"`
	Max    *float64 `yaml:"max"`
	// Target is what the project aims at where the enforced bound is weaker. Once
	// it is met it becomes the bound and goes from here.
	Target *float64 `yaml:"target"`
	// Mission is the promise that the objective stands for, in its own words.
	Mission string `yaml:"mission"`
	Why     string `yaml:"why"`
	// Set says what the bound was set from: figure, head-room, date.
	Set string `yaml:"set"`
}

// Lanes are the measurements that tell values. Package objectives runs them.
var Lanes = []string{
	"budgets",   // allocations, counted by the broker's benchmarks
	"benchmark", // Go benchmarks of the broker beside in-process kernels
	"saturated", // lean clients, broker and log kernel by turns
	"load",      // scenarios run by loadgen
	"idle",      // a broker that does nothing, with and without connections
	"start",     // a broker that starts on existing data
	"peers",     // comparisons kept in benchdata
	"policy",    // adaptive compression on recorded costs
}

// File is a loaded configs/slo.yaml; immutable after Load.
type File struct {
	Version    int         `yaml:"version"`
	Constants  []Constant  `yaml:"constants"`
	Objectives []Objective `yaml:"objectives"`
}

var nameRE = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

// maxBytes of an objectives file; the shipped one has 15 KiB.
const maxBytes = 1 << 20

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

// Parse is Load for bytes in memory, at most 1 MiB.
func Parse(b []byte) (*File, error) {
	if len(b) > maxBytes {
		return nil, fmt.Errorf("%d bytes: want at most %d", len(b), maxBytes)
	}
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
	kernels := make(map[string]bool, len(f.Constants))
	for i, c := range f.Constants {
		if !nameRE.MatchString(c.Kernel) || kernels[c.Kernel] {
			bad("constant %d: kernel %q: want lower-case words joined by hyphens, once", i, c.Kernel)
		}
		kernels[c.Kernel] = true
		if !(c.Value > 0) || math.IsInf(c.Value, 0) {
			bad("constant %q: value %v: want a finite number above 0", c.Kernel, c.Value)
		}
		if c.Unit == "" || c.Fixed == "" {
			bad("constant %q: unit and fixed are needed", c.Kernel)
		}
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
		if !slices.Contains(Lanes, o.Lane) {
			bad("objective %q: lane %q: want one of %q", o.Name, o.Lane, Lanes)
		}
		if o.Kernel != "" && !kernels[o.Kernel] {
			bad("objective %q: kernel %q has no constant", o.Name, o.Kernel)
		}
		if (o.Min == nil) == (o.Max == nil) {
			bad("objective %q: want exactly one of min and max", o.Name)
		}
		switch o.Unit {
		case "ratio", "count", "B", "s", "ns", "share":
		default:
			bad("objective %q: unit %q: want ratio, count, B, s, ns or share", o.Name, o.Unit)
		}
		if o.Why == "" || o.Set == "" {
			bad("objective %q: why and set are needed", o.Name)
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

// Of returns the objectives of a lane, in the file's order.
func (f *File) Of(lane string) []*Objective {
	var out []*Objective
	for i := range f.Objectives {
		if f.Objectives[i].Lane == lane {
			out = append(out, &f.Objectives[i])
		}
	}
	return out
}

// Scale is the constant that turns ratios of o into its unit, 1 without a kernel.
func (f *File) Scale(o *Objective) float64 {
	for _, c := range f.Constants {
		if c.Kernel == o.Kernel {
			return c.Value
		}
	}
	return 1
}

// Upper tells that the bound is a maximum.
func (o *Objective) Upper() bool { return o.Max != nil }

// Limit is the enforced bound.
func (o *Objective) Limit() float64 {
	if o.Max != nil {
		return *o.Max
	}
	return *o.Min
}

// Keeps tells whether value keeps the enforced bound. A NaN keeps none.
func (o *Objective) Keeps(value float64) bool { return o.within(value, o.Limit()) }

// Meets tells whether value reaches the target, or the bound where there is none.
func (o *Objective) Meets(value float64) bool {
	if o.Target != nil {
		return o.within(value, *o.Target)
	}
	return o.Keeps(value)
}

func (o *Objective) within(value, bound float64) bool {
	if o.Upper() {
		return value <= bound
	}
	return value >= bound
}

// Bound is the enforced bound in words: "at most 4", "at least 0.8".
func (o *Objective) Bound() string {
	if o.Min != nil {
		return fmt.Sprintf("at least %g", *o.Min)
	}
	return fmt.Sprintf("at most %g", *o.Max)
}
