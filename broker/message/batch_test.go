package message

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/portask/portask/broker/fault"
)

// A batch tells of its bytes what the samples of the format say.
func TestBatch(t *testing.T) {
	for _, s := range samples() {
		t.Run(s.name, func(t *testing.T) {
			raw := s.build(t)
			two := append(bytes.Clone(raw), raw...)
			b, rest, err := ParseBatch(two, nil)
			if err != nil || !bytes.Equal(rest, raw) || !bytes.Equal(b.Bytes(), raw) {
				t.Fatalf("%d bytes, %d left, %v", len(b.Bytes()), len(rest), err)
			}
			e, err := ParseEnvelope(raw, nil)
			if err != nil || *b.Envelope() != e {
				t.Fatalf("%+v, want %+v, %v", *b.Envelope(), e, err)
			}
			if b.Size() != len(raw) || b.BodySize() != len(raw)-EnvelopeBytes || b.Count() != len(s.messages) || b.RawSize() != int(e.UncompressedLen) {
				t.Errorf("size %d, body %d, raw %d, %d messages", b.Size(), b.BodySize(), b.RawSize(), b.Count())
			}
			section, body, err := b.Body()
			if err != nil {
				t.Fatal(err)
			}
			if s.name == "compressed" {
				body = append(bytes.Clone(body), s.messages[0].Value...)
			}
			var r Reader
			b.Messages(&r, &section, body, nil)
			var m Message
			n := 0
			for r.Next(&m) {
				if m.Expiry != section.Expiry || m.DueTime != section.DueTime {
					t.Errorf("message %d: %+v", n, m)
				}
				n++
			}
			if r.Err() != nil || n != b.Count() {
				t.Errorf("%d messages of %d, %v", n, b.Count(), r.Err())
			}
			// It keeps to its bytes: appending to them reaches nobody else's.
			if cap(b.Bytes()) != len(raw) {
				t.Errorf("its bytes have room for %d", cap(b.Bytes()))
			}
			raw[len(raw)-1] ^= 1
			if VerifyBody(b.Bytes()) != nil || VerifyHeader(b.Bytes(), s.seed) != nil {
				t.Error("another's bytes are its own")
			}
		})
	}
}

func TestBatchCutOff(t *testing.T) {
	raw := sampleNamed(t, "full").build(t)
	for n := range raw {
		b, _, err := ParseBatch(raw[:n], nil)
		if err == nil {
			t.Fatalf("%d of %d bytes are a batch of %d", n, len(raw), b.Size())
		}
		if n >= EnvelopeBytes && (!errors.Is(err, fault.Corrupted) || !errors.Is(err, io.ErrUnexpectedEOF)) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	small := DefaultLimits()
	small.BatchBytes = len(raw) - 1
	if _, _, err := ParseBatch(raw, &small); !errors.Is(err, fault.TooLarge) {
		t.Errorf("beyond the limit: %v", err)
	}
}

func TestTimesOfAMessage(t *testing.T) {
	now := time.UnixMicro(1_700_000_000_123_456)
	m := Message{Timestamp: now.UnixMicro() - 1500}
	if !m.Time().Equal(now.Add(-1500*time.Microsecond)) || m.Age(now) != 1500*time.Microsecond || m.Expired(now) {
		t.Errorf("%v, %v, %v", m.Time(), m.Age(now), m.Expired(now))
	}
	m.Timestamp, m.Expiry = now.UnixMicro()+1, now.UnixMicro()
	if m.Age(now) != 0 || !m.Expired(now) || m.Expired(now.Add(-time.Microsecond)) {
		t.Errorf("%v, %v", m.Age(now), m.Expired(now))
	}
}
