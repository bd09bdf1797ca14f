package load

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/portask/portask/broker/sysmetrics"
)

// target follows the broker's process, and after a restart the next one, whose
// CPU time is added. Safe for concurrent use.
type target struct {
	mu      sync.Mutex
	p       *sysmetrics.Process
	base    time.Duration // CPU time of p before the run
	ended   time.Duration // of processes before p, during the run
	cpu     time.Duration // of p, during the run
	rss     int64         // last
	rssMax  int64
	fds     int
	sampled time.Time
}

func newTarget(pid int) (*target, error) {
	p, err := sysmetrics.OpenProcess(pid)
	if err != nil {
		return nil, err
	}
	t := &target{p: p}
	t.base, err = p.CPUTime()
	return t, err
}

// SetTarget says that the broker is process pid from now on. Call
// SampleTarget before the old one is stopped, or the CPU time since the last
// sample is not counted.
func (r *Run) SetTarget(pid int) error {
	t := r.target
	if t == nil {
		return errors.New("the run began without a target process")
	}
	p, err := sysmetrics.OpenProcess(pid)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended += t.cpu
	t.p, t.base, t.cpu = p, 0, 0
	return nil
}

// SampleTarget reads the target's CPU time and memory now.
func (r *Run) SampleTarget() {
	if r.target != nil {
		r.target.sample()
	}
}

func (t *target) sample() {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, err := t.p.Sample()
	if err != nil {
		return // gone: killed, and SetTarget is to come
	}
	t.cpu, t.rss, t.fds, t.sampled = s.CPU-t.base, s.RSSBytes, s.FDs, s.At
	t.rssMax = max(t.rssMax, t.rss)
}

// read returns the CPU time of the run so far, and memory and descriptors, as of
// the last sample.
func (t *target) read() (cpu time.Duration, rss int64, fds int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ended + t.cpu, t.rss, t.fds
}

// TargetUse is what the broker spent.
type TargetUse struct {
	CPUSeconds    float64 `json:"cpu_s"`
	CPUPerMillion float64 `json:"cpu_s_per_million"` // messages delivered
	RSSBytes      int64   `json:"rss_bytes"`         // at the end
	RSSMaxBytes   int64   `json:"rss_max_bytes"`
	FDs           int     `json:"fds"`
}

func (t *target) use(delivered uint64) *TargetUse {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	u := &TargetUse{CPUSeconds: (t.ended + t.cpu).Seconds(), RSSBytes: t.rss, RSSMaxBytes: t.rssMax, FDs: t.fds}
	if delivered > 0 {
		u.CPUPerMillion = u.CPUSeconds / float64(delivered) * 1e6
	}
	return u
}

// usage measures what the generator itself takes of the machine.
type usage struct {
	p     *sysmetrics.Process
	procs int
	cpu   time.Duration
	began time.Time
	host  sysmetrics.HostSample
}

// newUsage begins to measure; procs are the processors that the generator may
// use.
func newUsage(procs int) (*usage, error) {
	p, err := sysmetrics.OpenProcess(os.Getpid())
	if err != nil {
		return nil, err
	}
	u := &usage{p: p, procs: min(procs, runtime.NumCPU()), began: time.Now()}
	if u.host, err = sysmetrics.Host(); err != nil {
		return nil, err
	}
	u.cpu, err = p.CPUTime()
	return u, err
}

// cpuTime is the generator's CPU time since newUsage.
func (u *usage) cpuTime() (time.Duration, error) {
	cpu, err := u.p.CPUTime()
	return cpu - u.cpu, err
}

// take returns what was used since newUsage, of which spun was no work.
func (u *usage) take(spun time.Duration) (Generator, error) {
	cpu, err := u.cpuTime()
	if err != nil {
		return Generator{}, err
	}
	host, err := sysmetrics.Host()
	if err != nil {
		return Generator{}, err
	}
	spun = min(spun, cpu)
	return Generator{
		CPUSeconds: cpu.Seconds(), SpinSeconds: spun.Seconds(),
		Share: (cpu - spun).Seconds() / (time.Since(u.began).Seconds() * float64(u.procs)),
		Steal: sysmetrics.StealShare(u.host, host),
	}, nil
}
