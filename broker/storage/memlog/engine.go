// Package memlog keeps logs in a bounded amount of memory and loses them with
// the process. It gives the levels `none` and `accepted`, where accepted means
// "in the broker's memory", and refuses `durable`. It is for data that is worth
// nothing after a restart, and for tests.
//
// A log is a row of blocks borrowed from a mempool.Pool of the engine's own;
// appending copies a batch into the last block, reading lends a part of a block
// under a reference to it, so nothing is copied on the way out. The block is the
// segment: retention drops whole blocks, and a block under a lease is kept from
// reuse until the lease ends.
//
// The engine and its logs follow the concurrency rules of package storage.
package memlog

import (
	"bytes"
	"slices"
	"sync"
	"time"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/mempool"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/storage"
)

// Name is the engine's name in configuration and metadata.
const Name = "memlog"

// DefaultMaxBytes is Options.MaxBytes where it is 0.
const DefaultMaxBytes = 256 << 20

// minMaxBytes is one block. A batch of the default limits needs 64 times that.
const minMaxBytes = firstBlockBytes

// lowShare of MaxBytes left free asks producers to stop: enough for what they
// have credit for already.
const lowShare = 16

// metaMaxBytes bounds all blobs of metadata together, beside MaxBytes.
const metaMaxBytes = 4 * storage.MaxMetaBytes

// Options are the engine's settings.
type Options struct {
	// MaxBytes bounds the blocks of all logs, those under leases included.
	// Free blocks that were in use lately count within it and 1/16 more, at most
	// 4 MiB. An index of under 1 % of it comes on top. 0 is DefaultMaxBytes; the least is 64 KiB.
	MaxBytes int64

	poison bool // overwrite blocks that are given back, for tests
}

// Engine implements storage.Engine.
type Engine struct {
	pool     *mempool.Pool
	maxBytes int64
	epoch0   uint64 // added to the count of opens; immutable

	mu         sync.Mutex
	logs       map[storage.PartitionID]*Log // the latest incarnation, open or closed
	meta       map[string][]byte
	metaBytes  int64
	metaWrites uint64
	closed     bool
}

var _ storage.Engine = (*Engine)(nil)

// Check reports what is wrong with o: a fault.Invalid or fault.TooLarge with
// field "memory".
func (o Options) Check() error {
	switch {
	case o.MaxBytes == 0:
	case o.MaxBytes < minMaxBytes:
		return fault.New(fault.Invalid, "open memlog").WithField("memory").
			WithDetail("is less than one block").WithLimit(o.MaxBytes, minMaxBytes)
	case int64(int(o.MaxBytes)) != o.MaxBytes:
		return fault.New(fault.TooLarge, "open memlog").WithField("memory").
			WithLimit(o.MaxBytes, int64(^uint(0)>>1))
	}
	return nil
}

// Open returns an empty engine. The error is that of Check.
func Open(o Options) (*Engine, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	return &Engine{
		pool: mempool.NewPool(mempool.Options{
			MaxBytes: int(o.MaxBytes), KeepBytes: -1, Poison: o.poison,
			FreeBytes: int(min(o.MaxBytes/16, mempool.DefaultFreeBytes)),
			Leaked:    func(string) {}, // runs may outlive the engine
		}),
		maxBytes: o.MaxBytes,
		// An earlier process may have had logs of the same name, and epochs
		// for them that clients remember.
		epoch0: uint64(max(0, time.Now().UnixMicro())),
		logs:   map[storage.PartitionID]*Log{},
		meta:   map[string][]byte{},
	}, nil
}

// Name returns "memlog".
func (e *Engine) Name() string { return Name }

// Levels returns none and accepted.
func (e *Engine) Levels() storage.Levels {
	return storage.LevelsOf(message.AckNone, message.AckAccepted)
}

// Blocking is false: Append is a copy in memory.
func (e *Engine) Blocking() bool { return false }

// errClosed is for calls after Close. The lock is held.
func (e *Engine) errClosed(op string) error {
	if e.closed {
		return fault.New(fault.Closed, op+" memlog")
	}
	return nil
}

// OpenLog opens or creates a log. A log closed earlier is as it was.
func (e *Engine) OpenLog(id storage.PartitionID, o storage.LogOptions) (storage.Log, error) {
	e.mu.Lock()
	old, err := e.logs[id], e.errClosed("open log in")
	if err == nil && old != nil && !old.isClosed() {
		err = fault.New(fault.Exists, "open log "+id.String()).WithDetail("is open already")
	}
	if err != nil {
		e.mu.Unlock()
		return nil, err
	}
	l := newLog(e, id, o, old)
	e.logs[id] = l
	e.mu.Unlock()

	if o.Replay != nil {
		if err := l.replay(o.Replay); err != nil {
			_ = l.Close() // cannot fail
			return nil, err
		}
	}
	return l, nil
}

// RemoveLog forgets a closed log and gives its blocks back.
func (e *Engine) RemoveLog(id storage.PartitionID) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.errClosed("remove log from"); err != nil {
		return err
	}
	l := e.logs[id]
	switch {
	case l == nil:
		return fault.New(fault.NotFound, "remove log "+id.String())
	case !l.isClosed():
		return fault.New(fault.Exists, "remove log "+id.String()).WithDetail("is open")
	}
	l.drop()
	delete(e.logs, id)
	return nil
}

// ListLogs returns all logs in order.
func (e *Engine) ListLogs() ([]storage.PartitionID, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.errClosed("list logs of"); err != nil {
		return nil, err
	}
	ids := make([]storage.PartitionID, 0, len(e.logs))
	for id := range e.logs {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b storage.PartitionID) int {
		if c := bytes.Compare(a.Topic[:], b.Topic[:]); c != 0 {
			return c
		}
		return int(int64(a.Index) - int64(b.Index))
	})
	return ids, nil
}

// LoadMeta returns a copy of a blob.
func (e *Engine) LoadMeta(name string) ([]byte, error) {
	if err := storage.CheckMetaName(name); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.errClosed("load metadata from"); err != nil {
		return nil, err
	}
	b, ok := e.meta[name]
	if !ok {
		return nil, fault.New(fault.NotFound, "load metadata "+name)
	}
	return append([]byte{}, b...), nil
}

// StoreMeta keeps a copy of a blob, as long as the engine is open.
func (e *Engine) StoreMeta(name string, b []byte) error {
	if err := storage.CheckMetaName(name); err != nil {
		return err
	}
	op := "store metadata " + name
	if len(b) > storage.MaxMetaBytes {
		return fault.New(fault.TooLarge, op).WithLimit(int64(len(b)), storage.MaxMetaBytes)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.errClosed("store metadata in"); err != nil {
		return err
	}
	total := e.metaBytes - int64(len(e.meta[name])) + int64(len(b))
	if total > metaMaxBytes {
		return fault.New(fault.Full, op).WithField("metadata").WithLimit(total, metaMaxBytes)
	}
	e.metaBytes = total
	e.meta[name] = append([]byte{}, b...)
	e.metaWrites++
	return nil
}

// RemoveMeta forgets a blob.
func (e *Engine) RemoveMeta(name string) error {
	if err := storage.CheckMetaName(name); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.errClosed("remove metadata from"); err != nil {
		return err
	}
	b, ok := e.meta[name]
	if !ok {
		return fault.New(fault.NotFound, "remove metadata "+name)
	}
	e.metaBytes -= int64(len(b))
	delete(e.meta, name)
	return nil
}

// Space counts what blocks may still be taken. Parts of a block are not in it.
func (e *Engine) Space() (free, total int64, low bool, err error) {
	e.mu.Lock()
	err = e.errClosed("ask space of")
	e.mu.Unlock()
	if err != nil {
		return 0, 0, false, err
	}
	free = max(0, e.maxBytes-e.pool.Stats().LiveBytes)
	return free, e.maxBytes, free < e.maxBytes/lowShare, nil
}

// Stats returns the engine's figures.
func (e *Engine) Stats() storage.EngineStats {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := storage.EngineStats{LimitBytes: e.maxBytes, MetaWrites: e.metaWrites}
	blocks := int64(0)
	for _, l := range e.logs {
		held, taken := l.sizes()
		blocks += taken
		if !l.isClosed() {
			s.Logs++
			s.Bytes += held
		}
	}
	p := e.pool.Stats()
	s.HeldBytes = max(0, p.LiveBytes-blocks)
	s.Recycled = p.Gets - min(p.Misses, p.Gets)
	return s
}

// Close forgets everything. Runs stay readable until they are released.
func (e *Engine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil
	}
	e.closed = true
	for _, l := range e.logs {
		_ = l.Close() // cannot fail
		l.drop()
	}
	clear(e.logs)
	clear(e.meta)
	e.pool.Close()
	return nil
}
