package disklog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/internal/vfs"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/storage"
)

// quarantineDir is where Repair puts what it does not take over.
const quarantineDir = "quarantine"

// Repair copies what is good of an engine's directory to a new one, out, which
// must not exist: every valid batch with its offset, every blob of metadata
// that checks. What does not check, and what an earlier recovery cut off, goes
// to files below out/quarantine, named after where it was. Messages lost become
// gaps that the new logs know of, so that Verify finds them and no damage. The
// original is not changed.
//
// fn, if not nil, is called for each problem that was dealt with. Nothing is
// left out without a call: what is not in out is in a Problem.
//
// If the original holds logs and no catalogue that checks, cat makes one for
// out; nil makes none.
//
// Errors as of Inspect; fault.Exists if out exists. After an error, or a crash,
// out is to be deleted: no engine opens it before all of it is written, since
// its FORMAT does not check until then.
func Repair(fsys vfs.FS, dir, out string, cat *Catalogue, fn func(Problem)) (Report, error) {
	var report Report
	lock, err := lockDir(fsys, dir)
	if err != nil {
		return report, err
	}
	p := repairer{fs: fsys, dir: dir, out: out, report: &report, cat: cat, fn: fn}
	err = p.run()
	return report, errors.Join(failure("repair "+dir, err), lock.Close())
}

type repairer struct {
	fs       vfs.FS
	dir, out string
	report   *Report
	fn       func(Problem)
	opts     Options
	cat      *Catalogue
	catOK    bool // copied as it was
}

func (p *repairer) note(x Problem) {
	p.report.add(x)
	if p.fn != nil {
		p.fn(x)
	}
}

func (p *repairer) run() (err error) {
	if _, err := p.fs.ReadDir(p.out); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = fault.New(fault.Exists, "repair").WithField("out").WithDetail("%s exists", p.out)
		}
		return err
	}
	if p.opts, err = (Options{}).check(); err != nil {
		return err
	}
	if _, err := checkFormat(p.fs, p.dir); damage(err) {
		p.note(Problem{Class: FormatFile, File: formatName, Detail: err.Error()})
	} else if err != nil {
		return err
	}
	if err := p.begin(); err != nil {
		return err
	}
	for _, d := range []string{metaDir, logsDir, quarantineDir} {
		if err := p.fs.MkdirAll(filepath.Join(p.out, d), 0o755); err != nil {
			return err
		}
	}
	if err := p.metadata(); err != nil {
		return err
	}
	ids, other, err := listLogs(p.fs, p.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, name := range other {
		p.note(Problem{Class: UnknownFile, File: filepath.Join(logsDir, name), Detail: "not copied"})
	}
	if err := p.catalogue(ids); err != nil {
		return err
	}
	for _, id := range ids {
		if err := p.log(id); err != nil {
			return err
		}
	}
	for _, d := range []string{metaDir, logsDir, quarantineDir, "."} {
		if err := p.fs.SyncDir(filepath.Join(p.out, d)); err != nil {
			return err
		}
	}
	if err := p.fs.SyncDir(filepath.Dir(filepath.Clean(p.out))); err != nil {
		return err
	}
	return p.put(formatName, []byte(formatLine(formatVersion))) // and SyncDir
}

// begin makes out, with a FORMAT that does not check and says to a reader why.
// It is there, even if empty, before anything that could be taken for data.
func (p *repairer) begin() error {
	if err := p.fs.MkdirAll(p.out, 0o755); err != nil {
		return err
	}
	f, err := p.fs.OpenFile(filepath.Join(p.out, formatName), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return errors.Join(err, p.fs.Remove(p.out))
	}
	_, err = f.WriteAt([]byte("portask log repair has not finished: delete this directory\n"), 0)
	if err == nil {
		err = f.SyncAll()
	}
	return errors.Join(err, f.Close(), p.fs.SyncDir(p.out))
}

// put writes a file below out.
func (p *repairer) put(name string, b []byte) error {
	return p.copy(name, func(f vfs.File) error {
		_, err := f.WriteAt(b, 0)
		return err
	})
}

func (p *repairer) copy(name string, fill func(f vfs.File) error) error {
	path := filepath.Join(p.out, name)
	if err := p.fs.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return replaceFile(p.fs, path, fill)
}

// quarantine copies [from, to) of a file of the original below quarantine.
func (p *repairer) quarantine(file, as string, from, to int64) error {
	src, err := p.fs.OpenFile(filepath.Join(p.dir, file), os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer src.Close()
	size, err := src.Size()
	if err != nil {
		return err
	}
	if to = min(to, size); from >= to {
		return nil
	}
	return p.copy(filepath.Join(quarantineDir, as), func(f vfs.File) error { return copyBytes(f, 0, src, from, to) })
}

const wholeFile = 1 << 62

func (p *repairer) metadata() error {
	names, err := p.fs.ReadDir(filepath.Join(p.dir, metaDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, name := range names {
		file := filepath.Join(metaDir, name)
		if strings.HasSuffix(name, tempSuffix) {
			continue
		}
		if isDir(p.fs, filepath.Join(p.dir, file), 0) {
			p.note(Problem{Class: UnknownFile, File: file, Detail: "a directory: not copied"})
			continue
		}
		blob, err := readMeta(p.fs, filepath.Join(p.dir, file))
		isCat := p.cat != nil && file == p.cat.file()
		if err == nil && isCat {
			if err = p.cat.Check(blob); err != nil && !damage(err) {
				return err
			}
		}
		if damage(err) {
			p.note(Problem{Class: MetaFile, File: file, Detail: err.Error()})
			err = p.quarantine(file, file, 0, wholeFile)
		} else if err == nil {
			p.catOK = p.catOK || isCat
			err = p.put(file, appendMeta(nil, blob))
		}
		if err != nil {
			return err
		}
	}
	return err
}

// log copies one log.
func (p *repairer) log(id storage.PartitionID) error {
	r, err := planLog(p.fs, p.dir, id)
	if r != nil {
		defer r.close()
	}
	if damage(err) {
		// A broker would refuse this log; which of its segments to believe
		// is for a person to say.
		p.note(Problem{Class: SegmentOverlap, File: r.l.rel, Detail: "not repaired: " + err.Error()})
		return p.setAside(r, func(string) bool { return true })
	}
	if err != nil {
		return err
	}
	p.report.Logs++
	for _, x := range append(r.problem, r.found...) {
		if x.Class != BatchHeader && x.Class != BatchBody && x.Class != BatchMissing && x.Class != BatchCut {
			p.note(x) // those are met again below
		}
	}
	c := logCopy{p: p, r: r, start: r.last.start, end: r.last.start, rel: r.l.rel}
	for _, o := range r.segs {
		if err := c.segment(o); err != nil {
			return err
		}
	}
	if err := c.seal(r.end); err != nil {
		return err
	}
	if !c.any {
		c.start = r.end
	}
	if r.snapshotAt >= 0 {
		if err := p.put(filepath.Join(r.l.rel, snapshotName), appendSnapshot(nil, r.snapshotAt, r.snapshot)); err != nil {
			return err
		}
	}
	epoch := r.last.epoch + 1
	if r.damaged {
		epoch += epochMargin
	}
	epoch = max(epoch, min(r.maxEpoch, 1<<62)+1)
	dir := filepath.Join(p.out, r.l.rel)
	if err := p.fs.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	d, err := createDurable(p.fs, dir, record{
		epoch: epoch, start: c.start, durable: r.end, segBase: c.lastBase(), segSeed: c.lastSeed, pos: c.lastPos,
		id: id, clean: true, written: p.opts.now().UnixMicro(),
	})
	if err != nil {
		return err
	}
	if err := d.f.Close(); err != nil {
		return err
	}
	return p.setAside(r, func(name string) bool {
		base, ok := parseSegName(name)
		for _, o := range r.segs {
			ok = ok && base != o.base
		}
		return ok || strings.HasSuffix(name, cutSuffix) || strings.HasSuffix(name, damagedSuffix)
	})
}

// setAside copies chosen files of a log to the quarantine.
func (p *repairer) setAside(r *recovery, choose func(name string) bool) error {
	names, err := p.fs.ReadDir(r.l.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasSuffix(name, tempSuffix) || !choose(name) {
			continue
		}
		file := filepath.Join(r.l.rel, name)
		size, err := p.fs.Stat(filepath.Join(p.dir, file))
		if err != nil {
			return err
		}
		if isDir(p.fs, filepath.Join(p.dir, file), size) {
			if _, seg := parseSegName(name); !seg { // else plan said so
				p.note(Problem{Class: UnknownFile, File: file, Detail: "a directory: not copied"})
			}
			continue
		}
		if size == 0 {
			continue // holds nothing to keep
		}
		p.note(Problem{Class: TornSaved, File: file, Detail: "copied to " + quarantineDir})
		if err := p.quarantine(file, file, 0, wholeFile); err != nil {
			return err
		}
	}
	return nil
}

// logCopy writes the batches of one log to new segments: one for each row of
// batches without a gap.
type logCopy struct {
	p          *repairer
	r          *recovery
	rel        string
	start, end message.Offset // of the copy
	any        bool

	out       *segment // being written; nil if none
	roll      bool     // the original of out is at its end
	snap      []byte   // for the footer of out; nil if there is none
	snapBelow message.Offset
	buf       []byte
	base      message.Offset // of the newest segment, and more for the durable record
	lastSeed  message.Seed
	lastPos   int64
}

func (c *logCopy) lastBase() message.Offset {
	if !c.any {
		return message.NoOffset
	}
	return c.base
}

// segment copies the valid batches of o.
func (c *logCopy) segment(o *opened) error {
	if o.file == nil {
		f, err := c.p.fs.OpenFile(o.path(), os.O_RDONLY, 0)
		if err != nil {
			return err
		}
		o.file = f
	}
	c.p.report.Segments++
	size := o.size0
	if stop, ok := c.r.stopAt[o.base]; ok {
		if err := c.p.quarantine(o.rel(), fmt.Sprintf("%s-%d.torn", o.rel(), stop), stop, max(o.tornTo, stop)); err != nil {
			return err
		}
		size = stop
	} else if o.hasTrailer {
		size = int64(o.trailer.dataEnd)
	}
	sc := newScan(o.file, size, o.seed)
	defer sc.done()
	got, err := sc.readThrough(o.base, func(f *found) error {
		b, err := sc.bytes(f.pos, int(f.end-f.pos))
		if err != nil {
			return err
		}
		return c.batch(f, b)
	})
	if err != nil {
		return err
	}
	if got.tail != nil {
		got.bad = append(got.bad, *got.tail)
	}
	for _, b := range got.bad {
		c.p.note(b.problem(o.rel()))
		if err := c.p.quarantine(o.rel(), fmt.Sprintf("%s-%d.bad", o.rel(), b.pos), b.pos, b.end); err != nil {
			return err
		}
	}
	c.roll = true
	if !o.hasTrailer || o.trailer.flags&flagSnapshot == 0 || o.trailer.snapshotOffset > c.end {
		return nil
	}
	ft, err := readFooter(o.file, o.size0, &o.trailer)
	if damage(err) {
		c.p.note(Problem{Class: SegmentFooter, File: o.rel(), Pos: o.size0 - trailerBytes - int64(o.trailer.footerBytes),
			Len: trailerBytes + int64(o.trailer.footerBytes), Detail: err.Error()})
		return nil
	}
	c.snap, c.snapBelow = ft.snapshot, o.trailer.snapshotOffset
	return err
}

// batch appends one to the copy.
func (c *logCopy) batch(f *found, b []byte) error {
	base, next := f.env.BaseOffset, f.env.EndOffset()
	if c.out != nil && (c.roll || base != c.end) {
		if err := c.seal(base); err != nil {
			return err
		}
	}
	if c.out == nil {
		if err := c.begin(base, f.env.AppendTime); err != nil {
			return err
		}
	}
	s := c.out
	c.buf = append(c.buf[:0], b...)
	message.Stamp(c.buf, base, f.env.AppendTime, f.env.Epoch, s.seed)
	if _, err := s.file.WriteAt(c.buf, s.pos); err != nil {
		return err
	}
	s.add(c.buf, s.pos, s.pos+int64(len(b)), base, next, f.env.AppendTime, f.env.MaxTimestamp())
	s.size, c.end = s.pos, next
	c.p.report.Batches++
	c.p.report.Messages += int64(f.env.Count)
	c.p.report.Bytes += int64(len(b))
	return nil
}

// begin opens a segment of the copy.
func (c *logCopy) begin(base message.Offset, created int64) error {
	if !c.any {
		c.any, c.start = true, base
	}
	dir := filepath.Join(c.p.out, c.rel)
	if err := c.p.fs.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	s := &segment{base: base, seed: c.p.opts.newSeed(), contents: newContents(base), created: created}
	f, err := c.p.fs.OpenFile(filepath.Join(dir, segName(base)), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	s.file = f
	var b [headerBytes]byte
	h := header{flags: flagZeroed | flagAttached, seed: s.seed, id: c.r.l.id, base: base, created: created}
	h.put(b[:])
	if _, err := f.WriteAt(b[:], 0); err != nil {
		return errors.Join(err, f.Close())
	}
	c.out, c.base, c.lastSeed = s, base, s.seed
	return nil
}

// seal ends the segment being written; next is the offset of what follows.
func (c *logCopy) seal(next message.Offset) error {
	s := c.out
	if s == nil {
		return nil
	}
	c.out, c.lastPos, c.roll = nil, s.pos, false
	if s.end < next {
		s.gaps = []gap{{from: s.end, next: next, pos: uint32(s.pos)}}
		s.end, c.end = next, next
	}
	_, err := s.writeFooter(&c.buf, c.snap, c.snapBelow, flagRebuilt)
	c.snap = nil
	if err == nil {
		err = s.file.SyncAll()
	}
	return errors.Join(err, s.file.Close())
}
