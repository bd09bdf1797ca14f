package compression

import (
	"bytes"
	"errors"
	"testing"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

// fuzzDecoder feeds src to the decoder of a with a declared length. It must
// not panic, must type its errors, and must produce exactly what was declared.
func fuzzDecoder(f *testing.F, a message.Algorithm) {
	for _, src := range [][]byte{nil, {1}, make([]byte, 300), random(200), text(700)} {
		for l := range levels {
			enc, err := AppendCompress(nil, src, a, l)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(enc, uint32(len(src)))
			f.Add(enc, uint32(len(src)/2))
			if len(enc) > 4 {
				enc[len(enc)/2] ^= 0x10
				f.Add(enc, uint32(len(src)))
			}
		}
	}
	lim := Limits{Bytes: 1 << 20, Ratio: 300}
	f.Fuzz(func(t *testing.T, src []byte, declared uint32) {
		dst := []byte("before")
		out, err := AppendDecompress(dst, src, a, int(declared), lim)
		if !bytes.HasPrefix(out, []byte("before")) {
			t.Fatal("dst was overwritten")
		}
		if err != nil {
			id, missing := UnknownDictionary(err)
			if missing && (a != message.Zstd || id == 0 || !errors.Is(err, fault.NotFound)) {
				t.Fatalf("dictionary %d is missing: %v", id, err)
			}
			if !errors.Is(err, fault.Corrupted) && !errors.Is(err, fault.TooLarge) && !missing {
				t.Fatalf("untyped error: %v", err)
			}
			if len(out) != len(dst) {
				t.Fatal("bytes beside an error")
			}
			return
		}
		if got := len(out) - len(dst); got != int(declared) || got > lim.Bytes || got > lim.Ratio*len(src) {
			t.Fatalf("%d bytes from %d, %d declared", got, len(src), declared)
		}
		again, err := AppendDecompress(nil, src, a, int(declared), lim)
		if err != nil || !bytes.Equal(again, out[len(dst):]) {
			t.Fatalf("the second time differs: %v", err)
		}
	})
}

func FuzzGzip(f *testing.F)   { fuzzDecoder(f, message.Gzip) }
func FuzzSnappy(f *testing.F) { fuzzDecoder(f, message.Snappy) }
func FuzzLZ4(f *testing.F)    { fuzzDecoder(f, message.LZ4) }
func FuzzZstd(f *testing.F)   { fuzzDecoder(f, message.Zstd) }
func FuzzBrotli(f *testing.F) { fuzzDecoder(f, message.Brotli) }

func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte(nil), uint8(0))
	f.Add([]byte("abcabcabcabcabcabcabcabcabcabc"), uint8(7))
	f.Add(text(2000), uint8(11))
	f.Fuzz(func(t *testing.T, src []byte, choice uint8) {
		a := algorithms[int(choice)%len(algorithms)]
		l := Level(choice/16) % levels
		enc, err := AppendCompress(nil, src, a, l)
		if err != nil {
			t.Fatal(err)
		}
		if len(enc) > Bound(a, len(src)) {
			t.Fatalf("%s %s: %d bytes became %d, bound %d", a, l, len(src), len(enc), Bound(a, len(src)))
		}
		dec, err := AppendDecompress(nil, enc, a, len(src), Limits{Ratio: 1 << 20})
		if err != nil || !bytes.Equal(dec, src) {
			t.Fatalf("%s %s: %v", a, l, err)
		}
	})
}

// FuzzDictionary: a hostile dictionary is refused or works, for encoding and for
// decoding whatever comes.
func FuzzDictionary(f *testing.F) {
	enc, err := parsed(f, trained()).AppendCompress(nil, orders(1, 9)[0], LevelFastest)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(trained()[:2000], enc, uint32(300))
	f.Add(trained(), enc, uint32(len(orders(1, 9)[0])))
	f.Add([]byte(nil), enc, uint32(1))
	lim := Limits{Bytes: 1 << 20, Ratio: 300}
	f.Fuzz(func(t *testing.T, dictionary, src []byte, declared uint32) {
		d, err := ParseDictionary(dictionary)
		if err != nil {
			if !errors.Is(err, fault.Invalid) && !errors.Is(err, fault.TooLarge) {
				t.Fatalf("untyped error: %v", err)
			}
			return
		}
		out, err := d.AppendDecompress([]byte("before"), src, int(declared), lim)
		if err != nil {
			if !errors.Is(err, fault.Corrupted) && !errors.Is(err, fault.TooLarge) && !errors.Is(err, fault.NotFound) || string(out) != "before" {
				t.Fatalf("%v beside %q", err, out)
			}
		} else if got := len(out) - 6; got != int(declared) || got > lim.Bytes || got > lim.Ratio*len(src) {
			t.Fatalf("%d bytes from %d, %d declared", got, len(src), declared)
		}
		for level := range levels {
			enc, err := d.AppendCompress(nil, src, level)
			if err != nil || len(enc) > d.Bound(len(src)) {
				t.Fatalf("%s: %d bytes, bound %d, %v", level, len(enc), d.Bound(len(src)), err)
			}
			if id, ok := FrameDictionary(enc); !ok || len(src) > 0 && id != d.ID() {
				t.Fatalf("%s: the frame names %x", level, id)
			}
			if dec, err := d.AppendDecompress(nil, enc, len(src), Limits{Ratio: 1 << 20}); err != nil || !bytes.Equal(dec, src) {
				t.Fatalf("%s: %v", level, err)
			}
		}
	})
}

func FuzzTrain(f *testing.F) {
	f.Add(bytes.Join(orders(40, 1), []byte("\n")), uint16(1000))
	f.Add(bytes.Repeat([]byte("aaaaaaaaaaaaaaa\n"), 1000), uint16(300))
	f.Add(random(6000), uint16(256))
	f.Fuzz(func(t *testing.T, samples []byte, most uint16) {
		b, err := TrainDictionary(bytes.Split(samples, []byte("\n")), TrainOptions{MaxBytes: int(most)})
		if err != nil {
			if !errors.Is(err, fault.Invalid) {
				t.Fatalf("untyped error: %v", err)
			}
			return
		}
		if _, err := ParseDictionary(b); err != nil {
			t.Fatal(err)
		}
	})
}
