package mempool

import (
	"bytes"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"testing"
)

// resident is the process's resident memory that is no file, page by page.
func resident(t *testing.T) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/self/smaps_rollup")
	if err != nil {
		t.Skip("the system does not tell resident memory: ", err)
	}
	for line := range bytes.Lines(b) {
		if f := bytes.Fields(line); len(f) == 3 && string(f[0]) == "Anonymous:" {
			kib, err := strconv.ParseInt(string(f[1]), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Skip("the system does not tell anonymous memory")
	return 0
}

// After traffic the memory goes back to the system: by the pool's accounts, and
// by the kernel's.
func TestIdlePoolGivesItsMemoryBack(t *testing.T) {
	if !OffHeap {
		t.Skip("the race detector's own memory would be measured")
	}
	p := NewPool(Options{MaxBytes: 64 << 20, KeepBytes: 16 << 20})
	defer p.Close()
	c := newClock(p)
	runtime.GC()
	debug.FreeOSMemory()
	before := resident(t)

	var held []*Chunk
	for range 32 {
		x := p.Get(1 << 20)
		for i := 0; i < len(x.B); i += 4096 {
			x.B[i] = 1
		}
		held = append(held, x)
	}
	for i, x := range held {
		if i%2 == 0 {
			p.Retire(x)
		} else {
			x.Release()
		}
	}
	s := p.Stats()
	if s.KeptBytes != 16<<20 || s.FreeBytes != 16<<20 {
		t.Fatalf("%v", s)
	}
	if n := resident(t) - before; n < 31<<20 {
		t.Fatalf("32 MiB in use show as %d KiB", n>>10)
	}

	c.pass(int(DefaultKeepFor.Seconds()) + windowSlots + 1)
	if s := p.Stats(); s.LiveBytes+s.FreeBytes != 0 || s.TrimmedBytes != 32<<20 {
		t.Errorf("idle: %v", s)
	}
	if n := resident(t) - before; n > 2<<20 {
		t.Errorf("%d KiB more than before are resident", n>>10)
	}
}
