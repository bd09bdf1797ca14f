package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/portask/portask/broker/compression/adaptive"
	"github.com/portask/portask/ci/internal/slo"
	"github.com/portask/portask/ci/policy/check"
	"github.com/portask/portask/ci/policy/fit"
	"github.com/portask/portask/ci/policy/measure"
	"github.com/portask/portask/ci/policy/rows"
)

// Places of the policy's files, from the repository's root.
const (
	policyRows     = check.RowsFile
	policyOrigin   = "benchdata/policy/rows.json"
	policyArtefact = "broker/compression/adaptive/artefact.json"
)

func runPolicy(ctx context.Context, args []string) error {
	subs := []command{
		{"train", "measure what compressing costs, and fit the artefact of the adaptive policy", runPolicyTrain, false},
		{"check", "regret of the adaptive policy and its rivals on recorded costs", runPolicyCheck, false},
		{"replay", "make the decisions of a log again and compare", runPolicyReplay, false},
		{"prove", "run adaptive compression and every static choice on the real programs", runPolicyProve, false},
		{"burn", "keep the processors busy, until standard input ends", runPolicyBurn, false},
	}
	if len(args) > 0 {
		for _, c := range subs {
			if c.name == args[0] {
				return c.run(ctx, args[1:])
			}
		}
	}
	for _, c := range subs {
		fmt.Printf("  policy %-8s %s\n", c.name, c.short)
	}
	return errors.New("policy: want one of train, check, replay, prove")
}

// list is a flag that may be given several times.
type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

// sweep measures on the corpora and, if loadgen is named, on what it generates.
func sweep(ctx context.Context, loadgen string, corpora list, loads string, repeat, batches int) ([]rows.Row, error) {
	o := measure.Options{Dirs: corpora, Batches: batches, Repeat: repeat, Log: os.Stderr}
	for s := range strings.SplitSeq(loads, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 || n > 95 {
			return nil, fmt.Errorf("--loads %q: want percentages from 0 to 95", loads)
		}
		o.Loads = append(o.Loads, n)
	}
	if repeat < 1 || batches < 1 {
		return nil, errors.New("--repeat and --batches must be at least 1")
	}
	if loadgen != "" {
		dir, err := os.MkdirTemp("", "payloads-")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(dir)
		out, err := exec.CommandContext(ctx, loadgen, "payloads", "--out", dir).CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("%s payloads: %w: %s", loadgen, err, out)
		}
		o.Dirs = append(o.Dirs, dir)
	}
	if len(o.Dirs) == 0 {
		return nil, errors.New("nothing to measure on: name --loadgen or --corpus")
	}
	return measure.Sweep(ctx, o)
}

func runPolicyTrain(ctx context.Context, args []string) error {
	fs := flags("policy train")
	var corpora list
	fs.Var(&corpora, "corpus", "directory of payload files, one below it for each class; may be given several times")
	loadgen := fs.String("loadgen", "bin/loadgen", "program that generates payloads; empty: only the directories given")
	name := fs.String("rows", policyRows, "file of what was measured")
	origin := fs.String("origin", policyOrigin, "file that says where that was")
	artefact := fs.String("artefact", policyArtefact, "file of what was fitted; the broker's module embeds this one")
	fitOnly := fs.Bool("fit-only", false, "fit to the rows that are there; measure nothing")
	loads := fs.String("loads", "0,50,90", "percent of the processors kept busy while measuring; the first for all batches")
	repeat := fs.Int("repeat", 4, "counts of which the fastest is kept")
	batches := fs.Int("batches", 16, "of one file and size, at most")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if !*fitOnly {
		all, err := sweep(ctx, *loadgen, corpora, *loads, *repeat, *batches)
		if err != nil {
			return err
		}
		var b bytes.Buffer
		if err := rows.Write(&b, all); err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(*name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(*name, b.Bytes(), 0o644); err != nil {
			return err
		}
		fmt.Printf("%d rows in %s, %d KiB\n", len(all), *name, b.Len()>>10)
		ns, err := adaptive.Measure()
		if err != nil {
			return err
		}
		if err := rows.Here(version, ns).Save(*origin); err != nil {
			return err
		}
	}
	train, held, hash, err := openRows(*name)
	if err != nil {
		return err
	}
	o, err := rows.ReadOrigin(*origin)
	if err != nil {
		return err
	}
	fmt.Printf("%d rows to train on, %d to check on\n", len(train), len(held))
	p := adaptive.Provenance{Commit: o.Commit, Go: o.Go, CPU: o.CPU, Libraries: o.Libraries, Rows: hash}
	for i := range train {
		if name := train[i].Class + " " + train[i].File; !slices.Contains(p.Corpus, name) {
			p.Corpus = append(p.Corpus, name)
		}
	}
	b, err := fit.Artefact(train, fit.Model, p, o.Reference)
	if err != nil {
		return err
	}
	if _, err := adaptive.Parse(b); err != nil {
		return fmt.Errorf("what was fitted is not valid: %w", err)
	}
	rs, err := check.CrossValidate(train, fit.Model, o.Reference)
	if err != nil {
		return err
	}
	// Last, so that rows which are too few leave the artefact that was there.
	if err := os.WriteFile(*artefact, b, 0o644); err != nil {
		return err
	}
	fmt.Printf("%s: %d of at most %d bytes\n\ncross validation within the training rows, mean of %d folds (worst: of all)\n", *artefact, len(b), adaptive.ArtefactMaxBytes, check.Folds)
	check.FoldsTable(os.Stdout, rs)
	return nil
}

// openArtefact reads an artefact, or takes the embedded one if name is empty.
func openArtefact(name string) (*adaptive.Artefact, error) {
	if name == "" {
		return adaptive.Embedded(), nil
	}
	// To open a pipe that nobody writes would wait for ever.
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("artefact %s is no regular file", name)
	}
	b, err := io.ReadAll(io.LimitReader(f, adaptive.ArtefactMaxBytes+1)) // Parse refuses what is more
	if err != nil {
		return nil, err
	}
	a, err := adaptive.Parse(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return a, nil
}

// openRows reads recorded rows in order, those to train on and those held out,
// with the file's hash.
func openRows(name string) (train, held []rows.Row, hash string, err error) {
	all, hash, err := rows.Open(name)
	if err != nil {
		return nil, nil, "", err
	}
	fit.Sort(all)
	train, held = check.Split(all)
	return train, held, hash, nil
}

func runPolicyCheck(ctx context.Context, args []string) error {
	fs := flags("policy check")
	var corpora list
	fs.Var(&corpora, "corpus", "directory of payload files to measure and check on, none of them trained on; may be given several times. Without it the recorded rows held out from training are used")
	objectives := fs.String("slo", "configs/slo.yaml", "objectives to hold the figures against")
	name := fs.String("rows", policyRows, "file of recorded rows")
	artefact := fs.String("artefact", "", "file of an artefact (default: the embedded one)")
	plots := fs.String("plots", "", "directory that receives plots, as SVG")
	repeat := fs.Int("repeat", 3, "with --corpus: counts of which the fastest is kept")
	batches := fs.Int("batches", 8, "with --corpus: of one file and size, at most")
	if err := fs.Parse(args); err != nil {
		return err
	}
	a, err := openArtefact(*artefact)
	if err != nil {
		return err
	}
	train, held, _, err := openRows(*name)
	if err != nil {
		return err
	}
	if len(corpora) > 0 {
		measured, err := sweep(ctx, "", corpora, "0", *repeat, *batches)
		if err != nil {
			return err
		}
		fit.Sort(measured)
		held = check.Unseen(measured, a)
		fmt.Printf("%d of %d measured rows are of files that the artefact was not trained on\n", len(held), len(measured))
	}
	r, err := check.Evaluate(train, held, a, true)
	if err != nil {
		return err
	}
	r.Print(os.Stdout)
	if *plots != "" {
		if err := r.Plots(*plots); err != nil {
			return err
		}
	}
	f, err := slo.Load(*objectives)
	if err != nil {
		return err
	}
	if len(corpora) > 0 {
		fmt.Println("on a corpus of your own the figures are printed and not judged: the bounds are for the recorded rows")
		return nil
	}
	report := slo.NewReport(f, os.Stdout)
	var required []string
	for _, v := range r.Values() {
		report.Count(v.Name, v.Value)
		required = append(required, v.Name)
	}
	return report.Err(required...)
}

func runPolicyReplay(_ context.Context, args []string) error {
	fs := flags("policy replay")
	artefact := fs.String("artefact", "", "file of the artefact that was in use (default: the embedded one)")
	print := fs.Bool("print", false, "print each decision: number of the decider, size, arm, reason")
	other := fs.Bool("other-artefact", false, "replay although the log was recorded with another artefact, to see what it would have decided")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() != 1 {
		return errors.New("policy replay: name one log")
	}
	a, err := openArtefact(*artefact)
	if err != nil {
		return err
	}
	f, err := os.Open(fs.Arg(0))
	if err != nil {
		return err
	}
	defer f.Close()
	var out io.Writer
	if *print {
		out = os.Stdout
	}
	r, err := adaptive.Replay(f, a, out, *other)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "%d decisions of %d deciders, %d events; %d differ\n", r.Decisions, r.Streams, r.Events, r.Differ)
	if r.Truncated {
		fmt.Fprintln(os.Stderr, "the log ends within an event, which was left out")
	}
	if r.Differ > 0 && !*other {
		return fmt.Errorf("decision %d is the first of %d that differ from the log", r.First, r.Differ)
	}
	return nil
}
