package message

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"reflect"
	"testing"

	"github.com/portask/portask/broker/fault"
)

func TestAppendRefusesLargeMessages(t *testing.T) {
	lim := Limits{BatchBytes: 400, MessageBytes: 200, KeyBytes: 20, Headers: 3, HeaderBytes: 30,
		Messages: 4, DecompressedBytes: 300, DecompressedRatio: 10}
	tight := func(change func(*Limits)) Limits { l := lim; change(&l); return l }
	header := func(n int) Header { return Header{Key: "abc", Value: make([]byte, n-3)} }
	tests := []struct {
		name  string
		lim   Limits
		m     Message
		field string
		limit int64
	}{
		{"key", lim, Message{Key: make([]byte, 21)}, "key", 20},
		{"headers", lim, Message{Headers: make([]Header, 4)}, "headers", 3},
		{"header bytes", lim, Message{Headers: []Header{header(20), header(11)}}, "header_bytes", 30},
		{"value", lim, Message{Value: make([]byte, 201)}, "message_bytes", 200},
		{"sum", lim, Message{Key: make([]byte, 20), Headers: []Header{header(30)}, Value: make([]byte, 151)}, "message_bytes", 200},
		{"whole batch", tight(func(l *Limits) { l.BatchBytes = 180 }), Message{Value: make([]byte, 100)}, "batch_bytes", 180},
		{"body", tight(func(l *Limits) { l.DecompressedBytes = 90 }), Message{Value: make([]byte, 100)}, "decompressed_bytes", 90},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := NewBuilder(tt.lim)
			wantFault(t, b.Append(&tt.m), fault.TooLarge, tt.field, tt.limit)
			if b.Count() != 0 || b.Bytes() != 0 {
				t.Errorf("batch has %d messages, %d bytes", b.Count(), b.Bytes())
			}
		})
	}
	// Exactly at the limits, and the reader with the same limits takes it.
	b := NewBuilder(lim)
	m := Message{Key: make([]byte, 20), Headers: []Header{header(15), header(15)}, Value: make([]byte, 150)}
	if err := b.Append(&m); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, finish(t, b), &lim); len(got) != 1 || got[0].Bytes() != 200 {
		t.Errorf("read back %+v", got)
	}
}

func TestAppendRefusesBadFields(t *testing.T) {
	b := NewBuilder(DefaultLimits())
	wantFault(t, b.Append(&Message{Priority: 8}), fault.Invalid, "priority", 0)
	wantFault(t, b.Append(&Message{Encoding: numEncodings}), fault.Invalid, "encoding", 0)
	wantFault(t, b.Append(&Message{DueTime: -1}), fault.Invalid, "due_time", 0)
	wantFault(t, b.Append(&Message{Expiry: -1}), fault.Invalid, "expiry", 0)
	_, err := b.Finish(nil, Producer{}, nil)
	wantFault(t, err, fault.Invalid, "count", 0)
}

func TestAppendNeverMixes(t *testing.T) {
	first := Message{Priority: 3, Encoding: CBOR, DueTime: 50, Expiry: 60}
	for _, change := range []func(*Message){
		func(m *Message) { m.Priority = 2 },
		func(m *Message) { m.Encoding = JSON },
		func(m *Message) { m.Encoding = Raw },
		func(m *Message) { m.DueTime = 0 },
		func(m *Message) { m.DueTime = 51 },
		func(m *Message) { m.Expiry = 0 },
		func(m *Message) { m.Expiry = 61 },
	} {
		b := NewBuilder(DefaultLimits())
		if err := b.Append(&first); err != nil {
			t.Fatal(err)
		}
		other := first
		change(&other)
		if err := b.Append(&other); !errors.Is(err, ErrMixed) {
			t.Errorf("%+v after %+v: %v", other, first, err)
		}
		if b.Count() != 1 {
			t.Errorf("%d messages", b.Count())
		}
		b.Reset()
		if err := b.Append(&other); err != nil {
			t.Errorf("%+v in a new batch: %v", other, err)
		}
	}
}

// What a message says of its encoding goes before what the Builder says.
func TestEncodingOfTheBatch(t *testing.T) {
	for _, tt := range []struct{ builder, message, want Encoding }{
		{Raw, Raw, Raw}, {CBOR, Raw, CBOR}, {Raw, JSON, JSON}, {CBOR, MessagePack, MessagePack},
	} {
		b := NewBuilder(DefaultLimits())
		b.Encoding = tt.builder
		if err := b.Append(&Message{Encoding: tt.message}); err != nil {
			t.Fatal(err)
		}
		if err := b.Append(&Message{Encoding: tt.want}); err != nil {
			t.Errorf("%v in a batch of %v: %v", tt.want, tt.want, err)
		}
		if got := readAll(t, finish(t, b), nil); got[0].Encoding != tt.want || got[1].Encoding != tt.want {
			t.Errorf("builder %v, message %v: got %v and %v", tt.builder, tt.message, got[0].Encoding, got[1].Encoding)
		}
	}
}

// A batch is filled to the last byte, then full, and never over a limit.
func TestBatchFull(t *testing.T) {
	for _, keyHashes := range []bool{false, true} {
		lim := DefaultLimits()
		lim.BatchBytes = 1000
		b := NewBuilder(lim)
		b.KeyHashes = keyHashes
		m := Message{Value: make([]byte, 3)} // 7 bytes encoded
		for {
			err := b.Append(&m)
			if errors.Is(err, ErrBatchFull) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		out := finish(t, b)
		per := 7
		if keyHashes {
			per += 4
		}
		if len(out) > lim.BatchBytes || len(out) < lim.BatchBytes-per-4 {
			t.Errorf("key hashes %v: the full batch has %d bytes of %d", keyHashes, len(out), lim.BatchBytes)
		}
		if _, _, err := Validate(out, 0, &lim); err != nil {
			t.Error(err)
		}
	}
	lim := DefaultLimits()
	lim.Messages = 3
	b := NewBuilder(lim)
	for range 3 {
		if err := b.Append(&Message{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Append(&Message{}); !errors.Is(err, ErrBatchFull) {
		t.Errorf("a fourth of 3: %v", err)
	}
}

func TestTimestamps(t *testing.T) {
	const maxMs = math.MaxUint32
	tests := []struct {
		name   string
		stamps []int64
		full   bool // the last is refused with ErrBatchFull
		wantMs uint32
	}{
		{"one", []int64{-5}, false, 0},
		{"backwards", []int64{1000, -4000}, false, 0},
		{"rounded up", []int64{0, 1}, false, 1},
		{"exact", []int64{7, 2007}, false, 2},
		{"largest is not last", []int64{0, 5001, 17}, false, 6},
		{"49 days", []int64{0, maxMs * 1000}, false, maxMs},
		{"more", []int64{0, maxMs*1000 + 1}, true, 0},
		{"far back", []int64{0, math.MinInt64}, false, 0},
		{"overflow up", []int64{-2, math.MaxInt64}, true, 0},
		{"overflow down", []int64{1, math.MinInt64}, true, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := NewBuilder(DefaultLimits())
			for i, ts := range tt.stamps {
				err := b.Append(&Message{Timestamp: ts})
				if last := i == len(tt.stamps)-1; last && tt.full {
					if !errors.Is(err, ErrBatchFull) {
						t.Fatalf("got %v, want ErrBatchFull", err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			batch := finish(t, b)
			e, err := ParseEnvelope(batch, nil)
			if err != nil {
				t.Fatal(err)
			}
			if e.FirstTimestamp != tt.stamps[0] || e.MaxTimestampDeltaMs != tt.wantMs {
				t.Errorf("first %d, max %d ms, want %d, %d ms", e.FirstTimestamp, e.MaxTimestampDeltaMs, tt.stamps[0], tt.wantMs)
			}
			for i, m := range readAll(t, batch, nil) {
				if m.Timestamp != tt.stamps[i] {
					t.Errorf("message %d: %d, want %d", i, m.Timestamp, tt.stamps[i])
				}
			}
		})
	}
}

// The body is sent raw, and says so, unless compression pays and a receiver
// would accept the result.
func TestFinishCompresses(t *testing.T) {
	b := filled(t, 10, 1000)
	n := b.Bytes()
	fake := func(size int, alg Algorithm) func(dst, src []byte) ([]byte, Algorithm) {
		return func(dst, src []byte) ([]byte, Algorithm) {
			if len(src) != n {
				t.Errorf("src has %d bytes, want %d", len(src), n)
			}
			return append(dst, make([]byte, size)...), alg
		}
	}
	tests := []struct {
		name string
		size int
		alg  Algorithm
		want Algorithm
	}{
		{"pays", 100, Zstd, Zstd},
		{"a byte less", n - 1, LZ4, LZ4},
		{"same size", n, LZ4, None},
		{"larger", n + 500, Gzip, None},
		{"declined", 0, None, None},
		{"declined with bytes", 77, None, None},
		{"nothing left", 0, Brotli, None},
		{"at the ratio", (n + 999) / 1000, Snappy, Snappy},
		{"above the ratio", n/1000 - 1, Snappy, None},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			prefix := []byte("what was there")
			out, err := b.Finish(prefix, Producer{}, fake(tt.size, tt.alg))
			if err != nil || !bytes.HasPrefix(out, prefix) {
				t.Fatalf("%v, %.20q", err, out)
			}
			e, _, err := Validate(out[len(prefix):], 0, nil)
			if err != nil {
				t.Fatal(err)
			}
			want := n
			if tt.want != None {
				want = tt.size
			}
			if e.Attributes.Algorithm() != tt.want || e.BodyBytes() != want || int(e.UncompressedLen) != n {
				t.Errorf("%v with %d bytes of %d, want %v with %d", e.Attributes.Algorithm(), e.BodyBytes(), e.UncompressedLen, tt.want, want)
			}
		})
	}
	for _, broken := range []func(dst, src []byte) ([]byte, Algorithm){
		fake(10, Algorithm(6)),
		func(_, _ []byte) ([]byte, Algorithm) { return nil, Zstd },
	} {
		out, err := b.Finish([]byte("kept"), Producer{}, broken)
		wantFault(t, err, fault.Internal, "compression", 0)
		if string(out) != "kept" {
			t.Errorf("dst became %q", out)
		}
	}
}

// Options hold for a whole batch, and Finish can be repeated.
func TestBuilderReuse(t *testing.T) {
	b := NewBuilder(DefaultLimits())
	b.KeyHashes, b.Encoding = true, CBOR
	m := Message{Key: []byte("k"), Value: []byte("v"), Timestamp: 5}
	for range 2 {
		if err := b.Append(&m); err != nil {
			t.Fatal(err)
		}
		b.KeyHashes, b.Encoding = false, JSON // from the next batch on
	}
	first, err := b.Finish(nil, Producer{ID: 1, Epoch: 2, Sequence: 3}, nil)
	if err != nil {
		t.Fatal(err)
	}
	again, err := b.Finish(nil, Producer{ID: 1, Epoch: 2, Sequence: 3}, nil)
	if err != nil || !bytes.Equal(first, again) {
		t.Errorf("the same batch twice differs: %v", err)
	}
	e, s, err := Validate(first, 0, nil)
	if err != nil || e.Attributes.Encoding() != CBOR || len(s.KeyHashes) != 8 {
		t.Errorf("encoding %v, %d bytes of hashes, %v", e.Attributes.Encoding(), len(s.KeyHashes), err)
	}
	b.Reset()
	m.Timestamp = 9
	if err := b.Append(&m); err != nil {
		t.Fatal(err)
	}
	e, s, err = Validate(finish(t, b), 0, nil)
	if err != nil || e.Attributes.Encoding() != JSON || s.Present || e.Count != 1 || e.FirstTimestamp != 9 || e.MaxTimestampDeltaMs != 0 {
		t.Errorf("after Reset: %+v, %+v, %v", e, s, err)
	}
}

// readAll decodes a raw batch with seed 0 into independent messages.
func readAll(tb testing.TB, batch []byte, lim *Limits) []*Message {
	tb.Helper()
	e, s, err := Validate(batch, 0, lim)
	if err != nil {
		tb.Fatal(err)
	}
	_, body, err := Split(batch, &e)
	if err != nil {
		tb.Fatal(err)
	}
	var r Reader
	var m Message
	var all []*Message
	r.Reset(&e, body, lim)
	r.SetSection(&s)
	for r.Next(&m) {
		all = append(all, m.Clone())
	}
	if r.Err() != nil {
		tb.Fatal(r.Err())
	}
	return all
}

func TestCloneSharesNothing(t *testing.T) {
	batch := sampleNamed(t, "worked-example").build(t)
	Stamp(batch, 0, 0, 0, 0)
	got := readAll(t, batch, nil)
	want := fmt.Sprintf("%+v %+v", *got[0], *got[1])
	clear(batch)
	if now := fmt.Sprintf("%+v %+v", *got[0], *got[1]); now != want {
		t.Errorf("clones changed with the batch: %s, were %s", now, want)
	}
	empty := (&Message{Key: []byte{}, Value: nil}).Clone()
	if !reflect.DeepEqual(empty, &Message{Key: []byte{}}) {
		t.Errorf("%+v: an empty key and a null value must stay so", empty)
	}
}
