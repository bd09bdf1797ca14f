package evloop

import "time"

const (
	idleUnit = 100 * time.Millisecond
	// lingerBytes is how much a closed connection's peer may still send before
	// the descriptor goes regardless.
	lingerBytes = 1 << 20
	// scanAtLeast is how many records a tick looks at; all of them once a
	// second where there are more.
	scanAtLeast = 4096
)

// Close ends the connection without waiting for its output. Closed follows
// before the turn ends; until then c is refused everywhere.
func (l *Loop) Close(c Conn, reason error) {
	if r := l.slab.get(c); r != nil {
		l.close(c, r, reason)
	}
}

// CloseAfterFlush ends the connection when its output, queued or held, is
// written, or after CloseTimeout. It is not read any more; Send, Writev and
// SendFile go on working until then. Closed follows when all is written. Then
// our end is announced and the peer gets the rest of CloseTimeout to close: an
// abrupt close with unread input would reset the connection and might destroy
// the last output on its way.
func (l *Loop) CloseAfterFlush(c Conn, reason error) {
	if r := l.slab.get(c); r != nil {
		l.finish(c, r, reason)
	}
}

// close begins the abrupt end. A reason given before by finish stays.
func (l *Loop) close(c Conn, r *record, reason error) {
	if r.state > stFlush {
		return
	}
	if r.state == stOpen {
		l.reasons[c] = reason
	}
	r.state = stClosing
	l.reaped = append(l.reaped, c)
}

// finish begins the orderly end.
func (l *Loop) finish(c Conn, r *record, reason error) {
	if r.state != stOpen {
		return
	}
	l.reasons[c] = reason
	r.state = stFlush
	r.since = uint32(l.now)
	l.markTimed()
	// The turn's end flushes, goes on with checkFlushed, and gives borrowed
	// input back, which a unit under way may still lie in.
	l.markDirty(c, r)
}

// checkFlushed ends a connection whose last output is written.
func (l *Loop) checkFlushed(c Conn, r *record) {
	if r.state == stFlush && r.out == 0 && r.flags&fHeld == 0 {
		r.state = stClosing
		r.flags |= fFlushed
		l.reaped = append(l.reaped, c)
	}
}

// reap tells the handler about ended connections and frees what they had.
func (l *Loop) reap() {
	for i := 0; i < len(l.reaped); i++ { // Closed may end others
		c := l.reaped[i]
		r := l.slab.get(c)
		reason := l.reasons[c]
		delete(l.reasons, c)
		l.h.Closed(l, c, reason)
		if r.in != 0 {
			l.dropBorrowed(c, r)
		}
		if r.out != 0 {
			l.dropOut(r)
		}
		l.n.v[kClosed]++
		if r.flags&fFlushed != 0 && r.flags&fEOF == 0 && !l.stopping {
			l.linger(c, r)
			continue
		}
		l.free(c, r)
	}
	l.reaped = l.reaped[:0]
}

// free closes the descriptor and frees the slot.
func (l *Loop) free(c Conn, r *record) {
	l.io.closeSocket(r.fd, r.flags&fFlushed != 0 && !l.stopping)
	l.slab.put(c, r)
	l.conns.Add(-1)
}

// linger announces our end and waits for the peer's.
func (l *Loop) linger(c Conn, r *record) {
	if l.io.shutdown(r.fd) != nil {
		l.free(c, r)
		return
	}
	r.state = stLinger
	r.user[0] = 0 // bytes discarded, from here on
	l.markTimed()
	l.discard(c, r)
}

// discard reads and forgets what the peer of a lingering connection still
// sends, and frees it at the peer's end.
func (l *Loop) discard(c Conn, r *record) {
	for range readsPerTurn {
		if !l.ensureRecv(0, 0) {
			return // the timeout ends it
		}
		room := l.recv.B[l.recvPos:]
		n, err := l.io.read(r.fd, room, nil)
		l.n.v[kReads]++
		if err == errAgain {
			return
		}
		r.user[0] += uint32(n)
		if err != nil || n == 0 || r.user[0] > lingerBytes {
			l.free(c, r)
			return
		}
		l.n.v[kBytesIn] += uint64(n)
		if n < len(room) && r.flags&fHup == 0 {
			return
		}
	}
	l.enqueue(c, r)
}

// markTimed says that some connection has a short deadline, so that ticks come
// often enough. The sweep that finds none takes it back.
func (l *Loop) markTimed() { l.timed, l.timedSeen = true, true }

// scan looks for connections past a deadline, in slices: no connection has a
// timer. passed is the time since the last scan in ms.
func (l *Loop) scan(passed int64) {
	top := l.slab.Top()
	n := max(scanAtLeast, int64(top)*passed/1000)
	now := uint32(l.now)
	for ; n > 0 && l.scanAt < top; n-- {
		r := l.slab.Slot(l.scanAt)
		if r.state != stFree && r.state != stClosing {
			l.checkDeadline(Conn{l.scanAt, r.gen}, r, now)
		}
		l.scanAt++
	}
	if l.scanAt >= top {
		l.scanAt = 0
		l.timed, l.timedSeen = l.timedSeen, false
	}
}

func (l *Loop) checkDeadline(c Conn, r *record, now uint32) {
	t := &l.srv.deadline
	switch r.state {
	case stLinger:
		if now-r.since >= t.close {
			r.flags &^= fFlushed
			l.free(c, r)
			return
		}
		l.timedSeen = true
		return
	case stFlush:
		if now-r.since >= t.close {
			l.close(c, r, nil)
			return
		}
		l.timedSeen = true
		return
	}
	if r.flags&fEstablished == 0 {
		if now-r.last >= t.pre {
			l.close(c, r, ErrPre)
			return
		}
		l.timedSeen = true
	}
	if r.flags&fPaused != 0 {
		return
	}
	if r.flags&fPartial != 0 && t.partial > 0 {
		if now-r.since >= t.partial {
			l.close(c, r, ErrPartial)
			return
		}
		l.timedSeen = true
	}
	idle := t.idle
	switch r.idle {
	case 0:
	case idleNever:
		return
	default:
		idle = uint32(r.idle) * uint32(idleUnit.Milliseconds())
	}
	if idle == 0 || r.flags&fEstablished == 0 {
		return
	}
	if now-r.last >= idle {
		l.finish(c, r, ErrIdle)
	} else if idle < 4*tickIdle {
		l.timedSeen = true
	}
}

// stopAll ends the loop: all connections are closed, Closed is called for each.
func (l *Loop) stopAll() {
	l.receiveOrders() // sockets posted before the order
	for i := uint32(1); i < l.slab.Top(); i++ {
		r := l.slab.Slot(i)
		c := Conn{i, r.gen}
		switch r.state {
		case stLinger:
			l.free(c, r)
		case stOpen, stFlush:
			l.flush(c, r) // what goes without waiting
			l.close(c, r, ErrServerClosed)
		}
	}
	l.reap()
	l.h.TurnEnd(l)
	l.reap()
	l.dropRecv()
	l.publish()
	l.io.close()
	l.slab.Drop()
}
