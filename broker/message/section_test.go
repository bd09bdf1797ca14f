package message

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/portask/portask/broker/fault"
)

// Every combination of parts and both parities of count come back.
func TestSectionRoundTrip(t *testing.T) {
	for parts := range 8 {
		for _, count := range []int{1, 2, 7} {
			s := Section{Present: parts != 0}
			if parts&1 != 0 {
				s.DueTime = 11
			}
			if parts&2 != 0 {
				s.Expiry = 22
			}
			var hashes []uint32
			if parts&4 != 0 {
				for i := range count {
					hashes = append(hashes, uint32(i)*0x01010101)
					s.KeyHashes = binary.LittleEndian.AppendUint32(s.KeyHashes, hashes[i])
				}
			}
			a := Attributes(0).WithSection(parts&1 != 0, parts&2 != 0, parts&4 != 0)
			e := Envelope{Attributes: a, Count: uint32(count)}
			b := make([]byte, EnvelopeBytes)
			b = appendSection(b, a, s.DueTime, s.Expiry, hashes)
			if len(b)-EnvelopeBytes != e.SectionBytes() || len(b)%8 != 0 {
				t.Errorf("parts %d, count %d: %d bytes, want %d", parts, count, len(b)-EnvelopeBytes, e.SectionBytes())
			}
			b = append(b, "body"...)
			e.BodyLen = uint32(len(b) - EnvelopeBytes)
			got, body, err := Split(b, &e)
			if err != nil || string(body) != "body" {
				t.Fatalf("parts %d, count %d: body %q, %v", parts, count, body, err)
			}
			if got.Present != s.Present || got.DueTime != s.DueTime || got.Expiry != s.Expiry || !bytes.Equal(got.KeyHashes, s.KeyHashes) {
				t.Errorf("parts %d, count %d: got %+v, want %+v", parts, count, got, s)
			}
			for i, h := range hashes {
				if got.KeyHash(i) != h {
					t.Errorf("hash %d: %d, want %d", i, got.KeyHash(i), h)
				}
			}
		}
	}
}

func TestSplitRefuses(t *testing.T) {
	s := sampleNamed(t, "full") // due, expiry, 3 hashes, 4 bytes of padding
	valid := s.build(t)
	tests := []struct {
		name   string
		change func(b []byte)
		field  string
	}{
		{"section_len too small", func(b []byte) { b[80] -= 8 }, "section_len"},
		{"section_len too large", func(b []byte) { b[80] += 8 }, "section_len"},
		{"due time 0", func(b []byte) { clear(b[88:96]) }, "due_time"},
		{"due time negative", func(b []byte) { b[95] = 0x80 }, "due_time"},
		{"expiry 0", func(b []byte) { clear(b[96:104]) }, "expiry"},
		{"padding", func(b []byte) { b[119] = 1 }, "padding"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := bytes.Clone(valid)
			e, err := ParseEnvelope(b, nil)
			if err != nil {
				t.Fatal(err)
			}
			tt.change(b)
			_, _, err = Split(b, &e)
			wantFault(t, err, fault.Invalid, tt.field, 0)
			if VerifyBody(b) == nil {
				t.Error("VerifyBody accepted it")
			}
		})
	}
	// An envelope that was never checked is refused, not obeyed.
	_, _, err := Split(valid, &Envelope{Attributes: attrKeyHashes, Count: 1 << 31, BodyLen: 10})
	wantFault(t, err, fault.Invalid, "body_len", 0)
	_, _, err = Split(valid[:90], &Envelope{BodyLen: 11, Count: 1})
	wantFault(t, err, fault.Invalid, "body_len", 0)
}

func TestKeyHashTable(t *testing.T) {
	s := sampleNamed(t, "full")
	_, section, err := Validate(s.build(t), s.seed, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []uint32{KeyHash([]byte("k1")), KeyHash(nil), 0} {
		if got := section.KeyHash(i); got != want {
			t.Errorf("message %d: %#x, want %#x", i, got, want)
		}
	}
}
