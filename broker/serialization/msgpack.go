package serialization

import (
	"bytes"
	"encoding/binary"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/portask/portask/broker/message"
)

const (
	opAppendPack = "encode msgpack"
	opDecodePack = "decode msgpack"
)

// packCodec does values by the library, which has no bounds of its own worth
// the name: scanPack walks over everything before the library sees it. Whole
// messages are done by hand (msgpack_message.go).
type packCodec struct {
	o   MessagePackOptions
	lim Limits
}

func newMessagePack(o MessagePackOptions, lim Limits) *packCodec { return &packCodec{o, lim} }

func (*packCodec) Encoding() message.Encoding { return message.MessagePack }

func (c *packCodec) AppendValue(dst []byte, v any) ([]byte, error) {
	out, err := appendWith(dst, func(b *bytes.Buffer) error {
		enc := msgpack.GetEncoder()
		defer msgpack.PutEncoder(enc)
		enc.Reset(b)
		enc.UseArrayEncodedStructs(!c.o.NamedFields)
		enc.UseCompactInts(!c.o.WideInts)
		enc.UseCompactFloats(c.o.CompactFloats)
		enc.SetSortMapKeys(c.o.SortKeys)
		return enc.Encode(v)
	})
	if err != nil {
		return dst, misfit(opAppendPack, err)
	}
	return out, nil
}

func (c *packCodec) DecodeValue(src []byte, v any) error {
	n, err := scanPack(src, &c.lim)
	switch {
	case err != nil:
		return err
	case n == 0:
		return cutOff(opDecodePack, len(src))
	case n < len(src):
		return follows(opDecodePack, n, len(src))
	}
	dec := msgpack.GetDecoder()
	defer msgpack.PutDecoder(dec)
	dec.Reset(bytes.NewReader(src))
	p, ok := v.(*any)
	if !ok {
		if err := dec.Decode(v); err != nil {
			return misfit(opDecodePack, err)
		}
		return nil
	}
	dec.SetMapDecoder(func(d *msgpack.Decoder) (any, error) { return d.DecodeMap() })
	x, err := dec.DecodeInterface()
	if err != nil {
		return misfit(opDecodePack, err)
	}
	if x, err = normal(opDecodePack, x); err == nil {
		*p = x
	}
	return err
}

func (c *packCodec) Size(src []byte) (int, error) { return scanPack(src, &c.lim) }

// First bytes of MessagePack's items. Those with a length of 8, 16 or 32 bits
// stand next to each other in this order.
const (
	packFixMap    = 0x80
	packFixArray  = 0x90
	packFixText   = 0xa0
	packNil       = 0xc0
	packUnused    = 0xc1
	packBytes8    = 0xc4
	packBytes32   = 0xc6
	packExt8      = 0xc7
	packExt32     = 0xc9
	packFloat32   = 0xca
	packFloat64   = 0xcb
	packUint8     = 0xcc
	packUint64    = 0xcf
	packInt8      = 0xd0
	packInt64     = 0xd3
	packFixExt1   = 0xd4
	packFixExt16  = 0xd8
	packText8     = 0xd9
	packText32    = 0xdb
	packArray16   = 0xdc
	packArray32   = 0xdd
	packMap16     = 0xde
	packMap32     = 0xdf
	packFixMinus1 = 0xe0
)

// scanPack walks over the first item of b and returns its length, or 0 if b
// ends before it. It checks structure and limits.
func scanPack(b []byte, lim *Limits) (int, error) {
	s := packScan{b: b, left: lim.Elements, lim: lim}
	more, err := s.item(0)
	if more {
		if len(b) >= lim.Bytes {
			err = tooLarge(opDecodePack, "bytes", len(b)+1, lim.Bytes)
		}
		return 0, err
	}
	if err == nil && s.pos > lim.Bytes {
		err = tooLarge(opDecodePack, "bytes", s.pos, lim.Bytes)
	}
	if err != nil {
		return 0, err
	}
	return s.pos, nil
}

type packScan struct {
	b    []byte
	pos  int
	left int // elements
	lim  *Limits
}

// length reads a big-endian number of 1, 2 or 4 bytes.
func (s *packScan) length(width int) (n uint64, more bool) {
	if len(s.b)-s.pos < width {
		return 0, true
	}
	switch b := s.b[s.pos:]; width {
	case 1:
		n = uint64(b[0])
	case 2:
		n = uint64(binary.BigEndian.Uint16(b))
	default:
		n = uint64(binary.BigEndian.Uint32(b))
	}
	s.pos += width
	return n, false
}

// item walks over one item that stands in depth containers.
func (s *packScan) item(depth int) (more bool, err error) {
	if s.left--; s.left < 0 {
		return false, tooLarge(opDecodePack, "elements", s.lim.Elements+1, s.lim.Elements)
	}
	if s.pos == len(s.b) {
		return true, nil
	}
	c := s.b[s.pos]
	s.pos++
	switch {
	case c < packFixMap, c >= packFixMinus1:
		return false, nil
	case c < packFixArray:
		return s.items(2*uint64(c&0x0f), depth)
	case c < packFixText:
		return s.items(uint64(c&0x0f), depth)
	case c < packNil:
		return s.skip(uint64(c & 0x1f))
	case c == packUnused:
		return false, corrupt(opDecodePack, s.pos-1, "%#02x begins no item", c)
	case c < packBytes8: // nil, false, true
		return false, nil
	case c <= packBytes32:
		return s.sized(1<<(c-packBytes8), 0)
	case c <= packExt32:
		return s.sized(1<<(c-packExt8), 1) // and its type
	case c == packFloat32:
		return s.skip(4)
	case c == packFloat64:
		return s.skip(8)
	case c <= packUint64:
		return s.skip(1 << (c - packUint8))
	case c <= packInt64:
		return s.skip(1 << (c - packInt8))
	case c <= packFixExt16:
		return s.skip(1 + 1<<(c-packFixExt1))
	case c <= packText32:
		return s.sized(1<<(c-packText8), 0)
	}
	n, more := s.length(2 << (c & 1)) // 16 or 32 bits
	if more {
		return true, nil
	}
	if c >= packMap16 {
		n *= 2
	}
	return s.items(n, depth)
}

// sized passes over a string or extension whose length is width bytes wide.
func (s *packScan) sized(width int, extra uint64) (more bool, err error) {
	n, more := s.length(width)
	if more {
		return true, nil
	}
	return s.skip(n + extra)
}

// skip passes over n bytes.
func (s *packScan) skip(n uint64) (more bool, err error) {
	if n > uint64(s.lim.Bytes) {
		return false, tooLarge(opDecodePack, "bytes", int(min(n, maxBytes)), s.lim.Bytes)
	}
	if n > uint64(len(s.b)-s.pos) {
		return true, nil
	}
	s.pos += int(n)
	return false, nil
}

// items walks over the n items of a container.
func (s *packScan) items(n uint64, depth int) (more bool, err error) {
	if depth++; depth > s.lim.Depth {
		return false, tooLarge(opDecodePack, "depth", depth, s.lim.Depth)
	}
	if n > uint64(s.left) {
		return false, tooLarge(opDecodePack, "elements", int(min(n, maxElements)), s.left)
	}
	for range n {
		if more, err := s.item(depth); more || err != nil {
			return more, err
		}
	}
	return false, nil
}
