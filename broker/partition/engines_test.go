package partition

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/internal/vfs"
	"github.com/portask/portask/broker/mempool"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/storage"
	"github.com/portask/portask/broker/storage/disklog"
	"github.com/portask/portask/broker/storage/memlog"
)

// Random lives of a partition over the real engines: idempotent clients with up
// to five batches in flight that send again what was not answered, restarts, a
// disk that is full for a while, and power cuts at any call to the file system.
// What was acked is where the ack said, and every batch of a client is in the
// log once, in order, without a gap.

func TestLifeOnMemlog(t *testing.T) {
	for seed := range uint64(20) {
		w := newWorld(t, seed)
		w.levels = []message.AckLevel{accepted}
		eng, err := memlog.Open(memlog.Options{MaxBytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		w.eng = eng
		w.open()
		w.live(6, func() { w.restart(func() {}) })
		w.close()
		if err := eng.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLifeOnDisklog(t *testing.T) {
	seeds := uint64(40)
	if testing.Short() || raceEnabled {
		seeds = 15
	}
	var sum tally
	for seed := range seeds {
		w := newWorld(t, seed)
		w.sum = &sum
		w.levels = []message.AckLevel{accepted, durable, durable}
		w.fs = vfs.NewMem()
		w.openDisk()
		w.open()
		w.live(8, func() {
			switch w.rng.IntN(4) {
			case 0:
				w.restart(func() {
					w.closeDisk()
					w.openDisk()
				})
			case 1:
				w.fullDisk()
			default:
				w.powerCut(vfs.CrashModes[w.rng.IntN(len(vfs.CrashModes))])
			}
		})
		w.close()
		w.closeDisk()
	}
	t.Logf("%+v", sum)
	if sum.acks == 0 || sum.duplicates == 0 || sum.refused == 0 || sum.cuts == 0 || sum.lost == 0 || sum.snapshots == 0 {
		t.Error("nothing happened that this test is about")
	}
}

// tally counts what the lives went through.
type tally struct {
	acks, duplicates, refused int
	cuts                      int // power cuts
	lost                      int // batches at accepted that a cut took
	snapshots                 int // seen by recoveries
}

// world is one life: the broker's side, and the clients'.
type world struct {
	t      *testing.T
	seed   uint64
	rng    *rand.Rand
	levels []message.AckLevel
	sum    *tally // guarded by mu
	fs     *vfs.Mem
	eng    storage.Engine

	c     *Committer
	p     *Partition
	pool  *mempool.Pool
	roles bool
	clock int64

	mu      sync.Mutex
	quiet   sync.Cond // on mu: nothing is open
	open_   int       // produces without an answer
	clients []*client // what the acks change is guarded by mu
}

type client struct {
	id     uint64
	level  message.AckLevel
	epoch  uint16
	next   uint32
	items  []*item // of this epoch
	behind bool    // something was refused: all unanswered batches go again
}

type item struct {
	seq, count uint32
	acked      bool
	base       message.Offset
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, sum: &tally{}, seed: seed, rng: rand.New(rand.NewPCG(seed, 99)), pool: mempool.NewPool(mempool.Options{KeepBytes: 4 << 10, Poison: true})}
	w.quiet.L = &w.mu
	t.Cleanup(func() {
		w.pool.DropKept()
		if n := w.pool.Stats().LiveBytes; n != 0 {
			t.Errorf("seed %d: %d bytes of chunks were not released", seed, n)
		}
		w.pool.Close()
	})
	return w
}

func (w *world) fatal(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("seed %d: %s", w.seed, fmt.Sprintf(format, args...))
}

func (w *world) openDisk() {
	eng, err := disklog.Open(w.fs, "data", disklog.Options{FirstBytes: 4 << 10, SegmentBytes: 4 << 10, Spares: 1, ReserveBytes: -1})
	if err != nil {
		w.fatal("open the engine: %v", err)
	}
	w.eng = eng
}

func (w *world) closeDisk() {
	if err := w.eng.Close(); err != nil {
		w.fatal("close the engine: %v", err)
	}
}

func (w *world) open() {
	visibility := w.eng.Levels().Strongest()
	w.c = NewCommitter(CommitterOptions{Workers: 2})
	p, err := Open(counting{w.eng, w.sum}, Options{Topic: "life", Visibility: visibility, Sink: w, Committer: w.c}, storage.LogOptions{SegmentBytes: 4 << 10})
	if err != nil {
		w.c.Close()
		w.fatal("open the partition: %v", err)
	}
	w.p = p
}

// counting is an engine that counts the snapshots which recoveries meet.
type counting struct {
	storage.Engine
	sum *tally
}

func (e counting) OpenLog(id storage.PartitionID, o storage.LogOptions) (storage.Log, error) {
	o.Replay = countingReplay{o.Replay, e.sum}
	return e.Engine.OpenLog(id, o)
}

type countingReplay struct {
	storage.Replay
	sum *tally
}

func (r countingReplay) Snapshot(b []byte) error {
	r.sum.snapshots++
	return r.Replay.Snapshot(b)
}

func (w *world) close() {
	w.flush()
	if err := w.p.Close(w.t.Context()); err != nil {
		w.fatal("close the partition: %v", err)
	}
	w.c.Close()
}

// Complete and Advanced make the world the partition's sink.
func (w *world) Complete(_ int, cs []Completion) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range cs {
		c := w.clients[cs[i].Handle]
		switch code := fault.CodeOf(cs[i].Err); {
		case cs[i].Err == nil:
			w.answered(c, int(cs[i].Correlation), cs[i].Base)
			if cs[i].Duplicate {
				w.sum.duplicates++
			}
		case code == fault.StorageFull || code == fault.Full:
			c.behind = true
			w.sum.refused++
		default:
			w.t.Errorf("seed %d: client %d: %v", w.seed, c.id, cs[i].Err)
		}
		if w.open_--; w.open_ == 0 {
			w.quiet.Broadcast()
		}
	}
}

func (w *world) Advanced(int, *Partition) {}

// answered notes an ack; mu is held.
func (w *world) answered(c *client, i int, base message.Offset) {
	it := c.items[i]
	if it.acked && it.base != base {
		w.t.Errorf("seed %d: client %d sequence %d was acked at %d and at %d", w.seed, c.id, it.seq, it.base, base)
	}
	it.acked, it.base = true, base
	w.sum.acks++
}

// live is the whole story: chapters of traffic, each ended by an event.
func (w *world) live(chapters int, event func()) {
	for i := range 2 + w.rng.IntN(4) {
		w.clients = append(w.clients, &client{id: uint64(i + 1), level: w.levels[i%len(w.levels)]})
	}
	for range chapters {
		w.traffic()
		event()
		w.catchUp()
		w.verify(false)
	}
	w.catchUp()
	w.verify(true)
}

func (w *world) traffic() {
	for range 20 + w.rng.IntN(100) {
		c := w.clients[w.rng.IntN(len(w.clients))]
		w.mu.Lock()
		behind, first := c.behind, c.unanswered()
		w.mu.Unlock()
		switch n := w.rng.IntN(10); {
		case n == 0 && len(c.items) > 0: // a batch again, answered or not
			w.send(c, max(0, len(c.items)-1-w.rng.IntN(window)))
		case n == 1:
			w.flush()
		case behind || len(c.items)-first >= window:
			w.flush()
			if behind {
				w.sendAgain()
			}
		default:
			it := &item{seq: c.next, count: uint32(1 + w.rng.IntN(3))}
			c.next += it.count
			w.mu.Lock()
			c.items = append(c.items, it)
			w.mu.Unlock()
			w.send(c, len(c.items)-1)
			if w.rng.IntN(3) == 0 {
				w.flush()
			}
		}
	}
	w.flush()
}

// unanswered is the index of the first batch without an ack; mu is held.
func (c *client) unanswered() int {
	for i, it := range c.items {
		if !it.acked {
			return i
		}
	}
	return len(c.items)
}

func (w *world) flush() {
	if w.roles {
		w.roles = false
		w.p.Flush(0)
	}
}

func (w *world) send(c *client, i int) {
	it := c.items[i]
	b := encode(w.t, message.Producer{ID: c.id, Epoch: c.epoch, Sequence: it.seq}, int(it.count), w.rng.IntN(200))
	e := parse(w.t, b)
	ch := w.pool.Get(frameBytes + len(b))
	copy(ch.B[frameBytes:], b)
	defer w.pool.Retire(ch)
	w.clock += int64(w.rng.IntN(100)) - 20
	w.mu.Lock()
	w.open_++
	w.mu.Unlock()
	res, err := w.p.Produce(&e, ch.B[frameBytes:frameBytes+len(b)], ch, frameBytes, c.level,
		Token{Handle: uint32(c.id - 1), Correlation: uint32(i)}, w.clock)
	w.roles = w.roles || res.Flush
	if err == nil && !res.Done {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open_--
	switch {
	case err == nil:
		w.answered(c, i, res.Base)
		w.sum.duplicates++
	case errors.Is(err, fault.OutOfSequence) && c.behind, errors.Is(err, fault.DuplicateSequence) && it.acked:
	default:
		w.t.Errorf("seed %d: client %d epoch %d sequence %d: %v", w.seed, c.id, c.epoch, it.seq, err)
	}
}

// settle waits until everything sent has an answer.
func (w *world) settle() {
	w.flush()
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.open_ > 0 {
		w.quiet.Wait()
	}
}

// sendAgain waits for answers and sends what was refused or lost again, in
// order. It reports whether there was nothing to send.
func (w *world) sendAgain() (none bool) {
	w.settle()
	none = true
	for _, c := range w.clients {
		c.behind = false // nobody is answered now
		for i := c.unanswered(); i < len(c.items); i++ {
			if !c.items[i].acked {
				none = false
				w.send(c, i)
			}
		}
	}
	return none
}

func (w *world) catchUp() {
	for range 2 {
		if w.sendAgain() {
			return
		}
	}
	w.fatal("batches are never acked")
}

// restart closes the partition while answers are open.
func (w *world) restart(engine func()) {
	w.close()
	if w.open_ != 0 {
		w.fatal("closed with %d batches unanswered", w.open_)
	}
	engine()
	w.open()
}

// fullDisk lets the disk run full for some traffic.
func (w *world) fullDisk() {
	w.settle()
	w.fs.SetCapacity(0) // what is allocated can still be written to
	w.traffic()
	w.settle()
	w.fs.SetCapacity(1 << 60)
}

// powerCut lets traffic go on and cuts the power at a random call to the file
// system. What happens afterwards happens to nobody.
func (w *world) powerCut(mode vfs.CrashMode) {
	type ack struct {
		c *client
		i int
	}
	at := w.fs.Ops() + 1 + w.rng.Int64N(60)
	seed := w.rng.Uint64()
	var once sync.Once
	var acked map[ack]message.Offset
	var after *vfs.Mem
	cut := func() {
		once.Do(func() {
			// First who was acked, then the disk: an ack in between may not hold.
			w.mu.Lock()
			acked = map[ack]message.Offset{}
			for _, c := range w.clients {
				for i, it := range c.items {
					if it.acked {
						acked[ack{c, i}] = it.base
					}
				}
			}
			w.mu.Unlock()
			after = w.fs.Clone(mode, seed)
		})
	}
	w.fs.OnOp(func(op vfs.Op) error {
		if op.N >= at {
			cut()
		}
		return nil
	})
	w.traffic()
	w.fs.OnOp(nil)
	cut()
	w.close()
	w.closeDisk()

	w.fs = after
	w.openDisk()
	w.open()
	w.sum.cuts++
	for _, c := range w.clients {
		c.behind = false
		for i, it := range c.items {
			it.base, it.acked = acked[ack{c, i}], false
			_, it.acked = acked[ack{c, i}]
		}
		if c.level != durable && mode != vfs.CrashAll {
			// It was promised nothing: it begins a new epoch.
			w.sum.lost += c.lost(w.p)
			c.epoch++
			c.next, c.items = 0, nil
		}
	}
}

// lost is how many acked batches p does not know any more.
func (c *client) lost(p *Partition) (n int) {
	end := p.Marks().Written
	for _, it := range c.items {
		if it.acked && it.base >= end {
			n++
		}
	}
	return n
}

// verify reads the log. complete says that every batch of the present epochs is
// to be there.
func (w *world) verify(complete bool) {
	type key struct {
		id    uint64
		epoch uint16
	}
	next := map[key]uint32{}
	last := map[uint64]uint16{}
	at := map[message.Offset]message.Envelope{}
	offset, time := w.p.Start(), int64(0)
	if offset != 0 {
		w.fatal("the log starts at %d", offset)
	}
	for from := offset; from < w.p.Marks().Written; {
		runs, err := w.p.log.Read(from, w.p.Marks().Written, 1<<12, nil)
		if err != nil || len(runs) == 0 {
			w.fatal("read at %d: %d runs, %v", from, len(runs), err)
		}
		for _, r := range runs {
			raw := make([]byte, r.Len)
			if n, err := r.ReadAt(raw, 0); n != r.Len {
				w.fatal("read run: %v", err)
			}
			for len(raw) > 0 {
				n, err := message.BatchBytes(raw, nil)
				if err != nil {
					w.fatal("at %d: %v", offset, err)
				}
				e, _, err := message.Validate(raw[:n], r.Seed, nil)
				raw = raw[n:]
				k := key{e.ProducerID, e.ProducerEpoch}
				if err != nil || e.BaseOffset != offset || e.AppendTime < time || e.BaseSequence != next[k] || e.ProducerEpoch < last[k.id] {
					w.fatal("at %d: %+v, want sequence %d: %v", offset, e, next[k], err)
				}
				at[offset] = e
				next[k], last[k.id] = e.BaseSequence+e.Count, e.ProducerEpoch
				offset, time = e.EndOffset(), e.AppendTime
			}
			from = r.End
			r.Release()
		}
	}
	for _, c := range w.clients {
		for _, it := range c.items {
			e, ok := at[it.base]
			if it.acked && (!ok || e.ProducerID != c.id || e.ProducerEpoch != c.epoch || e.BaseSequence != it.seq || e.Count != it.count) {
				w.fatal("client %d sequence %d was acked at %d, where there is %+v", c.id, it.seq, it.base, e)
			}
			if it.acked && c.level == durable && w.p.Visible() < it.base+message.Offset(it.count) {
				w.fatal("client %d sequence %d is durable and not visible", c.id, it.seq)
			}
		}
		if n := next[key{c.id, c.epoch}]; complete && n != c.next {
			w.fatal("client %d: the log has sequences up to %d of %d", c.id, n, c.next)
		}
	}
	w.tail(at)
}

// tail compares what memory has with what the log has.
func (w *world) tail(at map[message.Offset]message.Envelope) {
	offsets := make([]message.Offset, 0, len(at))
	for o := range at {
		offsets = append(offsets, o)
	}
	slices.Sort(offsets)
	for _, o := range offsets[max(0, len(offsets)-20):] {
		tail, _ := w.p.ReadTail(o, 0, make([]Slice, 0, 1))
		for _, s := range tail {
			e, _, err := message.Validate(s.Bytes(), s.Seed, nil)
			if err != nil || s.Base != o || e != at[o] {
				w.fatal("memory at %d: %+v, %v; the log has %+v", o, e, err, at[o])
			}
			s.Release()
		}
	}
}
