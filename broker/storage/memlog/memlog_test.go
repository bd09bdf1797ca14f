package memlog

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/storage"
	"github.com/portask/portask/broker/storage/storagetest"
)

func TestConformance(t *testing.T) {
	storagetest.Run(t, func(t testing.TB) *storagetest.Target {
		return &storagetest.Target{
			Open: func() (storage.Engine, error) { return Open(Options{poison: true}) },
		}
	})
}

// batchOf returns a stampable batch with one message.
func batchOf(t testing.TB, valueBytes int) storage.Batch {
	t.Helper()
	b := message.NewBuilder(message.DefaultLimits())
	if err := b.Append(&message.Message{Value: make([]byte, valueBytes), Timestamp: 1}); err != nil {
		t.Fatal(err)
	}
	raw, err := b.Finish(nil, message.Producer{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return storage.Batch{Bytes: raw, Time: 1, MaxTime: 1}
}

// appendOne appends b at the end of l.
func appendOne(l storage.Log, b storage.Batch) error {
	b.Base, b.End = l.End(), l.End()+1
	return l.Append([]storage.Batch{b})
}

func open(t testing.TB, maxBytes int64) (*Engine, storage.Log) {
	t.Helper()
	e, err := Open(Options{MaxBytes: maxBytes, poison: true})
	if err != nil {
		t.Fatal(err)
	}
	l, err := e.OpenLog(storage.PartitionID{}, storage.LogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e, l
}

func TestOptions(t *testing.T) {
	for _, n := range []int64{-1, 1, minMaxBytes - 1} {
		_, err := Open(Options{MaxBytes: n})
		if fault.CodeOf(err) != fault.Invalid || fault.Find(err).Field != "memory" || fault.Find(err).Limit != minMaxBytes {
			t.Errorf("%d: %v", n, err)
		}
	}
	e, l := open(t, 0)
	if _, total, _, err := e.Space(); total != DefaultMaxBytes || err != nil {
		t.Errorf("%d, %v", total, err)
	}
	if e.Levels().String() != "none, accepted" || e.Blocking() || e.Name() != "memlog" {
		t.Errorf("%v, %v, %v", e.Levels(), e.Blocking(), e.Name())
	}
	_, err := l.Sync()
	const want = "sync log 00000000000000000000000000-0: engine: memlog gives none, accepted; durable needs the engine disklog"
	if err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
}

// TestFull fills the engine to its bound: the error names the setting, nothing
// of the refused call is stored, and room comes back with retention, but not
// while somebody still reads what was dropped.
func TestFull(t *testing.T) {
	const limit = 4 << 20
	e, l := open(t, limit)
	b := batchOf(t, 30_000)
	var err error
	for err == nil {
		if live := e.pool.Stats().LiveBytes; live > limit {
			t.Fatalf("%d bytes live", live)
		}
		err = appendOne(l, b)
	}
	f := fault.Find(err)
	if f.Code != fault.Full || f.Field != "memory" || !f.HasLimit || f.Limit != limit || f.Value <= limit ||
		!f.Info().Retryable || !strings.Contains(err.Error(), "--memory") {
		t.Fatalf("%v", err)
	}
	end, held := l.End(), l.Stats().Bytes
	if held < limit*9/10 {
		t.Errorf("full with %d bytes of batches", held)
	}
	if free, _, low, _ := e.Space(); !low || free >= limit/lowShare {
		t.Errorf("%d free, low %v", free, low)
	}

	// A gathered append is refused whole, though its first batches would fit.
	small := batchOf(t, 100)
	var many []storage.Batch
	for i := range message.Offset(2000) {
		c := batchOf(t, 1000)
		c.Base, c.End = end+i, end+i+1
		many = append(many, c)
	}
	if err := l.Append(many); fault.CodeOf(err) != fault.Full {
		t.Fatalf("%v", err)
	}
	if l.End() != end || l.Stats().Bytes != held || e.pool.Stats().LiveBytes > limit {
		t.Fatalf("end %d after %d", l.End(), end)
	}
	if err := appendOne(l, small); err != nil { // fits into the last block
		t.Fatal(err)
	}

	runs, err := l.Read(0, l.End(), 1<<20, nil)
	if err != nil {
		t.Fatal(err)
	}
	first := append([]byte{}, runs[0].Mem...)
	if n, err := l.Retain(storage.Retention{MaxBytes: 1 << 20}, 0, math.MaxInt64); err != nil || n == 0 {
		t.Fatal(n, err)
	}
	s := e.Stats()
	if s.HeldBytes == 0 || s.LimitBytes != limit {
		t.Fatalf("%+v", s)
	}
	if string(first) != string(runs[0].Mem) {
		t.Fatal("the lease is not intact")
	}
	for i := range runs {
		runs[i].Release()
	}
	if s := e.Stats(); s.HeldBytes != 0 {
		t.Fatalf("%+v", s)
	}
	for range 20 {
		if err := appendOne(l, b); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRetentionKeepsALogGoing: with a retention by size below the bound, a log
// runs for ever.
func TestRetentionKeepsALogGoing(t *testing.T) {
	_, l := open(t, 8<<20)
	b := batchOf(t, 100_000)
	for range 1000 {
		if err := appendOne(l, b); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Retain(storage.Retention{MaxBytes: 2 << 20}, 0, l.End()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReadsDoNotCopy(t *testing.T) {
	_, l := open(t, 0)
	for range 10 {
		if err := appendOne(l, batchOf(t, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	var mem [2]*byte
	for i := range mem {
		runs, err := l.Read(3, l.End(), 1<<20, nil)
		if err != nil || len(runs) != 1 || runs[0].Batches != 7 || runs[0].Seed != 0 {
			t.Fatalf("%+v, %v", runs, err)
		}
		mem[i] = &runs[0].Mem[0]
		if cap(runs[0].Mem) != len(runs[0].Mem) {
			t.Fatal("a reader could append into the block")
		}
		runs[0].Release()
	}
	if mem[0] != mem[1] {
		t.Fatal("two reads gave two copies")
	}
}

func TestSmallLogsTakeSmallBlocks(t *testing.T) {
	e, _ := open(t, 0)
	for i := range uint32(100) {
		l, err := e.OpenLog(storage.PartitionID{Index: i + 1}, storage.LogOptions{SegmentBytes: 64 << 20})
		if err != nil {
			t.Fatal(err)
		}
		if err := appendOne(l, batchOf(t, 10)); err != nil {
			t.Fatal(err)
		}
	}
	if live := e.pool.Stats().LiveBytes; live != 100*firstBlockBytes {
		t.Fatalf("%d bytes live", live)
	}
}

func TestEpochsGrowFromEngineToEngine(t *testing.T) {
	_, l := open(t, 0)
	was := l.Epoch()
	for now := time.Now().UnixMicro(); time.Now().UnixMicro() == now; { // the clock is the real one and must move
	}
	_, l = open(t, 0)
	if l.Epoch() <= was {
		t.Fatalf("epoch %d after %d", l.Epoch(), was)
	}
}

func TestMetadataIsBounded(t *testing.T) {
	e, _ := open(t, 0)
	big := make([]byte, storage.MaxMetaBytes)
	for _, name := range []string{"a", "b", "c", "d"} {
		if err := e.StoreMeta(name, big); err != nil {
			t.Fatal(err)
		}
	}
	err := e.StoreMeta("e", []byte{1})
	if fault.CodeOf(err) != fault.Full || fault.Find(err).Limit != metaMaxBytes {
		t.Fatalf("%v", err)
	}
	if err := e.StoreMeta("a", big); err != nil { // in place of itself
		t.Fatal(err)
	}
	if err := e.StoreMeta("a", nil); err != nil {
		t.Fatal(err)
	}
	if err := e.StoreMeta("e", big); err != nil {
		t.Fatal(err)
	}
}

// TestAllocations: the path of a batch through the engine takes no heap beyond
// blocks and their index.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	_, l := open(t, 0)
	batches := []storage.Batch{batchOf(t, 1000)}
	retention := storage.Retention{MaxBytes: 16 << 20}
	n := testing.AllocsPerRun(20_000, func() {
		batches[0].Base, batches[0].End = l.End(), l.End()+1
		if err := l.Append(batches); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Retain(retention, 0, l.End()); err != nil {
			t.Fatal(err)
		}
	})
	if n > 0 {
		t.Errorf("%v allocations an append", n)
	}
	runs := make([]storage.Run, 0, 16)
	from := l.Start()
	n = testing.AllocsPerRun(5000, func() {
		var err error
		if runs, err = l.Read(from, l.End(), 64<<10, runs[:0]); err != nil {
			t.Fatal(err)
		}
		for i := range runs {
			from = runs[i].End
			runs[i].Release()
		}
		if from == l.End() {
			from = l.Start()
		}
	})
	if n > 0 {
		t.Errorf("%v allocations a read", n)
	}
}

func BenchmarkAppend(b *testing.B) {
	_, l := open(b, 0)
	batches := []storage.Batch{batchOf(b, 64<<10)}
	b.Run("engine=memlog/batch=64KiB", func(b *testing.B) {
		b.SetBytes(int64(len(batches[0].Bytes)))
		for b.Loop() {
			batches[0].Base, batches[0].End = l.End(), l.End()+1
			if err := l.Append(batches); err != nil {
				b.Fatal(err)
			}
			if _, err := l.Retain(storage.Retention{MaxBytes: 64 << 20}, 0, l.End()); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkRead(b *testing.B) {
	_, l := open(b, 0)
	for range 20_000 {
		if err := appendOne(l, batchOf(b, 1000)); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("engine=memlog/run=64KiB", func(b *testing.B) {
		runs := make([]storage.Run, 0, 4)
		from := message.Offset(0)
		for b.Loop() {
			runs, _ = l.Read(from, l.End(), 64<<10, runs[:0])
			for i := range runs {
				from = runs[i].End
				runs[i].Release()
			}
			if from == l.End() {
				from = 0
			}
		}
	})
}
