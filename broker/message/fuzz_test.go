package message

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"
)

// Any 80 bytes that are accepted encode to the same 80 bytes, but for the
// checksum, and the sizes agree with each other.
func FuzzParseEnvelope(f *testing.F) {
	for _, s := range samples() {
		f.Add(s.build(f))
	}
	f.Add([]byte("PTB2"))
	f.Add(bytes.Repeat([]byte{0xff}, EnvelopeBytes))
	f.Fuzz(func(t *testing.T, src []byte) {
		lim := DefaultLimits()
		if n, err := BatchBytes(src, &lim); err == nil && (n < EnvelopeBytes || n > lim.BatchBytes) {
			t.Errorf("BatchBytes: %d", n)
		}
		e, err := ParseEnvelope(src, &lim)
		if err != nil {
			return
		}
		if e.Bytes() > lim.BatchBytes || e.BodyBytes() < 1 || e.SectionBytes() < 0 || e.SectionBytes()%8 != 0 {
			t.Errorf("batch %d, section %d, body %d bytes", e.Bytes(), e.SectionBytes(), e.BodyBytes())
		}
		if int(e.Count) > lim.Messages || int(e.UncompressedLen) > lim.DecompressedBytes || e.EndOffset() <= e.BaseOffset || e.BaseOffset < 0 {
			t.Errorf("over a limit: %+v", e)
		}
		want := bytes.Clone(src[:EnvelopeBytes])
		crc := headerCRC(want, 77)
		want = binary.LittleEndian.AppendUint32(want[:posHeaderCRC:posHeaderCRC], crc)
		want = append(want, src[posHeaderCRC+4:EnvelopeBytes]...)
		if got := AppendEnvelope(nil, &e, 77); !bytes.Equal(got, want) {
			t.Errorf("encoded again: % x, want % x", got, want)
		}
	})
}

// Any body that a Reader takes to its end encodes to the same bytes, and what
// it gives out lies inside the body.
func FuzzReader(f *testing.F) {
	for _, s := range samples() {
		batch := s.build(f)
		e, err := ParseEnvelope(batch, nil)
		if err != nil {
			f.Fatal(err)
		}
		_, body, err := Split(batch, &e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body, e.Count, e.LastOffsetDelta, e.FirstTimestamp, e.MaxTimestampDeltaMs)
	}
	f.Add([]byte("\x04\x00\x00\x05v\x03\x08\x01\x09"), uint32(2), uint32(1000), int64(-1), uint32(0))
	f.Fuzz(func(t *testing.T, body []byte, count, last uint32, first int64, maxMs uint32) {
		e := Envelope{BaseOffset: 1 << 40, Count: count, LastOffsetDelta: last, FirstTimestamp: first,
			MaxTimestampDeltaMs: maxMs, UncompressedLen: uint32(len(body))}
		lim := DefaultLimits()
		var r Reader
		var m Message
		var again []byte
		var n, bytesOut int
		r.Reset(&e, body, &lim)
		for r.Next(&m) {
			n++
			bytesOut += m.Bytes()
			if n > len(body)/minMessageBytes || bytesOut > len(body) || len(m.Headers) > lim.Headers {
				t.Fatalf("%d messages of %d bytes from a body of %d", n, bytesOut, len(body))
			}
			delta, ok := subtract(m.Timestamp, first)
			offset := m.Offset - e.BaseOffset
			if !ok || offset < 0 || offset > Offset(last) {
				t.Fatalf("timestamp %d, offset delta %d", m.Timestamp, offset)
			}
			again = appendMessage(again, &m, sizeMessage(&m, delta, uint32(offset)), delta, uint32(offset))
		}
		if r.Err() != nil {
			return
		}
		if !bytes.Equal(again, body) || n != int(count) {
			t.Errorf("%d of %d messages, encoded again: % x, want % x", n, count, again, body)
		}
	})
}

// Any section that is accepted encodes to the same bytes, but for a wrong
// checksum.
func FuzzSection(f *testing.F) {
	for _, s := range samples() {
		batch := s.build(f)
		e, err := ParseEnvelope(batch, nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(batch[EnvelopeBytes:], uint16(e.Attributes), e.Count)
	}
	f.Add([]byte{}, uint16(attrKeyHashes), uint32(1<<31))
	f.Fuzz(func(t *testing.T, rest []byte, attrs uint16, count uint32) {
		b := AppendEnvelope(nil, &Envelope{BodyLen: uint32(len(rest)), Attributes: Attributes(attrs), Count: count}, 0)
		b = append(b, rest...)
		verified := VerifyBody(b)
		s, body, err := Split(b, &Envelope{BodyLen: uint32(len(rest)), Attributes: Attributes(attrs), Count: count})
		if err != nil {
			return
		}
		if s.Present != Attributes(attrs).HasSection() {
			t.Fatalf("present: %v", s.Present)
		}
		section := bytes.Clone(rest[:len(rest)-len(body)])
		if s.Present {
			crc := crc32.Checksum(section[sectionHeadBytes:], castagnoli)
			if binary.LittleEndian.Uint32(section[4:]) != crc && verified == nil {
				t.Error("VerifyBody accepted a wrong section_crc")
			}
			binary.LittleEndian.PutUint32(section[4:], crc)
		}
		var hashes []uint32
		for i := range len(s.KeyHashes) / 4 {
			hashes = append(hashes, s.KeyHash(i))
		}
		if got := appendSection(nil, Attributes(attrs), s.DueTime, s.Expiry, hashes); !bytes.Equal(got, section) {
			t.Errorf("encoded again: % x, want % x", got, section)
		}
	})
}
