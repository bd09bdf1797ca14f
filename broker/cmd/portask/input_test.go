package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/portask/portask/broker/fault"
)

func collect(in *input) (string, error) {
	var out strings.Builder
	err := in.each(func(at place, key, value []byte) error {
		out.WriteString(filepath.Base(at.name))
		if at.line > 0 {
			out.WriteString(":" + strings.Repeat("|", at.line))
		}
		if key != nil {
			out.WriteString(" key=" + string(key))
		}
		out.WriteString(" " + string(value) + "\n")
		return nil
	})
	return out.String(), err
}

func TestInputLines(t *testing.T) {
	tests := []struct {
		name, text, sep, want string
	}{
		{"empty", "", "", ""},
		{"one", "a\n", "", "stdin:| a\n"},
		{"no final newline", "a\nb", "", "stdin:| a\nstdin:|| b\n"},
		{"empty lines are messages", "\n\n", "", "stdin:| \nstdin:|| \n"},
		{"windows", "a\r\n", "", "stdin:| a\n"},
		{"keys", "k:v:w\n:x\n", ":", "stdin:| key=k v:w\nstdin:|| key= x\n"},
	}
	for _, tt := range tests {
		in := &input{stdin: iotest.OneByteReader(strings.NewReader(tt.text)), separator: []byte(tt.sep), maxBytes: 100}
		if got, err := collect(in); err != nil || got != tt.want {
			t.Errorf("%s: got %q, %v; want %q", tt.name, got, err, tt.want)
		}
	}
}

func TestInputLongLines(t *testing.T) {
	const max = 200 << 10 // several buffers
	line := strings.Repeat("x", max)
	in := &input{stdin: strings.NewReader(line + "\nb\n"), maxBytes: max}
	var sizes []int
	if err := in.each(func(_ place, _, value []byte) error { sizes = append(sizes, len(value)); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(sizes) != 2 || sizes[0] != max || sizes[1] != 1 {
		t.Errorf("sizes %v", sizes)
	}
	in.stdin = strings.NewReader("a\n" + line + "x\n")
	_, err := collect(in)
	if !errors.Is(err, fault.TooLarge) || !strings.Contains(err.Error(), "stdin:2") {
		t.Errorf("a line one byte too long: %v", err)
	}
}

func TestInputMissingSeparatorNamesTheLine(t *testing.T) {
	in := &input{stdin: strings.NewReader("a=1\nb\n"), separator: []byte("="), maxBytes: 10}
	_, err := collect(in)
	if !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), `stdin:2: key: the line has no separator "="`) {
		t.Errorf("error %v", err)
	}
}

func TestInputFiles(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	if err := errors.Join(os.WriteFile(a, []byte("1\n2\n"), 0o600), os.WriteFile(b, []byte("3"), 0o600)); err != nil {
		t.Fatal(err)
	}
	in := &input{files: []string{a, b}, maxBytes: 10}
	if got, err := collect(in); err != nil || got != "a:| 1\na:|| 2\nb:| 3\n" {
		t.Errorf("lines: %q, %v", got, err)
	}
	in.whole = true
	if got, err := collect(in); err != nil || got != "a 1\n2\n\nb 3\n" {
		t.Errorf("whole: %q, %v", got, err)
	}
	in.maxBytes = 3
	if _, err := collect(in); !errors.Is(err, fault.TooLarge) {
		t.Errorf("file too large: %v", err)
	}
	in.files = []string{filepath.Join(dir, "missing")}
	if _, err := collect(in); exitCode(err) != int(fault.ExitNotFound) {
		t.Errorf("missing file: %v", err)
	}
}

func TestUnescape(t *testing.T) {
	for s, want := range map[string]string{"": "", ":": ":", `\t`: "\t", `a\x00b`: "a\x00b"} {
		if got, err := unescape(s); err != nil || string(got) != want {
			t.Errorf("%q: %q, %v", s, got, err)
		}
	}
	if _, err := unescape(`\q`); exitCode(err) != exitUsage {
		t.Errorf("bad escape: %v", err)
	}
}
