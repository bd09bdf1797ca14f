package storagetest

import (
	"math"
	"testing"
	"time"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/storage"
)

// fill appends batches of about 1 KiB over many small segments.
func fill(t *testing.T, l storage.Log, m *model, batches int) {
	t.Helper()
	for range batches {
		m.append(t, l, shape{messages: 4, valueBytes: 200})
	}
}

// retain runs Retain and checks what holds for every policy.
func retain(t reporter, l storage.Log, m *model, p storage.Retention, below message.Offset) (gone []stored) {
	t.Helper()
	was := l.Stats()
	n, err := l.Retain(p, m.now, below)
	must(t, err)
	gone = m.trimmed(t, l)
	if n != size(gone) {
		t.Fatalf("Retain returned %d, the batches gone had %d bytes", n, size(gone))
	}
	if len(gone) > 0 && gone[len(gone)-1].end > below {
		t.Fatalf("removed up to %d, above %d", gone[len(gone)-1].end, below)
	}
	left := m.held()
	for i := range gone {
		expired := p.MaxAge > 0 && m.now-gone[i].time > p.MaxAge.Microseconds()
		tooMany := p.MaxBytes > 0 && size(left) >= p.MaxBytes
		if !expired && !tooMany {
			t.Fatalf("batch [%d, %d) is gone: %v old with %v, %d bytes left with %d", gone[i].base, gone[i].end,
				time.Duration(m.now-gone[i].time)*time.Microsecond, p.MaxAge, size(left), p.MaxBytes)
		}
	}
	if s := l.Stats(); s.Bytes != size(left) || s.Removed-was.Removed != n {
		t.Fatalf("%d bytes after %d, %d removed; want %d and %d", s.Bytes, was.Bytes, s.Removed-was.Removed, size(left), n)
	}
	if m.start > 0 {
		_, err := l.Read(m.start-1, m.end(), 1, nil)
		wantCode(t, "read below the start", err, fault.OutOfRange)
	}
	return gone
}

func testRetainAge(t *testing.T, g *Target) {
	e := g.open(t)
	l, m := newLog(t, e, g.small())
	everything := storage.Retention{MaxAge: time.Microsecond}
	if gone := retain(t, l, m, everything, math.MaxInt64); len(gone) != 0 {
		t.Fatal("an empty log lost something")
	}
	fill(t, l, m, 50)
	if len(retain(t, l, m, storage.Retention{}, m.end())) != 0 {
		t.Fatal("removed something without limits")
	}
	if len(retain(t, l, m, storage.Retention{MaxAge: -1, MaxBytes: -1}, m.end())) != 0 {
		t.Fatal("removed something without limits")
	}
	// Appended 1 ms apart: most of the older half must go, none of the younger.
	gone := 0
	for age := 51; age >= 25; age-- {
		gone += len(retain(t, l, m, storage.Retention{MaxAge: time.Duration(age) * time.Millisecond}, m.end()))
	}
	if gone < 10 {
		t.Fatalf("%d batches gone, 25 had expired", gone)
	}
	m.checkAll(t, l, 1<<20)
	m.now += time.Hour.Microseconds()
	retain(t, l, m, everything, m.end())
	if s := l.Stats(); s.Segments > 1 {
		t.Fatalf("%d segments left, all had expired", s.Segments)
	}
	fill(t, l, m, 20)
	m.checkAll(t, l, 1<<20)
	syncIfAble(t, e, l)
	must(t, l.Close())
	l = openLog(t, e, pid(0), m, g.small())
	m.checkAll(t, l, 1<<20)
}

func testRetainBytes(t *testing.T, g *Target) {
	e := g.open(t)
	l, m := newLog(t, e, g.small())
	const limit = 20_000
	for range 100 {
		fill(t, l, m, 1)
		retain(t, l, m, storage.Retention{MaxBytes: limit}, m.end())
		// The rest is less than one segment more than the limit. A segment is
		// at most 16 times the size asked for, where an engine has a least.
		if n := size(m.held()); n > limit+16*g.small() {
			t.Fatalf("%d bytes left with a limit of %d and segments of %d", n, limit, g.small())
		}
	}
	if m.start == 0 {
		t.Fatal("nothing was removed")
	}
	m.checkAll(t, l, 1<<20)
	if s := e.Stats(); s.HeldBytes != 0 {
		t.Fatalf("nobody has a lease, but something is held: %+v", s)
	}
}

func testRetainBelow(t *testing.T, g *Target) {
	e := g.open(t)
	l, m := newLog(t, e, g.small())
	fill(t, l, m, 60)
	m.now += time.Hour.Microseconds()
	p := storage.Retention{MaxAge: time.Minute, MaxBytes: 1}
	for below := message.Offset(0); below < m.end(); below += 7 {
		retain(t, l, m, p, below)
	}
	if m.start == 0 {
		t.Fatal("nothing was removed")
	}
	m.checkAll(t, l, 1<<20)
}

// testLeases holds runs over everything that could take the bytes away.
func testLeases(t *testing.T, g *Target) {
	e := g.open(t)
	l, m := newLog(t, e, g.small())
	type lease struct {
		runs []storage.Run
		want []stored
	}
	var leases []lease
	take := func(from message.Offset, maxBytes int) {
		t.Helper()
		runs, err := l.Read(from, m.end(), maxBytes, nil)
		must(t, err)
		i := m.at(from)
		n := m.checkRuns(t, runs, m.batches[i:])
		leases = append(leases, lease{runs, m.batches[i : i+n]})
	}
	check := func(when string) {
		t.Helper()
		for i := range leases {
			if n := m.checkRuns(t, leases[i].runs, leases[i].want); n != len(leases[i].want) {
				t.Fatalf("%s: lease %d has %d batches", when, i, n)
			}
		}
	}
	release := func(i int) {
		t.Helper()
		for k := range leases[i].runs {
			// A copy with a lease of its own is as good.
			c := leases[i].runs[k]
			c.Retain()
			leases[i].runs[k].Release()
			n := c.Batches
			if m.checkRuns(t, []storage.Run{c}, leases[i].want) != n {
				t.Fatal("the copy is not intact")
			}
			leases[i].want = leases[i].want[n:]
			c.Release()
		}
		leases = append(leases[:i], leases[i+1:]...)
	}

	for round := range 8 {
		fill(t, l, m, 25)
		take(m.start, 2000)
		take(m.batches[len(m.batches)-5].base, 1<<20)
		m.now += time.Hour.Microseconds()
		retain(t, l, m, storage.Retention{MaxAge: time.Minute}, m.end())
		check("after Retain")
		fill(t, l, m, 25) // into what was given back
		check("after new appends")
		if round%2 == 1 {
			release(m.rng.IntN(len(leases)))
		}
	}
	if s := e.Stats(); s.HeldBytes <= 0 {
		t.Fatalf("figures do not show what is held: %+v", s)
	}
	m.checkAll(t, l, 1<<20)
	must(t, l.Close())
	check("after Log.Close")
	must(t, e.RemoveLog(pid(0)))
	check("after RemoveLog")
	l, m2 := newLog(t, e, g.small())
	fill(t, l, m2, 100)
	check("after a new log")
	must(t, e.Close())
	check("after Engine.Close")
	for len(leases) > 0 {
		release(0)
	}
}
