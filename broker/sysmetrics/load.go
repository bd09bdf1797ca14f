package sysmetrics

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/shirou/gopsutil/v3/net"
)

// Load is how busy this machine is, or the part of it that this process may use:
// shares from 0 to 1, NaN where the system does not tell. CPU, Disk and Link are
// averages that follow a change within a few seconds.
type Load struct {
	At time.Time
	// CPU is the larger of two: how much of the machine's processors is in use,
	// by whomever, or taken by its hypervisor; and how much of the quota of its
	// control group this process uses.
	CPU float64
	// Memory is what is in use of the machine's, or of the control group's limit
	// where that is nearer.
	Memory float64
	// Disk is the part of the time in which the device under the reader's path had
	// something to do.
	Disk float64
	// Link is the fuller direction of the fullest network interface that says how
	// fast it is, loopback apart.
	Link float64
}

// LoadReader turns samples into a Load. It is cheaper than a Reader: some 150 us
// a Read (BenchmarkLoad), without the process table. Not safe for concurrent use.
type LoadReader struct {
	path   string
	self   *Process
	limits CgroupLimits
	speeds map[string]float64 // bytes a second by interface
	reads  int

	host  HostSample // of the last Read
	cpu   time.Duration
	disk  DiskSample
	links map[string]net.IOCountersStat
	load  Load
}

// loadHalfLife is how old a reading is when it counts for half: three readings at
// one a second make seven eighths of the average.
const loadHalfLife = time.Second

// loadGap is the longest time between two Reads that makes an average.
const loadGap = 10 * time.Second

// NewLoadReader makes a LoadReader and takes its first sample. path lies on the
// file system whose device is watched; empty is none.
func NewLoadReader(path string) (*LoadReader, error) {
	p, err := OpenProcess(os.Getpid())
	if err != nil {
		return nil, err
	}
	nan := math.NaN()
	r := &LoadReader{path: path, self: p, load: Load{CPU: nan, Memory: nan, Disk: nan, Link: nan}}
	r.Read()
	return r, nil
}

// Read takes a sample and returns the load until now. The first one knows nothing
// but the memory.
func (r *LoadReader) Read() Load {
	if r.reads%limitsEvery == 0 {
		r.limits, _ = Limits() // what cannot be read is no limit
		r.speeds = linkSpeeds("/sys/class/net")
	}
	r.reads++
	now, err := Host()
	if err != nil {
		r.load.CPU, r.load.Memory = math.NaN(), math.NaN()
		now.At = time.Now()
	}
	elapsed := now.At.Sub(r.host.At)
	if elapsed > loadGap { // nobody asked: the average since then says little of now
		r.host.At, r.cpu, r.disk, r.links = time.Time{}, 0, DiskSample{}, nil
		nan := math.NaN()
		r.load = Load{CPU: nan, Memory: nan, Disk: nan, Link: nan}
	}
	weight := 1 - math.Exp2(-float64(elapsed)/float64(loadHalfLife))
	if err == nil {
		cpu := math.NaN()
		if !r.host.At.IsZero() {
			cpu = busyShare(r.host, now)
		}
		if used, err := r.self.CPUTime(); err == nil {
			if quota := r.limits.CPUs * float64(elapsed); quota > 0 && r.cpu > 0 {
				cpu = math.Max(cpu, float64(used-r.cpu)/quota)
			}
			r.cpu = used
		}
		r.load.CPU = follow(r.load.CPU, cpu, weight)
		r.load.Memory = r.memory(&now)
	}
	r.readDisk(elapsed, weight)
	r.readLinks(elapsed, weight)
	if err == nil {
		r.host = now
	}
	r.load.At = now.At
	return r.load
}

// busyShare is the part of the processors' time between two samples that was not
// idle, NaN if they are too near to tell: the kernel counts in hundredths of a
// second.
func busyShare(from, to HostSample) float64 {
	busy := (to.Busy - from.Busy) + (to.Steal - from.Steal)
	total := busy + (to.Idle - from.Idle) + (to.IOWait - from.IOWait)
	if total < 50*time.Millisecond {
		return math.NaN()
	}
	return float64(busy) / float64(total)
}

func (r *LoadReader) memory(now *HostSample) float64 {
	if now.MemoryBytes <= 0 {
		return math.NaN()
	}
	used := 1 - float64(now.AvailableBytes)/float64(now.MemoryBytes)
	if most := r.limits.EffectiveMemoryBytes(); most > 0 {
		// The group's page cache can be taken back, so the process's own memory
		// counts.
		if s, err := r.self.sample(); err == nil {
			used = math.Max(used, float64(s.RSSBytes)/float64(most))
		}
	}
	return clamp(used)
}

func (r *LoadReader) readDisk(elapsed time.Duration, weight float64) {
	if r.path == "" {
		return
	}
	d, err := Disk(existing(r.path))
	share := math.NaN()
	if err == nil && d.Device != "" && d.Device == r.disk.Device && elapsed > 0 {
		share = float64(d.Busy-r.disk.Busy) / float64(elapsed)
	}
	r.disk = d
	r.load.Disk = follow(r.load.Disk, share, weight)
}

func (r *LoadReader) readLinks(elapsed time.Duration, weight float64) {
	share := math.NaN()
	if len(r.speeds) > 0 {
		all, err := net.IOCounters(true)
		if err != nil {
			return
		}
		now := make(map[string]net.IOCountersStat, len(all))
		for _, i := range all {
			speed, old := r.speeds[i.Name], r.links[i.Name]
			now[i.Name] = i
			if most := speed * elapsed.Seconds(); most > 0 && old.Name != "" && i.BytesSent >= old.BytesSent && i.BytesRecv >= old.BytesRecv {
				busy := float64(max(i.BytesSent-old.BytesSent, i.BytesRecv-old.BytesRecv)) / most
				if !(busy <= share) { // share may be NaN
					share = busy
				}
			}
		}
		r.links = now
	}
	r.load.Link = follow(r.load.Link, share, weight)
}

// follow moves an average towards a reading; a reading that is no number, as
// after a counter that was set back, leaves it as it is.
func follow(old, now, weight float64) float64 {
	switch {
	case math.IsNaN(now) || math.IsInf(now, 0):
		return old
	case math.IsNaN(old):
		return clamp(now)
	}
	return clamp(old + (clamp(now)-old)*weight)
}

func clamp(x float64) float64 { return min(max(x, 0), 1) }

// linkSpeeds reads the files speed below dir, which Linux has for each interface:
// Mbit/s, -1 or no number where it is not known (virtual interfaces).
func linkSpeeds(dir string) map[string]float64 {
	files, _ := filepath.Glob(filepath.Join(dir, "*", "speed"))
	speeds := map[string]float64{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		name := filepath.Base(filepath.Dir(f))
		if mbit, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 32); err == nil && mbit > 0 && !loopback(name) {
			speeds[name] = float64(mbit) * 1e6 / 8
		}
	}
	return speeds
}
