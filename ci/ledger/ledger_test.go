package ledger

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCommitsRunning(t *testing.T) {
	gate := func(commit string, open ...string) Line { return Line{Version: 1, Commit: commit, Open: open} }
	for _, c := range []struct {
		name  string
		lines []Line
		want  map[string]int
	}{
		{"nothing", nil, map[string]int{}},
		{"one", []Line{gate("1", "a")}, map[string]int{"a": 1}},
		{"two running, one only now", []Line{gate("1", "a"), gate("2", "a", "b")}, map[string]int{"a": 2, "b": 1}},
		{"interrupted by a quiet gate", []Line{gate("1", "a"), gate("2"), gate("3", "a")}, map[string]int{"a": 1}},
		{"interrupted by another name", []Line{gate("1", "a"), gate("2", "b"), gate("3", "a")}, map[string]int{"a": 1}},
		{"the latest gate of a commit speaks", []Line{gate("1", "a"), gate("1", "a"), gate("2", "a"), gate("2")}, map[string]int{}},
		{"gates of the head itself do not count", []Line{gate("1", "a"), gate("head", "a"), gate("head", "a")}, map[string]int{"a": 1}},
		{"other branches do not count", []Line{gate("1", "a"), gate("other"), gate("2", "a")}, map[string]int{"a": 2}},
		{"a name twice in a line", []Line{gate("1", "a"), gate("2", "a", "a")}, map[string]int{"a": 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Running(c.lines, "head", func(commit string) bool { return commit != "other" })
			if !maps.Equal(got, c.want) {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

func TestOnlyWhatMattersIsWritten(t *testing.T) {
	name := filepath.Join(t.TempDir(), "below", "l.jsonl")
	add := func(commit string, open ...string) {
		t.Helper()
		if err := Append(name, Line{Commit: commit, Open: open}); err != nil {
			t.Fatal(err)
		}
	}
	add("1")
	if _, err := os.Stat(name); err == nil {
		t.Fatal("a gate without anything open made a file")
	}
	add("2", "a")
	add("3")
	add("4")
	add("5", "b")
	lines, err := ReadFile(name)
	if err != nil || len(lines) != 3 || lines[1].Commit != "3" || lines[2].Open[0] != "b" {
		t.Fatalf("%+v, %v", lines, err)
	}
}

func TestReadNamesTheLine(t *testing.T) {
	good := `{"version":1,"commit":"c","open":[]}`
	for _, bad := range []string{"{", `{"version":2,"commit":"c"}`, `{"version":1}`, `{"version":1,"commit":"` + strings.Repeat("c", lineMax) + `"}`} {
		if _, err := Read(strings.NewReader(good + "\n" + bad + "\n")); err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%.40s: %v", bad, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add("{\"version\":1,\"commit\":\"c\",\"open\":[\"a\"]}\n")
	f.Fuzz(func(t *testing.T, s string) {
		lines, err := Read(strings.NewReader(s))
		if err != nil {
			return
		}
		for name, n := range Running(lines, "head", nil) {
			if n < 1 || n > len(lines) {
				t.Errorf("%q %d running of %d lines", name, n, len(lines))
			}
		}
		for _, l := range lines {
			if b, err := json.Marshal(l); err != nil || len(b) == 0 {
				t.Error(err)
			}
		}
	})
}
