package message

import (
	"hash/crc32"
	"math"
	"slices"

	"github.com/portask/portask/broker/fault"
)

// Builder collects messages into one batch. Its buffers are kept by Reset, so
// that a warm Builder allocates nothing per message. Make one with NewBuilder.
// It belongs to one goroutine at a time.
type Builder struct {
	// KeyHashes puts a table of key hashes into the batch's section, for
	// topics whose groups order by key. Read at the first Append of a batch.
	KeyHashes bool
	// Encoding is noted in the batch's attributes unless its messages name
	// another than Raw. Read at the first Append of a batch.
	Encoding Encoding

	lim    Limits
	body   []byte
	hashes []uint32 // of each message, if attrs has a key-hash table
	count  int

	// Set by the first message of the batch.
	attrs       Attributes
	encoding    Encoding // of messages that name none
	due, expiry int64
	firstTime   int64
	// Largest distance from firstTime so far, µs, at least 0.
	maxDelta int64
}

// Producer is what a batch says of its sender. ID 0 is no producer: then no
// duplicate is recognised, and Epoch and Sequence mean nothing.
type Producer struct {
	ID       uint64
	Epoch    uint16
	Sequence uint32 // of the batch's first message
}

// NewBuilder returns an empty Builder with these limits, which are to have
// passed [Limits.Validate].
func NewBuilder(lim Limits) *Builder { return &Builder{lim: lim} }

// Reset forgets the batch and keeps the memory.
func (b *Builder) Reset() {
	b.body = b.body[:0]
	b.hashes = b.hashes[:0]
	b.count = 0
}

// Count is the number of messages in the batch.
func (b *Builder) Count() int { return b.count }

// Bytes is the size of the body so far, uncompressed.
func (b *Builder) Bytes() int { return len(b.body) }

// FirstTimestamp is the timestamp of the first message, µs; meaningless while
// Count is 0.
func (b *Builder) FirstTimestamp() int64 { return b.firstTime }

// Append adds a copy of m, which it does not keep. m.Offset is ignored; offsets
// follow from the order. On any error the batch is as before.
//
// Errors: ErrBatchFull if the batch must be finished first, because m does not
// fit beside what is there or its timestamp is more than 49 days from the
// first one; ErrMixed if priority, encoding, due time or expiry differ from the
// batch's; a *fault.Error TooLarge (fields key, headers, header_bytes,
// message_bytes, batch_bytes) or Invalid (priority, encoding, due_time, expiry)
// if m can be in no batch.
func (b *Builder) Append(m *Message) error {
	if err := checkMessage(m, &b.lim); err != nil {
		return err
	}
	if b.count == 0 {
		b.encoding = b.Encoding
	}
	attrs := Attributes(0).WithPriority(m.Priority).WithEncoding(b.encodingOf(m)).
		WithSection(m.DueTime != 0, m.Expiry != 0, b.KeyHashes)
	var delta int64
	if b.count > 0 {
		if err := b.mixed(m); err != nil {
			return err
		}
		attrs = b.attrs
		var ok bool
		if delta, ok = subtract(m.Timestamp, b.firstTime); !ok || delta > math.MaxUint32*1000 {
			return ErrBatchFull
		}
	}
	n := sizeMessage(m, delta, uint32(b.count))
	total := sizeUvarint(uint64(n)) + n
	if err := b.room(attrs, total); err != nil {
		return err
	}

	if b.count == 0 {
		b.attrs, b.due, b.expiry = attrs, m.DueTime, m.Expiry
		b.firstTime, b.maxDelta = m.Timestamp, 0
	}
	b.body = slices.Grow(b.body, total)
	b.body = appendMessage(b.body, m, n, delta, uint32(b.count))
	b.maxDelta = max(b.maxDelta, delta)
	if attrs.HasKeyHashes() {
		b.hashes = append(b.hashes, tableHash(m.Key))
	}
	b.count++
	return nil
}

// encodingOf is how m's value was made: as m says, or else as the Builder says.
func (b *Builder) encodingOf(m *Message) Encoding {
	if m.Encoding != Raw {
		return m.Encoding
	}
	return b.encoding
}

// mixed returns why m may not join a batch that has messages.
func (b *Builder) mixed(m *Message) error {
	switch {
	case m.Priority != b.attrs.Priority():
		return errMixedPriority
	case b.encodingOf(m) != b.attrs.Encoding():
		return errMixedEncoding
	case m.DueTime != b.due:
		return errMixedDue
	case m.Expiry != b.expiry:
		return errMixedExpiry
	}
	return nil
}

// room checks that total more bytes of body fit, sent raw.
func (b *Builder) room(attrs Attributes, total int) error {
	body := len(b.body) + total
	whole := EnvelopeBytes + int(sectionBytes(attrs, uint32(b.count+1))) + body
	switch {
	case b.count >= b.lim.Messages:
		return ErrBatchFull
	case whole <= b.lim.BatchBytes && body <= b.lim.DecompressedBytes:
		return nil
	case b.count > 0:
		return ErrBatchFull
	case body > b.lim.DecompressedBytes:
		return tooLarge(opAppend, "decompressed_bytes", int64(body), int64(b.lim.DecompressedBytes))
	}
	return tooLarge(opAppend, "batch_bytes", int64(whole), int64(b.lim.BatchBytes))
}

// checkMessage reports what keeps m out of every batch.
func checkMessage(m *Message, lim *Limits) error {
	if len(m.Key) > lim.KeyBytes {
		return tooLarge(opAppend, "key", int64(len(m.Key)), int64(lim.KeyBytes))
	}
	size := len(m.Key) + len(m.Value)
	if len(m.Headers) > 0 {
		if len(m.Headers) > lim.Headers {
			return tooLarge(opAppend, "headers", int64(len(m.Headers)), int64(lim.Headers))
		}
		n := m.headerBytes()
		if n > lim.HeaderBytes {
			return tooLarge(opAppend, "header_bytes", int64(n), int64(lim.HeaderBytes))
		}
		size += n
	}
	if size > lim.MessageBytes {
		return tooLarge(opAppend, "message_bytes", int64(size), int64(lim.MessageBytes))
	}
	if m.Priority > MaxPriority {
		return invalid(opAppend, "priority", "is %d, must be at most %d", m.Priority, MaxPriority)
	}
	if !m.Encoding.Valid() {
		return invalid(opAppend, "encoding", "%v is none that a batch can name", m.Encoding)
	}
	if m.DueTime < 0 {
		return invalid(opAppend, "due_time", "is %d, must not be negative", m.DueTime)
	}
	if m.Expiry < 0 {
		return invalid(opAppend, "expiry", "is %d, must not be negative", m.Expiry)
	}
	return nil
}

// subtract returns a-b and whether it is representable.
func subtract(a, b int64) (int64, bool) {
	d := a - b
	return d, (d < a) == (b > 0)
}

// Finish appends the whole batch to dst, with base offset, append time, epoch
// and seed 0, as PRODUCE takes it. The Builder is unchanged: the same messages
// can be finished again for another producer or sequence; Reset starts anew.
//
// compress may be nil. Otherwise it appends src, compressed, to dst and names
// the algorithm; it returns None (and any bytes) if that is not worth it. The
// body is sent raw then, and also if the result is not smaller or would exceed
// Limits.DecompressedRatio.
//
// Errors: fault.Invalid, field "count", without messages; whatever compress
// returned that is no algorithm, or a dst that lost bytes, is fault.Internal.
// dst is returned unchanged in length with an error.
func (b *Builder) Finish(dst []byte, p Producer, compress func(dst, src []byte) ([]byte, Algorithm)) ([]byte, error) {
	if b.count == 0 {
		return dst, invalid(opFinish, "count", "no messages")
	}
	start := len(dst)
	var zero [EnvelopeBytes]byte
	dst = append(dst, zero[:]...)
	dst = appendSection(dst, b.attrs, b.due, b.expiry, b.hashes)
	bodyAt := len(dst)
	alg := None
	if compress != nil {
		out, used := compress(dst, b.body)
		if !used.Valid() || used != None && len(out) < bodyAt {
			return dst[:start], fault.New(fault.Internal, opFinish).WithField("compression").
				WithDetail("%v left %d bytes of %d", used, len(out), bodyAt)
		}
		if n := len(out) - bodyAt; used != None && b.pays(n) {
			dst, alg = out, used
		}
	}
	if alg == None {
		dst = append(dst[:bodyAt], b.body...)
	}
	e := Envelope{
		BodyLen:             uint32(len(dst) - start - EnvelopeBytes),
		BodyCRC:             crc32.Update(0, castagnoli, dst[bodyAt:]),
		Count:               uint32(b.count),
		LastOffsetDelta:     uint32(b.count - 1),
		Attributes:          b.attrs.WithAlgorithm(alg),
		ProducerEpoch:       p.Epoch,
		BaseSequence:        p.Sequence,
		ProducerID:          p.ID,
		FirstTimestamp:      b.firstTime,
		UncompressedLen:     uint32(len(b.body)),
		MaxTimestampDeltaMs: uint32((b.maxDelta + 999) / 1000),
	}
	putEnvelope(dst[start:], &e, 0)
	return dst, nil
}

// pays reports whether a body compressed to n bytes is smaller than the raw one
// and one that every receiver with the same limits accepts.
func (b *Builder) pays(n int) bool {
	return n > 0 && n < len(b.body) && int64(len(b.body)) <= int64(n)*int64(b.lim.DecompressedRatio)
}
