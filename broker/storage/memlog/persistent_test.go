package memlog

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/storage"
	"github.com/portask/portask/broker/storage/storagetest"
)

// TestSuiteOnAnEngineThatPersists shows the parts of the suite that memlog
// itself skips an engine that has what they ask for: memlog with a pretended
// disk, which outlives the engine and remembers what was synced.
func TestSuiteOnAnEngineThatPersists(t *testing.T) {
	storagetest.Run(t, func(t testing.TB) *storagetest.Target {
		d := newDisk(t)
		return &storagetest.Target{
			Persists: true,
			Open:     func() (storage.Engine, error) { return &synced{disk: d}, nil },
			DamageMeta: func(name string) error {
				d.damaged[name] = true
				return nil
			},
			Crash: func(_ storage.Engine, seed uint64) (storage.Engine, error) {
				return &synced{disk: d}, d.crash(t, rand.New(rand.NewPCG(seed, 0)))
			},
		}
	})
}

// disk is what survives: a memlog, and for each log the synced end.
type disk struct {
	mem     *Engine
	opts    map[storage.PartitionID]storage.LogOptions
	durable map[storage.PartitionID]message.Offset
	open    map[*syncedLog]bool
	damaged map[string]bool
}

func newDisk(t testing.TB) *disk {
	e, err := Open(Options{poison: true})
	if err != nil {
		t.Fatal(err)
	}
	return &disk{
		mem: e, opts: map[storage.PartitionID]storage.LogOptions{}, damaged: map[string]bool{},
		durable: map[storage.PartitionID]message.Offset{}, open: map[*syncedLog]bool{},
	}
}

// crash rebuilds every log from a part of its batches that has the synced ones.
func (d *disk) crash(t testing.TB, rng *rand.Rand) error {
	was := d.mem
	d.mem = newDisk(t).mem
	d.mem.epoch0 = was.epoch0 + 1000
	d.mem.meta = was.meta
	for l := range d.open {
		_ = l.Log.Close()
	}
	clear(d.open)
	for id, old := range was.logs {
		l, err := d.mem.OpenLog(id, d.opts[id])
		if err != nil {
			return err
		}
		keep := d.durable[id]
		if end := old.End(); end > keep {
			keep += message.Offset(rng.Int64N(int64(end-keep) + 1))
		}
		if old.start.Load() > 0 { // the first block has the snapshot of what is gone
			keep = max(keep, old.blocks[0].end)
		}
		l.(*Log).start.Store(old.start.Load())
		l.(*Log).end.Store(old.start.Load())
		for _, b := range old.blocks {
			for pos := 0; pos < b.used; {
				e := b.envelope(pos)
				raw := bytes.Clone(b.chunk.B[pos : pos+e.Bytes()])
				pos += e.Bytes()
				if e.EndOffset() > keep {
					break
				}
				if err := l.Append([]storage.Batch{{
					Bytes: raw, Base: e.BaseOffset, End: e.EndOffset(),
					Time: e.AppendTime, Epoch: e.Epoch, MaxTime: e.MaxTimestamp(),
				}}); err != nil {
					return err
				}
			}
		}
		if err := l.Close(); err != nil {
			return err
		}
		d.durable[id] = l.End()
	}
	return nil
}

// synced is an engine on a disk.
type synced struct {
	*disk
	closed bool
}

func (s *synced) err() error {
	if s.closed {
		return fault.Closed
	}
	return nil
}

func (s *synced) Name() string           { return "synced" }
func (s *synced) Levels() storage.Levels { return 7 }
func (s *synced) Blocking() bool         { return true }

func (s *synced) OpenLog(id storage.PartitionID, o storage.LogOptions) (storage.Log, error) {
	if s.closed {
		return nil, fault.Closed
	}
	l, err := s.mem.OpenLog(id, o)
	if err != nil {
		return nil, err
	}
	s.opts[id] = storage.LogOptions{SegmentBytes: o.SegmentBytes, Snapshot: o.Snapshot}
	w := &syncedLog{Log: l.(*Log), d: s.disk}
	s.open[w] = true
	return w, nil
}

func (s *synced) RemoveLog(id storage.PartitionID) error {
	if s.closed {
		return fault.Closed
	}
	delete(s.durable, id)
	return s.mem.RemoveLog(id)
}

func (s *synced) ListLogs() ([]storage.PartitionID, error) {
	ids, err := s.mem.ListLogs()
	return ids, errors.Join(err, s.err())
}

func (s *synced) LoadMeta(name string) ([]byte, error) {
	if s.closed {
		return nil, fault.Closed
	}
	if s.damaged[name] {
		return nil, fault.Corrupted
	}
	return s.mem.LoadMeta(name)
}

func (s *synced) StoreMeta(name string, b []byte) error {
	if s.closed {
		return fault.Closed
	}
	delete(s.damaged, name)
	return s.mem.StoreMeta(name, b)
}

func (s *synced) RemoveMeta(name string) error {
	if s.closed {
		return fault.Closed
	}
	delete(s.damaged, name)
	return s.mem.RemoveMeta(name)
}

func (s *synced) Space() (free, total int64, low bool, err error) {
	if s.closed {
		return 0, 0, false, fault.Closed
	}
	return s.mem.Space()
}

func (s *synced) Stats() storage.EngineStats { return s.mem.Stats() }

func (s *synced) Close() error {
	s.closed = true
	for l := range s.open {
		_ = l.Close()
	}
	return nil
}

// syncedLog adds the level durable.
type syncedLog struct {
	*Log
	d *disk
}

func (l *syncedLog) Sync() (message.Offset, error) {
	end := l.End()
	if err := l.errClosed("sync"); err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stats.Syncs++
	l.d.durable[l.id] = end
	return end, nil
}

func (l *syncedLog) Durable() message.Offset {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.d.durable[l.id]
}

func (l *syncedLog) Close() error {
	if _, err := l.Sync(); err == nil {
		delete(l.d.open, l)
	}
	return l.Log.Close()
}
