package wire

import (
	"slices"
	"testing"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

// sample is one frame of the golden files, and what may be done to it.
type sample struct {
	name    string
	h       Header
	p       Payload
	options int // where the option section is in the payload, -1 = none
	refuse  []damage
}

// damage makes a payload that must be refused out of a good one. It may change
// its argument.
type damage struct {
	what string
	do   func(b []byte) []byte
}

// set overwrites bytes at a place of the payload, counted from its end if
// negative.
func set(what string, at int, v ...byte) damage {
	return damage{what, func(b []byte) []byte {
		if at < 0 {
			at += len(b)
		}
		copy(b[at:], v)
		return b
	}}
}

func sampleBatch(tb testing.TB) []byte {
	tb.Helper()
	b := message.NewBuilder(message.DefaultLimits())
	for _, v := range []string{"hello", "again"} {
		m := message.Message{Key: []byte("k"), Value: []byte(v), Timestamp: 1_700_000_000_000_000}
		if err := b.Append(&m); err != nil {
			tb.Fatal(err)
		}
	}
	batch, err := b.Finish(nil, message.Producer{ID: 7, Epoch: 1, Sequence: 40}, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return batch
}

func sampleID(first byte) (id [16]byte) {
	for i := range id {
		id[i] = first + byte(i)
	}
	return id
}

func sampleTopic() TopicInfo {
	return TopicInfo{
		Name: "orders", ID: sampleID(0xa0), Engine: "disklog", Levels: 7, Visibility: message.AckDurable,
		RetentionMs: 86_400_000, RetentionBytes: Unlimited, SegmentBytes: 64 << 20, CreatedUs: 1_700_000_000_000_000,
		Partitions: []PartitionInfo{
			{Index: 0, Leader: "10.0.0.1:7400", Epoch: 3, LogStart: 10, HWM: 990, LogEnd: 1000, Durable: 990, Bytes: 123456},
			{Index: 1, Epoch: 1, LogStart: message.NoOffset, HWM: message.NoOffset, LogEnd: message.NoOffset, Durable: message.NoOffset, Health: HealthOffline},
		},
	}
}

// samples holds every payload type with no field zero by accident.
func samples(tb testing.TB) []sample {
	batch := sampleBatch(tb)
	topic := sampleTopic()
	withData := topic
	withData.Data = TopicData{Compression: Choose(message.LZ4), Level: Choose[uint8](1), Dictionary: 0xd1d2d3d4}
	deliver := DeliverHead{
		Partition: 3, HWM: 1000, LogStart: 10, Wanted: 41,
		Runs: []Run{
			{Seed: 0xfedcba9876543210, First: 40, End: 42, Bytes: uint32(len(batch)), Batches: 1},
			{Seed: 0, First: 50, End: 54, Bytes: uint32(2 * len(batch)), Batches: 2},
		},
	}
	ranges := deliver
	ranges.Ranges = []Range{{First: 41, End: 42}, {First: 50, End: 52}}
	batches := slices.Repeat(batch, 3)
	message.Stamp(batches, 40, 1_700_000_000_000_500, 3, deliver.Runs[0].Seed)
	message.Stamp(batches[len(batch):], 50, 1_700_000_000_000_600, 3, 0)
	message.Stamp(batches[2*len(batch):], 52, 1_700_000_000_000_600, 3, 0)
	const last = -2 // marks an option section at the end of the payload
	return []sample{
		{"hello", Header{Opcode: OpHello, Correlation: 1}, &Hello{Features: 0x8000000000000001, MaxFrame: 8 << 20, HeartbeatMs: 10_000, ClientName: "käse", ClientVersion: "go/0.1"}, last,
			[]damage{
				set("a maximum below the protocol's", 8, 0xff, 0xff, 0x1f, 0),
				set("a maximum above the protocol's", 8, 1, 0, 0, 4),
				set("a name that is not UTF-8", 18, 0xff),
				set("a name longer than the payload", 16, 0, 1),
				set("a name over its limit", 16, 1, 1),
			}},
		{"hello_ok", Header{Opcode: OpHello.Response(), Correlation: 1}, &HelloOK{
			Version: 1, Features: 1, MaxFrame: 8 << 20, MaxBatch: 4 << 20, MaxMessage: 1 << 20, HeartbeatMs: 10_000,
			ServerVersion: "0.1.0", ClusterID: "01HF7YAT00TVQJ4TKTZ6K9XQ5D", NodeID: "n1", Mechanisms: []string{"SCRAM-SHA-256", "TOKEN"},
			Opcodes: []OpcodeRange{{OpPing, 1, 1}, {OpProduce, 1, 2}},
		}, last, []damage{set("too many opcodes", -12, 1, 2)}},
		{"hello_ok_load", Header{Opcode: OpHello.Response(), Correlation: 1}, &HelloOK{
			Version: 1, MaxFrame: 8 << 20, MaxBatch: 4 << 20, MaxMessage: 1 << 20, HeartbeatMs: 10_000, ServerVersion: "0.2.0",
			HasLoad: true, Load: Load{CPU: 45, Memory: 80, Disk: LoadUnknown, Link: 5},
		}, -1, []damage{{"a shorter load", func(b []byte) []byte {
			return appendOptions(b[:len(b)-10], AppendOption(nil, optHelloLoad, []byte{45, 80, 255}))
		}}, set("a load that ends beyond the section", -6, 5, 0), set("an unknown odd option", -8, 3, 0)}},
		{"ping", Header{Opcode: OpPing, Correlation: 9}, &Ping{Nonce: 0x1122334455667788}, -1, nil},
		{"pong", Header{Opcode: OpPing.Response(), Correlation: 9}, &Ping{Nonce: 0x1122334455667788}, -1, nil},
		{"goaway", Header{Opcode: OpGoAway}, &GoAway{Reason: GoAwayShuttingDown, DrainMs: 30_000, Node: "10.0.0.2:7400"}, last, nil},
		{"close", Header{Opcode: OpClose, Correlation: 99}, &Close{}, last, nil},
		{"close_ok", Header{Opcode: OpClose.Response(), Correlation: 99}, &Empty{}, last, nil},
		{"metadata", Header{Opcode: OpMetadata, Correlation: 2}, &MetadataRequest{Topics: []string{"orders", "no such"}}, last,
			[]damage{set("a count that lies", 0, 16, 0x27), set("too many topics", 0, 17, 0x27), set("a count beyond 31 bits", 0, 0xff, 0xff, 0xff, 0xff)}},
		{"metadata_ok", Header{Opcode: OpMetadata.Response(), Flags: FlagMore, Correlation: 2}, &Metadata{
			ClusterID: "c", NodeID: "n1", Topics: []TopicInfo{topic, {Err: fault.NotFound, Name: "no such", Partitions: []PartitionInfo{}}},
		}, last, []damage{set("an offset below -1", -86, 0xfe), set("too many partitions", -6, 1, 16)}},
		{"metadata_ok_data", Header{Opcode: OpMetadata.Response(), Correlation: 2}, &Metadata{
			ClusterID: "c", NodeID: "n1", Topics: []TopicInfo{{Name: "a", Partitions: []PartitionInfo{}}, withData, {Name: "b", Partitions: []PartitionInfo{}, Data: TopicData{Encoding: Choose(message.JSON)}}},
		}, -1, []damage{set("settings of no topic", -9, 3), set("settings of a topic twice", -9, 1), set("half an entry", -20, 17, 0)}},
		{"open_producer", Header{Opcode: OpOpenProducer, Correlation: 3}, &OpenProducer{
			Topic: "orders", Ack: message.AckDurable, Idempotent: true, ProducerID: 0x0123456789abcdef, ProducerEpoch: 2, CreditWanted: 1 << 20,
		}, last, []damage{
			set("a topic name with a slash", 2, '/'),
			set("an unknown ack level", 8, 3),
			set("a flag that is neither 0 nor 1", 9, 2),
		}},
		{"open_producer_ok", Header{Opcode: OpOpenProducer.Response(), Correlation: 3, Handle: 0x01000007}, &OpenProducerOK{
			ProducerID: 0x0123456789abcdef, ProducerEpoch: 3, Partitions: 4, Credit: 1 << 20, CreditReason: CreditMemory, MaxBatch: 4 << 20, TopicID: sampleID(0xa0),
		}, last, []damage{set("more credit than may be granted", 14, 1, 0, 0, 0, 0, 1)}},
		{"open_producer_advice", Header{Opcode: OpOpenProducer, Correlation: 3}, &OpenProducer{Topic: "orders", Ack: message.AckDurable, Wants: WantCompression | WantEncoding}, -1,
			[]damage{set("another length of the option", -4, 1, 0)}},
		{"open_producer_ok_advice", Header{Opcode: OpOpenProducer.Response(), Correlation: 3, Handle: 0x01000007}, &OpenProducerOK{
			Partitions: 4, Credit: 1 << 20, MaxBatch: 4 << 20, TopicID: sampleID(0xa0),
			Advice: Advice{HasCompression: true, Algorithm: message.Zstd, Level: 1, HasEncoding: true, Encoding: message.CBOR, HasDictionary: true, Dictionary: 0xd1d2d3d4},
		}, -1, []damage{set("a longer dictionary id", -6, 5, 0)}},
		{"advice", Header{Opcode: OpAdvice, Handle: 0x01000007}, &Advice{HasCompression: true, Algorithm: message.Snappy, HasDictionary: true}, -1,
			[]damage{
				set("compression twice", -8, 2, 0, 2, 0),
				set("no level", 4, 1, 0),
				{"an unknown odd option", func(b []byte) []byte { b[0] += 5; return append(b, 31, 0, 1, 0, 0) }},
			}},
		{"advice_of_later", Header{Opcode: OpAdvice, Handle: 0x01000007}, &Advice{HasCompression: true, Algorithm: 77, Level: 99, HasEncoding: true, Encoding: 9}, -1, nil},
		{"advice_load", Header{Opcode: OpAdvice, Handle: 0x01000007}, &Advice{
			HasLoad: true, Load: Load{CPU: 45, Memory: 80, Disk: LoadUnknown, Link: 5}, HasFanOut: true, FanOut: 0x0203,
			HasStrategy: true, Strategy: 3, HasAccept: true, Accept: 0x3f, HasPolicy: true, Policy: 0x0123456789abcdef,
		}, -1, []damage{
			set("a shorter load", 4, 3, 0),
			set("a longer strategy", 18, 2, 0),
			set("another length of what is accepted", -16, 1, 0),
			set("another length of the policy", -10, 7, 0),
		}},
		{"report", Header{Opcode: OpReport, Handle: 0x01000007}, &Report{
			Strategy: 3, Chosen: 1, Reason: 4, CPU: 45, FanOut: 3, Link: 2_500_000, Batches: 4000, Switches: 17, Artefact: "trained 0a1b2c3d", Note: "built in",
			Arms: []ReportArm{
				{Algorithm: message.None, Batches: 10, In: 655360, Out: 655360, Predicted: 65_000},
				{Algorithm: message.Zstd, Level: 1, Batches: 3990, In: 1 << 40, Out: 1 << 38, Discarded: 7, EncodeNs: 123_456_789_012, Predicted: 30_000, Observed: 31_000},
			},
			Recent:   []ReportSwitch{{AtUs: 1_700_000_000_000_000, From: NoArm, To: 0, Reason: 1}, {AtUs: 1_700_000_000_100_000, From: 0, To: 1, Reason: 4}},
			HasWants: true, Wants: WantStrategy | WantLoad,
		}, -1, []damage{
			set("too many arms", 58, 17),
			set("more arms than there are", 58, 16),
			set("too many switches", -31, 17),
			set("another length of what it wants", -4, 1, 0),
			set("an artefact over its limit", 30, 65, 0),
		}},
		{"report_of_later", Header{Opcode: OpReport, Handle: 0x01000007}, &Report{Strategy: 99, Chosen: 88, Reason: 77, CPU: 66, Arms: []ReportArm{{Algorithm: 55, Level: 44}}}, last, nil},
		{"produce", Header{Opcode: OpProduce, Correlation: 4, Handle: 0x01000007}, &Produce{Partition: 3, Batch: batch}, 4,
			[]damage{{"less than an envelope", func(b []byte) []byte { return b[:6+message.EnvelopeBytes-1] }}}},
		{"produce_ok", Header{Opcode: OpProduce.Response(), Correlation: 4, Handle: 0x01000007}, &ProduceOK{
			Partition: 3, Flags: ProduceDuplicate, Pressure: uint8(CreditEngineSlow), BaseOffset: 1000, AppendTime: 1_700_000_000_000_500, Credit: 123,
		}, -1, []damage{set("a reserved flag", 4, 2), set("a reserved byte", 7, 1), set("a negative offset", 15, 0x80)}},
		{"close_producer", Header{Opcode: OpCloseProducer, Correlation: 5, Handle: 0x01000007}, &CloseProducer{}, last, nil},
		{"subscribe", Header{Opcode: OpSubscribe, Correlation: 6}, &Subscribe{
			Topic: "orders", Partition: 3, Start: StartOffset, StartValue: 42, Credit: 1 << 20, MaxDeliverBytes: 256 << 10,
		}, last, []damage{set("an unknown start", 12, 4), set("a negative offset", 20, 0x80), set("more credit than may be granted", 26, 2)}},
		{"subscribe_ok", Header{Opcode: OpSubscribe.Response(), Correlation: 6, Handle: 0x02000001}, &SubscribeOK{Start: 42, LogStart: 10, HWM: 990, LogEnd: 1000}, last,
			[]damage{set("a negative offset", 7, 0x80)}},
		{"deliver", Header{Opcode: OpDeliver, Handle: 0x02000001}, &Deliver{deliver, batches}, deliverHeadBytes,
			[]damage{
				set("more runs than there is room for", 30, 0xff, 3),
				set("too many runs", 30, 1, 4),
				set("a run that ends where it begins", 48, 40),
				set("runs that overlap", 72, 41),
				set("no batch in a run", 60, 0),
				set("more batches than offsets", 60, 3),
				set("fewer bytes than envelopes", 56, 79),
				{"fewer bytes than announced", func(b []byte) []byte { return b[:len(b)-1] }},
				set("an option that ends beyond the section", 28, 4, 0, 2, 0, 1, 0),
			}},
		{"deliver_ranges", Header{Opcode: OpDeliver, Handle: 0x02000001}, &Deliver{ranges, batches}, -1,
			[]damage{
				set("ranges that overlap", 34+16, 41),
				set("an empty range", 34+8, 41),
				{"half a range", func(b []byte) []byte {
					b[28] -= 8
					b[32] -= 8
					return append(b[:34+24], b[34+32:]...)
				}},
				{"ranges twice", func(b []byte) []byte {
					option := append([]byte{}, b[30:66]...)
					b[28] *= 2
					return append(b[:66:66], append(option, b[66:]...)...)
				}},
			}},
		{"credit", Header{Opcode: OpCredit, Handle: 0x02000001}, &Credit{Bytes: 1 << 20, Reason: CreditQuota}, -1,
			[]damage{set("more than may be granted", 5, 2)}},
		{"fetch", Header{Opcode: OpFetch, Correlation: 7}, &Fetch{Topic: "orders", Partition: 3, Offset: 42, MaxBytes: 1 << 20, MinBytes: 1, MaxWaitMs: 500}, last,
			[]damage{set("a negative offset", 19, 0x80)}},
		{"fetch_ok", Header{Opcode: OpFetch.Response(), Correlation: 7}, &Deliver{DeliverHead{Partition: 3, HWM: 42, LogStart: 10, Wanted: 42}, nil}, deliverHeadBytes, nil},
		{"unsubscribe", Header{Opcode: OpUnsubscribe, Correlation: 8, Handle: 0x02000001}, &Unsubscribe{}, last, nil},
		{"list_offsets", Header{Opcode: OpListOffsets, Correlation: 10}, &ListOffsets{Topic: "orders", Partition: 3, Start: StartTime, StartValue: 1_700_000_000_000_000}, last, nil},
		{"list_offsets_ok", Header{Opcode: OpListOffsets.Response(), Correlation: 10}, &ListOffsetsOK{Offset: 500, LogStart: 10, HWM: 990, LogEnd: 1000, TimestampUs: 1_700_000_000_000_007}, last, nil},
		{"topic_create", Header{Opcode: OpTopicCreate, Correlation: 11}, &TopicCreate{
			Name: "orders", Partitions: 4, Visibility: message.AckAccepted, RetentionMs: 86_400_000, RetentionBytes: Unlimited, SegmentBytes: 64 << 20,
		}, last, []damage{
			set("too many partitions", 8, 1, 16),
			set("an unknown visibility", 12, 9),
			set("a retention below unlimited", 21, 0xfe),
			set("a segment below zero", 36, 0x80),
		}},
		{"topic_create_data", Header{Opcode: OpTopicCreate, Correlation: 11}, &TopicCreate{Name: "orders", Data: TopicData{Encoding: Choose(message.Raw)}}, -1, nil},
		{"topic_create_strategy", Header{Opcode: OpTopicCreate, Correlation: 11}, &TopicCreate{Name: "orders", Data: TopicData{Encoding: Choose(message.Raw), Strategy: Choose[uint8](3)}}, -1,
			[]damage{set("another length of the strategy", -3, 0, 0)}},
		{"topic_info_strategy", Header{Opcode: OpTopicAlter.Response(), Correlation: 12}, &TopicInfo{Name: "orders", Partitions: []PartitionInfo{}, Data: TopicData{Strategy: Choose[uint8](3)}}, -1, nil},
		{"metadata_ok_strategy", Header{Opcode: OpMetadata.Response(), Correlation: 2}, &Metadata{
			ClusterID: "c", NodeID: "n1", Topics: []TopicInfo{{Name: "a", Partitions: []PartitionInfo{}, Data: TopicData{Strategy: Choose[uint8](1)}},
				{Name: "b", Partitions: []PartitionInfo{}, Data: TopicData{Compression: Choose(message.Zstd), Strategy: Choose[uint8](3)}}},
		}, -1, []damage{set("a strategy of no topic", -3, 2), set("a strategy of a topic twice", -3, 0), set("half a strategy", -8, 5, 0)}},
		{"topic_alter_strategy", Header{Opcode: OpTopicAlter, Correlation: 12}, &TopicAlter{Name: "orders", Mask: AlterStrategy, Data: TopicData{Strategy: Choose[uint8](2)}}, -1, nil},
		{"topic_info_data", Header{Opcode: OpTopicAlter.Response(), Correlation: 12}, &withData, -1, nil},
		{"topic_info", Header{Opcode: OpTopicCreate.Response(), Correlation: 11}, &topic, last, nil},
		{"topic_alter", Header{Opcode: OpTopicAlter, Correlation: 12}, &TopicAlter{
			Name: "orders", Mask: AlterPartitions | AlterRetentionMs, Partitions: 8, RetentionMs: 3_600_000,
		}, last, []damage{set("an unknown setting", 9, 0x02)}},
		{"topic_alter_data", Header{Opcode: OpTopicAlter, Correlation: 12}, &TopicAlter{
			Name: "orders", Mask: AlterCompression | AlterCompressionLevel | AlterEncoding,
			Data: TopicData{Compression: Choose(message.Zstd), Level: Choose[uint8](2), Encoding: Choose(message.CBOR)},
		}, -1, []damage{
			set("no such algorithm", -7, 9),
			set("no such encoding", -5, 9),
			set("a dictionary", -1, 1),
			set("another length of the option", -9, 6, 0),
			set("an option the broker must know, but does not", -11, 5),
		}},
		{"topic_delete", Header{Opcode: OpTopicDelete, Correlation: 13}, &TopicDelete{Name: "orders"}, last,
			[]damage{{"no name", func(b []byte) []byte { return append([]byte{0, 0}, b[8:]...) }}}},
		{"dictionary_list", Header{Opcode: OpDictionaryList, Correlation: 14}, &DictionaryList{Topic: "orders"}, last, nil},
		{"dictionary_list_ok", Header{Opcode: OpDictionaryList.Response(), Correlation: 14}, &Dictionaries{
			Active: 0xd1d2d3d4, All: []DictionaryInfo{{ID: 7, Bytes: 16 << 10, AddedUs: 1_700_000_000_000_000}, {ID: 0xd1d2d3d4, Bytes: 1 << 20, AddedUs: 1_700_000_000_000_007}},
		}, last, []damage{set("a count that lies", 4, 3), set("too many", 4, 33)}},
		{"dictionary_get", Header{Opcode: OpDictionaryGet, Correlation: 15}, &DictionaryGet{Topic: "orders", ID: 0xd1d2d3d4}, last, []damage{set("no id", 8, 0, 0, 0, 0)}},
		{"dictionary_get_ok", Header{Opcode: OpDictionaryGet.Response(), Correlation: 15}, &Dictionary{Bytes: []byte("7\xa40\xecbytes")}, last,
			[]damage{set("too long", 0, 1, 0, 16), set("longer than the frame", 0, 0, 0, 16), set("empty", 0, 0, 0, 0, 0)}},
		{"dictionary_add", Header{Opcode: OpDictionaryAdd, Correlation: 16}, &DictionaryAdd{Topic: "orders", Bytes: []byte("7\xa40\xecbytes")}, last, nil},
		{"dictionary_use", Header{Opcode: OpDictionaryUse, Correlation: 17}, &DictionaryUse{Topic: "orders", ID: 7}, last, nil},
		{"policy_get", Header{Opcode: OpPolicyGet, Correlation: 18}, &Empty{}, last, nil},
		{"policy_get_ok", Header{Opcode: OpPolicyGet.Response(), Correlation: 18}, &Dictionary{Bytes: []byte(`{"format":"..."}`)}, last, nil},
		{"error", Header{Opcode: OpError.Response(), Correlation: 4, Handle: 0x01000007}, &Error{
			Code: fault.TooLarge, Category: fault.CategoryMessage, Bits: fault.BitRetryable | fault.BitClosesHandle, RetryAfterMs: 1000, Opcode: OpProduce,
			Op: "produce orders-3", Message: "the batch is too large", Field: "batch.body_len", Limit: 4 << 20, Value: 5 << 20, HasLimit: true,
			Chain: []ChainItem{{fault.Corrupted, "segment 4096"}, {fault.None, "unexpected EOF"}},
		}, last, []damage{set("a reserved bit", 3, 32), set("no code", 0, 0, 0), set("too many causes", -37, 17)}},
		{"error_details", Header{Opcode: OpError.Response(), Correlation: 5}, &Error{
			Code: fault.OutOfRange, Category: fault.CategoryConsumer, Opcode: OpSubscribe, Op: "subscribe orders-3", Message: "the log begins at 100",
			Details: []fault.Detail{{Key: "log_start", Value: "100"}, {Key: "note", Value: ""}},
		}, -1, []damage{set("a detail that is cut off", -2, 1), set("a key beyond its limit", -23, 15)}},
	}
}

// optionsAt resolves where the option section of s begins in its payload.
func (s *sample) optionsAt(payload []byte) int {
	if s.options == -2 {
		return len(payload) - optionsEmptyBytes
	}
	return s.options
}

// withOption puts one option into the empty section of a payload.
func (s *sample) withOption(payload []byte, id uint16, value string) []byte {
	at := s.optionsAt(payload)
	out := append([]byte{}, payload[:at]...)
	out = appendOptions(out, AppendOption(nil, id, []byte(value)))
	return append(out, payload[at+optionsEmptyBytes:]...)
}
