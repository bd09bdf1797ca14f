package evloop

import "github.com/portask/portask/broker/mempool"

// grownBytes is the chunk for a unit of which have bytes arrived: at most
// doubled, from 4 KiB on quadrupled, and no more than the unit needs. A peer
// that declares much and sends little costs by what it sends.
func grownBytes(have, need int) int {
	n := 2 * have
	if have >= 4<<10 {
		n = 4 * have
	}
	if need > 0 {
		n = min(n, need)
	}
	return max(n, have)
}

// borrow puts the receive chunk's [start, end) aside for the connection, which
// has nothing borrowed. If the pool is exhausted, the bytes stay where they are
// and the connection takes over the receive chunk; reading stops until the pool
// lends another.
func (l *Loop) borrow(c Conn, r *record, start, end int) {
	have := l.recv.B[start:end:end]
	b := inBuf{need: l.sizeOf(c, r, have)}
	if r.state != stOpen {
		return
	}
	size := len(have)
	if !l.tight {
		size = grownBytes(size, b.need)
	}
	if b.ch = l.o.Pool.Get(size); b.ch != nil {
		b.end = copy(b.ch.B, have)
		l.recvPos = start // not handed out: free again
	} else {
		b.ch, b.off, b.end = l.recv, start, end
		l.recv, l.recvPos = nil, 0
	}
	i := uint32(len(l.ins))
	if k := len(l.insFree); k > 0 {
		i = l.insFree[k-1]
		l.insFree = l.insFree[:k-1]
		l.ins[i] = b
	} else {
		l.ins = append(l.ins, b)
	}
	r.in = i + 1
	l.inBytes += len(b.ch.B)
}

// grow moves the borrowed bytes to a larger chunk. It reports false, and
// changes nothing, if the pool has none.
func (l *Loop) grow(c Conn, r *record) bool {
	b := &l.ins[r.in-1]
	have := b.ch.B[b.off:b.end]
	ch := l.o.Pool.Get(grownBytes(len(have), b.need))
	if ch == nil {
		return false
	}
	n := copy(ch.B, have)
	l.inBytes += len(ch.B) - len(b.ch.B)
	finishChunk(l.o.Pool, b.ch)
	b.ch, b.off, b.end = ch, 0, n
	return true
}

// appendBorrowed puts the receive chunk's [start, end) behind the borrowed
// bytes, which do not make a unit after all.
func (l *Loop) appendBorrowed(c Conn, r *record, start, end int) bool {
	b := &l.ins[r.in-1]
	more := l.recv.B[start:end]
	if len(b.ch.B)-b.end < len(more) {
		ch := l.o.Pool.Get(b.end - b.off + len(more))
		if ch == nil {
			l.close(c, r, ErrMemory)
			return false
		}
		n := copy(ch.B, b.ch.B[b.off:b.end])
		l.inBytes += len(ch.B) - len(b.ch.B)
		finishChunk(l.o.Pool, b.ch)
		b.ch, b.off, b.end = ch, 0, n
	}
	b.end += copy(b.ch.B[b.end:], more)
	l.recvPos = start
	return l.goesOn(r)
}

// dropBorrowed gives the borrowed chunk back.
func (l *Loop) dropBorrowed(c Conn, r *record) {
	b := &l.ins[r.in-1]
	l.inBytes -= len(b.ch.B)
	finishChunk(l.o.Pool, b.ch)
	*b = inBuf{}
	l.insFree = append(l.insFree, r.in-1)
	r.in = 0
	l.inFreed = true
}

// finishChunk gives up our reference; a chunk that others refer to weakly stays
// readable for a while.
func finishChunk(p *mempool.Pool, ch *mempool.Chunk) {
	if ch.Weak() {
		p.Retire(ch)
	} else {
		ch.Release()
	}
}

// smallUnit is up to what size a unit may use the reserve, and how much is read
// at once from a connection that has nothing borrowed while the budget is used
// up. Large units, or those who pretend to have one, do not get in the way of
// the small ones.
const smallUnit = 256 << 10

// withReserve is what may be borrowed in all, for small units.
func (l *Loop) withReserve() int { return l.o.InBudgetBytes + l.o.InBudgetBytes/2 }

// overBudget reports that the loop's borrowed input is at its limit for a unit
// of need bytes, 0 if unknown, and c is not the one that may exceed it. The first
// to ask becomes that one, so that a budget full of incomplete units cannot stand
// still: it keeps the right until its unit is whole, or a timeout ends it.
func (l *Loop) overBudget(c Conn, need int) bool {
	switch {
	case l.inBytes < l.o.InBudgetBytes || l.inOver == c:
		return false
	case need > 0 && need <= smallUnit && l.inBytes < l.withReserve():
		return false
	case l.inOver == (Conn{}) || l.slab.get(l.inOver) == nil:
		l.inOver = c
		return false
	}
	return true
}

// shed ends connections whose units have been incomplete for PressedTimeout when
// the reserve is used up, until the budget is not: those who hold the memory are
// not in a hurry, and others wait for it. While only large units wait they have
// five times as long.
func (l *Loop) shed() {
	left, limit := l.inBytes, l.srv.deadline.pressed
	if limit == 0 || left < l.o.InBudgetBytes || len(l.starved) == 0 {
		return
	}
	if left < l.withReserve() {
		limit *= 5
	}
	for i := uint32(1); i < l.slab.Top() && left >= l.o.InBudgetBytes; i++ {
		r := l.slab.Slot(i)
		if r.state == stOpen && r.in != 0 && r.flags&(fPartial|fPaused) == fPartial && uint32(l.now)-r.since >= limit {
			left -= len(l.ins[r.in-1].ch.B)
			l.close(Conn{i, r.gen}, r, ErrPartial)
		}
	}
}

// starve leaves the connection unread until memory comes back: its data waits
// in the kernel, and the peer's sending stops. Always false.
func (l *Loop) starve(c Conn, r *record) bool {
	if r.flags&fStarved == 0 {
		r.flags |= fStarved
		l.starved = append(l.starved, c)
		l.n.v[kStarved]++
	}
	return false
}

// retriesPerTurn bounds how many starved connections are tried at once.
const retriesPerTurn = 64

// retryStarved puts starved connections back in the run queue, the longest
// waiting first: on ticks, and when borrowed input was given back.
func (l *Loop) retryStarved() {
	n := min(len(l.starved), retriesPerTurn)
	for _, c := range l.starved[:n] {
		if r := l.slab.get(c); r != nil {
			r.flags &^= fStarved
			if r.state == stOpen && r.flags&fPaused == 0 {
				l.enqueue(c, r)
			} else {
				r.flags |= fReadable
			}
		}
	}
	rest := copy(l.starved, l.starved[n:])
	l.starved = l.starved[:rest]
	l.inFreed = false
}

// ensureRecv provides a receive chunk with room for a read behind have bytes,
// for the whole unit if need is known and reasonable. Nothing that was not
// handed out may lie in the chunk. It reports false if the pool is exhausted.
func (l *Loop) ensureRecv(have, need int) bool {
	size := l.recvSize.Size()
	want := max(size/4, have+4<<10, min(need, size/2))
	if l.recv != nil {
		if l.recv.Sole() {
			l.recvPos = 0 // nobody keeps what was handed out
		}
		rightSize := l.recvPos > 0 || len(l.recv.B) == size
		if rightSize && len(l.recv.B)-l.recvPos >= want {
			return true
		}
		l.dropRecv()
	}
	size = max(size, want)
	l.recv = l.o.Pool.Get(size)
	if l.recv == nil && size > minRecv {
		l.recv = l.o.Pool.Get(max(minRecv, want)) // better slowly than not at all
		if l.recv != nil {
			l.recvSize.Limit(len(l.recv.B))
		}
	}
	return l.recv != nil
}

// minRecv is the least receive chunk, and the one when the pool is nearly
// exhausted.
const minRecv = 64 << 10

// dropRecv gives the receive chunk up.
func (l *Loop) dropRecv() {
	if l.recv != nil {
		finishChunk(l.o.Pool, l.recv)
		l.recv, l.recvPos = nil, 0
	}
}
