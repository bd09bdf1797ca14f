package vfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"pgregory.net/rapid"
)

// onEach runs a test on the real file system and on Mem.
func onEach(t *testing.T, test func(t *testing.T, fsys FS, dir string)) {
	t.Run("fs=os", func(t *testing.T) { test(t, OS(), t.TempDir()) })
	t.Run("fs=mem", func(t *testing.T) {
		m := NewMem()
		must(t, m.MkdirAll("/base", 0o755))
		test(t, m, "/base")
	})
	t.Run("fs=fault", func(t *testing.T) {
		m := NewMem()
		must(t, m.MkdirAll("/base", 0o755))
		test(t, NewFault(m, func(Op) Decision { return Decision{} }), "/base")
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func create(t testing.TB, fsys FS, name string) File {
	t.Helper()
	f, err := fsys.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	must(t, err)
	return f
}

func writeAt(t testing.TB, f File, s string, off int64) {
	t.Helper()
	if n, err := f.WriteAt([]byte(s), off); err != nil || n != len(s) {
		t.Fatalf("WriteAt(%d bytes, %d) = %d, %v", len(s), off, n, err)
	}
}

// contents returns a file's bytes.
func contents(fsys FS, name string) ([]byte, error) {
	f, err := fsys.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); err != nil && !(err == io.EOF && n == len(b)) {
		return nil, err
	}
	return b, nil
}

func wantContents(t testing.TB, fsys FS, name, want string) {
	t.Helper()
	b, err := contents(fsys, name)
	if err != nil || string(b) != want {
		t.Fatalf("%s holds %.80q, %v; want %.80q", name, b, err, want)
	}
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}

func TestFileReadsBackWhatWasWritten(t *testing.T) {
	onEach(t, func(t *testing.T, fsys FS, dir string) {
		name := filepath.Join(dir, "f")
		f := create(t, fsys, name)
		defer f.Close()
		writeAt(t, f, "hello", 10)
		writeAt(t, f, "J", 10)
		wantContents(t, fsys, name, "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00Jello")

		b := make([]byte, 8)
		if n, err := f.ReadAt(b, 12); n != 3 || err != io.EOF || string(b[:3]) != "llo" {
			t.Fatalf("read over the end: %d %v %q", n, err, b[:n])
		}
		if n, err := f.ReadAt(b, 15); n != 0 || err != io.EOF {
			t.Fatalf("read at the end: %d %v", n, err)
		}
		if _, err := f.ReadAt(b, -1); err == nil || err == io.EOF {
			t.Fatalf("read at -1: %v", err)
		}
		if _, err := f.WriteAt(b, -1); err == nil {
			t.Fatal("write at -1 succeeded")
		}
		must(t, f.Truncate(12))
		must(t, f.Truncate(14))
		wantContents(t, fsys, name, "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00Je\x00\x00")
		must(t, f.Sync())
		must(t, f.SyncAll())
		if size, err := fsys.Stat(name); size != 14 || err != nil {
			t.Fatalf("Stat: %d, %v", size, err)
		}
	})
}

func TestWritevAtIsOneLongWrite(t *testing.T) {
	onEach(t, func(t *testing.T, fsys FS, dir string) {
		name := filepath.Join(dir, "f")
		f := create(t, fsys, name)
		defer f.Close()
		// More buffers than one system call takes, empty ones among them.
		var bufs [][]byte
		var want []byte
		for i := range 2500 {
			b := bytes.Repeat([]byte{byte(i)}, i%7)
			bufs = append(bufs, b)
			want = append(want, b...)
		}
		before := slices.Clone(bufs)
		n, err := f.WritevAt(bufs, 3)
		if n != len(want) || err != nil {
			t.Fatalf("WritevAt = %d, %v; want %d", n, err, len(want))
		}
		for i := range bufs {
			if len(bufs[i]) != len(before[i]) {
				t.Fatalf("buffer %d was changed", i)
			}
		}
		wantContents(t, fsys, name, "\x00\x00\x00"+string(want))
		for _, none := range [][][]byte{nil, {}, {{}}, {{}, {}}} {
			if n, err := f.WritevAt(none, 0); n != 0 || err != nil {
				t.Fatalf("WritevAt of nothing = %d, %v", n, err)
			}
		}
		if _, err := f.WritevAt([][]byte{{1}}, -1); err == nil {
			t.Fatal("write at -1 succeeded")
		}
	})
}

func TestAllocateKeepsBytesAndExtends(t *testing.T) {
	onEach(t, func(t *testing.T, fsys FS, dir string) {
		name := filepath.Join(dir, "f")
		f := create(t, fsys, name)
		defer f.Close()
		writeAt(t, f, "abc", 0)
		must(t, f.Allocate(10_000))
		must(t, f.Allocate(5_000))
		must(t, f.Allocate(0))
		wantContents(t, fsys, name, "abc"+string(make([]byte, 9_997)))
	})
}

func TestHandlesOutliveNames(t *testing.T) {
	onEach(t, func(t *testing.T, fsys FS, dir string) {
		a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
		fa, fb := create(t, fsys, a), create(t, fsys, b)
		writeAt(t, fa, "from a", 0)
		writeAt(t, fb, "from b", 0)
		must(t, fsys.Rename(a, b))
		wantContents(t, fsys, b, "from a")
		must(t, fsys.Remove(b))
		writeAt(t, fa, "FROM", 0)
		for f, want := range map[File]string{fa: "FROM a", fb: "from b"} {
			got := make([]byte, 6)
			if _, err := f.ReadAt(got, 0); err != nil || string(got) != want {
				t.Fatalf("%q, %v; want %q", got, err, want)
			}
			must(t, f.Close())
		}
		_, err := fsys.Stat(b)
		wantErr(t, err, fs.ErrNotExist)
	})
}

func TestErrors(t *testing.T) {
	onEach(t, func(t *testing.T, fsys FS, dir string) {
		name, sub := filepath.Join(dir, "f"), filepath.Join(dir, "sub")
		_, err := fsys.OpenFile(name, os.O_RDWR, 0)
		wantErr(t, err, fs.ErrNotExist)
		_, err = fsys.OpenFile(filepath.Join(dir, "no", "f"), os.O_RDWR|os.O_CREATE, 0o644)
		wantErr(t, err, fs.ErrNotExist)
		f := create(t, fsys, name)
		_, err = fsys.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
		wantErr(t, err, fs.ErrExist)
		_, err = fsys.OpenFile(name, os.O_RDWR|os.O_APPEND, 0o644)
		wantErr(t, err, errAppend)
		must(t, fsys.MkdirAll(filepath.Join(sub, "deep"), 0o755))
		must(t, fsys.MkdirAll(sub, 0o755))
		wantErr(t, fsys.Remove(sub), fs.ErrExist) // not empty
		wantErr(t, fsys.Rename(name, sub), fs.ErrExist)
		wantErr(t, fsys.MkdirAll(filepath.Join(name, "x"), 0o755), errNotDir)
		wantErr(t, fsys.Rename(sub, filepath.Join(sub, "deep", "x")), syscall.EINVAL)
		wantErr(t, fsys.SyncDir(name), errNotDir)
		wantErr(t, fsys.SyncDir(filepath.Join(dir, "no")), fs.ErrNotExist)
		must(t, fsys.SyncDir(dir))
		for _, flag := range []int{os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_CREATE} {
			_, err = fsys.OpenFile(sub, flag, 0o644)
			wantErr(t, err, errIsDir)
		}
		if _, err := fsys.ReadDir(name); err == nil {
			t.Fatal("ReadDir of a file succeeded")
		}
		names, err := fsys.ReadDir(dir)
		if err != nil || !slices.Equal(names, []string{"f", "sub"}) {
			t.Fatalf("ReadDir: %q, %v", names, err)
		}

		ro, err := fsys.OpenFile(name, os.O_RDONLY, 0)
		must(t, err)
		_, err = ro.WriteAt([]byte("x"), 0)
		wantErr(t, err, errBadFile)
		_, err = ro.WritevAt([][]byte{{1}}, 0)
		wantErr(t, err, errBadFile)
		must(t, ro.Close())
		must(t, f.Close())
		for what, err := range map[string]error{
			"close": f.Close(), "sync": f.Sync(), "syncall": f.SyncAll(),
			"truncate": f.Truncate(0), "allocate": f.Allocate(1),
		} {
			if !errors.Is(err, fs.ErrClosed) {
				t.Fatalf("%s after Close: %v", what, err)
			}
		}
		_, err = f.WritevAt([][]byte{{1}}, 0)
		wantErr(t, err, fs.ErrClosed)
		_, err = f.ReadAt(make([]byte, 1), 0)
		wantErr(t, err, fs.ErrClosed)
		_, err = f.Size()
		wantErr(t, err, fs.ErrClosed)
	})
}

func TestLockHasOneHolder(t *testing.T) {
	onEach(t, func(t *testing.T, fsys FS, dir string) {
		name := filepath.Join(dir, "LOCK")
		l, err := fsys.Lock(name)
		must(t, err)
		_, err = fsys.Lock(name)
		wantErr(t, err, ErrLocked)
		must(t, l.Close())
		l, err = fsys.Lock(name)
		must(t, err)
		must(t, l.Close())
		if _, err := fsys.Stat(name); err != nil {
			t.Fatal(err)
		}
	})
}

func TestSpace(t *testing.T) {
	onEach(t, func(t *testing.T, fsys FS, dir string) {
		free, total, err := fsys.Space(dir)
		if err != nil || free <= 0 || total < free {
			t.Fatalf("Space = %d, %d, %v", free, total, err)
		}
	})
}

func TestOnlyRealFilesHaveAKernelFile(t *testing.T) {
	onEach(t, func(t *testing.T, fsys FS, dir string) {
		f := create(t, fsys, filepath.Join(dir, "f"))
		defer f.Close()
		_, real := fsys.(osFS)
		if (f.OS() != nil) != real {
			t.Fatalf("OS() = %v", f.OS())
		}
	})
}

// classOf reduces an error to what callers branch on.
func classOf(err error) string {
	switch {
	case err == nil:
		return "ok"
	case err == io.EOF:
		return "EOF"
	case errors.Is(err, fs.ErrNotExist):
		return "not exist"
	case errors.Is(err, fs.ErrExist):
		return "exist"
	case errors.Is(err, fs.ErrClosed):
		return "closed"
	}
	return "other"
}

// TestMemBehavesAsTheRealOne runs the same random calls on both file systems
// and compares every result, and the whole trees at the end.
func TestMemBehavesAsTheRealOne(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		tmp, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		type world struct {
			fs   FS
			base string
			open []File
		}
		mem := NewMem()
		if err := mem.MkdirAll("/m", 0o755); err != nil {
			rt.Fatal(err)
		}
		worlds := []*world{{fs: OS(), base: tmp}, {fs: mem, base: "/m"}}
		defer func() {
			for _, f := range worlds[0].open {
				f.Close()
			}
		}()

		names := rapid.SampledFrom([]string{"a", "b", "c", "d", "d/a", "d/b", "d/d", "d/d/a", "e/a"})
		spot := rapid.OneOf(rapid.Int64Range(0, 40), rapid.Int64Range(4090, 4100), rapid.Int64Range(0, 20_000))
		flags := rapid.SampledFrom([]int{
			os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_CREATE, os.O_RDWR | os.O_CREATE, os.O_RDWR | os.O_CREATE,
			os.O_RDWR | os.O_CREATE | os.O_EXCL, os.O_RDWR | os.O_CREATE | os.O_TRUNC, os.O_WRONLY | os.O_CREATE,
		})
		// both runs one call on both and compares.
		both := func(what string, call func(w *world) (string, error)) {
			a, aerr := call(worlds[0])
			b, berr := call(worlds[1])
			if a != b || classOf(aerr) != classOf(berr) {
				rt.Fatalf("%s: os %.200q, %v; mem %.200q, %v", what, a, aerr, b, berr)
			}
		}
		handle := func(w *world, i int) File { return w.open[i%len(w.open)] }

		for range rapid.IntRange(1, 60).Draw(rt, "ops") {
			kind := rapid.IntRange(0, 15).Draw(rt, "kind")
			if kind >= 6 && len(worlds[0].open) == 0 {
				kind = 0
			}
			switch name := names.Draw(rt, "name"); kind {
			case 0, 1:
				flag := flags.Draw(rt, "flag")
				var opened [2]File
				i := 0
				both("open "+name, func(w *world) (string, error) {
					f, err := w.fs.OpenFile(filepath.Join(w.base, name), flag, 0o644)
					opened[i] = f
					i++
					return "", err
				})
				if opened[0] != nil {
					worlds[0].open = append(worlds[0].open, opened[0])
					worlds[1].open = append(worlds[1].open, opened[1])
				}
			case 2:
				to := names.Draw(rt, "to")
				both("rename "+name+" "+to, func(w *world) (string, error) {
					return "", w.fs.Rename(filepath.Join(w.base, name), filepath.Join(w.base, to))
				})
			case 3:
				both("remove "+name, func(w *world) (string, error) {
					return "", w.fs.Remove(filepath.Join(w.base, name))
				})
			case 4:
				both("mkdir "+name, func(w *world) (string, error) {
					return "", w.fs.MkdirAll(filepath.Join(w.base, name), 0o755)
				})
			case 5:
				both("readdir, stat, syncdir "+name, func(w *world) (string, error) {
					p := filepath.Join(w.base, name)
					list, err := w.fs.ReadDir(p)
					size, serr := w.fs.Stat(p)
					return fmt.Sprint(list, classOf(err), size, classOf(serr)), w.fs.SyncDir(p)
				})
			case 6, 7, 8, 9:
				h, off := rapid.IntRange(0, 99).Draw(rt, "handle"), spot.Draw(rt, "off")
				sizes := rapid.SliceOfN(rapid.SampledFrom([]int{1, 5, 600, 4096, 9000}), 1, 4).Draw(rt, "sizes")
				var bufs [][]byte
				for i, n := range sizes {
					bufs = append(bufs, bytes.Repeat([]byte{byte(off) + byte(i)*16 + 1}, n))
				}
				both("write", func(w *world) (string, error) {
					if len(bufs) == 1 {
						n, err := handle(w, h).WriteAt(bufs[0], off)
						return fmt.Sprint(n), err
					}
					n, err := handle(w, h).WritevAt(bufs, off)
					return fmt.Sprint(n), err
				})
			case 10, 11:
				h, off := rapid.IntRange(0, 99).Draw(rt, "handle"), spot.Draw(rt, "off")
				n := rapid.IntRange(1, 10_000).Draw(rt, "len")
				both("read", func(w *world) (string, error) {
					b := make([]byte, n)
					n, err := handle(w, h).ReadAt(b, off)
					return string(b[:n]), err
				})
			case 12:
				h, size := rapid.IntRange(0, 99).Draw(rt, "handle"), spot.Draw(rt, "size")
				both("truncate", func(w *world) (string, error) { return "", handle(w, h).Truncate(size) })
			case 13:
				h, size := rapid.IntRange(0, 99).Draw(rt, "handle"), spot.Draw(rt, "size")
				both("allocate", func(w *world) (string, error) { return "", handle(w, h).Allocate(size) })
			case 14:
				h := rapid.IntRange(0, 99).Draw(rt, "handle")
				both("sync, size", func(w *world) (string, error) {
					size, err := handle(w, h).Size()
					return fmt.Sprint(size, classOf(err)), handle(w, h).Sync()
				})
			case 15:
				h := rapid.IntRange(0, 99).Draw(rt, "handle")
				both("close", func(w *world) (string, error) { return "", handle(w, h).Close() })
			}
		}
		both("tree", func(w *world) (string, error) { return tree(w.fs, w.base) })

		// A crash that loses nothing shows the same tree.
		got, err := tree(mem.Clone(CrashAll, 1), "/m")
		want, werr := tree(mem, "/m")
		if err != nil || werr != nil || got != want {
			rt.Fatalf("clone %.300q, %v; want %.300q, %v", got, err, want, werr)
		}
		if used := recount(mem, worlds[1].open); used != mem.used {
			rt.Fatalf("counts %d bytes of pages, has %d", mem.used, used)
		}
	})
}

// recount adds up the pages of all files that have a name or an open handle.
func recount(m *Mem, open []File) int64 {
	seen := map[*node]bool{}
	var walk func(n *node)
	walk = func(n *node) {
		seen[n] = true
		for _, k := range n.kids {
			walk(k)
		}
	}
	walk(m.root)
	for _, f := range open {
		if mf := f.(*memFile); !mf.closed {
			seen[mf.n] = true
		}
	}
	total := int64(0)
	for n := range seen {
		for _, s := range n.data.slots {
			if s.cur != nil {
				total += pageBytes
			}
		}
	}
	return total
}

// tree lists all names with their contents.
func tree(fsys FS, dir string) (string, error) {
	var out bytes.Buffer
	var walk func(rel string) error
	walk = func(rel string) error {
		names, err := fsys.ReadDir(filepath.Join(dir, rel))
		if err != nil {
			return err
		}
		for _, n := range names {
			p := filepath.Join(rel, n)
			if _, err := fsys.ReadDir(filepath.Join(dir, p)); err == nil {
				fmt.Fprintf(&out, "%s/\n", p)
				if err := walk(p); err != nil {
					return err
				}
				continue
			}
			b, err := contents(fsys, filepath.Join(dir, p))
			if err != nil {
				return err
			}
			fmt.Fprintf(&out, "%s %q\n", p, b)
		}
		return nil
	}
	err := walk("")
	return out.String(), err
}
