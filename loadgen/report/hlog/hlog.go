// Package hlog keeps the latencies of a run as HdrHistogram interval logs
// (format 1.3, "V2" compressed histograms): what percentiles over time and heat
// maps are made from again, by any program that reads the format.
//
// A file is text. Times are seconds, values nanoseconds, the third column the
// interval's maximum in milliseconds:
//
//	#[Histogram log format version 1.3]
//	#[StartTime: 1767225600.250 (seconds since epoch), 2026-01-01T00:00:00.25Z]
//	#[BaseTime: 1767225600.250 (seconds since epoch)]
//	"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"
//	Tag=e2e,0.000,1.000,12.386,HISTFAAAA...
//
// StartTimestamp counts from BaseTime. There is a line for each of the tags e2e,
// ack, service and lag that has values in the interval.
package hlog

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/portask/portask/loadgen/load"
)

// Tags of the lines, in their order.
var Tags = [4]string{"e2e", "ack", "service", "lag"}

func at(h *load.Histograms, i int) **hdrhistogram.Histogram {
	return [4]**hdrhistogram.Histogram{&h.E2E, &h.Ack, &h.Service, &h.Lag}[i]
}

// stepIntervals is how many lines of a tag are written before each covers twice
// as many intervals: half an hour of single seconds, then an hour of two, and so
// on. A day is 10,000 lines a tag.
const stepIntervals = 1800

// Writer writes a log. Not safe for concurrent use.
type Writer struct {
	w       *bufio.Writer
	err     error
	began   bool
	step    int
	every   int // intervals that make a line
	lines   int // since every changed
	pending int
	start   float64
	end     float64
	sum     load.Histograms
}

// NewWriter writes to w; the caller closes w after Close.
func NewWriter(w io.Writer) *Writer {
	return &Writer{w: bufio.NewWriterSize(w, 64<<10), every: 1, step: stepIntervals}
}

// Begin writes the head: when the run's first phase began.
func (x *Writer) Begin(t time.Time) {
	if x.began {
		return
	}
	x.began = true
	s := float64(t.UnixMilli()) / 1e3
	x.printf("#[Histogram log format version %s]\n#[StartTime: %.3f (seconds since epoch), %s]\n#[BaseTime: %.3f (seconds since epoch)]\n%s\n",
		hdrhistogram.HISTOGRAM_LOG_FORMAT_VERSION, s, t.UTC().Truncate(time.Millisecond).Format(time.RFC3339Nano), s,
		`"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"`)
}

// Interval adds what was measured from start to end, seconds since Begin's time,
// not before the end of the one before. It keeps nothing of h.
func (x *Writer) Interval(start, end float64, h load.Histograms) {
	if x.pending == 0 {
		x.start = start
	}
	x.end = end
	x.pending++
	if x.every == 1 {
		x.line(&h)
		return
	}
	x.sum.Merge(h)
	if x.pending == x.every {
		x.line(&x.sum)
		x.sum = load.Histograms{}
	}
}

func (x *Writer) line(h *load.Histograms) {
	for i, tag := range Tags {
		p := *at(h, i)
		if p == nil || p.TotalCount() == 0 || x.err != nil {
			continue
		}
		b, err := p.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
		if err != nil {
			x.err = err
			return
		}
		x.printf("Tag=%s,%.3f,%.3f,%.3f,%s\n", tag, x.start, x.end-x.start, float64(p.Max())/1e6, b)
	}
	x.pending = 0
	if x.lines++; x.lines == x.step {
		x.lines, x.every = 0, x.every*2
	}
}

func (x *Writer) printf(format string, args ...any) {
	if x.err == nil {
		_, x.err = fmt.Fprintf(x.w, format, args...)
	}
}

// Close writes what is left and returns the first error of all.
func (x *Writer) Close() error {
	if x.pending > 0 && x.every > 1 {
		x.line(&x.sum)
	}
	return errors.Join(x.err, x.w.Flush())
}

// Interval is what a log holds of a stretch of time.
type Interval struct {
	Start, End float64 // seconds since the run began
	Histograms load.Histograms
}

// Bounds of what Read takes.
const (
	readBytes     = 256 << 20
	readIntervals = 20_000
)

// Read calls visit with each interval of a log that Writer wrote, in order, and
// returns when the run began (as far as the first interval tells it). The
// histograms are visit's to keep; each takes 180 KiB.
func Read(r io.Reader, visit func(Interval) error) (began time.Time, err error) {
	lr := hdrhistogram.NewHistogramLogReader(&bounded{r: r, left: readBytes})
	defer func() { // the library indexes by what it reads
		if p := recover(); p != nil {
			err = fmt.Errorf("histogram log: %v", p)
		}
	}()
	var now Interval
	n := 0
	for {
		h, err := lr.NextIntervalHistogram()
		if err != nil {
			return began, fmt.Errorf("histogram log, interval %d: %w", n, err)
		}
		if h == nil {
			if n > 0 {
				return began, visit(now)
			}
			return began, nil
		}
		tag := slices.Index(Tags[:], h.Tag())
		if tag < 0 {
			continue
		}
		if n == 0 {
			began = time.UnixMilli(h.StartTimeMs())
		}
		// The lines of an interval have the same times and stand together.
		start := float64(h.StartTimeMs()-began.UnixMilli()) / 1e3
		if n == 0 || now.Start != start {
			if n == readIntervals {
				return began, fmt.Errorf("histogram log: more than %d intervals", readIntervals)
			}
			if n > 0 {
				if err := visit(now); err != nil {
					return began, err
				}
			}
			n++
			now = Interval{Start: start, End: float64(h.EndTimeMs()-began.UnixMilli()) / 1e3}
		}
		*at(&now.Histograms, tag) = h
	}
}

// bounded fails where a reader that ends would hide the rest.
type bounded struct {
	r    io.Reader
	left int
}

func (t *bounded) Read(p []byte) (int, error) {
	if t.left <= 0 {
		return 0, fmt.Errorf("more than %d bytes", readBytes)
	}
	n, err := t.r.Read(p[:min(len(p), t.left)])
	t.left -= n
	return n, err
}
