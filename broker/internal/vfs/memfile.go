package vfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// memFile is an open file of a Mem.
type memFile struct {
	m      *Mem
	n      *node
	name   string
	flag   int
	closed bool // guarded by m.mu
}

var errNegative = errors.New("negative offset")

// check says whether the handle may be used. Called with mu held.
func (f *memFile) check(write bool) error {
	switch {
	case f.closed:
		return fs.ErrClosed
	case write && f.flag&(os.O_WRONLY|os.O_RDWR) == 0:
		return errBadFile
	}
	return nil
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.m.mu.RLock()
	defer f.m.mu.RUnlock()
	err := f.check(false)
	switch {
	case err == nil && off < 0:
		err = errNegative
	case err == nil && f.flag&os.O_WRONLY != 0:
		err = errBadFile
	}
	if err != nil {
		return 0, pathError("read", f.name, err)
	}
	n := f.n.data.read(p, off)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	var one [1][]byte
	one[0] = p
	return f.WritevAt(one[:], off)
}

func (f *memFile) WritevAt(bufs [][]byte, off int64) (int, error) {
	total := 0
	for _, b := range bufs {
		total += len(b)
	}
	f.m.mu.RLock()
	err := f.check(true)
	f.m.mu.RUnlock()
	if err == nil && off < 0 {
		err = errNegative
	}
	if err != nil || total == 0 {
		return 0, pathError("write", f.name, err)
	}
	if err := f.m.before(Op{Kind: OpWrite, Name: f.name, Off: off, Len: total}); err != nil {
		return 0, pathError("write", f.name, err)
	}
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.check(true); err != nil {
		return 0, pathError("write", f.name, err)
	}
	n := 0
	for _, b := range bufs {
		w, pages := f.n.data.write(b, off, f.m.room())
		f.m.used += int64(pages) * pageBytes
		n += w
		off += int64(w)
		if w < len(b) {
			return n, pathError("write", f.name, syscall.ENOSPC)
		}
	}
	return n, nil
}

// alter runs a change of the file between the checks that all of them need.
func (f *memFile) alter(op Op, name string, write bool, change func() error) error {
	f.m.mu.RLock()
	err := f.check(write)
	f.m.mu.RUnlock()
	if err == nil {
		op.Name = f.name
		err = f.m.before(op)
	}
	if err == nil {
		f.m.mu.Lock()
		defer f.m.mu.Unlock()
		if err = f.check(write); err == nil {
			err = change()
		}
	}
	return pathError(name, f.name, err)
}

func (f *memFile) sync() error {
	f.n.data.sync()
	return nil
}

func (f *memFile) Sync() error    { return f.alter(Op{Kind: OpSync}, "fdatasync", false, f.sync) }
func (f *memFile) SyncAll() error { return f.alter(Op{Kind: OpSyncAll}, "fsync", false, f.sync) }

func (f *memFile) Truncate(size int64) error {
	if size < 0 {
		return pathError("truncate", f.name, syscall.EINVAL)
	}
	return f.alter(Op{Kind: OpTruncate, Off: size}, "truncate", true, func() error {
		f.m.used += int64(f.n.data.truncate(size)) * pageBytes
		return nil
	})
}

func (f *memFile) Allocate(size int64) error {
	if size <= 0 {
		f.m.mu.RLock()
		defer f.m.mu.RUnlock()
		return pathError("fallocate", f.name, f.check(false))
	}
	return f.alter(Op{Kind: OpAllocate, Off: size}, "fallocate", true, func() error {
		pages, ok := f.n.data.allocate(size, f.m.room())
		if !ok {
			return syscall.ENOSPC
		}
		f.m.used += int64(pages) * pageBytes
		return nil
	})
}

func (f *memFile) Size() (int64, error) {
	f.m.mu.RLock()
	defer f.m.mu.RUnlock()
	if err := f.check(false); err != nil {
		return 0, pathError("stat", f.name, err)
	}
	return f.n.data.size, nil
}

func (f *memFile) Close() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.check(false); err != nil {
		return pathError("close", f.name, err)
	}
	f.closed = true
	f.n.opens--
	f.m.reclaim(f.n)
	return nil
}

func (f *memFile) OS() *os.File { return nil }

// loseUnsynced makes what is not yet durable never be, although readers see it:
// what Linux does with the pages of a failed fsync. For Fault.
func (f *memFile) loseUnsynced() {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	f.n.data.forget()
}
