package selftest

import (
	"bytes"
	"fmt"
	"go/parser"
	"go/token"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portask/portask/ci/internal/jsonl"
	"github.com/portask/portask/ci/sample"
	"github.com/portask/portask/ci/verdict"
)

const source = `package words

import "testing"

func BenchmarkOther(b *testing.B) {
	for b.Loop() {
		work(1)
	}
}

func BenchmarkCount(b *testing.B) {
	for _, size := range []int{1, 2} {
		b.Run("size", func(b *testing.B) {
			for i := 0; i < b.N; i++ {
				n := work(size)
				if n > 5 {
					continue
				}
			}
			for range b.N {
				work(size)
			}
			for b.Loop() {
				work(size)
			}
		})
	}
}

func work(n int) int { return n }
`

func TestInject(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "m", "p"), 0o777); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"a_test.go": "package words_test\n", "b_test.go": source} {
		if err := os.WriteFile(filepath.Join(root, "m", "p", name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	b := sample.Bench{Module: "m", Package: "./p", Name: "Count/size"}
	for kind, want := range map[Kind]string{
		CPU: "perflabCount == 20", Alloc: "perflabSink = new", Syscall: "perflabCall()", Tail: "perflabCount == 50",
	} {
		edits, err := Inject(root, b, kind, 5)
		if err != nil {
			t.Fatal(err)
		}
		text := string(edits["m/p/b_test.go"])
		if n := strings.Count(text, want); n != 3 {
			t.Errorf("%s: %d loops changed, want 3\n%s", kind, n, text)
		}
		before, _, _ := strings.Cut(text, "func BenchmarkCount")
		if strings.Contains(before, "perflab") {
			t.Errorf("%s: another benchmark was changed\n%s", kind, before)
		}
		for name, text := range edits {
			if _, err := parser.ParseFile(token.NewFileSet(), name, text, 0); err != nil {
				t.Errorf("%s: %v\n%s", kind, err, text)
			}
		}
		if len(edits) != 2 || !bytes.HasPrefix(edits["m/p/"+extraName], []byte("package words\n")) {
			t.Errorf("%s: %d files", kind, len(edits))
		}
	}
	edits, err := Inject(root, b, AA, 0)
	if err != nil || len(edits) != 1 {
		t.Errorf("A/A changes %d files, %v", len(edits), err)
	}
	for _, bad := range []struct {
		name    string
		percent float64
	}{{"Missing", 5}, {"Count", 0}, {"Count", math.NaN()}, {"Count", 101}} {
		b.Name = bad.name
		if _, err := Inject(root, b, CPU, bad.percent); err == nil {
			t.Errorf("%+v: no error", bad)
		}
	}
}

func TestInterruptedGatesAreKept(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "below", GatesFile)
	for _, g := range []Gate{
		{State: begun, ID: "cpu-000", Kind: CPU}, {State: begun, ID: "cpu-001", Kind: CPU},
		{State: done, ID: "cpu-001", Kind: CPU, Right: true, Decision: verdict.Fail},
	} {
		g.Version = Version
		if err := jsonl.Append(name, g); err != nil {
			t.Fatal(err)
		}
	}
	gates, err := ReadGates(filepath.Join(dir, "below"))
	if err != nil || len(gates) != 2 || gates[0].State != begun || !gates[1].Right {
		t.Fatalf("%+v, %v", gates, err)
	}
	c := &campaign{Options: Options{Want: map[Kind]int{AA: 2, CPU: 4}}, gates: gates}
	if k, ok := c.next(); !ok || k != AA {
		t.Errorf("next is %s", k)
	}
	c.Want = map[Kind]int{CPU: 1}
	if k, ok := c.next(); ok {
		t.Errorf("next is %s though all are done", k)
	}
	// A gate is not done twice.
	if err := jsonl.Append(name, Gate{Version: Version, State: done, ID: "cpu-001"}); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadGates(filepath.Join(dir, "below")); err == nil || !strings.Contains(err.Error(), "line 4") {
		t.Errorf("err %v", err)
	}
}

func TestRightByTheMeansMeantForIt(t *testing.T) {
	b := sample.Bench{Module: "m", Package: "./p", Name: "X"}
	entry := func(d verdict.Decision) *verdict.Verdict {
		v := &verdict.Verdict{Entries: []verdict.Entry{{Bench: b, Decision: d}}}
		v.Combine()
		return v
	}
	count := func(unit string) *verdict.Verdict {
		v := &verdict.Verdict{Counters: []verdict.Counter{{Name: unit + " " + b.String(), Decision: verdict.Fail}}}
		v.Combine()
		return v
	}
	for _, c := range []struct {
		kind Kind
		v    *verdict.Verdict
		want bool
	}{
		{AA, entry(verdict.Pass), true}, {AA, entry(verdict.Inconclusive), true}, {AA, entry(verdict.Fail), false}, {AA, entry(verdict.Invalid), false},
		{AA, count("allocs/op"), false},
		{CPU, entry(verdict.Fail), true}, {CPU, entry(verdict.Pass), false}, {CPU, entry(verdict.Inconclusive), false}, {CPU, count("allocs/op"), false},
		{Alloc, count("allocs/op"), true}, {Alloc, entry(verdict.Fail), false}, {Syscall, count("syscalls/op"), true}, {Syscall, count("allocs/op"), false},
		{Tail, entry(verdict.Fail), true},
	} {
		g := Gate{Kind: c.kind, Bench: b.String()}
		if g.conclude(c.v); g.Right != c.want {
			t.Errorf("%s after %s: right is %v", c.kind, c.v.Decision, g.Right)
		}
	}
}

func TestTableCountsEverything(t *testing.T) {
	var gates []Gate
	add := func(k Kind, n, right int, state string) {
		for i := range n {
			gates = append(gates, Gate{ID: fmt.Sprintf("%s-%d", k, len(gates)), Kind: k, State: state, Right: i < right, Decision: verdict.Fail, Percent: 5, Commit: "c", Seconds: 9})
		}
	}
	add(AA, 20, 20, done)
	add(CPU, 60, 58, done)
	add(CPU, 1, 0, begun)
	for _, k := range []Kind{Alloc, Syscall, Tail} {
		add(k, 20, 20, done)
	}
	var b bytes.Buffer
	if err := Table(&b, gates, &Simulated{Gates: 500, Failed: 1, Pool: 400, Seed: 3}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| 5 % more iterations' work in one benchmark | 61 | 60 | 58 | 96.7 % | 88.5 to 99.6 % |", "| A/A: the head does the same | 20 | 20 | 20 | 100.0 % | 83.2 to 100.0 % |",
		"False alarms: 0.20 %, interval 0.01 to 1.11 %", "All requirements hold",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	for i := range gates {
		if gates[i].Kind == AA {
			gates[i].Right = false
			break
		}
	}
	if m := Missing(gates); len(m) != 1 || !strings.HasPrefix(m[0], "aa: right in 19 of 20") {
		t.Errorf("%q", m)
	}
	if m := Missing(nil); len(m) != len(Requirements) {
		t.Errorf("%q", m)
	}
}

func TestSimulation(t *testing.T) {
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(1, 1))
	var rounds []Recorded
	for i := range 24 {
		r := Recorded{Version: Version, Gate: "aa-000", Bench: sample.Bench{Module: ".", Package: ".", Name: fmt.Sprint(i % 2)}, Metric: "cpu-ns/op", Control: i%2 == 0}
		luck := 0.01 * rng.NormFloat64()
		for range 20 {
			v := luck + 0.02*rng.NormFloat64()
			r.CPU, r.Wall = append(r.CPU, v), append(r.Wall, 2*v)
		}
		rounds = append(rounds, r)
	}
	other := rounds[0]
	other.Gate = "aa-001" // interrupted: its rounds are not drawn
	if err := jsonl.Append(filepath.Join(dir, RoundsFile), append(rounds, other)...); err != nil {
		t.Fatal(err)
	}
	if _, err := Simulate(t.Context(), dir, 5, 1); err == nil {
		t.Error("simulated without a complete gate")
	}
	if err := jsonl.Append(filepath.Join(dir, GatesFile), Gate{Version: Version, State: done, ID: "aa-000", Kind: AA}, Gate{Version: Version, State: begun, ID: "aa-001", Kind: AA}); err != nil {
		t.Fatal(err)
	}
	s, err := Simulate(t.Context(), dir, 20, 1)
	if err != nil {
		t.Fatal(err)
	}
	if s.Gates != 20 || s.Failed != 0 || s.Invalid != 0 || s.Pool != 24 {
		t.Errorf("%+v", s)
	}
	again, err := Simulate(t.Context(), dir, 20, 1)
	if err != nil || *again != *s {
		t.Errorf("%+v, %v; before %+v", again, err, s)
	}
}

func FuzzReadGates(f *testing.F) {
	f.Add([]byte(`{"version":1,"state":"done","id":"aa-000","kind":"aa"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		for _, name := range []string{GatesFile, RoundsFile} {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		gates, err := ReadGates(dir)
		if err == nil {
			if err := Table(&bytes.Buffer{}, gates, nil); err != nil {
				t.Error(err)
			}
		}
		rounds, err := ReadRounds(dir, func(string) bool { return true })
		if err == nil && len(rounds) > 0 {
			newPool(rounds)
		}
	})
}
