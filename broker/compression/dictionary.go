package compression

import (
	"encoding/binary"
	"errors"
	"math/bits"

	"github.com/klauspost/compress/zstd"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

// DictionaryMaxBytes is the largest dictionary accepted. A dictionary serves
// bodies of a few KiB, for which 16 KiB are plenty (see TrainOptions.MaxBytes);
// the limit bounds what a coder and a reply that carries one can take.
const DictionaryMaxBytes = 1 << 20

// A Dictionary is a zstd dictionary (RFC 8878, section 5): bytes that bodies
// are likely to repeat and entropy tables that fit them, known to both sides by
// an id that stands in the header of each frame. It pays on small bodies, which
// end before an encoder has learnt anything.
//
// Two dictionaries with one id must never exist beside each other: a frame names
// the id only, and decoding it with other bytes yields other bytes. The id that
// TrainDictionary derives from the content keeps them apart.
//
// A Dictionary is immutable and may be used by any number of goroutines. It
// keeps coders of its own, at most GOMAXPROCS for each level and as many for
// decoding, which are made when first wanted and go with it. A coder holds a
// parsed copy of the dictionary, its tables and a window: for 16 KiB of
// dictionary about 1 MiB at the fastest level, 6 at the smallest and 0.1 to
// decode.
type Dictionary struct {
	id      uint32
	bytes   []byte
	encode  [levels]*keep[*zstd.Encoder]
	decoder *keep[*zstd.Decoder]
}

// ParseDictionary checks b, which is in the dictionary format of zstd with an
// id other than 0, and returns a Dictionary of it. b is copied.
//
// Errors: fault.TooLarge above DictionaryMaxBytes, fault.Invalid if b is not a
// dictionary; both name the field "dictionary".
func ParseDictionary(b []byte) (*Dictionary, error) {
	if len(b) > DictionaryMaxBytes {
		return nil, problem(fault.TooLarge, "parse dictionary", "dictionary").WithLimit(int64(len(b)), DictionaryMaxBytes)
	}
	info, err := zstd.InspectDictionary(b)
	if err != nil {
		return nil, problem(fault.Invalid, "parse dictionary", "dictionary").WithDetail("not a zstd dictionary").WithCause(err)
	}
	d := &Dictionary{id: info.ID(), bytes: append([]byte(nil), b...)}
	window := zstdWindow
	if n := info.ContentSize(); n > zstdWindow/4 {
		// An encoder reaches back one window, over the body and then into the
		// dictionary: it must be able to reach its beginning.
		window = 1 << bits.Len(uint(n+zstdWindow-1))
	}
	d.encode = perLevel(func(l Level) *zstd.Encoder {
		return newZstdEncoder(l, zstd.WithWindowSize(window), zstd.WithEncoderDict(d.bytes))
	})
	d.decoder = newKeep(func() *zstd.Decoder { return newZstdDecoder(zstd.WithDecoderDicts(d.bytes)) })
	return d, nil
}

// ID returns the id by which frames name the dictionary. It is never 0.
func (d *Dictionary) ID() uint32 { return d.id }

// Bytes returns the dictionary in its format, as ParseDictionary reads it. The
// slice must not be changed.
func (d *Dictionary) Bytes() []byte { return d.bytes }

// Bound is the most bytes AppendCompress can add for an input of n bytes.
func (d *Dictionary) Bound(n int) int { return boundZstd(n) + 4 } // the id

// AppendCompress appends src as a zstd frame that needs d to dst and returns the
// longer slice. An empty src becomes a frame that needs none. Otherwise it is
// the package's AppendCompress.
func (d *Dictionary) AppendCompress(dst, src []byte, level Level) ([]byte, error) {
	if level >= levels {
		return dst, badLevel(level)
	}
	e := d.encode[level].take()
	dst = e.EncodeAll(src, dst)
	d.encode[level].give(e)
	return dst, nil
}

// AppendDecompress appends the decompressed form of src, zstd frames that need d
// or no dictionary, to dst. Otherwise it is the package's AppendDecompress. A
// frame that names another dictionary is fault.NotFound: see UnknownDictionary.
func (d *Dictionary) AppendDecompress(dst, src []byte, declared int, lim Limits) ([]byte, error) {
	if err := checkDeclared(declared, len(src), lim); err != nil {
		return dst, err
	}
	return decodeZstdWith(d.decoder, dst, src, declared)
}

// FrameDictionary returns the id of the dictionary that the zstd frame at the
// beginning of src needs, 0 if it needs none. ok is false if src does not begin
// with a frame.
func FrameDictionary(src []byte) (id uint32, ok bool) {
	const single, idBytes = 1 << 5, 3
	if len(src) < 5 || binary.LittleEndian.Uint32(src) != zstdMagic {
		return 0, false
	}
	at := 5
	if src[4]&single == 0 {
		at++ // the window descriptor
	}
	n := [...]int{0, 1, 2, 4}[src[4]&idBytes]
	if len(src) < at+n {
		return 0, false
	}
	var b [4]byte
	copy(b[:n], src[at:])
	return binary.LittleEndian.Uint32(b[:]), true
}

// zstdMagic begins each frame.
const zstdMagic = 0xFD2FB528

// UnknownDictionary returns the id of the dictionary that was missing if that
// is what err says.
func UnknownDictionary(err error) (id uint32, ok bool) {
	var u *unknownDictionary
	if !errors.As(err, &u) {
		return 0, false
	}
	return u.id, true
}

// unknownDictionary is the cause within a fault.NotFound.
type unknownDictionary struct{ id uint32 }

func (u *unknownDictionary) Error() string { return zstd.ErrUnknownDictionary.Error() }

// noDictionary is the error of a frame for which the reader has no dictionary.
func noDictionary(src []byte) error {
	id, _ := FrameDictionary(src)
	if id == 0 {
		// Only a frame after the first can be meant; writers of batches write one.
		return damaged(message.Zstd, zstd.ErrUnknownDictionary)
	}
	return problem(fault.NotFound, "decompress", "dictionary").
		WithDetail("zstd body needs dictionary %08x", id).WithCause(&unknownDictionary{id})
}
