package sysmetrics

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/portask/portask/broker/fault"
)

// CgroupLimits is what the control groups of a process allow it: the lowest
// limit of its own group and of all groups above it that are visible, of both
// hierarchies where a system has both. Zero means no limit.
type CgroupLimits struct {
	// MemoryBytes is memory.max (v2) or memory.limit_in_bytes (v1): over it the
	// kernel reclaims pages, and then kills.
	MemoryBytes int64
	// MemoryHighBytes is memory.high (v2): over it the kernel slows the
	// process down.
	MemoryHighBytes int64
	// CPUs is the quota of processor time in processors: 1.5 is 150 ms in each
	// 100 ms.
	CPUs float64

	// Memory and CPU are the process's own groups, where the files of usage and
	// pressure lie too.
	Memory, CPU Cgroup
}

// Cgroup names a control group.
type Cgroup struct {
	// Version is 1 or 2, 0 if there is none.
	Version int
	// Dir is its directory as the process sees it, like
	// "/sys/fs/cgroup/system.slice/portask.service".
	Dir string
}

// EffectiveMemoryBytes is what a process should stay below: the lower of both
// memory limits, 0 if there is none.
func (l CgroupLimits) EffectiveMemoryBytes() int64 { return lowest(l.MemoryBytes, l.MemoryHighBytes) }

// Limits reads the limits of this process. A system without control groups has
// none, and no error.
//
// The error is a *fault.Error whose field is the file that could not be read or
// understood; what the others said is returned beside it.
func Limits() (CgroupLimits, error) { return LimitsIn(os.DirFS("/")) }

// LimitsIn is Limits for the file tree root, which holds proc/self/cgroup,
// proc/self/mountinfo and the control groups' file systems where mountinfo says
// they are.
func LimitsIn(root fs.FS) (CgroupLimits, error) {
	r := groupReader{root: root}
	own := parseMembership(r.read("proc/self/cgroup", tableBytesMax))
	if len(own) == 0 {
		return CgroupLimits{}, r.err()
	}
	var l CgroupLimits
	for _, m := range parseCgroupMounts(r.read("proc/self/mountinfo", tableBytesMax)) {
		for _, controller := range []string{"memory", "cpu"} {
			at, ok := own[m.key(controller)]
			if !ok {
				continue
			}
			r.group(&l, m, controller, at)
		}
	}
	return l, r.err()
}

// Bounds of the files. A container host may list thousands of mounts.
const (
	tableBytesMax = 8 << 20
	valueBytesMax = 64 << 10
	// depthMax is how many groups are visited upwards; the kernel allows more,
	// nobody nests so deep.
	depthMax = 64
)

// groupReader reads files below root and keeps the errors. Absent files are
// empty and no error: root groups have no limits, controllers may be off.
type groupReader struct {
	root fs.FS
	errs []error
}

func (r *groupReader) err() error { return errors.Join(r.errs...) }

func (r *groupReader) fail(c fault.Code, name string, cause error) {
	r.errs = append(r.errs, fault.New(c, "read cgroup limits").WithField("/"+name).WithCause(cause))
}

func (r *groupReader) read(name string, most int64) string {
	f, err := r.root.Open(name)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			r.fail(fault.NotSupported, name, err)
		}
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		r.fail(fault.NotSupported, name, err)
		return ""
	}
	if int64(len(b)) > most {
		r.errs = append(r.errs, fault.New(fault.TooLarge, "read cgroup limits").WithField("/"+name).WithLimit(int64(len(b)), most))
		return ""
	}
	return string(b)
}

// value reads a file and parses what is in it.
func value[T any](r *groupReader, name string, parse func(string) (T, error)) (v T) {
	text := strings.TrimSpace(r.read(name, valueBytesMax))
	if text == "" {
		return v
	}
	v, err := parse(text)
	if err != nil {
		r.fail(fault.Corrupted, name, err)
	}
	return v
}

// group lowers l to what the group at says, and those above it.
func (r *groupReader) group(l *CgroupLimits, m cgroupMount, controller, at string) {
	dir := m.dir(at)
	// Where both hierarchies are mounted a controller belongs to one of them;
	// that of version 1 shows by having a mount of its own.
	own := &l.Memory
	if controller == "cpu" {
		own = &l.CPU
	}
	if own.Version != 1 {
		*own = Cgroup{m.version, "/" + dir}
	}
	for range depthMax {
		switch {
		case controller == "memory" && m.version == 2:
			l.MemoryBytes = lowest(l.MemoryBytes, value(r, dir+"/memory.max", parseMemory))
			l.MemoryHighBytes = lowest(l.MemoryHighBytes, value(r, dir+"/memory.high", parseMemory))
		case controller == "memory":
			l.MemoryBytes = lowest(l.MemoryBytes, value(r, dir+"/memory.limit_in_bytes", parseMemory))
			// Groups above the mount are invisible, as in a container, but
			// counted here.
			l.MemoryBytes = lowest(l.MemoryBytes, value(r, dir+"/memory.stat", parseHierarchical))
		case m.version == 2:
			l.CPUs = lowest(l.CPUs, value(r, dir+"/cpu.max", parseCPUMax))
		default:
			quota := value(r, dir+"/cpu.cfs_quota_us", parseMicros)
			period := value(r, dir+"/cpu.cfs_period_us", parseMicros)
			if quota > 0 && period > 0 {
				l.CPUs = lowest(l.CPUs, float64(quota)/float64(period))
			}
		}
		if dir == m.point {
			return
		}
		dir = path.Dir(dir)
	}
}

// lowest of two limits, where 0 is none.
func lowest[T int64 | float64](a, b T) T {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// parseMembership reads /proc/self/cgroup: lines of "id:controllers:path". The
// keys are controllers of version 1, and "" for version 2.
func parseMembership(text string) map[string]string {
	own := map[string]string{}
	for line := range strings.Lines(text) {
		_, rest, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		controllers, at, ok2 := strings.Cut(rest, ":")
		if !ok || !ok2 || !strings.HasPrefix(at, "/") {
			continue
		}
		for c := range strings.SplitSeq(controllers, ",") {
			own[c] = at
		}
	}
	return own
}

// cgroupMount is a mounted hierarchy.
type cgroupMount struct {
	version int
	root    string // the group that the mount shows, as /proc/self/cgroup writes it
	point   string // where, without the leading slash
	options string // with the controllers of version 1, between commas
}

// key is under what a controller of this mount is found in parseMembership's
// result; "-" if the mount does not have it.
func (m cgroupMount) key(controller string) string {
	switch {
	case m.version == 2:
		return ""
	case strings.Contains(m.options, ","+controller+","):
		return controller
	}
	return "-"
}

// dir is the directory of the group at. A group outside of what the mount shows
// is the mount's root: containers see their own path from outside, or "/..".
func (m cgroupMount) dir(at string) string {
	rest, ok := strings.CutPrefix(at, strings.TrimSuffix(m.root, "/"))
	rest = strings.Trim(rest, "/")
	if !ok || rest == "" || !fs.ValidPath(rest) {
		return m.point
	}
	return m.point + "/" + rest
}

// parseCgroupMounts reads /proc/self/mountinfo (proc_pid_mountinfo(5)):
//
//	36 35 98:0 /root /point options [optional fields] - type source superoptions
func parseCgroupMounts(text string) []cgroupMount {
	var mounts []cgroupMount
	for line := range strings.Lines(text) {
		before, after, ok := strings.Cut(line, " - ")
		f, s := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 6 || len(s) < 3 {
			continue
		}
		m := cgroupMount{root: unescape(f[3]), point: strings.Trim(unescape(f[4]), "/"), options: "," + s[2] + ","}
		switch s[0] {
		case "cgroup":
			m.version = 1
		case "cgroup2":
			m.version = 2
		default:
			continue
		}
		if fs.ValidPath(m.point) {
			mounts = append(mounts, m)
		}
	}
	return mounts
}

// unescape undoes the kernel's "\040" for space, tab, newline and backslash.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// unlimitedFrom is where a memory limit of version 1 is none: the kernel shows
// the highest number of whole pages, which depends on their size.
const unlimitedFrom = 1 << 62

// parseMemory reads bytes, "max" for none. A limit of 0 is one byte here, so
// that it does not look like none.
func parseMemory(s string) (int64, error) {
	if s == "max" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, err
	}
	if n >= unlimitedFrom {
		return 0, nil
	}
	return max(int64(n), 1), nil
}

// parseHierarchical finds the line of memory.stat that holds the lowest limit of
// a group and all above it.
func parseHierarchical(s string) (int64, error) {
	for line := range strings.Lines(s) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "hierarchical_memory_limit "); ok {
			return parseMemory(v)
		}
	}
	return 0, nil
}

// parseMicros reads microseconds, where a negative number is none.
func parseMicros(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	return max(n, 0), err
}

// parseCPUMax reads "quota period", "max" for no quota; the period is 100 ms if
// it is not there.
func parseCPUMax(s string) (float64, error) {
	quota, rest, _ := strings.Cut(s, " ")
	if quota == "max" {
		return 0, nil
	}
	q, err := strconv.ParseInt(quota, 10, 64)
	if err != nil {
		return 0, err
	}
	p := int64(100_000)
	if rest != "" {
		if p, err = strconv.ParseInt(rest, 10, 64); err != nil {
			return 0, err
		}
	}
	if q <= 0 || p <= 0 {
		return 0, strconv.ErrRange
	}
	return float64(q) / float64(p), nil
}
