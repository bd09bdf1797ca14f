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
	WantStrategy                            // when to compress; what the broker takes; its load while the strategy is adaptive
	WantLoad                                // the broker's load, whatever it advises
)

// Ids of the options of an Advice. 12 to 30 are kept for more of the broker's
// load.
const (
	optAdviceCompression = 2
	optAdviceEncoding    = 4
	optAdviceDictionary  = 6
	optAdviceLoad        = 8
	optAdviceFanOut      = 10
	optAdviceStrategy    = 32
	optAdviceAccept      = 34
	optAdvicePolicy      = 36

	adviceKnown = 1<<optAdviceCompression | 1<<optAdviceEncoding | 1<<optAdviceDictionary |
		1<<optAdviceLoad | 1<<optAdviceFanOut | 1<<optAdviceStrategy | 1<<optAdviceAccept | 1<<optAdvicePolicy
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
//	option 8: load                               option 10: fan-out
//	┌────────┬───────────┬─────────┬─────────┐   ┌──────────────┐
//	│ cpu u8 │ memory u8 │ disk u8 │ link u8 │   │ fan-out u16  │
//	└────────┴───────────┴─────────┴─────────┘   └──────────────┘
//
//	option 32: strategy   option 34: accepted   option 36: policy
//	┌─────────────┐       ┌────────────────┐    ┌───────────────────┐
//	│ strategy u8 │       │ algorithms u16 │    │ id u64, 0 = none  │
//	└─────────────┘       └────────────────┘    └───────────────────┘
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

	HasLoad bool
	Load    Load

	HasFanOut bool
	FanOut    uint16 // subscriptions that follow each partition of the topic, rounded up

	HasStrategy bool
	Strategy    uint8 // of package compression

	HasAccept bool
	Accept    uint16 // bit i: the broker takes batches of algorithm i

	HasPolicy bool
	Policy    uint64 // of the broker, to be got by POLICY_GET; 0 = it has none
}

// Load is how busy a broker is: shares in percent, 0 to 100, of what it has of a
// resource, or LoadUnknown. They are averages of some seconds.
type Load struct {
	CPU    uint8 // of the processors that it may use, by whomever on the machine
	Memory uint8 // of the memory that it may use
	Disk   uint8 // of the time: a request was under way at the device of its logs
	Link   uint8 // of what its network interfaces can send
}

// LoadUnknown is the share of a resource that the broker cannot tell.
const LoadUnknown = 255

// loadBytes is the size of a Load.
const loadBytes = 4

func (x Load) bytes() []byte { return []byte{x.CPU, x.Memory, x.Disk, x.Link} }

func loadOf(b []byte) Load { return Load{CPU: b[0], Memory: b[1], Disk: b[2], Link: b[3]} }

// UnknownLoad says nothing.
var UnknownLoad = Load{LoadUnknown, LoadUnknown, LoadUnknown, LoadUnknown}

// Share returns a share of Load between 0 and 1; ok is false if it is not known.
// What is above 100 is not known either.
func Share(percent uint8) (share float64, ok bool) {
	return float64(percent) / 100, percent <= 100
}

// Empty reports whether a advises on nothing.
func (a *Advice) Empty() bool {
	return !a.HasCompression && !a.HasEncoding && !a.HasDictionary && !a.HasLoad && !a.HasFanOut && !a.HasStrategy && !a.HasAccept && !a.HasPolicy
}

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
	if a.HasLoad {
		dst = AppendOption(dst, optAdviceLoad, a.Load.bytes())
	}
	if a.HasFanOut {
		dst = AppendOption(dst, optAdviceFanOut, le.AppendUint16(nil, a.FanOut))
	}
	if a.HasStrategy {
		dst = AppendOption(dst, optAdviceStrategy, []byte{a.Strategy})
	}
	if a.HasAccept {
		dst = AppendOption(dst, optAdviceAccept, le.AppendUint16(nil, a.Accept))
	}
	if a.HasPolicy {
		dst = AppendOption(dst, optAdvicePolicy, le.AppendUint64(nil, a.Policy))
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
		case optAdviceLoad:
			if c.sized("advice.load", v, loadBytes) {
				a.HasLoad, a.Load = true, loadOf(v)
			}
		case optAdviceFanOut:
			if c.sized("advice.fan_out", v, 2) {
				a.HasFanOut, a.FanOut = true, le.Uint16(v)
			}
		case optAdviceStrategy:
			if c.sized("advice.strategy", v, 1) {
				a.HasStrategy, a.Strategy = true, v[0]
			}
		case optAdviceAccept:
			if c.sized("advice.accept", v, 2) {
				a.HasAccept, a.Accept = true, le.Uint16(v)
			}
		case optAdvicePolicy:
			if c.sized("advice.policy", v, 8) {
				a.HasPolicy, a.Policy = true, le.Uint64(v)
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
//
// The strategy came later: a byte of its own in option 3 of the requests and
// option 4 of TopicInfo, left out if it is 0, and in option 4 of METADATA_OK, each
// behind the index of its topic.
type TopicData struct {
	Compression Choice[message.Algorithm]
	Level       Choice[uint8] // of package compression
	Encoding    Choice[message.Encoding]
	Dictionary  uint32        // what producers are advised to use, 0 = none
	Strategy    Choice[uint8] // of package compression
}

const (
	optTopicData = 1 // in TOPIC_CREATE and TOPIC_ALTER
	optTopicInfo = 2 // in TopicInfo and METADATA_OK
	// optTopicStrategy on top of either: where the strategy is.
	optTopicStrategy = 2

	topicDataBytes     = 7
	topicDataEntry     = 2 + topicDataBytes
	topicStrategyEntry = 2 + 1
	// maxTopicsWithOwn topics of an answer have settings of their own: more than
	// fit beside the names of as many.
	maxTopicsWithOwn = (MaxOptionsBytes - 2*optionHeadBytes) / (topicDataEntry + topicStrategyEntry)
)

// others are the settings but for the strategy.
func (x *TopicData) others() TopicData {
	y := *x
	y.Strategy = 0
	return y
}

func (x *TopicData) append(dst []byte) []byte {
	dst = append(dst, uint8(x.Compression), uint8(x.Level), uint8(x.Encoding))
	return le.AppendUint32(dst, x.Dictionary)
}

// appendAsOption appends a section with x as the option id and the one for the
// strategy, an empty one if x has nothing to say.
func (x *TopicData) appendAsOption(dst []byte, id uint16) []byte {
	var o Options
	if x.others() != (TopicData{}) {
		o = AppendOption(o, id, x.append(nil))
	}
	if x.Strategy != 0 {
		o = AppendOption(o, id+optTopicStrategy, []byte{uint8(x.Strategy)})
	}
	return appendOptions(dst, o)
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
	if v, ok := o.Lookup(id + optTopicStrategy); ok && c.sized("topic_strategy", v, 1) {
		x.Strategy = Choice[uint8](v[0])
	}
	return x
}

// topicOptions are what topicData looks for, for cursor.options.
func topicOptions(id uint16) uint64 { return 1<<id | 1<<(id+optTopicStrategy) }

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
	dst = append(dst, 0, 0)
	list := func(id uint16, has func(*TopicData) bool, add func(*TopicData, []byte) []byte) {
		head := len(dst)
		dst = append(le.AppendUint16(dst, id), 0, 0)
		n := 0
		for i := range topics {
			if x := &topics[i].Data; n < maxTopicsWithOwn && has(x) {
				dst = add(x, le.AppendUint16(dst, uint16(i)))
				n++
			}
		}
		if n == 0 {
			dst = dst[:head]
			return
		}
		le.PutUint16(dst[head+2:], uint16(len(dst)-head-optionHeadBytes))
	}
	list(optTopicInfo, func(x *TopicData) bool { return x.others() != (TopicData{}) }, (*TopicData).append)
	list(optTopicInfo+optTopicStrategy, func(x *TopicData) bool { return x.Strategy != 0 },
		func(x *TopicData, dst []byte) []byte { return append(dst, uint8(x.Strategy)) })
	le.PutUint16(dst[mark:], uint16(len(dst)-mark-optionsEmptyBytes))
	return dst
}

// topicsData gives the topics of a METADATA_OK their settings.
func (c *cursor) topicsData(o Options, topics []TopicInfo) {
	c.eachTopic(o, optTopicInfo, topicDataEntry, topics, (*TopicData).parse)
	c.eachTopic(o, optTopicInfo+optTopicStrategy, topicStrategyEntry, topics, func(x *TopicData, v []byte) { x.Strategy = Choice[uint8](v[0]) })
}

// eachTopic reads a list of entries of n bytes that begin with the index of a
// topic.
func (c *cursor) eachTopic(o Options, id uint16, n int, topics []TopicInfo, set func(x *TopicData, v []byte)) {
	v, _ := o.Lookup(id)
	if len(v)%n != 0 {
		c.fail(violation(c.name, "topic_data", "not whole entries").WithLimit(int64(len(v)), int64(n)))
		return
	}
	last := -1
	for e := range slices.Chunk(v, n) {
		i := int(le.Uint16(e))
		if i <= last || i >= len(topics) {
			c.fail(violation(c.name, "topic_data", "the indexes do not ascend, or name no topic").WithLimit(int64(i), int64(len(topics))))
			return
		}
		set(&topics[i].Data, e[2:])
		last = i
	}
}
