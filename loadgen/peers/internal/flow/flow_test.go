package flow

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portask/portask/loadgen/driver"
)

func TestTakeWaitsForRoom(t *testing.T) {
	for what, limits := range map[string][2]int{"bytes": {100, 1000}, "messages": {1 << 20, 2}} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := NewOutstanding(limits[0], limits[1])
				first, second, third := o.Entry(func(error) {}), o.Entry(func(error) {}), o.Entry(func(error) {})
				for _, e := range []*Entry{first, second} {
					if err := e.Take(t.Context(), 50); err != nil {
						t.Fatal(err)
					}
				}
				if !o.Congested() {
					t.Error("full and not congested")
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if err := third.Take(ctx, 50); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("a Take without room: %v", err)
				}
				taken := make(chan error)
				go func() { taken <- third.Take(t.Context(), 50) }()
				synctest.Wait()
				second.Answer(nil)
				if err := <-taken; err != nil {
					t.Error(err)
				}
				first.Answer(nil)
				third.Answer(nil)
				if err := o.Wait(t.Context()); err != nil || o.Congested() {
					t.Errorf("%v, congested %v", err, o.Congested())
				}
			})
		})
	}
	// One message is always let through, however large.
	if err := NewOutstanding(10, 10).Entry(nil).Take(t.Context(), 1000); err != nil {
		t.Error(err)
	}
}

func TestEveryTakeHasOneAnswer(t *testing.T) {
	o := NewOutstanding(1<<20, 100)
	var answers [50]atomic.Int64
	var entries []*Entry
	for i := range answers {
		entries = append(entries, o.Entry(func(error) { answers[i].Add(1) }))
	}
	for _, e := range entries {
		if err := e.Take(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
	}
	if !entries[0].Return() || entries[0].Return() {
		t.Error("a message is taken back once")
	}
	var wg sync.WaitGroup
	for range 3 { // answers and the end race
		for _, e := range entries {
			wg.Go(func() { e.Answer(nil) })
		}
		wg.Go(o.Close)
	}
	wg.Wait()
	for i := range answers {
		want := int64(1)
		if i == 0 {
			want = 0
		}
		if got := answers[i].Load(); got != want {
			t.Errorf("message %d has %d answers, want %d", i, got, want)
		}
	}
	if err := entries[1].Take(t.Context(), 1); !errors.Is(err, driver.ErrClosed) {
		t.Errorf("Take after Close: %v", err)
	}
	if err := o.Wait(t.Context()); err != nil {
		t.Error(err)
	}
}

// An answer may send the next message, and Wait ends only when the last has
// returned.
func TestAnswersMaySend(t *testing.T) {
	o := NewOutstanding(1<<20, 1)
	n := 0
	var e *Entry
	e = o.Entry(func(error) {
		if n++; n < 5 {
			if err := e.Take(t.Context(), 1); err != nil {
				t.Error(err)
			}
			e.Answer(nil)
		}
	})
	if err := e.Take(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	e.Answer(nil)
	if err := o.Wait(t.Context()); err != nil || n != 5 {
		t.Errorf("%d answers, %v", n, err)
	}
}

func TestInbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewInbox([]uint32{7, 3}, 2)
		for i := range 2 {
			b.Put(0, Item{Value: []byte{byte(i)}})
		}
		var third atomic.Bool
		go func() {
			b.Put(0, Item{Value: []byte{2}})
			third.Store(true)
		}()
		b.Put(1, Item{Value: []byte{9}, Offset: 5})
		synctest.Wait()
		if third.Load() {
			t.Error("Put did not wait for room")
		}
		want := map[uint32]string{}
		for range 3 {
			x, err := b.Poll(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for m := range x.Messages() {
				want[x.Partition()] += string(rune('0' + m.Value[0]))
			}
			if b.Empty() {
				t.Error("empty with a batch in hand")
			}
			synctest.Wait()
		}
		if want[7] != "012" || want[3] != "9" {
			t.Errorf("polled %v", want)
		}
		failed := errors.New("failed")
		b.Fail(failed)
		if _, err := b.Poll(t.Context()); err != failed || !b.Empty() || b.Handled() != 4 {
			t.Errorf("%v, empty %v, handled %d", err, b.Empty(), b.Handled())
		}
		ended := make(chan error)
		go func() { _, err := b.Poll(t.Context()); ended <- err }()
		synctest.Wait()
		b.Close()
		if err := <-ended; !errors.Is(err, driver.ErrClosed) || b.Put(0, Item{}) {
			t.Errorf("after Close: %v", err)
		}
	})
}
