package explain

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/pprof/profile"

	"github.com/portask/portask/ci/sample"
	"github.com/portask/portask/ci/verdict"
)

const (
	goMod = "module example.com/words\n\ngo 1.24\n"
	bench = `package words

import "testing"

var text = []byte("a record of the words in a text that is neither short nor long")

func BenchmarkWords(b *testing.B) {
	b.Run("size=62", func(b *testing.B) {
		for b.Loop() {
			sink += Count(text)
		}
	})
}

var sink int
`
	before = `package words

func Count(text []byte) (n int) {
	in := false
	for _, c := range text {
		if c == ' ' {
			in = false
		} else if !in {
			in = true
			n++
		}
	}
	return n + checksum(text)%1
}

//go:noinline
func checksum(text []byte) (s int) {
	for _, c := range text {
		s = s*31 + int(c)
	}
	return s
}
`
)

// after counts the checksum twice, and keeps it where it escapes.
var after = strings.Replace(strings.Replace(before, "return n + checksum(text)%1", "return n + *double(text)%1", 1), "//go:noinline\n",
	"//go:noinline\nfunc double(text []byte) *int {\n\ts := checksum(text) + checksum(text)\n\treturn &s\n}\n\n//go:noinline\n", 1)

func module(t *testing.T, code string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"go.mod": goMod, "words.go": code, "words_test.go": bench} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// A checksum that runs twice and a value that escapes are named: by the
// instructions, by the allocations, by the compiler.
func TestNamesWhatChanged(t *testing.T) {
	t.Setenv("GOWORK", "off")
	t.Setenv("GOFLAGS", "-mod=mod")
	keep := t.TempDir()
	x, err := Explain(t.Context(), Options{
		Base: module(t, before), Head: module(t, after), Bench: sample.Bench{Module: ".", Package: ".", Name: "Words/size=62"},
		OneCPU: true, Turns: 1, Seed: 1, Keep: keep, Progress: func(s string) { t.Log(s) },
	})
	if err != nil {
		t.Fatal(err)
	}
	notes := strings.Join(x.Notes, "\n")
	t.Log(notes)
	find := func(kind, name string) *verdict.Function {
		for i := range x.Top {
			if x.Top[i].Kind == kind && strings.HasSuffix(x.Top[i].Name, name) {
				return &x.Top[i]
			}
		}
		return nil
	}
	if f := find("alloc", "words.double"); f == nil || f.Head < 4 || f.Head > 20 || f.Base > 0.5 {
		t.Errorf("the allocation of 8 bytes an operation is %+v, of %+v", f, x.Top)
	}
	for _, want := range []string{"new: words.go: moved to heap: s", "allocations: 0.", "CPU profile"} {
		if !strings.Contains(notes, want) {
			t.Errorf("no note %q", want)
		}
	}
	for _, name := range []string{"base.cpu", "head.cpu", "diff.cpu", "base.alloc", "head.alloc"} {
		p, err := read(filepath.Join(keep, name+".pb.gz"))
		if err != nil || p.CheckValid() != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := exec.LookPath("valgrind"); err != nil {
		t.Log("instructions are not tested: valgrind is not installed")
		return
	}
	f := find("instructions", "words.checksum")
	if f == nil || f.Head < 1.95*f.Base || f.Head > 2.05*f.Base {
		t.Errorf("the checksum that runs twice is %+v, of %+v; notes %q", f, x.Top, x.Notes)
	}
}

// A head many times slower than its base does not make the turns as long.
func TestSlowHeadGetsFewerIterations(t *testing.T) {
	t.Setenv("GOWORK", "off")
	t.Setenv("GOFLAGS", "-mod=mod")
	slow := strings.Replace(before, "return n + checksum(text)%1", "for range 2000 {\n\t\tn += checksum(text) % 1\n\t}\n\treturn n", 1)
	var n [2]int
	for i, head := range []string{before, slow} {
		_, err := explain(t.Context(), Options{Base: module(t, before), Head: module(t, head), Bench: sample.Bench{Module: ".", Package: ".", Name: "Words/size=62"}, OneCPU: true},
			func(r *runner, _ *Explanation) error { n[i] = r.n; return nil })
		if err != nil {
			t.Fatal(err)
		}
	}
	if n[1] > n[0]/10 {
		t.Errorf("%d iterations, of which the head takes 1000 times as long as the base, which alone gets %d", n[1], n[0])
	}
}

func TestErrorsNameTheSide(t *testing.T) {
	t.Setenv("GOWORK", "off")
	bad := module(t, "package words\n\nfunc Count() {\n")
	_, err := Explain(t.Context(), Options{Base: module(t, before), Head: bad, Bench: sample.Bench{Module: ".", Package: ".", Name: "Words"}})
	if err == nil || !strings.HasPrefix(err.Error(), "head: ") {
		t.Errorf("%v", err)
	}
}

// Differences within the noise of counting are not told.
func TestMovedKnowsNoise(t *testing.T) {
	base := map[string]int64{"steady": 1000, "noisy": 100, "grew": 400, "small": 3, "shrank": 400}
	head := map[string]int64{"steady": 1040, "noisy": 120, "grew": 520, "small": 9, "shrank": 250, "new": 60}
	got := moved("cpu", base, head, 1903, 2, 2, sigmasMin, shareMin, 8)
	var names []string
	for _, f := range got {
		names = append(names, f.Name)
	}
	// small grew threefold, by 1.7 sigma; noisy by 1.3; steady by 0.9.
	if want := []string{"grew", "new", "shrank"}; !reflect.DeepEqual(names, want) {
		t.Errorf("%v, want %v", names, want)
	}
	if got[0].Base != 800 || got[0].Head != 1040 || got[0].Sigmas < 3.9 || got[0].Sigmas > 4 {
		t.Errorf("%+v", got[0])
	}
	if got = moved("cpu", base, head, 1903, 2, 2, sigmasMin, shareMin, 2); len(got) != 2 || got[0].Name != "grew" {
		t.Errorf("the two most: %+v", got)
	}
}

// A sample belongs to the innermost function of the repository's modules.
func TestResponsible(t *testing.T) {
	r := &runner{own: []string{"example.com/words"}}
	frame := func(names ...string) *profile.Location {
		l := &profile.Location{}
		for _, n := range names {
			l.Line = append(l.Line, profile.Line{Function: &profile.Function{Name: n}})
		}
		return l
	}
	s := &profile.Sample{Location: []*profile.Location{frame("runtime.memmove"), frame("bytes.Clone", "example.com/words/sub.Copy"), frame("example.com/words.Run")}}
	if got := r.responsible(s); got != "example.com/words/sub.Copy" {
		t.Error(got)
	}
	s = &profile.Sample{Location: []*profile.Location{frame("runtime.scanobject"), frame("example.com/wordsmith.F")}}
	if got := r.responsible(s); got != "runtime.scanobject" {
		t.Error(got)
	}
	if got := r.responsible(&profile.Sample{}); got != "?" {
		t.Error(got)
	}
}

func TestCallgrindFormat(t *testing.T) {
	const text = `# callgrind format
version: 1
events: Ir
summary: 999

ob=/bin/x
fl=a.go
fn=example.com/a.F
16 100
17 20
cfi=b.go
cfn=runtime.g
calls=3 40
17 900
fi=inlined.go
+3 5

fl=b.go
fn=runtime.g
40 900
fn=example.com/a.F
18 1

totals: 1026
`
	got, err := parseCallgrind(strings.NewReader(text))
	if want := map[string]int64{"example.com/a.F": 126, "runtime.g": 900}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	if _, err := parseCallgrind(strings.NewReader("fn=a\n1 x\n")); err == nil {
		t.Error("a cost that is no number passed")
	}
}

func FuzzCallgrind(f *testing.F) {
	f.Add("fn=a\n1 2\ncalls=1 1\n1 5\n* 3\n")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := parseCallgrind(strings.NewReader(s))
		for name, n := range got {
			if err == nil && n < 0 && len(s) < 1000 {
				t.Logf("%q: %d", name, n) // sums may overflow; they must not panic
			}
		}
	})
}

func TestDiagnostics(t *testing.T) {
	got := diagnostics([]byte("# example.com/words\n./words.go:3:6: can inline Count\nwords.go:9:2: moved to heap: s\n./words.go:12:14: text does not escape\nsub/x.go:1:1: make([]byte, n) escapes to heap\nwords.go:10:2: moved to heap: s\n"))
	want := map[string]int{"words.go: can inline Count": 1, "words.go: moved to heap: s": 2, "sub/x.go: make([]byte, n) escapes to heap": 1}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
