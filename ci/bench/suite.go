package bench

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/portask/portask/ci/sample"
)

// SuiteVersion is the only version of a suite file that this package reads.
const SuiteVersion = 1

const (
	suiteBytesMax   = 1 << 20
	suiteEntriesMax = 1000
)

// File is a loaded suite file (configs/bench.yaml); immutable after Load.
type File struct {
	// Slice, Pairs, RoundMax and Layouts are those of a Plan, zero where the file
	// leaves them out.
	Slice    time.Duration
	Pairs    int
	RoundMax time.Duration
	Layouts  int
	// Suites by name.
	Suites map[string]Suite
}

// Suite returns a suite by name; the error names those there are.
func (f *File) Suite(name string) (Suite, error) {
	s, ok := f.Suites[name]
	if !ok {
		var names []string
		for n := range f.Suites {
			names = append(names, n)
		}
		slices.Sort(names)
		return Suite{}, fmt.Errorf("no suite %q; there are %s", name, strings.Join(names, ", "))
	}
	return s, nil
}

type fileYAML struct {
	Version  int                    `yaml:"version"`
	Slice    time.Duration          `yaml:"slice"`
	Pairs    int                    `yaml:"pairs"`
	RoundMax time.Duration          `yaml:"round"`
	Layouts  int                    `yaml:"layouts"`
	Suites   map[string][]entryYAML `yaml:"suites"`
}

type entryYAML struct {
	Module  string   `yaml:"module"`
	Package string   `yaml:"package"`
	Bench   string   `yaml:"bench"`
	Metric  string   `yaml:"metric"`
	Tags    []string `yaml:"tags"`
}

var suiteName = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

// Load reads and validates a suite file. All violations are reported together.
func Load(name string) (*File, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, suiteBytesMax+1))
	if err != nil {
		return nil, err
	}
	out, err := parseSuites(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return out, nil
}

func parseSuites(data []byte) (*File, error) {
	if len(data) > suiteBytesMax {
		return nil, fmt.Errorf("more than %d bytes", suiteBytesMax)
	}
	var y fileYAML
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&y); errors.Is(err, io.EOF) {
		return nil, errors.New("holds nothing")
	} else if err != nil {
		return nil, err
	}
	var bad []error
	if y.Version != SuiteVersion {
		bad = append(bad, fmt.Errorf("version is %d, must be %d", y.Version, SuiteVersion))
	}
	out := &File{Slice: y.Slice, Pairs: y.Pairs, RoundMax: y.RoundMax, Layouts: y.Layouts, Suites: make(map[string]Suite)}
	// The limits of the figures are those of a plan.
	probe := Plan{Repo: ".", Base: "HEAD", Slice: y.Slice, Pairs: y.Pairs, RoundMax: y.RoundMax, Layouts: y.Layouts}
	if err := probe.withDefaults(); err != nil {
		bad = append(bad, err)
	}
	total := 0
	for name, entries := range y.Suites {
		if !suiteName.MatchString(name) {
			bad = append(bad, fmt.Errorf("suite %q: want words of a-z and 0-9 with dashes between them", name))
		}
		if len(entries) == 0 {
			bad = append(bad, fmt.Errorf("suite %s is empty", name))
		}
		if total += len(entries); total > suiteEntriesMax {
			return nil, fmt.Errorf("more than %d entries", suiteEntriesMax)
		}
		suite := Suite{Name: name}
		for i, e := range entries {
			entry, err := e.entry()
			if err != nil {
				bad = append(bad, fmt.Errorf("suite %s, entry %d: %w", name, i+1, err))
			}
			suite.Entries = append(suite.Entries, entry)
		}
		out.Suites[name] = suite
	}
	if len(y.Suites) == 0 {
		bad = append(bad, errors.New("no suites"))
	}
	return out, errors.Join(bad...)
}

func (e entryYAML) entry() (Entry, error) {
	out := Entry{Module: e.Module, Package: e.Package, Match: e.Bench, Tags: e.Tags}
	if out.Module == "" {
		out.Module = "."
	}
	var bad []error
	if path.IsAbs(out.Module) || path.Clean(out.Module) != out.Module || strings.HasPrefix(out.Module, "..") {
		bad = append(bad, fmt.Errorf("module %q is not a directory of the repository", e.Module))
	}
	if rest, ok := strings.CutPrefix(e.Package, "./"); e.Package != "." && (!ok || rest == "" || path.Clean(rest) != rest || strings.HasPrefix(rest, "..") || strings.HasPrefix(rest, "/")) {
		bad = append(bad, fmt.Errorf(`package %q: want "." or a directory that begins with "./"`, e.Package))
	}
	if err := CheckPattern(e.Bench); err != nil {
		bad = append(bad, err)
	}
	switch e.Metric {
	case "", "cpu":
	case "wall":
		out.Metric = sample.Wall
	default:
		bad = append(bad, fmt.Errorf("metric %q: want cpu or wall", e.Metric))
	}
	return out, errors.Join(bad...)
}

// CheckPattern refuses what package testing would refuse of -test.bench, before
// anything is built for it.
func CheckPattern(pattern string) error {
	if len(pattern) > 1000 {
		return errors.New("pattern of more than 1000 bytes")
	}
	for _, part := range levels(pattern) {
		if _, err := regexp.Compile(part); err != nil {
			return fmt.Errorf("pattern %q: %w", pattern, err)
		}
	}
	return nil
}

// levels parts a pattern at slashes and bars that stand in no brackets, as
// package testing does (splitRegexp in testing/match.go).
func levels(pattern string) []string {
	var all []string
	begin, square, round := 0, 0, 0
	for i := 0; i < len(pattern); i++ {
		switch pattern[i] {
		case '[':
			square++
		case ']':
			square = max(square-1, 0) // one without its other is legal
		case '(':
			if square == 0 {
				round++
			}
		case ')':
			if square == 0 {
				round--
			}
		case '\\':
			i++
		case '/', '|':
			if square == 0 && round == 0 {
				all = append(all, pattern[begin:i])
				begin = i + 1
			}
		}
	}
	return append(all, pattern[begin:])
}
