package monitor

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/portask/portask/broker/monitor/latency"
)

// Quantiles are within 4 % of what was recorded; an interval has what was
// recorded in it, the total everything.
func TestQuantiles(t *testing.T) {
	var l latencies
	l.init()
	set := latency.NewSet(2)
	l.attach(set)
	start := time.Now()
	record := func(n int, scale float64) []float64 {
		all := make([]float64, n)
		for i := range all {
			all[i] = math.Floor(math.Exp(rand.Float64()*8) * scale)
			set.At(i%2).Record(latency.Sync, int64(all[i]), 1)
		}
		slices.Sort(all)
		return all
	}
	check := func(q *Quantiles, all []float64) {
		t.Helper()
		if q.Count != uint64(len(all)) {
			t.Fatalf("%d values, want %d", q.Count, len(all))
		}
		for at, got := range map[float64]time.Duration{0.5: q.P50, 0.9: q.P90, 0.99: q.P99, 0.999: q.P999, 1: q.Max} {
			want := all[min(int(math.Ceil(at*float64(len(all))))-1, len(all)-1)]
			if math.Abs(float64(got)-want) > 0.04*want {
				t.Errorf("quantile %v is %v, want %v", at, got, time.Duration(want))
			}
		}
	}
	first := record(10_000, 3000)
	l.turn(start.Add(time.Second))
	got, _ := l.get()
	check(&got[latency.Sync].Last, first)
	check(&got[latency.Sync].Total, first)
	second := record(5000, 90_000)
	l.turn(start.Add(3 * time.Second))
	got, interval := l.get()
	if interval != 2*time.Second {
		t.Errorf("an interval of %v", interval)
	}
	check(&got[latency.Sync].Last, second)
	both := append(first, second...)
	slices.Sort(both)
	check(&got[latency.Sync].Total, both)
	l.turn(start.Add(4 * time.Second))
	if got, _ = l.get(); got[latency.Sync].Last != (Quantiles{}) || got[latency.Append].Total != (Quantiles{}) {
		t.Errorf("where nothing was recorded: %+v", got)
	}
	for k, name := range LatencyNames() {
		if got[k].Name != name {
			t.Errorf("latency %d is %q, want %q", k, got[k].Name, name)
		}
	}
}

// The exported counts are exact at their borders.
func TestHistogram(t *testing.T) {
	set := latency.NewSet(1)
	values := []int64{0, 1<<borderFirst - 1, 1 << borderFirst, 1 << 20, 1<<20 + 1, 1<<borderLast - 1, 1 << borderLast, latency.Max * 2}
	for _, v := range values {
		set.At(0).Record(latency.Append, v, 1)
	}
	var c latency.Counts
	set.Read(latency.Append, &c)
	var m dto.Metric
	if err := histogram(dAppend, &c).Write(&m); err != nil {
		t.Fatal(err)
	}
	h := m.GetHistogram()
	if h.GetSampleCount() != uint64(len(values)) || len(h.GetBucket()) != borderLast-borderFirst+1 {
		t.Fatalf("%d values in %d buckets", h.GetSampleCount(), len(h.GetBucket()))
	}
	for _, b := range h.GetBucket() {
		want := uint64(0)
		for _, v := range values {
			if float64(v) < b.GetUpperBound()*1e9 {
				want++
			}
		}
		if b.GetCumulativeCount() != want {
			t.Errorf("%d values below %v, want %d", b.GetCumulativeCount(), b.GetUpperBound(), want)
		}
	}
}

// BenchmarkTurn is what the sampler does once in an interval besides reading the
// system.
func BenchmarkTurn(b *testing.B) {
	var l latencies
	l.init()
	set := latency.NewSet(4)
	l.attach(set)
	b.ReportAllocs()
	for b.Loop() {
		for k := range latency.Kinds {
			for i := range int64(100) {
				set.At(0).Record(k, i*i*1000, 1)
			}
		}
		l.turn(time.Now())
	}
}
