// Package sample is the laboratory's raw material as data: slices, pairs and
// rounds of benchmarks that ran on two revisions, and what the machine did
// meanwhile. The runner makes it, statistics read it, reports print it, and
// benchdata keeps it. Nothing here measures or judges.
//
// A *slice* is one call of a benchmark for a fixed number of iterations, about
// ten milliseconds. A *pair* is a slice of the base and one of the head, one
// right after the other, in an order that chance decided. A *round* is a fresh
// pair of processes that ran many pairs; rounds, not slices, are what is
// counted as independent, since slices of one process share its luck (address
// space layout, heap, neighbours).
package sample

import "math"

// Side is one of the two revisions.
type Side uint8

// The sides.
const (
	Base Side = iota
	Head
)

// String is "base" or "head", the value of the key "role" in raw files.
func (s Side) String() string {
	if s == Head {
		return "head"
	}
	return "base"
}

// Bench names a benchmark.
type Bench struct {
	Module  string `json:"module"`  // directory below the repository: "broker", "." for a repository that is one module
	Package string `json:"package"` // directory below the module: "./compression"
	Name    string `json:"name"`    // as `go test -bench` prints it, without "Benchmark" and the processor count
}

// String is "broker/compression.Compress/algorithm=zstd".
func (b Bench) String() string {
	path := b.Module
	if len(b.Package) > 2 {
		path += "/" + b.Package[2:]
	}
	return path + "." + b.Name
}

// Slice is what N iterations took together.
type Slice struct {
	N int `json:"n"`
	// Ns is the time on the wall between the benchmark's timer starts and stops.
	Ns int64 `json:"ns"`
	// CPUNs is user and system time of the process in the slice, the usual cost
	// of the benchmark's set-up in that process deducted.
	CPUNs int64 `json:"cpu_ns"`
	// DelayNs is how long threads of the process were ready to run and had no
	// processor, 0 where the kernel does not tell.
	DelayNs int64 `json:"delay_ns"`
	Allocs  int64 `json:"allocs"`
	Bytes   int64 `json:"bytes"`
}

// Pair is two slices that ran next to each other.
type Pair struct {
	HeadFirst bool  `json:"head_first"`
	Base      Slice `json:"base"`
	Head      Slice `json:"head"`
}

// Metric is what is compared of a slice.
type Metric uint8

// The metrics. CPU is judged for work that is bound by the processor, Wall for
// what waits.
const (
	CPU Metric = iota
	Wall
)

// String is the metric's unit in raw files.
func (m Metric) String() string {
	if m == Wall {
		return "ns/op"
	}
	return "cpu-ns/op"
}

// LogRatio is ln(head/base) per iteration; NaN where a side has none of it.
func (p Pair) LogRatio(m Metric) float64 {
	b, h := p.Base.CPUNs, p.Head.CPUNs
	if m == Wall {
		b, h = p.Base.Ns, p.Head.Ns
	}
	if b <= 0 || h <= 0 || p.Base.N <= 0 || p.Head.N <= 0 {
		return math.NaN()
	}
	return math.Log(float64(h)/float64(p.Head.N)) - math.Log(float64(b)/float64(p.Base.N))
}

// Stage is why a round ran.
type Stage string

// The stages. Data of one never serves another, except that a top-up continues
// the stage it tops up.
const (
	Screen  Stage = "screen"
	Confirm Stage = "confirm"
	TopUp   Stage = "top-up"
)

// Environment is what the machine did during a round, read with gopsutil and
// from the kernel's files before and after. Rates are per second of the round.
type Environment struct {
	Seconds         float64 `json:"seconds"`
	BusyShare       float64 `json:"busy"`  // of all processors, 0 to 1
	StealShare      float64 `json:"steal"` // taken by the hypervisor, 0 to 1
	Load1           float64 `json:"load1"`
	AvailableB      int64   `json:"available_bytes"`
	DiskBytesS      float64 `json:"disk_bytes_per_s"`
	NetBytesS       float64 `json:"net_bytes_per_s"`
	CPUPressure     float64 `json:"cpu_pressure"` // share of the round in which somebody waited for a processor, 0 to 1
	ThrottledS      float64 `json:"throttled_s"`  // taken by the cgroup's quota
	BaseRSS         int64   `json:"base_rss_bytes"`
	HeadRSS         int64   `json:"head_rss_bytes"`
	ContextSwitches int64   `json:"context_switches"` // of both processes
}

// Round is one fresh pair of processes.
type Round struct {
	Index int    `json:"round"`
	Stage Stage  `json:"stage"`
	Seeds [2]int `json:"layout"` // of the link layouts, by Side
	Pairs []Pair `json:"pairs,omitempty"`
	// Dropped is how many pairs were left out, both slices together, because a
	// side waited too long for a processor.
	Dropped int         `json:"dropped"`
	Env     Environment `json:"env"`
	// Interference says what disturbed the round, empty if nothing did. The
	// round stays in the data.
	Interference string `json:"interference,omitempty"`
}

// Series is all rounds of one benchmark.
type Series struct {
	Bench Bench `json:"bench"`
	// Metric is the one that is judged.
	Metric Metric `json:"metric"`
	// Control: both sides are the same program, built from the head.
	Control bool `json:"control"`
	// N is the iterations of a slice, the same for both sides.
	N int `json:"iterations"`
	// SetupShare is the part of a slice's time that is the benchmark's own
	// set-up, 0 to 1.
	SetupShare float64 `json:"setup_share"`
	Rounds     []Round `json:"rounds"`
}

// Of returns the rounds of a stage in order; the slice is new, the rounds are
// shared.
func (s *Series) Of(stages ...Stage) []Round {
	var out []Round
	for _, r := range s.Rounds {
		for _, st := range stages {
			if r.Stage == st {
				out = append(out, r)
			}
		}
	}
	return out
}
