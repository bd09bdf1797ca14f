package storagetest

import (
	"math"
	"testing"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/storage"
)

func testDeclarations(t *testing.T, g *Target) {
	e := g.open(t)
	if e.Name() == "" || e.Levels() == 0 {
		t.Fatalf("name %q, levels %v", e.Name(), e.Levels())
	}
	if l := e.Levels(); l.Has(message.AckDurable) && !l.Has(message.AckAccepted) || !l.Has(message.AckNone) {
		t.Fatalf("levels are %v: a level implies those below it", l)
	}
}

func testAppendRead(t *testing.T, g *Target) {
	e := g.open(t)
	for _, segment := range g.segmentBytes() {
		l, m := newLog(t, e, segment)
		m.checkRead(t, l, 0, 0, 1<<20)
		must(t, l.Append(nil))
		m.checkEnds(t, l)
		for range 30 {
			m.append(t, l, shape{})
			m.checkRead(t, l, m.batches[len(m.batches)-1].base, m.end(), 1)
		}
		m.checkAll(t, l, math.MaxInt32)
		m.checkAll(t, l, 1)
		syncIfAble(t, e, l)
		m.checkAll(t, l, 3000)
		must(t, l.Close())
		must(t, e.RemoveLog(pid(0)))
	}
}

func testGathered(t *testing.T, g *Target) {
	e := g.open(t)
	l, m := newLog(t, e, g.small())
	for n := 1; n <= 300; n = n*3 + 1 { // more than one system call takes, over several segments
		m.append(t, l, make([]shape, n)...)
	}
	m.checkAll(t, l, 10_000)
	syncIfAble(t, e, l)
	if s := l.Stats(); s.Batches != uint64(len(m.batches)) || s.Appends >= s.Batches || s.Rolls == 0 {
		t.Fatalf("%+v after %d batches", s, len(m.batches))
	}
}

func testReadRules(t *testing.T, g *Target) {
	e := g.open(t)
	for _, segment := range g.segmentBytes() {
		readRules(t, e, segment)
	}
}

func readRules(t *testing.T, e storage.Engine, segment int64) {
	l, m := newLog(t, e, segment)
	for range 60 {
		m.append(t, l, shape{messages: 3, valueBytes: 150}, shape{messages: 1, valueBytes: 20})
	}
	one := len(m.batches[0].bytes)
	for from := message.Offset(0); from <= m.end(); from++ { // middles of batches too
		for _, maxBytes := range []int{-1, 0, 1, one - 1, one, one + 1, 2 * one, 9000, math.MaxInt} {
			m.checkRead(t, l, from, m.end(), maxBytes)
		}
		// What is visible may end anywhere, also within a batch.
		for below := max(0, from-2); below <= min(from+9, m.end()); below++ {
			m.checkRead(t, l, from, below, math.MaxInt32)
		}
		m.checkRead(t, l, from, math.MaxInt64, 5000)
	}
	for _, from := range []message.Offset{-1, math.MinInt64, m.end() + 1, math.MaxInt64} {
		runs, err := l.Read(from, m.end(), 1000, make([]storage.Run, 2, 4))
		wantCode(t, "read outside of the log", err, fault.OutOfRange)
		if r := rangeOf(err); r == nil || r.Offset != from || r.Start != 0 || r.End != m.end() {
			t.Fatalf("read at %d: range %+v in %v", from, r, err)
		}
		if len(runs) != 2 {
			t.Fatalf("dst came back with %d runs", len(runs))
		}
	}

	// Runs are appended to what dst holds.
	dst, err := l.Read(0, m.end(), 1, nil)
	must(t, err)
	had := len(dst)
	dst, err = l.Read(dst[had-1].End, m.end(), 9000, dst)
	must(t, err)
	if m.checkRuns(t, dst, m.batches) <= had {
		t.Fatal("the second read added nothing")
	}
	for i := range dst {
		dst[i].Release()
		if dst[i].Len != 0 || dst[i].Mem != nil || dst[i].File != nil {
			t.Fatal("a released run still shows bytes")
		}
	}
	must(t, l.Close())
	must(t, e.RemoveLog(pid(0)))
}

func testRefusedAppends(t *testing.T, g *Target) {
	e := g.open(t)
	l, m := newLog(t, e, g.small())
	m.append(t, l, shape{}, shape{})
	for what, spoil := range map[string]func(b []storage.Batch) []storage.Batch{
		"gap before":     func(b []storage.Batch) []storage.Batch { b[0].Base++; return b },
		"offset again":   func(b []storage.Batch) []storage.Batch { b[0].Base--; return b },
		"gap between":    func(b []storage.Batch) []storage.Batch { return []storage.Batch{b[0], b[2]} },
		"wrong order":    func(b []storage.Batch) []storage.Batch { return []storage.Batch{b[0], b[2], b[1]} },
		"twice":          func(b []storage.Batch) []storage.Batch { return []storage.Batch{b[0], b[0]} },
		"empty range":    func(b []storage.Batch) []storage.Batch { b[2].End = b[2].Base; return b },
		"negative range": func(b []storage.Batch) []storage.Batch { b[2].End = b[2].Base - 1; return b },
	} {
		err := l.Append(spoil(m.make(t, shape{}, shape{}, shape{})))
		wantCode(t, what, err, fault.Invalid)
		m.checkAll(t, l, 1<<20)
	}
	m.append(t, l, shape{}, shape{})
	m.checkAll(t, l, 1<<20)
}

func testCallersMemory(t *testing.T, g *Target) {
	e := g.open(t)
	l, m := newLog(t, e, g.small())
	for range 20 {
		batches := m.make(t, shape{}, shape{}, shape{})
		must(t, l.Append(batches))
		m.accept(t, batches)
		for i := range batches {
			for k := range batches[i].Bytes {
				batches[i].Bytes[k] = 0xEE
			}
			batches[i] = storage.Batch{}
		}
		m.checkAll(t, l, 1<<20)
	}
}

func testLargeBatch(t *testing.T, g *Target) {
	e := g.open(t)
	l, m := newLog(t, e, g.small())
	for _, n := range []int{10, 20_000, 10, 300_000, 300_000, 10} {
		m.append(t, l, shape{messages: 2, valueBytes: n})
	}
	m.append(t, l, shape{}, shape{messages: 1, valueBytes: 1 << 19}, shape{})
	m.checkAll(t, l, 1)
	m.checkAll(t, l, 1<<20)
	syncIfAble(t, e, l)
	must(t, l.Close())
	l = openLog(t, e, pid(0), m, g.small())
	m.checkAll(t, l, 1<<20)
}

func testLevels(t *testing.T, g *Target) {
	e := g.open(t)
	l, m := newLog(t, e, g.small())
	durable := e.Levels().Has(message.AckDurable)
	for i := range 20 {
		m.append(t, l, shape{}, shape{})
		if !durable {
			_, err := l.Sync()
			wantCode(t, "Sync without the level", err, fault.LevelUnavailable)
			if f := fault.Find(err); f == nil || f.Field == "" || f.Detail == "" {
				t.Fatalf("%v does not name the setting", err)
			}
			if l.Durable() != 0 {
				t.Fatalf("durable to %d", l.Durable())
			}
			continue
		}
		was := l.Durable()
		if i%3 == 0 {
			syncIfAble(t, e, l)
			syncIfAble(t, e, l) // with nothing to do
		} else if l.Durable() < was {
			t.Fatalf("durable end went back from %d to %d", was, l.Durable())
		}
	}
	m.checkAll(t, l, 1<<20)
	if s := l.Stats(); durable && s.Syncs == 0 || s.Failed {
		t.Fatalf("%+v", s)
	}
}

func testTime(t *testing.T, g *Target) {
	e := g.open(t)
	for _, segment := range g.segmentBytes() {
		lookUpTimes(t, e, segment)
	}
}

func lookUpTimes(t *testing.T, e storage.Engine, segment int64) {
	l, m := newLog(t, e, segment)
	if o, err := l.OffsetForTime(0); o != 0 || err != nil {
		t.Fatalf("empty log: %d, %v", o, err)
	}
	check := func() {
		t.Helper()
		times := []int64{math.MinInt64, 0, math.MaxInt64}
		for i := range m.batches {
			at := m.batches[i].maxTime
			times = append(times, at-1, at, at+1)
		}
		for _, us := range times {
			want := m.end()
			for _, b := range m.held() {
				if b.maxTime >= us {
					want = b.base
					break
				}
			}
			if o, err := l.OffsetForTime(us); o != want || err != nil {
				t.Fatalf("OffsetForTime(%d) = %d, %v; want %d", us, o, err, want)
			}
		}
	}
	for range 80 { // producers' clocks jump about
		m.append(t, l, shape{maxTime: startOfTime + m.rng.Int64N(50)*1_000_000})
	}
	check()
	_, err := l.Retain(storage.Retention{MaxBytes: size(m.batches) / 2}, m.now, m.end())
	must(t, err)
	m.trimmed(t, l)
	check()
	for i := range 40 { // and go forward
		m.append(t, l, shape{maxTime: startOfTime + int64(100+i)*1_000_000})
	}
	check()
	syncIfAble(t, e, l)
	must(t, l.Close())
	l = openLog(t, e, pid(0), m, segment)
	check()
	must(t, l.Close())
	must(t, e.RemoveLog(pid(0)))
}
