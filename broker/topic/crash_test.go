package topic

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/internal/vfs"
	"github.com/portask/portask/broker/storage"
)

// prepared is a disk with two topics: kept, of 2 partitions with 3 messages
// each, and old, of 3 partitions with 2 messages each.
func prepared(t *testing.T) *vfs.Mem {
	t.Helper()
	fsys := vfs.NewMem()
	eng := mustOpenDisk(t, fsys)
	b := mustStart(t, eng)
	for _, c := range []struct {
		name       string
		partitions uint32
		messages   int
	}{{"kept", 2, 3}, {"old", 3, 2}} {
		if _, err := b.Create(c.name, Config{Partitions: c.partitions}); err != nil {
			t.Fatal(err)
		}
		if err := b.produce(c.name, c.messages); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(b.stop(), eng.Close()); err != nil {
		t.Fatal(err)
	}
	return fsys
}

const altered = 12345 // ms, the retention that the change "alter" sets

// changes are what is interrupted. after says whether the topic must be there
// once the change has returned.
var changes = []struct {
	name  string
	topic string
	after bool
	run   func(b *broker) error
}{
	{"create", "new", true, func(b *broker) error {
		_, err := b.Create("new", Config{Partitions: 3})
		return err
	}},
	{"alter", "old", true, func(b *broker) error {
		ms := int64(altered)
		_, err := b.Alter("old", Change{RetentionMs: &ms})
		return err
	}},
	{"delete", "old", false, func(b *broker) error { return b.Delete("old", func(*Topic) {}) }},
}

// TestPowerCuts cuts the power before every call to the file system that a
// change of the catalogue makes, and after the last one, with each way of losing
// what was not synced.
func TestPowerCuts(t *testing.T) {
	for _, ch := range changes {
		t.Run(ch.name, func(t *testing.T) {
			fsys := prepared(t)
			eng := mustOpenDisk(t, fsys)
			b := mustStart(t, eng)
			var mu sync.Mutex
			var returned atomic.Bool
			type wreck struct {
				what string
				done bool // the change had returned
				fsys *vfs.Mem
			}
			var wrecks []wreck
			cut := func(what string) {
				mu.Lock()
				defer mu.Unlock()
				for i, mode := range vfs.CrashModes {
					wrecks = append(wrecks, wreck{fmt.Sprintf("%s, unsynced: %v", what, mode), returned.Load(), fsys.Clone(mode, uint64(i+len(wrecks)))})
				}
			}
			fsys.OnOp(func(op vfs.Op) error {
				cut("power cut before " + op.String())
				return nil
			})
			if err := ch.run(b); err != nil {
				t.Fatal(err)
			}
			returned.Store(true)
			cut("power cut at the end")
			fsys.OnOp(nil)
			if len(wrecks) < 12 {
				t.Fatalf("%d power cuts", len(wrecks))
			}
			there := map[bool]int{}
			for _, w := range wrecks {
				has, ms := inspect(t, w.what, w.fsys, ch.topic)
				if w.done && has != ch.after {
					t.Errorf("%s: topic %s is there: %v", w.what, ch.topic, has)
				}
				if ms != Unlimited && (ch.name != "alter" || ms != altered) || w.done && ch.name == "alter" && ms != altered {
					t.Errorf("%s: topic %s keeps messages %d ms", w.what, ch.topic, ms)
				}
				there[has]++
			}
			t.Logf("%d power cuts: topic there after %d, not after %d", len(wrecks), there[true], there[false])
			if ch.name != "alter" && (there[true] == 0 || there[false] == 0) {
				t.Error("the cuts missed the moment of the change")
			}
		})
	}
}

// inspect opens what a crash left and checks that the topic is wholly there or
// wholly not, that no other is hurt, and that the broker goes on. It reports
// whether the topic is there and its retention.
func inspect(t *testing.T, what string, fsys *vfs.Mem, name string) (has bool, retentionMs int64) {
	t.Helper()
	eng, err := openDisk(fsys)
	if err != nil {
		t.Fatalf("%s: open the engine: %v", what, err)
	}
	defer func() {
		if err := eng.Close(); err != nil {
			t.Errorf("%s: close: %v", what, err)
		}
	}()
	before := logs(t, eng)
	b, err := start(t, eng)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	defer func() {
		if err := b.stop(); err != nil {
			t.Errorf("%s: close the catalogue: %v", what, err)
		}
	}()
	after := logs(t, eng)
	known := 0
	for _, topic := range b.List() {
		known += len(topic.Partitions)
		for i := range topic.Partitions {
			if !slices.Contains(after, storage.PartitionID{Topic: topic.ID, Index: uint32(i)}) {
				t.Errorf("%s: %s/%d has no log", what, topic.Name, i)
			}
		}
	}
	// Logs of a topic that was being created may be left over. They stay, and
	// the broker says so; those of a deleted one go.
	for _, id := range before {
		if !slices.Contains(after, id) && name != "old" {
			t.Errorf("%s: log %v was removed", what, id)
		}
	}
	strays := len(after) - known
	if said := strings.Count(b.log.String(), "belongs to no topic"); said != strays || strays > 0 && name == "old" {
		t.Errorf("%s: %d logs of no topic, %d reported", what, strays, said)
	}

	wants := map[string][]int{"kept": {3, 3}, "old": {2, 2, 2}, "new": {0, 0, 0}}
	topic, err := b.Lookup(name)
	if has, retentionMs = err == nil, Unlimited; has {
		retentionMs = topic.Config().RetentionMs
	}
	if !has && !errors.Is(err, fault.NotFound) {
		t.Errorf("%s: %v", what, err)
	}
	for topic, want := range wants {
		if topic == "new" && name != "new" || topic == name && !has {
			continue
		}
		if got, err := b.holds(topic); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: topic %s holds %v, want %v: %v", what, topic, got, want, err)
		}
	}
	if !has {
		if _, err := b.Create(name, Config{Partitions: 1}); err != nil {
			t.Errorf("%s: create anew: %v", what, err)
		}
	}
	if err := b.produce(name, 1); err != nil {
		t.Errorf("%s: produce: %v", what, err)
	}
	if err := b.Delete(name, func(*Topic) {}); err != nil {
		t.Errorf("%s: delete: %v", what, err)
	}
	return has, retentionMs
}

// TestDiskErrors makes each call to the file system fail once during a change.
// A change that reports an error has not happened, unless the topic was gone
// already; the broker goes on; and a restart finds what the broker had.
func TestDiskErrors(t *testing.T) {
	errIO := errors.New("input/output error")
	for _, ch := range changes {
		t.Run(ch.name, func(t *testing.T) {
			base := prepared(t)
			failures := 0
			for n := int64(1); ; n++ {
				disk := base.Clone(vfs.CrashAll, 0)
				var armed atomic.Bool
				var calls atomic.Int64
				var hit atomic.Pointer[string]
				fsys := vfs.NewFault(disk, func(op vfs.Op) vfs.Decision {
					if !armed.Load() || calls.Add(1) != n {
						return vfs.Decision{}
					}
					what := op.String()
					hit.Store(&what)
					return vfs.Decision{Err: errIO}
				})
				eng, err := openDisk(fsys)
				if err != nil {
					t.Fatal(err)
				}
				b := mustStart(t, eng)
				armed.Store(true)
				err = ch.run(b)
				armed.Store(false)
				what := "no error"
				if at := hit.Load(); at != nil {
					what = "an error at " + *at
				}
				if err != nil {
					failures++
				}
				_, lookup := b.Lookup(ch.topic)
				has := lookup == nil
				if err == nil && has != ch.after || err != nil && ch.name == "create" && has || err != nil && ch.name == "alter" && !has {
					t.Errorf("%s: %v, and the topic is there: %v", what, err, has)
				}
				b.wantHolds("kept", 3, 3)
				if err := b.produce("kept", 1); err != nil {
					t.Errorf("%s: produce to another topic: %v", what, err)
				}
				if has {
					if err := b.produce(ch.topic, 1); err != nil {
						t.Errorf("%s: produce: %v", what, err)
					}
				}
				var cfg Config
				if topic, err := b.Lookup(ch.topic); err == nil {
					cfg = topic.Config()
				}
				held, _ := b.holds(ch.topic)
				if err := errors.Join(b.stop(), eng.Close()); err != nil {
					t.Errorf("%s: close: %v", what, err)
				}

				again, err := openDisk(disk)
				if err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				b = mustStart(t, again)
				if topic, err := b.Lookup(ch.topic); (err == nil) != has {
					t.Errorf("%s: the topic was there: %v, after a restart: %v", what, has, err)
				} else if has {
					if now := topic.Config(); now != cfg {
						t.Errorf("%s: settings %+v, after a restart %+v", what, cfg, now)
					}
					b.wantHolds(ch.topic, held...)
				}
				b.wantHolds("kept", 4, 4)
				if !has && ch.name == "delete" && len(logs(t, again)) != 2 {
					t.Errorf("%s: %d logs are left after a restart", what, len(logs(t, again)))
				}
				if err := errors.Join(b.stop(), again.Close()); err != nil {
					t.Fatal(err)
				}
				if hit.Load() == nil {
					t.Logf("%d calls, %d made it fail", n-1, failures)
					break
				}
			}
			if failures == 0 {
				t.Error("no error was noticed")
			}
		})
	}
}
