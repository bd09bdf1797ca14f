package wire

import (
	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

// MetadataRequest asks for topics by name, or for all.
//
//	┌───────┬─────────────┬─────────┐
//	│ u32 n │ n × str 249 │ options │   n ≤ 10,000
//	└───────┴─────────────┴─────────┘
type MetadataRequest struct {
	Topics []string // empty = all
}

// Append implements Payload.
func (x *MetadataRequest) Append(dst []byte) []byte {
	dst = le.AppendUint32(dst, uint32(len(x.Topics)))
	for _, t := range x.Topics {
		dst = appendString(dst, t)
	}
	return appendOptions(dst, nil)
}

// Parse implements Payload. Names are not checked: one that cannot exist is
// answered as not found, like any other that does not.
func (x *MetadataRequest) Parse(src []byte) error {
	c := cursor{name: "METADATA", b: src}
	x.Topics = x.Topics[:0]
	for range c.count("topics", c.u32("topics"), MaxTopics, 2) {
		x.Topics = append(x.Topics, c.str("topic", MaxTopicBytes))
	}
	return c.finish()
}

// Metadata answers MetadataRequest. An answer too large for one frame comes as
// several, all but the last with FlagMore; cluster and node are in each.
//
//	┌────────────┬─────────┬───────┬───────────┬─────────┐
//	│ cluster id │ node id │ u32 n │ n × topic │ options │   n ≤ 10,000
//	│ str 64     │ str 64  │       │           │         │
//	└────────────┴─────────┴───────┴───────────┴─────────┘
type Metadata struct {
	ClusterID string
	NodeID    string // of the node that answers
	Topics    []TopicInfo
}

// Append implements Payload.
func (x *Metadata) Append(dst []byte) []byte {
	dst = appendString(dst, x.ClusterID)
	dst = appendString(dst, x.NodeID)
	dst = le.AppendUint32(dst, uint32(len(x.Topics)))
	for i := range x.Topics {
		dst = x.Topics[i].appendBody(dst)
	}
	return appendTopicsData(dst, x.Topics)
}

// Parse implements Payload.
func (x *Metadata) Parse(src []byte) error {
	c := cursor{name: "METADATA_OK", b: src}
	x.ClusterID = c.str("cluster_id", MaxIDBytes)
	x.NodeID = c.str("node_id", MaxIDBytes)
	n := c.count("topics", c.u32("topics"), MaxTopics, topicInfoLeast)
	x.Topics = make([]TopicInfo, 0, n)
	for range n {
		var t TopicInfo
		t.parseBody(&c)
		if c.err != nil {
			break
		}
		x.Topics = append(x.Topics, t)
	}
	c.topicsData(c.options(topicOptions(optTopicInfo)), x.Topics)
	return c.end()
}

// TopicInfo describes a topic, in METADATA_OK and as the answer to TOPIC_CREATE
// and TOPIC_ALTER; there an option section follows.
//
//	┌─────────┬─────────┬──────┬────────┬───────────┬───────────────┐
//	│ err u16 │ name    │ id   │ engine │ levels u8 │ visibility u8 │
//	│         │ str 249 │ 16 B │ str 32 │ bit/level │               │
//	├─────────┴────┬────┴──────┴──────┬─┴───────────┴─┬─────────────┴──┬───────┬───────────────┐
//	│ retention ms │ retention bytes  │ segment bytes │ created µs i64 │ u32 n │ n × partition │
//	│ i64          │ i64              │ i64           │                │       │ n ≤ 4096      │
//	└──────────────┴──────────────────┴───────────────┴────────────────┴───────┴───────────────┘
type TopicInfo struct {
	Err            fault.Code // why the topic asked for is not described; fault.None if it is
	Name           string
	ID             [16]byte // ULID; a topic deleted and created again has another
	Engine         string
	Levels         uint8 // 1<<message.AckLevel for each that a producer may ask for
	Visibility     message.AckLevel
	RetentionMs    int64 // -1 = unlimited
	RetentionBytes int64 // of a partition, -1 = unlimited
	SegmentBytes   int64
	CreatedUs      int64 // µs since 1970
	Partitions     []PartitionInfo
	Data           TopicData // an option
}

// topicInfoLeast is the size of a topic with empty strings and no partition.
const topicInfoLeast = 2 + 2 + 16 + 2 + 1 + 1 + 8*4 + 4

// HasLevel reports whether a producer may ask for the level.
func (x *TopicInfo) HasLevel(l message.AckLevel) bool { return x.Levels&(1<<l) != 0 }

func (x *TopicInfo) appendBody(dst []byte) []byte {
	dst = le.AppendUint16(dst, uint16(x.Err))
	dst = appendString(dst, x.Name)
	dst = append(dst, x.ID[:]...)
	dst = appendString(dst, x.Engine)
	dst = append(dst, x.Levels, uint8(x.Visibility))
	dst = le.AppendUint64(dst, uint64(x.RetentionMs))
	dst = le.AppendUint64(dst, uint64(x.RetentionBytes))
	dst = le.AppendUint64(dst, uint64(x.SegmentBytes))
	dst = le.AppendUint64(dst, uint64(x.CreatedUs))
	dst = le.AppendUint32(dst, uint32(len(x.Partitions)))
	for i := range x.Partitions {
		dst = x.Partitions[i].append(dst)
	}
	return dst
}

func (x *TopicInfo) parseBody(c *cursor) {
	x.Err = fault.Code(c.u16("err"))
	x.Name = c.str("topic", MaxTopicBytes)
	x.ID = c.id("id")
	x.Engine = c.str("engine", MaxEngineBytes)
	x.Levels = c.u8("levels")
	x.Visibility = c.level("visibility")
	x.RetentionMs = c.i64("retention_ms")
	x.RetentionBytes = c.i64("retention_bytes")
	x.SegmentBytes = c.i64("segment_bytes")
	x.CreatedUs = c.i64("created_us")
	n := c.count("partitions", c.u32("partitions"), MaxPartitions, partitionInfoLeast)
	x.Partitions = make([]PartitionInfo, n)
	for i := range x.Partitions {
		x.Partitions[i].parse(c)
	}
}

// Append implements Payload.
func (x *TopicInfo) Append(dst []byte) []byte {
	return x.Data.appendAsOption(x.appendBody(dst), optTopicInfo)
}

// Parse implements Payload.
func (x *TopicInfo) Parse(src []byte) error {
	c := cursor{name: "TOPIC_INFO", b: src}
	x.parseBody(&c)
	x.Data = c.topicData(c.options(topicOptions(optTopicInfo)), optTopicInfo)
	return c.end()
}

// Health of a partition.
const (
	HealthOK        uint8 = 0
	HealthReadOnly  uint8 = 1 // produces are refused (the disk is low), reads go on
	HealthFailed    uint8 = 2 // the log failed and is fenced until it is reopened
	HealthCorrupted uint8 = 3 // works, but a range of offsets is damaged and skipped
	HealthOffline   uint8 = 4 // no node serves it
)

// PartitionInfo describes a partition.
//
//	┌───────────┬─────────┬───────────┬───────────┬─────┬─────────┬─────────┬───────────┬────────┐
//	│ index u32 │ leader  │ epoch u64 │ log start │ hwm │ log end │ durable │ bytes i64 │ health │
//	│           │ str 256 │           │ i64       │ i64 │ i64     │ i64     │           │ u8     │
//	└───────────┴─────────┴───────────┴───────────┴─────┴─────────┴─────────┴───────────┴────────┘
type PartitionInfo struct {
	Index  uint32
	Leader string // host:port of the owning node; empty = the node asked
	Epoch  uint64 // of the owner

	// message.NoOffset where the answering node does not know.
	LogStart message.Offset
	HWM      message.Offset // exclusive
	LogEnd   message.Offset // exclusive
	Durable  message.Offset // exclusive

	Bytes  int64
	Health uint8
}

const partitionInfoLeast = 4 + 2 + 8 + 8*4 + 8 + 1

func (x *PartitionInfo) append(dst []byte) []byte {
	dst = le.AppendUint32(dst, x.Index)
	dst = appendString(dst, x.Leader)
	dst = le.AppendUint64(dst, x.Epoch)
	dst = appendOffset(dst, x.LogStart)
	dst = appendOffset(dst, x.HWM)
	dst = appendOffset(dst, x.LogEnd)
	dst = appendOffset(dst, x.Durable)
	dst = le.AppendUint64(dst, uint64(x.Bytes))
	return append(dst, x.Health)
}

func (x *PartitionInfo) parse(c *cursor) {
	x.Index = c.u32("partition.index")
	x.Leader = c.str("partition.leader", MaxNameBytes)
	x.Epoch = c.u64("partition.epoch")
	x.LogStart = c.maybeOffset("partition.log_start")
	x.HWM = c.maybeOffset("partition.hwm")
	x.LogEnd = c.maybeOffset("partition.log_end")
	x.Durable = c.maybeOffset("partition.durable")
	x.Bytes = c.i64("partition.bytes")
	x.Health = c.u8("partition.health")
}
