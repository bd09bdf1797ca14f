// Package counters measures what noise cannot touch: how often something
// happens per batch. It runs Go benchmarks that count, reads their output in
// the Go benchmark format, and hands each count to an objective.
//
// A benchmark that counts reports a metric with a unit of its own, such as
// allocs/batch; how long it took does not matter, so one run is enough and a
// loaded machine is no excuse.
package counters

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/perf/benchfmt"
)

// Source says which metric of which benchmark measures an objective.
type Source struct {
	// Objective is the name in configs/slo.yaml.
	Objective string
	// Module and Package locate the benchmark: "broker", "./cmd/portask".
	Module, Package string
	// Bench is the benchmark's name as printed, without "Benchmark" and the
	// processor count: "BudgetProduce/ack=accepted".
	Bench string
	Unit  string
}

// Budgets are the counter objectives of the gate.
var Budgets = []Source{
	{"produce-allocs-per-batch", "broker", "./cmd/portask", "BudgetProduce/ack=accepted", "allocs/batch"},
	{"produce-allocs-per-batch", "broker", "./cmd/portask", "BudgetProduce/ack=durable", "allocs/batch"},
	{"deliver-allocs-per-batch", "broker", "./cmd/portask", "BudgetDeliver/from=tail", "allocs/batch"},
	{"deliver-allocs-per-batch", "broker", "./cmd/portask", "BudgetDeliver/from=history", "allocs/batch"},
}

// Value is one count.
type Value struct {
	Source
	Value float64
}

// Measure runs the benchmarks of the sources, each package once, in the
// repository at root. Raw output goes to raw as it comes. A source whose
// benchmark or unit did not appear is an error; of repeated results the
// largest counts.
func Measure(ctx context.Context, root string, sources []Source, raw io.Writer) ([]Value, error) {
	type place struct{ module, pkg string }
	outputs := make(map[place]Results)
	values := make([]Value, 0, len(sources))
	for _, s := range sources {
		p := place{s.Module, s.Package}
		results, ok := outputs[p]
		if !ok {
			var err error
			if results, err = run(ctx, filepath.Join(root, s.Module), s.Package, raw); err != nil {
				return nil, err
			}
			outputs[p] = results
		}
		v, ok := results.Max(s.Bench, s.Unit)
		if !ok {
			return nil, fmt.Errorf("%s %s: benchmark %s printed no %s", s.Module, s.Package, s.Bench, s.Unit)
		}
		values = append(values, Value{s, v})
	}
	return values, nil
}

func run(ctx context.Context, dir, pkg string, raw io.Writer) (Results, error) {
	// A fixed number of iterations: counts need no calibration.
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkBudget", "-benchtime", "1000x", pkg)
	cmd.Dir = dir
	var out bytes.Buffer
	cmd.Stdout = io.MultiWriter(&out, raw)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("go test -bench in %s %s: %w", dir, pkg, err)
	}
	return Parse(&out)
}

// Results are parsed benchmark lines: name to unit to values.
type Results map[string]map[string][]float64

// Parse reads Go benchmark format. Lines that are not results are skipped.
func Parse(r io.Reader) (Results, error) {
	results := make(Results)
	reader := benchfmt.NewReader(r, "go test")
	for reader.Scan() {
		res, ok := reader.Result().(*benchfmt.Result)
		if !ok {
			continue
		}
		base, parts := res.Name.Parts()
		name := string(base)
		for _, part := range parts {
			if part[0] != '-' { // the processor count
				name += string(part)
			}
		}
		units := results[name]
		if units == nil {
			units = make(map[string][]float64)
			results[name] = units
		}
		for _, v := range res.Values {
			value, unit := v.Value, v.Unit
			if v.OrigUnit != "" {
				value, unit = v.OrigValue, v.OrigUnit
			}
			units[unit] = append(units[unit], value)
		}
	}
	return results, reader.Err()
}

// Max is the largest value of that benchmark and unit.
func (r Results) Max(bench, unit string) (float64, bool) {
	values := r[bench][unit]
	if len(values) == 0 {
		return 0, false
	}
	worst := values[0]
	for _, v := range values[1:] {
		worst = max(worst, v)
	}
	return worst, true
}
