package verify

import (
	"math/rand/v2"
	"sync"
	"testing"
)

func tracker(t testing.TB, producers, partitions, window int) *Tracker {
	t.Helper()
	tr, err := New(Options{Producers: producers, Partitions: partitions, WindowMessages: window})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// run sends n messages through one lane, each acknowledged and delivered right
// away unless plant does something else and returns true.
func run(t *testing.T, tr *Tracker, n int, plant func(l *Lane, seq uint64) bool) Counts {
	t.Helper()
	l := tr.Lane(0, 0)
	for range n {
		seq, ok := l.Send()
		if !ok {
			t.Fatalf("window full at %d", l.next)
		}
		if plant == nil || !plant(l, seq) {
			l.Acked(seq)
			if f := l.Delivered(seq); f != First {
				t.Fatalf("message %d: fate %d", seq, f)
			}
		}
	}
	return tr.Counts()
}

func TestNothingWrong(t *testing.T) {
	got := run(t, tracker(t, 1, 1, 64), 10_000, nil)
	if want := (Counts{Sent: 10_000, Acked: 10_000, Delivered: 10_000}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// One fault in ten thousand messages, at the beginning, in the middle, at the
// edges of a word, at the end: each is found and counted once, as what it is.
func TestEachPlantedFaultIsFound(t *testing.T) {
	const n = 10_000
	ok := Counts{Sent: n, Acked: n, Delivered: n}
	with := func(change func(*Counts)) Counts {
		c := ok
		change(&c)
		return c
	}
	for _, tt := range []struct {
		name  string
		plant func(tr *Tracker, l *Lane, seq uint64) // instead of ack and delivery
		want  Counts
	}{
		{"lost", func(_ *Tracker, l *Lane, seq uint64) { l.Acked(seq) },
			with(func(c *Counts) { c.Delivered--; c.Lost++ })},
		{"duplicated at once", func(_ *Tracker, l *Lane, seq uint64) { l.Acked(seq); l.Delivered(seq); l.Delivered(seq) },
			with(func(c *Counts) { c.Duplicated++ })},
		{"given up and not delivered", func(_ *Tracker, l *Lane, seq uint64) { l.Failed(seq) },
			with(func(c *Counts) { c.Acked--; c.Failed++; c.Delivered-- })},
		{"given up and delivered", func(_ *Tracker, l *Lane, seq uint64) { l.Failed(seq); l.Delivered(seq) },
			with(func(c *Counts) { c.Acked--; c.Failed++; c.UnackedDelivered++ })},
		{"delivered before acknowledged", func(_ *Tracker, l *Lane, seq uint64) { l.Delivered(seq); l.Acked(seq) }, ok},
		{"delivered and never answered", func(_ *Tracker, l *Lane, seq uint64) { l.Delivered(seq) },
			with(func(c *Counts) { c.Acked--; c.UnackedDelivered++; c.Unanswered++ })},
		{"never answered", func(*Tracker, *Lane, uint64) {},
			with(func(c *Counts) { c.Acked--; c.Delivered--; c.Unanswered++ })},
		{"corrupt", func(tr *Tracker, l *Lane, seq uint64) { l.Acked(seq); tr.Corrupt() },
			with(func(c *Counts) { c.Delivered--; c.Lost++; c.Corrupt++ })},
		{"of nobody", func(tr *Tracker, l *Lane, seq uint64) { l.Acked(seq); l.Delivered(seq); tr.Phantom() },
			with(func(c *Counts) { c.Phantom++ })},
		{"foreign", func(tr *Tracker, l *Lane, seq uint64) { l.Acked(seq); l.Delivered(seq); tr.Foreign() },
			with(func(c *Counts) { c.Foreign++ })},
		{"misplaced", func(tr *Tracker, l *Lane, seq uint64) { l.Acked(seq); l.Delivered(seq); tr.Misplaced() },
			with(func(c *Counts) { c.Misplaced++ })},
		{"phantom", func(_ *Tracker, l *Lane, seq uint64) { l.Acked(seq); l.Delivered(seq); l.Delivered(seq + 1) },
			with(func(c *Counts) { c.Phantom++ })},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, at := range []uint64{0, 1, 63, 64, 127, 5000, n - 1} {
				tr := tracker(t, 1, 1, 16_384)
				got := run(t, tr, n, func(l *Lane, seq uint64) bool {
					if seq == at {
						tt.plant(tr, l, seq)
					}
					return seq == at
				})
				if got != tt.want {
					t.Errorf("at %d: %+v\nwant %+v", at, got, tt.want)
				}
			}
		})
	}
}

// These faults need more than one message.
func TestPlantedDisorder(t *testing.T) {
	const n = 10_000
	want := Counts{Sent: n, Acked: n, Delivered: n}
	t.Run("swapped neighbours", func(t *testing.T) {
		for _, at := range []uint64{0, 63, 5000, n - 2} {
			got := run(t, tracker(t, 1, 1, 16_384), n, func(l *Lane, seq uint64) bool {
				switch seq {
				case at:
					l.Acked(seq)
				case at + 1:
					l.Acked(seq)
					if f := l.Delivered(seq); f != First {
						t.Errorf("the one that overtook: fate %d", f)
					}
					if f := l.Delivered(at); f != Late {
						t.Errorf("the one overtaken: fate %d", f)
					}
				default:
					return false
				}
				return true
			})
			w := want
			w.Reordered = 1
			if got != w {
				t.Errorf("at %d: %+v, want %+v", at, got, w)
			}
		}
	})
	t.Run("duplicate long after", func(t *testing.T) {
		tr := tracker(t, 1, 1, 64)
		run(t, tr, n, nil)
		if f := tr.Lane(0, 0).Delivered(17); f != Duplicate {
			t.Errorf("fate %d, want Duplicate", f)
		}
		w := want
		w.Duplicated = 1
		if got := tr.Counts(); got != w {
			t.Errorf("%+v, want %+v", got, w)
		}
	})
	t.Run("given up and delivered long after", func(t *testing.T) {
		tr := tracker(t, 1, 1, 64)
		run(t, tr, n, func(l *Lane, seq uint64) bool {
			if seq == 17 {
				l.Failed(seq)
			}
			return seq == 17
		})
		l := tr.Lane(0, 0)
		if f := l.Delivered(17); f != Late {
			t.Errorf("fate %d, want Late", f)
		}
		if f := l.Delivered(17); f != Duplicate {
			t.Errorf("again: fate %d, want Duplicate", f)
		}
		w := want
		w.Acked, w.Failed, w.UnackedDelivered, w.Reordered, w.Duplicated = n-1, 1, 1, 1, 1
		if got := tr.Counts(); got != w {
			t.Errorf("%+v, want %+v", got, w)
		}
	})
}

func TestWindowIsBounded(t *testing.T) {
	tr := tracker(t, 1, 1, 1024)
	l := tr.Lane(0, 0)
	for i := range 1024 {
		if seq, ok := l.Send(); !ok || seq != uint64(i) {
			t.Fatalf("message %d: %d, %v", i, seq, ok)
		}
		l.Acked(uint64(i))
	}
	if _, ok := l.Send(); ok {
		t.Fatal("a window of 1024 took 1025 messages")
	}
	for i := range 64 {
		l.Delivered(uint64(i))
	}
	if seq, ok := l.Send(); !ok || seq != 1024 {
		t.Errorf("after 64 deliveries: %d, %v", seq, ok)
	}
	// Given up for good: they must not hold the window for ever.
	l.Failed(1024)
	for i := 64; i < 1024; i++ {
		l.Delivered(uint64(i))
	}
	for i := range 100_000 {
		seq, ok := l.Send()
		if !ok {
			t.Fatalf("window full after %d more", i)
		}
		l.Failed(seq)
		if i >= lateMax/2 {
			l.Delivered(seq)
		}
	}
	c := tr.Counts()
	if c.Failed != 100_001 || c.UnackedDelivered != 100_000-lateMax/2 || c.Lost != 0 {
		t.Errorf("%+v", c)
	}
}

// The oracle keeps every message in a map.
func TestAgainstOracle(t *testing.T) {
	type message struct {
		acked, failed bool
		deliveries    int
	}
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 1))
		tr := tracker(t, 1, 1, 64<<r.IntN(6))
		l := tr.Lane(0, 0)
		var all []*message
		var open []uint64 // without an outcome
		var top uint64
		var want Counts
		for range 20_000 {
			switch k := r.IntN(10); {
			case k < 4:
				if seq, ok := l.Send(); ok {
					if seq != uint64(len(all)) {
						t.Fatalf("seed %d: sequence %d, want %d", seed, seq, len(all))
					}
					all = append(all, new(message))
					open = append(open, seq)
				}
			case k < 7 && len(open) > 0:
				i := r.IntN(min(len(open), 8))
				seq := open[i]
				open = append(open[:i], open[i+1:]...)
				if r.IntN(50) == 0 {
					all[seq].failed = true
					l.Failed(seq)
				} else {
					all[seq].acked = true
					l.Acked(seq)
				}
			case len(all) > 0:
				var seq uint64
				if r.IntN(100) == 0 {
					seq = r.Uint64N(uint64(len(all)) + 2)
				} else { // near the oldest undelivered, mostly in order
					for seq = uint64(max(0, len(all)-300)); seq < uint64(len(all)) && all[seq].deliveries > 0; seq++ {
					}
					seq += r.Uint64N(3) / 2
				}
				f := l.Delivered(seq)
				expect := First
				switch {
				case seq >= uint64(len(all)):
					expect = Phantom
					want.Phantom++
				case all[seq].deliveries > 0:
					expect = Duplicate
					want.Duplicated++
				case seq < top:
					expect = Late
					want.Reordered++
				}
				if f != expect {
					t.Fatalf("seed %d: message %d: fate %d, want %d", seed, seq, f, expect)
				}
				if expect != Phantom {
					all[seq].deliveries++
					top = max(top, seq+1)
				}
			}
		}
		for _, m := range all {
			want.Sent++
			switch {
			case m.acked:
				want.Acked++
			case m.failed:
				want.Failed++
			default:
				want.Unanswered++
			}
			if m.deliveries > 0 {
				want.Delivered++
				if !m.acked {
					want.UnackedDelivered++
				}
			} else if m.acked {
				want.Lost++
			}
		}
		if got := tr.Counts(); got != want {
			t.Fatalf("seed %d:\n%+v, want\n%+v", seed, got, want)
		}
	}
}

// Far more is lost than is remembered: it is counted all the same, and the
// window goes on.
func TestALaneThatLosesHalf(t *testing.T) {
	const n = 10 * lateMax
	tr := tracker(t, 1, 1, 1024)
	a := tr.Mark()
	got := run(t, tr, n, func(l *Lane, seq uint64) bool {
		switch {
		case seq%4 < 2:
			l.Acked(seq)
		case seq%4 == 2:
			l.Failed(seq)
		default:
			return false
		}
		return true
	})
	if want := (Counts{Sent: n, Acked: n / 4 * 3, Failed: n / 4, Delivered: n / 4, Lost: n / 2}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := tr.Between(a, tr.Mark(), true); got.Lost != n/2 || got.GivenUp != n/4 || got.Messages != n {
		t.Errorf("span %+v", got)
	}
	if l := tr.Lane(0, 0); len(l.late) > lateMax {
		t.Errorf("%d are remembered", len(l.late))
	}
}

func TestLanesAreSeparateAndConcurrent(t *testing.T) {
	tr := tracker(t, 3, 4, 1<<16)
	var wg sync.WaitGroup
	for p := range uint32(3) {
		for q := range uint32(4) {
			l := tr.Lane(p, q)
			sent := make(chan uint64, 100)
			wg.Go(func() {
				for range 5000 {
					seq, _ := l.Send()
					sent <- seq
					l.Acked(seq)
				}
				close(sent)
			})
			wg.Go(func() {
				for seq := range sent {
					l.Delivered(seq)
				}
			})
		}
	}
	wg.Wait()
	if got, want := tr.Counts(), (Counts{Sent: 60_000, Acked: 60_000, Delivered: 60_000}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	for _, bad := range [][2]uint32{{3, 0}, {0, 4}, {1 << 31, 0}, {0, 1 << 31}} {
		if tr.Lane(bad[0], bad[1]) != nil {
			t.Errorf("lane %v exists", bad)
		}
	}
}

func TestCountsInWords(t *testing.T) {
	c := Counts{Lost: 1, Duplicated: 2, Reordered: 4, Corrupt: 8, Phantom: 16, Misplaced: 32, Foreign: 64, Unanswered: 128, UnackedDelivered: 256}
	if c.Violations() != 63 || c.Outstanding() != 129 {
		t.Errorf("%d violations, %d outstanding", c.Violations(), c.Outstanding())
	}
}

func TestNewRefuses(t *testing.T) {
	for _, o := range []Options{
		{Producers: 0, Partitions: 1}, {Producers: 1, Partitions: 0}, {Producers: 1 << 20, Partitions: 2},
		{Producers: 1, Partitions: 1, WindowMessages: 63}, {Producers: 1, Partitions: 1, WindowMessages: 1<<30 + 1},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v: accepted", o)
		}
	}
}

func BenchmarkLane(b *testing.B) {
	tr := tracker(b, 1, 1, 0)
	l := tr.Lane(0, 0)
	b.ReportAllocs()
	for b.Loop() {
		seq, _ := l.Send()
		l.Acked(seq)
		l.Delivered(seq)
	}
}

// A message lost long ago does not hold up the run, is counted, and may still
// come. Messages that are merely on their way do hold it up.
func TestLossDoesNotFillTheWindow(t *testing.T) {
	const n = 100_000
	tr := tracker(t, 1, 1, 1024)
	got := run(t, tr, n, func(l *Lane, seq uint64) bool {
		if seq%1000 == 17 {
			l.Acked(seq)
			return true
		}
		return false
	})
	want := Counts{Sent: n, Acked: n, Delivered: n - n/1000, Lost: n / 1000}
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	l := tr.Lane(0, 0)
	if f := l.Delivered(1017); f != Late {
		t.Errorf("one of them came after all: fate %d, want Late", f)
	}
	if f := l.Delivered(1017); f != Duplicate {
		t.Errorf("and again: fate %d, want Duplicate", f)
	}
	want.Lost, want.Delivered, want.Reordered, want.Duplicated = want.Lost-1, want.Delivered+1, 1, 1
	if got := tr.Counts(); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	// Nothing behind them was delivered.
	l = tracker(t, 1, 1, 64).Lane(0, 0)
	for range 64 {
		seq, _ := l.Send()
		l.Acked(seq)
	}
	if _, ok := l.Send(); ok {
		t.Error("messages that are on their way were passed")
	}
}
