// Package storage is the contract between a partition, which owns order and
// visibility, and an engine, which owns bytes.
//
// An Engine holds Logs, one for each partition, and small named blobs of
// metadata. A Log is a row of whole batches (message/FORMAT.md) with contiguous
// offsets. What an engine is given was validated before; what it gives back is
// byte for byte what it was given, under the Seed it declares. No engine opens,
// recompresses, splits or merges a batch.
//
// Package storagetest is the contract as a test suite: an engine is one that
// passes it. Only the command line chooses an engine; nothing else imports one.
//
// # Errors
//
// Every error of an engine or a log carries a fault code, to be read with
// fault.CodeOf: NotFound, OutOfRange (errors.As gives a *RangeError), Corrupted
// (for a range of offsets a *GapError), Full (the engine's own bound, the
// setting named), StorageFull (the device is full or low), StorageFailed (the
// log is fenced until it is opened again), LevelUnavailable, Locked,
// NewerFormat, Closed, Exists, Invalid.
//
// # Concurrency
//
// The methods of an Engine may be called concurrently, but not two at once
// about the same PartitionID. A Log's methods state their own rules.
package storage

import (
	"fmt"
	"io"
	"math/bits"
	"strconv"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

// PartitionID names a partition for ever: by its topic's id, not by the name,
// which a later topic may take again.
type PartitionID struct {
	Topic [16]byte // a ULID
	Index uint32   // from 0
}

// String returns the topic's ULID and the index: "01J8Z0T6M3Q0R9V5B7XKD2W4YC-3".
// It is fit to be a file name and it is what ParsePartitionID takes.
func (id PartitionID) String() string {
	return ulid.ULID(id.Topic).String() + "-" + strconv.FormatUint(uint64(id.Index), 10)
}

// ParsePartitionID is the inverse of String and accepts exactly its output.
func ParsePartitionID(s string) (PartitionID, error) {
	var id PartitionID
	topic, index, ok := strings.Cut(s, "-")
	if ok {
		t, err := ulid.ParseStrict(topic)
		n, nerr := strconv.ParseUint(index, 10, 32)
		id = PartitionID{Topic: t, Index: uint32(n)}
		ok = err == nil && nerr == nil && id.String() == s
	}
	if !ok {
		return PartitionID{}, fault.New(fault.Invalid, "parse partition id").WithField("partition").
			WithDetail("%.64q is not <topic ULID>-<index>", s)
	}
	return id, nil
}

// Levels is the set of ack levels that an engine can give: bit 1<<level.
type Levels uint8

// LevelsOf returns the set of the given levels.
func LevelsOf(levels ...message.AckLevel) Levels {
	var l Levels
	for _, a := range levels {
		l |= 1 << a
	}
	return l
}

// Has reports whether the set holds a.
func (l Levels) Has(a message.AckLevel) bool { return l>>a&1 != 0 }

// Strongest returns the highest level of the set, AckNone for an empty one.
func (l Levels) Strongest() message.AckLevel {
	if l == 0 {
		return message.AckNone
	}
	return message.AckLevel(bits.Len8(uint8(l)) - 1)
}

// String lists the levels: "none, accepted".
func (l Levels) String() string {
	var names []string
	for a := message.AckNone; a.Valid(); a++ {
		if l.Has(a) {
			names = append(names, a.String())
		}
	}
	return strings.Join(names, ", ")
}

// Batch is one validated batch on its way into a log, with what the partition
// knows about it, so that the engine need not parse it.
type Batch struct {
	// Bytes is the whole batch. Append stamps it (message.Stamp with the
	// fields below and Seed), so that after success these bytes are exactly
	// those stored. The memory stays the caller's: the engine does not refer
	// to it after Append.
	Bytes []byte
	Base  message.Offset // offset of the first message
	End   message.Offset // one past the last
	Time  int64          // append time, µs since the Unix epoch; never goes back within a log
	Epoch uint64         // written into the envelope
	// MaxTime is the highest timestamp of the messages, µs since the Unix
	// epoch: the producers' clocks, so it may go back from batch to batch.
	MaxTime int64
	// Seed is set by Append: the seed that the batch was stamped with, of its
	// engine's choice.
	Seed message.Seed
}

// Replay receives a log's producer state while OpenLog recovers it.
type Replay interface {
	// Snapshot is called at most once and first, with what
	// LogOptions.Snapshot returned at an earlier roll. An engine whose log
	// never rolled does not call it. b is valid during the call.
	Snapshot(b []byte) error
	// Batch is called for each batch that follows the snapshot, in order,
	// and for every batch the log holds if there was none. e is valid during
	// the call. Batches lost to corruption are missing.
	Batch(e *message.Envelope) error
}

// LogOptions are the settings of one log. The zero value is usable.
type LogOptions struct {
	// SegmentBytes is the size at which the engine starts a new segment; 0 is
	// the engine's default. A batch larger than this takes a segment alone.
	SegmentBytes int64
	// Snapshot appends the partition's producer state to dst, as it is after
	// the batches below `below`, the end of the segment that is being sealed,
	// and without those at or above it: a state that is ahead of the log would
	// take a batch that a crash lost for a duplicate. The engine calls it from
	// Append, when it rolls. Nil means no snapshots: the whole log is replayed.
	Snapshot func(dst []byte, below message.Offset) []byte
	// Replay receives the state during OpenLog; nil if nobody asks. An error
	// it returns ends OpenLog with that error.
	Replay Replay
	// Limits bound what recovery believes of an envelope; the zero value
	// means message.DefaultLimits.
	Limits message.Limits
}

// Log is the log of one partition.
//
// Offsets: [Start, End) can be read, minus what was lost to corruption. An
// offset is assigned once. Only what was appended and not yet durable can be
// lost, all of it from some batch on, by a crash that the level reached does not
// survive; its offsets are then assigned again, under a higher Epoch.
//
// After Close every method but Start, End, Durable, Epoch, Stats and Close
// fails with fault.Closed. Runs read earlier stay valid until released.
type Log interface {
	// Append stores the batches at the end of the log in as few writes as the
	// engine can. They must be in order and contiguous: b[0].Base is End(),
	// b[i+1].Base is b[i].End, End > Base; otherwise fault.Invalid and nothing
	// is stored. An empty b does nothing.
	//
	// When Append returns nil the batches are at `accepted` and Read finds
	// them. What `accepted` survives is the engine's to say: for a log on disk
	// the death of the process, for memory nothing.
	//
	// One Append at a time; concurrently with Sync, Read, Retain and the
	// getters.
	//
	// Errors: fault.Full and fault.StorageFull mean that nothing of b is
	// stored and the log stays usable: appending may succeed when space has
	// returned. After any other error of the device the log is failed: every
	// later Append and Sync returns fault.StorageFailed, reads go on, and what
	// of b is in the log is known only after OpenLog.
	Append(b []Batch) error
	// Sync makes everything durable that was appended before the call, and
	// returns the durable end, exclusive. One Sync at a time; concurrently
	// with all else. After an error the log is failed as above, for ever: the
	// kernel may have dropped the pages that it could not write.
	//
	// An engine without the level `durable` returns
	// fault.LevelUnavailable and stays usable.
	Sync() (durable message.Offset, err error)
	// Read appends to dst runs of whole batches, in order and without gap
	// between them, starting with the batch that contains from and ending at
	// or before the offset below (the caller's visible end; a batch that
	// reaches beyond it is left out). The sum of their bytes is at most
	// maxBytes, except that the first batch comes always. From below or End()
	// nothing is appended.
	//
	// Each run added to dst holds a lease and must be released once. With an
	// error dst is returned as it came.
	//
	// Errors: fault.OutOfRange with a *RangeError if from is below Start or
	// above End. Where the batch at from was lost, a *GapError says where the
	// log goes on; batches before a gap are returned without error.
	Read(from, below message.Offset, maxBytes int, dst []Run) ([]Run, error)
	// Start is the oldest offset that can be read. It only grows.
	Start() message.Offset
	// End is the offset that the next message gets.
	End() message.Offset
	// Durable is the end of what survives power loss: never above End, and it
	// never goes back. For an engine without `durable` it is 0.
	Durable() message.Offset
	// OffsetForTime returns the base offset of the first batch whose MaxTime
	// is at or after us (µs since the Unix epoch); End if there is none.
	OffsetForTime(us int64) (message.Offset, error)
	// Retain removes the oldest whole sealed segments while they break p and
	// lie below the offset below, and returns the bytes of their batches. The
	// producer state that only they hold is not lost: Replay gets it. now is
	// µs since the Unix epoch. A segment has expired when the append time of
	// its last batch is older than p.MaxAge, so nothing unexpired is removed.
	// Runs read earlier stay intact until they are released.
	//
	// One Retain at a time; concurrently with all else.
	Retain(p Retention, now int64, below message.Offset) (removedBytes int64, err error)
	// Epoch is the log's incarnation: it grows at each open, is at least 1,
	// and is on record before OpenLog returns.
	Epoch() uint64
	// Stats returns the log's figures since it was opened.
	Stats() LogStats
	// Close ends the log: it syncs what was appended, records the end so that
	// the next open knows a clean stop, and frees what it can. No other method
	// may run at the same time, except getters and Release of runs. A second
	// Close does nothing.
	Close() error
}

// Retention says how much of a log to keep. Zero or less is unlimited. A
// segment goes when either rule lets it go.
type Retention struct {
	// MaxAge removes segments whose newest batch was appended longer ago.
	MaxAge time.Duration
	// MaxBytes removes the oldest segment while the rest of the log holds at
	// least this much: the log keeps MaxBytes of newest batches always, and
	// less than a segment more.
	MaxBytes int64
}

// LogStats are the figures of one log since OpenLog, gauges marked (now).
type LogStats struct {
	Bytes       int64  // (now) bytes of batches that can be read
	Segments    int    // (now) segments, the active one included
	Appends     uint64 // successful calls of Append
	Batches     uint64 // batches appended
	Writes      uint64 // write system calls (or the engine's equivalent) for batches
	Syncs       uint64 // successful syncs of batches
	Rolls       uint64 // segments started after the first
	Removed     int64  // bytes removed by Retain
	Corruptions int    // (now) ranges of offsets lost to damage
	TornBytes   int64  // bytes of a torn tail cut off by OpenLog
	Failed      bool   // (now) the log is failed
}

// EngineStats are the figures of an engine.
type EngineStats struct {
	Logs          int    // (now) open logs
	Bytes         int64  // (now) bytes of batches held in open logs
	HeldBytes     int64  // (now) bytes taken by what left the logs but is still under leases
	LimitBytes    int64  // the engine's own bound on the memory or space it takes, 0 = none
	SpareSegments int    // (now) segments ready for use
	Recycled      uint64 // segments reused instead of created
	MetaWrites    uint64 // successful StoreMeta calls
}

// Engine is a place where logs are kept.
type Engine interface {
	// Name is that of the engine in configuration and metadata: "disklog".
	Name() string
	// Levels are the ack levels this engine can give.
	Levels() Levels
	// Blocking reports whether Append may take longer than a copy into the
	// page cache: it must then not be called on an event loop.
	Blocking() bool
	// OpenLog opens a partition's log, or creates an empty one at offset 0,
	// and recovers it after a crash. A log is open once at a time: a second
	// OpenLog before Close fails with fault.Exists.
	OpenLog(id PartitionID, o LogOptions) (Log, error)
	// RemoveLog deletes a log and all its batches; it fails with fault.NotFound
	// if there is none and with fault.Exists while the log is open.
	// A log created later under the same id starts at offset 0.
	RemoveLog(id PartitionID) error
	// ListLogs returns the ids of all logs, open or not, sorted by topic and
	// index.
	ListLogs() ([]PartitionID, error)
	// LoadMeta returns the blob last stored under name; fault.NotFound if
	// there is none, fault.Corrupted if what is there is not what was stored.
	// The caller owns the result.
	LoadMeta(name string) ([]byte, error)
	// StoreMeta replaces the blob under name: afterwards, also after a crash,
	// LoadMeta returns the old blob or the new one, and once StoreMeta returned
	// nil the new one, at the strongest level of the engine. See CheckMetaName
	// for names. At most MaxMetaBytes.
	StoreMeta(name string, b []byte) error
	// RemoveMeta deletes the blob under name, also one that is damaged; it
	// fails with fault.NotFound if there is none. Once it returned nil, LoadMeta
	// finds nothing, also after a crash at the strongest level of the engine; a
	// crash before leaves the blob whole or gone.
	RemoveMeta(name string) error
	// Space returns the bytes that can still be stored, and the bound they are
	// counted against. low asks to stop producing while consuming goes on.
	Space() (free, total int64, low bool, err error)
	// Stats returns the engine's figures.
	Stats() EngineStats
	// Close closes the logs that are still open, as Log.Close does, and then
	// the engine. Afterwards its methods fail with fault.Closed. A second
	// Close does nothing.
	io.Closer
}

// MaxMetaBytes bounds a blob of metadata: the whole catalogue of 10,000 topics
// is under 4 MiB.
const MaxMetaBytes = 16 << 20

// CheckMetaName accepts 1 to 64 of [a-z0-9._-] that do not start with a dot, so
// that a name is a file name on every system and never a temporary file's.
func CheckMetaName(name string) error {
	ok := len(name) >= 1 && len(name) <= 64 && name[0] != '.'
	for i := 0; ok && i < len(name); i++ {
		c := name[i]
		ok = c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-'
	}
	if !ok {
		return fault.New(fault.Invalid, "check metadata name").WithField("name").
			WithDetail("%.80q is not 1 to 64 of [a-z0-9._-], not starting with a dot", name)
	}
	return nil
}

// RangeError is in the chain of a fault.OutOfRange that Read returns.
type RangeError struct {
	Offset     message.Offset // asked for
	Start, End message.Offset // the valid range; End itself is where to wait for more
}

func (e *RangeError) Error() string {
	return fmt.Sprintf("offset %d is outside of [%d, %d]", e.Offset, e.Start, e.End)
}

// OutOfRange makes the error that Read returns for an offset outside of the log.
func OutOfRange(op string, offset, start, end message.Offset) error {
	limit := end
	if offset < start {
		limit = start
	}
	return fault.New(fault.OutOfRange, op).WithField("offset").
		WithDetail("outside of the log").
		WithLimit(int64(offset), int64(limit)).
		With("log_start", start).With("log_end", end).
		WithCause(&RangeError{Offset: offset, Start: start, End: end})
}

// GapError says that the messages in [From, Next) were lost to damage of the
// device. Everything else can be read; go on at Next.
type GapError struct {
	From message.Offset // first message lost, or the offset asked for if that is within
	Next message.Offset // first message after the gap
}

func (e *GapError) Error() string {
	return fmt.Sprintf("messages [%d, %d) are lost to corruption", e.From, e.Next)
}

// Unwrap returns fault.Corrupted.
func (e *GapError) Unwrap() error { return fault.Corrupted }
