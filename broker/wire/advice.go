package wire

import (
	"slices"

	"github.com/portask/portask/broker/message"
)

// AdviceWants says on what a producer takes advice: a set of bits in option 2 of
// OPEN_PRODUCER. A producer that wants nothing is told nothing, so a client that
// knows nothing of advice never gets an ADVICE.
type AdviceWants uint16

// The bits of AdviceWants. A broker ignores those it does not know.
const (
	WantCompression AdviceWants = 1 << iota // how to compress batches, dictionary included
	WantEncoding                            // how to encode values
)

// Ids of the options of an Advice. 8 to 30 are kept for the broker's load
// (processor, memory, link).
const (
	optAdviceCompression = 2
	optAdviceEncoding    = 4
	optAdviceDictionary  = 6

	adviceKnown = 1<<optAdviceCompression | 1<<optAdviceEncoding | 1<<optAdviceDictionary
)

// Advice is what the broker would have a producer do from its next batch on, of
// its own and its topic's settings. It comes in OPEN_PRODUCER_OK, and in ADVICE
// whenever it changes: a list of options, each a value of its own. A part that
// is absent is as it was said before on this handle.
//
//	option 2: compression       option 4: encoding   option 6: dictionary
//	┌──────────────┬──────────┐ ┌───────────────┐    ┌──────────────────┐
//	│ algorithm u8 │ level u8 │ │ encoding u8   │    │ id u32, 0 = none │
//	└──────────────┴──────────┘ └───────────────┘    └──────────────────┘
//
// It is advice: a number that the client does not know is to be ignored by it,
// not refused.
type Advice struct {
	HasCompression bool
	Algorithm      message.Algorithm
	Level          uint8 // of package compression: 0 fastest

	HasEncoding bool
	Encoding    message.Encoding

	HasDictionary bool
	Dictionary    uint32 // of the topic, to be got by DICTIONARY_GET; 0 = use none
}

// Empty reports whether a advises on nothing.
func (a *Advice) Empty() bool { return !a.HasCompression && !a.HasEncoding && !a.HasDictionary }

// appendEntries appends the inside of the option section.
func (a *Advice) appendEntries(dst []byte) []byte {
	if a.HasCompression {
		dst = AppendOption(dst, optAdviceCompression, []byte{uint8(a.Algorithm), a.Level})
	}
	if a.HasEncoding {
		dst = AppendOption(dst, optAdviceEncoding, []byte{uint8(a.Encoding)})
	}
	if a.HasDictionary {
		dst = AppendOption(dst, optAdviceDictionary, le.AppendUint32(nil, a.Dictionary))
	}
	return dst
}

// appendSection appends the whole option section.
func (a *Advice) appendSection(dst []byte) []byte {
	mark := len(dst)
	dst = a.appendEntries(append(dst, 0, 0))
	le.PutUint16(dst[mark:], uint16(len(dst)-mark-optionsEmptyBytes))
	return dst
}

// parse takes a's parts out of a checked section.
func (a *Advice) parse(c *cursor, o Options) {
	*a = Advice{}
	for len(o) > 0 {
		var id uint16
		var v []byte
		id, v, o = o.Next()
		switch id {
		case optAdviceCompression:
			if c.sized("advice.compression", v, 2) {
				a.HasCompression, a.Algorithm, a.Level = true, message.Algorithm(v[0]), v[1]
			}
		case optAdviceEncoding:
			if c.sized("advice.encoding", v, 1) {
				a.HasEncoding, a.Encoding = true, message.Encoding(v[0])
			}
		case optAdviceDictionary:
			if c.sized("advice.dictionary", v, 4) {
				a.HasDictionary, a.Dictionary = true, le.Uint32(v)
			}
		}
	}
}

// sized checks the length of an option's value.
func (c *cursor) sized(field string, v []byte, n int) bool {
	if len(v) != n {
		c.fail(violation(c.name, field, "has another length").WithLimit(int64(len(v)), int64(n)))
		return false
	}
	return true
}

// Append implements Payload.
func (a *Advice) Append(dst []byte) []byte { return a.appendSection(dst) }

// Parse implements Payload.
func (a *Advice) Parse(src []byte) error {
	c := cursor{name: "ADVICE", b: src}
	a.parse(&c, c.options(adviceKnown))
	return c.end()
}

// TopicData are the settings of a topic that are about its batches. The zero
// value leaves all to the broker.
//
//	0         1         2         3          7
//	┌─────────┬─────────┬─────────┬──────────┐
//	│ compres-│ level   │ encoding│ active   │   the first three: 0 = the broker's default,
//	│ sion u8 │ u8      │ u8      │ dict. u32│   else one more than the number
//	└─────────┴─────────┴─────────┴──────────┘
//
// It is option 1 of TOPIC_CREATE and TOPIC_ALTER, so that a broker that does not
// know it refuses; there the dictionary means nothing and is 0. It is in option
// 2 of TopicInfo, alone, and of METADATA_OK, each behind the u16 index of its
// topic in the frame, topics without such settings left out.
type TopicData struct {
	Compression Choice[message.Algorithm]
	Level       Choice[uint8] // of package compression
	Encoding    Choice[message.Encoding]
	Dictionary  uint32 // what producers are advised to use, 0 = none
}

const (
	optTopicData = 1 // in TOPIC_CREATE and TOPIC_ALTER
	optTopicInfo = 2 // in TopicInfo and METADATA_OK

	topicDataBytes   = 7
	topicDataEntry   = 2 + topicDataBytes
	maxTopicsWithOwn = (MaxOptionsBytes - optionHeadBytes) / topicDataEntry
)

func (x *TopicData) append(dst []byte) []byte {
	dst = append(dst, uint8(x.Compression), uint8(x.Level), uint8(x.Encoding))
	return le.AppendUint32(dst, x.Dictionary)
}

// appendAsOption appends a section with x as the option id, an empty one if x
// has nothing to say.
func (x *TopicData) appendAsOption(dst []byte, id uint16) []byte {
	if *x == (TopicData{}) {
		return appendOptions(dst, nil)
	}
	return appendOptions(dst, AppendOption(nil, id, x.append(nil)))
}

// parse reads what append wrote; v has the right length. What a later broker
// may choose is not refused here.
func (x *TopicData) parse(v []byte) {
	*x = TopicData{Compression: Choice[message.Algorithm](v[0]), Level: Choice[uint8](v[1]), Encoding: Choice[message.Encoding](v[2]), Dictionary: le.Uint32(v[3:])}
}

// topicData takes the option id out of a section, for a request or an answer.
func (c *cursor) topicData(o Options, id uint16) (x TopicData) {
	if v, ok := o.Lookup(id); ok && c.sized("topic_data", v, topicDataBytes) {
		x.parse(v)
	}
	return x
}

// wanted checks the settings of a request.
func (c *cursor) wanted(x *TopicData) {
	if a, ok := x.Compression.Value(); ok && !a.Valid() {
		c.fail(c.invalid("compression", "%d is no algorithm", uint8(a)))
	}
	if e, ok := x.Encoding.Value(); ok && !e.Valid() {
		c.fail(c.invalid("encoding", "%d is no encoding", uint8(e)))
	}
	if x.Dictionary != 0 {
		c.fail(c.invalid("dictionary", "is set by DICTIONARY_ADD and DICTIONARY_USE only"))
	}
}

// appendTopicsData appends METADATA_OK's section.
func appendTopicsData(dst []byte, topics []TopicInfo) []byte {
	mark := len(dst)
	dst = append(dst, 0, 0, optTopicInfo, 0, 0, 0)
	n := 0
	for i := range topics {
		if topics[i].Data != (TopicData{}) && n < maxTopicsWithOwn {
			dst = topics[i].Data.append(le.AppendUint16(dst, uint16(i)))
			n++
		}
	}
	if n == 0 {
		return append(dst[:mark], 0, 0)
	}
	le.PutUint16(dst[mark:], uint16(len(dst)-mark-optionsEmptyBytes))
	le.PutUint16(dst[mark+4:], uint16(n*topicDataEntry))
	return dst
}

// topicsData gives the topics of a METADATA_OK their settings.
func (c *cursor) topicsData(o Options, topics []TopicInfo) {
	v, _ := o.Lookup(optTopicInfo)
	if len(v)%topicDataEntry != 0 {
		c.fail(violation(c.name, "topic_data", "not whole entries").WithLimit(int64(len(v)), topicDataEntry))
		return
	}
	last := -1
	for e := range slices.Chunk(v, topicDataEntry) {
		i := int(le.Uint16(e))
		if i <= last || i >= len(topics) {
			c.fail(violation(c.name, "topic_data", "the indexes do not ascend, or name no topic").WithLimit(int64(i), int64(len(topics))))
			return
		}
		topics[i].Data.parse(e[2:])
		last = i
	}
}
