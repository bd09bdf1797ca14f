package load

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/portask/portask/loadgen/pace"
	"github.com/portask/portask/loadgen/scenario"
)

func TestRecorder(t *testing.T) {
	var p pool
	r := newRecorder(&p, 3)
	r.record(0, e2e, -5) // a clock that went back must not vanish
	r.record(0, e2e, int64(time.Hour))
	r.answer(1, 5000, 3000)
	parts := make([]Histograms, 3)
	r.drain(parts)
	if n := parts[0].E2E.TotalCount(); n != 2 || parts[0].Ack != nil || parts[2].E2E != nil {
		t.Errorf("%d values, %+v", n, parts)
	}
	if q := Summarise(parts[0].E2E); q.Max < int64(9*time.Minute) {
		t.Errorf("an hour counts as %v", time.Duration(q.Max))
	}
	if a, s := Summarise(parts[1].Ack), Summarise(parts[1].Service); a.Count != 1 || a.Max < 5000 || s.Max > 3600 {
		t.Errorf("answer recorded as %+v, %+v", a, s)
	}
	r.record(0, e2e, 1)
	r.drain(parts)
	if n := parts[0].E2E.TotalCount(); n != 3 {
		t.Errorf("drained onto what was there: %d values, want 3", n)
	}
	if len(p.free) != 1 {
		t.Errorf("%d histograms came back, want 1", len(p.free))
	}
}

// Many seconds are kept in a bounded number of intervals; nothing is lost by
// merging, and quantiles come from histograms.
func TestSeriesIsBounded(t *testing.T) {
	const most = 20
	x := intervals{max: most}
	const seconds = 100
	h := pace.NewHistogram()
	for i := range seconds {
		h.Reset()
		h.RecordValues(1_000_000, 90)
		h.RecordValues(int64(1+i%2)*100_000_000, 10) // 10 % at 100 or 200 ms
		all := Histograms{E2E: h}
		x.add(Interval{
			Start: float64(i), End: float64(i + 1), Sent: 100, Offered: 100, Outstanding: uint64(i), Generator: float64(i % 2), Latency: all.summarise(),
			Target: &TargetSample{CPUs: float64(i % 2), RSSBytes: int64(i)},
		}, &all)
	}
	list := x.list()
	if len(list) >= most || len(list) < most/2 {
		t.Errorf("%d intervals", len(list))
	}
	var sent uint64
	at := 0.0
	for _, v := range list {
		if v.Start != at || v.Seconds() > 8 {
			t.Fatalf("interval %v to %v after %v", v.Start, v.End, at)
		}
		at = v.End
		sent += v.Sent
		if v.Latency.E2E.Count != int64(v.Sent) || v.Outstanding != uint64(v.End-1) || v.Target.RSSBytes != int64(v.End-1) {
			t.Fatalf("interval %+v", v)
		}
		if v.Seconds() > 1 && (math.Abs(v.Generator-0.5) > 1e-9 || math.Abs(v.Target.CPUs-0.5) > 1e-9 || v.Latency.E2E.Max < 199_000_000 || v.Latency.E2E.P50 > 1_010_000) {
			t.Fatalf("merged interval %+v", v)
		}
	}
	if at != seconds || sent != 100*seconds {
		t.Errorf("%d sent until %v s", sent, at)
	}
}

func TestSpread(t *testing.T) {
	if got := spread([]int{1}); !slices.Equal(got, []uint8{0}) {
		t.Errorf("one topic: %v", got)
	}
	got := spread([]int{8, 3, 1})
	var n [3]int
	for i, x := range got {
		n[x]++
		if i > 1 && x != 0 && x == got[i-1] {
			t.Errorf("topic %d twice in a row: %v", x, got)
		}
	}
	if n != [3]int{8, 3, 1} {
		t.Errorf("%v: %v", n, got)
	}
}

// Keys follow Zipf's law with the exponent asked for, from uniform on.
func TestKeySkew(t *testing.T) {
	const n, draws = 100, 200_000
	for _, skew := range []float64{0, 0.5, 0.99, 1, 1.3, 3} {
		k := newKeys(scenario.Keys{Count: n, Skew: skew}, 1, 0)
		var got [n + 1]float64
		for range draws {
			got[k.next()]++
		}
		norm := 0.0
		for i := 1; i <= n; i++ {
			norm += math.Pow(float64(i), -skew)
		}
		for i := 1; i <= n; i++ {
			want := draws * math.Pow(float64(i), -skew) / norm
			if math.Abs(got[i]-want) > 6*math.Sqrt(want)+3 {
				t.Errorf("skew %v: key %d was drawn %v times, want %.0f", skew, i, got[i], want)
			}
		}
	}
	for _, count := range []int{1, 2, 100_000_000} {
		k := newKeys(scenario.Keys{Count: count, Skew: 1.1}, 1, 0)
		for range 1000 {
			if x := k.next(); x < 1 || int(x) > count {
				t.Fatalf("key %d of %d", x, count)
			}
		}
	}
	if s := string(appendKey(nil, 0x2a)); s != "k0000002a" {
		t.Errorf("key %q", s)
	}
}

func TestHotKeys(t *testing.T) {
	const draws = 100_000
	k := newKeys(scenario.Keys{Count: 1000, Hot: 10, HotShare: 0.8}, 1, 0)
	var got [1001]int
	for range draws {
		got[k.next()]++
	}
	hot := 0
	for i, n := range got[1:] {
		want := draws * 0.2 / 990
		if i < 10 {
			hot += n
			want = draws * 0.8 / 10
		}
		if math.Abs(float64(n)-want) > 6*math.Sqrt(want) {
			t.Errorf("key %d was drawn %d times, want %.0f", i+1, n, want)
		}
	}
	if math.Abs(float64(hot)/draws-0.8) > 0.01 || got[0] != 0 {
		t.Errorf("hot keys were drawn %d times of %d", hot, draws)
	}
	for _, share := range []float64{0, 1} {
		k := newKeys(scenario.Keys{Count: 3, Hot: 2, HotShare: share}, 1, 0)
		for range 1000 {
			if key := k.next(); (key <= 2) != (share == 1) || key < 1 || key > 3 {
				t.Fatalf("share %v: key %d", share, key)
			}
		}
	}
}

func TestPhaseAt(t *testing.T) {
	r := &Run{timeline: []int64{100, 200, 300, 400}}
	for hint := range 4 {
		for at, want := range map[int64]int{0: 0, 100: 0, 199: 0, 200: 1, 299: 1, 300: 2, 399: 2, 400: 3, 9999: 3} {
			if got := r.phaseAt(at, hint); got != want {
				t.Errorf("time %d from %d: phase %d, want %d", at, hint, got, want)
			}
		}
	}
}
