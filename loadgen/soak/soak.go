// Package soak watches a long run for what grows: the target's memory,
// descriptors and goroutines, and the latency. A leak is a slope that chance
// does not explain, that goes on in the second half of what is seen, that
// matters (each metric has a Rule for that), and that stays: a heap between two
// collections rises like a leak, so there is no verdict before Options.Least has
// been seen, and none before it held for half as long again.
//
// Monitor is without clock or I/O and has a fixed size: it keeps at most so many
// points a metric, each the mean of more and more samples, until they span the
// window, and then lets the oldest go.
package soak

import (
	"fmt"
	"math"
	"time"

	"github.com/portask/portask/loadgen/trend"
)

// Metric is what may grow.
type Metric string

// The metrics.
const (
	RSS        Metric = "rss"         // bytes
	FDs        Metric = "descriptors" // open ones
	Goroutines Metric = "goroutines"
	P99        Metric = "e2e_p99" // ns
)

// Metrics are all of them, in the order of reports.
var Metrics = []Metric{RSS, FDs, Goroutines, P99}

// Rule says when growth is an alarm.
type Rule struct {
	// Over the window a metric must have grown by both: an amount, and a part of
	// its median.
	Least float64 `json:"least"`
	Share float64 `json:"share"`
}

// Rules are the defaults. What is below them is within what allocators,
// caches and the machine's other work do to a broker that leaks nothing.
var Rules = map[Metric]Rule{
	RSS:        {8 << 20, 0.1},
	FDs:        {16, 0.1},
	Goroutines: {16, 0.1},
	P99:        {float64(200 * time.Microsecond), 0.5},
}

const (
	// level and halfLevel are the probabilities of growth by chance, over the
	// window and over its second half, below which it is no chance. A run looks
	// a hundred times or so at each metric.
	level     = 1e-4
	halfLevel = 0.02
	// pointsMax a metric; pointsMin before there is a verdict.
	pointsMax = 240
	pointsMin = 16
	// looks: a verdict is made after so many points more.
	lookEvery = 8
)

// Options of a Monitor. Zero fields take the defaults named here.
type Options struct {
	// Settle is the beginning that is left out: caches fill, pools grow. One
	// minute.
	Settle time.Duration
	// Window is how far back a slope is looked for, 6 h.
	Window time.Duration
	// Least is what must have been seen before there is a verdict: several of
	// the target's own cycles. 10 min.
	Least time.Duration
	// Rules that differ from the defaults.
	Rules map[Metric]Rule
}

// Sample is one look at the target. NaN stands for what is not known.
type Sample struct {
	At                   time.Duration // since the run began; increases
	RSS, FDs, Goroutines float64
	P99                  float64
}

func (s *Sample) of(m Metric) float64 {
	switch m {
	case RSS:
		return s.RSS
	case FDs:
		return s.FDs
	case Goroutines:
		return s.Goroutines
	}
	return s.P99
}

// Alarm is a metric that grows.
type Alarm struct {
	Metric Metric        `json:"metric"`
	At     time.Duration `json:"at_ns"` // of the run, when it was raised
	Text   string        `json:"text"`
}

// Point of a series.
type Point struct {
	Seconds float64 `json:"s"` // since the run began, the middle
	Value   float64 `json:"value"`
}

// Series is what is known of a metric, the window's part.
type Series struct {
	Metric  Metric  `json:"metric"`
	Median  float64 `json:"median"`
	PerHour float64 `json:"slope_per_hour"`
	Chance  float64 `json:"p"` // probability of such a rise by chance
	Points  []Point `json:"points"`
}

// Monitor watches. Not safe for concurrent use.
type Monitor struct {
	o      Options
	tracks []track
	alarms []Alarm
}

// New returns a Monitor.
func New(o Options) *Monitor {
	if o.Settle == 0 {
		o.Settle = time.Minute
	}
	if o.Window == 0 {
		o.Window = 6 * time.Hour
	}
	if o.Least == 0 {
		o.Least = 10 * time.Minute
	}
	m := &Monitor{o: o, alarms: []Alarm{}}
	for _, x := range Metrics {
		rule, ok := o.Rules[x]
		if !ok {
			rule = Rules[x]
		}
		m.tracks = append(m.tracks, track{metric: x, rule: rule, window: o.Window.Seconds(), least: o.Least.Seconds(), every: 1})
	}
	return m
}

// Add takes a sample and returns the alarms that it raises. A metric raises one
// alarm.
func (m *Monitor) Add(s Sample) []Alarm {
	if s.At < m.o.Settle {
		return nil
	}
	var raised []Alarm
	for i := range m.tracks {
		t := &m.tracks[i]
		v := s.of(t.metric)
		if math.IsNaN(v) || !t.add(s.At.Seconds(), v) || t.raised {
			continue
		}
		text, span := t.grows()
		switch at := s.At.Seconds(); {
		case text == "":
			t.suspectFor = 0
		case t.suspectFor == 0:
			t.suspectAt, t.suspectFor = at, span/2
		case at-t.suspectAt >= t.suspectFor:
			t.raised = true
			raised = append(raised, Alarm{t.metric, s.At, text})
		}
	}
	m.alarms = append(m.alarms, raised...)
	return raised
}

// Alarms so far.
func (m *Monitor) Alarms() []Alarm { return m.alarms }

// Series of the metrics of which there is something.
func (m *Monitor) Series() []Series {
	var out []Series
	for i := range m.tracks {
		t := &m.tracks[i]
		if len(t.points) == 0 {
			continue
		}
		x, y := t.xy(0)
		all := trend.Of(x, y)
		out = append(out, Series{t.metric, trend.Median(y), all.Slope * 3600, all.Rising, append([]Point(nil), t.points...)})
	}
	return out
}

// track is one metric.
type track struct {
	metric Metric
	rule   Rule
	window float64 // s
	least  float64 // s
	raised bool
	// suspectAt is when the metric was first seen to grow, suspectFor how long
	// that must go on; 0: it does not.
	suspectAt, suspectFor float64

	points []Point // whole ones, of every samples each; at most pointsMax
	every  int
	// pending is the point that is not yet whole.
	sumAt, sum float64
	n          int
	unseen     int // points since the last look
}

// add takes a value and reports whether it is time for a look.
func (t *track) add(at, v float64) bool {
	t.sumAt, t.sum = t.sumAt+at, t.sum+v
	if t.n++; t.n < t.every {
		return false
	}
	t.points = append(t.points, Point{t.sumAt / float64(t.n), t.sum / float64(t.n)})
	t.sumAt, t.sum, t.n = 0, 0, 0
	t.unseen++
	for len(t.points) > 2 && at-t.points[0].Seconds > t.window {
		t.points = append(t.points[:0], t.points[1:]...)
	}
	if len(t.points) == pointsMax {
		for i := range pointsMax / 2 {
			a, b := t.points[2*i], t.points[2*i+1]
			t.points[i] = Point{(a.Seconds + b.Seconds) / 2, (a.Value + b.Value) / 2}
		}
		t.points = t.points[:pointsMax/2]
		t.every *= 2
	}
	if t.unseen < lookEvery || len(t.points) < pointsMin {
		return false
	}
	t.unseen = 0
	return true
}

// xy are the points from index i on.
func (t *track) xy(i int) (x, y []float64) {
	for _, p := range t.points[i:] {
		x, y = append(x, p.Seconds), append(y, p.Value)
	}
	return x, y
}

// grows says in words that the metric does, or nothing, over what span.
func (t *track) grows() (text string, span float64) {
	x, y := t.xy(0)
	if span = x[len(x)-1] - x[0]; span < t.least {
		return "", 0
	}
	half := len(x) / 2
	sorted := func(v []float64) []float64 { return append([]float64(nil), v...) }
	median := trend.Median(sorted(y))
	need := max(t.rule.Least, t.rule.Share*median)
	// Few series come so far that the pairs need to be compared.
	if trend.Median(sorted(y[half:]))-trend.Median(sorted(y[:half])) < need/4 {
		return "", 0
	}
	all, late := trend.Of(x, y), trend.Of(x[half:], y[half:])
	// What has levelled off is no leak: the second half must grow at a good
	// part of the pace that would be an alarm.
	if all.Rising > level || all.Slope*span < need || late.Rising > halfLevel || late.Slope*span < need/2 {
		return "", 0
	}
	return fmt.Sprintf("%s grows by %s an hour: by %s in the last %v, %.0f %% of its median %s (by chance: p = %.1g)",
		t.metric, t.metric.format(all.Slope*3600), t.metric.format(all.Slope*span), time.Duration(span*1e9).Round(time.Second),
		100*all.Slope*span/median, t.metric.format(median), all.Rising), span
}

// format writes a value with its unit.
func (m Metric) format(v float64) string {
	switch m {
	case RSS:
		return fmt.Sprintf("%.1f MiB", v/(1<<20))
	case P99:
		return time.Duration(v).Round(time.Microsecond).String()
	}
	return fmt.Sprintf("%.1f", v)
}
