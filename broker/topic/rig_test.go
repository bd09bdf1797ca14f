package topic

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"

	"github.com/oklog/ulid/v2"
	"go.uber.org/goleak"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/internal/vfs"
	"github.com/portask/portask/broker/mempool"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/partition"
	"github.com/portask/portask/broker/storage"
	"github.com/portask/portask/broker/storage/disklog"
	"github.com/portask/portask/broker/storage/memlog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var defaults = Config{Partitions: 2, RetentionMs: Unlimited, RetentionBytes: Unlimited, SegmentBytes: 32 << 10}

// broker is a catalogue with what it stands on.
type broker struct {
	*Catalogue
	t    testing.TB
	eng  storage.Engine
	c    *partition.Committer
	pool *mempool.Pool
	acks chan partition.Completion
	now  int64 // what the clock says to batches, µs
	log  bytes.Buffer
	once sync.Once
}

// start opens a catalogue on eng; stop closes it and leaves eng open.
func start(t testing.TB, eng storage.Engine) (*broker, error) {
	b := &broker{t: t, eng: eng, c: partition.NewCommitter(partition.CommitterOptions{Workers: 2}),
		pool: mempool.NewPool(mempool.Options{}), acks: make(chan partition.Completion, 4096), now: 1}
	var err error
	b.Catalogue, err = Open(Options{Engine: eng, Sink: b, Committer: b.c, Defaults: defaults, Logger: slog.New(slog.NewTextHandler(&b.log, nil))})
	if err != nil {
		b.c.Close()
		b.pool.Close()
		return nil, err
	}
	t.Cleanup(func() { b.stop() })
	return b, nil
}

func mustStart(t testing.TB, eng storage.Engine) *broker {
	t.Helper()
	b, err := start(t, eng)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *broker) stop() (err error) {
	b.once.Do(func() {
		err = b.Catalogue.Close()
		b.c.Close()
		b.pool.Close()
	})
	return err
}

func (b *broker) Complete(_ int, cs []partition.Completion) {
	for _, c := range cs {
		b.acks <- c
	}
}

func (b *broker) Advanced(int, *partition.Partition) {}

// produce stores n batches of one message in each partition of a topic, at the
// engine's strongest level, and waits for the acks.
func (b *broker) produce(name string, n int) error {
	t, err := b.Lookup(name)
	if err != nil {
		return err
	}
	open := 0
	for _, p := range t.Partitions {
		for range n {
			ok, err := b.send(p)
			if err != nil {
				return err
			}
			open += ok
		}
	}
	for range open {
		if c := <-b.acks; c.Err != nil {
			err = c.Err
		}
	}
	return err
}

func (b *broker) send(p *partition.Partition) (int, error) {
	build := message.NewBuilder(message.DefaultLimits())
	if err := build.Append(&message.Message{Value: make([]byte, 100), Timestamp: 1}); err != nil {
		return 0, err
	}
	raw, err := build.Finish(nil, message.Producer{}, nil)
	if err != nil {
		return 0, err
	}
	e, err := message.ParseEnvelope(raw, nil)
	if err != nil {
		return 0, err
	}
	ch := b.pool.Get(len(raw))
	defer b.pool.Retire(ch)
	copy(ch.B, raw)
	res, err := p.Produce(&e, ch.B[:len(raw)], ch, 0, b.eng.Levels().Strongest(), partition.Token{}, b.now)
	if err != nil {
		return 0, err
	}
	if res.Flush {
		p.Flush(-1)
	}
	return 1, nil
}

// holds reports how many messages each partition of a topic has, read back.
func (b *broker) holds(name string) ([]int, error) {
	t, err := b.Lookup(name)
	if err != nil {
		return nil, err
	}
	var ns []int
	for _, p := range t.Partitions {
		n := 0
		for from := p.Start(); from < p.Visible(); {
			runs, err := p.Read(from, 1<<20, nil)
			if err != nil || len(runs) == 0 {
				return nil, fmt.Errorf("read %s/%d at %d: %d runs, %w", name, p.Index(), from, len(runs), err)
			}
			for i := range runs {
				raw := make([]byte, runs[i].Len)
				if k, err := runs[i].ReadAt(raw, 0); k != len(raw) {
					return nil, err
				}
				for len(raw) > 0 {
					size, err := message.BatchBytes(raw, nil)
					if err != nil {
						return nil, err
					}
					if _, _, err := message.Validate(raw[:size], runs[i].Seed, nil); err != nil {
						return nil, err
					}
					raw = raw[size:]
					n++
				}
				from = runs[i].End
				runs[i].Release()
			}
		}
		ns = append(ns, n)
	}
	return ns, nil
}

func (b *broker) wantHolds(name string, want ...int) {
	b.t.Helper()
	if got, err := b.holds(name); err != nil || !slices.Equal(got, want) {
		b.t.Errorf("topic %s holds %v, want %v: %v", name, got, want, err)
	}
}

func (b *broker) names() []string {
	var names []string
	for _, t := range b.List() {
		names = append(names, t.Name)
	}
	return names
}

func openMem(t testing.TB) storage.Engine {
	t.Helper()
	eng, err := memlog.Open(memlog.Options{MaxBytes: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := eng.Close(); err != nil {
			t.Error(err)
		}
	})
	return eng
}

func openDisk(fsys vfs.FS) (storage.Engine, error) {
	return disklog.Open(fsys, "data", disklog.Options{FirstBytes: 16 << 10, SegmentBytes: 16 << 10, Spares: -1, ReserveBytes: -1})
}

func mustOpenDisk(t testing.TB, fsys vfs.FS) storage.Engine {
	t.Helper()
	eng, err := openDisk(fsys)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := eng.Close(); err != nil {
			t.Error(err)
		}
	})
	return eng
}

func logs(t testing.TB, eng storage.Engine) []storage.PartitionID {
	t.Helper()
	ids, err := eng.ListLogs()
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// wantFault checks an error's code and field.
func wantFault(t testing.TB, what string, err error, code fault.Code, field string) {
	t.Helper()
	f := fault.Find(err)
	if f == nil || f.Code != code || f.Field != field {
		t.Errorf("%s: %v; want %v of field %q", what, err, code, field)
	}
}

// wrapped is an engine whose calls the test may replace.
type wrapped struct {
	storage.Engine
	openLog   func(storage.PartitionID) error
	storeMeta func() error
	closeLog  error
}

func (w *wrapped) OpenLog(id storage.PartitionID, o storage.LogOptions) (storage.Log, error) {
	if w.openLog != nil {
		if err := w.openLog(id); err != nil {
			return nil, err
		}
	}
	l, err := w.Engine.OpenLog(id, o)
	if err != nil {
		return nil, err
	}
	return &wrappedLog{l, w}, nil
}

func (w *wrapped) StoreMeta(name string, b []byte) error {
	if w.storeMeta != nil {
		if err := w.storeMeta(); err != nil {
			return err
		}
	}
	return w.Engine.StoreMeta(name, b)
}

type wrappedLog struct {
	storage.Log
	w *wrapped
}

func (l *wrappedLog) Close() error {
	if err := l.Log.Close(); err != nil {
		return err
	}
	return l.w.closeLog
}

func newID() ulid.ULID { return ulid.Make() }
