package evloop

import (
	"io"

	"github.com/portask/portask/broker/mempool"
)

// inBuf is borrowed input of one connection, ch.B[off:end]: the start of a unit
// longer than the inline bytes, or units that wait since the connection was
// paused between them.
type inBuf struct {
	ch       *mempool.Chunk
	off, end int
	need     int // length of the unit at off if known, else 0
}

const (
	// headMax is how many bytes a handler may ask for before it names a length.
	headMax = 64 << 10
	// rejoinMax is up to where borrowed bytes are copied in front of the next
	// read, so that the unit becomes whole in the receive chunk. Longer ones
	// stay, and the read goes behind them: copying up to 16 KiB costs less than
	// the short reads that growing a small chunk by steps would take.
	rejoinMax = 16 << 10
	// bytesPerTurn is how much of one connection is taken before the handler's
	// TurnEnd: what a turn took in should still be in the processor's cache when
	// it is written and delivered, and who delivers must keep up with who reads.
	bytesPerTurn = 1 << 20
)

// input reads one connection: at most readsPerTurn reads, then the rest waits
// in the run queue so that the others get their turn.
func (l *Loop) input(c Conn, r *record) {
	r.flags &^= fReadable
	if r.flags&fBacklog != 0 { // what a pause left comes first
		r.flags &^= fBacklog
		if !l.takeBacklog(c, r) {
			return
		}
	}
	reads := 0
	for until := l.n.v[kBytesIn] + bytesPerTurn; l.n.v[kBytesIn] < until && reads < readsPerTurn; reads++ {
		more := l.readOnce(c, r)
		if l.inOver == c && (r.in == 0 || l.inBytes < l.o.InBudgetBytes) {
			l.inOver = Conn{}
		}
		if !more {
			return
		}
	}
	l.enqueue(c, r)
}

// readOnce does one read and hands out what became whole. It reports whether
// there may be more to read now.
func (l *Loop) readOnce(c Conn, r *record) bool {
	if r.in == 0 {
		l.tight = l.overBudget(c, 0)
		if l.tight && l.inBytes >= l.withReserve() {
			return l.starve(c, r)
		}
		return l.readJoined(c, r, r.inline[:r.inlineN], 0, l.tight)
	}
	b := &l.ins[r.in-1]
	bounded := l.overBudget(c, b.need) // may not borrow more than it has
	l.tight = bounded
	if have := b.ch.B[b.off:b.end]; len(have) <= rejoinMax {
		return l.readJoined(c, r, have, b.need, bounded)
	}
	return l.readBehind(c, r, bounded)
}

// readJoined reads into the receive chunk, behind a copy of the bytes had
// before. If bounded, no more is read than the connection's chunk can hold, or a
// small unit if it has none.
func (l *Loop) readJoined(c Conn, r *record, have []byte, need int, bounded bool) bool {
	if !l.ensureRecv(len(have), need) {
		return l.starve(c, r)
	}
	start := l.recvPos
	pos := start + copy(l.recv.B[start:], have)
	room := l.recv.B[pos:]
	if bounded {
		free := smallUnit
		if r.in != 0 {
			free = len(l.ins[r.in-1].ch.B) - len(have)
		}
		if free == 0 {
			return l.starve(c, r)
		}
		room = room[:min(free, len(room))]
	}
	n, ok := l.read(c, r, room, nil)
	if !ok {
		return false // what it had, it still has
	}
	l.recvSize.Fill(n, len(room), l.now)
	r.inlineN = 0
	if r.in != 0 {
		l.dropBorrowed(c, r)
	}
	return l.handOut(c, r, start, pos+n) && (n == len(room) || r.flags&fHup != 0)
}

// readBehind continues a long unit in its borrowed chunk. One readv fills the
// chunk up to the unit's end and lets what follows go to the receive chunk,
// where it is handed out in place.
func (l *Loop) readBehind(c Conn, r *record, bounded bool) bool {
	b := &l.ins[r.in-1]
	if left := len(b.ch.B) - b.end; left < (b.end-b.off)/4 && (b.need == 0 || len(b.ch.B)-b.off < b.need) {
		if grown := !bounded && l.grow(c, r); !grown && left == 0 {
			return l.starve(c, r)
		}
	}
	tail, room := b.ch.B[b.end:], []byte(nil)
	if b.need > 0 && b.need <= len(b.ch.B)-b.off {
		tail = tail[:b.off+b.need-b.end]
		if !bounded {
			if !l.ensureRecv(0, 0) {
				return l.starve(c, r)
			}
			room = l.recv.B[l.recvPos:]
		}
	}
	n, ok := l.read(c, r, tail, room)
	if !ok {
		return false
	}
	full := n == len(tail)+len(room)
	inTail := min(n, len(tail))
	b.end += inTail
	if b.need > 0 && b.end-b.off < b.need {
		return full || r.flags&fHup != 0
	}
	start := l.recvPos
	end := start + n - inTail
	open := l.drainBorrowed(c, r)
	if end > start && r.state == stOpen {
		if r.in != 0 {
			// The handler changed its mind about the unit's length.
			open = l.appendBorrowed(c, r, start, end)
		} else {
			open = l.handOut(c, r, start, end) // keeps all of it if paused
		}
	}
	return open && (full || r.flags&fHup != 0)
}

// handOut gives the handler the units in the receive chunk's [start, end) and
// puts the rest aside. It reports whether reading may go on.
func (l *Loop) handOut(c Conn, r *record, start, end int) bool {
	l.recvPos = end
	rest, open := l.units(c, r, l.recv, start, end)
	if !open {
		return false
	}
	if n := end - rest; n > 0 {
		l.startPartial(r)
		if n <= inlineBytes {
			r.inlineN = uint8(copy(r.inline[:], l.recv.B[rest:end]))
			l.recvPos = rest
		} else {
			l.borrow(c, r, rest, end)
		}
	}
	return l.goesOn(r)
}

// goesOn reports whether the connection may be read further.
func (l *Loop) goesOn(r *record) bool {
	if r.state != stOpen {
		return false
	}
	if r.flags&fPaused != 0 {
		r.flags |= fReadable
		if r.in != 0 || r.inlineN > 0 {
			r.flags |= fBacklog
		}
		return false
	}
	return true
}

// takeBacklog hands out the units that waited for the end of a pause.
func (l *Loop) takeBacklog(c Conn, r *record) bool {
	if r.in != 0 {
		return l.drainBorrowed(c, r)
	}
	// Inline: copied out, since a unit must lie in a chunk.
	if r.inlineN == 0 {
		return true
	}
	if !l.ensureRecv(int(r.inlineN), 0) {
		r.flags |= fBacklog
		return l.starve(c, r)
	}
	start := l.recvPos
	end := start + copy(l.recv.B[start:], r.inline[:r.inlineN])
	r.inlineN = 0
	return l.handOut(c, r, start, end)
}

// drainBorrowed hands out the whole units in the borrowed chunk and keeps the
// rest there. It reports whether reading may go on.
func (l *Loop) drainBorrowed(c Conn, r *record) bool {
	b := l.ins[r.in-1]
	rest, open := l.units(c, r, b.ch, b.off, b.end)
	if !open {
		return false
	}
	n := b.end - rest
	if n > 0 {
		l.startPartial(r)
	}
	if n <= inlineBytes {
		r.inlineN = uint8(copy(r.inline[:], b.ch.B[rest:b.end]))
		l.dropBorrowed(c, r)
	} else {
		b.off = rest
		b.need = l.sizeOf(c, r, b.ch.B[rest:b.end:b.end])
		l.ins[r.in-1] = b
	}
	return l.goesOn(r)
}

// units hands out the whole units in ch.B[start:end] until the connection is
// paused. It returns where the rest begins, and false if the connection is not
// open any more.
func (l *Loop) units(c Conn, r *record, ch *mempool.Chunk, start, end int) (rest int, open bool) {
	for end-start >= l.o.MinHead && r.flags&fPaused == 0 {
		n := l.sizeOf(c, r, ch.B[start:end:end])
		if r.state != stOpen {
			return start, false
		}
		if n == 0 || n > end-start {
			break
		}
		err := l.h.Unit(l, c, ch.B[start:start+n:start+n], ch)
		l.n.v[kUnits]++
		start += n
		if r.state != stOpen {
			return start, false
		}
		r.flags &^= fPartial
		if r.flags&fEstablished != 0 {
			r.last = uint32(l.now)
		}
		if err != nil {
			l.finish(c, r, err)
			return start, false
		}
	}
	return start, true
}

// sizeOf asks for the length of the unit that begins with head, 0 if unknown.
// An error ends the connection.
func (l *Loop) sizeOf(c Conn, r *record, head []byte) int {
	if len(head) < l.o.MinHead || r.flags&fPaused != 0 {
		return 0
	}
	n, err := l.h.Size(l, c, head)
	if r.state != stOpen {
		return 0
	}
	switch {
	case err != nil:
	case n < 0 || n > l.o.UnitMaxBytes:
		err = &UnitError{n, l.o.UnitMaxBytes}
	case n == 0 && len(head) >= headMax:
		err = &UnitError{len(head), headMax}
	}
	if err != nil {
		l.finish(c, r, err)
		return 0
	}
	return n
}

// startPartial begins the time a unit may take.
func (l *Loop) startPartial(r *record) {
	if r.flags&fPartial == 0 {
		r.flags |= fPartial
		r.since = uint32(l.now)
		l.markTimed()
	}
}

// read calls the system and handles the ends. It reports false if nothing was
// read; the connection may be closing then.
func (l *Loop) read(c Conn, r *record, a, b []byte) (int, bool) {
	n, err := l.io.read(r.fd, a, b)
	l.n.v[kReads]++
	switch {
	case err == errAgain:
		return 0, false
	case err != nil:
		l.close(c, r, err)
		return 0, false
	case n == 0:
		reason := io.EOF
		if r.flags&fPartial != 0 {
			reason = io.ErrUnexpectedEOF
		}
		r.flags |= fEOF
		l.finish(c, r, reason) // what is queued is still written
		return 0, false
	}
	l.n.v[kBytesIn] += uint64(n)
	return n, true
}
