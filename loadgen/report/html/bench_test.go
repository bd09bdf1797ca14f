package html

import (
	"fmt"
	"testing"

	"github.com/portask/portask/loadgen/report/reporttest"
)

// BenchmarkWrite makes the page of a short run and of one with the most
// intervals; page-B is its size.
func BenchmarkWrite(b *testing.B) {
	for _, intervals := range []int{reporttest.Seconds, 1800} {
		b.Run(fmt.Sprintf("intervals=%d", intervals), func(b *testing.B) {
			d := reporttest.Document()
			for i := len(d.Measured.Series); i < intervals; i++ {
				v := d.Measured.Series[i%reporttest.Seconds]
				v.Start, v.End = float64(i), float64(i+1)
				s := d.Evidence.Samples[i%reporttest.Seconds]
				s.At = float64(i)
				d.Measured.Series, d.Evidence.Samples = append(d.Measured.Series, v), append(d.Evidence.Samples, s)
			}
			var n counter
			b.ReportAllocs()
			for b.Loop() {
				n = 0
				if err := Write(&n, d, Options{}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n), "page-B")
			if n > 1<<20 {
				b.Errorf("a page of %d bytes", n)
			}
		})
	}
}

type counter int

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}
