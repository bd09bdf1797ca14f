package mempool

import (
	"math/rand/v2"
	"runtime"
	"runtime/metrics"
	"testing"
)

type cell struct {
	a, b uint64
	_    [48]byte
}

func TestSlabGivesZeroedRecordsThatDoNotMove(t *testing.T) {
	for name, s := range map[string]Slab[cell]{"heap": {}, "off heap": NewSlabOffHeap[cell]()} {
		t.Run(name, func(t *testing.T) {
			defer s.Drop()
			type ref struct {
				i uint32
				p *cell
			}
			var refs []ref
			for k := range 3*SlabRecords/2 + 1 {
				i, p := s.Take()
				if i == 0 || *p != (cell{}) {
					t.Fatalf("record %d: %+v", i, p)
				}
				p.a, p.b = uint64(i), uint64(k)
				refs = append(refs, ref{i, p})
			}
			for k, r := range refs {
				if s.At(r.i) != r.p || r.p.a != uint64(r.i) || r.p.b != uint64(k) {
					t.Fatalf("record %d moved or changed", r.i)
				}
			}
			if st := s.Stats(); st.Live != len(refs) || st.Bytes != 2*64*SlabRecords {
				t.Errorf("%+v", st)
			}
			// The ones put last come first, and clean.
			s.Put(refs[5].i)
			s.Put(refs[9].i)
			if i, p := s.Take(); i != refs[9].i || *p != (cell{}) {
				t.Errorf("record %d: %+v", i, p)
			}
			s.Put(refs[9].i)
			for k, r := range refs {
				if k != 5 && k != 9 {
					s.Put(r.i)
				}
			}
			if st := s.Stats(); st.Live != 0 {
				t.Errorf("%+v", st)
			}
			s.Shrink()
			if st := s.Stats(); st != (SlabStats{}) || s.Has(1) || s.Top() > 1 {
				t.Errorf("empty: %+v", st)
			}
			if i, _ := s.Take(); i != 1 {
				t.Errorf("the first record of an empty slab is %d", i)
			}
		})
	}
}

func TestSlabShrinksFromItsEnd(t *testing.T) {
	var s Slab[cell]
	var taken []uint32
	for range 3*SlabRecords - 1 { // index 0 is not given out: exactly three blocks
		i, _ := s.Take()
		taken = append(taken, i)
	}
	for _, i := range taken {
		if i > 10 {
			s.Put(i)
		}
	}
	s.Shrink()
	if st := s.Stats(); st.Live != 10 || st.Bytes != 64*SlabRecords || s.Has(SlabRecords) || !s.Has(10) {
		t.Fatalf("%+v", st)
	}
	seen := map[uint32]bool{}
	for range 2 * SlabRecords {
		i, _ := s.Take()
		if seen[i] || i <= 10 {
			t.Fatalf("record %d was given out twice", i)
		}
		seen[i] = true
	}
}

// Against a model: never two owners, what is written stays.
func TestSlabAgainstModel(t *testing.T) {
	s := NewSlabOffHeap[cell]()
	defer s.Drop()
	rng := rand.New(rand.NewPCG(1, 2))
	model := map[uint32]uint64{}
	var order []uint32
	for step := range 200_000 {
		switch r := rng.IntN(100); {
		case r < 52 && len(model) < 5*SlabRecords || len(model) == 0:
			i, p := s.Take()
			if _, dup := model[i]; dup || p.a != 0 {
				t.Fatalf("step %d: record %d has an owner", step, i)
			}
			p.a = rng.Uint64() | 1
			model[i] = p.a
			order = append(order, i)
		case r < 99:
			k := rng.IntN(len(order))
			i := order[k]
			if s.At(i).a != model[i] {
				t.Fatalf("step %d: record %d changed", step, i)
			}
			s.Put(i)
			delete(model, i)
			order[k] = order[len(order)-1]
			order = order[:len(order)-1]
		default:
			s.Shrink()
		}
		if s.Live() != len(model) {
			t.Fatalf("step %d: %d live, %d in the model", step, s.Live(), len(model))
		}
	}
}

func TestPointersStayOnTheHeap(t *testing.T) {
	for name, f := range map[string]func(){
		"pointer":   func() { NewSlabOffHeap[*int]() },
		"string":    func() { NewSlabOffHeap[struct{ s string }]() },
		"interface": func() { NewSlabOffHeap[[2]any]() },
		"slice":     func() { NewSlabOffHeap[struct{ a [3]struct{ b []byte } }]() },
		"func":      func() { NewSlabOffHeap[func()]() },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
	NewSlabOffHeap[struct {
		a [4]uint32
		b uintptr
		c complex128
		d [0]string
	}]()
}

func TestWarmSlabTakesNoMemory(t *testing.T) {
	if LeaseCheck {
		t.Skip("a checked record keeps its history")
	}
	var s Slab[cell]
	i, _ := s.Take()
	s.Put(i)
	if a := testing.AllocsPerRun(100, func() {
		i, _ := s.Take()
		s.Put(i)
	}); a != 0 {
		t.Errorf("%v allocations", a)
	}
}

func BenchmarkSlab(b *testing.B) {
	b.Run("op=take+put/from=slab", func(b *testing.B) {
		var s Slab[cell]
		b.ReportAllocs()
		for b.Loop() {
			i, p := s.Take()
			p.a++
			s.Put(i)
		}
	})
	b.Run("op=take+put/from=heap", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			sink = new(cell)
			sink.a++
		}
	})
	b.Run("op=at", func(b *testing.B) {
		var s Slab[cell]
		for range 4 * SlabRecords {
			s.Take()
		}
		i := uint32(1)
		for b.Loop() {
			s.At(i).a++
			i = i*5%(4*SlabRecords) | 1
		}
	})
}

var sink *cell

// BenchmarkMark is what one cycle of the garbage collector costs with a million
// records alive: in slabs off the heap, in slabs on it, and one by one.
func BenchmarkMark(b *testing.B) {
	const n = 1 << 20
	for _, c := range []struct {
		name string
		make func() (keep any, end func())
	}{
		{"slab-off-heap", func() (any, func()) {
			s := NewSlabOffHeap[cell]()
			for range n {
				s.Take()
			}
			return &s, s.Drop
		}},
		{"slab", func() (any, func()) {
			var s Slab[cell]
			for range n {
				s.Take()
			}
			return &s, s.Drop
		}},
		{"one-by-one", func() (any, func()) {
			all := make([]*cell, n)
			for i := range all {
				all[i] = new(cell)
			}
			return all, func() {}
		}},
	} {
		b.Run("records="+c.name, func(b *testing.B) {
			keep, end := c.make()
			defer end()
			read := func() float64 {
				s := []metrics.Sample{{Name: "/cpu/classes/gc/total:cpu-seconds"}}
				metrics.Read(s)
				return s[0].Value.Float64()
			}
			runtime.GC()
			from := read()
			cycles := 0
			for b.Loop() {
				runtime.GC()
				cycles++
			}
			b.ReportMetric((read()-from)*1e3/float64(cycles), "GC-CPU-ms/cycle")
			runtime.KeepAlive(keep)
		})
	}
}
