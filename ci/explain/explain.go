// Package explain says why a benchmark got slower: which functions execute more
// instructions, take more CPU time or allocate more, and what the compiler does
// differently (what escapes to the heap, what is no longer inlined).
//
// It builds the stock test programs of both revisions, without the gate's
// worker, and runs one benchmark in turns, as often on both sides:
//
//   - under callgrind, where valgrind is installed: instructions of each
//     function. They repeat to a few hundredths of a per cent and name the place
//     of a difference that no sampling could;
//   - under the CPU profiler: time of each function, and by the innermost function
//     of the module that is responsible for it. Samples are counts of a Poisson
//     process: a difference is told only beyond 3 standard deviations and 1 % of the whole;
//   - under the allocation profiler with every allocation recorded.
package explain

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/pprof/profile"
	"golang.org/x/perf/benchfmt"

	"github.com/portask/portask/ci/sample"
	"github.com/portask/portask/ci/verdict"
)

// Options of Explain.
type Options struct {
	// Base and Head are the roots of both revisions' source.
	Base, Head string
	Bench      sample.Bench
	// OneCPU runs with GOMAXPROCS=1, as the gate does benchmarks that are judged
	// by CPU time.
	OneCPU bool
	// Turns of one second of each side under the CPU profiler; 0 is 6.
	Turns int
	// Seed of the order.
	Seed uint64
	// Keep is a directory for the merged profiles of both sides and their
	// difference, for `go tool pprof`; empty: they are not kept.
	Keep     string
	Progress func(string)
}

// Thresholds of what is told.
const (
	sigmasMin    = 3     // standard deviations of a sampled difference
	shareMin     = 0.01  // of the base's whole, sampled
	exactMin     = 0.002 // of the base's whole, counted
	functionsMax = 8
	notesMax     = 12
)

// Explanation is what was found.
type Explanation struct {
	// Top are the functions that moved, instructions first, then CPU, then
	// allocation; within a kind what grew most comes first.
	Top []verdict.Function `json:"top"`
	// Notes are sentences: totals, the compiler's differences, what could not
	// be had.
	Notes []string `json:"notes"`
}

// Apply puts the explanation into an entry.
func (x *Explanation) Apply(e *verdict.Entry) { e.Top, e.Notes = x.Top, append(e.Notes, x.Notes...) }

func (x *Explanation) note(format string, args ...any) {
	x.Notes = append(x.Notes, fmt.Sprintf(format, args...))
}

// side is one revision's program and what its runs gave.
type side struct {
	root, dir, program string
	cpu                []*profile.Profile
	alloc              *profile.Profile
	ops, allocOps      int64
	diagnostics        map[string]int
}

type runner struct {
	o     Options
	tmp   string
	sides [2]*side
	n     int
	own   []string // module paths of the repository
}

// Explain needs the go command, and takes about two seconds a turn and as long
// again for the rest. What cannot be had (no valgrind, a benchmark that
// callgrind cannot run) becomes a note; an error means that there is nothing.
func Explain(ctx context.Context, o Options) (*Explanation, error) {
	return explain(ctx, o, func(r *runner, x *Explanation) error {
		if err := r.instructions(ctx, x); err != nil {
			if ctx.Err() != nil {
				return err
			}
			x.note("no instruction counts: %v", err)
		}
		if err := r.profiles(ctx); err != nil {
			return err
		}
		if err := r.compareCPU(x); err != nil {
			return err
		}
		if err := r.allocations(ctx); err != nil {
			return err
		}
		return r.compareAlloc(x)
	})
}

// Allocations is Explain of a benchmark that allocates more, whatever its time:
// the functions that do, by objects, then by bytes, and what the compiler does
// differently. It takes some seconds. Options.Turns is not used, and Keep gets
// the allocation profiles alone.
func Allocations(ctx context.Context, o Options) (*Explanation, error) {
	return explain(ctx, o, func(r *runner, x *Explanation) error {
		r.o.Progress(fmt.Sprintf("explain allocations of %s", o.Bench))
		if err := r.allocations(ctx); err != nil {
			return err
		}
		if err := r.compareObjects(x); err != nil {
			return err
		}
		return r.compareAlloc(x)
	})
}

// explain builds both sides, has look find differences, and adds the
// compiler's.
func explain(ctx context.Context, o Options, look func(*runner, *Explanation) error) (*Explanation, error) {
	if o.Turns == 0 {
		o.Turns = 6
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	tmp, err := os.MkdirTemp("", "perflab-explain-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	r := &runner{o: o, tmp: tmp}
	for i, root := range []string{o.Base, o.Head} {
		s := &side{root: root, dir: filepath.Join(root, filepath.FromSlash(o.Bench.Module), filepath.FromSlash(o.Bench.Package)), program: filepath.Join(tmp, fmt.Sprintf("%s.test", sample.Side(i)))}
		r.sides[i] = s
		if err := s.build(ctx, filepath.Join(root, filepath.FromSlash(o.Bench.Module)), o.Bench.Package); err != nil {
			return nil, fmt.Errorf("%s: %w", sample.Side(i), err)
		}
	}
	r.own = modulePaths(ctx, filepath.Join(o.Head, filepath.FromSlash(o.Bench.Module)))
	x := new(Explanation)
	if err := r.calibrate(ctx); err != nil {
		return nil, err
	}
	if err := look(r, x); err != nil {
		return nil, err
	}
	if err := r.compiler(ctx, x); err != nil {
		x.note("no comparison of what the compiler does: %v", err)
	}
	if len(x.Notes) > notesMax {
		x.Notes = append(x.Notes[:notesMax:notesMax], fmt.Sprintf("and %d more", len(x.Notes)-notesMax))
	}
	if o.Keep != "" {
		if err := r.keep(); err != nil {
			return nil, err
		}
	}
	return x, nil
}

// build makes the stock test program.
func (s *side) build(ctx context.Context, dir, pkg string) error {
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-trimpath", "-o", s.program, pkg)
	cmd.Dir = dir
	if b, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go test -c %s: %w: %s", pkg, err, bytes.TrimSpace(b))
	}
	if _, err := os.Stat(s.program); err != nil {
		return fmt.Errorf("%s has no tests", pkg)
	}
	return nil
}

// modulePaths are the repository's own modules; functions of others are
// somebody's else.
func modulePaths(ctx context.Context, dir string) []string {
	cmd := exec.CommandContext(ctx, "go", "list", "-m")
	cmd.Dir = dir
	b, err := cmd.Output()
	if err != nil {
		return nil
	}
	return strings.Fields(string(b))
}

// command runs exactly the benchmark for n iterations.
func (r *runner) command(ctx context.Context, s *side, n int, more ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, s.program, append(r.args(n), more...)...)
	cmd.Dir = s.dir
	if r.o.OneCPU {
		cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	}
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

func (r *runner) args(n int) []string {
	parts := strings.Split("Benchmark"+r.o.Bench.Name, "/")
	for i, p := range parts {
		parts[i] = "^" + regexpQuote(p) + "$"
	}
	return []string{"-test.run=^$", "-test.bench=" + strings.Join(parts, "/"), "-test.benchtime=" + strconv.Itoa(n) + "x"}
}

// regexpQuote escapes what the testing package would take for an operator.
func regexpQuote(s string) string {
	return strings.NewReplacer("(", `\(`, ")", `\)`, "+", `\+`, "*", `\*`, ".", `\.`, "[", `\[`, "]", `\]`, "|", `\|`, "$", `\$`, "^", `\^`, "?", `\?`, "{", `\{`, "}", `\}`).Replace(s)
}

// result is the line that a benchmark printed.
type result struct{ n, ns float64 }

func parse(out []byte, name string) (result, error) {
	reader := benchfmt.NewReader(bytes.NewReader(out), name)
	for reader.Scan() {
		if rec, ok := reader.Result().(*benchfmt.Result); ok {
			if v, ok := rec.Value("sec/op"); ok {
				return result{n: float64(rec.Iters), ns: v * 1e9}, nil
			}
		}
	}
	return result{}, fmt.Errorf("no result of %s in %.300q", name, out)
}

// slowest is how many seconds a turn of the head may take. A head many times
// slower than its base gets fewer iterations: six turns of one 58 times slower
// took more than five minutes, and had nothing to find that a second does not show.
const slowest = 4

// calibrate finds how many iterations take about a second on the base, and not
// more than slowest on the head.
func (r *runner) calibrate(ctx context.Context) error {
	r.n = math.MaxInt
	for i := range r.sides {
		n, err := r.second(ctx, sample.Side(i))
		if err != nil {
			return fmt.Errorf("%s: %w", sample.Side(i), err)
		}
		if i == int(sample.Head) {
			n = min(slowest*n, 1e9)
		}
		r.n = min(r.n, n)
	}
	return nil
}

// second is how many iterations take a side about a second, at most 1e9.
func (r *runner) second(ctx context.Context, side sample.Side) (int, error) {
	n := 1
	for {
		out, err := r.command(ctx, r.sides[side], n).CombinedOutput()
		if err != nil {
			return 0, fmt.Errorf("%w: %s", err, lastLine(out))
		}
		got, err := parse(out, r.o.Bench.Name)
		if err != nil {
			return 0, err
		}
		total := got.ns * float64(n)
		if total > 2e8 || n >= 1e9 {
			return max(1, int(math.Min(float64(n)*1e9/max(total, 1), 1e9))), nil
		}
		n = int(min(float64(n)*min(max(4e8/max(total, 1), 2), 100), 1e9))
	}
}

// profiles runs the turns.
func (r *runner) profiles(ctx context.Context) error {
	random := rand.New(rand.NewPCG(r.o.Seed, 1))
	r.o.Progress(fmt.Sprintf("explain %s: %d turns of %d iterations under the profilers", r.o.Bench, r.o.Turns, r.n))
	for turn := range r.o.Turns {
		for _, i := range random.Perm(2) {
			s := r.sides[i]
			file := filepath.Join(r.tmp, "cpu")
			out, err := r.command(ctx, s, r.n, "-test.cpuprofile="+file).CombinedOutput()
			if err != nil {
				return fmt.Errorf("%s, turn %d: %w: %s", sample.Side(i), turn, err, lastLine(out))
			}
			p, err := read(file)
			if err != nil {
				return err
			}
			s.cpu = append(s.cpu, p)
			s.ops += int64(r.n) + 1 // testing runs one iteration first
		}
	}
	return nil
}

// recordedMax bounds the iterations whose allocations are recorded, each at the
// cost of a stack: a head that allocates in an operation of a nanosecond took
// half a minute, and tells no more than this.
const recordedMax = 100_000

// allocations records each allocation of a run of both sides. Objects of less
// than 16 bytes without pointers share blocks and are counted by these.
func (r *runner) allocations(ctx context.Context) error {
	few := min(max(1, r.n/20), recordedMax)
	for i, s := range r.sides {
		file := filepath.Join(r.tmp, "mem")
		out, err := r.command(ctx, s, few, "-test.memprofile="+file, "-test.memprofilerate=1").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s, allocations: %w: %s", sample.Side(i), err, lastLine(out))
		}
		if s.alloc, err = read(file); err != nil {
			return err
		}
		s.alloc.Sample = slices.DeleteFunc(s.alloc.Sample, atStart)
		s.allocOps = int64(few) + 1
	}
	return nil
}

func read(file string) (*profile.Profile, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return profile.ParseData(b)
}

// owns tells whether a function is the repository's.
func (r *runner) owns(function string) bool {
	for _, m := range r.own {
		if rest, ok := strings.CutPrefix(function, m); ok && (rest == "" || rest[0] == '/' || rest[0] == '.' || rest[0] == '_') {
			return true
		}
	}
	return false
}

// responsible is the innermost function of a stack that belongs to the
// repository; where there is none, the innermost.
func (r *runner) responsible(s *profile.Sample) string {
	leaf := "?"
	for i, loc := range s.Location {
		for k, l := range loc.Line {
			if l.Function == nil {
				continue
			}
			if i == 0 && k == 0 {
				leaf = l.Function.Name
			}
			if r.owns(l.Function.Name) {
				return l.Function.Name
			}
		}
	}
	return leaf
}

// leaf is the function that was executing.
func leaf(s *profile.Sample) string {
	if len(s.Location) > 0 && len(s.Location[0].Line) > 0 && s.Location[0].Line[0].Function != nil {
		return s.Location[0].Line[0].Function.Name
	}
	return "?"
}

// sums adds up the value with index i by function.
func sums(p *profile.Profile, i int, by func(*profile.Sample) string) (map[string]int64, int64) {
	out := map[string]int64{}
	var total int64
	for _, s := range p.Sample {
		out[by(s)] += s.Value[i]
		total += s.Value[i]
	}
	return out, total
}

// moved compares counts of two sides that were taken over as many operations,
// scaled to an operation by unit. Differences below sigmas Poisson deviations,
// or below share of the base's total, are left out.
func moved(kind string, base, head map[string]int64, totalBase int64, unitBase, unitHead, sigmas, share float64, top int) []verdict.Function {
	names := map[string]bool{}
	for n := range base {
		names[n] = true
	}
	for n := range head {
		names[n] = true
	}
	var out []verdict.Function
	for n := range names {
		b, h := float64(base[n]), float64(head[n])
		f := verdict.Function{Name: n, Kind: kind, Base: b * unitBase, Head: h * unitHead}
		if b+h > 0 {
			f.Sigmas = math.Abs(h-b) / math.Sqrt(b+h)
		}
		if math.Abs(f.Head-f.Base) >= share*float64(totalBase)*unitBase && f.Sigmas >= sigmas && f.Head != f.Base {
			out = append(out, f)
		}
	}
	slices.SortFunc(out, func(a, b verdict.Function) int {
		if x, y := a.Head-a.Base, b.Head-b.Base; x != y {
			if x > y {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Name, b.Name)
	})
	// What grew is wanted first, but what shrank explains an exchange.
	if len(out) > top {
		grew := slices.IndexFunc(out, func(f verdict.Function) bool { return f.Head < f.Base })
		if grew < 0 || grew >= top {
			out = out[:top]
		} else {
			out = append(out[:grew:grew], out[len(out)-(top-grew):]...)
		}
	}
	return out
}

func (r *runner) compareCPU(x *Explanation) error {
	var merged [2]*profile.Profile
	var err error
	for i, s := range r.sides {
		if merged[i], err = profile.Merge(s.cpu); err != nil {
			return err
		}
	}
	var counts [2]map[string]int64
	var total [2]int64
	for i, p := range merged {
		counts[i], total[i] = sums(p, 0, r.responsible)
	}
	if total[0] == 0 || total[1] == 0 {
		x.note("the CPU profiler took no sample")
		return nil
	}
	ns := func(i int) float64 { return float64(merged[i].Period) / float64(r.sides[i].ops) }
	found := moved("cpu", counts[0], counts[1], total[0], ns(0), ns(1), sigmasMin, shareMin, functionsMax)
	x.Top = append(x.Top, found...)
	x.note("CPU profiles: %d samples of base, %d of head, over as many operations", total[0], total[1])
	if len(found) == 0 {
		if all := moved("cpu", counts[0], counts[1], total[0], ns(0), ns(1), 0, 0, 1); len(all) > 0 && all[0].Head > all[0].Base {
			x.note("no function's samples moved beyond %d sigma; %s grew most, by %.1f ns/op (%.1f sigma)", sigmasMin, all[0].Name, all[0].Head-all[0].Base, all[0].Sigmas)
		}
	}
	for i, p := range merged {
		counts[i], total[i] = sums(p, 0, leaf)
	}
	for k, f := range moved("cpu", counts[0], counts[1], total[0], ns(0), ns(1), sigmasMin, shareMin, 4) {
		if !r.owns(f.Name) && k < 4 {
			x.note("of that, in %s: %.1f -> %.1f ns/op (%.1f sigma)", f.Name, f.Base, f.Head, f.Sigmas)
		}
	}
	return nil
}

// atStart tells of a sample of the program's main goroutine: what it allocates
// before the first benchmark, which runs on one of its own. It differs from run
// to run.
func atStart(s *profile.Sample) bool {
	n := len(s.Location)
	if n == 0 {
		return true
	}
	lines := s.Location[n-1].Line
	return len(lines) > 0 && lines[len(lines)-1].Function != nil && lines[len(lines)-1].Function.Name == "runtime.main"
}

// allocated adds up a value of both allocation profiles by function; unit turns
// a sum into one an operation.
func (r *runner) allocated(value string) (counts [2]map[string]int64, total [2]int64, unit [2]float64, err error) {
	for i, s := range r.sides {
		k := slices.IndexFunc(s.alloc.SampleType, func(t *profile.ValueType) bool { return t.Type == value })
		if k < 0 {
			return counts, total, unit, errors.New("allocation profile without " + value)
		}
		counts[i], total[i] = sums(s.alloc, k, r.responsible)
		unit[i] = 1 / float64(s.allocOps)
	}
	return counts, total, unit, nil
}

func (r *runner) compareAlloc(x *Explanation) error {
	counts, total, unit, err := r.allocated("alloc_space")
	if err != nil {
		return err
	}
	for _, f := range moved("alloc", counts[0], counts[1], total[0], unit[0], unit[1], sigmasMin, shareMin, functionsMax) {
		if math.Abs(f.Head-f.Base) >= 1 { // a byte an operation
			x.Top = append(x.Top, f)
		}
	}
	_, total, unit, err = r.allocated("alloc_objects")
	if err != nil {
		return err
	}
	// What is allocated once, at start, is noise; an object in a hundred
	// operations is not.
	if d := float64(total[1])*unit[1] - float64(total[0])*unit[0]; math.Abs(d) > 0.01 {
		x.note("allocations: %.2f -> %.2f objects/op", float64(total[0])*unit[0], float64(total[1])*unit[1])
	}
	return nil
}

// objectsMin is the least difference of objects an operation that a function is
// named for; each allocation is recorded, so a count needs no deviations.
const objectsMin = 0.05

func (r *runner) compareObjects(x *Explanation) error {
	counts, total, unit, err := r.allocated("alloc_objects")
	if err != nil {
		return err
	}
	for _, f := range moved("objects", counts[0], counts[1], total[0], unit[0], unit[1], 0, 0, functionsMax) {
		if math.Abs(f.Head-f.Base) >= objectsMin {
			x.Top = append(x.Top, f)
		}
	}
	return nil
}

// keep writes the profiles that were taken, those of CPU time merged and with
// head minus base.
func (r *runner) keep() error {
	if err := os.MkdirAll(r.o.Keep, 0o777); err != nil {
		return err
	}
	kept := map[string]*profile.Profile{"base.alloc": r.sides[0].alloc, "head.alloc": r.sides[1].alloc}
	if len(r.sides[0].cpu) > 0 {
		base, err := profile.Merge(r.sides[0].cpu)
		if err != nil {
			return err
		}
		head, err := profile.Merge(r.sides[1].cpu)
		if err != nil {
			return err
		}
		minus := base.Copy()
		minus.Scale(-1)
		diff, err := profile.Merge([]*profile.Profile{minus, head})
		if err != nil {
			return err
		}
		kept["base.cpu"], kept["head.cpu"], kept["diff.cpu"] = base, head, diff
	}
	for name, p := range kept {
		for _, m := range p.Mapping {
			m.File, m.BuildID = path.Base(filepath.ToSlash(m.File)), ""
		}
		f, err := os.Create(filepath.Join(r.o.Keep, name+".pb.gz"))
		if err != nil {
			return err
		}
		if err := errors.Join(p.Write(f), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}
