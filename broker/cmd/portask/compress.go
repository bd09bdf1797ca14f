package main

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"github.com/charmbracelet/x/term"
	"github.com/spf13/cobra"

	"github.com/portask/portask/broker/fault"
)

func newCompress(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "compress",
		Short: "What compression does to your data; dictionaries",
		Long: `What each algorithm costs and saves on your own data, and dictionaries of zstd for batches that stay small. But for
explain, nothing here needs a broker.`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newCompressBench(g), newCompressTrain(g), newCompressInspect(g), newCompressExplain(g))
	return cmd
}

// filesArgs wants at least one file.
func filesArgs(_ *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usagef("missing argument: FILE")
	}
	return nil
}

// data is what the files hold, with where each begins, so that no body or
// sample is made of two.
type data struct {
	files [][]byte
	bytes int64
}

// readData reads the files, "-" being stdin. At most limit bytes are taken into
// memory.
func readData(names []string, stdin io.Reader, limit int64) (*data, error) {
	d := new(data)
	for _, name := range names {
		b, err := readBounded(name, stdin, limit-d.bytes)
		if err != nil {
			return nil, err
		}
		if b == nil {
			return nil, fault.New(fault.TooLarge, "read "+name).WithField("--limit").WithLimit(limit+1, limit).
				WithDetail("the files hold more than --limit allows; choose a part of them or raise it")
		}
		d.files = append(d.files, b)
		d.bytes += int64(len(b))
	}
	if d.bytes == 0 {
		return nil, fault.New(fault.Invalid, "read").WithField("FILE").WithDetail("there is nothing in it")
	}
	return d, nil
}

// readBounded returns the file, or nil if it is longer than limit. "-" is stdin, and
// refused if that is nil.
func readBounded(name string, stdin io.Reader, limit int64) ([]byte, error) {
	r := stdin
	if name == "-" && stdin == nil {
		return nil, fault.New(fault.Invalid, "read").WithField("FILE").WithDetail(`"-" is no file: nothing is read from stdin here`)
	}
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, notFound(err)
		}
		defer f.Close()
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && info.Size() > limit {
			return nil, nil
		}
		r = f
	}
	var b bytes.Buffer
	n, err := b.ReadFrom(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if n > limit {
		return nil, nil
	}
	return append([]byte{}, b.Bytes()...), nil
}

// lines calls fn for each line with its end.
func (d *data) lines(fn func(line []byte)) {
	for _, b := range d.files {
		for line := range bytes.Lines(b) {
			fn(line)
		}
	}
}

// bodies cuts the files into bodies of size bytes, or of whole lines up to size
// bytes and at least half of that. What remains at the end of a file is left out,
// and so are lines that are longer than size.
func (d *data) bodies(size int, whole bool) (out [][]byte) {
	for _, b := range d.files {
		if !whole {
			for ; len(b) >= size; b = b[size:] {
				out = append(out, b[:size:size])
			}
			continue
		}
		first, end := 0, 0
		for line := range bytes.Lines(b) {
			if end+len(line)-first > size {
				// A line that is too long by itself ends what was gathered.
				if end > first && end-first >= size/2 {
					out = append(out, b[first:end:end])
				}
				first = end
				if len(line) > size {
					end += len(line)
					first = end
					continue
				}
			}
			end += len(line)
		}
		if end-first >= max(1, size/2) {
			out = append(out, b[first:end:end])
		}
	}
	return out
}

// splitFlag reads --split.
func splitFlag(s string, names ...string) error {
	for _, n := range names {
		if s == n {
			return nil
		}
	}
	return usagef("--split %q: want %s", s, joinOr(names))
}

func joinOr(names []string) string {
	var b bytes.Buffer
	for i, n := range names {
		switch {
		case i == 0:
		case i == len(names)-1:
			b.WriteString(" or ")
		default:
			b.WriteString(", ")
		}
		b.WriteString(n)
	}
	return b.String()
}

// status is a line on stderr that is written over, if that is a terminal.
type status struct {
	w    io.Writer
	live bool
}

func newStatus(w io.Writer) *status {
	f, ok := w.(*os.File)
	return &status{w: w, live: ok && term.IsTerminal(f.Fd()) && os.Getenv("TERM") != "dumb"}
}

func (s *status) show(format string, args ...any) {
	if s.live {
		fmt.Fprintf(s.w, "\r\x1b[K"+format, args...)
	}
}

func (s *status) clear() { s.show("") }
