package top

import (
	"time"

	"github.com/portask/portask/broker/monitor"
)

// Rates is what happened between two Reports, and the state at the later one. It
// is the object of a line of `portask top --output json`: fields are never
// renamed. Rates are per second; shares are 0 to 1; what ends in _ns is
// nanoseconds.
type Rates struct {
	Time    time.Time     `json:"time"`
	Node    string        `json:"node"`
	Version string        `json:"version"`
	Uptime  time.Duration `json:"uptime_ns"`
	// Interval lies between the Reports, by the broker's monotonic clock. It is 0
	// when there is no earlier one of the same process: then every rate is 0 and
	// means nothing.
	Interval time.Duration `json:"interval_ns"`
	// SampleInterval is the same for Process.CPUs and System, which a broker reads
	// from time to time; 0 means that it has not between the Reports.
	SampleInterval time.Duration `json:"sample_interval_ns"`

	Restarted bool     `json:"restarted"` // the earlier Report was of another process
	Ready     bool     `json:"ready"`
	Warnings  []string `json:"warnings"`

	In     Flow `json:"in"`     // taken from producers
	Stored Flow `json:"stored"` // written to logs
	Out    Flow `json:"out"`    // handed to consumers

	Acks         float64 `json:"acks_per_s"`
	Duplicates   float64 `json:"duplicates_per_s"`
	Errors       float64 `json:"errors_per_s"`
	Delivers     float64 `json:"delivers_per_s"`
	HistoryReads float64 `json:"history_reads_per_s"`
	Opened       float64 `json:"connections_opened_per_s"`
	Refused      float64 `json:"connections_refused_per_s"`
	Frames       float64 `json:"frames_per_s"`
	Syscalls     float64 `json:"syscalls_per_s"`
	Syncs        float64 `json:"syncs_per_s"`
	Writes       float64 `json:"writes_per_s"`

	Connections     int64 `json:"connections"`
	Producers       int64 `json:"producers"`
	Subscriptions   int64 `json:"subscriptions"`
	TopicCount      int   `json:"topic_count"`
	PartitionCount  int   `json:"partition_count"`
	CreditFreeBytes int64 `json:"credit_free_bytes"`

	Latencies []monitor.Latency `json:"latencies"`
	Process   ProcessRates      `json:"process"`
	System    SystemRates       `json:"system"`
	Pools     []PoolRates       `json:"pools"`
	Queues    []QueueRates      `json:"queues"`
	Topics    []TopicRates      `json:"topics"` // in the Report's order
}

// Flow is a stream of batches.
type Flow struct {
	Messages float64 `json:"messages_per_s"`
	Batches  float64 `json:"batches_per_s"`
	Bytes    float64 `json:"bytes_per_s"` // of batches, as on the wire
}

// ProcessRates is what the broker spends.
type ProcessRates struct {
	CPUs       float64 `json:"cpus"`     // processors kept busy
	GCShare    float64 `json:"gc_share"` // of its processor time
	GCs        float64 `json:"gcs_per_s"`
	AllocBytes float64 `json:"alloc_bytes_per_s"`
	RSSBytes   int64   `json:"rss_bytes"`
	HeapBytes  int64   `json:"heap_bytes"`
	FDs        int     `json:"fds"`
	Goroutines int     `json:"goroutines"`
}

// SystemRates is what the machine does. Shares are of all processors' time.
type SystemRates struct {
	Busy           float64 `json:"busy_share"`
	IOWait         float64 `json:"iowait_share"`
	Steal          float64 `json:"steal_share"`
	Load1          float64 `json:"load1"`
	AvailableBytes int64   `json:"available_bytes"`
	DiskReadBytes  float64 `json:"disk_read_bytes_per_s"`
	DiskWriteBytes float64 `json:"disk_write_bytes_per_s"`
	DiskBusy       float64 `json:"disk_busy_share"` // of the time
	NetworkIn      float64 `json:"network_in_bytes_per_s"`
	NetworkOut     float64 `json:"network_out_bytes_per_s"`
	Throttled      float64 `json:"throttled_share"` // of the time, by the control group's quota
}

// PoolRates is one pool of memory.
type PoolRates struct {
	Name       string  `json:"name"`
	LiveBytes  int64   `json:"live_bytes"`
	LimitBytes int64   `json:"limit_bytes"`
	Gets       float64 `json:"gets_per_s"`
	Misses     float64 `json:"misses_per_s"`
	Refused    float64 `json:"refused_per_s"`
}

// QueueRates is one queue.
type QueueRates struct {
	Name     string  `json:"name"`
	Depth    int64   `json:"depth"`
	Capacity int64   `json:"capacity"`
	Added    float64 `json:"added_per_s"`
	Refused  float64 `json:"refused_per_s"`
}

// TopicRates is one topic.
type TopicRates struct {
	Name   string `json:"name"`
	Stored Flow   `json:"stored"`
	Bytes  int64  `json:"bytes"` // that can be read now
	// Lag is the messages that are stored and not yet both durable and visible to
	// consumers, of the partitions that the Report lists.
	Lag         int64 `json:"lag"`
	Partitions  int   `json:"partitions"`
	Failed      int   `json:"failed"`
	Corruptions int64 `json:"corruptions"`
	// Known tells that the earlier Report had the topic too, or that it is new.
	Known bool `json:"known"`

	visibility string
	segments   int
	messages   uint64
}

// Between computes the rates from one Report to a later one of the same broker;
// from may be nil. A counter that went down, as a topic's that was created anew,
// is taken to have begun at 0.
func Between(from, to *monitor.Report) Rates {
	r := Rates{
		Time: to.Time, Node: to.Node, Version: to.Version, Uptime: to.Uptime, Ready: to.Ready, Latencies: to.Latencies,
		Connections: to.Totals.Connections, Producers: to.Totals.Producers, Subscriptions: to.Totals.Subscriptions,
		TopicCount: to.Totals.Topics, PartitionCount: to.Totals.Partitions, CreditFreeBytes: to.Totals.CreditFreeBytes,
		Process: ProcessRates{RSSBytes: to.Process.RSSBytes, HeapBytes: to.Process.HeapBytes, FDs: to.Process.FDs, Goroutines: to.Process.Goroutines},
		System:  SystemRates{Load1: to.System.Load1, AvailableBytes: to.System.AvailableBytes},
	}
	if from != nil && restarted(from, to) {
		r.Restarted = true
		from = nil
	}
	if from != nil {
		r.Interval = to.Uptime - from.Uptime
		if r.SampleInterval = max(0, to.Sampled-from.Sampled); to.Sampled == 0 {
			r.SampleInterval = r.Interval // a broker that does not tell
		}
	} else {
		from = to // every difference is 0
	}
	r.Pools, r.Queues = make([]PoolRates, 0, len(to.Pools)), make([]QueueRates, 0, len(to.Queues)) // "[]" in JSON, not "null"
	m := meter(r.Interval.Seconds())
	r.totals(m, &from.Totals, &to.Totals, &from.Storage, &to.Storage)
	sampled := meter(r.SampleInterval.Seconds())
	r.Process.rates(m, sampled, &from.Process, &to.Process)
	r.System.rates(sampled, &from.System, &to.System)
	for i := range to.Pools {
		b := &to.Pools[i]
		a := named(from.Pools, i, b.Name, func(p *monitor.Pool) string { return p.Name })
		if a == nil {
			a = b
		}
		r.Pools = append(r.Pools, PoolRates{Name: b.Name, LiveBytes: b.LiveBytes, LimitBytes: b.LimitBytes,
			Gets: m.rate(a.Gets, b.Gets), Misses: m.rate(a.Misses, b.Misses), Refused: m.rate(a.Refused, b.Refused)})
	}
	for i := range to.Queues {
		b := &to.Queues[i]
		a := named(from.Queues, i, b.Name, func(q *monitor.Queue) string { return q.Name })
		if a == nil {
			a = b
		}
		r.Queues = append(r.Queues, QueueRates{Name: b.Name, Depth: b.Depth, Capacity: b.Capacity,
			Added: m.rate(a.Added, b.Added), Refused: m.rate(a.Refused, b.Refused)})
	}
	r.topics(m, from, to)
	r.Warnings = Warnings(to, &r)
	return r
}

// restarted tells two processes apart. Uptime and counters only grow in one; the
// number of a process may come again, in a container always.
func restarted(from, to *monitor.Report) bool {
	return to.Uptime < from.Uptime || from.Process.PID != to.Process.PID ||
		to.Totals.Frames < from.Totals.Frames || to.Totals.Syscalls < from.Totals.Syscalls ||
		to.Totals.ConnectionsOpened < from.Totals.ConnectionsOpened
}

// meter is the seconds between two Reports; 0 makes every rate 0.
type meter float64

func (m meter) rate(from, to uint64) float64 {
	if to < from {
		from = 0
	}
	return m.per(float64(to - from))
}

func (m meter) per(n float64) float64 {
	if m <= 0 || n < 0 {
		return 0
	}
	return n / float64(m)
}

// share is how much of the interval a time took.
func (m meter) share(from, to time.Duration) float64 { return m.per((to - from).Seconds()) }

// named finds what has a name, first at i, where it stood before.
func named[T any](list []T, i int, name string, of func(*T) string) *T {
	if i >= 0 && i < len(list) && of(&list[i]) == name {
		return &list[i]
	}
	for i := range list {
		if of(&list[i]) == name {
			return &list[i]
		}
	}
	return nil
}

func (r *Rates) totals(m meter, a, b *monitor.Totals, as, bs *monitor.Storage) {
	r.In = Flow{m.rate(a.MessagesIn, b.MessagesIn), m.rate(a.BatchesIn, b.BatchesIn), m.rate(a.BytesIn, b.BytesIn)}
	r.Stored = Flow{Messages: m.rate(a.MessagesStored, b.MessagesStored), Batches: m.rate(a.BatchesStored, b.BatchesStored)}
	r.Out = Flow{m.rate(a.MessagesOut, b.MessagesOut), m.rate(a.BatchesOut, b.BatchesOut), m.rate(a.BytesOut, b.BytesOut)}
	r.Acks, r.Duplicates, r.Errors = m.rate(a.Acks, b.Acks), m.rate(a.Duplicates, b.Duplicates), m.rate(a.Errors, b.Errors)
	r.Delivers, r.HistoryReads = m.rate(a.Delivers, b.Delivers), m.rate(a.HistoryReads, b.HistoryReads)
	r.Opened, r.Refused = m.rate(a.ConnectionsOpened, b.ConnectionsOpened), m.rate(a.ConnectionsRefused, b.ConnectionsRefused)
	r.Frames, r.Syscalls = m.rate(a.Frames, b.Frames), m.rate(a.Syscalls, b.Syscalls)
	r.Syncs, r.Writes = m.rate(as.Syncs, bs.Syncs), m.rate(as.Writes, bs.Writes)
}

func (r *ProcessRates) rates(m, sampled meter, a, b *monitor.Process) {
	r.CPUs, r.GCs, r.AllocBytes = sampled.share(a.CPU, b.CPU), m.rate(a.GCs, b.GCs), m.rate(a.AllocBytes, b.AllocBytes)
	if r.CPUs > 0 {
		r.GCShare = min(1, m.share(a.GCCPU, b.GCCPU)/r.CPUs)
	}
}

// keep takes over from the rates before what was not read anew.
func (r *Rates) keep(before *Rates) {
	if r.Interval <= 0 || r.SampleInterval > 0 || before.SampleInterval <= 0 {
		return
	}
	gauges := r.System
	r.SampleInterval, r.Process.CPUs, r.Process.GCShare, r.System = before.SampleInterval, before.Process.CPUs, before.Process.GCShare, before.System
	r.System.Load1, r.System.AvailableBytes = gauges.Load1, gauges.AvailableBytes
}

func (r *SystemRates) rates(m meter, a, b *monitor.System) {
	busy, idle, wait, steal := b.Busy-a.Busy, b.Idle-a.Idle, b.IOWait-a.IOWait, b.Steal-a.Steal
	if all := float64(busy + idle + wait + steal); all > 0 {
		clip := func(d time.Duration) float64 { return min(1, max(0, float64(d)/all)) }
		r.Busy, r.IOWait, r.Steal = clip(busy), clip(wait), clip(steal)
	}
	if a.Disk != nil && b.Disk != nil && a.Disk.Device == b.Disk.Device {
		r.DiskReadBytes, r.DiskWriteBytes = m.rate(a.Disk.ReadBytes, b.Disk.ReadBytes), m.rate(a.Disk.WriteBytes, b.Disk.WriteBytes)
		r.DiskBusy = min(1, m.share(a.Disk.Busy, b.Disk.Busy))
	}
	if a.Network != nil && b.Network != nil {
		r.NetworkIn, r.NetworkOut = m.rate(a.Network.BytesIn, b.Network.BytesIn), m.rate(a.Network.BytesOut, b.Network.BytesOut)
	}
	if a.Cgroup != nil && b.Cgroup != nil {
		r.Throttled = min(1, m.share(a.Cgroup.Throttled, b.Cgroup.Throttled))
	}
}

func (r *Rates) topics(m meter, from, to *monitor.Report) {
	before := make(map[string]*monitor.Topic, len(from.Topics))
	for i := range from.Topics {
		before[from.Topics[i].Name] = &from.Topics[i]
	}
	r.Topics = make([]TopicRates, 0, len(to.Topics))
	for i := range to.Topics {
		b := &to.Topics[i]
		a := before[b.Name]
		t := TopicRates{Name: b.Name, Bytes: b.Bytes, Partitions: b.PartitionCount, Failed: b.Failed, Known: m > 0,
			visibility: b.Visibility, segments: b.Segments, messages: b.MessagesStored}
		if a == nil {
			a = new(monitor.Topic)
			if from.TopicsOmitted > 0 { // it may have been one of them
				a, t.Known = b, false
			}
		}
		t.Stored = Flow{m.rate(a.MessagesStored, b.MessagesStored), m.rate(a.BatchesStored, b.BatchesStored), m.rate(a.BytesStored, b.BytesStored)}
		r.Stored.Bytes += t.Stored.Bytes
		for k := range b.Partitions {
			p := &b.Partitions[k]
			safe := p.HWM
			if p.Durable > 0 { // else nothing is synced yet, or ever: the engine may not be able to
				safe = min(safe, p.Durable)
			}
			t.Lag += max(0, p.End-safe)
			t.Corruptions += max(0, p.Corruptions)
		}
		r.Topics = append(r.Topics, t)
	}
}
