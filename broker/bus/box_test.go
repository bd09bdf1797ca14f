package bus

import (
	"errors"
	"sync"
	"testing"

	"github.com/portask/portask/broker/fault"
)

// Eight producers and an owner that sleeps unless it is woken: everything arrives
// once, in the order of its producer, and one wake for an empty box is enough.
func TestBoxLosesNothing(t *testing.T) {
	const each = 20_000
	type value struct{ producer, seq int }
	var b Box[value]
	wake := make(chan struct{}, 1)
	var wg sync.WaitGroup
	for i := range producers {
		wg.Go(func() {
			for seq := 0; seq < each; {
				batch := make([]value, 0, 7)
				for len(batch) < 1+seq%7 && seq < each {
					batch = append(batch, value{i, seq})
					seq++
				}
				if b.Put(batch...) {
					select {
					case wake <- struct{}{}:
					default:
					}
				}
			}
		})
	}
	var next [producers]int
	var got []value
	for total := 0; total < producers*each; {
		<-wake
		for got = b.Take(got); len(got) > 0; got = b.Take(got) {
			for _, v := range got {
				if v.seq != next[v.producer] {
					t.Fatalf("%d of producer %d where %d was due", v.seq, v.producer, next[v.producer])
				}
				next[v.producer]++
				total++
			}
		}
	}
	wg.Wait()
	if s := b.Stats(); s.Depth != 0 || s.Put != producers*each || s.Deepest == 0 {
		t.Errorf("%+v", s)
	}
}

func TestBoxForgetsWhatWasTaken(t *testing.T) {
	var b Box[*int]
	b.Put(new(int), new(int))
	if b.Put() {
		t.Error("nothing was put and it was the first")
	}
	first := b.Take(nil)
	if again := b.Take(first); len(again) != 0 || first[:2][0] != nil || first[:2][1] != nil {
		t.Errorf("took %d, still held: %v", len(again), first[:2])
	}
}

func TestWarmAllocatesNothing(t *testing.T) {
	var b Box[[9]uint64]
	var got [][9]uint64
	p := plain(1)
	defer p.Close()
	ran := make(chan struct{})
	var task Task
	task.Bind(p, 0, func() bool { ran <- struct{}{}; return false })
	c := NewCredit(10, fault.Full, "test", "n", "things")
	turn := func() {
		b.Put([9]uint64{1}, [9]uint64{2})
		b.Put([9]uint64{3})
		got = b.Take(got)
		if err := c.Take(5); err != nil {
			t.Error(err)
		}
		task.Schedule()
		<-ran
		c.Give(5)
	}
	turn()
	turn()
	if n := testing.AllocsPerRun(1000, turn); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestCredit(t *testing.T) {
	c := NewCredit(100, fault.ResourceExhausted, "session", "requests", "requests wait")
	if err := c.Take(60); err != nil {
		t.Fatal(err)
	}
	err := c.Take(41)
	var f *fault.Error
	if !errors.As(err, &f) || f.Code != fault.ResourceExhausted || f.Field != "requests" || f.Limit != 100 || f.Value != 101 {
		t.Errorf("refused with %v", err)
	}
	if err := c.Take(40); err != nil {
		t.Errorf("what was refused is held: %v", err)
	}
	c.Force(20)
	c.Give(20)
	if c.Take(1) == nil {
		t.Error("101 of 100")
	}
	c.Give(100)
	if s := c.Stats(); s != (CreditStats{Held: 0, Highest: 120, Most: 100, Refused: 2}) {
		t.Errorf("%+v", s)
	}
}

// Under contention exactly as much is granted as there is.
func TestCreditIsExact(t *testing.T) {
	c := NewCredit(1000, fault.Full, "test", "n", "things")
	var granted [producers]int
	var wg sync.WaitGroup
	for i := range producers {
		wg.Go(func() {
			for range 1000 {
				if c.Take(1) == nil {
					granted[i]++
				}
			}
		})
	}
	wg.Wait()
	sum := 0
	for _, n := range granted {
		sum += n
	}
	if s := c.Stats(); sum != 1000 || s.Held != 1000 || s.Highest != 1000 || s.Refused != producers*1000-1000 {
		t.Errorf("granted %d: %+v", sum, s)
	}
}
