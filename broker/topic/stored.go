package topic

import (
	"encoding/json"
	"slices"

	"github.com/oklog/ulid/v2"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/storage"
	"github.com/portask/portask/broker/wire"
)

const (
	metaName = "topics"
	// metaVersion is the latest version of the catalogue. Version 2 has settings
	// of compression and encoding, and dictionaries, version 3 strategies of
	// compression; a catalogue without them is written as the version before, so
	// that brokers of that time can read it.
	metaVersion = 3
)

// stored is the catalogue's blob: JSON, since it is small, changes rarely and is
// worth reading by eye when something is wrong. The engine checksums it.
type stored struct {
	Version int           `json:"version"`
	Cluster string        `json:"cluster_id"`
	Topics  []storedTopic `json:"topics"`
	// Removing are the ids of deleted topics whose logs are not yet known gone.
	Removing []string `json:"removing,omitempty"`
	// Spent are names of blobs of dictionaries that belong to no topic: not yet,
	// or no more.
	Spent []string `json:"spent,omitempty"`
}

type storedTopic struct {
	Name      string `json:"name"`
	ID        string `json:"id"`
	CreatedUs int64  `json:"created_us"`
	Config
	storedData
}

// refuse says why a blob is no catalogue of this version. A later version may be
// anything but for the number.
func refuse(blob []byte, cause error) error {
	var head struct {
		Version int64 `json:"version"`
	}
	if json.Unmarshal(blob, &head) == nil && head.Version > metaVersion {
		return fault.New(fault.NewerFormat, "open catalogue").WithField("version").WithLimit(head.Version, metaVersion)
	}
	return fault.New(fault.Corrupted, "open catalogue").WithField("topics").WithCause(cause)
}

// check holds a catalogue that was read against its own rules, before anything
// is opened, made or removed by it. It returns the topics, their logs, and the
// topics whose logs are to be removed.
func (st *stored) check() (all []*Topic, known map[storage.PartitionID]bool, removing map[ulid.ULID]bool, err error) {
	bad := func(field string, cause error, format string, args ...any) error {
		return fault.New(fault.Corrupted, "open catalogue").WithField(field).WithDetail(format, args...).WithCause(cause)
	}
	if st.Version < 1 {
		return nil, nil, nil, bad("version", nil, "is %d", st.Version)
	}
	if _, err := ulid.ParseStrict(st.Cluster); err != nil {
		return nil, nil, nil, bad("cluster_id", err, "%.40q", st.Cluster)
	}
	if len(st.Topics) > TopicsMax {
		return nil, nil, nil, bad("topics", nil, "there are %d", len(st.Topics))
	}
	known, removing = map[storage.PartitionID]bool{}, map[ulid.ULID]bool{}
	names := map[string]bool{}
	for _, s := range st.Topics {
		id, err := ulid.ParseStrict(s.ID)
		if err != nil {
			return nil, nil, nil, bad("id", err, "of topic %.300q", s.Name)
		}
		if err := message.CheckTopicName("open catalogue", s.Name); err != nil {
			return nil, nil, nil, bad("name", err, "of topic %s", id)
		}
		if n := s.Config.Partitions; n < 1 || n > PartitionsMax || len(known)+int(n) > AllPartitionsMax {
			return nil, nil, nil, bad("partitions", nil, "%d of topic %q", n, s.Name)
		}
		if names[s.Name] || known[storage.PartitionID{Topic: id}] {
			return nil, nil, nil, bad("topics", nil, "topic %q, %s occurs twice", s.Name, id)
		}
		names[s.Name] = true
		t := &Topic{Name: s.Name, ID: id, CreatedUs: s.CreatedUs}
		cfg := s.Config
		dicts, err := s.storedData.read(&cfg)
		if err != nil {
			return nil, nil, nil, bad("topics", err, "topic %q", s.Name)
		}
		t.config.Store(&cfg)
		t.dicts.Store(dicts)
		all = append(all, t)
		for i := range cfg.Partitions {
			known[storage.PartitionID{Topic: id, Index: i}] = true
		}
	}
	for _, r := range st.Removing {
		id, err := ulid.ParseStrict(r)
		if err != nil {
			return nil, nil, nil, bad("removing", err, "%.40q", r)
		}
		if known[storage.PartitionID{Topic: id}] {
			return nil, nil, nil, bad("removing", nil, "%s is a topic", id)
		}
		removing[id] = true
	}
	for _, name := range st.Spent {
		if !isDictionaryName(name) {
			return nil, nil, nil, bad("spent", nil, "%.80q is no dictionary's", name)
		}
	}
	return all, known, removing, nil
}

// storedData is what the catalogue says of a topic since version 2.
type storedData struct {
	Compression  string             `json:"compression,omitempty"`
	Level        *uint8             `json:"compression_level,omitempty"`
	Encoding     string             `json:"encoding,omitempty"`
	Dictionaries []storedDictionary `json:"dictionaries,omitempty"`
	Active       uint32             `json:"active_dictionary,omitempty"`
	Retired      []storedRetired    `json:"retired_dictionaries,omitempty"`
	// Strategy is one of package compression, since version 3.
	Strategy *uint8 `json:"compression_strategy,omitempty"`
}

type storedDictionary struct {
	ID      uint32 `json:"id"`
	Bytes   int    `json:"bytes"`
	AddedUs int64  `json:"added_us"`
	Sum     uint32 `json:"crc32c"`
}

// storedRetired is a dictionary that is no more: its id is not given to other
// bytes, since a reader may still hold it.
type storedRetired struct {
	ID  uint32 `json:"id"`
	Sum uint32 `json:"crc32c"`
}

func (d *storedData) empty() bool {
	return d.Compression == "" && d.Level == nil && d.Encoding == "" && len(d.Dictionaries) == 0 && d.Active == 0 && len(d.Retired) == 0 && d.Strategy == nil
}

// least is the earliest version that can say what st does.
func (st *stored) least() int {
	if slices.ContainsFunc(st.Topics, func(t storedTopic) bool { return t.storedData.Strategy != nil }) {
		return 3
	}
	if len(st.Spent) > 0 || slices.ContainsFunc(st.Topics, func(t storedTopic) bool { return !t.storedData.empty() }) {
		return 2
	}
	return 1
}

// data is the stored form of t's settings and dictionaries.
func (t *Topic) data() (d storedData) {
	cfg, set := t.Config(), t.dicts.Load()
	if a, ok := cfg.Compression.Value(); ok {
		d.Compression = a.String()
	}
	if l, ok := cfg.Level.Value(); ok {
		d.Level = &l
	}
	if e, ok := cfg.Encoding.Value(); ok {
		d.Encoding = e.String()
	}
	if s, ok := cfg.Strategy.Value(); ok {
		d.Strategy = &s
	}
	for _, x := range set.all {
		d.Dictionaries = append(d.Dictionaries, storedDictionary{x.ID, x.Bytes, x.AddedUs, x.sum})
	}
	d.Active, d.Retired = set.active, set.retired
	return d
}

// read is the inverse of data.
func (d *storedData) read(cfg *Config) (*dictionaries, error) {
	if d.Compression != "" {
		a, err := message.ParseAlgorithm(d.Compression)
		if err != nil {
			return nil, err
		}
		cfg.Compression = wire.Choose(a)
	}
	if d.Level != nil {
		cfg.Level = wire.Choose(min(*d.Level, 254))
	}
	if d.Encoding != "" {
		e, err := message.ParseEncoding(d.Encoding)
		if err != nil {
			return nil, err
		}
		cfg.Encoding = wire.Choose(e)
	}
	if d.Strategy != nil {
		cfg.Strategy = wire.Choose(min(*d.Strategy, 254))
	}
	bad := func(field, format string, args ...any) error {
		return fault.New(fault.Corrupted, "read settings").WithField(field).WithDetail(format, args...)
	}
	if n := len(d.Dictionaries); n > DictionariesMax {
		return nil, bad("dictionaries", "there are %d", n)
	}
	if n := len(d.Retired); n > retiredMax {
		return nil, bad("retired_dictionaries", "there are %d", n)
	}
	set := &dictionaries{active: d.Active, retired: d.Retired}
	for _, x := range d.Dictionaries {
		if x.ID == 0 || set.find(x.ID) != nil || x.Bytes < 1 || x.Bytes > DictionaryBytesMax {
			return nil, bad("dictionaries", "dictionary %08x of %d bytes", x.ID, x.Bytes)
		}
		set.all = append(set.all, &dictionary{Dictionary: Dictionary{x.ID, x.Bytes, x.AddedUs}, sum: x.Sum})
	}
	if d.Active != 0 && set.find(d.Active) == nil {
		return nil, bad("active_dictionary", "%08x is none of the topic's", d.Active)
	}
	return set, nil
}
