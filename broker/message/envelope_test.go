package message

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/portask/portask/broker/fault"
)

// wantFault checks that err has the code, names the field, and, if limit is
// not 0, states the limit.
func wantFault(t *testing.T, err error, code fault.Code, field string, limit int64) {
	t.Helper()
	f := fault.Find(err)
	if f == nil {
		t.Errorf("got %v, want a fault %v of %s", err, code, field)
		return
	}
	if !errors.Is(err, code) || f.Field != field || limit != 0 && (!f.HasLimit || f.Limit != limit) {
		t.Errorf("got %v (%v, field %q, limit %d), want %v of %q, limit %d", err, f.Code, f.Field, f.Limit, code, field, limit)
	}
}

// Each case changes a valid envelope in one way, with a header checksum that
// fits: the fields themselves must be refused.
func TestParseEnvelopeRefuses(t *testing.T) {
	valid := sampleNamed(t, "full").build(t)
	u16 := func(at int, v uint16) func([]byte) {
		return func(b []byte) { binary.LittleEndian.PutUint16(b[at:], v) }
	}
	u32 := func(at int, v uint32) func([]byte) {
		return func(b []byte) { binary.LittleEndian.PutUint32(b[at:], v) }
	}
	u64 := func(at int, v uint64) func([]byte) {
		return func(b []byte) { binary.LittleEndian.PutUint64(b[at:], v) }
	}
	const attrs = 0xab10 // of the sample
	lim := DefaultLimits()
	tests := []struct {
		name   string
		change func([]byte)
		code   fault.Code
		field  string
		limit  int64
	}{
		{"zeros", func(b []byte) { clear(b) }, fault.Corrupted, "magic", 0},
		{"magic", func(b []byte) { b[0] = 'Q' }, fault.Corrupted, "magic", 0},
		{"version 0", func(b []byte) { b[3] = '0' }, fault.Corrupted, "magic", 0},
		{"version 2", func(b []byte) { b[3] = '2' }, fault.NewerFormat, "magic", 1},
		{"version 9", func(b []byte) { b[3] = '9' }, fault.NewerFormat, "magic", 1},
		{"version letter", func(b []byte) { b[3] = 'A' }, fault.Corrupted, "magic", 0},
		{"reserved bit 10", u16(posAttributes, attrs|1<<10), fault.NotSupported, "attributes", 0},
		{"Kafka body", u16(posAttributes, attrs|1<<5), fault.NotSupported, "attributes", 0},
		{"transactional", u16(posAttributes, attrs|1<<6), fault.NotSupported, "attributes", 0},
		{"algorithm 6", u16(posAttributes, attrs|6), fault.NotSupported, "attributes", 0},
		{"algorithm 7", u16(posAttributes, attrs|7), fault.NotSupported, "attributes", 0},
		{"body_len above the limit", u32(posBodyLen, uint32(lim.BatchBytes-EnvelopeBytes+1)), fault.TooLarge, "body_len", int64(lim.BatchBytes - EnvelopeBytes)},
		{"body_len 2^32-1", u32(posBodyLen, math.MaxUint32), fault.TooLarge, "body_len", int64(lim.BatchBytes - EnvelopeBytes)},
		{"body_len 0", u32(posBodyLen, 0), fault.Invalid, "body_len", 0},
		{"body_len of the section alone", u32(posBodyLen, 40), fault.Invalid, "body_len", 0},
		{"count 0", u32(posCount, 0), fault.Invalid, "count", 0},
		{"count above the offsets", u32(posCount, 4), fault.Invalid, "last_offset_delta", 0},
		{"count 2^32-1", u32(posCount, math.MaxUint32), fault.Invalid, "last_offset_delta", 0},
		{"last_offset_delta above the limit", u32(posLastDelta, 65536), fault.TooLarge, "last_offset_delta", 65535},
		{"base_offset negative", u64(posBase, 1<<63), fault.Invalid, "base_offset", 0},
		{"base_offset at the end", u64(posBase, math.MaxInt64-2), fault.Invalid, "base_offset", 0},
		{"uncompressed_len below the messages", u32(posRawLen, 11), fault.Invalid, "uncompressed_len", 0},
		{"uncompressed_len other than the body", u32(posRawLen, 56), fault.Invalid, "uncompressed_len", 0},
		{"uncompressed_len above the limit", u32(posRawLen, uint32(lim.DecompressedBytes+1)), fault.TooLarge, "uncompressed_len", int64(lim.DecompressedBytes)},
		{"uncompressed_len above the ratio", func(b []byte) {
			u16(posAttributes, attrs|uint16(Zstd))(b)
			u32(posRawLen, 55*1000+1)(b)
		}, fault.TooLarge, "uncompressed_len", 55 * 1000},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := bytes.Clone(valid)
			tt.change(b)
			e, err := ParseEnvelope(b, nil)
			wantFault(t, err, tt.code, tt.field, tt.limit)
			if e != (Envelope{}) {
				t.Errorf("envelope %+v with an error", e)
			}
		})
	}
}

func TestParseEnvelopeAcceptsTheLimits(t *testing.T) {
	valid := Envelope{BodyLen: 100, Count: 2, LastOffsetDelta: 65535, UncompressedLen: 100_000,
		Attributes: Attributes(0).WithAlgorithm(Gzip), BaseOffset: math.MaxInt64 - 1 - 65535}
	tests := []struct {
		name   string
		change func(*Envelope)
	}{
		{"ratio and offsets", func(*Envelope) {}},
		{"whole batch", func(e *Envelope) { e.BodyLen = 4<<20 - EnvelopeBytes }},
		{"decompressed", func(e *Envelope) { e.BodyLen = 1 << 20; e.UncompressedLen = 32 << 20 }},
		{"smallest messages", func(e *Envelope) { e.UncompressedLen = 8 }},
		{"every other attribute", func(e *Envelope) {
			e.Attributes = e.Attributes.WithControl(true).WithEncrypted(true).WithPriority(7).WithEncoding(MessagePack)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := valid
			tt.change(&e)
			b := AppendEnvelope([]byte("before"), &e, 5)
			got, err := ParseEnvelope(b[len("before"):], nil)
			if err != nil {
				t.Fatal(err)
			}
			e.HeaderCRC = got.HeaderCRC
			if got != e || got.EndOffset() < 0 {
				t.Errorf("got %+v, want %+v", got, e)
			}
		})
	}
}

func TestBatchBytes(t *testing.T) {
	b := sampleNamed(t, "one").build(t)
	if n, err := BatchBytes(b[:8], nil); n != len(b) || err != nil {
		t.Errorf("got %d, %v, want %d", n, err, len(b))
	}
	lim := DefaultLimits()
	lim.BatchBytes = len(b) - 1
	_, err := BatchBytes(b[:8], &lim)
	wantFault(t, err, fault.TooLarge, "body_len", int64(lim.BatchBytes-EnvelopeBytes))
	_, err = BatchBytes(b[:7], nil)
	wantFault(t, err, fault.Invalid, "envelope", 0)
	_, err = BatchBytes(make([]byte, 8), nil)
	wantFault(t, err, fault.Corrupted, "magic", 0)
	_, err = ParseEnvelope(b[:79], nil)
	wantFault(t, err, fault.Invalid, "envelope", 0)
}

// The header checksum is what FORMAT.md says, computed the long way.
func TestHeaderCRCByDefinition(t *testing.T) {
	b := sampleNamed(t, "full").build(t)
	for _, seed := range []Seed{0, 1, 1 << 40, math.MaxUint64} {
		Stamp(b, 77, -5, 6, seed)
		all := binary.LittleEndian.AppendUint64(nil, uint64(seed))
		all = append(all, b[:32]...)
		all = append(all, b[36:80]...)
		want := crc32.Checksum(all, crc32.MakeTable(crc32.Castagnoli))
		if got := binary.LittleEndian.Uint32(b[32:]); got != want {
			t.Errorf("seed %d: %08x, want %08x", uint64(seed), got, want)
		}
	}
}

func TestStampTouchesItsRegionOnly(t *testing.T) {
	before := sampleNamed(t, "full").build(t)
	b := bytes.Clone(before)
	Stamp(b, 1<<50, 1<<51, 1<<52, 1<<53)
	if !bytes.Equal(b[:8], before[:8]) || !bytes.Equal(b[36:], before[36:]) {
		t.Error("bytes outside [8,36) changed")
	}
	e, _, err := Validate(b, 1<<53, nil)
	if err != nil || e.BaseOffset != 1<<50 || e.AppendTime != 1<<51 || e.Epoch != 1<<52 {
		t.Errorf("got %+v, %v", e, err)
	}
}

// A batch that a recycled file still holds does not validate under the file's
// new seed.
func TestSeedMakesStaleBatchesInvalid(t *testing.T) {
	b := sampleNamed(t, "one").build(t)
	Stamp(b, 1, 2, 3, 17)
	for _, seed := range []Seed{0, 16, 18, 17 << 32} {
		wantFault(t, VerifyHeader(b, seed), fault.Corrupted, "header_crc", 0)
	}
	if err := VerifyHeader(b, 17); err != nil {
		t.Error(err)
	}
	wantFault(t, VerifyHeader(b[:79], 17), fault.Invalid, "envelope", 0)
}

func TestEveryBitFlipIsRefused(t *testing.T) {
	for _, name := range []string{"one-stamped", "full"} {
		s := sampleNamed(t, name)
		b := s.build(t)
		for i := range 8 * len(b) {
			b[i/8] ^= 1 << (i % 8)
			if _, _, err := Validate(b, s.seed, nil); err == nil {
				t.Errorf("%s: bit %d of byte %d flipped and accepted", name, i%8, i/8)
			}
			b[i/8] ^= 1 << (i % 8)
		}
	}
}

func TestEveryTruncationIsRefused(t *testing.T) {
	s := sampleNamed(t, "full")
	b := s.build(t)
	for n := range len(b) {
		if _, _, err := Validate(b[:n:n], s.seed, nil); err == nil {
			t.Errorf("%d bytes of %d accepted", n, len(b))
		}
		if err := VerifyBody(b[:n:n]); err == nil {
			t.Errorf("VerifyBody accepted %d bytes of %d", n, len(b))
		}
	}
	if _, _, err := Validate(append(slices.Clone(b), 0), s.seed, nil); err == nil {
		t.Error("a byte too many accepted")
	}
	// Where batches lie back to back, these two look at the first only.
	two := append(slices.Clone(b), b...)
	if err := VerifyBody(two); err != nil {
		t.Error(err)
	}
	e, err := ParseEnvelope(two, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, body, err := Split(two, &e)
	if err != nil || !bytes.Equal(body, b[len(b)-e.BodyBytes():]) || cap(body) != len(body) {
		t.Errorf("Split of two: %d bytes (cap %d), %v", len(body), cap(body), err)
	}
}

func TestMaxTimestamp(t *testing.T) {
	tests := []struct {
		first int64
		ms    uint32
		want  int64
	}{
		{1000, 2, 3000},
		{-1, 0, -1},
		{math.MaxInt64 - 5, 1, math.MaxInt64},
		{math.MinInt64, math.MaxUint32, math.MinInt64 + math.MaxUint32*1000},
	}
	for _, tt := range tests {
		e := Envelope{FirstTimestamp: tt.first, MaxTimestampDeltaMs: tt.ms}
		if got := e.MaxTimestamp(); got != tt.want {
			t.Errorf("%d + %d ms: %d, want %d", tt.first, tt.ms, got, tt.want)
		}
	}
}

func TestLimitsValidate(t *testing.T) {
	if err := DefaultLimits().Validate(); err != nil {
		t.Error(err)
	}
	err := Limits{BatchBytes: 1 << 31, KeyBytes: -1}.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	if !errors.Is(err, fault.TooLarge) || !errors.Is(err, fault.Invalid) {
		t.Errorf("%v: want both codes", err)
	}
	for _, field := range []string{"batch_bytes", "message_bytes", "key_bytes", "headers", "header_bytes", "messages", "decompressed_bytes", "decompressed_ratio"} {
		if !strings.Contains(err.Error(), field) {
			t.Errorf("%v does not name %s", err, field)
		}
	}
}
