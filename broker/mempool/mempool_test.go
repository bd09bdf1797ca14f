package mempool

import (
	"bytes"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestClassBytes(t *testing.T) {
	for _, c := range []struct{ n, want int }{
		{0, 64}, {1, 64}, {64, 64}, {65, 128}, {32 << 10, 32 << 10}, {32<<10 + 1, 64 << 10},
		{100 << 10, 128 << 10}, {8 << 20, 8 << 20}, {8<<20 + 4, 16 << 20}, {MaxChunkBytes, MaxChunkBytes}, {MaxChunkBytes + 1, 0},
	} {
		if got := ClassBytes(c.n); got != c.want {
			t.Errorf("ClassBytes(%d) = %d, want %d", c.n, got, c.want)
		}
	}
}

func TestGetGivesWholeClassAndAccountsForIt(t *testing.T) {
	p := NewPool(Options{})
	defer p.Close()
	var held []*Chunk
	var sum int64
	for n := 1; n <= 8<<20; n = n*3 + 1 {
		c := p.Get(n)
		if len(c.B) != ClassBytes(n) || cap(c.B) != len(c.B) {
			t.Fatalf("Get(%d): len %d cap %d, want %d", n, len(c.B), cap(c.B), ClassBytes(n))
		}
		c.B[0], c.B[len(c.B)-1] = 1, 1
		held = append(held, c)
		sum += int64(len(c.B))
	}
	if s := p.Stats(); s.LiveBytes != sum || s.Misses != uint64(len(held)) {
		t.Fatalf("stats %v, want live %d and %d misses", s, sum, len(held))
	}
	for _, c := range held {
		c.Release()
	}
	if s := p.Stats(); s.LiveBytes != 0 || s.FreeBytes == 0 || s.FreeBytes > DefaultMaxBytes+DefaultFreeBytes {
		t.Fatalf("after release: %v", s)
	}
}

func TestRecycledChunkComesBackWithItsWholeLengthAndNewGeneration(t *testing.T) {
	p := NewPool(Options{})
	defer p.Close()
	c := p.Get(1000)
	gen, base := c.Gen(), &c.B[0]
	c.B = c.B[:3]
	c.Release()
	d := p.Get(1000)
	if &d.B[0] != base {
		t.Fatal("the freed memory was not lent again")
	}
	if len(d.B) != 1024 {
		t.Fatalf("len %d, want 1024", len(d.B))
	}
	if d.Weak() {
		t.Fatal("the weak mark survived recycling")
	}
	if d.Gen() == gen {
		t.Fatal("generation did not change")
	}
	d.Release()
}

func TestSole(t *testing.T) {
	p := NewPool(Options{})
	defer p.Close()
	c := p.Get(64)
	if !c.Sole() {
		t.Fatal("fresh chunk is not sole")
	}
	c.Retain()
	if c.Sole() {
		t.Fatal("sole with two holders")
	}
	c.Release()
	if !c.Sole() {
		t.Fatal("not sole after the other holder left")
	}
	c.Gen()
	if c.Sole() || !c.Weak() {
		t.Fatal("sole although a weak reference was taken")
	}
	c.Release()
}

func TestRetireKeepsTheNewestReadable(t *testing.T) {
	const size = 64 << 10
	p := NewPool(Options{KeepBytes: 4 * size})
	defer p.Close()
	type weak struct {
		c   *Chunk
		gen uint32
	}
	var refs []weak
	for i := range 6 {
		c := p.Get(size)
		c.B[0] = byte(i)
		refs = append(refs, weak{c, c.Gen()})
		p.Retire(c)
	}
	for i, w := range refs {
		ok := w.c.TryRetain(w.gen)
		// The first two were pushed out; one of their blocks serves a later
		// chunk, the other lies in the free list.
		if want := i >= 2; ok != want {
			t.Fatalf("chunk %d: TryRetain %v, want %v", i, ok, want)
		}
		if ok {
			if w.c.B[0] != byte(i) {
				t.Fatalf("chunk %d holds %d", i, w.c.B[0])
			}
			w.c.Release()
		}
	}
	if s := p.Stats(); s.KeptBytes != 4*size || s.LiveBytes != 4*size {
		t.Fatalf("%v", s)
	}
	p.DropKept()
	if s := p.Stats(); s.KeptBytes != 0 || s.LiveBytes != 0 {
		t.Fatalf("after DropKept: %v", s)
	}
}

func TestRetireLargerThanKeepReleases(t *testing.T) {
	p := NewPool(Options{KeepBytes: -1})
	defer p.Close()
	c := p.Get(64)
	g := c.Gen()
	p.Retire(c)
	if c.TryRetain(g) {
		t.Fatal("a pool that keeps nothing kept a chunk")
	}
}

func TestMaxBytesRefusesAfterGivingUpKeptChunks(t *testing.T) {
	const size = 64 << 10
	p := NewPool(Options{MaxBytes: 3 * size, KeepBytes: 3 * size})
	defer p.Close()
	a, b, c := p.Get(size), p.Get(size), p.Get(size)
	if p.Get(64) != nil {
		t.Fatal("lent beyond MaxBytes")
	}
	p.Retire(a)
	d := p.Get(size) // takes the kept one's place
	if d == nil {
		t.Fatal("a kept chunk stood in the way")
	}
	if s := p.Stats(); s.Refused != 1 || s.Evicted != 1 || s.LiveBytes != 3*size {
		t.Fatalf("%v", s)
	}
	// A kept chunk someone else still reads does not make room.
	b.Retain()
	p.Retire(b)
	if p.Get(64) != nil {
		t.Fatal("lent memory that a reader holds")
	}
	b.Release()
	for _, x := range []*Chunk{c, d} {
		x.Release()
	}
	if p.Get(MaxChunkBytes+1) != nil {
		t.Fatal("lent more than the largest class")
	}
}

// What is lent and what is free stay together below MaxBytes and FreeBytes.
func TestOwnedMemoryIsBounded(t *testing.T) {
	const size = 64 << 10
	p := NewPool(Options{MaxBytes: 4 * size, FreeBytes: 2 * size})
	defer p.Close()
	lend := func(n, size int) (held []*Chunk) {
		for range n {
			held = append(held, p.Get(size))
		}
		return held
	}
	release := func(held []*Chunk) {
		for _, c := range held {
			c.Release()
		}
	}
	release(lend(4, size))
	if s := p.Stats(); s.FreeBytes != 4*size {
		t.Fatalf("%v: a wave of traffic would find nothing of the last", s)
	}
	// Another size takes the place of what lies there.
	held := lend(2, 2*size)
	if s := p.Stats(); s.LiveBytes != 4*size || s.LiveBytes+s.FreeBytes > 6*size {
		t.Fatalf("%v", s)
	}
	release(held)
	if s := p.Stats(); s.LiveBytes != 0 || s.FreeBytes > 6*size {
		t.Fatalf("%v", s)
	}
}

func TestCloseLetsHoldersFinish(t *testing.T) {
	p := NewPool(Options{Leaked: func(string) {}})
	a, b := p.Get(64<<10), p.Get(64)
	b.Release()
	p.Close()
	if p.Get(64) != nil {
		t.Fatal("closed pool lends")
	}
	a.B[0] = 1 // still mapped
	a.Release()
	if s := p.Stats(); s.LiveBytes != 0 || s.FreeBytes != 0 {
		t.Fatalf("%v", s)
	}
}

func TestMisuseBreaksLoudly(t *testing.T) {
	for name, f := range map[string]func(c *Chunk){
		"Release twice":        func(c *Chunk) { c.Release(); c.Release() },
		"Retain after Release": func(c *Chunk) { c.Release(); c.Retain() },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f(NewPool(Options{}).Get(64))
		}()
	}
}

// Readers hold weak references only, while the owner fills, retires and so
// recycles chunks. A successful TryRetain must show the bytes of its own
// generation, whole; Poison turns any lapse into a mismatch.
func TestWeakReadersNeverSeeAnotherUse(t *testing.T) {
	const size = 64
	p := NewPool(Options{KeepBytes: 4 * size, Poison: true})
	defer p.Close()
	type ref struct {
		c   *Chunk
		gen uint32
		v   byte
	}
	var newest [4]atomic.Pointer[ref]
	var stop atomic.Bool
	var hits, misses atomic.Int64
	var wg sync.WaitGroup
	for r := range 4 {
		wg.Go(func() {
			want := make([]byte, size)
			for !stop.Load() {
				w := newest[r].Load()
				if w == nil {
					continue
				}
				if !w.c.TryRetain(w.gen) {
					misses.Add(1)
					continue
				}
				for i := range want {
					want[i] = w.v
				}
				if !bytes.Equal(w.c.B, want) {
					t.Errorf("generation %d: read %x", w.gen, w.c.B[:4])
					stop.Store(true)
				}
				w.c.Release()
				hits.Add(1)
			}
		})
	}
	rounds := 200_000
	if LeaseCheck {
		rounds /= 20
	}
	for i := 0; i < rounds && !stop.Load(); i++ {
		c := p.Get(size)
		for j := range c.B {
			c.B[j] = byte(i)
		}
		if i%3 == 0 { // readers lag by a changing amount, so some come too late
			newest[i%len(newest)].Store(&ref{c, c.Gen(), byte(i)})
		}
		p.Retire(c)
	}
	stop.Store(true)
	wg.Wait()
	t.Logf("%d hits, %d misses, %v", hits.Load(), misses.Load(), p.Stats())
}

func TestConcurrentGetReleaseKeepsAccounts(t *testing.T) {
	const limit = 1 << 20
	p := NewPool(Options{MaxBytes: limit, KeepBytes: 64 << 10})
	var wg sync.WaitGroup
	begin := time.Now()
	for g := range 4 {
		wg.Go(func() {
			for i := range 5_000 {
				c := p.Get(64 << (uint(i*7+g) % 9))
				if s := p.live.Load(); s > limit {
					t.Errorf("live %d over the cap", s)
					return
				}
				if c == nil {
					continue
				}
				c.Retain()
				if i%2 == 0 {
					p.Retire(c)
				} else {
					c.Release()
				}
				c.Release()
				if i%512 == 0 {
					p.Tune(begin.Add(time.Duration(i) * time.Second))
				}
			}
		})
	}
	wg.Wait()
	p.Close()
	if s := p.Stats(); s.LiveBytes != 0 || s.FreeBytes != 0 || s.KeptBytes != 0 {
		t.Fatalf("not all came back: %v", s)
	}
}

func TestWarmGetTakesNoMemory(t *testing.T) {
	if LeaseCheck {
		t.Skip("a checked lease keeps its history")
	}
	p := NewPool(Options{})
	defer p.Close()
	for _, n := range []int{64, 4096, 256 << 10} {
		p.Get(n).Release()
		if a := testing.AllocsPerRun(100, func() { p.Get(n).Release() }); a != 0 {
			t.Errorf("Get(%d): %v allocations", n, a)
		}
	}
	for range 100 { // grow the ring of kept chunks once
		p.Retire(p.Get(64 << 10))
	}
	for range 100 {
		p.Retire(p.Get(256 << 10))
	}
	if a := testing.AllocsPerRun(100, func() { p.Retire(p.Get(256 << 10)) }); a != 0 {
		t.Errorf("Retire: %v allocations", a)
	}
}

func BenchmarkGet(b *testing.B) {
	for _, c := range []struct {
		name string
		n    int
	}{{"size=64B", 64}, {"size=4KiB", 4096}, {"size=256KiB", 256 << 10}} {
		b.Run("end=release/"+c.name, func(b *testing.B) {
			p := NewPool(Options{})
			defer p.Close()
			for b.Loop() {
				p.Get(c.n).Release()
			}
		})
	}
	b.Run("end=retire/size=256KiB", func(b *testing.B) {
		p := NewPool(Options{})
		defer p.Close()
		for b.Loop() {
			p.Retire(p.Get(256 << 10))
		}
	})
}

func BenchmarkTryRetain(b *testing.B) {
	p := NewPool(Options{})
	defer p.Close()
	c := p.Get(64 << 10)
	defer c.Release()
	gen := c.Gen()
	for b.Loop() {
		if c.TryRetain(gen) {
			c.Release()
		}
	}
}
