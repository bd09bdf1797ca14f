package report

import (
	"bytes"
	"encoding/xml"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/portask/portask/ci/arch"
	"github.com/portask/portask/ci/sample"
	"github.com/portask/portask/ci/verdict"
)

var (
	rewrite = flag.Bool("rewrite", false, "write testdata anew")
	keep    = flag.String("keep", "", "directory that receives the pages, to look at")
)

func TestGoldenTexts(t *testing.T) {
	for _, d := range []verdict.Decision{verdict.Pass, verdict.Fail, verdict.Inconclusive} {
		v := example(d).Verdict
		if v.Decision != d {
			t.Fatalf("the example is %s, want %s", v.Decision, d)
		}
		for _, form := range []struct {
			ext   string
			write func(io.Writer, *verdict.Verdict) error
		}{{"txt", Text}, {"md", Markdown}} {
			var b bytes.Buffer
			if err := form.write(&b, v); err != nil {
				t.Fatal(err)
			}
			name := filepath.Join("testdata", strings.ToLower(string(d))+"."+form.ext)
			if *rewrite {
				if err := os.WriteFile(name, b.Bytes(), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(b.Bytes(), want) {
				t.Errorf("%s:\n%s\nwant\n%s", name, b.String(), want)
			}
		}
	}
}

// The names of what is open are the last lines, and nothing follows them.
func TestOpenNamesComeLast(t *testing.T) {
	var b bytes.Buffer
	v := example(verdict.Inconclusive).Verdict
	if err := Text(&b, v); err != nil {
		t.Fatal(err)
	}
	if want := "INCONCLUSIVE:\n" + strings.Join(v.Open(), "\n") + "\n"; !strings.HasSuffix(b.String(), want) {
		t.Errorf("ends with %q, want %q", b.String()[max(0, b.Len()-200):], want)
	}
}

func TestTextIsOneScreen(t *testing.T) {
	v := example(verdict.Pass).Verdict
	for range 5 {
		v.Entries = append(v.Entries, v.Entries...)
	}
	var b bytes.Buffer
	if err := Text(&b, v); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(b.String(), "\n"); n > 50 {
		t.Errorf("%d lines", n)
	}
}

// The page is well-formed, fetches nothing, has no script, and shows what it
// must for each decision; text of others does not become markup.
func TestPage(t *testing.T) {
	for _, c := range []struct {
		d    verdict.Decision
		want []string
	}{
		{verdict.Pass, []string{"PASS", "Effects", "controls: the same program", "NOT MET", "Objectives", "Counters", "History", "benchstat says"}},
		{verdict.Fail, []string{"FAIL", "Why", "mallocgc", "no longer inlined", "2 → 3", "class=\"row fail\""}},
		{verdict.Inconclusive, []string{"INCONCLUSIVE", "Open:", "class=\"row open\""}},
	} {
		d := example(c.d)
		d.Curves = curves(d.Series)
		var b bytes.Buffer
		if err := HTML(&b, d); err != nil {
			t.Fatal(err)
		}
		s := b.String()
		if *keep != "" {
			if err := os.WriteFile(filepath.Join(*keep, strings.ToLower(string(c.d))+".html"), b.Bytes(), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		for _, w := range c.want {
			if !strings.Contains(s, w) {
				t.Errorf("%s: the page has no %q", c.d, w)
			}
		}
		for _, bad := range []string{"<script", "http://", "https://", "<b>encode</b>", "NaN", "Inf", "ZgotmplZ", "url(http"} {
			if strings.Contains(s, bad) {
				t.Errorf("%s: the page has %q", c.d, bad)
			}
		}
		for _, svg := range strings.SplitAfter(s, "</svg>") {
			at := strings.Index(svg, "<svg")
			if at < 0 {
				continue
			}
			dec := xml.NewDecoder(strings.NewReader(svg[at:]))
			for {
				if _, err := dec.Token(); err == io.EOF {
					break
				} else if err != nil {
					t.Fatalf("%s: drawing is not well-formed: %v\n%.300s", c.d, err, svg[at:])
				}
			}
		}
		if n := len(s); n > 1<<20 {
			t.Errorf("%s: %d bytes", c.d, n)
		}
	}
}

// A verdict without anything is a page too.
func TestEmptyVerdict(t *testing.T) {
	v := &verdict.Verdict{Decision: verdict.Invalid, Reasons: []string{"nothing could be measured"}}
	for _, write := range []func(io.Writer, *verdict.Verdict) error{Text, Markdown, func(w io.Writer, v *verdict.Verdict) error { return HTML(w, &Document{Verdict: v}) }} {
		var b bytes.Buffer
		if err := write(&b, v); err != nil || !strings.Contains(b.String(), "nothing could be measured") {
			t.Errorf("%v\n%s", err, b.String())
		}
	}
}

func TestWriteAndReadBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "report")
	d := example(verdict.Fail)
	if err := Write(t.Context(), dir, d); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{VerdictJSON, VerdictMD, VerdictText, BenchstatTxt, PageHTML, CurvesJSON} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	got, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.Verdict, d.Verdict) || !reflect.DeepEqual(got.Curves, d.Curves) || got.Benchstat != d.Benchstat {
		t.Error("what was read is not what was written")
	}
	var a, b bytes.Buffer
	got.History = d.History
	if err := HTML(&a, d); err != nil {
		t.Fatal(err)
	}
	if err := HTML(&b, got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("the page made again differs")
	}
}

func TestCurves(t *testing.T) {
	s := sample.Series{Metric: sample.Wall}
	var r sample.Round
	for i := range 100 {
		r.Pairs = append(r.Pairs, sample.Pair{Base: sample.Slice{N: 2, Ns: int64(2 * (i + 1))}, Head: sample.Slice{N: 2, Ns: int64(4 * (i + 1))}})
	}
	s.Rounds = []sample.Round{r}
	got := curves([]sample.Series{s, {}})
	if len(got) != 1 || got[0].Unit != "ns/op" {
		t.Fatalf("%+v", got)
	}
	for i, q := range got[0].Q {
		want := math.Max(1, math.Ceil(100*q-1e-9))
		if got[0].Base[i] != want || got[0].Head[i] != 2*want {
			t.Errorf("quantile %v: %v and %v, want %v and twice that", q, got[0].Base[i], got[0].Head[i], want)
		}
	}
	if top := got[0].Q[len(got[0].Q)-1]; top != 0.99 {
		t.Errorf("100 slices tell quantiles up to %v, want 0.99", top)
	}
}

func TestMiddleKeepsBothEnds(t *testing.T) {
	s := middle("broker/compression.Compress/algorithm=zstd/size=64KiB", 30)
	if len([]rune(s)) != 30 || !strings.HasPrefix(s, "broker/comp") || !strings.HasSuffix(s, "size=64KiB") {
		t.Errorf("%q", s)
	}
}

// The stock tool puts both sides into one table, whatever else differs between
// rounds.
func TestBenchstatSeesBothSidesAsOneTable(t *testing.T) {
	var b strings.Builder
	b.WriteString("Unit cpu-ns/op better=lower\ngoos: linux\ncpu: CPU X\npkg: ./wire\n")
	for round := range 8 {
		for _, role := range []string{"base", "head"} {
			v := 100 + round%3
			if role == "head" {
				v = 2 * v
			}
			fmt.Fprintf(&b, "role: %s\ncommit: %s\nround: %d\nlayout: %d\nload1: 1.%d\nBenchmarkEncode-1 1000 %d ns/op %d cpu-ns/op\n", role, role, round, 3*round, round, v, v)
		}
	}
	raw := filepath.Join(t.TempDir(), "raw.txt")
	if err := os.WriteFile(raw, []byte(b.String()), 0o666); err != nil {
		t.Fatal(err)
	}
	args, err := columns(raw)
	if want := []string{"-col", "role@(base head)", "-ignore", "commit,layout,load1,round", raw}; err != nil || !slices.Equal(args, want) {
		t.Fatalf("%q, %v; want %q", args, err, want)
	}
	root, err := arch.Root()
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(root)
	if out := Benchstat(t.Context(), raw); !strings.Contains(out, "+100.00%") || !strings.Contains(out, "p=0.000 n=8") || strings.Contains(out, filepath.Dir(raw)) {
		t.Errorf("%s", out)
	}
	if out := Benchstat(t.Context(), raw+"x"); !strings.HasPrefix(out, "benchstat: ") {
		t.Errorf("no file: %s", out)
	}
}
