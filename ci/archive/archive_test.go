package archive

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/portask/portask/ci/arch"
)

func TestRepository(t *testing.T) {
	root, err := arch.Root()
	if err != nil {
		t.Fatal(err)
	}
	if err := Check(root); err != nil {
		t.Error(err)
	}
}

func TestWhatWasMeasuredStays(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		name = filepath.Join(root, Dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if added, err := Add(root); err != nil || added != nil {
		t.Errorf("no archive: %v, %v", added, err)
	}
	write("README.md", "not governed")
	write("gate/1/raw.txt", "raw")
	write("history.jsonl", "one\n")
	if err := Check(root); err == nil || !strings.Contains(err.Error(), "gate/1/raw.txt is not in the manifest") {
		t.Errorf("an unlisted file: %v", err)
	}
	added, err := Add(root)
	if err != nil || len(added) != 2 {
		t.Fatalf("%v, %v", added, err)
	}
	if err := Check(root); err != nil {
		t.Fatal(err)
	}
	if added, err := Add(root); err != nil || added != nil {
		t.Errorf("nothing new: %v, %v", added, err)
	}
	// It grows.
	write("history.jsonl", "one\ntwo\n")
	if err := Check(root); err != nil {
		t.Errorf("a line more: %v", err)
	}
	if added, err := Add(root); err != nil || len(added) != 1 || added[0].Bytes != 8 {
		t.Errorf("a line more: %v, %v", added, err)
	}
	for _, c := range []struct{ name, text, want string }{
		{"history.jsonl", "ONE\ntwo\n", "first 4 bytes"},
		{"history.jsonl", "one\nTWO\nthree\n", "first 8 bytes"},
		{"history.jsonl", "one\n", "has 4 bytes"},
		{"gate/1/raw.txt", "raw and more", "has 12 bytes"},
		{"gate/1/raw.txt", "RAW", "was changed"},
	} {
		name := filepath.Join(root, Dir, c.name)
		before, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		write(c.name, c.text)
		if err := Check(root); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s as %q: %v, want %q", c.name, c.text, err, c.want)
		}
		if _, err := Add(root); err == nil {
			t.Errorf("%s as %q: added", c.name, c.text)
		}
		write(c.name, string(before))
	}
	if err := os.Remove(filepath.Join(root, Dir, "gate/1/raw.txt")); err != nil {
		t.Fatal(err)
	}
	if err := Check(root); err == nil {
		t.Error("a file was removed, and nobody noticed")
	}
}

const sum = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"

func TestParse(t *testing.T) {
	lines, err := Parse(strings.NewReader(sum + " 3 a.jsonl\n" + sum + " 30 a.jsonl\n" + sum + " 3 gate/with space.txt\n"))
	if want := []Line{{sum, 3, "a.jsonl"}, {sum, 30, "a.jsonl"}, {sum, 3, "gate/with space.txt"}}; err != nil || !reflect.DeepEqual(lines, want) {
		t.Errorf("%v, %v", lines, err)
	}
	for _, bad := range []string{"x", sum + " 3", "abc 3 a", sum + " -1 a", sum + " 03 a", sum + " 3 ../a", sum + " 3 /a",
		sum + " 3 a.txt\n" + sum + " 4 a.txt", sum + " 4 a.jsonl\n" + sum + " 4 a.jsonl", strings.ToUpper(sum) + " 3 a"} {
		if lines, err := Parse(strings.NewReader(bad)); err == nil {
			t.Errorf("%q: %v", bad, lines)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(sum + " 3 a.jsonl\n" + sum + " 30 a.jsonl\n")
	f.Fuzz(func(t *testing.T, s string) {
		lines, err := Parse(strings.NewReader(s))
		if err != nil {
			return
		}
		var text strings.Builder
		for _, l := range lines {
			text.WriteString(l.String() + "\n")
		}
		again, err := Parse(strings.NewReader(text.String()))
		if err != nil || !reflect.DeepEqual(lines, again) {
			t.Errorf("%q: %v, then %v, %v", s, lines, again, err)
		}
	})
}
