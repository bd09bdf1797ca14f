package topic

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/internal/vfs"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/partition"
	"github.com/portask/portask/broker/storage"
)

// TestLifeOfTopics is the ordinary course of things, on both engines.
func TestLifeOfTopics(t *testing.T) {
	disk := vfs.NewMem()
	mem := openMem(t)
	for name, e := range map[string]struct {
		open       func() storage.Engine
		visibility message.AckLevel
	}{
		"engine=memlog":  {func() storage.Engine { return mem }, message.AckAccepted},
		"engine=disklog": {func() storage.Engine { return mustOpenDisk(t, disk) }, message.AckDurable},
	} {
		t.Run(name, func(t *testing.T) {
			eng := e.open()
			b := mustStart(t, eng)
			if len(b.List()) != 0 || b.Nums() != 0 {
				t.Error("a new catalogue has topics")
			}
			cluster := b.ClusterID()
			orders, err := b.Create("orders", Config{})
			if err != nil {
				t.Fatal(err)
			}
			want := defaults
			want.Visibility = e.visibility
			if cfg := orders.Config(); cfg != want {
				t.Errorf("settings %+v, want the defaults %+v", cfg, want)
			}
			if _, err := b.Create("events", Config{Partitions: 3, Visibility: message.AckAccepted, RetentionMs: 60_000, RetentionBytes: 1 << 20, SegmentBytes: 64 << 10}); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(b.produce("orders", 4), b.produce("events", 2)); err != nil {
				t.Fatal(err)
			}
			b.wantHolds("orders", 4, 4)

			segment, forever := int64(0), int64(Unlimited)
			events, err := b.Alter("events", Change{RetentionMs: &forever, SegmentBytes: &segment})
			if err != nil {
				t.Fatal(err)
			}
			altered := Config{Partitions: 3, Visibility: message.AckAccepted, RetentionMs: Unlimited, RetentionBytes: 1 << 20, SegmentBytes: defaults.SegmentBytes}
			if cfg := events.Config(); cfg != altered {
				t.Errorf("altered settings %+v, want %+v", cfg, altered)
			}

			// Everything is the same after a restart.
			if err := b.stop(); err != nil {
				t.Fatal(err)
			}
			if eng != mem {
				if err := eng.Close(); err != nil {
					t.Fatal(err)
				}
				eng = e.open()
			}
			b = mustStart(t, eng)
			if b.ClusterID() != cluster || !slices.Equal(b.names(), []string{"events", "orders"}) || b.Nums() != 5 {
				t.Errorf("cluster %s, topics %v, %d partitions", b.ClusterID(), b.names(), b.Nums())
			}
			for _, old := range []*Topic{orders, events} {
				again, err := b.Lookup(old.Name)
				if err != nil || again.ID != old.ID || again.CreatedUs != old.CreatedUs || again.Config() != old.Config() {
					t.Errorf("%s after the restart: %+v, %v", old.Name, again, err)
				}
			}
			b.wantHolds("orders", 4, 4)
			b.wantHolds("events", 2, 2, 2)
			orders, _ = b.Lookup("orders")
			for i, p := range orders.Partitions {
				if got, err := orders.Partition(uint32(i)); got != p || err != nil || b.ByNum(p.Num()) != p || p.Topic() != "orders" {
					t.Errorf("partition %d: %v, %v", i, got, err)
				}
			}
			if b.ByNum(uint32(b.Nums())) != nil {
				t.Error("a partition beyond the last number")
			}

			// Deleted: not found from the first moment on, its logs gone at the end.
			told := 0
			nums := []uint32{orders.Partitions[0].Num(), orders.Partitions[1].Num()}
			if err := b.Delete("orders", func(gone *Topic) {
				told++
				if _, err := b.Lookup("orders"); !errors.Is(err, fault.NotFound) || gone != orders || len(logs(t, eng)) != 5 || !gone.Partitions[0].Closed() {
					t.Errorf("told too early or too late: %v, %d logs", err, len(logs(t, eng)))
				}
				if _, err := b.send(gone.Partitions[0]); !errors.Is(err, fault.NotFound) {
					t.Errorf("produce to a deleted topic: %v", err)
				}
			}); err != nil || told != 1 {
				t.Fatalf("delete: %v, told %d times", err, told)
			}
			if len(logs(t, eng)) != 3 || b.ByNum(nums[0]) != nil || b.ByNum(nums[1]) != nil || b.Nums() != 5 {
				t.Errorf("%d logs are left", len(logs(t, eng)))
			}

			// The name is free, and means another topic then.
			anew, err := b.Create("orders", Config{Partitions: 1})
			if err != nil || anew.ID == orders.ID || anew.Partitions[0].Num() != 5 {
				t.Fatalf("%+v, %v", anew, err)
			}
			b.wantHolds("orders", 0)
			if err := b.produce("orders", 1); err != nil {
				t.Error(err)
			}
			b.wantHolds("events", 2, 2, 2)
		})
	}
}

func TestLimitsAreNamed(t *testing.T) {
	b := mustStart(t, openMem(t))
	create := func(name string, cfg Config) error {
		_, err := b.Create(name, cfg)
		return err
	}
	if err := create("taken", Config{Partitions: 1}); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("n", message.MaxTopicBytes+1)
	for _, c := range []struct {
		err   error
		code  fault.Code
		field string
		limit int64
	}{
		{create("", Config{}), fault.Invalid, "topic", 0},
		{create("a/b", Config{}), fault.Invalid, "topic", 0},
		{create(long, Config{}), fault.TooLarge, "topic", message.MaxTopicBytes},
		{create("taken", Config{}), fault.Exists, "topic", 0},
		{create("t", Config{Partitions: PartitionsMax + 1}), fault.TooLarge, "partitions", PartitionsMax},
		{create("t", Config{Partitions: math.MaxUint32}), fault.TooLarge, "partitions", PartitionsMax},
		{create("t", Config{Visibility: message.AckDurable}), fault.LevelUnavailable, "visibility", 0},
		{create("t", Config{Visibility: 77}), fault.LevelUnavailable, "visibility", 0},
		{create("t", Config{RetentionMs: -2}), fault.Invalid, "retention_ms", 0},
		{create("t", Config{RetentionMs: RetentionMsMax + 1}), fault.TooLarge, "retention_ms", RetentionMsMax},
		{create("t", Config{RetentionBytes: math.MinInt64}), fault.Invalid, "retention_bytes", 0},
		{create("t", Config{SegmentBytes: -1}), fault.Invalid, "segment_bytes", SegmentBytesMin},
		{create("t", Config{SegmentBytes: SegmentBytesMin - 1}), fault.Invalid, "segment_bytes", SegmentBytesMin},
		{create("t", Config{SegmentBytes: SegmentBytesMax + 1}), fault.TooLarge, "segment_bytes", SegmentBytesMax},
	} {
		wantFault(t, "create", c.err, c.code, c.field)
		if f := fault.Find(c.err); f != nil && (f.HasLimit != (c.limit != 0) || f.Limit != c.limit) {
			t.Errorf("%v: limit %d, want %d", c.err, f.Limit, c.limit)
		}
	}
	bad := int64(-7)
	alter := func(name string, ch Change) error {
		_, err := b.Alter(name, ch)
		return err
	}
	wantFault(t, "alter", alter("taken", Change{RetentionBytes: &bad}), fault.Invalid, "retention_bytes")
	wantFault(t, "alter", alter("taken", Change{SegmentBytes: &bad}), fault.Invalid, "segment_bytes")
	wantFault(t, "alter", alter("missing", Change{}), fault.NotFound, "topic")
	wantFault(t, "alter", alter("a b", Change{}), fault.Invalid, "topic")
	wantFault(t, "delete", b.Delete("missing", nil), fault.NotFound, "topic")
	taken, err := b.Lookup("taken")
	if err != nil || taken.Config().RetentionBytes != Unlimited {
		t.Errorf("after a refused change: %+v, %v", taken.Config(), err)
	}
	_, err = taken.Partition(1)
	wantFault(t, "partition", err, fault.NotFound, "partition")
	if names := b.names(); len(names) != 1 || len(logs(t, b.eng)) != 1 {
		t.Errorf("topics %v, %d logs", names, len(logs(t, b.eng)))
	}

	// A full broker, without making 10,000 topics.
	real := b.view.Load()
	full := real.clone()
	for i := range TopicsMax - 1 {
		full.byName[fmt.Sprint("t", i)] = taken
	}
	b.view.Store(full)
	err = create("one-more", Config{})
	wantFault(t, "create", err, fault.ResourceExhausted, "topics")
	full = real.clone()
	full.open = AllPartitionsMax - 3
	b.view.Store(full)
	err = create("one-more", Config{Partitions: 4})
	wantFault(t, "create", err, fault.ResourceExhausted, "partitions")
	if f := fault.Find(err); f.Value != AllPartitionsMax+1 || f.Limit != AllPartitionsMax {
		t.Error(err)
	}
	if err := create("fits", Config{Partitions: 3}); err != nil {
		t.Error(err)
	}
	b.view.Store(func() *view { v := b.view.Load().clone(); v.open = 4; return v }())
}

// The longest retention is no overflow: it would become a short one.
func TestRetentionDoesNotOverflow(t *testing.T) {
	longest := time.Duration(RetentionMsMax) * time.Millisecond
	for ms, want := range map[int64]time.Duration{0: 0, -1: 0, 5: 5 * time.Millisecond, RetentionMsMax: longest, RetentionMsMax + 1: longest, math.MaxInt64: longest} {
		if got := (&Config{RetentionMs: ms, RetentionBytes: -1}).Retention(); got.MaxAge != want || got.MaxBytes != 0 {
			t.Errorf("%d ms is %v", ms, got)
		}
	}
}

// The catalogue as it lies on disks.
const golden = `{
 "version": 1,
 "cluster_id": "01ARZ3NDEKTSV4RRFFQ69G5FAV",
 "topics": [
  {
   "name": "orders",
   "id": "01BX5ZZKBKACTAV9WEVGEMMVRZ",
   "created_us": 1700000000000000,
   "partitions": 2,
   "visibility": 1,
   "retention_ms": 60000,
   "retention_bytes": -1,
   "segment_bytes": 65536
  }
 ],
 "removing": [
  "01BX5ZZKBKACTAV9WEVGEMMVS0"
 ]
}`

func TestStoredForm(t *testing.T) {
	eng := openMem(t)
	if err := eng.StoreMeta(metaName, []byte(golden)); err != nil {
		t.Fatal(err)
	}
	b := mustStart(t, eng)
	orders, err := b.Lookup("orders")
	want := Config{Partitions: 2, Visibility: message.AckAccepted, RetentionMs: 60_000, RetentionBytes: -1, SegmentBytes: 64 << 10}
	if err != nil || b.ClusterID() != "01ARZ3NDEKTSV4RRFFQ69G5FAV" || orders.ID.String() != "01BX5ZZKBKACTAV9WEVGEMMVRZ" ||
		orders.CreatedUs != 1_700_000_000_000_000 || orders.Config() != want {
		t.Errorf("%+v, %v", orders, err)
	}
	v := b.view.Load().clone()
	v.removing = append(v.removing, newID())
	v.removing[0] = orders.ID
	v.removing[0][15]++
	if err := b.store(v); err != nil {
		t.Fatal(err)
	}
	if got, err := eng.LoadMeta(metaName); err != nil || string(got) != golden {
		t.Errorf("%v, stored\n%s", err, got)
	}
}

// A catalogue that is damaged, contradicts itself or comes from a later version
// is refused, and nothing is made, changed or removed.
func TestBadCatalogueIsRefused(t *testing.T) {
	edit := func(old, new string) string {
		if !strings.Contains(golden, old) {
			t.Fatalf("%q is not in the golden blob", old)
		}
		return strings.Replace(golden, old, new, 1)
	}
	second := `},{"name":"orders2","id":"01BX5ZZKBKACTAV9WEVGEMMVR1","partitions":1,"visibility":1,"segment_bytes":65536}],"removing`
	end := "}\n ],\n \"removing"
	if !strings.Contains(golden, end) {
		t.Fatal("golden changed")
	}
	for name, c := range map[string]struct {
		blob  string
		code  fault.Code
		field string
	}{
		"empty":               {"", fault.Corrupted, "topics"},
		"cut short":           {golden[:len(golden)-1], fault.Corrupted, "topics"},
		"no JSON":             {"hello", fault.Corrupted, "topics"},
		"null":                {"null", fault.Corrupted, "version"},
		"no version":          {edit(`"version": 1`, `"version": 0`), fault.Corrupted, "version"},
		"later version":       {edit(`"version": 1`, `"version": 4`), fault.NewerFormat, "version"},
		"unlike this one":     {`{"version": 9, "topics": {"orders": []}}`, fault.NewerFormat, "version"},
		"cluster id":          {edit("01ARZ", "81ARZ"), fault.Corrupted, "cluster_id"},
		"topic id":            {edit(`"id": "0`, `"id": "`), fault.Corrupted, "id"},
		"topic name":          {edit("orders", "../../etc"), fault.Corrupted, "name"},
		"no partitions":       {edit(`"partitions": 2`, `"partitions": 0`), fault.Corrupted, "partitions"},
		"too many partitions": {edit(`"partitions": 2`, `"partitions": 4294967295`), fault.Corrupted, "partitions"},
		"negative partitions": {edit(`"partitions": 2`, `"partitions": -1`), fault.Corrupted, "topics"},
		"a name twice":        {edit(end, strings.Replace(second, "orders2", "orders", 1)), fault.Corrupted, "topics"},
		"an id twice":         {edit(end, strings.Replace(second, "VR1", "VRZ", 1)), fault.Corrupted, "topics"},
		"removing nonsense":   {edit("MVS0", "MVS"), fault.Corrupted, "removing"},
		"removing a topic":    {edit("MVS0", "MVRZ"), fault.Corrupted, "removing"},
	} {
		t.Run(name, func(t *testing.T) {
			eng := openMem(t)
			b := mustStart(t, eng)
			if _, err := b.Create("orders", Config{}); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(b.produce("orders", 1), b.stop()); err != nil {
				t.Fatal(err)
			}
			before := logs(t, eng)
			if err := eng.StoreMeta(metaName, []byte(c.blob)); err != nil {
				t.Fatal(err)
			}
			_, err := start(t, eng)
			wantFault(t, "open", err, c.code, c.field)
			if after := logs(t, eng); !slices.Equal(before, after) {
				t.Errorf("logs %v became %v", before, after)
			}
			if blob, err := eng.LoadMeta(metaName); err != nil || string(blob) != c.blob {
				t.Errorf("the blob is now %q, %v", blob, err)
			}
		})
	}
}

// Logs without a catalogue are somebody's data: no new catalogue is put above
// them.
func TestMissingCatalogueIsRefused(t *testing.T) {
	eng := openMem(t)
	l, err := eng.OpenLog(storage.PartitionID{Topic: newID()}, storage.LogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = start(t, eng)
	wantFault(t, "open", err, fault.Corrupted, "topics")
	if _, err := eng.LoadMeta(metaName); !errors.Is(err, fault.NotFound) || len(logs(t, eng)) != 1 {
		t.Errorf("something was changed: %v", err)
	}
}

func TestStrayLogsAreLeftAlone(t *testing.T) {
	eng := openMem(t)
	b := mustStart(t, eng)
	if _, err := b.Create("orders", Config{Partitions: 1}); err != nil {
		t.Fatal(err)
	}
	orders, _ := b.Lookup("orders")
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	// One of an unknown topic, and one beyond the partitions of a known one.
	for _, id := range []storage.PartitionID{{Topic: newID(), Index: 7}, {Topic: orders.ID, Index: 1}} {
		l, err := eng.OpenLog(id, storage.LogOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		b := mustStart(t, eng)
		if !slices.Contains(logs(t, eng), id) || !strings.Contains(b.log.String(), id.String()) {
			t.Errorf("log %v: %v; the broker said %q", id, logs(t, eng), b.log.String())
		}
		if err := b.stop(); err != nil {
			t.Fatal(err)
		}
	}
}

// A topic of which one partition cannot be opened is not created, and leaves no
// logs behind.
func TestFailedCreateLeavesNothing(t *testing.T) {
	eng := &wrapped{Engine: openMem(t)}
	b := mustStart(t, eng)
	if _, err := b.Create("kept", Config{}); err != nil {
		t.Fatal(err)
	}
	eng.openLog = func(id storage.PartitionID) error {
		if id.Index == 2 {
			return fault.New(fault.ResourceExhausted, "open log").WithField("descriptors")
		}
		return nil
	}
	_, err := b.Create("orders", Config{Partitions: 4})
	wantFault(t, "create", err, fault.ResourceExhausted, "descriptors")
	if !slices.Equal(b.names(), []string{"kept"}) || len(logs(t, eng)) != 2 {
		t.Errorf("topics %v, %d logs", b.names(), len(logs(t, eng)))
	}
	// Nor is one whose catalogue cannot be written.
	eng.openLog = nil
	eng.storeMeta = func() error { return fault.New(fault.StorageFailed, "store") }
	_, err = b.Create("orders", Config{Partitions: 4})
	wantFault(t, "create", err, fault.StorageFailed, "")
	if _, err := b.Lookup("orders"); !errors.Is(err, fault.NotFound) || len(logs(t, eng)) != 2 {
		t.Errorf("look up: %v, %d logs", err, len(logs(t, eng)))
	}
	limit := int64(5000)
	_, err = b.Alter("kept", Change{RetentionMs: &limit})
	wantFault(t, "alter", err, fault.StorageFailed, "")
	err = b.Delete("kept", func(*Topic) { t.Error("told of a topic that stays") })
	wantFault(t, "delete", err, fault.StorageFailed, "")
	kept, err := b.Lookup("kept")
	if err != nil || kept.Config().RetentionMs != Unlimited || kept.Partitions[0].Closed() {
		t.Errorf("after changes that were not written: %+v, %v", kept, err)
	}
	eng.storeMeta = nil
	if _, err := b.Create("orders", Config{Partitions: 4}); err != nil || len(logs(t, eng)) != 6 {
		t.Errorf("create: %v", err)
	}
}

// A log that has failed cannot be closed well. That is no reason to keep it when
// its topic is deleted.
func TestFailedLogsCanBeDeleted(t *testing.T) {
	eng := &wrapped{Engine: openMem(t)}
	b := mustStart(t, eng)
	if _, err := b.Create("orders", Config{}); err != nil {
		t.Fatal(err)
	}
	eng.closeLog = fault.New(fault.StorageFailed, "close log")
	if err := b.Delete("orders", func(*Topic) {}); err != nil || len(logs(t, eng)) != 0 {
		t.Errorf("delete: %v, %d logs", err, len(logs(t, eng)))
	}
	eng.closeLog = nil
	if blob, err := eng.LoadMeta(metaName); err != nil || strings.Contains(string(blob), "removing") {
		t.Errorf("%s, %v", blob, err)
	}
}

// A catalogue one of whose topics cannot be opened is not opened, and all it
// did open is closed again.
func TestOpenFailsWhole(t *testing.T) {
	eng := &wrapped{Engine: openMem(t)}
	b := mustStart(t, eng)
	for _, name := range []string{"a", "b", "c"} {
		if _, err := b.Create(name, Config{}); err != nil {
			t.Fatal(err)
		}
	}
	last, _ := b.Lookup("c")
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	eng.openLog = func(id storage.PartitionID) error {
		if id.Topic == last.ID && id.Index == 1 {
			return fault.New(fault.StorageFailed, "open log")
		}
		return nil
	}
	if _, err := start(t, eng); !errors.Is(err, fault.StorageFailed) || !strings.Contains(err.Error(), `"c"`) {
		t.Errorf("open: %v", err)
	}
	eng.openLog = nil
	b = mustStart(t, eng) // a log still open could not be opened again
	if len(b.names()) != 3 || len(logs(t, eng)) != 6 {
		t.Errorf("topics %v", b.names())
	}
}

func TestClosedCatalogueTakesNoChanges(t *testing.T) {
	eng := openMem(t)
	b := mustStart(t, eng)
	if _, err := b.Create("orders", Config{}); err != nil {
		t.Fatal(err)
	}
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	_, create := b.Create("more", Config{})
	_, alter := b.Alter("orders", Change{})
	for what, err := range map[string]error{"create": create, "alter": alter, "delete": b.Delete("orders", nil)} {
		wantFault(t, what, err, fault.Closed, "")
	}
	if err := b.Retain(time.Now()); err != nil {
		t.Errorf("retain: %v", err)
	}
	if err := b.Catalogue.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
	if len(logs(t, eng)) != 2 {
		t.Error("a log was made or removed")
	}
}

func TestRetainAppliesToEveryTopic(t *testing.T) {
	b := mustStart(t, openMem(t))
	for name, keep := range map[string]int64{"short": 1, "long": Unlimited} {
		if _, err := b.Create(name, Config{Partitions: 1, RetentionBytes: keep, SegmentBytes: SegmentBytesMin}); err != nil {
			t.Fatal(err)
		}
		if err := b.produce(name, 700); err != nil { // more than a block of memlog
			t.Fatal(err)
		}
	}
	if err := b.Retain(time.Now()); err != nil {
		t.Fatal(err)
	}
	start := func(name string) message.Offset {
		topic, err := b.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		return topic.Partitions[0].Start()
	}
	if start("short") == 0 || start("long") != 0 {
		t.Errorf("logs start at %d and %d", start("short"), start("long"))
	}
	// An altered retention holds from then on.
	little := int64(1)
	if _, err := b.Alter("long", Change{RetentionBytes: &little}); err != nil {
		t.Fatal(err)
	}
	if err := b.Retain(time.Now()); err != nil || start("long") == 0 {
		t.Errorf("retain: %v, log starts at %d", err, start("long"))
	}
}

// Topics come and go while others are looked up, written to and trimmed.
func TestConcurrentChanges(t *testing.T) {
	b := mustStart(t, openMem(t))
	if _, err := b.Create("steady", Config{}); err != nil {
		t.Fatal(err)
	}
	var wg, rest sync.WaitGroup
	stop := make(chan struct{})
	running := func() bool {
		select {
		case <-stop:
			return false
		default:
			return true
		}
	}
	rest.Go(func() {
		for running() {
			if err := b.produce("steady", 1); err != nil {
				t.Error(err)
				return
			}
			if err := b.Retain(time.Now()); err != nil {
				t.Error(err)
			}
		}
	})
	rest.Go(func() {
		for running() {
			for _, topic := range b.List() {
				for _, p := range topic.Partitions {
					runs, err := p.Read(p.Start(), 1<<10, nil)
					if err != nil && !errors.Is(err, fault.Closed) && !errors.Is(err, fault.OutOfRange) {
						t.Error(err)
					}
					for i := range runs {
						runs[i].Release()
					}
				}
			}
		}
	})
	for i := range 4 {
		wg.Go(func() {
			name := fmt.Sprint("t", i)
			for range 30 {
				if _, err := b.Create(name, Config{Partitions: 2}); err != nil {
					t.Error(err)
				}
				if err := b.Delete(name, func(*Topic) {}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	rest.Wait()
	if len(b.names()) != 1 || len(logs(t, b.eng)) != 2 || b.view.Load().open != 2 {
		t.Errorf("topics %v, %d logs", b.names(), len(logs(t, b.eng)))
	}
}

var _ partition.Sink = (*broker)(nil)
