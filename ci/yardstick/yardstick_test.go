package yardstick

import (
	"os"
	"testing"
	"time"
)

// Kernels answer with plausible figures whatever the machine does: no absolute
// time is asserted beyond what physics forbids.
func TestKernels(t *testing.T) {
	const d = 2 * time.Millisecond
	echo, err := MeasureEcho(d)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := MeasureStream(d)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	sync, err := MeasureSync(dir, d)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		r    Reading
		name string
		ns   float64 // no processor is faster
	}{
		{MeasureArithmetic(d), Arithmetic, 0.1},
		{MeasureCopy(d), Copy, 1000},
		{MeasureCRC(d), CRC, 100},
		{echo, Echo, 100},
		{stream, Stream, 100},
		{sync, Sync, 100},
	} {
		if tt.r.Kernel != tt.name || tt.r.Ns < tt.ns || tt.r.P99 < tt.r.Ns || tt.r.Samples < 3 {
			t.Errorf("%+v: want kernel %s, at least %v ns", tt.r, tt.name, tt.ns)
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestSyncTellsWhereItCannotWrite(t *testing.T) {
	if _, err := MeasureSync(t.TempDir()+"/missing", time.Millisecond); err == nil {
		t.Fatal("a missing directory was no error")
	}
}

func TestTimedWorkAllocatesNothing(t *testing.T) {
	f := func() {
		x := sink | 1
		for range 100 {
			x ^= x >> 30
			x *= 0xbf58476d1ce4e5b9
		}
		sink = x
	}
	// groups' own slice is the only allocation.
	if n := testing.AllocsPerRun(10, func() { groups(Arithmetic, 0, 100, f) }); n > 1 {
		t.Errorf("%v allocations, want 1", n)
	}
}
