// Package reporttest has a run for tests of reports: half a minute in which the
// target is killed once, the same each time.
package reporttest

import (
	"math"
	"time"

	"github.com/portask/portask/broker/sysmetrics"
	"github.com/portask/portask/loadgen/driver"
	"github.com/portask/portask/loadgen/evidence"
	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/pace"
	"github.com/portask/portask/loadgen/payload"
	"github.com/portask/portask/loadgen/report"
	"github.com/portask/portask/loadgen/scenario"
	"github.com/portask/portask/loadgen/verify"
)

// Seconds is the run's length.
const Seconds = 33

// Began is when it began.
var Began = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// Histograms are those of second i.
func Histograms(i int) load.Histograms {
	h := load.Histograms{E2E: pace.NewHistogram(), Ack: pace.NewHistogram(), Service: pace.NewHistogram(), Lag: pace.NewHistogram()}
	slow := 1.0
	if i == 20 || i == 21 {
		slow = 30
	}
	for k := range 500 {
		x := (1 + 9*math.Pow(float64(k)/500, 8)) * slow * 1e6
		_ = h.E2E.RecordValue(int64(x * 1.3))
		_ = h.Ack.RecordValue(int64(x))
		_ = h.Service.RecordValue(int64(x * 0.9))
		_ = h.Lag.RecordValue(int64(200 + 40*k))
	}
	return h
}

// Document returns the run: valid, and within its objectives.
func Document() *report.Document {
	s, err := scenario.Parse("orders", []byte(`
version: 1
name: orders
topics: [{name: orders, partitions: 4}]
producers: {count: 3, ack: durable}
payload: {source: json, size: 1KiB}
phases:
  - {name: warm-up, duration: 3s, measured: false, rate: 5000}
  - {name: main, duration: 30s, arrival: poisson, rate: 5000}
objectives:
  - {metric: e2e_p99, at_most: 500ms}
  - {metric: delivered_rate, at_least: 4900}
`))
	if err != nil {
		panic(err)
	}
	var all load.Histograms
	m := &load.Measured{}
	for i := range Seconds {
		h := Histograms(i)
		v := load.Interval{
			Start: float64(i), End: float64(i + 1), Phase: "main", Offered: 5000, Sent: 5000, Acked: 4990, Delivered: 4990, Bytes: 5_000_000, Outstanding: uint64(20 + i%7),
			Latency:   load.Latencies{E2E: load.Summarise(h.E2E), Ack: load.Summarise(h.Ack), Service: load.Summarise(h.Service), Lag: load.Summarise(h.Lag)},
			Generator: 0.4, Spin: 0.2, Target: &load.TargetSample{CPUs: 0.3 + float64(i%5)/50, RSSBytes: int64(30+i%4) << 20, FDs: 40},
		}
		if i < 3 {
			v.Phase = "warm-up"
		} else {
			all.Merge(h)
		}
		m.Series = append(m.Series, v)
	}
	main := load.Phase{
		Name: "main", Measured: true, Start: 3, Seconds: 30, Offered: 5000.5, Sent: 5000, Acked: 4999, Delivered: 4998, DeliveredMBps: 5.1, HeldBack: 2, HeldBackMax: 70_000,
		Latency:    load.Latencies{E2E: load.Summarise(all.E2E), Ack: load.Summarise(all.Ack), Service: load.Summarise(all.Service), Lag: load.Summarise(all.Lag)},
		Histograms: all,
	}
	m.Total = main
	m.Total.Name = "total"
	m.Phases = []load.Phase{{Name: "warm-up", Seconds: 3, Offered: 5000, Sent: 5000, Acked: 5000, Delivered: 5000}, main}
	d := &report.Document{
		Result: &load.Result{
			Schema: load.Schema, RunID: "00000000000000ff", Began: Began, Scenario: s.Name, Hash: s.Hash(), Resolved: string(s.YAML()),
			System: driver.Description{System: "portask", Version: "1.2.3"}, Durability: driver.Disk, Topics: []load.TopicInfo{{Name: "orders-ff", Partitions: 4, Visibility: "durable"}},
			Loop: scenario.OpenLoop, Ack: "durable", Visibility: "durable", Producers: 3, Consumers: 2, Partitions: 4,
			Payload: load.PayloadInfo{Source: "json", Describe: "json 8192 KiB", Size: "1KiB", Codec: "raw", Stats: payload.Stats{MeanBytes: 1024, Entropy: 5.03, Zstd1: 3.63}},
			Counts:  verify.Counts{Sent: 165_000, Acked: 164_990, Delivered: 164_995, Failed: 10, UnackedDelivered: 5}, Measured: m,
			Wire:      load.Wire{Batches: 6600, MessagesPerBatch: 25, Bytes: 60e6, RawBytes: 169e6, Compression: 2.8, Retries: 3, Duplicates: 2},
			Generator: load.Generator{CPUSeconds: 13, SpinSeconds: 6.5, Share: 0.1, Steal: 0.002, ExactPacing: true},
			Target:    &load.TargetUse{CPUSeconds: 11, CPUPerMillion: 66.7, RSSBytes: 31 << 20, RSSMaxBytes: 33 << 20, FDs: 40},
			Faults: []load.Fault{{
				Kind: "kill", At: 20, For: 1.5, Recovered: true, Recovery: 0.4, E2E: load.Quantiles{Count: 9000, P50: 3e8, P90: 6e8, P99: 9e8, P999: 1e9, Max: 12e8},
				Of: verify.Span{Messages: 9100, GivenUp: 10},
			}},
			Complete: true, Errors: []string{"producer 1: connection reset"}, Notes: []string{"a remark"},
		},
		Labels: map[string]string{"role": "head", "round": "7"},
		Environment: &evidence.Environment{
			Machine: sysmetrics.Machine{CPU: "CPU X 3000", Cores: 8, Kernel: "linux 6.1", Go: "go1.26"}, MaxProcs: 8, Processors: 8, MemoryBytes: 16 << 30,
			Governor: "performance", ClockSource: "tsc", Load1: 0.25, OpenFiles: 1024, Loadgen: "v1.2.3", Revision: "abcdef",
		},
		Evidence: &evidence.Evidence{
			Sources: []string{"admin listener 127.0.0.1:7475", "process 77"}, Version: "1.2.3", Go: "go1.26", Engine: "disklog",
			Totals:      &evidence.Totals{CPUSeconds: 11, GCCPUSeconds: 0.2, GCs: 9, Messages: 165_000, Batches: 6600, Syscalls: 40_000, Syncs: 3000, Writes: 6600, AllocObjects: 16_000, AllocBytes: 3e6, SocketIn: 60e6, SocketOut: 60e6},
			Latencies:   []evidence.Latency{{Name: "produce_durable", Count: 6600, P50: 8e5, P99: 4e6, P999: 9e6, Max: 3e7}, {Name: "sync", Count: 3000, P50: 3e5, P99: 2e6, P999: 4e6, Max: 2e7}},
			Breaches:    []evidence.Breach{{At: 21, Metric: "e2e_p99", Got: 9e8, Want: 5e8}},
			BreachCount: 1,
			Files:       []evidence.File{{Name: "cpu.pb.gz", What: "CPU profile", At: 10.5, Until: 15.5, Bytes: 7227}},
			Notes:       []string{"breach-1.trace: the flight recorder is off"},
		},
	}
	for i := range Seconds {
		d.Evidence.Samples = append(d.Evidence.Samples, evidence.Sample{
			At: float64(i), CPUs: 0.3, RSSBytes: 31 << 20, HeapBytes: int64(5+i%3) << 20, DiskWrite: 6e6, NetIn: 5e6, NetOut: 5e6, Syncs: 90, HostBusy: 0.2,
			LatencyP99: map[string]int64{"produce_durable": int64(2e6 + 1e5*i), "sync": 1e6},
		})
	}
	return d
}

// Invalid is the run as one in which the generator was the limit.
func Invalid() *report.Document {
	d := Document()
	d.Rejected, d.Measured = d.Measured, nil
	d.Result.Invalid = []load.Problem{{Kind: load.DispatchLag, Phase: "main", Text: "the generator's dispatch lag is too high"}}
	return d
}
