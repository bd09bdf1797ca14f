package load

import (
	"sync"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/portask/portask/loadgen/pace"
)

// recorder keeps one latency: since the beginning, and since it was last asked.
// Safe for concurrent use; each goroutine that records has its own, so the lock
// is free but for a reader once a second.
type recorder struct {
	mu              sync.Mutex
	total, interval *hdrhistogram.Histogram
}

func newRecorder() *recorder {
	return &recorder{total: pace.NewHistogram(), interval: pace.NewHistogram()}
}

// record notes ns. Values beyond the histogram's range count as its end: a
// histogram that drops them would hide the worst.
func (r *recorder) record(ns int64) {
	r.mu.Lock()
	ns = min(max(ns, 0), r.total.HighestTrackableValue())
	r.total.RecordValue(ns)
	r.interval.RecordValue(ns)
	r.mu.Unlock()
}

// addTo merges everything recorded into h.
func (r *recorder) addTo(h *hdrhistogram.Histogram) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h.Merge(r.total)
}

// drainTo merges what was recorded since the last call into h.
func (r *recorder) drainTo(h *hdrhistogram.Histogram) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h.Merge(r.interval)
	r.interval.Reset()
}

// Quantiles summarise one latency, ns.
type Quantiles struct {
	Count int64   `json:"count"`
	P50   int64   `json:"p50_ns"`
	P90   int64   `json:"p90_ns"`
	P99   int64   `json:"p99_ns"`
	P999  int64   `json:"p99_9_ns"`
	Max   int64   `json:"max_ns"`
	Mean  float64 `json:"mean_ns"`
}

func quantiles(h *hdrhistogram.Histogram) Quantiles {
	return Quantiles{
		Count: h.TotalCount(), P50: h.ValueAtQuantile(50), P90: h.ValueAtQuantile(90), P99: h.ValueAtQuantile(99),
		P999: h.ValueAtQuantile(99.9), Max: h.Max(), Mean: h.Mean(),
	}
}

// merged is the sum of all recorders; nil ones are skipped.
func merged(all []*recorder) *hdrhistogram.Histogram {
	h := pace.NewHistogram()
	for _, r := range all {
		if r != nil {
			r.addTo(h)
		}
	}
	return h
}
