package scenario

import (
	"fmt"
	"slices"
	"strings"

	"github.com/portask/portask/broker/fault"
)

// Problem is one thing that is wrong with a scenario.
type Problem struct {
	File string // or a flag: "--set", "--rate"
	Line int    // from 1; 0 where there is none
	Path string // "phases.2.rate"; empty if the trouble is the file itself
	Text string // what is wrong and what is wanted
	// Nearest known name, for an unknown one.
	Nearest string
}

// String returns "x.yaml:12: producers.cuont: unknown; did you mean count?".
func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File)
		if p.Line > 0 {
			fmt.Fprintf(&b, ":%d", p.Line)
		}
		b.WriteString(": ")
	}
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	b.WriteString(p.Text)
	if p.Nearest != "" {
		b.WriteString("; did you mean " + p.Nearest + "?")
	}
	return b.String()
}

// Error is everything that is wrong: at least one Problem, by line. It is a
// fault.Invalid of the category configuration.
type Error struct{ Problems []Problem }

// Error returns one problem a line.
func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Unwrap makes errors.Is(err, fault.Invalid) hold.
func (e *Error) Unwrap() error {
	return &fault.Error{Code: fault.Invalid, Op: "read scenario", Category: fault.CategoryConfiguration}
}

// source is where settings of a scenario were given.
type source struct {
	file     string
	lines    map[string]int    // by path
	flags    map[string]string // settings given beside the file, and by which flag
	many     map[string]bool   // of those, the ones given by a *
	problems []Problem
}

func (src *source) bad(path, format string, args ...any) {
	p := Problem{Path: path, Text: fmt.Sprintf(format, args...)}
	if flag := src.flags[path]; flag != "" {
		p.File = flag
	} else {
		p.File = src.file
		for at := path; ; {
			if line, ok := src.lines[at]; ok {
				p.Line = line
				break
			}
			i := strings.LastIndexByte(at, '.')
			if i < 0 {
				break
			}
			at = at[:i]
		}
	}
	src.problems = append(src.problems, p)
}

func (src *source) err() error {
	if len(src.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(src.problems, func(a, b Problem) int { return a.Line - b.Line })
	return &Error{src.problems}
}
