package wire

import "strconv"

// Opcode says what a frame is. The top bit distinguishes an answer from its
// request; numbers are grouped by subject and never change meaning.
type Opcode uint16

// ResponseBit is set in the opcode of an answer.
const ResponseBit Opcode = 0x8000

const (
	OpHello  Opcode = 1
	OpAuth   Opcode = 2 // reserved: no payload in version 1
	OpReauth Opcode = 3 // reserved: no payload in version 1
	OpPing   Opcode = 4
	OpGoAway Opcode = 5
	OpClose  Opcode = 6

	OpMetadata Opcode = 16

	OpOpenProducer  Opcode = 32
	OpProduce       Opcode = 33
	OpCloseProducer Opcode = 34
	OpAdvice        Opcode = 36
	OpReport        Opcode = 37

	OpSubscribe   Opcode = 48
	OpDeliver     Opcode = 49
	OpCredit      Opcode = 50
	OpFetch       Opcode = 51
	OpUnsubscribe Opcode = 52
	OpListOffsets Opcode = 53

	// 64-79 are kept for consumer groups, 80-95 for queues.

	OpTopicCreate Opcode = 96
	OpTopicAlter  Opcode = 97
	OpTopicDelete Opcode = 98

	OpDictionaryList Opcode = 99
	OpDictionaryGet  Opcode = 100
	OpDictionaryAdd  Opcode = 101
	OpDictionaryUse  Opcode = 102

	OpPolicyGet Opcode = 103

	// OpError is always sent with ResponseBit: 0xffff on the wire.
	OpError Opcode = 0x7fff
)

// opcodes is the one table of opcodes: names, directions, payloads.
// PROTOCOL.md's table is generated from it.
var opcodes = []opcodeInfo{
	{OpHello, "HELLO", "HELLO_OK", fromClient, func() Payload { return new(Hello) }, func() Payload { return new(HelloOK) }},
	{OpAuth, "AUTH", "AUTH_OK", reserved, nil, nil},
	{OpReauth, "REAUTH", "REAUTH_OK", reserved, nil, nil},
	{OpPing, "PING", "PONG", fromBoth, func() Payload { return new(Ping) }, func() Payload { return new(Ping) }},
	{OpGoAway, "GOAWAY", "", fromServer, func() Payload { return new(GoAway) }, nil},
	{OpClose, "CLOSE", "CLOSE_OK", fromClient, func() Payload { return new(Close) }, func() Payload { return new(Empty) }},
	{OpMetadata, "METADATA", "METADATA_OK", fromClient, func() Payload { return new(MetadataRequest) }, func() Payload { return new(Metadata) }},
	{OpOpenProducer, "OPEN_PRODUCER", "OPEN_PRODUCER_OK", fromClient, func() Payload { return new(OpenProducer) }, func() Payload { return new(OpenProducerOK) }},
	{OpProduce, "PRODUCE", "PRODUCE_OK", fromClient, func() Payload { return new(Produce) }, func() Payload { return new(ProduceOK) }},
	{OpCloseProducer, "CLOSE_PRODUCER", "CLOSE_PRODUCER_OK", fromClient, func() Payload { return new(CloseProducer) }, func() Payload { return new(Empty) }},
	{OpAdvice, "ADVICE", "", fromServer, func() Payload { return new(Advice) }, nil},
	{OpReport, "REPORT", "", fromClient, func() Payload { return new(Report) }, nil},
	{OpSubscribe, "SUBSCRIBE", "SUBSCRIBE_OK", fromClient, func() Payload { return new(Subscribe) }, func() Payload { return new(SubscribeOK) }},
	{OpDeliver, "DELIVER", "", fromServer, func() Payload { return new(Deliver) }, nil},
	{OpCredit, "CREDIT", "", fromBoth, func() Payload { return new(Credit) }, nil},
	{OpFetch, "FETCH", "FETCH_OK", fromClient, func() Payload { return new(Fetch) }, func() Payload { return new(Deliver) }},
	{OpUnsubscribe, "UNSUBSCRIBE", "UNSUBSCRIBE_OK", fromClient, func() Payload { return new(Unsubscribe) }, func() Payload { return new(Empty) }},
	{OpListOffsets, "LIST_OFFSETS", "LIST_OFFSETS_OK", fromClient, func() Payload { return new(ListOffsets) }, func() Payload { return new(ListOffsetsOK) }},
	{OpTopicCreate, "TOPIC_CREATE", "TOPIC_CREATE_OK", fromClient, func() Payload { return new(TopicCreate) }, func() Payload { return new(TopicInfo) }},
	{OpTopicAlter, "TOPIC_ALTER", "TOPIC_ALTER_OK", fromClient, func() Payload { return new(TopicAlter) }, func() Payload { return new(TopicInfo) }},
	{OpTopicDelete, "TOPIC_DELETE", "TOPIC_DELETE_OK", fromClient, func() Payload { return new(TopicDelete) }, func() Payload { return new(Empty) }},
	{OpDictionaryList, "DICTIONARY_LIST", "DICTIONARY_LIST_OK", fromClient, func() Payload { return new(DictionaryList) }, func() Payload { return new(Dictionaries) }},
	{OpDictionaryGet, "DICTIONARY_GET", "DICTIONARY_GET_OK", fromClient, func() Payload { return new(DictionaryGet) }, func() Payload { return new(Dictionary) }},
	{OpDictionaryAdd, "DICTIONARY_ADD", "DICTIONARY_ADD_OK", fromClient, func() Payload { return new(DictionaryAdd) }, func() Payload { return new(Dictionaries) }},
	{OpDictionaryUse, "DICTIONARY_USE", "DICTIONARY_USE_OK", fromClient, func() Payload { return new(DictionaryUse) }, func() Payload { return new(Dictionaries) }},
	{OpPolicyGet, "POLICY_GET", "POLICY_GET_OK", fromClient, func() Payload { return new(Empty) }, func() Payload { return new(Dictionary) }},
	{OpError, "", "ERROR", fromServer, nil, func() Payload { return new(Error) }},
}

type opcodeInfo struct {
	op            Opcode
	name, answer  string
	from          sender
	request, okay func() Payload
}

// sender is who sends the opcode without ResponseBit (ERROR: with it).
type sender uint8

const (
	reserved sender = iota
	fromClient
	fromServer
	fromBoth
)

func (s sender) String() string {
	return [...]string{"reserved", "client", "broker", "both"}[s]
}

func (op Opcode) info() *opcodeInfo {
	for i := range opcodes {
		if opcodes[i].op == op.Request() {
			return &opcodes[i]
		}
	}
	return nil
}

// Response returns the opcode of the answer to op.
func (op Opcode) Response() Opcode { return op | ResponseBit }

// Request returns op without the response bit.
func (op Opcode) Request() Opcode { return op &^ ResponseBit }

// IsResponse reports whether op is an answer.
func (op Opcode) IsResponse() bool { return op&ResponseBit != 0 }

// String returns the name used in PROTOCOL.md, "opcode N" or "answer N" for a
// number without one.
func (op Opcode) String() string {
	if i := op.info(); i != nil {
		if name := i.nameOf(op.IsResponse()); name != "" {
			return name
		}
	}
	if op.IsResponse() {
		return "answer " + strconv.Itoa(int(op.Request()))
	}
	return "opcode " + strconv.Itoa(int(op))
}

func (i *opcodeInfo) nameOf(response bool) string {
	if response {
		return i.answer
	}
	return i.name
}

// Payload is what every payload type offers.
type Payload interface {
	// Append writes the payload at the end of dst and returns the result.
	Append(dst []byte) []byte
	// Parse reads a payload that fills src; see the package comment.
	Parse(src []byte) error
}

// NewPayload returns an empty payload for op, whose response bit counts, or nil
// if version 1 has none. It is for tools and tests; a session knows its types.
func NewPayload(op Opcode) Payload {
	i := op.info()
	if i == nil {
		return nil
	}
	f := i.request
	if op.IsResponse() {
		f = i.okay
	}
	if f == nil {
		return nil
	}
	return f()
}

// SupportedOpcodes returns what this package speaks, for HELLO_OK: the requests
// a client may send, each in version 1.
func SupportedOpcodes() []OpcodeRange {
	var all []OpcodeRange
	for _, i := range opcodes {
		if i.request != nil && (i.from == fromClient || i.from == fromBoth) {
			all = append(all, OpcodeRange{Opcode: i.op, Low: 1, High: 1})
		}
	}
	return all
}
