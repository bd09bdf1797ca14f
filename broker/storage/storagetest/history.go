package storagetest

import (
	"bytes"
	"maps"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/storage"
)

// testHistories runs random histories of everything that can happen to two logs
// and the metadata, restarts and power cuts among it, and compares with the
// models after each step. A failure is shrunk and its seed printed.
func testHistories(t *testing.T, newTarget func(t testing.TB) *Target) {
	rapid.Check(t, func(rt *rapid.T) {
		h := &history{rt: rt, g: newTarget(t), meta: map[string][]byte{}}
		h.open()
		defer func() { _ = h.e.Close() }()
		sizes := rapid.SampledFrom(h.g.segmentBytes())
		for i := range h.logs {
			h.logs[i] = &track{id: pid(uint32(i)), m: newModel(rapid.Uint64().Draw(rt, "data")), segment: sizes.Draw(rt, "segment")}
			h.openLog(h.logs[i])
		}
		steps := h.steps()
		names := slices.Sorted(maps.Keys(steps))
		for range rapid.IntRange(5, 60).Draw(rt, "steps") {
			steps[rapid.SampledFrom(names).Draw(rt, "step")]()
		}
		for _, k := range h.logs {
			k.m.checkAll(rt, k.l, 1<<20)
		}
		must(rt, h.e.Close())
	})
}

type history struct {
	rt   *rapid.T
	g    *Target
	e    storage.Engine
	logs [2]*track
	meta map[string][]byte
}

// track is a log, its model, and what is known to be durable.
type track struct {
	id       storage.PartitionID
	l        storage.Log
	m        *model
	segment  int64
	durable  message.Offset
	oldStart message.Offset // start when it was last certain to be on record
	runs     []storage.Run  // under a lease
	want     []stored       // in them
}

func (h *history) open() {
	e, err := h.g.Open()
	must(h.rt, err)
	h.e = e
}

func (h *history) openLog(k *track) {
	k.l = openLog(h.rt, h.e, k.id, k.m, k.segment)
	k.m.checkAll(h.rt, k.l, 1<<20)
	k.oldStart = k.m.start
	if h.e.Levels().Has(message.AckDurable) {
		k.durable = max(k.durable, k.l.Durable())
	}
}

func (h *history) release(k *track) {
	if n := k.m.checkRuns(h.rt, k.runs, k.want); n != len(k.want) {
		h.rt.Fatalf("%d of %d batches under the lease", n, len(k.want))
	}
	for i := range k.runs {
		k.runs[i].Release()
	}
	k.runs, k.want = k.runs[:0], nil
}

func (h *history) steps() map[string]func() {
	rt := h.rt
	pick := func() *track { return h.logs[rapid.IntRange(0, len(h.logs)-1).Draw(rt, "log")] }
	offset := func(k *track) message.Offset {
		return message.Offset(rapid.Int64Range(int64(k.m.start), int64(k.m.end())).Draw(rt, "offset"))
	}
	appendSome := func() {
		k := pick()
		shapes := make([]shape, rapid.IntRange(1, 12).Draw(rt, "batches"))
		for i := range shapes {
			shapes[i].messages = rapid.SampledFrom([]int{1, 2, 30}).Draw(rt, "messages")
			shapes[i].valueBytes = rapid.SampledFrom([]int{1, 100, 3000}).Draw(rt, "value")
		}
		k.m.append(rt, k.l, shapes...)
	}
	steps := map[string]func(){
		"append": appendSome, "append more": appendSome, "append again": appendSome,
		"sync": func() {
			k := pick()
			syncIfAble(rt, h.e, k.l)
			if h.e.Levels().Has(message.AckDurable) {
				k.durable = k.m.end()
			}
		},
		"read": func() {
			k := pick()
			from, below := offset(k), offset(k)
			k.m.checkRead(rt, k.l, from, below, rapid.SampledFrom([]int{0, 500, 5000, math.MaxInt32}).Draw(rt, "max"))
		},
		"lease": func() {
			k := pick()
			h.release(k)
			from := offset(k)
			runs, err := k.l.Read(from, k.m.end(), 8000, k.runs)
			must(rt, err)
			k.runs = runs
			i := k.m.at(from)
			k.want = k.m.batches[i:]
			k.want = slices.Clone(k.want[:k.m.checkRuns(rt, runs, k.want)])
		},
		"retain": func() {
			k := pick()
			p := storage.Retention{MaxBytes: rapid.SampledFrom([]int64{0, 1, 10_000, 100_000}).Draw(rt, "bytes")}
			if rapid.Bool().Draw(rt, "by age") {
				p.MaxAge = time.Duration(rapid.Int64Range(1, 100).Draw(rt, "age")) * time.Millisecond
			}
			retain(rt, k.l, k.m, p, offset(k))
		},
		"time passes": func() {
			for _, k := range h.logs {
				k.m.now += rapid.Int64Range(0, 200_000).Draw(rt, "µs")
			}
		},
		"store meta": func() {
			name := rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "name")
			b := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(rt, "blob")
			must(rt, h.e.StoreMeta(name, b))
			h.meta[name] = b
		},
		"remove meta": func() {
			name := rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "name")
			want := fault.None
			if _, there := h.meta[name]; !there {
				want = fault.NotFound
			}
			wantCode(rt, "remove meta", h.e.RemoveMeta(name), want)
			delete(h.meta, name)
		},
		"check meta": h.checkMeta,
		"reopen log": func() {
			k := pick()
			must(rt, k.l.Close())
			h.stopped(k)
			h.openLog(k)
		},
		"remove log": func() {
			k := pick()
			must(rt, k.l.Close())
			h.release(k)
			must(rt, h.e.RemoveLog(k.id))
			*k = track{id: k.id, segment: k.segment, m: newModel(uint64(k.m.now))}
			k.l = openLog(rt, h.e, k.id, k.m, k.segment)
		},
	}
	if h.g.Persists {
		steps["reopen engine"] = func() {
			must(rt, h.e.Close())
			h.open()
			for _, k := range h.logs {
				h.stopped(k)
				h.openLog(k)
			}
			h.checkMeta()
		}
	}
	if h.g.Crash != nil {
		steps["power cut"] = h.crash
	}
	return steps
}

// stopped notes that a log was closed cleanly.
func (h *history) stopped(k *track) {
	if h.e.Levels().Has(message.AckDurable) {
		k.durable = k.m.end()
	}
}

func (h *history) checkMeta() {
	for _, name := range []string{"a", "b"} {
		want, there := h.meta[name]
		b, err := h.e.LoadMeta(name)
		if !there {
			wantCode(h.rt, "load what is not there", err, fault.NotFound)
			continue
		}
		must(h.rt, err)
		if !bytes.Equal(b, want) {
			h.rt.Fatalf("%s holds %q, want %q", name, b, want)
		}
	}
}

// crash cuts the power. Each log must come back with a prefix of what was
// appended that holds all that was durable.
func (h *history) crash() {
	for _, k := range h.logs {
		h.release(k)
	}
	e, err := h.g.Crash(h.e, rapid.Uint64().Draw(h.rt, "crash"))
	must(h.rt, err)
	h.e = e
	for _, k := range h.logs {
		l, err := e.OpenLog(k.id, storage.LogOptions{SegmentBytes: k.segment, Snapshot: k.m.snapshot})
		if fault.CodeOf(err) != fault.None {
			h.rt.Fatalf("open after power cut: %v", err)
		}
		if l.End() < k.durable || l.End() > k.m.end() {
			h.rt.Fatalf("log ends at %d, was durable to %d of %d", l.End(), k.durable, k.m.end())
		}
		if l.Start() < k.oldStart || l.Start() > k.m.start {
			h.rt.Fatalf("log starts at %d, was between %d and %d", l.Start(), k.oldStart, k.m.start)
		}
		if s := l.Stats(); s.Corruptions > 0 {
			h.rt.Fatalf("a power cut is taken for corruption: %+v", s)
		}
		k.m.batches = k.m.batches[:k.m.at(l.End())]
		if k.m.end() != l.End() {
			h.rt.Fatalf("log ends at %d, within a batch that ends at %d", l.End(), k.m.end())
		}
		k.m.start, k.m.next = l.Start(), k.m.states(l.End())
		k.m.coming = nil
		if l.Epoch() <= k.m.epoch {
			h.rt.Fatalf("epoch %d after %d", l.Epoch(), k.m.epoch)
		}
		k.m.epoch = l.Epoch()
		k.durable = l.Durable()
		k.m.checkAll(h.rt, l, 1<<20)
		// Open it once more: what recovery did is itself durable, and the
		// producers' state can be compared now that the end is known.
		must(h.rt, l.Close())
		h.stopped(k)
		h.openLog(k)
	}
	h.checkMeta()
}
