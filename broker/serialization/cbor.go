package serialization

import (
	"bytes"
	"reflect"
	"sync"

	"github.com/fxamacker/cbor/v2"

	"github.com/portask/portask/broker/message"
)

const (
	opAppendCBOR = "encode cbor"
	opDecodeCBOR = "decode cbor"
)

// cborCodec does values by the library and whole messages by hand
// (cbor_message.go), with the library for forms of a message that AppendMessage
// does not write.
type cborCodec struct {
	enc     cbor.UserBufferEncMode
	dec     cbor.DecMode
	untyped cbor.DecMode // into *any
	strict  cbor.DecMode // whole messages
	lim     Limits
}

func newCBOR(o CBOROptions, lim Limits) (*cborCodec, error) {
	eo := cbor.EncOptions{}
	if o.Canonical {
		eo = cbor.CoreDetEncOptions()
	}
	eo.Time = [numTimeFormats]cbor.TimeMode{cbor.TimeRFC3339Nano, cbor.TimeUnix, cbor.TimeUnixMicro}[o.Time]
	if o.TimeTags {
		eo.TimeTag = cbor.EncTagRequired
	}
	// Duplicate keys are refused, since two readers might take two values.
	// scanCBOR has checked depth and elements; the library's own limits, which
	// have a least value, are only kept from being stricter.
	do := cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		MaxNestedLevels:  max(lim.Depth, 4),
		MaxArrayElements: max(lim.Elements, 16),
		MaxMapPairs:      max(lim.Elements, 16),
	}
	untyped := do
	untyped.DefaultMapType = reflect.TypeFor[map[string]any]()
	untyped.UnrecognizedTagToAny = cbor.UnrecognizedTagContentToAny
	untyped.TimeTagToAny = cbor.TimeTagToRFC3339Nano
	strict := do
	strict.TagsMd = cbor.TagsForbidden
	strict.ExtraReturnErrors = cbor.ExtraDecErrorUnknownField
	strict.FieldNameMatching = cbor.FieldNameMatchingCaseSensitive
	c := &cborCodec{lim: lim}
	var err error
	if c.enc, err = eo.UserBufferEncMode(); err != nil {
		return nil, misfit("cbor options", err)
	}
	for _, m := range []struct {
		o    cbor.DecOptions
		mode *cbor.DecMode
	}{{do, &c.dec}, {untyped, &c.untyped}, {strict, &c.strict}} {
		if *m.mode, err = m.o.DecMode(); err != nil {
			return nil, misfit("cbor options", err)
		}
	}
	return c, nil
}

func (*cborCodec) Encoding() message.Encoding { return message.CBOR }

// buffers are what libraries write to: wrapped around a caller's slice for one
// call, so that only the wrapper is pooled.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// appendWith lets write append to dst.
func appendWith(dst []byte, write func(*bytes.Buffer) error) ([]byte, error) {
	b := buffers.Get().(*bytes.Buffer)
	*b = *bytes.NewBuffer(dst)
	err := write(b)
	out := b.Bytes()
	*b = bytes.Buffer{}
	buffers.Put(b)
	if err != nil {
		return dst, err
	}
	return out, nil
}

func (c *cborCodec) AppendValue(dst []byte, v any) ([]byte, error) {
	dst, err := appendWith(dst, func(b *bytes.Buffer) error { return c.enc.MarshalToBuffer(v, b) })
	if err != nil {
		return dst, misfit(opAppendCBOR, err)
	}
	return dst, nil
}

func (c *cborCodec) DecodeValue(src []byte, v any) error {
	n, err := scanCBOR(src, &c.lim)
	switch {
	case err != nil:
		return err
	case n == 0:
		return cutOff(opDecodeCBOR, len(src))
	case n < len(src):
		return follows(opDecodeCBOR, n, len(src))
	}
	if p, ok := v.(*any); ok {
		var x any
		if err := c.untyped.Unmarshal(src, &x); err != nil {
			return misfit(opDecodeCBOR, err)
		}
		*p, err = normal(opDecodeCBOR, x)
		return err
	}
	if err := c.dec.Unmarshal(src, v); err != nil {
		return misfit(opDecodeCBOR, err)
	}
	return nil
}

func (c *cborCodec) Size(src []byte) (int, error) { return scanCBOR(src, &c.lim) }

// scanCBOR walks over the first item of b and returns its length, or 0 if b
// ends before it. It checks the structure, which RFC 8949 calls well-formed,
// and the limits.
func scanCBOR(b []byte, lim *Limits) (int, error) {
	s := cborScan{b: b, left: lim.Elements, lim: lim}
	more, err := s.item(0)
	if more {
		if len(b) >= lim.Bytes {
			err = tooLarge(opDecodeCBOR, "bytes", len(b)+1, lim.Bytes)
		}
		return 0, err
	}
	if err == nil && s.pos > lim.Bytes {
		err = tooLarge(opDecodeCBOR, "bytes", s.pos, lim.Bytes)
	}
	if err != nil {
		return 0, err
	}
	return s.pos, nil
}

type cborScan struct {
	b    []byte
	pos  int
	left int // elements
	lim  *Limits
}

// Major types of CBOR, in the top three bits of an item's first byte.
const (
	cborUint = iota << 5
	cborNegative
	cborBytes
	cborText
	cborArray
	cborMap
	cborTag
	cborSimple
)

const (
	cborIndefinite = 31
	cborBreak      = cborSimple | cborIndefinite
)

// head reads an item's first byte and its argument. more: b ends within it.
func (s *cborScan) head() (major, info byte, arg uint64, more bool) {
	b := s.b[s.pos:]
	if len(b) == 0 {
		return 0, 0, 0, true
	}
	major, info = b[0]&0xe0, b[0]&0x1f
	n := 0
	switch {
	case info < 24:
		arg = uint64(info)
	case info <= 27:
		n = 1 << (info - 24)
		if len(b) < 1+n {
			return 0, 0, 0, true
		}
		for _, c := range b[1 : 1+n] {
			arg = arg<<8 | uint64(c)
		}
	}
	s.pos += 1 + n
	return major, info, arg, false
}

// item walks over one item that stands in depth containers.
func (s *cborScan) item(depth int) (more bool, err error) {
	if s.left--; s.left < 0 {
		return false, tooLarge(opDecodeCBOR, "elements", s.lim.Elements+1, s.lim.Elements)
	}
	at := s.pos
	major, info, arg, more := s.head()
	if more {
		return true, nil
	}
	if info > 27 && (info < cborIndefinite || major == cborUint || major == cborNegative || major == cborTag || major == cborSimple) {
		return false, corrupt(opDecodeCBOR, at, "%#02x begins no item", major|info)
	}
	switch major {
	case cborBytes, cborText:
		if info == cborIndefinite {
			return s.chunks(major)
		}
		return s.skip(arg)
	case cborArray, cborMap:
		if depth++; depth > s.lim.Depth {
			return false, tooLarge(opDecodeCBOR, "depth", depth, s.lim.Depth)
		}
		each := uint64(1)
		if major == cborMap {
			each = 2
		}
		if info == cborIndefinite {
			return s.untilBreak(depth, int(each))
		}
		if arg > uint64(s.left) || arg*each > uint64(s.left) {
			return false, tooLarge(opDecodeCBOR, "elements", int(min(arg, maxElements))*int(each), s.left)
		}
		for range arg * each {
			if more, err := s.item(depth); more || err != nil {
				return more, err
			}
		}
	case cborTag:
		if depth++; depth > s.lim.Depth {
			return false, tooLarge(opDecodeCBOR, "depth", depth, s.lim.Depth)
		}
		return s.item(depth)
	case cborSimple:
		if info == 24 && arg < 32 {
			return false, corrupt(opDecodeCBOR, at, "simple value %d in two bytes", arg)
		}
	}
	return false, nil
}

// skip passes over the n bytes of a string.
func (s *cborScan) skip(n uint64) (more bool, err error) {
	if n > uint64(s.lim.Bytes) {
		return false, tooLarge(opDecodeCBOR, "bytes", int(min(n, maxBytes)), s.lim.Bytes)
	}
	if n > uint64(len(s.b)-s.pos) {
		return true, nil
	}
	s.pos += int(n)
	return false, nil
}

// chunks walks over a string of indefinite length.
func (s *cborScan) chunks(of byte) (more bool, err error) {
	for {
		if s.left--; s.left < 0 {
			return false, tooLarge(opDecodeCBOR, "elements", s.lim.Elements+1, s.lim.Elements)
		}
		at := s.pos
		major, info, arg, more := s.head()
		if more {
			return true, nil
		}
		if major|info == cborBreak {
			return false, nil
		}
		if major != of || info > 27 {
			return false, corrupt(opDecodeCBOR, at, "%#02x in a string of chunks", major|info)
		}
		if more, err := s.skip(arg); more || err != nil {
			return more, err
		}
	}
}

// untilBreak walks over the items of an array or map of indefinite length.
func (s *cborScan) untilBreak(depth, each int) (more bool, err error) {
	for {
		if s.pos == len(s.b) {
			return true, nil
		}
		if s.b[s.pos] == cborBreak {
			s.pos++
			return false, nil
		}
		for range each {
			if more, err := s.item(depth); more || err != nil {
				return more, err
			}
		}
	}
}
