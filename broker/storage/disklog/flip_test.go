package disklog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/internal/vfs"
	"github.com/portask/portask/broker/storage"
)

// flipLog makes a log of about 16 KiB in several segments, with metadata and a
// snapshot file, and returns what is in it. With closed it was closed in order;
// else the process was killed after a sync.
func flipLog(t testing.TB, closed bool) (*vfs.Mem, *oracle, Options) {
	t.Helper()
	fs := vfs.NewMem()
	o := newOracle(5)
	opts := fixed(small())
	opts.Spares = -1
	e, err := Open(fs, "data", opts)
	check(t, err)
	lo := o.options(nil)
	lo.SegmentBytes = 4 << 10
	l, err := e.OpenLog(testID, lo)
	check(t, err)
	for range 6 {
		check(t, o.append(l, 1, 900))
	}
	_, err = l.Retain(storage.Retention{MaxBytes: 1}, o.clock, o.end())
	check(t, err)
	o.start, o.maybe = l.Start(), l.Start()
	for range 10 {
		check(t, o.append(l, 2, 640))
		check(t, o.sync(l))
	}
	check(t, o.sync(l))
	check(t, e.StoreMeta("catalogue", o.value(100)))
	o.epoch = l.Epoch()
	if !closed {
		left := fs.Clone(vfs.CrashAll, 1)
		check(t, e.Close())
		return left, o, opts
	}
	check(t, e.Close())
	return fs.Clone(vfs.CrashAll, 1), o, opts
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// allFiles lists the files below a directory, without the reserve and the lock,
// in which nothing is written.
func allFiles(t testing.TB, fs vfs.FS, dir string) (files []string) {
	t.Helper()
	names, err := fs.ReadDir(dir)
	check(t, err)
	for _, name := range names {
		path := filepath.Join(dir, name)
		if _, err := fs.ReadDir(path); err == nil {
			files = append(files, allFiles(t, fs, path)...)
		} else if name != lockName && name != reserveName {
			files = append(files, path)
		}
	}
	return files
}

// flip turns one bit over, durably.
func flip(fs vfs.FS, file string, pos int64, bit int) error {
	f, err := fs.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var b [1]byte
	if err := readAt(f, b[:], pos); err != nil {
		return err
	}
	b[0] ^= 1 << bit
	if _, err := f.WriteAt(b[:], pos); err != nil {
		return err
	}
	return f.Sync()
}

// TestBitFlips turns over every bit of every byte that the engine wrote: of
// batches, segment headers, footers, the durable file, the snapshot, metadata
// and FORMAT. Each is found by Verify, in the file where it is; and a broker
// that starts on it serves every batch but the one that was hit.
func TestBitFlips(t *testing.T) {
	for _, closed := range []bool{true, false} {
		t.Run(fmt.Sprintf("closed=%t", closed), func(t *testing.T) {
			fs, o, opts := flipLog(t, closed)
			r, err := Verify(fs, "data", nil, nil)
			check(t, err)
			if len(r.Problems) > 0 || r.Batches < 8 || r.Segments < 3 || r.Bytes < 9<<10 {
				t.Fatalf("the log to begin with: %+v", r)
			}
			files := allFiles(t, fs, "data")
			t.Logf("%d batches, %d bytes in %d segments, files: %s", r.Batches, r.Bytes, r.Segments, strings.Join(files, " "))
			var wg sync.WaitGroup
			for part := range 2 { // for two cores
				left := fs.Clone(vfs.CrashAll, 0)
				wg.Go(func() { flipAll(t, left, o, opts, files, int64(part), 2, closed) })
			}
			wg.Wait()
		})
	}
}

func flipAll(t *testing.T, fs *vfs.Mem, o *oracle, opts Options, files []string, part, parts int64, closed bool) {
	for _, file := range files {
		size, err := fs.Stat(file)
		if err != nil {
			t.Error(err)
			return
		}
		for pos := part; pos < size; pos += parts {
			if filepath.Base(file) == durableName && pos >= recordBytes && pos < recordStride {
				continue // a hole between the records, never written
			}
			for bit := range 8 {
				// Verify looks for every bit. A start of the broker takes
				// longer: of segments one bit of each byte. So does all of it
				// for the second log.
				one := bit == int(pos/parts%8)
				if !one && !closed {
					continue
				}
				start := one || !strings.HasSuffix(file, segSuffix)
				if err := oneFlip(fs, o, opts, file, pos, bit, start); err != nil {
					t.Errorf("bit %d at position %d of %s: %v", bit, pos, file, err)
					return
				}
			}
		}
	}
}

func oneFlip(fs *vfs.Mem, o *oracle, opts Options, file string, pos int64, bit int, start bool) error {
	if err := flip(fs, file, pos, bit); err != nil {
		return err
	}
	err := verifyFinds(fs, file, pos)
	if err == nil && start {
		err = startsOn(fs.Clone(vfs.CrashAll, 0), o, opts, file, pos)
	}
	return errors.Join(err, flip(fs, file, pos, bit))
}

// verifyFinds wants a problem in the file, and in a batch's case that position.
func verifyFinds(fs vfs.FS, file string, pos int64) error {
	r, err := Verify(fs, "data", nil, nil)
	if err != nil {
		return err
	}
	for _, p := range r.Problems {
		if filepath.Join("data", p.File) != file {
			continue
		}
		inside := p.Pos <= pos && pos < p.Pos+p.Len
		if inside || p.Len == 0 || p.Class == TornTail {
			return nil
		}
	}
	return fmt.Errorf("Verify found %v", r.Problems)
}

// startsOn opens the engine and reads everything.
func startsOn(fs vfs.FS, o *oracle, opts Options, file string, pos int64) error {
	e, err := Open(fs, "data", opts)
	if filepath.Base(file) == formatName {
		if fault.CodeOf(err) != fault.Corrupted {
			return fmt.Errorf("Open: %v", err)
		}
		return nil
	}
	if err != nil {
		return err
	}
	defer e.Close()
	if _, err := e.LoadMeta("catalogue"); (fault.CodeOf(err) == fault.Corrupted) != (filepath.Base(file) == "catalogue") {
		return fmt.Errorf("LoadMeta: %v", err)
	}
	l, err := e.OpenLog(testID, o.options(&refold{}))
	if err != nil {
		return err
	}
	if l.Epoch() <= o.epoch {
		return fmt.Errorf("epoch %d after %d", l.Epoch(), o.epoch)
	}
	got, gaps, err := readAll(l)
	if err != nil {
		return err
	}
	// Exactly one batch may be missing: the one that was hit.
	var lost []*written
	for i := range o.batches {
		w := &o.batches[i]
		switch {
		case w.end <= o.start:
		case len(got) > 0 && w.same(got[0].bytes):
			got = got[1:]
		default:
			lost = append(lost, w)
		}
	}
	if len(got) > 0 {
		return fmt.Errorf("batch at %d was never appended", got[0].base)
	}
	if len(lost) == 0 {
		return nil
	}
	base, ok := parseSegName(filepath.Base(file))
	if len(lost) > 1 || !ok {
		return fmt.Errorf("%d batches lost, the first at %d", len(lost), lost[0].base)
	}
	p := int64(headerBytes) // of the lost one
	for _, w := range o.batches {
		if w.base >= base && w.base < lost[0].base {
			p += int64(len(w.bytes))
		}
	}
	if pos < p || pos >= p+int64(len(lost[0].bytes)) {
		return fmt.Errorf("the batch at %d is lost, which was not hit", lost[0].base)
	}
	if l.End() == o.end() {
		if len(gaps) != 1 || gaps[0].From != lost[0].base || gaps[0].Next != lost[0].end {
			return fmt.Errorf("gaps %v", gaps)
		}
	} else if l.End() != lost[0].base || lost[0].end != o.end() {
		return fmt.Errorf("log ends at %d", l.End())
	}
	return nil
}
