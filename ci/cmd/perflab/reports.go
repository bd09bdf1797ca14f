package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/portask/portask/ci/archive"
	"github.com/portask/portask/ci/bench"
	"github.com/portask/portask/ci/explain"
	"github.com/portask/portask/ci/history"
	"github.com/portask/portask/ci/report"
	"github.com/portask/portask/ci/sample"
	"github.com/portask/portask/ci/verdict"
)

// runExplain says where two revisions of one benchmark differ.
func runExplain(ctx context.Context, args []string) error {
	fs := flags("explain")
	repo := fs.String("repo", ".", "directory in the repository")
	base := fs.String("base", "HEAD~1", "revision that is compared with")
	head := fs.String("head", bench.WorkingTree, "revision that is explained; empty: the files as they are")
	turns := fs.Int("turns", 6, "turns of a second of each side under the CPU profiler")
	seed := fs.Uint64("seed", 1, "of the order")
	keep := fs.String("keep", "", "directory for the merged profiles and their difference")
	wall := fs.Bool("wall", false, "all processors, for a benchmark that waits")
	if len(args) == 0 || strings.HasPrefix(args[0], "-") {
		if err := fs.Parse(args); err != nil {
			return err
		}
		return errors.New("explain: which benchmark? as the verdict names it, such as broker/wire.Encode/frame=produce")
	}
	name := args[0]
	if err := fs.Parse(args[1:]); err != nil {
		return err
	}
	if *turns < 1 || *turns > 100 {
		return errors.New("--turns must be 1 to 100")
	}
	top, err := exec.CommandContext(ctx, "git", "-C", *repo, "rev-parse", "--show-toplevel").Output()
	if err != nil {
		return fmt.Errorf("explain: %s is in no repository: %w", *repo, err)
	}
	what, err := explain.Locate(strings.TrimSpace(string(top)), name)
	if err != nil {
		return err
	}
	first, _, _ := strings.Cut(what.Name, "/")
	suite := bench.Suite{Entries: []bench.Entry{{Module: what.Module, Package: what.Package, Match: "^Benchmark" + first + "$"}}}
	s, err := bench.Prepare(ctx, bench.Plan{Repo: *repo, Base: *base, Head: *head, Suite: suite, Controls: -1}, nil)
	if err != nil {
		return err
	}
	defer s.Close()
	for _, subject := range s.Benches() {
		if subject.Bench != what || subject.New {
			continue
		}
		x, err := explain.Explain(ctx, explain.Options{
			Base: s.Root(sample.Base), Head: s.Root(sample.Head), Bench: subject.Bench, OneCPU: !*wall, Turns: *turns, Seed: *seed, Keep: *keep,
			Progress: func(s string) { fmt.Fprintln(os.Stderr, s) },
		})
		if err != nil {
			return err
		}
		fmt.Printf("%s: %s -> %s\n", name, s.Revision(sample.Base).Short(), s.Revision(sample.Head).Short())
		return report.Explanation(os.Stdout, x.Top, x.Notes)
	}
	for _, p := range s.Problems() {
		fmt.Fprintln(os.Stderr, p)
	}
	return fmt.Errorf("no benchmark %q that both revisions have", name)
}

// runReport makes a report's files again, or the history's page with it.
func runReport(ctx context.Context, args []string) error {
	fs := flags("report")
	root := fs.String("root", ".", "directory of the repository, for its history")
	raw := fs.String("raw", "", "raw samples of the run, for benchstat.txt")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() != 1 {
		return errors.New("report: which directory? one that a gate wrote, with " + report.VerdictJSON)
	}
	d, err := report.Read(fs.Arg(0))
	if err != nil {
		return err
	}
	lines, err := history.ReadFile(filepath.Join(*root, history.Path))
	if err != nil {
		return err
	}
	d.History = history.SeriesOf(lines)
	if *raw != "" {
		d.Raw, d.Benchstat = *raw, ""
	}
	if err := report.Write(ctx, fs.Arg(0), d); err != nil {
		return err
	}
	return report.Text(os.Stdout, d.Verdict)
}

// runHistory prints the series of benchdata/history.jsonl, or adds a verdict.
func runHistory(_ context.Context, args []string) error {
	fs := flags("history")
	file := fs.String("file", history.Path, "file of the history")
	match := fs.String("match", "", "only series whose names have this in them")
	add := fs.String("add", "", "verdict.json to add")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *add != "" {
		v, err := verdict.ReadFile(*add)
		if err != nil {
			return err
		}
		l, ok := history.Of(v)
		if !ok {
			return fmt.Errorf("%s has nothing for the history: it is %s", *add, v.Decision)
		}
		return history.Append(*file, l)
	}
	lines, err := history.ReadFile(*file)
	if err != nil {
		return err
	}
	all := history.SeriesOf(lines)
	var shown []history.Series
	for _, s := range all {
		if strings.Contains(s.Name, *match) {
			shown = append(shown, s)
		}
	}
	fmt.Printf("%d runs, %d series\n", len(lines), len(all))
	return history.Text(os.Stdout, shown)
}

// runArchive adds what is new in benchdata/ to its manifest.
func runArchive(_ context.Context, args []string) error {
	fs := flags("archive")
	root := fs.String("root", ".", "directory of the repository")
	check := fs.Bool("check", false, "add nothing; compare the files with the manifest")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *check {
		return archive.Check(*root)
	}
	added, err := archive.Add(*root)
	for _, l := range added {
		fmt.Println(l)
	}
	return err
}
