package latency

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Every duration lies in its bucket, buckets touch, and none is wider than 1/32
// of its values or 64 ns.
func TestBuckets(t *testing.T) {
	if Lower(0) != 0 || Lower(Buckets) != Max {
		t.Fatalf("buckets cover [%d, %d)", Lower(0), Lower(Buckets))
	}
	for i := range Buckets {
		lo, hi := Lower(i), Lower(i+1)
		if hi <= lo || hi-lo > max(64, lo/32) {
			t.Fatalf("bucket %d is [%d, %d)", i, lo, hi)
		}
		for _, v := range []int64{lo, (lo + hi) / 2, hi - 1} {
			if got := bucket(v); got != i {
				t.Fatalf("%d ns is in bucket %d, want %d: [%d, %d)", v, got, i, lo, hi)
			}
		}
	}
	for v, want := range map[int64]int{-1: 0, math.MinInt64: 0, Max: Buckets - 1, math.MaxInt64: Buckets - 1} {
		if got := bucket(v); got != want {
			t.Errorf("%d ns is in bucket %d, want %d", v, got, want)
		}
	}
	// Powers of two are borders: what an export by them says is exact.
	for v := int64(1 << unitBits); v < Max; v *= 2 {
		if Lower(bucket(v)) != v {
			t.Errorf("%d is no border", v)
		}
	}
}

// Many writers and a reader: what was recorded is counted, once, and grows only.
func TestSet(t *testing.T) {
	const loops, each = 3, 20_000
	s := NewSet(loops)
	var wg sync.WaitGroup
	for loop := -1; loop < loops; loop++ {
		for range 2 { // two writers of one recorder
			wg.Go(func() {
				for i := range each {
					s.At(loop).Record(Append, int64(i), 1)
				}
			})
		}
	}
	total := func(c *Counts) (n uint64) {
		for _, v := range c {
			n += v
		}
		return n
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	var c Counts
	for last, going := uint64(0), true; going; {
		select {
		case <-done:
			going = false
		default:
		}
		s.Read(Append, &c)
		if n := total(&c); n < last {
			t.Fatalf("%d after %d", n, last)
		} else {
			last = n
		}
	}
	if n, want := total(&c), uint64((loops+1)*2*each); n != want {
		t.Errorf("counted %d, want %d", n, want)
	}
	var sum int64
	for i, n := range c {
		sum += Middle(i) * int64(n)
	}
	if want := int64((loops + 1) * 2 * (each - 1) * each / 2); sum < want-want/64 || sum > want+want/64 {
		t.Errorf("sum %d, want %d", sum, want)
	}
	s.At(1).Record(Append, 100, 5)
	s.Read(Append, &c)
	if n, want := total(&c), uint64((loops+1)*2*each+5); n != want {
		t.Errorf("after five at once: counted %d, want %d", n, want)
	}
	if s.Read(Sync, &c); total(&c) != 0 {
		t.Error("another kind has counts")
	}
}

func TestNothingToMeasure(t *testing.T) {
	var s *Set
	s.At(0).Record(Sync, 1, 1)
	c := Counts{1}
	if s.Read(Sync, &c); c[0] != 0 {
		t.Error("a nil Set has counts")
	}
}

func TestNow(t *testing.T) {
	before, at, after := Now(), At(time.Now()), Now()
	if at < before || at > after {
		t.Errorf("At is %d, between %d and %d", at, before, after)
	}
	a := Now()
	if d := Now() - a; d < 0 || d > int64(time.Minute) {
		t.Errorf("two readings are %d ns apart", d)
	}
}

func TestRecordAllocatesNothing(t *testing.T) {
	r := NewSet(1).At(0)
	if n := testing.AllocsPerRun(100, func() { r.Record(Deliver, 12345, 7) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkRecord beside a plain use of HdrHistogram, which needs a lock when
// another goroutine is to read it.
func BenchmarkRecord(b *testing.B) {
	values := make([]int64, 1024)
	for i := range values {
		values[i] = int64(math.Exp(rand.Float64()*10 + 7)) // 1 us to 24 ms
	}
	b.Run("way=recorder", func(b *testing.B) {
		b.ReportAllocs()
		r, i := NewSet(1).At(0), 0
		for b.Loop() {
			r.Record(Accepted, values[i&1023], 1)
			i++
		}
	})
	b.Run("way=hdrhistogram+mutex", func(b *testing.B) {
		b.ReportAllocs()
		var mu sync.Mutex
		h, i := hdrhistogram.New(1, Max, 2), 0
		for b.Loop() {
			mu.Lock()
			if err := h.RecordValue(values[i&1023]); err != nil {
				b.Fatal(err)
			}
			mu.Unlock()
			i++
		}
	})
	for _, loops := range []int{2, 8} {
		b.Run(fmt.Sprintf("way=read/loops=%d", loops), func(b *testing.B) {
			s := NewSet(loops)
			var c Counts
			for b.Loop() {
				s.Read(Accepted, &c)
			}
		})
	}
}
