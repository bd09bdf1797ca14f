package partition

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/storage"
)

var errDisk = fault.New(fault.StorageFailed, "write").WithCause(errors.New("input/output error"))

// A full disk costs the batches that it refused and those behind them. They may
// be sent again, in order, and get the offsets they would have had.
func TestFullDiskCostsOnlyWhatItRefused(t *testing.T) {
	for _, code := range []fault.Code{fault.StorageFull, fault.Full} {
		t.Run(code.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, syncs := newGate(), newGate()
				r := newRig(t, rigOptions{appends: g, syncs: syncs})
				go r.turnEnd(r.send(1, 2, durable))
				synctest.Wait()
				g.let(nil)
				synctest.Wait()
				syncs.let(nil)
				synctest.Wait()
				r.wantAcks(1)

				res := r.send(1, 3, durable)
				r.send(2, 1, none)
				go r.turnEnd(res)
				synctest.Wait()
				r.send(1, 3, accepted) // behind the append that fails
				if _, err := r.try(2, 0, 1, durable); err != nil {
					t.Fatal(err) // a duplicate of a batch that fails
				}
				if _, err := r.try(1, 0, 2, durable); err != nil {
					t.Fatal(err) // a duplicate of one that is durable
				}
				g.let(fault.New(code, "append"))
				synctest.Wait()
				r.wantAcks(-2, -3, -4, -5)
				if m := r.p.Marks(); m.Fenced || m.Written != 2 || m.Visible != 2 {
					t.Errorf("%+v", m)
				}

				if _, err := r.try(1, 5, 3, accepted); !errors.Is(err, fault.OutOfSequence) {
					t.Errorf("a batch that follows the refused ones: %v", err)
				}
				r.next[1], r.next[2] = 2, 0
				res = r.send(1, 3, durable)
				if res.Base != 2 || res.Duplicate || !res.Flush {
					t.Errorf("sent again: %+v", res)
				}
				r.send(2, 1, accepted)
				r.send(1, 3, accepted)
				g.open()
				r.turnEnd(res)
				synctest.Wait()
				r.wantAcks(9, 10)
				syncs.open()
				synctest.Wait()
				r.wantAcks(8)
				r.wantVisible(9)
				if n := len(r.d.log); n != 4 {
					t.Errorf("%d batches in the log", n)
				}
			})
		})
	}
}

// The ack of a written batch must come although a duplicate that was in line
// before it waits for a batch that the disk then refused.
func TestAckBesideADuplicateOfARefusedBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		r := newRig(t, rigOptions{appends: g})
		go r.turnEnd(r.send(1, 1, durable))
		synctest.Wait()
		r.send(2, 1, durable)
		if _, err := r.try(2, 0, 1, durable); err != nil {
			t.Fatal(err)
		}
		g.let(nil)
		synctest.Wait()
		g.let(fault.New(fault.StorageFull, "append"))
		synctest.Wait()
		r.wantAcks(1, -2, -3)
	})
}

func TestFailedAppendFences(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		appends, syncs := newGate(), newGate()
		r := newRig(t, rigOptions{visibility: accepted, appends: appends, syncs: syncs})
		go r.turnEnd(r.send(1, 1, durable))
		synctest.Wait()
		appends.let(nil)
		synctest.Wait() // its sync runs
		r.sink.news()
		go r.turnEnd(r.send(1, 1, accepted))
		synctest.Wait()
		r.send(1, 1, durable)
		appends.let(errDisk)
		synctest.Wait()
		// What waits for the sync fails too: the log can never be synced again
		// as a whole, and the client's question is answered now.
		r.wantAcks(-2, -3, -1)
		if news := r.sink.news(); !slices.Equal(news, []message.Offset{1}) {
			t.Errorf("told of visible ends %v; a failure is news", news)
		}
		syncs.let(nil)
		synctest.Wait()
		r.wantAcks()
		r.wantVisible(1)
		r.wantFenced()
		if n := r.d.appends.Load(); n != 2 {
			t.Errorf("%d appends", n)
		}
	})
}

// wantFenced: nothing is admitted, nobody is stuck, nothing reaches the engine.
func (r *rig) wantFenced() {
	r.t.Helper()
	if !r.p.Marks().Fenced {
		r.t.Error("not fenced")
	}
	appends, syncs, visible := r.d.appends.Load(), r.d.syncs.Load(), r.p.Visible()
	for level := range durable + 1 {
		_, err := r.try(9, 0, 1, level)
		if f := fault.Find(err); f == nil || f.Code != fault.StorageFailed {
			r.t.Errorf("produce to a fenced partition: %v", err)
		}
	}
	time.Sleep(time.Minute)
	synctest.Wait()
	if r.d.appends.Load() != appends || r.d.syncs.Load() != syncs || r.p.Visible() != visible {
		r.t.Error("a fenced partition goes on")
	}
	if err := r.p.Quiesce(r.t.Context()); err != nil {
		r.t.Errorf("quiesce: %v", err)
	}
}

func TestFailedSyncFences(t *testing.T) {
	for _, visibility := range []message.AckLevel{durable, accepted} {
		t.Run("visibility="+visibility.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				syncs := newGate()
				r := newRig(t, rigOptions{visibility: visibility, syncs: syncs})
				r.put(1, 1, durable)
				r.put(1, 1, durable)
				r.put(1, 1, accepted)
				synctest.Wait()
				r.wantAcks(3)
				if _, err := r.try(1, 1, 1, durable); err != nil {
					t.Fatal(err)
				}
				visible := r.p.Visible()
				r.sink.news()
				syncs.let(errDisk)
				synctest.Wait()
				r.wantAcks(-1, -2, -4)
				r.wantVisible(visible)
				if news := r.sink.news(); !slices.Equal(news, []message.Offset{visible}) {
					t.Errorf("told of visible ends %v; a failure is news", news)
				}
				r.wantFenced()
			})
		})
	}
}

// A failed sync of the background list fences as well.
func TestFailedBackgroundSyncFences(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, rigOptions{visibility: accepted, engine: func(d *double) { d.onSync = func() error { return errDisk } }})
		r.put(1, 1, accepted)
		time.Sleep(6 * time.Second)
		synctest.Wait()
		r.wantAcks(1)
		r.wantFenced()
	})
}

// Batches that are being appended while a sync fails get no ack at any level,
// although the append succeeds: the failed sync may have taken their pages too.
func TestAppendThatEndsAfterAFailedSyncIsNotAcked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		appends, syncs := newGate(), newGate()
		r := newRig(t, rigOptions{visibility: accepted, appends: appends, syncs: syncs})
		go r.turnEnd(r.send(1, 1, durable))
		synctest.Wait()
		appends.let(nil)
		synctest.Wait()
		res := r.send(1, 1, none)
		r.send(2, 1, accepted)
		r.send(3, 1, durable)
		go r.turnEnd(res)
		synctest.Wait()
		r.send(3, 1, durable) // in the queue behind it
		syncs.let(errDisk)
		synctest.Wait()
		r.wantAcks(-1)
		appends.let(nil)
		synctest.Wait()
		r.wantAcks(-2, -3, -4, -5)
		r.wantVisible(1)
		r.wantFenced()
	})
}

// A writer role given out before the fence is given back by whoever has it.
func TestRoleTakenBeforeAFenceIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		syncs := newGate()
		r := newRig(t, rigOptions{syncs: syncs})
		r.put(1, 1, durable)
		synctest.Wait()
		res := r.send(2, 1, durable)
		syncs.let(errDisk)
		synctest.Wait()
		r.wantAcks(-1)
		r.turnEnd(res)
		r.wantAcks(-2)
		if n := r.d.appends.Load(); n != 1 {
			t.Errorf("%d appends: one went to a log that cannot be synced", n)
		}
		r.wantFenced()
	})
}

// Errors of any origin reach producers as a failure of the storage.
func TestUntypedErrorsOfTheEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cause := errors.New("unexpected")
		r := newRig(t, rigOptions{engine: func(d *double) { d.onAppend = func([]storage.Batch) error { return cause } }})
		r.put(1, 1, durable)
		got := r.sink.take()
		if len(got) != 1 || fault.CodeOf(got[0].Err) != fault.StorageFailed || !errors.Is(got[0].Err, cause) || got[0].Base != message.NoOffset {
			t.Errorf("%+v", got)
		}
		r.wantFenced()
	})
}
