package disklog

import (
	"errors"
	"math"
	"os"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/internal/vfs"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/storage"
)

// writer is what Append keeps between calls. Owned by Append.
type writer struct {
	parts    []part
	iov      [][]byte
	head     [headerBytes]byte
	foot     []byte
	snap     []byte
	plain    int64 // size of the next plain segment; see attach
	wantNext bool  // the worker was asked for the successor of the active segment
}

// part is what one Append writes into one segment.
type part struct {
	seg   *segment
	fresh bool
	n     int   // batches
	size  int64 // of the file before
	bytes int64 // attempted; the file may hold less after an error
}

// plainGrowth is by how much plain segments of a busy log grow, one to the
// next, while there are no spares.
const plainGrowth = 4

// Append is described at storage.Log: one pwritev for each segment it touches.
//
// Nothing of b is published before all of it is written, so a call that fails
// for lack of space takes back what it wrote, in whichever segments.
func (l *Log) Append(b []storage.Batch) error {
	const op = "append"
	l.appendMu.Lock()
	defer l.appendMu.Unlock()
	l.mu.Lock()
	err := l.usable(op)
	l.mu.Unlock()
	if err == nil {
		err = l.checkOrder(b)
	}
	if err != nil || len(b) == 0 {
		return err
	}
	err = l.write(b)
	if vfs.IsNoSpace(err) || vfs.IsNoDescriptor(err) {
		full, what := err, "space"
		if vfs.IsNoDescriptor(err) {
			what = "file descriptor"
		}
		if err = l.takeBack(); err == nil {
			clear(l.w.parts)
			return fault.New(fault.StorageFull, op).WithField("dir").
				WithDetail("no %s left for log %s in %s", what, l.id, l.eng.dir).WithCause(full)
		}
		err = errors.Join(full, err)
	}
	if err == nil {
		err = l.publish(b)
	}
	if err != nil {
		err = l.fail(op, err)
		l.abandon()
	}
	clear(l.w.parts)
	return err
}

// checkOrder refuses batches that do not continue the log.
func (l *Log) checkOrder(b []storage.Batch) error {
	next := l.End()
	for i := range b {
		x := &b[i]
		switch {
		case x.Base != next:
			return fault.New(fault.Invalid, "append").WithField("Base").
				WithDetail("batch %d begins at offset %d, the log goes on at %d", i, x.Base, next)
		case x.End <= x.Base || x.End-x.Base > math.MaxUint32:
			return fault.New(fault.Invalid, "append").WithField("End").
				WithDetail("batch %d is of the messages [%d, %d)", i, x.Base, x.End)
		case len(x.Bytes) < message.EnvelopeBytes || int64(len(x.Bytes)) > maxSegmentBytes:
			return fault.New(fault.Invalid, "append").WithField("Bytes").
				WithDetail("batch %d has %d bytes", i, len(x.Bytes))
		}
		next = x.End
	}
	return nil
}

// write stores b and fills w.parts.
func (l *Log) write(b []storage.Batch) error {
	w := &l.w
	w.parts = w.parts[:0]
	seg := l.active
	aged := seg != nil && seg.batches > 0 && b[0].Time-seg.firstAppend > l.eng.opts.SegmentAge.Microseconds()
	for len(b) > 0 {
		n := 0
		// What a segment got in this call is not counted in it yet, but it
		// is full then: there would be no second round otherwise.
		if len(w.parts) == 0 && seg != nil && !aged {
			n = l.fit(seg, b)
		}
		fresh := n == 0
		if fresh {
			var err error
			if seg, err = l.attach(b[0].Base, b[0].Time, seg != nil && !aged); err != nil {
				return err
			}
			n = l.fit(seg, b)
		}
		w.parts = append(w.parts, part{seg: seg, fresh: fresh, n: n, size: seg.size})
		if err := l.writePart(&w.parts[len(w.parts)-1], b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// fit returns how many of the batches go into s, with room left for its footer.
// An empty segment takes the first whatever its size.
func (l *Log) fit(s *segment, b []storage.Batch) int {
	room := s.limit - s.pos - trailerBytes - int64(len(s.entries)*entryBytes+len(s.gaps)*gapBytes+len(l.w.snap)) - 8
	for i := range b {
		// Each batch may get an index entry, up to the most there can be.
		room -= int64(len(b[i].Bytes)) + entryBytes
		if room < 0 && (i > 0 || s.batches > 0) {
			return i
		}
	}
	return len(b)
}

// writePart stamps the batches and writes them, with the header if they are
// the segment's first.
func (l *Log) writePart(p *part, b []storage.Batch) error {
	w, s := &l.w, p.seg
	w.iov = w.iov[:0]
	pos := s.pos
	if p.fresh {
		h := header{flags: flagAttached, seed: s.seed, id: l.id, base: s.base, created: s.created}
		if s.zeroed {
			h.flags |= flagZeroed
		}
		h.put(w.head[:])
		w.iov = append(w.iov, w.head[:])
		pos = 0
		p.bytes = headerBytes
	}
	for i := range b {
		x := &b[i]
		message.Stamp(x.Bytes, x.Base, x.Time, x.Epoch, s.seed)
		x.Seed = s.seed
		w.iov = append(w.iov, x.Bytes)
		p.bytes += int64(len(x.Bytes))
	}
	writes := uint64(len(w.iov)+1023) / 1024
	_, err := s.file.WritevAt(w.iov, pos)
	clear(w.iov) // the batches are the caller's
	l.mu.Lock()
	l.stats.Writes += writes
	l.mu.Unlock()
	return err
}

// attach makes the next segment: a spare if the log is busy enough to have
// filled the last one, and there is a spare; else a plain file. It is not in
// l.segs yet, and nothing is written to it.
func (l *Log) attach(base message.Offset, now int64, filled bool) (*segment, error) {
	w := &l.w
	n := &segment{log: l, base: base, created: now, contents: newContents(base), limit: l.opts.SegmentBytes, trusted: true, snapAt: message.NoOffset}
	n.refs.Store(1)
	if filled && l.eng.opts.Spares > 0 {
		if sp := l.eng.work.take(l.opts.SegmentBytes); sp != nil {
			l.eng.work.want(l.opts.SegmentBytes)
			n.seed, n.size, n.zeroed, n.reuse, n.file = sp.seed, sp.size, sp.zeroed, true, sp.file
			if err := l.eng.fs.Rename(sp.path, n.path()); err != nil {
				return nil, errors.Join(err, sp.file.Close())
			}
			w.plain = l.opts.SegmentBytes // a log this busy gets full segments from now on
			return n, nil
		}
		l.eng.work.want(l.opts.SegmentBytes)
	}
	switch {
	case w.plain == 0 || !filled:
		w.plain = l.eng.opts.FirstBytes
	default:
		w.plain *= plainGrowth
	}
	w.plain = min(w.plain, l.opts.SegmentBytes)
	n.limit = w.plain
	n.reuse = n.limit == l.opts.SegmentBytes
	n.seed, n.zeroed = l.eng.opts.newSeed(), true
	f, err := l.eng.fs.OpenFile(n.path(), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	n.file = f
	return n, err
}

// takeBack undoes write after the disk was full: no byte of the refused batches
// may be found by a recovery, since the same offsets will be given again.
func (l *Log) takeBack() error {
	w := &l.w
	removed := false
	for i := len(w.parts) - 1; i >= 0; i-- {
		p := &w.parts[i]
		s := p.seg
		if p.fresh {
			if err := errors.Join(s.file.Close(), l.eng.fs.Remove(s.path())); err != nil {
				return err
			}
			removed = true
			continue
		}
		if err := s.cut(s.pos, s.pos+p.bytes, p.size); err != nil {
			return err
		}
	}
	if removed {
		return l.eng.fs.SyncDir(l.dir)
	}
	return nil
}

// cut makes [pos, end) of the file zeros again, and its size what it was, on
// the device.
func (s *segment) cut(pos, end, size int64) error {
	var zeros [4096]byte
	for at := pos; at < min(end, size); {
		n := min(min(end, size)-at, int64(len(zeros)))
		if _, err := s.file.WriteAt(zeros[:n], at); err != nil {
			return err
		}
		at += n
	}
	if end > size {
		if err := s.file.Truncate(size); err != nil {
			return err
		}
	}
	return s.file.Sync()
}

// abandon closes what a failed Append opened. The files stay for recovery.
func (l *Log) abandon() {
	for i := range l.w.parts {
		if p := &l.w.parts[i]; p.fresh && p.n > 0 {
			_ = p.seg.file.Close()
		}
	}
}

// publish makes the parts part of the log, and seals the segments they fill.
func (l *Log) publish(b []storage.Batch) error {
	for i := range l.w.parts {
		p := &l.w.parts[i]
		s := p.seg
		if p.fresh && l.active != nil {
			if err := l.seal(l.active); err != nil {
				return err
			}
		}
		l.mu.Lock()
		if p.fresh {
			if len(l.segs) > 0 {
				l.stats.Rolls++
				l.rolled = true
			}
			l.segs = append(l.segs, s)
			l.active, l.dirDirty = s, true
			l.w.wantNext = false
		}
		pos := s.pos
		for j := range b[:p.n] {
			x := &b[j]
			end := s.pos + int64(len(x.Bytes))
			s.add(x.Bytes, s.pos, end, x.Base, x.End, x.Time, x.MaxTime)
		}
		s.size = max(s.size, s.pos)
		l.markDirty(s)
		l.stats.Batches += uint64(p.n)
		l.bytes.Add(s.pos - pos)
		l.end.Store(int64(s.end))
		l.mu.Unlock()
		b = b[p.n:]
		p.n = 0 // belongs to the log now
		if !s.reuse && !l.w.wantNext && s.pos > s.limit/2 {
			l.w.wantNext = true
			l.eng.work.want(l.opts.SegmentBytes)
		}
	}
	l.mu.Lock()
	l.stats.Appends++
	l.mu.Unlock()
	return nil
}

// seal writes the footer of the active segment, which takes no more batches.
// Called by Append. Without space the segment stays without a footer: it can be
// rebuilt from the batches.
func (l *Log) seal(s *segment) error {
	w := &l.w
	var snap []byte
	if l.opts.Snapshot != nil {
		w.snap = l.opts.Snapshot(w.snap[:0], s.end)
		if len(w.snap) <= maxSnapshotBytes {
			snap = w.snap
			if snap == nil {
				snap = []byte{}
			}
		}
	}
	size, err := s.writeFooter(&w.foot, snap, s.end, 0)
	if err != nil && !vfs.IsNoSpace(err) {
		return err
	}
	l.eng.warn("write footer", s.path(), err)
	x := s.entries
	l.mu.Lock()
	if err == nil && snap != nil {
		s.snapAt, l.snapAt = s.end, s.end
	}
	s.size, s.sealed = size, true
	s.idx.Store(&x)
	s.entries = nil
	l.markDirty(s)
	l.active = nil
	l.mu.Unlock()
	l.eng.files.add(s)
	return nil
}

// writeFooter writes the footer at the end of the file, behind the batches, and
// returns the file's new size. A file in which bytes were lost grows, so that
// none of them is overwritten. The snapshot, nil if there is none, is of the batches
// below the given offset. buf is reused.
func (s *segment) writeFooter(buf *[]byte, snapshot []byte, below message.Offset, flags uint16) (size int64, err error) {
	*buf = appendFooter((*buf)[:0], s, snapshot, below, flags)
	n := int64(len(*buf))
	at := s.size - n
	if at < s.pos || len(s.gaps) > 0 {
		at = max(s.size, s.pos)
	}
	if _, err := s.file.WriteAt(*buf, at); err != nil {
		if at+n > s.size {
			// Half a footer is in nobody's way, but what is not needed can go.
			err = errors.Join(err, s.file.Truncate(s.size))
		}
		return s.size, err
	}
	return at + n, nil
}
