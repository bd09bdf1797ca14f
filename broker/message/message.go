package message

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"strings"

	"github.com/oklog/ulid/v2"
)

// Offset is the place of a message in its partition: counted from 0, given by
// the broker, never reused. Ranges of offsets are half-open.
type Offset int64

// NoOffset stands for "no such message", as in the answer for an empty log.
const NoOffset Offset = -1

// Message is what an application sends and receives.
//
// A message passed to [Builder.Append] is copied. In a message filled by
// [Reader.Next] Key, Value, Headers and the strings in it are views of the
// reader's memory, valid until the next call of Next or until the body is
// reused, whichever comes first; [Message.Clone] makes an independent one.
type Message struct {
	// The first 64 bytes are what every message has and every consumer reads;
	// what most messages leave empty is in the second cache line.

	// Offset is given by the broker and ignored by a Builder.
	Offset Offset
	// Timestamp is the producer's clock, in µs since the Unix epoch.
	Timestamp int64
	// ID is set by the producer if it wants one; the zero value is none.
	ID ulid.ULID
	// Priority is 0 (lowest) to MaxPriority.
	Priority uint8
	// Encoding is how Value was made; a Builder puts its own for Raw.
	Encoding Encoding
	// Value is the payload; nil is "no value" (a tombstone on compacted
	// topics), which differs from an empty one.
	Value []byte

	// Key chooses the partition and orders messages; nil is no key, which
	// differs from an empty one.
	Key []byte
	// Headers are kept in order; names may repeat.
	Headers Headers
	// DueTime is the earliest delivery to a queue group, in µs since the Unix
	// epoch; 0 is at once.
	DueTime int64
	// Expiry is when the message stops being worth a delivery, in µs since
	// the Unix epoch; 0 is never.
	Expiry int64
}

// Bytes is the size that Limits.MessageBytes bounds: key, value and headers'
// names and values, without any framing.
func (m *Message) Bytes() int { return len(m.Key) + len(m.Value) + m.headerBytes() }

func (m *Message) headerBytes() int {
	n := 0
	for i := range m.Headers {
		n += len(m.Headers[i].Key) + len(m.Headers[i].Value)
	}
	return n
}

// Clone returns a deep copy that shares no memory with m; nil stays nil.
func (m *Message) Clone() *Message {
	c := *m
	c.Key = bytes.Clone(m.Key)
	c.Value = bytes.Clone(m.Value)
	c.Headers = slices.Clone(m.Headers)
	for i := range c.Headers {
		c.Headers[i].Key = strings.Clone(c.Headers[i].Key)
		c.Headers[i].Value = bytes.Clone(c.Headers[i].Value)
	}
	return &c
}

// Limits bound what a batch may hold. They are checked before memory is taken
// for what they bound. All must be positive: see [Limits.Validate].
type Limits struct {
	// BatchBytes bounds a whole batch: envelope, section and body as sent.
	BatchBytes int
	// MessageBytes bounds one message: key, value and headers' names and
	// values together (not the few bytes of framing around them).
	MessageBytes int
	// KeyBytes bounds one key.
	KeyBytes int
	// Headers bounds the number of headers of one message.
	Headers int
	// HeaderBytes bounds the names and values of one message's headers.
	HeaderBytes int
	// Messages bounds the offsets a batch may span, hence also its messages.
	Messages int
	// DecompressedBytes bounds a body after decompression, as declared by
	// uncompressed_len; a decompressor is to be given that declared length as
	// its cap.
	DecompressedBytes int
	// DecompressedRatio bounds decompressed bytes per byte of body as sent. A
	// Builder sends a body raw that compresses better than this.
	DecompressedRatio int
}

// DefaultLimits are those of a broker that was not told otherwise: a batch of
// 4 MiB, a message of 1 MiB, a key of 64 KiB, 64 headers of 8 KiB in all,
// 65,536 messages a batch, 32 MiB and 1000 to 1 decompressed.
func DefaultLimits() Limits { return defaultLimits }

// defaultLimits is what a nil *Limits means. Never written.
var defaultLimits = Limits{
	BatchBytes:        4 << 20,
	MessageBytes:      1 << 20,
	KeyBytes:          64 << 10,
	Headers:           64,
	HeaderBytes:       8 << 10,
	Messages:          65536,
	DecompressedBytes: 32 << 20,
	DecompressedRatio: 1000,
}

func (l *Limits) orDefault() *Limits {
	if l == nil {
		return &defaultLimits
	}
	return l
}

// Ceilings of Limits. They keep sums of the lengths in an envelope inside 32
// bits, so that an int is enough for them on every platform.
const (
	ceilingBytes    = 1 << 30
	ceilingMessages = 1 << 24
)

// Validate reports every limit that is out of its range, joined; nil if none.
// Each is a *fault.Error with code fault.Invalid (below 1) or fault.TooLarge
// (above the ceiling) and the field's name.
func (l Limits) Validate() error {
	var errs []error
	check := func(field string, v, ceiling int) {
		switch {
		case v < 1:
			errs = append(errs, invalid("check limits", field, "is %d, must be at least 1", v))
		case v > ceiling:
			errs = append(errs, tooLarge("check limits", field, int64(v), int64(ceiling)))
		}
	}
	check("batch_bytes", l.BatchBytes, ceilingBytes)
	check("message_bytes", l.MessageBytes, ceilingBytes)
	check("key_bytes", l.KeyBytes, ceilingBytes)
	check("headers", l.Headers, ceilingMessages)
	check("header_bytes", l.HeaderBytes, ceilingBytes)
	check("messages", l.Messages, ceilingMessages)
	check("decompressed_bytes", l.DecompressedBytes, ceilingBytes)
	check("decompressed_ratio", l.DecompressedRatio, math.MaxInt32)
	return errors.Join(errs...)
}
