package payload

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/serialization"
)

// document is a value as an application would have it: the fields of the header
// and the body. Sum is the raw value's checksum.
type document struct {
	Run       uint64 `cbor:"run" json:"run" msgpack:"run"`
	Producer  uint32 `cbor:"producer" json:"producer" msgpack:"producer"`
	Partition uint32 `cbor:"partition" json:"partition" msgpack:"partition"`
	Sequence  uint64 `cbor:"sequence" json:"sequence" msgpack:"sequence"`
	Intended  int64  `cbor:"intended" json:"intended" msgpack:"intended"`
	Key       uint32 `cbor:"key" json:"key" msgpack:"key"`
	Sum       uint32 `cbor:"sum" json:"sum" msgpack:"sum"`
	Body      []byte `cbor:"body" json:"body" msgpack:"body"`
}

// Encoder makes and checks values that are encoded by the broker's
// serialization. Each goroutine has its own.
type Encoder struct {
	s     *Source
	codec serialization.Codec // nil: raw
	raw   []byte
	again []byte
	doc   document
	// marks are how the run's id stands in a document.
	text, binary []byte
}

// Encoder returns one for values of that encoding. Raw values are those of
// Source itself.
func (s *Source) Encoder(e message.Encoding) (*Encoder, error) {
	x := &Encoder{s: s, text: strconv.AppendUint(nil, s.run, 10), binary: binary.BigEndian.AppendUint64(nil, s.run)}
	if e == message.Raw {
		return x, nil
	}
	var err error
	x.codec, err = serialization.Default().Codec(e)
	return x, err
}

// Append is Source.Append, encoded.
func (x *Encoder) Append(dst []byte, h Header) ([]byte, error) {
	if x.codec == nil {
		return x.s.Append(dst, h), nil
	}
	x.raw = x.s.Append(x.raw[:0], h)
	x.doc = document{
		Run: x.s.run, Producer: h.Producer, Partition: h.Partition, Sequence: h.Sequence, Intended: h.Intended, Key: h.Key,
		Sum: binary.LittleEndian.Uint32(x.raw[4:]), Body: x.raw[HeaderBytes:],
	}
	return x.codec.AppendValue(dst, &x.doc)
}

// Check is Source.Check of an encoded value, after decoding it. What cannot be
// decoded is corrupt if the run's id stands in it, foreign otherwise. The codecs
// are deterministic, so every byte is compared, those without a meaning too.
func (x *Encoder) Check(v []byte) (Header, error) {
	if x.codec == nil {
		return x.s.Check(v)
	}
	x.doc = document{}
	if err := x.codec.DecodeValue(v, &x.doc); err != nil {
		if !bytes.Contains(v, x.text) && !bytes.Contains(v, x.binary) {
			return Header{}, fmt.Errorf("%w: %w", ErrForeign, err)
		}
		return Header{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	d := &x.doc
	if d.Run != x.s.run && d.Sum == 0 {
		return Header{}, fmt.Errorf("%w: no document of loadgen's", ErrForeign)
	}
	b := append(x.raw[:0], magic...)
	b = binary.LittleEndian.AppendUint32(b, d.Sum)
	b = binary.LittleEndian.AppendUint64(b, d.Run)
	b = binary.LittleEndian.AppendUint32(b, d.Producer)
	b = binary.LittleEndian.AppendUint32(b, d.Partition)
	b = binary.LittleEndian.AppendUint64(b, d.Sequence)
	b = binary.LittleEndian.AppendUint64(b, uint64(d.Intended))
	b = binary.LittleEndian.AppendUint32(b, uint32(HeaderBytes+len(d.Body)))
	b = binary.LittleEndian.AppendUint32(b, d.Key)
	x.raw = append(b, d.Body...)
	h, err := x.s.Check(x.raw)
	if err != nil {
		return h, err
	}
	// Not every byte of a document has a meaning: JSON takes field names in either
	// case. What was sent is known to the byte, and is compared.
	if x.again, err = x.codec.AppendValue(x.again[:0], d); err != nil || !bytes.Equal(v, x.again) {
		return h, fmt.Errorf("%w: encoded otherwise than it was sent", ErrCorrupt)
	}
	return h, nil
}
