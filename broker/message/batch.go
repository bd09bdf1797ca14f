package message

import (
	"io"
	"time"
)

// Batch is a finished batch: its serialized form, and what its envelope says of
// it, read once. It is one value that never changes, so the sizes it tells
// cannot be other than those of its bytes: who wants another batch makes
// another Batch. The zero value is no batch.
//
// The bytes belong to whoever made them. A Batch is valid as long as nobody
// writes to them; [Stamp] does, so a stamped batch is to be parsed again.
// Copying a Batch copies 120 bytes and no message.
type Batch struct {
	bytes []byte
	env   Envelope
}

// ParseBatch returns the batch at the start of src, and what follows it. It
// checks structure and limits, as ParseEnvelope does, and that the batch is
// whole, but no checksum: see [VerifyHeader] and [VerifyBody]. nil limits are the default ones.
// It allocates nothing but an error.
//
// Errors: those of ParseEnvelope; fault.Corrupted with the cause
// io.ErrUnexpectedEOF if src ends before the batch does.
func ParseBatch(src []byte, lim *Limits) (b Batch, rest []byte, err error) {
	e, err := ParseEnvelope(src, lim)
	if err != nil {
		return Batch{}, nil, err
	}
	n := e.Bytes()
	if n > len(src) {
		return Batch{}, nil, corrupted(opEnvelope, "body_len", "a batch of %d bytes where %d are left", n, len(src)).
			WithCause(io.ErrUnexpectedEOF)
	}
	return Batch{bytes: src[:n:n], env: e}, src[n:], nil
}

// Bytes returns the serialized form, which is not to be changed.
func (b *Batch) Bytes() []byte { return b.bytes }

// Envelope returns what stands at the front of the batch. It is not to be
// changed.
func (b *Batch) Envelope() *Envelope { return &b.env }

// Count is the number of messages.
func (b *Batch) Count() int { return int(b.env.Count) }

// Size is the length of the serialized form: envelope, section and body as sent.
func (b *Batch) Size() int { return len(b.bytes) }

// BodySize is the length of section and body as sent, compressed if it is.
func (b *Batch) BodySize() int { return int(b.env.BodyLen) }

// RawSize is the length of the body before compression.
func (b *Batch) RawSize() int { return int(b.env.UncompressedLen) }

// Body returns the section and the body as sent, which the caller decompresses
// as Envelope().Attributes.Algorithm() says. Errors as of [Split].
func (b *Batch) Body() (Section, []byte, error) { return Split(b.bytes, &b.env) }

// Messages makes r read the messages of b out of body, which is what Body
// returned, decompressed, and s its section. nil limits are the default ones.
func (b *Batch) Messages(r *Reader, s *Section, body []byte, lim *Limits) {
	r.Reset(&b.env, body, lim)
	r.SetSection(s)
}

// Expired reports whether the time of the message was over at now.
func (m *Message) Expired(now time.Time) bool { return m.Expiry != 0 && now.UnixMicro() >= m.Expiry }

// Time is the timestamp.
func (m *Message) Time() time.Time { return time.UnixMicro(m.Timestamp) }

// Age is the time since the message's timestamp, by two clocks if it came from
// another machine; it is 0 where they contradict each other.
func (m *Message) Age(now time.Time) time.Duration { return max(0, now.Sub(m.Time())) }
