package topic

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/oklog/ulid/v2"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/message/id"
	"github.com/portask/portask/broker/storage"
)

// MetaName is the name of the catalogue's blob in the engine's metadata.
const MetaName = metaName

// RecoveredPrefix begins the name of a topic that Rebuild had to name; its id
// follows.
const RecoveredPrefix = "recovered-"

// Check returns the error that Open would return for this blob, before it looks
// at the logs: fault.Corrupted or fault.NewerFormat.
func Check(blob []byte) error {
	var st stored
	if err := json.Unmarshal(blob, &st); err != nil || st.Version > metaVersion {
		return refuse(blob, err)
	}
	_, _, _, err := st.check()
	return err
}

// Rebuild makes a catalogue for logs whose own is lost or damaged. left is what
// is left of it, nil if nothing; any byte of it may be wrong. If it is JSON
// still, a topic in it whose id has logs keeps its name. No setting of it is
// kept, since a wrong retention would delete messages at the next start: every
// topic gets as many partitions as its logs say, durable visibility and
// unlimited retention. Logs without a name become the topic recovered-<id>.
//
// notes name, a line each, every topic of the result, and what of left was not
// used. Logs beyond the limits of a catalogue are left out and noted; nothing of
// theirs is removed.
func Rebuild(left []byte, logs []storage.PartitionID) (blob []byte, notes []string, err error) {
	note := func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }
	counts := map[ulid.ULID]uint32{}
	for _, l := range logs {
		if l.Index >= PartitionsMax {
			note("log %s left out: a topic has at most %d partitions", l, PartitionsMax)
			continue
		}
		counts[l.Topic] = max(counts[l.Topic], l.Index+1)
	}
	var old stored
	if len(left) == 0 || json.Unmarshal(left, &old) != nil {
		old = stored{}
	}
	st := stored{Cluster: old.Cluster, Topics: []storedTopic{}}
	if _, err := ulid.ParseStrict(st.Cluster); err != nil {
		st.Cluster = id.New().String()
		note("the broker has a new cluster id, %s", st.Cluster)
	}
	total := 0
	used := map[string]bool{}
	add := func(topic ulid.ULID, name string, created int64, kept storedData, why string) {
		n := counts[topic]
		delete(counts, topic)
		if len(st.Topics) == TopicsMax || total+int(n) > AllPartitionsMax {
			note("topic %s, %s, left out: there are too many", name, topic)
			return
		}
		used[name] = true
		total += int(n)
		st.Topics = append(st.Topics, storedTopic{Name: name, ID: topic.String(), CreatedUs: created, Config: Config{
			Partitions: n, Visibility: message.AckDurable, RetentionMs: Unlimited, RetentionBytes: Unlimited, SegmentBytes: rebuiltSegmentBytes,
		}, storedData: kept})
		note("topic %s, %s: %d partitions, visibility durable, unlimited retention; %s", name, topic, n, why)
	}
	for _, t := range old.Topics {
		topic, err := ulid.ParseStrict(t.ID)
		switch {
		case err != nil || counts[topic] == 0:
			note("topic %.300q left out: no log has its id, %.40q", t.Name, t.ID)
		case message.CheckTopicName("rebuild catalogue", t.Name) != nil || used[t.Name]:
			note("the name %.300q of topic %s is not used", t.Name, topic)
		default:
			// Its batches may need them. If what is said of them is wrong, asking for
			// one tells.
			kept := storedData{Dictionaries: t.Dictionaries, Active: t.Active}
			if _, err := kept.read(new(Config)); err != nil {
				kept = storedData{}
				note("the dictionaries of topic %s are not used: %v", topic, err)
			}
			add(topic, t.Name, t.CreatedUs, kept, "its name is from the damaged catalogue")
		}
	}
	for _, r := range old.Removing {
		// A deletion that was under way. 128 bits that agree are no accident.
		if topic, err := ulid.ParseStrict(r); err == nil && counts[topic] > 0 {
			st.Removing = append(st.Removing, topic.String())
			delete(counts, topic)
			note("topic %s was being deleted, which the next start completes", topic)
		}
	}
	var rest []ulid.ULID
	for topic := range counts {
		rest = append(rest, topic)
	}
	slices.SortFunc(rest, ulid.ULID.Compare)
	for _, topic := range rest {
		add(topic, RecoveredPrefix+topic.String(), int64(topic.Time())*1000, storedData{}, "its name and settings are lost")
	}
	st.Version = st.least()
	if blob, err = json.MarshalIndent(&st, "", " "); err == nil {
		err = Check(blob)
	}
	if err != nil {
		return nil, notes, fault.New(fault.Corrupted, "rebuild catalogue").WithField("topics").WithCause(err)
	}
	return blob, notes, nil
}

// rebuiltSegmentBytes is the default of a broker; the settings that a topic had
// matter only for segments to come.
const rebuiltSegmentBytes = 64 << 20
