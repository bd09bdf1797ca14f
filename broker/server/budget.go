package server

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/server/evloop"
	"github.com/portask/portask/broker/wire"
)

// grantMin is the smallest credit worth giving: a batch or two.
const grantMin = 64 << 10

// budget is the sum of credit that all producers of the broker may hold; it is
// what bounds the memory of batches in flight.
//
// Who comes first is given much, out of one half; the other half is for many, in
// grants of grantMin. When that is gone too and others wait, producers that send
// are returned less than their batches spent, down to grantMin, and the rest goes
// to those who wait; when half of the budget is free again, they are returned
// more, up to what they were given first. So producers that all send share, and
// how many they are is bounded by the budget over grantMin. What a producer holds
// that does not send stays with it: credit cannot be taken back.
type budget struct {
	// state tells loops without the lock whether settle has anything to do.
	state   atomic.Uint32
	mu      sync.Mutex
	total   int64
	free    int64
	waiting []waiter // producers that got no credit, first come first served
}

// States of a budget.
const (
	budgetEven   = iota
	budgetWanted // somebody waits
	budgetAmple  // half of it is free, and nobody waits
)

// fill makes it a budget of n bytes.
func (b *budget) fill(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.total, b.free = n, n
	b.look()
}

// look updates state. The lock is held.
func (b *budget) look() {
	s := uint32(budgetEven)
	switch {
	case len(b.waiting) > 0:
		s = budgetWanted
	case b.free >= b.total/2:
		s = budgetAmple
	}
	if b.state.Load() != s {
		b.state.Store(s)
	}
}

// settle says how much of the spent bytes p is returned, and why it is less. It
// costs one load of an atomic unless p's grant changes. Only p's loop calls it.
func (b *budget) settle(p *producer, spent uint32) (uint32, wire.CreditReason) {
	switch b.state.Load() {
	case budgetWanted:
		if held := min(int64(spent), p.grant-grantMin); held > 0 {
			p.grant -= held
			b.give(held)
			return spent - uint32(held), wire.CreditMemory
		}
	case budgetAmple:
		if p.grant < p.given {
			more := b.more(min(p.given-p.grant, int64(math.MaxUint32-spent)))
			p.grant += more
			return spent + uint32(more), wire.CreditNormal
		}
	}
	return spent, wire.CreditNormal
}

// more takes up to want for a producer whose grant was lowered, while there is
// plenty.
func (b *budget) more(want int64) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.waiting) > 0 || b.free < b.total/2 {
		return 0
	}
	n := min(want, b.free-b.total/2)
	b.free -= n
	b.look()
	return n
}

type waiter struct {
	l    *loop
	conn evloop.Conn
	h    uint32
	want int64
}

// waitingMax bounds the line: whoever leaves it is looked for from its start.
const waitingMax = 4096

// take grants up to want: at most an eighth of what is left of the first half of
// the budget, at least grantMin. A producer that gets nothing waits in line; if
// that is full too, the error is fault.ResourceExhausted.
func (b *budget) take(want int64, w waiter) (int64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.look()
	if g := b.grant(want); g > 0 {
		return g, nil
	}
	if n := len(b.waiting) + 1; n > waitingMax {
		return 0, fault.New(fault.ResourceExhausted, "open producer").WithField("producers").
			WithDetail("waiting for credit").WithLimit(int64(n), waitingMax)
	}
	w.want = want
	b.waiting = append(b.waiting, w)
	return 0, nil
}

func (b *budget) grant(want int64) int64 {
	g := min(want, max((b.free-b.total/2)/8, grantMin))
	if g > b.free {
		return 0
	}
	b.free -= g
	return g
}

// give returns a grant and serves those who wait.
func (b *budget) give(n int64) {
	b.mu.Lock()
	b.free += n
	var served []waiter
	for len(b.waiting) > 0 {
		w := b.waiting[0]
		g := b.grant(w.want)
		if g == 0 {
			break
		}
		b.waiting = b.waiting[1:]
		w.want = g
		served = append(served, w)
	}
	b.look()
	b.mu.Unlock()
	for _, w := range served {
		w.l.call(func(l *loop) { l.granted(w) })
	}
}

// forget takes a producer out of the line.
func (b *budget) forget(l *loop, h uint32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting = slices.DeleteFunc(b.waiting, func(w waiter) bool { return w.l == l && w.h == h })
	b.look()
}
