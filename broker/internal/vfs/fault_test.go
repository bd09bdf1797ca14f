package vfs

import (
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func TestFaultFailsEveryKindOfCall(t *testing.T) {
	m := NewMem()
	must(t, m.MkdirAll("d", 0o755))
	broken := errors.New("broken")
	var fail OpKind
	var last Op
	f := NewFault(m, func(op Op) Decision {
		last = op
		if op.Kind == fail {
			return Decision{Err: broken}
		}
		return Decision{}
	})
	h := create(t, f, "d/f")
	writeAt(t, h, "0123456789", 0)
	buf := make([]byte, 4)
	calls := map[OpKind]func() error{
		OpCreate:   func() error { return second(f.OpenFile("d/new", os.O_RDWR|os.O_CREATE, 0)) },
		OpOpen:     func() error { return second(f.OpenFile("d/f", os.O_RDWR|os.O_CREATE, 0)) },
		OpRead:     func() error { return second(h.ReadAt(buf, 2)) },
		OpWrite:    func() error { return errors.Join(second(h.WriteAt(buf, 0)), second(h.WritevAt([][]byte{buf}, 0))) },
		OpTruncate: func() error { return h.Truncate(1) },
		OpAllocate: func() error { return h.Allocate(100) },
		OpSync:     h.Sync,
		OpSyncAll:  h.SyncAll,
		OpRename:   func() error { return f.Rename("d/f", "d/g") },
		OpRemove:   func() error { return f.Remove("d/f") },
		OpMkdir:    func() error { return f.MkdirAll("e", 0) },
		OpSyncDir:  func() error { return f.SyncDir("d") },
		OpReadDir:  func() error { return second(f.ReadDir("d")) },
		OpStat:     func() error { return second(f.Stat("d/f")) },
		OpSize:     func() error { return second(h.Size()) },
		OpLock:     func() error { return second(f.Lock("d/L")) },
		OpSpace:    func() error { _, _, err := f.Space("d"); return err },
		OpClose:    func() error { return h.Close() },
	}
	before, err := tree(m, "")
	must(t, err)
	for kind := range opNames {
		if kind == OpClose {
			continue
		}
		fail = kind
		if err := calls[kind](); !errors.Is(err, broken) || last.Kind != kind || last.N != f.Calls() {
			t.Errorf("%v: %v, last op %v of %d", kind, err, last, f.Calls())
		}
	}
	after, err := tree(m, "")
	must(t, err)
	if before != after {
		t.Errorf("failed calls changed\n%s\nto\n%s", before, after)
	}
	fail = OpClose
	wantErr(t, calls[OpClose](), broken)
	fail = 0
	wantErr(t, h.Close(), os.ErrClosed) // it did close
}

func TestFaultShortCalls(t *testing.T) {
	m := NewMem()
	var short int
	var kind OpKind
	f := NewFault(m, func(op Op) Decision {
		if op.Kind == kind {
			return Decision{Err: syscall.ENOSPC, Short: short}
		}
		return Decision{}
	})
	h := create(t, f, "f")
	writeAt(t, h, "..........", 0)
	kind = OpWrite
	for _, c := range []struct {
		short, n int
		want     string
	}{{-1, 0, ".........."}, {0, 0, ".........."}, {3, 3, "abc......."}, {99, 6, "abcdef...."}} {
		short = c.short
		if n, err := h.WritevAt([][]byte{[]byte("ab"), []byte("cdef")}, 0); n != c.n || !IsNoSpace(err) {
			t.Fatalf("short %d: wrote %d, %v", c.short, n, err)
		}
		wantContents(t, m, "f", c.want)
		if n, err := h.WriteAt([]byte("abcdef"), 0); n != c.n || !IsNoSpace(err) {
			t.Fatalf("short %d: wrote %d, %v", c.short, n, err)
		}
	}
	kind, short = OpRead, 2
	b := make([]byte, 6)
	if n, err := h.ReadAt(b, 0); n != 2 || string(b[:2]) != "ab" || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("read %d, %v", n, err)
	}
}

// TestFailedSyncMayLoseForGood shows what happens to those who sync again: the
// bytes are read back, the second sync succeeds, and the crash shows the truth.
func TestFailedSyncMayLoseForGood(t *testing.T) {
	m := NewMem()
	bad := true
	f := NewFault(m, func(op Op) Decision {
		if op.Kind == OpSync && bad {
			return Decision{Err: syscall.EIO, Lose: true}
		}
		return Decision{}
	})
	bad = false
	h := create(t, f, "f")
	writeAt(t, h, strings.Repeat("a", 5000), 0)
	must(t, h.Sync())
	must(t, f.SyncDir("."))
	bad = true
	writeAt(t, h, strings.Repeat("b", 6000), 0)
	wantErr(t, h.Sync(), syscall.EIO)
	bad = false
	must(t, h.Sync())
	wantContents(t, f, "f", strings.Repeat("b", 6000))
	for _, mode := range CrashModes {
		wantContents(t, m.Clone(mode, 1), "f", strings.Repeat("a", 5000)+strings.Repeat("\x00", 1000))
	}
	writeAt(t, h, "c", 0) // takes its whole page along
	must(t, h.Sync())
	wantContents(t, m.Clone(CrashNone, 0), "f", "c"+strings.Repeat("b", 4095)+strings.Repeat("a", 904)+strings.Repeat("\x00", 1000))
}

func TestMemFromManyGoroutines(t *testing.T) {
	m := NewMem()
	must(t, m.MkdirAll("d", 0o755))
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			name := "d/" + string(rune('a'+g))
			h := create(t, m, name)
			b := []byte(strings.Repeat(name, 1000))
			for i := range 50 {
				if _, err := h.WriteAt(b, int64(i)*100); err != nil {
					t.Error(err)
				}
				if err := errors.Join(h.Sync(), m.SyncDir("d")); err != nil {
					t.Error(err)
				}
				got := make([]byte, len(b))
				if _, err := h.ReadAt(got, int64(i)*100); err != nil && err != io.EOF || string(got) != string(b) {
					t.Error("read back something else", err)
				}
				m.Clone(CrashRandom, uint64(i))
			}
		})
	}
	wg.Wait()
}

func BenchmarkMem(b *testing.B) {
	setup := func(b *testing.B) (*Mem, File) {
		m := NewMem()
		h := create(b, m, "f")
		if err := errors.Join(h.Allocate(1<<20), h.Sync(), m.SyncDir(".")); err != nil {
			b.Fatal(err)
		}
		return m, h
	}
	b.Run("op=write/size=512B", func(b *testing.B) {
		_, h := setup(b)
		p := make([]byte, 512)
		for i := 0; b.Loop(); i++ {
			if _, err := h.WriteAt(p, int64(i%2048)*512); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("op=write+sync/size=512B", func(b *testing.B) {
		_, h := setup(b)
		p := make([]byte, 512)
		for i := 0; b.Loop(); i++ {
			if _, err := h.WriteAt(p, int64(i%2048)*512); err != nil {
				b.Fatal(err)
			}
			if err := h.Sync(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("op=clone/size=1MiB", func(b *testing.B) {
		m, _ := setup(b)
		for b.Loop() {
			m.Clone(CrashRandom, 1)
		}
	})
}
