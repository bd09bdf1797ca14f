package sysmetrics

import (
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/portask/portask/broker/fault"
)

// CgroupUsage is what the control groups of a process use, beside what
// CgroupLimits allow. What the kernel does not tell is 0.
type CgroupUsage struct {
	// MemoryBytes counts page cache that the kernel can take back.
	MemoryBytes int64
	// OOMKills are processes of the group that the kernel killed for memory.
	OOMKills uint64
	// Throttled is the time in which the group would have run and was out of
	// quota; Throttles how many periods that happened in.
	Throttled time.Duration
	Throttles uint64
}

// Usage reads what this process's groups use. l is what Limits returned.
func (l CgroupLimits) Usage() (CgroupUsage, error) { return l.UsageIn(os.DirFS("/")) }

// UsageIn is Usage for the file tree root; see LimitsIn.
func (l CgroupLimits) UsageIn(root fs.FS) (CgroupUsage, error) {
	r := groupReader{root: root}
	var u CgroupUsage
	dir := strings.TrimPrefix(l.Memory.Dir, "/")
	switch l.Memory.Version {
	case 2:
		u.MemoryBytes = value(&r, dir+"/memory.current", parseNumber)
		u.OOMKills = value(&r, dir+"/memory.events", parseStat("oom_kill"))
	case 1:
		u.MemoryBytes = value(&r, dir+"/memory.usage_in_bytes", parseNumber)
		u.OOMKills = value(&r, dir+"/memory.oom_control", parseStat("oom_kill"))
	}
	dir = strings.TrimPrefix(l.CPU.Dir, "/")
	switch l.CPU.Version {
	case 2:
		u.Throttled = time.Duration(value(&r, dir+"/cpu.stat", parseStat("throttled_usec"))) * time.Microsecond
		u.Throttles = value(&r, dir+"/cpu.stat", parseStat("nr_throttled"))
	case 1:
		u.Throttled = time.Duration(value(&r, dir+"/cpu.stat", parseStat("throttled_time")))
		u.Throttles = value(&r, dir+"/cpu.stat", parseStat("nr_throttled"))
	}
	return u, r.err()
}

func parseNumber(s string) (int64, error) { return strconv.ParseInt(s, 10, 64) }

// parseStat finds the line "name number" of a flat keyed file; 0 if it is not
// there.
func parseStat(name string) func(string) (uint64, error) {
	return func(s string) (uint64, error) {
		for line := range strings.Lines(s) {
			if v, ok := strings.CutPrefix(strings.TrimSpace(line), name+" "); ok {
				return strconv.ParseUint(strings.TrimSpace(v), 10, 63)
			}
		}
		return 0, nil
	}
}

// Stall says how long tasks waited for a resource (pressure stall information,
// Linux 4.20 and later): some of them while others ran, or all that could have
// run, full.
type Stall struct {
	// Some10 and Full10 are shares of the last 10 s, 0 to 1.
	Some10, Full10 float64
	// Some and Full are cumulative since the group, or the machine, started.
	Some, Full time.Duration
}

// Pressure is that of the three resources.
type Pressure struct {
	CPU, Memory, IO Stall
	// OfCgroup: the figures are the process's group's, not the machine's.
	OfCgroup bool
}

// Pressure reads the pressure files of the process's control group of version 2,
// or the machine's where it has none. ok is false where the kernel offers
// neither.
func (l CgroupLimits) Pressure() (p Pressure, ok bool, err error) {
	return l.PressureIn(os.DirFS("/"))
}

// PressureIn is Pressure for the file tree root; see LimitsIn.
func (l CgroupLimits) PressureIn(root fs.FS) (p Pressure, ok bool, err error) {
	r := groupReader{root: root}
	for _, g := range []Cgroup{l.CPU, l.Memory} {
		if g.Version != 2 {
			continue
		}
		if dir := strings.TrimPrefix(g.Dir, "/"); exists(root, dir+"/cpu.pressure") {
			p = Pressure{CPU: value(&r, dir+"/cpu.pressure", parseStall), Memory: value(&r, dir+"/memory.pressure", parseStall),
				IO: value(&r, dir+"/io.pressure", parseStall), OfCgroup: true}
			return p.orNone(&r)
		}
	}
	if !exists(root, "proc/pressure/cpu") {
		return Pressure{}, false, nil
	}
	p = Pressure{CPU: value(&r, "proc/pressure/cpu", parseStall), Memory: value(&r, "proc/pressure/memory", parseStall),
		IO: value(&r, "proc/pressure/io", parseStall)}
	return p.orNone(&r)
}

// orNone takes files that are there and cannot be read for none: a kernel that
// was started without pressure information has them all the same.
func (p Pressure) orNone(r *groupReader) (Pressure, bool, error) {
	err := r.err()
	if errors.Is(err, fault.NotSupported) {
		return Pressure{}, false, nil
	}
	return p, true, err
}

func exists(root fs.FS, name string) bool {
	_, err := fs.Stat(root, name)
	return err == nil
}

// parseStall reads a pressure file (Documentation/accounting/psi.rst):
//
//	some avg10=0.00 avg60=0.00 avg300=0.00 total=0
//	full avg10=0.00 avg60=0.00 avg300=0.00 total=0
//
// The averages are percent, the totals microseconds. cpu has no line "full" on
// older kernels.
func parseStall(s string) (st Stall, err error) {
	for line := range strings.Lines(s) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		share, total := &st.Some10, &st.Some
		switch f[0] {
		case "some":
		case "full":
			share, total = &st.Full10, &st.Full
		default:
			continue
		}
		for _, kv := range f[1:] {
			k, v, _ := strings.Cut(kv, "=")
			switch k {
			case "avg10":
				pct, err := strconv.ParseFloat(v, 64)
				if err != nil {
					return Stall{}, err
				}
				if !(pct >= 0 && pct <= 100) {
					return Stall{}, strconv.ErrRange
				}
				*share = pct / 100
			case "total":
				us, err := strconv.ParseUint(v, 10, 53)
				if err != nil {
					return Stall{}, err
				}
				*total = time.Duration(us) * time.Microsecond
			}
		}
	}
	return st, nil
}
