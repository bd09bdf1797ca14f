package bench

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"
	"time"

	"github.com/portask/portask/ci/sample"
)

// WorkingTree as a revision is the repository's files as they lie there now:
// tracked or not yet ignored, changes that are not committed included.
const WorkingTree = ""

// Plan says what is compared, and how.
type Plan struct {
	// Repo is a directory in the work tree of a git repository.
	Repo string
	// Base and Head are revisions as git understands them; Head may be
	// WorkingTree. The same commit on both sides is allowed here (an A/A run):
	// to refuse it is the gate's affair.
	Base, Head string
	// Own are files and directories, from the top of the repository's work tree
	// with slashes, that the laboratory itself writes there: they make the
	// WorkingTree no other candidate than its commit.
	Own []string
	// HeadEdits replaces files of the head's copy, by path below the repository
	// with slashes: a change that exists nowhere else. The repository is not
	// touched.
	HeadEdits map[string][]byte
	// Suite is what is run. An empty one is every benchmark of the repository that
	// Match lets through, compared by Metric. That Match lets none through is an
	// error of Prepare.
	Suite  Suite
	Match  string
	Metric sample.Metric
	// Seed draws orders and layouts; the same plan with the same seed makes the
	// same choices.
	Seed uint64
	// Slice is the time the iterations of a slice shall take, 1 ms to 1 s; 0 is
	// DefaultSlice.
	Slice time.Duration
	// Pairs of a round, 2 to 1000; 0 is DefaultPairs. A benchmark whose single
	// iteration is longer than a slice, or that often waits for a processor, gets
	// fewer, see RoundMax.
	Pairs int
	// RoundMax bounds the time of a round's measuring; at least MinPairs pairs
	// run even so. 0 is DefaultRoundMax.
	RoundMax time.Duration
	// Layouts is how many link layouts a side has before one comes again, 1 to 128;
	// 0 is DefaultLayouts, more than a benchmark has rounds.
	Layouts int
	// Controls adds the calibration kernels as subjects whose sides are the same
	// program. The first so many; negative is none, 0 is all.
	Controls int
	// Stuck is how long a child may be silent before it is killed, 0 is
	// DefaultStuck. Building has ten times as long.
	Stuck time.Duration
	// Cache is a directory for linked programs, kept from run to run and shared
	// by concurrent ones; empty is "perflab" in the user's cache directory.
	Cache string
}

// Defaults of a Plan. Slice and pairs: a process of its own has an error of
// 1 to 1.5 per cent that more than some 50 pairs of 10 ms do not lower
// (docs/laboratory.md); then it is better to start the next round.
const (
	DefaultSlice    = 10 * time.Millisecond
	DefaultPairs    = 50
	DefaultRoundMax = 3 * time.Second
	DefaultLayouts  = 96
	DefaultStuck    = 60 * time.Second
	// MinPairs is what a round has at least, however slow the benchmark, and the
	// length of the blocks in which as many pairs begin with the head as with the
	// base.
	MinPairs = 10
	warmUps  = 3
)

// Suite is a list of benchmarks by pattern. The order is that of Session.Benches
// among subjects of the same risk.
type Suite struct {
	Name    string
	Entries []Entry
}

// Entry picks benchmarks of one package.
type Entry struct {
	Module  string // directory below the repository, "." for the repository itself
	Package string // directory below the module: "./wire", "." for the module's own
	// Match is what one would give to `go test -bench`: regular expressions for
	// the levels of a name, separated by slashes. Empty is everything.
	Match string
	// Metric is sample.CPU, with GOMAXPROCS=1, or sample.Wall with the machine's
	// default, for benchmarks that wait.
	Metric sample.Metric
	Tags   []string
}

// pattern is Match for the program's flag.
func (e Entry) pattern() string {
	if e.Match == "" {
		return "."
	}
	return e.Match
}

// mayMatch is false for a benchmark function, named with its "Benchmark", that
// Match surely leaves out. It spares its first iteration.
func (e Entry) mayMatch(function string) bool {
	first, _, _ := strings.Cut(e.Match, "/")
	if strings.ContainsAny(e.Match, "|([\\") {
		return true
	}
	re, err := regexp.Compile(first)
	return err != nil || re.MatchString(function)
}

// dir is the package's directory below the repository.
func (e Entry) dir() string { return path.Join(e.Module, e.Package) }

// Subject is a benchmark that can be measured.
type Subject struct {
	Bench  sample.Bench
	Metric sample.Metric
	Tags   []string
	// Control: both sides are the same program.
	Control bool
	// Identical: the linked programs of both sides are the same bytes. There is
	// nothing to measure, though Round does it if asked. Not said of controls,
	// which are measured always.
	Identical bool
	// New: the base has no such benchmark; Round refuses it.
	New bool
	// Changed: the source of the benchmark function itself is another one on the
	// head, so a difference may be the measurement's.
	Changed bool
	// Touched: a file of the package's own directory differs between the sides.
	Touched bool

	key    programKey
	n      int // iterations of a slice, 0 until calibrated
	setup  float64
	rounds int
}

// N is the iterations of a slice, 0 before the first round.
func (s *Subject) N() int { return s.n }

// SetupShare is the part of the workers' time that goes by outside of the
// timed part, 0 before the first round.
func (s *Subject) SetupShare() float64 { return s.setup }

// Series is an empty series of the subject, to which its rounds are appended.
func (s *Subject) Series() sample.Series {
	return sample.Series{Bench: s.Bench, Metric: s.Metric, Control: s.Control, N: s.n, SetupShare: s.setup}
}

// Risk orders subjects by how likely the change is to have made them slower: 0
// for those in whose package something changed, 1 where the program differs, 2
// for the rest.
func (s *Subject) Risk() int {
	switch {
	case s.Touched:
		return 0
	case !s.Identical:
		return 1
	}
	return 2
}

func (p *Plan) withDefaults() error {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&p.Slice, DefaultSlice)
	def(&p.RoundMax, DefaultRoundMax)
	def(&p.Stuck, DefaultStuck)
	if p.Pairs == 0 {
		p.Pairs = DefaultPairs
	}
	if p.Layouts == 0 {
		p.Layouts = DefaultLayouts
	}
	switch {
	case p.Repo == "":
		return fmt.Errorf("plan: repo is empty")
	case p.Base == "":
		return fmt.Errorf("plan: base is empty")
	case strings.HasPrefix(p.Base, "-") || strings.HasPrefix(p.Head, "-"):
		return fmt.Errorf("plan: a revision begins with a dash")
	case p.Slice < time.Millisecond || p.Slice > time.Second:
		return fmt.Errorf("plan: slice is %v, must be 1ms to 1s", p.Slice)
	case p.Pairs < 2 || p.Pairs > 1000:
		return fmt.Errorf("plan: pairs is %d, must be 2 to 1000", p.Pairs)
	case p.Layouts < 1 || p.Layouts > 128:
		return fmt.Errorf("plan: layouts is %d, must be 1 to 128", p.Layouts)
	case p.RoundMax < 100*time.Millisecond || p.RoundMax > 10*time.Minute:
		return fmt.Errorf("plan: round is at most %v, must be 100ms to 10m", p.RoundMax)
	case p.Stuck < time.Second || p.Stuck > time.Hour:
		return fmt.Errorf("plan: stuck is %v, must be 1s to 1h", p.Stuck)
	}
	if err := CheckPattern(p.Match); err != nil {
		return fmt.Errorf("plan: %w", err)
	}
	for _, name := range p.Own {
		if name == "." || !fs.ValidPath(name) {
			return fmt.Errorf("plan: own file %q: not a path below the repository", name)
		}
	}
	for name := range p.HeadEdits {
		if path.IsAbs(name) || path.Clean(name) != name || strings.HasPrefix(name, "../") {
			return fmt.Errorf("plan: edit of %q: not a path below the repository", name)
		}
	}
	return nil
}
