// Package serialization turns an application's values, and whole messages, into
// bytes and back: as CBOR, JSON or MessagePack, behind one [Codec].
//
// Two things are encoded. A value is what stands in a message's Value: the
// producer encodes it, the batch's attributes name the encoding, and a consumer
// decodes whatever arrives ([Registry.Encode], [Registry.Decode]). A whole
// message, with its key, headers and times, is encoded where messages leave the
// broker's own batches: in files, pipes and other systems. FORMAT.md shows how
// a message looks in each encoding.
//
// Everything a decoder takes from outside is bounded before memory is taken for
// it: bytes, nesting, elements ([Limits]).
//
// Codecs and registries are immutable and safe for concurrent use. Compression
// and the batch that carries values are left to others.
package serialization

import (
	"github.com/portask/portask/broker/message"
)

// Codec is one encoding. Its methods may be called concurrently.
//
// Errors are *fault.Error of the category serialization: Corrupted for bytes
// that are not of the encoding, TooLarge for a limit, Invalid for a value that
// the encoding, or the Go type, has no place for, NotSupported for what raw
// bytes cannot do.
type Codec interface {
	// Encoding is what a batch's attributes call it.
	Encoding() message.Encoding

	// AppendValue appends v encoded to dst. With an error dst is returned in
	// its length.
	AppendValue(dst []byte, v any) ([]byte, error)

	// DecodeValue decodes src, all of it, into v, a pointer. What v holds does
	// not alias src. A *any becomes the same Go value for the same data
	// whatever the encoding: nil, bool, int64, uint64 (above the largest
	// int64), float64, string, []byte, []any or map[string]any.
	DecodeValue(src []byte, v any) error

	// AppendMessage appends m, every field of it, to dst. With an error dst is
	// returned in its length.
	AppendMessage(dst []byte, m *message.Message) ([]byte, error)

	// DecodeMessage decodes the message at the beginning of src into m, all of
	// it, and returns what follows. m's slices and strings may alias src, and
	// the memory of m.Headers is reused. With an error m is undefined.
	DecodeMessage(src []byte, m *message.Message) (rest []byte, err error)

	// Size is the length of the first item of src, white space around it
	// included. 0 without an error means that src ends before the item does.
	Size(src []byte) (int, error)
}
