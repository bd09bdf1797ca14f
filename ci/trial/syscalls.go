package trial

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/portask/portask/ci/bench"
	"github.com/portask/portask/ci/sample"
	"github.com/portask/portask/ci/verdict"
)

// ErrNoCounter: neither perf nor strace can count system calls here.
var ErrNoCounter = errors.New("system calls cannot be counted: perf has no raw_syscalls:sys_enter here, and there is no strace")

// Iterations of the short and the long run whose difference is counted; what a
// program does before and after its benchmark is in both.
const (
	shortRun = 1000
	longRun  = 3000
	// callRepeats of both, which must agree.
	callRepeats = 3
	// An operation's share of the runtime's own calls varies with the machine;
	// half a call more is no such share.
	callsLeast = 0.5
	callsLimit = 0.005
)

// Syscalls counts the system calls of an operation of a benchmark on both
// sides. It builds the stock test programs in the session's copies.
func Syscalls(ctx context.Context, s *bench.Session, b sample.Bench) (verdict.Counter, error) {
	c := verdict.Counter{Name: "syscalls/op " + b.String(), Unit: "syscalls/op", Limit: callsLimit, Decision: verdict.Skipped}
	tmp, err := os.MkdirTemp("", "perflab-calls-")
	if err != nil {
		return c, err
	}
	defer os.RemoveAll(tmp)
	counter, err := chooseCounter(ctx)
	if err != nil {
		c.Reason = err.Error()
		return c, nil
	}
	var programs, dirs [2]string
	for i := range programs {
		module := filepath.Join(s.Root(sample.Side(i)), filepath.FromSlash(b.Module))
		dirs[i] = filepath.Join(module, filepath.FromSlash(b.Package))
		programs[i] = filepath.Join(tmp, sample.Side(i).String()+".test")
		cmd := exec.CommandContext(ctx, "go", "test", "-c", "-trimpath", "-vet=off", "-o", programs[i], b.Package)
		cmd.Dir = module
		if out, err := cmd.CombinedOutput(); err != nil {
			return c, fmt.Errorf("%s of %s: %w: %.400s", sample.Side(i), b, err, out)
		}
	}
	var values [2][]float64
	for range callRepeats {
		for i := range programs {
			short, err := counter(ctx, tmp, dirs[i], programs[i], b, shortRun)
			if err != nil {
				return c, err
			}
			long, err := counter(ctx, tmp, dirs[i], programs[i], b, longRun)
			if err != nil {
				return c, err
			}
			values[i] = append(values[i], float64(long-short)/(longRun-shortRun))
		}
	}
	middle := func(x []float64) float64 { return slices.Sorted(slices.Values(x))[len(x)/2] }
	c.Base, c.Head, c.Decision = max(middle(values[0]), 0), max(middle(values[1]), 0), verdict.Pass
	if least, most := slices.Min(values[1]), max(slices.Max(values[0]), 0); least > most*(1+callsLimit) && least-most >= callsLeast {
		c.Decision = verdict.Fail
		c.Reason = fmt.Sprintf("%.2f, was %.2f, in each of %d counts", c.Head, c.Base, callRepeats)
	}
	return c, nil
}

// countCalls runs a benchmark for n iterations and counts the program's calls.
type countCalls func(ctx context.Context, tmp, dir, program string, b sample.Bench, n int) (int64, error)

func chooseCounter(ctx context.Context) (countCalls, error) {
	if exec.CommandContext(ctx, "perf", "stat", "-e", "raw_syscalls:sys_enter", "-x,", "true").Run() == nil {
		return func(ctx context.Context, tmp, dir, program string, b sample.Bench, n int) (int64, error) {
			return runCounted(ctx, tmp, dir, program, b, n, parsePerf, "perf", "stat", "-e", "raw_syscalls:sys_enter", "-x,", "-o")
		}, nil
	}
	if _, err := exec.LookPath("strace"); err == nil {
		return func(ctx context.Context, tmp, dir, program string, b sample.Bench, n int) (int64, error) {
			return runCounted(ctx, tmp, dir, program, b, n, parseStrace, "strace", "-f", "-c", "-q", "-o")
		}, nil
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return nil, ErrNoCounter
}

func runCounted(ctx context.Context, tmp, dir, program string, b sample.Bench, n int, parse func(string) (int64, error), tool ...string) (int64, error) {
	out := filepath.Join(tmp, "count")
	args := append(slices.Clone(tool[1:]), out, program, "-test.run=^$", "-test.bench="+exactly(b.Name), "-test.cpu=1",
		fmt.Sprintf("-test.benchtime=%dx", n))
	cmd := exec.CommandContext(ctx, tool[0], args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "GOGC=off", "GOMEMLIMIT=1GiB", "GODEBUG=asyncpreemptoff=1")
	if text, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("count system calls of %s: %w: %.400s", b, err, text)
	}
	text, err := os.ReadFile(out)
	if err != nil {
		return 0, err
	}
	return parse(string(text))
}

// exactly is the pattern of one benchmark.
func exactly(name string) string {
	parts := strings.Split("Benchmark"+name, "/")
	for i, p := range parts {
		parts[i] = "^" + regexp.QuoteMeta(p) + "$"
	}
	return strings.Join(parts, "/")
}

// parsePerf reads "1234,,raw_syscalls:sys_enter,...".
func parsePerf(s string) (int64, error) {
	for line := range strings.Lines(s) {
		if f := strings.Split(line, ","); len(f) > 2 && strings.HasPrefix(f[2], "raw_syscalls:sys_enter") {
			return strconv.ParseInt(f[0], 10, 64)
		}
	}
	return 0, fmt.Errorf("no count in perf's output %.200q", s)
}

// parseStrace reads the last line of strace -c, "100.00 0.1 12 3456 [errors] total".
func parseStrace(s string) (int64, error) {
	for line := range strings.Lines(s) {
		f := strings.Fields(line)
		if len(f) >= 5 && f[len(f)-1] == "total" {
			return strconv.ParseInt(f[3], 10, 64)
		}
	}
	return 0, fmt.Errorf("no total in strace's output %.200q", s)
}
