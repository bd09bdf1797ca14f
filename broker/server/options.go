package server

import (
	"errors"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"time"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/mempool"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/partition"
	"github.com/portask/portask/broker/server/evloop"
	"github.com/portask/portask/broker/storage"
	"github.com/portask/portask/broker/topic"
	"github.com/portask/portask/broker/wire"
)

// Options configure a Server. Engine is needed; the zero value of everything
// else is a safe default. Sizes are in bytes.
type Options struct {
	// Listen is the TCP address, "127.0.0.1:7474" by default; port 0 takes a
	// free one. An address that is not loopback needs Insecure, as long as the
	// broker has no authentication.
	Listen   string
	Insecure bool
	// Engine keeps the logs. The server does not close it.
	Engine storage.Engine
	// NodeID names this broker in metadata; "node-1" by default.
	NodeID string
	// Version is what HELLO_OK tells clients.
	Version string
	Logger  *slog.Logger

	// Loops is the number of event loops, at most 64; half of GOMAXPROCS by
	// default, at least one (docs/decisions/0006).
	Loops int
	// Workers is how many requests (topics, metadata, look-ups by time) and reads
	// of history may be under way at once, 4 by default, WorkersMin to WorkersMax:
	// neither kind gets all of them. Committer.Workers are beside them.
	Workers int
	// EventEngine is "epoll" (Linux) or "std"; empty chooses.
	EventEngine string
	// MaxConns bounds the connections.
	MaxConns int
	// ReceiveBytes is the size of a loop's receive chunk.
	ReceiveBytes int
	// TailBytes is how much of what was received last stays in memory for
	// consumers that read the tail.
	TailBytes int
	// ProduceBytes bounds the sum of the credit granted to producers;
	// ProducerBytes is the most that one of them gets.
	ProduceBytes, ProducerBytes int64
	// DeliverBytes bounds the batches of one DELIVER frame.
	DeliverBytes int
	// SlowConsumer closes a connection that took nothing of a frame for this
	// long.
	SlowConsumer time.Duration

	// Algorithms and Encodings are what the batches of producers may be
	// compressed with and their values be encoded in; all by default.
	Algorithms []message.Algorithm
	Encodings  []message.Encoding
	// What producers are advised to do whose program and topic say nothing; each
	// must be accepted. By default not to compress, and to leave values as they
	// are.
	Compression      message.Algorithm
	CompressionLevel compression.Level
	Encoding         message.Encoding
	// CompressionStrategy is when they are to compress; compression.Threshold by
	// default. With Adaptive, clients that can choose algorithm and level
	// themselves, among Algorithms, and those that cannot use Compression.
	CompressionStrategy wire.Choice[compression.Strategy]
	// Artefact is the policy of adaptive compression that producers are to use which
	// have none of their own; nil if they are to use what they carry. The server does
	// not look inside.
	Artefact []byte
	// Load reads how busy the broker's machine is; nil if nobody can tell. It is
	// called once a second at most, every fifth second while no producer wants to know.
	Load func() wire.Load

	// Network are the timeouts (PartialTimeout, PressedTimeout, PreTimeout,
	// CloseTimeout), bounds of output (OutBudgetBytes, OutPerConnBytes) and TCP
	// options of connections. Its other fields are not looked at.
	Network evloop.Options

	Limits    message.Limits
	Topics    topic.Config // defaults of new topics
	Committer partition.CommitterOptions
	// Measure has the durations of Server.Latency recorded.
	Measure bool
	// RetentionEvery is the time between two looks at expired segments.
	RetentionEvery time.Duration

	// plainMemory takes every chunk from the Go heap and leaves it to the
	// collector: what BenchmarkCollector compares with.
	plainMemory bool
}

// PoolBytes is the most that the server owns of chunks: what is being received or
// waits for the log (bounded by the producers' credit), the tail that is kept,
// what each loop reads into and has not sent yet, and what lies free.
func (o Options) PoolBytes() int64 {
	o = o.WithDefaults()
	return o.poolMaxBytes() + mempool.DefaultFreeBytes
}

// poolMaxBytes is PoolBytes without what lies free.
func (o *Options) poolMaxBytes() int64 {
	return int64(o.TailBytes) + o.ProduceBytes + int64(o.Loops)*(24<<20)
}

// LoopsMax bounds Options.Loops: a partition keeps its interested loops in one
// 64-bit word.
const LoopsMax = 64

// Bounds of Options.Workers. With two, each kind of work has one.
const (
	WorkersMin = 2
	WorkersMax = 256
)

// WithDefaults returns o with everything that is zero replaced by its default.
func (o Options) WithDefaults() Options {
	def(&o.Listen, "127.0.0.1:7474")
	def(&o.NodeID, "node-1")
	def(&o.Version, "dev")
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	def(&o.Loops, min(max(runtime.GOMAXPROCS(0)/2, 1), LoopsMax))
	def(&o.Workers, 4)
	def(&o.MaxConns, 1_000_000)
	def(&o.ReceiveBytes, 256<<10)
	def(&o.TailBytes, 16<<20)
	def(&o.ProduceBytes, 64<<20)
	def(&o.ProducerBytes, 4<<20)
	def(&o.DeliverBytes, 1<<20)
	def(&o.SlowConsumer, 30*time.Second)
	def(&o.RetentionEvery, 10*time.Second)
	if len(o.Algorithms) == 0 {
		o.Algorithms = []message.Algorithm{message.None, message.Gzip, message.Snappy, message.LZ4, message.Zstd, message.Brotli}
	}
	def(&o.CompressionStrategy, wire.Choose(compression.Threshold))
	if len(o.Encodings) == 0 {
		o.Encodings = []message.Encoding{message.Raw, message.CBOR, message.JSON, message.MessagePack}
	}
	n := o.Network.WithDefaults()
	if o.Network.PreTimeout == 0 {
		n.PreTimeout = wire.PreAuthTimeout
	}
	o.Network = evloop.Options{PartialTimeout: n.PartialTimeout, PressedTimeout: n.PressedTimeout, PreTimeout: n.PreTimeout,
		CloseTimeout: n.CloseTimeout, OutBudgetBytes: n.OutBudgetBytes, OutPerConnBytes: n.OutPerConnBytes, Delay: n.Delay,
		KeepAlive: n.KeepAlive, UserTimeout: n.UserTimeout, SendBufferBytes: n.SendBufferBytes, RecvBufferBytes: n.RecvBufferBytes}
	if o.Limits == (message.Limits{}) {
		o.Limits = message.DefaultLimits()
	}
	o.Committer = o.Committer.WithDefaults()
	d := &o.Topics
	def(&d.Partitions, 1)
	def(&d.RetentionMs, int64(7*24*time.Hour/time.Millisecond))
	def(&d.RetentionBytes, topic.Unlimited)
	def(&d.SegmentBytes, 64<<20)
	return o
}

// Limits of Options.
const (
	DeliverBytesMin  = 4 << 10
	DeliverBytesMax  = wire.DefaultMaxFrame / 2
	ProducerBytesMin = grantMin
)

// Check reports every violation, joined: *fault.Errors that name their field. It
// does not look at Engine.
func (o Options) Check() error {
	o = o.WithDefaults()
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, fault.New(fault.Invalid, "check server options").WithField(field).WithDetail(format, args...))
	}
	if o.Loops < 1 || o.Loops > LoopsMax {
		bad("loops", "%d is outside [1, %d]", o.Loops, LoopsMax)
	}
	if o.Workers < WorkersMin || o.Workers > WorkersMax {
		bad("workers", "%d is outside [%d, %d]", o.Workers, WorkersMin, WorkersMax)
	}
	if o.DeliverBytes < DeliverBytesMin || o.DeliverBytes > DeliverBytesMax {
		bad("deliver_bytes", "%d is outside [%d, %d]", o.DeliverBytes, DeliverBytesMin, DeliverBytesMax)
	}
	if !slices.Contains(o.Algorithms, o.Compression) {
		bad("compression", "%s is the default, and not accepted", o.Compression)
	}
	if err := (compression.Policy{Level: o.CompressionLevel}).Validate(); err != nil {
		bad("compression_level", "%d is no level", uint8(o.CompressionLevel))
	}
	if err := (compression.Policy{Strategy: o.CompressionStrategy.Or(compression.Threshold)}).Validate(); err != nil {
		bad("compression_strategy", "%d is no strategy", uint8(o.CompressionStrategy)-1)
	}
	if !slices.Contains(o.Encodings, o.Encoding) {
		bad("encoding", "%s is the default, and not accepted", o.Encoding)
	}
	if o.ProducerBytes < ProducerBytesMin || o.ProducerBytes > o.ProduceBytes {
		bad("producer_bytes", "%d is outside [%d, produce_bytes = %d]", o.ProducerBytes, ProducerBytesMin, o.ProduceBytes)
	}
	return errors.Join(append(errs, o.checkListen(), o.Limits.Validate())...)
}

// complete is WithDefaults and Check, with the engine.
func (o *Options) complete() error {
	*o = o.WithDefaults()
	if o.Engine == nil {
		return errors.Join(fault.New(fault.Invalid, "check server options").WithField("engine").WithDetail("none was given"), o.Check())
	}
	return o.Check()
}

func def[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// checkListen refuses to serve strangers without being told to.
func (o *Options) checkListen() error {
	host, _, err := net.SplitHostPort(o.Listen)
	if err != nil {
		return fault.New(fault.Invalid, "check server options").WithField("listen").WithCause(err)
	}
	if o.Insecure {
		return nil
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fault.New(fault.Invalid, "check server options").WithField("listen").
			WithDetail("%q is not a loopback address and the broker has no authentication yet; set insecure to serve it all the same", o.Listen)
	}
	return nil
}
