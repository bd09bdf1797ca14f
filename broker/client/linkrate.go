package client

import (
	"slices"
	"time"
)

// flow estimates what the path to the broker can carry from the acknowledgements
// of one producer on one connection, as BBR does from those of segments (Cardwell
// et al., ACM Queue 14(5), 2016), but one layer up: a proxy or a tunnel hides the
// link from the kernel, not from the answers. The producer's mutex guards it.
//
// While a batch is on its way, so many bytes are acknowledged, its own included:
// that many in that time is a rate that the path has carried. It is what the path
// can carry if batches queued on it, which shows in their taking several times as
// long as the fastest answer did; else it is a lower bound.
type flow struct {
	delivered uint64        // bytes of frames acknowledged
	least     time.Duration // the fastest answer; 0: none yet
	best      float64       // the highest rate so far, bytes a second

	rates [flowRates]float64 // of the last batches that queued, a ring
	rated int
	last  time.Time // the last of them was acknowledged; zero: none was
	sure  float64   // the last estimate by rates that were even
	seen  time.Time // when that was
}

const (
	// queuedFactor and queuedLeast: from so many times the fastest answer on, and so
	// long, a batch has queued.
	queuedFactor = 3
	queuedLeast  = 5 * time.Millisecond
	// flowHold is how long an estimate holds after the last batch that queued:
	// stronger compression empties the queue, and must not be given up for it.
	flowHold = 20 * time.Second
	// flowRelease is the time in which the estimate doubles thereafter, so that a
	// link that has become faster is found out.
	flowRelease = 2 * time.Second

	// The estimate is the median of so many. A link that is full gives nearly all
	// batches the same rate: through a limit of 8 MB/s, on two processors with a load
	// of 20, nine of ten were within 20 % of it. Answers that are late because nobody
	// ran are sometimes in time: fewer than half are as near to their median.
	flowRates = 16
	flowLeast = 5 // batches, before there is an estimate
	flowNear  = 0.25
	flowEven  = 0.6
	// flowSure is how long such an estimate outlives rates that are uneven: a pause of
	// one side makes a handful of them so.
	flowSure = 2 * time.Second
)

// middle is the median of the rates of the last batches that queued; even reports
// whether they are those of a full link.
func (f *flow) middle() (median float64, even bool) {
	n := min(f.rated, flowRates)
	if n < flowLeast {
		return 0, false
	}
	sorted := f.rates
	slices.Sort(sorted[:n])
	median = sorted[n/2]
	near := 0
	for _, r := range sorted[:n] {
		if r >= median*(1-flowNear) && r <= median*(1+flowNear) {
			near++
		}
	}
	return median, n >= flowRates/2 && float64(near) >= flowEven*float64(n)
}

// answered notes the time of an answer that depends on no batch.
func (f *flow) answered(d time.Duration) {
	if d > 0 && (f.least == 0 || d < f.least) {
		f.least = d
	}
}

// acked notes that a batch of n bytes was answered after d; before is what was
// delivered when it was sent.
func (f *flow) acked(now time.Time, n int, before uint64, d time.Duration) {
	f.delivered += uint64(n)
	if d <= 0 {
		return // a clock that does not move
	}
	rate := float64(f.delivered-before) / d.Seconds()
	f.best = max(f.best, rate)
	if f.least > 0 && d >= queuedFactor*f.least && d >= queuedLeast {
		if now.Sub(f.last) > flowHold {
			f.rated = 0 // what was long ago
		}
		f.last = now
		f.rates[f.rated%flowRates] = rate
		f.rated++
	}
	f.answered(d)
}

// rate is the estimate at now, 0 if nothing has queued lately. crowded says that
// answers may be late because nobody ran.
func (f *flow) rate(now time.Time, crowded bool) float64 {
	r, even := f.middle()
	if even {
		f.sure, f.seen = r, now
	}
	if crowded && !even {
		if r = f.sure; now.Sub(f.seen) > flowSure {
			return 0
		}
	}
	if r == 0 {
		return 0
	}
	if over := now.Sub(f.last) - flowHold; over > 0 {
		if over > 20*flowRelease {
			return 0
		}
		r *= float64(uint64(1) << uint(over/flowRelease))
	}
	return r
}

// tcpRate estimates the same from what the kernel says of the connection. Owned by
// the watch.
type tcpRate struct {
	at      time.Time
	seen    tcpState
	limited float64   // bytes a second, while the connection was busy all the time
	last    time.Time // it was
	atLeast float64   // what it has carried when nothing was the limit
}

const (
	busyPart   = 0.8
	sampleGrow = 0.3 // weight of a new sample
)

func (t *tcpRate) sample(now time.Time, s tcpState) {
	old, at := t.seen, t.at
	t.seen, t.at = s, now
	if !s.ok || !old.ok || s.acked < old.acked || s.busy < old.busy {
		*t = tcpRate{at: now, seen: s} // another connection
		return
	}
	if s.rate > t.atLeast {
		t.atLeast += (s.rate - t.atLeast) * sampleGrow
	}
	d := now.Sub(at)
	if d <= 0 || s.acked == old.acked {
		return
	}
	if float64(s.busy-old.busy) >= busyPart*float64(d) && !s.appLimited {
		r := float64(s.acked-old.acked) / d.Seconds()
		if t.limited == 0 || now.Sub(t.last) > flowHold {
			t.limited = r
		}
		t.limited += (r - t.limited) * sampleGrow
		t.last = now
		t.atLeast = min(t.atLeast, max(s.rate, t.limited)) // it is not as fast any more
	}
}

// linkRate puts the estimates together: bytes a second, 0 if nothing is known. What
// the answers say goes first, unless the processors are so busy that answers may be late
// for that, and look it.
func linkRate(now time.Time, f *flow, t *tcpRate, crowded bool) float64 {
	r := f.rate(now, crowded)
	if t.limited > 0 && now.Sub(t.last) <= flowHold && (r == 0 || t.limited < r) {
		r = t.limited
	}
	if r > 0 {
		return r
	}
	// Nothing limits: what is known is a lower bound, and worth saying only if it is
	// above what the policy believes of an unknown link.
	if best := max(f.best, t.atLeast); best > assumedLink {
		return best
	}
	return 0
}

// assumedLink is what package adaptive takes an unknown link for.
const assumedLink = 125e6

// crowdedCPU is the share of processors in use from which a late answer may be late
// because nobody ran.
const crowdedCPU = 0.85
