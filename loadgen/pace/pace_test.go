package pace

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

// virtual is a clock that moves only when somebody sleeps or works, by 10 ns a
// reading.
type virtual struct {
	t     int64
	wake  int64 // lateness of every wake-up
	slept []int64
}

func (v *virtual) now() int64     { v.t += 10; return v.t }
func (v *virtual) sleep(ns int64) { v.slept = append(v.slept, ns); v.t += ns + v.wake }

// even is evenly spaced, for an hour.
func even(start int64, rate float64) *Sequence {
	s, err := NewSequence(start, 1, Phase{Length: time.Hour, Shape: Flat(rate)})
	if err != nil {
		panic(err)
	}
	return s
}

func (v *virtual) options(rate float64, end time.Duration) Options {
	return Options{Schedule: even(0, rate), End: int64(end), now: v.now, sleep: v.sleep}
}

func TestEveryMessageIsSentOnceAndNeverEarly(t *testing.T) {
	for _, rate := range []float64{1, 777, 2000, 20_000, 100_000, 1e6} {
		v := &virtual{wake: 5000}
		const end = 2 * time.Second
		want := even(0, rate)
		n := 0
		st, err := Run(context.Background(), v.options(rate, end), func(intended int64) (bool, error) {
			if w := want.Next(); intended != w {
				t.Fatalf("rate %v: message %d intended at %d, want %d", rate, n, intended, w)
			}
			if v.t < intended {
				t.Fatalf("rate %v: message %d sent %d ns early", rate, n, intended-v.t)
			}
			n++
			return false, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if wantN := int(2 * rate); n != wantN || st.Sent != uint64(n) || st.Lag.TotalCount() != int64(n) || st.HeldBack != 0 {
			t.Errorf("rate %v: %d sent, stats %d, %d lags, %d held back; want %d", rate, n, st.Sent, st.Lag.TotalCount(), st.HeldBack, wantN)
		}
		// Late by the quantum plus the wake-up at most.
		if lag := st.Lag.Max(); lag > 56_000 {
			t.Errorf("rate %v: lag up to %d ns", rate, lag)
		}
	}
}

func TestSleepsAreBounded(t *testing.T) {
	// At 100,000/s a sleep for each message would be 200,000 of them in 2 s.
	v := &virtual{wake: 1000}
	if _, err := Run(context.Background(), v.options(100_000, 2*time.Second), func(int64) (bool, error) { return false, nil }); err != nil {
		t.Fatal(err)
	}
	if n := len(v.slept); n > 45_000 { // a quantum of 50 us, less the spin
		t.Errorf("%d sleeps in 2 s, the quantum allows some 41,000", n)
	}
	// At 1,000/s it sleeps until 60 us before the message and spins the rest.
	v = &virtual{}
	if _, err := Run(context.Background(), v.options(1000, time.Second), func(int64) (bool, error) { return false, nil }); err != nil {
		t.Fatal(err)
	}
	if m := slices.Max(v.slept); m > int64(time.Millisecond-spinMax) {
		t.Errorf("slept %d ns of a gap of 1 ms", m)
	}
}

func TestBackPressureIsNotLag(t *testing.T) {
	v := &virtual{}
	n := 0
	st, err := Run(context.Background(), v.options(1000, time.Second), func(int64) (bool, error) {
		if n++; n == 100 {
			v.t += int64(200 * time.Millisecond) // the receiver gave no credit
			return true, nil
		}
		return false, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if st.Sent != 1000 {
		t.Errorf("%d sent, want all 1000 in spite of the wait", st.Sent)
	}
	if st.HeldBack < 199 || st.HeldBack > 201 {
		t.Errorf("%d held back, want 200", st.HeldBack)
	}
	if d := time.Duration(st.HeldBackMax); d < 198*time.Millisecond || d > 201*time.Millisecond {
		t.Errorf("longest wait %v, want 199 ms", d)
	}
	if lag := time.Duration(st.Lag.Max()); lag > time.Millisecond {
		t.Errorf("lag %v: the wait was taken for the generator's fault", lag)
	}
}

func TestObserverIsToldInstead(t *testing.T) {
	v := &virtual{}
	o := v.options(1000, time.Second)
	n, held := 0, 0
	o.Observe = func(intended, late int64, h bool) {
		if late < 0 || intended != int64(n)*1e6 {
			t.Fatalf("message %d: due at %d, %d late", n, intended, late)
		}
		n++
		if h {
			held++
		}
	}
	st, err := Run(context.Background(), o, func(intended int64) (bool, error) {
		if intended == int64(500*time.Millisecond) {
			v.t += int64(10 * time.Millisecond)
			return true, nil
		}
		return false, nil
	})
	if err != nil || st.Sent != 1000 || n != 1000 || st.Lag.TotalCount() != 0 || held == 0 || uint64(held) != st.HeldBack {
		t.Errorf("%d sent, %d observed, %d held, stats %+v, %v", st.Sent, n, held, st, err)
	}
}

// A long send is the receiver's fault only if the receiver says so.
func TestLongSendsAreAskedAbout(t *testing.T) {
	for _, congested := range []bool{false, true} {
		v := &virtual{}
		o := v.options(1000, time.Second)
		asked := 0
		o.Congested = func() bool { asked++; return congested }
		n := 0
		st, err := Run(context.Background(), o, func(int64) (bool, error) {
			if n++; n == 100 {
				v.t += int64(200 * time.Millisecond)
			}
			return false, nil
		})
		if err != nil || st.Sent != 1000 || asked != 1 {
			t.Fatalf("%d sent, asked %d times, %v", st.Sent, asked, err)
		}
		if late := time.Duration(st.Lag.Max()); (st.HeldBack >= 199) != congested || (late > 150*time.Millisecond) == congested {
			t.Errorf("congested %v: %d held back, lag up to %v", congested, st.HeldBack, late)
		}
	}
}

// Spinning is told apart from work, and long waits are slept in pieces, so that
// an end is noticed.
func TestSpinIsAccounted(t *testing.T) {
	v := &virtual{}
	var spun atomic.Int64
	o := v.options(10, time.Second)
	o.Spun = &spun
	if _, err := Run(context.Background(), o, func(int64) (bool, error) { v.t += 1_000_000; return false, nil }); err != nil {
		t.Fatal(err)
	}
	if d := time.Duration(spun.Load()); d < 9*spinMax-time.Microsecond || d > 11*spinMax {
		t.Errorf("spun for %v before 10 messages, want %v each", d, spinMax)
	}
	if m := slices.Max(v.slept); m > int64(sleepMax) {
		t.Errorf("slept for %v at once", time.Duration(m))
	}
	ctx, cancel := context.WithCancel(context.Background())
	v = &virtual{}
	o = v.options(0.1, time.Hour)
	real := o.sleep
	o.sleep = func(ns int64) {
		if v.t > int64(2*time.Second) {
			cancel()
		}
		real(ns)
	}
	if st, err := Run(ctx, o, func(int64) (bool, error) { return false, nil }); !errors.Is(err, context.Canceled) || st.Sent != 1 || v.t > int64(3*time.Second) {
		t.Errorf("%d sent until %v, %v", st.Sent, time.Duration(v.t), err)
	}
}

// A generator that cannot keep up must say so: each send costs 3 us of its own
// at 500,000 a second.
func TestSlowGeneratorShowsLag(t *testing.T) {
	v := &virtual{}
	st, err := Run(context.Background(), v.options(500_000, 100*time.Millisecond), func(int64) (bool, error) { v.t += 3000; return false, nil })
	if err != nil {
		t.Fatal(err)
	}
	if lag := time.Duration(st.Lag.ValueAtQuantile(99)); lag < 40*time.Millisecond {
		t.Errorf("lag p99 %v, want about 50 ms", lag)
	}
}

func TestRunStops(t *testing.T) {
	v := &virtual{}
	boom := errors.New("boom")
	if st, err := Run(context.Background(), v.options(1000, time.Second), func(intended int64) (bool, error) {
		if intended >= int64(100*time.Millisecond) {
			return false, boom
		}
		return false, nil
	}); err != boom || st.Sent != 100 {
		t.Errorf("%d sent, error %v", st.Sent, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	st, err := Run(ctx, (&virtual{}).options(1000, time.Second), func(intended int64) (bool, error) {
		if intended >= int64(100*time.Millisecond) {
			cancel()
		}
		return false, nil
	})
	if !errors.Is(err, context.Canceled) || st.Sent != 101 {
		t.Errorf("%d sent, error %v", st.Sent, err)
	}
}

func TestConstantDoesNotDrift(t *testing.T) {
	s := even(5, 30_000) // a gap of 33,333.3 ns
	var last int64
	for range 30_000*10 + 1 {
		last = s.Next()
	}
	if want := int64(5 + 10*time.Second); last != want {
		t.Errorf("after 10 s: %d, want %d", last, want)
	}
}

// The real thread and clock: never early, and every message sent. How late
// depends on the machine, so only the benchmark tells.
func TestOnTheRealClock(t *testing.T) {
	c := NewClock()
	start := c.Now() + int64(time.Millisecond)
	st, err := Run(context.Background(), Options{Clock: c, Schedule: even(start, 2000), End: start + int64(100*time.Millisecond)},
		func(intended int64) (bool, error) {
			if now := c.Now(); now < intended {
				t.Errorf("%d ns early", intended-now)
			}
			return false, nil
		})
	if err != nil || st.Sent != 200 {
		t.Errorf("%d sent, %v", st.Sent, err)
	}
}

// BenchmarkLag reports the dispatch lag at two rates, half a second each.
func BenchmarkLag(b *testing.B) {
	for _, rate := range []float64{2000, 20_000, 100_000} {
		b.Run(fmt.Sprintf("rate=%.0f", rate), func(b *testing.B) {
			for b.Loop() {
				c := NewClock()
				st, err := Run(context.Background(), Options{Clock: c, Schedule: even(0, rate), End: int64(500 * time.Millisecond)},
					func(int64) (bool, error) { return false, nil })
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(st.Lag.ValueAtQuantile(50)), "lag-p50-ns")
				b.ReportMetric(float64(st.Lag.ValueAtQuantile(99)), "lag-p99-ns")
			}
		})
	}
}
