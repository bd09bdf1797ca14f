package storagetest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/storage"
)

func testReopen(t *testing.T, g *Target) {
	e := g.open(t)
	for _, segment := range g.segmentBytes() {
		l, m := newLog(t, e, segment)
		for range 6 {
			must(t, l.Close())
			l = openLog(t, e, pid(0), m, segment) // compares the replay
			m.checkAll(t, l, 1<<20)
			for range 15 {
				m.append(t, l, shape{}, shape{})
			}
		}
		// A clean stop makes everything durable for an engine that can.
		must(t, l.Close())
		l = openLog(t, e, pid(0), m, segment)
		if e.Levels().Has(message.AckDurable) && l.Durable() != m.end() {
			t.Fatalf("durable to %d of %d after a clean stop", l.Durable(), m.end())
		}
		must(t, l.Close())
		must(t, e.RemoveLog(pid(0)))
	}
}

// testReplayAfterRetention: what a producer sent last must be known after a
// restart, even when the segment with it is gone.
func testReplayAfterRetention(t *testing.T, g *Target) {
	e := g.open(t)
	l, m := newLog(t, e, g.small())
	for range 5 {
		fill(t, l, m, 40)
		m.now += time.Hour.Microseconds()
		if len(retain(t, l, m, storage.Retention{MaxAge: time.Minute}, m.end())) == 0 {
			t.Fatal("nothing was removed")
		}
		must(t, l.Close())
		l = openLog(t, e, pid(0), m, g.small())
		m.checkAll(t, l, 1<<20)
	}
}

func testReplayWithoutSnapshots(t *testing.T, g *Target) {
	e := g.open(t)
	l, err := e.OpenLog(pid(0), storage.LogOptions{SegmentBytes: g.small()})
	must(t, err)
	m := newModel(1)
	m.epoch = l.Epoch()
	fill(t, l, m, 40)
	must(t, l.Close())
	r := &replay{t: t}
	l, err = e.OpenLog(pid(0), storage.LogOptions{SegmentBytes: g.small(), Replay: r})
	must(t, err)
	m.epoch = l.Epoch()
	m.checkAll(t, l, 1<<20)
	r.check(m)
	if r.snapshots != 0 || r.batches != len(m.batches) {
		t.Fatalf("replayed %d snapshots and %d of %d batches", r.snapshots, r.batches, len(m.batches))
	}
}

type failingReplay struct {
	replay
	err error
}

func (f *failingReplay) Batch(*message.Envelope) error { return f.err }

func testReplayError(t *testing.T, g *Target) {
	e := g.open(t)
	l, m := newLog(t, e, g.small())
	fill(t, l, m, 3)
	must(t, l.Close())
	stop := errors.New("no more, please")
	_, err := e.OpenLog(pid(0), storage.LogOptions{Replay: &failingReplay{replay{t: t}, stop}})
	if !errors.Is(err, stop) {
		t.Fatalf("OpenLog: %v", err)
	}
	// The log is not open, and nothing happened to it.
	l = openLog(t, e, pid(0), m, g.small())
	m.checkAll(t, l, 1<<20)
}

func testReopenEngine(t *testing.T, g *Target) {
	if !g.Persists {
		t.Skip("the engine does not persist")
	}
	models := []*model{newModel(1), newModel(2), newModel(3)}
	for round := range 4 {
		e := g.open(t)
		ids, err := e.ListLogs()
		must(t, err)
		if round > 0 && len(ids) != len(models) {
			t.Fatalf("%d logs after restart", len(ids))
		}
		for i, m := range models {
			l := openLog(t, e, pid(uint32(i)), m, g.small())
			m.checkAll(t, l, 5000)
			fill(t, l, m, 10+round*10)
			m.now += time.Hour.Microseconds()
			if round == 2 {
				retain(t, l, m, storage.Retention{MaxAge: time.Minute}, m.end())
			}
			if i == 0 { // the others are closed by the engine
				must(t, l.Close())
			}
		}
		must(t, e.Close())
	}
}

func testRemoveList(t *testing.T, g *Target) {
	e := g.open(t)
	list := func(want ...storage.PartitionID) {
		t.Helper()
		ids, err := e.ListLogs()
		must(t, err)
		if !slices.Equal(ids, want) {
			t.Fatalf("ListLogs = %v, want %v", ids, want)
		}
	}
	list()
	other := storage.PartitionID{Topic: [16]byte{1}, Index: 4_000_000_000}
	var last storage.Log
	for _, id := range []storage.PartitionID{pid(10), pid(9), other} {
		l, err := e.OpenLog(id, storage.LogOptions{SegmentBytes: g.small()})
		must(t, err)
		last = l
	}
	list(other, pid(9), pid(10))

	_, err := e.OpenLog(other, storage.LogOptions{})
	wantCode(t, "open a log twice", err, fault.Exists)
	wantCode(t, "remove an open log", e.RemoveLog(other), fault.Exists)
	wantCode(t, "remove a missing log", e.RemoveLog(pid(77)), fault.NotFound)
	must(t, last.Close())
	list(other, pid(9), pid(10))
	must(t, e.RemoveLog(other))
	wantCode(t, "remove a log twice", e.RemoveLog(other), fault.NotFound)
	list(pid(9), pid(10))

	// A log of the same id starts anew.
	for range 3 {
		l, m := newLog(t, e, g.small())
		fill(t, l, m, 30)
		m.now += time.Hour.Microseconds()
		retain(t, l, m, storage.Retention{MaxAge: time.Minute}, m.end())
		must(t, l.Close())
		must(t, e.RemoveLog(pid(0)))
	}
	if g.Persists {
		must(t, e.Close())
		e = g.open(t)
	} else {
		return
	}
	list(pid(9), pid(10))
}

func testManyLogs(t *testing.T, g *Target) {
	e := g.open(t)
	var logs []storage.Log
	var models []*model
	for i := range uint32(12) {
		m := newModel(uint64(i))
		models = append(models, m)
		logs = append(logs, openLog(t, e, pid(i), m, g.small()))
	}
	for range 20 {
		for i, l := range logs {
			models[i].append(t, l, make([]shape, 1+i%4)...)
		}
	}
	for i, l := range logs {
		syncIfAble(t, e, l)
		models[i].checkAll(t, l, 1<<20)
	}
	if s := e.Stats(); s.Logs != len(logs) {
		t.Fatalf("%d logs open, figures say %d", len(logs), s.Logs)
	}
}

func testMeta(t *testing.T, g *Target) {
	e := g.open(t)
	blobs := map[string][]byte{
		"topics": []byte("one"), "a": {}, "0-._z": bytes.Repeat([]byte{0}, 5000),
		strings.Repeat("n", 64): bytes.Repeat([]byte("x"), 1<<20),
	}
	check := func() {
		t.Helper()
		for name, want := range blobs {
			b, err := e.LoadMeta(name)
			must(t, err)
			if !bytes.Equal(b, want) {
				t.Fatalf("%s: %d bytes, want %d", name, len(b), len(want))
			}
			for i := range b { // it is the caller's
				b[i] = 0xEE
			}
		}
	}
	_, err := e.LoadMeta("topics")
	wantCode(t, "load what was never stored", err, fault.NotFound)
	for name, b := range blobs {
		mine := bytes.Clone(b)
		must(t, e.StoreMeta(name, mine))
		clear(mine)
	}
	check()
	check()
	for i := range 10 {
		blobs["topics"] = bytes.Repeat([]byte("0123456789")[:i], i*i*100)
		must(t, e.StoreMeta("topics", blobs["topics"]))
		check()
	}
	for _, name := range []string{"", ".", "..", ".hidden", "a/b", `a\b`, "Upper", "ü", "a b", strings.Repeat("n", 65), "../x"} {
		_, err := e.LoadMeta(name)
		wantCode(t, "load "+name, err, fault.Invalid)
		wantCode(t, "store "+name, e.StoreMeta(name, nil), fault.Invalid)
	}
	wantCode(t, "store a huge blob", e.StoreMeta("topics", make([]byte, storage.MaxMetaBytes+1)), fault.TooLarge)
	check()
	if s := e.Stats(); s.MetaWrites != 14 {
		t.Fatalf("%d writes of metadata, figures say %d", 14, s.MetaWrites)
	}
	if g.Persists {
		must(t, e.Close())
		e = g.open(t)
		check()
	}
}

func testRemoveMeta(t *testing.T, g *Target) {
	e := g.open(t)
	gone := func(name string) {
		t.Helper()
		b, err := e.LoadMeta(name)
		wantCode(t, "load removed metadata", err, fault.NotFound)
		wantCode(t, "remove it again", e.RemoveMeta(name), fault.NotFound)
		if b != nil {
			t.Fatalf("gave %q", b)
		}
	}
	must(t, e.StoreMeta("stays", []byte("here")))
	must(t, e.StoreMeta("goes", []byte("away")))
	must(t, e.StoreMeta("back", []byte("old")))
	must(t, e.RemoveMeta("goes"))
	must(t, e.RemoveMeta("back"))
	gone("goes")
	gone("back")
	gone("never-there")
	must(t, e.StoreMeta("back", []byte("new")))
	wantCode(t, "remove ../x", e.RemoveMeta("../x"), fault.Invalid)
	check := func() {
		t.Helper()
		for name, want := range map[string]string{"stays": "here", "back": "new"} {
			if b, err := e.LoadMeta(name); err != nil || string(b) != want {
				t.Fatalf("%s: %q, %v", name, b, err)
			}
		}
	}
	check()
	// What was removed takes no room any more.
	for i := range 10 {
		name := fmt.Sprintf("large-%d", i)
		must(t, e.StoreMeta(name, make([]byte, storage.MaxMetaBytes)))
		must(t, e.RemoveMeta(name))
	}
	if g.Persists {
		must(t, e.Close())
		e = g.open(t)
		check()
		gone("goes")
		gone("large-9")
	}
}

func testDamagedMeta(t *testing.T, g *Target) {
	if g.DamageMeta == nil || !g.Persists {
		t.Skip("the target cannot damage metadata")
	}
	e := g.open(t)
	must(t, e.StoreMeta("good", []byte("good")))
	must(t, e.StoreMeta("bad", []byte("not so good")))
	must(t, e.Close())
	must(t, g.DamageMeta("bad"))
	e = g.open(t)
	b, err := e.LoadMeta("bad")
	wantCode(t, "load damaged metadata", err, fault.Corrupted)
	if b != nil {
		t.Fatalf("gave %q", b)
	}
	b, err = e.LoadMeta("good")
	if err != nil || string(b) != "good" {
		t.Fatalf("%q, %v", b, err)
	}
	must(t, e.StoreMeta("bad", []byte("new")))
	b, err = e.LoadMeta("bad")
	if err != nil || string(b) != "new" {
		t.Fatalf("%q, %v", b, err)
	}
	must(t, e.Close())
	must(t, g.DamageMeta("bad"))
	e = g.open(t)
	must(t, e.RemoveMeta("bad"))
	_, err = e.LoadMeta("bad")
	wantCode(t, "load what was damaged and removed", err, fault.NotFound)
}

func testClose(t *testing.T, g *Target) {
	e := g.open(t)
	l, m := newLog(t, e, g.small())
	fill(t, l, m, 20)
	must(t, l.Close())
	must(t, l.Close())
	m.checkEnds(t, l) // still answers
	_ = l.Stats()
	logCalls := map[string]func() error{
		"Append":        func() error { return l.Append(m.make(t, shape{})) },
		"Sync":          func() error { _, err := l.Sync(); return err },
		"Read":          func() error { _, err := l.Read(0, m.end(), 1, nil); return err },
		"OffsetForTime": func() error { _, err := l.OffsetForTime(0); return err },
		"Retain": func() error {
			_, err := l.Retain(storage.Retention{MaxAge: 1}, m.now+1e12, m.end())
			return err
		},
	}
	for name, call := range logCalls {
		wantCode(t, name+" after Log.Close", call(), fault.Closed)
	}

	l = openLog(t, e, pid(0), m, g.small())
	m.checkAll(t, l, 1<<20)
	must(t, e.Close()) // closes the log
	must(t, e.Close())
	for name, call := range logCalls {
		wantCode(t, name+" after Engine.Close", call(), fault.Closed)
	}
	must(t, l.Close())
	for name, call := range map[string]func() error{
		"OpenLog":    func() error { _, err := e.OpenLog(pid(0), storage.LogOptions{}); return err },
		"RemoveLog":  func() error { return e.RemoveLog(pid(0)) },
		"ListLogs":   func() error { _, err := e.ListLogs(); return err },
		"LoadMeta":   func() error { _, err := e.LoadMeta("a"); return err },
		"StoreMeta":  func() error { return e.StoreMeta("a", nil) },
		"RemoveMeta": func() error { return e.RemoveMeta("a") },
		"Space":      func() error { _, _, _, err := e.Space(); return err },
	} {
		wantCode(t, name+" after Engine.Close", call(), fault.Closed)
	}
	_ = e.Stats()
}

func testStats(t *testing.T, g *Target) {
	e := g.open(t)
	free, total, low, err := e.Space()
	must(t, err)
	if free <= 0 || total < free || low {
		t.Fatalf("%d of %d free, low %v; an empty engine should have room", free, total, low)
	}
	l, m := newLog(t, e, g.small())
	fill(t, l, m, 100)
	syncIfAble(t, e, l)
	s := l.Stats()
	if s.Appends != 100 || s.Batches != 100 || s.Bytes != size(m.batches) || s.Segments < 2 ||
		s.Rolls < 1 || s.Writes < 1 || s.Corruptions != 0 || s.TornBytes != 0 || s.Failed || s.Removed != 0 {
		t.Fatalf("%+v; %d bytes were appended", s, size(m.batches))
	}
	if es := e.Stats(); es.Logs != 1 || es.Bytes != s.Bytes {
		t.Fatalf("%+v; the log has %d bytes", es, s.Bytes)
	}
	must(t, l.Close())
	l = openLog(t, e, pid(0), m, g.small())
	if again := l.Stats(); again.Bytes != s.Bytes || again.Appends != 0 || again.TornBytes != 0 {
		t.Fatalf("%+v after reopening", again)
	}
}
