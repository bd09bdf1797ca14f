package message

import (
	"encoding/binary"
	"hash/crc32"
	"math"

	"github.com/portask/portask/broker/fault"
)

// EnvelopeBytes is the size of the envelope in front of every batch.
const EnvelopeBytes = 80

// The envelope, little-endian. Fields marked ▲ are written by the broker when
// it appends the batch, all in one region; FORMAT.md says the rest.
//
//	    0       4       8               16              24              32
//	   ┌───────┬───────┬───────────────┬───────────────┬───────────────┐
//	 0 │ magic │bodylen│ base_offset ▲ │ append_time ▲ │    epoch ▲    │
//	   │  u32  │  u32  │      u64      │    i64 µs     │      u64      │
//	   ├───────┼───────┼───────┬───────┼───┬───┬───────┼───────────────┤
//	32 │hdrcrc▲│bodycrc│ count │lastdlt│att│pep│baseseq│  producer_id  │
//	   │  u32  │  u32  │  u32  │  u32  │u16│u16│  u32  │      u64      │
//	   ├───────┴───────┼───────┼───────┼───┴───┴───────┴───────────────┘
//	64 │ first_tstamp  │ unlen │ maxdlt│
//	   │    i64 µs     │  u32  │u32 ms │
//	   └───────────────┴───────┴───────┘
//
// header_crc = CRC32C(seed as u64 ‖ bytes [0,32) ‖ bytes [36,80)).
const (
	posMagic      = 0
	posBodyLen    = 4
	posBase       = 8
	posAppendTime = 16
	posEpoch      = 24
	posHeaderCRC  = 32
	posBodyCRC    = 36
	posCount      = 40
	posLastDelta  = 44
	posAttributes = 48
	posProdEpoch  = 50
	posSequence   = 52
	posProducer   = 56
	posFirstTime  = 64
	posRawLen     = 72
	posMaxDelta   = 76
)

// magic is "PTB1" read as a little-endian u32; the last byte is the version.
const (
	magic        = 'P' | 'T'<<8 | 'B'<<16 | '1'<<24
	magicVersion = 3 // index of the version in the magic's bytes
)

// minMessageBytes is the smallest encoded message: length, attributes, and two
// deltas of one byte each. It ties count to uncompressed_len.
const minMessageBytes = 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Envelope is a batch's header by value.
type Envelope struct {
	BodyLen             uint32 // all bytes after the envelope: section and body
	BaseOffset          Offset // of offset delta 0; 0 until stamped
	AppendTime          int64  // broker's clock, µs; 0 until stamped
	Epoch               uint64 // of the log that appended the batch; 0 until stamped
	HeaderCRC           uint32 // as found; AppendEnvelope computes its own
	BodyCRC             uint32 // CRC32C of the body as sent, without the section
	Count               uint32 // messages, at least 1
	LastOffsetDelta     uint32 // >= Count-1; larger after a compaction
	Attributes          Attributes
	ProducerEpoch       uint16
	BaseSequence        uint32 // of the first message, counted per producer and partition
	ProducerID          uint64 // 0 is none
	FirstTimestamp      int64  // producer's clock, µs
	UncompressedLen     uint32 // of the body
	MaxTimestampDeltaMs uint32 // latest message's timestamp - FirstTimestamp, rounded up
}

// Bytes is the size of the whole batch.
func (e *Envelope) Bytes() int { return EnvelopeBytes + int(e.BodyLen) }

// LastOffset is the offset of the last message, or of where it was before a
// compaction.
func (e *Envelope) LastOffset() Offset { return e.BaseOffset + Offset(e.LastOffsetDelta) }

// EndOffset is the base offset of the batch that follows.
func (e *Envelope) EndOffset() Offset { return e.LastOffset() + 1 }

// MaxTimestamp is at or up to 1 ms above the largest timestamp in the batch, in
// µs; it saturates.
func (e *Envelope) MaxTimestamp() int64 {
	d := int64(e.MaxTimestampDeltaMs) * 1000
	if e.FirstTimestamp > math.MaxInt64-d {
		return math.MaxInt64
	}
	return e.FirstTimestamp + d
}

// SectionBytes is the size of the section, which Attributes and Count
// determine; 0 if there is none.
func (e *Envelope) SectionBytes() int { return int(sectionBytes(e.Attributes, e.Count)) }

// BodyBytes is the size of the body as sent.
func (e *Envelope) BodyBytes() int { return int(e.BodyLen) - e.SectionBytes() }

// BatchBytes returns the whole length of the batch that starts at head, of
// which the first 8 bytes must be present. nil limits are the default ones.
// Errors as of ParseEnvelope for "magic", "body_len".
func BatchBytes(head []byte, lim *Limits) (int, error) {
	if len(head) < 8 {
		return 0, short(len(head), 8)
	}
	if binary.LittleEndian.Uint32(head) != magic {
		return 0, badMagic(head)
	}
	n := EnvelopeBytes + int64(binary.LittleEndian.Uint32(head[posBodyLen:]))
	if limit := int64(lim.orDefault().BatchBytes); n > limit {
		return 0, tooLarge(opEnvelope, "body_len", n-EnvelopeBytes, limit-EnvelopeBytes)
	}
	return int(n), nil
}

// ParseEnvelope reads the envelope at the start of src and checks its structure
// and limits: not its checksum (VerifyHeader), and nothing behind it. src may
// hold more, or the envelope alone. nil limits are the default ones. It
// allocates nothing on success.
//
// After it, all sizes agree with each other: SectionBytes fits into BodyLen, a
// body of at least one byte remains, an uncompressed body has the declared
// length, a compressed one stays within the limits, and offsets cannot
// overflow.
//
// Errors are *fault.Error with the field's name: Corrupted for a magic that is
// none, NewerFormat for one of a later version, NotSupported for attribute bits
// that this version refuses, TooLarge with the limit, Invalid for fields that
// contradict each other.
func ParseEnvelope(src []byte, lim *Limits) (Envelope, error) {
	if len(src) < EnvelopeBytes {
		return Envelope{}, short(len(src), EnvelopeBytes)
	}
	b := (*[EnvelopeBytes]byte)(src)
	if binary.LittleEndian.Uint32(b[posMagic:]) != magic {
		return Envelope{}, badMagic(src)
	}
	e := Envelope{
		BodyLen:             binary.LittleEndian.Uint32(b[posBodyLen:]),
		BaseOffset:          Offset(binary.LittleEndian.Uint64(b[posBase:])),
		AppendTime:          int64(binary.LittleEndian.Uint64(b[posAppendTime:])),
		Epoch:               binary.LittleEndian.Uint64(b[posEpoch:]),
		HeaderCRC:           binary.LittleEndian.Uint32(b[posHeaderCRC:]),
		BodyCRC:             binary.LittleEndian.Uint32(b[posBodyCRC:]),
		Count:               binary.LittleEndian.Uint32(b[posCount:]),
		LastOffsetDelta:     binary.LittleEndian.Uint32(b[posLastDelta:]),
		Attributes:          Attributes(binary.LittleEndian.Uint16(b[posAttributes:])),
		ProducerEpoch:       binary.LittleEndian.Uint16(b[posProdEpoch:]),
		BaseSequence:        binary.LittleEndian.Uint32(b[posSequence:]),
		ProducerID:          binary.LittleEndian.Uint64(b[posProducer:]),
		FirstTimestamp:      int64(binary.LittleEndian.Uint64(b[posFirstTime:])),
		UncompressedLen:     binary.LittleEndian.Uint32(b[posRawLen:]),
		MaxTimestampDeltaMs: binary.LittleEndian.Uint32(b[posMaxDelta:]),
	}
	if err := e.check(lim.orDefault()); err != nil {
		return Envelope{}, err
	}
	return e, nil
}

// check returns a plain nil error if e is well formed within lim.
func (e *Envelope) check(lim *Limits) error {
	if n, limit := int64(e.BodyLen), int64(lim.BatchBytes)-EnvelopeBytes; n > limit {
		return tooLarge(opEnvelope, "body_len", n, limit)
	}
	if e.Attributes&attrRefused != 0 || !e.Attributes.Algorithm().Valid() {
		return e.refusedAttributes()
	}
	if e.Count == 0 {
		return invalid(opEnvelope, "count", "no messages")
	}
	if n, limit := int64(e.LastOffsetDelta), int64(lim.Messages)-1; n > limit {
		return tooLarge(opEnvelope, "last_offset_delta", n, limit)
	}
	if e.LastOffsetDelta < e.Count-1 {
		return invalid(opEnvelope, "last_offset_delta", "is %d with %d messages", e.LastOffsetDelta, e.Count)
	}
	if e.BaseOffset < 0 || e.BaseOffset > math.MaxInt64-1-Offset(e.LastOffsetDelta) {
		return invalid(opEnvelope, "base_offset", "is %d", uint64(e.BaseOffset))
	}
	// Sums below stay far inside 64 bits: count was bounded by last_offset_delta.
	body := int64(e.BodyLen) - sectionBytes(e.Attributes, e.Count)
	raw := int64(e.UncompressedLen)
	switch {
	case body <= 0:
		return invalid(opEnvelope, "body_len", "%d bytes leave no room for the body", e.BodyLen)
	case raw < minMessageBytes*int64(e.Count):
		return invalid(opEnvelope, "uncompressed_len", "is %d with %d messages", raw, e.Count)
	case raw > int64(lim.DecompressedBytes):
		return tooLarge(opEnvelope, "uncompressed_len", raw, int64(lim.DecompressedBytes))
	case e.Attributes.Algorithm() == None && raw != body:
		return invalid(opEnvelope, "uncompressed_len", "is %d, the uncompressed body has %d bytes", raw, body)
	case raw > body*int64(lim.DecompressedRatio):
		return tooLarge(opEnvelope, "uncompressed_len", raw, body*int64(lim.DecompressedRatio)).
			WithDetail("%d bytes may become %d times as many", body, lim.DecompressedRatio)
	}
	return nil
}

func (e *Envelope) refusedAttributes() error {
	a := e.Attributes
	switch {
	case a&attrReserved != 0:
		return notSupported(opEnvelope, "attributes", "reserved bit set in %#04x", uint16(a))
	case a&attrKafka != 0:
		return notSupported(opEnvelope, "attributes", "Kafka bodies are not supported")
	case a&attrTransactional != 0:
		return notSupported(opEnvelope, "attributes", "transactions are not supported")
	}
	return notSupported(opEnvelope, "attributes", "unknown compression %d", a.Algorithm())
}

func short(have, want int) error {
	return invalid(opEnvelope, "envelope", "%d bytes of %d", have, want)
}

// badMagic tells a batch of another version from bytes that are no batch. A
// digit above ours is a newer version; there is no older one.
func badMagic(b []byte) error {
	if b[0] == 'P' && b[1] == 'T' && b[2] == 'B' && b[magicVersion] > '1' && b[magicVersion] <= '9' {
		return fault.New(fault.NewerFormat, opEnvelope).WithField("magic").
			WithLimit(int64(b[magicVersion]-'0'), 1)
	}
	return errMagic
}

// AppendEnvelope appends e to dst with the header checksum for seed; e.HeaderCRC
// is ignored. The fields are not checked.
func AppendEnvelope(dst []byte, e *Envelope, seed Seed) []byte {
	n := len(dst)
	var zero [EnvelopeBytes]byte
	dst = append(dst, zero[:]...)
	putEnvelope(dst[n:], e, seed)
	return dst
}

// putEnvelope writes e over the first 80 bytes of b.
func putEnvelope(b []byte, e *Envelope, seed Seed) {
	b = b[:EnvelopeBytes]
	binary.LittleEndian.PutUint32(b[posMagic:], magic)
	binary.LittleEndian.PutUint32(b[posBodyLen:], e.BodyLen)
	binary.LittleEndian.PutUint64(b[posBase:], uint64(e.BaseOffset))
	binary.LittleEndian.PutUint64(b[posAppendTime:], uint64(e.AppendTime))
	binary.LittleEndian.PutUint64(b[posEpoch:], e.Epoch)
	binary.LittleEndian.PutUint32(b[posBodyCRC:], e.BodyCRC)
	binary.LittleEndian.PutUint32(b[posCount:], e.Count)
	binary.LittleEndian.PutUint32(b[posLastDelta:], e.LastOffsetDelta)
	binary.LittleEndian.PutUint16(b[posAttributes:], uint16(e.Attributes))
	binary.LittleEndian.PutUint16(b[posProdEpoch:], e.ProducerEpoch)
	binary.LittleEndian.PutUint32(b[posSequence:], e.BaseSequence)
	binary.LittleEndian.PutUint64(b[posProducer:], e.ProducerID)
	binary.LittleEndian.PutUint64(b[posFirstTime:], uint64(e.FirstTimestamp))
	binary.LittleEndian.PutUint32(b[posRawLen:], e.UncompressedLen)
	binary.LittleEndian.PutUint32(b[posMaxDelta:], e.MaxTimestampDeltaMs)
	binary.LittleEndian.PutUint32(b[posHeaderCRC:], headerCRC(b, seed))
}

// Stamp writes the broker's fields, bytes [8,36), into the batch that starts at
// b: offset of the first message, append time in µs, epoch of the log, and the
// header checksum for seed. b must hold at least an envelope; whoever stamps
// owns it.
func Stamp(b []byte, base Offset, appendTime int64, epoch uint64, seed Seed) {
	b = b[:EnvelopeBytes]
	binary.LittleEndian.PutUint64(b[posBase:], uint64(base))
	binary.LittleEndian.PutUint64(b[posAppendTime:], uint64(appendTime))
	binary.LittleEndian.PutUint64(b[posEpoch:], epoch)
	binary.LittleEndian.PutUint32(b[posHeaderCRC:], headerCRC(b, seed))
}

// VerifyHeader checks the header checksum of the batch that starts at b, which
// was sealed with seed. The error is fault.Corrupted with field "header_crc",
// or fault.Invalid if b is shorter than an envelope.
func VerifyHeader(b []byte, seed Seed) error {
	if len(b) < EnvelopeBytes {
		return short(len(b), EnvelopeBytes)
	}
	want := binary.LittleEndian.Uint32(b[posHeaderCRC:])
	if got := headerCRC(b, seed); got != want {
		return corrupted(opVerify, "header_crc", "is %08x, computed %08x with seed %d", want, got, uint64(seed))
	}
	return nil
}

// VerifyBody checks the checksums behind the envelope of the batch that starts
// at b: the section's, if there is one, and the body's. All of the batch must
// be there and ParseEnvelope must have accepted it. The error is
// fault.Corrupted with field "section_crc" or "body_crc", or fault.Invalid for
// sizes that contradict each other.
func VerifyBody(b []byte) error {
	section, body, err := cut(b)
	if err != nil {
		return err
	}
	if len(section) > 0 {
		if err := verifySection(section); err != nil {
			return err
		}
	}
	want := binary.LittleEndian.Uint32(b[posBodyCRC:])
	if got := crc32.Update(0, castagnoli, body); got != want {
		return corrupted(opVerify, "body_crc", "is %08x, computed %08x", want, got)
	}
	return nil
}

// cut returns the section and the body of the batch that starts at b, by sizes
// alone: it reads body_len, count and attributes.
func cut(b []byte) (section, body []byte, err error) {
	if len(b) < EnvelopeBytes {
		return nil, nil, short(len(b), EnvelopeBytes)
	}
	n := int64(binary.LittleEndian.Uint32(b[posBodyLen:]))
	rest := b[EnvelopeBytes:]
	if n > int64(len(rest)) {
		return nil, nil, invalid(opVerify, "body_len", "is %d, %d bytes are there", n, len(rest))
	}
	s := sectionBytes(Attributes(binary.LittleEndian.Uint16(b[posAttributes:])), binary.LittleEndian.Uint32(b[posCount:]))
	if s > n {
		return nil, nil, invalid(opVerify, "body_len", "is %d, the section needs %d", n, s)
	}
	return rest[:s:s], rest[s:n:n], nil
}

// Validate checks all of a batch but the messages in its body: ParseEnvelope,
// both checksums and the section. b must be exactly one batch. It returns what
// a broker needs of it.
func Validate(b []byte, seed Seed, lim *Limits) (Envelope, Section, error) {
	e, err := ParseEnvelope(b, lim)
	if err != nil {
		return Envelope{}, Section{}, err
	}
	if e.Bytes() != len(b) {
		return Envelope{}, Section{}, invalid(opEnvelope, "body_len", "is %d, %d bytes follow the envelope", e.BodyLen, len(b)-EnvelopeBytes)
	}
	if err := VerifyHeader(b, seed); err != nil {
		return Envelope{}, Section{}, err
	}
	if err := VerifyBody(b); err != nil {
		return Envelope{}, Section{}, err
	}
	s, _, err := Split(b, &e)
	if err != nil {
		return Envelope{}, Section{}, err
	}
	return e, s, nil
}

// Peek tells from an envelope that nobody has verified how long its batch says it
// is, and whether it says that zstd compressed it; to go through batches without
// parsing each. b holds at least EnvelopeBytes.
func Peek(b []byte) (size int, zstd bool) {
	a := Attributes(binary.LittleEndian.Uint16(b[48:]))
	return EnvelopeBytes + int(binary.LittleEndian.Uint32(b[4:])), a.Algorithm() == Zstd
}
