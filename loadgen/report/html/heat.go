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
	end     float64
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
	h.end = max(h.end, end)
	for int(start/h.every) >= heatColumns {
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
	at := int(start / h.every)
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
	c.Title = title + ". " + text
	v.Figures = append(v.Figures, figureOf(c, title, text, wideWidth, wideHeight))
}

// shade is a colour for both themes, from a faint blue to a strong orange: its
// lightness changes little, its hue and opacity tell the count, also to those
// who do not tell red from green.
func shade(share float64) color.NRGBA {
	from, to := [3]float64{86, 160, 222}, [3]float64{226, 106, 20}
	at := min(max(share, 0), 1)
	mix := func(i int) uint8 { return uint8(from[i] + (to[i]-from[i])*at*at) }
	return color.NRGBA{mix(0), mix(1), mix(2), uint8(90 + 165*math.Sqrt(at))}
}
