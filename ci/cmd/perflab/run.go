package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/portask/portask/ci/bench"
	"github.com/portask/portask/ci/sample"
	"github.com/portask/portask/ci/stat"
	"github.com/portask/portask/ci/verdict"
)

// planFlags are those of every subcommand that compares two revisions.
type planFlags struct {
	plan               bench.Plan
	suites, suite      string
	module, pkg, bench string
	wall               bool
}

func (p *planFlags) register(fs *flag.FlagSet) {
	fs.StringVar(&p.plan.Repo, "repo", ".", "directory in the repository")
	fs.StringVar(&p.plan.Base, "base", "", "revision to compare with")
	fs.StringVar(&p.plan.Head, "head", bench.WorkingTree, "revision that is compared (default: the files as they lie there)")
	fs.StringVar(&p.suites, "suites", "configs/bench.yaml", "file of suites, below the repository")
	fs.StringVar(&p.suite, "suite", "", "suite of that file (default: every benchmark, or what --bench names)")
	fs.StringVar(&p.module, "module", ".", "with --package: directory of the module")
	fs.StringVar(&p.pkg, "package", "", "only the benchmarks of this package, a directory of the module like ./wire")
	fs.StringVar(&p.bench, "bench", "", "only these benchmarks, as for go test -bench")
	fs.BoolVar(&p.wall, "wall", false, "without --suite: compare the time on the wall instead of the processor's")
	fs.Uint64Var(&p.plan.Seed, "seed", uint64(time.Now().UnixNano()), "of orders and layouts")
	fs.DurationVar(&p.plan.Slice, "slice", 0, "time of a slice (default 10ms, or the suite file's)")
	fs.IntVar(&p.plan.Pairs, "pairs", 0, "pairs of slices a round (default 50, or the suite file's)")
	fs.IntVar(&p.plan.Layouts, "layouts", 0, "link layouts a side before one comes again (default 96, or the suite file's)")
	fs.StringVar(&p.plan.Cache, "cache", "", "directory for linked programs (default: perflab in the user's cache)")
}

// complete reads the suite file, if one is asked for, and fills the plan.
func (p *planFlags) complete() (bench.Plan, error) {
	plan := p.plan
	switch {
	case plan.Base == "":
		return plan, errors.New("--base is needed")
	case p.suite != "" && p.pkg != "":
		return plan, errors.New("--suite and --package exclude each other")
	case p.suite != "" && p.bench != "":
		return plan, errors.New("--suite and --bench exclude each other")
	}
	if err := bench.CheckPattern(p.bench); err != nil {
		return plan, fmt.Errorf("--bench: %w", err)
	}
	if p.suite != "" {
		name := p.suites
		if !filepath.IsAbs(name) {
			name = filepath.Join(plan.Repo, name)
		}
		f, err := bench.Load(name)
		if err != nil {
			return plan, err
		}
		if plan.Suite, err = f.Suite(p.suite); err != nil {
			return plan, err
		}
		if plan.Slice == 0 {
			plan.Slice = f.Slice
		}
		if plan.Pairs == 0 {
			plan.Pairs = f.Pairs
		}
		if plan.Layouts == 0 {
			plan.Layouts = f.Layouts
		}
		plan.RoundMax = f.RoundMax
		return plan, nil
	}
	plan.Match = p.bench
	if p.wall {
		plan.Metric = sample.Wall
	}
	if p.pkg != "" {
		plan.Suite.Entries = []bench.Entry{{Module: p.module, Package: p.pkg, Match: p.bench, Metric: plan.Metric}}
	}
	return plan, nil
}

func runRun(ctx context.Context, args []string) (err error) {
	fs := flags("run")
	var p planFlags
	p.register(fs)
	rounds := fs.Int("rounds", 8, "rounds of each benchmark, 0 only lists them")
	keep := fs.String("keep", "", "directory that receives raw.txt, pairs.csv.gz and system.csv")
	controls := fs.Bool("controls", true, "measure the calibration kernels too, the same program on both sides")
	identical := fs.Bool("identical", false, "measure benchmarks whose programs are the same on both sides, too")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *rounds < 0 || *rounds > 1000 {
		return errors.New("run: --rounds must be 0 to 1000")
	}
	plan, err := p.complete()
	if err != nil {
		return fmt.Errorf("run: %w", err)
	}
	if !*controls {
		plan.Controls = -1
	}
	s, err := bench.Prepare(ctx, plan, func(line string) { fmt.Fprintln(os.Stderr, line) })
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if !slices.ContainsFunc(s.Benches(), func(b *bench.Subject) bool { return !b.Control }) {
		return fmt.Errorf("run: no benchmark that can be compared; packages and benchmarks with problems: %d", len(s.Problems()))
	}
	if *rounds == 0 {
		return listSubjects(os.Stdout, s.Benches())
	}
	series, left, broken := measureAll(ctx, s, *rounds, *identical)
	err = printEstimates(os.Stdout, series, plan.Seed)
	for _, f := range slices.Concat(left, broken) {
		fmt.Println("not measured:", f)
	}
	fmt.Printf("seed %d; nothing is judged here, see perflab gate\n", plan.Seed)
	if *keep != "" {
		err = errors.Join(err, keepRaw(*keep, series, s.Machine(), [2]verdict.Revision{s.Revision(sample.Base), s.Revision(sample.Head)}))
	}
	if ctx.Err() == nil && len(broken) > 0 {
		err = errors.Join(err, fmt.Errorf("run: %d benchmarks could not be measured", len(broken)))
	}
	return errors.Join(err, ctx.Err())
}

// measureAll runs so many rounds of each subject that differs, or of all, by turns: one
// round of each, then the next, so that a disturbance of a minute meets all. The
// others say what was left out and why, and what failed.
func measureAll(ctx context.Context, s *bench.Session, rounds int, identical bool) (series []sample.Series, left, failed []string) {
	var todo []*bench.Subject
	measured := make(map[*bench.Subject][]sample.Round)
	for _, b := range s.Benches() {
		switch {
		case b.New:
			left = append(left, b.Bench.String()+": new, the base has none")
		case b.Identical && !identical:
			left = append(left, b.Bench.String()+": identical, both sides are the same program")
		default:
			todo = append(todo, b)
		}
	}
	broken := make(map[*bench.Subject]bool)
	for i := 0; i < rounds && ctx.Err() == nil; i++ {
		for _, b := range todo {
			if broken[b] || ctx.Err() != nil {
				continue
			}
			r, err := s.Round(ctx, b, sample.Screen)
			if err != nil {
				if ctx.Err() == nil {
					broken[b] = true
					failed = append(failed, err.Error())
				}
				continue
			}
			measured[b] = append(measured[b], r)
		}
		fmt.Fprintf(os.Stderr, "round %d of %d\n", i+1, rounds)
	}
	for _, b := range todo {
		if len(measured[b]) > 0 {
			one := b.Series()
			one.Rounds = measured[b]
			series = append(series, one)
		}
	}
	return series, left, failed
}

func listSubjects(w io.Writer, subjects []*bench.Subject) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, b := range subjects {
		word := "program differs"
		switch {
		case b.Control:
			word = "control"
		case b.New:
			word = "new"
		case b.Changed:
			word = "benchmark itself changed"
		case b.Touched:
			word = "package changed"
		case b.Identical:
			word = "identical"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", b.Bench, b.Metric, word)
	}
	return t.Flush()
}

// printEstimates prints effects with 95 % intervals, two-sided, one benchmark
// at a time: what to look at, not what to conclude.
func printEstimates(w io.Writer, series []sample.Series, seed uint64) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "benchmark\tmetric\tbase\thead/base\t95 % interval\tSD of rounds\trounds\tpairs\tallocs/op\tdisturbed")
	for i := range series {
		s := &series[i]
		var rounds []*stat.Round
		var perOp []float64
		disturbed := 0
		var allocs, n [2]int64
		for _, r := range s.Rounds {
			var logs []float64
			for _, p := range r.Pairs {
				logs = append(logs, p.LogRatio(s.Metric))
				v := p.Base.CPUNs
				if s.Metric == sample.Wall {
					v = p.Base.Ns
				}
				perOp = append(perOp, float64(v)/float64(max(p.Base.N, 1)))
				allocs[0], n[0] = allocs[0]+p.Base.Allocs, n[0]+int64(p.Base.N)
				allocs[1], n[1] = allocs[1]+p.Head.Allocs, n[1]+int64(p.Head.N)
			}
			if r.Interference != "" {
				disturbed++
			}
			rounds = append(rounds, stat.NewRound(logs, seed+uint64(r.Index), r.Seeds[0], r.Seeds[1]))
		}
		e := stat.NewEffect(rounds, seed)
		name := s.Bench.String()
		if s.Control {
			name += " (control)"
		}
		fmt.Fprintf(t, "%s\t%s\t%.4g\t%s\t%s .. %s\t%.2f %%\t%d\t%d\t%.2f -> %.2f\t%d\n", name, s.Metric, stat.Median(perOp),
			percent(e.Mean), percent(e.Lower(0.025)), percent(e.Upper(0.025)), 100*e.SD, e.Rounds, e.Pairs,
			float64(allocs[0])/float64(max(n[0], 1)), float64(allocs[1])/float64(max(n[1], 1)), disturbed)
	}
	return t.Flush()
}

func percent(log float64) string {
	if math.IsInf(log, 0) || math.IsNaN(log) {
		return "unknown"
	}
	return fmt.Sprintf("%+.2f %%", 100*math.Expm1(log))
}

// keepRaw writes the three files of raw samples into dir.
func keepRaw(dir string, series []sample.Series, machine []verdict.Fact, revisions [2]verdict.Revision) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	for name, write := range map[string]func(io.Writer) error{
		"raw.txt":      func(w io.Writer) error { return bench.WriteRaw(w, series, machine, revisions) },
		"pairs.csv.gz": func(w io.Writer) error { return bench.WritePairs(w, series) },
		"system.csv":   func(w io.Writer) error { return bench.WriteSystem(w, series) },
	} {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if err := errors.Join(write(f), f.Close()); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}
