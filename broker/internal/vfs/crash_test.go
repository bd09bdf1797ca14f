package vfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// eachCrash runs check on clones in every mode, with many seeds where they
// matter.
func eachCrash(t *testing.T, m *Mem, check func(t *testing.T, mode CrashMode, after *Mem)) {
	t.Helper()
	for _, mode := range CrashModes {
		seeds := 1
		if mode == CrashRandom {
			seeds = 200
		}
		for seed := range seeds {
			check(t, mode, m.Clone(mode, uint64(seed)))
			if t.Failed() {
				t.Fatalf("mode %v, seed %d", mode, seed)
			}
		}
	}
}

// durableFile makes a file whose bytes and name are durable.
func durableFile(t testing.TB, m *Mem, name, data string) File {
	t.Helper()
	f := create(t, m, name)
	writeAt(t, f, data, 0)
	must(t, f.Sync())
	must(t, m.SyncDir("."))
	return f
}

func TestSyncedDataSurvives(t *testing.T) {
	m := NewMem()
	f := durableFile(t, m, "f", strings.Repeat("old ", 2000))
	eachCrash(t, m, func(t *testing.T, mode CrashMode, after *Mem) {
		wantContents(t, after, "f", strings.Repeat("old ", 2000))
	})
	writeAt(t, f, "new", 0)
	eachCrash(t, m, func(t *testing.T, mode CrashMode, after *Mem) {
		b, err := contents(after, "f")
		if err != nil || len(b) != 8000 || string(b[3:]) != strings.Repeat("old ", 2000)[3:] {
			t.Errorf("other bytes changed: %d bytes, %v", len(b), err)
		}
		want := map[CrashMode][]string{CrashNone: {"old"}, CrashAll: {"new"}, CrashRandom: {"old", "new"}}[mode]
		if !slices.Contains(want, string(b[:3])) {
			t.Errorf("starts with %q, want one of %q", b[:3], want)
		}
	})
}

// TestRandomCrashMeetsEveryState holds the random mode to its purpose: with
// enough seeds every kind of damage that it promises appears, and none other.
func TestRandomCrashMeetsEveryState(t *testing.T) {
	m := NewMem()
	fill := func(c byte, n int) string { return string(bytes.Repeat([]byte{c}, n)) }
	f := durableFile(t, m, "f", fill('0', 8*SectorBytes))
	writeAt(t, f, fill('1', 8*SectorBytes), 0)
	writeAt(t, f, fill('2', 12*SectorBytes), 0)

	sizes, rows := map[int]bool{}, map[string]bool{}
	for seed := range 2000 {
		b, err := contents(m.Clone(CrashRandom, uint64(seed)), "f")
		must(t, err)
		sizes[len(b)] = true
		var row []byte
		for s := 0; s+SectorBytes <= len(b); s += SectorBytes {
			sector := b[s : s+SectorBytes]
			if bytes.Count(sector, sector[:1]) != SectorBytes {
				t.Fatalf("seed %d: sector %d is torn", seed, s/SectorBytes)
			}
			row = append(row, max(sector[0], '.'))
		}
		rows[string(row)] = true
	}
	if !sizes[8*SectorBytes] || !sizes[12*SectorBytes] || len(sizes) < 20 {
		t.Errorf("%d sizes seen", len(sizes))
	}
	for _, want := range []string{"00000000", "22222222", "222222222222", "00000000....", "22200000....", "22222222...."} {
		if !rows[want] {
			t.Errorf("never left %q", want)
		}
	}
	if len(rows) < 300 {
		t.Errorf("only %d different results", len(rows))
	}
	mixed := false
	for r := range rows {
		mixed = mixed || len(r) >= 8 && strings.Contains(r[:8], "0") && strings.Contains(r[:8], "1") && strings.Contains(r[:8], "2")
		if strings.ContainsAny(r[:min(8, len(r))], ".") {
			t.Errorf("%q: a sector that was durable is empty", r)
		}
	}
	if !mixed {
		t.Error("never left old, middle and new sectors side by side")
	}
}

func TestClonesWithOneSeedAreEqual(t *testing.T) {
	m := NewMem()
	for i := range 20 {
		f := create(t, m, fmt.Sprint("f", i))
		writeAt(t, f, strings.Repeat("x", 1000*i), 0)
	}
	a, err := tree(m.Clone(CrashRandom, 7), "")
	must(t, err)
	b, err := tree(m.Clone(CrashRandom, 7), "")
	must(t, err)
	c, err := tree(m.Clone(CrashRandom, 8), "")
	must(t, err)
	if a != b || a == c {
		t.Fatalf("same seed equal: %v; other seed equal: %v", a == b, a == c)
	}
}

func TestTruncateIsDurableAfterSync(t *testing.T) {
	m := NewMem()
	f := durableFile(t, m, "f", strings.Repeat("0", 10_000))
	must(t, f.Truncate(100))
	wantContents(t, m.Clone(CrashNone, 0), "f", strings.Repeat("0", 10_000))
	wantContents(t, m.Clone(CrashAll, 0), "f", strings.Repeat("0", 100))
	sizes := map[int]bool{}
	for seed := range 300 {
		b, err := contents(m.Clone(CrashRandom, uint64(seed)), "f")
		must(t, err)
		sizes[len(b)] = true
	}
	if !sizes[100] || !sizes[10_000] || len(sizes) < 10 {
		t.Errorf("sizes %v", sizes)
	}
	must(t, f.Sync())
	must(t, f.Truncate(200)) // the cut bytes must not come back
	must(t, f.Sync())
	eachCrash(t, m, func(t *testing.T, _ CrashMode, after *Mem) {
		wantContents(t, after, "f", strings.Repeat("0", 100)+strings.Repeat("\x00", 100))
	})
}

func TestAllocatedSpaceIsZeros(t *testing.T) {
	m := NewMem()
	f := durableFile(t, m, "f", "abc")
	must(t, f.Allocate(8192))
	must(t, f.Sync())
	writeAt(t, f, "xyz", 4096)
	wantContents(t, m.Clone(CrashNone, 0), "f", "abc"+strings.Repeat("\x00", 8189))
	must(t, f.Sync())
	eachCrash(t, m, func(t *testing.T, _ CrashMode, after *Mem) {
		wantContents(t, after, "f", "abc"+strings.Repeat("\x00", 4093)+"xyz"+strings.Repeat("\x00", 4093))
	})
}

// outcomes counts what stat says of the names, "+" there and "-" missing, over
// the crashes of a mode.
func outcomes(m *Mem, mode CrashMode, names ...string) map[string]int {
	seen := map[string]int{}
	for seed := range 300 {
		after := m.Clone(mode, uint64(seed))
		s := ""
		for _, n := range names {
			if _, err := after.Stat(n); err == nil {
				s += "+"
			} else {
				s += "-"
			}
		}
		seen[s]++
		if mode != CrashRandom {
			break
		}
	}
	return seen
}

func wantOutcomes(t *testing.T, m *Mem, mode CrashMode, names, want string) {
	t.Helper()
	seen := outcomes(m, mode, strings.Fields(names)...)
	got := strings.Join(slices.Sorted(maps.Keys(seen)), " ")
	if got != want {
		t.Fatalf("%v: %s are %q, want %q", mode, names, got, want)
	}
}

func TestNamesAreDurableAfterSyncDir(t *testing.T) {
	m := NewMem()
	must(t, m.MkdirAll("d", 0o755))
	must(t, m.SyncDir("."))
	f := create(t, m, "d/f")
	writeAt(t, f, "synced", 0)
	must(t, f.SyncAll())
	must(t, m.SyncDir(".")) // of the parent: not enough
	wantOutcomes(t, m, CrashNone, "d d/f", "+-")
	wantOutcomes(t, m, CrashAll, "d d/f", "++")
	wantOutcomes(t, m, CrashRandom, "d d/f", "++ +-")
	must(t, m.SyncDir("d"))
	wantOutcomes(t, m, CrashRandom, "d d/f", "++")
	wantContents(t, m.Clone(CrashNone, 0), "d/f", "synced")

	must(t, m.Remove("d/f"))
	wantOutcomes(t, m, CrashNone, "d/f", "+")
	wantOutcomes(t, m, CrashRandom, "d/f", "+ -")
	must(t, m.SyncDir("d"))
	wantOutcomes(t, m, CrashRandom, "d/f", "-")
}

func TestDirectoryWithoutDurableNameIsLostWhole(t *testing.T) {
	m := NewMem()
	must(t, m.MkdirAll("a/b", 0o755))
	durableFileIn := create(t, m, "a/b/f")
	must(t, durableFileIn.SyncAll())
	must(t, m.SyncDir("a/b"))
	must(t, m.SyncDir("a"))
	wantOutcomes(t, m, CrashNone, "a a/b a/b/f", "---")
	wantOutcomes(t, m, CrashRandom, "a a/b a/b/f", "+++ ---")
	must(t, m.SyncDir("."))
	wantOutcomes(t, m, CrashNone, "a a/b a/b/f", "+++")
}

func TestRenameIsAtomic(t *testing.T) {
	m := NewMem()
	durableFile(t, m, "name", "old")
	tmp := durableFile(t, m, "tmp", "new")
	must(t, tmp.Close())
	must(t, m.Rename("tmp", "name"))
	wantOutcomes(t, m, CrashRandom, "name tmp", "++ +-")
	eachCrash(t, m, func(t *testing.T, _ CrashMode, after *Mem) {
		_, err := after.Stat("tmp")
		if errors.Is(err, fs.ErrNotExist) {
			wantContents(t, after, "name", "new")
		} else {
			wantContents(t, after, "name", "old")
			wantContents(t, after, "tmp", "new")
		}
	})
	must(t, m.SyncDir("."))
	wantOutcomes(t, m, CrashRandom, "name tmp", "+-")
	wantContents(t, m.Clone(CrashNone, 0), "name", "new")
}

func TestRenameOfUnsyncedDataMayLoseIt(t *testing.T) {
	m := NewMem()
	durableFile(t, m, "name", "old")
	writeAt(t, create(t, m, "tmp"), "new", 0) // nobody syncs it
	must(t, m.Rename("tmp", "name"))
	must(t, m.SyncDir("."))
	wantContents(t, m.Clone(CrashNone, 0), "name", "")
}

func TestRenameBetweenDirectoriesNeedsTheTargetsSync(t *testing.T) {
	m := NewMem()
	must(t, m.MkdirAll("from", 0o755))
	must(t, m.MkdirAll("to", 0o755))
	must(t, m.SyncDir("."))
	must(t, create(t, m, "from/f").Sync())
	must(t, m.SyncDir("from"))
	must(t, m.Rename("from/f", "to/f"))
	must(t, m.SyncDir("from"))
	wantOutcomes(t, m, CrashNone, "from/f to/f", "+-")
	wantOutcomes(t, m, CrashRandom, "from/f to/f", "+- -+")
	must(t, m.SyncDir("to"))
	wantOutcomes(t, m, CrashNone, "from/f to/f", "-+")
	wantOutcomes(t, m, CrashRandom, "from/f to/f", "-+")
}

func TestEarlierChangesOfANameComeWithLaterOnes(t *testing.T) {
	m := NewMem()
	must(t, m.MkdirAll("d", 0o755))
	must(t, m.SyncDir("."))
	create(t, m, "a")
	must(t, m.Rename("a", "d/b"))
	must(t, m.Rename("d/b", "d/c"))
	create(t, m, "other")
	wantOutcomes(t, m, CrashRandom, "a d/b d/c", "+-- -+- --+ ---")
	must(t, m.SyncDir("d"))
	wantOutcomes(t, m, CrashRandom, "a d/b d/c", "--+")
	wantOutcomes(t, m, CrashRandom, "other", "+ -") // not part of it
}

func TestIndependentRemovalsMaySurviveInAnyOrder(t *testing.T) {
	m := NewMem()
	durableFile(t, m, "a", "")
	durableFile(t, m, "b", "")
	must(t, m.Remove("a"))
	must(t, m.Remove("b"))
	wantOutcomes(t, m, CrashRandom, "a b", "++ +- -+ --")
}

func TestClonesAreIndependent(t *testing.T) {
	m := NewMem()
	f := durableFile(t, m, "f", strings.Repeat("a", 9000))
	writeAt(t, f, "b", 0)
	c := m.Clone(CrashAll, 0)
	d := m.Clone(CrashNone, 0)
	writeAt(t, f, "ccc", 4095)
	must(t, f.Truncate(8000))
	writeAt(t, create(t, c, "f"), "d", 1)
	must(t, d.Remove("f"))
	wantContents(t, m, "f", "b"+strings.Repeat("a", 4094)+"ccc"+strings.Repeat("a", 8000-4098))
	wantContents(t, c, "f", "bd"+strings.Repeat("a", 8998))
	wantContents(t, d.Clone(CrashNone, 0), "f", strings.Repeat("a", 9000))
	// Writing again and again, over pages that were shared when the clone was
	// made, touches neither side's.
	page := strings.Repeat("-", pageBytes-1)
	g := create(t, m, "g")
	writeAt(t, g, "1"+page, 0)
	writeAt(t, g, "2", 0)
	shared := m.Clone(CrashAll, 0)
	h := create(t, shared, "g")
	for i := range 5 {
		writeAt(t, g, string(rune('a'+i)), 0)
		writeAt(t, h, string(rune('A'+i)), 0)
		wantContents(t, m, "g", string(rune('a'+i))+page)
		wantContents(t, shared, "g", string(rune('A'+i))+page)
	}
	wantContents(t, m.Clone(CrashAll, 0), "g", "e"+page)
	wantContents(t, shared.Clone(CrashNone, 0), "g", "2"+page)

	// What a clone shows is durable in it, whatever it was before.
	wantContents(t, c.Clone(CrashNone, 0), "f", "b"+strings.Repeat("a", 8999))
}

func TestHookSeesEveryBoundary(t *testing.T) {
	m := NewMem()
	var seen []string
	m.OnOp(func(op Op) error {
		m.Clone(CrashRandom, uint64(op.N)) // allowed: no lock is held
		seen = append(seen, op.String())
		return nil
	})
	must(t, m.MkdirAll("a/b", 0o755))
	must(t, m.MkdirAll("a/b", 0o755)) // makes nothing
	f := create(t, m, "a/f")
	create(t, m, "a/f") // is there
	_, err := f.WritevAt([][]byte{{1}, {2, 3}}, 5)
	must(t, err)
	must(t, f.Truncate(1))
	must(t, f.Allocate(10))
	must(t, f.Sync())
	must(t, f.SyncAll())
	must(t, m.Rename("a/f", "a/g"))
	_, err = m.OpenFile("a/g", os.O_RDWR|os.O_TRUNC, 0)
	must(t, err)
	must(t, m.SyncDir("a"))
	must(t, m.Remove("a/g"))
	_, err = m.Lock("L")
	must(t, err)
	wantErr(t, m.Remove("a/g"), fs.ErrNotExist) // fails before
	want := []string{
		"#1 mkdir a", "#2 mkdir a/b", "#3 create a/f", "#4 write a/f [5, 8)", "#5 truncate a/f to 1",
		"#6 allocate a/f to 10", "#7 sync a/f", "#8 syncall a/f", "#9 rename a/f to a/g",
		"#10 truncate a/g to 0", "#11 syncdir a", "#12 remove a/g", "#13 create L",
	}
	if !slices.Equal(seen, want) || m.Ops() != int64(len(want)) {
		t.Fatalf("%d ops:\n%s\nwant\n%s", m.Ops(), strings.Join(seen, "\n"), strings.Join(want, "\n"))
	}

	// A hook that refuses leaves everything as it was.
	before, err := tree(m, "")
	must(t, err)
	stop := errors.New("power is off")
	m.OnOp(func(Op) error { return stop })
	for what, err := range map[string]error{
		"mkdir": m.MkdirAll("x", 0o755), "rename": m.Rename("a", "y"), "remove": m.Remove("L"),
		"truncate": f.Truncate(0), "sync": f.Sync(), "allocate": f.Allocate(1 << 20),
		"syncdir": m.SyncDir("a"), "create": second(m.OpenFile("new", os.O_RDWR|os.O_CREATE, 0)),
		"write": second(f.WriteAt([]byte("x"), 0)), "lock": second(m.Lock("L2")),
	} {
		if !errors.Is(err, stop) {
			t.Errorf("%s: %v", what, err)
		}
	}
	after, err := tree(m, "")
	must(t, err)
	if before != after {
		t.Fatalf("%s\nbecame\n%s", before, after)
	}
}

func second[T any](_ T, err error) error { return err }

func TestCapacity(t *testing.T) {
	m := NewMem()
	m.SetCapacity(3 * pageBytes)
	f := create(t, m, "f")
	n, err := f.WriteAt(make([]byte, 5*pageBytes), 100)
	if n != 3*pageBytes-100 || !IsNoSpace(err) {
		t.Fatalf("wrote %d, %v", n, err)
	}
	if size, _ := f.Size(); size != 3*pageBytes {
		t.Fatalf("size %d", size)
	}
	if free, total, _ := m.Space("."); free != 0 || total != 3*pageBytes {
		t.Fatalf("free %d of %d", free, total)
	}
	writeAt(t, f, "overwriting needs no space", 0)
	g := create(t, m, "g")
	if err := g.Allocate(1); !IsNoSpace(err) {
		t.Fatal(err)
	}
	if n, err := g.WritevAt([][]byte{{1}, {2}}, 0); n != 0 || !IsNoSpace(err) {
		t.Fatal(n, err)
	}
	must(t, f.Truncate(pageBytes))
	must(t, g.Allocate(2*pageBytes))
	must(t, g.Allocate(2*pageBytes)) // is allocated
	must(t, m.Remove("f"))
	if free, _, _ := m.Space("."); free != 0 {
		t.Fatalf("%d free while a handle is open", free)
	}
	must(t, f.Close())
	if free, _, _ := m.Space("."); free != pageBytes {
		t.Fatalf("%d free", free)
	}
	must(t, g.Sync())
	must(t, m.SyncDir("."))
	c := m.Clone(CrashNone, 0)
	if free, _, _ := c.Space("."); free != pageBytes {
		t.Fatalf("%d free in the clone", free)
	}
	must(t, c.Remove("g"))
	if free, _, _ := c.Space("."); free != 3*pageBytes {
		t.Fatalf("%d free in the clone without files", free)
	}
}

// TestSectorsAgainstAModel checks crashes of one file against a model that
// keeps, for each sector, every version since the last sync.
func TestSectorsAgainstAModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		const sectors = 3 * pageSectors
		m := NewMem()
		f := create(t, m, "f")
		must(t, m.SyncDir("."))
		now := make([]byte, sectors*SectorBytes)
		versions := make([]map[string]bool, sectors) // since the last sync, and the one before
		sizes := map[int64]bool{0: true}             // likewise
		size := int64(0)
		note := func() {
			for s := range versions {
				versions[s][string(now[s*SectorBytes:(s+1)*SectorBytes])] = true
			}
			sizes[size] = true
		}
		settle := func() {
			clear(sizes)
			for s := range versions {
				versions[s] = map[string]bool{}
			}
			note()
		}
		settle()
		check := func() {
			mode := rapid.SampledFrom(CrashModes).Draw(rt, "mode")
			after := m.Clone(mode, rapid.Uint64().Draw(rt, "seed"))
			b, err := contents(after, "f")
			must(t, err)
			lo, hi := slices.Min(slices.Collect(maps.Keys(sizes))), slices.Max(slices.Collect(maps.Keys(sizes)))
			if n := int64(len(b)); n < lo || n > hi {
				rt.Fatalf("size %d is not in [%d, %d]", n, lo, hi)
			}
			if mode == CrashAll && !bytes.Equal(b, now[:size]) {
				rt.Fatal("not all is there")
			}
			for s := 0; s*SectorBytes < len(b); s++ {
				part := b[s*SectorBytes : min((s+1)*SectorBytes, len(b))]
				ok := false
				for v := range versions[s] {
					ok = ok || v[:len(part)] == string(part)
				}
				if !ok {
					rt.Fatalf("sector %d is %.20q, never written", s, part)
				}
			}
			// Beyond the end there is nothing that growing would show.
			must(t, create(t, after, "f").Truncate(int64(len(now))))
			grown, err := contents(after, "f")
			must(t, err)
			if len(bytes.TrimRight(grown[len(b):], "\x00")) > 0 {
				rt.Fatalf("bytes beyond the end at %d came back", len(b))
			}
		}
		serial := byte(0)
		for range rapid.IntRange(1, 40).Draw(rt, "ops") {
			switch rapid.IntRange(0, 5).Draw(rt, "kind") {
			case 0, 1, 2:
				off := rapid.IntRange(0, len(now)-1).Draw(rt, "off")
				n := rapid.IntRange(1, min(6000, len(now)-off)).Draw(rt, "len")
				serial++
				data := bytes.Repeat([]byte{serial}, n)
				writeAt(t, f, string(data), int64(off))
				copy(now[off:], data)
				size = max(size, int64(off+n))
				note()
			case 3:
				size = rapid.Int64Range(0, int64(len(now))).Draw(rt, "size")
				must(t, f.Truncate(size))
				clear(now[size:])
				note()
			case 4:
				must(t, f.Sync())
				settle()
			case 5:
				check()
			}
		}
		check()
	})
}

// TestNamesAgainstAModel makes random changes of names of files that never
// meet, and checks after a crash that every file has one of the names it had
// since its directory was last synced, once.
func TestNamesAgainstAModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := NewMem()
		dirs := []string{"d0", "d1", "d2"}
		for _, d := range dirs {
			must(t, m.MkdirAll(d, 0o755))
		}
		must(t, m.SyncDir("."))
		type file struct {
			name     string   // "" when removed
			possible []string // names since the last SyncDir that settles it
		}
		var files []*file
		dirOf := func(name string) string { return strings.Split(name, "/")[0] }
		for range rapid.IntRange(1, 40).Draw(rt, "ops") {
			kind := rapid.IntRange(0, 4).Draw(rt, "kind")
			if len(files) == 0 {
				kind = 0
			}
			dir := rapid.SampledFrom(dirs).Draw(rt, "dir")
			switch kind {
			case 0: // a file of its own name, whose content is its number
				f := &file{name: fmt.Sprintf("%s/%d", dir, len(files)), possible: []string{""}}
				h := create(t, m, f.name)
				writeAt(t, h, fmt.Sprint(len(files)), 0)
				must(t, h.Sync())
				f.possible = append(f.possible, f.name)
				files = append(files, f)
			case 1, 2:
				i := rapid.IntRange(0, len(files)-1).Draw(rt, "file")
				if f := files[i]; f.name != "" {
					to := fmt.Sprintf("%s/%d.%d", dir, i, len(f.possible))
					must(t, m.Rename(f.name, to))
					f.name = to
					f.possible = append(f.possible, to)
				}
			case 3:
				i := rapid.IntRange(0, len(files)-1).Draw(rt, "file")
				if f := files[i]; f.name != "" {
					must(t, m.Remove(f.name))
					f.name = ""
					f.possible = append(f.possible, "")
				}
			case 4:
				must(t, m.SyncDir(dir))
				for _, f := range files {
					// The last change into this directory settles all before
					// it; a removal is a change of the directory it was in.
					for k := len(f.possible) - 1; k > 0; k-- {
						in := dirOf(f.possible[k])
						if f.possible[k] == "" {
							in = dirOf(f.possible[k-1])
						}
						if in == dir {
							f.possible = f.possible[k:]
							break
						}
					}
				}
			}
		}
		mode := rapid.SampledFrom(CrashModes).Draw(rt, "mode")
		after := m.Clone(mode, rapid.Uint64().Draw(rt, "seed"))
		found := map[string]string{}
		for _, d := range dirs {
			names, err := after.ReadDir(d)
			must(t, err)
			for _, n := range names {
				b, err := contents(after, d+"/"+n)
				must(t, err)
				if was, ok := found[string(b)]; ok {
					rt.Fatalf("file %s is %s and %s", b, was, d+"/"+n)
				}
				found[string(b)] = d + "/" + n
			}
		}
		for i, f := range files {
			got := found[fmt.Sprint(i)]
			want := f.possible
			switch mode {
			case CrashNone:
				want = want[:1]
			case CrashAll:
				want = want[len(want)-1:]
			}
			if !slices.Contains(want, got) {
				rt.Fatalf("%v: file %d is at %q, want one of %q", mode, i, got, want)
			}
		}
	})
}
