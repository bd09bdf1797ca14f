package disklog

import (
	"container/list"
	"os"
	"path/filepath"
	"sort"
	"sync"
	"sync/atomic"

	"github.com/portask/portask/broker/internal/vfs"
	"github.com/portask/portask/broker/message"
)

// segment is one file of a log.
//
// While it is active, the fields of contents, size and gaps are changed by
// Append under Log.mu, and read by others under it. Once sealed they do not
// change, but for gaps, which grow (copied) under Log.mu when a read finds
// damage.
//
// refs counts the log's own reference, one for each run under lease, one while
// the file waits for a sync, and one for each call that looks into it. With the
// last the file is closed, and a retired segment goes. The file of a sealed
// segment to which nothing but the log refers may be closed by the fileCache,
// to be opened again by pin.
type segment struct {
	log     *Log
	seed    message.Seed
	base    message.Offset
	zeroed  bool  // behind what was written there are zeros, or the end of the file
	reuse   bool  // a file of full size, not served by anyone before, fit to be a spare again
	limit   int64 // size at which to roll; of an active segment
	created int64
	contents
	size int64 // of the file
	gaps []gap
	// snapAt is the offset of the snapshot in the footer, if it is the log's
	// newest; else it may be NoOffset. Guarded by Log.mu.
	snapAt message.Offset
	dirty  bool // in Log.dirty; guarded by Log.mu
	// sealed: no batch will be added. Guarded by Log.mu.
	sealed bool

	refs    atomic.Int32
	retired atomic.Bool // removed from the log by Retain
	served  atomic.Bool // the kernel was given the file: it may be read after all leases ended

	// Set while refs is more than the log's own; changed by fileCache.
	file vfs.File
	item *list.Element // place in the cache; nil if not in it; guarded by fileCache.mu
	free bool          // the log let it go: the references left are not the log's; guarded by fileCache.mu

	idx    atomic.Pointer[[]entry] // of a sealed segment; nil until needed
	loadMu sync.Mutex              // held while idx is being read

	checkMu sync.Mutex
	trusted bool     // every batch was written or read through by this process; set before it is shared
	checked []uint64 // else: bit i says that interval i of the index was; guarded by checkMu
}

func (s *segment) path() string { return filepath.Join(s.log.dir, segName(s.base)) }

// rel is the path below the engine's directory, for reports.
func (s *segment) rel() string { return filepath.Join(s.log.rel, segName(s.base)) }

// ReadAt reads from the file. With OS it makes a segment a storage.SendFile;
// both need a reference.
func (s *segment) ReadAt(p []byte, off int64) (int, error) { return s.file.ReadAt(p, off) }

// OS returns the kernel's file. Pages of it may be in flight long after the
// caller is done, so the file is never written to again once the log lets it
// go.
func (s *segment) OS() *os.File {
	f := s.file.OS()
	if f != nil {
		s.served.Store(true)
	}
	return f
}

// Retain adds a reference; with Release it makes a segment a storage.Lease.
func (s *segment) Retain() { s.refs.Add(1) }

// Release drops a reference.
func (s *segment) Release() {
	if s.refs.Add(-1) == 0 {
		s.log.eng.dispose(s)
	}
}

// fileCache bounds the open files and loaded indexes of sealed segments.
type fileCache struct {
	fs  vfs.FS
	max int

	mu  sync.Mutex
	lru list.List // of *segment, most recently pinned first
}

// pin makes sure that s.file is open. The caller holds a reference.
func (c *fileCache) pin(s *segment) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case s.item != nil:
		c.lru.MoveToFront(s.item)
	case s.file == nil:
		f, err := c.fs.OpenFile(s.path(), os.O_RDONLY, 0)
		if err != nil {
			return err
		}
		s.file = f
		if !s.free {
			c.push(s)
		}
	}
	return nil
}

// leave drops the log's own reference to s.
func (c *fileCache) leave(s *segment) {
	c.mu.Lock()
	s.free = true
	if s.item != nil {
		c.lru.Remove(s.item)
		s.item = nil
	}
	c.mu.Unlock()
	s.Release()
}

// add takes over a segment that was just sealed and is open.
func (c *fileCache) add(s *segment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.item == nil && s.file != nil {
		c.push(s)
	}
}

func (c *fileCache) push(s *segment) {
	s.item = c.lru.PushFront(s)
	for e := c.lru.Back(); e != nil && c.lru.Len() > c.max; {
		old := e.Value.(*segment)
		e = e.Prev()
		// One reference is the log's. Who takes another from here on calls
		// pin before using the file, and waits for mu there.
		if old != s && old.refs.Load() == 1 {
			c.drop(old)
		}
	}
}

// drop closes the file of s.
func (c *fileCache) drop(s *segment) {
	if s.item != nil {
		c.lru.Remove(s.item)
		s.item = nil
	}
	s.idx.Store(nil)
	if s.file != nil {
		// Nothing unsynced is lost: a dirty segment has another reference.
		if err := s.file.Close(); err != nil {
			s.log.eng.opts.Logger.Warn("close segment", "file", s.path(), "error", err)
		}
		s.file = nil
	}
}

// close is drop for a segment without references.
func (c *fileCache) close(s *segment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(s)
}

// view is a segment as it was at one moment: what is in it does not change,
// whatever is appended.
type view struct {
	s       *segment
	entries []entry // nil until loaded
	end     message.Offset
	pos     int64
	batches uint32
	gaps    []gap
}

// view is called with Log.mu held.
func (s *segment) view() view {
	v := view{s: s, end: s.end, pos: s.pos, batches: s.batches, gaps: s.gaps}
	if !s.sealed {
		v.entries = s.entries
	}
	return v
}

// open pins the segment, to which the caller holds a reference, and loads the
// index.
func (v *view) open() error {
	s := v.s
	if err := s.log.eng.files.pin(s); err != nil {
		return err
	}
	if v.entries == nil && v.batches > 0 {
		x, err := s.loadIndex()
		if err != nil {
			return err
		}
		s.log.mu.Lock()
		v.entries, v.gaps = x, s.gaps
		s.log.mu.Unlock()
	}
	return nil
}

// loadIndex returns the index of a sealed segment: from memory, from the
// footer, or from the batches.
func (s *segment) loadIndex() ([]entry, error) {
	if x := s.idx.Load(); x != nil {
		return *x, nil
	}
	s.loadMu.Lock()
	defer s.loadMu.Unlock()
	if x := s.idx.Load(); x != nil {
		return *x, nil
	}
	var x []entry
	t, err := readTrailer(s.file, s.size)
	if err == nil {
		var f footer
		if f, err = readFooter(s.file, s.size, &t); err == nil {
			x = f.entries
		}
	}
	if damage(err) {
		s.log.report(Problem{Class: SegmentFooter, File: s.rel(), Pos: s.size - trailerBytes, Len: trailerBytes, Detail: err.Error()})
		x, err = s.rebuildIndex()
	}
	if err != nil {
		return nil, err
	}
	s.idx.Store(&x)
	return x, nil
}

// rebuildIndex makes the index from the batches. What is not one is a gap.
func (s *segment) rebuildIndex() ([]entry, error) {
	sc := newScan(s.file, s.pos, s.seed)
	defer sc.done()
	c, err := sc.readThrough(s.base, nil)
	if err != nil {
		return nil, err
	}
	if c.tail != nil {
		c.bad = append(c.bad, *c.tail)
		c.pos, c.end = c.tail.end, c.tail.next
	}
	if c.end < s.end {
		c.bad = append(c.bad, badRange{pos: c.pos, end: s.pos, from: c.end, next: s.end, class: BatchMissing})
	}
	s.log.addGaps(s, c.bad)
	s.checkMu.Lock()
	s.checked = nil // was about other intervals
	s.checkMu.Unlock()
	return c.entries, nil
}

// find returns the index of the segment that holds off, or else of the first
// behind it.
func find(segs []*segment, off message.Offset) int {
	return sort.Search(len(segs), func(i int) bool { return segs[i].end > off })
}
