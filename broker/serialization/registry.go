package serialization

import (
	"sync"

	"github.com/portask/portask/broker/message"
)

// Registry has one codec for each encoding that a batch can name. It is
// immutable.
type Registry struct {
	codecs [message.MessagePack + 1]Codec
}

// New returns a registry of the four codecs with these options. The error is
// that of Options.Validate.
func New(o Options) (*Registry, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	c, err := newCBOR(o.CBOR, o.Limits)
	if err != nil {
		return nil, err
	}
	return new(Registry).With(rawCodec{o.Limits}, c, newJSON(o.JSON, o.Limits), newMessagePack(o.MessagePack, o.Limits)), nil
}

// Default returns the registry with DefaultOptions; always the same one.
var Default = sync.OnceValue(func() *Registry {
	r, err := New(DefaultOptions())
	if err != nil {
		panic("serialization: default options: " + err.Error())
	}
	return r
})

// With returns a registry with these codecs in the place of r's for the same
// encodings.
func (r *Registry) With(codecs ...Codec) *Registry {
	n := *r
	for _, c := range codecs {
		n.codecs[c.Encoding()] = c
	}
	return &n
}

// Codec returns the codec of e. The error is fault.Invalid for a number that
// names no encoding.
func (r *Registry) Codec(e message.Encoding) (Codec, error) {
	if !e.Valid() {
		return nil, invalid("choose a codec", "encoding", "%v is none", e)
	}
	return r.codecs[e], nil
}

// Encode makes v the value of m: encoded as e, and m says so. The memory of
// m.Value is reused, so that a loop with one Message allocates nothing of its
// own; with an error that memory is undefined.
func (r *Registry) Encode(m *message.Message, e message.Encoding, v any) error {
	c, err := r.Codec(e)
	if err != nil {
		return err
	}
	value, err := c.AppendValue(m.Value[:0], v)
	if err != nil {
		return err
	}
	m.Value, m.Encoding = value, e
	return nil
}

// Decode decodes the value of m, as m.Encoding says, into v, a pointer. A null
// value (a tombstone) is fault.NotFound.
func (r *Registry) Decode(m *message.Message, v any) error {
	if m.Value == nil {
		return invalid("decode value", "value", "is null")
	}
	c, err := r.Codec(m.Encoding)
	if err != nil {
		return err
	}
	return c.DecodeValue(m.Value, v)
}

// Transcode appends src, a value encoded as from, to dst, encoded as to. What
// the other encoding has no form for is fault.Invalid or changes: bytes become
// text in base64 in JSON, and a float without a fraction that went through JSON
// comes back as an integer. Keys of maps are sorted where the options say so.
// JSON that stays JSON keeps every value and gets the layout of the options.
// Raw bytes become a byte string (in JSON, text if they are UTF-8); raw is
// made of text and byte strings only.
func (r *Registry) Transcode(dst, src []byte, from, to message.Encoding) ([]byte, error) {
	if c, ok := r.codecs[message.JSON].(*jsonCodec); ok && from == to && to == message.JSON {
		return c.layout(dst, src)
	}
	if from == to {
		return append(dst, src...), nil
	}
	in, err := r.Codec(from)
	if err != nil {
		return dst, err
	}
	out, err := r.Codec(to)
	if err != nil {
		return dst, err
	}
	var v any
	if err := in.DecodeValue(src, &v); err != nil {
		return dst, err
	}
	if b, ok := v.([]byte); ok && to == message.JSON && from == message.Raw {
		v = textOr(b)
	}
	return out.AppendValue(dst, v)
}
