package load

import (
	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/portask/portask/loadgen/pace"
)

// Interval is what happened in about a second; in a long run, in several:
// neighbours are then merged, so that there are never more than intervalsMax.
// Latencies are those of messages acknowledged or delivered in the interval,
// whenever they were due; of all phases, measured or not.
type Interval struct {
	Start float64 `json:"start_s"` // since the run's first phase began
	End   float64 `json:"end_s"`
	Phase string  `json:"phase"` // at Start; empty behind the last

	// Messages. Offered is what the schedule wanted, 0 in a closed loop.
	Offered   float64 `json:"offered"`
	Sent      uint64  `json:"sent"`
	Acked     uint64  `json:"acked"`
	Failed    uint64  `json:"failed"`
	Delivered uint64  `json:"delivered"`
	Bytes     uint64  `json:"bytes"` // delivered, of values
	HeldBack  uint64  `json:"held_back"`
	// Outstanding at End: sent, and neither delivered nor given up.
	Outstanding uint64 `json:"outstanding"`

	Latency Latencies `json:"latency"`

	// Generator is its CPU in processors, Spin how much of it the pacer spun.
	Generator float64       `json:"generator_cpus"`
	Spin      float64       `json:"spin_cpus"`
	Target    *TargetSample `json:"target,omitempty"` // at End
}

// Seconds is the interval's length.
func (v *Interval) Seconds() float64 { return v.End - v.Start }

// TargetSample is the target's process at a moment.
type TargetSample struct {
	CPUs     float64 `json:"cpus"` // processors used since the interval began
	RSSBytes int64   `json:"rss_bytes"`
	FDs      int     `json:"fds"`
}

// intervalsMax keeps half an hour of seconds; 24 h are 1350 intervals of 64 s.
const intervalsMax = 1800

// bucket is a count of a histogram with its index: of 23,000 counts an
// interval fills some hundred.
type bucket struct{ index, count uint32 }

// intervals keeps the series of a run. Not safe for concurrent use.
type intervals struct {
	all []kept
	// every is how many seconds of the collector make one interval; it doubles
	// when there are too many.
	every, pending int
	// max is the most intervals; 0: intervalsMax.
	max int
}

// Series keeps intervals as Measured.Series has them, for who puts several
// processes' together. Not safe for concurrent use.
type Series struct{ x intervals }

// Add appends an interval, the later one, and its histograms, which are not
// kept.
func (x *Series) Add(v Interval, h Histograms) { x.x.add(v, &h) }

// List returns the series.
func (x *Series) List() []Interval { return x.x.list() }

type kept struct {
	Interval
	h [allSeries][]bucket
}

func (x *intervals) add(v Interval, h *Histograms) {
	k := kept{Interval: v}
	for s := range allSeries {
		if from := *h.at(s); from != nil && from.TotalCount() > 0 {
			for i, n := range from.Export().Counts {
				if n > 0 {
					k.h[s] = append(k.h[s], bucket{uint32(i), uint32(n)})
				}
			}
		}
	}
	if x.every == 0 {
		x.every = 1
	}
	if x.max == 0 {
		x.max = intervalsMax
	}
	if x.pending > 0 {
		x.all[len(x.all)-1].merge(&k)
	} else {
		x.all = append(x.all, k)
	}
	if x.pending++; x.pending == x.every {
		x.pending = 0
	}
	if len(x.all) == x.max && x.pending == 0 {
		for i := range x.max / 2 {
			x.all[2*i].merge(&x.all[2*i+1])
			x.all[i] = x.all[2*i]
		}
		clear(x.all[x.max/2:])
		x.all = x.all[:x.max/2]
		x.every *= 2
	}
}

// merge appends the interval that follows. Counts add; quantiles come from the
// merged histograms.
func (k *kept) merge(o *kept) {
	length, next := k.Seconds(), o.Seconds()
	k.End = o.End
	k.Offered += o.Offered
	k.Sent += o.Sent
	k.Acked += o.Acked
	k.Failed += o.Failed
	k.Delivered += o.Delivered
	k.Bytes += o.Bytes
	k.HeldBack += o.HeldBack
	k.Outstanding = o.Outstanding
	if total := length + next; total > 0 {
		k.Generator = (k.Generator*length + o.Generator*next) / total
		k.Spin = (k.Spin*length + o.Spin*next) / total
		if k.Target != nil && o.Target != nil {
			t := *o.Target
			t.CPUs = (k.Target.CPUs*length + o.Target.CPUs*next) / total
			k.Target = &t
		}
	}
	var h Histograms
	for s := range allSeries {
		k.h[s] = mergeBuckets(k.h[s], o.h[s])
		if len(k.h[s]) > 0 {
			*h.at(s) = rebuild(k.h[s])
		}
	}
	k.Latency = h.summarise()
}

// mergeBuckets adds two sorted lists.
func mergeBuckets(a, b []bucket) []bucket {
	out := make([]bucket, 0, max(len(a), len(b)))
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0].index < b[0].index:
			out, a = append(out, a[0]), a[1:]
		case len(a) == 0 || b[0].index < a[0].index:
			out, b = append(out, b[0]), b[1:]
		default:
			out = append(out, bucket{a[0].index, a[0].count + b[0].count})
			a, b = a[1:], b[1:]
		}
	}
	return out
}

func rebuild(all []bucket) *hdrhistogram.Histogram {
	x := pace.NewHistogram().Export()
	for _, b := range all {
		x.Counts[b.index] = int64(b.count)
	}
	return hdrhistogram.Import(x)
}

// list returns the series.
func (x *intervals) list() []Interval {
	out := make([]Interval, len(x.all))
	for i := range x.all {
		out[i] = x.all[i].Interval
	}
	return out
}
