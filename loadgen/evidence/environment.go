package evidence

import (
	"io/fs"
	"os"
	"path"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/portask/portask/broker/sysmetrics"
)

// Environment is what the generator ran on. Two results of different
// environments are not to be compared. It names neither host nor user: reports
// are passed on.
type Environment struct {
	sysmetrics.Machine
	MaxProcs    int   `json:"max_procs"` // processors that the Go runtime used
	Processors  int   `json:"processors"`
	MemoryBytes int64 `json:"memory_bytes"`

	// Of the control group, 0: no limit.
	CgroupCPUs        float64 `json:"cgroup_cpus,omitempty"`
	CgroupMemoryBytes int64   `json:"cgroup_memory_bytes,omitempty"`

	// What the system says of itself; empty where it does not.
	Governor    string `json:"governor,omitempty"`     // of processor 0's frequency
	ClockSource string `json:"clock_source,omitempty"` // tsc is exact and cheap
	HugePages   string `json:"transparent_huge_pages,omitempty"`
	Virtual     string `json:"hypervisor,omitempty"` // of a virtual machine

	Load1     float64 `json:"load1"`      // when the run began: others' work
	OpenFiles int64   `json:"open_files"` // limit of descriptors, 0: none or unknown

	Loadgen  string `json:"loadgen"` // its version
	Revision string `json:"revision,omitempty"`
	PGO      bool   `json:"pgo"` // built with a profile
	Race     bool   `json:"race,omitempty"`
}

// Describe looks at the machine. It takes some milliseconds.
func Describe(version string) *Environment {
	e := &Environment{Machine: sysmetrics.ThisMachine(), MaxProcs: runtime.GOMAXPROCS(0), Loadgen: version, OpenFiles: openFiles()}
	if h, err := sysmetrics.Host(); err == nil {
		e.Processors, e.MemoryBytes, e.Load1 = h.Processors, h.MemoryBytes, h.Load1
	}
	if l, err := sysmetrics.Limits(); err == nil {
		e.CgroupCPUs, e.CgroupMemoryBytes = l.CPUs, l.EffectiveMemoryBytes()
	}
	e.files(os.DirFS("/"))
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				e.Revision = s.Value
			case "-pgo":
				e.PGO = s.Value != "" && s.Value != "off"
			case "-race":
				e.Race = s.Value == "true"
			}
		}
	}
	return e
}

// factBytes bounds a file that holds one fact.
const factBytes = 4096

// files reads what the kernel shows as files under root.
func (e *Environment) files(root fs.FS) {
	read := func(name string) string {
		f, err := root.Open(name)
		if err != nil {
			return ""
		}
		defer f.Close()
		b := make([]byte, factBytes)
		n, _ := f.Read(b)
		return strings.TrimSpace(string(b[:n]))
	}
	e.Governor = read("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
	e.ClockSource = read("sys/devices/system/clocksource/clocksource0/current_clocksource")
	e.HugePages = chosen(read("sys/kernel/mm/transparent_hugepage/enabled"))
	e.Virtual = read("sys/hypervisor/type")
	if e.Virtual == "" && hasFlag(read("proc/cpuinfo"), "hypervisor") {
		e.Virtual = path.Base(read("sys/class/dmi/id/sys_vendor"))
		if e.Virtual == "." {
			e.Virtual = "yes"
		}
	}
}

// chosen is the word in brackets of "always [madvise] never".
func chosen(s string) string {
	_, s, ok := strings.Cut(s, "[")
	if !ok {
		return ""
	}
	s, _, _ = strings.Cut(s, "]")
	return s
}

// hasFlag looks for a flag of the first processor.
func hasFlag(cpuinfo, flag string) bool {
	for line := range strings.Lines(cpuinfo) {
		if key, list, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "flags" {
			for f := range strings.FieldsSeq(list) {
				if f == flag {
					return true
				}
			}
		}
	}
	return false
}
