package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/perf/benchfmt"

	"github.com/portask/portask/ci/bench"
	"github.com/portask/portask/ci/sample"
)

// A round of one benchmark is kept in files that the stock reader accepts, and
// the benchmark whose program did not change is named and left out.
func TestRunKeepsWhatItMeasured(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("no git")
	}
	dir, keep := t.TempDir(), filepath.Join(t.TempDir(), "kept")
	write := func(name, text string) {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	git := func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	write("go.mod", "module example.com/kept\n\ngo 1.22\n")
	write("a/a_test.go", "package a\n\nimport \"testing\"\n\nvar sum int\n\nfunc BenchmarkAdd(b *testing.B) {\n\tfor i := 0; i < b.N; i++ {\n\t\tsum += i\n\t}\n}\n")
	write("b/b_test.go", "package b\n\nimport \"testing\"\n\nfunc BenchmarkSame(b *testing.B) {}\n")
	git("init", "-q")
	git("add", "-A")
	git("commit", "-q", "-m", "one")
	write("a/a_test.go", "package a\n\nimport \"testing\"\n\nvar sum int\n\nfunc BenchmarkAdd(b *testing.B) {\n\tfor i := 0; i < b.N; i++ {\n\t\tsum += i / 3\n\t}\n}\n")
	if err := runRun(t.Context(), []string{"--repo", dir, "--base", "HEAD", "--rounds", "1", "--pairs", "4", "--slice", "1ms",
		"--layouts", "1", "--controls=false", "--seed", "3", "--cache", t.TempDir(), "--keep", keep}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"pairs.csv.gz", "system.csv"} {
		if info, err := os.Stat(filepath.Join(keep, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	raw, err := os.ReadFile(filepath.Join(keep, "raw.txt"))
	if err != nil {
		t.Fatal(err)
	}
	roles := ""
	for r := benchfmt.NewReader(bytes.NewReader(raw), "raw"); r.Scan(); {
		switch rec := r.Result().(type) {
		case *benchfmt.Result:
			roles += " " + rec.GetConfig("role")
			if name := rec.Name.String(); name != "Add-1" {
				t.Errorf("benchmark %s was measured", name)
			}
		case *benchfmt.SyntaxError:
			t.Error(rec)
		}
	}
	if roles != " base head" {
		t.Errorf("lines of%s, want base and head:\n%s", roles, raw)
	}
	var list bytes.Buffer
	if err := listSubjects(&list, []*bench.Subject{{Bench: sample.Bench{Module: ".", Package: "./b", Name: "Same"}, Identical: true}}); err != nil || !strings.Contains(list.String(), "identical") {
		t.Errorf("list %q, %v", list.String(), err)
	}
}

func TestRunRefuses(t *testing.T) {
	for _, c := range []struct {
		args []string
		part string // of the error
	}{
		{nil, "--base is needed"},
		{[]string{"--base", "HEAD", "--rounds", "-1"}, "--rounds"},
		{[]string{"--base", "HEAD", "--suite", "ci", "--package", "./x"}, "--suite and --package"},
		{[]string{"--base", "HEAD", "--suite", "ci", "--bench", "X"}, "--suite and --bench"},
		{[]string{"--base", "HEAD", "--suite", "ci", "--suites", "missing.yaml"}, "missing.yaml"},
		{[]string{"--base", "HEAD", "--bench", "("}, `--bench: pattern "("`},
		{[]string{"--base", "HEAD", "--bench", "a/[b"}, `--bench: pattern "a/[b"`},
	} {
		if err := runRun(t.Context(), c.args); err == nil || !strings.Contains(err.Error(), c.part) {
			t.Errorf("%v: error %v, want %q", c.args, err, c.part)
		}
	}
}
