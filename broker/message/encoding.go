package message

import (
	"encoding/binary"
	"math/bits"
)

// A message in a decompressed body. uv is an unsigned varint (7 bits a byte,
// lowest first), zv a zigzag varint; each in its shortest form.
//
//	┌────────┬──────┬──────────┬──────────────┬┄┄┄┄┄┄┄┄┄┬┄┄┄┄┄┄┄┄┄┄┬┄┄┄┄┄┄┄┄┄┬───────┐
//	│ length │ attr │ ts_delta │ offset_delta ┊   id    ┊   key    ┊ headers ┊ value │
//	│   uv   │  u8  │  zv µs   │      uv      ┊  16 B   ┊ uv n, n B┊         ┊ rest  │
//	└────────┴──────┴──────────┴──────────────┴┄┄┄┄┄┄┄┄┄┴┄┄┄┄┄┄┄┄┄┄┴┄┄┄┄┄┄┄┄┄┴───────┘
//	           │                                 bit 0      bit 1      bit 2    none if bit 3
//	           └ bit 0 id · 1 key · 2 headers · 3 value is null · 4-7 zero
//
//	headers: uv count (at least 1), then for each: uv n, name (n B), uv n, value (n B)
//
// length counts the bytes after itself. ts_delta is from first_timestamp;
// offset_delta grows from message to message and ends at last_offset_delta or
// below.
const (
	hasID      = 1 << 0
	hasKey     = 1 << 1
	hasHeaders = 1 << 2
	nullValue  = 1 << 3
	attrZero   = 0xf0
)

// sizeMessage is the size of m encoded, without the length in front.
func sizeMessage(m *Message, tsDelta int64, offsetDelta uint32) int {
	n := 1 + sizeUvarint(zigzag(tsDelta)) + sizeUvarint(uint64(offsetDelta)) + len(m.Value)
	if !m.ID.IsZero() {
		n += len(m.ID)
	}
	if m.Key != nil {
		n += sizeUvarint(uint64(len(m.Key))) + len(m.Key)
	}
	if len(m.Headers) > 0 {
		n += sizeUvarint(uint64(len(m.Headers)))
		for i := range m.Headers {
			h := &m.Headers[i]
			n += sizeUvarint(uint64(len(h.Key))) + len(h.Key) + sizeUvarint(uint64(len(h.Value))) + len(h.Value)
		}
	}
	return n
}

// appendMessage appends m encoded; n is what sizeMessage gave.
func appendMessage(dst []byte, m *Message, n int, tsDelta int64, offsetDelta uint32) []byte {
	dst = binary.AppendUvarint(dst, uint64(n))
	at := len(dst)
	dst = append(dst, 0)
	dst = binary.AppendUvarint(dst, zigzag(tsDelta))
	dst = binary.AppendUvarint(dst, uint64(offsetDelta))
	var attr byte
	if !m.ID.IsZero() {
		attr |= hasID
		dst = append(dst, m.ID[:]...)
	}
	if m.Key != nil {
		attr |= hasKey
		dst = binary.AppendUvarint(dst, uint64(len(m.Key)))
		dst = append(dst, m.Key...)
	}
	if len(m.Headers) > 0 {
		attr |= hasHeaders
		dst = binary.AppendUvarint(dst, uint64(len(m.Headers)))
		for i := range m.Headers {
			h := &m.Headers[i]
			dst = binary.AppendUvarint(dst, uint64(len(h.Key)))
			dst = append(dst, h.Key...)
			dst = binary.AppendUvarint(dst, uint64(len(h.Value)))
			dst = append(dst, h.Value...)
		}
	}
	if m.Value == nil {
		attr |= nullValue
	}
	dst[at] = attr
	return append(dst, m.Value...)
}

// zigzag maps small numbers of either sign to small unsigned ones.
func zigzag(v int64) uint64 { return uint64(v<<1) ^ uint64(v>>63) }

func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }

// sizeUvarint is the number of bytes of v as a varint: its bits by sevens.
func sizeUvarint(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

// uvarint reads a varint at the start of b and returns its size, or 0 if it is
// cut off, longer than 64 bits or not in its shortest form. One byte, by far
// the most frequent, is meant to be read inline.
func uvarint(b []byte) (uint64, int) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), 1
	}
	return uvarintLong(b)
}

func uvarintLong(b []byte) (uint64, int) {
	v, n := binary.Uvarint(b)
	if n <= 0 || b[n-1] == 0 && n > 1 {
		return 0, 0
	}
	return v, n
}
