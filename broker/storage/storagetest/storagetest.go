// Package storagetest is the contract of package storage as a test suite. An
// engine calls Run from one of its tests and passes, or is no engine.
//
// The suite builds real batches, keeps beside each log a plain slice of what it
// appended, and compares everything that comes back with it byte for byte. It
// asks an engine for the levels it declares and for no others.
package storagetest

import (
	"errors"
	"testing"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/storage"
)

// Target is an engine under test, with storage of its own that is empty at
// first.
type Target struct {
	// Open opens the engine on the target's storage. It is called once more
	// after each Close if the engine persists, else once.
	Open func() (storage.Engine, error)
	// Persists says that logs and metadata outlive Engine.Close.
	Persists bool
	// SegmentBytes are segment sizes to test with. The first should be small,
	// so that a few batches of 1 KiB fill it. Nil means 4 KiB, 64 KiB and the
	// engine's default.
	SegmentBytes []int64
	// DamageMeta changes some byte of the blob stored under name, while the
	// engine is closed. Nil if that cannot be done.
	DamageMeta func(name string) error
	// Crash cuts the power: it abandons e without closing it, and opens an
	// engine on what is left. What of the unsynced is left follows from seed.
	// Nil if nothing would be.
	Crash func(e storage.Engine, seed uint64) (storage.Engine, error)
}

func (g *Target) segmentBytes() []int64 {
	if g.SegmentBytes == nil {
		return []int64{4 << 10, 64 << 10, 0}
	}
	return g.SegmentBytes
}

// small is the smallest segment size.
func (g *Target) small() int64 { return g.segmentBytes()[0] }

// Run runs the whole suite. newTarget is called for each test and each random
// history; it may use t for temporary directories and cleanup.
func Run(t *testing.T, newTarget func(t testing.TB) *Target) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, g *Target)
	}{
		{"declarations", testDeclarations},
		{"append and read", testAppendRead},
		{"gathered append is as many appends", testGathered},
		{"read rules", testReadRules},
		{"refused appends store nothing", testRefusedAppends},
		{"caller keeps its memory", testCallersMemory},
		{"batch larger than a segment", testLargeBatch},
		{"levels", testLevels},
		{"lookup by time", testTime},
		{"retention by age", testRetainAge},
		{"retention by size", testRetainBytes},
		{"retention stays below", testRetainBelow},
		{"leased runs stay intact", testLeases},
		{"reopened log", testReopen},
		{"replay after retention", testReplayAfterRetention},
		{"replay without snapshots", testReplayWithoutSnapshots},
		{"replay error", testReplayError},
		{"reopened engine", testReopenEngine},
		{"remove and list", testRemoveList},
		{"logs do not mix", testManyLogs},
		{"metadata", testMeta},
		{"removed metadata", testRemoveMeta},
		{"damaged metadata", testDamagedMeta},
		{"close", testClose},
		{"space and figures", testStats},
		{"concurrent use", testConcurrent},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, newTarget(t)) })
	}
	t.Run("histories", func(t *testing.T) { testHistories(t, newTarget) })
}

// reporter is what both *testing.T and *rapid.T offer.
type reporter interface {
	Helper()
	Fatalf(format string, args ...any)
}

func must(t reporter, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v (%v)", err, fault.CodeOf(err).Info().Name)
	}
}

func wantCode(t reporter, what string, err error, want fault.Code) {
	t.Helper()
	if fault.CodeOf(err) != want {
		t.Fatalf("%s: error %v (%s), want %s", what, err, fault.CodeOf(err).Info().Name, want.Info().Name)
	}
}

// open opens the engine, to be closed at the end of the test.
func (g *Target) open(t *testing.T) storage.Engine {
	t.Helper()
	e, err := g.Open()
	must(t, err)
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Errorf("close engine: %v", err)
		}
	})
	return e
}

// pid is the i-th partition of the suite's topic.
func pid(i uint32) storage.PartitionID {
	return storage.PartitionID{Topic: [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}, Index: i}
}

// openLog opens a log with its model, which may know it from before.
func openLog(t reporter, e storage.Engine, id storage.PartitionID, m *model, segment int64) storage.Log {
	t.Helper()
	r := &replay{t: t}
	l, err := e.OpenLog(id, storage.LogOptions{SegmentBytes: segment, Snapshot: m.snapshot, Replay: r})
	must(t, err)
	r.check(m)
	if l.Epoch() <= m.epoch {
		t.Fatalf("epoch %d after %d", l.Epoch(), m.epoch)
	}
	m.epoch = l.Epoch()
	return l
}

// newLog opens an empty log.
func newLog(t reporter, e storage.Engine, segment int64) (storage.Log, *model) {
	t.Helper()
	m := newModel(1)
	l := openLog(t, e, pid(0), m, segment)
	if l.Start() != 0 || l.End() != 0 || l.Durable() != 0 {
		t.Fatalf("new log is [%d, %d), durable to %d", l.Start(), l.End(), l.Durable())
	}
	return l, m
}

// syncIfAble syncs a log whose engine can, and checks that this reaches the end.
func syncIfAble(t reporter, e storage.Engine, l storage.Log) {
	t.Helper()
	if !e.Levels().Has(message.AckDurable) {
		return
	}
	d, err := l.Sync()
	must(t, err)
	if d != l.End() || l.Durable() != d {
		t.Fatalf("synced to %d, Durable says %d, the end is %d", d, l.Durable(), l.End())
	}
}

func rangeOf(err error) *storage.RangeError {
	r, _ := errors.AsType[*storage.RangeError](err)
	return r
}
