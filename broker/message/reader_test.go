package message

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/portask/portask/broker/fault"
)

// Bodies that break one rule each. The envelope declares count messages, their
// offsets to last, and 5 ms.
func TestReaderRefuses(t *testing.T) {
	const ok = "\x04\x00\x00\x00v" // one message, value "v"
	long := strings.Repeat("x", 70)
	lim := Limits{KeyBytes: 10, MessageBytes: 40, Headers: 2, HeaderBytes: 20}
	tests := []struct {
		name        string
		body        string
		count, last uint32
		field       string
		limit       int64 // TooLarge if not 0, else Corrupted
		message     string
	}{
		{"empty", "", 1, 0, "length", 0, "message 0 at position 0"},
		{"message missing", ok, 2, 1, "length", 0, "message 1 at position 5"},
		{"bytes left over", ok + "\x00", 1, 0, "count", 0, "message 1 at position 5"},
		{"length beyond the body", "\x05\x00\x00\x00v", 1, 0, "length", 0, "message 0"},
		{"length cut off", "\x80", 1, 0, "length", 0, "message 0"},
		{"length of 2^63", "\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 1, 0, "length", 0, "message 0"},
		{"length of 11 bytes", "\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 1, 0, "length", 0, "message 0"},
		{"length not shortest", "\x84\x00\x00\x00\x00v", 1, 0, "length", 0, "message 0"},
		{"length 0", "\x00", 1, 0, "attr", 0, "message 0"},
		{"attr bit 4", "\x04\x10\x00\x00v", 1, 0, "attr", 0, "message 0"},
		{"attr bit 7", "\x04\x80\x00\x00v", 1, 0, "attr", 0, "message 0"},
		{"no ts_delta", "\x01\x00", 1, 0, "ts_delta", 0, "message 0"},
		{"ts_delta above the maximum", "\x06\x00\x92\x4e\x00vv", 1, 0, "ts_delta", 0, "message 0"}, // 5001 µs
		{"ts_delta overflows", "\x0d\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00v", 1, 0, "ts_delta", 0, "message 0"},
		{"no offset_delta", "\x02\x00\x00", 1, 0, "offset_delta", 0, "message 0"},
		{"offset_delta beyond the last", "\x04\x00\x00\x01v", 1, 0, "offset_delta", 0, "message 0"},
		{"offset_delta leaves no room", "\x04\x00\x00\x02v" + ok, 2, 2, "offset_delta", 0, "message 0"},
		{"offset_delta repeats", ok + ok, 2, 5, "offset_delta", 0, "message 1 at position 5"},
		{"offset_delta 2^64-1", "\x0d\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01v", 1, math.MaxUint32, "offset_delta", 0, "message 0"},
		{"id cut off", "\x08\x01\x00\x00abcde", 1, 0, "id", 0, "message 0"},
		{"id zero", "\x13\x01\x00\x00" + strings.Repeat("\x00", 16), 1, 0, "id", 0, "message 0"},
		{"key cut off", "\x05\x02\x00\x00\x02k", 1, 0, "key", 0, "message 0"},
		{"key of 2^63 bytes", "\x0e\x02\x00\x00\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01k", 1, 0, "key", 0, "message 0"},
		{"key above the limit", "\x0f\x02\x00\x00\x0b" + long[:11], 1, 0, "key", 10, "message 0"},
		{"headers without count", "\x03\x04\x00\x00", 1, 0, "headers", 0, "message 0"},
		{"no headers", "\x04\x04\x00\x00\x00", 1, 0, "headers", 0, "message 0"},
		{"headers above the limit", "\x04\x04\x00\x00\x03", 1, 0, "headers", 2, "message 0"},
		{"2^64-1 headers", "\x0d\x04\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 1, 0, "headers", 2, "message 0"},
		{"header name cut off", "\x06\x04\x00\x00\x01\x02n", 1, 0, "headers", 0, "message 0"},
		{"header value missing", "\x06\x04\x00\x00\x01\x01n", 1, 0, "headers", 0, "message 0"},
		{"header bytes above the limit", "\x1b\x04\x00\x00\x01\x01n\x14" + long[:20], 1, 0, "header_bytes", 20, "message 0"},
		{"null value with bytes", "\x04\x08\x00\x00v", 1, 0, "value", 0, "message 0"},
		{"message above the limit", "\x2c\x00\x00\x00" + long[:41], 1, 0, "message_bytes", 40, "message 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := Envelope{Count: tt.count, LastOffsetDelta: tt.last, UncompressedLen: uint32(len(tt.body)), MaxTimestampDeltaMs: 5}
			if tt.name == "ts_delta overflows" {
				e.FirstTimestamp = -1
			}
			var r Reader
			var m Message
			r.Reset(&e, []byte(tt.body), &lim)
			for range tt.count {
				if !r.Next(&m) {
					break
				}
			}
			if r.Next(&m) {
				t.Fatal("more messages than count")
			}
			code := fault.Corrupted
			if tt.limit != 0 {
				code = fault.TooLarge
			}
			wantFault(t, r.Err(), code, tt.field, tt.limit)
			if err := r.Err(); err != nil && !strings.Contains(err.Error(), tt.message) {
				t.Errorf("%v does not say %q", err, tt.message)
			}
			if r.Next(&m) || !errors.Is(r.Err(), code) {
				t.Error("the error went away")
			}
		})
	}
}

func TestReaderWantsTheDeclaredLength(t *testing.T) {
	var r Reader
	r.Reset(&Envelope{Count: 1, UncompressedLen: 6}, []byte("\x04\x00\x00\x00v"), nil)
	if r.Next(&Message{}) {
		t.Error("a body shorter than declared was read")
	}
	wantFault(t, r.Err(), fault.Corrupted, "uncompressed_len", 0)
}

// After a compaction messages are missing in the middle, in front and at the
// end; the rest keep their offsets.
func TestReaderOffsetGaps(t *testing.T) {
	var body []byte
	deltas := []uint32{3, 4, 900}
	for _, d := range deltas {
		m := Message{Value: []byte{byte(d)}}
		body = appendMessage(body, &m, sizeMessage(&m, 0, d), 0, d)
	}
	var r Reader
	r.Reset(&Envelope{Count: 3, LastOffsetDelta: 1000, BaseOffset: 50, UncompressedLen: uint32(len(body))}, body, nil)
	var m Message
	for _, d := range deltas {
		if !r.Next(&m) || m.Offset != 50+Offset(d) || m.Value[0] != byte(d) {
			t.Fatalf("offset %d, value %v, %v, want offset %d", m.Offset, m.Value, r.Err(), 50+d)
		}
	}
	if r.Next(&m) || r.Err() != nil {
		t.Errorf("after the last: %v", r.Err())
	}
}

func TestZeroReader(t *testing.T) {
	var r Reader
	if r.Next(&Message{}) || r.Err() != nil {
		t.Errorf("a zero Reader: %v", r.Err())
	}
}
