package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portask/portask/ci/arch"
)

// The module of docs/laboratory.md: perflab finds its benchmarks without
// anything having been added to it, and tells which of them a commit cannot
// have touched.
func TestSecondModule(t *testing.T) {
	for _, need := range []string{"bash", "git"} {
		if _, err := exec.LookPath(need); err != nil {
			t.Skipf("%s is not installed", need)
		}
	}
	root, err := arch.Root()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "words")
	cmd := exec.CommandContext(t.Context(), "bash", filepath.Join(root, "docs/laboratory/second-module.sh"), dir)
	if out, err := cmd.CombinedOutput(); err != nil || strings.Count(string(out), "\n") != 2 {
		t.Fatalf("%v: %s", err, out)
	}
	t.Setenv("GOWORK", "off")
	t.Setenv("GOFLAGS", "-mod=mod")
	stdout := os.Stdout
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	os.Stdout = w
	err = runRun(t.Context(), []string{"--repo", dir, "--base", "HEAD~1", "--head", "HEAD", "--rounds", "0", "--controls=false", "--layouts", "1", "--seed", "1", "--cache", t.TempDir()})
	os.Stdout = stdout
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != 3 {
		t.Fatalf("%d benchmarks, want 3:\n%s", len(lines), out)
	}
	for _, l := range lines {
		f := strings.Fields(l)
		word := strings.Join(f[2:], " ")
		if touched := f[0] == "./tokens.Count"; touched && word == "identical" || !touched && word != "identical" && word != "package changed" {
			t.Errorf("%s is %q", f[0], word)
		}
	}
}
