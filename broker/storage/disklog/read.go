package disklog

import (
	"sync"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/storage"
)

// walkers lends what a read needs, so that it takes no memory of its own.
var walkers = sync.Pool{New: func() any { return new(walker) }}

// peekBytes is how much of a segment is read to look at envelopes: an index
// interval of small batches fits.
const peekBytes = 8 << 10

// Read is described at storage.Log. The runs are ranges of the segment files;
// their leases are on the segments.
func (l *Log) Read(from, below message.Offset, maxBytes int, dst []storage.Run) ([]storage.Run, error) {
	const op = "read"
	had := len(dst)
	left := int64(maxBytes)
	w := walkers.Get().(*walker)
	defer w.done()
	for {
		limit, err := l.viewAt(w, op, from, below, len(dst) > had)
		if err != nil || w.s == nil {
			return dst, err
		}
		run, next, err := l.readRun(w, from, limit, left, len(dst) == had)
		w.s.Release() // the run has its own
		if err != nil && len(dst) == had {
			return dst, err
		}
		if err != nil || run.Batches == 0 {
			// What is wrong is said when it is asked for first.
			return dst, nil
		}
		dst = append(dst, run)
		left -= int64(run.Len)
		from = run.End
		if !next || left <= 0 {
			return dst, nil
		}
	}
}

// viewAt gives w the segment that holds from, with a reference, and returns the
// offset at which reading stops. No segment and no error: there is nothing to
// read. more says that a run was found already, so a gap is only an end.
func (l *Log) viewAt(w *walker, op string, from, below message.Offset, more bool) (limit message.Offset, err error) {
	w.look(view{})
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed.Load() {
		return 0, errClosed(op)
	}
	start, end := l.Start(), l.End()
	if from < start || from > end {
		return 0, storage.OutOfRange(op, from, start, end)
	}
	limit = min(below, end)
	if from >= limit {
		return limit, nil
	}
	i := find(l.segs, from)
	if i == len(l.segs) || l.segs[i].base > from {
		next := end
		if i < len(l.segs) {
			next = l.segs[i].base
		}
		if more {
			return limit, nil
		}
		return limit, &storage.GapError{From: from, Next: next}
	}
	l.segs[i].Retain()
	w.look(l.segs[i].view())
	return limit, nil
}

// readRun finds the run that starts with the batch at from, ends at or before
// limit and has at most maxBytes, but for its first batch if always. next says
// that it reaches the segment's end. An empty run without error: the first
// batch does not fit.
func (l *Log) readRun(w *walker, from, limit message.Offset, maxBytes int64, always bool) (run storage.Run, next bool, err error) {
	const op = "read"
	v := &w.view
	if err := v.open(); err != nil {
		return run, false, failure(op, err)
	}
	for {
		b, damaged, err := l.bounds(w, from, limit, maxBytes, always)
		if err != nil {
			return run, false, failure(op, err)
		}
		if damaged { // found just now: look again
			continue
		}
		if b.gap != nil {
			return run, false, &storage.GapError{From: from, Next: b.gap.next}
		}
		run = storage.Run{
			Seed: v.s.seed, First: b.first, End: b.end, Batches: b.batches,
			File: v.s, Pos: b.pos, Len: int(b.stop - b.pos),
		}
		if run.Batches > 0 {
			v.s.Retain()
			run.SetLease(v.s)
		}
		return run, b.end == v.end, nil
	}
}

// bound is a range of whole batches.
type bound struct {
	pos, stop  int64
	first, end message.Offset
	batches    int
	gap        *gap // from lies in it; nothing else is set
}

// bounds does the work of readRun. damaged: a batch on the way was found to be
// damaged, and is in w's gaps now.
func (l *Log) bounds(w *walker, from, limit message.Offset, maxBytes int64, always bool) (b bound, damaged bool, err error) {
	v := &w.view
	stop, g := v.reach(from)
	x := v.entries
	if g != nil || len(x) == 0 {
		return bound{gap: g}, false, nil
	}
	i := lastAtOffset(x, from)
	if damaged, err = l.check(v, i, i); damaged || err != nil {
		return b, damaged, err
	}
	c, err := w.seek(i, from)
	if err != nil {
		return b, false, err
	}
	at := c
	if len(v.gaps) == 0 {
		// Go on in whole intervals as far as the index leads.
		j := len(x)
		if v.pos-c.pos > maxBytes || v.end > limit {
			j = min(lastAtPos(x, c.pos+maxBytes), lastAtOffset(x, limit))
		}
		if j > i {
			if damaged, err = l.check(v, i+1, min(j, len(x)-1)); damaged || err != nil {
				return b, damaged, err
			}
			at = cursor{pos: v.pos, off: v.end, before: v.batches}
			if j < len(x) {
				at = x[j].cursor()
			}
		}
	}
	// The rest batch by batch.
	for at.pos < stop && at.off < limit {
		if len(v.gaps) > 0 {
			k := lastAtPos(x, at.pos)
			if damaged, err = l.check(v, k, k); damaged || err != nil {
				return b, damaged, err
			}
		}
		n, err := w.next(at)
		if err != nil {
			return b, false, err
		}
		if n.pos > stop || n.off > limit || n.pos-c.pos > maxBytes && (at != c || !always) {
			break
		}
		at = n
	}
	return bound{pos: c.pos, stop: at.pos, first: c.off, end: at.off, batches: int(at.before - c.before)}, false, nil
}

// reach returns the position of the first gap behind the batch that holds from,
// or the end of the batches; or the gap that holds from.
func (v *view) reach(from message.Offset) (stop int64, in *gap) {
	for i := range v.gaps {
		g := v.gaps[i]
		switch {
		case g.next <= from:
		case g.from <= from:
			for _, more := range v.gaps[i+1:] { // one behind the other is one
				if more.from == g.next {
					g.next = more.next
				}
			}
			return 0, &g
		default:
			return int64(g.pos), nil
		}
	}
	return v.pos, nil
}

// cursor is a place between two batches of a segment.
type cursor struct {
	pos    int64
	off    message.Offset // of the batch that begins there
	before uint32         // batches before it in the segment
}

func (e *entry) cursor() cursor { return cursor{pos: int64(e.pos), off: e.off, before: e.before} }

// walker reads envelopes of a segment one after the other.
type walker struct {
	view
	at  int64 // position of buf[0]
	n   int   // valid bytes in buf
	buf [peekBytes]byte
}

// look makes v what w walks through.
func (w *walker) look(v view) { w.view, w.n = v, 0 }

// done gives the walker back.
func (w *walker) done() {
	w.look(view{})
	walkers.Put(w)
}

// envelope reads the one at pos. It is believed: its interval was checked.
func (w *walker) envelope(pos int64) (message.Envelope, error) {
	if pos < w.at || pos+message.EnvelopeBytes > w.at+int64(w.n) {
		w.at, w.n = pos, int(min(peekBytes, w.pos-pos))
		if w.n < message.EnvelopeBytes {
			w.n = 0
			return message.Envelope{}, corrupted("batch", "%s: no batch at position %d", w.s.rel(), pos)
		}
		if err := readAt(w.s.file, w.buf[:w.n], pos); err != nil {
			w.n = 0
			return message.Envelope{}, err
		}
	}
	return message.ParseEnvelope(w.buf[pos-w.at:w.n], &wideLimits)
}

// next returns the place behind the batch at c.
func (w *walker) next(c cursor) (cursor, error) {
	e, err := w.envelope(c.pos)
	if err != nil {
		return c, err
	}
	return cursor{pos: c.pos + int64(e.Bytes()), off: e.EndOffset(), before: c.before + 1}, nil
}

// interval returns where interval i of the index begins and the position at
// which it ends.
func (v *view) interval(i int) (c cursor, end cursor) {
	end = cursor{pos: v.pos, off: v.end, before: v.batches}
	if i+1 < len(v.entries) {
		end = v.entries[i+1].cursor()
	}
	return v.entries[i].cursor(), end
}

// seek returns the place of the batch in interval i that holds off, which is in
// no gap.
func (w *walker) seek(i int, off message.Offset) (cursor, error) {
	c, end := w.interval(i)
	if c.before+1 == end.before && len(w.gaps) == 0 {
		return c, nil // the only one
	}
	for c = w.skipGap(c); c.pos < end.pos; {
		n, err := w.next(c)
		if err != nil {
			return c, err
		}
		if n.off > off {
			break
		}
		c = w.skipGap(n)
	}
	return c, nil
}

// skipGap moves a place at which a gap begins behind it.
func (v *view) skipGap(c cursor) cursor {
	for i := range v.gaps {
		if g := &v.gaps[i]; g.from == c.off && int64(g.pos) == c.pos {
			c.pos, c.off = c.pos+int64(g.len), g.next
		}
	}
	return c
}

// OffsetForTime is described at storage.Log.
func (l *Log) OffsetForTime(us int64) (message.Offset, error) {
	const op = "find time"
	l.mu.Lock()
	if l.closed.Load() {
		l.mu.Unlock()
		return 0, errClosed(op)
	}
	w := walkers.Get().(*walker)
	defer w.done()
	for _, s := range l.segs {
		if s.batches > 0 && s.maxTime >= us {
			s.Retain()
			defer s.Release()
			w.look(s.view())
			break
		}
	}
	end := l.End()
	l.mu.Unlock()
	if w.s == nil {
		return end, nil
	}
	if err := w.open(); err != nil {
		return 0, failure(op, err)
	}
	if len(w.entries) == 0 {
		return w.end, nil // all of it is lost
	}
	off, err := l.timeInSegment(w, us)
	return off, failure(op, err)
}

func (l *Log) timeInSegment(w *walker, us int64) (message.Offset, error) {
	i := lastBeforeTime(w.entries, us)
	// If the batch looked for is found to be lost here, the one behind the gap
	// is the answer.
	if _, err := l.check(&w.view, i, i); err != nil {
		return 0, err
	}
	c, end := w.interval(i)
	for c = w.skipGap(c); c.pos < end.pos; c = w.skipGap(c) {
		e, err := w.envelope(c.pos)
		if err != nil {
			return 0, err
		}
		if e.MaxTimestamp() >= us {
			break
		}
		c = cursor{pos: c.pos + int64(e.Bytes()), off: e.EndOffset(), before: c.before + 1}
	}
	return c.off, nil
}
