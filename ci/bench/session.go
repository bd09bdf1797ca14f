package bench

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/portask/portask/broker/sysmetrics"
	"github.com/portask/portask/ci/kernel/calibrate"
	"github.com/portask/portask/ci/sample"
	"github.com/portask/portask/ci/verdict"
)

// Session holds the copies of both revisions, their programs and the subjects.
// Not safe for concurrent use.
type Session struct {
	plan       Plan
	dir, cache string
	sides      [2]*tree
	revs       [2]verdict.Revision
	controls   *tree
	machine    []verdict.Fact
	subjects   []*Subject
	problems   []Problem
	byKey      map[programKey]*[2]*program
	programs   atomic.Int64 // linked files, for their names
	host       *sysmetrics.Reader
	running    map[*worker]struct{}
	closed     bool
}

// Problem is a package or a benchmark that cannot be compared. The session goes
// on without it.
type Problem struct {
	Side   sample.Side
	Module string
	// Package is empty if it is the whole module.
	Package string
	// Bench is the name of a benchmark, empty if it is the whole package.
	Bench string
	Err   error
}

// String is one line, with the last line of the error.
func (p Problem) String() string {
	where := p.Module
	if p.Package != "" {
		where = sample.Bench{Module: p.Module, Package: p.Package, Name: strings.TrimPrefix(p.Bench, "Benchmark")}.String()
	}
	return fmt.Sprintf("%s %s: %v", p.Side, strings.TrimSuffix(where, "."), p.Err)
}

// Prepare copies both revisions, builds the test programs of the plan's
// packages and asks them for their benchmarks. It needs some seconds for each
// package, most of it in the compiler. progress gets a line for each step and
// may be nil. The caller closes the session; where there is none because of an
// error, nothing is left behind.
func Prepare(ctx context.Context, plan Plan, progress func(string)) (_ *Session, err error) {
	if err := plan.withDefaults(); err != nil {
		return nil, err
	}
	if progress == nil {
		progress = func(string) {}
	}
	dir, err := os.MkdirTemp("", "perflab-")
	if err != nil {
		return nil, err
	}
	s := &Session{plan: plan, dir: dir, byKey: make(map[programKey]*[2]*program), running: make(map[*worker]struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	// The temporary directory may be reached through a link; paths that git and
	// go print are compared with this one.
	if s.dir, err = filepath.EvalSymlinks(dir); err != nil {
		s.dir = dir
		return nil, err
	}
	if err := os.Mkdir(s.temp(), 0o700); err != nil {
		return nil, err
	}
	if s.cache = plan.Cache; s.cache == "" {
		if user, err := os.UserCacheDir(); err == nil {
			s.cache = filepath.Join(user, "perflab")
		} else {
			progress(fmt.Sprintf("no cache of programs, each is linked anew: %v; --cache names a directory", err))
		}
	}
	if s.cache != "" {
		if err := os.MkdirAll(s.cache, 0o700); err != nil {
			progress(fmt.Sprintf("no cache of programs: %v", err))
			s.cache = ""
		}
	}
	if s.host, err = sysmetrics.NewReader(s.dir); err != nil {
		return nil, err
	}
	if err := s.copies(ctx, progress); err != nil {
		return nil, err
	}
	if err := s.findSubjects(ctx, progress); err != nil {
		return nil, err
	}
	if err := s.addControls(ctx, progress); err != nil {
		return nil, err
	}
	return s, ctx.Err()
}

// temp is the temporary directory of the children.
func (s *Session) temp() string { return filepath.Join(s.dir, "tmp") }

// Close kills what still runs and removes all files but the cache. It may be
// called again.
func (s *Session) Close() error {
	if s == nil || s.closed {
		return nil
	}
	s.closed = true
	for w := range s.running {
		w.kill()
	}
	if s.cache != "" {
		prune(s.cache, cacheMax)
	}
	return removeAll(s.dir)
}

// removeAll is os.RemoveAll for a tree that may hold directories without the
// right to write, as the copies of module files have.
func removeAll(dir string) error {
	if os.RemoveAll(dir) == nil {
		return nil
	}
	_ = filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = os.Chmod(name, 0o700)
		}
		return nil
	})
	return os.RemoveAll(dir)
}

// Benches are the subjects: the controls first, then the suite's by risk, then
// in the suite's order. Subjects are shared, the slice is new.
func (s *Session) Benches() []*Subject { return slices.Clone(s.subjects) }

// Problems are the packages and benchmarks that cannot be compared.
func (s *Session) Problems() []Problem { return slices.Clone(s.problems) }

// Revision is what a side is.
func (s *Session) Revision(side sample.Side) verdict.Revision { return s.revs[side] }

// Machine says on what is measured, as keys of the Go benchmark format.
func (s *Session) Machine() []verdict.Fact { return slices.Clone(s.machine) }

// Root is the directory of a side's copy, which lives until Close. Callers read
// it.
func (s *Session) Root(side sample.Side) string { return s.sides[side].root }

// tree is the copy that a program of a side is built from. Controls are the
// same on both.
func (s *Session) tree(side sample.Side, key programKey) *tree {
	if key.module == controlModule {
		return s.controls
	}
	return s.sides[side]
}

func (s *Session) copies(ctx context.Context, progress func(string)) error {
	repo, err := openRepository(ctx, s.plan.Repo)
	if err != nil {
		return err
	}
	for side, name := range []string{s.plan.Base, s.plan.Head} {
		rev, err := repo.resolve(ctx, name, s.plan.Own)
		if err != nil {
			return fmt.Errorf("%s: %w", sample.Side(side), err)
		}
		t := &tree{root: filepath.Join(s.dir, sample.Side(side).String()), timeout: 10 * s.plan.Stuck, env: cleanEnvironment()}
		if err := repo.checkout(ctx, rev, t.root); err != nil {
			return fmt.Errorf("copy %s: %w", rev.Name, err)
		}
		s.sides[side], s.revs[side] = t, rev
	}
	if len(s.plan.HeadEdits) > 0 {
		if err := edit(s.sides[sample.Head].root, s.plan.HeadEdits); err != nil {
			return err
		}
		s.revs[sample.Head].Dirty = true
	}
	progress(fmt.Sprintf("base %s, head %s", s.revs[0].Short(), s.revs[1].Short()))
	return nil
}

// prepareTools lets both sides use the toolchain of the head, with the worker in
// it. module is one that the head has.
func (s *Session) prepareTools(ctx context.Context, module string) error {
	version, goroot, err := s.sides[sample.Head].toolchain(ctx, module)
	if err != nil {
		return err
	}
	overlay, err := writeOverlay(goroot, filepath.Join(s.dir, "overlay"))
	if err != nil {
		return err
	}
	s.controls = &tree{root: s.dir, timeout: 10 * s.plan.Stuck, env: cleanEnvironment()}
	for _, t := range []*tree{s.sides[0], s.sides[1], s.controls} {
		if t.overlay = overlay; release.MatchString(version) {
			t.env = append(t.env, "GOTOOLCHAIN="+version)
		}
	}
	s.machine = machineFacts(version)
	return nil
}

func machineFacts(version string) []verdict.Fact {
	m := sysmetrics.ThisMachine()
	facts := []verdict.Fact{{Key: "goos", Value: runtime.GOOS}, {Key: "goarch", Value: runtime.GOARCH}}
	for _, f := range []verdict.Fact{
		{Key: "cpu", Value: m.CPU}, {Key: "cores", Value: strconv.Itoa(m.Cores)}, {Key: "kernel", Value: m.Kernel}, {Key: "go", Value: version},
	} {
		if f.Value != "" {
			facts = append(facts, f)
		}
	}
	if l, err := sysmetrics.Limits(); err == nil && l.CPUs > 0 {
		facts = append(facts, verdict.Fact{Key: "cpu-quota", Value: strconv.FormatFloat(l.CPUs, 'g', 4, 64)})
	}
	return facts
}

// sources maps what the sides have: by side, package by key.
func (s *Session) sources(ctx context.Context, progress func(string)) ([2]map[programKey]packageSource, []string, error) {
	var found [2]map[programKey]packageSource
	wanted := make(map[string]bool)
	for _, e := range s.plan.Suite.Entries {
		wanted[e.Module] = true
	}
	var order []string
	for _, side := range []sample.Side{sample.Head, sample.Base} {
		t := s.sides[side]
		found[side] = make(map[programKey]packageSource)
		dirs, used, err := modules(ctx, t)
		if err != nil {
			return found, nil, fmt.Errorf("%s: %w", side, err)
		}
		t.used = used
		if len(wanted) > 0 {
			dirs = slices.DeleteFunc(dirs, func(d string) bool { return !wanted[d] })
		}
		if side == sample.Head {
			if len(dirs) == 0 {
				return found, nil, errors.New("the head has no module to measure")
			}
			order = dirs
			if err := s.prepareTools(ctx, dirs[0]); err != nil {
				return found, nil, err
			}
		}
		for _, module := range dirs {
			list, err := packagesOf(ctx, t, module)
			if ctx.Err() != nil {
				return found, nil, ctx.Err()
			}
			if err != nil {
				s.problem(progress, Problem{Side: side, Module: module, Err: err})
				continue
			}
			for _, p := range list {
				found[side][programKey{p.module, p.dir}] = p
			}
		}
	}
	return found, order, nil
}

func (s *Session) problem(progress func(string), p Problem) {
	s.problems = append(s.problems, p)
	progress("not compared: " + p.String())
}

// findSubjects builds the first layout of each package on both sides and asks
// the programs which benchmarks they have.
func (s *Session) findSubjects(ctx context.Context, progress func(string)) error {
	found, order, err := s.sources(ctx, progress)
	if err != nil {
		return err
	}
	entries := s.plan.Suite.Entries
	if len(entries) == 0 {
		for _, module := range order {
			var keys []programKey
			for key := range found[sample.Head] {
				if key.module == module {
					keys = append(keys, key)
				}
			}
			slices.SortFunc(keys, func(a, b programKey) int { return strings.Compare(a.dir, b.dir) })
			for _, key := range keys {
				e := Entry{Module: key.module, Package: key.dir, Match: s.plan.Match, Metric: s.plan.Metric}
				// A package without a function that may match is not built.
				if slices.ContainsFunc(slices.Collect(maps.Keys(found[sample.Head][key].functions)), e.mayMatch) {
					entries = append(entries, e)
				}
			}
		}
	}
	seen := make(map[sample.Bench]bool)
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		key := programKey{e.Module, e.Package}
		base, head := found[sample.Base][key], found[sample.Head][key]
		if len(head.functions) == 0 {
			s.problem(progress, Problem{Side: sample.Head, Module: e.Module, Package: e.Package, Err: errors.New("no benchmarks")})
			continue
		}
		var names [2][]string
		var broken [2]map[string]error
		var partial [2]bool // the names are not all
		for _, side := range []sample.Side{sample.Head, sample.Base} {
			if side == sample.Base && len(base.functions) == 0 {
				continue
			}
			has, err := s.list(ctx, side, key, e, found[side][key], progress)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			names[side], broken[side], partial[side] = has.names, has.broken, err != nil
			for _, name := range slices.Sorted(maps.Keys(has.broken)) {
				s.problem(progress, Problem{Side: side, Module: e.Module, Package: e.Package, Bench: name, Err: has.broken[name]})
			}
			if err != nil {
				s.problem(progress, Problem{Side: side, Module: e.Module, Package: e.Package, Err: err})
			}
		}
		pair := s.byKey[key]
		if pair == nil || pair[sample.Head] == nil {
			continue
		}
		if len(names[sample.Head])+len(broken[sample.Head]) == 0 && !partial[sample.Head] && len(s.plan.Suite.Entries) > 0 {
			s.problem(progress, Problem{Side: sample.Head, Module: e.Module, Package: e.Package, Err: fmt.Errorf("no benchmark matches %q", e.Match)})
		}
		for _, name := range names[sample.Base] {
			if len(names[sample.Head]) > 0 && !slices.Contains(names[sample.Head], name) && !partial[sample.Head] && !within(broken[sample.Head], name) {
				s.problem(progress, Problem{Side: sample.Base, Module: e.Module, Package: e.Package, Bench: name, Err: errors.New("the head has it no more")})
			}
		}
		for _, name := range names[sample.Head] {
			b := sample.Bench{Module: e.Module, Package: e.Package, Name: strings.TrimPrefix(name, "Benchmark")}
			if seen[b] {
				continue
			}
			seen[b] = true
			if !slices.Contains(names[sample.Base], name) && (partial[sample.Base] || within(broken[sample.Base], name)) {
				continue // not new: a problem says what the base does
			}
			function, _, _ := strings.Cut(name, "/")
			subject := &Subject{
				Bench: b, Metric: e.Metric, Tags: e.Tags, key: key,
				New:     !slices.Contains(names[sample.Base], name),
				Touched: base.files != head.files,
			}
			if !subject.New {
				subject.Identical = pair[0].fingerprint == pair[1].fingerprint
				subject.Changed = base.functions[function] != head.functions[function]
			} else if pair[sample.Base] == nil && len(base.functions) > 0 {
				continue // the base does not build; the problem says so
			}
			s.subjects = append(s.subjects, subject)
		}
	}
	if len(s.subjects) == 0 && s.plan.Match != "" {
		errs := []error{fmt.Errorf("no benchmark that the head has and that can be compared matches %q", s.plan.Match)}
		for _, p := range s.problems {
			errs = append(errs, errors.New(p.String()))
		}
		return errors.Join(errs...)
	}
	slices.SortStableFunc(s.subjects, func(a, b *Subject) int { return a.Risk() - b.Risk() })
	return nil
}

// within tells whether a benchmark is broken, by itself or in a parent.
func within(broken map[string]error, name string) bool {
	for b := range broken {
		if name == b || strings.HasPrefix(name, b+"/") {
			return true
		}
	}
	return false
}

// list links a program unless there is one and returns the leaves of an entry.
func (s *Session) list(ctx context.Context, side sample.Side, key programKey, e Entry, src packageSource, progress func(string)) (listed, error) {
	pair := s.byKey[key]
	if pair == nil {
		pair = new([2]*program)
		s.byKey[key] = pair
	}
	if pair[side] == nil {
		begin := time.Now()
		p, err := s.newProgram(ctx, side, key)
		if err != nil {
			return listed{}, err
		}
		pair[side] = p
		progress(fmt.Sprintf("%s: built %s in %.1f s", side, e.dir(), time.Since(begin).Seconds()))
	}
	var functions []string
	for f := range src.functions {
		if e.mayMatch(f) {
			functions = append(functions, f)
		}
	}
	if len(functions) == 0 {
		return listed{}, nil
	}
	return s.listWorker(ctx, pair[side], e.pattern())
}

// controlModule is the name and the directory of the controls' module. No
// repository has one of that name at its root.
const controlModule = "perflab-control"

// addControls writes the calibration kernels as a module of their own and
// builds them; the subjects go first.
func (s *Session) addControls(ctx context.Context, progress func(string)) error {
	if s.plan.Controls < 0 {
		return nil
	}
	dir := filepath.Join(s.controls.root, controlModule)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	for name, text := range map[string]string{
		"go.mod":          "module perflab.invalid/control\n\ngo 1.22\n",
		"kernels_test.go": calibrate.Source,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	key := programKey{controlModule, "."}
	p, err := s.newProgram(ctx, sample.Head, key)
	if err != nil {
		return fmt.Errorf("controls: %w", err)
	}
	s.byKey[key] = &[2]*program{p, p}
	has, err := s.listWorker(ctx, p, ".")
	for _, broken := range has.broken {
		err = errors.Join(err, broken)
	}
	if err != nil {
		return fmt.Errorf("controls: %w", err)
	}
	names := has.names
	if s.plan.Controls > 0 {
		names = names[:min(len(names), s.plan.Controls)]
	}
	controls := make([]*Subject, len(names))
	for i, name := range names {
		controls[i] = &Subject{
			Bench:   sample.Bench{Module: controlModule, Package: ".", Name: strings.TrimPrefix(name, "Benchmark")},
			Control: true, key: key,
		}
	}
	s.subjects = slices.Concat(controls, s.subjects)
	progress(fmt.Sprintf("%d controls, %d benchmarks", len(controls), len(s.subjects)-len(controls)))
	return nil
}

// random is a source for one purpose: the same for the same plan, subject and
// round.
func (s *Session) random(subject *Subject, round int) *rand.Rand {
	h := uint64(14695981039346656037) // FNV-1a
	for _, c := range []byte(subject.Bench.String()) {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return rand.New(rand.NewPCG(s.plan.Seed, h+uint64(round)*0x9e3779b97f4a7c15))
}
