package config

import (
	"context"
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long a file must have been left alone before it is looked at:
// editors and deployments write in several steps, and half a file is no
// configuration. One that is never left alone is looked at after settleMost.
const (
	settle     = 100 * time.Millisecond
	settleMost = time.Second
)

// Content tells one content of a file from others.
type Content [sha256.Size]byte

func contentOf(file string, data []byte) Content {
	if file == "" {
		return Content{}
	}
	return sha256.Sum256(data)
}

// Watch calls changed when the content of a file has become another than loaded
// (Snapshot.Content; what changed between loading and watching counts), until
// ctx ends; it then returns nil. It watches directories rather than the file, so it
// sees files that are replaced by renaming, as editors and Kubernetes do: there
// the name is a link into a directory that is swapped as a whole. A content that
// was seen last, or a file that is gone for the moment, is no change; a directory
// that is gone is looked for until it is back.
//
// An error says that watching is not possible; there is no watching by polling.
// changed is called on Watch's goroutine, one call at a time.
func Watch(ctx context.Context, file string, loaded Content, changed func()) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch %s: %w", file, err)
	}
	defer w.Close()
	v := &watch{w: w, file: file, dirs: map[string]bool{}, seen: loaded}
	if err := v.follow(); err != nil {
		return fmt.Errorf("watch %s: %w", file, err)
	}
	timer := time.NewTimer(settle) // it may have changed before it was watched
	var first time.Time            // of the events that are settling
	touched := func() {
		now := time.Now()
		if first.IsZero() {
			first = now
		}
		timer.Reset(max(0, min(settle, settleMost-now.Sub(first))))
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-w.Events:
			if !ok {
				return nil
			}
			if v.concerns(e) {
				touched()
			}
		case _, ok := <-w.Errors:
			if !ok {
				return nil
			}
			touched() // events were lost: anything may have happened
		case <-timer.C:
			first = time.Time{}
			if err := v.follow(); err != nil {
				timer.Reset(settleMost)
				continue
			}
			if sum, ok := v.sum(); ok && sum != v.seen {
				v.seen = sum
				changed()
			}
		}
	}
}

// watch is the state of one Watch. Only its goroutine uses it.
type watch struct {
	w    *fsnotify.Watcher
	file string
	dirs map[string]bool
	// linked: the file is reached through links, and any event may be a link
	// that changed.
	linked bool
	seen   Content
}

// follow watches the directory of the file and, if links lead elsewhere, that of
// the file itself.
func (v *watch) follow() error {
	dir := filepath.Dir(v.file)
	want := map[string]bool{dir: true}
	v.linked = false
	if real, err := filepath.EvalSymlinks(v.file); err == nil {
		if clean, err := filepath.EvalSymlinks(dir); err == nil && real != filepath.Join(clean, filepath.Base(v.file)) {
			want[filepath.Dir(real)], v.linked = true, true
		}
	}
	for d := range want {
		if err := v.w.Add(d); err != nil {
			return err
		}
	}
	for d := range v.dirs {
		if !want[d] {
			_ = v.w.Remove(d) // it may be gone, and its watch with it
		}
	}
	v.dirs = want
	return nil
}

// concerns tells events of the file, of a link to it or of its directory from
// those of its neighbours.
func (v *watch) concerns(e fsnotify.Event) bool {
	return v.linked || filepath.Base(e.Name) == filepath.Base(v.file) || v.dirs[e.Name]
}

func (v *watch) sum() (Content, bool) {
	data, err := readFile(v.file)
	if err != nil {
		return Content{}, false
	}
	return contentOf(v.file, data), true
}
