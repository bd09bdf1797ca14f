package disklog

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/storage"
)

// Log is the log of one partition. It implements storage.Log.
//
// Lock order: appendMu, syncMu or retainMu; then mu; then those of fileCache,
// durableFile and segment. mu is not held over I/O.
type Log struct {
	eng   *Engine
	id    storage.PartitionID
	dir   string // of the log
	rel   string // the same below the engine's directory
	opts  storage.LogOptions
	epoch uint64
	dur   *durableFile

	// Stored under mu; read anywhere.
	start, end, durable, bytes atomic.Int64
	closed                     atomic.Bool
	// life is held for reading by background work on the log's files, and for
	// writing by Close while it sets closed.
	life sync.RWMutex

	appendMu sync.Mutex // one Append
	w        writer     // owned by the holder of appendMu
	syncMu   sync.Mutex // one Sync
	syncing  []*segment // owned by the holder of syncMu
	recorded time.Time  // when the durable record was last synced; owned by the holder of syncMu
	retainMu sync.Mutex // one Retain

	mu       sync.Mutex
	segs     []*segment // in order; replaced, not changed, when the front goes; guarded by mu
	active   *segment   // last of segs, or nil: the next append starts one. Changed by Append under mu
	dirty    []*segment // written since the last sync of theirs began; guarded by mu
	dirDirty bool       // a segment was added since the last sync of the directory began; guarded by mu
	rolled   bool       // and its predecessor's end should go on record; guarded by mu
	failed   error      // sticky; guarded by mu
	problems []Problem  // guarded by mu
	// The newest snapshot is of the batches below snapAt, the newest that is
	// on the device of those below snapSynced; NoOffset: none. Guarded by mu.
	snapAt, snapSynced message.Offset
	lost               int // ranges of offsets between segments that are lost; guarded by mu
	stats              storage.LogStats
}

// maxProblems bounds what a log remembers; Verify finds them all.
const maxProblems = 1000

// Start is described at storage.Log.
func (l *Log) Start() message.Offset { return message.Offset(l.start.Load()) }

// End is described at storage.Log.
func (l *Log) End() message.Offset { return message.Offset(l.end.Load()) }

// Durable is described at storage.Log.
func (l *Log) Durable() message.Offset { return message.Offset(l.durable.Load()) }

// Epoch is described at storage.Log.
func (l *Log) Epoch() uint64 { return l.epoch }

// Problems returns what opening and reading the log found wrong, at most 1,000.
func (l *Log) Problems() []Problem {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]Problem(nil), l.problems...)
}

// report takes note of a problem. Not to be called with mu held.
func (l *Log) report(p Problem) {
	l.mu.Lock()
	if len(l.problems) < maxProblems {
		l.problems = append(l.problems, p)
	}
	l.mu.Unlock()
	l.eng.opts.Logger.Warn("log "+l.id.String(), "problem", p.String())
}

// Stats is described at storage.Log.
func (l *Log) Stats() storage.LogStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	st := l.stats
	st.Bytes = l.bytes.Load()
	st.Segments = len(l.segs)
	st.Failed = l.failed != nil
	st.Corruptions = l.lost
	for _, s := range l.segs {
		for _, g := range s.gaps {
			if g.from < g.next {
				st.Corruptions++
			}
		}
	}
	return st
}

// usable returns the reason why the log takes no more calls; with mu held.
func (l *Log) usable(op string) error {
	if l.closed.Load() {
		return errClosed(op)
	}
	if l.failed != nil {
		return fault.New(fault.StorageFailed, op).
			WithDetail("log %s is fenced until it is opened again", l.id).WithCause(l.failed)
	}
	return nil
}

// fail fences the log and returns the error for the caller.
func (l *Log) fail(op string, err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed == nil {
		l.failed = err
		l.eng.opts.Logger.Error("log "+l.id.String()+" is fenced", "operation", op, "error", err)
	}
	return fault.New(fault.StorageFailed, op).WithDetail("log %s is fenced", l.id).WithCause(err)
}

// markDirty lists s for the next sync; with mu held.
func (l *Log) markDirty(s *segment) {
	if !s.dirty {
		s.dirty = true
		s.Retain()
		l.dirty = append(l.dirty, s)
	}
}

// Sync is described at storage.Log: fdatasync of the segments written since
// the last one, which is the active one alone between rolls, and of the
// directory after a roll.
func (l *Log) Sync() (message.Offset, error) {
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	return l.sync(false)
}

// sync does the work of Sync; with clean the record says that the log ends
// here. Called with syncMu held.
func (l *Log) sync(clean bool) (message.Offset, error) {
	const op = "sync"
	l.mu.Lock()
	if err := l.usable(op); err != nil {
		l.mu.Unlock()
		return l.Durable(), err
	}
	dirty := l.dirty
	l.dirty, l.syncing = l.syncing[:0], nil
	for _, s := range dirty {
		s.dirty = false
	}
	dir, rolled := l.dirDirty, l.rolled
	l.dirDirty, l.rolled = false, false
	r := l.record()
	snapAt := l.snapAt
	l.mu.Unlock()

	err := l.syncFiles(dirty, dir)
	for i, s := range dirty {
		s.Release()
		dirty[i] = nil
	}
	l.syncing = dirty[:0]
	if err != nil {
		return l.Durable(), l.fail(op, err)
	}
	if len(dirty) == 0 && !clean {
		return r.durable, nil
	}
	l.mu.Lock()
	l.stats.Syncs++
	l.snapSynced = snapAt
	l.durable.Store(int64(r.durable))
	l.mu.Unlock()

	now := l.eng.opts.now()
	r.written, r.clean = now.UnixMicro(), clean
	hard := clean || rolled || now.Sub(l.recorded) >= l.eng.opts.DurableEvery
	if err := l.dur.write(r, hard); err != nil {
		return r.durable, l.fail(op, err)
	}
	if hard {
		l.recorded = now
	}
	return r.durable, nil
}

// syncFiles makes everything in the files durable. After an error nothing is
// tried again: the kernel may have dropped the pages and forgotten the error.
func (l *Log) syncFiles(dirty []*segment, dir bool) error {
	for _, s := range dirty {
		if err := s.file.Sync(); err != nil {
			return err
		}
	}
	if dir {
		return l.eng.fs.SyncDir(l.dir)
	}
	return nil
}

// record returns the durable record that holds once all that was written is
// synced; with mu held.
func (l *Log) record() record {
	r := record{epoch: l.epoch, start: l.Start(), durable: l.End(), segBase: message.NoOffset, id: l.id}
	if n := len(l.segs); n > 0 {
		s := l.segs[n-1]
		r.segBase, r.segSeed, r.pos = s.base, s.seed, s.pos
	}
	return r
}

// Close is described at storage.Log.
func (l *Log) Close() error {
	l.appendMu.Lock()
	defer l.appendMu.Unlock()
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	l.retainMu.Lock()
	defer l.retainMu.Unlock()
	if l.closed.Load() {
		return nil
	}
	_, err := l.sync(true)
	l.life.Lock()
	l.closed.Store(true)
	l.life.Unlock()

	l.mu.Lock()
	segs, dirty := l.segs, l.dirty
	l.segs, l.dirty, l.active = nil, nil, nil
	l.mu.Unlock()
	for _, s := range dirty { // of a log that failed
		s.Release()
	}
	for _, s := range segs {
		l.eng.files.leave(s)
	}
	if cerr := l.dur.f.Close(); err == nil && cerr != nil {
		err = failure("close log", cerr)
	}
	l.eng.forget(l)
	return err
}
