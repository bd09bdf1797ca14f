package disklog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/internal/vfs"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/storage"
)

// damageLog is a closed log of several segments to damage.
type damageLog struct {
	t    testing.TB
	fs   *vfs.Mem
	o    *oracle
	opts Options
	segs []message.Offset // bases
	ends []message.Offset
}

func newDamageLog(t testing.TB) *damageLog {
	d := &damageLog{t: t, fs: vfs.NewMem(), o: newOracle(6), opts: fixed(small())}
	d.opts.Spares = -1
	e, err := Open(d.fs, "data", d.opts)
	check(t, err)
	l, err := e.OpenLog(testID, d.o.options(nil))
	check(t, err)
	for range 24 {
		check(t, d.o.append(l, 2, 700))
	}
	for _, s := range l.(*Log).segs {
		d.segs, d.ends = append(d.segs, s.base), append(d.ends, s.end)
	}
	if len(d.segs) < 4 {
		t.Fatalf("%d segments", len(d.segs))
	}
	check(t, e.StoreMeta("catalogue", d.o.value(200)))
	check(t, e.Close())
	d.o.epoch = l.Epoch()
	return d
}

func (d *damageLog) path(name string) string {
	return filepath.Join("data", logsDir, testID.String(), name)
}

func (d *damageLog) seg(i int) string {
	return d.path(segName(d.segs[(i+len(d.segs))%len(d.segs)]))
}

// overwrite changes bytes of a file, durably.
func (d *damageLog) overwrite(file string, pos int64, b []byte) {
	d.t.Helper()
	f, err := d.fs.OpenFile(file, os.O_RDWR, 0)
	check(d.t, err)
	_, err = f.WriteAt(b, pos)
	check(d.t, errors.Join(err, f.SyncAll(), f.Close()))
}

func (d *damageLog) truncate(file string, size int64) {
	d.t.Helper()
	f, err := d.fs.OpenFile(file, os.O_RDWR, 0)
	check(d.t, err)
	check(d.t, errors.Join(f.Truncate(size), f.SyncAll(), f.Close()))
}

// batch returns the position and the batch with index k of segment i.
func (d *damageLog) batch(i, k int) (pos int64, w written) {
	pos = headerBytes
	for _, w := range d.o.batches {
		if w.base < d.segs[i] {
			continue
		}
		if k == 0 {
			return pos, w
		}
		pos += int64(len(w.bytes))
		k--
	}
	d.t.Fatal("no such batch")
	return 0, w
}

// damages are things a device or a hand may do to a log. lost says which
// messages are gone, as a list of ranges; class is what Verify must name, in
// file.
var damages = []struct {
	name  string
	do    func(d *damageLog) (file string, class Class, lost [][2]message.Offset)
	known bool // a broker that starts on it counts the ranges as corruptions at once
}{
	{"header of a batch in a sealed segment", func(d *damageLog) (string, Class, [][2]message.Offset) {
		pos, w := d.batch(1, 2)
		d.overwrite(d.seg(1), pos+10, []byte("garbage"))
		return d.seg(1), BatchHeader, [][2]message.Offset{{w.base, w.end}}
	}, false},
	{"body of a batch in a sealed segment", func(d *damageLog) (string, Class, [][2]message.Offset) {
		pos, w := d.batch(1, 1)
		d.overwrite(d.seg(1), pos+90, []byte("garbage"))
		return d.seg(1), BatchBody, [][2]message.Offset{{w.base, w.end}}
	}, false},
	{"two batches in a row", func(d *damageLog) (string, Class, [][2]message.Offset) {
		pos, w := d.batch(1, 1)
		_, w2 := d.batch(1, 2)
		d.overwrite(d.seg(1), pos+10, []byte("garbage"))
		d.overwrite(d.seg(1), pos+int64(len(w.bytes))+10, []byte("garbage"))
		return d.seg(1), BatchHeader, [][2]message.Offset{{w.base, w2.end}}
	}, false},
	{"first batch of the active segment", func(d *damageLog) (string, Class, [][2]message.Offset) {
		i := len(d.segs) - 1
		pos, w := d.batch(i, 0)
		d.overwrite(d.seg(i), pos, make([]byte, 80))
		return d.seg(i), BatchHeader, [][2]message.Offset{{w.base, w.end}}
	}, true},
	{"last batch of the log", func(d *damageLog) (string, Class, [][2]message.Offset) {
		i := len(d.segs) - 1
		w := d.o.batches[len(d.o.batches)-1]
		size, err := d.fs.Stat(d.seg(i))
		check(d.t, err)
		d.overwrite(d.seg(i), size-20, make([]byte, 20))
		return d.seg(i), BatchBody, [][2]message.Offset{{w.base, w.end}}
	}, true},
	{"zeroed page", func(d *damageLog) (string, Class, [][2]message.Offset) {
		pos, w := d.batch(2, 1)
		_, w2 := d.batch(2, 2)
		d.overwrite(d.seg(2), pos, make([]byte, len(w.bytes)+10))
		return d.seg(2), BatchHeader, [][2]message.Offset{{w.base, w2.end}}
	}, false},
	{"zeroed pages of the active segment", func(d *damageLog) (string, Class, [][2]message.Offset) {
		i := len(d.segs) - 1
		pos, w := d.batch(i, 0)
		_, w2 := d.batch(i, 1)
		d.overwrite(d.seg(i), pos, make([]byte, len(w.bytes)+50))
		return d.seg(i), BatchHeader, [][2]message.Offset{{w.base, w2.end}}
	}, true},
	{"footer", func(d *damageLog) (string, Class, [][2]message.Offset) {
		size, err := d.fs.Stat(d.seg(1))
		check(d.t, err)
		d.overwrite(d.seg(1), size-trailerBytes-20, []byte("x"))
		return d.seg(1), SegmentFooter, nil
	}, false},
	{"trailer wiped out", func(d *damageLog) (string, Class, [][2]message.Offset) {
		size, err := d.fs.Stat(d.seg(1))
		check(d.t, err)
		d.overwrite(d.seg(1), size-trailerBytes, make([]byte, trailerBytes))
		return d.seg(1), FooterMissing, nil
	}, true},
	{"header of a sealed segment wiped out", func(d *damageLog) (string, Class, [][2]message.Offset) {
		d.overwrite(d.seg(1), 0, make([]byte, headerBytes))
		return d.seg(1), SegmentHeader, nil
	}, true},
	{"header of the active segment wiped out", func(d *damageLog) (string, Class, [][2]message.Offset) {
		d.overwrite(d.seg(-1), 0, make([]byte, headerBytes))
		return d.seg(-1), SegmentHeader, nil
	}, true},
	{"header and trailer of a segment wiped out", func(d *damageLog) (string, Class, [][2]message.Offset) {
		d.overwrite(d.seg(1), 0, make([]byte, headerBytes))
		size, err := d.fs.Stat(d.seg(1))
		check(d.t, err)
		d.overwrite(d.seg(1), size-trailerBytes, make([]byte, trailerBytes))
		return d.seg(1), SegmentUnknown, [][2]message.Offset{{d.segs[1], d.ends[1]}}
	}, true},
	{"segment missing", func(d *damageLog) (string, Class, [][2]message.Offset) {
		check(d.t, d.fs.Remove(d.seg(1)))
		return d.seg(2), SegmentMissing, [][2]message.Offset{{d.segs[1], d.ends[1]}}
	}, true},
	{"first segment missing", func(d *damageLog) (string, Class, [][2]message.Offset) {
		check(d.t, d.fs.Remove(d.seg(0)))
		return d.seg(1), SegmentMissing, [][2]message.Offset{{d.segs[0], d.ends[0]}}
	}, true},
	{"last segment missing", func(d *damageLog) (string, Class, [][2]message.Offset) {
		i := len(d.segs) - 1
		check(d.t, d.fs.Remove(d.seg(i)))
		return d.path(""), SegmentMissing, [][2]message.Offset{{d.segs[i], d.ends[i]}}
	}, true},
	{"all segments missing", func(d *damageLog) (string, Class, [][2]message.Offset) {
		for i := range d.segs {
			check(d.t, d.fs.Remove(d.seg(i)))
		}
		return d.path(""), SegmentMissing, [][2]message.Offset{{0, d.o.end()}}
	}, true},
	{"sealed segment cut short", func(d *damageLog) (string, Class, [][2]message.Offset) {
		pos, w := d.batch(1, 2)
		d.truncate(d.seg(1), pos+100)
		return d.seg(1), BatchCut, [][2]message.Offset{{w.base, d.ends[1]}}
	}, true},
	{"segment of another place", func(d *damageLog) (string, Class, [][2]message.Offset) {
		check(d.t, d.fs.Rename(d.seg(2), d.seg(1)))
		return d.seg(1), SegmentForeign, [][2]message.Offset{{d.segs[1], d.ends[2]}}
	}, true},
	{"durable file missing", func(d *damageLog) (string, Class, [][2]message.Offset) {
		check(d.t, d.fs.Remove(d.path(durableName)))
		return d.path(durableName), DurableFile, nil
	}, true},
	{"both durable records", func(d *damageLog) (string, Class, [][2]message.Offset) {
		d.overwrite(d.path(durableName), 8, []byte("garbage"))
		d.overwrite(d.path(durableName), recordStride+8, []byte("garbage"))
		return d.path(durableName), DurableFile, nil
	}, true},
	{"metadata", func(d *damageLog) (string, Class, [][2]message.Offset) {
		file := filepath.Join("data", metaDir, "catalogue")
		d.overwrite(file, 30, []byte("garbage"))
		return file, MetaFile, nil
	}, false},
}

// TestDamage does each of the damages to a log. Verify names class and file; a
// broker starts, serves all that is left with a gap in the place of what is
// lost, gives no offset twice and goes on; Repair makes a copy without damage.
func TestDamage(t *testing.T) {
	for _, c := range damages {
		t.Run(c.name, func(t *testing.T) {
			d := newDamageLog(t)
			file, class, lost := c.do(d)
			before := contentsOf(t, d.fs, "data")
			r, err := Verify(d.fs, "data", nil, nil)
			check(t, err)
			if !names(r.Problems, filepath.Clean(file), class) {
				t.Errorf("Verify does not name %v in %s: %v", class, file, r.Problems)
			}
			if class.Damage() != r.Damaged() {
				t.Errorf("damaged: %t, %v", r.Damaged(), r.Problems)
			}
			d.repair(lost)
			if after := contentsOf(t, d.fs, "data"); after != before {
				t.Errorf("Verify or Repair changed the original")
			}
			d.start(d.fs, "data", lost, c.known, class == MetaFile)
			// The second start finds the same.
			d.start(d.fs, "data", lost, c.known, class == MetaFile)
		})
	}
}

func names(problems []Problem, file string, class Class) bool {
	for _, p := range problems {
		if filepath.Join("data", p.File) == file && p.Class == class {
			return true
		}
	}
	return false
}

// contentsOf lists all files with checksums.
func contentsOf(t testing.TB, fs vfs.FS, dir string) string {
	t.Helper()
	var out strings.Builder
	for _, name := range allFiles(t, fs, dir) {
		b, err := readFile(fs, name, 1<<30)
		check(t, err)
		fmt.Fprintf(&out, "%s %d %08x\n", name, len(b), crc(b))
	}
	return out.String()
}

// start opens the engine on the log and checks what it serves.
func (d *damageLog) start(fs vfs.FS, dir string, lost [][2]message.Offset, known, noMeta bool) {
	t := d.t
	t.Helper()
	e, err := Open(fs, dir, d.opts)
	check(t, err)
	defer func() { check(t, e.Close()) }()
	if _, err := e.LoadMeta("catalogue"); (err != nil) != noMeta {
		t.Errorf("metadata: %v", err)
	}
	l, err := e.OpenLog(testID, d.o.options(&refold{}))
	check(t, err)
	if l.Epoch() <= d.o.epoch {
		t.Errorf("epoch %d after %d", l.Epoch(), d.o.epoch)
	}
	d.o.epoch = l.Epoch()
	if n := l.Stats().Corruptions; known && n < len(lost) {
		t.Errorf("%d corruptions known at start", n)
	}
	if l.End() < d.o.end() {
		t.Fatalf("log ends at %d, %d was acknowledged", l.End(), d.o.end())
	}
	got, gaps, err := readAll(l)
	check(t, err)
	d.compare(got, gaps, lost, l.Start())
	base := l.End()
	d.o.accepted = len(d.o.batches)
	if base == d.o.end() {
		check(t, d.o.append(l, 1, 300))
	} else {
		check(t, l.Append(d.o.at(base, l.Epoch())))
	}
	check(t, d.o.sync(l))
}

// compare wants all batches but those lost, in order, and gaps that say so.
func (d *damageLog) compare(got []written, gaps []storage.GapError, lost [][2]message.Offset, start message.Offset) {
	d.t.Helper()
	gone := func(o message.Offset) bool {
		for _, r := range lost {
			if o >= r[0] && o < r[1] {
				return true
			}
		}
		return false
	}
	for i := range d.o.batches {
		w := &d.o.batches[i]
		if gone(w.base) {
			continue
		}
		if len(got) == 0 || !w.same(got[0].bytes) {
			d.t.Fatalf("batch at %d is not served", w.base)
		}
		got = got[1:]
	}
	if len(got) > 0 {
		d.t.Errorf("batch at %d was never appended", got[0].base)
	}
	var all [][2]message.Offset
	for _, g := range gaps {
		if n := len(all); n > 0 && all[n-1][1] == g.From {
			all[n-1][1] = g.Next
			continue
		}
		all = append(all, [2]message.Offset{g.From, g.Next})
	}
	for len(lost) > 0 && lost[0][1] <= start { // a copy may begin behind it
		lost = lost[1:]
	}
	if fmt.Sprint(all) != fmt.Sprint(lost) {
		d.t.Errorf("gaps %v, want %v", all, lost)
	}
}

// repair makes a copy and opens that.
func (d *damageLog) repair(lost [][2]message.Offset) {
	t := d.t
	t.Helper()
	r, err := Repair(d.fs, "data", "copy", nil, nil)
	check(t, err)
	v, err := Verify(d.fs, "copy", nil, nil)
	check(t, err)
	if v.Damaged() || v.Batches != r.Batches || v.Messages != r.Messages || v.Bytes != r.Bytes {
		t.Errorf("the copy: %+v, of %+v", v, r)
	}
	if _, err := Repair(d.fs, "data", "copy", nil, nil); fault.CodeOf(err) != fault.Exists {
		t.Errorf("repair into a directory that exists: %v", err)
	}
	fs := d.fs.Clone(vfs.CrashAll, 0)
	c := *d
	o := *d.o
	c.o, c.fs = &o, fs
	noMeta := false
	for _, p := range r.Problems {
		noMeta = noMeta || p.Class == MetaFile
	}
	if noMeta {
		if ok, _ := fs.Stat("copy/quarantine/meta/catalogue"); ok == 0 {
			t.Error("the damaged metadata is not in the quarantine")
		}
	}
	c.start(fs, "copy", lost, false, noMeta)
}
