package disklog

import (
	"math"
	"time"

	"github.com/portask/portask/broker/internal/vfs"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/storage"
)

// Retain is described at storage.Log. The new log start is on the device before
// a segment goes, so a segment that is missing later is known to be lost.
func (l *Log) Retain(p storage.Retention, now int64, below message.Offset) (int64, error) {
	const op = "retain"
	l.retainMu.Lock()
	defer l.retainMu.Unlock()
	l.mu.Lock()
	err := l.usable(op)
	n := l.expired(p, now, below)
	// The record must not say that the log begins behind its durable end, nor
	// may a snapshot that can still be lost be the only one.
	ahead := n > 0 && (l.snapAt != l.snapSynced || l.segs[n-1].end > l.Durable())
	l.mu.Unlock()
	if err != nil || n == 0 {
		return 0, err
	}
	if ahead {
		if _, err := l.Sync(); err != nil {
			return 0, err
		}
	}
	l.mu.Lock()
	below = min(below, l.Durable())
	if l.opts.Snapshot != nil {
		// What no snapshot covers stays: the state of a producer must not go
		// with its batches. That is a segment whose footer a crash lost, until
		// the next roll.
		below = min(below, l.snapSynced)
	}
	if n = l.expired(p, now, below); n == 0 {
		l.mu.Unlock()
		return 0, nil
	}
	start := l.End()
	if n < len(l.segs) {
		start = l.segs[n].base
	}
	var newest *segment // has the newest snapshot, and goes
	at := 0
	for i, s := range l.segs[:n] {
		if s.snapAt >= 0 && s.snapAt == l.snapSynced {
			newest, at = s, i
		}
	}
	l.mu.Unlock()
	if newest != nil {
		err = l.keepSnapshot(newest)
		if damage(err) {
			// The next roll makes another one; until then everything stays.
			l.report(Problem{Class: SegmentFooter, File: newest.rel(), Pos: newest.size - trailerBytes, Len: trailerBytes, Detail: err.Error()})
			l.mu.Lock()
			newest.snapAt, l.snapAt, l.snapSynced = message.NoOffset, message.NoOffset, message.NoOffset
			l.mu.Unlock()
			return 0, nil
		}
		if vfs.IsNoSpace(err) && at > 0 {
			// Delete what can be deleted without.
			n, start, err = at, newest.base, nil
		}
		if err != nil {
			return 0, failure(op, err)
		}
	}
	// The durable end in the record is the last one that was synced, not the
	// end of what was written.
	r := l.dur.newest()
	r.start, r.clean, r.written = start, false, l.eng.opts.now().UnixMicro()
	if err := l.dur.write(r, true); err != nil {
		return 0, l.fail(op, err)
	}

	l.mu.Lock()
	gone := l.segs[:n:n]
	l.segs = append([]*segment(nil), l.segs[n:]...)
	l.start.Store(int64(start))
	var removed int64
	for _, s := range gone {
		removed += s.pos - headerBytes
	}
	l.bytes.Add(-removed)
	l.stats.Removed += removed
	l.eng.held.Add(removed)
	l.mu.Unlock()
	for _, s := range gone {
		s.retired.Store(true)
		l.eng.files.leave(s)
	}
	return removed, nil
}

// expired returns how many segments at the front p lets go; with mu held.
func (l *Log) expired(p storage.Retention, now int64, below message.Offset) int {
	oldest := int64(math.MinInt64)
	if p.MaxAge > 0 {
		oldest = now - int64(p.MaxAge/time.Microsecond)
	}
	total := l.bytes.Load()
	n := 0
	for _, s := range l.segs {
		rest := total - (s.pos - headerBytes)
		if !s.sealed || s.end > below || s.lastAppend >= oldest && (p.MaxBytes <= 0 || rest < p.MaxBytes) {
			break
		}
		total = rest
		n++
	}
	return n
}
