package partition

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/monitor/latency"
)

func count(s *latency.Set, k latency.Kind) (n uint64) {
	var c latency.Counts
	s.Read(k, &c)
	for _, v := range c {
		n += v
	}
	return n
}

// A batch is visible since the first move of the visible end behind it; one that
// is not visible, or too old to tell, since no time.
func TestVisibleSince(t *testing.T) {
	p := &Partition{opts: Options{Committer: &Committer{opts: CommitterOptions{Latency: latency.NewSet(1)}}}}
	if at := p.visibleSince(0); at != 0 {
		t.Errorf("before anything moved: %d", at)
	}
	p.moved(10, 100)
	p.moved(30, 300)
	for off, want := range map[message.Offset]int64{0: 100, 9: 100, 10: 300, 29: 300, 30: 0, 99: 0} {
		if at := p.visibleSince(off); at != want {
			t.Errorf("offset %d: %d, want %d", off, at, want)
		}
	}
	for i := range message.Offset(100) {
		p.moved(30+10*(i+1), 300+int64(i+1))
	}
	for off, want := range map[message.Offset]int64{1029: 400, 1030: 0, 1020: 400, 1019: 399, 870: 385, 0: 385} {
		if at := p.visibleSince(off); at != want {
			t.Errorf("after many moves, offset %d: %d, want %d", off, at, want)
		}
	}
	p.opts.Committer.opts.Latency, p.moves = nil, nil
	p.moved(2000, 1)
	if p.moves != nil {
		t.Error("moves are kept although nothing is measured")
	}
}

// Appends and syncs are measured as often as they happen, and what became
// visible by a sync is visible since then, not since it was written.
func TestAppendsAndSyncsAreMeasured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set, syncs := latency.NewSet(1), newGate()
		r := newRig(t, rigOptions{syncs: syncs, committer: CommitterOptions{Latency: set}})
		r.put(1, 3, durable)
		synctest.Wait()
		if n := count(set, latency.Append); n != 1 {
			t.Errorf("%d appends were measured, want 1", n)
		}
		if _, at := r.p.ReadTail(0, 1, nil); at != 0 || count(set, latency.Sync) != 0 {
			t.Errorf("before the sync returned: visible since %d, %d syncs", at, count(set, latency.Sync))
		}
		const sync = 3 * time.Millisecond
		time.Sleep(sync)
		syncs.let(nil)
		synctest.Wait()
		got, at := r.p.ReadTail(0, 1, make([]Slice, 0, 1))
		if at != latency.Now() || len(got) != 1 {
			t.Errorf("%d batches visible since %d, want %d", len(got), at, latency.Now())
		}
		for i := range got {
			got[i].Release()
		}
		var c latency.Counts
		set.Read(latency.Sync, &c)
		for i, n := range c {
			if in := latency.Lower(i) <= int64(sync) && int64(sync) < latency.Lower(i+1); in && n != 1 || !in && n != 0 {
				t.Errorf("%d syncs of %v were measured", n, time.Duration(latency.Lower(i)))
			}
		}
		if m := r.p.Marks(); m.Batches != 1 || m.Messages != 3 || m.Appended == 0 || m.Failed {
			t.Errorf("counted %+v", m)
		}
	})
}
