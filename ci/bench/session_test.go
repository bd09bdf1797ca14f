package bench

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portask/portask/ci/sample"
)

// plan of a test: small slices, and patience enough for a machine that does
// other things.
func plan(t *testing.T, dir string) Plan {
	return Plan{
		Repo: dir, Base: "HEAD~1", Head: "HEAD", Seed: 7, Slice: time.Millisecond, Pairs: 6, Layouts: 2,
		Controls: -1, Stuck: 3 * time.Minute, Cache: t.TempDir(),
	}
}

// prepare opens a session, and checks at the end that nothing is left of it.
func prepare(t *testing.T, p Plan) *Session {
	t.Helper()
	s, err := Prepare(t.Context(), p, func(line string) { t.Log(line) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(s.dir); !os.IsNotExist(err) {
			t.Errorf("directory of the session after Close: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
	})
	return s
}

func find(t *testing.T, s *Session, name string) *Subject {
	t.Helper()
	for _, b := range s.Benches() {
		if b.Bench.String() == name {
			return b
		}
	}
	t.Fatalf("no subject %s", name)
	return nil
}

// Two commits of a module that has no code for the laboratory.
func TestTwoCommits(t *testing.T) {
	dir := repo(t, small, edited())
	p := plan(t, dir)
	p.Controls = 1
	s := prepare(t, p)

	type state struct{ control, identical, isNew, changed, touched bool }
	want := map[string]state{
		"perflab-control.Arithmetic": {control: true},
		"./work.Counted":             {changed: true, touched: true},
		"./work.Loop/size=8":         {touched: true},
		"./work.Loop/size=512":       {touched: true},
		"./work.Timer":               {touched: true},
		"./work.Extern":              {touched: true},
		"./work.Added":               {isNew: true, touched: true},
		"./still.Still":              {identical: true},
	}
	for _, b := range s.Benches() {
		name := b.Bench.String()
		w, ok := want[name]
		if !ok {
			t.Errorf("unexpected subject %s", name)
			continue
		}
		delete(want, name)
		if got := (state{b.Control, b.Identical, b.New, b.Changed, b.Touched}); got != w {
			t.Errorf("%s: control, identical, new, changed, touched = %v, want %v", name, got, w)
		}
	}
	for name := range want {
		t.Errorf("no subject %s", name)
	}
	if bs := s.Benches(); !bs[0].Control || bs[len(bs)-1].Risk() != 2 {
		t.Errorf("controls are not first or what is identical not last: %v", bs)
	}
	// The package that does not compile on the base is a problem of its own.
	if ps := s.Problems(); len(ps) != 1 || ps[0].Side != sample.Base || ps[0].Package != "./broken" || !strings.Contains(ps[0].Err.Error(), "broken.go") {
		t.Errorf("problems %v, want one of ./broken on the base", ps)
	}
	if s.Revision(sample.Base).Commit != git(t, dir, "rev-parse", "HEAD~1") || s.Revision(sample.Head).Commit != git(t, dir, "rev-parse", "HEAD") {
		t.Errorf("revisions %v", s.revs)
	}

	for _, c := range []struct {
		name       string
		base, head [2]int64 // allocations and bytes of an iteration
	}{
		{"./work.Counted", [2]int64{1, 64}, [2]int64{1, 80}},
		{"./work.Loop/size=8", [2]int64{1, 8}, [2]int64{2, 16}},
		{"./work.Timer", [2]int64{}, [2]int64{}},
		{"./work.Extern", [2]int64{1, 8}, [2]int64{2, 16}},
		{"./still.Still", [2]int64{}, [2]int64{}},
		{"perflab-control.Arithmetic", [2]int64{}, [2]int64{}},
	} {
		b := find(t, s, c.name)
		r, err := s.Round(t.Context(), b, sample.Screen)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(r.Pairs) + r.Dropped; n != p.Pairs {
			t.Errorf("%s: %d pairs, want %d", c.name, n, p.Pairs)
		}
		first := 0
		for _, pair := range r.Pairs {
			if pair.HeadFirst {
				first++
			}
			for side, got := range []sample.Slice{pair.Base, pair.Head} {
				want := c.base
				if side == 1 {
					want = c.head
				}
				n := int64(got.N)
				if got.N != b.N() || n < 1 || got.Ns <= 0 || rounded(got.Allocs, n) != want[0] || rounded(got.Bytes, n) != want[1] {
					t.Errorf("%s, %v: %+v, want %d iterations with %d allocations of %d bytes each", c.name, sample.Side(side), got, b.N(), want[0], want[1])
				}
			}
		}
		if r.Dropped == 0 && first != p.Pairs/2 {
			t.Errorf("%s: the head went first in %d of %d pairs", c.name, first, p.Pairs)
		}
		if r.Env.Seconds <= 0 {
			t.Errorf("%s: no environment: %+v", c.name, r.Env)
		}
		if one := b.Series(); one.N != b.N() || one.Bench != b.Bench {
			t.Errorf("series %+v", one)
		}
	}
	if _, err := s.Round(t.Context(), find(t, s, "./work.Added"), sample.Screen); err == nil {
		t.Error("a benchmark that the base does not have was measured")
	}
	if out := git(t, dir, "status", "--porcelain") + git(t, dir, "stash", "list"); out != "" {
		t.Errorf("the repository is not as it was: %s", out)
	}
	if out := git(t, dir, "worktree", "list"); strings.Count(out, "\n") != 0 {
		t.Errorf("work trees left: %s", out)
	}
}

// rounded is a/n. A slice has an allocation more or less that is the runtime's.
func rounded(a, n int64) int64 { return (a + n/2) / n }

// What hangs is killed, with what it started; what fails says so; and the
// session goes on.
func TestChildrenThatMisbehave(t *testing.T) {
	dir := repo(t, files{
		"go.mod": "module example.com/bad\n\ngo 1.22\n",
		"bad_test.go": `package bad

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

func BenchmarkHang(b *testing.B) {
	if b.N > 1 {
		cmd := exec.Command("sleep", "100000")
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		time.Sleep(100000 * time.Second)
	}
}

func BenchmarkFail(b *testing.B) {
	if b.N > 1 {
		b.Fatal("this fails on purpose")
	}
}

func BenchmarkExit(b *testing.B) {
	if b.N > 1 {
		os.Exit(9)
	}
}

func BenchmarkPanic(b *testing.B) {
	if b.N > 1 {
		panic("a panic on purpose")
	}
}

func BenchmarkSlow(b *testing.B) { time.Sleep(time.Duration(b.N) * 500 * time.Millisecond) }

func BenchmarkGood(b *testing.B) {
	for i := 0; i < b.N; i++ {
		time.Sleep(time.Microsecond)
	}
}
`}, files{"other": "x"})
	p := plan(t, dir)
	p.RoundMax = time.Second // a pair may take 400 ms, which Good's milliseconds stay below on a busy machine
	p.Metric = sample.Wall
	s := prepare(t, p)
	for name, part := range map[string]string{"Fail": "this fails on purpose", "Exit": "exit status 9", "Panic": "panic: a panic on purpose", "Slow": "more than"} {
		_, err := s.Round(t.Context(), find(t, s, ".."+name), sample.Screen)
		if err == nil || !strings.Contains(err.Error(), part) || !strings.Contains(err.Error(), "."+name+": ") || name != "Slow" && !strings.Contains(err.Error(), "base: ") {
			t.Errorf("%s: error %v, want name, side and %q", name, err, part)
		}
	}
	s.plan.Stuck = time.Second
	if _, err := s.Round(t.Context(), find(t, s, "..Hang"), sample.Screen); !errors.Is(err, ErrStuck) {
		t.Errorf("Hang: error %v, want ErrStuck", err)
	}
	s.plan.Stuck = p.Stuck
	// The context ends while the child hangs.
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := s.Round(ctx, find(t, s, "..Hang"), sample.Screen)
		done <- err
	}()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Hang, canceled: error %v", err)
	}
	if len(s.running) != 0 {
		t.Errorf("%d children after errors", len(s.running))
	}
	r, err := s.Round(t.Context(), find(t, s, "..Good"), sample.Screen)
	if err != nil || len(r.Pairs) == 0 {
		t.Errorf("Good after all that: %d pairs, %v", len(r.Pairs), err)
	}
}

// A benchmark whose first iteration ends the program is a problem with its own
// name and its last words, on whichever side; the package's others are compared.
func TestBrokenBenchmarksLeaveTheOthers(t *testing.T) {
	const source = `package some

import (
	"log"
	"os"
	"testing"
)

var broken = false

func deep(n int) {
	if n == 0 {
		panic("the panic's words")
	}
	deep(n - 1)
}

func BenchmarkPanic(b *testing.B) {
	if broken {
		deep(40)
	}
}

func BenchmarkLog(b *testing.B) {
	if broken {
		log.Fatal("the log's words")
	}
}

func BenchmarkExit(b *testing.B) {
	if broken {
		println("the exit's words")
		os.Exit(0)
	}
}

func BenchmarkFatal(b *testing.B) {
	if broken {
		b.Fatal("the failure's words")
	}
}

func BenchmarkParent(b *testing.B) {
	b.Run("one", func(b *testing.B) {})
	b.Run("two", func(b *testing.B) {
		if broken {
			panic("the child's words")
		}
	})
}

func BenchmarkZ(b *testing.B) {}
`
	dir := repo(t, files{"go.mod": "module example.com/some\n\ngo 1.22\n", "some_test.go": source},
		files{"some_test.go": strings.Replace(source, "broken = false", "broken = true", 1)})
	for side, p := range []Plan{{Base: "HEAD", Head: "HEAD~1"}, {Base: "HEAD~1", Head: "HEAD"}} {
		all := plan(t, dir)
		all.Base, all.Head = p.Base, p.Head
		s := prepare(t, all)
		var names []string
		for _, b := range s.Benches() {
			names = append(names, b.Bench.Name)
			if b.New {
				t.Errorf("%s is called new", b.Bench)
			}
		}
		if want := []string{"Parent/one", "Z"}; !slices.Equal(names, want) {
			t.Errorf("broken on the %s: subjects %q, want %q", sample.Side(side), names, want)
		}
		words := map[string]string{"BenchmarkPanic": "panic: the panic's words", "BenchmarkLog": "the log's words", "BenchmarkExit": "the exit's words",
			"BenchmarkFatal": "the failure's words", "BenchmarkParent/two": "panic: the child's words"}
		for _, p := range s.Problems() {
			want, ok := words[p.Bench]
			delete(words, p.Bench)
			if text := p.String(); !ok || p.Side != sample.Side(side) || !strings.Contains(text, want) ||
				!strings.Contains(text, p.Side.String()+" .."+strings.TrimPrefix(p.Bench, "Benchmark")+": ") || len(text) > wordsMax+200 {
				t.Errorf("problem %q, want side, name and %q", text, want)
			}
		}
		for name := range words {
			t.Errorf("no problem of %s on the %s", name, sample.Side(side))
		}
	}
}

// The head may be the files as they lie there, and may be edited in the copy.
func TestWorkingTreeAndEdits(t *testing.T) {
	dir := repo(t, small)
	files{"work/work.go": edited()["work/work.go"], "untracked/x_test.go": "package x\n\nimport \"testing\"\n\nfunc BenchmarkX(b *testing.B) {}\n"}.write(t, dir)
	p := plan(t, dir)
	p.Base, p.Head, p.Match = "HEAD", WorkingTree, "Extern|X|Still"
	p.HeadEdits = map[string][]byte{"still/still_test.go": bytes.ReplaceAll([]byte(small["still/still_test.go"]), []byte("{\n\t}"), []byte("{\n\t\t_ = i\n\t}"))}
	s := prepare(t, p)
	if !s.Revision(sample.Head).Dirty {
		t.Error("a working tree with changes is not called dirty")
	}
	if b := find(t, s, "./work.Extern"); b.Identical || !b.Touched || b.Changed {
		t.Errorf("%+v, want one whose package was touched", b)
	}
	if b := find(t, s, "./untracked.X"); !b.New {
		t.Errorf("%+v, want new", b)
	}
	if b := find(t, s, "./still.Still"); !b.Changed {
		t.Errorf("%+v, want changed by the edit", b)
	}
	b, err := os.ReadFile(filepath.Join(dir, "still/still_test.go"))
	if err != nil || string(b) != small["still/still_test.go"] {
		t.Errorf("the edit reached the repository: %v", err)
	}
}

// A program is linked once for a layout, kept, and found by another session.
func TestCacheOfPrograms(t *testing.T) {
	dir := repo(t, small, files{"README": "changed\n"})
	p := plan(t, dir)
	p.Match = "Still"
	names := func() (out []string) {
		entries, err := os.ReadDir(p.Cache)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			out = append(out, e.Name())
		}
		return out
	}
	for range 2 {
		s := prepare(t, p)
		for range 2 * p.Layouts {
			if _, err := s.Round(t.Context(), find(t, s, "./still.Still"), sample.Screen); err != nil {
				t.Fatal(err)
			}
		}
		// Both sides are the same program, so they share the second layout; the
		// first is linked by every session to know the program.
		if got := names(); len(got) != p.Layouts-1 {
			t.Errorf("cache holds %v, want %d", got, p.Layouts-1)
		}
	}
	for _, name := range names() {
		old := time.Now().Add(-time.Hour)
		if err := os.Chtimes(filepath.Join(p.Cache, name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(p.Cache, "young"), []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	prune(p.Cache, 5)
	if got := names(); len(got) != 1 || got[0] != "young" {
		t.Errorf("after pruning: %v, want the one that was used last", got)
	}
}

func TestPrepareRefuses(t *testing.T) {
	dir := repo(t, small)
	says := map[string]string{"nothing matches": `"NoSuchBenchmark"`, "pattern": "a**", "unfinished pattern": `"x/("`}
	for name, change := range map[string]func(*Plan){
		"no base":          func(p *Plan) { p.Base = "" },
		"an option":        func(p *Plan) { p.Base = "--all" },
		"no such revision": func(p *Plan) { p.Base = "nonsense" },
		"no repository":    func(p *Plan) { p.Repo = t.TempDir() },
		"pairs":            func(p *Plan) { p.Pairs = 1 },
		"layouts":          func(p *Plan) { p.Layouts = 129 },
		"slice":            func(p *Plan) { p.Slice = time.Minute },
		"own file outside": func(p *Plan) { p.Own = []string{"../x"} },
		"all is own":       func(p *Plan) { p.Own = []string{"."} },
		"edit outside":     func(p *Plan) { p.HeadEdits = map[string][]byte{"../x": nil} },
		"pattern":          func(p *Plan) { p.Match = "a**" },
		// Brackets were not looked into, and the programs' refusal was an empty table.
		"unfinished pattern": func(p *Plan) { p.Match = "x/(" },
		"nothing matches":    func(p *Plan) { p.Match = "NoSuchBenchmark" },
	} {
		temp := t.TempDir()
		t.Setenv("TMPDIR", temp)
		p := plan(t, dir)
		p.Base = "HEAD"
		change(&p)
		if s, err := Prepare(t.Context(), p, nil); err == nil {
			t.Errorf("%s: accepted", name)
			_ = s.Close()
		} else if !strings.Contains(err.Error(), says[name]) {
			t.Errorf("%s: error %q does not name %q", name, err, says[name])
		}
		if left, _ := os.ReadDir(temp); len(left) != 0 {
			t.Errorf("%s: left %v", name, left)
		}
	}
}

// Without a home the go command builds nothing: that was an empty table.
func TestWithoutAHome(t *testing.T) {
	dir := repo(t, small)
	for _, name := range []string{"HOME", "XDG_CACHE_HOME", "GOCACHE", "GOMODCACHE", "GOPATH"} {
		t.Setenv(name, "")
	}
	p := plan(t, dir)
	p.Base, p.Cache = "HEAD", ""
	var said []string
	s, err := Prepare(t.Context(), p, func(line string) { said = append(said, line) })
	if err == nil {
		_ = s.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "set HOME") || !strings.Contains(err.Error(), "--cache") {
		t.Errorf("error %v, want one that names HOME and --cache", err)
	}
	if !strings.Contains(strings.Join(said, "\n"), "no cache of programs") {
		t.Errorf("that nothing is cached is not said: %q", said)
	}
}

// What a gate writes into a repository that does not ignore it is no change of
// the candidate; whatever else lies beside it is.
func TestOwnFilesAreNoDirt(t *testing.T) {
	dir := repo(t, small, files{"benchdata/open.jsonl": "1\n"})
	own := []string{".cache/gate", "benchdata/open.jsonl"}
	dirty := func(from string) bool {
		t.Helper()
		r, err := openRepository(t.Context(), filepath.Join(dir, from))
		if err != nil {
			t.Fatal(err)
		}
		rev, err := r.resolve(t.Context(), WorkingTree, own)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Dirty(t.Context(), filepath.Join(dir, from), own)
		if err != nil || got != rev.Dirty {
			t.Fatalf("%v, %v; the revision says %v", got, err, rev.Dirty)
		}
		return got
	}
	files{".cache/gate/raw.txt": "x", ".cache/gate/profiles/a": "x", "benchdata/open.jsonl": "1\n2\n"}.write(t, dir)
	for _, from := range []string{".", "work"} {
		if dirty(from) {
			t.Errorf("from %s the gate's own files are dirt: %s", from, git(t, dir, "status", "--porcelain"))
		}
	}
	for _, other := range []string{".cache/other", "benchdata/other", "work/work.go"} {
		files{other: "x"}.write(t, dir)
		if !dirty(".") || !dirty("work") {
			t.Errorf("%s is not noticed beside the gate's own files", other)
		}
		if other != "work/work.go" {
			if err := os.Remove(filepath.Join(dir, other)); err != nil {
				t.Fatal(err)
			}
		}
	}
}
