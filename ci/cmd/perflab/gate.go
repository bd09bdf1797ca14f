package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/portask/portask/ci/archive"
	"github.com/portask/portask/ci/baseline"
	"github.com/portask/portask/ci/bench"
	"github.com/portask/portask/ci/gate"
	"github.com/portask/portask/ci/history"
	"github.com/portask/portask/ci/internal/counters"
	"github.com/portask/portask/ci/internal/slo"
	"github.com/portask/portask/ci/lab"
	"github.com/portask/portask/ci/ledger"
	"github.com/portask/portask/ci/objectives"
	"github.com/portask/portask/ci/report"
	"github.com/portask/portask/ci/sample"
	"github.com/portask/portask/ci/trial"
	"github.com/portask/portask/ci/verdict"
)

// status is an error that ends the command with an exit status of its own.
type status struct {
	code int
	text string
}

func (s *status) Error() string { return s.text }

// gateRun is one `perflab gate`.
type gateRun struct {
	p                    planFlags
	root                 string // of the repository
	budget               time.Duration
	controls             int
	counters, objectives bool
	objectivesBudget     time.Duration
	explained            int
	out                  string // directory of the report
	ledger               string
	archive              string
	lab                  common

	origin   string
	before   []history.Line // of gates before this one
	accepted *baseline.File
	waivers  []verdict.Waiver
	res      *objectives.Result
}

func runGate(ctx context.Context, args []string) error {
	var g gateRun
	fs := flags("gate")
	g.p.register(fs)
	fs.StringVar(&g.lab.slo, "slo", "configs/slo.yaml", "objectives, below the repository")
	fs.StringVar(&g.lab.dir, "dir", "", "directory for the servers' data (default: the system's temporary directory)")
	fs.DurationVar(&g.budget, "budget", 5*time.Minute, "time for the rounds of the comparison")
	fs.IntVar(&g.controls, "controls", 2, "calibration kernels that run as controls, 0 is all of them, -1 is none")
	fs.BoolVar(&g.counters, "counters", false, "count on both sides what noise does not touch (this repository only)")
	fs.BoolVar(&g.objectives, "objectives", false, "measure and judge the objectives (this repository only)")
	fs.DurationVar(&g.objectivesBudget, "objectives-budget", 4*time.Minute, "time for the objectives")
	fs.IntVar(&g.explained, "explain", 2, "failed benchmarks that are explained, the worst first, and as many whose allocations grew")
	fs.StringVar(&g.out, "report", ".cache/gate", "directory of the report, below the repository")
	fs.StringVar(&g.ledger, "ledger", ledger.Path, "what gates left open, below the repository; empty: not kept")
	fs.StringVar(&g.archive, "archive", "", "directory below the repository that keeps the raw samples, as benchdata/gate; the run also enters the history")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("gate: %q is no flag", fs.Arg(0))
	}
	if g.budget < time.Second || g.budget > 12*time.Hour {
		return errors.New("gate: --budget must be 1s to 12h")
	}
	top, err := exec.CommandContext(ctx, "git", "-C", g.p.plan.Repo, "rev-parse", "--show-toplevel").Output()
	if err != nil {
		return fmt.Errorf("gate: %s is in no repository: %w", g.p.plan.Repo, err)
	}
	g.root = strings.TrimSpace(string(top))
	v, series, err := g.run(ctx)
	if err != nil {
		return err
	}
	return g.finish(ctx, v, series)
}

// below is a path of a flag, below the repository unless it is absolute.
func (g *gateRun) below(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(g.root, filepath.FromSlash(name))
}

// own are the paths below the repository that gates write: in a repository that
// neither ignores nor keeps them they must not make the next gate's candidate
// one that nobody committed, of which the ledger keeps no line.
func (g *gateRun) own() []string {
	names := []string{g.out}
	if g.ledger != "" {
		names = append(names, g.ledger)
	}
	if g.archive != "" {
		names = append(names, g.archive, history.Path, path.Join(archive.Dir, archive.ManifestName))
	}
	var own []string
	for _, name := range names {
		if rel, err := filepath.Rel(g.root, g.below(name)); err == nil && rel != "." && filepath.IsLocal(rel) {
			own = append(own, filepath.ToSlash(rel))
		}
	}
	return own
}

// head is the candidate for questions about history.
func (g *gateRun) head() string {
	if g.p.plan.Head == bench.WorkingTree {
		return "HEAD"
	}
	return g.p.plan.Head
}

func (g *gateRun) run(ctx context.Context) (*verdict.Verdict, []sample.Series, error) {
	var err error
	if g.accepted, err = baseline.ReadFile(g.below(baseline.Path)); err != nil {
		return nil, nil, err
	}
	if g.before, err = history.ReadFile(g.below(history.Path)); err != nil {
		return nil, nil, err // now, not when everything has been measured
	}
	g.origin = "flag"
	if g.p.plan.Base == "" {
		g.p.plan.Base, g.origin, err = baseline.Choose(ctx, g.root, g.head(), g.accepted)
		if errors.Is(err, baseline.ErrNoBase) {
			return g.first(ctx)
		}
		if err != nil {
			return nil, nil, err
		}
	}
	if err := g.notTheSame(ctx); err != nil {
		return nil, nil, err
	}
	if err := g.findWaivers(ctx); err != nil {
		return nil, nil, err
	}
	open, err := g.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	plan, err := g.p.complete()
	if err != nil {
		return nil, nil, fmt.Errorf("gate: %w", err)
	}
	plan.Controls, plan.Own = g.controls, g.own()
	rules := gate.DefaultRules()
	rules.BudgetSeconds = g.budget.Seconds()
	return trial.Run(ctx, plan, gate.Options{Rules: rules, Open: open, Waivers: g.waivers}, progress, g.then)
}

// notTheSame refuses to compare a commit with itself before it costs anything;
// files that differ from the head's commit are a candidate of their own.
func (g *gateRun) notTheSame(ctx context.Context) error {
	git := func(args ...string) (string, error) {
		out, err := exec.CommandContext(ctx, "git", append([]string{"-C", g.root}, args...)...).Output()
		return strings.TrimSpace(string(out)), err
	}
	base, err := git("rev-parse", "--verify", "--end-of-options", g.p.plan.Base+"^{commit}")
	if err != nil {
		return fmt.Errorf("gate: base %q is no commit here: %w", g.p.plan.Base, err)
	}
	head, err := git("rev-parse", "--verify", "--end-of-options", g.head()+"^{commit}")
	if err != nil {
		return fmt.Errorf("gate: head %q is no commit here: %w", g.head(), err)
	}
	if base != head {
		return nil
	}
	if g.p.plan.Head == bench.WorkingTree {
		if changed, err := bench.Dirty(ctx, g.root, g.own()); err != nil || changed {
			return err
		}
	}
	return fmt.Errorf("gate: %w: %.10s", baseline.ErrSame, head)
}

func progress(line string) { fmt.Fprintln(os.Stderr, line) }

// first is a run without a base: it records, and judges objectives only.
func (g *gateRun) first(ctx context.Context) (*verdict.Verdict, []sample.Series, error) {
	fmt.Println("no base: this run records, and checks objectives only")
	v := &verdict.Verdict{Started: time.Now().UTC(), Seed: g.p.plan.Seed, Rules: gate.DefaultRules()}
	commit, err := exec.CommandContext(ctx, "git", "-C", g.root, "rev-parse", "HEAD").Output()
	if err != nil {
		return nil, nil, err
	}
	v.Head = verdict.Revision{Name: g.head(), Commit: strings.TrimSpace(string(commit))}
	if err := g.measureObjectives(ctx, v); err != nil {
		return nil, nil, err
	}
	v.Seconds = time.Since(v.Started).Seconds()
	v.Combine()
	return v, nil, nil
}

// findWaivers reads the messages of the commits that are compared. Their
// effects together must stay below what each accepts.
func (g *gateRun) findWaivers(ctx context.Context) error {
	messages, err := baseline.Messages(ctx, g.root, g.p.plan.Base, g.head())
	if err != nil {
		return err
	}
	for _, m := range messages {
		w, err := gate.Waivers(m.Commit, m.Text)
		if err != nil {
			return err
		}
		g.waivers = append(g.waivers, w...)
	}
	return nil
}

func (g *gateRun) open(ctx context.Context) (map[string]int, error) {
	if g.ledger == "" {
		return nil, nil
	}
	lines, err := ledger.ReadFile(g.below(g.ledger))
	if err != nil {
		return nil, err
	}
	commit, err := exec.CommandContext(ctx, "git", "-C", g.root, "rev-parse", g.head()).Output()
	if err != nil {
		return nil, err
	}
	head := strings.TrimSpace(string(commit))
	return ledger.Running(lines, head, func(c string) bool { return baseline.Ancestor(ctx, g.root, c, head) }), nil
}

// then runs with both copies still there.
func (g *gateRun) then(ctx context.Context, s *bench.Session, v *verdict.Verdict, _ []sample.Series) error {
	v.Base.Origin = g.origin
	if g.counters {
		if err := g.count(ctx, s, v); err != nil {
			return err
		}
	}
	g.explain(ctx, s, v)
	if err := g.measureObjectives(ctx, v); err != nil {
		return err
	}
	if err := g.ratchet(ctx, v); err != nil {
		return err
	}
	g.explainCounters(ctx, s, v)
	return ctx.Err()
}

// count adds the counters of the whole broker. Where both ways count the same,
// the one made for counting stays.
func (g *gateRun) count(ctx context.Context, s *bench.Session, v *verdict.Verdict) error {
	var sides [2]counters.Tree
	for i := range sides {
		var err error
		if sides[i], err = counterTree(ctx, g.lab.dir, s.Root(sample.Side(i))); err != nil {
			return err
		}
	}
	all, err := counters.Compare(ctx, sides[0], sides[1], os.Stderr)
	if err != nil {
		return err
	}
	for i := range all {
		c := &all[i]
		if c.Decision == verdict.Fail && c.Base != 0 {
			words := strings.Fields(c.Name)
			c.Waived = gate.Waive(v.Waivers, words[len(words)-1], c.Head/c.Base-1)
		}
		v.Counters = slices.DeleteFunc(v.Counters, func(o verdict.Counter) bool { return o.Name == c.Name })
	}
	v.Counters = append(v.Counters, all...)
	return nil
}

func (g *gateRun) measureObjectives(ctx context.Context, v *verdict.Verdict) error {
	if !g.objectives {
		return nil
	}
	f, err := slo.Load(g.below(g.lab.slo))
	if err != nil {
		return err
	}
	l, err := lab.New(g.lab.dir)
	if err != nil {
		return err
	}
	g.res, err = objectives.Measure(ctx, objectives.Options{Root: g.root, File: f, Lab: l, Seed: v.Seed, Budget: g.objectivesBudget, Out: os.Stderr})
	if err != nil {
		return err
	}
	v.Objectives = g.res.Objectives
	return nil
}

// ratchet holds the figures against the accepted ones, and the accepted ones
// against those of the commit before.
func (g *gateRun) ratchet(ctx context.Context, v *verdict.Verdict) error {
	waive := func(name string, effect float64) *verdict.Waiver { return gate.Waive(v.Waivers, name, effect) }
	if g.accepted != nil {
		v.Counters = append(v.Counters, g.accepted.Check(v, waive)...)
		before, err := baseline.At(ctx, g.root, g.head()+"^1")
		if err != nil {
			return err
		}
		if before != nil {
			for _, c := range before.Worsened(g.accepted, waive) {
				if c.Decision == verdict.Fail {
					c.Name = "moved " + c.Name
					v.Counters = append(v.Counters, c)
				}
			}
		}
	}
	v.Combine()
	return nil
}

// finish writes the report, the ledger and the archive, prints the verdict, and
// turns it into an exit status.
func (g *gateRun) finish(ctx context.Context, v *verdict.Verdict, series []sample.Series) error {
	v.Command = "perflab " + strings.Join(os.Args[1:], " ")
	v.Seconds = time.Since(v.Started).Seconds()
	out := g.below(g.out)
	d := &report.Document{Verdict: v, Series: series}
	if len(series) > 0 {
		if err := keepRaw(out, series, v.Machine, [2]verdict.Revision{v.Base, v.Head}); err != nil {
			return err
		}
		v.Raw = "raw.txt"
		d.Raw = filepath.Join(out, "raw.txt")
	}
	lines := g.before
	if g.archive != "" {
		if err := g.keep(v, series); err != nil {
			return err
		}
		if l, ok := history.Of(v); ok {
			if err := history.Append(g.below(history.Path), l); err != nil {
				return err
			}
			lines = append(lines, l)
		}
		if _, err := archive.Add(g.root); err != nil {
			return err
		}
	}
	d.History = history.SeriesOf(lines)
	if err := report.Write(ctx, out, d); err != nil {
		return err
	}
	if g.ledger != "" && !v.Head.Dirty && v.Decision != verdict.Invalid {
		if err := ledger.Append(g.below(g.ledger), ledger.Line{When: v.Started, Commit: v.Head.Commit, Base: v.Base.Commit, Open: v.Open()}); err != nil {
			return err
		}
	}
	fmt.Println("report:", filepath.Join(out, report.PageHTML))
	if err := report.Text(os.Stdout, v); err != nil {
		return err
	}
	if code := v.Decision.ExitStatus(); code != 0 {
		return &status{code, fmt.Sprintf("gate: %s", v.Decision)}
	}
	return nil
}

// keep puts the raw samples into the archive, in a directory of their own.
func (g *gateRun) keep(v *verdict.Verdict, series []sample.Series) error {
	dir := filepath.Join(g.below(g.archive), fmt.Sprintf("%s-%s-%s", v.Started.UTC().Format("20060102T150405Z"), v.Base.Short(), v.Head.Short()))
	if err := keepRaw(dir, series, v.Machine, [2]verdict.Revision{v.Base, v.Head}); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dir, report.VerdictJSON))
	if err != nil {
		return err
	}
	return errors.Join(v.Write(f), f.Close())
}

// runBaseline prints what is accepted, or accepts a verdict.
func runBaseline(_ context.Context, args []string) error {
	fs := flags("baseline")
	root := fs.String("root", ".", "directory of the repository")
	accept := fs.String("accept", "", "verdict.json whose head and figures become the accepted ones")
	if err := fs.Parse(args); err != nil {
		return err
	}
	name := filepath.Join(*root, filepath.FromSlash(baseline.Path))
	if *accept != "" {
		v, err := verdict.ReadFile(*accept)
		if err != nil {
			return err
		}
		f, err := baseline.Of(v)
		if err != nil {
			return err
		}
		if err := f.WriteFile(name); err != nil {
			return err
		}
	}
	f, err := baseline.ReadFile(name)
	if err != nil {
		return err
	}
	return printBaseline(os.Stdout, f)
}

func printBaseline(w io.Writer, f *baseline.File) error {
	if f == nil {
		_, err := fmt.Fprintln(w, "nothing is accepted; gates compare with the first parent")
		return err
	}
	fmt.Fprintf(w, "%s, accepted %s\n", f.Revision, f.Accepted.Format(time.DateOnly))
	for _, g := range f.Figures {
		fmt.Fprintf(w, "%12.6g %-14s %s\n", g.Value, g.Unit, g.Name)
	}
	return nil
}
