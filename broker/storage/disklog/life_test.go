package disklog

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/internal/vfs"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/storage"
)

// TestRecycledSegment runs a log through recycled segments, full of batches of
// their earlier lives. None of those is ever taken for one of the log, at a
// clean start or after a kill in the middle.
func TestRecycledSegment(t *testing.T) {
	fs := vfs.NewMem()
	opts := fixed(small())
	opts.FirstBytes = 4 << 10
	e, err := Open(fs, "data", opts)
	check(t, err)
	o := newOracle(11)
	l, err := e.OpenLog(testID, o.options(nil))
	check(t, err)
	for range 60 {
		check(t, o.append(l, 2, 500))
		_, err := l.Retain(storage.Retention{MaxBytes: 12 << 10}, o.clock, o.end())
		check(t, err)
		o.start, o.maybe = l.Start(), l.Start()
		if o.rng.IntN(2) == 0 {
			check(t, o.sync(l))
		}
		// The active segment, and what is stale in it.
		s := l.(*Log).active
		if s == nil || !s.reuse || s.zeroed {
			continue
		}
		left := fs.Clone(vfs.CrashAll, 1)
		b, err := readFile(left, s.path(), 1<<20)
		check(t, err)
		if !bytes.Contains(b[s.pos:], batchMagic) {
			continue
		}
		e2, err := Open(left, "data", opts)
		check(t, err)
		l2, err := e2.OpenLog(testID, o.options(nil))
		check(t, err)
		check(t, o.check(l2, nil))
		if l2.End() != o.end() || l2.Stats().TornBytes != 0 {
			t.Fatalf("log ends at %d, want %d, %d bytes torn", l2.End(), o.end(), l2.Stats().TornBytes)
		}
		check(t, e2.Close())
	}
	if n := e.Stats().Recycled; n < 3 {
		t.Errorf("%d segments were recycled", n)
	}
	if n := e.Stats().SpareSegments; n > opts.Spares+2 || n == 0 {
		t.Errorf("%d spares", n)
	}
	check(t, e.Close())
}

// TestServedSegmentIsNotRecycled: the kernel may still be sending from pages of
// a file when all leases are gone, so a file that was handed to sendfile is
// deleted, never written to again.
func TestServedSegmentIsNotRecycled(t *testing.T) {
	for _, serve := range []bool{false, true} {
		dir := filepath.Join(t.TempDir(), "data")
		opts := fixed(small())
		opts.FirstBytes = 4 << 10
		opts.Spares = 3
		e, err := Open(vfs.OS(), dir, opts)
		check(t, err)
		o := newOracle(12)
		l, err := e.OpenLog(testID, o.options(nil))
		check(t, err)
		for range 20 {
			check(t, o.append(l, 2, 500))
		}
		segs := l.(*Log).segs
		var sent []*os.File // as the kernel holds them
		var want [][]byte
		for _, s := range segs {
			runs, err := l.Read(s.base, s.end, 1<<20, nil)
			check(t, err)
			for i := range runs {
				if serve {
					if runs[i].File.OS() == nil {
						t.Fatal("no kernel's file")
					}
					f, err := os.Open(s.path())
					check(t, err)
					b := make([]byte, runs[i].Len)
					check(t, readAt(f, b, runs[i].Pos))
					sent, want = append(sent, f), append(want, b)
				}
				runs[i].Release()
			}
			if len(want) < len(sent) {
				t.Fatal("one run a segment is expected")
			}
		}
		n, err := l.Retain(storage.Retention{MaxBytes: 1}, o.clock, o.end())
		check(t, err)
		if n == 0 || len(segs) < 3 {
			t.Fatalf("%d bytes removed of %d segments", n, len(segs))
		}
		for range 20 { // writes to whatever was recycled
			check(t, o.append(l, 2, 500))
		}
		if got := e.Stats().Recycled; (got > 0) == serve {
			t.Errorf("served %t, recycled %d", serve, got)
		}
		for i, f := range sent {
			b := make([]byte, len(want[i]))
			check(t, readAt(f, b, headerBytes))
			if !bytes.Equal(b, want[i]) {
				t.Error("bytes changed under the kernel")
			}
			check(t, f.Close())
		}
		check(t, e.Close())
	}
}

// TestLeaseHoldsSegment: a run read before retention, and before the log is
// closed, stays readable; with its release the file goes.
func TestLeaseHoldsSegment(t *testing.T) {
	fs := vfs.NewMem()
	opts := fixed(small())
	opts.OpenSegments = 1
	e, err := Open(fs, "data", opts)
	check(t, err)
	o := newOracle(13)
	l, err := e.OpenLog(testID, o.options(nil))
	check(t, err)
	for range 30 {
		check(t, o.append(l, 2, 500))
	}
	runs, err := l.Read(0, o.end(), 3000, nil)
	check(t, err)
	first := l.(*Log).segs[0].path()
	_, err = l.Retain(storage.Retention{MaxBytes: 1}, o.clock, o.end())
	check(t, err)
	if e.Stats().HeldBytes == 0 {
		t.Error("nothing counts as held")
	}
	if _, err := fs.Stat(first); err != nil {
		t.Errorf("a segment under a lease is gone: %v", err)
	}
	// Other segments come and go through the file cache meanwhile.
	_, _, err = readAll(l)
	check(t, err)
	got, err := unpack(&runs[0])
	check(t, err)
	check(t, o.prefix(got, 0, runs[0].End))
	for i := range runs {
		runs[i].Release()
	}
	if _, err := fs.Stat(first); !os.IsNotExist(err) {
		t.Errorf("a retired segment is still there: %v", err)
	}
	if n := e.Stats().HeldBytes; n != 0 {
		t.Errorf("%d bytes held", n)
	}
	check(t, e.Close())
}

// TestIdleLogsAreSmall opens hundreds of logs with segments of 64 MiB and puts
// one message into each.
func TestIdleLogsAreSmall(t *testing.T) {
	fs := vfs.NewMem()
	fs.SetCapacity(1 << 30)
	used := func() int64 {
		free, total, err := fs.Space("data")
		check(t, err)
		return total - free
	}
	e, err := Open(fs, "data", Options{})
	check(t, err)
	const logs = 300
	var open [logs]storage.Log
	for i := range open {
		id := testID
		id.Index = uint32(i)
		open[i], err = e.OpenLog(id, storage.LogOptions{})
		check(t, err)
	}
	before := used()
	for i := range open {
		check(t, open[i].Append((&oracle{build: message.NewBuilder(message.DefaultLimits())}).at(0, 1)))
		_, err := open[i].Sync()
		check(t, err)
	}
	if n := (used() - before) / logs; n > 8<<10 {
		t.Errorf("%d bytes of disk for a log with one message", n)
	}
	if n := e.Stats().SpareSegments; n != 0 {
		t.Errorf("%d spares that nobody needs", n)
	}
	check(t, e.Close())
}

// TestSparesAreMadeInTime: a log that fills its first segment finds a spare
// ready, and the number of spares stays what is configured.
func TestSparesAreMadeInTime(t *testing.T) {
	fs := vfs.NewMem()
	opts := fixed(Options{SegmentBytes: 64 << 10, FirstBytes: 16 << 10, Spares: 3, ReserveBytes: -1})
	e, err := Open(fs, "data", opts)
	check(t, err)
	o := newOracle(14)
	l, err := e.OpenLog(testID, storage.LogOptions{})
	check(t, err)
	for range 300 {
		check(t, o.append(l, 2, 800))
		names, err := fs.ReadDir(filepath.Join("data", spareDir))
		check(t, err)
		if len(names) > 3 {
			t.Fatalf("spares: %v", names)
		}
	}
	for i, s := range l.(*Log).segs {
		if s.reuse != (i > 0) {
			t.Errorf("segment %d of a spare: %t", i, s.reuse)
		}
	}
	if n := e.Stats().SpareSegments; n != enough(3) {
		t.Errorf("%d spares", n)
	}
	check(t, e.Close())
	// The next process takes them over under new ids.
	e, err = Open(fs, "data", opts)
	check(t, err)
	if n := e.Stats().SpareSegments; n != enough(3) {
		t.Errorf("%d spares after a restart", n)
	}
	opts.Spares = 1
	check(t, e.Close())
	e, err = Open(fs, "data", opts)
	check(t, err)
	if n := e.Stats().SpareSegments; n != 1 {
		t.Errorf("%d spares after a restart with fewer", n)
	}
	check(t, e.Close())
}

// TestSegmentAge: a slow log rolls by time.
func TestSegmentAge(t *testing.T) {
	fs := vfs.NewMem()
	opts := fixed(small())
	opts.SegmentAge = time.Minute
	e, err := Open(fs, "data", opts)
	check(t, err)
	o := newOracle(15)
	l, err := e.OpenLog(testID, storage.LogOptions{})
	check(t, err)
	for range 5 {
		check(t, o.append(l, 1, 10))
		o.clock += 45 * 1e6
	}
	if n := l.Stats().Segments; n != 3 {
		t.Errorf("%d segments", n)
	}
	n, err := l.Retain(storage.Retention{MaxAge: 2 * time.Minute}, o.clock, l.End())
	if err != nil || n == 0 || l.Start() != o.batches[2].base {
		t.Errorf("%d bytes removed, log starts at %d, %v", n, l.Start(), err)
	}
	check(t, e.Close())
}

// TestDirectory refuses directories in use, of a later version, and not ours.
func TestDirectory(t *testing.T) {
	fs := vfs.NewMem()
	e, err := Open(fs, "data", fixed(small()))
	check(t, err)
	_, err = Open(fs, "data", fixed(small()))
	var f *fault.Error
	if fault.CodeOf(err) != fault.Locked || !errors.As(err, &f) || !bytes.Contains([]byte(f.Detail), []byte("data")) {
		t.Errorf("second engine: %v", err)
	}
	for name, err := range map[string]error{
		"Verify":  func() error { _, err := Verify(fs, "data", nil, nil); return err }(),
		"Repair":  func() error { _, err := Repair(fs, "data", "copy", nil, nil); return err }(),
		"Inspect": Inspect(fs, "data", nil, func(*Item) error { return nil }),
	} {
		if fault.CodeOf(err) != fault.Locked {
			t.Errorf("%s of a directory in use: %v", name, err)
		}
	}
	check(t, e.StoreMeta("x", nil))
	check(t, e.Close())
	if _, err := Verify(fs, "nowhere", nil, nil); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("Verify of nothing: %v", err)
	}

	check(t, writeFile(fs, "data/FORMAT", []byte(formatLine(2))))
	_, err = Open(fs, "data", fixed(small()))
	if fault.CodeOf(err) != fault.NewerFormat || !errors.As(err, &f) || f.Value != 2 || f.Limit != 1 {
		t.Errorf("later version: %v", err)
	}
	check(t, writeFile(fs, "data/FORMAT", []byte("portask disklog 1\n")))
	if _, err = Open(fs, "data", fixed(small())); fault.CodeOf(err) != fault.Corrupted {
		t.Errorf("FORMAT without checksum: %v", err)
	}
	check(t, fs.Remove("data/FORMAT"))
	if _, err = Open(fs, "data", fixed(small())); fault.CodeOf(err) != fault.Corrupted {
		t.Errorf("no FORMAT beside metadata: %v", err)
	}
}

// TestOptions reports all violations, each with its limit.
func TestOptions(t *testing.T) {
	_, err := Open(vfs.NewMem(), "data", Options{SegmentBytes: 1, LowPercent: 101, Spares: 5000})
	for _, want := range []string{"SegmentBytes", "LowPercent", "Spares"} {
		if !bytes.Contains([]byte(err.Error()), []byte(want)) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	e, err := Open(vfs.NewMem(), "data", Options{ReserveBytes: -1})
	check(t, err)
	if _, err := e.OpenLog(testID, storage.LogOptions{SegmentBytes: 4 << 30}); fault.CodeOf(err) != fault.Invalid {
		t.Errorf("segments of 4 GiB: %v", err)
	}
	check(t, e.Close())
}

// TestLowDisk reports low at the configured share, and makes no spares then.
func TestLowDisk(t *testing.T) {
	fs := vfs.NewMem()
	fs.SetCapacity(1 << 20)
	opts := fixed(Options{SegmentBytes: 32 << 10, FirstBytes: 32 << 10, ReserveBytes: -1, LowPercent: 50})
	e, err := Open(fs, "data", opts)
	check(t, err)
	o := newOracle(16)
	l, err := e.OpenLog(testID, storage.LogOptions{})
	check(t, err)
	for {
		free, total, low, err := e.Space()
		check(t, err)
		if low != (free <= total/2) {
			t.Fatalf("low: %t with %d of %d bytes free", low, free, total)
		}
		if low && l.Stats().Rolls > 20 {
			break
		}
		spares := e.Stats().SpareSegments
		check(t, o.append(l, 2, 500))
		if n := e.Stats().SpareSegments; low && n > spares {
			t.Fatalf("a spare was made on a low disk")
		}
	}
	check(t, e.Close())
}

// TestDamagedMetaIsSetAside: what cannot be read is not overwritten.
func TestDamagedMetaIsSetAside(t *testing.T) {
	fs := vfs.NewMem()
	e, err := Open(fs, "data", fixed(small()))
	check(t, err)
	check(t, e.StoreMeta("x", []byte("first")))
	check(t, e.Close())
	check(t, damageMeta(fs, "data")("x"))
	bad, err := readFile(fs, "data/meta/x", 100)
	check(t, err)
	e, err = Open(fs, "data", fixed(small()))
	check(t, err)
	if _, err := e.LoadMeta("x"); fault.CodeOf(err) != fault.Corrupted {
		t.Errorf("damaged blob: %v", err)
	}
	check(t, e.StoreMeta("x", []byte("second")))
	b, err := e.LoadMeta("x")
	if err != nil || string(b) != "second" {
		t.Errorf("%q, %v", b, err)
	}
	kept, err := readFile(fs, "data/meta/x.damaged", 100)
	if err != nil || !bytes.Equal(kept, bad) {
		t.Errorf("the damaged blob: %q, %v", kept, err)
	}
	check(t, e.Close())
}
