package vfs

import (
	"io"
	"io/fs"
	"os"
	"sync/atomic"
)

// Decision says what happens to a call. The zero value lets it through.
type Decision struct {
	// Err is returned in place of doing the call; nil lets it through.
	Err error
	// Short is how many bytes a read or write with an Err does first; 0 or
	// less is none.
	Short int
	// Lose makes a Sync with an Err also lose what it was to write, as Linux
	// does: it can still be read, and no later Sync writes it. Over a Mem.
	Lose bool
}

// Fault is a file system on top of another whose calls fail when a function
// says so.
type Fault struct {
	inner  FS
	decide func(Op) Decision
	calls  atomic.Int64
}

// NewFault returns inner with decide asked before every call. decide must be
// safe for concurrent use. Close always closes, whatever it returns.
//
// Reads that go around the File through its OS() are not seen.
func NewFault(inner FS, decide func(op Op) Decision) *Fault {
	return &Fault{inner: inner, decide: decide}
}

// Calls returns how many calls decide was asked about.
func (f *Fault) Calls() int64 { return f.calls.Load() }

func (f *Fault) ask(op Op) Decision {
	op.N = f.calls.Add(1)
	d := f.decide(op)
	if d.Err != nil {
		name := op.Kind.String()
		d.Err = &fs.PathError{Op: name, Path: op.Name, Err: d.Err}
	}
	return d
}

// OpenFile is described at FS. The op is OpCreate if the file is missing and to
// be created.
func (f *Fault) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	kind := OpOpen
	if flag&os.O_CREATE != 0 {
		if _, err := f.inner.Stat(name); err != nil {
			kind = OpCreate
		}
	}
	if d := f.ask(Op{Kind: kind, Name: name}); d.Err != nil {
		return nil, d.Err
	}
	file, err := f.inner.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return &faultFile{File: file, f: f, name: name}, nil
}

// Rename is described at FS.
func (f *Fault) Rename(oldName, newName string) error {
	if d := f.ask(Op{Kind: OpRename, Name: oldName, NewName: newName}); d.Err != nil {
		return d.Err
	}
	return f.inner.Rename(oldName, newName)
}

// Remove is described at FS.
func (f *Fault) Remove(name string) error {
	if d := f.ask(Op{Kind: OpRemove, Name: name}); d.Err != nil {
		return d.Err
	}
	return f.inner.Remove(name)
}

// MkdirAll is described at FS. It is one call here, however many directories it
// makes.
func (f *Fault) MkdirAll(dir string, perm fs.FileMode) error {
	if d := f.ask(Op{Kind: OpMkdir, Name: dir}); d.Err != nil {
		return d.Err
	}
	return f.inner.MkdirAll(dir, perm)
}

// ReadDir is described at FS.
func (f *Fault) ReadDir(dir string) ([]string, error) {
	if d := f.ask(Op{Kind: OpReadDir, Name: dir}); d.Err != nil {
		return nil, d.Err
	}
	return f.inner.ReadDir(dir)
}

// SyncDir is described at FS.
func (f *Fault) SyncDir(dir string) error {
	if d := f.ask(Op{Kind: OpSyncDir, Name: dir}); d.Err != nil {
		return d.Err
	}
	return f.inner.SyncDir(dir)
}

// Stat is described at FS.
func (f *Fault) Stat(name string) (int64, error) {
	if d := f.ask(Op{Kind: OpStat, Name: name}); d.Err != nil {
		return 0, d.Err
	}
	return f.inner.Stat(name)
}

// Lock is described at FS.
func (f *Fault) Lock(name string) (io.Closer, error) {
	if d := f.ask(Op{Kind: OpLock, Name: name}); d.Err != nil {
		return nil, d.Err
	}
	return f.inner.Lock(name)
}

// Space is described at FS.
func (f *Fault) Space(dir string) (free, total int64, err error) {
	if d := f.ask(Op{Kind: OpSpace, Name: dir}); d.Err != nil {
		return 0, 0, d.Err
	}
	return f.inner.Space(dir)
}

// faultFile asks before each call of a file; OS goes straight through.
type faultFile struct {
	File
	f    *Fault
	name string
}

func (o *faultFile) ReadAt(p []byte, off int64) (int, error) {
	d := o.f.ask(Op{Kind: OpRead, Name: o.name, Off: off, Len: len(p)})
	if d.Err == nil {
		return o.File.ReadAt(p, off)
	}
	n, err := o.File.ReadAt(p[:min(max(d.Short, 0), len(p))], off)
	if err != nil {
		return n, err
	}
	return n, d.Err
}

func (o *faultFile) WriteAt(p []byte, off int64) (int, error) {
	d := o.f.ask(Op{Kind: OpWrite, Name: o.name, Off: off, Len: len(p)})
	if d.Err == nil {
		return o.File.WriteAt(p, off)
	}
	n, err := o.File.WriteAt(p[:min(max(d.Short, 0), len(p))], off)
	if err != nil {
		return n, err
	}
	return n, d.Err
}

func (o *faultFile) WritevAt(bufs [][]byte, off int64) (int, error) {
	total := 0
	for _, b := range bufs {
		total += len(b)
	}
	d := o.f.ask(Op{Kind: OpWrite, Name: o.name, Off: off, Len: total})
	if d.Err == nil {
		return o.File.WritevAt(bufs, off)
	}
	left := max(d.Short, 0)
	var part [][]byte
	for _, b := range bufs {
		b = b[:min(left, len(b))]
		part = append(part, b)
		left -= len(b)
	}
	n, err := o.File.WritevAt(part, off)
	if err != nil {
		return n, err
	}
	return n, d.Err
}

func (o *faultFile) syncWith(kind OpKind, sync func() error) error {
	d := o.f.ask(Op{Kind: kind, Name: o.name})
	if d.Err == nil {
		return sync()
	}
	if l, ok := o.File.(interface{ loseUnsynced() }); ok && d.Lose {
		l.loseUnsynced()
	}
	return d.Err
}

func (o *faultFile) Sync() error    { return o.syncWith(OpSync, o.File.Sync) }
func (o *faultFile) SyncAll() error { return o.syncWith(OpSyncAll, o.File.SyncAll) }

func (o *faultFile) Truncate(size int64) error {
	if d := o.f.ask(Op{Kind: OpTruncate, Name: o.name, Off: size}); d.Err != nil {
		return d.Err
	}
	return o.File.Truncate(size)
}

func (o *faultFile) Allocate(size int64) error {
	if d := o.f.ask(Op{Kind: OpAllocate, Name: o.name, Off: size}); d.Err != nil {
		return d.Err
	}
	return o.File.Allocate(size)
}

func (o *faultFile) Size() (int64, error) {
	if d := o.f.ask(Op{Kind: OpSize, Name: o.name}); d.Err != nil {
		return 0, d.Err
	}
	return o.File.Size()
}

func (o *faultFile) Close() error {
	d := o.f.ask(Op{Kind: OpClose, Name: o.name})
	if err := o.File.Close(); err != nil {
		return err
	}
	return d.Err
}
