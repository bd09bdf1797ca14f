package message

import (
	"encoding/binary"
	"hash/crc32"
)

// The section stands uncompressed between envelope and body if any of the
// attribute bits due, expiry, hash is set. Little-endian; its size is a
// function of those bits and of count, and is stated all the same.
//
//	┌─────────────┬─────────────┐
//	│ section_len │ section_crc │  u32: whole section, multiple of 8
//	├─────────────┴─────────────┤  u32: CRC32C of section[8:section_len]
//	│ due_time            i64 µs│  if due;    > 0
//	├───────────────────────────┤
//	│ expiry              i64 µs│  if expiry; > 0
//	├─────────────┬─────────────┤
//	│ key hash 0  │ key hash 1  │  if hash:   u32 × count
//	├─────────────┼─────────────┤
//	│     ...     │ zeros to 8  │
//	└─────────────┴─────────────┘
const sectionHeadBytes = 8

// Section is what the broker may know of a batch's messages without opening
// the body.
type Section struct {
	// DueTime and Expiry hold for all messages of the batch: µs since the Unix
	// epoch, 0 is none.
	DueTime, Expiry int64
	// KeyHashes has 4 bytes a message, in order: see [Section.KeyHash]. nil if
	// there is no table. It aliases the batch.
	KeyHashes []byte
	// Present: there is a section at all.
	Present bool
}

// KeyHash returns entry i of the table, 0 <= i < count: 0 for a message without
// key, else the KeyHash of its key, or 1 where that is 0.
func (s *Section) KeyHash(i int) uint32 { return binary.LittleEndian.Uint32(s.KeyHashes[4*i:]) }

// tableHash is the entry of a key in the key-hash table.
func tableHash(key []byte) uint32 {
	if key == nil {
		return 0
	}
	return max(KeyHash(key), 1)
}

// sectionBytes is the size of the section of a batch with these attributes and
// count messages. It is an int64 since count may not have been checked yet.
func sectionBytes(a Attributes, count uint32) int64 {
	if !a.HasSection() {
		return 0
	}
	n := int64(sectionHeadBytes)
	if a.HasDueTime() {
		n += 8
	}
	if a.HasExpiry() {
		n += 8
	}
	if a.HasKeyHashes() {
		n += 4 * int64(count)
	}
	return (n + 7) &^ 7
}

// appendSection appends the section of a batch with attributes a, if they call
// for one.
func appendSection(dst []byte, a Attributes, due, expiry int64, hashes []uint32) []byte {
	n := int(sectionBytes(a, uint32(len(hashes))))
	if n == 0 {
		return dst
	}
	start := len(dst)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(n))
	dst = binary.LittleEndian.AppendUint32(dst, 0)
	if a.HasDueTime() {
		dst = binary.LittleEndian.AppendUint64(dst, uint64(due))
	}
	if a.HasExpiry() {
		dst = binary.LittleEndian.AppendUint64(dst, uint64(expiry))
	}
	if a.HasKeyHashes() {
		for _, h := range hashes {
			dst = binary.LittleEndian.AppendUint32(dst, h)
		}
	}
	if len(dst)-start < n { // an odd number of hashes
		dst = binary.LittleEndian.AppendUint32(dst, 0)
	}
	crc := crc32.Update(0, castagnoli, dst[start+sectionHeadBytes:])
	binary.LittleEndian.PutUint32(dst[start+4:], crc)
	return dst
}

// verifySection checks length and checksum of a section, of which the size was
// computed from the envelope.
func verifySection(s []byte) error {
	if n := binary.LittleEndian.Uint32(s); int64(n) != int64(len(s)) {
		return corrupted(opVerify, "section_len", "is %d, the envelope makes it %d", n, len(s))
	}
	want := binary.LittleEndian.Uint32(s[4:])
	if got := crc32.Update(0, castagnoli, s[sectionHeadBytes:]); got != want {
		return corrupted(opVerify, "section_crc", "is %08x, computed %08x", want, got)
	}
	return nil
}

// parseSection reads a section of the size that sectionBytes gives.
func parseSection(s []byte, a Attributes, count uint32) (Section, error) {
	if n := binary.LittleEndian.Uint32(s); int64(n) != int64(len(s)) {
		return Section{}, invalid(opSection, "section_len", "is %d, the envelope makes it %d", n, len(s))
	}
	x := Section{Present: true}
	s = s[sectionHeadBytes:]
	if a.HasDueTime() {
		x.DueTime = int64(binary.LittleEndian.Uint64(s))
		if s = s[8:]; x.DueTime <= 0 {
			return Section{}, invalid(opSection, "due_time", "is %d, must be positive", x.DueTime)
		}
	}
	if a.HasExpiry() {
		x.Expiry = int64(binary.LittleEndian.Uint64(s))
		if s = s[8:]; x.Expiry <= 0 {
			return Section{}, invalid(opSection, "expiry", "is %d, must be positive", x.Expiry)
		}
	}
	if a.HasKeyHashes() {
		n := 4 * int(count)
		x.KeyHashes, s = s[:n:n], s[n:]
	}
	for _, pad := range s {
		if pad != 0 {
			return Section{}, invalid(opSection, "padding", "is not zero")
		}
	}
	return x, nil
}

// Split returns the section (the zero Section if there is none) and the body,
// still compressed, of the batch that starts at b; e is its envelope as
// ParseEnvelope gave it, and all of the batch must be there. Both alias b. No
// checksum is computed. Errors are fault.Invalid with the field's name.
func Split(b []byte, e *Envelope) (Section, []byte, error) {
	n, s := e.Bytes(), e.SectionBytes()
	if n > len(b) {
		return Section{}, nil, invalid(opSection, "body_len", "is %d, %d bytes are there", e.BodyLen, max(0, len(b)-EnvelopeBytes))
	}
	if s > n-EnvelopeBytes {
		return Section{}, nil, invalid(opSection, "body_len", "is %d, the section needs %d", e.BodyLen, s)
	}
	end := EnvelopeBytes + s
	body := b[end:n:n]
	if s == 0 {
		return Section{}, body, nil
	}
	x, err := parseSection(b[EnvelopeBytes:end:end], e.Attributes, e.Count)
	if err != nil {
		return Section{}, nil, err
	}
	return x, body, nil
}
