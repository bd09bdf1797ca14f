package partition

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/mempool"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/storage"
)

func (r *rig) wantSlices(from message.Offset, maxBytes, room int, bases ...message.Offset) {
	r.t.Helper()
	slices_, _ := r.p.ReadTail(from, maxBytes, make([]Slice, 0, room))
	var got []message.Offset
	for i := range slices_ {
		s := &slices_[i]
		got = append(got, s.Base)
		want, _ := r.stored(s.Base)
		if !bytes.Equal(s.Bytes(), want.bytes) || s.Len() != len(want.bytes) || s.End != want.end || s.Seed != doubleSeed {
			r.t.Errorf("slice [%d, %d) is not what the log has", s.Base, s.End)
		}
		s.Release()
	}
	if !slices.Equal(got, bases) {
		r.t.Errorf("ReadTail(%d, %d) with room for %d gave %v, want %v", from, maxBytes, room, got, bases)
	}
}

func (r *rig) stored(base message.Offset) (logged, bool) {
	r.d.mu.Lock()
	defer r.d.mu.Unlock()
	i := slices.IndexFunc(r.d.log, func(l logged) bool { return l.base == base })
	if i < 0 {
		return logged{}, false
	}
	return r.d.log[i], true
}

func TestReadTail(t *testing.T) {
	r := newRig(t, rigOptions{visibility: accepted})
	r.wantSlices(0, 1<<20, 9)
	for i := range 40 { // the ring grows twice on the way
		r.put(1, 1+i%3, accepted)
	}
	end := r.p.Visible()
	last := r.d.log[len(r.d.log)-3:]
	bytesOf := func(l logged) int { return len(l.bytes) }

	r.wantSlices(last[0].base, 1<<20, 9, last[0].base, last[1].base, last[2].base)
	r.wantSlices(last[1].base, 1<<20, 1, last[1].base)
	r.wantSlices(last[1].base, 1<<20, 0)
	r.wantSlices(last[0].end-1, 0, 9, last[0].base) // at least one, in mid-batch too
	r.wantSlices(last[0].base, bytesOf(last[0])+bytesOf(last[1]), 9, last[0].base, last[1].base)
	r.wantSlices(last[0].base, bytesOf(last[0])+bytesOf(last[1])-1, 9, last[0].base)
	for _, l := range r.d.log {
		r.wantSlices(l.base, 0, 9, l.base)
	}
	r.wantSlices(end, 1<<20, 9)
	r.wantSlices(-1, 1<<20, 9)
	if r.p.InTail(end) || !r.p.InTail(end-1) || !r.p.InTail(0) {
		t.Error("InTail differs from ReadTail")
	}
}

// Nobody reads beyond the visible end, also not from memory.
func TestReadTailStopsAtTheVisibleEnd(t *testing.T) {
	g := newGate()
	r := newRig(t, rigOptions{syncs: g, visibility: durable})
	r.put(1, 1, accepted)
	r.put(1, 1, durable)
	r.wantSlices(0, 1<<20, 9)
	g.open()
	if err := r.p.Quiesce(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.wantSlices(0, 1<<20, 9, 0, 1)
}

// What the pool has given to another use is never served, and what a reader
// holds is not given to another use.
func TestReadTailOfRecycledChunks(t *testing.T) {
	r := newRig(t, rigOptions{visibility: accepted})
	const size = 2 << 10
	r.pool = mempool.NewPool(mempool.Options{KeepBytes: 3 * size, Poison: true})
	put := func() {
		b := encode(t, message.Producer{}, 1, size-500)
		e, ch := parse(t, b), r.chunk(b)
		res, err := r.p.Produce(&e, ch.B[frameBytes:frameBytes+len(b)], ch, frameBytes, accepted, Token{}, 0)
		if err != nil {
			t.Fatal(err)
		}
		r.turnEnd(res)
		r.pool.Retire(ch)
	}
	for range 5 {
		put()
	}
	r.wantSlices(0, 1<<20, 9)
	r.wantSlices(1, 1<<20, 9)
	r.wantSlices(2, 1<<20, 9, 2, 3, 4)

	held, _ := r.p.ReadTail(2, 0, make([]Slice, 0, 1))
	want := bytes.Clone(held[0].Bytes())
	for range 10 {
		put()
	}
	if !bytes.Equal(held[0].Bytes(), want) {
		t.Error("a held slice changed")
	}
	held[0].Release()
	if held[0].Retain() {
		t.Error("retained again after its chunk was free")
	}
	r.wantSlices(2, 1<<20, 9)
	r.wantSlices(13, 1<<20, 9, 13, 14)
	r.pool.DropKept()
	r.wantSlices(14, 1<<20, 9)
	if n := r.pool.Stats().LiveBytes; n != 0 {
		t.Errorf("%d bytes are held", n)
	}
}

// Readers race with a writer whose chunks are recycled all the time. A slice is
// either not to be had or exactly what was stored; poisoned memory would not be.
func TestReadTailRacesWithRecycling(t *testing.T) {
	r := newRig(t, rigOptions{visibility: accepted})
	r.pool = mempool.NewPool(mempool.Options{KeepBytes: 8 << 10, Poison: true})
	const batches = 3000
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 0))
			buf := make([]Slice, 0, 4)
			for r.p.Visible() < batches {
				from := r.p.Visible() - message.Offset(rng.IntN(20))
				tail, _ := r.p.ReadTail(from, 1<<20, buf)
				for _, s := range tail {
					if e, _, err := message.Validate(s.Bytes(), s.Seed, nil); err != nil || e.BaseOffset != s.Base || e.EndOffset() != s.End {
						t.Errorf("slice [%d, %d): %v", s.Base, s.End, err)
					}
					s.Release()
				}
			}
		})
	}
	for range batches {
		r.put(1, 1, accepted)
	}
	wg.Wait()
}

// Rings and queues follow the load down.
func TestMemoryAfterABurst(t *testing.T) {
	g := newGate()
	r := newRig(t, rigOptions{syncs: g})
	res := r.send(1, 1, durable)
	for range 5 * keepEntries {
		r.send(1, 1, durable)
	}
	r.turnEnd(res)
	if n := len(r.p.tail.buf); n > tailMax {
		t.Errorf("the tail remembers %d batches", n)
	}
	g.open()
	quiet(t, r.p)
	if n := len(r.p.tail.buf); n != tailMax {
		t.Errorf("the tail remembers %d batches", n)
	}
	for range 3 {
		r.put(1, 1, durable)
		quiet(t, r.p)
	}
	p := r.p
	if n := max(cap(p.queue.batches), cap(p.queue.owed), cap(p.spare.batches), len(p.acks.buf), cap(p.done), cap(p.synced)); n > keepEntries {
		t.Errorf("capacity %d after a burst", n)
	}
	r.pool.DropKept()
	p.Shrink()
	p.Shrink()
	if p.tail.buf != nil || p.acks.buf != nil || p.queue.batches != nil || p.spare.batches != nil || p.done != nil || p.synced != nil {
		t.Errorf("an idle partition holds memory: %+v", p)
	}
	r.put(1, 1, durable)
	quiet(t, r.p)
	r.wantSlices(p.Visible()-1, 0, 1, p.Visible()-1)
}

// quiet waits until nobody writes or syncs, and leaves the partition open.
func quiet(t *testing.T, p *Partition) {
	t.Helper()
	if err := p.Quiesce(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.closed.Store(false)
}

// The tail grows while its oldest batch can be read, and no further: batches
// whose memory is gone make room.
func TestTailRing(t *testing.T) {
	pool := mempool.NewPool(mempool.Options{KeepBytes: -1})
	defer pool.Close()
	var ring tailRing
	push := func(base message.Offset) *mempool.Chunk {
		ch := pool.Get(64)
		ring.push(tailEntry{base: base, end: base + 1, chunk: ch, gen: ch.Gen()})
		return ch
	}
	for i := range message.Offset(1000) {
		push(i).Release()
	}
	if ring.n != tailMin {
		t.Errorf("%d entries for batches that nobody can read", ring.n)
	}
	var held []*mempool.Chunk
	for i := range message.Offset(3 * tailMax) {
		held = append(held, push(1000+i))
	}
	if ring.n != tailMax || ring.find(1000+2*tailMax) != 0 || ring.find(1000+3*tailMax-1) != tailMax-1 || ring.find(1000+2*tailMax-1) != -1 {
		t.Errorf("%d entries from %d", ring.n, ring.at(0).base)
	}
	for _, ch := range held[:3*tailMax-20] {
		ch.Release()
	}
	for range 9 {
		ring.shrink()
	}
	if ring.n != 20 || ring.find(1000+3*tailMax-20) != 0 || len(ring.buf) != 64 {
		t.Fatalf("%d entries from %d in %d places", ring.n, ring.at(0).base, len(ring.buf))
	}
	for _, ch := range held[3*tailMax-20:] {
		ch.Release()
	}
	if ring.shrink(); ring.n != 0 || ring.buf != nil || ring.find(0) != -1 {
		t.Errorf("%d entries are left", ring.n)
	}
}

func TestWaitRing(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var ring waitRing
	var model []message.Offset
	next := message.Offset(1)
	for range 20_000 {
		switch n := rng.IntN(100); {
		case n < 55:
			ring.push(waiting{need: next, c: Completion{Base: next}})
			model = append(model, next)
			next++
		case n < 98:
			if w := ring.front(); w != nil {
				if w.need != model[0] {
					t.Fatalf("front %d, want %d", w.need, model[0])
				}
				ring.pop()
				model = model[1:]
			} else if len(model) != 0 {
				t.Fatal("empty")
			}
		default:
			var want []message.Offset
			from := next - message.Offset(rng.IntN(5))
			model = slices.DeleteFunc(model, func(o message.Offset) bool {
				if o > from {
					want = append(want, o)
				}
				return o > from
			})
			var got []message.Offset
			for _, c := range ring.failFrom(from, fault.Full, nil) {
				if !errors.Is(c.Err, fault.Full) {
					t.Fatal("no error")
				}
				got = append(got, c.Base)
			}
			if !slices.Equal(got, want) {
				t.Fatalf("failed %v, want %v", got, want)
			}
		}
		if ring.len() != len(model) {
			t.Fatalf("%d entries, want %d", ring.len(), len(model))
		}
	}
}

func TestResolveAndRead(t *testing.T) {
	r := newRig(t, rigOptions{visibility: accepted, engine: func(d *double) { d.end.Store(100); d.start.Store(60); d.durable.Store(100) }})
	r.put(1, 5, accepted)
	for _, c := range []struct {
		kind  StartKind
		value int64
		want  message.Offset
	}{
		{StartEarliest, 0, 60}, {StartLatest, 0, 105}, {StartOffset, 60, 60}, {StartOffset, 105, 105}, {StartOffset, 77, 77},
		{StartTime, 80, 80}, {StartTime, 1 << 40, 105}, // the double takes times for offsets
	} {
		if got, err := r.p.Resolve(c.kind, c.value); err != nil || got != c.want {
			t.Errorf("Resolve(%d, %d) = %d, %v", c.kind, c.value, got, err)
		}
	}
	for value, limit := range map[int64]int64{59: 60, -1: 60, 106: 105} {
		_, err := r.p.Resolve(StartOffset, value)
		var rng *storage.RangeError
		f := fault.Find(err)
		if f == nil || f.Code != fault.OutOfRange || f.Field != "offset" || f.Value != value || f.Limit != limit ||
			!errors.As(err, &rng) || rng.Start != 60 || rng.End != 105 {
			t.Errorf("Resolve(offset %d): %v", value, err)
		}
	}
	if _, err := r.p.Resolve(9, 0); !errors.Is(err, fault.Invalid) || fault.Find(err).Field != "start" {
		t.Errorf("an unknown start: %v", err)
	}
	runs, err := r.p.Read(100, 1<<20, nil)
	if err != nil || len(runs) != 1 || runs[0].First != 100 || runs[0].End != 105 {
		t.Errorf("read: %v, %v", runs, err)
	}
	if runs, err := r.p.Read(105, 1<<20, nil); err != nil || len(runs) != 0 {
		t.Errorf("read at the end: %v, %v", runs, err)
	}
	if n, err := r.p.Retain(time.Now()); n != 0 || err != nil || r.p.Start() != 60 {
		t.Errorf("retain without a limit: %d, %v", n, err)
	}
	r.p.SetRetention(storage.Retention{MaxBytes: 1})
	if n, err := r.p.Retain(time.Now()); n != 45 || err != nil {
		t.Errorf("retain: %d, %v", n, err)
	}
	want := Marks{Start: 105, Visible: 105, Written: 105, Durable: 100, Epoch: doubleEpoch, Batches: 1, Messages: 5, Appended: 125}
	if m := r.p.Marks(); m != want || r.p.st.start != 105 {
		t.Errorf("marks %+v, want %+v", m, want)
	}
	if r.p.Num() != 3 || r.p.Index() != 5 || r.p.Topic() != "orders" || r.p.Closed() {
		t.Error("names")
	}
	r.p.SetInterest(0, true)
	r.p.SetInterest(63, true)
	if r.p.Interest() != 1<<63|1 {
		t.Errorf("interest %x", r.p.Interest())
	}
	r.p.SetInterest(0, false)
	if r.p.Interest() != 1<<63 {
		t.Errorf("interest %x", r.p.Interest())
	}
}

// A sealed segment asks for the retention: the engine calls Snapshot from Append.
func TestSealingTrims(t *testing.T) {
	trimmed := make(chan struct{})
	r := newRig(t, rigOptions{visibility: accepted, engine: func(d *double) {
		d.onAppend = func(b []storage.Batch) error {
			if snap := d.opts.Snapshot(nil, b[0].Base); len(snap) == 0 {
				t.Error("no snapshot")
			}
			return nil
		}
		d.onRetain = func() {
			if d.retains.Load() == 2 {
				close(trimmed)
			}
		}
	}})
	r.put(1, 1, accepted)
	if n := r.d.retains.Load(); n != 0 {
		t.Errorf("%d trims without a retention", n)
	}
	r.p.SetRetention(storage.Retention{MaxBytes: 1})
	for r.d.retains.Load() == 0 {
		r.put(1, 1, accepted)
	}
	for r.d.retains.Load() < 2 {
		r.put(1, 1, accepted)
	}
	<-trimmed
	r.p.SetRetention(storage.Retention{})
	if err := r.p.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}
