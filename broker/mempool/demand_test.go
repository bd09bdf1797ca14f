package mempool

import (
	"testing"
	"time"
)

// clock is virtual time, a second a tick.
type clock struct {
	p   *Pool
	now time.Time
}

func newClock(p *Pool) *clock {
	c := &clock{p, time.Now()}
	p.Tune(c.now)
	return c
}

func (c *clock) pass(seconds int) {
	for range seconds {
		c.now = c.now.Add(time.Second)
		c.p.Tune(c.now)
	}
}

// wave lends n chunks at the same time and takes them back.
func wave(p *Pool, n, size int) {
	held := make([]*Chunk, n)
	for i := range held {
		held[i] = p.Get(size)
	}
	for _, c := range held {
		c.Release()
	}
}

func TestGrid(t *testing.T) {
	last := 0
	for i := range classes {
		size := sizeOf(i)
		if size <= last || size > last+last/4+MinBytes {
			t.Fatalf("place %d has %d bytes after %d", i, size, last)
		}
		if size >= 1<<mapShift && size%4096 != 0 {
			t.Errorf("place %d, %d bytes, is not made of pages", i, size)
		}
		for _, n := range []int{last + 1, size - 1, size} {
			if n > last && gridOf(n) != i {
				t.Fatalf("%d bytes lie at %d, want %d", n, gridOf(n), i)
			}
		}
		if w := sizeOf(wholeOf(i)); w&(w-1) != 0 || w < size || w >= 2*size {
			t.Errorf("the power of two above %d is %d", size, w)
		}
		last = size
	}
	if last != MaxChunkBytes || gridOf(last+1) != -1 || gridOf(0) != 0 || gridOf(-1) != 0 {
		t.Errorf("the grid ends at %d", last)
	}
}

// What a class owns follows the peak of the last Window, up and down.
func TestFreeChunksFollowTheDemand(t *testing.T) {
	const size = 1024
	p := NewPool(Options{})
	defer p.Close()
	c := newClock(p)
	free := func() int { return int(p.Stats().FreeBytes) / size }

	wave(p, 64, size)
	for s := range windowSlots - 1 {
		c.pass(1)
		if free() != 64 {
			t.Fatalf("%d chunks free %d s after a wave of 64", free(), s+1)
		}
	}
	for range windowSlots + 1 { // smaller waves from now on
		wave(p, 8, size)
		c.pass(1)
	}
	if free() != 8 {
		t.Fatalf("%d chunks free, want the 8 that each second needs", free())
	}
	misses := p.Stats().Misses
	wave(p, 8, size)
	if got := p.Stats().Misses; got != misses {
		t.Errorf("%d Gets of the wave found nothing", got-misses)
	}
	// Chunks that are lent count: with 6 of 8 out, 2 may lie free.
	held := make([]*Chunk, 6)
	for i := range held {
		held[i] = p.Get(size)
	}
	c.pass(windowSlots - 2)
	if free() != 2 {
		t.Errorf("%d chunks free beside 6 lent, want 2", free())
	}
	c.pass(3)
	if free() != 0 {
		t.Errorf("%d chunks free that nobody needed for a window", free())
	}
	for _, x := range held {
		x.Release()
	}
	c.pass(windowSlots + 1)
	s := p.Stats()
	if s.FreeBytes != 0 || s.LiveBytes != 0 || s.TrimmedBytes != 64*size {
		t.Errorf("idle: %v", s)
	}
}

// A pool that was not tuned for a while, as in a stopped process, knows nothing
// of the time between and keeps what it needed last.
func TestALateTuneIsOneStep(t *testing.T) {
	p := NewPool(Options{})
	defer p.Close()
	c := newClock(p)
	wave(p, 4, 4096)
	c.now = c.now.Add(time.Hour)
	p.Tune(c.now)
	if s := p.Stats(); s.FreeBytes != 4*4096 {
		t.Errorf("%v", s)
	}
	c.now = c.now.Add(time.Hour)
	p.Tune(c.now)
	p.Tune(c.now)
	if s := p.Stats(); s.FreeBytes != 0 {
		t.Errorf("after another idle hour: %v", s)
	}
}

func TestKeptChunksGrowOld(t *testing.T) {
	p := NewPool(Options{KeepFor: 30 * time.Second})
	defer p.Close()
	c := newClock(p)
	old := p.Get(64 << 10)
	p.Retire(old)
	c.pass(20)
	young := p.Get(64 << 10)
	gen := young.Gen()
	p.Retire(young)
	c.pass(10)
	if s := p.Stats(); s.KeptBytes != 64<<10 {
		t.Fatalf("%v, want the younger one", s)
	}
	if !young.TryRetain(gen) {
		t.Fatal("the older one was kept")
	}
	young.Release()
	c.pass(20 + windowSlots + 1)
	if s := p.Stats(); s != (Stats{Gets: 2, Misses: 2, MaxBytes: DefaultMaxBytes, TrimmedBytes: 128 << 10}) {
		t.Errorf("idle: %v", s)
	}
}

// A size that is asked for often gets a class of its own, keeps it while it is
// asked for, and loses it afterwards.
func TestSizesInUseBecomeClasses(t *testing.T) {
	const n = 70 << 10 // 128 KiB as a power of two, 80 KiB on the grid
	p := NewPool(Options{})
	defer p.Close()
	c := newClock(p)
	got := func() int {
		x := p.Get(n)
		defer x.Release()
		return len(x.B)
	}
	if got() != 128<<10 {
		t.Fatal("a size nobody asked for has a class of its own")
	}
	for range fineGets {
		p.Get(n).Release()
	}
	c.pass(1)
	if got() != 80<<10 {
		t.Fatalf("lent %d bytes for %d asked for often", got(), n)
	}
	// Others of the same power of two do not change that unless they are many.
	for range fineGets {
		p.Get(128 << 10).Release()
	}
	c.pass(1)
	if got() != 80<<10 {
		t.Fatal("lost the class to as many others")
	}
	for range 20 * fineGets {
		p.Get(128 << 10).Release()
	}
	c.pass(1)
	if got() != 128<<10 {
		t.Fatal("kept a class that hardly anybody asks for")
	}
	c.pass(2 * windowSlots)
	if s := p.Stats(); s.FreeBytes != 0 {
		t.Errorf("the memory of a class that is none any more stays: %v", s)
	}
	// Below fineFrom sizes share the powers of two.
	for range 2 * fineGets {
		p.Get(70).Release()
	}
	c.pass(1)
	if x := p.Get(70); len(x.B) != 128 {
		t.Errorf("lent %d bytes for 70", len(x.B))
	} else {
		x.Release()
	}
}

func TestClassesTell(t *testing.T) {
	p := NewPool(Options{})
	defer p.Close()
	c := p.Get(4000)
	wave(p, 3, 64)
	got := p.Classes(nil)
	want := []ClassStats{{Bytes: 64, Free: 3, Peak: 3, Gets: 3}, {Bytes: 4096, Lent: 1, Peak: 1, Gets: 1}}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("got %+v, want %+v", got, want)
	}
	c.Release()
}

func TestPlainPoolReusesNothing(t *testing.T) {
	p := NewPool(Options{Plain: true})
	defer p.Close()
	wave(p, 3, 4096)
	wave(p, 3, 4096)
	if s := p.Stats(); s.Misses != 6 || s.FreeBytes != 0 || s.LiveBytes != 0 {
		t.Errorf("%v", s)
	}
}

func TestSizer(t *testing.T) {
	s := NewSizer(64<<10, 256<<10, 1<<20)
	now := int64(1)
	fill := func(n, room int, ms int64) {
		now += ms
		s.Fill(n, room, now)
	}
	want := func(kib int, when string) {
		t.Helper()
		if s.Size() != kib<<10 {
			t.Fatalf("%s: %d KiB, want %d", when, s.Size()>>10, kib)
		}
	}
	want(256, "at first")
	fill(200<<10, 256<<10, 1)
	want(256, "a fill that left room")
	fill(64<<10, 64<<10, 1)
	want(256, "a small rest was filled")
	fill(256<<10, 256<<10, 1)
	want(512, "filled")
	fill(512<<10, 512<<10, 1)
	fill(1<<20, 1<<20, 1)
	want(1024, "no more than the most")

	fill(300<<10, 1<<20, 1)
	for range 10_000 { // many reads in little time say little
		fill(10, 1<<20, 0)
	}
	want(1024, "small fills for no time")
	fill(10, 1<<20, sizerHold)
	want(1024, "one of them was more than a quarter")
	for range 2 {
		fill(10, 1<<20, sizerHold)
	}
	want(256, "small fills for twice the time")
	for range 10 {
		now += sizerHold
		s.Idle(now)
	}
	want(64, "nothing came: no less than the least")

	s.Limit(1 << 10)
	want(64, "limited below the least")
	s.Limit(128 << 10)
	want(128, "limited")
}

// Traffic that comes in waves two ticks apart does not move the size about.
func TestSizerHoldsStill(t *testing.T) {
	s := NewSizer(64<<10, 64<<10, 1<<20)
	changes, last := 0, s.Size()
	for now := int64(1); now < 60_000; now += 100 {
		n := 10 << 10
		if now%1000 == 1 {
			n = min(300<<10, s.Size()) // a wave fills what there is, up to 300 KiB
		}
		s.Fill(n, s.Size(), now)
		if s.Size() != last {
			changes, last = changes+1, s.Size()
		}
	}
	if changes > 3 || s.Size() != 512<<10 {
		t.Errorf("%d changes, now %d KiB", changes, s.Size()>>10)
	}
}
