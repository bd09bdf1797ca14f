package corpus

import (
	"bytes"
	"compress/flate"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestGenerateIsDeterministicAndExact(t *testing.T) {
	for _, kind := range append(Kinds, "entropy:0.5") {
		for _, n := range []int{1, 1000, 70_001} {
			a, err := Generate(kind, n, 3)
			if err != nil {
				t.Fatal(err)
			}
			b, _ := Generate(kind, n, 3)
			if len(a.Bytes) != n || !bytes.Equal(a.Bytes, b.Bytes) {
				t.Errorf("%s: %d bytes, want %d, the same twice", kind, len(a.Bytes), n)
			}
		}
		a, _ := Generate(kind, 5000, 3)
		if b, _ := Generate(kind, 5000, 4); bytes.Equal(a.Bytes, b.Bytes) != (kind == "zeros") {
			t.Errorf("%s: another seed, equal = %v", kind, bytes.Equal(a.Bytes, b.Bytes))
		}
	}
}

func ratio(t *testing.T, b []byte) float64 {
	t.Helper()
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, flate.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(b)
	w.Close()
	return float64(out.Len()) / float64(len(b))
}

// The kinds differ in what matters to a broker: how far they compress.
func TestGenerateCompressibility(t *testing.T) {
	for kind, want := range map[string][2]float64{
		"json": {0.15, 0.5}, "html": {0.1, 0.5}, "text": {0.25, 0.6}, "logs": {0.15, 0.5}, "metrics": {0.03, 0.3}, "csv": {0.2, 0.7},
		"binary": {0.5, 0.95}, "protobuf": {0.4, 0.9}, "zeros": {0, 0.02}, "random": {0.99, 1.01}, "compressed": {0.99, 1.01}, "entropy:0.3": {0.25, 0.4}, "entropy:0": {0, 0.02},
	} {
		f, err := Generate(kind, 200_000, 1)
		if err != nil {
			t.Fatal(err)
		}
		if r := ratio(t, f.Bytes); r < want[0] || r > want[1] {
			t.Errorf("%s compresses to %.3f, want %.2f to %.2f", kind, r, want[0], want[1])
		}
	}
	f, _ := Generate("json", 100_000, 1)
	for line := range strings.Lines(string(f.Bytes[:bytes.LastIndexByte(f.Bytes, '\n')+1])) {
		if !json.Valid([]byte(line)) {
			t.Fatalf("not JSON: %s", line)
		}
	}
}

func TestGenerateRefuses(t *testing.T) {
	for _, kind := range []string{"", "poetry", "entropy:", "entropy:2", "entropy:-1", "entropy:NaN"} {
		if _, err := Generate(kind, 10, 1); err == nil {
			t.Errorf("%q: accepted", kind)
		}
	}
	for _, n := range []int{0, -1, dirBytesMax + 1} {
		if _, err := Generate("json", n, 1); err == nil {
			t.Errorf("%d bytes: accepted", n)
		}
	}
}

func TestFromDir(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"b.json": "{}", "a/x.TXT": "hello", "a/empty": "", ".hidden": "no", ".git/config": "no", "plain": "data"} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	files, err := FromDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range files {
		got = append(got, filepath.ToSlash(f.Name)+" "+f.Class+" "+string(f.Bytes))
	}
	if want := "a/x.TXT txt hello|b.json json {}|plain file data"; strings.Join(got, "|") != want {
		t.Errorf("%q, want %q", strings.Join(got, "|"), want)
	}
	if p := Pool(files); len(p) != 3 || string(p[1]) != "{}" {
		t.Errorf("pool %q", p)
	}
	if _, err := FromDir(t.TempDir()); err == nil {
		t.Error("an empty directory was accepted")
	}
	if _, err := FromDir(filepath.Join(dir, "missing")); err == nil {
		t.Error("a missing directory was accepted")
	}
}

// Whatever the module cache holds, the four classes are there, and what had to
// be generated is said.
func TestFromModules(t *testing.T) {
	check := func(files []File) {
		t.Helper()
		classes := map[string]int{}
		for _, f := range files {
			classes[f.Class] += len(f.Bytes)
		}
		for _, c := range []string{"json", "html", "text", "binary"} {
			if classes[c] < 30<<10 {
				t.Errorf("class %s has %d bytes", c, classes[c])
			}
		}
	}
	check(FromModules(context.Background()))
	t.Setenv("PATH", "") // no go command
	files := FromModules(context.Background())
	check(files)
	if s := Describe(files); !strings.Contains(s, "8 of 8 files generated") {
		t.Errorf("described as %q", s)
	}
}

// What is no file is refused: opening a pipe would wait for a writer.
func TestFromFileTakesRegularFiles(t *testing.T) {
	if _, err := FromFile(os.DevNull); err == nil || !strings.Contains(err.Error(), "regular") {
		t.Errorf("got %v", err)
	}
}
