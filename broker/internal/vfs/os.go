package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"github.com/gofrs/flock"
)

// OS returns the real file system.
func OS() FS { return osFS{} }

type osFS struct{}

func (osFS) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	if flag&os.O_APPEND != 0 {
		return nil, &fs.PathError{Op: "open", Path: name, Err: errAppend}
	}
	f, err := os.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	// A directory opens read-only on unix and fails at the first read; say it
	// here, as Mem does.
	if flag&(os.O_WRONLY|os.O_RDWR) == 0 {
		st, err := f.Stat()
		if err == nil && st.IsDir() {
			err = &fs.PathError{Op: "open", Path: name, Err: errIsDir}
		}
		if err != nil {
			f.Close()
			return nil, err
		}
	}
	return &osFile{f: f}, nil
}

func (osFS) Rename(oldName, newName string) error { return os.Rename(oldName, newName) }
func (osFS) Remove(name string) error             { return os.Remove(name) }

func (osFS) MkdirAll(dir string, perm fs.FileMode) error { return os.MkdirAll(dir, perm) }

func (osFS) ReadDir(dir string) ([]string, error) {
	list, err := os.ReadDir(dir) // sorted by name
	if err != nil {
		return nil, err
	}
	names := make([]string, len(list))
	for i, e := range list {
		names[i] = e.Name()
	}
	return names, nil
}

func (osFS) SyncDir(dir string) error { return syncDir(dir) }

func (osFS) Stat(name string) (int64, error) {
	st, err := os.Stat(name)
	if err != nil {
		return 0, err
	}
	if st.IsDir() {
		return 0, nil
	}
	return st.Size(), nil
}

// Lock uses flock(2) on unix and LockFileEx on windows: both end with the
// process, so a crash leaves no stale lock.
func (osFS) Lock(name string) (io.Closer, error) {
	l := flock.New(name)
	ok, err := l.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	if !ok {
		return nil, fmt.Errorf("lock %s: %w", name, ErrLocked)
	}
	return l, nil
}

func (osFS) Space(dir string) (free, total int64, err error) {
	free, total, err = space(dir)
	if err != nil {
		err = &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return free, total, err
}

// osFile is a file of the operating system.
//
// The raw system calls use the descriptor's number. closing keeps Close from
// giving that number back to the kernel while such a call runs: the number
// could be another file by the time the call looks at it.
type osFile struct {
	f       *os.File
	closing sync.RWMutex
	closed  bool // guarded by closing
}

// begin takes the right to use the descriptor; end gives it back.
func (o *osFile) begin(op string) error {
	o.closing.RLock()
	if o.closed {
		o.closing.RUnlock()
		return &fs.PathError{Op: op, Path: o.f.Name(), Err: fs.ErrClosed}
	}
	return nil
}

func (o *osFile) end() { o.closing.RUnlock() }

func (o *osFile) ReadAt(p []byte, off int64) (int, error)  { return o.f.ReadAt(p, off) }
func (o *osFile) WriteAt(p []byte, off int64) (int, error) { return o.f.WriteAt(p, off) }

func (o *osFile) WritevAt(bufs [][]byte, off int64) (int, error) {
	if err := o.begin("pwritev"); err != nil {
		return 0, err
	}
	defer o.end()
	n, err := writevAt(o.f, bufs, off)
	if err != nil {
		err = o.wrap("pwritev", err)
	}
	return n, err
}

func (o *osFile) Sync() error {
	if err := o.begin("fdatasync"); err != nil {
		return err
	}
	defer o.end()
	return o.wrap("fdatasync", dataSync(o.f))
}

func (o *osFile) SyncAll() error            { return o.f.Sync() }
func (o *osFile) Truncate(size int64) error { return o.f.Truncate(size) }

func (o *osFile) Allocate(size int64) error {
	if err := o.begin("fallocate"); err != nil {
		return err
	}
	defer o.end()
	return o.wrap("fallocate", allocate(o.f, size))
}

func (o *osFile) Size() (int64, error) {
	st, err := o.f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

func (o *osFile) Close() error {
	o.closing.Lock()
	defer o.closing.Unlock()
	o.closed = true
	return o.f.Close()
}

func (o *osFile) OS() *os.File { return o.f }

// wrap adds the operation and the path unless err has them already.
func (o *osFile) wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		return err
	}
	return &fs.PathError{Op: op, Path: o.f.Name(), Err: err}
}

// extend makes f at least size long, without reserving space.
func extend(f *os.File, size int64) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if st.Size() >= size {
		return nil
	}
	return f.Truncate(size)
}
