package jsonl

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func numbers(t *testing.T, name string) []int {
	t.Helper()
	var got []int
	err := ReadFile(name, 100, 100, func(b []byte) error {
		var v int
		got = append(got, 0)
		err := json.Unmarshal(b, &v)
		got[len(got)-1] = v
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestAppendAndRead(t *testing.T) {
	name := filepath.Join(t.TempDir(), "below", "f.jsonl")
	if got := numbers(t, name); got != nil {
		t.Errorf("%v of a file that is not there", got)
	}
	for _, values := range [][]int{{1}, {2, 3}} {
		if err := Append(name, values...); err != nil {
			t.Fatal(err)
		}
	}
	// An editor that saved without an end of the last line.
	if err := os.WriteFile(name, []byte("1\n2\n\n3"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := Append(name, 4); err != nil {
		t.Fatal(err)
	}
	if got := numbers(t, name); !slices.Equal(got, []int{1, 2, 3, 4}) {
		t.Errorf("%v", got)
	}
	if err := Append(name, func() {}); err == nil {
		t.Error("a function was written")
	}
	if got := numbers(t, name); len(got) != 4 {
		t.Errorf("%v after a value that cannot be written", got)
	}
}

func TestBounds(t *testing.T) {
	for text, want := range map[string]string{
		"1\n2\n3\n4\n":                          "line 4: more than 3 lines",
		"\n \n1\n2\n" + strings.Repeat("x", 50): "line 5: ",
		"1\nno\n":                               "line 2: refused",
	} {
		err := Read(strings.NewReader(text), 20, 3, func(b []byte) error {
			if string(b) == "no" {
				return errors.New("refused")
			}
			return nil
		})
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}
