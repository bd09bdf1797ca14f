package topic

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/message/id"
	"github.com/portask/portask/broker/partition"
	"github.com/portask/portask/broker/storage"
	"github.com/portask/portask/broker/wire"
)

// Topic is one topic. Name, ID, CreatedUs and Partitions are immutable.
type Topic struct {
	Name       string
	ID         ulid.ULID
	CreatedUs  int64
	Partitions []*partition.Partition
	config     atomic.Pointer[Config]
	dicts      atomic.Pointer[dictionaries] // stored under Catalogue.mu; see dictionary.go
	fanOut     atomic.Uint32                // as CountFanOut found it
}

// FanOut is how many subscriptions follow each partition, on average, rounded up,
// when CountFanOut looked last.
func (t *Topic) FanOut() uint16 { return uint16(t.fanOut.Load()) }

// CountFanOut counts the subscriptions of t's partitions and reports whether
// FanOut is another now.
func (t *Topic) CountFanOut() bool {
	sum := 0
	for _, p := range t.Partitions {
		sum += max(p.Followers(), 0)
	}
	n := uint32(0)
	if k := len(t.Partitions); k > 0 {
		n = uint32(min((sum+k-1)/k, math.MaxUint16))
	}
	return t.fanOut.Swap(n) != n
}

// Config returns the settings in force.
func (t *Topic) Config() Config { return *t.config.Load() }

// Options of a catalogue; Engine, Sink and Committer are needed, and the
// partitions and segment size of Defaults. No Logger is silence.
type Options struct {
	Engine    storage.Engine
	Sink      partition.Sink
	Committer *partition.Committer
	Defaults  Config
	Limits    message.Limits
	Logger    *slog.Logger
}

// Catalogue holds the topics. Lookups are lock-free; changes are one at a time
// and write to the disk, so they do not belong on an event loop.
type Catalogue struct {
	opts     Options
	defaults atomic.Pointer[Config]
	view     atomic.Pointer[view] // stored under mu

	mu     sync.Mutex // held over a whole change, its writing included
	closed bool       // guarded by mu
}

// view is an immutable picture of the catalogue.
type view struct {
	byName map[string]*Topic
	parts  []*partition.Partition // by Num; nil where a topic was deleted
	open   int
	id     ulid.ULID // the cluster's
	// removing are deleted topics whose logs may still be there. Only what is
	// named here is ever removed at start: a log the catalogue does not know is
	// left alone, since the catalogue may be what is wrong.
	removing []ulid.ULID
	// spent are names of metadata that may be there and must not stay, as
	// removing is for logs.
	spent []string
}

// Open loads the catalogue and opens every partition, several at a time. Logs of
// a topic whose deletion a crash cut short are removed; a log that belongs to no
// topic is reported and left alone.
//
// Errors, besides the engine's: fault.NewerFormat, and fault.Corrupted for a
// catalogue that is damaged, or missing where there are logs. Nothing is changed
// or removed then.
func Open(o Options) (*Catalogue, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Catalogue{opts: o}
	c.SetDefaults(o.Defaults)
	v := &view{byName: map[string]*Topic{}}
	blob, err := o.Engine.LoadMeta(metaName)
	var st stored
	switch {
	case errors.Is(err, fault.NotFound):
		st = stored{Version: metaVersion, Cluster: id.New().String()}
		logs, err := o.Engine.ListLogs()
		if err != nil {
			return nil, fmt.Errorf("open catalogue: %w", err)
		}
		if len(logs) > 0 {
			return nil, fault.New(fault.Corrupted, "open catalogue").WithField("topics").
				WithDetail("the engine holds %d logs but no catalogue; nothing was changed", len(logs))
		}
	case err != nil:
		return nil, fmt.Errorf("open catalogue: %w", err)
	default:
		if err := json.Unmarshal(blob, &st); err != nil || st.Version > metaVersion {
			return nil, refuse(blob, err)
		}
	}
	all, known, removing, err := st.check()
	if err != nil {
		return nil, err
	}
	v.id = ulid.MustParseStrict(st.Cluster)
	v.spent = c.removeSpent(st.Spent)
	if err := c.finishRemovals(known, removing); err != nil {
		return nil, err
	}
	for _, t := range all {
		if err := c.openPartitions(t, len(v.parts)); err != nil {
			return nil, errors.Join(err, c.closeAll(v))
		}
		t.openedDictionaries()
		v.byName[t.Name] = t
		v.parts = append(v.parts, t.Partitions...)
		v.open += len(t.Partitions)
	}
	c.view.Store(v)
	if blob == nil {
		if err := c.store(v); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *Catalogue) finishRemovals(known map[storage.PartitionID]bool, removing map[ulid.ULID]bool) error {
	logs, err := c.opts.Engine.ListLogs()
	if err != nil {
		return fmt.Errorf("open catalogue: %w", err)
	}
	there := make(map[storage.PartitionID]bool, len(logs))
	for _, id := range logs {
		there[id] = true
	}
	for id := range known { // made before their topic was stored
		if !there[id] {
			c.opts.Logger.Error("the log of a partition is missing: it begins again at offset 0", "log", id.String())
		}
	}
	for _, id := range logs {
		switch {
		case known[id]:
		case removing[id.Topic]:
			if err := c.opts.Engine.RemoveLog(id); err != nil {
				return fmt.Errorf("remove log %s of a deleted topic: %w", id, err)
			}
		default:
			c.opts.Logger.Warn("a log belongs to no topic and is left alone", "log", id.String())
		}
	}
	return nil
}

// openPartitions opens the logs of t, at most eight at once.
func (c *Catalogue) openPartitions(t *Topic, num int) error {
	cfg := t.Config()
	t.Partitions = make([]*partition.Partition, cfg.Partitions)
	errs := make([]error, cfg.Partitions)
	inParallel(len(t.Partitions), func(i int) {
		t.Partitions[i], errs[i] = partition.Open(c.opts.Engine, partition.Options{
			ID: storage.PartitionID{Topic: t.ID, Index: uint32(i)}, Topic: t.Name, Num: uint32(num + i),
			Visibility: cfg.Visibility, Sink: c.opts.Sink, Committer: c.opts.Committer,
		}, storage.LogOptions{SegmentBytes: cfg.SegmentBytes, Limits: c.opts.Limits})
	})
	if err := fault.Collect(fmt.Sprintf("open topic %q", t.Name), "partition", errs); err != nil {
		for _, p := range t.Partitions {
			if p != nil {
				err = errors.Join(err, p.Close(context.Background()))
			}
		}
		return err
	}
	t.applyRetention()
	return nil
}

// applyRetention hands the topic's retention to its partitions.
func (t *Topic) applyRetention() {
	cfg := t.Config()
	for _, p := range t.Partitions {
		p.SetRetention(cfg.Retention())
	}
}

func (c *Catalogue) closeAll(v *view) error {
	errs := make([]error, len(v.parts))
	inParallel(len(v.parts), func(i int) {
		if p := v.parts[i]; p != nil {
			errs[i] = p.Close(context.Background())
		}
	})
	return errors.Join(errs...)
}

// inParallel runs f(0) to f(n-1), at most eight at once: opening and closing
// logs waits for the disk, which serves several better than one.
func inParallel(n int, f func(i int)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, 8)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			f(i)
			<-slots
		})
	}
	wg.Wait()
}

// store writes the picture v to the engine.
func (c *Catalogue) store(v *view) error {
	st := stored{Cluster: v.id.String(), Spent: v.spent}
	for _, t := range v.sorted() {
		st.Topics = append(st.Topics, storedTopic{Name: t.Name, ID: t.ID.String(), CreatedUs: t.CreatedUs, Config: t.Config(), storedData: t.data()})
	}
	st.Version = st.least()
	for _, id := range v.removing {
		st.Removing = append(st.Removing, id.String())
	}
	blob, err := json.MarshalIndent(&st, "", " ")
	if err != nil {
		return fmt.Errorf("store catalogue: %w", err)
	}
	if err := c.opts.Engine.StoreMeta(metaName, blob); err != nil {
		return fmt.Errorf("store catalogue: %w", err)
	}
	return nil
}

func (v *view) sorted() []*Topic {
	ts := make([]*Topic, 0, len(v.byName))
	for _, t := range v.byName {
		ts = append(ts, t)
	}
	slices.SortFunc(ts, func(a, b *Topic) int { return strings.Compare(a.Name, b.Name) })
	return ts
}

func (v *view) clone() *view {
	n := &view{byName: make(map[string]*Topic, len(v.byName)+1), parts: slices.Clone(v.parts), open: v.open, id: v.id, removing: slices.Clone(v.removing), spent: slices.Clone(v.spent)}
	for k, t := range v.byName {
		n.byName[k] = t
	}
	return n
}

// SetDefaults replaces the settings that new topics get where they name none.
// Topics that are there keep theirs. As in Options, the partitions and the segment
// size must be set.
func (c *Catalogue) SetDefaults(d Config) { c.defaults.Store(&d) }

// ClusterID is made when the data directory is.
func (c *Catalogue) ClusterID() string { return c.view.Load().id.String() }

// Lookup finds a topic by name; fault.NotFound.
func (c *Catalogue) Lookup(name string) (*Topic, error) {
	if t := c.view.Load().byName[name]; t != nil {
		return t, nil
	}
	if err := message.CheckTopicName("look up topic", name); err != nil {
		return nil, err
	}
	return nil, fault.New(fault.NotFound, "look up topic").WithField("topic").WithDetail("topic %q does not exist", name)
}

// Partition finds a partition of a topic.
func (t *Topic) Partition(index uint32) (*partition.Partition, error) {
	if index >= uint32(len(t.Partitions)) {
		return nil, fault.New(fault.NotFound, "look up partition").WithField("partition").
			WithDetail("topic %q has partitions 0 to %d", t.Name, len(t.Partitions)-1).WithLimit(int64(index), int64(len(t.Partitions)-1))
	}
	return t.Partitions[index], nil
}

// List returns all topics in order of their names.
func (c *Catalogue) List() []*Topic { return c.view.Load().sorted() }

// ByNum returns the partition with the dense number, or nil.
func (c *Catalogue) ByNum(n uint32) *partition.Partition {
	if parts := c.view.Load().parts; int(n) < len(parts) {
		return parts[n]
	}
	return nil
}

// Nums is the exclusive end of the dense numbers given out.
func (c *Catalogue) Nums() int { return len(c.view.Load().parts) }

// Create makes a topic; on return it survives a crash. After an error of the
// engine there is no such topic now, and probably none after a restart either: a
// catalogue that could not be written may have reached the disk all the same.
//
// Errors, besides the engine's: those of message.CheckTopicName; fault.Invalid,
// fault.TooLarge and fault.LevelUnavailable for settings; fault.Exists;
// fault.ResourceExhausted when the broker has too many topics or partitions;
// fault.Closed.
func (c *Catalogue) Create(name string, cfg Config) (*Topic, error) {
	if err := message.CheckTopicName("create topic", name); err != nil {
		return nil, err
	}
	cfg, err := cfg.complete(*c.defaults.Load(), c.opts.Engine)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.errClosed("create topic"); err != nil {
		return nil, err
	}
	v := c.view.Load()
	if v.byName[name] != nil {
		return nil, fault.New(fault.Exists, "create topic").WithField("topic").WithDetail("topic %q exists", name)
	}
	if len(v.byName) >= TopicsMax {
		return nil, fault.New(fault.ResourceExhausted, "create topic").WithField("topics").WithLimit(int64(len(v.byName)+1), TopicsMax)
	}
	if v.open+int(cfg.Partitions) > AllPartitionsMax {
		return nil, fault.New(fault.ResourceExhausted, "create topic").WithField("partitions").
			WithDetail("all topics together").WithLimit(int64(v.open)+int64(cfg.Partitions), AllPartitionsMax)
	}
	t := &Topic{Name: name, ID: id.New(), CreatedUs: time.Now().UnixMicro()}
	t.config.Store(&cfg)
	t.dicts.Store(new(dictionaries))
	if err := c.openPartitions(t, len(v.parts)); err != nil {
		return nil, errors.Join(err, c.discard(t))
	}
	n := v.clone()
	n.byName[name] = t
	n.parts = append(n.parts, t.Partitions...)
	n.open += len(t.Partitions)
	if err := c.replace(v, n); err != nil {
		return nil, errors.Join(err, c.discard(t))
	}
	return t, nil
}

// replace makes n the catalogue in place of v. If that fails it tries to write v
// again, since nobody knows which of the two the engine has; what it has then is
// v, unless this fails too.
func (c *Catalogue) replace(v, n *view) error {
	if err := c.store(n); err != nil {
		return errors.Join(err, c.store(v))
	}
	c.view.Store(n)
	return nil
}

func (c *Catalogue) errClosed(op string) error {
	if c.closed {
		return fault.New(fault.Closed, op).WithDetail("the catalogue is closed")
	}
	return nil
}

// discard closes and removes the logs of a topic that is not in the catalogue.
// What closing says does not matter: that a failed log cannot be synced is no
// reason to keep it.
func (c *Catalogue) discard(t *Topic) error {
	var errs []error
	for i, p := range t.Partitions {
		var closing error
		if p != nil {
			closing = p.Close(context.Background())
		}
		err := c.opts.Engine.RemoveLog(storage.PartitionID{Topic: t.ID, Index: uint32(i)})
		if err != nil && !errors.Is(err, fault.NotFound) {
			errs = append(errs, closing, err)
		}
	}
	return errors.Join(errs...)
}

// Change names the settings that Alter sets; nil keeps one.
type Change struct {
	RetentionMs, RetentionBytes, SegmentBytes *int64
	Compression                               *wire.Choice[message.Algorithm]
	Level                                     *wire.Choice[uint8]
	Encoding                                  *wire.Choice[message.Encoding]
	Strategy                                  *wire.Choice[uint8]
}

// Alter changes settings of a topic. Its partitions and its visibility are for
// life: the one decides where keys go, the other what readers were promised. A
// new segment size holds from the next open. Errors are those of Create, and
// fault.NotFound.
func (c *Catalogue) Alter(name string, ch Change) (*Topic, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.errClosed("alter topic"); err != nil {
		return nil, err
	}
	t, err := c.Lookup(name)
	if err != nil {
		return nil, err
	}
	old := t.Config()
	cfg := old
	for _, f := range []struct{ dst, src *int64 }{{&cfg.RetentionMs, ch.RetentionMs}, {&cfg.RetentionBytes, ch.RetentionBytes}, {&cfg.SegmentBytes, ch.SegmentBytes}} {
		if f.src != nil {
			*f.dst = *f.src
		}
	}
	if ch.Compression != nil {
		cfg.Compression = *ch.Compression
	}
	if ch.Level != nil {
		cfg.Level = *ch.Level
	}
	if ch.Encoding != nil {
		cfg.Encoding = *ch.Encoding
	}
	if ch.Strategy != nil {
		cfg.Strategy = *ch.Strategy
	}
	if cfg, err = cfg.complete(*c.defaults.Load(), c.opts.Engine); err != nil {
		return nil, err
	}
	t.config.Store(&cfg)
	v := c.view.Load()
	if err := c.store(v); err != nil {
		t.config.Store(&old)
		return nil, errors.Join(err, c.store(v))
	}
	t.applyRetention()
	return t, nil
}

// Delete removes a topic: first from the catalogue, then its logs, so that a
// crash in between leaves logs that the catalogue names as to be removed, which
// the next Open does. gone is called when the topic can no longer be found and
// takes no more batches, and before its logs go.
//
// After an error that comes before gone was called the topic is still there;
// after a later one it is gone, and what is left of its logs goes at the next
// Open.
func (c *Catalogue) Delete(name string, gone func(*Topic)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.errClosed("delete topic"); err != nil {
		return err
	}
	t, err := c.Lookup(name)
	if err != nil {
		return err
	}
	v := c.view.Load()
	n := v.clone()
	delete(n.byName, name)
	for _, p := range t.Partitions {
		n.parts[p.Num()] = nil
	}
	n.open -= len(t.Partitions)
	n.removing = append(n.removing, t.ID)
	dicts := t.dicts.Load().names(t.ID)
	n.spent = append(n.spent, dicts...)
	if err := c.replace(v, n); err != nil {
		return err
	}
	for _, p := range t.Partitions {
		_ = p.Quiesce(context.Background()) // without a deadline it cannot fail
	}
	gone(t)
	if err := c.discard(t); err != nil {
		return fmt.Errorf("delete topic %q: %w", name, err)
	}
	done := n.clone()
	done.removing = slices.DeleteFunc(done.removing, func(id ulid.ULID) bool { return id == t.ID })
	done.spent = c.removeSpent(done.spent)
	return c.replace(n, done)
}

// Retain applies every topic's retention, and lets the partitions give back
// memory that they do not need.
func (c *Catalogue) Retain(now time.Time) error {
	var errs []error
	for _, t := range c.List() {
		for _, p := range t.Partitions {
			p.Shrink()
			if _, err := p.Retain(now); err != nil {
				errs = append(errs, fmt.Errorf("retain %s/%d: %w", t.Name, p.Index(), err))
			}
		}
	}
	return errors.Join(errs...)
}

// Close closes every partition, several at a time. Batches that were admitted
// are stored and answered first.
func (c *Catalogue) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	return c.closeAll(c.view.Load())
}
