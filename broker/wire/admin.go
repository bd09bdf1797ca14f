package wire

import (
	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

// Unlimited in a retention: nothing is removed for its age or size.
const Unlimited = -1

// TopicCreate creates a topic. It is answered by a TopicInfo.
//
//	┌─────────┬────────────┬───────────────┬──────────────┬─────────────────┬───────────────┬─────────┐
//	│ topic   │ partitions │ visibility u8 │ retention ms │ retention bytes │ segment bytes │ options │
//	│ str 249 │ u32 ≤ 4096 │ 0-2           │ i64          │ i64             │ i64           │         │
//	└─────────┴────────────┴───────────────┴──────────────┴─────────────────┴───────────────┴─────────┘
//
// 0 stands for the broker's default in every field but the name. Options 1 and 3,
// see TopicData, are left out if they say nothing.
type TopicCreate struct {
	Name           string
	Partitions     uint32
	Visibility     message.AckLevel
	RetentionMs    int64 // Unlimited allowed
	RetentionBytes int64 // of a partition; Unlimited allowed
	SegmentBytes   int64
	Data           TopicData
}

// Append implements Payload.
func (x *TopicCreate) Append(dst []byte) []byte {
	dst = appendString(dst, x.Name)
	dst = appendSettings(dst, x.Partitions, x.Visibility, x.RetentionMs, x.RetentionBytes, x.SegmentBytes)
	return x.Data.appendAsOption(dst, optTopicData)
}

// Parse implements Payload.
func (x *TopicCreate) Parse(src []byte) error {
	c := cursor{name: "TOPIC_CREATE", b: src}
	x.Name = c.topic()
	x.Partitions, x.Visibility, x.RetentionMs, x.RetentionBytes, x.SegmentBytes = c.settings()
	x.Data = c.topicData(c.options(topicOptions(optTopicData)), optTopicData)
	c.wanted(&x.Data)
	return c.end()
}

// Fields of a TopicAlter that are to change.
const (
	AlterPartitions uint32 = 1 << iota // only upwards
	AlterVisibility
	AlterRetentionMs
	AlterRetentionBytes
	AlterSegmentBytes // from the next segment on
	AlterCompression
	AlterCompressionLevel
	AlterEncoding
	AlterStrategy

	alterKnown = AlterPartitions | AlterVisibility | AlterRetentionMs | AlterRetentionBytes | AlterSegmentBytes |
		AlterCompression | AlterCompressionLevel | AlterEncoding | AlterStrategy
)

// TopicAlter changes the settings of a topic whose bit is set in Mask; the other
// fields are ignored. It is answered by a TopicInfo.
//
//	┌─────────┬──────────┬──────────────────────────┬─────────┐
//	│ topic   │ mask u32 │ settings as TOPIC_CREATE │ options │
//	│ str 249 │ 9 bits   │ (29 B)                   │         │
//	└─────────┴──────────┴──────────────────────────┴─────────┘
type TopicAlter struct {
	Name           string
	Mask           uint32
	Partitions     uint32
	Visibility     message.AckLevel
	RetentionMs    int64
	RetentionBytes int64
	SegmentBytes   int64
	Data           TopicData // options 1 and 3
}

// Append implements Payload.
func (x *TopicAlter) Append(dst []byte) []byte {
	dst = appendString(dst, x.Name)
	dst = le.AppendUint32(dst, x.Mask)
	dst = appendSettings(dst, x.Partitions, x.Visibility, x.RetentionMs, x.RetentionBytes, x.SegmentBytes)
	return x.Data.appendAsOption(dst, optTopicData)
}

// Parse implements Payload.
func (x *TopicAlter) Parse(src []byte) error {
	c := cursor{name: "TOPIC_ALTER", b: src}
	x.Name = c.topic()
	x.Mask = c.u32("mask")
	if c.err == nil && x.Mask&^alterKnown != 0 {
		c.fail(fault.New(fault.NotSupported, "parse "+c.name).WithField("mask").
			WithDetail("bits %#x name no setting of this version", x.Mask&^alterKnown))
	}
	x.Partitions, x.Visibility, x.RetentionMs, x.RetentionBytes, x.SegmentBytes = c.settings()
	x.Data = c.topicData(c.options(topicOptions(optTopicData)), optTopicData)
	c.wanted(&x.Data)
	return c.end()
}

// TopicDelete deletes a topic with its messages. The answer is empty.
//
//	┌─────────┬─────────┐
//	│ topic   │ options │
//	│ str 249 │         │
//	└─────────┴─────────┘
type TopicDelete struct {
	Name string
}

// Append implements Payload.
func (x *TopicDelete) Append(dst []byte) []byte {
	return appendOptions(appendString(dst, x.Name), nil)
}

// Parse implements Payload.
func (x *TopicDelete) Parse(src []byte) error {
	c := cursor{name: "TOPIC_DELETE", b: src}
	x.Name = c.topic()
	return c.finish()
}

func appendSettings(dst []byte, partitions uint32, visibility message.AckLevel, retentionMs, retentionBytes, segmentBytes int64) []byte {
	dst = le.AppendUint32(dst, partitions)
	dst = append(dst, uint8(visibility))
	dst = le.AppendUint64(dst, uint64(retentionMs))
	dst = le.AppendUint64(dst, uint64(retentionBytes))
	return le.AppendUint64(dst, uint64(segmentBytes))
}

func (c *cursor) settings() (partitions uint32, visibility message.AckLevel, retentionMs, retentionBytes, segmentBytes int64) {
	partitions = c.u32("partitions")
	if partitions > MaxPartitions {
		c.fail(c.tooLarge("partitions", "too many", int64(partitions), MaxPartitions).WithCategory(fault.CategoryTopic))
	}
	visibility = c.level("visibility")
	retentionMs = c.atLeast("retention_ms", Unlimited)
	retentionBytes = c.atLeast("retention_bytes", Unlimited)
	segmentBytes = c.atLeast("segment_bytes", 0)
	return
}

// atLeast reads a signed setting and refuses one below least.
func (c *cursor) atLeast(field string, least int64) int64 {
	v := c.i64(field)
	if c.err == nil && v < least {
		c.fail(c.invalid(field, "below what the setting may be").WithLimit(v, least).WithCategory(fault.CategoryTopic))
	}
	return v
}
