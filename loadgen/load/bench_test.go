package load

import (
	"fmt"
	"testing"
	"time"

	"github.com/portask/portask/loadgen/driver/loopback"
	"github.com/portask/portask/loadgen/scenario"
)

// BenchmarkNullSink is what the generator itself costs: as fast as it goes into
// a target that does nothing, every message verified. cpu-ns/msg is of the whole
// process, msg/s at the processors it was given.
func BenchmarkNullSink(b *testing.B) {
	for _, producers := range []int{1, 2} {
		b.Run(fmt.Sprintf("value=1KiB/producers=%d", producers), func(b *testing.B) {
			s := scenario.Default()
			s.Loop = scenario.ClosedLoop
			s.Producers.Count, s.Consumers.Count = producers, producers
			s.Phases[0].Duration, s.Phases[1].Duration = 100*time.Millisecond, time.Second
			for b.Loop() {
				r, err := New(b.Context(), Config{Scenario: s, Driver: loopback.Open(loopback.Behaviour{})})
				if err != nil {
					b.Fatal(err)
				}
				res, err := r.Execute(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				if res.ExitStatus() != 0 {
					b.Fatal(res.Violations, res.Invalid)
				}
				b.ReportMetric(res.Generator.CPUSeconds/float64(res.Counts.Sent)*1e9, "cpu-ns/msg")
				b.ReportMetric(res.Measured.Total.Delivered, "msg/s")
			}
		})
	}
}
