package disklog

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/internal/vfs"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/storage"
)

// ItemKind says what an Item is.
type ItemKind uint8

// The kinds of Item.
const (
	ItemRecord  ItemKind = iota + 1 // the durable record of a log
	ItemSegment                     // a segment of a log, before its batches
	ItemBatch                       // a batch whose checksums hold
	ItemFooter                      // the footer of a sealed segment, after its batches
	ItemMeta                        // a blob of metadata
	ItemProblem                     // something is wrong; Problem is set
)

// Item is one thing that Inspect found, in the order of the files, and in each
// file of positions. It is valid during the call.
type Item struct {
	Kind     ItemKind
	Log      storage.PartitionID // of what belongs to a log
	File     string              // path below the engine's directory
	Pos, Len int64
	Record   Record           // of an ItemRecord
	Segment  Segment          // of ItemSegment, ItemBatch, ItemFooter
	Envelope message.Envelope // of an ItemBatch
	Bytes    []byte           // of an ItemBatch: all of it; of ItemMeta: the blob
	Problem  Problem          // of an ItemProblem
}

// Record is what the durable file of a log says.
type Record struct {
	Epoch          uint64
	Start, Durable message.Offset
	Clean          bool  // the log was closed in order
	Written        int64 // µs since the Unix epoch
}

// Segment describes one segment file.
type Segment struct {
	Seed      message.Seed
	Base, End message.Offset
	Created   int64 // µs since the Unix epoch
	Sealed    bool
	Zeroed    bool  // zeros lay behind the header when it was made
	Bytes     int64 // of batches
	Size      int64 // of the file
}

// Filter chooses logs; nil means all.
type Filter func(id storage.PartitionID) bool

// Inspect reads everything in an engine's directory, which no engine may have
// open, checks every checksum and calls fn for each thing found. It changes
// nothing (but creates the lock file if it is missing). An error of fn ends it.
//
// What a broker would do at its next start is found by the same code that it
// would run; all else is checked besides.
//
// Errors: those of fn; fault.Locked; fault.NewerFormat; fault.StorageFailed for
// files that cannot be read. Damage is no error but an item.
func Inspect(fsys vfs.FS, dir string, filter Filter, fn func(*Item) error) error {
	lock, err := lockDir(fsys, dir)
	if err != nil {
		return err
	}
	in := inspector{fs: fsys, dir: dir, fn: fn}
	err = in.directory(filter)
	return errors.Join(failure("inspect "+dir, err), lock.Close())
}

func lockDir(fsys vfs.FS, dir string) (interface{ Close() error }, error) {
	names, err := fsys.ReadDir(dir) // Lock would create files in it
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fault.New(fault.NotFound, "inspect").WithField("dir").WithDetail("%s does not exist", dir)
		}
		return nil, failure("inspect "+dir, err)
	}
	if !slices.Contains(names, formatName) && !slices.Contains(names, logsDir) && !slices.Contains(names, metaDir) {
		return nil, fault.New(fault.NotFound, "inspect").WithField("dir").WithDetail("%s is no data directory: it has neither %s nor %s", dir, formatName, logsDir)
	}
	lock, err := fsys.Lock(filepath.Join(dir, lockName))
	if errors.Is(err, vfs.ErrLocked) {
		return nil, fault.New(fault.Locked, "inspect").WithField("dir").WithDetail("%s is in use by a broker", dir).WithCause(err)
	}
	return lock, failure("inspect "+dir, err)
}

type inspector struct {
	fs  vfs.FS
	dir string
	fn  func(*Item) error
}

func (in *inspector) problem(id storage.PartitionID, p Problem) error {
	return in.fn(&Item{Kind: ItemProblem, Log: id, File: p.File, Pos: p.Pos, Len: p.Len, Problem: p})
}

func (in *inspector) directory(filter Filter) error {
	none := storage.PartitionID{}
	if _, err := checkFormat(in.fs, in.dir); damage(err) {
		if err := in.problem(none, Problem{Class: FormatFile, File: formatName, Detail: err.Error()}); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	if filter == nil {
		if err := in.metadata(); err != nil {
			return err
		}
	}
	ids, other, err := listLogs(in.fs, in.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, name := range other {
		if err := in.problem(none, Problem{Class: UnknownFile, File: filepath.Join(logsDir, name)}); err != nil {
			return err
		}
	}
	for _, id := range ids {
		if filter == nil || filter(id) {
			if err := in.log(id); err != nil {
				return err
			}
		}
	}
	return nil
}

func (in *inspector) metadata() error {
	names, err := in.fs.ReadDir(filepath.Join(in.dir, metaDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, name := range names {
		file := filepath.Join(metaDir, name)
		if strings.HasSuffix(name, tempSuffix) {
			continue
		}
		if isDir(in.fs, filepath.Join(in.dir, file), 0) {
			if err := in.problem(storage.PartitionID{}, Problem{Class: UnknownFile, File: file, Detail: "a directory"}); err != nil {
				return err
			}
			continue
		}
		blob, err := readMeta(in.fs, filepath.Join(in.dir, file))
		if damage(err) {
			err = in.problem(storage.PartitionID{}, Problem{Class: MetaFile, File: file, Detail: err.Error()})
		} else if err == nil {
			err = in.fn(&Item{Kind: ItemMeta, File: file, Len: int64(len(blob)), Bytes: blob})
		}
		if err != nil {
			return err
		}
	}
	return err
}

// planLog decides what a broker would make of a log, without changing it. The
// segments' files are open. A *problemError means that it would refuse.
func planLog(fsys vfs.FS, dir string, id storage.PartitionID) (*recovery, error) {
	o, err := Options{inline: true}.check()
	if err != nil {
		return nil, err
	}
	e := &Engine{fs: fsys, dir: dir, opts: o}
	e.files = fileCache{fs: fsys, max: o.OpenSegments}
	l := &Log{eng: e, id: id, dir: e.logDir(id), rel: filepath.Join(logsDir, id.String())}
	l.opts.SegmentBytes = o.SegmentBytes
	r := &recovery{l: l, fs: fsys, readOnly: true, stopAt: map[message.Offset]int64{}}
	if err := r.decide(); err != nil {
		return r, err
	}
	for _, o := range r.segs {
		if stop, ok := r.stopAt[o.base]; ok {
			if err := r.noteCut(o, stop); err != nil {
				return r, err
			}
		}
	}
	for _, base := range r.dropped {
		if _, n, err := r.worthKeeping(base); err != nil {
			return r, err
		} else if n > 0 {
			r.noteTorn(filepath.Join(l.rel, segName(base)), 0, n)
		}
	}
	return r, nil
}

func (in *inspector) log(id storage.PartitionID) error {
	r, err := planLog(in.fs, in.dir, id)
	if r != nil {
		defer r.close()
	}
	var refused *problemError
	if errors.As(err, &refused) {
		r.problem = append(r.problem, refused.Problem)
	} else if damage(err) {
		r.problem = append(r.problem, Problem{Class: SegmentForeign, File: r.l.rel, Detail: err.Error()})
	} else if err != nil {
		return err
	}
	if err := in.fn(&Item{Kind: ItemRecord, Log: id, File: filepath.Join(r.l.rel, durableName), Record: Record{
		Epoch: r.last.epoch, Start: r.last.start, Durable: r.last.durable, Clean: r.last.clean, Written: r.last.written,
	}}); err != nil {
		return err
	}
	for _, p := range r.problem {
		if err := in.problem(id, p); err != nil {
			return err
		}
	}
	// What plan found in the segments' batches is found again by reading all
	// of them; the rest is reported where it belongs.
	for _, p := range r.found {
		if p.Class == SegmentHeader || p.Class == SegmentMissing || p.Class == TornTail || p.Class == SegmentUnknown || p.Class == SegmentForeign {
			if err := in.problem(id, p); err != nil {
				return err
			}
		}
	}
	for i, o := range r.segs {
		if err := in.segment(r, o, i == len(r.segs)-1); err != nil {
			return err
		}
	}
	return in.others(id, r)
}

// segment reads one segment through.
func (in *inspector) segment(r *recovery, o *opened, last bool) error {
	id, file := r.l.id, o.rel()
	if o.file == nil {
		f, err := in.fs.OpenFile(o.path(), os.O_RDONLY, 0)
		if err != nil {
			return err
		}
		o.file = f
	}
	seg := Segment{
		Seed: o.seed, Base: o.base, End: o.end, Created: o.created, Sealed: o.hasTrailer, Zeroed: o.zeroed,
		Bytes: o.pos - headerBytes, Size: o.size0,
	}
	if err := in.fn(&Item{Kind: ItemSegment, Log: id, File: file, Len: headerBytes, Segment: seg}); err != nil {
		return err
	}
	size := o.size0
	stop, cut := r.stopAt[o.base]
	if cut {
		size = stop
	} else if o.hasTrailer {
		size = int64(o.trailer.dataEnd)
	}
	sc := newScan(o.file, size, o.seed)
	defer sc.done()
	c, err := sc.readThrough(o.base, func(f *found) error {
		b, err := sc.bytes(f.pos, int(f.end-f.pos))
		if err != nil {
			return err
		}
		return in.fn(&Item{Kind: ItemBatch, Log: id, File: file, Pos: f.pos, Len: f.end - f.pos, Segment: seg, Envelope: f.env, Bytes: b})
	})
	if err != nil {
		return err
	}
	if c.tail != nil {
		c.bad = append(c.bad, *c.tail)
	}
	how := newScan(o.file, o.size0, o.seed)
	defer how.done()
	for _, b := range c.bad {
		if _, detail, err := how.damaged(&b, false, false); err != nil {
			return err
		} else if detail != "" {
			b.detail = detail
		}
		if err := in.problem(id, b.problem(file)); err != nil {
			return err
		}
		c.end = max(c.end, b.next)
	}
	return in.behind(r, o, &c, seg, last, cut)
}

// behind checks what stands behind the batches of a segment.
func (in *inspector) behind(r *recovery, o *opened, c *contents, seg Segment, last, cut bool) error {
	id := r.l.id
	var ft footer
	if o.hasTrailer && !cut {
		var err error
		if ft, err = readFooter(o.file, o.size0, &o.trailer); err == nil {
			err = o.agrees(c, &ft)
		}
		if damage(err) {
			err = in.problem(id, Problem{Class: SegmentFooter, File: o.rel(), Pos: o.size0 - trailerBytes - int64(o.trailer.footerBytes),
				Len: trailerBytes + int64(o.trailer.footerBytes), Detail: err.Error()})
		} else if err == nil {
			err = in.fn(&Item{Kind: ItemFooter, Log: id, File: o.rel(), Pos: o.size0 - trailerBytes - int64(o.trailer.footerBytes),
				Len: trailerBytes + int64(o.trailer.footerBytes), Segment: seg})
		}
		if err != nil {
			return err
		}
	} else if !last && !cut {
		p, err := o.noFooter()
		if err != nil {
			return err
		}
		if p.Class.Damage() || o.end < r.point {
			if err := in.problem(id, p); err != nil {
				return err
			}
		}
	}
	for _, g := range ft.gaps {
		if g.from < g.next {
			if err := in.problem(id, Problem{Class: GapRecorded, File: o.rel(), Pos: int64(g.pos), Len: int64(g.len), From: g.from, Next: g.next}); err != nil {
				return err
			}
			c.end = max(c.end, g.next)
		}
	}
	if c.end < o.end {
		if err := in.problem(id, Problem{Class: BatchMissing, File: o.rel(), Pos: c.pos, From: c.end, Next: o.end}); err != nil {
			return err
		}
	}
	if !o.zeroed || !o.hasTrailer || cut || len(c.bad) > 0 || len(ft.gaps) > 0 {
		return nil // without a trailer this is the tail of the log, or a footer
	}
	slack := source{f: o.file, size: o.size0 - trailerBytes - int64(o.trailer.footerBytes)}
	defer slack.done()
	junk, err := slack.lastNonZero(c.pos)
	if err == nil && junk > c.pos {
		err = in.problem(id, Problem{Class: SegmentSlack, File: o.rel(), Pos: c.pos, Len: junk - c.pos})
	}
	return err
}

// agrees compares a footer with the batches. It is an error of damage if they
// differ.
func (o *opened) agrees(c *contents, ft *footer) error {
	t := &o.trailer
	known := len(ft.gaps) > 0 || len(c.bad) > 0
	switch {
	case known:
		return nil // what is lost is reported by itself
	case t.end != c.end, int64(t.dataEnd) != c.pos, t.batches != c.batches, t.chain != c.chain,
		t.firstAppend != c.firstAppend, t.lastAppend != c.lastAppend:
		return corrupted("segment trailer", "does not agree with the batches")
	case len(ft.entries) != len(c.entries):
		return corrupted("segment footer", "has %d index entries, %d expected", len(ft.entries), len(c.entries))
	}
	for i := range ft.entries {
		// Not maxBefore: the partition may know later timestamps than the
		// envelopes say.
		if a, b := &ft.entries[i], &c.entries[i]; a.off != b.off || a.pos != b.pos || a.before != b.before {
			return corrupted("segment footer", "index entry %d does not agree with the batches", i)
		}
	}
	return nil
}

// others reports the files of a log's directory that are no segments.
func (in *inspector) others(id storage.PartitionID, r *recovery) error {
	names, err := in.fs.ReadDir(r.l.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		p := Problem{Class: UnknownFile, File: filepath.Join(r.l.rel, name)}
		switch _, ok := parseSegName(name); {
		case ok, name == durableName, name == snapshotName, strings.HasSuffix(name, tempSuffix):
			continue
		case strings.HasSuffix(name, cutSuffix), strings.HasSuffix(name, damagedSuffix):
			p.Class = TornSaved
		}
		if p.Len, err = in.fs.Stat(filepath.Join(r.l.dir, name)); err != nil {
			return err
		}
		if err := in.problem(id, p); err != nil {
			return err
		}
	}
	return nil
}

// Report sums up what Verify found.
type Report struct {
	Logs, Segments, Batches int
	Messages, Bytes         int64 // in valid batches
	Problems                []Problem
	More                    int // problems beyond the first 10,000
}

// maxReported bounds the problems in a Report.
const maxReported = 10_000

// Damaged reports whether any of the problems is damage.
func (r *Report) Damaged() bool {
	for _, p := range r.Problems {
		if p.Class.Damage() {
			return true
		}
	}
	return r.More > 0
}

func (r *Report) add(p Problem) {
	if len(r.Problems) == maxReported {
		r.More++
		return
	}
	r.Problems = append(r.Problems, p)
}

// Verify checks every byte that an engine has written to its directory, and
// counts. If cat is not nil and no filter is set, logs without a catalogue that
// a broker would start with are damage too. Errors as of Inspect.
func Verify(fsys vfs.FS, dir string, filter Filter, cat *Catalogue) (Report, error) {
	var r Report
	seen := cat == nil || filter != nil // or reported
	err := Inspect(fsys, dir, filter, func(it *Item) error {
		switch it.Kind {
		case ItemRecord:
			r.Logs++
		case ItemSegment:
			r.Segments++
		case ItemBatch:
			r.Batches++
			r.Messages += int64(it.Envelope.Count)
			r.Bytes += it.Len
		case ItemMeta:
			if cat == nil || it.File != cat.file() {
				break
			}
			seen = true
			if err := cat.Check(it.Bytes); err != nil {
				if !damage(err) {
					return err
				}
				r.add(Problem{Class: MetaFile, File: it.File, Len: it.Len, Detail: err.Error()})
			}
		case ItemProblem:
			seen = seen || it.Problem.Class == MetaFile && it.File == cat.file()
			r.add(it.Problem)
		}
		return nil
	})
	if err == nil && !seen && r.Logs > 0 {
		r.add(cat.missing(r.Logs))
	}
	return r, err
}
