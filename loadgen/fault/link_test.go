package fault

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/portask/portask/loadgen/relay"
)

// Whoever comes when, and however late: no more leaves than the rate and what
// was missed in catchUp, nothing before it is there, and all in order.
func TestLink(t *testing.T) {
	const rate = 3 << 20
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		var l link
		began := time.Now()
		now, last := began, time.Time{}
		sent := 0
		for range 2000 {
			now = now.Add(time.Duration(r.ExpFloat64() * float64(3*time.Millisecond)))
			n := 1 + r.IntN(2*l.quantum(rate))
			left := l.take(rate, n, now)
			if left.Before(now) || left.Before(last) {
				t.Fatalf("%d bytes that came at %v leave at %v, after %v", n, now.Sub(began), left.Sub(began), last.Sub(began))
			}
			last = left
			sent += n
			if most := (left.Sub(began) + catchUp).Seconds() * rate; float64(sent) > most*1.0001 {
				t.Fatalf("%d bytes have left after %v, want at most %.0f", sent, left.Sub(began), most)
			}
		}
		// It was asked for more than it has, so it lost none of it.
		if least := (last.Sub(began) - 10*time.Millisecond).Seconds() * rate; now.Before(last) && float64(sent) < least*0.99 {
			t.Errorf("%d bytes in %v, want %.0f", sent, last.Sub(began), least)
		}
	}
	var l link
	if now := time.Now(); l.take(0, 1<<30, now) != now || l.quantum(0) != chunkBytes || l.quantum(1000) != quantumMin || l.quantum(1<<40) != chunkBytes {
		t.Error("a link without a rate")
	}
}

// Latency is to the nanosecond, jitter spreads over all of its range, every nth
// piece to the target has a hiccup, and nothing overtakes.
func TestDelays(t *testing.T) {
	left := time.Now()
	for _, way := range []int{relay.ToTarget, relay.ToClient} {
		d := newDelays(1, 2, way)
		if due, _ := d.due(&Network{Latency: time.Second}, 1, left); due.Sub(left) != time.Second {
			t.Errorf("a second: %v", due.Sub(left))
		}
		// The network gets better: what left later still arrives later.
		if due, _ := d.due(&Network{}, 1, left.Add(time.Millisecond)); due.Sub(left) != time.Second {
			t.Errorf("it overtook what left before: %v", due.Sub(left))
		}
		if due, _ := d.due(&Network{}, 0, left.Add(time.Hour)); due.Sub(left) != time.Hour {
			t.Errorf("the end: %v", due.Sub(left))
		}
	}
	d := newDelays(1, 0, relay.ToTarget)
	least, most := time.Hour, time.Duration(0)
	for i := range 1000 {
		at := left.Add(time.Duration(i) * time.Second)
		due, _ := d.due(&Network{Latency: time.Millisecond, Jitter: 30 * time.Millisecond}, 1, at)
		least, most = min(least, due.Sub(at)), max(most, due.Sub(at))
	}
	if least < time.Millisecond || least > 2*time.Millisecond || most >= 31*time.Millisecond || most < 30*time.Millisecond {
		t.Errorf("1 ms and up to 30 more: %v to %v", least, most)
	}
	for way, want := range map[int]int{relay.ToTarget: 4, relay.ToClient: 0} {
		d := newDelays(1, 0, way)
		late := 0
		for i := range 20 {
			at := left.Add(time.Duration(i) * time.Second)
			due, hiccup := d.due(&Network{Hiccup: 60 * time.Millisecond, HiccupEvery: 5}, 1, at)
			if hiccup != (due.Sub(at) == 60*time.Millisecond) || !hiccup && due != at {
				t.Errorf("piece %d is due after %v, hiccup %v", i, due.Sub(at), hiccup)
			}
			if hiccup {
				late++
			}
		}
		if late != want {
			t.Errorf("way %d: %d hiccups of 20, want %d", way, late, want)
		}
	}
}
