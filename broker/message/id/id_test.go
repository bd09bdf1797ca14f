package id

import (
	"io"
	"math"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
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

// The random part begins at its very top.
func TestOverflowBorrowsTheNextMillisecond(t *testing.T) {
	g := NewGenerator()
	g.At(77)
	g.hi, g.lo = math.MaxUint16, math.MaxUint64
	top := g.id()
	b, c := g.At(77), g.At(77)
	if top.Time() != 77 || b.Time() != 78 || c.Time() != 78 {
		t.Errorf("times %d, %d, %d, want 77, 78, 78", top.Time(), b.Time(), c.Time())
	}
	if top.Compare(b) >= 0 || b.Compare(c) >= 0 {
		t.Errorf("%v, %v, %v do not increase", top, b, c)
	}
	// A carry out of the lower 64 bits alone stays within the millisecond.
	g.At(90)
	g.hi, g.lo = 7, math.MaxUint64
	low := g.id()
	if next := g.At(90); next.Time() != 90 || next.Compare(low) <= 0 || g.hi != 8 {
		t.Errorf("%v after %v", next, low)
	}
}

// Against oklog's own monotonic reader, which the generator replaces: the same
// layout, and steps of the same size.
func TestAgainstOklog(t *testing.T) {
	g := NewGenerator()
	var prev ulid.ULID
	for i := range 10_000 {
		id := g.At(int64(1000 + i/100))
		var want ulid.ULID
		if err := want.SetTime(uint64(1000 + i/100)); err != nil {
			t.Fatal(err)
		}
		if err := want.SetEntropy(id.Entropy()); err != nil || want != id {
			t.Fatalf("%v, oklog %v, %v", id, want, err)
		}
		if i%100 != 0 {
			step := new(big.Int).Sub(new(big.Int).SetBytes(id.Entropy()), new(big.Int).SetBytes(prev.Entropy()))
			if step.Sign() <= 0 || step.BitLen() > 33 {
				t.Fatalf("a step of %v from %v to %v", step, prev, id)
			}
		}
		prev = id
	}
}

// A program may have replaced the system's randomness by something that fails.
func TestFallbackOfTheSeed(t *testing.T) {
	for _, r := range []io.Reader{iotest.ErrReader(io.ErrClosedPipe), strings.NewReader("short")} {
		a, b := Generator{src: newSource(r)}, Generator{src: newSource(r)}
		if x, y := a.At(5), b.At(5); x == y {
			t.Errorf("both made %v", x)
		}
	}
	seed := strings.Repeat("s", 32)
	if a, b := newSource(strings.NewReader(seed)), newSource(strings.NewReader(seed)); a.Uint64() != b.Uint64() {
		t.Error("the seed is not what the system gave")
	}
}

// The clock goes on evenly, and a step of the time of day shows within a second.
func TestClockFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c Clock
		g := NewGenerator()
		for range 100 {
			now := time.Now()
			if got := c.Micros(); got != now.UnixMicro() {
				t.Fatalf("%d, the time is %d", got, now.UnixMicro())
			}
			id, us := g.Stamp()
			if us != now.UnixMicro() || id.Time() != uint64(now.UnixMilli()) || g.Micros() != us {
				t.Fatalf("%v stamped %d, the time is %v", id, us, now)
			}
			time.Sleep(123456 * time.Microsecond)
		}
		c.us += 3_600_000_000 // as if it had been set back by an hour since
		time.Sleep(clockTrust)
		if got := c.Micros(); got != time.Now().UnixMicro() {
			t.Errorf("%d after a step, the time is %d", got, time.Now().UnixMicro())
		}
	})
}

// Ten million identifiers from 64 goroutines: each generator's in order, none
// twice. Under the race detector and with -short a tenth of them.
func TestUniqueAcrossGoroutines(t *testing.T) {
	const goroutines = 64
	each := 10_000_000 / goroutines
	if raceEnabled || testing.Short() {
		each /= 10
	}
	for _, tt := range []struct {
		name    string
		ordered bool
		next    func() func() ulid.ULID
	}{
		{"a generator each", true, func() func() ulid.ULID { return NewGenerator().New }},
		{"one for each processor", false, func() func() ulid.ULID { return New }},
	} {
		ids := make([][]ulid.ULID, goroutines)
		var wg sync.WaitGroup
		for i := range ids {
			wg.Go(func() {
				next := tt.next()
				ids[i] = make([]ulid.ULID, each)
				for n := range ids[i] {
					ids[i][n] = next()
				}
			})
		}
		wg.Wait()
		for i, of := range ids {
			if tt.ordered {
				if !slices.IsSortedFunc(of, ulid.ULID.Compare) {
					t.Fatalf("%s: those of goroutine %d are not in order", tt.name, i)
				}
				continue
			}
			wg.Go(func() { slices.SortFunc(of, ulid.ULID.Compare) })
		}
		wg.Wait()
		if n := merge(t, ids); n != goroutines*each {
			t.Errorf("%s: %d identifiers, want %d", tt.name, n, goroutines*each)
		}
	}
}

// merge counts the identifiers of sorted lists, none of which may occur twice.
func merge(t *testing.T, lists [][]ulid.ULID) (n int) {
	t.Helper()
	for len(lists) > 1 {
		var wg sync.WaitGroup
		half := make([][]ulid.ULID, (len(lists)+1)/2)
		for i := range half {
			wg.Go(func() {
				a := lists[2*i]
				var b []ulid.ULID
				if 2*i+1 < len(lists) {
					b = lists[2*i+1]
				}
				out := make([]ulid.ULID, 0, len(a)+len(b))
				for len(a) > 0 && len(b) > 0 {
					switch c := a[0].Compare(b[0]); {
					case c < 0:
						out, a = append(out, a[0]), a[1:]
					case c > 0:
						out, b = append(out, b[0]), b[1:]
					default:
						t.Errorf("%v was made twice", a[0])
						return
					}
				}
				half[i] = append(append(out, a...), b...)
			})
		}
		wg.Wait()
		lists = half
	}
	return len(lists[0])
}

func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("allocation budgets are checked without the race detector")
	}
	g := NewGenerator()
	num, err := NewNumericGenerator(1)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 0, 64)
	for name, f := range map[string]func(){
		"Generator.New":        func() { g.New() },
		"Generator.Stamp":      func() { g.Stamp() },
		"New":                  func() { New() },
		"NumericGenerator.New": func() { num.New() },
		"NewShort":             func() { buf = NewShort().Append(buf[:0]) },
		"text":                 func() { id := g.New(); _ = id.MarshalTextTo(buf[:ulid.EncodedSize]) },
	} {
		if n := testing.AllocsPerRun(1000, f); n != 0 {
			t.Errorf("%s allocates %v times, want 0", name, n)
		}
	}
}

func BenchmarkNew(b *testing.B) {
	g := NewGenerator()
	num, err := NewNumericGenerator(1)
	if err != nil {
		b.Fatal(err)
	}
	var c Clock
	for _, tt := range []struct {
		name string
		f    func()
	}{
		{"kind=ulid/clock=read", func() { g.New() }},
		{"kind=ulid/clock=given", func() { g.At(1) }},
		{"kind=numeric", func() { num.New() }},
		{"kind=short", func() { NewShort() }},
		{"kind=clock/by=portask", func() { c.Micros() }},
		{"kind=clock/by=time.Now", func() { _ = time.Now().UnixMicro() }},
	} {
		b.Run(tt.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				tt.f()
			}
		})
	}
	b.Run("kind=ulid/by=processor/parallel=true", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				New()
			}
		})
	})
	b.Run("kind=ulid/by=ulid.Make/parallel=true", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				ulid.Make()
			}
		})
	})
}
