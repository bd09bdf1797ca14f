package hlog

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/pace"
)

func histogram(values ...int64) *hdrhistogram.Histogram {
	h := pace.NewHistogram()
	for _, v := range values {
		if err := h.RecordValue(v); err != nil {
			panic(err)
		}
	}
	return h
}

var began = time.UnixMilli(1767225600250)

// The bytes of a log are a format that other programs read.
func TestGolden(t *testing.T) {
	var b bytes.Buffer
	w := NewWriter(&b)
	w.Begin(began)
	w.Begin(began.Add(time.Hour)) // once
	w.Interval(0, 1, load.Histograms{E2E: histogram(1_000_000, 2_000_000, 12_000_000), Lag: histogram(900)})
	w.Interval(1, 2.0005, load.Histograms{Ack: histogram(5_000_000), Service: pace.NewHistogram()})
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	const file = "testdata/run.hlog"
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(file, b.Bytes(), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), want) {
		t.Errorf("written:\n%s\nwant:\n%s", b.String(), want)
	}
}

// What was written comes back through HdrHistogram's own reader: times, tags,
// and every value; the sum of the intervals is the run.
func TestRoundTrip(t *testing.T) {
	var b bytes.Buffer
	w := NewWriter(&b)
	w.step = 4 // four single lines, four of two intervals, then of four
	w.Begin(began)
	var all load.Histograms
	const seconds = 19
	for i := range seconds {
		h := load.Histograms{E2E: histogram(int64(i+1)*1_000_000, 500), Ack: histogram(int64(i) * 1000)}
		if i == 3 {
			h.Ack = nil
		}
		all.Merge(h)
		w.Interval(float64(i), float64(i+1), h)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(b.String(), "Tag=e2e"); n != 4+4+2 {
		t.Errorf("%d lines", n)
	}
	var got load.Histograms
	end := 0.0
	at, err := Read(&b, func(v Interval) error {
		if v.Start != end {
			t.Errorf("interval from %v after one until %v", v.Start, end)
		}
		end = v.End
		got.Merge(v.Histograms)
		return nil
	})
	if err != nil || !at.Equal(began) || end != seconds {
		t.Errorf("began %v, ended %v, %v", at, end, err)
	}
	if !got.E2E.Equals(all.E2E) || !got.Ack.Equals(all.Ack) || got.Lag != nil {
		t.Errorf("%d and %d values came back, want %d and %d", got.E2E.TotalCount(), got.Ack.TotalCount(), all.E2E.TotalCount(), all.Ack.TotalCount())
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestWriteErrorsAreKept(t *testing.T) {
	w := NewWriter(failing{})
	w.Begin(began)
	for i := range 2000 {
		w.Interval(float64(i), float64(i+1), load.Histograms{E2E: histogram(int64(i))})
	}
	if err := w.Close(); err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("closed with %v", err)
	}
}

func TestVisitorMayStop(t *testing.T) {
	b, err := os.ReadFile("testdata/run.hlog")
	if err != nil {
		t.Fatal(err)
	}
	stop := fmt.Errorf("enough")
	if _, err := Read(bytes.NewReader(b), func(Interval) error { return stop }); err != stop {
		t.Errorf("%v", err)
	}
}

func FuzzRead(f *testing.F) {
	b, err := os.ReadFile("testdata/run.hlog")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("Tag=e2e,0,1,2,HISTF"))
	f.Add([]byte("Tag=,\n\n#[StartTime: ."))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = Read(bytes.NewReader(b), func(v Interval) error {
			for i := range Tags {
				if h := *at(&v.Histograms, i); h != nil && h.TotalCount() < 0 {
					t.Errorf("%d values", h.TotalCount())
				}
			}
			return nil
		})
	})
}
