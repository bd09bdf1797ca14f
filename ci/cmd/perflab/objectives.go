package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/portask/portask/ci/internal/slo"
	"github.com/portask/portask/ci/lab"
	"github.com/portask/portask/ci/objectives"
	"github.com/portask/portask/ci/verdict"
	"github.com/portask/portask/ci/yardstick"
)

// runObjectives measures all lanes and judges every objective.
func runObjectives(ctx context.Context, args []string) error {
	fs := flags("objectives")
	var c common
	c.register(fs)
	var o objectives.Options
	fs.StringVar(&o.Root, "root", ".", "directory of the repository")
	lanes := fs.String("lanes", strings.Join(slo.Lanes, ","), "what to measure")
	fs.DurationVar(&o.Budget, "budget", 5*time.Minute, "time after which no turn begins that would only settle what is open")
	fs.IntVar(&o.Turns, "turns", 9, "first turns of broker beside kernel")
	fs.IntVar(&o.LoadTurns, "load-turns", 6, "first turns of loadgen's scenarios")
	fs.IntVar(&o.BenchTurns, "bench-turns", 12, "first turns of Go benchmarks")
	fs.Uint64Var(&o.Seed, "seed", uint64(time.Now().UnixNano()), "of the order")
	readme := fs.String("readme", "", "Markdown file in whose table, between the objectives' marks, the rows of what was measured are made anew")
	from := fs.String("from", "", "measure nothing: --readme takes what a gate measured, from its verdict.json")
	if err := fs.Parse(args); err != nil {
		return err
	}
	o.Lanes = strings.Split(*lanes, ",")
	var err error
	if o.File, err = slo.Load(c.slo); err != nil {
		return err
	}
	if *from != "" {
		return readmeFrom(*readme, o.File, *from)
	}
	if o.Lab, err = lab.New(c.dir); err != nil {
		return err
	}
	o.Out = os.Stdout
	res, err := objectives.Measure(ctx, o)
	if err != nil {
		return err
	}
	printObjectives(os.Stdout, res)
	if *readme != "" {
		if err := rewrite(*readme, o.File, res.Objectives, version); err != nil {
			return err
		}
	}
	if err := c.store("objectives", res, res.Rounds); err != nil {
		return err
	}
	if err := res.Err(); err != nil {
		return &status{verdict.Fail.ExitStatus(), err.Error()}
	}
	return nil
}

// printObjectives ends with what is not met and what is open, where one looks.
func printObjectives(w io.Writer, res *objectives.Result) {
	fmt.Fprintf(w, "\nobjectives, measured in %.0f s, order seed %d\n", res.Seconds, res.Seed)
	for _, v := range res.Objectives {
		fmt.Fprintln(w, slo.Line(v))
		if v.Reason != "" {
			fmt.Fprintln(w, "             "+v.Reason)
		}
	}
	for _, v := range slo.Unmet(res.Objectives) {
		fmt.Fprintln(w, "NOT MET", v.Name, slo.Figure(v))
	}
	for _, name := range res.Open() {
		fmt.Fprintln(w, "INCONCLUSIVE", name)
	}
}

// The marks between which a Markdown file holds the table.
const (
	tableBegin = "<!-- objectives: made by `perflab objectives --readme`, not by hand -->\n"
	tableEnd   = "<!-- objectives end -->\n"
)

// readmeFrom makes the table of readme from a gate's verdict.
func readmeFrom(readme string, f *slo.File, name string) error {
	if readme == "" {
		return errors.New("--from: what it is for is --readme")
	}
	v, err := verdict.ReadFile(name)
	if err != nil {
		return err
	}
	if len(v.Objectives) == 0 {
		return fmt.Errorf("%s: the gate measured no objectives", name)
	}
	at := v.Head.Commit[:min(len(v.Head.Commit), 7)]
	if v.Head.Dirty {
		at += "-dirty"
	}
	return rewrite(readme, f, v.Objectives, at)
}

// rewrite makes the rows anew of what was measured at a version, between the marks.
func rewrite(name string, f *slo.File, measured []verdict.Objective, at string) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	head, rest, ok := bytes.Cut(b, []byte(tableBegin))
	table, tail, ok2 := bytes.Cut(rest, []byte(tableEnd))
	if !ok || !ok2 {
		return fmt.Errorf("%s: no line %q with a line %q after it", name, strings.TrimSpace(tableBegin), strings.TrimSpace(tableEnd))
	}
	var out bytes.Buffer
	out.Write(head)
	out.WriteString(tableBegin)
	if err := slo.Table(&out, f, measured, at, string(table)); err != nil {
		return err
	}
	out.WriteString(tableEnd)
	out.Write(tail)
	return os.WriteFile(name, out.Bytes(), 0o666)
}

// runYardstick prints the kernels' figures, from which constants are fixed.
func runYardstick(ctx context.Context, args []string) error {
	fs := flags("yardstick")
	readings := fs.Int("readings", 20, "of each kernel; the table has their medians")
	each := fs.Duration("each", 200*time.Millisecond, "length of a reading")
	dir := fs.String("dir", "", "directory for the file that is synced (default: the system's temporary directory)")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *readings < 1 || *each <= 0 {
		return errors.New("yardstick: --readings must be at least 1, --each above 0")
	}
	all := make(map[string][]float64)
	var order []string
	add := func(name string, ns float64) {
		if all[name] == nil {
			order = append(order, name)
		}
		all[name] = append(all[name], ns)
	}
	for range *readings {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		for _, k := range []func() (yardstick.Reading, error){
			func() (yardstick.Reading, error) { return yardstick.MeasureArithmetic(*each), nil },
			func() (yardstick.Reading, error) { return yardstick.MeasureCopy(*each), nil },
			func() (yardstick.Reading, error) { return yardstick.MeasureCRC(*each), nil },
			func() (yardstick.Reading, error) { return yardstick.MeasureEcho(*each) },
			func() (yardstick.Reading, error) { return yardstick.MeasureStream(*each) },
			func() (yardstick.Reading, error) { return yardstick.MeasureSync(*dir, *each) },
		} {
			r, err := k()
			if err != nil {
				return err
			}
			add(r.Kernel, r.Ns)
			if r.Kernel == yardstick.Echo {
				add(yardstick.EchoTail, r.P99)
			}
		}
	}
	for _, name := range order {
		s := lab.NewSpread(all[name])
		fmt.Printf("%-12s %12.4g ns (%.4g to %.4g) in %d readings\n", name, s.Median, s.Min, s.Max, len(all[name]))
	}
	return nil
}
