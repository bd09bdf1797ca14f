package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/portask/portask/broker/sysmetrics"
	"github.com/portask/portask/ci/sample"
)

// namesMax bounds the leaves of one package, lineMax an answer's length.
const (
	namesMax = 10_000
	lineMax  = 8 << 10
)

// ErrStuck is in the error of a round or a listing whose child did not answer
// in time and was killed.
var ErrStuck = errors.New("no answer in time")

// worker is a running test program. Not safe for concurrent use.
type worker struct {
	s        *Session
	cmd      *exec.Cmd
	commands *os.File
	answers  *os.File
	lines    *bufio.Reader
	output   *tail
	cancel   context.CancelFunc
	exited   bool
}

// startWorker starts a program in its package's directory, with its own
// temporary directory and its own process group.
func (s *Session) startWorker(ctx context.Context, p *program, file, mode, pattern string, procs int, more ...string) (*worker, error) {
	if s.closed {
		return nil, errors.New("session is closed")
	}
	args := []string{"-test.run=^$", "-test.bench=" + pattern, "-test.benchtime=1x", "-test.count=1", "-test.timeout=0"}
	args = append(args, more...)
	env := cleanEnvironment("PERFLAB_WORKER="+mode, "TMPDIR="+s.temp())
	if procs > 0 {
		env = append(env, fmt.Sprintf("GOMAXPROCS=%d", procs))
		args = append(args, fmt.Sprintf("-test.cpu=%d", procs))
	}
	fromUs, commands, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	answers, fromIt, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, fromUs.Close(), commands.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	w := &worker{s: s, commands: commands, answers: answers, output: new(tail), cancel: cancel}
	dir := filepath.Join(p.tree.root, filepath.FromSlash(p.key.module), filepath.FromSlash(p.key.dir))
	w.cmd = child(ctx, dir, env, file, args...)
	w.cmd.Stdout, w.cmd.Stderr = w.output, w.output
	w.cmd.ExtraFiles = []*os.File{fromUs, fromIt}
	err = w.cmd.Start()
	fromUs.Close()
	fromIt.Close()
	if err != nil {
		cancel()
		return nil, errors.Join(err, commands.Close(), answers.Close())
	}
	w.lines = bufio.NewReaderSize(answers, lineMax)
	s.running[w] = struct{}{}
	return w, nil
}

// kill ends the process group at once. The worker is of no use afterwards.
func (w *worker) kill() {
	if w.exited {
		return
	}
	w.exited = true
	_ = killGroup(w.cmd)
	w.finish()
}

func (w *worker) finish() {
	_ = w.commands.Close()
	_ = w.answers.Close()
	_ = w.cmd.Wait() // how a killed process ended tells nothing
	// What the benchmark started and did not end must not outlive it.
	_ = killGroup(w.cmd)
	w.cancel()
	delete(w.s.running, w)
}

// residentBytes is what the worker has of memory now, 0 where the system does not
// tell.
func (w *worker) residentBytes() int64 {
	p, err := sysmetrics.OpenProcess(w.cmd.Process.Pid)
	if err != nil {
		return 0
	}
	now, err := p.Sample()
	if err != nil {
		return 0
	}
	return now.RSSBytes
}

// end lets the worker finish and returns how often it was switched. After grace
// it is killed.
func (w *worker) end(grace time.Duration) (switches int64) {
	if !w.exited {
		w.exited = true
		_ = w.commands.Close()
		timer := time.AfterFunc(grace, w.cancel)
		// The answers end when the process does, unless something it started
		// holds its end; then the deadline.
		_ = w.answers.SetReadDeadline(time.Now().Add(grace))
		_, _ = io.Copy(io.Discard, w.answers)
		w.finish()
		timer.Stop()
	}
	if w.cmd.ProcessState == nil {
		return 0
	}
	return switched(w.cmd.ProcessState)
}

// line reads an answer. The error says what the program printed last if it
// ended instead.
func (w *worker) line(ctx context.Context, timeout time.Duration) (string, error) {
	if err := w.answers.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return "", err
	}
	b, err := w.lines.ReadSlice('\n')
	switch {
	case err == nil:
		return strings.TrimSuffix(string(b), "\n"), nil
	case ctx.Err() != nil:
		w.kill()
		return "", ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded):
		w.kill()
		return "", fmt.Errorf("%w (%v)", ErrStuck, timeout)
	case errors.Is(err, io.EOF):
		w.end(10 * time.Second)
		return "", w.ended()
	}
	w.kill()
	return "", fmt.Errorf("answer: %w", err)
}

// ended is the error of a program that ended before its time.
func (w *worker) ended() error {
	return fmt.Errorf("%w, %v: %s", errEnded, w.cmd.ProcessState, w.output.words())
}

var errEnded = errors.New("program ended")

// brokenMax is how many benchmarks of a package may end or hang its program in
// their first iteration; each costs a start of the others.
const brokenMax = 5

// listed is what a program has.
type listed struct {
	names []string
	// broken are benchmarks, named with their "Benchmark", that fail, end the
	// program or hang in the first iteration. They and what is below them are not
	// among names.
	broken map[string]error
}

// listWorker asks a program for the benchmarks that match. One that takes the
// program along is left out, and the program asked again for the others. With an
// error the result is what was found so far.
func (s *Session) listWorker(ctx context.Context, p *program, pattern string) (listed, error) {
	broken := make(map[string]error)
	var skip []string // the latest first: a parent before what is below it
	for {
		names, failed, inside, err := s.listOnce(ctx, p, pattern, strings.Join(skip, "|"))
		for name, err := range failed {
			broken[name] = err
		}
		names = slices.DeleteFunc(names, func(name string) bool { return within(broken, name) })
		found := listed{names, broken}
		switch {
		case err == nil || ctx.Err() != nil || inside == "" || slices.Contains(skip, exactly(inside)):
			return found, err
		case len(skip) == brokenMax:
			return found, fmt.Errorf("more than %d benchmarks end the program; %s: %w", brokenMax, inside, err)
		}
		broken[inside] = err
		skip = slices.Insert(skip, 0, exactly(inside))
	}
}

// listOnce runs a program for its benchmarks. failed are those that failed by
// themselves, inside is the innermost that had begun and not ended when the error
// came.
func (s *Session) listOnce(ctx context.Context, p *program, pattern, skip string) (names []string, failed map[string]error, inside string, err error) {
	var more []string
	if skip != "" {
		more = append(more, "-test.skip="+skip)
	}
	w, err := s.startWorker(ctx, p, p.layouts[firstLayout], "list", pattern, 1, more...)
	if err != nil {
		return nil, nil, "", err
	}
	defer w.kill()
	var begun, bad []string
	for {
		line, err := w.line(ctx, s.plan.Stuck)
		if err != nil {
			failed = make(map[string]error)
			for _, name := range bad {
				failed[name] = errors.New(w.output.failure(name))
			}
			if len(begun) > 0 {
				inside = begun[len(begun)-1]
			} else if errors.Is(err, errEnded) && ctx.Err() == nil && w.cmd.ProcessState != nil && (w.cmd.ProcessState.Success() || len(bad) > 0) {
				err = nil
			}
			return names, failed, inside, err
		}
		word, rest, _ := strings.Cut(line, " ")
		quoted, err := strconv.QuotedPrefix(rest)
		if err != nil {
			return names, nil, "", fmt.Errorf("answer %q", line)
		}
		name, err := strconv.Unquote(quoted)
		if err != nil || strings.ContainsAny(name, " \t\n") {
			return names, nil, "", fmt.Errorf("answer %q", line)
		}
		switch how := strings.TrimSpace(rest[len(quoted):]); {
		case word == "begin" && how == "" && len(begun) < namesMax:
			begun = append(begun, name)
		case word == "end" && len(begun) > 0 && begun[len(begun)-1] == name && (how == "ok" || how == "failed"):
			begun = begun[:len(begun)-1]
			// A parent fails with what is below it.
			below := func(other string) bool { return strings.HasPrefix(other, name+"/") }
			if how == "failed" && !slices.ContainsFunc(bad, below) {
				bad = append(bad, name)
			}
		case word == "name" && how == "":
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		default:
			return names, nil, "", fmt.Errorf("answer %q", line)
		}
		if len(names)+len(bad) > namesMax {
			return names, nil, "", fmt.Errorf("more than %d benchmarks", namesMax)
		}
	}
}

// exactly is the pattern for one benchmark, named with its "Benchmark".
func exactly(name string) string {
	parts := strings.Split(name, "/")
	for i, p := range parts {
		parts[i] = "^" + regexp.QuoteMeta(p) + "$"
	}
	return strings.Join(parts, "/")
}

// serve starts a worker for a subject and waits until its first iteration is
// done.
func (s *Session) serve(ctx context.Context, subject *Subject, p *program, file string) (*worker, error) {
	procs := 1
	if subject.Metric == sample.Wall {
		procs = 0
	}
	name := "Benchmark" + subject.Bench.Name
	w, err := s.startWorker(ctx, p, file, "serve", exactly(name), procs)
	if err != nil {
		return nil, err
	}
	line, err := w.line(ctx, s.plan.Stuck)
	if err != nil {
		w.kill()
		return nil, err
	}
	if quoted, ok := strings.CutPrefix(line, "ready "); !ok || quoted != strconv.Quote(name) {
		w.kill()
		return nil, fmt.Errorf("answer %q, not ready for %s", line, name)
	}
	return w, nil
}

// call is one slice and how long the worker was at it, set-up included.
type call struct {
	sample.Slice
	elapsed time.Duration
}

// run has the worker do n iterations.
func (w *worker) run(ctx context.Context, n int) (call, error) {
	pid := w.cmd.Process.Pid
	delay := runDelay(pid)
	begin := time.Now()
	if _, err := fmt.Fprintf(w.commands, "%d\n", n); err != nil {
		if ctx.Err() != nil {
			return call{}, ctx.Err()
		}
		w.end(10 * time.Second)
		return call{}, w.ended()
	}
	line, err := w.line(ctx, w.s.plan.Stuck)
	if err != nil {
		return call{}, err
	}
	c := call{elapsed: time.Since(begin)}
	// Threads that ended in between take their delay with them.
	c.DelayNs = max(0, runDelay(pid)-delay)
	if err := c.parse(line); err != nil {
		w.kill()
		return call{}, err
	}
	if c.N != n {
		w.kill()
		return call{}, fmt.Errorf("ran %d iterations instead of %d", c.N, n)
	}
	return c, nil
}

func (c *call) parse(line string) error {
	fields := strings.Fields(line)
	if len(fields) != 5 {
		return fmt.Errorf("answer %q", line)
	}
	var v [5]int64
	for i, f := range fields {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil || n < 0 {
			return fmt.Errorf("answer %q", line)
		}
		v[i] = n
	}
	c.N, c.Ns, c.CPUNs, c.Allocs, c.Bytes = int(v[0]), v[1], v[2], v[3], v[4]
	return nil
}
