// Package verify decides what became of every message of a run: lost,
// duplicated, reordered, corrupt, foreign, or delivered although never
// acknowledged.
//
// Each producer numbers its messages per partition from 0: a lane. A lane keeps
// three bits for each message between the oldest one whose fate is not settled
// and the newest one sent, in a window of bounded size, so a run of any length
// at any rate needs a few kilobytes a lane as long as the consumer keeps up.
//
// A message's fate is settled when it was acknowledged (or given up) and
// delivered. What is left at the end is judged by Counts.
//
// A target that loses messages does not stop the count: those missing are passed
// by the window once later ones came, and remembered one by one, up to 65,536 a
// lane, so that one which comes late after all is told from a duplicate. Beyond
// that they are lost for good, and a straggler counts as a duplicate. Only a
// lane in which nothing at all arrives any more fills its window.
package verify

import (
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
)

// Options of a Tracker.
type Options struct {
	Producers, Partitions int
	// WindowMessages bounds the unsettled messages of a lane, default 4 Mi
	// (1.5 MiB of memory when full). It is rounded up to a power of two.
	WindowMessages int
}

// Tracker judges one run. Safe for concurrent use.
type Tracker struct {
	partitions int
	lanes      []Lane

	corrupt, foreign, phantom, misplaced atomic.Uint64
}

// New returns a tracker with a lane for each producer and partition.
func New(o Options) (*Tracker, error) {
	if o.WindowMessages == 0 {
		o.WindowMessages = 4 << 20
	}
	if o.Producers < 1 || o.Partitions < 1 || o.Producers > 1<<20/o.Partitions {
		return nil, fmt.Errorf("%d producers and %d partitions: want at least 1 of each, at most %d lanes", o.Producers, o.Partitions, 1<<20)
	}
	if o.WindowMessages < 64 || o.WindowMessages > 1<<30 {
		return nil, fmt.Errorf("window of %d messages: want 64 to %d", o.WindowMessages, 1<<30)
	}
	t := &Tracker{partitions: o.Partitions, lanes: make([]Lane, o.Producers*o.Partitions)}
	words := 1 << bits.Len(uint(o.WindowMessages-1)) / 64
	for i := range t.lanes {
		t.lanes[i].maxWords = words
	}
	return t, nil
}

// Lane is that of one producer and partition, nil if there is none.
func (t *Tracker) Lane(producer, partition uint32) *Lane {
	i := int(producer)*t.partitions + int(partition)
	if int(partition) >= t.partitions || i >= len(t.lanes) {
		return nil
	}
	return &t.lanes[i]
}

// Corrupt counts a value that is not what was sent, Foreign one that this run
// did not send, Phantom one that nobody can have sent, Misplaced one that arrived
// from a partition it was not sent to.
func (t *Tracker) Corrupt()   { t.corrupt.Add(1) }
func (t *Tracker) Foreign()   { t.foreign.Add(1) }
func (t *Tracker) Phantom()   { t.phantom.Add(1) }
func (t *Tracker) Misplaced() { t.misplaced.Add(1) }

// Fate is what a delivery meant.
type Fate uint8

const (
	First     Fate = iota // the first delivery, in order
	Late                  // the first delivery, after one with a higher sequence: reordered
	Duplicate             // delivered before
	Phantom               // never sent under that sequence
)

// lateMax bounds the messages not delivered whose window has passed, of each
// lane.
const lateMax = 1 << 16

// Lane follows the messages of one producer to one partition. Safe for
// concurrent use.
type Lane struct {
	mu sync.Mutex

	next uint64 // sequence of the next message to be sent
	base uint64 // oldest sequence of the window, a multiple of 64
	top  uint64 // one above the highest delivered sequence

	// Bit i of word w stands for a sequence: see word. The slices grow by
	// doubling up to maxWords; both lengths are powers of two.
	acked, failed, delivered []uint64
	maxWords                 int

	// late are messages not delivered and behind the window: given up (false),
	// of which an answer can have been lost where the message was not, and
	// acknowledged (true), which were passed by so many that they are lost. They
	// may still come.
	late map[uint64]bool
	lost int // of late, acknowledged

	// What late had no room for.
	forgottenAcked, forgottenFailed uint64

	settledAcked, settledFailed uint64 // delivered, behind the window
	duplicated, reordered       uint64
	phantom                     uint64
}

// Send gives the sequence of the next message. ok is false if the window is
// full: the caller waits until a delivery moves it, and asks again.
func (l *Lane) Send() (seq uint64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		need := int((l.next-l.base)/64) + 1
		if need <= len(l.acked) || l.grow(need) {
			break
		}
		if !l.pass() {
			return 0, false
		}
	}
	seq = l.next
	l.next++
	return seq, true
}

func (l *Lane) grow(need int) bool {
	if need > l.maxWords {
		return false
	}
	n := max(16, 1<<bits.Len(uint(need-1)))
	n = min(n, l.maxWords)
	for _, s := range []*[]uint64{&l.acked, &l.failed, &l.delivered} {
		grown := make([]uint64, n)
		for w := range *s {
			at := l.base/64 + uint64(w)
			grown[at%uint64(n)] = (*s)[at%uint64(len(*s))]
		}
		*s = grown
	}
	return true
}

func (l *Lane) word(seq uint64) (w int, bit uint64) {
	return int(seq/64) & (len(l.acked) - 1), 1 << (seq % 64)
}

// Acked notes that the broker acknowledged the message.
func (l *Lane) Acked(seq uint64) { l.outcome(seq, true) }

// Failed notes that the client gave the message up: it may arrive or not.
func (l *Lane) Failed(seq uint64) { l.outcome(seq, false) }

func (l *Lane) outcome(seq uint64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if seq < l.base || seq >= l.next {
		panic(fmt.Sprintf("verify: outcome of message %d, which is not in [%d, %d)", seq, l.base, l.next))
	}
	w, bit := l.word(seq)
	if ok {
		l.acked[w] |= bit
	} else {
		l.failed[w] |= bit
	}
	if seq < l.base+64 {
		l.advance()
	}
}

// Delivered notes a delivery and tells what it means.
func (l *Lane) Delivered(seq uint64) Fate {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case seq >= l.next:
		l.phantom++
		return Phantom
	case seq < l.base:
		acked, ok := l.late[seq]
		if !ok {
			l.duplicated++
			return Duplicate
		}
		delete(l.late, seq)
		if acked {
			l.lost--
			l.settledAcked++
		} else {
			l.settledFailed++
		}
		return l.order(seq)
	}
	w, bit := l.word(seq)
	if l.delivered[w]&bit != 0 {
		l.duplicated++
		return Duplicate
	}
	l.delivered[w] |= bit
	if seq < l.base+64 {
		l.advance()
	}
	return l.order(seq)
}

// order judges the place of a first delivery.
func (l *Lane) order(seq uint64) Fate {
	if seq < l.top {
		l.reordered++
		return Late
	}
	l.top = seq + 1
	return First
}

// advance moves the window over words whose messages all have an outcome and
// were delivered, or given up.
func (l *Lane) advance() {
	for l.base+64 <= l.next {
		w, _ := l.word(l.base)
		gone := l.failed[w] &^ l.delivered[w] &^ l.acked[w]
		if (l.acked[w]|l.failed[w])&l.delivered[w]|gone != ^uint64(0) {
			return
		}
		l.leave(w, gone)
	}
}

// pass moves a full window over its first word if later messages were
// delivered: one that was lost long ago must not hold up a run. False if the
// word's messages are still on their way.
func (l *Lane) pass() bool {
	w, _ := l.word(l.base)
	if l.top < l.base+64 || l.acked[w]|l.failed[w] != ^uint64(0) {
		return false
	}
	l.leave(w, ^l.delivered[w])
	l.advance()
	return true
}

// leave settles the window's first word, whose messages all have an outcome;
// those of missing are remembered, or forgotten.
func (l *Lane) leave(w int, missing uint64) {
	lost := missing & l.acked[w]
	switch n := bits.OnesCount64(missing); {
	case n == 0:
	case len(l.late)+n > lateMax:
		l.forgottenAcked += uint64(bits.OnesCount64(lost))
		l.forgottenFailed += uint64(bits.OnesCount64(missing &^ lost))
	default:
		if l.late == nil {
			l.late = make(map[uint64]bool)
		}
		for m := missing; m != 0; m &= m - 1 {
			l.late[l.base+uint64(bits.TrailingZeros64(m))] = l.acked[w]&(m&-m) != 0
		}
		l.lost += bits.OnesCount64(lost)
	}
	l.settledAcked += uint64(bits.OnesCount64(l.acked[w] &^ missing))
	l.settledFailed += uint64(bits.OnesCount64(l.failed[w] &^ l.acked[w] &^ missing))
	l.acked[w], l.failed[w], l.delivered[w] = 0, 0, 0
	l.base += 64
}

// Counts is the judgement. While a run goes on, what is in flight counts as
// lost or unanswered.
type Counts struct {
	Sent      uint64 `json:"sent"`      // handed to the client
	Acked     uint64 `json:"acked"`     // acknowledged at the run's level
	Failed    uint64 `json:"failed"`    // given up by the client
	Delivered uint64 `json:"delivered"` // first deliveries

	Lost       uint64 `json:"lost"` // acknowledged and not delivered
	Duplicated uint64 `json:"duplicated"`
	Reordered  uint64 `json:"reordered"`
	Corrupt    uint64 `json:"corrupt"`
	// Foreign are of another run, or no value of loadgen's, in a topic that others
	// may use.
	Foreign uint64 `json:"foreign"`
	// Phantom were never sent: of this run by a sequence, a producer or a topic
	// that it has not, or not of this run, in a topic of its own.
	Phantom   uint64 `json:"phantom"`
	Misplaced uint64 `json:"misplaced"` // from another partition than sent to

	// UnackedDelivered were given up or never answered, and arrived. That is
	// allowed: the answer was lost, not the message.
	UnackedDelivered uint64 `json:"unacked_delivered"`
	// Unanswered have no outcome at all, delivered or not.
	Unanswered uint64 `json:"unanswered"`
}

// Violations is the number of messages for which the broker broke a promise.
// Foreign messages are not among them: other producers may use the topic.
func (c Counts) Violations() uint64 {
	return c.Lost + c.Duplicated + c.Reordered + c.Corrupt + c.Phantom + c.Misplaced
}

// Outstanding is the number of messages that were acknowledged and are still
// to be delivered, or have no outcome yet.
func (c Counts) Outstanding() uint64 { return c.Lost + c.Unanswered }

// Counts judges all lanes. It takes each lane's lock for a moment.
func (t *Tracker) Counts() Counts {
	c := Counts{Corrupt: t.corrupt.Load(), Foreign: t.foreign.Load(), Phantom: t.phantom.Load(), Misplaced: t.misplaced.Load()}
	for i := range t.lanes {
		t.lanes[i].count(&c)
	}
	return c
}

func (l *Lane) count(c *Counts) {
	l.mu.Lock()
	defer l.mu.Unlock()
	lost := uint64(l.lost) + l.forgottenAcked
	acked, failed, delivered := l.settledAcked+lost, l.settledFailed+uint64(len(l.late)-l.lost)+l.forgottenFailed, l.settledAcked+l.settledFailed
	unacked := l.settledFailed
	for w := range l.acked {
		a, f, d := l.acked[w], l.failed[w], l.delivered[w]
		acked += uint64(bits.OnesCount64(a))
		failed += uint64(bits.OnesCount64(f &^ a))
		delivered += uint64(bits.OnesCount64(d))
		lost += uint64(bits.OnesCount64(a &^ d))
		unacked += uint64(bits.OnesCount64(d &^ a))
	}
	c.Sent += l.next
	c.Acked += acked
	c.Failed += failed
	c.Delivered += delivered
	c.Lost += lost
	c.Duplicated += l.duplicated
	c.Reordered += l.reordered
	c.Phantom += l.phantom
	c.UnackedDelivered += unacked
	c.Unanswered += l.next - acked - failed
}
