package bench

import (
	"bytes"
	"compress/gzip"
	"encoding/csv"
	"flag"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/perf/benchfmt"

	"github.com/portask/portask/ci/sample"
	"github.com/portask/portask/ci/verdict"
)

var update = flag.Bool("update", false, "rewrite testdata")

// The repository's own suites are readable, and what they name exists.
func TestShippedSuites(t *testing.T) {
	root := filepath.Join("..", "..")
	f, err := Load(filepath.Join(root, "configs", "bench.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for name, most := range map[string]int{"ci": 14, "selftest": 3, "full": 100} {
		s, err := f.Suite(name)
		if err != nil {
			t.Fatal(err)
		}
		if len(s.Entries) > most {
			t.Errorf("suite %s has %d entries, its time allows %d", name, len(s.Entries), most)
		}
		for _, e := range s.Entries {
			functions := make(map[string]string)
			tests, err := filepath.Glob(filepath.Join(root, e.Module, e.Package, "*_test.go"))
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range tests {
				if err := benchmarkFunctions(file, functions); err != nil {
					t.Error(err)
				}
			}
			matched := false
			for function := range functions {
				matched = matched || e.mayMatch(function)
			}
			if !matched {
				t.Errorf("suite %s: nothing in %s matches %q", name, e.dir(), e.Match)
			}
		}
	}
	if _, err := f.Suite("none"); err == nil || !strings.Contains(err.Error(), "ci, full, selftest") {
		t.Errorf("unknown suite: %v", err)
	}
}

func TestSuiteViolations(t *testing.T) {
	_, err := parseSuites([]byte(`
version: 2
pairs: 1
suites:
  Bad Name:
    - {module: /abs, package: wire, bench: "a**", metric: gpu}
  empty: []
`))
	if err == nil {
		t.Fatal("accepted")
	}
	for _, part := range []string{"version", "pairs", "Bad Name", "/abs", `"wire"`, "a**", "gpu", "suite empty"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not say %q", err, part)
		}
	}
	for _, text := range []string{"", "version: 1\n", "version: 1\nsuits: {}\n", "version: [", "version: 1\nsuites: {a: [{package: ./../x}]}\n"} {
		if _, err := parseSuites([]byte(text)); err == nil {
			t.Errorf("%q accepted", text)
		}
	}
}

func FuzzSuites(f *testing.F) {
	f.Add([]byte("version: 1\nslice: 10ms\nsuites: {ci: [{module: a, package: ./b, bench: ^X$/y, metric: wall, tags: [t]}]}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := parseSuites(data)
		if err != nil {
			return
		}
		for name, s := range file.Suites {
			for _, e := range s.Entries {
				if strings.Contains("/"+e.dir()+"/", "/../") || filepath.IsAbs(e.dir()) {
					t.Errorf("suite %s: %q leaves the repository", name, e.dir())
				}
			}
		}
	})
}

func FuzzAnswer(f *testing.F) {
	for _, s := range []string{"1 2 3 4 5", "", "1 2 3 4", "1 2 3 4 -5", "9223372036854775808 1 1 1 1", "a b c d e"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		var c call
		if err := c.parse(line); err == nil && (c.N < 0 || c.Ns < 0 || c.CPUNs < 0 || c.Allocs < 0 || c.Bytes < 0) {
			t.Errorf("%q: %+v", line, c)
		}
	})
}

// A benchmark.go that is written in another way is refused, not guessed at.
func TestPatchRefusesWhatItDoesNotKnow(t *testing.T) {
	goroot, err := output(t.Context(), 3*time.Minute, 1<<20, ".", os.Environ(), "go", "env", "GOROOT")
	if err != nil {
		t.Fatal(err)
	}
	src, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(goroot)), "src", "testing", "benchmark.go"))
	if err != nil {
		t.Skip(err) // a toolchain without its sources
	}
	out, err := patchBenchmark(src)
	if err != nil {
		t.Fatal(err)
	}
	for _, call := range []string{"perflabStarted(b)", "perflabStopped(b)", "perflabZeroed(b)", "perflabServe(b)", "perflabBegun(b)", "perflabEnded(b)"} {
		if bytes.Count(out, []byte(call)) != 1 {
			t.Errorf("%s is there %d times", call, bytes.Count(out, []byte(call)))
		}
	}
	for _, method := range []string{"StartTimer()", "StopTimer()", "ResetTimer()", "run1()", "launch()"} {
		other := bytes.ReplaceAll(src, []byte("(b *B) "+method), []byte("(b *B) other"+method))
		if _, err := patchBenchmark(other); err == nil || !strings.Contains(err.Error(), strings.TrimSuffix(method, "()")) {
			t.Errorf("without %s: %v", method, err)
		}
	}
	if _, err := patchBenchmark(bytes.Replace(src, []byte("defer func() {\n\t\tb.signal <- true\n\t}()\n\n\t// b.Loop"), []byte("_ = 0\n"), 1)); err == nil {
		t.Error("a launch that does not begin with its signal was patched")
	}
	if _, err := patchBenchmark([]byte("package testing\nfunc")); err == nil {
		t.Error("a broken file was patched")
	}
}

func TestBalanced(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	firsts := 0
	for n := range 60 {
		heads := 0
		order := balanced(rng, n)
		for _, h := range order {
			if h {
				heads++
			}
		}
		if len(order) != n || heads < n/2 || heads > n/2+n%2 {
			t.Errorf("%d pairs: the head first in %d", n, heads)
		}
		if n > 0 && order[0] {
			firsts++
		}
	}
	if firsts < 10 || firsts > 50 {
		t.Errorf("the head begins %d of 59 rounds", firsts)
	}
}

// Each side goes through all layouts, each in an order of its own, before one comes
// again; the first ones are the same for every seed.
func TestLayouts(t *testing.T) {
	b := &Subject{Bench: sample.Bench{Module: "m", Package: "./p", Name: "B"}}
	for seed := range uint64(4) {
		s := &Session{plan: Plan{Layouts: 20, Seed: seed}}
		for side := range sample.Side(2) {
			seen, firsts := make(map[int]int), 0
			for round := range 40 {
				l := s.layout(b, round, side)
				if seen[l]++; seen[l] > 1+round/20 {
					t.Errorf("seed %d, side %d: layout %d came again in round %d", seed, side, l, round)
				}
				if l < firstLayout || l >= firstLayout+20 {
					t.Errorf("layout %d of 20", l)
				}
				if round < layoutBlock && l < firstLayout+layoutBlock {
					firsts++
				}
			}
			if len(seen) != 20 || firsts != layoutBlock {
				t.Errorf("seed %d, side %d: %d of 20 layouts; %d of the first %d rounds had the first ones", seed, side, len(seen), firsts, layoutBlock)
			}
		}
		same := 0
		for round := range 20 {
			if s.layout(b, round, sample.Base) == s.layout(b, round, sample.Head) {
				same++
			}
		}
		if same > 10 {
			t.Errorf("seed %d: the sides have the same layout in %d of 20 rounds", seed, same)
		}
	}
}

func TestIterations(t *testing.T) {
	for _, c := range []struct {
		goal   int64
		n      int
		ns     int64
		growth int
		want   int
	}{
		{1000, 1, 100, 100, 10}, {1000, 1, 1, 100, 100}, {1000, 50, 0, 4, 200}, {1000, 10, 100_000, 4, 1}, {1000, 900_000_000, 1, 4, 1_000_000_000},
	} {
		if got := iterations(c.goal, c.n, c.ns, c.growth); got != c.want {
			t.Errorf("iterations(%d, %d, %d, %d) = %d, want %d", c.goal, c.n, c.ns, c.growth, got, c.want)
		}
	}
}

// data is two rounds of one benchmark.
func data() ([]sample.Series, []verdict.Fact, [2]verdict.Revision) {
	series := []sample.Series{{Bench: sample.Bench{Module: "broker", Package: "./wire", Name: "Frame/op=parse"}, N: 100}}
	for i := range 2 {
		r := sample.Round{Index: i, Stage: sample.Screen, Seeds: [2]int{1 + i, 2}, Dropped: 1, Env: sample.Environment{Seconds: 1.5, StealShare: 0.0625, Load1: 3, BaseRSS: 1 << 20}}
		for k := range 4 {
			r.Pairs = append(r.Pairs, sample.Pair{
				HeadFirst: k%2 == 0,
				Base:      sample.Slice{N: 100, Ns: int64(1000 + k + i), CPUNs: 900, Allocs: 100, Bytes: 6400},
				Head:      sample.Slice{N: 100, Ns: int64(1100 + k + i), CPUNs: 990, DelayNs: 7, Allocs: 200, Bytes: 6400},
			})
		}
		series[0].Rounds = append(series[0].Rounds, r)
	}
	series[0].Rounds[1].Interference = "steal 6 %"
	return series, []verdict.Fact{{Key: "goos", Value: "linux"}, {Key: "cpu", Value: "some CPU"}},
		[2]verdict.Revision{{Commit: strings.Repeat("a", 40)}, {Commit: strings.Repeat("b", 40), Dirty: true}}
}

func TestRawFormat(t *testing.T) {
	series, machine, revisions := data()
	var got bytes.Buffer
	if err := WriteRaw(&got, series, machine, revisions); err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "raw.txt")
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("raw format is\n%s\nwant\n%s", got.Bytes(), want)
	}
	results := 0
	for r := benchfmt.NewReader(&got, "raw"); r.Scan(); {
		switch rec := r.Result().(type) {
		case *benchfmt.Result:
			results++
		case *benchfmt.SyntaxError:
			t.Error(rec)
		}
	}
	if results != 4 {
		t.Errorf("%d results, want 4", results)
	}
}

// The stock tool puts the sides beside each other and finds all rounds.
func TestRawIsReadByBenchstat(t *testing.T) {
	series, machine, revisions := data()
	name := filepath.Join(t.TempDir(), "raw.txt")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteRaw(f, series, machine, revisions); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	out, err := output(t.Context(), 3*time.Minute, 1<<20, ".", os.Environ(), "go", "tool", "benchstat", "-col", "role@(base head)",
		"-ignore", strings.Join(RawIgnored, ","), name)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"pkg: broker/wire", "Frame/op=parse-1", "9.000n", "9.900n", "cpu-sec/op", "allocs/op", "n=2"} {
		if !strings.Contains(string(out), part) {
			t.Errorf("benchstat does not say %q:\n%s", part, out)
		}
	}
}

func TestTables(t *testing.T) {
	series, _, _ := data()
	var pairs, system bytes.Buffer
	if err := WritePairs(&pairs, series); err != nil {
		t.Fatal(err)
	}
	if err := WriteSystem(&system, series); err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(&pairs)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		r    io.Reader
		rows int
	}{"pairs": {z, 1 + 2*4}, "system": {&system, 1 + 2}} {
		rows, err := csv.NewReader(c.r).ReadAll()
		if err != nil || len(rows) != c.rows {
			t.Errorf("%s: %d rows, %v; want %d", name, len(rows), err, c.rows)
		}
	}
}

func TestInterference(t *testing.T) {
	for _, c := range []struct {
		e       sample.Environment
		waited  int
		dropped bool
		want    string
	}{
		{sample.Environment{StealShare: 0.01, CPUPressure: 0.1}, 3, true, ""},
		{sample.Environment{StealShare: 0.2}, 0, false, "steal 20 %"},
		{sample.Environment{CPUPressure: 0.9, ThrottledS: 0.25}, 0, false, "processors wanted 90 % of the time; throttled 0.25 s"},
		{sample.Environment{}, 20, true, "20 of 50 pairs waited for a processor, left out"},
		{sample.Environment{}, 40, false, "40 of 50 pairs waited for a processor, all kept"},
	} {
		if got := interference(c.e, c.waited, 50, c.dropped); got != c.want {
			t.Errorf("%+v, %d waited: %q, want %q", c.e, c.waited, got, c.want)
		}
	}
}

func TestOutputIsBounded(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("no git")
	}
	if _, err := output(t.Context(), time.Minute, 3, ".", os.Environ(), "git", "--version"); err == nil {
		t.Error("more output than the limit was accepted")
	}
	var tl tail
	for range 3 {
		if n, err := tl.Write(bytes.Repeat([]byte("x\n"), outputMax/3)); n != outputMax/3*2 || err != nil {
			t.Fatal(n, err)
		}
	}
	if len(tl.b) > outputMax || tl.last(2) != "x\nx" {
		t.Errorf("tail of %d bytes, last lines %q", len(tl.b), tl.last(2))
	}
}

// A pattern is taken apart where package testing does it.
func TestLevelsOfAPattern(t *testing.T) {
	for pattern, want := range map[string][]string{
		"":                 {""},
		"A/b=1":            {"A", "b=1"},
		"A|B/c":            {"A", "B", "c"},
		"(A|B)/[/|]x/y":    {"(A|B)", "[/|]x", "y"},
		`A\/b`:             {`A\/b`},
		"]a/b":             {"]a", "b"},
		"^(?:a/b)$/^c[(]$": {"^(?:a/b)$", "^c[(]$"},
	} {
		if got := levels(pattern); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", pattern, got, want)
		}
		if err := CheckPattern(pattern); err != nil {
			t.Errorf("%q: %v", pattern, err)
		}
	}
	for _, pattern := range []string{"(", "a/(b", "[a", "a|*", `a\`} {
		if err := CheckPattern(pattern); err == nil {
			t.Errorf("%q was accepted", pattern)
		}
	}
}

// What an error quotes is bounded, and begins where the trouble does.
func TestLastWords(t *testing.T) {
	long := strings.Repeat("goroutine 1 [running]: main.f()\n", 200)
	for _, c := range []struct{ said, begins string }{
		{"noise\npanic: boom\n\n" + long, "panic: boom"},
		{"noise panic: no\nfatal error: stack overflow\n" + long, "fatal error: stack overflow"},
		{long + "the last line\n", ""},
		{"\xff\xfe only this\n", "? only this"},
		{"", ""},
	} {
		tl := new(tail)
		if _, err := tl.Write([]byte(c.said)); err != nil {
			t.Fatal(err)
		}
		got := tl.words()
		if len(got) > wordsMax || !strings.HasPrefix(got, c.begins) || c.begins == "" && c.said != "" && !strings.HasSuffix(got, "the last line") {
			t.Errorf("of %.30q: %d bytes, %.60q", c.said, len(got), got)
		}
	}
	tl := new(tail)
	if _, err := tl.Write([]byte("--- FAIL: BenchmarkA\n    a_test.go:3: one\n        two\nBenchmarkB 1 2 ns/op\n--- FAIL: BenchmarkAB\n    no\nFAIL\n")); err != nil {
		t.Fatal(err)
	}
	if got := tl.failure("BenchmarkA"); got != "it failed: a_test.go:3: one\n        two" {
		t.Errorf("failure %q", got)
	}
	if got := tl.failure("BenchmarkC"); !strings.Contains(got, "lost") {
		t.Errorf("failure %q", got)
	}
}
