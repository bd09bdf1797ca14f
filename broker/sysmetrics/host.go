package sysmetrics

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/shirou/gopsutil/v3/cpu"
	"github.com/shirou/gopsutil/v3/host"
	"github.com/shirou/gopsutil/v3/load"
	"github.com/shirou/gopsutil/v3/mem"
)

// HostSample is the state of the machine at one moment. gopsutil does not look
// at cgroups: in a container these are still the machine's figures.
type HostSample struct {
	At time.Time
	// Cumulative over all CPUs since the machine started. Steal is time the
	// hypervisor gave to others while this machine wanted to run.
	Busy, Idle, IOWait, Steal time.Duration
	// Processors are the logical ones that are online.
	Processors int
	// MemoryBytes is the machine's; AvailableBytes what new work may take
	// without swapping. SwapBytes is 0 where there is none, and where the
	// system does not say it with the memory (other than Linux).
	MemoryBytes, AvailableBytes int64
	SwapBytes, SwapUsedBytes    int64
	// Load1, Load5 and Load15 are averages of how many tasks ran or wanted to
	// over so many minutes, on Linux those that wait for a disk included; 0
	// where the system has none.
	Load1, Load5, Load15 float64
}

// Host reads a HostSample.
func Host() (HostSample, error) {
	s := HostSample{At: time.Now()}
	t, err := cpu.Times(false)
	if err != nil {
		return s, fmt.Errorf("host cpu: %w", err)
	}
	if len(t) != 1 {
		return s, fmt.Errorf("host cpu: %d totals, want 1", len(t))
	}
	s.Busy = seconds(t[0].User + t[0].System + t[0].Nice + t[0].Irq + t[0].Softirq)
	s.Idle, s.IOWait, s.Steal = seconds(t[0].Idle), seconds(t[0].Iowait), seconds(t[0].Steal)
	m, err := mem.VirtualMemory()
	if err != nil {
		return s, fmt.Errorf("host memory: %w", err)
	}
	s.MemoryBytes, s.AvailableBytes = int64(m.Total), int64(m.Available)
	s.SwapBytes, s.SwapUsedBytes = int64(m.SwapTotal), int64(m.SwapTotal-min(m.SwapFree, m.SwapTotal))
	if a, err := load.Avg(); err == nil {
		s.Load1, s.Load5, s.Load15 = a.Load1, a.Load5, a.Load15
	}
	s.Processors = processors()
	return s, nil
}

// processors is read once: processors that come and go while a program runs are
// rarer than what counting them each time costs.
var processors = sync.OnceValue(func() int {
	n, err := cpu.Counts(true)
	if err != nil || n < 1 {
		return runtime.NumCPU()
	}
	return n
})

// StealShare is the part of the CPU time between two samples, 0 to 1, that the
// hypervisor gave to others.
func StealShare(from, to HostSample) float64 {
	total := (to.Busy - from.Busy) + (to.Idle - from.Idle) + (to.IOWait - from.IOWait) + (to.Steal - from.Steal)
	if total <= 0 {
		return 0
	}
	return float64(to.Steal-from.Steal) / float64(total)
}

// Machine says on what a figure was measured. The fields are those that make
// two figures incomparable when they differ.
type Machine struct {
	CPU    string `json:"cpu"`    // model name
	Cores  int    `json:"cores"`  // that the Go runtime may use
	Kernel string `json:"kernel"` // operating system and version
	Go     string `json:"go"`     // of this program
}

// ThisMachine describes where the program runs; what cannot be read is empty.
func ThisMachine() Machine {
	m := Machine{Cores: runtime.GOMAXPROCS(0), Kernel: runtime.GOOS, Go: runtime.Version()}
	if info, err := cpu.Info(); err == nil && len(info) > 0 {
		m.CPU = strings.Join(strings.Fields(info[0].ModelName), " ")
	}
	if v, err := host.KernelVersion(); err == nil {
		m.Kernel += " " + v
	}
	return m
}
