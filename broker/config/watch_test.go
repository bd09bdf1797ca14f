package config

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// watched runs Watch of a file that was loaded as it is and returns what tells
// its calls.
func watched(t *testing.T, file string) (calls chan string) {
	t.Helper()
	data, err := readFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return watchedAs(t, file, contentOf(file, data))
}

func watchedAs(t *testing.T, file string, loaded Content) (calls chan string) {
	t.Helper()
	calls = make(chan string, 16)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Watch(ctx, file, loaded, func() {
			b, _ := os.ReadFile(file)
			calls <- string(b)
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Watch: %v", err)
		}
	})
	return calls
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// until changes the file with texts made by next until the watch reports one: the
// first changes may come before it is up.
func until(t *testing.T, calls <-chan string, change func(n int)) {
	t.Helper()
	patience := time.After(30 * time.Second)
	for n := 0; ; n++ {
		change(n)
		select {
		case <-calls:
			return
		case <-time.After(3 * settle):
		case <-patience:
			t.Fatal("no change was seen")
		}
	}
}

func expect(t *testing.T, calls <-chan string, want string) {
	t.Helper()
	for {
		select {
		case got := <-calls:
			if got == want {
				return
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("%q was not seen", want)
		}
	}
}

// Writing in place, replacing by a rename, and disappearing for a while.
func TestWatch(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "broker.yaml")
	write(t, file, "old")
	calls := watched(t, file)
	until(t, calls, func(n int) { write(t, file, "start"+string(rune('a'+n))) })

	write(t, filepath.Join(dir, "new.tmp"), "renamed")
	if err := os.Rename(filepath.Join(dir, "new.tmp"), file); err != nil {
		t.Fatal(err)
	}
	expect(t, calls, "renamed")

	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	write(t, file, "back")
	expect(t, calls, "back")

	// "back" may be told of twice: what was found absent may be there when this
	// test reads it.
	for quiet := false; !quiet; {
		select {
		case <-calls:
		case <-time.After(10 * settle):
			quiet = true
		}
	}
	// The same content again, and neighbours, are no change. What comes after
	// them is seen first.
	f, err := os.OpenFile(file, os.O_WRONLY, 0) // not truncated: it never differs
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("back"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "other.yaml"), "other")
	write(t, filepath.Join(dir, "last.tmp"), "last")
	time.AfterFunc(3*settle, func() { _ = os.Rename(filepath.Join(dir, "last.tmp"), file) })
	if got := <-calls; got != "last" {
		t.Errorf("%q was reported as a change", got)
	}
}

// Kubernetes: broker.yaml -> ..data/broker.yaml, ..data -> a directory that is
// swapped as a whole.
func TestWatchSwappedLink(t *testing.T) {
	dir := t.TempDir()
	put := func(version, text string) {
		t.Helper()
		if err := os.Mkdir(filepath.Join(dir, version), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, version, "broker.yaml"), text)
		if err := os.Symlink(version, filepath.Join(dir, "..tmp")); err != nil {
			if errors.Is(err, os.ErrPermission) {
				t.Skip("links are not permitted here")
			}
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	put("..v0", "0")
	file := filepath.Join(dir, "broker.yaml")
	if err := os.Symlink(filepath.Join("..data", "broker.yaml"), file); err != nil {
		t.Fatal(err)
	}
	calls := watched(t, file)
	until(t, calls, func(n int) { put("..a"+string(rune('a'+n)), "start"+string(rune('a'+n))) })
	put("..v1", "1")
	expect(t, calls, "1")
	// The directory behind the link is the new one.
	write(t, filepath.Join(dir, "..v1", "broker.yaml"), "in place")
	expect(t, calls, "in place")
}

// The directory itself goes and comes back.
func TestWatchDirectoryReplaced(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etc")
	file := filepath.Join(dir, "broker.yaml")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, file, "old")
	calls := watched(t, file)
	until(t, calls, func(n int) { write(t, file, "start"+string(rune('a'+n))) })
	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, file, "new place")
	expect(t, calls, "new place")
	write(t, file, "newer")
	expect(t, calls, "newer")
}

// What changed after loading and before watching is seen as well.
func TestWatchBegunLate(t *testing.T) {
	file := filepath.Join(t.TempDir(), "broker.yaml")
	write(t, file, "new")
	calls := watchedAs(t, file, contentOf(file, []byte("old")))
	expect(t, calls, "new")
}

func TestWatchNothing(t *testing.T) {
	if err := Watch(t.Context(), filepath.Join(t.TempDir(), "no", "such.yaml"), Content{}, func() {}); err == nil {
		t.Error("a directory that is not there can be watched")
	}
}
