package vfs

import (
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// Mem is a file system in memory that knows what of it is durable, by the rules
// in the package comment. Clone gives the file system as it would be found
// after a power cut at this moment.
//
// Names are cleaned; a leading separator makes no difference. There are no
// permissions, links or times. Errors are those of the operating system, in
// the same *fs.PathError and *os.LinkError.
type Mem struct {
	hook atomic.Pointer[func(Op) error]
	ops  atomic.Int64

	mu       sync.RWMutex // guards all below and all nodes
	root     *node
	pending  []dirOp // changes of directories that are not durable, oldest first
	locks    map[string]bool
	capacity int64 // bytes
	used     int64 // bytes of allocated pages of the files that can be reached
}

// node is a file or a directory. A file is reached through its name, or through
// open handles after the name is gone.
type node struct {
	// Of a directory: what programs see, and what a crash leaves.
	kids, kept map[string]*node
	// Of a file.
	data         content
	links, opens int
}

func newDir() *node { return &node{kids: map[string]*node{}, kept: map[string]*node{}} }

func (n *node) isDir() bool { return n.kids != nil }

// dirOp is one change of a directory: name in dir becomes child, or goes if
// child is nil. For a rename, fromName in from goes at the same moment.
type dirOp struct {
	dir      *node
	name     string
	child    *node
	from     *node
	fromName string
}

// NewMem returns an empty file system with room for an exabyte.
func NewMem() *Mem {
	return &Mem{root: newDir(), locks: map[string]bool{}, capacity: 1 << 60}
}

// SetCapacity bounds the bytes of all files, counted in pages of 4 KiB. A write
// that needs a page beyond it fails with ENOSPC after writing what fits. Pages
// that are there can always be overwritten.
func (m *Mem) SetCapacity(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.capacity = bytes
}

// OnOp makes f be called before every call that changes what is stored or
// durable, outside of locks, so that f may Clone. An error of f is returned by
// the call, which then has no effect. Nil removes the hook.
func (m *Mem) OnOp(f func(op Op) error) {
	if f == nil {
		m.hook.Store(nil)
		return
	}
	m.hook.Store(&f)
}

// Ops returns how many such calls there were.
func (m *Mem) Ops() int64 { return m.ops.Load() }

// before counts the op and asks the hook.
func (m *Mem) before(op Op) error {
	op.N = m.ops.Add(1)
	if f := m.hook.Load(); f != nil {
		return (*f)(op)
	}
	return nil
}

// split cleans a name into its elements.
func split(name string) []string {
	name = filepath.ToSlash(filepath.Clean(name))
	name = strings.TrimPrefix(name, "/")
	if name == "." || name == "" {
		return nil
	}
	return strings.Split(name, "/")
}

// find returns the node with a name. Called with mu held.
func (m *Mem) find(name string) (*node, error) {
	n := m.root
	for _, elem := range split(name) {
		if !n.isDir() {
			return nil, errNotDir
		}
		if n = n.kids[elem]; n == nil {
			return nil, syscall.ENOENT
		}
	}
	return n, nil
}

// parent returns the directory that holds, or would hold, a name, and the last
// element. Called with mu held.
func (m *Mem) parent(name string) (*node, string, error) {
	elems := split(name)
	if len(elems) == 0 {
		return nil, "", errIsDir
	}
	last := len(elems) - 1
	dir, err := m.find(strings.Join(elems[:last], "/"))
	if err == nil && !dir.isDir() {
		err = errNotDir
	}
	return dir, elems[last], err
}

func pathError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// change makes a change of a directory visible, and pending. Called with mu
// held for writing.
func (m *Mem) change(op dirOp) {
	if op.from != nil {
		delete(op.from.kids, op.fromName)
	}
	old := op.dir.kids[op.name]
	if op.child == nil {
		delete(op.dir.kids, op.name)
	} else {
		op.dir.kids[op.name] = op.child
	}
	if op.child != nil && op.from == nil {
		op.child.links++
	}
	if old != nil {
		old.links--
		m.reclaim(old)
	}
	m.pending = append(m.pending, op)
}

// reclaim gives the space of a file back that nothing can reach any more.
func (m *Mem) reclaim(n *node) {
	if !n.isDir() && n.links == 0 && n.opens == 0 {
		m.used -= int64(n.data.pages) * pageBytes
	}
}

// OpenFile is described at FS.
func (m *Mem) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	f, err := m.open(name, flag)
	if err != nil {
		return nil, pathError("open", name, err)
	}
	return f, nil
}

func (m *Mem) open(name string, flag int) (*memFile, error) {
	if flag&os.O_APPEND != 0 {
		return nil, errAppend
	}
	for {
		// What the call is going to do decides whether it is counted; the
		// hook runs without the lock, so look again after it.
		m.mu.RLock()
		kind, err := m.openKind(name, flag)
		m.mu.RUnlock()
		if err != nil {
			return nil, err
		}
		if kind != OpOpen {
			if err := m.before(Op{Kind: kind, Name: name}); err != nil {
				return nil, err
			}
		}
		m.mu.Lock()
		again, err := m.openKind(name, flag)
		if err == nil && again != kind {
			m.mu.Unlock()
			continue
		}
		f, err := m.openNow(name, flag, kind, err)
		m.mu.Unlock()
		return f, err
	}
}

// openKind says what opening would do: OpCreate, OpTruncate or OpOpen.
func (m *Mem) openKind(name string, flag int) (OpKind, error) {
	n, err := m.find(name)
	switch {
	case err == syscall.ENOENT && flag&os.O_CREATE != 0:
		_, _, err = m.parent(name)
		return OpCreate, err
	case err != nil:
		return 0, err
	case flag&(os.O_CREATE|os.O_EXCL) == os.O_CREATE|os.O_EXCL:
		return 0, syscall.EEXIST
	case n.isDir():
		return 0, errIsDir
	case flag&os.O_TRUNC != 0 && n.data.size > 0:
		return OpTruncate, nil
	}
	return OpOpen, nil
}

func (m *Mem) openNow(name string, flag int, kind OpKind, err error) (*memFile, error) {
	if err != nil {
		return nil, err
	}
	if kind == OpCreate {
		dir, elem, err := m.parent(name)
		if err != nil {
			return nil, err
		}
		m.change(dirOp{dir: dir, name: elem, child: &node{data: content{gen: 1}}})
	}
	n, err := m.find(name)
	if err != nil {
		return nil, err
	}
	if kind == OpTruncate {
		m.used += int64(n.data.truncate(0)) * pageBytes
	}
	n.opens++
	return &memFile{m: m, n: n, name: name, flag: flag}, nil
}

// Rename is described at FS.
func (m *Mem) Rename(oldName, newName string) error {
	err := m.rename(oldName, newName, true)
	if err == nil {
		err = m.before(Op{Kind: OpRename, Name: oldName, NewName: newName})
	}
	if err == nil {
		err = m.rename(oldName, newName, false)
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: oldName, New: newName, Err: err}
	}
	return nil
}

// rename does what os.Rename and rename(2) do; with check it only says whether
// it can.
func (m *Mem) rename(oldName, newName string, check bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	from, fromElem, err := m.parent(oldName)
	if err != nil {
		return err
	}
	dir, elem, err := m.parent(newName)
	if err != nil {
		return err
	}
	child := from.kids[fromElem]
	if child == nil {
		return syscall.ENOENT
	}
	target := dir.kids[elem]
	if target != nil && target.isDir() {
		return syscall.EEXIST
	}
	above := split(newName)
	for i := range above {
		if n, _ := m.find(strings.Join(above[:i], "/")); n == child {
			return syscall.EINVAL // into itself
		}
	}
	switch {
	case target != nil && child.isDir():
		return errNotDir
	case target == child, check:
		return nil
	}
	m.change(dirOp{dir: dir, name: elem, child: child, from: from, fromName: fromElem})
	return nil
}

// Remove is described at FS.
func (m *Mem) Remove(name string) error {
	err := m.remove(name, true)
	if err == nil {
		err = m.before(Op{Kind: OpRemove, Name: name})
	}
	if err == nil {
		err = m.remove(name, false)
	}
	return pathError("remove", name, err)
}

func (m *Mem) remove(name string, check bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, elem, err := m.parent(name)
	if err != nil {
		return err
	}
	n := dir.kids[elem]
	switch {
	case n == nil:
		return syscall.ENOENT
	case len(n.kids) > 0:
		return errNotEmpty
	case check:
		return nil
	}
	m.change(dirOp{dir: dir, name: elem})
	return nil
}

// MkdirAll is described at FS.
func (m *Mem) MkdirAll(dir string, perm fs.FileMode) error {
	elems := split(dir)
	for i := range elems {
		name := filepath.Join(elems[:i+1]...)
		m.mu.RLock()
		n, err := m.find(name)
		m.mu.RUnlock()
		if err == nil && !n.isDir() {
			err = errNotDir
		}
		if err == syscall.ENOENT {
			if err = m.before(Op{Kind: OpMkdir, Name: name}); err == nil {
				err = m.mkdir(name)
			}
		}
		if err != nil {
			return pathError("mkdir", name, err)
		}
	}
	return nil
}

func (m *Mem) mkdir(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, elem, err := m.parent(name)
	if err != nil || dir.kids[elem] != nil {
		return err
	}
	m.change(dirOp{dir: dir, name: elem, child: newDir()})
	return nil
}

// findDir is find for a name that must be a directory.
func (m *Mem) findDir(name string) (*node, error) {
	n, err := m.find(name)
	if err == nil && !n.isDir() {
		err = errNotDir
	}
	return n, err
}

// ReadDir is described at FS.
func (m *Mem) ReadDir(dir string) ([]string, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	n, err := m.findDir(dir)
	if err != nil {
		return nil, pathError("readdir", dir, err)
	}
	names := slices.AppendSeq(make([]string, 0, len(n.kids)), maps.Keys(n.kids))
	slices.Sort(names)
	return names, nil
}

// SyncDir is described at FS.
func (m *Mem) SyncDir(dir string) error {
	m.mu.RLock()
	_, err := m.findDir(dir)
	m.mu.RUnlock()
	if err == nil {
		err = m.before(Op{Kind: OpSyncDir, Name: dir})
	}
	if err == nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		var n *node
		if n, err = m.findDir(dir); err == nil {
			m.settle(n)
		}
	}
	return pathError("sync", dir, err)
}

// Stat is described at FS.
func (m *Mem) Stat(name string) (int64, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	n, err := m.find(name)
	if err != nil {
		return 0, pathError("stat", name, err)
	}
	return n.data.size, nil
}

// Lock is described at FS.
func (m *Mem) Lock(name string) (io.Closer, error) {
	f, err := m.open(name, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	key := strings.Join(split(name), "/")
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locks[key] {
		return nil, fmt.Errorf("lock %s: %w", name, ErrLocked)
	}
	m.locks[key] = true
	return &memLock{m: m, key: key}, nil
}

type memLock struct {
	m    *Mem
	key  string
	once sync.Once
}

func (l *memLock) Close() error {
	l.once.Do(func() {
		l.m.mu.Lock()
		defer l.m.mu.Unlock()
		delete(l.m.locks, l.key)
	})
	return nil
}

// Space is described at FS.
func (m *Mem) Space(dir string) (free, total int64, err error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if _, err := m.find(dir); err != nil {
		return 0, 0, pathError("statfs", dir, err)
	}
	return max(0, m.capacity-m.used), m.capacity, nil
}

// room returns how many more pages fit.
func (m *Mem) room() int { return int(min(max(0, m.capacity-m.used)/pageBytes, math.MaxInt32)) }
