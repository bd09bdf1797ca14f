package message

import "testing"

// Peek says of a whole envelope what parsing it says.
func TestPeek(t *testing.T) {
	for a := None; a.Valid(); a++ {
		e := Envelope{BodyLen: 1234 + uint32(a), Count: 1, UncompressedLen: 5000, Attributes: Attributes(0).WithAlgorithm(a).WithEncoding(MessagePack).WithPriority(7)}
		b := AppendEnvelope(nil, &e, 0)
		if size, zstd := Peek(b); size != e.Bytes() || zstd != (a == Zstd) {
			t.Errorf("%v: %d bytes, zstd %t", a, size, zstd)
		}
	}
}
