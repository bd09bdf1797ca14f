package load

import (
	"runtime"
	"testing"
	"time"

	"github.com/portask/portask/loadgen/driver/loopback"
)

// A message costs no allocation, from its intended time to its verdict. What is
// left is the run's: clients, histograms, buffers that grow.
func TestMessagesCostNoAllocation(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for _, set := range [][]string{
		{"phases.*.rate=100000", "phases.1.duration=900ms", "keys.count=1000", "keys.skew=0.99"},
		{"loop=closed", "phases.1.duration=900ms", "producers.in_flight=512"},
	} {
		s := plan(t, set...)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		res := execute(t, s, loopback.Behaviour{}, nil)
		runtime.ReadMemStats(&after)
		perMessage := float64(after.Mallocs-before.Mallocs) / float64(res.Counts.Sent)
		t.Logf("%s: %.4f allocations for each of %d messages in %v", set[0], perMessage, res.Counts.Sent, s.Duration().Round(time.Millisecond))
		if perMessage > 0.2 {
			t.Errorf("%s: %.3f allocations a message", set[0], perMessage)
		}
	}
}
