package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Steps is what a broker does for batches that come one at a time: the next is
// sent when the last is answered and delivered. Nothing piles up that could be
// served together, so the counts hardly depend on how busy the machine is.
type Steps struct {
	Variant  Variant `json:"variant"`
	Batches  int64   `json:"batches"`
	Messages int64   `json:"messages"`
	// Calls are system calls a batch, Syncs those of them that sync a file.
	Calls float64 `json:"syscalls_per_batch"`
	Syncs float64 `json:"syncs_per_batch"`
	// DiskBytes are bytes of the log a message, as the broker tells of its
	// partition: without what is reserved ahead of the log's end.
	DiskBytes float64 `json:"disk_bytes_per_message"`
}

// stepBytes is more than one batch of a Load's size in bytes and less than two.
func (o *Load) stepBytes() int { return o.BatchMessages*(o.MessageBytes+64) + 4096 }

// Steps sends batches one at a time and counts with strace. It returns
// ErrNoCounter where strace is missing or forbidden.
func (l *Lab) Steps(ctx context.Context, v Variant, batches int) (Steps, error) {
	r := Steps{Variant: v}
	var o Load
	o.setDefaults()
	o.WindowBytes = o.stepBytes()
	dir, remove, err := l.scratch()
	if err != nil {
		return r, err
	}
	defer remove()
	data := filepath.Join(dir, "data")
	s, err := l.broker(ctx, data, filepath.Join(dir, "addr"))
	if err != nil {
		return r, err
	}
	defer s.kill()
	if err := l.createTopic(ctx, s.addr, v.Visibility, "--retention-bytes", "unlimited"); err != nil {
		return r, err
	}
	p, err := l.clients(ctx, v, s.addr, dir, o, "--backlog", strconv.Itoa(o.stepBytes()), "--write", strconv.Itoa(o.stepBytes()))
	if err != nil {
		return r, fmt.Errorf("%w; the server's last words: %s", err, s.stderr)
	}
	defer p.close()
	warm, _, err := p.run(ctx, strconv.Itoa(max(batches/4, 1)))
	if err != nil {
		return r, fmt.Errorf("%w; the server's last words: %s", err, s.stderr)
	}
	trace, err := straceOf(ctx, s.cmd.Process.Pid)
	if err != nil {
		return r, err
	}
	_, consumed, err := p.run(ctx, strconv.Itoa(batches))
	calls, stopErr := trace.calls()
	if err != nil {
		return r, fmt.Errorf("%w; the server's last words: %s", err, s.stderr)
	}
	if stopErr != nil {
		return r, stopErr
	}
	n, err := l.logBytes(ctx, s.addr)
	if err != nil {
		return r, err
	}
	p.close()
	if err := s.signal(syscall.SIGTERM, stopTimeout); err != nil {
		return r, err
	}
	r.Batches, r.Messages = consumed.Batches, consumed.Messages
	r.DiskBytes = float64(n) / float64(warm.Messages+consumed.Messages)
	for name, count := range calls {
		// What the runtime does for itself, by time and not by batch.
		switch name {
		case "futex", "nanosleep", "sched_yield", "tgkill", "getpid", "rt_sigreturn", "madvise", "restart_syscall", "clock_nanosleep", "mmap", "munmap":
			continue
		case "fdatasync", "fsync", "sync_file_range", "msync":
			r.Syncs += float64(count) / float64(r.Batches)
		}
		r.Calls += float64(count) / float64(r.Batches)
	}
	return r, nil
}

// logBytes asks a broker for the size of the topic's partitions.
func (l *Lab) logBytes(ctx context.Context, addr string) (int64, error) {
	out, err := exec.CommandContext(ctx, l.Portask, "topic", "describe", topic, "--server", addr, "-o", "json").Output()
	if err != nil {
		return 0, fmt.Errorf("describe topic: %w", err)
	}
	var d struct {
		Partitions []struct {
			Bytes int64 `json:"bytes"`
		} `json:"partitions"`
	}
	if err := json.Unmarshal(out, &d); err != nil {
		return 0, fmt.Errorf("describe topic: %w", err)
	}
	var n int64
	for _, p := range d.Partitions {
		n += p.Bytes
	}
	if n == 0 {
		return 0, fmt.Errorf("describe topic: no bytes in %q", out)
	}
	return n, nil
}

// stracing is strace -c on a process.
type stracing struct{ p *process }

func straceOf(ctx context.Context, pid int) (*stracing, error) {
	if _, err := exec.LookPath("strace"); err != nil {
		return nil, fmt.Errorf("%w (strace is missing)", ErrNoCounter)
	}
	p, err := start(ctx, "strace", "strace", []string{"-c", "-f", "-p", strconv.Itoa(pid)}, nil, io.Discard)
	if err != nil {
		return nil, err
	}
	// strace says when it has attached to every thread that there was.
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(p.stderr.String(), "attached"); {
		select {
		case <-p.ended:
			return nil, fmt.Errorf("%w (strace: %s)", ErrNoCounter, p.stderr)
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			p.kill()
			return nil, fmt.Errorf("%w (strace did not attach)", ErrNoCounter)
		}
	}
	return &stracing{p}, nil
}

// calls ends the trace and returns how often each system call was made.
func (t *stracing) calls() (map[string]int64, error) {
	if err := t.p.signal(syscall.SIGINT, 10*time.Second); err != nil {
		return nil, err
	}
	return parseCalls(t.p.stderr.String())
}

// parseCalls reads the table of strace -c:
//
//	% time     seconds  usecs/call     calls    errors syscall
//	 53.01    0.001234           1      1234         2 read
func parseCalls(table string) (map[string]int64, error) {
	calls := make(map[string]int64)
	inTable := false
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		switch {
		case len(f) > 4 && f[0] == "%" && f[1] == "time":
			inTable = true
		case !inTable || len(f) < 5 || strings.HasPrefix(f[0], "-") || f[len(f)-1] == "total":
		default:
			n, err := strconv.ParseInt(f[3], 10, 64)
			if err != nil {
				return nil, fmt.Errorf("strace line %q: %w", strings.TrimSpace(line), err)
			}
			calls[f[len(f)-1]] += n
		}
	}
	if len(calls) == 0 {
		return nil, fmt.Errorf("no table in strace's output %q", table)
	}
	return calls, nil
}
