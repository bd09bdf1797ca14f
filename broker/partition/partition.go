// Package partition holds the order and the visibility of one partition: who
// may append, which offset comes next, which batches are duplicates, when an
// ack is due and what a consumer may see. The rules are a state machine
// (State) without clock, lock or I/O; Partition runs it over a storage.Log.
//
// # The writer role
//
// A batch is admitted under the partition's lock, which is never held over
// I/O, and joins a queue. The first to find nobody writing takes the writer
// role and must call Flush soon; it writes the whole queue with one gathered
// append, again and again until the queue is empty. Others only enqueue. So one
// write serves many producers, no goroutine is woken for it, and an event loop
// that received eight batches writes them at the end of its turn in one call.
// A loop does not flush itself when the engine blocks or was slow of late
// (Deferred): then a Committer goroutine takes the role.
//
// # Group commit
//
// A sync is asked for when an ack or the visibility waits for one, and the next
// starts when the last has returned: what was appended meanwhile shares it.
// There is no timer, so a lone producer pays one sync and a thousand pay one
// together. Batches nobody waits for are synced in the background.
//
// Methods may be called from any goroutine unless they say otherwise.
package partition

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/mempool"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/storage"
)

// slowAppend is the time after which an append counts as slow: event loops stop
// writing themselves for slowHold, so that a stalled disk stalls only those who
// wait for it. A gathered append into the page cache takes tens of
// microseconds; the kernel's dirty throttling sleeps for tens of milliseconds.
const (
	slowAppend = 4 * time.Millisecond
	slowHold   = time.Second
)

// Token says whom an ack is owed. The partition carries it and does not look
// inside; Bytes is the producer credit that returns with the ack.
type Token struct {
	Loop        uint32
	Conn        uint64
	Handle      uint32
	Correlation uint32
	Bytes       uint32
}

// Completion is the end of one produce: an ack, or the error in its place.
type Completion struct {
	Token
	Index     uint32 // the partition's index in its topic
	Level     message.AckLevel
	Duplicate bool
	Base      message.Offset
	Time      int64 // append time, µs
	Err       error
}

// Sink takes the effects of a partition. Its methods are called without the
// partition's lock, from any goroutine, and must not block. self is the event
// loop on whose goroutine the call happens, or -1.
type Sink interface {
	// Complete delivers acks in the order of their batches. The slice is valid
	// during the call.
	Complete(self int, c []Completion)
	// Advanced says that the visible end of p moved, or that p failed.
	Advanced(self int, p *Partition)
}

// Options of a partition; all fields are needed.
type Options struct {
	ID         storage.PartitionID
	Topic      string
	Num        uint32 // dense number of the partition in this broker
	Visibility message.AckLevel
	Sink       Sink
	Committer  *Committer
}

// Partition runs one partition over its log.
type Partition struct {
	opts     Options
	log      storage.Log
	blocking bool

	visible  atomic.Int64 // stored under mu; read anywhere
	interest atomic.Uint64
	slow     atomic.Int64 // monotonic ns until which appends are deferred
	closed   atomic.Bool

	mu      sync.Mutex
	st      *State        // guarded by mu
	queue   pending       // guarded by mu: admitted, not yet appended
	spare   pending       // guarded by mu: the other half of the double buffer
	writing bool          // guarded by mu: someone has the writer role
	syncing bool          // guarded by mu: a sync is queued or running
	lazy    bool          // guarded by mu: in the committer's background list
	acks    waitRing      // guarded by mu: acks that wait for a sync
	tail    tailRing      // guarded by mu: recent batches in memory
	done    []Completion  // owned by the writer role
	synced  []Completion  // owned by the sync in progress
	idle    chan struct{} // guarded by mu: closed when writing and syncing end; nil if nobody waits
}

// pending is a queue of admitted batches: what the engine gets, and what is
// owed for it, index by index.
type pending struct {
	batches []storage.Batch
	owed    []owed
}

type owed struct {
	tok   Token
	level message.AckLevel
	chunk *mempool.Chunk
	off   uint32 // of the batch in chunk.B
}

// Open opens the partition's log with the engine and brings its state back.
func Open(eng storage.Engine, o Options, lo storage.LogOptions) (*Partition, error) {
	p := &Partition{opts: o, blocking: eng.Blocking()}
	st := NewState(0, 0, 0, 0, o.Visibility)
	r := &replay{st: st}
	lo.Replay = r
	lo.Snapshot = p.snapshot
	log, err := eng.OpenLog(o.ID, lo)
	if err != nil {
		return nil, err
	}
	p.log = log
	st.start, st.next, st.written, st.durable, st.lastTime = log.Start(), log.End(), log.End(), log.Durable(), r.lastTime
	p.st = st
	p.visible.Store(int64(st.Visible()))
	return p, nil
}

// snapshot is called by the engine from Append, which is called without mu.
func (p *Partition) snapshot(dst []byte, below message.Offset) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.st.producers.appendSnapshot(dst, below)
}

type replay struct {
	st       *State
	lastTime int64
}

func (r *replay) Snapshot(b []byte) error { return r.st.producers.loadSnapshot(b) }

func (r *replay) Batch(e *message.Envelope) error {
	r.st.producers.replayed(e)
	r.lastTime = max(r.lastTime, e.AppendTime)
	return nil
}

// Num is the partition's dense number in this broker.
func (p *Partition) Num() uint32 { return p.opts.Num }

// Index is the partition's index in its topic.
func (p *Partition) Index() uint32 { return p.opts.ID.Index }

// Topic is the topic's name.
func (p *Partition) Topic() string { return p.opts.Topic }

// Visible is the high-water mark: the exclusive end of what may be read.
func (p *Partition) Visible() message.Offset { return message.Offset(p.visible.Load()) }

// Closed reports that the partition was closed or its topic deleted.
func (p *Partition) Closed() bool { return p.closed.Load() }

// SetInterest says whether the loop wants Advanced for this partition.
func (p *Partition) SetInterest(loop int, on bool) {
	if on {
		p.interest.Or(1 << uint(loop))
	} else {
		p.interest.And(^(uint64(1) << uint(loop)))
	}
}

// Interest is the bit set of loops that want Advanced.
func (p *Partition) Interest() uint64 { return p.interest.Load() }

// Result is what Produce knows at once.
type Result struct {
	Flush bool // the caller now has the writer role and must call Flush, or hand it to the Committer
	Done  bool // nothing more will come: a duplicate whose level is already reached
	Admission
}

// Produce admits one batch, already checked by the caller (envelope e, header
// and body checksums). b is the batch inside chunk, which is retained until the
// batch is written. The ack follows by Sink.Complete unless the result is Done
// or an error. now is the broker's clock in µs.
func (p *Partition) Produce(e *message.Envelope, b []byte, chunk *mempool.Chunk, off uint32, level message.AckLevel, tok Token, now int64) (Result, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed.Load() {
		return Result{}, fault.New(fault.NotFound, "produce").WithField("topic").WithDetail("topic %q was deleted", p.opts.Topic)
	}
	a, err := p.st.Admit(e, now)
	if err != nil {
		return Result{}, err
	}
	if a.Duplicate {
		if p.st.Reached(level, a.End) {
			return Result{Done: true, Admission: a}, nil
		}
		p.acks.push(waiting{need: a.End, level: level, c: p.completion(tok, level, a)})
		return Result{Admission: a}, nil
	}
	chunk.Retain()
	p.queue.batches = append(p.queue.batches, storage.Batch{Bytes: b, Base: a.Base, End: a.End, Time: a.Time,
		MaxTime: e.MaxTimestamp(), Epoch: p.log.Epoch()})
	p.queue.owed = append(p.queue.owed, owed{tok: tok, level: level, chunk: chunk, off: off})
	r := Result{Flush: !p.writing, Admission: a}
	p.writing = true
	return r, nil
}

func (p *Partition) completion(tok Token, level message.AckLevel, a Admission) Completion {
	return Completion{Token: tok, Index: p.opts.ID.Index, Level: level, Duplicate: a.Duplicate, Base: a.Base, Time: a.Time}
}

// Deferred reports that Flush must not run on an event loop now.
func (p *Partition) Deferred() bool {
	if p.blocking {
		return true
	}
	until := p.slow.Load()
	return until != 0 && nanotime() < until
}

// Flush writes the queue until it is empty and gives the writer role back. Only
// the holder of the role calls it. self is the calling event loop, or -1.
func (p *Partition) Flush(self int) {
	for {
		p.mu.Lock()
		q := p.queue
		if len(q.batches) == 0 {
			p.writing = false
			p.signalIdle()
			p.mu.Unlock()
			return
		}
		p.queue, p.spare = p.spare, pending{}
		fence := p.st.fence
		p.mu.Unlock()

		err := fence
		if err == nil {
			began := nanotime()
			err = p.log.Append(q.batches)
			if d := nanotime() - began; d > int64(slowAppend) {
				p.slow.Store(nanotime() + int64(slowHold))
			}
		}
		p.settle(self, q, err)
	}
}

// settle records the outcome of one gathered append and answers for it.
func (p *Partition) settle(self int, q pending, err error) {
	p.mu.Lock()
	p.done = p.done[:0]
	advanced := false
	if err == nil {
		advanced = p.stored(q)
	} else {
		p.refused(q, err)
	}
	for i := range q.owed {
		q.owed[i].chunk.Release()
		q.owed[i].chunk = nil
		q.batches[i].Bytes = nil
	}
	p.spare = pending{batches: q.batches[:0], owed: q.owed[:0]}
	p.wantSync()
	p.mu.Unlock()

	if len(p.done) > 0 {
		p.opts.Sink.Complete(self, p.done)
	}
	if advanced {
		p.opts.Sink.Advanced(self, p)
	}
}

// stored moves the written mark and sorts the acks into due and waiting.
func (p *Partition) stored(q pending) (advanced bool) {
	p.st.Written(q.batches[len(q.batches)-1].End)
	for i := range q.batches {
		b, o := &q.batches[i], &q.owed[i]
		p.tail.push(tailEntry{base: b.Base, end: b.End, seed: b.Seed, chunk: o.chunk, gen: o.chunk.Gen(), off: o.off, n: uint32(len(b.Bytes))})
		c := p.completion(o.tok, o.level, Admission{Base: b.Base, End: b.End, Time: b.Time})
		if o.level == message.AckDurable {
			p.acks.push(waiting{need: b.End, level: o.level, c: c})
		} else {
			p.done = append(p.done, c)
		}
	}
	p.done = p.release(p.done)
	return p.publish()
}

// refused answers a failed append. A full disk costs these batches only, and
// those admitted after them: their offsets follow from batches that do not
// exist, so they go back too. Anything else fences the partition.
func (p *Partition) refused(q pending, err error) {
	full := fault.CodeOf(err) == fault.StorageFull || fault.CodeOf(err) == fault.Full
	if full {
		p.st.Cut(q.batches[0].Base)
	} else if p.st.fence == nil {
		p.st.Fence(errFenced(err))
	}
	p.done = p.fail(p.done, q, err)
	p.done = p.fail(p.done, p.queue, err)
	for i := range p.queue.owed {
		p.queue.owed[i].chunk.Release()
		p.queue.owed[i].chunk = nil
	}
	p.queue = pending{batches: p.queue.batches[:0], owed: p.queue.owed[:0]}
	if full {
		// Duplicates that waited for a batch just taken back can wait for ever.
		p.done = p.acks.failFrom(q.batches[0].Base, err, p.done)
	} else {
		p.done = p.acks.failFrom(0, err, p.done)
	}
}

func (p *Partition) fail(dst []Completion, q pending, err error) []Completion {
	for i := range q.owed {
		c := p.completion(q.owed[i].tok, q.owed[i].level, Admission{Base: message.NoOffset})
		c.Err = err
		dst = append(dst, c)
	}
	return dst
}

// release moves the waiting acks whose level is reached to dst.
func (p *Partition) release(dst []Completion) []Completion {
	for {
		w := p.acks.front()
		if w == nil || !p.st.Reached(w.level, w.need) {
			return dst
		}
		dst = append(dst, w.c)
		p.acks.pop()
	}
}

// publish stores the visible end and reports whether it moved.
func (p *Partition) publish() bool {
	v := int64(p.st.Visible())
	if v == p.visible.Load() {
		return false
	}
	p.visible.Store(v)
	return true
}

// wantSync asks the committer for what the state needs.
func (p *Partition) wantSync() {
	if p.syncing || !p.st.NeedsSync() {
		return
	}
	if p.acks.len() > 0 {
		p.syncing = true
		p.opts.Committer.sync(p)
		return
	}
	if !p.lazy {
		p.lazy = true
		p.opts.Committer.later(p, p.st.visibility == message.AckDurable)
	}
}

// runSync is one sync, on a committer goroutine. It reports whether another is
// due at once.
func (p *Partition) runSync() (again bool) {
	end, err := p.log.Sync()
	p.mu.Lock()
	p.synced = p.synced[:0]
	if err != nil {
		p.st.Fence(errFenced(err))
		p.synced = p.acks.failFrom(0, err, p.synced)
	} else {
		p.st.Synced(end)
		p.synced = p.release(p.synced)
	}
	advanced := p.publish()
	again = p.acks.len() > 0 && p.st.NeedsSync()
	if !again {
		p.syncing = false
		p.wantSync()
		p.signalIdle()
	}
	done := p.synced
	p.mu.Unlock()
	if len(done) > 0 {
		p.opts.Sink.Complete(-1, done)
	}
	if advanced || err != nil {
		p.opts.Sink.Advanced(-1, p)
	}
	return again
}

// background runs when the committer's background list comes due.
func (p *Partition) background() {
	p.mu.Lock()
	p.lazy = false
	if !p.syncing && p.st.NeedsSync() {
		p.syncing = true
		p.opts.Committer.sync(p)
	}
	p.mu.Unlock()
}

var clockBase = time.Now()

// nanotime is monotonic time since the program began.
func nanotime() int64 { return int64(time.Since(clockBase)) }
