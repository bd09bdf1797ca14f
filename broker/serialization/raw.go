package serialization

import (
	"bytes"
	"unicode/utf8"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

// rawCodec passes bytes and text through.
type rawCodec struct{ lim Limits }

const (
	opAppendRaw = "encode raw"
	opDecodeRaw = "decode raw"
)

func (rawCodec) Encoding() message.Encoding { return message.Raw }

func (rawCodec) AppendValue(dst []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case []byte:
		return append(dst, v...), nil
	case string:
		return append(dst, v...), nil
	}
	return dst, invalid(opAppendRaw, "value", "a %T; raw values are []byte or string", v)
}

func (c rawCodec) DecodeValue(src []byte, v any) error {
	if len(src) > c.lim.Bytes {
		return tooLarge(opDecodeRaw, "bytes", len(src), c.lim.Bytes)
	}
	switch v := v.(type) {
	case *[]byte:
		*v = append((*v)[:0], src...)
	case *string:
		*v = string(src)
	case *any:
		*v = bytes.Clone(src)
	default:
		return invalid(opDecodeRaw, "value", "into a %T; raw values go into *[]byte, *string or *any", v)
	}
	return nil
}

func (rawCodec) AppendMessage(dst []byte, _ *message.Message) ([]byte, error) {
	return dst, noMessages(opAppendRaw)
}

func (rawCodec) DecodeMessage([]byte, *message.Message) ([]byte, error) {
	return nil, noMessages(opDecodeRaw)
}

func (c rawCodec) Size(src []byte) (int, error) { return len(src), nil }

func noMessages(op string) error {
	return fault.New(fault.NotSupported, op).WithField("encoding").
		WithDetail("raw bytes have no form for whole messages; take cbor, json or msgpack").
		WithCategory(fault.CategorySerialization)
}

// textOr returns b as text if it is UTF-8, else as it is.
func textOr(b []byte) any {
	if utf8.Valid(b) {
		return string(b)
	}
	return b
}
