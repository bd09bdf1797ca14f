package client

import "time"

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

	limited [2]float64 // the highest rate of batches that queued: in this period and the one before
	since   time.Time  // this period
	last    time.Time  // such a batch was acknowledged; zero: never
}

const (
	// queuedFactor and queuedLeast: from so many times the fastest answer on, and so
	// long, a batch has queued.
	queuedFactor = 3
	queuedLeast  = 5 * time.Millisecond
	// flowPeriod: the estimate is the best of one to two of them, since a broker that
	// pauses makes a sample low, never high.
	flowPeriod = time.Second
	// flowHold is how long an estimate holds after the last batch that queued:
	// stronger compression empties the queue, and must not be given up for it.
	flowHold = 20 * time.Second
	// flowRelease is the time in which the estimate doubles thereafter, so that a
	// link that has become faster is found out.
	flowRelease = 2 * time.Second
)

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
		if p := now.Sub(f.since); p >= flowPeriod {
			f.limited[1], f.limited[0], f.since = f.limited[0], 0, now
			if p >= 2*flowPeriod {
				f.limited[1] = 0
			}
		}
		f.limited[0] = max(f.limited[0], rate)
		f.last = now
	}
	f.answered(d)
}

// rate is the estimate at now, 0 if nothing has queued lately.
func (f *flow) rate(now time.Time) float64 {
	if f.last.IsZero() {
		return 0
	}
	r := max(f.limited[0], f.limited[1])
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
// the answers say goes first, unless the processors are so busy that answers are
// late for that.
func linkRate(now time.Time, f *flow, t *tcpRate, crowded bool) float64 {
	var r float64
	if !crowded {
		r = f.rate(now)
	}
	if t.limited > 0 && now.Sub(t.last) <= flowHold && (r == 0 || t.limited < r) {
		r = t.limited
	}
	if r > 0 {
		// Never less than what the path was seen to carry in answers within the hold:
		// limited is a maximum of such already.
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
