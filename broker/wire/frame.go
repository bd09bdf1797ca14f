package wire

import (
	"encoding/binary"

	"github.com/portask/portask/broker/fault"
)

// HeaderBytes is the size of the frame header:
//
//	0        4        6    7    8             12       16
//	┌────────┬────────┬────┬────┬─────────────┬────────┐
//	│ length │ opcode │api │flag│ correlation │ handle │
//	└────────┴────────┴────┴────┴─────────────┴────────┘
//
// length counts the bytes after itself, so it is at least 12 and a frame is
// length+4 bytes.
const HeaderBytes = 16

const lengthBytes = 4 // the length field itself, which length does not count

// Flags of a frame. The other bits are reserved and must be 0.
const (
	// FlagMore: another frame of the same answer follows (METADATA_OK only).
	FlagMore uint8 = 1 << iota
	// FlagTrace: kept for a trace context among the options; ignored in version 1.
	FlagTrace
	// FlagNoReply: kept for requests that want no answer but an ERROR; ignored in
	// version 1, where the ack level of a producer says it.
	FlagNoReply

	flagsKnown = FlagMore | FlagTrace | FlagNoReply
)

// Header is the header of a frame.
type Header struct {
	Length      uint32 // bytes after the length field; Append computes it
	Opcode      Opcode
	Version     uint8 // of this opcode's payload; 0 is written as 1
	Flags       uint8
	Correlation uint32 // chosen by the asking side, repeated in the answer; 0 = not asked
	Handle      uint32 // producer or subscription, given by the broker; 0 = none
}

// FrameBytes returns the size of the whole frame on the wire: what it costs in
// credit.
func (h Header) FrameBytes() int { return lengthBytes + int(h.Length) }

// FrameBytes returns the size of the whole frame that begins with head, of which
// 4 bytes suffice. maxFrame is the largest frame allowed. The errors close the
// connection: the stream cannot be followed beyond such a frame.
func FrameBytes(head []byte, maxFrame int) (int, error) {
	if len(head) < lengthBytes {
		return 0, violation("frame header", "length", "too short").WithLimit(int64(len(head)), lengthBytes)
	}
	n := int64(binary.LittleEndian.Uint32(head)) + lengthBytes
	if n < HeaderBytes {
		return 0, violation("frame header", "length", "a frame is at least its header").WithLimit(n, HeaderBytes)
	}
	if n > int64(maxFrame) {
		return 0, fault.New(fault.TooLarge, "parse frame header").WithField("length").
			WithDetail("the frame is larger than allowed").WithLimit(n, int64(maxFrame)).
			WithCategory(fault.CategoryNetwork).WithBits(fault.BitClosesConnection)
	}
	return int(n), nil
}

// ParseHeader reads the header at the start of src. It checks length against
// maxFrame and refuses reserved flags; opcode and version are the caller's to
// judge, since an unknown one is answered and the connection goes on.
func ParseHeader(src []byte, maxFrame int) (Header, error) {
	if len(src) < HeaderBytes {
		return Header{}, violation("frame header", "length", "too short").WithLimit(int64(len(src)), HeaderBytes)
	}
	if _, err := FrameBytes(src, maxFrame); err != nil {
		return Header{}, err
	}
	h := Header{
		Length:      binary.LittleEndian.Uint32(src),
		Opcode:      Opcode(binary.LittleEndian.Uint16(src[4:])),
		Version:     src[6],
		Flags:       src[7],
		Correlation: binary.LittleEndian.Uint32(src[8:]),
		Handle:      binary.LittleEndian.Uint32(src[12:]),
	}
	if h.Flags&^flagsKnown != 0 {
		return Header{}, violation("frame header", "flags", "reserved bits %#x are set", h.Flags&^flagsKnown)
	}
	if h.Version == 0 {
		return Header{}, violation("frame header", "api_version", "versions begin at 1")
	}
	return h, nil
}

// CheckVersion reports whether h's payload is in a version that this package
// reads. The error is fault.VersionUnsupported for this request only: the
// connection goes on.
func (h Header) CheckVersion() error {
	if h.Version == 1 {
		return nil
	}
	return fault.New(fault.VersionUnsupported, "parse "+h.Opcode.String()).WithField("api_version").
		WithDetail("version 1 of this opcode is the only one").WithLimit(int64(h.Version), 1).WithBits(0)
}

// AppendHeader appends h as it is: h.Length must be right.
func AppendHeader(dst []byte, h Header) []byte {
	if h.Version == 0 {
		h.Version = 1
	}
	dst = binary.LittleEndian.AppendUint32(dst, h.Length)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(h.Opcode))
	dst = append(dst, h.Version, h.Flags)
	dst = binary.LittleEndian.AppendUint32(dst, h.Correlation)
	return binary.LittleEndian.AppendUint32(dst, h.Handle)
}

// BeginFrame appends h with its length still open and returns the frame's place
// for EndFrame. The payload is appended in between.
func BeginFrame(dst []byte, h Header) (frame []byte, mark int) {
	return AppendHeader(dst, h), len(dst)
}

// EndFrame writes the length of the frame that begins at mark and ends with dst.
func EndFrame(dst []byte, mark int) []byte {
	binary.LittleEndian.PutUint32(dst[mark:], uint32(len(dst)-mark-lengthBytes))
	return dst
}

// AppendFrame appends a whole frame. On hot paths call the payload's own Append
// between BeginFrame and EndFrame: passed as an interface, p goes to the heap.
func AppendFrame(dst []byte, h Header, p Payload) []byte {
	dst, mark := BeginFrame(dst, h)
	return EndFrame(p.Append(dst), mark)
}

// PayloadOf returns the payload of a whole frame, a view of it.
func PayloadOf(frame []byte) []byte { return frame[HeaderBytes:] }
