package evidence

import (
	"encoding/json"
	"time"
)

// stats are the fields of the broker's GET /stats that are read here. The
// broker promises never to rename one; what is missing is 0.
type stats struct {
	Version string        `json:"version"`
	Go      string        `json:"go"`
	Engine  string        `json:"engine"`
	Uptime  time.Duration `json:"uptime_ns"`
	// Sampled is the Uptime at which Process and System were read.
	Sampled time.Duration `json:"sampled_ns"`

	Totals struct {
		SocketBytesIn  uint64 `json:"socket_bytes_in_total"`
		SocketBytesOut uint64 `json:"socket_bytes_out_total"`
		Syscalls       uint64 `json:"syscalls_total"`
		BatchesIn      uint64 `json:"batches_in_total"`
		MessagesIn     uint64 `json:"messages_in_total"`
		Errors         uint64 `json:"errors_total"`
		Duplicates     uint64 `json:"duplicates_total"`
		HistoryReads   uint64 `json:"history_reads_total"`
	} `json:"totals"`
	Latencies []struct {
		Name  string    `json:"name"`
		Last  quantiles `json:"last"`
		Total quantiles `json:"total"`
	} `json:"latencies"`
	Storage struct {
		Syncs  uint64 `json:"syncs_total"`
		Writes uint64 `json:"writes_total"`
		Bytes  int64  `json:"bytes"`
	} `json:"storage"`
	Queues []struct {
		Name    string `json:"name"`
		Depth   int64  `json:"depth"`
		Refused uint64 `json:"refused_total"`
	} `json:"queues"`
	Process struct {
		CPU          time.Duration `json:"cpu_ns_total"`
		RSSBytes     int64         `json:"rss_bytes"`
		FDs          int           `json:"fds"`
		Threads      int           `json:"threads"`
		Goroutines   int           `json:"goroutines"`
		HeapBytes    int64         `json:"heap_bytes"`
		GCs          uint64        `json:"gcs_total"`
		GCCPU        time.Duration `json:"gc_cpu_ns_total"`
		AllocObjects uint64        `json:"alloc_objects_total"`
		AllocBytes   uint64        `json:"alloc_bytes_total"`
		MaxProcs     int           `json:"max_procs"`
	} `json:"process"`
	System struct {
		Processors int           `json:"processors"`
		Busy       time.Duration `json:"busy_ns_total"`
		Idle       time.Duration `json:"idle_ns_total"`
		IOWait     time.Duration `json:"iowait_ns_total"`
		Steal      time.Duration `json:"steal_ns_total"`
		Disk       *struct {
			ReadBytes  uint64        `json:"read_bytes_total"`
			WriteBytes uint64        `json:"write_bytes_total"`
			Busy       time.Duration `json:"busy_ns_total"`
		} `json:"disk"`
		Cgroup *struct {
			Throttled time.Duration `json:"throttled_ns_total"`
		} `json:"cgroup"`
	} `json:"system"`
}

type quantiles struct {
	Count uint64        `json:"count"`
	P50   time.Duration `json:"p50_ns"`
	P99   time.Duration `json:"p99_ns"`
	P999  time.Duration `json:"p999_ns"`
	Max   time.Duration `json:"max_ns"`
}

// statsBytes bounds an answer of /stats, which the broker keeps below 1 MiB.
const statsBytes = 4 << 20

func parseStats(b []byte) (*stats, error) {
	var s stats
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, err
	}
	return &s, nil
}
