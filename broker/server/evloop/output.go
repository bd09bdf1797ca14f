package evloop

import (
	"io"
	"net/netip"
	"os"
	"time"

	"github.com/portask/portask/broker/mempool"
)

// outBuf is the queued output of one connection: ch.B[off:end].
type outBuf struct {
	ch       *mempool.Chunk
	off, end int
	conn     Conn
	moved    int64 // Now when the socket took something last, or the queue began
}

func (b *outBuf) len() int { return b.end - b.off }

// outMin is the smallest output chunk: a few replies.
const outMin = 512

// Send copies b to the end of the connection's queue; the queue is written at
// the turn's end, with one system call. If the queue is over its bound even
// after an attempt to write it, the connection is closed as slow and the
// *SlowError returned. ErrClosed: c is stale or closing.
func (l *Loop) Send(c Conn, b []byte) error {
	r := l.slab.get(c)
	if r == nil || r.state > stFlush {
		return ErrClosed
	}
	if len(b) == 0 {
		return nil
	}
	if err := l.queue(c, r, b); err != nil {
		return err
	}
	if r.flags&(fDirty|fBlocked|fHeld) == 0 {
		l.markDirty(c, r)
	}
	return nil
}

// queue appends b to the output queue within the bounds.
func (l *Loop) queue(c Conn, r *record, b []byte) error {
	for tried := false; ; tried = true {
		err := l.tryQueue(c, r, b)
		if err == nil {
			return nil
		}
		// Not slow, only much at once: write now what was to wait for the
		// turn's end. If that empties the queue, b goes the same way.
		if tried || r.flags&(fBlocked|fHeld) != 0 || !l.flush(c, r) {
			if r.state > stFlush {
				return err
			}
			if se, ok := err.(*SlowError); ok && se.Bound == boundLoop && l.makeRoom(c, len(b)) {
				continue
			}
			l.close(c, r, err)
			return err
		}
		if r.out == 0 { // another connection's queue may be what is in the way
			n, werr := l.write(c, r, b)
			if werr != nil {
				return werr
			}
			if b = b[n:]; len(b) == 0 {
				return nil
			}
		}
	}
}

// tryQueue appends b, or says which bound forbids it.
func (l *Loop) tryQueue(c Conn, r *record, b []byte) error {
	have := 0
	if r.out != 0 {
		o := &l.outs[r.out-1]
		have = o.len()
		if len(b) <= len(o.ch.B)-o.end && have+len(b) <= l.o.OutPerConnBytes {
			o.end += copy(o.ch.B[o.end:], b)
			return nil
		}
	}
	if have > 0 && have+len(b) > l.o.OutPerConnBytes {
		return &SlowError{have + len(b), l.o.OutPerConnBytes, "connection"}
	}
	size := mempool.ClassBytes(max(outMin, have+len(b), min(2*have, l.o.OutPerConnBytes)))
	if size == 0 {
		return &SlowError{have + len(b), mempool.MaxChunkBytes, "pool"}
	}
	old := 0
	if r.out != 0 {
		old = len(l.outs[r.out-1].ch.B)
	}
	if l.outBytes-old+size > l.o.OutBudgetBytes && l.outBytes > 0 {
		return &SlowError{l.outBytes - old + size, l.o.OutBudgetBytes, boundLoop}
	}
	ch := l.o.Pool.Get(size)
	if ch == nil {
		return &SlowError{have + len(b), int(l.o.Pool.Stats().LiveBytes), "pool"}
	}
	var o *outBuf
	if r.out == 0 {
		i := uint32(len(l.outs))
		if k := len(l.outsFree); k > 0 {
			i = l.outsFree[k-1]
			l.outsFree = l.outsFree[:k-1]
		} else {
			l.outs = append(l.outs, outBuf{})
		}
		r.out = i + 1
		o = &l.outs[i]
	} else {
		o = &l.outs[r.out-1]
	}
	n := 0
	if o.ch != nil {
		n = copy(ch.B, o.ch.B[o.off:o.end])
		o.ch.Release()
	}
	n += copy(ch.B[n:], b)
	if o.ch == nil {
		o.conn, o.moved = c, l.now
	}
	o.ch, o.off, o.end = ch, 0, n
	l.outBytes += size - old
	return nil
}

// boundLoop is the SlowError.Bound of OutBudgetBytes.
const boundLoop = "loop"

// makeRoom ends the connection with the largest queue, and of several the one
// whose queue did not move for the longest, so that c can queue n bytes. It
// reports false if c's own would be as large: peers that leave their answers
// unread do not cost others theirs.
func (l *Loop) makeRoom(c Conn, n int) bool {
	var most *outBuf
	for i := range l.outs {
		o := &l.outs[i]
		if o.ch == nil || o.conn == c {
			continue
		}
		if most == nil || len(o.ch.B) > len(most.ch.B) || len(o.ch.B) == len(most.ch.B) && o.moved < most.moved {
			most = o
		}
	}
	if most == nil || most.len() < l.Queued(c)+n {
		return false
	}
	other := most.conn
	r := l.slab.get(other)
	l.close(other, r, &SlowError{most.len(), l.o.OutBudgetBytes, boundLoop})
	l.dropOut(r)
	return true
}

// dropOut gives the output queue back.
func (l *Loop) dropOut(r *record) {
	o := &l.outs[r.out-1]
	l.outBytes -= len(o.ch.B)
	o.ch.Release()
	*o = outBuf{}
	l.outsFree = append(l.outsFree, r.out-1)
	r.out = 0
}

func (l *Loop) markDirty(c Conn, r *record) {
	if r.flags&fDirty == 0 {
		r.flags |= fDirty
		l.dirty = append(l.dirty, c)
	}
}

// flushDirty writes the queues of this turn.
func (l *Loop) flushDirty() {
	for i := 0; i < len(l.dirty); i++ { // a flush may add to the list
		c := l.dirty[i]
		if r := l.slab.get(c); r != nil {
			r.flags &^= fDirty
			if r.state > stFlush {
				continue
			}
			if r.state == stFlush && r.in != 0 {
				l.dropBorrowed(c, r)
			}
			if r.flags&fBlocked == 0 {
				l.flush(c, r)
			}
			if r.flags&(fWant|fBlocked) == fWant && r.state <= stFlush {
				r.flags &^= fWant
				l.h.Writable(l, c)
			}
			l.checkFlushed(c, r)
		}
	}
	l.dirty = l.dirty[:0]
}

// flush writes the queue unless it is held. It reports whether the socket is
// still willing; false if it blocks, the queue is held or the connection ended.
func (l *Loop) flush(c Conn, r *record) bool {
	if r.flags&fHeld != 0 {
		return false
	}
	if r.out == 0 {
		return true
	}
	o := &l.outs[r.out-1]
	n, err := l.write(c, r, o.ch.B[o.off:o.end])
	if err != nil {
		return false
	}
	if o.off += n; o.off == o.end {
		l.dropOut(r)
	}
	return r.flags&fBlocked == 0
}

// write offers b to the socket and notes if it took less.
func (l *Loop) write(c Conn, r *record, b []byte) (int, error) {
	n, err := l.io.write(r.fd, b)
	l.n.v[kWrites]++
	return l.wrote(c, r, n, len(b), err)
}

// wrote evaluates a write of n of total bytes.
func (l *Loop) wrote(c Conn, r *record, n, total int, err error) (int, error) {
	if err == errAgain {
		n, err = 0, nil
	}
	if err != nil {
		l.close(c, r, err)
		return 0, err
	}
	l.n.v[kBytesOut] += uint64(n)
	if n < total {
		r.flags |= fBlocked
	}
	if r.out != 0 && n > 0 {
		l.outs[r.out-1].moved = l.now
	}
	return n, nil
}

// unblocked goes on where the socket blocked.
func (l *Loop) unblocked(c Conn, r *record) {
	r.flags &^= fBlocked
	if r.state > stFlush {
		return
	}
	if r.flags&fHeld == 0 && !l.flush(c, r) {
		return
	}
	if r.flags&fWant != 0 {
		r.flags &^= fWant
		l.h.Writable(l, c)
	}
	if r.state <= stFlush && r.flags&fDirty == 0 {
		l.checkFlushed(c, r)
	}
}

// direct prepares an attempt past the queue: blocked if the queue has to go
// first or the socket is known to be full.
func (l *Loop) direct(c Conn) (r *record, blocked bool, err error) {
	r = l.slab.get(c)
	if r == nil || r.state > stFlush {
		return nil, false, ErrClosed
	}
	if r.flags&fBlocked == 0 && (r.flags&fHeld != 0 || r.out == 0 || l.flush(c, r)) {
		return r, false, nil
	}
	if r.state > stFlush {
		return nil, false, ErrClosed
	}
	r.flags |= fWant
	return r, true, nil
}

// Writev writes bufs past the queue, after what is queued. It takes what the
// socket takes; if that is not all, blocked is true and Writable follows when
// there is room. A caller that got through a part of a frame calls Hold, so
// that nothing is put in its middle, and goes on in Writable. While held, the
// queue does not go first.
func (l *Loop) Writev(c Conn, bufs [][]byte) (n int, blocked bool, err error) {
	r, blocked, err := l.direct(c)
	if blocked || err != nil {
		return 0, blocked, err
	}
	total := 0
	for _, b := range bufs {
		total += len(b)
	}
	if total == 0 {
		return 0, false, nil
	}
	n, err = l.io.writev(r.fd, bufs)
	l.n.v[kWrites]++
	n, err = l.wrote(c, r, n, total, err)
	if r.flags&fBlocked != 0 {
		r.flags |= fWant
		blocked = true
	}
	return n, blocked, err
}

// SendFile writes n bytes of f from pos, as Writev does, without copying them
// through the process where the system can. io.ErrUnexpectedEOF, which closes
// the connection: the file is shorter. On cold pages it waits for the disk.
func (l *Loop) SendFile(c Conn, f *os.File, pos int64, n int) (sent int, blocked bool, err error) {
	r, blocked, err := l.direct(c)
	if blocked || err != nil || n <= 0 {
		return 0, blocked, err
	}
	for sent < n {
		k, err := l.io.sendfile(r.fd, f, pos+int64(sent), n-sent)
		l.n.v[kSendfiles]++
		if err == nil && k == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err == errAgain {
			r.flags |= fBlocked | fWant
			return sent, true, nil
		}
		if err != nil {
			l.close(c, r, err)
			return sent, false, err
		}
		// A short count may be the file's end as well as a full socket; only
		// the next call tells them apart, and the file's end would never give
		// an event.
		sent += k
		l.n.v[kBytesOut] += uint64(k)
		if r.out != 0 {
			l.outs[r.out-1].moved = l.now
		}
	}
	return sent, false, nil
}

// Hold keeps the queue back until Unhold: a frame is half written, and what is
// sent meanwhile belongs behind it. Writev and SendFile go through.
func (l *Loop) Hold(c Conn) {
	if r := l.slab.get(c); r != nil {
		r.flags |= fHeld
	}
}

// Unhold lets the queue go at the turn's end.
func (l *Loop) Unhold(c Conn) {
	if r := l.slab.get(c); r != nil && r.flags&fHeld != 0 {
		r.flags &^= fHeld
		if r.flags&fBlocked == 0 && (r.out != 0 || r.state == stFlush) {
			l.markDirty(c, r)
		}
	}
}

// WantWritable asks for a call of Writable once the queue is written and the
// socket takes data; at the end of this turn if that is so now.
func (l *Loop) WantWritable(c Conn) {
	if r := l.slab.get(c); r != nil && r.state <= stFlush {
		r.flags |= fWant
		if r.flags&fBlocked == 0 {
			l.markDirty(c, r)
		}
	}
}

// Queued returns the bytes in the connection's output queue.
func (l *Loop) Queued(c Conn) int {
	if r := l.slab.get(c); r != nil && r.out != 0 {
		return l.outs[r.out-1].len()
	}
	return 0
}

// User returns the handler's own words in the connection's record, zero when it
// was opened; nil if c is stale. The pointer is valid during the call.
func (l *Loop) User(c Conn) *[4]uint32 {
	if r := l.slab.get(c); r != nil && r.state != stLinger {
		return &r.user
	}
	return nil
}

// Alive reports that c is open: it can be sent to.
func (l *Loop) Alive(c Conn) bool {
	r := l.slab.get(c)
	return r != nil && r.state <= stFlush
}

// Activity returns the coarse time (see Now) of the connection's last whole
// unit, or of its accept before Established.
func (l *Loop) Activity(c Conn) int64 {
	r := l.slab.get(c)
	if r == nil {
		return 0
	}
	return l.now - int64(uint32(l.now)-r.last)
}

// Established ends PreTimeout for the connection and begins its idle time.
func (l *Loop) Established(c Conn) {
	if r := l.slab.get(c); r != nil && r.flags&fEstablished == 0 {
		r.flags |= fEstablished
		r.last = uint32(l.now)
	}
}

// SetIdle gives the connection an idle timeout of its own: 0 the server's,
// negative none, else rounded up to 100 ms and at most 109 minutes.
func (l *Loop) SetIdle(c Conn, d time.Duration) {
	r := l.slab.get(c)
	switch {
	case r == nil:
	case d < 0:
		r.idle = idleNever
	default:
		r.idle = uint16(min((d+idleUnit-1)/idleUnit, idleNever-1))
	}
}

// Pause stops reading from the connection, also between units that were read
// already: its data waits in the kernel and the peer's sending stops. Neither
// IdleTimeout nor PartialTimeout run meanwhile.
func (l *Loop) Pause(c Conn) {
	if r := l.slab.get(c); r != nil {
		r.flags |= fPaused
	}
}

// Resume reads on in the next turn.
func (l *Loop) Resume(c Conn) {
	r := l.slab.get(c)
	if r == nil || r.flags&fPaused == 0 {
		return
	}
	r.flags &^= fPaused
	r.since = uint32(l.now)
	if r.flags&fEstablished != 0 {
		r.last = uint32(l.now)
	}
	if r.flags&fPartial != 0 {
		l.markTimed()
	}
	if r.state == stOpen && r.flags&fReadable != 0 {
		l.enqueue(c, r)
	}
}

// RemoteAddr asks the system for the peer's address; zero if c is stale or the
// socket has none.
func (l *Loop) RemoteAddr(c Conn) netip.AddrPort {
	r := l.slab.get(c)
	if r == nil || r.state == stLinger {
		return netip.AddrPort{}
	}
	return l.io.peer(r.fd)
}
