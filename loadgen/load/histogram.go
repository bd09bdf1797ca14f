package load

import (
	"encoding/json"
	"math"
	"sync"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/portask/portask/loadgen/pace"
)

// series are the latencies of a run.
type series uint8

const (
	e2e     series = iota // intended to delivered and verified
	ack                   // intended to acknowledged
	service               // sent to acknowledged
	lag                   // intended to handed over: the generator's own error
	allSeries
)

var seriesNames = [allSeries]string{"e2e", "ack", "service", "lag"}

// Histograms are the four latencies, ns. A nil one holds nothing. They merge
// without loss: HdrHistogram, three digits, up to 10 minutes. As JSON each is
// its compressed form (V2, base64), as .hlog files have it.
type Histograms struct {
	E2E     *hdrhistogram.Histogram
	Ack     *hdrhistogram.Histogram
	Service *hdrhistogram.Histogram
	Lag     *hdrhistogram.Histogram
}

func (h *Histograms) at(s series) **hdrhistogram.Histogram {
	return [...]**hdrhistogram.Histogram{&h.E2E, &h.Ack, &h.Service, &h.Lag}[s]
}

// Merge adds what other holds.
func (h *Histograms) Merge(other Histograms) {
	for s := range allSeries {
		if from := *other.at(s); from != nil && from.TotalCount() > 0 {
			to := h.at(s)
			if *to == nil {
				*to = pace.NewHistogram()
			}
			(*to).Merge(from)
		}
	}
}

// MarshalJSON implements json.Marshaler.
func (h Histograms) MarshalJSON() ([]byte, error) {
	out := map[string]string{}
	for s := range allSeries {
		x := *h.at(s)
		if x == nil || x.TotalCount() == 0 {
			continue
		}
		b, err := x.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
		if err != nil {
			return nil, err
		}
		out[seriesNames[s]] = string(b)
	}
	return json.Marshal(out)
}

// UnmarshalJSON implements json.Unmarshaler.
func (h *Histograms) UnmarshalJSON(b []byte) error {
	var in map[string]string
	if err := json.Unmarshal(b, &in); err != nil {
		return err
	}
	*h = Histograms{}
	for s := range allSeries {
		text, ok := in[seriesNames[s]]
		if !ok {
			continue
		}
		x, err := hdrhistogram.Decode([]byte(text))
		if err != nil {
			return err
		}
		*h.at(s) = x
	}
	return nil
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

// tailCount is how many values lie beyond a quantile at least, for it to be more
// than one accident: with fewer than ten, a p99.9 is nearly the maximum.
const tailCount = 10

// Enough reports whether there are enough values for quantile p, 0.999 for
// p99.9: 10,000 for that one, 1,000 for p99.
func (q *Quantiles) Enough(p float64) bool {
	return math.Round(float64(q.Count)*(1-p)*1e6) >= tailCount*1e6
}

// Tail is P999 as it may be shown: ok is false if there are too few values.
func (q *Quantiles) Tail() (ns int64, ok bool) { return q.P999, q.Enough(0.999) }

// Summarise returns the quantiles of h, zero for nil.
func Summarise(h *hdrhistogram.Histogram) Quantiles {
	if h == nil || h.TotalCount() == 0 {
		return Quantiles{}
	}
	q := h.ValueAtPercentiles([]float64{50, 90, 99, 99.9}) // one pass over 23,000 counts
	return Quantiles{Count: h.TotalCount(), P50: q[50], P90: q[90], P99: q[99], P999: q[99.9], Max: h.Max(), Mean: h.Mean()}
}

// Latencies are the summaries of Histograms.
type Latencies struct {
	E2E     Quantiles `json:"e2e"`     // intended to delivered and verified
	Ack     Quantiles `json:"ack"`     // intended to acknowledged
	Service Quantiles `json:"service"` // sent to acknowledged
	Lag     Quantiles `json:"lag"`     // dispatch lag, the generator's own error
}

// Summarise returns the quantiles of all four.
func (h *Histograms) Summarise() Latencies { return h.summarise() }

func (h *Histograms) summarise() Latencies {
	return Latencies{E2E: Summarise(h.E2E), Ack: Summarise(h.Ack), Service: Summarise(h.Service), Lag: Summarise(h.Lag)}
}

// pool keeps empty histograms: each is 180 KiB. Safe for concurrent use.
type pool struct {
	mu   sync.Mutex
	free []*hdrhistogram.Histogram
}

func (p *pool) get() *hdrhistogram.Histogram {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free); n > 0 {
		h := p.free[n-1]
		p.free = p.free[:n-1]
		return h
	}
	return pace.NewHistogram()
}

func (p *pool) put(h *hdrhistogram.Histogram) {
	h.Reset()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, h)
}

// recorder takes latencies of one goroutine, or a few, by phase. The collector
// takes them away about once a second, so its lock is free but then. Behind the phases are
// the faults, for the messages that those touched.
type recorder struct {
	pool *pool

	mu sync.Mutex
	h  [][allSeries]*hdrhistogram.Histogram // by part; guarded by mu
}

// newRecorder takes latencies of parts: phases, and faults behind them.
func newRecorder(p *pool, parts int) *recorder {
	return &recorder{pool: p, h: make([][allSeries]*hdrhistogram.Histogram, parts)}
}

func (r *recorder) record(phase int, s series, ns int64) {
	r.mu.Lock()
	r.take(phase, s, ns)
	r.mu.Unlock()
}

// answer records both latencies of an acknowledgement.
func (r *recorder) answer(phase int, fromIntended, fromSent int64) {
	r.mu.Lock()
	r.take(phase, ack, fromIntended)
	r.take(phase, service, fromSent)
	r.mu.Unlock()
}

// take notes ns. Values beyond the histogram's range count as its end: a
// histogram that drops them would hide the worst. mu is held.
func (r *recorder) take(phase int, s series, ns int64) {
	h := r.h[phase][s]
	if h == nil {
		h = r.pool.get()
		r.h[phase][s] = h
	}
	if h.RecordValue(max(ns, 0)) != nil {
		h.RecordValue(h.HighestTrackableValue())
	}
}

// drain adds what was recorded since the last call to into, by phase.
func (r *recorder) drain(into []Histograms) {
	for phase := range into {
		r.mu.Lock()
		h := r.h[phase]
		r.h[phase] = [allSeries]*hdrhistogram.Histogram{}
		r.mu.Unlock()
		for s := range allSeries {
			if h[s] == nil {
				continue
			}
			to := into[phase].at(s)
			if *to == nil {
				*to = h[s]
				continue
			}
			(*to).Merge(h[s])
			r.pool.put(h[s])
		}
	}
}
