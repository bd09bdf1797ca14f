package disklog

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/portask/portask/broker/internal/vfs"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/storage"
)

// feed makes batches of about bytes each, to be appended again and again.
type feed struct {
	batches []storage.Batch
	next    message.Offset
	clock   int64
}

func newFeed(t testing.TB, count, bytes int) *feed {
	t.Helper()
	f := &feed{clock: 1_700_000_000_000_000}
	build := message.NewBuilder(message.DefaultLimits())
	o := newOracle(1)
	for range count {
		build.Reset()
		for build.Bytes() < bytes-message.EnvelopeBytes-1100 {
			check(t, build.Append(&message.Message{Value: o.value(1024), Timestamp: f.clock}))
		}
		if left := bytes - message.EnvelopeBytes - build.Bytes() - 8; left > 0 {
			check(t, build.Append(&message.Message{Value: o.value(left), Timestamp: f.clock}))
		}
		n := build.Count()
		b, err := build.Finish(nil, message.Producer{}, nil)
		check(t, err)
		f.batches = append(f.batches, storage.Batch{Bytes: b, End: message.Offset(n), MaxTime: f.clock})
	}
	return f
}

// take returns the batches, stamped for the next offsets.
func (f *feed) take() []storage.Batch {
	for i := range f.batches {
		b := &f.batches[i]
		n := b.End - b.Base
		b.Base, b.End, b.Time = f.next, f.next+n, f.clock
		f.next, f.clock = f.next+n, f.clock+1
	}
	return f.batches
}

func (f *feed) bytes() (n int) {
	for i := range f.batches {
		n += len(f.batches[i].Bytes)
	}
	return n
}

// TestAllocations: appending, syncing and reading take no memory, warm.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	e, err := Open(vfs.OS(), filepath.Join(t.TempDir(), "data"), Options{})
	check(t, err)
	l, err := e.OpenLog(testID, storage.LogOptions{})
	check(t, err)
	f := newFeed(t, 4, 8<<10)
	for range 8 {
		check(t, l.Append(f.take()))
	}
	runs := make([]storage.Run, 0, 8)
	from := message.Offset(0)
	for name, op := range map[string]func(){
		"Append": func() { check(t, l.Append(f.take())) },
		"Sync": func() {
			check(t, l.Append(f.take()))
			_, err := l.Sync()
			check(t, err)
		},
		"Read": func() {
			runs, err = l.Read(from, l.End(), 20<<10, runs[:0])
			check(t, err)
			if from = runs[len(runs)-1].End; from >= l.End() {
				from = 0
			}
			for i := range runs {
				runs[i].Release()
			}
		},
	} {
		if n := testing.AllocsPerRun(200, op); n > 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	check(t, e.Close())
}

func benchLog(b *testing.B, o Options) (*Engine, storage.Log) {
	b.Helper()
	e, err := Open(vfs.OS(), filepath.Join(b.TempDir(), "data"), o)
	check(b, err)
	l, err := e.OpenLog(testID, storage.LogOptions{})
	check(b, err)
	b.Cleanup(func() { check(b, e.Close()) })
	return e, l
}

// BenchmarkAppend writes into the page cache, with retention at four segments,
// so that segments are recycled.
func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{1 << 10, 16 << 10, 64 << 10} {
		for _, gather := range []int{1, 16} {
			b.Run(fmt.Sprintf("batch=%dKiB/gather=%d", size>>10, gather), func(b *testing.B) {
				_, l := benchLog(b, Options{})
				f := newFeed(b, gather, size)
				b.SetBytes(int64(f.bytes()))
				b.ReportAllocs()
				n := int64(0)
				for b.Loop() {
					check(b, l.Append(f.take()))
					if n += int64(f.bytes()); n > 32<<20 {
						n = 0
						_, err := l.Retain(storage.Retention{MaxBytes: 128 << 20}, f.clock, l.Durable())
						check(b, err)
					}
				}
			})
		}
	}
}

// BenchmarkSync appends one batch and makes it durable.
func BenchmarkSync(b *testing.B) {
	for _, size := range []int{4 << 10, 64 << 10, 1 << 20} {
		for _, file := range []string{"plain", "zeroed"} {
			b.Run(fmt.Sprintf("batch=%dKiB/file=%s", size>>10, file), func(b *testing.B) {
				o := Options{FirstBytes: 1 << 30, SegmentBytes: 1 << 30, Spares: -1}
				if file == "zeroed" {
					o = Options{FirstBytes: 1 << 20, Spares: 2}
				}
				e, l := benchLog(b, o)
				f := newFeed(b, 1, size)
				for file == "zeroed" && !l.(*Log).attached() {
					check(b, l.Append(f.take()))
					for e.Stats().SpareSegments == 0 {
						e.work.want(64 << 20)
					}
				}
				b.SetBytes(int64(f.bytes()))
				for b.Loop() {
					check(b, l.Append(f.take()))
					_, err := l.Sync()
					check(b, err)
				}
			})
		}
	}
}

// attached reports whether the active segment is a spare that was ready.
func (l *Log) attached() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.active != nil && l.active.reuse
}

// BenchmarkRead looks runs up in a log that was just opened (checked: the bytes
// are read and their checksums compared) and in one that was written by this
// process.
func BenchmarkRead(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10} {
		for _, opened := range []bool{false, true} {
			b.Run(fmt.Sprintf("batch=%dKiB/opened=%t", size>>10, opened), func(b *testing.B) {
				e, l := benchLog(b, Options{Spares: -1, FirstBytes: 16 << 20, SegmentBytes: 16 << 20})
				f := newFeed(b, 16, size)
				for l.Stats().Bytes < 64<<20 {
					check(b, l.Append(f.take()))
				}
				if opened {
					check(b, l.Close())
					var err error
					l, err = e.OpenLog(testID, storage.LogOptions{})
					check(b, err)
				}
				var runs []storage.Run
				from := l.Start()
				b.SetBytes(1 << 20)
				for b.Loop() {
					var err error
					runs, err = l.Read(from, l.End(), 1<<20, runs[:0])
					check(b, err)
					if from = runs[len(runs)-1].End; from >= l.End() {
						from = l.Start()
					}
					for i := range runs {
						runs[i].Release()
					}
				}
			})
		}
	}
}

// BenchmarkOpen opens a log of 1 GiB after a kill in the middle of the last
// segment: the time to the first append.
func BenchmarkOpen(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10} {
		b.Run(fmt.Sprintf("log=1GiB/batch=%dKiB", size>>10), func(b *testing.B) {
			e, l := benchLog(b, Options{Spares: -1, FirstBytes: 64 << 20})
			f := newFeed(b, 16, size)
			for l.Stats().Bytes < 1<<30-32<<20 {
				check(b, l.Append(f.take()))
				if l.End()%4096 < 16 {
					_, err := l.Sync()
					check(b, err)
				}
			}
			_, err := l.Sync()
			check(b, err)
			check(b, l.Append(f.take()))
			for b.Loop() {
				k := killedCopy(e)
				again, err := openLog(k, testID, l.(*Log).opts)
				check(b, err)
				b.StopTimer()
				kill(again)
				b.StartTimer()
			}
		})
	}
}

// killedCopy returns an engine on the directory of another, which is not closed
// and must not write any more. It has no worker.
func killedCopy(e *Engine) *Engine {
	k := &Engine{fs: e.fs, dir: e.dir, opts: e.opts, logs: map[storage.PartitionID]*Log{}, metaOK: map[string]bool{}}
	k.files = fileCache{fs: e.fs, max: e.opts.OpenSegments}
	k.work = newWorker(k)
	return k
}

// kill ends a log as the death of the process would.
func kill(l *Log) {
	l.closed.Store(true)
	for _, s := range l.segs {
		l.eng.files.leave(s)
	}
	_ = l.dur.f.Close()
}
