package disklog

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/portask/portask/broker/internal/vfs"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/storage"
)

// recovery opens a log: it reads what is there, decides what that is (plan),
// and brings the files into the state decided on (apply). FORMAT.md, "Opening a
// log", is what it follows. A crash while it works leaves something of which the
// next recovery makes the same.
type recovery struct {
	l        *Log
	fs       vfs.FS
	readOnly bool // only plan: nothing is deleted or created, files need no right to write

	point   message.Offset // durable point: everything below was synced
	last    record         // as found; zero if there is none
	noPoint bool           // the durable file is lost
	problem []Problem      // of the files outside of the chain
	damaged bool           // a durable record is lost
	bases   []message.Offset
	stopAt  map[message.Offset]int64 // where a segment is to be cut
	dropped []message.Offset         // segments that are not part of the log
	strays  []stray                  // names of segments that are none

	// Found by plan.
	segs     []*opened
	found    []Problem
	lost     int
	end      message.Offset
	maxEpoch uint64

	snapshot   []byte // of the snapshot file
	snapshotAt message.Offset

	torn    int64
	touched bool // the directory
}

// opened is a segment that recovery looked at.
type opened struct {
	*segment
	size0      int64 // of the file as found
	known      bool  // the seed is known
	why        string
	class      Class   // why not
	badHeader  string  // the header does not check, and how
	headless   bool    // the header must be written
	trailer    trailer // if hasTrailer
	hasTrailer bool    // of this segment
	sealedOK   bool    // and nothing contradicts it so far
	tail       *badRange
	saveTo     int64 // end of the last valid batch, before the segment was cut
	tornTo     int64 // end of what is known to be cut off
}

// openLog opens or creates the log of a partition.
func openLog(e *Engine, id storage.PartitionID, o storage.LogOptions) (l *Log, err error) {
	l = &Log{eng: e, id: id, dir: e.logDir(id), rel: filepath.Join(logsDir, id.String()), opts: o}
	r := &recovery{l: l, fs: e.fs, stopAt: map[message.Offset]int64{}}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	if err := r.decide(); err != nil {
		return nil, err
	}
	if err := r.apply(); err != nil {
		return nil, err
	}
	r.install()
	if err := r.replay(); err != nil {
		return nil, err
	}
	return l, nil
}

// decide reads the log and plans until nothing is left to be dropped or cut.
func (r *recovery) decide() error {
	if err := r.load(); err != nil {
		return err
	}
	for {
		r.closeSegs()
		again, err := r.plan()
		if err != nil {
			return err
		}
		if !again {
			r.judgeStrays()
			return nil
		}
	}
}

func (r *recovery) closeSegs() {
	for _, o := range r.segs {
		if o.file != nil {
			_ = o.file.Close() // read only so far
		}
	}
	r.segs = nil
}

func (r *recovery) close() {
	r.closeSegs()
	if r.l.dur != nil && r.l.dur.f != nil {
		_ = r.l.dur.f.Close()
	}
}

// load reads the names and the durable record, or creates the log.
func (r *recovery) load() error {
	l := r.l
	names, err := r.fs.ReadDir(l.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, name := range names {
		if base, ok := parseSegName(name); ok {
			r.bases = append(r.bases, base)
		}
		if strings.HasSuffix(name, tempSuffix) && !r.readOnly {
			if err := r.fs.Remove(filepath.Join(l.dir, name)); err != nil {
				return err
			}
		}
	}
	if err := r.sortOut(); err != nil {
		return err
	}
	d, problems, err := loadDurable(r.fs, l.dir, r.flag())
	if err != nil {
		return err
	}
	if d == nil && len(r.bases) == 0 {
		r.snapshotAt = message.NoOffset
		if r.readOnly {
			return nil
		}
		return r.create()
	}
	if r.snapshotAt, r.snapshot, err = loadSnapshot(r.fs, l.dir); err != nil {
		if !damage(err) {
			return err
		}
		r.problem = append(r.problem, Problem{Class: SnapshotFile, File: filepath.Join(l.rel, snapshotName), Detail: err.Error()})
	}
	if l.dur = d; d == nil {
		problems = []Problem{{Class: DurableFile, Detail: "the file is missing"}}
	}
	for _, p := range problems {
		p.File = filepath.Join(l.rel, durableName)
		r.problem = append(r.problem, p)
		r.noPoint = r.noPoint || p.Class == DurableFile
		r.damaged = true
	}
	if !r.noPoint {
		r.last = d.last
		if r.last.id != l.id {
			return corrupted("durable record", "%s holds the log %s", l.dir, r.last.id)
		}
		if r.last.epoch == 0 && !r.readOnly {
			// Created, but never opened: perhaps the creation failed.
			if err := r.syncEntries(); err != nil {
				return err
			}
		}
		r.point = r.last.durable
		for len(r.bases) > 0 && r.bases[0] < r.last.start {
			// Retired before the last stop. If it cannot be deleted now, then
			// the next time.
			if !r.readOnly {
				path := filepath.Join(l.dir, segName(r.bases[0]))
				l.eng.warn("delete segment", path, r.fs.Remove(path))
			}
			r.bases = r.bases[1:]
		}
		return nil
	}
	return r.guessPoint()
}

func (r *recovery) flag() int {
	if r.readOnly {
		return os.O_RDONLY
	}
	return os.O_RDWR
}

// guessPoint sets the durable point when the durable file is lost: all but the
// last segment were synced, and that too if it is sealed.
func (r *recovery) guessPoint() error {
	n := len(r.bases)
	if n == 0 {
		return nil
	}
	r.last.start, r.point = r.bases[0], r.bases[n-1]
	o, err := r.examine(r.bases[n-1])
	if err == nil && o.hasTrailer {
		r.point = o.trailer.end
	}
	return err
}

// create makes the directory of an empty log.
func (r *recovery) create() error {
	l := r.l
	if err := r.fs.MkdirAll(l.dir, 0o755); err != nil {
		return err
	}
	d, err := createDurable(r.fs, l.dir, record{segBase: message.NoOffset, id: l.id, written: l.eng.opts.now().UnixMicro()})
	if err != nil {
		return err
	}
	l.dur = d
	return r.fs.SyncDir(filepath.Dir(l.dir))
}

// syncEntries makes the entries of the log's directory durable, and its own.
func (r *recovery) syncEntries() error {
	if err := r.fs.SyncDir(r.l.dir); err != nil {
		return err
	}
	return r.fs.SyncDir(filepath.Dir(r.l.dir))
}

// plan walks through the segments in order. again: it dropped or cut some, and
// must look at what is left from the beginning.
func (r *recovery) plan() (again bool, err error) {
	r.found, r.lost, r.maxEpoch = nil, 0, 0
	r.end = r.last.start
	for i, base := range r.bases {
		if base < r.end {
			return false, &problemError{Problem{Class: SegmentOverlap, File: filepath.Join(r.l.rel, segName(base)), From: base, Next: r.end,
				Detail: "the messages are in the segment before it too"}}
		}
		if base > r.end && r.end >= r.point {
			return r.drop(i), nil // what is missing was never synced, so what follows was not
		}
		if base > r.end {
			r.missing(SegmentMissing, filepath.Join(r.l.rel, segName(base)), base, "")
		}
		next := message.NoOffset
		if i+1 < len(r.bases) {
			next = r.bases[i+1]
		}
		o, err := r.examine(base)
		if err != nil {
			return false, err
		}
		again, err := r.place(o, i, next)
		if err != nil || again {
			return again, err
		}
	}
	if r.end < r.point {
		r.missing(SegmentMissing, r.l.rel, r.point, "")
	}
	return false, nil
}

// missing notes that the messages up to next have no segment.
func (r *recovery) missing(class Class, file string, next message.Offset, detail string) {
	r.found = append(r.found, Problem{Class: class, File: file, From: r.end, Next: next, Detail: detail})
	r.lost++
	r.end = next
}

// drop takes the segments from i on out of the chain.
func (r *recovery) drop(i int) bool {
	r.dropped = append(r.dropped, r.bases[i:]...)
	r.bases = r.bases[:i]
	return true
}

// place decides on one segment; next is the base of the one behind it, or
// NoOffset.
func (r *recovery) place(o *opened, i int, next message.Offset) (again bool, err error) {
	if !o.known {
		if o.base >= r.point {
			return r.drop(i), nil
		}
		if next < 0 {
			next = r.point
		}
		r.segs = r.segs[:len(r.segs)-1]
		err := o.file.Close()
		r.missing(o.class, o.rel(), next, o.why)
		return false, err
	}
	if o.sealedOK && o.trailer.end <= r.point {
		ok, err := o.believe()
		if err != nil {
			return false, err
		}
		if ok {
			r.end = o.end
			r.noteHeader(o)
			if o.headless {
				return false, nil
			}
			// It is opened again when it is read.
			err := o.file.Close()
			o.file = nil
			return false, err
		}
	}
	if err := r.readThrough(o); err != nil {
		return false, err
	}
	again, err = r.judge(o, i, next)
	if err != nil || again {
		return again, err
	}
	if next < 0 && o.batches == 0 && len(o.gaps) == 0 && o.base >= r.point {
		return r.drop(i), nil // empty
	}
	r.noteHeader(o)
	r.end = o.end
	return false, nil
}

// noteHeader reports a header that does not check, once it is known that the
// segment holds something.
func (r *recovery) noteHeader(o *opened) {
	if o.badHeader != "" {
		r.found = append(r.found, Problem{Class: SegmentHeader, File: o.rel(), Len: headerBytes, Detail: o.badHeader})
	}
}

// believe fills the segment from its trailer. ok is false if the footer has to
// be read and does not check.
func (o *opened) believe() (ok bool, err error) {
	t := &o.trailer
	if t.gaps > 0 {
		ft, err := readFooter(o.file, o.size, t)
		if err != nil {
			if damage(err) {
				o.sealedOK = false
				return false, nil
			}
			return false, err
		}
		o.gaps = ft.gaps
	}
	o.contents = contents{
		end: t.end, pos: int64(t.dataEnd), batches: t.batches, maxTime: t.maxTime,
		firstAppend: t.firstAppend, lastAppend: t.lastAppend, chain: t.chain,
	}
	o.sealed = true
	return true, nil
}

// readThrough scans the segment up to where it is to be cut.
func (r *recovery) readThrough(o *opened) error {
	size := o.size
	if o.sealedOK {
		size = int64(o.trailer.dataEnd)
	}
	sc := newScan(o.file, size, o.seed)
	defer sc.done()
	c, err := sc.readThrough(o.base, nil)
	if err != nil {
		return err
	}
	if stop, ok := r.stopAt[o.base]; ok {
		o.saveTo, o.tornTo = c.pos, c.pos
		if c.tail != nil {
			o.tornTo = min(c.tail.end, size)
		}
		sc.size, sc.n = stop, 0
		if c, err = sc.readThrough(o.base, nil); err != nil {
			return err
		}
		o.sealedOK = false
		if c.end >= r.point {
			// A bad range that ended at the cut is the tail now.
			r.stopAt[o.base], c.tail = c.pos, nil
		}
	}
	o.contents, o.tail = c, c.tail
	r.maxEpoch = max(r.maxEpoch, c.maxEpoch)
	o.trusted = true
	return nil
}

// judge decides what the bad ranges of a segment that was read through are.
func (r *recovery) judge(o *opened, i int, next message.Offset) (again bool, err error) {
	sc := newScan(o.file, o.size, o.seed)
	defer sc.done()
	cut := func(pos int64) (bool, error) {
		r.drop(i + 1)
		r.stopAt[o.base] = pos
		return true, nil
	}
	for k := range o.bad {
		b := &o.bad[k]
		if b.from >= r.point {
			followed := k+1 == len(o.bad) || o.bad[k+1].pos > b.end
			hurt, how, err := sc.damaged(b, o.zeroed, followed)
			if err != nil {
				return false, err
			}
			if !hurt {
				return cut(b.pos)
			}
			b.detail = how
		}
		r.found = append(r.found, b.problem(o.rel()))
	}
	o.gaps = gapsOf(o.bad)
	_, stopped := r.stopAt[o.base]
	switch {
	case next >= 0 && o.end > next:
		return false, &problemError{Problem{Class: SegmentOverlap, File: o.rel(), From: next, Next: o.end,
			Detail: "the messages are in the segment behind it too"}}
	case next >= 0 && o.end < next && o.end >= r.point:
		// The end is missing, and a later segment is there.
		hurt := false
		if o.tail != nil && o.tail.next == next {
			if hurt, o.tail.detail, err = sc.damaged(o.tail, o.zeroed, false); err != nil {
				return false, err
			}
		}
		if !hurt {
			return cut(o.pos)
		}
		r.loseEnd(o, next)
	case next >= 0 && o.end < next:
		r.loseEnd(o, next)
	case next < 0 && o.end < r.point:
		r.loseEnd(o, r.point)
	case next < 0 && !stopped && !o.sealedWhole():
		// A trailer that survived when a batch before it did not has to go as
		// well: the next recovery would read what is appended from here on no
		// further than to where the lost batch ended.
		torn := o.tail != nil || o.sealedOK
		if !torn && o.zeroed {
			junk, err := sc.lastNonZero(o.pos)
			if err != nil {
				return false, err
			}
			torn = junk > o.pos
		}
		if torn {
			return cut(o.pos)
		}
	}
	return false, nil
}

// sealedWhole reports whether the trailer agrees with what was read.
func (o *opened) sealedWhole() bool {
	t := &o.trailer
	return o.sealedOK && t.end == o.end && int64(t.dataEnd) == o.pos && t.chain == o.chain && o.tail == nil
}

// loseEnd makes the messages between the last valid batch and next a gap.
func (r *recovery) loseEnd(o *opened, next message.Offset) {
	b := badRange{pos: o.pos, end: o.pos, from: o.end, next: next, class: BatchMissing}
	if o.tail != nil {
		b.end, b.class, b.detail = o.tail.end, o.tail.class, o.tail.detail
	}
	r.found = append(r.found, b.problem(o.rel()))
	o.gaps = append(o.gaps, gapsOf([]badRange{b})...)
	o.end = next
	o.sealedOK = false
}

// examine opens a segment and finds out under which seed it is to be read.
func (r *recovery) examine(base message.Offset) (*opened, error) {
	l := r.l
	s := &segment{log: l, base: base, limit: l.opts.SegmentBytes, contents: newContents(base), snapAt: message.NoOffset}
	s.refs.Store(1)
	o := &opened{segment: s}
	f, err := r.fs.OpenFile(s.path(), r.flag(), 0)
	if err != nil {
		return nil, err
	}
	s.file = f
	r.segs = append(r.segs, o)
	if s.size, err = f.Size(); err != nil {
		return nil, err
	}
	o.size0 = s.size
	// reuse stays false: runs that an earlier Log, or process, gave out may
	// still be on their way.
	return o, o.identify(l.id, &r.last)
}

// identify reads header and trailer of a segment of the log id; last is the
// durable record.
func (o *opened) identify(id storage.PartitionID, last *record) error {
	var h header
	head := make([]byte, headerBytes)
	err := error(corrupted("segment header", "the file has %d bytes", o.size))
	if o.size >= headerBytes {
		if err = readAt(o.file, head, 0); err == nil {
			err = h.parse(head)
		}
	}
	if err != nil && !damage(err) {
		return err
	}
	belongs := func(h *header) bool { return !h.attached() || h.id == id && h.base == o.base }
	o.headless = err != nil || !h.attached()
	if err == nil {
		if !belongs(&h) {
			o.class, o.why = SegmentForeign, "its header says "+h.id.String()+", offset "+segName(h.base)
			return nil
		}
		o.known, o.seed, o.zeroed, o.created = true, h.seed, h.zeroed(), h.created
	}
	t, terr := readTrailer(o.file, o.size)
	if terr != nil && !damage(terr) {
		return terr
	}
	o.hasTrailer = terr == nil && t.base == o.base && (!o.known || t.seed == o.seed)
	o.trailer, o.sealedOK = t, o.hasTrailer
	if o.known {
		return nil
	}
	o.badHeader = err.Error()
	switch {
	case o.sealedOK:
		o.seed = t.seed
	case last.segBase == o.base && last.segSeed != 0:
		o.seed = last.segSeed
	default:
		_, _, ok := flippedBit(head, func(b []byte) bool { return h.parse(b) == nil && h.attached() && belongs(&h) })
		if !ok {
			o.class, o.why = SegmentUnknown, o.badHeader
			return nil
		}
		o.seed = h.seed
	}
	o.known = true
	return nil
}
