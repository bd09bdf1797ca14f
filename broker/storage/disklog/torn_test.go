package disklog

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/internal/vfs"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/storage"
)

// unsyncedLog is a log of one segment, killed before anything in it was synced.
// The segment is zeroed, or recycled and full of stale batches.
func unsyncedLog(t testing.TB, recycled bool) *damageLog {
	t.Helper()
	d := &damageLog{t: t, fs: vfs.NewMem(), o: newOracle(30), opts: fixed(small())}
	d.opts.FirstBytes = 64 << 10
	e, err := Open(d.fs, "data", d.opts)
	check(t, err)
	defer func() { check(t, e.Close()) }()
	l, err := e.OpenLog(testID, storage.LogOptions{})
	check(t, err)
	if recycled {
		// A spare from another log, with stale batches to its end.
		path := d.path("0.seg")
		other := newOracle(31)
		b := make([]byte, headerBytes)
		h := header{seed: 1}
		h.put(b)
		for len(b) < 60<<10 {
			for _, x := range other.make(1, 500, 1) {
				message.Stamp(x.Bytes, x.Base, 1, 1, 1)
				b = append(b, x.Bytes...)
			}
			other.accepted++
		}
		check(t, writeFile(d.fs, path, append(b, make([]byte, 64<<10-len(b))...)))
		sp, err := e.recycle(path, 64<<10)
		check(t, err)
		e.work.free = append(e.work.free, sp)
		l.(*Log).opts.SegmentBytes = 64 << 10
		s, err := l.(*Log).attach(0, d.o.clock, true)
		check(t, err)
		l.(*Log).segs, l.(*Log).active = []*segment{s}, s
		var head [headerBytes]byte
		h = header{flags: flagAttached, seed: s.seed, id: testID, created: d.o.clock}
		h.put(head[:])
		_, err = s.file.WriteAt(head[:], 0)
		check(t, err)
	}
	for range 8 {
		check(t, d.o.append(l, 1, 900))
	}
	s := l.(*Log).segs[0]
	if len(l.(*Log).segs) != 1 || s.zeroed == recycled {
		t.Fatalf("%d segments, zeroed %t", len(l.(*Log).segs), s.zeroed)
	}
	d.segs, d.ends = []message.Offset{0}, []message.Offset{s.end}
	d.fs = d.fs.Clone(vfs.CrashAll, 0)
	return d
}

// open opens the engine and the log.
func (d *damageLog) open() (*Engine, storage.Log) {
	d.t.Helper()
	e, err := Open(d.fs, "data", d.opts)
	check(d.t, err)
	l, err := e.OpenLog(testID, storage.LogOptions{})
	check(d.t, err)
	return e, l
}

// TestFlipInUnsyncedLog: damage that can be told from a lost write is damage
// though nothing was ever synced: all but the batch that was hit is kept.
func TestFlipInUnsyncedLog(t *testing.T) {
	for _, recycled := range []bool{false, true} {
		d := unsyncedLog(t, recycled)
		pos, w := d.batch(0, 3)
		whole := d.fs
		for at := pos; at < pos+int64(len(w.bytes)); at += 1 + at%5 {
			d.fs = whole.Clone(vfs.CrashAll, 0)
			check(t, flip(d.fs, d.seg(0), at, int(at%8)))
			e, l := d.open()
			got, gaps, err := readAll(l)
			check(t, err)
			d.compare(got, gaps, [][2]message.Offset{{w.base, w.end}}, 0)
			if l.End() != d.o.end() || l.Stats().TornBytes != 0 {
				t.Fatalf("recycled %t, position %d: log ends at %d, %+v", recycled, at, l.End(), l.Stats())
			}
			check(t, e.Close())
		}
	}
}

// TestUnwrittenRange: sectors of an unsynced log that were never written, with
// later ones that were. The log ends there, and what was cut off is saved.
func TestUnwrittenRange(t *testing.T) {
	for _, recycled := range []bool{false, true} {
		d := unsyncedLog(t, recycled)
		pos, w := d.batch(0, 3)
		from := (pos + 511) &^ 511
		lost := make([]byte, 512)
		if recycled {
			copy(lost, bytes.Repeat([]byte("stale"), 103))
		}
		d.overwrite(d.seg(0), from, lost)
		r, err := Verify(d.fs, "data", nil, nil)
		check(t, err)
		if r.Damaged() || !names(r.Problems, d.seg(0), TornTail) {
			t.Errorf("recycled %t: Verify found %v", recycled, r.Problems)
		}
		e, l := d.open()
		if l.End() != w.base || l.Stats().Corruptions != 0 || l.Stats().TornBytes == 0 {
			t.Fatalf("recycled %t: log ends at %d, want %d: %+v", recycled, l.End(), w.base, l.Stats())
		}
		check(t, e.Close())

		// The batches behind are all in the file that was saved.
		name := cutName(w.base, l.Epoch())
		b, err := readFile(d.fs, d.path(name), 1<<20)
		check(t, err)
		for _, w := range d.o.batches[4:] {
			if !bytes.Contains(b, w.bytes[36:]) {
				t.Errorf("batch at %d is not in %s", w.base, name)
			}
		}
		var h header
		check(t, h.parse(b))
		if h.base != w.base || h.id != testID {
			t.Errorf("saved under %+v", h)
		}
		r, err = Verify(d.fs, "data", nil, nil)
		check(t, err)
		if r.Damaged() || !names(r.Problems, d.path(name), TornSaved) {
			t.Errorf("Verify found %v", r.Problems)
		}
		_, err = Repair(d.fs, "data", "copy", nil, nil)
		check(t, err)
		if n, _ := d.fs.Stat(filepath.Join("copy", quarantineDir, logsDir, testID.String(), name)); n != int64(len(b)) {
			t.Errorf("%d bytes in quarantine", n)
		}
	}
}

// TestJunkBehindTheEnd: bytes of a batch whose beginning was not written are cut
// off, and are not there at the next start.
func TestJunkBehindTheEnd(t *testing.T) {
	d := unsyncedLog(t, false)
	size, err := d.fs.Stat(d.seg(0))
	check(t, err)
	d.overwrite(d.seg(0), size+700, []byte("the end of a batch"))
	for i, want := range []int64{718, 0} {
		e, l := d.open()
		if l.End() != d.o.end() || l.Stats().TornBytes != want {
			t.Errorf("start %d: log ends at %d, %d bytes torn", i, l.End(), l.Stats().TornBytes)
		}
		check(t, e.Close())
	}
}

// TestHeaderIsMended: a spare's header in an attached segment (the attached one
// was lost with the power), and a damaged one, are written again.
func TestHeaderIsMended(t *testing.T) {
	for _, damaged := range []bool{false, true} {
		d := newDamageLog(t)
		b, err := readFile(d.fs, d.seg(-1), 1<<20)
		check(t, err)
		var h header
		check(t, h.parse(b))
		spare := header{flags: h.flags &^ flagAttached, seed: h.seed}
		spare.put(b)
		if damaged {
			b[9] ^= 1
		}
		d.overwrite(d.seg(-1), 0, b[:headerBytes])
		e, l := d.open()
		if l.End() != d.o.end() {
			t.Errorf("log ends at %d", l.End())
		}
		check(t, e.Close())
		b, err = readFile(d.fs, d.seg(-1), 1<<20)
		check(t, err)
		var again header
		check(t, again.parse(b))
		if again.seed != h.seed || again.base != h.base || again.id != h.id || !again.attached() {
			t.Errorf("header is %+v, was %+v", again, h)
		}
	}
}

// TestRefusedBatchesStayAway: what a full disk refused cannot come back with a
// power cut, whatever sectors survive: the same offsets were given again.
func TestRefusedBatchesStayAway(t *testing.T) {
	mem := vfs.NewMem()
	full := false
	fs := vfs.NewFault(mem, func(op vfs.Op) vfs.Decision {
		if full && op.Kind == vfs.OpWrite && strings.HasSuffix(op.Name, segSuffix) && op.Len > 3000 {
			full = false
			return vfs.Decision{Err: syscall.ENOSPC, Short: op.Len - 100}
		}
		return vfs.Decision{}
	})
	o := newOracle(33)
	e, err := Open(fs, "data", fixed(small()))
	check(t, err)
	l, err := e.OpenLog(testID, storage.LogOptions{})
	check(t, err)
	check(t, o.append(l, 2, 300))
	check(t, o.sync(l))
	full = true
	refused := o.make(6, 900, l.Epoch())
	if err := l.Append(refused); fault.CodeOf(err) != fault.StorageFull {
		t.Fatal(err)
	}
	// The first of them is sent again, and only that: the others would fit
	// behind it to the byte.
	check(t, l.Append(refused[:1]))
	o.accepted++
	o.batches = o.batches[:o.accepted]
	for seed := range uint64(300) {
		e, err := Open(mem.Clone(vfs.CrashRandom, seed), "data", fixed(small()))
		check(t, err)
		l, err := e.OpenLog(testID, storage.LogOptions{})
		check(t, err)
		check(t, o.check(l, nil))
		check(t, e.Close())
	}
	check(t, e.Close())
}

// TestDurableRecords: a record that is not synced leaves the last synced one
// alone, and neither the start nor the durable end goes back.
func TestDurableRecords(t *testing.T) {
	fs := vfs.NewMem()
	check(t, fs.MkdirAll("log", 0o755))
	d, err := createDurable(fs, "log", record{id: testID, segBase: message.NoOffset})
	check(t, err)
	check(t, d.write(record{id: testID, segBase: 0, segSeed: 5, pos: 77, durable: 10}, true))
	check(t, d.write(record{id: testID, segBase: message.NoOffset, start: 3, durable: 5}, false))
	if r := d.newest(); r.start != 3 || r.durable != 10 || r.segSeed != 5 || r.pos != 77 {
		t.Errorf("%+v", r)
	}
	for range 5 {
		check(t, d.write(record{id: testID, segBase: 0, segSeed: 5, pos: 99, durable: 20}, false))
		if d.newest().start != 3 {
			t.Error("the log start went back")
		}
		b, err := readFile(fs, "log/durable", 1<<16)
		check(t, err)
		var r record
		check(t, r.parse(b[d.synced*recordStride:]))
		if r.pos != 77 || r.durable != 10 {
			t.Errorf("the synced record became %+v", r)
		}
	}
	check(t, d.f.Close())
}

// TestEpochAfterDamage: the record with the last epoch is lost, and the other is
// of the epoch before.
func TestEpochAfterDamage(t *testing.T) {
	fs := vfs.NewMem()
	open := func() (*Engine, storage.Log) {
		e, err := Open(fs, "data", fixed(small()))
		check(t, err)
		l, err := e.OpenLog(testID, storage.LogOptions{})
		check(t, err)
		return e, l
	}
	e, _ := open()
	check(t, e.Close())
	e, l := open()
	fs = fs.Clone(vfs.CrashAll, 0) // killed
	newest := int64(l.(*Log).dur.synced) * recordStride
	check(t, flip(fs, filepath.Join("data", logsDir, testID.String(), durableName), newest+20, 3))
	e2, l2 := open()
	if l2.Epoch() <= l.Epoch() {
		t.Errorf("epoch %d after %d", l2.Epoch(), l.Epoch())
	}
	check(t, e2.Close())
	check(t, e.Close())
}

// TestRemovedLogStaysRemoved, also after a power cut, and its files go.
func TestRemovedLogStaysRemoved(t *testing.T) {
	for _, mode := range vfs.CrashModes {
		d := newDamageLog(t)
		e, err := Open(d.fs, "data", d.opts)
		check(t, err)
		check(t, e.RemoveLog(testID))
		left := d.fs.Clone(mode, 2)
		check(t, e.Close())
		e, err = Open(left, "data", d.opts)
		check(t, err)
		if ids, err := e.ListLogs(); err != nil || len(ids) != 0 {
			t.Errorf("%v: %v, %v", mode, ids, err)
		}
		if names, err := left.ReadDir("data/trash"); err != nil || len(names) != 0 {
			t.Errorf("%v: in the trash: %v, %v", mode, names, err)
		}
		check(t, e.Close())
	}
}

// TestPinAfterTheLogLetGo: a reader that has a reference but did not open the
// file yet, when the segment is retired and others fill the cache.
func TestPinAfterTheLogLetGo(t *testing.T) {
	d := newDamageLog(t)
	d.opts.OpenSegments = 1
	e, l := d.open()
	segs := slices.Clone(l.(*Log).segs)
	s := segs[0]
	s.Retain() // as a reader does under the lock
	s.log.eng.files.leave(s)
	check(t, e.files.pin(s))
	for _, other := range segs[1:3] {
		other.Retain()
		check(t, e.files.pin(other))
		other.Release()
	}
	if s.file == nil {
		t.Error("the file was closed under a reader")
	}
	l.(*Log).segs = l.(*Log).segs[1:]
	s.Release()
	check(t, e.Close())
}

// TestNewerSegmentIsLeftAlone: a segment, a record or a batch of a later version
// is refused with a code of its own, and nothing is changed.
func TestNewerSegmentIsLeftAlone(t *testing.T) {
	for name, change := range map[string]func(d *damageLog){
		"segment": func(d *damageLog) {
			b, err := readFile(d.fs, d.seg(-1), 1<<20)
			check(t, err)
			b[4] = 2
			sealCRC(b[:headerBytes])
			d.overwrite(d.seg(-1), 0, b[:headerBytes])
		},
		"trailer": func(d *damageLog) {
			b, err := readFile(d.fs, d.seg(1), 1<<20)
			check(t, err)
			b[len(b)-trailerBytes+4] = 2
			sealCRC(b[len(b)-trailerBytes:])
			d.overwrite(d.seg(1), 0, b)
		},
		"record": func(d *damageLog) {
			b, err := readFile(d.fs, d.path(durableName), 1<<20)
			check(t, err)
			b[4] = 2
			sealCRC(b[:recordBytes])
			d.overwrite(d.path(durableName), 0, b)
		},
	} {
		d := newDamageLog(t)
		change(d)
		before := contentsOf(t, d.fs, "data")
		e, err := Open(d.fs, "data", d.opts)
		check(t, err)
		_, err = e.OpenLog(testID, storage.LogOptions{})
		var f *fault.Error
		if fault.CodeOf(err) != fault.NewerFormat || !errors.As(err, &f) || f.Value != 2 || f.Limit != 1 {
			t.Errorf("%s: %v", name, err)
		}
		check(t, e.Close())
		if after := contentsOf(t, d.fs, "data"); after != before {
			t.Errorf("%s: files were changed", name)
		}
	}
}

// TestForeignDirectory: a log's directory under another log's name is refused.
func TestForeignDirectory(t *testing.T) {
	d := newDamageLog(t)
	id := testID
	id.Index++
	check(t, d.fs.Rename(d.path(""), filepath.Join("data", logsDir, id.String())))
	e, err := Open(d.fs, "data", d.opts)
	check(t, err)
	if _, err := e.OpenLog(id, storage.LogOptions{}); fault.CodeOf(err) != fault.Corrupted {
		t.Errorf("%v", err)
	}
	check(t, e.Close())
	r, err := Verify(d.fs, "data", nil, nil)
	check(t, err)
	if !r.Damaged() {
		t.Error("Verify found nothing")
	}
}

// TestOverlap: two segments that claim the same offsets are for a person to
// choose between.
func TestOverlap(t *testing.T) {
	d := newDamageLog(t)
	b, err := readFile(d.fs, d.seg(1), 1<<20)
	check(t, err)
	base := d.segs[1] + 1
	var h header
	check(t, h.parse(b))
	h.base = base
	h.put(b)
	check(t, writeFile(d.fs, d.path(segName(base)), b))
	before := contentsOf(t, d.fs, "data")
	e, err := Open(d.fs, "data", d.opts)
	check(t, err)
	if _, err := e.OpenLog(testID, storage.LogOptions{}); fault.CodeOf(err) != fault.Corrupted || !strings.Contains(err.Error(), segName(base)) {
		t.Errorf("%v", err)
	}
	check(t, e.Close())
	if contentsOf(t, d.fs, "data") != before {
		t.Error("files were changed")
	}
	r, err := Verify(d.fs, "data", nil, nil)
	check(t, err)
	if !names(r.Problems, d.path(segName(base)), SegmentOverlap) {
		t.Errorf("Verify found %v", r.Problems)
	}
	_, err = Repair(d.fs, "data", "copy", nil, nil)
	check(t, err)
	if _, err := d.fs.Stat(filepath.Join("copy", quarantineDir, logsDir, testID.String(), segName(base))); os.IsNotExist(err) {
		t.Error("the segments are not in the quarantine")
	}
}
