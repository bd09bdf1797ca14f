package compression

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

// orders returns n bodies as a shop would send them: small, alike, not equal.
func orders(n int, seed uint64) [][]byte {
	r := rand.New(rand.NewPCG(seed, 7))
	names := strings.Fields("lamp chair table shelf carpet mirror curtain candle vase clock")
	out := make([][]byte, n)
	for i := range out {
		var b bytes.Buffer
		fmt.Fprintf(&b, `{"type":"order.created","version":3,"order_id":"%016x","customer":{"id":%d,"country":"%s"},"items":[`,
			r.Uint64(), r.IntN(1e6), []string{"DE", "FR", "NL", "AT"}[r.IntN(4)])
		for j := range 1 + r.IntN(3) {
			if j > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, `{"sku":"%s-%03d","quantity":%d,"unit_price_cents":%d}`, names[r.IntN(len(names))], r.IntN(1000), 1+r.IntN(5), r.IntN(30000))
		}
		fmt.Fprintf(&b, `],"total_cents":%d,"currency":"EUR","paid":%t}`, r.IntN(100000), r.IntN(2) == 0)
		out[i] = b.Bytes()
	}
	return out
}

var trained = sync.OnceValue(func() []byte {
	b, err := TrainDictionary(orders(400, 1), TrainOptions{})
	if err != nil {
		panic(err)
	}
	return b
})

func parsed(t testing.TB, b []byte) *Dictionary {
	t.Helper()
	d, err := ParseDictionary(b)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDictionaryRoundTrip(t *testing.T) {
	d := parsed(t, trained())
	if d.ID() < 1<<15 || d.ID() >= 1<<31 || !bytes.Equal(d.Bytes(), trained()) {
		t.Fatalf("id %d, %d bytes", d.ID(), len(d.Bytes()))
	}
	prefix := []byte("what stood before")
	in := append(inputs(), input{"order", orders(1, 99)[0]}, input{"text 200 KiB", text(200 << 10)}, input{"dictionary itself", trained()})
	for level := range levels {
		for _, in := range in {
			if level != LevelFastest && len(in.b) > 1<<20 {
				continue
			}
			enc, err := d.AppendCompress(bytes.Clone(prefix), in.b, level)
			if err != nil || !bytes.HasPrefix(enc, prefix) {
				t.Fatalf("%s %s: %v", level, in.name, err)
			}
			enc = enc[len(prefix):]
			if len(enc) > d.Bound(len(in.b)) {
				t.Errorf("%s %s: %d bytes became %d, bound %d", level, in.name, len(in.b), len(enc), d.Bound(len(in.b)))
			}
			want := d.ID()
			if len(in.b) == 0 {
				want = 0
			}
			if id, ok := FrameDictionary(enc); !ok || id != want {
				t.Errorf("%s %s: the frame names %d, %v", level, in.name, id, ok)
			}
			dec, err := d.AppendDecompress(bytes.Clone(prefix), enc, len(in.b), Limits{Ratio: 1 << 20})
			if err != nil || !bytes.HasPrefix(dec, prefix) || !bytes.Equal(dec[len(prefix):], in.b) {
				t.Errorf("%s %s: %v", level, in.name, err)
			}
		}
	}
	// It reads frames without a dictionary too.
	plain, _ := AppendCompress(nil, text(3000), message.Zstd, LevelFastest)
	if out, err := d.AppendDecompress(nil, plain, 3000, Limits{}); err != nil || !bytes.Equal(out, text(3000)) {
		t.Error(err)
	}
	// And the format's own reader reads its frames.
	enc, _ := d.AppendCompress(nil, text(3000), LevelBalanced)
	r, err := zstd.NewReader(nil, zstd.WithDecoderDicts(trained()))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if out, err := r.DecodeAll(enc, nil); err != nil || !bytes.Equal(out, text(3000)) {
		t.Error(err)
	}
}

// TestDictionaryLarge: all of a dictionary larger than the usual window can be
// reached, but at the fastest level, whose table remembers the last 64 KiB or so.
func TestDictionaryLarge(t *testing.T) {
	content := random(DictionaryMaxBytes - 4096)
	b, err := zstd.BuildDict(zstd.BuildDictOptions{ID: 77, Contents: orders(100, 1), History: content, Offsets: [3]int{1, 4, 8}, Level: zstd.SpeedFastest})
	if err != nil {
		t.Fatal(err)
	}
	d := parsed(t, b)
	for level := range levels {
		src := append(random(2000), content[100:4000]...) // its beginning, from within the body
		enc, err := d.AppendCompress(nil, src, level)
		if err != nil || level != LevelFastest && len(enc) > 2500 {
			t.Errorf("%s: %d bytes, %v", level, len(enc), err)
		}
		if out, err := d.AppendDecompress(nil, enc, len(src), Limits{}); err != nil || !bytes.Equal(out, src) {
			t.Errorf("%s: %v", level, err)
		}
	}
}

func TestDictionaryUnknown(t *testing.T) {
	other, err := TrainDictionary(orders(200, 2), TrainOptions{ID: 0x8123})
	if err != nil {
		t.Fatal(err)
	}
	src := orders(1, 5)[0]
	d := parsed(t, other)
	enc, err := d.AppendCompress(nil, src, LevelFastest)
	if err != nil || d.ID() != 0x8123 {
		t.Fatal(d.ID(), err)
	}
	for name, decode := range map[string]func(dst []byte) ([]byte, error){
		"no dictionary": func(dst []byte) ([]byte, error) { return AppendDecompress(dst, enc, message.Zstd, len(src), Limits{}) },
		"another one": func(dst []byte) ([]byte, error) {
			return parsed(t, trained()).AppendDecompress(dst, enc, len(src), Limits{})
		},
	} {
		out, err := decode([]byte("before"))
		var f *fault.Error
		if !errors.As(err, &f) || f.Code != fault.NotFound || f.Field != "dictionary" || !strings.Contains(f.Detail, "00008123") || string(out) != "before" {
			t.Errorf("%s: %v, %q", name, err, out)
		}
		if id, ok := UnknownDictionary(err); !ok || id != 0x8123 {
			t.Errorf("%s: %d, %v", name, id, ok)
		}
	}
	// A second frame cannot be named and is damage.
	plain, _ := AppendCompress(nil, []byte("first"), message.Zstd, LevelFastest)
	if _, err := AppendDecompress(nil, append(plain, enc...), message.Zstd, 5+len(src), Limits{}); !errors.Is(err, fault.Corrupted) {
		t.Error(err)
	}
	if _, ok := UnknownDictionary(err); ok {
		t.Error("a dictionary is missing in", err)
	}
}

func TestFrameDictionary(t *testing.T) {
	frame := func(descriptor byte, rest ...byte) []byte {
		return append(append(binary.LittleEndian.AppendUint32(nil, 0xFD2FB528), descriptor), rest...)
	}
	for _, c := range []struct {
		src []byte
		id  uint32
		ok  bool
	}{
		{nil, 0, false},
		{[]byte("zstd frames begin otherwise"), 0, false},
		{frame(0), 0, false},
		{frame(0, 0x50), 0, true},
		{frame(0x21, 9), 9, true},                               // single segment: no window
		{frame(0x01, 0x50, 9), 9, true},                         // after the window
		{frame(0x02, 0x50, 0x34, 0x12), 0x1234, true},           //
		{frame(0x23, 0x78, 0x56, 0x34, 0x12), 0x12345678, true}, //
		{frame(0x23, 0x78, 0x56, 0x34), 0, false},               // cut
	} {
		if id, ok := FrameDictionary(c.src); id != c.id || ok != c.ok {
			t.Errorf("%x: %x, %v", c.src, id, ok)
		}
	}
}

// TestDictionaryBomb: the bound of AppendDecompress holds with a dictionary.
func TestDictionaryBomb(t *testing.T) {
	const real = 16 << 20
	d := parsed(t, trained())
	bomb, err := d.AppendCompress(nil, make([]byte, real), LevelFastest)
	if err != nil {
		t.Fatal(err)
	}
	warm, _ := d.AppendCompress(nil, []byte("warm, warm, warm"), LevelFastest)
	if _, err := d.AppendDecompress(nil, warm, 16, Limits{}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		declared int
		lim      Limits
		want     fault.Code
		memory   uint64
	}{
		{real, Limits{Bytes: 1 << 20}, fault.TooLarge, 8 << 10},
		{real, Limits{Bytes: real, Ratio: 10}, fault.TooLarge, 8 << 10},
		{real - 1, Limits{Ratio: 1 << 20}, fault.Corrupted, real + real/2},
		{real + 1, Limits{Ratio: 1 << 20}, fault.Corrupted, real + real/2},
		{1000, Limits{}, fault.Corrupted, 1 << 20},
		{0, Limits{}, fault.Corrupted, 1 << 20},
		{-1, Limits{}, fault.Invalid, 8 << 10},
	} {
		before := allocated()
		out, err := d.AppendDecompress(nil, bomb, c.declared, c.lim)
		took := allocated() - before
		if !errors.Is(err, c.want) || len(out) != 0 {
			t.Errorf("declared %d, limits %+v: %d bytes, error %v, want %v", c.declared, c.lim, len(out), err, c.want)
		}
		if took > c.memory && !raceEnabled {
			t.Errorf("declared %d, limits %+v: took %d bytes, more than %d", c.declared, c.lim, took, c.memory)
		}
	}
}

func TestParseDictionary(t *testing.T) {
	good := trained()
	zero := bytes.Clone(good)
	clear(zero[4:8])
	for name, b := range map[string][]byte{
		"empty": nil, "raw bytes": text(5000), "magic only": good[:4], "cut in its tables": good[:40], "id 0": zero,
	} {
		var f *fault.Error
		if _, err := ParseDictionary(b); !errors.As(err, &f) || f.Code != fault.Invalid || f.Field != "dictionary" {
			t.Errorf("%s: %v", name, err)
		}
	}
	var f *fault.Error
	if _, err := ParseDictionary(append(bytes.Clone(good), make([]byte, DictionaryMaxBytes)...)); !errors.As(err, &f) || f.Code != fault.TooLarge || f.Limit != DictionaryMaxBytes {
		t.Error(err)
	}
	// The caller's slice is the caller's.
	b := bytes.Clone(good)
	d := parsed(t, b)
	clear(b)
	if !bytes.Equal(d.Bytes(), good) {
		t.Error("the dictionary changed with the slice it was parsed from")
	}
	if _, err := d.AppendCompress(nil, nil, levels); !errors.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

func TestDictionaryConcurrent(t *testing.T) {
	d := parsed(t, trained())
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i, src := range orders(50, uint64(g)) {
				enc, err := d.AppendCompress(nil, src, Level(i)%levels)
				if err != nil {
					t.Error(err)
					return
				}
				if out, err := d.AppendDecompress(nil, enc, len(src), Limits{}); err != nil || !bytes.Equal(out, src) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestDictionaryAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	d := parsed(t, trained())
	src := orders(1, 3)[0]
	for level := range levels {
		enc := make([]byte, 0, d.Bound(len(src)))
		dec := make([]byte, 0, len(src)+decodeSlack)
		down := testing.AllocsPerRun(20, func() { enc, _ = d.AppendCompress(enc[:0], src, level) })
		up := testing.AllocsPerRun(20, func() { dec, _ = d.AppendDecompress(dec[:0], enc, len(src), Limits{}) })
		if down != 0 || up != 0 {
			t.Errorf("%s: %v allocations to compress, %v to decompress", level, down, up)
		}
	}
}

func TestPolicyDictionary(t *testing.T) {
	p := DefaultPolicy()
	p.Dictionary = parsed(t, trained())
	src := bytes.Join(orders(4, 8), nil)
	out, a := p.Compress(nil, src)
	if id, ok := FrameDictionary(out); a != message.Zstd || !ok || id != p.Dictionary.ID() {
		t.Fatalf("%s, dictionary %d, %v", a, id, ok)
	}
	without, _ := DefaultPolicy().Compress(nil, src)
	if len(out) > len(without)*3/4 {
		t.Errorf("%d bytes became %d with the dictionary, %d without", len(src), len(out), len(without))
	}
	// Bodies too small for an encoder alone are tried with it, and tiny ones not.
	small := orders(1, 8)[0]
	if out, a = p.Compress(nil, small); a != message.Zstd || len(small) < dictionaryMinBytes || len(small) >= p.MinBytes || len(out)*2 > len(small) {
		t.Errorf("%d bytes became %d, %s", len(small), len(out), a)
	}
	if out, a = p.Compress(nil, small[:dictionaryMinBytes-1]); a != message.None || len(out) != 0 {
		t.Errorf("%d bytes were tried, %s", dictionaryMinBytes-1, a)
	}
	p.Algorithm = message.LZ4 // the dictionary is of zstd alone
	if out, a = p.Compress(nil, src); a != message.LZ4 {
		t.Errorf("%s, %d bytes", a, len(out))
	}
}

// TestDictionaryDamaged: a dictionary with changed tables is refused or works.
func TestDictionaryDamaged(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	src := bytes.Join(orders(5, 4), nil)
	kept := 0
	for range 400 {
		b := bytes.Clone(trained())
		for range 1 + r.IntN(3) {
			b[8+r.IntN(300)] ^= 1 << r.IntN(8)
		}
		d, err := ParseDictionary(b)
		if err != nil {
			if !errors.Is(err, fault.Invalid) {
				t.Fatal(err)
			}
			continue
		}
		kept++
		enc, err := d.AppendCompress(nil, src, LevelFastest)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := d.AppendDecompress(nil, enc, len(src), Limits{}); err != nil || !bytes.Equal(out, src) {
			t.Fatalf("round trip with changed tables: %v", err)
		}
	}
	t.Logf("%d of 400 changed dictionaries were still valid", kept)
}
