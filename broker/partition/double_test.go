package partition

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/mempool"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// double is an engine with one log, whose every append and sync asks the test
// first. It watches that the partition keeps the rules of storage.Log.
type double struct {
	t        testing.TB
	levels   storage.Levels
	blocking bool
	null     bool // keep nothing: for counting allocations

	onAppend func([]storage.Batch) error // nil: fine; set before the partition opens
	onSync   func() error
	onRead   func()
	onRetain func()

	retains                       atomic.Int64
	appends, syncs                atomic.Int64 // calls
	appending, syncing, retaining atomic.Bool
	using                         atomic.Int64 // calls under way that Close must not meet
	closed                        atomic.Bool
	end, durable                  atomic.Int64
	start                         atomic.Int64

	mu   sync.Mutex
	log  []logged
	opts storage.LogOptions
}

type logged struct {
	base, end message.Offset
	time      int64
	env       message.Envelope
	bytes     []byte
}

const doubleSeed, doubleEpoch = 42, 7

func (d *double) Name() string           { return "double" }
func (d *double) Levels() storage.Levels { return d.levels }
func (d *double) Blocking() bool         { return d.blocking }
func (d *double) OpenLog(_ storage.PartitionID, o storage.LogOptions) (storage.Log, error) {
	d.opts = o
	return d, nil
}
func (d *double) RemoveLog(storage.PartitionID) error             { return nil }
func (d *double) ListLogs() ([]storage.PartitionID, error)        { return nil, nil }
func (d *double) LoadMeta(string) ([]byte, error)                 { return nil, fault.NotFound }
func (d *double) StoreMeta(string, []byte) error                  { return nil }
func (d *double) RemoveMeta(string) error                         { return nil }
func (d *double) Space() (free, total int64, low bool, err error) { return 1, 1, false, nil }
func (d *double) Start() message.Offset                           { return message.Offset(d.start.Load()) }
func (d *double) End() message.Offset                             { return message.Offset(d.end.Load()) }
func (d *double) Durable() message.Offset                         { return message.Offset(d.durable.Load()) }
func (d *double) Epoch() uint64                                   { return doubleEpoch }

// use guards a method that must not run beside Close.
func (d *double) use(what string, one *atomic.Bool) func() {
	d.using.Add(1)
	if d.closed.Load() {
		d.t.Errorf("%s of a closed log", what)
	}
	if one != nil && !one.CompareAndSwap(false, true) {
		d.t.Errorf("two calls of %s at once", what)
	}
	return func() {
		if one != nil {
			one.Store(false)
		}
		d.using.Add(-1)
	}
}

func (d *double) Append(b []storage.Batch) error {
	if d.null {
		for i := range b {
			message.Stamp(b[i].Bytes, b[i].Base, b[i].Time, b[i].Epoch, doubleSeed)
		}
		d.end.Store(int64(b[len(b)-1].End))
		return nil
	}
	defer d.use("Append", &d.appending)()
	d.appends.Add(1)
	end := d.End()
	for i := range b {
		if b[i].Base != end || b[i].End <= b[i].Base || b[i].Epoch != doubleEpoch {
			d.t.Errorf("append [%d, %d) at %d, epoch %d", b[i].Base, b[i].End, end, b[i].Epoch)
		}
		end = b[i].End
	}
	if d.onAppend != nil {
		if err := d.onAppend(b); err != nil {
			return err
		}
	}
	for i := range b {
		b[i].Seed = doubleSeed
		message.Stamp(b[i].Bytes, b[i].Base, b[i].Time, b[i].Epoch, doubleSeed)
	}
	d.mu.Lock()
	for i := range b {
		e, _, err := message.Validate(b[i].Bytes, doubleSeed, nil)
		if err != nil {
			d.t.Errorf("append: %v", err)
		}
		d.log = append(d.log, logged{b[i].Base, b[i].End, b[i].Time, e, slices.Clone(b[i].Bytes)})
	}
	d.mu.Unlock()
	d.end.Store(int64(end))
	return nil
}

func (d *double) Sync() (message.Offset, error) {
	if d.null {
		return d.End(), nil
	}
	defer d.use("Sync", &d.syncing)()
	d.syncs.Add(1)
	end := d.end.Load()
	if d.onSync != nil {
		if err := d.onSync(); err != nil {
			return 0, err
		}
	}
	d.durable.Store(end)
	return message.Offset(end), nil
}

func (d *double) Read(from, below message.Offset, maxBytes int, dst []storage.Run) ([]storage.Run, error) {
	d.using.Add(1)
	defer d.using.Add(-1)
	if d.closed.Load() {
		return dst, fault.New(fault.Closed, "read")
	}
	if d.onRead != nil {
		d.onRead()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, total := 0, 0; i < len(d.log); i++ {
		l := &d.log[i]
		if l.end <= from || l.end > below {
			continue
		}
		if total += len(l.bytes); total > maxBytes && total > len(l.bytes) {
			break
		}
		dst = append(dst, storage.Run{Seed: doubleSeed, First: l.base, End: l.end, Batches: 1, Mem: l.bytes, Len: len(l.bytes)})
	}
	return dst, nil
}

func (d *double) OffsetForTime(us int64) (message.Offset, error) {
	defer d.use("OffsetForTime", nil)()
	return message.Offset(us), nil
}

func (d *double) Retain(_ storage.Retention, _ int64, below message.Offset) (int64, error) {
	defer d.use("Retain", &d.retaining)()
	if d.retains.Add(1); d.onRetain != nil {
		d.onRetain()
	}
	n := int64(below) - d.start.Swap(int64(below))
	return n, nil
}

func (d *double) Stats() storage.LogStats { return storage.LogStats{} }

func (d *double) EngineStats() storage.EngineStats { return storage.EngineStats{} }

func (d *double) Close() error {
	if d.using.Load() != 0 {
		d.t.Errorf("Close beside %d other calls", d.using.Load())
	}
	d.closed.Store(true)
	return nil
}

// asEngine separates the two Stats and Close methods.
type asEngine struct{ *double }

func (asEngine) Stats() storage.EngineStats { return storage.EngineStats{} }
func (asEngine) Close() error               { return nil }

// sink records the effects of a partition.
type sink struct {
	mu       sync.Mutex
	got      []Completion
	advanced []message.Offset // the visible end, at each Advanced
	onDone   func(self int, c []Completion)
}

func (s *sink) Complete(self int, c []Completion) {
	if s.onDone != nil {
		s.onDone(self, c)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, c...)
}

func (s *sink) Advanced(_ int, p *Partition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advanced = append(s.advanced, p.Visible())
}

// take returns what was completed since the last call, in order.
func (s *sink) take() []Completion {
	s.mu.Lock()
	defer s.mu.Unlock()
	got := s.got
	s.got = nil
	return got
}

func (s *sink) news() []message.Offset {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.advanced
	s.advanced = nil
	return a
}

// rig is a partition over a double.
type rig struct {
	d    *double
	t    testing.TB
	p    *Partition
	sink *sink
	c    *Committer
	pool *mempool.Pool
	next map[uint64]uint32 // sequence by producer
	corr uint32
}

type rigOptions struct {
	engine     func(*double) // changes the engine before the partition opens
	appends    *gate         // of its appends; opened at the end of the test
	syncs      *gate
	visibility message.AckLevel // durable unless set
	committer  CommitterOptions
	shared     *Committer // in place of one of its own
	onDone     func(self int, c []Completion)
}

func newRig(t testing.TB, o rigOptions) *rig {
	t.Helper()
	d := &double{t: t, levels: storage.LevelsOf(message.AckNone, message.AckAccepted, message.AckDurable)}
	if o.appends != nil {
		d.onAppend = func([]storage.Batch) error { return o.appends.pass() }
	}
	if o.syncs != nil {
		d.onSync = o.syncs.pass
	}
	if o.engine != nil {
		o.engine(d)
	}
	if o.visibility == message.AckNone {
		o.visibility = message.AckDurable
	}
	r := &rig{d: d, t: t, sink: &sink{onDone: o.onDone}, c: NewCommitter(o.committer),
		pool: mempool.NewPool(mempool.Options{Poison: true}), next: map[uint64]uint32{}}
	if o.shared != nil {
		r.c.Close()
		r.c = o.shared
	}
	var err error
	r.p, err = Open(asEngine{d}, Options{Topic: "orders", Num: 3, Visibility: o.visibility, Sink: r.sink, Committer: r.c,
		ID: storage.PartitionID{Index: 5}}, storage.LogOptions{})
	if err != nil {
		r.c.Close()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, g := range []*gate{o.appends, o.syncs} {
			if g != nil {
				g.open()
			}
		}
		if err := r.p.Close(context.Background()); err != nil {
			t.Errorf("close: %v", err)
		}
		r.c.Close()
		r.pool.DropKept()
		if n := r.pool.Stats().LiveBytes; n != 0 {
			t.Errorf("%d bytes of chunks were not released", n)
		}
		r.pool.Close()
	})
	return r
}

// chunk copies b behind some bytes of a chunk.
func (r *rig) chunk(b []byte) *mempool.Chunk {
	ch := r.pool.Get(frameBytes + len(b))
	copy(ch.B[frameBytes:], b)
	return ch
}

// frameBytes stands for what precedes a batch in a receive chunk.
const frameBytes = 20

func encode(t testing.TB, p message.Producer, count, valueBytes int) []byte {
	t.Helper()
	build := message.NewBuilder(message.DefaultLimits())
	for i := range count {
		value := fmt.Appendf(nil, "%d.%d.%d", p.ID, p.Sequence, i)
		value = append(value, make([]byte, max(0, valueBytes-len(value)))...)
		if err := build.Append(&message.Message{Value: value, Timestamp: 1000 + int64(p.Sequence)}); err != nil {
			t.Fatal(err)
		}
	}
	b, err := build.Finish(nil, p, nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func parse(t testing.TB, b []byte) message.Envelope {
	t.Helper()
	e, err := message.ParseEnvelope(b, nil)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// send produces a batch; its token's correlation counts the sends.
func (r *rig) send(producer uint64, count int, level message.AckLevel) Result {
	r.t.Helper()
	res, err := r.try(producer, r.next[producer], count, level)
	if err != nil {
		r.t.Fatalf("produce: %v", err)
	}
	r.next[producer] += uint32(count)
	return res
}

// try is send with a sequence of the test's choice, and an error.
func (r *rig) try(producer uint64, sequence uint32, count int, level message.AckLevel) (Result, error) {
	r.t.Helper()
	b := encode(r.t, message.Producer{ID: producer, Sequence: sequence}, count, 0)
	e, ch := parse(r.t, b), r.chunk(b)
	defer r.pool.Retire(ch)
	r.corr++
	return r.p.Produce(&e, ch.B[frameBytes:frameBytes+len(b)], ch, frameBytes, level,
		Token{Loop: uint32(level), Correlation: r.corr, Handle: uint32(producer), Bytes: uint32(len(b))}, 1_000_000+int64(r.corr))
}

// turnEnd is what an event loop does with the roles it took in a turn.
func (r *rig) turnEnd(res Result) {
	switch {
	case !res.Flush:
	case r.p.Deferred():
		r.c.Write(r.p)
	default:
		r.p.Flush(0)
	}
}

// put is a turn that receives one batch.
func (r *rig) put(producer uint64, count int, level message.AckLevel) {
	r.t.Helper()
	r.turnEnd(r.send(producer, count, level))
}

// acks returns the correlations that were answered since the last call; those
// that failed are negative.
func (r *rig) acks() []int {
	var out []int
	for _, c := range r.sink.take() {
		n := int(c.Correlation)
		if c.Err != nil {
			n = -n
		}
		out = append(out, n)
	}
	return out
}

func (r *rig) wantAcks(want ...int) {
	r.t.Helper()
	if got := r.acks(); !slices.Equal(got, want) {
		r.t.Errorf("acks %v, want %v", got, want)
	}
}

func (r *rig) wantVisible(want message.Offset) {
	r.t.Helper()
	if got := r.p.Visible(); got != want {
		r.t.Errorf("visible end %d, want %d", got, want)
	}
}

// gate lets calls through one by one, with the error that the test gives; once
// open, it lets all through.
type gate struct {
	next   chan error
	opened chan struct{}
	once   sync.Once
}

func newGate() *gate { return &gate{next: make(chan error), opened: make(chan struct{})} }

func (g *gate) pass() error {
	select {
	case err := <-g.next:
		return err
	case <-g.opened:
		return nil
	}
}

// let waits for a call and lets it through.
func (g *gate) let(err error) { g.next <- err }

func (g *gate) open() { g.once.Do(func() { close(g.opened) }) }
