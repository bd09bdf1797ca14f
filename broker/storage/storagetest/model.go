package storagetest

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"math/rand/v2"
	"sort"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/storage"
)

// model is what a log should hold: every batch ever appended to it, and the
// state of the producers. It also makes the batches.
type model struct {
	epoch   uint64
	batches []stored
	coming  []stored       // made and not yet accepted: an Append may be in progress
	start   message.Offset // batches below may be gone
	now     int64          // append time of the next batch, µs

	rng     *rand.Rand
	builder *message.Builder
	next    map[uint64]producer // per producer id, what its next batch says
}

type stored struct {
	base, end     message.Offset
	time, maxTime int64
	bytes         []byte // as stamped
	who           message.Producer
}

// producer is the state of one, as the last of its batches left it.
type producer struct {
	Epoch uint16
	Next  uint32 // sequence
}

const startOfTime = 1_700_000_000_000_000 // µs; some time in 2023

func newModel(seed uint64) *model {
	return &model{
		now: startOfTime, rng: rand.New(rand.NewPCG(seed, 1)),
		builder: message.NewBuilder(message.DefaultLimits()), next: map[uint64]producer{},
	}
}

func (m *model) end() message.Offset {
	if len(m.batches) == 0 {
		return 0
	}
	return m.batches[len(m.batches)-1].end
}

// shape says what a batch is to be like; zero fields are chosen at random.
type shape struct {
	messages, valueBytes int
	maxTime              int64
}

// make builds batches that continue the model's log. They become part of the
// model by accept.
func (m *model) make(t reporter, shapes ...shape) []storage.Batch {
	t.Helper()
	base := m.end()
	out := make([]storage.Batch, len(shapes))
	m.coming = m.coming[:0]
	for i, s := range shapes {
		if s.messages == 0 {
			s.messages = 1 + m.rng.IntN(20)
		}
		if s.valueBytes == 0 {
			s.valueBytes = 1 + m.rng.IntN(200)
		}
		if s.maxTime == 0 {
			s.maxTime = m.now - m.rng.Int64N(1_000_000)
		}
		m.builder.Reset()
		value := make([]byte, s.valueBytes)
		for k := range s.messages {
			for j := range value {
				value[j] = byte(m.rng.Uint32())
			}
			must(t, m.builder.Append(&message.Message{
				Key: []byte{byte(k)}, Value: value, Timestamp: s.maxTime - int64(s.messages-1-k)%2*1000,
			}))
		}
		id := uint64(1 + m.rng.IntN(5))
		p := m.next[id]
		if m.rng.IntN(10) == 0 {
			p = producer{Epoch: p.Epoch + 1}
		}
		b, err := m.builder.Finish(nil, message.Producer{ID: id, Epoch: p.Epoch, Sequence: p.Next}, nil)
		must(t, err)
		m.next[id] = producer{Epoch: p.Epoch, Next: p.Next + uint32(s.messages)}
		e, err := message.ParseEnvelope(b, nil)
		must(t, err)
		out[i] = storage.Batch{
			Bytes: b, Base: base, End: base + message.Offset(s.messages), Time: m.now,
			Epoch: m.epoch, MaxTime: e.MaxTimestamp(), Seed: 1<<63 - 1,
		}
		m.coming = append(m.coming, stored{
			base: base, end: out[i].End, who: message.Producer{ID: id, Epoch: p.Epoch, Sequence: p.Next},
		})
		base = out[i].End
		m.now += 1000
	}
	return out
}

// accept notes batches as appended, after checking the stamps on them.
func (m *model) accept(t reporter, batches []storage.Batch) {
	t.Helper()
	for i := range batches {
		b := &batches[i]
		if err := message.VerifyHeader(b.Bytes, b.Seed); err != nil {
			t.Fatalf("batch %d after Append: %v", b.Base, err)
		}
		e, err := message.ParseEnvelope(b.Bytes, nil)
		must(t, err)
		if e.BaseOffset != b.Base || e.EndOffset() != b.End || e.AppendTime != b.Time || e.Epoch != b.Epoch {
			t.Fatalf("batch %d is stamped with offset %d, time %d, epoch %d", b.Base, e.BaseOffset, e.AppendTime, e.Epoch)
		}
		m.batches = append(m.batches, stored{
			base: b.Base, end: b.End, time: b.Time, maxTime: b.MaxTime, bytes: bytes.Clone(b.Bytes),
			who: message.Producer{ID: e.ProducerID, Epoch: e.ProducerEpoch, Sequence: e.BaseSequence},
		})
	}
	m.coming = m.coming[:0]
}

// append makes batches and appends them to a log at once.
func (m *model) append(t reporter, l storage.Log, shapes ...shape) {
	t.Helper()
	batches := m.make(t, shapes...)
	must(t, l.Append(batches))
	m.accept(t, batches)
	m.checkEnds(t, l)
}

// checkEnds compares the getters with the model.
func (m *model) checkEnds(t reporter, l storage.Log) {
	t.Helper()
	if l.Start() != m.start || l.End() != m.end() || l.Durable() > l.End() || l.Epoch() != m.epoch {
		t.Fatalf("log is [%d, %d), durable to %d, epoch %d; want [%d, %d), epoch %d",
			l.Start(), l.End(), l.Durable(), l.Epoch(), m.start, m.end(), m.epoch)
	}
}

// at returns the index of the batch that contains an offset, or len(batches).
func (m *model) at(o message.Offset) int {
	return sort.Search(len(m.batches), func(i int) bool { return m.batches[i].end > o })
}

// read returns the batches that a Read may return at most.
func (m *model) read(from, below message.Offset, maxBytes int) []stored {
	i := m.at(from)
	n, total := i, 0
	for n < len(m.batches) && m.batches[n].end <= below {
		total += len(m.batches[n].bytes)
		if n > i && total > maxBytes {
			break
		}
		n++
	}
	return m.batches[i:n]
}

// checkRead reads and compares, and returns where the read ended. An engine may
// return less than fits, but something if there is something.
func (m *model) checkRead(t reporter, l storage.Log, from, below message.Offset, maxBytes int) message.Offset {
	t.Helper()
	runs, err := l.Read(from, below, maxBytes, nil)
	must(t, err)
	want := m.read(from, below, maxBytes)
	got := m.checkRuns(t, runs, want)
	for i := range runs {
		runs[i].Release()
	}
	if got == 0 && len(want) > 0 {
		t.Fatalf("Read(%d, %d, %d) gave nothing, want up to %d batches", from, below, maxBytes, len(want))
	}
	if got == 0 {
		return from
	}
	return want[got-1].end
}

// checkRuns compares runs with the first of the wanted batches, and returns how
// many that were.
func (m *model) checkRuns(t reporter, runs []storage.Run, want []stored) int {
	t.Helper()
	n := 0
	for i := range runs {
		r := &runs[i]
		b := runBytes(t, r)
		if r.Batches < 1 || n+r.Batches > len(want) {
			t.Fatalf("run %d has %d batches after %d others, want %d in all", i, r.Batches, n, len(want))
		}
		if r.First != want[n].base || r.End != want[n+r.Batches-1].end {
			t.Fatalf("run %d is [%d, %d), want [%d, %d)", i, r.First, r.End, want[n].base, want[n+r.Batches-1].end)
		}
		for k := range r.Batches {
			w := &want[n+k]
			if len(b) < len(w.bytes) || !bytes.Equal(b[:len(w.bytes)], w.bytes) {
				t.Fatalf("batch %d of run %d, offset %d, is not as it was appended", k, i, w.base)
			}
			if err := message.VerifyHeader(b, r.Seed); err != nil {
				t.Fatalf("batch at %d: %v", w.base, err)
			}
			if err := message.VerifyBody(b[:len(w.bytes)]); err != nil {
				t.Fatalf("batch at %d: %v", w.base, err)
			}
			b = b[len(w.bytes):]
		}
		if len(b) != 0 {
			t.Fatalf("run %d has %d bytes too many", i, len(b))
		}
		n += r.Batches
	}
	return n
}

// runBytes reads the bytes of a run in the way its kind asks for.
func runBytes(t reporter, r *storage.Run) []byte {
	t.Helper()
	if (r.File == nil) == (r.Mem == nil) {
		t.Fatalf("run has File %v and %d bytes of Mem", r.File, len(r.Mem))
	}
	b := make([]byte, r.Len)
	if n, err := r.ReadAt(b, 0); n != r.Len || err != nil && err != io.EOF {
		t.Fatalf("read run of %d bytes: %d, %v", r.Len, n, err)
	}
	if r.File == nil && !bytes.Equal(b, r.Mem) {
		t.Fatalf("ReadAt and Mem differ")
	}
	if r.File != nil && r.File.OS() != nil { // what sendfile would take
		k := make([]byte, r.Len)
		if n, err := r.File.OS().ReadAt(k, r.Pos); n != r.Len || err != nil && err != io.EOF {
			t.Fatalf("read run of %d bytes from the kernel's file: %d, %v", r.Len, n, err)
		}
		if !bytes.Equal(b, k) {
			t.Fatalf("the kernel's file has other bytes")
		}
	}
	return b
}

// checkAll reads the whole log in steps.
func (m *model) checkAll(t reporter, l storage.Log, maxBytes int) {
	t.Helper()
	m.checkEnds(t, l)
	for from := m.start; from < m.end(); {
		from = m.checkRead(t, l, from, m.end(), maxBytes)
	}
}

// trimmed moves the model's start to the log's after a Retain, which must be
// between batches, and returns what was removed.
func (m *model) trimmed(t reporter, l storage.Log) []stored {
	t.Helper()
	was, now := m.at(m.start), len(m.batches)
	if l.Start() < m.end() {
		now = m.at(l.Start())
		if m.batches[now].base != l.Start() {
			t.Fatalf("log starts at %d, within batch [%d, %d)", l.Start(), m.batches[now].base, m.batches[now].end)
		}
	}
	if l.Start() < m.start || l.Start() > m.end() {
		t.Fatalf("log start went from %d to %d, end is %d", m.start, l.Start(), m.end())
	}
	m.start = l.Start()
	return m.batches[was:now]
}

func size(batches []stored) int64 {
	n := int64(0)
	for i := range batches {
		n += int64(len(batches[i].bytes))
	}
	return n
}

// held returns the batches that the log should have.
func (m *model) held() []stored { return m.batches[m.at(m.start):] }

// states is the state of all producers after the batches below an offset.
func (m *model) states(below message.Offset) map[uint64]producer {
	s := map[uint64]producer{}
	for _, list := range [][]stored{m.batches, m.coming} {
		for i := range list {
			if b := &list[i]; b.end <= below {
				s[b.who.ID] = producer{Epoch: b.who.Epoch, Next: b.who.Sequence + uint32(b.end-b.base)}
			}
		}
	}
	return s
}

// saved is a snapshot of the suite's producers.
type saved struct {
	Below  message.Offset
	States map[uint64]producer
}

// snapshot is LogOptions.Snapshot.
func (m *model) snapshot(dst []byte, below message.Offset) []byte {
	b, err := json.Marshal(saved{Below: below, States: m.states(below)})
	if err != nil {
		panic(err)
	}
	return append(dst, b...)
}

// replay is a storage.Replay that builds the state up again.
type replay struct {
	t         reporter
	states    map[uint64]producer
	next      message.Offset // -1 before the first call
	started   bool
	snapshots int
	batches   int
}

func (r *replay) Snapshot(b []byte) error {
	var s saved
	must(r.t, json.Unmarshal(b, &s))
	if r.started {
		r.t.Fatalf("snapshot after other calls")
	}
	r.started = true
	r.snapshots++
	r.states, r.next = s.States, s.Below
	return nil
}

func (r *replay) Batch(e *message.Envelope) error {
	if !r.started {
		r.started, r.next, r.states = true, e.BaseOffset, map[uint64]producer{}
	}
	if e.BaseOffset != r.next {
		r.t.Fatalf("replay gives batch %d, want %d", e.BaseOffset, r.next)
	}
	r.next = e.EndOffset()
	r.batches++
	r.states[e.ProducerID] = producer{Epoch: e.ProducerEpoch, Next: e.BaseSequence + e.Count}
	return nil
}

// check compares the replayed state with the model's.
func (r *replay) check(m *model) {
	r.t.Helper()
	if r.states == nil {
		r.states = map[uint64]producer{}
	}
	if want := m.states(m.end()); !maps.Equal(r.states, want) || r.started && r.next != m.end() {
		r.t.Fatalf("replay to %d gives %v, want %d, %v", r.next, r.states, m.end(), want)
	}
}
