// Package baseline is what the project has accepted as its state: a revision
// to compare with, and figures that must not get worse from there. It is a
// file in the repository, so moving it is a commit: improving it needs nothing
// else, worsening it a waiver in the message.
//
// Comparing with an accepted revision rather than with the parent is what
// keeps many small steps from adding up unseen.
package baseline

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/portask/portask/ci/internal/jsonfile"
	"github.com/portask/portask/ci/verdict"
)

// Path of the file below a repository.
const Path = "benchdata/baseline/baseline.json"

// Version of the file.
const Version = 1

// Limits of what Read takes.
const (
	bytesMax   = 1 << 20
	figuresMax = 5000
)

// File is the accepted state.
type File struct {
	Version int `json:"version"`
	// Revision is the commit that heads are compared with, in full.
	Revision string    `json:"revision"`
	Accepted time.Time `json:"accepted"`
	// Figures are sorted by name.
	Figures []Figure `json:"figures"`
}

// Figure is a count, or an objective's enforced bound.
type Figure struct {
	Name  string  `json:"name"`
	Unit  string  `json:"unit"`
	Value float64 `json:"value"`
	// Limit is the share by which a count of the same run may be worse than
	// Value, the resolution of the counter; 0 for a bound.
	Limit float64 `json:"limit"`
	// Higher is better.
	Higher bool `json:"higher,omitempty"`
}

// Read parses and validates a file; all of it is refused at the first error.
func Read(r io.Reader) (*File, error) {
	b, err := io.ReadAll(io.LimitReader(r, bytesMax+1))
	if err != nil {
		return nil, err
	}
	if len(b) > bytesMax {
		return nil, fmt.Errorf("baseline: more than %d bytes", bytesMax)
	}
	f := new(File)
	if err := jsonfile.Unmarshal(b, f); err != nil {
		return nil, fmt.Errorf("baseline: %w", err)
	}
	switch {
	case f.Version != Version:
		return nil, fmt.Errorf("baseline: version %d, want %d", f.Version, Version)
	case len(f.Figures) > figuresMax:
		return nil, fmt.Errorf("baseline: %d figures, at most %d", len(f.Figures), figuresMax)
	case !isHash(f.Revision):
		return nil, fmt.Errorf("baseline: revision %.50q is no full commit hash", f.Revision)
	}
	for i, g := range f.Figures {
		switch {
		case g.Name == "":
			return nil, fmt.Errorf("baseline: figure %d has no name", i)
		case i > 0 && f.Figures[i-1].Name >= g.Name:
			return nil, fmt.Errorf("baseline: figure %.100q is not behind %.100q", g.Name, f.Figures[i-1].Name)
		case g.Limit < 0 || g.Limit > 1:
			return nil, fmt.Errorf("baseline: %.100q: limit %v, must be 0 to 1", g.Name, g.Limit)
		}
	}
	return f, nil
}

func isHash(s string) bool {
	return (len(s) == 40 || len(s) == 64) && strings.Trim(s, "0123456789abcdef") == ""
}

// ReadFile is Read of a file; nil without error if there is none.
func ReadFile(name string) (*File, error) {
	r, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer r.Close()
	f, err := Read(r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return f, nil
}

// WriteFile writes f as indented JSON, a figure a line for the sake of diffs.
func (f *File) WriteFile(name string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "{\n  \"version\": %d,\n  \"revision\": %q,\n  \"accepted\": %q,\n  \"figures\": [", Version, f.Revision, f.Accepted.UTC().Format(time.RFC3339))
	for i, g := range f.Figures {
		line, err := json.Marshal(g)
		if err != nil {
			return err
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString("\n    ")
		b.Write(line)
	}
	b.WriteString("\n  ]\n}\n")
	if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
		return err
	}
	return os.WriteFile(name, []byte(b.String()), 0o666)
}

// Of takes the figures of a verdict: what was counted on the head, and the
// bounds its objectives were held against. A run that failed or is invalid is
// refused. The revision is the head's, which must be a commit.
func Of(v *verdict.Verdict) (*File, error) {
	if v.Decision != verdict.Pass && v.Decision != verdict.Inconclusive {
		return nil, fmt.Errorf("a run that is %s cannot be accepted", v.Decision)
	}
	if v.Head.Dirty || !isHash(v.Head.Commit) {
		return nil, fmt.Errorf("head %s is no commit", v.Head.Short())
	}
	f := &File{Version: Version, Revision: v.Head.Commit, Accepted: v.Started.UTC().Truncate(time.Second), Figures: figures(v)}
	return f, nil
}

func figures(v *verdict.Verdict) []Figure {
	var all []Figure
	for _, c := range v.Counters {
		// Bytes an operation are amortised over what a slice holds, which follows
		// the machine: within a run they compare, across runs they do not.
		if c.Decision != verdict.Skipped && c.Unit != "B/op" && !c.Accepted() {
			all = append(all, Figure{Name: c.Name, Unit: c.Unit, Value: c.Head, Limit: c.Limit})
		}
	}
	for _, o := range v.Objectives {
		all = append(all, Figure{Name: "bound of " + o.Name, Unit: o.Unit, Value: o.Bound, Higher: !o.Upper})
	}
	slices.SortFunc(all, func(a, b Figure) int { return strings.Compare(a.Name, b.Name) })
	return slices.CompactFunc(all, func(a, b Figure) bool { return a.Name == b.Name })
}

// waive returns the waiver for a name and an effect; nil if there is none.
type waive func(name string, effect float64) *verdict.Waiver

// Check holds what a run measured against the accepted figures. Figures that
// the run did not measure are passed over: a run need not measure all.
func (f *File) Check(v *verdict.Verdict, w waive) []verdict.Counter {
	return f.worse(figures(v), w)
}

// Worsened holds a later file's figures against f's: what a commit that moves
// the baseline must account for.
func (f *File) Worsened(later *File, w waive) []verdict.Counter {
	return f.worse(later.Figures, w)
}

// Counts of two runs, perhaps on two machines, differ by what else ran there:
// how many batches a read finds, how large a buffer has grown. What is below
// these is none of the ratchet's business: the same counts of the accepted
// revision and of the head, in one run, decide on half a percent.
const (
	acrossRuns = 0.25
	leastCount = 1
)

func (f *File) worse(now []Figure, w waive) []verdict.Counter {
	var out []verdict.Counter
	for _, g := range now {
		i, ok := slices.BinarySearchFunc(f.Figures, g.Name, func(a Figure, name string) int { return strings.Compare(a.Name, name) })
		if !ok {
			continue
		}
		accepted := f.Figures[i]
		c := verdict.Counter{Name: verdict.AcceptedPrefix + g.Name, Unit: g.Unit, Base: accepted.Value, Head: g.Value, Limit: max(accepted.Limit, 0), Decision: verdict.Pass}
		grown := g.Value - accepted.Value
		if accepted.Higher {
			grown = -grown
		}
		allowed := 0.0 // a bound
		if accepted.Limit > 0 {
			allowed = max(max(accepted.Limit, acrossRuns)*math.Abs(accepted.Value), leastCount)
			c.Limit = max(accepted.Limit, acrossRuns)
		}
		if grown > allowed {
			effect := math.Inf(1)
			if accepted.Value != 0 {
				effect = grown / math.Abs(accepted.Value)
			}
			c.Decision = verdict.Fail
			c.Reason = fmt.Sprintf("accepted at %.6g with commit %.10s; worse needs a waiver", accepted.Value, f.Revision)
			// The last word of a name is what a waiver can name.
			words := strings.Fields(g.Name)
			c.Waived = w(words[len(words)-1], effect)
		}
		out = append(out, c)
	}
	return out
}
