package main

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"time"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/config"
	"github.com/portask/portask/broker/config/document"
	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/mempool"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/server"
	"github.com/portask/portask/broker/server/evloop"
	"github.com/portask/portask/broker/storage/disklog"
	"github.com/portask/portask/broker/storage/memlog"
	"github.com/portask/portask/broker/topic"
	"github.com/portask/portask/broker/wire"
)

// settingsVersion is the version of the table below. It grows when a setting is
// renamed, removed or changes its meaning, with a Migration for files of the
// version before; adding a setting does not change it.
const settingsVersion = 1

// The storage engines.
const (
	engineDisk   = "disklog"
	engineMemory = memlog.Name
)

// brokerOptions are the options of everything `portask serve` starts, each as its
// component defines them.
type brokerOptions struct {
	server server.Options
	engine string
	data   string
	disk   disklog.Options
	// artefact is the file of server.Options.Artefact, empty for none.
	artefact string
	mem      memlog.Options

	addrFile        string
	shutdownTimeout time.Duration

	logLevel  slog.Level
	logFormat string

	gcPercent   int
	memoryLimit int64

	monitor monitorSettings
}

// newBrokerOptions are the defaults, the components' own.
func newBrokerOptions() *brokerOptions {
	o := &brokerOptions{
		server:          server.Options{}.WithDefaults(),
		engine:          engineDisk,
		data:            "portask-data",
		disk:            disklog.Options{}.WithDefaults(),
		mem:             memlog.Options{MaxBytes: memlog.DefaultMaxBytes},
		shutdownTimeout: 30 * time.Second,
		logFormat:       "text",
		gcPercent:       collector().percent,
		memoryLimit:     autoMemory,
		monitor:         newMonitorSettings(),
	}
	o.server.Loops = 0 // shown as auto, not as this machine's number
	return o
}

// batchMax is the largest batch that fits a frame of the protocol.
const batchMax = wire.DefaultMaxFrame - 4<<10

const year = 365 * 24 * time.Hour

// schema is the table of all settings, bound to o.
func (o *brokerOptions) schema() *config.Schema {
	s := &o.server
	n := &s.Network
	return config.New(config.Options{
		Env: "PORTASK_", EnvOther: []string{envConfig}, Version: settingsVersion, Check: o.check,
	},
		config.Area{Name: "server", Doc: "The process.", Keys: []config.Key{
			{Name: "node_id", Flag: "node-id", Value: config.String(&s.NodeID, "1 to 256 bytes", between(1, wire.MaxNameBytes)),
				Doc: "Name of this broker in metadata."},
			{Name: "shutdown_timeout", Flag: "shutdown-timeout", Live: true, Value: config.Duration(&o.shutdownTimeout, time.Millisecond, time.Hour),
				Doc: "How long a graceful stop may take."},
			{Name: "address_file", Flag: "addr-file", Value: config.String(&o.addrFile, "", nil),
				Doc: "The address that is served is written to this file, for whoever waits for a broker on a free port."},
		}},
		config.Area{Name: "network", Doc: "The listener and its connections.", Keys: []config.Key{
			{Name: "listen", Flag: "listen", Field: "listen", Value: config.String(&s.Listen, "host:port", nil),
				Doc: "TCP address; port 0 takes a free one."},
			{Name: "insecure", Flag: "insecure", Value: config.Bool(&s.Insecure),
				Doc: "Serve an address that is not loopback, to anybody who can reach it: there is no authentication yet."},
			{Name: "max_connections", Flag: "max-connections", Value: config.Count(&s.MaxConns, 1, 10_000_000),
				Doc: "Connections at once; one more is closed as soon as it is accepted. Each needs a descriptor of the process."},
			{Name: "event_engine", Flag: "event-engine", Value: config.OneOf(&s.EventEngine, config.Is("auto", ""), config.Is("epoll", evloop.EngineEpoll), config.Is("std", evloop.EngineStd)),
				Doc: "What serves connections: epoll (Linux) has no goroutine per connection, std runs everywhere; auto takes the first that the system has."},
			{Name: "slow_consumer", Flag: "slow-consumer", Live: true, Value: config.Duration(&s.SlowConsumer, time.Millisecond, 24*time.Hour),
				Doc: "A connection that takes nothing of what waits for it is closed after this long."},
			{Name: "handshake_timeout", Value: config.Duration(&n.PreTimeout, 10*time.Millisecond, 10*time.Minute),
				Doc: "From accepting a connection to the end of its handshake."},
			{Name: "frame_timeout", Value: config.Duration(&n.PartialTimeout, 10*time.Millisecond, time.Hour),
				Doc: "From a frame's first byte to its last."},
			{Name: "frame_timeout_pressed", Value: config.Duration(&n.PressedTimeout, 10*time.Millisecond, time.Hour),
				Doc: "The same while the memory for incomplete frames is used up and others wait for it."},
			{Name: "close_timeout", Value: config.Duration(&n.CloseTimeout, 10*time.Millisecond, 10*time.Minute),
				Doc: "How long the last answer of a connection that is closed may take to be read."},
			{Name: "output_per_connection", Value: config.Size(&n.OutPerConnBytes, 16<<10, 1<<30),
				Doc: "Answers that a connection does not read; over it, it is closed as slow. Deliveries do not count."},
			{Name: "output_per_loop", Value: config.Size(&n.OutBudgetBytes, 1<<20, 1<<40),
				Doc: "The same for all connections of an event loop."},
			{Name: "tcp.delay", Value: config.Bool(&n.Delay),
				Doc: "Leave Nagle's algorithm on: fewer packets where answers are small, later ones."},
			{Name: "tcp.keep_alive", Value: config.Duration(&n.KeepAlive, time.Second, 24*time.Hour).Or("off", -1),
				Doc: "Silence after which the kernel probes the peer."},
			{Name: "tcp.user_timeout", Value: config.Duration(&n.UserTimeout, time.Second, 24*time.Hour).Or("off", -1),
				Doc: "A connection whose peer leaves data unacknowledged for this long ends. Linux only."},
			{Name: "tcp.send_buffer", Value: config.Size(&n.SendBufferBytes, 4<<10, 1<<30).Or("auto", 0),
				Doc: "Size of the kernel's send buffer; auto leaves it to the kernel."},
			{Name: "tcp.receive_buffer", Value: config.Size(&n.RecvBufferBytes, 4<<10, 1<<30).Or("auto", 0),
				Doc: "Size of the kernel's receive buffer; auto leaves it to the kernel."},
		}},
		config.Area{Name: "storage", Doc: "Where messages are kept, and when they are safe.", Keys: []config.Key{
			{Name: "engine", Flag: "engine", Value: config.OneOf(&o.engine, config.Words(engineDisk, engineMemory)...),
				Doc: "disklog keeps messages in one directory; memlog in memory, gone at the end of the process."},
			{Name: "directory", Flag: "data", Value: config.String(&o.data, "not empty", between(1, 4096)),
				Doc: "Data directory of disklog; it belongs to one process at a time."},
			{Name: "disklog.segment_age", Field: "SegmentAge", Value: config.Duration(&o.disk.SegmentAge, time.Second, 100*year),
				Doc: "A segment whose first batch is older is closed at the next append, so that retention reaches slow topics."},
			{Name: "disklog.spare_segments", Field: "Spares", Value: config.Count(&o.disk.Spares, 1, 1024).Or("none", -1),
				Doc: "Segments kept ready for use, zeroed or recycled: a sync on them costs a third. Their disk space is taken."},
			{Name: "disklog.first_segment", Field: "FirstBytes", Value: config.Size(&o.disk.FirstBytes, 4<<10, 1<<30),
				Doc: "Size of a partition's first segment, so that partitions that hold little take little."},
			{Name: "disklog.durable_point_every", Field: "DurableEvery", Value: config.Duration(&o.disk.DurableEvery, 10*time.Millisecond, time.Hour),
				Doc: "How often the place up to which a log was synced is noted by itself; recovery trusts what lies below."},
			{Name: "disklog.open_segments", Field: "OpenSegments", Value: config.Count(&o.disk.OpenSegments, 1, 1<<16),
				Doc: "Closed segments whose files are held open for consumers of history. Each needs a descriptor."},
			{Name: "disklog.full_percent", Field: "LowPercent", Value: config.Count(&o.disk.LowPercent, 1, 100),
				Doc: "How full the file system may be before producing stops; consuming goes on."},
			{Name: "disklog.reserve", Field: "ReserveBytes", Value: config.Size(&o.disk.ReserveBytes, 1<<12, 1<<30).Or("none", -1),
				Doc: "Disk space held back for metadata when the disk is full."},
			{Name: "memlog.memory", Flag: "memory", Field: "memory", Value: config.Size(&o.mem.MaxBytes, 64<<10, 1<<46),
				Doc: "What memlog may hold."},
			{Name: "commit.workers", Value: config.Count(&s.Committer.Workers, 1, 64),
				Doc: "Syncs, deferred writes and removals of segments that may run at once, over all partitions; those of one partition follow each other. They begin with the work and end when idle, beside performance.workers."},
			{Name: "commit.visible_after", Value: config.Duration(&s.Committer.VisibleAfter, 100*time.Microsecond, time.Minute),
				Doc: "How long a message that nobody waits for (ack none or accepted) may stay invisible on a topic whose visibility is durable."},
			{Name: "commit.durable_after", Value: config.Duration(&s.Committer.DurableAfter, time.Millisecond, time.Hour),
				Doc: "How long a message may stay off the device on a topic whose visibility is accepted: what a power cut may cost there."},
		}},
		config.Area{Name: "topics", Doc: "What new topics get where they name nothing, and how often retention looks. Topics that exist keep theirs; see `portask topic alter`.", Keys: []config.Key{
			{Name: "partitions", Flag: "default-partitions", Live: true, Value: config.Count(&s.Topics.Partitions, 1, topic.PartitionsMax),
				Doc: "Partitions of a new topic."},
			{Name: "visibility", Field: "visibility", Live: true, Value: config.OneOf(&s.Topics.Visibility, config.Is("auto", message.AckNone), config.Is("accepted", message.AckAccepted), config.Is("durable", message.AckDurable)),
				Doc: "What a message must have reached before it is consumed; auto is the strongest that the engine gives."},
			{Name: "retention", Flag: "default-retention", Live: true, Value: config.Millis(&s.Topics.RetentionMs, time.Millisecond, 100*year).Or("unlimited", topic.Unlimited),
				Doc: "Age at which a new topic's segments are removed."},
			{Name: "retention_size", Flag: "default-retention-bytes", Live: true, Value: config.Size(&s.Topics.RetentionBytes, 1, math.MaxInt64).Or("unlimited", topic.Unlimited),
				Doc: "Size of a new topic's partition above which its oldest segments are removed."},
			{Name: "segment", Flag: "default-segment", Live: true, Value: config.Size(&s.Topics.SegmentBytes, topic.SegmentBytesMin, topic.SegmentBytesMax),
				Doc: "Segment size of a new topic. Retention removes whole segments."},
			{Name: "retention_interval", Live: true, Value: config.Duration(&s.RetentionEvery, 10*time.Millisecond, 24*time.Hour),
				Doc: "Time between two looks at segments that have expired, of all topics."},
		}},
		config.Area{Name: "performance", Doc: "Work and memory.", Keys: []config.Key{
			{Name: "event_loops", Flag: "loops", Field: "loops", Value: config.Count(&s.Loops, 1, server.LoopsMax).Or("auto", 0),
				Doc: "Event loops; auto is half of the cores that the process may use, at least one."},
			{Name: "workers", Flag: "workers", Field: "workers", Value: config.Count(&s.Workers, server.WorkersMin, server.WorkersMax),
				Doc: "Requests (topics, metadata, look-ups by time) and reads of history that may be under way at once; one is always left for each of the two. They begin with the work and end when idle. storage.commit.workers come on top: a disk that hangs in a sync keeps nobody from reading."},
			{Name: "receive_chunk", Value: config.Size(&s.ReceiveBytes, 64<<10, mempool.MaxChunkBytes),
				Doc: "What a loop reads at once. Batches are stored and delivered from there without being copied."},
			{Name: "produce_memory", Flag: "produce-memory", Value: config.Size(&s.ProduceBytes, server.ProducerBytesMin, 1<<40),
				Doc: "Sum of the credit given to producers: it bounds the batches that were received and are not yet stored."},
			{Name: "producer_memory", Field: "producer_bytes", Live: true, Value: config.Size(&s.ProducerBytes, server.ProducerBytesMin, 1<<30),
				Doc: "The most credit a single producer gets. A reload holds for producers opened from then on."},
			{Name: "tail_memory", Flag: "tail-memory", Value: config.Size(&s.TailBytes, 64<<10, 1<<40),
				Doc: "Recent batches kept in memory for consumers that keep up."},
			{Name: "deliver_frame", Field: "deliver_bytes", Live: true, Value: config.Size(&s.DeliverBytes, server.DeliverBytesMin, server.DeliverBytesMax),
				Doc: "Batches in one frame to a consumer. A reload holds for subscriptions made from then on."},
			{Name: "gc_percent", Live: true, Value: config.Count(&o.gcPercent, gcPercentMin, gcPercentMax).Or("off", -1),
				Doc: "Growth of the heap between two garbage collections, as Go's GOGC, which is its default. off needs a memory_limit."},
			{Name: "memory_limit", Field: "memory_limit", Live: true, Value: config.Size(&o.memoryLimit, memoryLimitMin, 1<<46).Or("auto", autoMemory).Or("none", unlimitedMemory),
				Doc: "Memory of the Go runtime above which collections become frequent, as Go's GOMEMLIMIT. auto is GOMEMLIMIT if it is set, else what the control group (v1 or v2) allows, less a tenth and less the chunks of batches, which lie outside of the runtime's memory, but no less than a quarter of it; none where there is no limit."},
		}},
		config.Area{Name: "limits", Doc: "What producers may send. Stored batches are served whatever the limits are now.", Keys: []config.Key{
			{Name: "batch", Flag: "max-batch", Field: "batch_bytes", Value: config.Size(&s.Limits.BatchBytes, 1<<10, batchMax),
				Doc: "Largest batch, as sent."},
			{Name: "message", Flag: "max-message", Field: "message_bytes", Value: config.Size(&s.Limits.MessageBytes, 1, batchMax),
				Doc: "Largest message. The broker does not open batches: it tells its clients, which obey."},
			{Name: "messages_per_batch", Field: "messages", Value: config.Count(&s.Limits.Messages, 1, 1<<24),
				Doc: "Messages in a batch."},
			{Name: "decompressed", Field: "decompressed_bytes", Value: config.Size(&s.Limits.DecompressedBytes, 1<<10, 1<<30),
				Doc: "Largest batch, decompressed, as it declares."},
			{Name: "decompressed_ratio", Field: "decompressed_ratio", Value: config.Count(&s.Limits.DecompressedRatio, 1, 1_000_000),
				Doc: "Decompressed bytes for each byte sent, as a batch declares."},
		}},
		config.Area{Name: "compression", Doc: "Producers compress; the broker stores what it gets.", Keys: []config.Key{
			{Name: "accept", Live: true, Value: config.Several(&s.Algorithms, named(s.Algorithms)...),
				Doc: "Algorithms that batches may be compressed with; others are refused by name. Producers that follow advice have 30 s when one is taken away, others none."},
			{Name: "default", Field: "compression", Live: true, Value: config.OneOf(&s.Compression, named(server.Options{}.WithDefaults().Algorithms)...),
				Doc: "What producers are advised whose program and topic say nothing: they follow from their next batch on. Must be accepted."},
			{Name: "level", Field: "compression_level", Live: true, Value: config.OneOf(&s.CompressionLevel, named([]compression.Level{compression.LevelFastest, compression.LevelBalanced, compression.LevelSmallest})...),
				Doc: "The level that goes with it, and with a topic's own algorithm where the topic names no level."},
			{Name: "strategy", Field: "compression_strategy", Live: true, Value: config.OneOf(&s.CompressionStrategy, strategies()...),
				Doc: "When they compress, where their topic names no strategy: always keeps any gain, threshold tries what is worth trying, never leaves all as it is. With adaptive each producer chooses algorithm and level of each batch by what they cost and bring at present, among what is accepted; clients that cannot use compression.default. See docs/adaptive.md."},
			{Name: "artefact", Live: true, Value: config.String(&o.artefact, "", nil),
				Doc: "File with a policy of adaptive compression, as perflab policy train writes it, that producers are to use instead of the one they carry. One that is damaged or something else is logged and not handed out."},
		}},
		config.Area{Name: "serialization", Doc: "Producers encode; the broker stores what it gets.", Keys: []config.Key{
			{Name: "accept", Live: true, Value: config.Several(&s.Encodings, named(s.Encodings)...),
				Doc: "Encodings that the values of a batch may be declared to have; others are refused by name."},
			{Name: "default", Field: "encoding", Live: true, Value: config.OneOf(&s.Encoding, named(server.Options{}.WithDefaults().Encodings)...),
				Doc: "What producers are advised whose program and topic say nothing, for values that the client library encodes; bytes that it is given stay as they are. Must be accepted."},
		}},
		o.monitoringArea(),
		o.securityArea(),
		config.Area{Name: "logging", Doc: "The log, on standard error.", Keys: []config.Key{
			{Name: "level", Flag: "log-level", Live: true, Value: config.OneOf(&o.logLevel, config.Is("debug", slog.LevelDebug), config.Is("info", slog.LevelInfo), config.Is("warn", slog.LevelWarn), config.Is("error", slog.LevelError)),
				Doc: "The least that is logged."},
			{Name: "format", Flag: "log-format", Value: config.OneOf(&o.logFormat, config.Words("text", "json")...),
				Doc: "Lines of key=value, or of JSON."},
		}},
	)
}

// strategies are the words of compression.strategy.
func strategies() (words []config.Word[wire.Choice[compression.Strategy]]) {
	for _, s := range []compression.Strategy{compression.Never, compression.Always, compression.Threshold, compression.Adaptive} {
		words = append(words, config.Is(s.String(), wire.Choose(s)))
	}
	return words
}

// named makes the words of values that name themselves.
func named[T fmt.Stringer](values []T) []config.Word[T] {
	words := make([]config.Word[T], len(values))
	for i, v := range values {
		words[i] = config.Is(v.String(), v)
	}
	return words
}

// between accepts strings of some length.
func between(least, most int) func(string) error {
	return func(s string) error {
		if len(s) < least || len(s) > most {
			return fmt.Errorf("has %d bytes: want %d to %d", len(s), least, most)
		}
		return nil
	}
}

// check asks each component, and what they mean together. Every violation names
// its field.
func (o *brokerOptions) check() error {
	errs := []error{o.server.Check(), o.monitor.check()}
	bad := func(field, format string, args ...any) {
		errs = append(errs, fault.New(fault.Invalid, "check configuration").WithField(field).WithDetail(format, args...))
	}
	switch o.engine {
	case engineDisk:
		errs = append(errs, o.disk.Check())
	case engineMemory:
		errs = append(errs, o.mem.Check())
		if o.server.Topics.Visibility == message.AckDurable {
			bad("visibility", "the engine memlog keeps messages in memory: nothing is durable there")
		}
	}
	if l := o.server.Limits; l.MessageBytes > l.BatchBytes {
		bad("message_bytes", "%s is more than a batch may have, %s", document.FormatSize(int64(l.MessageBytes)), document.FormatSize(int64(l.BatchBytes)))
	}
	if p := o.memory(o.chunkBytes()); o.gcPercent < 0 && p.limit == unlimitedMemory {
		bad("memory_limit", "is %s, and gc_percent is off: the heap would grow without end", p)
	}
	return errors.Join(slices.DeleteFunc(errs, func(err error) bool { return err == nil })...)
}
