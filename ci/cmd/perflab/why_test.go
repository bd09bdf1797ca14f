package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portask/portask/ci/baseline"
	"github.com/portask/portask/ci/bench"
	"github.com/portask/portask/ci/sample"
	"github.com/portask/portask/ci/verdict"
)

// A counter that failed is explained: one more allocation by the function that
// makes it, others by the command that shows more.
func TestFailedCountersAreExplained(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("no git")
	}
	t.Setenv("GOWORK", "off")
	dir := t.TempDir()
	for step, body := range []string{"return n + 1", "return box(n + 1).n"} {
		for name, text := range map[string]string{
			"go.mod":    "module example.com/counted\n\ngo 1.22\n",
			"a.go":      "package counted\n\nfunc Next(n int) int {\n\t" + body + "\n}\n\n//go:noinline\nfunc box(n int) *wide { return &wide{n: n} }\n\ntype wide struct{ n, a, b, c int }\n",
			"a_test.go": "package counted\n\nimport \"testing\"\n\nfunc BenchmarkNext(b *testing.B) {\n\tn := 0\n\tfor i := 0; i < b.N; i++ {\n\t\tn = Next(n)\n\t}\n}\n",
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		for i, args := range [][]string{{"init", "-q"}, {"add", "-A"}, {"commit", "-q", "-m", "change"}} {
			if i == 0 && step > 0 {
				continue
			}
			cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"}, args...)...)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("git %v: %v\n%s", args, err, out)
			}
		}
	}
	s, err := bench.Prepare(t.Context(), bench.Plan{Repo: dir, Base: "HEAD~1", Head: "HEAD", Controls: -1, Cache: t.TempDir()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	v := &verdict.Verdict{Base: s.Revision(sample.Base), Head: s.Revision(sample.Head)}
	v.Entries = []verdict.Entry{{Bench: s.Benches()[0].Bench, Decision: verdict.Pass}}
	name := s.Benches()[0].Bench.String()
	v.Counters = []verdict.Counter{
		{Name: "allocs/op " + name, Unit: "allocs/op", Base: 0, Head: 1, Decision: verdict.Fail},
		{Name: "B/op " + name, Unit: "B/op", Base: 0, Head: 8, Decision: verdict.Fail},
		{Name: "Ir/op " + name, Unit: "Ir/op", Base: 10, Head: 30, Decision: verdict.Fail},
		{Name: "syscalls/batch one batch at a time, ack=accepted", Unit: "syscalls/batch", Base: 2, Head: 3, Decision: verdict.Fail},
		{Name: "accepted allocs/op " + name, Unit: "allocs/op", Base: 0, Head: 1, Decision: verdict.Fail},
		{Name: "accepted bound of some-objective", Unit: "ratio", Base: 1, Head: 2, Decision: verdict.Fail},
		{Name: "allocs/op " + name, Unit: "allocs/op", Base: 0, Head: 1, Decision: verdict.Fail, Waived: &verdict.Waiver{}},
		{Name: "B/op " + name, Unit: "B/op", Decision: verdict.Pass},
	}
	g := gateRun{root: dir, out: "report", explained: 1, accepted: &baseline.File{Revision: strings.Repeat("a", 40)}}
	g.explainCounters(t.Context(), s, v)
	found := false
	for _, f := range v.Counters[0].Top {
		found = found || f.Kind == "objects" && f.Name == "example.com/counted.box" && f.Base == 0 && f.Head > 0.9 && f.Head < 1.1
	}
	if !found {
		t.Errorf("the function that allocates is not named: %+v", v.Counters[0])
	}
	base := v.Base.Commit[:10]
	for i, want := range [][]string{
		{"allocations: ", "-sample_index=alloc_objects -diff_base profiles/allocations-1/base.alloc.pb.gz profiles/allocations-1/head.alloc.pb.gz"},
		{"explained at allocs/op " + name},
		{"perflab explain " + name + " --base " + base},
		{"perflab counters --base " + base},
		{"perflab baseline", "perflab explain " + name + " --base aaaaaaaaaa"},
		{"perflab baseline"},
	} {
		notes := strings.Join(v.Counters[i].Notes, "\n")
		for _, w := range want {
			if !strings.Contains(notes, w) {
				t.Errorf("%s: notes %q have no %q", v.Counters[i].Name, notes, w)
			}
		}
	}
	for _, c := range v.Counters[6:] {
		if len(c.Notes)+len(c.Top) > 0 {
			t.Errorf("%s, which failed nothing, is explained: %+v", c.Name, c)
		}
	}
	for _, side := range []string{"base", "head"} {
		if info, err := os.Stat(filepath.Join(dir, "report", "profiles", "allocations-1", side+".alloc.pb.gz")); err != nil || info.Size() == 0 {
			t.Errorf("the profile of the %s: %v", side, err)
		}
	}
	// Where the benchmark itself was slower, its explanation has the functions.
	v.Entries[0].Top = []verdict.Function{{Name: "f", Kind: "cpu"}, {Name: "g", Kind: "alloc", Head: 32}}
	v.Counters = v.Counters[:1]
	v.Counters[0].Top, v.Counters[0].Notes = nil, nil
	g.explainCounters(t.Context(), s, v)
	if c := v.Counters[0]; len(c.Top) != 1 || c.Top[0].Name != "g" || len(c.Notes) != 1 || c.Notes[0] != "explained at "+name {
		t.Errorf("beside an explained benchmark: %+v", c)
	}
}
