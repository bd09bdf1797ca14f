package disklog

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/portask/portask/broker/internal/vfs"
	"github.com/portask/portask/broker/message"
)

// spare is a segment file that waits to be attached. It is written with zeros,
// or recycled, and its id is on the device.
type spare struct {
	path   string
	file   vfs.File
	size   int64
	seed   message.Seed
	zeroed bool
}

// worker does for an engine what must not hold up an append: it makes spares,
// recycles or deletes retired segments, and deletes removed logs. It has one
// goroutine, started by Open and ended by Close.
//
// Its queue is bounded by what it describes: segments that were retired, logs
// that were removed, and a wish for spares.
type worker struct {
	eng  *Engine
	done chan struct{}

	mu      sync.Mutex
	wake    sync.Cond // on mu
	free    []*spare  // ready for use, at most opts.Spares; guarded by mu
	wanted  int64     // size of segment to make spares of, 0 = none; guarded by mu
	retired []*segment
	trash   []string
	closing bool
	recyc   uint64      // segments recycled; guarded by mu
	last    time.Time   // of the last recycling; guarded by mu
	due     time.Time   // zeroing waits until then; guarded by mu
	timer   *time.Timer // wakes the worker at due; guarded by mu
}

// A log at its retention gives a segment back soon after it took one. While
// segments were recycled during the last recyclingRecent, zeroing waits
// recyclingWait for that to happen: the recycled segment costs nothing.
const (
	recyclingRecent = 10 * time.Second
	recyclingWait   = 50 * time.Millisecond
)

// zeroPiece is how much is zeroed between looks at the queue and the device.
const zeroPiece = 1 << 20

// zeroSync is how much is zeroed between syncs: few enough to leave the
// device's queue to the batches, large enough not to sync all the time.
const zeroSync = 8 << 20

func newWorker(e *Engine) *worker {
	w := &worker{eng: e, done: make(chan struct{})}
	w.wake.L = &w.mu
	return w
}

func (w *worker) start() {
	if w.eng.opts.inline {
		close(w.done)
		return
	}
	go w.run()
}

func (w *worker) run() {
	defer close(w.done)
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		if !w.step() {
			if w.closing {
				return
			}
			w.wake.Wait()
		}
	}
}

// step does one piece of work, with mu released meanwhile, and reports whether
// there was any.
func (w *worker) step() bool {
	switch {
	case len(w.retired) > 0:
		s := w.retired[0]
		w.retired = w.retired[1:]
		w.mu.Unlock()
		w.retire(s)
		w.mu.Lock()
	case len(w.trash) > 0:
		dir := w.trash[0]
		w.trash = w.trash[1:]
		w.mu.Unlock()
		w.eng.warn("delete log", dir, removeAll(w.eng.fs, dir))
		w.mu.Lock()
	case w.wanted > 0 && !w.closing && !w.waits():
		w.makeRoom(w.wanted)
		if len(w.free) >= enough(w.eng.opts.Spares) {
			w.wanted = 0
			return true
		}
		size := w.wanted
		w.mu.Unlock()
		s, err := w.makeSpare(size)
		w.mu.Lock()
		w.eng.warn("make spare segment", filepath.Join(w.eng.dir, spareDir), err)
		if s == nil {
			w.wanted = 0 // until someone asks again
		} else {
			w.free = append(w.free, s)
		}
	default:
		return false
	}
	return true
}

// enough is how many spares are made by writing zeros; the rest of the pool is
// left to recycled segments. A log at its retention gives a segment back for
// each it takes: zeroing another in the moment between would only push the
// recycled one, whose pages are warm, out of the pool.
func enough(spares int) int { return (spares + 1) / 2 }

// kick lets the worker look at the queue; called with mu held.
func (w *worker) kick() {
	if !w.eng.opts.inline {
		w.wake.Signal()
		return
	}
	for w.step() {
	}
}

// waits reports that zeroing should wait, and sees to it that the worker wakes
// then; called with mu held.
func (w *worker) waits() bool {
	left := time.Until(w.due)
	if left <= 0 || w.eng.opts.inline {
		return false
	}
	if w.timer == nil {
		w.timer = time.AfterFunc(left, func() {
			w.mu.Lock()
			w.wake.Signal()
			w.mu.Unlock()
		})
	} else {
		w.timer.Reset(left)
	}
	return true
}

// want asks for spares of a size.
func (w *worker) want(size int64) {
	if w.eng.opts.Spares == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wanted = size
	w.kick()
}

// take returns a spare of exactly that size, nil if there is none.
func (w *worker) take(size int64) *spare {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, s := range w.free {
		if s.size == size {
			w.free = append(w.free[:i], w.free[i+1:]...)
			if now := time.Now(); now.Sub(w.last) < recyclingRecent {
				w.due = now.Add(recyclingWait)
			}
			return s
		}
	}
	w.due = time.Time{}
	return nil
}

// makeRoom deletes spares of other sizes than the one in demand while the pool
// is full; called with mu held.
func (w *worker) makeRoom(size int64) {
	for i := 0; i < len(w.free) && len(w.free) >= w.eng.opts.Spares; {
		s := w.free[i]
		if s.size == size {
			i++
			continue
		}
		w.free = append(w.free[:i], w.free[i+1:]...)
		w.eng.warn("delete spare segment", s.path, errors.Join(s.file.Close(), w.eng.fs.Remove(s.path)))
	}
}

// stats returns the gauges for EngineStats.
func (w *worker) stats() (spares int, recycled uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.free), w.recyc
}

// drop queues a retired segment that nothing refers to any more.
func (w *worker) drop(s *segment) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.retired = append(w.retired, s)
	w.kick()
}

// discard queues the directory of a removed log.
func (w *worker) discard(dir string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trash = append(w.trash, dir)
	w.kick()
}

// close ends the goroutine after the work that is queued, and closes the
// spares.
func (w *worker) close() {
	w.mu.Lock()
	w.closing = true
	if w.timer != nil {
		w.timer.Stop()
	}
	w.wake.Signal()
	w.mu.Unlock()
	<-w.done
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.free {
		w.eng.warn("close spare segment", s.path, s.file.Close())
	}
	w.free = nil
}

// makeSpare writes a segment of zeros. It returns nil if the engine closes, or
// if the disk is low: what is left is for batches.
func (w *worker) makeSpare(size int64) (*spare, error) {
	e := w.eng
	if free, _, low, err := e.space(); err != nil || low || free < 2*size {
		return nil, err
	}
	h := header{flags: flagZeroed, seed: e.opts.newSeed()}
	path := filepath.Join(e.dir, spareDir, spareName(h.seed))
	temp := path + tempSuffix
	f, err := e.fs.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, err
	}
	stopped, err := w.fillZero(f, size, &h)
	if err == nil && !stopped {
		err = e.fs.Rename(temp, path)
	}
	if err != nil || stopped {
		return nil, errors.Join(err, f.Close(), e.fs.Remove(temp))
	}
	if err := e.fs.SyncDir(filepath.Join(e.dir, spareDir)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &spare{path: path, file: f, size: size, seed: h.seed, zeroed: true}, nil
}

// fillZero writes h and zeros up to size, and syncs.
func (w *worker) fillZero(f vfs.File, size int64, h *header) (stopped bool, err error) {
	buf := make([]byte, min(size, zeroPiece))
	h.put(buf)
	for pos := int64(0); pos < size; pos += int64(len(buf)) {
		buf = buf[:min(size-pos, int64(len(buf)))]
		if _, err := f.WriteAt(buf, pos); err != nil {
			return false, err
		}
		if pos == 0 {
			clear(buf[:headerBytes])
		}
		if (pos+int64(len(buf)))%zeroSync == 0 {
			if err := f.SyncAll(); err != nil {
				return false, err
			}
		}
		if w.interrupted() {
			return true, nil
		}
	}
	return false, f.SyncAll()
}

// interrupted lets retired segments go before the next piece of zeros, and
// reports whether the zeros are still wanted: a recycled segment serves as well,
// and the log that gave it back would otherwise wait for it.
func (w *worker) interrupted() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.retired) > 0 {
		w.step()
	}
	return w.closing || len(w.free) >= enough(w.eng.opts.Spares)
}

// retire recycles or deletes the file of a retired segment, unless its log was
// closed meanwhile: then opening the log again does it, and the name may be
// that of another file by now.
func (w *worker) retire(s *segment) {
	e, l := w.eng, s.log
	l.life.RLock()
	defer l.life.RUnlock()
	if l.closed.Load() {
		return
	}
	w.mu.Lock()
	keep := s.reuse && !s.served.Load() && len(w.free) < e.opts.Spares && !w.closing
	w.mu.Unlock()
	if keep {
		sp, err := e.recycle(s.path(), s.limit)
		if err == nil {
			w.mu.Lock()
			w.free = append(w.free, sp)
			w.recyc++
			w.last = time.Now()
			w.mu.Unlock()
			return
		}
		e.warn("recycle segment", s.path(), err)
	}
	e.warn("delete segment", s.path(), e.fs.Remove(s.path()))
	if e.reserveGone.Load() {
		e.reserve()
	}
}

// recycle makes the segment at path a spare of the given size, to which it is
// cut if a footer made it larger: a new id is on the device before the file can
// be found among the spares, so nothing in it will ever validate.
func (e *Engine) recycle(path string, size int64) (*spare, error) {
	f, err := e.fs.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	sp := &spare{file: f, size: size, seed: e.opts.newSeed()}
	if err = f.Truncate(size); err == nil {
		var b [headerBytes]byte
		h := header{seed: sp.seed}
		h.put(b[:])
		_, err = f.WriteAt(b[:], 0)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		sp.path = filepath.Join(e.dir, spareDir, spareName(sp.seed))
		err = e.fs.Rename(path, sp.path)
	}
	if err == nil {
		err = e.fs.SyncDir(filepath.Join(e.dir, spareDir))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return sp, nil
}

// adopt takes over the spares that an earlier process left, with new ids, and
// deletes those above the bound.
func (w *worker) adopt() error {
	e := w.eng
	dir := filepath.Join(e.dir, spareDir)
	names, err := e.fs.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		path := filepath.Join(dir, name)
		switch filepath.Ext(name) {
		case tempSuffix:
		case segSuffix:
			size, err := e.fs.Stat(path)
			if err == nil && size >= minSegmentBytes && len(w.free) < e.opts.Spares {
				var sp *spare
				if sp, err = e.recycle(path, size); err == nil {
					w.free = append(w.free, sp)
					continue
				}
			}
			e.warn("reuse spare segment", path, err)
		default:
			continue
		}
		e.warn("delete spare segment", path, e.fs.Remove(path))
	}
	return nil
}

// removeAll deletes a directory of files.
func removeAll(fsys vfs.FS, dir string) error {
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := fsys.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return fsys.Remove(dir)
}
