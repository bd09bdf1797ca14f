package message

import (
	"testing"

	"github.com/portask/portask/broker/fault"
)

func TestAttributes(t *testing.T) {
	a := Attributes(0xffff)
	for alg := None; alg.Valid(); alg++ {
		if got := a.WithAlgorithm(alg); got.Algorithm() != alg || got|7 != a {
			t.Errorf("%v: %016b", alg, got)
		}
	}
	for enc := Raw; enc < numEncodings; enc++ {
		if got := a.WithEncoding(enc); got.Encoding() != enc || got|3<<3 != a {
			t.Errorf("%v: %016b", enc, got)
		}
	}
	for p := range uint8(MaxPriority + 1) {
		if got := a.WithPriority(p); got.Priority() != p || got|7<<13 != a {
			t.Errorf("priority %d: %016b", p, got)
		}
	}
	flags := []struct {
		name string
		bit  Attributes
		with func(Attributes, bool) Attributes
		has  func(Attributes) bool
	}{
		{"control", 1 << 7, Attributes.WithControl, Attributes.Control},
		{"encrypted", 1 << 12, Attributes.WithEncrypted, Attributes.Encrypted},
		{"due time", 1 << 8, func(a Attributes, on bool) Attributes { return a.WithSection(on, a.HasExpiry(), a.HasKeyHashes()) }, Attributes.HasDueTime},
		{"expiry", 1 << 9, func(a Attributes, on bool) Attributes { return a.WithSection(a.HasDueTime(), on, a.HasKeyHashes()) }, Attributes.HasExpiry},
		{"key hashes", 1 << 11, func(a Attributes, on bool) Attributes { return a.WithSection(a.HasDueTime(), a.HasExpiry(), on) }, Attributes.HasKeyHashes},
	}
	for _, f := range flags {
		if got := f.with(0, true); got != f.bit || !f.has(got) || f.has(^f.bit) {
			t.Errorf("%s set: %016b", f.name, got)
		}
		if got := f.with(0xffff, false); got != ^f.bit || f.has(got) {
			t.Errorf("%s cleared: %016b", f.name, got)
		}
		if f.bit.HasSection() != (f.bit&attrSection != 0) {
			t.Errorf("%s: HasSection %v", f.name, f.bit.HasSection())
		}
	}
}

func TestNamesParseBack(t *testing.T) {
	for a := None; a.Valid(); a++ {
		if got, err := ParseAlgorithm(a.String()); got != a || err != nil {
			t.Errorf("%v: %v, %v", a, got, err)
		}
	}
	for e := Raw; e < numEncodings; e++ {
		if got, err := ParseEncoding(e.String()); got != e || err != nil {
			t.Errorf("%v: %v, %v", e, got, err)
		}
	}
	for a := AckNone; a.Valid(); a++ {
		if got, err := ParseAckLevel(a.String()); got != a || err != nil {
			t.Errorf("%v: %v, %v", a, got, err)
		}
	}
	_, err := ParseAlgorithm("zip")
	wantFault(t, err, fault.Invalid, "compression", 0)
	_, err = ParseEncoding("")
	wantFault(t, err, fault.Invalid, "encoding", 0)
	_, err = ParseAckLevel("Durable")
	wantFault(t, err, fault.Invalid, "ack", 0)
	for got, want := range map[string]string{
		Algorithm(6).String(): "algorithm 6", Encoding(9).String(): "encoding 9", AckLevel(3).String(): "ack level 3",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
