// Package driver is the seam between the generator and a system under test.
//
// A Driver opens clients of one system: Portask, a rival, or a target of known
// behaviour. The generator fixes when each message is due, what it holds and
// whether what comes back is right; a driver moves messages and adds nothing of
// its own: no retry the system's own client would not make, no batching its
// experts would not choose, no clock reading, no queue that hides back-pressure.
// What a system cannot do, its driver refuses with an *Unsupported before the
// run begins. It never does something similar instead.
//
// # Terms
//
// A topic has partitions 0 to n-1. Within a partition messages are delivered in
// the order in which the calls of Send for it returned, as long as one producer
// sends to it. What a system calls them (streams, subjects, keys) is the
// driver's affair.
//
// # Costs
//
// Messages are the broker's message.Message both ways, so that a driver of
// Portask converts nothing. A message on its way lives in a Slot, which is made
// once and used again: sending costs no allocation in the driver beyond those
// of the system's client.
//
// # Concurrency
//
// A Driver and a Conn may be used by any number of goroutines. Send of one
// Producer's slots is called by one goroutine at a time, answers come on
// goroutines of the client's. A Consumer's Poll and its batches belong to one
// goroutine; CaughtUp and Close may be called from another.
//
// The suite in drivertest holds a driver to this contract.
package driver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/message"
)

// Kind is a system that can be driven. It is how a command knows its drivers.
type Kind struct {
	Name string // "portask", "nats-core": lower case, digits, dashes
	Doc  string // one line
	Addr string // where it listens if nothing is said
	// Settings names what Options.Settings may hold, with one line each.
	Settings map[string]string
	// Open connects far enough to tell that the target is there. Errors: an
	// unknown or bad setting, an unreachable target.
	Open func(ctx context.Context, o Options) (Driver, error)
}

// Options are what a driver is opened with.
type Options struct {
	Addr string
	// Settings are the driver's own, by the names its Kind documents.
	Settings map[string]string
	// Decisions gets the log of what producers with adaptive compression decide, at
	// most DecisionBytes, until the driver is closed; nil: none. Drivers without such
	// producers do not look at it.
	Decisions     io.Writer
	DecisionBytes int64
}

// Driver drives one deployment of one system.
type Driver interface {
	// Name is its Kind's.
	Name() string

	// Describe asks the target what it is.
	Describe(ctx context.Context) (Description, error)

	// Check tells whether the system can do what a run needs. The error is an
	// *Unsupported, or several joined.
	Check(n Needs) error

	// Prepare creates a topic, empty, and returns it as it is now. It returns
	// when the topic can be produced to and consumed from everywhere.
	Prepare(ctx context.Context, t Topic) (Topic, error)

	// Lookup describes a topic that exists. The error is *Unsupported where
	// the system has no such thing as a topic without traffic.
	Lookup(ctx context.Context, name string) (Topic, error)

	// Drop deletes a topic with what is stored in it. A topic that does not
	// exist is no error.
	Drop(ctx context.Context, name string) error

	// Connect opens one client: a producer or consumer of the generator has a
	// Conn of its own. name says which, for the target's logs.
	Connect(ctx context.Context, name string) (Conn, error)

	// Close ends what the driver itself holds. Conns are closed before.
	Close() error
}

// Description is what a target says of itself; it is kept with the result.
type Description struct {
	System  string `json:"system"` // "portask"
	Version string `json:"version"`
	// Levels tell what an answered message of each ack level really survives
	// with the target's settings as they are, weakest first. A level that is
	// missing is not offered.
	Levels []Level `json:"levels"`
	// Settings of the target and the driver that a reader of the result should
	// know, such as "storage": "file".
	Settings map[string]string `json:"settings,omitempty"`
}

// Level is one ack level of a target.
type Level struct {
	Ack   message.AckLevel `json:"-"`
	Name  string           `json:"ack"` // Ack's; what JSON keeps
	Gives Durability       `json:"gives"`
	How   string           `json:"how"` // in the system's own words: "fsync always"
}

// Gives is the durability of an ack level; false if it is not offered.
func (d Description) Gives(a message.AckLevel) (Durability, bool) {
	for _, l := range d.Levels {
		if l.Name == a.String() {
			return l.Gives, true
		}
	}
	return Nothing, false
}

// Durability is what an answered message survives. Two systems compare fairly
// at the same one.
type Durability string

// The durabilities, weakest first.
const (
	Nothing Durability = "nothing" // may be lost at any time, without a failure
	Memory  Durability = "memory"  // is held until delivered, and dies with the process
	OS      Durability = "os"      // with the operating system: survives kill -9, not power loss
	Disk    Durability = "disk"    // synced to the device: survives power loss
)

// Mode is how messages are handed to consumers.
type Mode string

// The modes.
const (
	Stream Mode = "stream" // each consumer reads whole partitions, in order
	Group  Mode = "group"  // partitions are shared out among the members of a group
	Queue  Mode = "queue"  // each message goes to one consumer of many and is acknowledged by it
)

// Modes are all of them.
var Modes = []Mode{Stream, Group, Queue}

// Needs are what a run asks of a system.
type Needs struct {
	Mode        Mode
	Ack         message.AckLevel
	Visibility  message.AckLevel
	Partitions  int // of the largest topic
	Encoding    message.Encoding
	Compression Compression
	Keys        bool
	Retention   bool // by time or bytes
	Existing    bool // a topic that is there before the run
}

// Unsupported says what a system cannot do, and why.
type Unsupported struct {
	Driver string
	What   string // "delivery mode queue"
	Why    string // "the broker has no such mode yet"
}

func (e *Unsupported) Error() string {
	return fmt.Sprintf("%s cannot do this scenario: %s: %s", e.Driver, e.What, e.Why)
}

// AsUnsupported finds the first *Unsupported in err's chain, nil if there is
// none.
func AsUnsupported(err error) *Unsupported {
	u, _ := errors.AsType[*Unsupported](err)
	return u
}

// Topic is a topic to be created, or as it is.
type Topic struct {
	Name       string
	Partitions int
	// Visibility is what a message must have reached before it is consumed.
	// Systems without the choice give what they have.
	Visibility     message.AckLevel
	Retention      time.Duration // 0: the target's default
	RetentionBytes int64         // of a partition; 0: the target's default
}

// Conn is one client of the target. Its producers and consumers share its
// connection if the system's client does that.
type Conn interface {
	// Producer opens a producer and returns when it may send.
	Producer(ctx context.Context, o ProducerOptions) (Producer, error)
	// Consumer subscribes and returns when every message sent from now on will
	// be delivered; what was stored before is not.
	Consumer(ctx context.Context, o ConsumerOptions) (Consumer, error)
	// Close ends it with everything opened on it. Outstanding answers come
	// before it returns.
	Close() error
}

// Compression is when and how batches are compressed.
type Compression struct {
	// Auto leaves it to the deployment: the producer is given no policy and
	// follows the broker's advice, where there is such a thing.
	Auto   bool
	Policy compression.Policy // meaningless if Auto
}

// ProducerOptions are the same for all systems; each driver's documentation
// says what they mean there.
type ProducerOptions struct {
	Topic       string
	Ack         message.AckLevel
	BatchBytes  int           // size at which a batch is sent; 0: the client's default
	Linger      time.Duration // how long a batch may wait to fill; negative: the client's default
	Compression Compression
	Encoding    message.Encoding // of all values
	// BufferBytes bounds what the producer holds, unanswered messages
	// included; 0: the client's default.
	BufferBytes int
}

// Producer sends to one topic.
type Producer interface {
	// Slot makes the memory of one message on its way. answered is called once
	// for each Send that returned no error: nil means that the message reached
	// the ack level, an error that the client gave it up; it may arrive or
	// not. At ack level none it comes when the client has passed the message
	// on. It may be called before Send returns, must not block, and may call
	// Send of a slot that is free.
	Slot(answered func(error)) Slot

	// Congested tells whether the producer's buffer is mostly full: a Send that
	// took long was held back by the target, not by bad luck.
	Congested() bool

	// Stats counts since the producer was opened.
	Stats() ProducerStats

	// Flush sends what lingers and waits until every message sent before has
	// been answered.
	Flush(ctx context.Context) error

	// Close flushes as long as ctx lasts. What is unanswered then gets its
	// answer, an error, before Close returns. It may be called more than once.
	Close(ctx context.Context) error
}

// Slot is the memory of one message on its way.
type Slot interface {
	// Send hands over a copy of m, whose Value, Key and Timestamp count. It
	// waits only while the producer's buffer is full or no more may be in
	// flight: back-pressure is a Send that takes long, never a drop. After it
	// returned nil the slot is taken until the answer. After an error there is
	// no answer, the message is not sent, and the slot is free.
	//
	// Errors: the context's; the one that ended the producer.
	Send(ctx context.Context, partition uint32, m *message.Message) error
}

// ProducerStats are counts of a producer, 0 where a client does not tell.
type ProducerStats struct {
	Messages   uint64 // taken by Send
	Batches    uint64 // requests that carried them, retries not counted
	WireBytes  uint64 // sent, framing and retries included
	RawBytes   uint64 // of batch bodies before compression, retries not counted
	Retries    uint64 // batches sent again
	Duplicates uint64 // of those, recognised by the target as stored before
}

// ConsumerOptions choose what to consume.
type ConsumerOptions struct {
	Topic      string
	Partitions []uint32
	Mode       Mode
}

// Consumer receives partitions of one topic.
type Consumer interface {
	// Poll waits for messages. The batch is valid until its Release or the next
	// Poll, which releases it.
	//
	// Errors: the context's; ErrClosed; others concern one partition, and the
	// next Poll goes on with the rest.
	Poll(ctx context.Context) (Batch, error)

	// CaughtUp tells whether everything that was stored in the consumer's
	// partitions when it was called has been handed out, and the batches been
	// released. Where a system cannot tell, it waits for the client's queues
	// to be empty, and the driver's documentation says so.
	CaughtUp(ctx context.Context) (bool, error)

	// Close ends it. A Poll that waits gets ErrClosed. It may be called more
	// than once.
	Close() error
}

// ErrClosed is, or is wrapped by, what a closed Consumer or Producer returns.
var ErrClosed = errors.New("closed")

// Batch is what a client received at once: messages of one partition, in order.
type Batch interface {
	Partition() uint32
	// Messages iterates. A message is valid until the next one. Its Offset
	// increases within a partition, and is message.NoOffset where a system has
	// none. An error comes with a nil message and stands for messages that
	// could not be read.
	Messages() iter.Seq2[*message.Message, error]
	// Release gives the batch back.
	Release()
}
