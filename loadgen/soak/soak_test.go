package soak

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// broker is a simulated target.
type broker struct {
	r    *rand.Rand
	heap float64 // MiB since the last collection
	p99  float64 // noise with a memory
	// Leaks, an hour.
	leak, fds, goroutines, slower float64
	// fill is memory that fills and then stays: MiB, over a time.
	fill, over float64
}

// at is a second of its life: a heap that grows and is collected, descriptors
// and goroutines that come and go, a latency whose neighbours resemble each
// other and that is spoiled now and then.
func (b *broker) at(second int) Sample {
	if b.heap += 0.3 * b.r.Float64(); b.heap > 20 {
		b.heap = 0
	}
	b.p99 = 0.9*b.p99 + 0.44*b.r.NormFloat64()
	p99 := 2e6 * math.Exp(0.2*b.p99) * (1 + b.slower*float64(second)/3600)
	if b.r.IntN(200) == 0 {
		p99 *= 20
	}
	hours := float64(second) / 3600
	filled := b.fill
	if b.over > 0 {
		filled *= 1 - math.Exp(-3*float64(second)/b.over)
	}
	return Sample{
		At:  time.Duration(second) * time.Second,
		RSS: (60 + b.heap + filled + b.leak*hours) * (1 << 20), FDs: 40 + math.Floor(b.fds*hours) + float64(b.r.IntN(5)),
		Goroutines: 30 + math.Floor(b.goroutines*hours) + float64(b.r.IntN(10)), P99: p99,
	}
}

// watch soaks for some hours and returns the alarms.
func watch(b *broker, hours float64, o Options) *Monitor {
	m := New(o)
	for second := range int(hours * 3600) {
		m.Add(b.at(second))
	}
	return m
}

// A broker that leaks nothing raises no alarm, however long; not even if its
// caches take an hour to fill.
func TestNoFalseAlarms(t *testing.T) {
	for name, b := range map[string]broker{"steady": {}, "caches fill": {fill: 100, over: 1200}, "a slow fill": {fill: 60, over: 300}} {
		for seed := range uint64(12) {
			x := b
			x.r = rand.New(rand.NewPCG(seed, 2))
			o := Options{}
			if b.fill > 0 {
				o.Settle = time.Duration(b.over) * time.Second
			}
			if m := watch(&x, 24, o); len(m.Alarms()) > 0 {
				t.Errorf("%s, seed %d: %+v", name, seed, m.Alarms())
			}
		}
	}
}

// What grows is found, by its name, within a few hours, and nothing else is.
func TestLeaksAreFound(t *testing.T) {
	for _, tt := range []struct {
		b      broker
		metric Metric
		within time.Duration
		says   string
	}{
		{broker{leak: 10}, RSS, 6 * time.Hour, "MiB an hour"},
		{broker{leak: 200}, RSS, time.Hour, "MiB an hour"},
		{broker{fds: 10}, FDs, 6 * time.Hour, "descriptors grows by"},
		{broker{goroutines: 1000}, Goroutines, time.Hour, "goroutines grows by"},
		{broker{slower: 1}, P99, 6 * time.Hour, "e2e_p99 grows by"},
	} {
		for seed := range uint64(8) {
			b := tt.b
			b.r = rand.New(rand.NewPCG(seed, 3))
			m := watch(&b, tt.within.Hours(), Options{})
			if all := m.Alarms(); len(all) != 1 || all[0].Metric != tt.metric || !strings.Contains(all[0].Text, tt.says) {
				t.Errorf("%s, seed %d: %+v", tt.metric, seed, all)
			}
		}
	}
}

// Memory of the monitor does not grow with the run, and its points still tell
// of the whole window.
func TestBounded(t *testing.T) {
	b := broker{r: rand.New(rand.NewPCG(1, 1)), leak: 30}
	m := watch(&b, 48, Options{Window: 10 * time.Hour})
	for _, s := range m.Series() {
		n := len(s.Points)
		if n > pointsMax || n < pointsMax/4 {
			t.Errorf("%s: %d points", s.Metric, n)
		}
		span := s.Points[n-1].Seconds - s.Points[0].Seconds
		if span < 9*3600 || span > 10.1*3600 {
			t.Errorf("%s: the points span %v s", s.Metric, span)
		}
		for i := 1; i < n; i++ {
			if s.Points[i].Seconds <= s.Points[i-1].Seconds {
				t.Fatalf("%s: points out of order", s.Metric)
			}
		}
		if s.Metric == RSS && math.Abs(s.PerHour/(1<<20)-30) > 1 {
			t.Errorf("slope %v MiB an hour, want 30", s.PerHour/(1<<20))
		}
	}
	// What is not known is left out.
	m = New(Options{Settle: time.Second, Least: 30 * time.Second})
	for i := range 100 {
		m.Add(Sample{At: time.Duration(i) * time.Second, RSS: float64(i+1) * (1 << 20), FDs: math.NaN(), Goroutines: math.NaN(), P99: math.NaN()})
	}
	if s := m.Series(); len(s) != 1 || s[0].Metric != RSS || len(m.Alarms()) != 1 {
		t.Errorf("%+v, %+v", s, m.Alarms())
	}
}
