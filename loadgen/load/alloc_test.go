package load

import (
	"runtime"
	"testing"

	"github.com/portask/portask/loadgen/driver/loopback"
)

// A message costs no allocation, from its intended time to its verdict. What is
// left is the run's: clients, histograms, buffers that grow; and each slot of a
// message on its way, of which there are as many as fit into the client's buffer
// on a machine that serves late.
func TestMessagesCostNoAllocation(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for _, set := range [][]string{
		{"phases.*.rate=100000", "phases.1.duration=900ms", "keys.count=1000", "keys.skew=0.99", "producers.buffer=64KiB"},
		{"loop=closed", "phases.1.duration=900ms", "producers.in_flight=512"},
	} {
		s := plan(t, set...)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		res := execute(t, s, loopback.Behaviour{}, nil)
		runtime.ReadMemStats(&after)
		n := after.Mallocs - before.Mallocs
		t.Logf("%s: %d allocations of a run of %d messages", set[0], n, res.Counts.Sent)
		const ofRun = 30_000 // a slow machine sends few messages in a closed loop
		if n > ofRun+res.Counts.Sent/20 {
			t.Errorf("%s: %d allocations, %d messages", set[0], n, res.Counts.Sent)
		}
	}
}
