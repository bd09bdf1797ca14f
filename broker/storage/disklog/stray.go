package disklog

import (
	"fmt"
	"path/filepath"

	"github.com/portask/portask/broker/internal/vfs"
	"github.com/portask/portask/broker/message"
)

// stray is something with the name of a segment that cannot be one: a directory,
// or a file too short for a header. It is kept out of the chain, so that it says
// nothing about the segments beside it.
type stray struct {
	base message.Offset
	size int64
	dir  bool
}

// isDir reports whether name is a directory; size is what Stat said.
func isDir(fsys vfs.FS, name string, size int64) bool {
	if size != 0 {
		return false
	}
	_, err := fsys.ReadDir(name)
	return err == nil
}

// sortOut takes strays out of the bases.
func (r *recovery) sortOut() error {
	kept := r.bases[:0]
	for _, base := range r.bases {
		name := filepath.Join(r.l.dir, segName(base))
		size, err := r.fs.Stat(name)
		if err != nil {
			return err
		}
		if size >= headerBytes {
			kept = append(kept, base)
			continue
		}
		r.strays = append(r.strays, stray{base: base, size: size, dir: isDir(r.fs, name, size)})
	}
	r.bases = kept
	return nil
}

// judgeStrays says what the strays are, once the end of the log is known. A
// file at or behind the end was made by a crash: it is dropped like a segment
// that was never synced. One below it was not left by this engine, or has lost
// what it held; then the range it held is missing, and said so by plan.
func (r *recovery) judgeStrays() {
	for _, s := range r.strays {
		file := filepath.Join(r.l.rel, segName(s.base))
		switch {
		case s.dir:
			r.problem = append(r.problem, Problem{Class: UnknownFile, File: file, Detail: "a directory with the name of a segment: left out"})
		case s.base >= r.end:
			r.dropped = append(r.dropped, s.base)
		default:
			r.found = append(r.found, Problem{Class: SegmentUnknown, File: file, Len: s.size,
				Detail: fmt.Sprintf("too short for a header, with %d bytes: left out", s.size)})
		}
	}
}

// moveStrays gives strays that are not dropped a name under which nothing looks
// for a segment. A directory that cannot be moved stays: it is in the way only
// if a segment is to begin there.
func (r *recovery) moveStrays() error {
	for _, s := range r.strays {
		if !s.dir && s.base >= r.end {
			continue // among the dropped
		}
		path := filepath.Join(r.l.dir, segName(s.base))
		err := r.fs.Rename(path, path+damagedSuffix)
		if err != nil && s.dir {
			r.l.eng.warn("move directory out of the way", path, err)
			continue
		}
		if err != nil {
			return err
		}
		r.touched = true
	}
	return nil
}
