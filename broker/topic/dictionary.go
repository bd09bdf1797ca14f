package topic

import (
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/partition"
	"github.com/portask/portask/broker/storage"
	"github.com/portask/portask/broker/wire"
)

// Compression dictionaries of a topic: which there are is in the catalogue, the
// bytes are a blob each in the engine's metadata, named dict-<topic id>-<id>. A
// blob is stored before the catalogue names it and removed after the catalogue
// has ceased to; in between, and after a crash in between, the catalogue names
// it as spent.
//
// A dictionary is needed as long as a log holds a batch that was compressed with
// it. The broker does not open batches, but it looks at the header of their zstd
// frame when they come (Topic.UsesDictionary), refuses those nobody could read,
// and so knows when each dictionary was used last: not before it was started, as
// far as it knows nothing better. What is younger than that does not need it.

// Limits of dictionaries.
const (
	DictionariesMax    = 8 // of one topic
	DictionaryBytesMax = wire.MaxDictionaryBytes
	// retiredMax bounds what is remembered of dictionaries that went.
	retiredMax = 256
	// idleMin is for how long a dictionary was not used when it goes. Producers
	// may still have batches that were compressed with the one before the
	// active; an event loop takes far less time from looking at a batch to its
	// offset.
	idleMin = time.Minute
)

// Dictionary describes one dictionary of a topic.
type Dictionary struct {
	ID      uint32
	Bytes   int
	AddedUs int64
}

// dictionary is a Dictionary and its last use. It is the same value in each
// version of the set.
type dictionary struct {
	Dictionary
	sum    uint32       // CRC32C of the bytes
	used   atomic.Int64 // µs since 1970; 0 = never
	closed atomic.Bool  // about to go: no batch is taken with it
}

// dictionaries are those of one topic, immutable but for the times of use.
type dictionaries struct {
	all     []*dictionary // oldest first
	active  uint32        // what producers are advised to use; 0 = none
	retired []storedRetired
}

func (s *dictionaries) find(id uint32) *dictionary {
	for _, d := range s.all {
		if d.ID == id {
			return d
		}
	}
	return nil
}

// with returns the set with d as the newest and active, and without drop.
func (s *dictionaries) with(d, drop *dictionary) *dictionaries {
	n := &dictionaries{active: d.ID, retired: s.retired}
	for _, x := range s.all {
		if x != drop {
			n.all = append(n.all, x)
		}
	}
	if drop != nil {
		n.retired = append(slices.Clone(s.retired), storedRetired{drop.ID, drop.sum})
		n.retired = n.retired[max(0, len(n.retired)-retiredMax):]
	}
	n.all = append(n.all, d)
	return n
}

func (s *dictionaries) names(topic ulid.ULID) (names []string) {
	for _, d := range s.all {
		names = append(names, DictionaryName(topic, d.ID))
	}
	return names
}

// DictionaryPrefix begins the names of dictionaries in the engine's metadata.
const DictionaryPrefix = "dict-"

// DictionaryName is the name of the blob that holds a dictionary, in the engine's
// metadata.
func DictionaryName(topic ulid.ULID, id uint32) string {
	return fmt.Sprintf("%s%s-%08x", DictionaryPrefix, strings.ToLower(topic.String()), id)
}

// isDictionaryName keeps a damaged catalogue from naming anything else for
// removal.
func isDictionaryName(name string) bool {
	return strings.HasPrefix(name, DictionaryPrefix) && storage.CheckMetaName(name) == nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// removeSpent removes blobs that the catalogue has named as spent, and returns
// those that could not be.
func (c *Catalogue) removeSpent(names []string) (left []string) {
	for _, name := range names {
		if err := c.opts.Engine.RemoveMeta(name); err != nil && !errors.Is(err, fault.NotFound) {
			c.opts.Logger.Warn("a dictionary that is not needed any more cannot be removed yet", "name", name, "err", err)
			left = append(left, name)
		}
	}
	return left
}

// Dictionaries returns the topic's dictionaries, oldest first, and the id of the
// one that producers are advised to use, 0 for none.
func (t *Topic) Dictionaries() (active uint32, all []Dictionary) {
	set := t.dicts.Load()
	for _, d := range set.all {
		all = append(all, d.Dictionary)
	}
	return set.active, all
}

// ActiveDictionary returns the id of the dictionary that producers are advised
// to use, 0 for none.
func (t *Topic) ActiveDictionary() uint32 { return t.dicts.Load().active }

// UsesDictionary reports whether the topic has the dictionary with the id, for a
// batch that is about to be stored, and notes that it is used now (µs since
// 1970). Append times never go backwards, clocks do: if the batch is then given
// a later time, that is a use too, to be noted by another call. It does not lock.
func (t *Topic) UsesDictionary(id uint32, now int64) bool {
	d := t.dicts.Load().find(id)
	if d == nil {
		return false
	}
	for last := d.used.Load(); last < now && !d.used.CompareAndSwap(last, now); last = d.used.Load() {
	}
	// Whoever drops it closes it first and then looks at the last use: either he
	// sees this one, or it is closed now.
	return !d.closed.Load()
}

// LoadDictionary returns the bytes of a topic's dictionary.
//
// Errors: fault.NotFound for the topic and the dictionary, both named, and the
// engine's.
func (c *Catalogue) LoadDictionary(name string, id uint32) ([]byte, error) {
	t, err := c.Lookup(name)
	if err != nil {
		return nil, err
	}
	d := t.dicts.Load().find(id)
	if d == nil {
		return nil, errNoDictionary("load dictionary", name, id)
	}
	b, err := c.opts.Engine.LoadMeta(DictionaryName(t.ID, id))
	switch {
	case errors.Is(err, fault.NotFound):
		return nil, errNoDictionary("load dictionary", name, id)
	case err != nil:
		return nil, fmt.Errorf("load dictionary %08x of topic %q: %w", id, name, err)
	case len(b) != d.Bytes || crc32.Checksum(b, castagnoli) != d.sum:
		return nil, fault.New(fault.Corrupted, "load dictionary").WithField("dictionary").
			WithDetail("what is stored as dictionary %08x of topic %q is not what was added", id, name)
	}
	return b, nil
}

func errNoDictionary(op, topic string, id uint32) error {
	return fault.New(fault.NotFound, op).WithField("dictionary").
		WithDetail("topic %q has no dictionary %08x", topic, id).With("topic", topic).With("dictionary", id)
}

// AddDictionary gives a topic a dictionary, which becomes the active one; on
// return it survives a crash. b is a dictionary with the id, as its caller has
// made sure of. To add what is there already, under its id, is to use it.
//
// Errors, besides the engine's: fault.NotFound; fault.TooLarge; fault.Exists if
// other bytes have or had the id; fault.ResourceExhausted if the topic has
// DictionariesMax and the oldest may still be needed; fault.Closed.
func (c *Catalogue) AddDictionary(name string, id uint32, b []byte) (*Topic, error) {
	const op = "add dictionary"
	if n := len(b); n > DictionaryBytesMax {
		return nil, fault.New(fault.TooLarge, op).WithField("dictionary").WithLimit(int64(n), DictionaryBytesMax)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.errClosed(op); err != nil {
		return nil, err
	}
	t, err := c.Lookup(name)
	if err != nil {
		return nil, err
	}
	set, sum := t.dicts.Load(), crc32.Checksum(b, castagnoli)
	taken := slices.ContainsFunc(set.retired, func(r storedRetired) bool { return r.ID == id && r.Sum != sum })
	if d := set.find(id); d != nil {
		if d.sum == sum && d.Bytes == len(b) {
			return t, c.activate(t, id)
		}
		taken = true
	}
	if taken {
		return nil, fault.New(fault.Exists, op).WithField("dictionary").
			WithDetail("topic %q has or had another dictionary %08x; a reader could not tell them apart", name, id)
	}
	var drop *dictionary
	if len(set.all) >= DictionariesMax {
		if drop, err = c.dropOldest(t, set); err != nil {
			return nil, err
		}
	}
	now := time.Now().UnixMicro()
	d := &dictionary{Dictionary: Dictionary{id, len(b), now}, sum: sum}
	if err := c.addDictionary(t, set.with(d, drop), DictionaryName(t.ID, id), b, drop); err != nil {
		if drop != nil {
			drop.closed.Store(false)
		}
		return nil, err
	}
	return t, nil
}

// addDictionary makes n the set of t. mu is held.
func (c *Catalogue) addDictionary(t *Topic, n *dictionaries, name string, b []byte, drop *dictionary) error {
	old := c.view.Load()
	v := old.clone()
	v.spent = append(slices.DeleteFunc(v.spent, func(s string) bool { return s == name }), name)
	if err := c.replace(old, v); err != nil {
		return err
	}
	if err := c.opts.Engine.StoreMeta(name, b); err != nil {
		return fmt.Errorf("store dictionary of topic %q: %w", t.Name, err)
	}
	before := t.dicts.Load()
	done := v.clone()
	done.spent = slices.DeleteFunc(done.spent, func(s string) bool { return s == name })
	if drop != nil {
		done.spent = append(done.spent, DictionaryName(t.ID, drop.ID))
	}
	t.dicts.Store(n)
	if err := c.store(done); err != nil {
		t.dicts.Store(before) // for what is stored again
		return errors.Join(err, c.store(v))
	}
	// What is spent now stays in the stored catalogue until the next change of it,
	// or the next start, finds it gone.
	done.spent = c.removeSpent(done.spent)
	c.view.Store(done)
	return nil
}

// dropOldest closes and returns the oldest dictionary of t's set that is not
// active, if no log needs it. mu is held.
func (c *Catalogue) dropOldest(t *Topic, set *dictionaries) (*dictionary, error) {
	i := slices.IndexFunc(set.all, func(d *dictionary) bool { return d.ID != set.active })
	d := set.all[i]
	d.closed.Store(true)
	why, err := d.needed(t, time.Now())
	if err == nil && why == "" {
		return d, nil
	}
	d.closed.Store(false)
	if err != nil {
		return nil, err
	}
	return nil, fault.New(fault.ResourceExhausted, "add dictionary").WithField("dictionaries").
		WithDetail("dictionary %08x, the oldest of topic %q that is not in use, may still be needed: %s", d.ID, t.Name, why).
		WithLimit(DictionariesMax+1, DictionariesMax)
}

// needed says why d may still be needed to read what t holds; empty if it is
// not.
func (d *dictionary) needed(t *Topic, now time.Time) (why string, err error) {
	used := d.used.Load()
	if used == 0 {
		return "", nil
	}
	last := time.UnixMicro(used)
	if now.Sub(last) < idleMin {
		return "a batch may have come with it less than " + idleMin.String() + " ago", nil
	}
	for _, p := range t.Partitions {
		us, some, err := firstAppend(p)
		if err != nil {
			return "", fmt.Errorf("look at %s/%d: %w", t.Name, p.Index(), err)
		}
		if some && us <= used {
			return fmt.Sprintf("partition %d holds batches from before %s", p.Index(), last.UTC().Format(time.RFC3339)), nil
		}
	}
	return "", nil
}

// openedDictionaries notes that whatever t's logs hold may need its dictionaries:
// nobody knows what used them before, and the clock may have been set back since.
func (t *Topic) openedDictionaries() {
	set := t.dicts.Load()
	if len(set.all) == 0 {
		return
	}
	last := time.Now().UnixMicro()
	for _, p := range t.Partitions {
		last = max(last, p.LastAppend())
	}
	for _, d := range set.all {
		d.used.Store(last)
	}
}

// firstAppend returns when the oldest batch of p was appended; some is false if
// it has none. A batch that cannot be seen yet counts as appended at the
// beginning of time.
func firstAppend(p *partition.Partition) (us int64, some bool, err error) {
	m := p.Marks()
	if m.Start >= m.Written {
		return 0, false, nil
	}
	runs, err := p.Read(m.Start, 1, nil)
	if err != nil {
		if c := fault.CodeOf(err); c == fault.Corrupted || c == fault.OutOfRange {
			return 0, true, nil // damaged, or just removed: ask again later
		}
		return 0, false, err
	}
	for i := range runs {
		defer runs[i].Release()
	}
	if len(runs) == 0 {
		return 0, true, nil
	}
	head := make([]byte, message.EnvelopeBytes)
	if r := &runs[0]; r.Mem != nil {
		copy(head, r.Mem)
	} else if _, err := r.File.ReadAt(head, r.Pos); err != nil {
		return 0, false, fault.New(fault.StorageFailed, "read batch").WithCause(err)
	}
	e, err := message.ParseEnvelope(head, nil)
	if err != nil {
		return 0, true, nil // as damaged
	}
	return e.AppendTime, true, nil
}

// UseDictionary makes one of a topic's dictionaries the active one, or none with
// id 0. Errors are those of AddDictionary.
func (c *Catalogue) UseDictionary(name string, id uint32) (*Topic, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.errClosed("use dictionary"); err != nil {
		return nil, err
	}
	t, err := c.Lookup(name)
	if err != nil {
		return nil, err
	}
	if id != 0 && t.dicts.Load().find(id) == nil {
		return nil, errNoDictionary("use dictionary", name, id)
	}
	return t, c.activate(t, id)
}

// activate makes id the active dictionary of t. mu is held.
func (c *Catalogue) activate(t *Topic, id uint32) error {
	old := t.dicts.Load()
	if old.active == id {
		return nil
	}
	n := *old
	n.active = id
	t.dicts.Store(&n)
	v := c.view.Load()
	if err := c.store(v); err != nil {
		t.dicts.Store(old)
		return errors.Join(err, c.store(v))
	}
	return nil
}
