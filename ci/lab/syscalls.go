package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ErrNoCounter reports that the machine offers no way to count the system
// calls of another process: neither perf's raw_syscalls tracepoint nor strace.
var ErrNoCounter = errors.New("no way to count system calls: perf cannot use raw_syscalls:sys_enter and strace is missing or forbidden")

// syscallCounter counts the system calls of a process between its start and
// stop. perf counts in the kernel and costs the process about 50 ns a call;
// strace stops the process at each one, so that fewer batches pass, with the
// same calls for each as long as the server stays saturated.
type syscallCounter struct {
	name string
	p    *process
	out  func() (int64, error)
}

func countSyscalls(ctx context.Context, pid int) (*syscallCounter, error) {
	if _, err := exec.LookPath("perf"); err == nil {
		if exec.CommandContext(ctx, "perf", "stat", "-e", "raw_syscalls:sys_enter", "-x,", "true").Run() == nil {
			p, err := start(ctx, "perf", "perf", []string{"stat", "-e", "raw_syscalls:sys_enter", "-x,", "-p", strconv.Itoa(pid)}, nil, io.Discard)
			if err != nil {
				return nil, err
			}
			return attached(p, "perf", func() (int64, error) { return parsePerf(p.stderr.String()) })
		}
	}
	if _, err := exec.LookPath("strace"); err == nil {
		p, err := start(ctx, "strace", "strace", []string{"-c", "-f", "-q", "-p", strconv.Itoa(pid)}, nil, io.Discard)
		if err != nil {
			return nil, err
		}
		return attached(p, "strace", func() (int64, error) { return parseStrace(p.stderr.String()) })
	}
	return nil, ErrNoCounter
}

// attached gives the tool time to attach: neither says when it has.
func attached(p *process, name string, out func() (int64, error)) (*syscallCounter, error) {
	select {
	case <-p.ended:
		return nil, fmt.Errorf("%w (%s: %s)", ErrNoCounter, name, p.stderr)
	case <-time.After(300 * time.Millisecond):
	}
	return &syscallCounter{name: name, p: p, out: out}, nil
}

func (c *syscallCounter) stop() (int64, error) {
	if err := c.p.signal(syscall.SIGINT, 10*time.Second); err != nil {
		return 0, err
	}
	return c.out()
}

// parsePerf reads the one line that perf stat -x, prints:
// "1234,,raw_syscalls:sys_enter,...".
func parsePerf(s string) (int64, error) {
	for line := range strings.Lines(s) {
		if f := strings.Split(line, ","); len(f) > 2 && strings.HasPrefix(f[2], "raw_syscalls:sys_enter") {
			return strconv.ParseInt(f[0], 10, 64)
		}
	}
	return 0, fmt.Errorf("no count in perf's output %q", s)
}

// parseStrace reads the last line of strace -c, "100.00 0.1 12 3456 [errors] total".
func parseStrace(s string) (int64, error) {
	for line := range bytes.Lines([]byte(s)) {
		f := bytes.Fields(line)
		if len(f) >= 5 && string(f[len(f)-1]) == "total" {
			return strconv.ParseInt(string(f[3]), 10, 64)
		}
	}
	return 0, fmt.Errorf("no total in strace's output %q", s)
}
