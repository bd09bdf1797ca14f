package disklog

import (
	"fmt"
	"path/filepath"

	"github.com/portask/portask/broker/internal/vfs"
	"github.com/portask/portask/broker/message"
)

// epochMargin is added to the highest epoch seen in batches when the durable
// file, which knows the last one, is lost.
const epochMargin = 1 << 20

// apply brings the files into the state that plan decided on, and puts it on
// record.
func (r *recovery) apply() error {
	l := r.l
	l.epoch = r.last.epoch + 1
	if r.damaged {
		l.epoch++ // the record that is lost may have been of the next epoch
	}
	if r.noPoint && r.maxEpoch < 1<<62 {
		l.epoch = r.maxEpoch + epochMargin
	}
	if err := r.setAside(); err != nil {
		return err
	}
	for i, o := range r.segs {
		if o.file == nil {
			continue // believed as it is
		}
		if err := r.mend(o, i == len(r.segs)-1 && o.end == r.end); err != nil {
			return err
		}
	}
	if r.touched {
		if err := r.fs.SyncDir(l.dir); err != nil {
			return err
		}
	}
	return r.putOnRecord()
}

// setAside saves what is about to be cut off although it is valid, and takes
// dropped segments out of the way.
func (r *recovery) setAside() error {
	l := r.l
	for _, o := range r.segs {
		if stop, ok := r.stopAt[o.base]; ok {
			if o.saveTo > stop {
				if err := r.save(o, stop); err != nil {
					return err
				}
			}
			if err := r.noteCut(o, stop); err != nil {
				return err
			}
		}
	}
	if err := r.moveStrays(); err != nil {
		return err
	}
	for _, base := range r.dropped {
		name := segName(base)
		path := filepath.Join(l.dir, name)
		keep, n, err := r.worthKeeping(base)
		if err != nil {
			return err
		}
		if keep {
			err = r.fs.Rename(path, filepath.Join(l.dir, cutName(base, l.epoch)))
		} else {
			err = r.fs.Remove(path)
		}
		if err != nil {
			return err
		}
		r.touched = true
		if n > 0 {
			r.noteTorn(filepath.Join(l.rel, name), 0, n)
		}
	}
	return nil
}

// noteCut takes note of what is cut off a segment at stop.
func (r *recovery) noteCut(o *opened, stop int64) error {
	end := max(o.tornTo, stop)
	if o.zeroed {
		sc := source{f: o.file, size: o.size0}
		defer sc.done()
		junk, err := sc.lastNonZero(stop)
		if err != nil {
			return err
		}
		end = max(end, junk)
	}
	r.noteTorn(o.rel(), stop, end-stop)
	return nil
}

func (r *recovery) noteTorn(file string, pos, n int64) {
	r.torn += n
	r.found = append(r.found, Problem{Class: TornTail, File: file, Pos: pos, Len: n, From: r.end, Next: r.end})
}

// worthKeeping reports whether a dropped segment holds valid batches, or bytes
// that cannot be understood; n is how many bytes of either.
func (r *recovery) worthKeeping(base message.Offset) (keep bool, n int64, err error) {
	o, err := r.examine(base)
	if err != nil {
		return false, 0, err
	}
	r.segs = r.segs[:len(r.segs)-1]
	defer o.file.Close()
	sc := newScan(o.file, o.size, o.seed)
	defer sc.done()
	if !o.known {
		end, err := sc.lastNonZero(0)
		return end > 0, end, err
	}
	c, err := sc.readThrough(o.base, nil)
	end := c.pos
	if err == nil && c.tail != nil {
		end = min(c.tail.end, o.size)
	}
	if err == nil && o.zeroed {
		end, err = sc.lastNonZero(c.pos)
	}
	return c.batches > 0, end - headerBytes, err
}

// save copies the bytes of a segment from pos to the end of its last valid batch
// to a file of their own, behind a header with the segment's id.
func (r *recovery) save(o *opened, pos int64) error {
	h := header{flags: flagAttached, seed: o.seed, id: r.l.id, base: r.end, created: o.created}
	return replaceFile(r.fs, filepath.Join(r.l.dir, cutName(r.end, r.l.epoch)), func(f vfs.File) error {
		var b [headerBytes]byte
		h.put(b[:])
		if _, err := f.WriteAt(b[:], 0); err != nil {
			return err
		}
		return copyBytes(f, headerBytes, o.file, pos, o.saveTo)
	})
}

// copyBytes copies [from, to) of src to dst.
func copyBytes(dst vfs.File, at int64, src vfs.File, from, to int64) error {
	in := source{f: src, size: to}
	defer in.done()
	for from < to {
		b, err := in.bytes(from, int(min(to-from, scanWindow)))
		if err != nil {
			return err
		}
		if _, err := dst.WriteAt(b, at); err != nil {
			return err
		}
		from += int64(len(b))
		at += int64(len(b))
	}
	return nil
}

// mend cuts, rewrites and seals one segment as needed, and syncs it.
func (r *recovery) mend(o *opened, last bool) error {
	dirty := false
	if stop, ok := r.stopAt[o.base]; ok {
		if err := o.file.Truncate(stop); err != nil {
			return err
		}
		o.size, o.zeroed, dirty = stop, true, true
	}
	if o.end > r.point && o.batches > 0 {
		// The kernel may show what it failed to write, and take it for
		// written: only bytes written again are synced by the next sync.
		from := int64(headerBytes)
		if o.base < r.point {
			from = int64(o.entries[lastAtOffset(o.entries, r.point)].pos)
		} else {
			o.headless = true
		}
		if err := copyBytes(o.file, from, o.file, from, o.pos); err != nil {
			return err
		}
		dirty, r.touched = true, true
	}
	if o.headless && o.batches > 0 {
		h := header{flags: flagAttached, seed: o.seed, id: r.l.id, base: o.base, created: o.created}
		if h.created == 0 {
			h.created = o.firstAppend
		}
		if o.zeroed {
			h.flags |= flagZeroed
		}
		var b [headerBytes]byte
		h.put(b[:])
		if _, err := o.file.WriteAt(b[:], 0); err != nil {
			return err
		}
		dirty = true
	}
	lostEnd := len(o.gaps) > 0 && o.gaps[len(o.gaps)-1].next == o.end
	o.sealed = o.sealedWhole() || !last || lostEnd
	if o.sealed && !o.sealedWhole() {
		p, err := o.noFooter()
		if err != nil {
			return err
		}
		if p.Class.Damage() || o.end < r.point && !lostEnd {
			r.found = append(r.found, p)
		}
		if err := r.reseal(o); err != nil {
			return err
		}
		dirty = true
	}
	if !dirty {
		return nil
	}
	return o.file.Sync()
}

// reseal writes a footer that says what was read. The snapshot of the old one
// stays, if it can be had.
func (r *recovery) reseal(o *opened) error {
	var snapshot []byte
	below := o.end
	if o.hasTrailer && o.trailer.flags&flagSnapshot != 0 {
		f, err := readFooter(o.file, o.size0, &o.trailer)
		if err != nil && !damage(err) {
			return err
		}
		if err == nil && o.trailer.snapshotOffset <= o.end {
			snapshot, below = f.snapshot, o.trailer.snapshotOffset
		}
	}
	var foot []byte
	size, err := o.writeFooter(&foot, snapshot, below, flagRebuilt)
	o.size = size
	return err
}

// noFooter says what is wrong with the footer of a segment that should have one
// and has no valid trailer: it is damaged if one bit turned over makes a trailer
// of what is there, else it was never written (the disk was full, or the power
// went), or is gone.
func (o *opened) noFooter() (Problem, error) {
	p := Problem{Class: FooterMissing, File: o.rel(), Pos: o.size0}
	if o.hasTrailer || o.size0 < headerBytes+trailerBytes {
		return p, nil
	}
	b := make([]byte, trailerBytes)
	if err := readAt(o.file, b, o.size0-trailerBytes); err != nil {
		return p, err
	}
	var t trailer
	if i, bit, ok := flippedBit(b, func(b []byte) bool { return t.parse(b, o.size0) == nil }); ok {
		p.Class, p.Pos, p.Len = SegmentFooter, o.size0-trailerBytes, trailerBytes
		p.Detail = fmt.Sprintf("bit %d of the byte at position %d is turned over", bit, p.Pos+int64(i))
	}
	return p, nil
}

// putOnRecord writes the record with the new epoch: from here on the log is as
// it was recovered.
func (r *recovery) putOnRecord() error {
	l := r.l
	for _, o := range r.segs {
		l.segs = append(l.segs, o.segment)
	}
	l.start.Store(int64(r.last.start))
	l.end.Store(int64(r.end))
	rec := l.record()
	rec.written = l.eng.opts.now().UnixMicro()
	if !r.noPoint {
		l.recorded = l.eng.opts.now()
		return l.dur.write(rec, true)
	}
	if l.dur != nil { // keep what cannot be read
		if err := l.dur.f.Close(); err != nil {
			return err
		}
		l.dur = nil
		if err := r.fs.Rename(filepath.Join(l.dir, durableName), filepath.Join(l.dir, durableName+damagedSuffix)); err != nil {
			return err
		}
	}
	d, err := createDurable(r.fs, l.dir, rec)
	l.dur, l.recorded = d, l.eng.opts.now()
	return err
}

// install makes the recovered segments the log's.
func (r *recovery) install() {
	l := r.l
	l.durable.Store(int64(r.end))
	var bytes int64
	for i, o := range r.segs {
		s := o.segment
		bytes += s.pos - headerBytes
		switch {
		case s.sealed && s.file != nil && !s.trusted: // its header was mended
			l.eng.warn("close segment", s.path(), s.file.Close())
			s.file = nil
		case s.sealed && s.file != nil:
			x := s.entries
			s.entries = nil
			s.idx.Store(&x)
			l.eng.files.add(s)
		case !s.sealed && i == len(r.segs)-1:
			l.active = s
		}
	}
	l.bytes.Store(bytes)
	l.lost = r.lost
	l.stats.TornBytes = r.torn
	for _, p := range append(r.problem, r.found...) {
		l.report(p)
	}
}
