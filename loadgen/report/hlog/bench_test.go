package hlog

import (
	"io"
	"testing"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/portask/portask/loadgen/load"
)

// A second of a run, 200 different latencies in each of four histograms, beside
// the library's own encoding of them.
func BenchmarkInterval(b *testing.B) {
	var values []int64
	for i := range int64(200) {
		values = append(values, 1_000_000+i*i*10_000)
	}
	h := load.Histograms{E2E: histogram(values...), Ack: histogram(values...), Service: histogram(values...), Lag: histogram(values...)}
	b.Run("by=hlog", func(b *testing.B) {
		w := NewWriter(io.Discard)
		w.step = 1 << 40
		w.Begin(began)
		b.ReportAllocs()
		for b.Loop() {
			w.Interval(0, 1, h)
		}
	})
	b.Run("by=encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			for i := range Tags {
				if _, err := (*at(&h, i)).Encode(hdrhistogram.V2CompressedEncodingCookieBase); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}
