package server

import (
	"runtime"
	"testing"
)

// Half of the processors, at least one: docs/decisions/0006-loops.md.
func TestLoopsByDefault(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for procs, want := range map[int]int{1: 1, 2: 1, 3: 1, 4: 2, 8: 4, 200: LoopsMax} {
		runtime.GOMAXPROCS(procs)
		if o := (Options{Engine: openMem(t, 1<<20)}).WithDefaults(); o.Loops != want {
			t.Errorf("%d loops on %d processors, expected %d", o.Loops, procs, want)
		}
	}
}
