package counters

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/portask/portask/ci/verdict"
)

// A piece is a benchmark whose instructions and statements are counted: work on
// one goroutine without waiting.
type piece struct {
	module, pkg, bench string
	// n iterations are counted, by the difference of a run of n+1 and one of 1:
	// the program's start is in both. It varies by some 50,000 instructions, hence
	// n for some 50 million.
	n int
}

// pieces are the data plane's inner loops.
var pieces = []piece{
	{"broker", "./message", "Builder/batch=64/value=100B", 80_000},
	{"broker", "./message", "Reader/batch=64/value=100B", 120_000},
	{"broker", "./serialization", "Message/codec=cbor/op=encode/by=portask", 60_000},
	{"broker", "./compression", "Zstd/level=fastest/size=64KiB/payload=orders", 40},
}

// compareWork counts instructions where valgrind is there, and statements where
// it is not: both are work done, of which only the first sees assembly and the
// standard library.
func compareWork(ctx context.Context, base, head Tree) ([]verdict.Counter, error) {
	tmp, err := os.MkdirTemp("", "perflab-counters-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	unit, limit, count := "Ir/op", limitInstructions, instructions
	if _, err := exec.LookPath("valgrind"); err != nil {
		unit, limit, count = "statements/op", limitStatements, statements
	}
	programs := make(map[string]string) // by side, package and way
	var out []verdict.Counter
	for _, p := range pieces {
		var counts [2][]float64
		var failed error
		for side, t := range []Tree{base, head} {
			key := strconv.Itoa(side) + p.module + p.pkg
			if programs[key] == "" {
				file := filepath.Join(tmp, strings.NewReplacer("/", "-", ".", "").Replace(key)+".test")
				if err := compile(ctx, t.Root, p, file, unit == "statements/op"); err != nil {
					failed = err
					break
				}
				programs[key] = file
			}
			n, err := count(ctx, programs[key], filepath.Join(t.Root, p.module, p.pkg), tmp, p)
			if err != nil {
				failed = err
				break
			}
			counts[side] = []float64{n}
		}
		name := unit + " " + p.module + p.pkg[1:] + "." + p.bench
		if ctx.Err() != nil {
			return out, ctx.Err()
		}
		if failed != nil {
			out = append(out, verdict.Counter{Name: name, Unit: unit, Limit: limit, Decision: verdict.Skipped, Reason: failed.Error()})
			continue
		}
		c := decide(name, unit, counts[0], counts[1], limit)
		// Once is enough to pass; to fail, all repetitions must agree.
		for i := 1; i < repeats && c.Decision == verdict.Fail; i++ {
			for side, t := range []Tree{base, head} {
				n, err := count(ctx, programs[strconv.Itoa(side)+p.module+p.pkg], filepath.Join(t.Root, p.module, p.pkg), tmp, p)
				if err != nil {
					return out, err
				}
				counts[side] = append(counts[side], n)
			}
			c = decide(name, unit, counts[0], counts[1], limit)
		}
		out = append(out, c)
	}
	return out, nil
}

// compile makes the test program of a piece; profiles of default.pgo have no
// part in it, since they move every function's inlining.
func compile(ctx context.Context, root string, p piece, file string, cover bool) error {
	args := []string{"test", "-c", "-pgo=off", "-trimpath", "-o", file}
	if cover {
		args = append(args, "-cover", "-covermode=count")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, p.pkg)...)
	cmd.Dir = filepath.Join(root, p.module)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go test -c %s: %w: %s", p.pkg, err, bytes.TrimSpace(out))
	}
	return nil
}

// benchArgs run exactly one benchmark for n iterations.
func (p piece) benchArgs(n int) []string {
	parts := strings.Split("Benchmark"+p.bench, "/")
	for i := range parts {
		parts[i] = "^" + parts[i] + "$"
	}
	return []string{"-test.run=^$", "-test.bench=" + strings.Join(parts, "/"), "-test.benchtime=" + strconv.Itoa(n) + "x", "-test.cpu=1"}
}

// instructions are callgrind's, a piece's iteration. Without asynchronous
// preemption, whose signals callgrind of valgrind 3.19 does not survive, and
// without collections, which come by heap size and not by work.
func instructions(ctx context.Context, program, dir, tmp string, p piece) (float64, error) {
	var ir [2]float64
	for i, n := range []int{1, p.n + 1} {
		profile := filepath.Join(tmp, "callgrind.out")
		cmd := exec.CommandContext(ctx, "valgrind", append([]string{"--tool=callgrind", "--callgrind-out-file=" + profile, program}, p.benchArgs(n)...)...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff=1", "GOGC=off", "GOMAXPROCS=1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			return 0, fmt.Errorf("callgrind of %s: %w: %s", p.bench, err, lastLine(out))
		}
		if !bytes.Contains(out, []byte("Benchmark"+p.bench)) {
			return 0, fmt.Errorf("%s has no benchmark %s", p.pkg, p.bench)
		}
		b, err := os.ReadFile(profile)
		if err != nil {
			return 0, err
		}
		if ir[i], err = parseTotals(string(b)); err != nil {
			return 0, err
		}
	}
	return (ir[1] - ir[0]) / float64(p.n), nil
}

// parseTotals reads the instructions of a callgrind profile: its line
// "totals: N", or "summary: N" where that is missing.
func parseTotals(profile string) (float64, error) {
	for line := range strings.Lines(profile) {
		for _, key := range []string{"totals:", "summary:"} {
			if rest, ok := strings.CutPrefix(line, key); ok {
				f := strings.Fields(rest)
				if len(f) == 0 {
					continue
				}
				return strconv.ParseFloat(f[0], 64)
			}
		}
	}
	return 0, errors.New("callgrind's profile has no totals")
}

// statements are those of the piece's own package that one iteration executes.
func statements(ctx context.Context, program, dir, tmp string, p piece) (float64, error) {
	var total [2]float64
	for i, n := range []int{1, p.n + 1} {
		profile := filepath.Join(tmp, "cover.out")
		cmd := exec.CommandContext(ctx, program, append([]string{"-test.coverprofile=" + profile}, p.benchArgs(n)...)...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			return 0, fmt.Errorf("coverage of %s: %w: %s", p.bench, err, lastLine(out))
		}
		if !bytes.Contains(out, []byte("Benchmark"+p.bench)) {
			return 0, fmt.Errorf("%s has no benchmark %s", p.pkg, p.bench)
		}
		b, err := os.ReadFile(profile)
		if err != nil {
			return 0, err
		}
		if total[i], err = parseCover(string(b)); err != nil {
			return 0, err
		}
	}
	return (total[1] - total[0]) / float64(p.n), nil
}

// parseCover sums statements times count of a coverage profile, whose lines are
// "file:from,to STATEMENTS COUNT" after "mode: count".
func parseCover(profile string) (float64, error) {
	if !strings.HasPrefix(profile, "mode: count") && !strings.HasPrefix(profile, "mode: atomic") {
		return 0, errors.New("the coverage profile does not count")
	}
	var sum float64
	for line := range strings.Lines(profile) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		n, err1 := strconv.ParseFloat(f[1], 64)
		times, err2 := strconv.ParseFloat(f[2], 64)
		if err := errors.Join(err1, err2); err != nil {
			return 0, fmt.Errorf("coverage line %q: %w", strings.TrimSpace(line), err)
		}
		sum += n * times
	}
	return sum, nil
}

func lastLine(b []byte) []byte {
	b = bytes.TrimSpace(b)
	return b[bytes.LastIndexByte(b, '\n')+1:]
}
