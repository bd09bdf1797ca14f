package monitor

import "time"

// Report is everything that GET /stats says, as JSON. A field is never renamed
// and never changes its unit; readers skip fields that they do not know.
//
// What ends in "_total" counts up from the broker's start and never goes down;
// a rate is the difference of two reports over the difference of their Times.
// Everything else is the state at Time. Durations are nanoseconds ("_ns").
// Figures that the system does not tell are 0, or their object is absent.
type Report struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	Node    string `json:"node"`
	Cluster string `json:"cluster,omitempty"`
	Engine  string `json:"engine,omitempty"`
	Address string `json:"address,omitempty"` // of the data listener

	Time   time.Time     `json:"time"`
	Uptime time.Duration `json:"uptime_ns"`
	// Interval is the length of what Latencies call the last interval, and the
	// age at most of Process and System.
	Interval time.Duration `json:"interval_ns"`
	// Sampled is the Uptime at which System and Process were read, but for what
	// Process has of the Go runtime. Rates of the times in them are over the
	// difference of two of these.
	Sampled time.Duration `json:"sampled_ns"`

	Ready      bool        `json:"ready"`
	Components []Component `json:"components"` // as /readyz has them

	Totals    Totals    `json:"totals"`
	Loops     []Loop    `json:"loops,omitempty"`
	Latencies []Latency `json:"latencies,omitempty"` // in the order of LatencyNames
	Storage   Storage   `json:"storage"`
	Pools     []Pool    `json:"pools,omitempty"`
	Queues    []Queue   `json:"queues,omitempty"`

	// Topics are those with the most bytes received since the broker's start,
	// then by name; at most ReportTopics with ReportPartitions partitions in
	// all. The omitted ones are in Totals all the same.
	Topics            []Topic `json:"topics,omitempty"`
	TopicsOmitted     int     `json:"topics_omitted"`
	PartitionsOmitted int     `json:"partitions_omitted"`

	Process Process `json:"process"`
	System  System  `json:"system"`
}

// Bounds of a Report: it stays below 1 MiB whatever the catalogue holds.
const (
	ReportTopics     = 200
	ReportPartitions = 1000
)

// Component is one part of readiness: the name, and why it is not ready.
type Component struct {
	Name   string `json:"name"` // listener, storage, logs
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty"` // a sentence, empty when ready
	Code   string `json:"code,omitempty"`   // of fault, empty when ready
}

// Totals are sums over all loops, topics and partitions.
type Totals struct {
	Connections   int64 `json:"connections"`
	Producers     int64 `json:"producers"`
	Subscriptions int64 `json:"subscriptions"`

	ConnectionsOpened  uint64 `json:"connections_opened_total"`
	ConnectionsClosed  uint64 `json:"connections_closed_total"`
	ConnectionsRefused uint64 `json:"connections_refused_total"`

	Frames uint64 `json:"frames_total"` // taken from clients
	Errors uint64 `json:"errors_total"` // ERROR frames sent

	// In is counted when a batch was checked and is about to be admitted,
	// Stored when it is in its log, Out when the first byte of its frame is
	// with the kernel.
	BatchesIn      uint64 `json:"batches_in_total"`
	MessagesIn     uint64 `json:"messages_in_total"`
	BytesIn        uint64 `json:"bytes_in_total"` // of batches
	BatchesStored  uint64 `json:"batches_stored_total"`
	MessagesStored uint64 `json:"messages_stored_total"`
	Acks           uint64 `json:"acks_total"`
	Duplicates     uint64 `json:"duplicates_total"`
	Delivers       uint64 `json:"delivers_total"` // DELIVER frames
	BatchesOut     uint64 `json:"batches_out_total"`
	MessagesOut    uint64 `json:"messages_out_total"`
	BytesOut       uint64 `json:"bytes_out_total"` // of batches
	HistoryReads   uint64 `json:"history_reads_total"`

	SocketBytesIn  uint64 `json:"socket_bytes_in_total"`
	SocketBytesOut uint64 `json:"socket_bytes_out_total"`
	Syscalls       uint64 `json:"syscalls_total"` // of the event loops

	Topics     int `json:"topics"`
	Partitions int `json:"partitions"`
	// CreditFreeBytes is what producers may still be granted.
	CreditFreeBytes int64 `json:"credit_free_bytes"`
}

// Loop is one event loop.
type Loop struct {
	Index       int    `json:"index"`
	Connections int64  `json:"connections"`
	Turns       uint64 `json:"turns_total"`
	Frames      uint64 `json:"frames_total"`
	BytesIn     uint64 `json:"bytes_in_total"`
	BytesOut    uint64 `json:"bytes_out_total"`
}

// Names of latencies, in the order of Report.Latencies.
const (
	// LatencyAccepted and LatencyDurable begin with the turn of the event loop
	// that took a PRODUCE frame from its socket and end when its answer is
	// queued for that turn's write: by the ack level of the producer.
	LatencyAccepted = "produce_accepted"
	LatencyDurable  = "produce_durable"
	// LatencyAppend is one gathered append to a log, of many batches perhaps.
	LatencyAppend = "append"
	// LatencySync is one sync of a log.
	LatencySync = "sync"
	// LatencyDeliver begins when a batch becomes visible and ends when the
	// frame that carries it is handed to the kernel, for subscriptions that
	// were up to date and had credit.
	LatencyDeliver = "deliver"
)

// LatencyNames are the names of all latencies, in their order.
func LatencyNames() []string {
	return []string{LatencyAccepted, LatencyDurable, LatencyAppend, LatencySync, LatencyDeliver}
}

// Latency is one distribution, of the last whole interval and since the
// broker's start. Values are within 4 % of what was measured.
type Latency struct {
	Name  string    `json:"name"`
	Last  Quantiles `json:"last"`
	Total Quantiles `json:"total"`
}

// Quantiles of a distribution; all 0 when Count is.
type Quantiles struct {
	Count uint64        `json:"count"`
	Mean  time.Duration `json:"mean_ns"`
	P50   time.Duration `json:"p50_ns"`
	P90   time.Duration `json:"p90_ns"`
	P99   time.Duration `json:"p99_ns"`
	P999  time.Duration `json:"p999_ns"`
	Max   time.Duration `json:"max_ns"`
}

// Topic is one topic; figures are sums over all of its partitions, also of
// those that are omitted from Partitions.
type Topic struct {
	Name           string      `json:"name"`
	Visibility     string      `json:"visibility"`
	PartitionCount int         `json:"partition_count"`
	BatchesStored  uint64      `json:"batches_stored_total"`
	MessagesStored uint64      `json:"messages_stored_total"`
	BytesStored    uint64      `json:"bytes_stored_total"`
	Bytes          int64       `json:"bytes"` // that can be read now
	Segments       int         `json:"segments"`
	Failed         int         `json:"failed"` // partitions that take no more batches
	Partitions     []Partition `json:"partitions,omitempty"`
}

// Partition is one partition. Start is its oldest offset; the others are
// exclusive ends: HWM of what consumers see, End of what is stored, Durable of
// what survives power loss, which is 0 where the engine cannot give that.
type Partition struct {
	Index          uint32 `json:"index"`
	Start          int64  `json:"start"`
	HWM            int64  `json:"hwm"`
	End            int64  `json:"end"`
	Durable        int64  `json:"durable"`
	Bytes          int64  `json:"bytes"`
	Segments       int    `json:"segments"`
	BatchesStored  uint64 `json:"batches_stored_total"`
	MessagesStored uint64 `json:"messages_stored_total"`
	BytesStored    uint64 `json:"bytes_stored_total"`
	Failed         bool   `json:"failed"`
	Corruptions    int64  `json:"corruptions"`
}

// Storage is the engine.
type Storage struct {
	FreeBytes  int64 `json:"free_bytes"` // that can still be stored
	TotalBytes int64 `json:"total_bytes"`
	Full       bool  `json:"full"` // producing is stopped
	Logs       int   `json:"logs"`
	FailedLogs int   `json:"failed_logs"`
	Bytes      int64 `json:"bytes"`
	HeldBytes  int64 `json:"held_bytes"`
	Segments   int   `json:"segments"`
	Spares     int   `json:"spare_segments"`

	Appends      uint64 `json:"appends_total"`
	Writes       uint64 `json:"writes_total"`
	Syncs        uint64 `json:"syncs_total"`
	Rolls        uint64 `json:"rolls_total"`
	Recycled     uint64 `json:"recycled_segments_total"`
	RemovedBytes int64  `json:"removed_bytes_total"`
	Corruptions  int    `json:"corruptions"`
}

// Pool is one pool of memory.
type Pool struct {
	Name       string `json:"name"`
	LiveBytes  int64  `json:"live_bytes"`
	KeptBytes  int64  `json:"kept_bytes"`
	FreeBytes  int64  `json:"free_bytes"`
	LimitBytes int64  `json:"limit_bytes"` // 0: none
	Gets       uint64 `json:"gets_total"`
	Misses     uint64 `json:"misses_total"`
	Refused    uint64 `json:"refused_total"`
}

// Queue is one queue, or all of one kind.
type Queue struct {
	Name     string `json:"name"`
	Depth    int64  `json:"depth"`
	Capacity int64  `json:"capacity"`      // 0: bounded by what it holds, not by a number
	Added    uint64 `json:"added_total"`   // 0 where it is not counted
	Refused  uint64 `json:"refused_total"` // offers that found it full
}

// Process is the broker's own process.
type Process struct {
	PID        int           `json:"pid"`
	CPU        time.Duration `json:"cpu_ns_total"`
	RSSBytes   int64         `json:"rss_bytes"`
	FDs        int           `json:"fds"`
	FDLimit    int64         `json:"fd_limit"` // 0: none or unknown
	Threads    int           `json:"threads"`
	Goroutines int           `json:"goroutines"`

	HeapBytes        int64         `json:"heap_bytes"` // objects, dead ones not yet swept included
	HeapGoalBytes    int64         `json:"heap_goal_bytes"`
	RuntimeBytes     int64         `json:"runtime_bytes"` // mapped by the Go runtime, chunks outside of its heap apart
	MemoryLimitBytes int64         `json:"memory_limit_bytes"`
	GCs              uint64        `json:"gcs_total"`
	GCCPU            time.Duration `json:"gc_cpu_ns_total"`
	AllocBytes       uint64        `json:"alloc_bytes_total"`
	AllocObjects     uint64        `json:"alloc_objects_total"`
	MaxProcs         int           `json:"max_procs"`
}

// System is the machine, and the cgroup that the broker runs in. CPU times are
// sums over all processors.
type System struct {
	Processors int           `json:"processors"`
	Busy       time.Duration `json:"busy_ns_total"`
	Idle       time.Duration `json:"idle_ns_total"`
	IOWait     time.Duration `json:"iowait_ns_total"`
	Steal      time.Duration `json:"steal_ns_total"`

	Load1  float64 `json:"load1"`
	Load5  float64 `json:"load5"`
	Load15 float64 `json:"load15"`

	MemoryBytes    int64 `json:"memory_bytes"`
	AvailableBytes int64 `json:"available_bytes"`
	SwapBytes      int64 `json:"swap_bytes"`
	SwapUsedBytes  int64 `json:"swap_used_bytes"`

	Disk     *Disk     `json:"disk,omitempty"`    // that holds the data directory
	Network  *Network  `json:"network,omitempty"` // all interfaces but loopback
	Cgroup   *Cgroup   `json:"cgroup,omitempty"`
	Pressure *Pressure `json:"pressure,omitempty"` // of the cgroup where it has files, else of the machine
}

// Disk is the file system of the data directory and the device under it.
type Disk struct {
	Path       string        `json:"path"`
	TotalBytes int64         `json:"total_bytes"`
	FreeBytes  int64         `json:"free_bytes"`
	Device     string        `json:"device,omitempty"` // empty: the counters are unknown
	ReadBytes  uint64        `json:"read_bytes_total"`
	WriteBytes uint64        `json:"write_bytes_total"`
	Reads      uint64        `json:"reads_total"`
	Writes     uint64        `json:"writes_total"`
	Busy       time.Duration `json:"busy_ns_total"`
}

// Network sums interfaces.
type Network struct {
	BytesIn    uint64 `json:"bytes_in_total"`
	BytesOut   uint64 `json:"bytes_out_total"`
	PacketsIn  uint64 `json:"packets_in_total"`
	PacketsOut uint64 `json:"packets_out_total"`
	Errors     uint64 `json:"errors_total"`
	Drops      uint64 `json:"drops_total"`
}

// Cgroup is what the control group allows and uses; a limit of 0 is none.
type Cgroup struct {
	MemoryLimitBytes int64         `json:"memory_limit_bytes"`
	MemoryBytes      int64         `json:"memory_bytes"`
	CPUs             float64       `json:"cpus"` // quota in processors
	Throttled        time.Duration `json:"throttled_ns_total"`
	OOMKills         uint64        `json:"oom_kills_total"`
}

// Pressure is the kernel's pressure stall information.
type Pressure struct {
	CPU    Stall `json:"cpu"`
	Memory Stall `json:"memory"`
	IO     Stall `json:"io"`
}

// Stall is the time in which some, or all, runnable tasks waited for a
// resource; the averages are shares of the last 10 s, 0 to 1.
type Stall struct {
	Some10 float64       `json:"some10"`
	Full10 float64       `json:"full10"`
	Some   time.Duration `json:"some_ns_total"`
	Full   time.Duration `json:"full_ns_total"`
}
