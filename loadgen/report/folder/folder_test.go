package folder

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portask/portask/loadgen/report/reporttest"
	"github.com/portask/portask/loadgen/search"
)

var all = []string{Result, Log, Intervals, Bench, Page, Summary, Scenario}

func made(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "run")
	f, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	d := reporttest.Document()
	for i := range d.Measured.Series {
		f.Interval(d.Measured.Series[i], reporttest.Histograms(i))
	}
	if err := f.Finish(d); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestFolder(t *testing.T) {
	dir := made(t)
	files := map[string][]byte{}
	for _, name := range all {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || len(b) == 0 {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
		files[name] = b
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != len(all) {
		t.Errorf("%d files, %v", len(entries), err)
	}
	if _, err := Create(dir); err == nil || !strings.Contains(err.Error(), "not overwritten") {
		t.Errorf("made again: %v", err)
	}

	// From result.json and result.hlog the others come out again, byte for byte.
	d, in, err := Open(dir)
	if err != nil || in != dir {
		t.Fatal(in, err)
	}
	if d2, in2, err := Open(filepath.Join(dir, Result)); err != nil || in2 != dir || d2.RunID != d.RunID {
		t.Errorf("by the file: %q, %v", in2, err)
	}
	out := filepath.Join(t.TempDir(), "again")
	if err := RenderFrom(dir, out, d); err != nil {
		t.Fatal(err)
	}
	for _, name := range all[2:] {
		b, err := os.ReadFile(filepath.Join(out, name))
		if err != nil || !bytes.Equal(b, files[name]) {
			t.Errorf("%s is another: %d bytes of %d, %v", name, len(b), len(files[name]), err)
		}
	}
	if !bytes.Contains(files[Page], []byte("Where messages fell")) || !bytes.Contains(files[Bench], []byte("role: head\nround: 7\n")) {
		t.Error("the log or the labels are not in the reports")
	}

	// Without the log there is no heat map, and everything else.
	if err := os.Remove(filepath.Join(dir, Log)); err != nil {
		t.Fatal(err)
	}
	if err := Render(dir, d); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(filepath.Join(dir, Page)); bytes.Contains(b, []byte("Where messages fell")) {
		t.Error("a heat map of nothing")
	}
}

func TestAbandon(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	f, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	f.Abandon()
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("left behind: %v", err)
	}
	if _, _, err := Open(dir); err == nil {
		t.Error("a result of nothing")
	}
}

func TestBrokenLogIsAnError(t *testing.T) {
	dir := made(t)
	if err := os.WriteFile(filepath.Join(dir, Log), []byte("Tag=e2e,0.0,1.0,2.0,HISTFnonsense\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	d, _, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := Render(dir, d); err == nil || !strings.Contains(err.Error(), Log) {
		t.Errorf("%v", err)
	}
}

func TestSearch(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "search")
	r := &search.Result{Schema: search.Schema, Scenario: "kv", Outcome: search.Found, Value: 1000, Points: []search.Point{{Offered: 1000, Verdict: search.Pass}}}
	if err := FinishSearch(dir, r, reporttest.Document().Environment); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(dir, Page))
	if err != nil {
		t.Fatal(err)
	}
	if err := FinishSearch(dir, r, nil); err == nil {
		t.Error("overwritten")
	}
	out := t.TempDir()
	got, found, err := RenderSearch(dir, out)
	if err != nil || !found || got.Value != 1000 {
		t.Fatalf("%+v, %v, %v", got, found, err)
	}
	if again, err := os.ReadFile(filepath.Join(out, Page)); err != nil || !bytes.Equal(again, page) {
		t.Errorf("another page: %v", err)
	}
	if _, found, err := RenderSearch(t.TempDir(), out); found || err != nil {
		t.Errorf("%v, %v", found, err)
	}
	for _, text := range []string{"{", `{"schema": 9}`} {
		if err := os.WriteFile(filepath.Join(dir, Search), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		if _, found, err := RenderSearch(dir, out); !found || err == nil {
			t.Errorf("%s: %v, %v", text, found, err)
		}
	}
}
