package partition

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/storage"
)

const (
	none     = message.AckNone
	accepted = message.AckAccepted
	durable  = message.AckDurable
)

func TestBatchesProducedDuringASyncShareTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		r := newRig(t, rigOptions{syncs: g})
		r.put(1, 2, durable)
		synctest.Wait()
		for i := range 10 {
			r.put(uint64(1+i%3), 1, durable)
		}
		synctest.Wait()
		if n := r.d.syncs.Load(); n != 1 {
			t.Fatalf("%d syncs began while the first runs", n)
		}
		r.wantAcks()
		r.wantVisible(0)
		g.let(nil)
		synctest.Wait()
		r.wantAcks(1)
		r.wantVisible(2)
		g.let(nil)
		synctest.Wait()
		r.wantAcks(2, 3, 4, 5, 6, 7, 8, 9, 10, 11)
		r.wantVisible(12)
		if n := r.d.syncs.Load(); n != 2 {
			t.Errorf("%d syncs for 11 batches", n)
		}
		if news := r.sink.news(); !slices.Equal(news, []message.Offset{2, 12}) {
			t.Errorf("told of visible ends %v", news)
		}
	})
}

func TestLevels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		appends, syncs := newGate(), newGate()
		r := newRig(t, rigOptions{visibility: accepted, appends: appends, syncs: syncs})
		res := r.send(1, 1, none)
		r.send(2, 1, accepted)
		r.send(3, 1, durable)
		if !res.Flush || res.Base != 0 {
			t.Errorf("the first batch: %+v", res)
		}
		go r.turnEnd(res)
		synctest.Wait()
		r.wantAcks()
		appends.let(nil)
		synctest.Wait()
		r.wantAcks(1, 2)
		r.wantVisible(3)
		syncs.let(nil)
		synctest.Wait()
		r.wantAcks(3)
	})
}

// A batch that nobody waits for is synced after VisibleAfter where consumers
// wait for that, else after DurableAfter, and not before.
func TestBackgroundSync(t *testing.T) {
	for name, o := range map[string]struct {
		visibility message.AckLevel
		after      time.Duration
	}{"visibility=durable": {durable, 5 * time.Millisecond}, "visibility=accepted": {accepted, 5 * time.Second}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, rigOptions{visibility: o.visibility})
				for round := range int64(3) {
					r.put(1, 1, accepted)
					time.Sleep(o.after / 2)
					r.put(1, 1, none)
					time.Sleep(o.after/2 - 1)
					synctest.Wait()
					if n := r.d.syncs.Load(); n != round {
						t.Errorf("round %d: %d syncs before it is time", round, n)
					}
					time.Sleep(time.Nanosecond)
					synctest.Wait()
					if n, m := r.d.syncs.Load(), r.p.Marks(); n != round+1 || m.Durable != m.Written || m.Visible != m.Written {
						t.Errorf("round %d: %d syncs, %+v", round, n, m)
					}
					time.Sleep(10 * o.after)
					synctest.Wait()
				}
				if n := r.d.syncs.Load(); n != 3 {
					t.Errorf("%d syncs; idle partitions are not synced", n)
				}
			})
		})
	}
}

// What recovery found and cannot call durable becomes visible without a producer.
func TestARecoveredTailIsSynced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, rigOptions{engine: func(d *double) { d.end.Store(20); d.durable.Store(15) }})
		r.wantVisible(15)
		time.Sleep(time.Second)
		synctest.Wait()
		r.wantVisible(20)
		if news := r.sink.news(); !slices.Equal(news, []message.Offset{20}) {
			t.Errorf("told of visible ends %v", news)
		}
	})
}

func TestDuplicates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		appends, syncs := newGate(), newGate()
		r := newRig(t, rigOptions{appends: appends, syncs: syncs})
		again := func(level message.AckLevel) Result {
			t.Helper()
			res, err := r.try(1, 0, 4, level)
			if err != nil || !res.Duplicate || res.Flush || res.Base != 0 || res.End != 4 {
				t.Fatalf("%+v, %v", res, err)
			}
			return res
		}
		res := r.send(1, 4, durable)
		if again(none).Done != true || again(accepted).Done || again(durable).Done {
			t.Error("a duplicate of a batch that is not written")
		}
		go r.turnEnd(res)
		synctest.Wait()
		appends.let(nil)
		synctest.Wait()
		r.wantAcks(3)
		if again(accepted).Done != true || again(durable).Done {
			t.Error("a duplicate of a written batch")
		}
		syncs.let(nil)
		synctest.Wait()
		got := r.sink.take()
		for _, c := range got {
			if c.Err != nil || c.Duplicate != (c.Correlation != 1) || c.Base != 0 || c.Time != 1_000_001 || c.Index != 5 || c.Level != durable {
				t.Errorf("ack %+v", c)
			}
		}
		if len(got) != 3 {
			t.Errorf("%d acks, want those of 1, 4 and 6", len(got))
		}
		if res := again(durable); !res.Done || res.Time != 1_000_001 {
			t.Errorf("a duplicate of a durable batch: %+v", res)
		}
		if n := len(r.d.log); n != 1 {
			t.Errorf("%d batches are in the log", n)
		}
	})
}

// The original was produced at a level that waits for no sync; its duplicate
// wants one now, not when the background list comes due.
func TestADuplicateAtAHigherLevelIsSyncedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, rigOptions{visibility: accepted})
		r.put(1, 1, accepted)
		r.wantAcks(1)
		res, err := r.try(1, 0, 1, durable)
		if err != nil || res.Done {
			t.Fatalf("%+v, %v", res, err)
		}
		synctest.Wait() // and no time passes
		r.wantAcks(2)
	})
}

// A duplicate of a batch that is still to be written does not hold up the ack of
// an earlier one.
func TestADuplicateDoesNotDelayOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		appends := newGate()
		r := newRig(t, rigOptions{appends: appends})
		res := r.send(1, 1, durable)
		go r.turnEnd(res)
		synctest.Wait()
		r.send(2, 1, durable) // waits for the next append
		if _, err := r.try(2, 0, 1, durable); err != nil {
			t.Fatal(err)
		}
		appends.let(nil)
		synctest.Wait()
		r.wantAcks(1)
		appends.let(nil)
		synctest.Wait()
		r.wantAcks(2, 3)
	})
}

// The acks of a sync are in the sink before the next sync of the partition
// begins: they are in memory that it uses again.
func TestASyncLastsUntilItsAcksAreDelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		deliver := newGate()
		r := newRig(t, rigOptions{onDone: func(self int, _ []Completion) {
			if self < 0 {
				_ = deliver.pass()
			}
		}})
		r.put(1, 1, durable)
		synctest.Wait()
		r.put(1, 1, durable)
		r.put(1, 1, durable)
		synctest.Wait()
		if n := r.d.syncs.Load(); n != 1 {
			t.Errorf("%d syncs", n)
		}
		deliver.let(nil)
		synctest.Wait()
		r.wantAcks(1)
		deliver.open()
		synctest.Wait()
		r.wantAcks(2, 3)
	})
}

func TestQuiesceWaitsForAcks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		appends, syncs, deliver := newGate(), newGate(), newGate()
		defer deliver.open()
		r := newRig(t, rigOptions{
			appends: appends, syncs: syncs,
			onDone: func(int, []Completion) { _ = deliver.pass() },
		})
		go r.turnEnd(r.send(1, 1, durable))
		synctest.Wait()
		r.send(1, 1, durable)
		var done atomic.Int32
		for range 2 {
			go func() {
				if err := r.p.Quiesce(t.Context()); err != nil {
					t.Error(err)
				}
				done.Add(1)
			}()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.p.Quiesce(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with a deadline: %v", err)
		}
		if _, err := r.try(1, 2, 1, durable); !errors.Is(err, fault.NotFound) {
			t.Errorf("produce to a partition that closes: %v", err)
		}
		for _, g := range []*gate{appends, appends, syncs, deliver, syncs, deliver} {
			synctest.Wait()
			if done.Load() != 0 {
				t.Fatal("quiet before the last ack was delivered")
			}
			g.let(nil)
		}
		synctest.Wait()
		if done.Load() != 2 {
			t.Fatalf("%d of 2 calls returned", done.Load())
		}
		r.wantAcks(1, 2)
	})
}

// A partition closed while it is on the background list is left alone when the
// list comes due: its log is closed (the double reports a Sync then).
func TestBackgroundSyncSparesAClosedPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, rigOptions{})
		r.put(1, 1, accepted)
		if err := r.p.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := r.d.syncs.Load(); n != 0 {
			t.Errorf("%d syncs", n)
		}
	})
}

func TestCloseWaitsForReaders(t *testing.T) {
	g := newGate()
	reading := make(chan struct{})
	r := newRig(t, rigOptions{visibility: accepted, engine: func(d *double) {
		d.onRead = func() { close(reading); _ = g.pass() }
	}})
	r.put(1, 1, accepted)
	var wg sync.WaitGroup
	wg.Go(func() {
		if runs, err := r.p.Read(0, 1000, nil); err != nil || len(runs) != 1 {
			t.Errorf("%d runs, %v", len(runs), err)
		}
	})
	<-reading
	wg.Go(func() {
		if err := r.p.Close(t.Context()); err != nil { // the double watches that nobody reads
			t.Error(err)
		}
	})
	for r.p.open.TryRLock() { // until Close waits for it
		r.p.open.RUnlock()
		runtime.Gosched()
	}
	g.open()
	wg.Wait()
	if _, err := r.p.Read(0, 1000, nil); !errors.Is(err, fault.Closed) {
		t.Errorf("read after Close: %v", err)
	}
	r.p.SetRetention(storage.Retention{MaxBytes: 1})
	if n, err := r.p.Retain(time.Now()); n != 0 || err != nil {
		t.Errorf("retain after Close: %d, %v", n, err)
	}
}

// An engine that cannot give durable is never asked for it.
func TestEngineWithoutDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, rigOptions{visibility: accepted, engine: func(d *double) {
			d.levels = storage.LevelsOf(none, accepted)
			d.onSync = func() error { return fault.LevelUnavailable }
		}})
		r.put(1, 1, accepted)
		r.put(1, 1, none)
		if _, err := r.try(1, 2, 1, durable); !errors.Is(err, fault.LevelUnavailable) || fault.Find(err).Field != "ack" {
			t.Errorf("produce at durable: %v", err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		r.put(1, 1, accepted)
		r.wantAcks(1, 2, 4)
		r.wantVisible(3)
		if n := r.d.syncs.Load(); n != 0 {
			t.Errorf("%d syncs", n)
		}
		_, err := Open(asEngine{r.d}, Options{Visibility: durable, Sink: r.sink, Committer: r.c}, storage.LogOptions{})
		if !errors.Is(err, fault.LevelUnavailable) || fault.Find(err).Field != "visibility" {
			t.Errorf("open with visibility durable: %v", err)
		}
	})
}

// One stalled append makes event loops leave writing to the committer for a
// while.
func TestWritingIsDeferredAfterASlowAppend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var takes time.Duration
		r := newRig(t, rigOptions{visibility: accepted, engine: func(d *double) {
			d.onAppend = func([]storage.Batch) error { time.Sleep(takes); return nil }
		}})
		takes = slowAppend
		r.put(1, 1, accepted)
		if r.p.Deferred() {
			t.Error("deferred after an append that is just fast enough")
		}
		takes = slowAppend + 1
		r.put(1, 1, accepted)
		if !r.p.Deferred() {
			t.Error("not deferred after a slow append")
		}
		r.wantAcks(1, 2)
		began := time.Now()
		r.put(1, 1, accepted) // by the committer
		if time.Since(began) != 0 {
			t.Error("the loop wrote all the same")
		}
		synctest.Wait()
		takes = 0
		time.Sleep(slowAppend + 1 + slowHold - 1)
		r.wantAcks(3)
		if !r.p.Deferred() {
			t.Error("that append was slow too")
		}
		time.Sleep(time.Nanosecond)
		if r.p.Deferred() {
			t.Error("deferred for longer than slowHold")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, rigOptions{engine: func(d *double) { d.blocking = true }})
		if !r.p.Deferred() {
			t.Error("an engine that blocks was given to an event loop")
		}
		r.put(1, 1, accepted)
		synctest.Wait()
		r.wantAcks(1)
	})
}

// An event loop that finds a queue behind each of its appends does not write for
// the others for ever; and a loop does not go on after an append that stalled.
func TestALoopHandsTheRoleOver(t *testing.T) {
	for name, takes := range map[string]time.Duration{"busy": 0, "stalled": 2 * slowAppend} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				want := int64(flushRounds)
				if takes > 0 {
					want = 1
				}
				var r *rig
				more := 100
				returned := make(chan struct{}) // closed when the loop has gone on
				r = newRig(t, rigOptions{visibility: accepted, engine: func(d *double) {
					d.onAppend = func([]storage.Batch) error {
						if r.d.appends.Load() > want {
							<-returned // the committer's; if it were the loop's, all would wait for ever
						}
						if more--; more >= 0 {
							if r.send(2, 1, accepted).Flush {
								t.Error("the role was given away during an append")
							}
						}
						time.Sleep(takes)
						return nil
					}
				}})
				r.put(1, 1, accepted)
				if n := r.d.appends.Load(); n != want && n != want+1 { // the committer may have begun
					t.Errorf("the loop made %d appends, want %d", n, want)
				}
				close(returned)
				time.Sleep(time.Minute)
				synctest.Wait()
				if n := r.d.appends.Load(); n != 101 || len(r.acks()) != 101 {
					t.Errorf("%d appends in all", n)
				}
			})
		})
	}
}

// Partitions that are written to without end leave room for the syncs and the
// writes of others, even on one worker.
func TestCommitterIsFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		busy, quiet := &rig{}, &rig{}
		var stop atomic.Bool
		c := NewCommitter(CommitterOptions{Workers: 1})
		open := func(onAppend func([]storage.Batch) error) *rig {
			return newRig(t, rigOptions{visibility: accepted, shared: c, engine: func(d *double) { d.onAppend = onAppend; d.blocking = true }})
		}
		busy = open(func([]storage.Batch) error {
			time.Sleep(time.Millisecond)
			if !stop.Load() {
				busy.send(1, 1, accepted)
			}
			return nil
		})
		quiet = open(nil)
		busy.put(1, 1, accepted)
		time.Sleep(20 * time.Millisecond)
		for range 3 {
			quiet.put(1, 1, durable)
			time.Sleep(2 * flushRounds * time.Millisecond)
			if n := len(quiet.acks()); n != 1 {
				t.Errorf("%d acks beside a partition that is always written to", n)
			}
		}
		stop.Store(true)
		synctest.Wait()
		if err := errors.Join(busy.p.Quiesce(t.Context()), quiet.p.Quiesce(t.Context())); err != nil {
			t.Error(err)
		}
	})
}

// The committer's workers end, and so do its timers, whatever is under way.
func TestCommitterCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, rigOptions{})
		for range 100 {
			r.put(1, 1, accepted)
			r.put(2, 1, durable)
		}
		if err := r.p.Close(t.Context()); err != nil {
			t.Error(err)
		}
		r.c.Close()
		if n := len(r.acks()); n != 200 {
			t.Errorf("%d acks", n)
		}
	})
}

// Many goroutines, one partition: everything is stored once, in the order of its
// producer, and answered once, in that order.
func TestWriterRolePassesBetweenLoops(t *testing.T) {
	const loops, each = 8, 400
	var mu sync.Mutex
	acks := map[uint32][]Completion{} // by producer
	var answered atomic.Int64
	all := make(chan struct{})
	r := newRig(t, rigOptions{onDone: func(_ int, cs []Completion) {
		mu.Lock()
		for _, c := range cs {
			acks[c.Handle] = append(acks[c.Handle], c)
		}
		mu.Unlock()
		if answered.Add(int64(len(cs))) == loops*each {
			close(all)
		}
	}})
	var wg sync.WaitGroup
	for l := range loops {
		wg.Go(func() {
			id, seq := uint64(l+1), uint32(0)
			level := message.AckLevel(l % 3)
			var roles []*Partition
			for i := range each {
				count := 1 + i%3
				b := encode(t, message.Producer{ID: id, Sequence: seq}, count, 0)
				e, ch := parse(t, b), r.chunk(b)
				res, err := r.p.Produce(&e, ch.B[frameBytes:frameBytes+len(b)], ch, frameBytes, level,
					Token{Correlation: uint32(i), Handle: uint32(id)}, int64(i))
				r.pool.Retire(ch)
				if err != nil {
					t.Errorf("producer %d: %v", id, err)
					return
				}
				seq += uint32(count)
				if res.Flush {
					roles = append(roles, r.p)
				}
				if i%8 == 7 || i == each-1 { // the end of a turn
					for _, p := range roles {
						p.Flush(l)
					}
					roles = roles[:0]
				}
			}
		})
	}
	wg.Wait()
	<-all
	if err := r.p.Quiesce(t.Context()); err != nil {
		t.Fatal(err)
	}
	byBase := map[message.Offset]logged{}
	next := message.Offset(0)
	sequences := map[uint64]uint32{}
	for _, l := range r.d.log {
		if l.base != next || l.env.BaseSequence != sequences[l.env.ProducerID] {
			t.Fatalf("at %d: [%d, %d) of producer %d, sequence %d", next, l.base, l.end, l.env.ProducerID, l.env.BaseSequence)
		}
		next, byBase[l.base] = l.end, l
		sequences[l.env.ProducerID] += l.env.Count
	}
	if len(r.d.log) != loops*each || r.p.Visible() > next {
		t.Fatalf("%d batches in the log, visible %d of %d", len(r.d.log), r.p.Visible(), next)
	}
	for id, cs := range acks {
		if len(cs) != each {
			t.Errorf("producer %d has %d acks", id, len(cs))
		}
		for i, c := range cs {
			if int(c.Correlation) != i || c.Err != nil || byBase[c.Base].env.ProducerID != uint64(id) || byBase[c.Base].time != c.Time {
				t.Fatalf("ack %d of producer %d: %+v", i, id, c)
			}
		}
	}
	t.Logf("%d batches in %d appends and %d syncs", loops*each, r.d.appends.Load(), r.d.syncs.Load())
}
