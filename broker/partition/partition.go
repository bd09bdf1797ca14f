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
// (Deferred): then a Committer goroutine takes the role. It also takes over from
// a loop that wrote flushRounds times and still finds a queue.
//
// # Group commit
//
// A sync is asked for when an ack or the visibility waits for one, and the next
// starts when the last has returned: what was appended meanwhile shares it.
// There is no timer, so a lone producer pays one sync and a thousand pay one
// together. Batches nobody waits for are synced in the background.
//
// # Failures
//
// An engine that is full costs the batches that it refused and those admitted
// after them; the partition goes on. Any other failed append, and a failed sync,
// fence the partition for good: nothing is admitted, no ack is given any more and
// the written mark stays.
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
	"github.com/portask/portask/broker/monitor/latency"
	"github.com/portask/portask/broker/storage"
)

// slowAppend is the time after which an append counts as slow: event loops stop
// writing themselves for slowHold, so that a stalled disk stalls only those who
// wait for it. A gathered append into the page cache takes tens of
// microseconds; the kernel's dirty throttling sleeps for tens of milliseconds.
const (
	slowAppend = 20 * time.Millisecond
	slowHold   = 250 * time.Millisecond
)

// flushRounds bounds the appends that one holder of the writer role makes in a
// row. Without it the loop that came first would write for all others as long as
// they keep producing, and its own connections would starve.
const flushRounds = 8

// Token says whom an ack is owed. The partition carries it and does not look
// inside; Bytes is the producer credit that returns with the ack.
type Token struct {
	Conn        uint64
	Received    int64 // when the request came, by latency.Now; 0 is not measured
	Loop        uint32
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
	blocking bool           // immutable after Open, as the next two
	levels   storage.Levels // of the engine
	epoch    uint64         // of the log
	tasks    tasks

	visible   atomic.Int64 // stored under mu; read anywhere
	interest  atomic.Uint64
	followers atomic.Int32                      // subscriptions
	told      atomic.Uint64                     // loops that were told of news and have not looked; see Tell
	slow      atomic.Int64                      // monotonic ns until which appends are deferred
	closed    atomic.Bool                       // stored under mu
	retain    atomic.Pointer[storage.Retention] // nil: keep everything
	retainMu  sync.Mutex                        // one Retain at a time; taken before open

	// open is held for reading while the log is read or trimmed, for writing by
	// Close. Taken before mu.
	open sync.RWMutex

	mu      sync.Mutex
	st      *State         // guarded by mu
	queue   pending        // guarded by mu: admitted, not yet appended
	spare   pending        // guarded by mu: the other half of the double buffer
	writing bool           // guarded by mu: someone has the writer role
	syncing bool           // guarded by mu: a sync is queued or running
	lazy    bool           // guarded by mu: in the committer's background list
	acks    waitRing       // guarded by mu: durable acks of written batches, in order
	dups    waitRing       // guarded by mu: acks of duplicates, in any order
	tail    tailRing       // guarded by mu: recent batches in memory
	done    []Completion   // owned by the writer role
	synced  []Completion   // owned by the sync in progress
	idle    chan struct{}  // guarded by mu: closed when writing and syncing end; nil if nobody waits
	shrunk  message.Offset // guarded by mu: next offset at the last Shrink
	moves   *moves         // guarded by mu: when the visible end moved; nil if that is not measured
	count   counts         // guarded by mu
}

// counts is what was appended since the partition was opened.
type counts struct {
	from           message.Offset // the log's end when it was opened
	batches, bytes uint64
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
// Besides the engine's errors there is fault.LevelUnavailable for a visibility
// that the engine cannot give.
func Open(eng storage.Engine, o Options, lo storage.LogOptions) (*Partition, error) {
	p := &Partition{opts: o, blocking: eng.Blocking(), levels: eng.Levels()}
	if o.Visibility == message.AckDurable && !p.levels.Has(message.AckDurable) {
		return nil, p.unavailable("open partition", "visibility", message.AckDurable)
	}
	o.Committer.bind(p)
	p.st = NewState(0, 0, 0, 0, o.Visibility)
	lo.Replay = (*replay)(p.st)
	lo.Snapshot = p.snapshot
	log, err := eng.OpenLog(o.ID, lo)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log, p.epoch = log, log.Epoch()
	p.st.start, p.st.next, p.st.written, p.st.durable = log.Start(), log.End(), log.End(), log.Durable()
	p.visible.Store(int64(p.st.Visible()))
	p.count.from = p.st.written
	p.wantSync() // of what the engine recovered and does not call durable
	return p, nil
}

func (p *Partition) unavailable(op, field string, l message.AckLevel) error {
	return fault.New(fault.LevelUnavailable, op).WithField(field).
		WithDetail("the engine of topic %q gives %s, not %s", p.opts.Topic, p.levels, l)
}

// snapshot is called by the engine from Append, which is called without mu. A
// sealed segment is also the moment when the log may have grown over its
// retention: waiting for a clock would let a fast topic outgrow the disk.
func (p *Partition) snapshot(dst []byte, below message.Offset) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.retain.Load() != nil {
		p.tasks.trim.Schedule()
	}
	return p.st.AppendSnapshot(dst, below)
}

// replay is a State while the engine recovers its log.
type replay State

func (r *replay) Snapshot(b []byte) error { return (*State)(r).LoadSnapshot(b) }

func (r *replay) Batch(e *message.Envelope) error {
	r.producers.replayed(e)
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

// Follow counts n more subscriptions, fewer if n is negative.
func (p *Partition) Follow(n int32) { p.followers.Add(n) }

// Followers is how many subscriptions there are.
func (p *Partition) Followers() int { return int(p.followers.Load()) }

// Tell notes that the loop is to be told of news, and reports whether it has to
// be: otherwise it was told before and has not looked yet, and will see these
// too.
func (p *Partition) Tell(loop int) bool {
	bit := uint64(1) << uint(loop)
	return p.told.Or(bit)&bit == 0
}

// Told is called by the loop that was told, before it looks.
func (p *Partition) Told(loop int) { p.told.And(^(uint64(1) << uint(loop))) }

// Result is what Produce knows at once.
type Result struct {
	Flush bool // the caller now has the writer role and must call Flush, or hand it to the Committer
	Done  bool // nothing more will come: a duplicate whose level is already reached
	Admission
}

// Produce admits one batch, already checked by the caller (envelope e, header
// and body checksums). b is the batch inside chunk, which is retained until the
// batch is written; the engine stamps it in place. The ack follows by
// Sink.Complete unless the result is Done or an error. now is the broker's clock
// in µs.
//
// Errors: fault.NotFound after Close, fault.LevelUnavailable, and those of
// State.Admit.
func (p *Partition) Produce(e *message.Envelope, b []byte, chunk *mempool.Chunk, off uint32, level message.AckLevel, tok Token, now int64) (Result, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed.Load() {
		return Result{}, fault.New(fault.NotFound, "produce").WithField("topic").WithDetail("topic %q was deleted", p.opts.Topic)
	}
	if level == message.AckDurable && !p.levels.Has(level) {
		return Result{}, p.unavailable("produce", "ack", level)
	}
	a, err := p.st.Admit(e, now)
	if err != nil {
		return Result{}, err
	}
	if a.Duplicate {
		if p.st.Reached(level, a.End) {
			return Result{Done: true, Admission: a}, nil
		}
		p.dups.push(waiting{need: a.End, level: level, c: p.completion(tok, level, a)})
		p.wantSync() // the original's level may have been a lower one
		return Result{Admission: a}, nil
	}
	chunk.Retain()
	p.queue.batches = append(p.queue.batches, storage.Batch{Bytes: b, Base: a.Base, End: a.End, Time: a.Time,
		MaxTime: e.MaxTimestamp(), Epoch: p.epoch})
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
	return until != 0 && latency.Now() < until
}

// Flush writes the queue until it is empty and gives the writer role back, or
// hands it to the Committer when that takes too long. Only the holder of the
// role calls it. self is the calling event loop, or -1.
func (p *Partition) Flush(self int) {
	if p.write(self) {
		p.opts.Committer.Write(p)
	}
}

// write is a turn of the writer role. It reports whether the caller still has
// the role: the queue is not empty, but others should have their turn.
func (p *Partition) write(self int) (more bool) {
	for round := 0; ; round++ {
		p.mu.Lock()
		q := p.queue
		if len(q.batches) == 0 {
			p.writing = false
			p.signalIdle()
			p.mu.Unlock()
			return false
		}
		if round == flushRounds || round > 0 && self >= 0 && p.Deferred() {
			p.mu.Unlock()
			return true
		}
		p.queue, p.spare = p.spare, pending{}
		err := p.st.fence
		p.mu.Unlock()

		now := int64(0)
		if err == nil {
			began := latency.Now()
			err = p.log.Append(q.batches)
			now = latency.Now()
			d := now - began
			p.opts.Committer.opts.Latency.At(self).Record(latency.Append, d, 1)
			if d > int64(slowAppend) {
				p.slow.Store(now + int64(slowHold))
			}
		}
		p.settle(self, q, err, now)
	}
}

// settle records the outcome of one gathered append, which ended at now, and
// answers for it.
func (p *Partition) settle(self int, q pending, err error, now int64) {
	p.mu.Lock()
	p.done = roomy(p.done)
	news := false // visible end moved, or fenced
	if err == nil && p.st.fence != nil {
		// A sync failed meanwhile: whether it covered these batches nobody knows.
		err = p.st.fence
	}
	if err == nil {
		news = p.stored(q, now)
	} else {
		news = p.refused(q, err)
	}
	p.spare = q.emptied()
	p.wantSync()
	p.mu.Unlock()

	if len(p.done) > 0 {
		p.opts.Sink.Complete(self, p.done)
	}
	if news {
		p.opts.Sink.Advanced(self, p)
	}
}

// emptied releases the chunks and returns the memory for the next use.
func (q pending) emptied() pending {
	for i := range q.owed {
		q.owed[i].chunk.Release()
	}
	clear(q.owed)
	clear(q.batches)
	return pending{batches: roomy(q.batches), owed: roomy(q.owed)}
}

// stored moves the written mark and sorts the acks into due and waiting.
func (p *Partition) stored(q pending, now int64) (advanced bool) {
	p.st.Written(q.batches[len(q.batches)-1].End)
	p.count.batches += uint64(len(q.batches))
	for i := range q.batches {
		b, o := &q.batches[i], &q.owed[i]
		p.count.bytes += uint64(len(b.Bytes))
		p.tail.push(tailEntry{base: b.Base, end: b.End, seed: b.Seed, chunk: o.chunk, gen: o.chunk.Gen(), off: o.off, n: uint32(len(b.Bytes))})
		c := p.completion(o.tok, o.level, Admission{Base: b.Base, End: b.End, Time: b.Time})
		if o.level == message.AckDurable {
			p.acks.push(waiting{need: b.End, level: o.level, c: c})
		} else {
			p.done = append(p.done, c)
		}
	}
	p.done = p.release(p.done)
	return p.publish(now)
}

// refused answers a failed append. A full disk costs these batches and those
// admitted after them: their offsets follow from batches that do not exist, so
// they go back too. Anything else fences the partition, which it reports.
func (p *Partition) refused(q pending, err error) (fenced bool) {
	from := message.Offset(0)
	if code := fault.CodeOf(err); p.st.fence == nil && (code == fault.StorageFull || code == fault.Full) {
		from = q.batches[0].Base
		p.st.Cut(from)
	} else if p.st.fence == nil {
		p.st.Fence(errFenced(err))
		fenced = true
	}
	if p.st.fence != nil {
		err = p.st.fence
	}
	p.done = p.fail(p.done, q, err)
	p.done = p.fail(p.done, p.queue, err)
	p.queue = p.queue.emptied()
	p.done = p.acks.failFrom(from, err, p.done)
	p.done = p.dups.failFrom(from, err, p.done)
	return fenced
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
			break
		}
		dst = append(dst, w.c)
		p.acks.pop()
	}
	if p.dups.len() == 0 {
		return dst
	}
	return p.dups.sift(dst, func(w *waiting) bool { return p.st.Reached(w.level, w.need) })
}

// publish stores the visible end and reports whether it moved. now is when what
// moves it happened, by latency.Now.
func (p *Partition) publish(now int64) bool {
	v := int64(p.st.Visible())
	if v == p.visible.Load() {
		return false
	}
	p.moved(message.Offset(v), now)
	p.visible.Store(v)
	return true
}

// awaited reports whether an ack waits for a sync, or for the writer.
func (p *Partition) awaited() bool { return p.acks.len() > 0 || p.dups.len() > 0 }

// wantSync asks the committer for what the state needs. While a sync is queued
// or running it does nothing: runSync asks again.
func (p *Partition) wantSync() {
	if p.syncing || !p.st.NeedsSync() || !p.levels.Has(message.AckDurable) {
		return
	}
	if p.awaited() {
		p.syncing = true
		p.tasks.sync.Schedule()
		return
	}
	if !p.lazy && !p.closed.Load() { // closing the log syncs it
		p.lazy = true
		p.opts.Committer.later(p, p.st.visibility == message.AckDurable)
	}
}

// runSync is one sync, on a committer goroutine. It reports whether another is
// due at once.
func (p *Partition) runSync() (again bool) {
	began := latency.Now()
	end, err := p.log.Sync()
	now := latency.Now()
	p.opts.Committer.opts.Latency.At(-1).Record(latency.Sync, now-began, 1)
	p.mu.Lock()
	p.synced = roomy(p.synced)
	if err != nil {
		p.st.Fence(errFenced(err))
		p.synced = p.acks.failFrom(0, p.st.fence, p.synced)
		p.synced = p.dups.failFrom(0, p.st.fence, p.synced)
	} else {
		p.st.Synced(end)
		p.synced = p.release(p.synced)
	}
	advanced := p.publish(now)
	p.mu.Unlock()
	if len(p.synced) > 0 {
		p.opts.Sink.Complete(-1, p.synced)
	}
	if advanced || err != nil {
		p.opts.Sink.Advanced(-1, p)
	}
	// The sync ends here and not before: the next one uses p.synced again, and
	// Quiesce promises that the acks were delivered.
	p.mu.Lock()
	defer p.mu.Unlock()
	if again = p.awaited() && p.st.NeedsSync(); !again {
		p.syncing = false
		p.wantSync()
		p.signalIdle()
	}
	return again
}

// background runs when the committer's background list comes due.
func (p *Partition) background() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lazy = false
	if !p.syncing && !p.closed.Load() && p.st.NeedsSync() {
		p.syncing = true
		p.tasks.sync.Schedule()
	}
}
