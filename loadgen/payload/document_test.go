package payload

import (
	"bytes"
	"errors"
	"testing"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/serialization"
)

// Documents in every encoding are recognised, and a change of any field or byte
// is found.
func TestDocuments(t *testing.T) {
	s := source(t, 7, 1, HeaderBytes, 2000)
	for e := message.Raw; e.Valid(); e++ {
		out, err := s.Encoder(e)
		if err != nil {
			t.Fatal(err)
		}
		in, err := s.Encoder(e)
		if err != nil {
			t.Fatal(err)
		}
		var v []byte
		for i := range 300 {
			h := Header{Run: 7, Producer: uint32(i % 3), Partition: 3, Sequence: uint64(i), Intended: int64(i) * 1000, Key: uint32(i % 2)}
			if v, err = out.Append(v[:0], h); err != nil {
				t.Fatal(err)
			}
			got, err := in.Check(v)
			h.Size = got.Size
			if err != nil || got != h {
				t.Fatalf("%v: message %d: %+v, %v; want %+v", e, i, got, err, h)
			}
		}
		for i := range v {
			v[i] ^= 32 // in JSON the case of a letter
			if _, err := in.Check(v); err == nil {
				t.Errorf("%v: a flipped bit in byte %d of %d was not found", e, i, len(v))
			} else if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrForeign) {
				t.Errorf("%v: byte %d: %v", e, i, err)
			}
			v[i] ^= 32
		}
		if _, err := in.Check(nil); err == nil {
			t.Errorf("%v: nothing was accepted", e)
		}
	}
}

// What somebody else sends, in whatever form, is foreign, not corrupt.
func TestForeignDocuments(t *testing.T) {
	s, other := source(t, 0x1234567890abcdef, 1, 100, 100), source(t, 8, 1, 100, 100)
	for e := message.Raw; e.Valid(); e++ {
		x, err := s.Encoder(e)
		if err != nil {
			t.Fatal(err)
		}
		y, err := other.Encoder(e)
		if err != nil {
			t.Fatal(err)
		}
		v, err := y.Append(nil, Header{Sequence: 5})
		if err != nil {
			t.Fatal(err)
		}
		for name, v := range map[string][]byte{"another run": v, "text": []byte("hello"), "JSON": []byte(`{"run":true}`), "noise": {0xff, 0xc1, 0}, "empty": {}} {
			if _, err := x.Check(v); !errors.Is(err, ErrForeign) {
				t.Errorf("%v: %s: %v", e, name, err)
			}
		}
		// Of this run, and broken off.
		if v, err = x.Append(nil, Header{Sequence: 5}); err != nil {
			t.Fatal(err)
		}
		if _, err := x.Check(v[:len(v)-9]); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%v: cut short: %v", e, err)
		}
	}
}

// A value that decodes to another message's fields is not taken for it.
func TestForgedDocument(t *testing.T) {
	s := source(t, 7, 1, 100, 100)
	x, err := s.Encoder(message.CBOR)
	if err != nil {
		t.Fatal(err)
	}
	c, err := serialization.Default().Codec(message.CBOR)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x.Append(nil, Header{Sequence: 3}); err != nil {
		t.Fatal(err)
	}
	d := x.doc
	d.Body = bytes.Clone(d.Body)
	for name, change := range map[string]func(*document){
		"sequence": func(d *document) { d.Sequence++ },
		"producer": func(d *document) { d.Producer++ },
		"intended": func(d *document) { d.Intended++ },
		"key":      func(d *document) { d.Key++ },
		"run":      func(d *document) { d.Run++ },
		"body":     func(d *document) { d.Body = d.Body[1:] },
	} {
		forged := d
		change(&forged)
		v, err := c.AppendValue(nil, &forged)
		if err != nil {
			t.Fatal(err)
		}
		if h, err := x.Check(v); err == nil {
			t.Errorf("%s: taken for %+v", name, h)
		}
	}
}

func TestSizesOfTheCaller(t *testing.T) {
	s := source(t, 7, 1, 100, 100)
	if v := s.Append(nil, Header{Size: 500}); len(v) != 100 {
		t.Errorf("%d bytes without AllowSizes", len(v))
	}
	s.AllowSizes()
	for in, want := range map[uint32]int{0: 100, 1: HeaderBytes, 500: 500, 1 << 30: SizeMax} {
		v := s.Append(nil, Header{Size: in})
		h, err := s.Check(v)
		if len(v) != want || err != nil || int(h.Size) != want {
			t.Errorf("size %d: %d bytes, %+v, %v; want %d", in, len(v), h, err, want)
		}
	}
}
