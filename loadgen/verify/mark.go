package verify

import "math/bits"

// Mark is where a Tracker stood at a moment. What happened between two of them
// is a Span.
type Mark struct {
	lanes     []laneMark
	corrupt   uint64
	misplaced uint64
	phantom   uint64
}

type laneMark struct {
	next, top                              uint64
	failed, duplicated, reordered, phantom uint64
	forgotten                              uint64
}

// Span counts what happened to the messages that were on their way at one Mark,
// or sent after it, and delivered, or passed by others, before a second Mark.
type Span struct {
	Messages uint64 `json:"messages"`
	// Lost were acknowledged and not delivered; in a Span that is asked for
	// while the run goes on, what is in flight counts as lost.
	Lost uint64 `json:"lost"`
	// Of the time between the Marks:
	GivenUp    uint64 `json:"given_up"` // by the client; they may have arrived
	Duplicated uint64 `json:"duplicated"`
	Reordered  uint64 `json:"reordered"`
	Corrupt    uint64 `json:"corrupt"`
	Phantom    uint64 `json:"phantom"`
	Misplaced  uint64 `json:"misplaced"`
}

// Mark takes each lane's lock for a moment, and 56 bytes a lane.
func (t *Tracker) Mark() Mark {
	m := Mark{lanes: make([]laneMark, len(t.lanes)), corrupt: t.corrupt.Load(), misplaced: t.misplaced.Load(), phantom: t.phantom.Load()}
	for i := range t.lanes {
		m.lanes[i] = t.lanes[i].mark()
	}
	return m
}

func (l *Lane) mark() laneMark {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := laneMark{next: l.next, top: l.top, failed: l.settledFailed + uint64(len(l.late)-l.lost) + l.forgottenFailed, forgotten: l.forgottenAcked, duplicated: l.duplicated, reordered: l.reordered, phantom: l.phantom}
	for w := range l.failed {
		m.failed += uint64(bits.OnesCount64(l.failed[w] &^ l.acked[w]))
	}
	return m
}

// Between judges the span between two Marks of this tracker, a the earlier. open
// says that b is the run's end: the messages still on their way belong to it.
func (t *Tracker) Between(a, b Mark, open bool) Span {
	s := Span{Corrupt: b.corrupt - a.corrupt, Misplaced: b.misplaced - a.misplaced, Phantom: b.phantom - a.phantom}
	for i := range t.lanes {
		x, y := &a.lanes[i], &b.lanes[i]
		end := y.top
		if open {
			end = y.next
		}
		if end > x.top {
			s.Messages += end - x.top
			s.Lost += t.lanes[i].lostIn(x.top, end)
		}
		s.Lost += y.forgotten - x.forgotten
		s.GivenUp += y.failed - x.failed
		s.Duplicated += y.duplicated - x.duplicated
		s.Reordered += y.reordered - x.reordered
		s.Phantom += y.phantom - x.phantom
	}
	return s
}

// Quiet reports whether, since the earlier Mark, nothing was sent in a lane, and
// whether the newest message had been delivered at m. Lanes count producer by
// producer.
func (m Mark) Quiet(since Mark, lane int) bool {
	x := &m.lanes[lane]
	return x.next == since.lanes[lane].next && x.top == x.next
}

// lostIn counts the messages of [from, end) that were acknowledged and not
// delivered.
func (l *Lane) lostIn(from, end uint64) (n uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost > 0 {
		for seq, acked := range l.late {
			if acked && seq >= from && seq < end {
				n++
			}
		}
	}
	for seq := max(from, l.base); seq < min(end, l.next); {
		w, _ := l.word(seq)
		mask := ^uint64(0) << (seq % 64)
		next := seq&^63 + 64
		if next > end {
			mask &= 1<<(end%64) - 1
		}
		n += uint64(bits.OnesCount64(l.acked[w] &^ l.delivered[w] & mask))
		seq = next
	}
	return n
}
