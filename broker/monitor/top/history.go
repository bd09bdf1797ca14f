package top

import (
	"math"
	"time"
)

// historyMax bounds the points kept: an hour at one a second.
const historyMax = 3600

// point is one Rates, as much as sparklines need of it. It covers [at-d, at).
type point struct {
	at, d   time.Duration // of the broker's uptime
	in, out float64       // messages per second
}

// History is the recent past of a broker. The zero value is empty.
type History struct {
	points []point
}

// Add appends r, unless it has no rates. A restart of the broker begins a new
// history.
func (h *History) Add(r *Rates) {
	if r.Restarted {
		h.points = h.points[:0]
	}
	if r.Interval <= 0 {
		return
	}
	if len(h.points) == historyMax {
		n := copy(h.points, h.points[historyMax/10:])
		h.points = h.points[:n]
	}
	h.points = append(h.points, point{at: r.Uptime, d: r.Interval, in: r.In.Messages, out: r.Out.Messages})
}

// spark averages a figure over n equal spans of time, the last of which holds the
// newest point; NaN where there was none. Spans begin at multiples of their
// length, so that a value does not change from one frame to the next but in the
// last span. The length is chosen to cover most of the window, and never below
// the distance of two points.
func (h *History) spark(n int, window time.Duration, of func(*point) float64) (values []float64, most float64, covered time.Duration) {
	if len(h.points) == 0 || n <= 0 {
		return nil, 0, 0
	}
	last := &h.points[len(h.points)-1]
	step := max(window/time.Duration(n), last.d, time.Millisecond).Round(time.Millisecond)
	end := last.at/step + 1 // number of the span after the last
	values = make([]float64, n)
	weights := make([]float64, n)
	for i := range h.points {
		p := &h.points[i]
		for from := p.at - p.d; from < p.at; {
			slot := from / step
			to := min(p.at, (slot+1)*step)
			if k := int(slot - end + time.Duration(n)); k >= 0 && k < n {
				w := (to - from).Seconds()
				values[k] += of(p) * w
				weights[k] += w
			} else if k < 0 { // skip to the first span that is shown
				to = min(p.at, max(to, (end-time.Duration(n))*step))
			}
			from = to
		}
	}
	for k := range values {
		if weights[k] == 0 {
			values[k] = math.NaN()
			continue
		}
		values[k] /= weights[k]
		most = max(most, values[k])
	}
	return values, most, step * time.Duration(n)
}
