package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/portask/portask/ci/bench"
	"github.com/portask/portask/ci/internal/counters"
	"github.com/portask/portask/ci/internal/slo"
	"github.com/portask/portask/ci/lab"
	"github.com/portask/portask/ci/verdict"
)

// runCounters holds counts against their budgets and, with --base, against those
// of another revision.
func runCounters(ctx context.Context, args []string) error {
	fs := flags("counters")
	var c common
	c.register(fs)
	root := fs.String("root", ".", "directory of the repository")
	base := fs.String("base", "", "revision whose counts must not be exceeded; the head is the work tree as it lies there")
	if err := fs.Parse(args); err != nil {
		return err
	}
	f, err := slo.Load(c.slo)
	if err != nil {
		return err
	}
	if *base != "" {
		return compareCounters(ctx, &c, *root, *base)
	}
	values, err := counters.Measure(ctx, *root, counters.Budgets, os.Stdout)
	if err != nil {
		return err
	}
	report := slo.NewReport(f, os.Stdout)
	var required []string
	for _, v := range values {
		report.Count(v.Objective, v.Value)
		required = append(required, v.Objective)
	}
	if err := c.store("counters", values, nil); err != nil {
		return err
	}
	return report.Err(required...)
}

func compareCounters(ctx context.Context, c *common, root, base string) error {
	tmp, err := os.MkdirTemp("", "perflab-counters-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	var sides [2]counters.Tree
	for i, rev := range []string{base, bench.WorkingTree} {
		dir := filepath.Join(tmp, []string{"base", "head"}[i])
		r, err := bench.Checkout(ctx, root, rev, dir)
		if err != nil {
			return err
		}
		fmt.Printf("%s %s %s\n", []string{"base", "head"}[i], r.Short(), r.Subject)
		if sides[i], err = counterTree(ctx, c.dir, dir); err != nil {
			return err
		}
	}
	all, err := counters.Compare(ctx, sides[0], sides[1], os.Stdout)
	if err != nil {
		return err
	}
	if err := c.store("counters", all, nil); err != nil {
		return err
	}
	failed := 0
	for _, v := range all {
		if v.Decision == verdict.Fail {
			failed++
		}
	}
	if failed > 0 {
		return &status{verdict.Fail.ExitStatus(), fmt.Sprintf("%d of %d counts grew beyond their limit", failed, len(all))}
	}
	return nil
}

// counterTree builds a side's broker and load generator. The lean clients are
// those beside this program, the same for both sides.
func counterTree(ctx context.Context, data, root string) (counters.Tree, error) {
	l, err := lab.New(data)
	if err != nil {
		return counters.Tree{}, err
	}
	t := counters.Tree{Root: root, Lab: l, Loadgen: filepath.Join(root, "loadgen-counted")}
	l.Portask = filepath.Join(root, "portask-counted")
	for _, b := range []struct{ module, pkg, file string }{{"broker", "./cmd/portask", l.Portask}, {"loadgen", "./cmd/loadgen", t.Loadgen}} {
		cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-trimpath", "-o", b.file, b.pkg)
		cmd.Dir = filepath.Join(root, b.module)
		if out, err := cmd.CombinedOutput(); err != nil {
			if b.file == t.Loadgen { // the bytes on the wire are not counted then, and that is said
				t.Loadgen = ""
				continue
			}
			return counters.Tree{}, fmt.Errorf("build %s of %s: %w: %s", b.pkg, root, err, bytes.TrimSpace(out))
		}
	}
	return t, nil
}
