package client

import (
	"context"
	"fmt"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/wire"
)

// Admin manages topics. It has no state of its own and costs nothing to make;
// its methods may be called from any goroutine. A request that reads is sent
// again when the connection is lost before its answer; one that changes
// something fails with fault.ConnectionLost, and may have taken effect.
type Admin struct {
	c *Client
}

// Admin returns the Admin of the client's broker.
func (c *Client) Admin() *Admin { return &Admin{c} }

// Unlimited as a retention, of time or bytes: nothing is removed for its age or
// size.
const Unlimited = wire.Unlimited

// Topic describes a topic.
type Topic struct {
	Name           string
	ID             ulid.ULID // another one if the topic is deleted and created again
	Engine         string    // of storage
	Levels         []message.AckLevel
	Visibility     message.AckLevel // what a message must have reached before it is consumed
	Retention      time.Duration    // Unlimited (-1) or the age at which messages may be removed
	RetentionBytes int64            // Unlimited or bytes of a partition
	SegmentBytes   int64
	// What producers are advised to do; what is not chosen is as the broker is
	// configured.
	Compression Choice[message.Algorithm]
	Level       Choice[compression.Level]
	Encoding    Choice[message.Encoding]
	Dictionary  uint32 // that is in use, 0: none
	Strategy    Choice[compression.Strategy]
	Created     time.Time
	Partitions  []Partition
}

// Partition describes a partition. Offsets are message.NoOffset where the
// broker asked does not know them.
type Partition struct {
	Index    uint32
	Leader   string // host:port of the node that serves it; empty: the one asked
	Epoch    uint64
	LogStart message.Offset // oldest readable
	HWM      message.Offset // consumers may read below it
	LogEnd   message.Offset // next to be assigned
	Durable  message.Offset // all below is synced
	Bytes    int64
	Health   Health
}

// Health says whether a partition works.
type Health uint8

// String returns a word for h.
func (h Health) String() string {
	switch uint8(h) {
	case wire.HealthOK:
		return "ok"
	case wire.HealthReadOnly:
		return "read-only"
	case wire.HealthFailed:
		return "failed"
	case wire.HealthCorrupted:
		return "damaged"
	case wire.HealthOffline:
		return "offline"
	}
	return "unknown"
}

// TopicConfig says what a new topic is like. Zero values stand for the broker's
// defaults, Unlimited (-1) is allowed for the retentions.
type TopicConfig struct {
	Name           string
	Partitions     int
	Visibility     message.AckLevel
	Retention      time.Duration // in whole milliseconds, rounded up
	RetentionBytes int64
	SegmentBytes   int64
	Compression    Choice[message.Algorithm]
	Level          Choice[compression.Level]
	Encoding       Choice[message.Encoding]
	Strategy       Choice[compression.Strategy]
}

// Choice is a setting that may be left to the broker, which is its zero value;
// Choose makes any other.
type Choice[T ~uint8] = wire.Choice[T]

// Choose returns the choice of v.
func Choose[T ~uint8](v T) Choice[T] { return wire.Choose(v) }

// CreateTopic creates a topic and returns when it can be used.
//
// Errors: fault.Exists, fault.Invalid or fault.TooLarge with the field,
// fault.LevelUnavailable for a visibility that the engine does not have.
func (a *Admin) CreateTopic(ctx context.Context, t TopicConfig) (Topic, error) {
	if err := wire.CheckTopicName(t.Name); err != nil {
		return Topic{}, err
	}
	if t.Partitions < 0 || t.Partitions > wire.MaxPartitions {
		return Topic{}, fault.New(fault.Invalid, "create topic "+t.Name).WithField("partitions").
			WithLimit(int64(t.Partitions), wire.MaxPartitions).WithCategory(fault.CategoryTopic)
	}
	req := wire.TopicCreate{
		Name: t.Name, Partitions: uint32(t.Partitions), Visibility: t.Visibility,
		RetentionMs: millis(t.Retention), RetentionBytes: t.RetentionBytes, SegmentBytes: t.SegmentBytes,
		Data: wire.TopicData{Compression: t.Compression, Level: Choice[uint8](t.Level), Encoding: t.Encoding, Strategy: Choice[uint8](t.Strategy)},
	}
	var resp wire.TopicInfo
	if err := a.c.links[0].call(ctx, wire.OpTopicCreate, &req, &resp, false, nil); err != nil {
		return Topic{}, fmt.Errorf("create topic %s: %w", t.Name, err)
	}
	return topicOf(&resp), nil
}

// millis is d in milliseconds, rounded up, negative values kept as -1.
func millis(d time.Duration) int64 {
	if d < 0 {
		return wire.Unlimited
	}
	return int64((d + time.Millisecond - 1) / time.Millisecond)
}

// TopicChange says what AlterTopic changes: the fields that are not nil.
type TopicChange struct {
	Partitions     *int // only upwards
	Visibility     *message.AckLevel
	Retention      *time.Duration
	RetentionBytes *int64
	SegmentBytes   *int64 // from the next segment on

	// Producers that are open and were told nothing else follow from their next
	// batch on.
	Compression *Choice[message.Algorithm]
	Level       *Choice[compression.Level]
	Encoding    *Choice[message.Encoding]
	Strategy    *Choice[compression.Strategy]
}

// AlterTopic changes the settings of a topic.
//
// Errors: fault.NotFound, fault.Invalid or fault.TooLarge with the field,
// fault.LevelUnavailable.
func (a *Admin) AlterTopic(ctx context.Context, name string, c TopicChange) (Topic, error) {
	if err := wire.CheckTopicName(name); err != nil {
		return Topic{}, err
	}
	req := wire.TopicAlter{Name: name}
	if c.Partitions != nil {
		if *c.Partitions < 1 || *c.Partitions > wire.MaxPartitions {
			return Topic{}, fault.New(fault.Invalid, "alter topic "+name).WithField("partitions").
				WithLimit(int64(*c.Partitions), wire.MaxPartitions).WithCategory(fault.CategoryTopic)
		}
		req.Mask |= wire.AlterPartitions
		req.Partitions = uint32(*c.Partitions)
	}
	if c.Visibility != nil {
		req.Mask |= wire.AlterVisibility
		req.Visibility = *c.Visibility
	}
	if c.Retention != nil {
		req.Mask |= wire.AlterRetentionMs
		req.RetentionMs = millis(*c.Retention)
	}
	if c.RetentionBytes != nil {
		req.Mask |= wire.AlterRetentionBytes
		req.RetentionBytes = *c.RetentionBytes
	}
	if c.SegmentBytes != nil {
		req.Mask |= wire.AlterSegmentBytes
		req.SegmentBytes = *c.SegmentBytes
	}
	if c.Compression != nil {
		req.Mask |= wire.AlterCompression
		req.Data.Compression = *c.Compression
	}
	if c.Level != nil {
		req.Mask |= wire.AlterCompressionLevel
		req.Data.Level = Choice[uint8](*c.Level)
	}
	if c.Encoding != nil {
		req.Mask |= wire.AlterEncoding
		req.Data.Encoding = *c.Encoding
	}
	if c.Strategy != nil {
		req.Mask |= wire.AlterStrategy
		req.Data.Strategy = Choice[uint8](*c.Strategy)
	}
	var resp wire.TopicInfo
	if err := a.c.links[0].call(ctx, wire.OpTopicAlter, &req, &resp, false, nil); err != nil {
		return Topic{}, fmt.Errorf("alter topic %s: %w", name, err)
	}
	return topicOf(&resp), nil
}

// DeleteTopic deletes a topic with its messages. Errors: fault.NotFound.
func (a *Admin) DeleteTopic(ctx context.Context, name string) error {
	if err := wire.CheckTopicName(name); err != nil {
		return err
	}
	if err := a.c.links[0].call(ctx, wire.OpTopicDelete, &wire.TopicDelete{Name: name}, new(wire.Empty), false, nil); err != nil {
		return fmt.Errorf("delete topic %s: %w", name, err)
	}
	return nil
}

// ListTopics describes all topics.
func (a *Admin) ListTopics(ctx context.Context) ([]Topic, error) {
	infos, err := a.metadata(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("list topics: %w", err)
	}
	topics := make([]Topic, 0, len(infos))
	for i := range infos {
		if infos[i].Err == fault.None {
			topics = append(topics, topicOf(&infos[i]))
		}
	}
	return topics, nil
}

// DescribeTopic describes one topic. Errors: fault.NotFound.
func (a *Admin) DescribeTopic(ctx context.Context, name string) (Topic, error) {
	op := "describe topic " + name
	if err := wire.CheckTopicName(name); err != nil {
		return Topic{}, err
	}
	infos, err := a.metadata(ctx, []string{name})
	if err != nil {
		return Topic{}, fmt.Errorf("%s: %w", op, err)
	}
	for i := range infos {
		if infos[i].Name != name {
			continue
		}
		if code := infos[i].Err; code != fault.None {
			return Topic{}, fault.New(code, op).WithField("topic")
		}
		return topicOf(&infos[i]), nil
	}
	return Topic{}, fault.New(fault.ProtocolViolation, op).WithDetail("the answer has no such topic")
}

func (a *Admin) metadata(ctx context.Context, names []string) ([]wire.TopicInfo, error) {
	var part wire.Metadata
	var all []wire.TopicInfo
	take := func() { all = append(all, part.Topics...) }
	if err := a.c.links[0].call(ctx, wire.OpMetadata, &wire.MetadataRequest{Topics: names}, &part, true, take); err != nil {
		return nil, err
	}
	take()
	return all, nil
}

// Offsets answers ListOffsets.
type Offsets struct {
	Offset    message.Offset // what the start means now
	LogStart  message.Offset
	HWM       message.Offset // exclusive
	LogEnd    message.Offset // exclusive
	Timestamp time.Time      // of the batch at Offset; zero if there is none yet
}

// ListOffsets tells which offset a start means now. Errors: fault.NotFound for
// the topic or the partition.
func (a *Admin) ListOffsets(ctx context.Context, topic string, partition uint32, at Start) (Offsets, error) {
	if err := wire.CheckTopicName(topic); err != nil {
		return Offsets{}, err
	}
	req := wire.ListOffsets{Topic: topic, Partition: partition, Start: at.kind, StartValue: at.value}
	var resp wire.ListOffsetsOK
	if err := a.c.links[0].call(ctx, wire.OpListOffsets, &req, &resp, true, nil); err != nil {
		return Offsets{}, fmt.Errorf("list offsets of %s-%d: %w", topic, partition, err)
	}
	o := Offsets{Offset: resp.Offset, LogStart: resp.LogStart, HWM: resp.HWM, LogEnd: resp.LogEnd}
	if resp.TimestampUs != 0 {
		o.Timestamp = time.UnixMicro(resp.TimestampUs)
	}
	return o, nil
}

// Ping asks the broker for a sign of life and returns how long it took.
func (a *Admin) Ping(ctx context.Context) (time.Duration, error) {
	var resp wire.Ping
	began := time.Now()
	err := a.c.links[0].call(ctx, wire.OpPing, &wire.Ping{Nonce: uint64(began.UnixNano())}, &resp, false, nil)
	return time.Since(began), err
}

func topicOf(x *wire.TopicInfo) Topic {
	t := Topic{
		Name: x.Name, ID: x.ID, Engine: x.Engine, Visibility: x.Visibility,
		Retention:      time.Duration(x.RetentionMs) * time.Millisecond,
		RetentionBytes: x.RetentionBytes, SegmentBytes: x.SegmentBytes,
		Compression: x.Data.Compression, Level: Choice[compression.Level](x.Data.Level), Encoding: x.Data.Encoding, Dictionary: x.Data.Dictionary, Strategy: Choice[compression.Strategy](x.Data.Strategy),
		Created: time.UnixMicro(x.CreatedUs),
	}
	if x.RetentionMs < 0 {
		t.Retention = Unlimited
	}
	for l := message.AckNone; l <= message.AckDurable; l++ {
		if x.HasLevel(l) {
			t.Levels = append(t.Levels, l)
		}
	}
	for i := range x.Partitions {
		p := &x.Partitions[i]
		t.Partitions = append(t.Partitions, Partition{
			Index: p.Index, Leader: p.Leader, Epoch: p.Epoch, LogStart: p.LogStart, HWM: p.HWM,
			LogEnd: p.LogEnd, Durable: p.Durable, Bytes: p.Bytes, Health: Health(p.Health),
		})
	}
	return t
}
