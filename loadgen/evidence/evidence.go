// Package evidence gathers, while a run goes on, what the target does: CPU,
// memory, disk and network each second, profiles at steady state, and a trace
// of the moments before when an objective is breached. It reads the target's
// process where that is on this machine, and the broker's admin listener (GET
// /stats, /metrics, /debug/...), which need not be.
//
// Everything is bounded in size and time, and nothing that fails here fails the
// run: it becomes a note. What costs the target something is told with the
// result: a CPU profile is a mark on the time axis.
package evidence

// Evidence is what was gathered of a run.
type Evidence struct {
	Sources []string `json:"sources"` // where it comes from, for people
	// Of the broker, from its admin listener.
	Version string `json:"version,omitempty"`
	Go      string `json:"go,omitempty"`
	Engine  string `json:"engine,omitempty"`

	Samples   []Sample  `json:"samples,omitempty"`
	Totals    *Totals   `json:"totals,omitempty"`
	Latencies []Latency `json:"latencies,omitempty"`

	// Breaches are the intervals in which an objective was not met: the first
	// few, and how many in all.
	Breaches    []Breach `json:"breaches,omitempty"`
	BreachCount int      `json:"breach_count"`

	Files []File   `json:"files,omitempty"`
	Notes []string `json:"notes,omitempty"` // what could not be had, and why
}

// Sample is the target's state at a moment; rates are over the time since the
// sample before. What no source tells is 0.
type Sample struct {
	At      float64 `json:"at_s"` // since the run's first phase began
	seconds float64 // that rates are over

	CPUs       float64 `json:"cpus"` // processors used
	GCCPUs     float64 `json:"gc_cpus"`
	RSSBytes   int64   `json:"rss_bytes"`
	HeapBytes  int64   `json:"heap_bytes"`
	FDs        int     `json:"fds"`
	Threads    int     `json:"threads"`
	Goroutines int     `json:"goroutines"`

	// Bytes a second: of the device that the broker's data are on, which others
	// may use too; of the broker's sockets where it tells, else of the machine,
	// loopback left out.
	DiskRead  float64 `json:"disk_read_per_s"`
	DiskWrite float64 `json:"disk_write_per_s"`
	NetIn     float64 `json:"net_in_per_s"`
	NetOut    float64 `json:"net_out_per_s"`
	Syncs     float64 `json:"syncs_per_s"`

	// Shares of the target's machine, 0 to 1.
	HostBusy   float64 `json:"host_busy"`
	HostSteal  float64 `json:"host_steal"`
	HostIOWait float64 `json:"host_iowait"`
	// Throttled is how much of the time its control group was held.
	Throttled float64 `json:"throttled"`

	// Queued is what waits in all of the broker's queues.
	Queued int64 `json:"queued"`
	// LatencyP99 are the broker's own, of its last interval, ns, by name.
	LatencyP99 map[string]int64 `json:"latency_p99_ns,omitempty"`
}

// Totals are the broker's counters over the run, from its /stats before and
// after.
type Totals struct {
	CPUSeconds   float64 `json:"cpu_s"`
	GCCPUSeconds float64 `json:"gc_cpu_s"`
	GCs          uint64  `json:"gcs"`
	Messages     uint64  `json:"messages_in"`
	Batches      uint64  `json:"batches_in"`
	Syscalls     uint64  `json:"syscalls"` // of its event loops
	Syncs        uint64  `json:"syncs"`
	Writes       uint64  `json:"writes"`
	AllocObjects uint64  `json:"alloc_objects"`
	AllocBytes   uint64  `json:"alloc_bytes"`
	SocketIn     uint64  `json:"socket_bytes_in"`
	SocketOut    uint64  `json:"socket_bytes_out"`
	Errors       uint64  `json:"errors"`
	Duplicates   uint64  `json:"duplicates"`
	HistoryReads uint64  `json:"history_reads"`
	Refused      uint64  `json:"refused"` // offers that found a queue full
	Steal        float64 `json:"steal"`   // share of its machine's time, 0 to 1
	ThrottledSec float64 `json:"throttled_s"`
}

// Latency is a latency inside of the broker, since its start, ns.
type Latency struct {
	Name  string `json:"name"`
	Count uint64 `json:"count"`
	P50   int64  `json:"p50_ns"`
	P99   int64  `json:"p99_ns"`
	P999  int64  `json:"p99_9_ns"`
	Max   int64  `json:"max_ns"`
}

// Breach is an interval in which an objective was not met.
type Breach struct {
	At     float64 `json:"at_s"` // the interval's end
	Metric string  `json:"metric"`
	Got    int64   `json:"got_ns"`
	Want   int64   `json:"want_ns"`
}

// File is one that was taken from the target, in Options.Dir.
type File struct {
	Name  string  `json:"name"`
	What  string  `json:"what"`
	At    float64 `json:"at_s"` // when it was begun
	Until float64 `json:"until_s"`
	Bytes int64   `json:"bytes"`
}

// samplesMax keeps half an hour of seconds; beyond it neighbours are merged.
const samplesMax = 1800

// merge makes one sample of two that follow one another: rates are weighted by
// their times, states are the later one's, latencies the worse.
func (s *Sample) merge(o *Sample) {
	n := *o
	n.seconds += s.seconds
	share := 0.5
	if n.seconds > 0 {
		share = s.seconds / n.seconds
	}
	for _, p := range []struct {
		to   *float64
		from float64
	}{
		{&n.CPUs, s.CPUs}, {&n.GCCPUs, s.GCCPUs}, {&n.DiskRead, s.DiskRead}, {&n.DiskWrite, s.DiskWrite}, {&n.NetIn, s.NetIn}, {&n.NetOut, s.NetOut},
		{&n.Syncs, s.Syncs}, {&n.HostBusy, s.HostBusy}, {&n.HostSteal, s.HostSteal}, {&n.HostIOWait, s.HostIOWait}, {&n.Throttled, s.Throttled},
	} {
		*p.to = share*p.from + (1-share)**p.to
	}
	n.LatencyP99 = nil
	for name, v := range o.LatencyP99 {
		if n.LatencyP99 == nil {
			n.LatencyP99 = map[string]int64{}
		}
		n.LatencyP99[name] = max(v, s.LatencyP99[name])
	}
	*s = n
}

// halve merges each two of all.
func halve(all []Sample) []Sample {
	out := all[:0]
	for i := 0; i+1 < len(all); i += 2 {
		s := all[i]
		s.merge(&all[i+1])
		out = append(out, s)
	}
	if len(all)%2 == 1 {
		out = append(out, all[len(all)-1])
	}
	return out
}
