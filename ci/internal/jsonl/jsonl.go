// Package jsonl keeps records as lines of JSON in a file that only grows.
package jsonl

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Append adds each value as a line, all in one write, so that lines of two
// programs do not mix. The file is made with its directory if need be. A last
// line that lacks its end, as an editor or a torn write leaves it, is ended
// first.
func Append[T any](name string, values ...T) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o666)
	if err != nil {
		return err
	}
	return errors.Join(write(f, values), f.Close())
}

func write[T any](f *os.File, values []T) error {
	var out []byte
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if size := info.Size(); size > 0 {
		var last [1]byte
		if _, err := f.ReadAt(last[:], size-1); err != nil {
			return err
		}
		if last[0] != '\n' {
			out = append(out, '\n')
		}
	}
	for _, v := range values {
		b, err := json.Marshal(v)
		if err != nil {
			return err
		}
		out = append(append(out, b...), '\n')
	}
	_, err = f.Write(out)
	return err
}

// ReadFile is Read of a file; one that is not there has no lines. Errors name
// the file.
func ReadFile(name string, lineMax, linesMax int, take func(line []byte) error) error {
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := Read(f, lineMax, linesMax, take); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// Read calls take with each line that is not blank, in order; the slice is
// valid until take returns. A line of lineMax bytes or more, the line after
// linesMax, and one that take refuses end it with an error that names the line,
// counted from 1 with blank ones.
func Read(r io.Reader, lineMax, linesMax int, take func(line []byte) error) error {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, min(lineMax, 64<<10)), lineMax)
	n, taken := 0, 0
	for s.Scan() {
		n++
		if blank(s.Bytes()) {
			continue
		}
		if taken++; taken > linesMax {
			return fmt.Errorf("line %d: more than %d lines", n, linesMax)
		}
		if err := take(s.Bytes()); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	if err := s.Err(); err != nil {
		return fmt.Errorf("line %d: %w", n+1, err)
	}
	return nil
}

func blank(b []byte) bool {
	for _, c := range b {
		if c != ' ' && c != '\t' && c != '\r' {
			return false
		}
	}
	return true
}
