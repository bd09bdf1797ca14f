// Package disklog is the embedded storage engine: a directory of segment files,
// one row of them for each partition. FORMAT.md, beside this file, is the
// layout and what recovery makes of a crash or of damage.
//
// An Engine has the directory and one goroutine, which prepares, recycles and
// deletes segments. A Log is one partition. Appending is one pwritev into the
// page cache, on the caller's goroutine; Sync is one fdatasync in the usual
// case, on another. Who calls Sync when (group commit) and what readers may
// see is the partition's business.
//
// Inspect, Verify and Repair work on a directory that no engine has open.
package disklog

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/internal/vfs"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/storage"
)

// Names in the engine's directory.
const (
	lockName    = "LOCK"
	formatName  = "FORMAT"
	reserveName = "reserve"
	metaDir     = "meta"
	spareDir    = "spare"
	trashDir    = "trash"
	logsDir     = "logs"
)

// Engine is a directory of logs. It implements storage.Engine.
type Engine struct {
	fs    vfs.FS
	dir   string
	opts  Options
	lock  io.Closer
	files fileCache
	work  *worker
	held  atomic.Int64 // bytes of retired segments under leases

	reserveGone atomic.Bool // given up, or never made

	metaMu  sync.Mutex
	metaOK  map[string]bool // names whose blob was found good or written; guarded by metaMu
	metaSet atomic.Uint64

	mu     sync.Mutex
	logs   map[storage.PartitionID]*Log // open, or being opened (nil); guarded by mu
	closed bool                         // guarded by mu
}

var (
	_ storage.Engine = (*Engine)(nil)
	_ storage.Log    = (*Log)(nil)
)

// Open opens the engine's directory, creating it if it is missing, and locks
// it. Logs are opened one by one with OpenLog.
//
// Errors: fault.Invalid for options (all violations joined), fault.Locked if
// another process has the directory, fault.NewerFormat if a later version wrote
// it, fault.Corrupted if its FORMAT does not check, fault.StorageFailed or
// fault.StorageFull for what the file system refused.
func Open(fsys vfs.FS, dir string, o Options) (*Engine, error) {
	o, err := o.check()
	if err != nil {
		return nil, err
	}
	e := &Engine{fs: fsys, dir: dir, opts: o, logs: map[storage.PartitionID]*Log{}, metaOK: map[string]bool{}}
	e.files = fileCache{fs: fsys, max: o.OpenSegments}
	e.work = newWorker(e)
	if err := e.open(); err != nil {
		if e.lock != nil {
			err = errors.Join(err, e.lock.Close())
		}
		return nil, failure("open "+dir, err)
	}
	e.work.start()
	return e, nil
}

func (e *Engine) open() (err error) {
	if err := e.fs.MkdirAll(e.dir, 0o755); err != nil {
		return err
	}
	if e.lock, err = e.fs.Lock(e.path(lockName)); err != nil {
		if errors.Is(err, vfs.ErrLocked) {
			err = fault.New(fault.Locked, "open").WithField("dir").
				WithDetail("%s is in use by another broker", e.dir).WithCause(err)
		}
		return err
	}
	fresh, err := checkFormat(e.fs, e.dir)
	if err != nil {
		return err
	}
	// The directory's own entry, where the host lets us open its parent. An
	// earlier attempt to create it may have got no further.
	if err := e.fs.SyncDir(filepath.Dir(filepath.Clean(e.dir))); err != nil && !os.IsPermission(err) {
		return err
	}
	if fresh {
		if err := replaceFile(e.fs, e.path(formatName), func(f vfs.File) error {
			_, err := f.WriteAt([]byte(formatLine(formatVersion)), 0)
			return err
		}); err != nil {
			return err
		}
	}
	for _, d := range []string{metaDir, spareDir, trashDir, logsDir} {
		if err := e.fs.MkdirAll(e.path(d), 0o755); err != nil {
			return err
		}
	}
	if err := e.fs.SyncDir(e.dir); err != nil {
		return err
	}
	if err := e.clearTemps(); err != nil {
		return err
	}
	if err := e.work.adopt(); err != nil {
		return err
	}
	e.reserve()
	removed, err := e.fs.ReadDir(e.path(trashDir))
	for _, name := range removed {
		e.work.discard(filepath.Join(e.path(trashDir), name))
	}
	return err
}

// formatLine is the content of FORMAT.
func formatLine(version int) string {
	s := fmt.Sprintf("portask disklog %d", version)
	return fmt.Sprintf("%s crc32c %08x\n", s, crc([]byte(s)))
}

// checkFormat reads FORMAT; fresh means that there is none, and nothing that
// would need one.
func checkFormat(fsys vfs.FS, dir string) (fresh bool, err error) {
	name := filepath.Join(dir, formatName)
	b, err := readFile(fsys, name, 256)
	if errors.Is(err, fs.ErrNotExist) {
		for _, d := range []string{logsDir, metaDir} {
			names, err := fsys.ReadDir(filepath.Join(dir, d))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return false, err
			}
			if len(names) > 0 {
				return false, corrupted("FORMAT", "%s is missing beside existing logs", name)
			}
		}
		return true, nil
	}
	if err != nil {
		return false, err
	}
	line, sum, ok := strings.Cut(string(b), " crc32c ")
	if !ok || sum != fmt.Sprintf("%08x\n", crc([]byte(line))) {
		return false, corrupted("FORMAT", "%s does not check", name)
	}
	v, ok := strings.CutPrefix(line, "portask disklog ")
	n, err := strconv.ParseInt(v, 10, 32)
	if !ok || err != nil || n < 1 {
		return false, corrupted("FORMAT", "%s holds %q", name, line)
	}
	if n > formatVersion {
		return false, fault.New(fault.NewerFormat, "open").WithField("FORMAT").WithLimit(n, formatVersion).
			WithDetail("%s was written by a later version", dir)
	}
	return false, nil
}

// clearTemps deletes what was being written when the last process ended.
func (e *Engine) clearTemps() error {
	for _, d := range []string{".", metaDir} {
		names, err := e.fs.ReadDir(e.path(d))
		if err != nil {
			return err
		}
		for _, name := range names {
			if strings.HasSuffix(name, tempSuffix) {
				if err := e.fs.Remove(filepath.Join(e.path(d), name)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// reserve makes sure of the file that StoreMeta gives up when the disk is
// full. Without room for it there is none.
func (e *Engine) reserve() {
	if e.opts.ReserveBytes == 0 {
		return
	}
	f, err := e.fs.OpenFile(e.path(reserveName), os.O_RDWR|os.O_CREATE, 0o644)
	if err == nil {
		err = f.Allocate(e.opts.ReserveBytes)
		err = errors.Join(err, f.Close())
	}
	e.reserveGone.Store(err != nil)
	if err != nil {
		e.warn("reserve space", e.path(reserveName), err)
		_ = e.fs.Remove(e.path(reserveName)) // half of it helps nobody
	}
}

func (e *Engine) path(name string) string { return filepath.Join(e.dir, name) }

func (e *Engine) warn(op, path string, err error) {
	if err != nil {
		e.opts.Logger.Warn(op, "path", path, "error", err)
	}
}

// readFile reads a whole file of at most limit bytes.
func readFile(fsys vfs.FS, name string, limit int64) ([]byte, error) {
	f, err := fsys.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > limit {
		return nil, corrupted(filepath.Base(name), "the file has %d bytes, at most %d are expected", size, limit)
	}
	b := make([]byte, size)
	return b, readAt(f, b, 0)
}

// failure gives an error of the file system its code. Errors that have one
// keep it.
func failure(op string, err error) error {
	switch {
	case err == nil:
		return nil
	case fault.Find(err) != nil:
		return err
	case vfs.IsNoSpace(err):
		return fault.New(fault.StorageFull, op).WithCause(err)
	}
	return fault.New(fault.StorageFailed, op).WithCause(err)
}

// Name returns "disklog".
func (e *Engine) Name() string { return "disklog" }

// Levels are all three.
func (e *Engine) Levels() storage.Levels {
	return storage.LevelsOf(message.AckNone, message.AckAccepted, message.AckDurable)
}

// Blocking is false: an append is a copy into the page cache, and once in a
// segment the opening of a file.
func (e *Engine) Blocking() bool { return false }

func (e *Engine) logDir(id storage.PartitionID) string {
	return filepath.Join(e.dir, logsDir, id.String())
}

// errClosed answers calls after Close.
func errClosed(op string) error { return fault.New(fault.Closed, op).WithDetail("disklog is closed") }

// OpenLog is described at storage.Engine. Opening reads the active segment
// through, and the trailers of the others.
func (e *Engine) OpenLog(id storage.PartitionID, o storage.LogOptions) (storage.Log, error) {
	const op = "open log"
	if o.SegmentBytes == 0 {
		o.SegmentBytes = e.opts.SegmentBytes
	}
	if o.SegmentBytes < minSegmentBytes || o.SegmentBytes > maxSegmentBytes {
		limit := int64(minSegmentBytes)
		if o.SegmentBytes > maxSegmentBytes {
			limit = maxSegmentBytes
		}
		return nil, fault.New(fault.Invalid, op).WithField("SegmentBytes").WithLimit(o.SegmentBytes, limit)
	}
	if err := e.claim(id, op); err != nil {
		return nil, err
	}
	l, err := openLog(e, id, o)
	if err != nil {
		e.unclaim(id)
		return nil, failure(op+" "+id.String(), err)
	}
	e.mu.Lock()
	e.logs[id] = l
	closed := e.closed
	e.mu.Unlock()
	if closed { // meanwhile, and Close did not see the log
		return nil, errors.Join(errClosed(op), l.Close())
	}
	return l, nil
}

// claim reserves an id for a call that needs its log closed.
func (e *Engine) claim(id storage.PartitionID, op string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return errClosed(op)
	}
	if _, open := e.logs[id]; open {
		return fault.New(fault.Exists, op).WithField("partition").WithDetail("log %s is open", id)
	}
	e.logs[id] = nil
	return nil
}

func (e *Engine) unclaim(id storage.PartitionID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.logs, id)
}

// RemoveLog is described at storage.Engine. The log is gone with one rename;
// its files are deleted in the background, also after a crash.
func (e *Engine) RemoveLog(id storage.PartitionID) error {
	const op = "remove log"
	if err := e.claim(id, op); err != nil {
		return err
	}
	defer e.unclaim(id)
	trash := filepath.Join(e.path(trashDir), fmt.Sprintf("%s.%016x", id, e.opts.random()))
	err := e.fs.Rename(e.logDir(id), trash)
	if errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.NotFound, op).WithField("partition").WithDetail("there is no log %s", id)
	}
	if err == nil {
		err = e.fs.SyncDir(e.path(trashDir))
	}
	if err == nil {
		err = e.fs.SyncDir(e.path(logsDir))
	}
	if err != nil {
		return failure(op+" "+id.String(), err)
	}
	e.work.discard(trash)
	return nil
}

// ListLogs is described at storage.Engine.
func (e *Engine) ListLogs() ([]storage.PartitionID, error) {
	e.mu.Lock()
	closed := e.closed
	e.mu.Unlock()
	if closed {
		return nil, errClosed("list logs")
	}
	ids, _, err := listLogs(e.fs, e.dir)
	return ids, failure("list logs", err)
}

// listLogs returns the logs below an engine's directory, sorted, and the names
// that are none.
func listLogs(fsys vfs.FS, dir string) (ids []storage.PartitionID, other []string, err error) {
	names, err := fsys.ReadDir(filepath.Join(dir, logsDir))
	if err != nil {
		return nil, nil, err
	}
	for _, name := range names {
		id, err := storage.ParsePartitionID(name)
		if err != nil {
			other = append(other, name)
			continue
		}
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b storage.PartitionID) int {
		if c := slices.Compare(a.Topic[:], b.Topic[:]); c != 0 {
			return c
		}
		return cmp.Compare(a.Index, b.Index)
	})
	return ids, other, nil
}

// Space is described at storage.Engine: the figures are those of the file
// system the directory is on.
func (e *Engine) Space() (free, total int64, low bool, err error) {
	e.mu.Lock()
	closed := e.closed
	e.mu.Unlock()
	if closed {
		return 0, 0, false, errClosed("space")
	}
	return e.space()
}

func (e *Engine) space() (free, total int64, low bool, err error) {
	free, total, err = e.fs.Space(e.dir)
	if err != nil {
		return 0, 0, false, failure("space", err)
	}
	used := total - free
	return free, total, used >= total/100*int64(e.opts.LowPercent), nil
}

// Stats is described at storage.Engine.
func (e *Engine) Stats() storage.EngineStats {
	st := storage.EngineStats{HeldBytes: e.held.Load(), MetaWrites: e.metaSet.Load()}
	e.mu.Lock()
	for _, l := range e.logs {
		if l != nil {
			st.Logs++
			st.Bytes += l.bytes.Load()
		}
	}
	e.mu.Unlock()
	st.SpareSegments, st.Recycled = e.work.stats()
	return st
}

// dispose is called when nothing refers to s any more.
func (e *Engine) dispose(s *segment) {
	e.files.close(s)
	if s.retired.Load() {
		e.held.Add(headerBytes - s.pos)
		e.work.drop(s)
	}
}

// Close is described at storage.Engine. It waits for the background work that
// is queued.
func (e *Engine) Close() error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil
	}
	e.closed = true
	var open []*Log
	for _, l := range e.logs {
		if l != nil {
			open = append(open, l)
		}
	}
	e.mu.Unlock()
	var errs []error
	for _, l := range open {
		errs = append(errs, l.Close())
	}
	e.work.close()
	errs = append(errs, e.lock.Close())
	return errors.Join(errs...)
}

// forget is called by a log that closed.
func (e *Engine) forget(l *Log) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.logs[l.id] == l {
		delete(e.logs, l.id)
	}
}
