// Package sysmetrics reads what a process and its machine spend, and what they
// may: CPU time, memory, descriptors, steal, load, disk, network, and the limits,
// usage and pressure of control groups. It is the only package that imports
// gopsutil. A Reader takes all of it at once; the parts stand by themselves.
//
// Values are cumulative where the operating system's are; a caller takes two
// samples and subtracts, so nobody shares hidden state (gopsutil's own
// percentages do). Costs, measured on two cores: a Process.Sample about 150 us,
// a CPUTime 1 us, a Host sample about 90 us. One a second is invisible.
package sysmetrics

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/shirou/gopsutil/v3/process"
)

// ErrGone reports that the process ended, or that its pid belongs to another
// process now. A Process that returned it returns it for ever.
var ErrGone = errors.New("process is gone")

// Process reads one process, its own or another's. Not safe for concurrent use.
type Process struct {
	pid     int
	p       *process.Process
	created int64 // ms since the epoch; tells a reused pid
	gone    bool
}

// OpenProcess remembers which process has pid now.
func OpenProcess(pid int) (*Process, error) {
	p, err := process.NewProcess(int32(pid))
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, asGone(err))
	}
	created, err := p.CreateTime()
	if err != nil {
		return nil, fmt.Errorf("process %d: create time: %w", pid, asGone(err))
	}
	return &Process{pid: pid, p: p, created: created}, nil
}

// PID is the process's id.
func (p *Process) PID() int { return p.pid }

// ProcessSample is the state of a process at one moment.
type ProcessSample struct {
	At time.Time
	// CPU is user and system time since the process began, with the precision
	// of CPUTime. User and System come from the scheduler's tick counters and
	// are coarser (10 ms on Linux); they need not add up to CPU.
	CPU, User, System time.Duration
	// RSSBytes is the resident set. Linux keeps it in per-CPU counters: it may
	// be wrong by some 128 KiB per CPU; see ResidentBytes.
	RSSBytes int64
	// FDs is the number of open descriptors, 0 where the system does not tell.
	FDs int
	// Threads is the number of kernel threads.
	Threads int
}

// Sample reads all of ProcessSample. ErrGone if the process is not the one
// that was opened.
func (p *Process) Sample() (ProcessSample, error) {
	if err := p.check(); err != nil {
		return ProcessSample{}, err
	}
	return p.sample()
}

// sample is Sample without a look at whose pid it is.
func (p *Process) sample() (ProcessSample, error) {
	s := ProcessSample{At: time.Now()}
	times, err := p.p.Times()
	if err != nil {
		return s, p.failed("times", err)
	}
	s.User, s.System = seconds(times.User), seconds(times.System)
	if s.CPU, err = cpuClock(p.pid); err != nil {
		s.CPU = s.User + s.System
	}
	mem, err := p.p.MemoryInfo()
	if err != nil {
		return s, p.failed("memory", err)
	}
	s.RSSBytes = int64(mem.RSS)
	if n, err := p.p.NumFDs(); err == nil {
		s.FDs = int(n)
	}
	if n, err := p.p.NumThreads(); err == nil {
		s.Threads = int(n)
	}
	return s, nil
}

// CPUTime is user and system time of all threads since the process began,
// ended threads included: in nanoseconds on Linux (the process's CPU clock),
// in ticks elsewhere. It does not check for a reused pid.
func (p *Process) CPUTime() (time.Duration, error) {
	if p.gone {
		return 0, p.failed("cpu", ErrGone)
	}
	if d, err := cpuClock(p.pid); err == nil {
		return d, nil
	}
	times, err := p.p.Times()
	if err != nil {
		return 0, p.failed("cpu", err)
	}
	return seconds(times.User) + seconds(times.System), nil
}

// ResidentBytes is the resident set counted page by page, where the system
// offers it (Linux, one's own processes), else that of Sample. It walks the
// page tables of the process: milliseconds for a process of gigabytes.
func (p *Process) ResidentBytes() (int64, error) {
	if err := p.check(); err != nil {
		return 0, err
	}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(p.pid) + "/smaps_rollup")
	if err == nil {
		if n, ok := parseRollup(b); ok {
			return n, nil
		}
	}
	mem, err := p.p.MemoryInfo()
	if err != nil {
		return 0, p.failed("memory", err)
	}
	return int64(mem.RSS), nil
}

// parseRollup finds the line "Rss:   1234 kB".
func parseRollup(b []byte) (int64, bool) {
	for line := range bytes.Lines(b) {
		f := bytes.Fields(line)
		if len(f) == 3 && string(f[0]) == "Rss:" && string(f[2]) == "kB" {
			kib, err := strconv.ParseInt(string(f[1]), 10, 53)
			return kib << 10, err == nil
		}
	}
	return 0, false
}

// check tells whether pid is still the process that was opened. gopsutil
// caches the create time in its Process, hence the fresh one.
func (p *Process) check() error {
	if !p.gone {
		fresh, err := process.NewProcess(int32(p.pid))
		if err == nil {
			var created int64
			if created, err = fresh.CreateTime(); err == nil && created == p.created {
				return nil
			}
		}
		p.gone = true
	}
	return p.failed("check", ErrGone)
}

func (p *Process) failed(what string, err error) error {
	err = asGone(err)
	p.gone = p.gone || errors.Is(err, ErrGone)
	return fmt.Errorf("process %d: %s: %w", p.pid, what, err)
}

func asGone(err error) error {
	if errors.Is(err, process.ErrorProcessNotRunning) || errors.Is(err, os.ErrNotExist) {
		return ErrGone
	}
	return err
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
