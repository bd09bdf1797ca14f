package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/portask/portask/broker/fault"
)

// input is what `portask produce` reads.
type input struct {
	files []string // empty: stdin
	stdin io.Reader
	// whole: each file is one message; else each line is one.
	whole bool
	// separator splits a line into key and value at its first occurrence;
	// empty: no keys.
	separator []byte
	// maxBytes of a line or file; more is refused before memory is taken for
	// it.
	maxBytes int
}

// place names an origin for error messages: a file, and a line of it (0 for a
// whole file).
type place struct {
	name string
	line int
}

func (p place) String() string {
	if p.line == 0 {
		return p.name
	}
	return fmt.Sprintf("%s:%d", p.name, p.line)
}

// each calls fn for each message in order. key and value are valid during the
// call; key is nil if there is none. An error of fn ends it.
func (in *input) each(fn func(at place, key, value []byte) error) error {
	if len(in.files) == 0 {
		return in.read("stdin", in.stdin, fn)
	}
	for _, name := range in.files {
		if name == "-" {
			if err := in.read("stdin", in.stdin, fn); err != nil {
				return err
			}
			continue
		}
		f, err := os.Open(name)
		if err != nil {
			return notFound(err)
		}
		err = in.read(name, f, fn)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// notFound gives a missing file its exit code.
func notFound(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return fault.New(fault.NotFound, "open").WithDetail("no such file").WithCause(err)
	}
	return err
}

func (in *input) read(name string, r io.Reader, fn func(place, []byte, []byte) error) error {
	if in.whole {
		value, err := io.ReadAll(io.LimitReader(r, int64(in.maxBytes)+1))
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		at := place{name, 0}
		if len(value) > in.maxBytes {
			return in.tooLarge(at)
		}
		return fn(at, nil, value)
	}
	br := bufio.NewReaderSize(r, 64<<10)
	var long []byte // a line that did not fit into br's buffer
	for n := 1; ; n++ {
		at := place{name, n}
		long = long[:0]
		var line []byte
		for {
			part, err := br.ReadSlice('\n')
			if errors.Is(err, bufio.ErrBufferFull) {
				if len(long)+len(part) > in.maxBytes {
					return in.tooLarge(at)
				}
				long = append(long, part...)
				continue
			}
			if err != nil && !errors.Is(err, io.EOF) {
				return fmt.Errorf("%s: %w", at, err)
			}
			line = part
			if len(long) > 0 {
				long = append(long, part...)
				line = long
			}
			if err != nil && len(line) == 0 {
				return nil
			}
			break
		}
		line = bytes.TrimSuffix(line, []byte{'\n'})
		line = bytes.TrimSuffix(line, []byte{'\r'})
		if len(line) > in.maxBytes {
			return in.tooLarge(at)
		}
		var key []byte
		value := line
		if len(in.separator) > 0 {
			k, v, ok := bytes.Cut(line, in.separator)
			if !ok {
				return fault.New(fault.Invalid, at.String()).WithField("key").
					WithDetail("the line has no separator %q", in.separator)
			}
			key, value = k, v
		}
		if err := fn(at, key, value); err != nil {
			return err
		}
	}
}

func (in *input) tooLarge(at place) error {
	return fault.New(fault.TooLarge, at.String()).WithField("value").
		WithDetail("longer than the largest message, %d bytes", in.maxBytes)
}

// unescape reads the escapes of a format string in s: \t, \n, \xHH.
func unescape(s string) ([]byte, error) {
	var out []byte
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			out = append(out, s[i])
			continue
		}
		b, n, err := parseEscape(s[i:])
		if err != nil {
			return nil, err
		}
		out = append(out, b)
		i += n - 1
	}
	return out, nil
}
