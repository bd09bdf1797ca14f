package id

import (
	"bytes"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
)

func TestIncreasing(t *testing.T) {
	g := NewGenerator()
	before := uint64(time.Now().UnixMilli())
	prev := g.New()
	if prev.Time() < before || prev.Time() > before+60_000 {
		t.Errorf("time of the first is %d, the clock said %d", prev.Time(), before)
	}
	for range 200_000 {
		next := g.New()
		if next.Compare(prev) <= 0 {
			t.Fatalf("%v after %v", next, prev)
		}
		prev = next
	}
}

// The clock stands, goes backwards, and leaves the range of a ULID.
func TestClock(t *testing.T) {
	g := NewGenerator()
	tests := []struct {
		clock int64
		want  uint64
	}{
		{-5, 0},
		{1000, 1000},
		{1000, 1000},
		{400, 1000}, // backwards: the last is kept
		{1001, 1001},
		{1 << 60, ulid.MaxTime()},
		{1002, ulid.MaxTime()},
	}
	var prev ulid.ULID
	for _, tt := range tests {
		got := g.At(tt.clock)
		if got.Time() != tt.want {
			t.Errorf("At(%d): time %d, want %d", tt.clock, got.Time(), tt.want)
		}
		if got.Compare(prev) <= 0 {
			t.Errorf("At(%d) = %v, not after %v", tt.clock, got, prev)
		}
		prev = got
	}
}

// ones starts the random part at the very top, then continues in the middle.
type ones struct{ reads int }

func (o *ones) Read(p []byte) (int, error) {
	b := byte(0x55)
	if o.reads++; o.reads == 1 {
		b, p = 0xff, p[:10]
	}
	copy(p, bytes.Repeat([]byte{b}, len(p)))
	return len(p), nil
}

func (o *ones) Int63n(n int64) int64 { return n / 2 }

func TestOverflowBorrowsTheNextMillisecond(t *testing.T) {
	g := newGenerator(&ones{})
	a, b, c := g.At(77), g.At(77), g.At(77)
	if a.Time() != 77 || b.Time() != 78 || c.Time() != 78 {
		t.Errorf("times %d, %d, %d, want 77, 78, 78", a.Time(), b.Time(), c.Time())
	}
	if a.Compare(b) >= 0 || b.Compare(c) >= 0 {
		t.Errorf("%v, %v, %v do not increase", a, b, c)
	}
}

func TestUniqueAcrossGoroutines(t *testing.T) {
	const goroutines, each = 8, 20_000
	ids := make([][]ulid.ULID, goroutines)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			g := NewGenerator()
			for range each {
				ids[i] = append(ids[i], g.New())
			}
		})
	}
	wg.Wait()
	seen := make(map[ulid.ULID]bool, goroutines*each)
	for _, of := range ids {
		for _, id := range of {
			if seen[id] {
				t.Fatalf("%v was made twice", id)
			}
			seen[id] = true
		}
	}
	if len(seen) != goroutines*each {
		t.Errorf("%d identifiers, want %d", len(seen), goroutines*each)
	}
}

func TestSteps(t *testing.T) {
	s := newSource()
	var seen [7]int
	for range 7000 {
		seen[s.Int63n(7)]++ // panics outside [0,7)
	}
	for i, n := range seen {
		if n < 700 || n > 1300 { // 1000 expected, 10 standard deviations
			t.Errorf("%d came %d times of 7000", i, n)
		}
	}
}

func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("allocation budgets are checked without the race detector")
	}
	g := NewGenerator()
	if n := testing.AllocsPerRun(1000, func() { g.New() }); n != 0 {
		t.Errorf("New allocates %v times, want 0", n)
	}
}

func BenchmarkNew(b *testing.B) {
	b.Run("clock=read", func(b *testing.B) {
		g := NewGenerator()
		b.ReportAllocs()
		for b.Loop() {
			g.New()
		}
	})
	b.Run("clock=given", func(b *testing.B) {
		g := NewGenerator()
		b.ReportAllocs()
		for b.Loop() {
			g.At(1)
		}
	})
}
