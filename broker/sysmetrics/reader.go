package sysmetrics

import (
	"errors"
	"os"
	"path/filepath"
	"time"
)

// Sample is everything this package reads at once.
type Sample struct {
	At      time.Time
	Process ProcessSample
	// FDLimit bounds Process.FDs; 0 if there is no limit or it is unknown.
	FDLimit  int64
	Host     HostSample
	Disk     DiskSample // of the reader's path; zero without one
	Network  NetworkSample
	Limits   CgroupLimits
	Usage    CgroupUsage
	Pressure Pressure
	// HasPressure: the kernel offers pressure files.
	HasPressure bool
}

// Reader takes Samples of this process and its machine. Not safe for concurrent
// use. A Sample costs some 0.5 ms, mostly in the kernel (BenchmarkRead): one a
// second is less than a thousandth of a core.
type Reader struct {
	path   string
	self   *Process
	limits CgroupLimits
	reads  int
}

// limitsEvery is how many Reads share one look at the limits: they change when
// somebody changes them, and finding them reads a dozen files.
const limitsEvery = 10

// NewReader makes a Reader. path lies on the file system that is watched; it
// need not exist yet, its parent is taken then. Empty is none.
func NewReader(path string) (*Reader, error) {
	p, err := OpenProcess(os.Getpid())
	if err != nil {
		return nil, err
	}
	return &Reader{path: path, self: p}, nil
}

// Read reads everything; Limits are at most ten Reads old. What cannot be read is zero and its error is among those
// that are joined; the rest is valid all the same.
func (r *Reader) Read() (Sample, error) {
	s := Sample{At: time.Now(), FDLimit: descriptorLimit()}
	errs := make([]error, 0, 8)
	keep := func(err error) { errs = append(errs, err) }
	var err error
	s.Process, err = r.self.sample()
	keep(err)
	s.Host, err = Host()
	keep(err)
	if r.path != "" {
		s.Disk, err = Disk(existing(r.path))
		keep(err)
	}
	s.Network, err = Network()
	keep(err)
	if r.reads%limitsEvery == 0 {
		r.limits, err = Limits()
		keep(err)
	}
	r.reads++
	s.Limits = r.limits
	s.Usage, err = s.Limits.Usage()
	keep(err)
	s.Pressure, s.HasPressure, err = s.Limits.Pressure()
	keep(err)
	return s, errors.Join(errs...)
}

// existing is path, or the nearest directory above it that exists.
func existing(path string) string {
	p := filepath.Clean(path)
	for {
		if _, err := os.Stat(p); err == nil {
			return p
		}
		up := filepath.Dir(p)
		if up == p {
			return p
		}
		p = up
	}
}
