package monitor

import (
	"math"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/portask/portask/broker/monitor/latency"
	"github.com/portask/portask/broker/sysmetrics"
)

// sample ends an interval of latencies after another.
func (m *Monitor) sample() {
	tick := time.NewTicker(time.Duration(m.interval.Load()))
	defer tick.Stop()
	for {
		select {
		case <-m.stop:
			return
		case <-m.paced:
			tick.Reset(time.Duration(m.interval.Load()))
		case <-tick.C:
			m.lat.turn(time.Now())
		}
	}
}

// systemSampler reads the system when somebody asks, at most once in an interval:
// a reading takes longer than anything else here, and most of the time nobody
// looks.
type systemSampler struct {
	mu     sync.Mutex
	reader *sysmetrics.Reader // guarded by mu, as all below
	latest sysmetrics.Sample
	warned bool
}

// systemNow returns a sample that is at most an interval old. Figures that cannot
// be read are missing every time, so that is said once.
func (m *Monitor) systemNow() *sysmetrics.Sample {
	s := &m.system
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.latest.At) >= time.Duration(m.interval.Load()) {
		var err error
		if s.latest, err = s.reader.Read(); err != nil && !s.warned {
			s.warned = true
			m.opts.Logger.Warn("some figures of the system cannot be read and are missing", "err", err)
		}
	}
	latest := s.latest
	return &latest
}

// latencies merges the recorders' buckets into HdrHistograms: of the last whole
// interval, and since the start. Quantiles are computed for who asks.
type latencies struct {
	mu    sync.Mutex
	set   *latency.Set // guarded by mu, as all below; nil before a broker is attached
	seen  [latency.Kinds]latency.Counts
	last  [latency.Kinds]*hdrhistogram.Histogram
	total [latency.Kinds]*hdrhistogram.Histogram

	at       time.Time     // end of the last interval
	interval time.Duration // its length
}

func (l *latencies) init() {
	for k := range latency.Kinds {
		// Two digits, from the recorders' unit on: 22 KiB each.
		l.last[k], l.total[k] = hdrhistogram.New(64, latency.Max, 2), hdrhistogram.New(64, latency.Max, 2)
	}
	l.at = time.Now()
}

func (l *latencies) attach(s *latency.Set) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.set = s
}

// turn ends an interval.
func (l *latencies) turn(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.interval, l.at = now.Sub(l.at), now
	if l.set == nil {
		return
	}
	var c latency.Counts
	for k := range latency.Kinds {
		l.set.Read(k, &c)
		if l.last[k].TotalCount() > 0 {
			l.last[k].Reset()
		}
		for i, n := range c {
			if d := n - l.seen[k][i]; d > 0 {
				// Neither fails: the values are within the histogram's range.
				_ = l.last[k].RecordValues(latency.Middle(i), int64(d))
				_ = l.total[k].RecordValues(latency.Middle(i), int64(d))
			}
		}
		l.seen[k] = c
	}
}

// get returns the quantiles, and the length of their last interval; none before a
// broker is attached.
func (l *latencies) get() ([]Latency, time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.set == nil {
		return nil, l.interval
	}
	all := make([]Latency, latency.Kinds)
	for k, name := range LatencyNames() {
		all[k] = Latency{Name: name, Last: quantiles(l.last[k]), Total: quantiles(l.total[k])}
	}
	return all, l.interval
}

// read returns the buckets of a kind as they are now.
func (l *latencies) read(k latency.Kind, c *latency.Counts) bool {
	l.mu.Lock()
	set := l.set
	l.mu.Unlock()
	set.Read(k, c)
	return set != nil
}

func quantiles(h *hdrhistogram.Histogram) Quantiles {
	n := h.TotalCount()
	if n == 0 {
		return Quantiles{}
	}
	at := h.ValueAtPercentiles([]float64{50, 90, 99, 99.9})
	return Quantiles{Count: uint64(n), Mean: time.Duration(math.Round(h.Mean())),
		P50: time.Duration(at[50]), P90: time.Duration(at[90]), P99: time.Duration(at[99]), P999: time.Duration(at[99.9]),
		Max: time.Duration(h.Max())}
}

// system is the latest sample in the Report's words.
func (r *Report) system(s *sysmetrics.Sample) {
	h := &s.Host
	r.System = System{Processors: h.Processors, Busy: h.Busy, Idle: h.Idle, IOWait: h.IOWait, Steal: h.Steal,
		Load1: h.Load1, Load5: h.Load5, Load15: h.Load15, MemoryBytes: h.MemoryBytes, AvailableBytes: h.AvailableBytes,
		SwapBytes: h.SwapBytes, SwapUsedBytes: h.SwapUsedBytes}
	if d := &s.Disk; d.TotalBytes > 0 {
		r.System.Disk = &Disk{TotalBytes: d.TotalBytes, FreeBytes: d.FreeBytes, Device: d.Device, ReadBytes: d.ReadBytes,
			WriteBytes: d.WriteBytes, Reads: d.Reads, Writes: d.Writes, Busy: d.Busy}
	}
	n := &s.Network
	r.System.Network = &Network{BytesIn: n.BytesIn, BytesOut: n.BytesOut, PacketsIn: n.PacketsIn, PacketsOut: n.PacketsOut,
		Errors: n.Errors, Drops: n.Drops}
	if s.Limits.Memory.Version != 0 || s.Limits.CPU.Version != 0 {
		r.System.Cgroup = &Cgroup{MemoryLimitBytes: s.Limits.EffectiveMemoryBytes(), MemoryBytes: s.Usage.MemoryBytes, CPUs: s.Limits.CPUs,
			Throttled: s.Usage.Throttled, OOMKills: s.Usage.OOMKills}
	}
	if s.HasPressure {
		stall := func(s sysmetrics.Stall) Stall {
			return Stall{Some10: s.Some10, Full10: s.Full10, Some: s.Some, Full: s.Full}
		}
		r.System.Pressure = &Pressure{CPU: stall(s.Pressure.CPU), Memory: stall(s.Pressure.Memory), IO: stall(s.Pressure.IO)}
	}
	p := &s.Process
	r.Process.CPU, r.Process.RSSBytes, r.Process.FDs, r.Process.FDLimit, r.Process.Threads = p.CPU, p.RSSBytes, p.FDs, s.FDLimit, p.Threads
}
