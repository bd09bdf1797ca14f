package disklog

import (
	"bytes"
	"errors"
	"io/fs"
	"path/filepath"
	"testing"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/internal/vfs"
	"github.com/portask/portask/broker/message"
)

// TestStrayEmptySegment puts a file that is no segment, but is named like one,
// at every kind of place in a log: it costs no message, neither at a start nor
// in a repair.
func TestStrayEmptySegment(t *testing.T) {
	for _, size := range []int{0, 1, headerBytes - 1} {
		d := newDamageLog(t)
		for name, base := range map[string]message.Offset{
			"within a segment":   d.segs[1] + 1,
			"within the active":  d.ends[len(d.ends)-1] - 1,
			"at the end":         d.ends[len(d.ends)-1],
			"far behind the end": d.ends[len(d.ends)-1] + 1000,
		} {
			t.Run(name, func(t *testing.T) {
				c, o := *d, *d.o
				c.t, c.o, c.fs = t, &o, d.fs.Clone(vfs.CrashAll, 0)
				file := c.path(segName(base))
				check(t, writeFile(c.fs, file, bytes.Repeat([]byte{7}, size)))
				r, err := Verify(c.fs, "data", nil, nil)
				check(t, err)
				if below := base < c.o.end(); r.Damaged() != below || below && !names(r.Problems, file, SegmentUnknown) {
					t.Errorf("Verify found %v", r.Problems)
				}
				if r.Batches != len(c.o.batches) {
					t.Errorf("%d batches of %d", r.Batches, len(c.o.batches))
				}
				c.repair(nil)
				c.start(c.fs, "data", nil, true, false)
				if r, err := Verify(c.fs, "data", nil, nil); err != nil || r.Damaged() {
					t.Errorf("after a start: %v, %v", r.Problems, err)
				}
			})
		}
	}
}

// TestStrayDirectory is the same with a directory.
func TestStrayDirectory(t *testing.T) {
	d := newDamageLog(t)
	end := d.ends[len(d.ends)-1]
	for _, base := range []message.Offset{d.segs[1] + 1, end, end + 1000} {
		c, o := *d, *d.o
		c.o, c.fs = &o, d.fs.Clone(vfs.CrashAll, 0)
		file := c.path(segName(base))
		check(t, c.fs.MkdirAll(filepath.Join(file, "inside"), 0o755))
		r, err := Verify(c.fs, "data", nil, nil)
		check(t, err)
		if r.Damaged() || !names(r.Problems, file, UnknownFile) || r.Batches != len(c.o.batches) {
			t.Errorf("Verify found %v, %d batches", r.Problems, r.Batches)
		}
		c.repair(nil)
		c.start(c.fs, "data", nil, true, false)
	}
}

// TestRepairThatFailsIsNotOpened makes each write of a repair fail: no engine
// takes what is left for a data directory.
func TestRepairThatFailsIsNotOpened(t *testing.T) {
	d := newDamageLog(t)
	broken := errors.New("broken")
	for n, done := 0, false; !done; n++ {
		if n > 1000 {
			t.Fatal("a repair takes more than 1000 writes")
		}
		mem := d.fs.Clone(vfs.CrashAll, 0)
		left := n
		mem.OnOp(func(vfs.Op) error {
			if left--; left < 0 {
				return broken
			}
			return nil
		})
		_, err := Repair(mem, "data", "copy", nil, nil)
		mem.OnOp(nil)
		if done = err == nil; done {
			continue
		}
		names, err := mem.ReadDir("copy")
		if errors.Is(err, fs.ErrNotExist) || len(names) == 0 {
			continue // nothing is there
		}
		var e *Engine
		e, err = Open(mem, "copy", d.opts)
		if err == nil {
			// Only if all is written, and the last sync is what failed.
			check(t, e.Close())
			if v, err := Verify(mem, "copy", nil, nil); err != nil || v.Batches != len(d.o.batches) || v.Damaged() {
				t.Errorf("after %d writes the copy is opened: %v, %+v, %v", n, names, v, err)
			}
		} else if fault.CodeOf(err) != fault.Corrupted {
			t.Errorf("after %d writes: %v", n, err)
		}
	}
}
