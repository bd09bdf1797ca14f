package client

import (
	"time"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

// ProducerOption changes a Producer's defaults.
type ProducerOption func(*producerConfig)

type producerConfig struct {
	ack         message.AckLevel
	idempotent  bool
	linger      time.Duration
	batchBytes  int
	policy      compression.Policy
	compresses  bool // policy was given, and no advice counts
	partitioner func(m *message.Message, partitions int) int
	maxBuffered int
	delivery    time.Duration
	encoding    message.Encoding
	encodes     bool // encoding was given, and no advice counts
	keyHashes   bool
	ids         bool
	budget      time.Duration // for encoding, in adaptive compression; 0: none
}

// Defaults of a Producer.
const (
	// DefaultLinger is how long a batch waits to fill, counted from the
	// producer's last send: a message that comes after a pause leaves at once.
	// A batch of one message costs both sides a wake-up and a few system calls,
	// some 60 µs of CPU a side against 1 µs for a message in a full batch, so
	// at most a thousand part-filled batches a second cost at most 6 % of a
	// core. A shorter linger could not be kept: the Go runtime rounds a sleep of
	// an idle process up to 1 ms. From 64 messages of 1 KiB per millisecond on,
	// batches are full before and linger does not matter.
	DefaultLinger = time.Millisecond

	// DefaultBatchBytes is the size at which a batch is sent without waiting
	// for more. 64 KiB is where both the cost of a write per byte and the ratio
	// of the compressors stop improving.
	DefaultBatchBytes = 64 << 10

	// DefaultMaxBuffered bounds what a producer holds: 512 full batches, or
	// 30 ms at 1 GB/s, several times what is in flight while a broker syncs.
	DefaultMaxBuffered = 32 << 20

	// DefaultDeliveryTimeout outlasts the restart of a broker with its recovery.
	DefaultDeliveryTimeout = 2 * time.Minute

	// inFlightBatches bounds the unanswered batches of a partition to the
	// number of batches whose sequence the broker remembers.
	inFlightBatches = 5
)

// WithAck sets what an acknowledgement means. Default message.AckDurable. At
// message.AckNone nothing is acknowledged: callbacks come when a batch was
// written to the connection, and a loss is silent.
func WithAck(level message.AckLevel) ProducerOption {
	return func(o *producerConfig) { o.ack = level }
}

// WithIdempotence makes the broker recognise a batch sent again, so that no
// retry duplicates or reorders messages. Without it a batch may be stored twice,
// and behind its successors. Default on; it is off at AckNone.
func WithIdempotence(on bool) ProducerOption {
	return func(o *producerConfig) { o.idempotent = on }
}

// WithLinger sets how long a batch waits to fill; see DefaultLinger. 0 sends
// whatever there is as soon as the connection takes it.
func WithLinger(d time.Duration) ProducerOption {
	return func(o *producerConfig) { o.linger = d }
}

// WithBatchBytes sets the size, before compression, at which a batch is sent.
// The message that reaches it still goes in unless it would pass it by more
// than a quarter; a larger message makes a batch of its own. Default
// DefaultBatchBytes.
func WithBatchBytes(n int) ProducerOption {
	return func(o *producerConfig) { o.batchBytes = n }
}

// WithCompression sets when and how batches are compressed, whatever the broker
// advises. Default: as the broker advises, by compression.DefaultPolicy with the
// algorithm, level and dictionary that are configured for the topic or, if
// nothing is, for the broker; when that changes, from the next batch on. A
// broker that gives no advice leaves batches as they are.
//
// A policy's Dictionary must be one of the topic's.
func WithCompression(p compression.Policy) ProducerOption {
	return func(o *producerConfig) { o.policy, o.compresses = p, true }
}

// WithPartitioner replaces the choice of a partition: f returns one in
// [0, partitions). It is called under the producer's lock and must be quick.
// Default: by key as Kafka does (message.PartitionFor), and without a key one
// partition after the other, changing with each batch.
func WithPartitioner(f func(m *message.Message, partitions int) int) ProducerOption {
	return func(o *producerConfig) { o.partitioner = f }
}

// WithMaxBuffered bounds the bytes of messages held by the producer. When they
// are reached, Send waits. Default DefaultMaxBuffered.
func WithMaxBuffered(n int) ProducerOption {
	return func(o *producerConfig) { o.maxBuffered = n }
}

// WithDeliveryTimeout sets for how long a batch is tried before its callbacks
// get an error. Default DefaultDeliveryTimeout. It is checked every eighth of
// itself.
func WithDeliveryTimeout(d time.Duration) ProducerOption {
	return func(o *producerConfig) { o.delivery = d }
}

// WithEncoding sets how Producer.Encode encodes, whatever the broker advises, and
// what batches say of values whose messages name no encoding. Default: Encode
// does as the broker advises for the topic, from the next call on when that
// changes; values whose messages name no encoding are message.Raw.
func WithEncoding(e message.Encoding) ProducerOption {
	return func(o *producerConfig) { o.encoding, o.encodes = e, true }
}

// WithIDs gives each message that has none an identifier, a ULID: those of one
// producer increase in the order of the calls. 16 bytes a message; default off,
// since a message is known by its partition and offset.
func WithIDs(on bool) ProducerOption {
	return func(o *producerConfig) { o.ids = on }
}

// WithKeyHashes adds a table of key hashes to each batch, for consumers that
// order or select by key.
func WithKeyHashes(on bool) ProducerOption {
	return func(o *producerConfig) { o.keyHashes = on }
}

func (o *producerConfig) validate() error {
	bad := func(field, detail string, args ...any) error {
		return fault.New(fault.Invalid, "open producer").WithField(field).WithDetail(detail, args...).
			WithCategory(fault.CategoryConfiguration)
	}
	switch {
	case !o.ack.Valid():
		return bad("ack", "%d is no level", o.ack)
	case !o.encoding.Valid():
		return bad("encoding", "%v is none", o.encoding)
	case o.linger < 0:
		return bad("linger", "is %v, must not be negative", o.linger)
	case o.batchBytes < 1:
		return bad("batch bytes", "is %d, must be at least 1", o.batchBytes)
	case o.maxBuffered < 1:
		return bad("max buffered", "is %d, must be at least 1", o.maxBuffered)
	case o.budget < 0:
		return bad("latency budget", "is %v, must not be negative", o.budget)
	case o.delivery < time.Millisecond:
		return bad("delivery timeout", "is %v, must be at least 1ms", o.delivery)
	}
	return o.policy.Validate()
}
