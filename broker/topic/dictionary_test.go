package topic

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/internal/vfs"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/storage"
	"github.com/portask/portask/broker/wire"
)

// blob is what stands for a dictionary here: the catalogue does not look inside.
func blob(id uint32) []byte { return bytes.Repeat([]byte{byte(id)}, 1000+int(id)) }

// wantDictionaries checks what a topic has, oldest first, with its bytes.
func (b *broker) wantDictionaries(name string, active uint32, ids ...uint32) {
	b.t.Helper()
	t, err := b.Lookup(name)
	if err != nil {
		b.t.Fatal(err)
	}
	got, all := t.Dictionaries()
	if got != active || len(all) != len(ids) {
		b.t.Fatalf("active %d of %v, want %d of %v", got, all, active, ids)
	}
	for i, d := range all {
		x, err := b.LoadDictionary(name, ids[i])
		if d.ID != ids[i] || err != nil || !bytes.Equal(x, blob(ids[i])) || d.Bytes != len(x) || d.AddedUs <= 0 {
			b.t.Fatalf("dictionary %d: %+v, %d bytes, %v", ids[i], d, len(x), err)
		}
	}
}

// wantMeta checks which blobs the engine has, of ids 1 to 20.
func wantMeta(t *testing.T, eng storage.Engine, topic *Topic, ids ...uint32) {
	t.Helper()
	there := map[uint32]bool{}
	for _, id := range ids {
		there[id] = true
	}
	for id := uint32(1); id <= 20; id++ {
		_, err := eng.LoadMeta(DictionaryName(topic.ID, id))
		if there[id] != (err == nil) || err != nil && fault.CodeOf(err) != fault.NotFound {
			t.Errorf("blob of dictionary %d: %v", id, err)
		}
	}
}

func TestDictionaries(t *testing.T) {
	fsys := vfs.NewMem()
	eng := mustOpenDisk(t, fsys)
	b := mustStart(t, eng)
	orders, err := b.Create("orders", Config{})
	if err != nil {
		t.Fatal(err)
	}
	add := func(id uint32) error {
		_, err := b.AddDictionary("orders", id, blob(id))
		return err
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	b.wantDictionaries("orders", 0)
	for id := uint32(1); id <= 3; id++ {
		must(add(id))
	}
	b.wantDictionaries("orders", 3, 1, 2, 3)
	must(add(2)) // the same bytes: it is used again
	b.wantDictionaries("orders", 2, 1, 2, 3)
	use := func(id uint32) error {
		_, err := b.UseDictionary("orders", id)
		return err
	}
	must(use(1))
	must(use(0))
	b.wantDictionaries("orders", 0, 1, 2, 3)
	must(use(3))

	_, err = b.AddDictionary("orders", 2, blob(4))
	wantFault(t, "another under an id in use", err, fault.Exists, "dictionary")
	_, err = b.AddDictionary("orders", 9, make([]byte, DictionaryBytesMax+1))
	wantFault(t, "too large", err, fault.TooLarge, "dictionary")
	wantFault(t, "use what is not there", use(7), fault.NotFound, "dictionary")
	_, err = b.LoadDictionary("orders", 7)
	wantFault(t, "load what is not there", err, fault.NotFound, "dictionary")
	if !strings.Contains(err.Error(), "orders") || !strings.Contains(err.Error(), "00000007") {
		t.Errorf("names neither topic nor id: %v", err)
	}
	_, err = b.AddDictionary("none", 7, blob(7))
	wantFault(t, "of no topic", err, fault.NotFound, "topic")

	// They survive a restart; another topic of the same name later has none.
	must(errors.Join(b.stop(), eng.Close()))
	eng = mustOpenDisk(t, fsys)
	b = mustStart(t, eng)
	b.wantDictionaries("orders", 3, 1, 2, 3)
	wantMeta(t, eng, orders, 1, 2, 3)
	must(b.Delete("orders", func(*Topic) {}))
	wantMeta(t, eng, orders)
	_, err = b.Create("orders", Config{})
	must(err)
	b.wantDictionaries("orders", 0)
	_, err = b.LoadDictionary("orders", 3)
	wantFault(t, "of the deleted topic", err, fault.NotFound, "dictionary")
}

// The oldest that is not in use goes when there are too many, but not while
// something may need it.
func TestDictionariesRotate(t *testing.T) {
	fsys := vfs.NewMem()
	eng := mustOpenDisk(t, fsys)
	b := mustStart(t, eng)
	o, err := b.Create("orders", Config{Partitions: 2, SegmentBytes: SegmentBytesMin})
	if err != nil {
		t.Fatal(err)
	}
	add := func(id uint32) error {
		_, err := b.AddDictionary("orders", id, blob(id))
		return err
	}
	for id := uint32(1); id <= DictionariesMax; id++ {
		if err := add(id); err != nil {
			t.Fatal(err)
		}
	}
	// Never used: goes at once.
	if err := add(9); err != nil {
		t.Fatal(err)
	}
	b.wantDictionaries("orders", 9, 2, 3, 4, 5, 6, 7, 8, 9)
	wantMeta(t, eng, o, 2, 3, 4, 5, 6, 7, 8, 9)
	if o.UsesDictionary(1, 1) {
		t.Error("a batch with a dictionary that is gone is taken")
	}
	_, err = b.AddDictionary("orders", 1, blob(10))
	wantFault(t, "the id of one that is gone", err, fault.Exists, "dictionary")

	// Used just now.
	now := time.Now().UnixMicro()
	if !o.UsesDictionary(2, now) {
		t.Fatal("dictionary 2 is not there")
	}
	wantFault(t, "used just now", add(10), fault.ResourceExhausted, "dictionaries")
	b.wantDictionaries("orders", 9, 2, 3, 4, 5, 6, 7, 8, 9)
	if !o.UsesDictionary(2, now-1) || o.dicts.Load().find(2).used.Load() != now {
		t.Error("the last use went back")
	}

	// Used an hour ago, by nothing that is still there.
	used := func(id uint32, us int64) { o.dicts.Load().find(id).used.Store(us) }
	used(2, now-int64(time.Hour/time.Microsecond))
	if err := add(10); err != nil {
		t.Fatal(err)
	}
	b.wantDictionaries("orders", 10, 3, 4, 5, 6, 7, 8, 9, 10)

	// The logs hold batches of a time before and after (the rig's clock stands at
	// 1 µs).
	if err := b.produce("orders", 1); err != nil {
		t.Fatal(err)
	}
	used(3, -1)
	if got := o.dicts.Load().find(3).neededAt(t, o, time.Now()); got != "" {
		t.Errorf("younger batches need it: %s", got)
	}
	used(3, 1)
	if got := o.dicts.Load().find(3).neededAt(t, o, time.Now()); !strings.Contains(got, "holds batches from before") {
		t.Errorf("a batch from before: %q", got)
	}
	wantFault(t, "a batch from before", add(11), fault.ResourceExhausted, "dictionaries")

	// In use: the one behind it goes.
	if _, err := b.UseDictionary("orders", 3); err != nil {
		t.Fatal(err)
	}
	if err := add(11); err != nil {
		t.Fatal(err)
	}
	b.wantDictionaries("orders", 11, 3, 5, 6, 7, 8, 9, 10, 11)

	// After a restart nothing is known of the uses before.
	if err := errors.Join(b.stop(), eng.Close()); err != nil {
		t.Fatal(err)
	}
	eng = mustOpenDisk(t, fsys)
	b = mustStart(t, eng)
	b.wantDictionaries("orders", 11, 3, 5, 6, 7, 8, 9, 10, 11)
	wantFault(t, "after a restart", add(12), fault.ResourceExhausted, "dictionaries")
	_, err = b.AddDictionary("orders", 4, blob(12))
	wantFault(t, "the id of one that is gone, after a restart", err, fault.Exists, "dictionary")
}

// A clock that was set back does not make batches younger than their dictionary:
// append times do not follow it.
func TestDictionariesAreNeededAfterTheClockWasSetBack(t *testing.T) {
	fsys := vfs.NewMem()
	eng := mustOpenDisk(t, fsys)
	b := mustStart(t, eng)
	o, err := b.Create("orders", Config{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.AddDictionary("orders", 1, blob(1)); err != nil {
		t.Fatal(err)
	}
	ahead := time.Now().Add(24 * time.Hour).UnixMicro()
	b.now = ahead
	if err := b.produce("orders", 1); err != nil {
		t.Fatal(err)
	}
	b.now = 1
	if err := b.produce("orders", 1); err != nil {
		t.Fatal(err)
	}
	if got := o.Partitions[0].LastAppend(); got != ahead {
		t.Fatalf("the last batch was appended at %d, the one before at %d", got, ahead)
	}
	if err := errors.Join(b.stop(), eng.Close()); err != nil {
		t.Fatal(err)
	}
	eng = mustOpenDisk(t, fsys)
	b = mustStart(t, eng)
	if o, err = b.Lookup("orders"); err != nil {
		t.Fatal(err)
	}
	if got := o.dicts.Load().find(1).neededAt(t, o, time.Now().Add(48*time.Hour)); !strings.Contains(got, "holds batches from before") {
		t.Errorf("after a restart: %q", got)
	}
}

// neededAt is needed at a later time.
func (d *dictionary) neededAt(t *testing.T, o *Topic, now time.Time) string {
	t.Helper()
	why, err := d.needed(o, now)
	if err != nil {
		t.Fatal(err)
	}
	return why
}

// A catalogue that says nothing new is written as brokers before read it, and
// one of theirs is read.
func TestStoredVersions(t *testing.T) {
	eng := openMem(t)
	b := mustStart(t, eng)
	version := func(want string) {
		t.Helper()
		m, err := eng.LoadMeta(MetaName)
		if err != nil || !strings.Contains(string(m), `"version": `+want) {
			t.Fatalf("want version %s: %v\n%s", want, err, m)
		}
	}
	if _, err := b.Create("a", Config{}); err != nil {
		t.Fatal(err)
	}
	version("1")
	zstd := wire.Choose(message.Zstd)
	level, json := wire.Choose[uint8](2), wire.Choose(message.JSON)
	if _, err := b.Alter("a", Change{Compression: &zstd, Level: &level, Encoding: &json}); err != nil {
		t.Fatal(err)
	}
	version("2")
	adaptive := wire.Choose[uint8](3)
	if _, err := b.Alter("a", Change{Strategy: &adaptive}); err != nil {
		t.Fatal(err)
	}
	version("3")
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	b = mustStart(t, eng)
	a, err := b.Lookup("a")
	if err != nil {
		t.Fatal(err)
	}
	if c := a.Config(); c.Compression != zstd || c.Level != level || c.Encoding != json || c.Strategy != adaptive {
		t.Errorf("%+v", c)
	}
	var none wire.Choice[message.Algorithm]
	var anyLevel wire.Choice[uint8]
	var anyEncoding wire.Choice[message.Encoding]
	if _, err := b.Alter("a", Change{Strategy: &anyLevel}); err != nil {
		t.Fatal(err)
	}
	version("2")
	if _, err := b.Alter("a", Change{Compression: &none, Level: &anyLevel, Encoding: &anyEncoding}); err != nil {
		t.Fatal(err)
	}
	version("1")
	if _, err := b.AddDictionary("a", 1, blob(1)); err != nil {
		t.Fatal(err)
	}
	version("2")
}

// TestDictionaryPowerCuts cuts the power before every call to the file system of
// a change: afterwards the topic has the dictionaries of before or those of
// after, whole, and no blob of any other.
func TestDictionaryPowerCuts(t *testing.T) {
	fill := func(b *broker, n uint32) {
		for id := uint32(1); id <= n; id++ {
			if _, err := b.AddDictionary("kept", id, blob(id)); err != nil {
				b.t.Fatal(err)
			}
		}
	}
	for _, ch := range []struct {
		name          string
		before        uint32 // dictionaries there, the last of them active
		run           func(b *broker) error
		active        uint32
		after         []uint32
		deleted       bool
		activeInstead uint32
	}{
		{"add", 1, func(b *broker) error { _, err := b.AddDictionary("kept", 2, blob(2)); return err }, 2, []uint32{1, 2}, false, 1},
		{"rotate", DictionariesMax, func(b *broker) error { _, err := b.AddDictionary("kept", 9, blob(9)); return err }, 9, []uint32{2, 3, 4, 5, 6, 7, 8, 9}, false, DictionariesMax},
		{"use", 2, func(b *broker) error { _, err := b.UseDictionary("kept", 1); return err }, 1, []uint32{1, 2}, false, 2},
		{"delete", 2, func(b *broker) error { return b.Delete("kept", func(*Topic) {}) }, 0, nil, true, 2},
	} {
		t.Run(ch.name, func(t *testing.T) {
			fsys := prepared(t)
			eng := mustOpenDisk(t, fsys)
			b := mustStart(t, eng)
			fill(b, ch.before)
			kept, err := b.Lookup("kept")
			if err != nil {
				t.Fatal(err)
			}
			var all []uint32
			for id := range ch.before {
				all = append(all, id+1)
			}
			type wreck struct {
				what string
				done bool
				fsys *vfs.Mem
			}
			var wrecks []wreck
			var mu sync.Mutex // the engine's own goroutine writes too
			var done atomic.Bool
			cut := func(what string) {
				mu.Lock()
				defer mu.Unlock()
				for i, mode := range vfs.CrashModes {
					wrecks = append(wrecks, wreck{fmt.Sprintf("%s, unsynced: %v", what, mode), done.Load(), fsys.Clone(mode, uint64(i+len(wrecks)))})
				}
			}
			fsys.OnOp(func(op vfs.Op) error {
				cut("power cut before " + op.String())
				return nil
			})
			if err := ch.run(b); err != nil {
				t.Fatal(err)
			}
			done.Store(true)
			cut("power cut at the end")
			fsys.OnOp(nil)
			mu.Lock() // an operation of the engine's goroutine may be under way still
			taken := slices.Clone(wrecks)
			mu.Unlock()
			olds, news := 0, 0
			for _, w := range taken {
				eng, err := openDisk(w.fsys)
				if err != nil {
					t.Fatalf("%s: %v", w.what, err)
				}
				b, err := start(t, eng)
				if err != nil {
					t.Fatalf("%s: %v", w.what, err)
				}
				active, ids := ch.active, ch.after
				now, err := b.Lookup("kept")
				if (err != nil) != (ch.deleted && (w.done || err != nil)) {
					t.Fatalf("%s: %v", w.what, err)
				}
				if err == nil {
					if got, _ := now.Dictionaries(); got != ch.active {
						if w.done {
							t.Errorf("%s: dictionary %d is active", w.what, got)
						}
						active, ids = ch.activeInstead, all
						olds++
					} else {
						news++
					}
					b.t = t
					b.wantDictionaries("kept", active, ids...)
				} else {
					ids = nil
					news++
				}
				wantMeta(t, eng, kept, ids...)
				if t.Failed() {
					t.Fatal(w.what)
				}
				if err := errors.Join(b.stop(), eng.Close()); err != nil {
					t.Errorf("%s: %v", w.what, err)
				}
			}
			t.Logf("%d power cuts: %d as before, %d as after", len(wrecks), olds, news)
			if olds == 0 || news == 0 {
				t.Error("the cuts missed the moment of the change")
			}
		})
	}
}

// A dictionary that cannot be stored leaves the topic as it was, and the next
// attempt works.
func TestDictionaryStoreFails(t *testing.T) {
	eng := &wrapped{Engine: openMem(t)}
	b := mustStart(t, eng)
	o, err := b.Create("orders", Config{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.AddDictionary("orders", 1, blob(1)); err != nil {
		t.Fatal(err)
	}
	for failing := range 3 { // the catalogue before, the blob, the catalogue after
		n := 0
		eng.storeMeta = func() error {
			if n++; n == failing+1 {
				return fault.New(fault.StorageFailed, "store metadata")
			}
			return nil
		}
		if _, err := b.AddDictionary("orders", 2, blob(2)); fault.CodeOf(err) != fault.StorageFailed {
			t.Errorf("write %d failed: %v", failing, err)
		}
		b.wantDictionaries("orders", 1, 1)
	}
	eng.storeMeta = nil
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	b = mustStart(t, eng)
	b.wantDictionaries("orders", 1, 1)
	wantMeta(t, eng, o, 1)
	if _, err := b.AddDictionary("orders", 2, blob(2)); err != nil {
		t.Fatal(err)
	}
	b.wantDictionaries("orders", 2, 1, 2)
}

// What the catalogue says of dictionaries is checked before anything is removed
// by it.
func TestBadDictionariesAreRefused(t *testing.T) {
	const id = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
	for what, edit := range map[string]string{
		"spent blob is the catalogue": `"spent": ["topics"], "topics": []`,
		"spent blob elsewhere":        `"spent": ["dict-../../x"], "topics": []`,
		"id 0":                        `"topics": [{"name": "a", "id": "` + id + `", "partitions": 1, "dictionaries": [{"id": 0, "bytes": 1}]}]`,
		"twice":                       `"topics": [{"name": "a", "id": "` + id + `", "partitions": 1, "dictionaries": [{"id": 1, "bytes": 1}, {"id": 1, "bytes": 1}]}]`,
		"too many":                    `"topics": [{"name": "a", "id": "` + id + `", "partitions": 1, "dictionaries": [{},{},{},{},{},{},{},{},{}]}]`,
		"active is none":              `"topics": [{"name": "a", "id": "` + id + `", "partitions": 1, "active_dictionary": 7}]`,
		"algorithm":                   `"topics": [{"name": "a", "id": "` + id + `", "partitions": 1, "compression": "best"}]`,
		"encoding":                    `"topics": [{"name": "a", "id": "` + id + `", "partitions": 1, "encoding": "best"}]`,
	} {
		if err := Check([]byte(`{"version": 2, "cluster_id": "` + id + `", ` + edit + `}`)); fault.CodeOf(err) != fault.Corrupted {
			t.Errorf("%s: %v", what, err)
		}
	}
}
