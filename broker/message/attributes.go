package message

import "strconv"

// Algorithm names how a body is compressed. 0 to 4 are Kafka's numbers.
type Algorithm uint8

// The algorithms a batch can name.
const (
	None Algorithm = iota
	Gzip
	Snappy
	LZ4
	Zstd
	Brotli
	numAlgorithms
)

var algorithmNames = [numAlgorithms]string{"none", "gzip", "snappy", "lz4", "zstd", "brotli"}

// String returns the name that ParseAlgorithm takes.
func (a Algorithm) String() string { return nameOf(algorithmNames[:], uint8(a), "algorithm") }

// Valid reports whether a is one of the six.
func (a Algorithm) Valid() bool { return a < numAlgorithms }

// ParseAlgorithm is the inverse of String. The error is a fault.Invalid with
// field "compression".
func ParseAlgorithm(s string) (Algorithm, error) {
	i, err := valueOf(algorithmNames[:], s, "compression")
	return Algorithm(i), err
}

// Encoding names how values were made from an application's data. The broker
// never looks at values.
type Encoding uint8

// The encodings a batch can name.
const (
	Raw Encoding = iota
	CBOR
	JSON
	MessagePack
	numEncodings
)

var encodingNames = [numEncodings]string{"raw", "cbor", "json", "msgpack"}

// String returns the name that ParseEncoding takes.
func (e Encoding) String() string { return nameOf(encodingNames[:], uint8(e), "encoding") }

// Valid reports whether e is one of the four.
func (e Encoding) Valid() bool { return e < numEncodings }

// ParseEncoding is the inverse of String. The error is a fault.Invalid with
// field "encoding".
func ParseEncoding(s string) (Encoding, error) {
	i, err := valueOf(encodingNames[:], s, "encoding")
	return Encoding(i), err
}

// AckLevel says when a produce is answered, and what the answer promises.
type AckLevel uint8

const (
	// AckNone: never answered.
	AckNone AckLevel = iota
	// AckAccepted: the batch is with the engine (with the operating system for
	// a log on disk: it survives the broker's death, not the machine's).
	AckAccepted
	// AckDurable: the batch is synced to the device: it survives power loss.
	AckDurable
	numAckLevels
)

var ackNames = [numAckLevels]string{"none", "accepted", "durable"}

// String returns the name that ParseAckLevel takes.
func (a AckLevel) String() string { return nameOf(ackNames[:], uint8(a), "ack level") }

// Valid reports whether a is one of the three.
func (a AckLevel) Valid() bool { return a < numAckLevels }

// ParseAckLevel is the inverse of String. The error is a fault.Invalid with
// field "ack".
func ParseAckLevel(s string) (AckLevel, error) {
	i, err := valueOf(ackNames[:], s, "ack")
	return AckLevel(i), err
}

// Attributes is the envelope's 16-bit attributes field:
//
//	 15  14  13   12   11  10   9   8   7   6   5    4   3    2   1   0
//	┌───────────┬────┬────┬───┬───┬───┬───┬───┬───┬────────┬───────────┐
//	│ priority  │encr│hash│ 0 │exp│due│ctl│ 0 │ 0 │encoding│ algorithm │
//	└───────────┴────┴────┴───┴───┴───┴───┴───┴───┴────────┴───────────┘
//
// Bits 5 (the body is a Kafka batch) and 6 (transactional) have a meaning but
// are refused in this version; bit 10 is reserved and must be 0.
type Attributes uint16

// MaxPriority is the highest priority; 0 is the lowest and the default.
const MaxPriority = 7

const (
	attrAlgorithm     Attributes = 7
	attrEncodingShift            = 3
	attrEncoding      Attributes = 3 << attrEncodingShift
	attrKafka         Attributes = 1 << 5
	attrTransactional Attributes = 1 << 6
	attrControl       Attributes = 1 << 7
	attrDue           Attributes = 1 << 8
	attrExpiry        Attributes = 1 << 9
	attrReserved      Attributes = 1 << 10
	attrKeyHashes     Attributes = 1 << 11
	attrEncrypted     Attributes = 1 << 12
	attrPriorityShift            = 13

	attrSection = attrDue | attrExpiry | attrKeyHashes
	attrRefused = attrKafka | attrTransactional | attrReserved
)

// Algorithm is how the body is compressed; it may be invalid if a did not come
// from ParseEnvelope.
func (a Attributes) Algorithm() Algorithm { return Algorithm(a & attrAlgorithm) }

// Encoding is how the values were encoded.
func (a Attributes) Encoding() Encoding { return Encoding(a & attrEncoding >> attrEncodingShift) }

// Priority is that of all messages of the batch, 0 to MaxPriority.
func (a Attributes) Priority() uint8 { return uint8(a >> attrPriorityShift) }

// Control reports whether the batch is the broker's own, not an application's.
func (a Attributes) Control() bool { return a&attrControl != 0 }

// HasSection reports whether a section stands between envelope and body.
func (a Attributes) HasSection() bool { return a&attrSection != 0 }

// HasDueTime reports whether the section has a due time.
func (a Attributes) HasDueTime() bool { return a&attrDue != 0 }

// HasExpiry reports whether the section has an expiry.
func (a Attributes) HasExpiry() bool { return a&attrExpiry != 0 }

// HasKeyHashes reports whether the section has a key-hash table.
func (a Attributes) HasKeyHashes() bool { return a&attrKeyHashes != 0 }

// Encrypted reports whether the client says it encrypted the values.
func (a Attributes) Encrypted() bool { return a&attrEncrypted != 0 }

// WithAlgorithm returns a with another algorithm.
func (a Attributes) WithAlgorithm(g Algorithm) Attributes {
	return a&^attrAlgorithm | Attributes(g)&attrAlgorithm
}

// WithEncoding returns a with another value encoding.
func (a Attributes) WithEncoding(e Encoding) Attributes {
	return a&^attrEncoding | Attributes(e)<<attrEncodingShift&attrEncoding
}

// WithPriority returns a with another priority, of which the low three bits
// count.
func (a Attributes) WithPriority(p uint8) Attributes {
	return a&^(MaxPriority<<attrPriorityShift) | Attributes(p)<<attrPriorityShift
}

// WithControl returns a with the control bit set or cleared.
func (a Attributes) WithControl(on bool) Attributes { return a.with(attrControl, on) }

// WithEncrypted returns a with the encrypted bit set or cleared.
func (a Attributes) WithEncrypted(on bool) Attributes { return a.with(attrEncrypted, on) }

// WithSection returns a with the three bits that say what the section has.
func (a Attributes) WithSection(due, expiry, keyHashes bool) Attributes {
	return a.with(attrDue, due).with(attrExpiry, expiry).with(attrKeyHashes, keyHashes)
}

func (a Attributes) with(bit Attributes, on bool) Attributes {
	if on {
		return a | bit
	}
	return a &^ bit
}

func nameOf(names []string, i uint8, what string) string {
	if int(i) < len(names) {
		return names[i]
	}
	return what + " " + strconv.Itoa(int(i))
}

func valueOf(names []string, s, field string) (uint8, error) {
	for i, name := range names {
		if s == name {
			return uint8(i), nil
		}
	}
	return 0, invalid("parse", field, "%.40q is not one of %q", s, names)
}
