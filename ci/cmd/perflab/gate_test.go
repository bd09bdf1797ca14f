package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/portask/portask/ci/baseline"
	"github.com/portask/portask/ci/ledger"
)

// The report and the ledger of a first gate, in a repository that knows
// nothing of them, do not make a second gate's candidate another one.
func TestOutputsOfAGateAreNoCandidate(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("no git")
	}
	dir := t.TempDir()
	for _, args := range [][]string{{"init", "-q"}, {"commit", "-q", "--allow-empty", "-m", "one"}} {
		cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	g := gateRun{root: dir, out: ".cache/gate", ledger: ledger.Path}
	g.p.plan.Repo, g.p.plan.Base = dir, "HEAD"
	write := func(name string) {
		t.Helper()
		name = filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte("x\n"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	write(".cache/gate/verdict.json")
	write(ledger.Path)
	if err := g.notTheSame(t.Context()); !errors.Is(err, baseline.ErrSame) {
		t.Errorf("the gate's own files are a candidate: %v", err)
	}
	write("main.go")
	if err := g.notTheSame(t.Context()); err != nil {
		t.Errorf("a file of the user is no candidate: %v", err)
	}
	for _, c := range []struct {
		out, archive string
		want         []string
	}{
		{"reports/x", "", []string{"reports/x", ledger.Path}},
		{dir + "/r", "", []string{"r", ledger.Path}},
		{filepath.Dir(dir), "", []string{ledger.Path}},
		{"", "benchdata/gate", []string{ledger.Path, "benchdata/gate", "benchdata/history.jsonl", "benchdata/MANIFEST"}},
	} {
		g.out, g.archive = c.out, c.archive
		if got := g.own(); !slices.Equal(got, c.want) {
			t.Errorf("report %q, archive %q: own files %q, want %q", c.out, c.archive, got, c.want)
		}
	}
}
