package html

import (
	"bytes"
	"encoding/base64"
	"image"
	"image/color"
	"image/png"
	"math"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/portask/portask/loadgen/report/figure"
	"github.com/portask/portask/loadgen/report/plot"
)

// Heat collects how many messages had which latency when, from the interval log.
// It keeps a small grid, not the histograms.
type Heat struct {
	every   float64 // seconds a column
	columns [][heatRows]float64
}

// The grid: rows of a twelfth of a decade from 1 µs to 100 s; the columns
// become wider when there would be more than heatColumns.
const (
	heatRows    = 96
	perDecade   = 12
	heatFloor   = 1e3 // ns
	heatColumns = 280
)

// NewHeat makes an empty one.
func NewHeat() *Heat { return &Heat{every: 1} }

// Add adds an interval's end-to-end latencies.
func (h *Heat) Add(start, end float64, e2e *hdrhistogram.Histogram) {
	if e2e == nil || end <= start || start < 0 || start > 1e9 {
		return
	}
	middle := (start + end) / 2 // seconds end a little late: their beginnings may skip a column
	for int(middle/h.every) >= heatColumns {
		for i := range h.columns {
			if i%2 == 1 {
				for r, n := range h.columns[i] {
					h.columns[i/2][r] += n
				}
			} else if i > 0 {
				h.columns[i/2] = h.columns[i]
			}
		}
		h.columns = h.columns[:(len(h.columns)+1)/2]
		h.every *= 2
	}
	at := int(middle / h.every)
	for len(h.columns) <= at {
		h.columns = append(h.columns, [heatRows]float64{})
	}
	for _, b := range e2e.Distribution() {
		if b.Count == 0 {
			continue
		}
		row := int(math.Log10(max(float64(b.To), heatFloor)/heatFloor) * perDecade)
		h.columns[at][min(row, heatRows-1)] += float64(b.Count)
	}
}

// heat adds the map to the page. A cell's strength is the logarithm of its
// count, so that one message in a million is seen.
func (v *view) heat(h *Heat, time plot.Axis, bands []plot.Band) {
	lo, hi, most := heatRows, -1, 0.0
	for i := range h.columns {
		for r, n := range h.columns[i] {
			if n > 0 {
				lo, hi, most = min(lo, r), max(hi, r), max(most, n)
			}
		}
	}
	if hi < lo {
		return
	}
	lo, hi = max(lo-1, 0), min(hi+1, heatRows-1)
	img := image.NewNRGBA(image.Rect(0, 0, len(h.columns), hi-lo+1))
	for i := range h.columns {
		for r := lo; r <= hi; r++ {
			n := h.columns[i][r]
			if n == 0 {
				continue
			}
			share := 0.0
			if most > 1 {
				share = math.Log(n) / math.Log(most)
			}
			img.SetNRGBA(i, hi-r, shade(share))
		}
	}
	var b bytes.Buffer
	if png.Encode(&b, img) != nil {
		return // into memory: it does not fail
	}
	// The picture covers whole columns; the axis ends with it.
	time.Max = h.every * float64(len(h.columns))
	c := &plot.Chart{
		X: time, Bands: bands, Image: "data:image/png;base64," + base64.StdEncoding.EncodeToString(b.Bytes()),
		Y: plot.Axis{Kind: plot.Log, Min: heatFloor * math.Pow(10, float64(lo)/perDecade), Max: heatFloor * math.Pow(10, float64(hi+1)/perDecade), Label: figure.Latency},
	}
	title, text := "Where messages fell", "End-to-end latency over time: the stronger a cell, the more messages (logarithmic; the faintest is one)."
	v.add(c, "", "", title, text, true)
}

// shades go from a faint blue over violet to a strong orange, on paper and in
// the dark: hue and opacity tell the count together, also to those who do not
// tell red from green.
var shades = [3][4]float64{{88, 158, 226, 95}, {138, 92, 190, 205}, {236, 112, 16, 255}}

func shade(share float64) color.NRGBA {
	at := min(max(share, 0), 1) * 2
	i := min(int(at), 1)
	from, to := shades[i], shades[i+1]
	mix := func(k int) uint8 { return uint8(from[k] + (to[k]-from[k])*(at-float64(i))) }
	return color.NRGBA{mix(0), mix(1), mix(2), mix(3)}
}
