package fault

import (
	"math/rand/v2"
	"testing"
	"time"
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
