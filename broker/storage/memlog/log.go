package memlog

import (
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/mempool"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/storage"
)

// Blocks of a log start small, so that thousands of quiet partitions fit, and
// double, so that a busy one takes few.
const (
	firstBlockBytes = 64 << 10
	maxBlockBytes   = 1 << 20
)

// Log implements storage.Log.
//
// Append alone writes to the last block, and only beyond what is published;
// readers look only at what is published. So the copying is done without the
// lock, and the lock is held for a few assignments.
type Log struct {
	e          *Engine
	id         storage.PartitionID
	blockBytes int // largest ordinary block
	snapshot   func(dst []byte, below message.Offset) []byte
	epoch      uint64
	opens      uint64

	start, end atomic.Int64 // stored under mu
	closed     atomic.Bool

	mu     sync.RWMutex
	blocks []*block // none is empty
	bytes  int64    // of batches in blocks
	taken  int64    // of the blocks themselves
	stats  storage.LogStats
}

// newLog makes a log that goes on where old, closed, ended.
func newLog(e *Engine, id storage.PartitionID, o storage.LogOptions, old *Log) *Log {
	l := &Log{e: e, id: id, snapshot: o.Snapshot, opens: 1, blockBytes: maxBlockBytes}
	if n := o.SegmentBytes; n > 0 && n < maxBlockBytes {
		l.blockBytes = max(mempool.MinBytes, 1<<(bits.Len64(uint64(n))-1)) // a class not above it
	}
	if old != nil {
		old.mu.Lock()
		defer old.mu.Unlock()
		l.blocks, l.bytes, l.taken, l.opens = old.blocks, old.bytes, old.taken, old.opens+1
		l.start.Store(old.start.Load())
		l.end.Store(old.end.Load())
		old.blocks, old.bytes, old.taken = nil, 0, 0
	}
	l.epoch = e.epoch0 + l.opens
	return l
}

func (l *Log) isClosed() bool { return l.closed.Load() }

func (l *Log) errClosed(op string) error {
	if l.closed.Load() {
		return fault.New(fault.Closed, op+" log "+l.id.String())
	}
	return nil
}

// replay hands the last snapshot and the batches behind it to r.
func (l *Log) replay(r storage.Replay) error {
	from := 0
	for i := len(l.blocks) - 1; i >= 0; i-- {
		if l.blocks[i].hasSnapshot {
			if err := r.Snapshot(l.blocks[i].snapshot); err != nil {
				return err
			}
			from = i
			break
		}
	}
	for _, b := range l.blocks[from:] {
		for pos := 0; pos < b.used; {
			e := b.envelope(pos)
			if err := r.Batch(&e); err != nil {
				return err
			}
			pos += e.Bytes()
		}
	}
	return nil
}

// Append copies the batches into blocks. Full names what may be held; nothing
// is appended then.
func (l *Log) Append(batches []storage.Batch) error {
	if err := l.errClosed("append to"); err != nil {
		return err
	}
	if err := l.check(batches); err != nil || len(batches) == 0 {
		return err
	}
	// The last block as it will be. It shares memory with the published one,
	// which does not look beyond its own lengths.
	var tail block
	var added []*block
	cur := &tail
	l.mu.RLock()
	if n := len(l.blocks); n > 0 { // it stays the last: only Append adds, Retain keeps it
		tail = *l.blocks[n-1]
	}
	l.mu.RUnlock()
	total := int64(0)
	for i := range batches {
		b := &batches[i]
		if cur.chunk == nil || len(b.Bytes) > len(cur.chunk.B)-cur.used {
			next, err := l.newBlock(cur, b)
			if err != nil {
				for _, a := range added {
					a.chunk.Release()
				}
				return err
			}
			if l.snapshot != nil && b.Base > 0 {
				next.snapshot, next.hasSnapshot = l.snapshot(nil, b.Base), true
			}
			added = append(added, next)
			cur = next
		}
		b.Seed = 0
		message.Stamp(b.Bytes, b.Base, b.Time, b.Epoch, 0)
		cur.put(b)
		total += int64(len(b.Bytes))
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.blocks); n > 0 {
		*l.blocks[n-1] = tail
		l.stats.Rolls += uint64(len(added))
	} else {
		l.stats.Rolls += uint64(len(added) - 1)
	}
	for _, a := range added {
		l.taken += int64(len(a.chunk.B))
		l.blocks = append(l.blocks, a)
		if a.hasSnapshot { // older ones are of no use any more
			for _, o := range l.blocks[:len(l.blocks)-1] {
				o.snapshot, o.hasSnapshot = nil, false
			}
		}
	}
	l.bytes += total
	l.stats.Appends++
	l.stats.Writes++
	l.stats.Batches += uint64(len(batches))
	l.end.Store(int64(batches[len(batches)-1].End))
	return nil
}

// check refuses batches that do not continue the log.
func (l *Log) check(batches []storage.Batch) error {
	next := message.Offset(l.end.Load())
	for i := range batches {
		b := &batches[i]
		switch {
		case b.Base != next:
			return fault.New(fault.Invalid, "append to log "+l.id.String()).WithField("base_offset").
				WithDetail("batch %d has %d, the log continues at %d", i, b.Base, next)
		case b.End <= b.Base:
			return fault.New(fault.Invalid, "append to log "+l.id.String()).WithField("end_offset").
				WithDetail("batch %d is [%d, %d)", i, b.Base, b.End)
		case len(b.Bytes) < message.EnvelopeBytes:
			return fault.New(fault.Invalid, "append to log "+l.id.String()).WithField("batch").
				WithDetail("batch %d has %d bytes, less than an envelope", i, len(b.Bytes))
		}
		next = b.End
	}
	return nil
}

// newBlock takes a block for b and what follows it: twice the size of the last,
// or, when memory is short, as little as b needs.
func (l *Log) newBlock(last *block, b *storage.Batch) (*block, error) {
	size := min(firstBlockBytes, l.blockBytes)
	if last.chunk != nil {
		size = min(2*len(last.chunk.B), l.blockBytes)
	}
	c := l.e.pool.Get(max(size, len(b.Bytes)))
	if c == nil && size > len(b.Bytes) {
		c = l.e.pool.Get(len(b.Bytes))
	}
	if c == nil {
		return nil, fault.New(fault.Full, "append to log "+l.id.String()).WithField("memory").
			WithDetail("the memlog engine holds all it may: raise --memory, or lower the retention of topics").
			WithLimit(l.e.pool.Stats().LiveBytes+int64(mempool.ClassBytes(len(b.Bytes))), l.e.maxBytes)
	}
	return &block{chunk: c, base: b.Base, end: b.Base}, nil
}

// Sync is refused: memory survives nothing.
func (l *Log) Sync() (message.Offset, error) {
	if err := l.errClosed("sync"); err != nil {
		return 0, err
	}
	return 0, fault.New(fault.LevelUnavailable, "sync log "+l.id.String()).WithField("engine").
		WithDetail("memlog gives %s; durable needs the engine disklog", l.e.Levels())
}

// Read lends parts of blocks: one run for each block.
func (l *Log) Read(from, below message.Offset, maxBytes int, dst []storage.Run) ([]storage.Run, error) {
	if err := l.errClosed("read"); err != nil {
		return dst, err
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	start, end := message.Offset(l.start.Load()), message.Offset(l.end.Load())
	if from < start || from > end {
		return dst, storage.OutOfRange("read log "+l.id.String(), from, start, end)
	}
	if from >= below {
		return dst, nil
	}
	i, _ := slices.BinarySearchFunc(l.blocks, from, func(b *block, o message.Offset) int {
		if b.end <= o {
			return -1
		}
		return 1
	})
	first := true
	for _, b := range l.blocks[i:] {
		r := b.read(from, below, maxBytes, first)
		if r.Len == 0 {
			break
		}
		b.chunk.Retain()
		r.SetLease(b.chunk)
		dst = append(dst, r)
		maxBytes -= r.Len
		first = false
		from = r.End
		if from != b.end || from >= below {
			break
		}
	}
	return dst, nil
}

// Start returns the oldest offset held.
func (l *Log) Start() message.Offset { return message.Offset(l.start.Load()) }

// End returns the next offset.
func (l *Log) End() message.Offset { return message.Offset(l.end.Load()) }

// Durable returns 0.
func (l *Log) Durable() message.Offset { return 0 }

// Epoch returns the log's incarnation. It starts from the time at which the
// engine was opened, in µs, and so also grows from process to process, as long
// as the clock does.
func (l *Log) Epoch() uint64 { return l.epoch }

// OffsetForTime looks at every block and then within one.
func (l *Log) OffsetForTime(us int64) (message.Offset, error) {
	if err := l.errClosed("search"); err != nil {
		return 0, err
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, b := range l.blocks {
		if b.maxTime >= us {
			return b.offsetForTime(us), nil
		}
	}
	return message.Offset(l.end.Load()), nil
}

// Retain drops whole blocks; never the last one.
func (l *Log) Retain(p storage.Retention, now int64, below message.Offset) (removed int64, err error) {
	defer l.e.pool.Tune(time.Now()) // retention is called now and then, and frees blocks
	if err := l.errClosed("retain"); err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for n < len(l.blocks)-1 {
		b := l.blocks[n]
		expired := p.MaxAge > 0 && now-b.lastTime > p.MaxAge.Microseconds()
		tooMany := p.MaxBytes > 0 && l.bytes-int64(b.used) >= p.MaxBytes
		if b.end > below || !expired && !tooMany {
			break
		}
		removed += int64(b.used)
		l.bytes -= int64(b.used)
		l.taken -= int64(len(b.chunk.B))
		l.start.Store(int64(b.end))
		b.chunk.Release()
		n++
	}
	l.blocks = slices.Delete(l.blocks, 0, n)
	l.stats.Removed += removed
	return removed, nil
}

// sizes returns the bytes of batches and those of the blocks they are in.
func (l *Log) sizes() (held, taken int64) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.bytes, l.taken
}

// Stats returns the log's figures.
func (l *Log) Stats() storage.LogStats {
	l.mu.RLock()
	defer l.mu.RUnlock()
	s := l.stats
	s.Bytes, s.Segments = l.bytes, len(l.blocks)
	return s
}

// Close ends this incarnation; the batches stay with the engine.
func (l *Log) Close() error {
	l.closed.Store(true)
	return nil
}

// drop gives all blocks back. The log is closed.
func (l *Log) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.blocks {
		b.chunk.Release()
	}
	l.blocks, l.bytes, l.taken = nil, 0, 0
}
