package compression

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/golang/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

var algorithms = []message.Algorithm{message.None, message.Gzip, message.Snappy, message.LZ4, message.Zstd, message.Brotli}

func random(n int) []byte {
	b := make([]byte, n)
	c := rand.NewChaCha8([32]byte{1})
	_, _ = c.Read(b)
	return b
}

// text returns n bytes that look like a log: compressible, not trivially.
func text(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	words := strings.Fields("level=info msg=\"batch stored\" partition offset topic=orders producer= consumer= took= bytes= error=nil")
	var b bytes.Buffer
	for b.Len() < n {
		fmt.Fprintf(&b, "%s %d ", words[r.IntN(len(words))], r.IntN(1<<16))
		if r.IntN(8) == 0 {
			b.WriteByte('\n')
		}
	}
	return b.Bytes()[:n]
}

type input struct {
	name string
	b    []byte
}

func inputs() []input {
	return []input{
		{"empty", nil},
		{"one byte", []byte{7}},
		{"zeros", make([]byte, 20000)},
		{"random", random(70000)},
		{"text", text(64 << 10)},
		{"text 4 MiB", text(4 << 20)},
		{"random 4 MiB", random(4 << 20)},
	}
}

func TestRoundTrip(t *testing.T) {
	prefix := []byte("what stood before")
	for _, a := range algorithms {
		for level := LevelFastest; level < levels; level++ {
			for _, in := range inputs() {
				if level != LevelFastest && len(in.b) > 1<<20 && (testing.Short() || raceEnabled) {
					continue
				}
				t.Run(fmt.Sprintf("%s/%s/%s", a, level, in.name), func(t *testing.T) {
					enc, err := AppendCompress(bytes.Clone(prefix), in.b, a, level)
					if err != nil {
						t.Fatal(err)
					}
					if !bytes.HasPrefix(enc, prefix) {
						t.Fatal("the prefix of dst was overwritten")
					}
					enc = enc[len(prefix):]
					dec, err := AppendDecompress(bytes.Clone(prefix), enc, a, len(in.b), Limits{Ratio: 1 << 20})
					if err != nil {
						t.Fatal(err)
					}
					if !bytes.HasPrefix(dec, prefix) || !bytes.Equal(dec[len(prefix):], in.b) {
						t.Fatal("decompressed bytes differ")
					}
				})
			}
		}
	}
}

// TestOtherReaders decodes our output with each format's own reader, so the
// bytes are the format and not merely our inverse.
func TestOtherReaders(t *testing.T) {
	src := text(300 << 10)
	read := map[message.Algorithm]func([]byte) ([]byte, error){
		message.Gzip: func(b []byte) ([]byte, error) {
			r, err := gzip.NewReader(bytes.NewReader(b))
			if err != nil {
				return nil, err
			}
			return readAll(r)
		},
		message.Snappy: func(b []byte) ([]byte, error) { return snappy.Decode(nil, b) },
		message.LZ4:    func(b []byte) ([]byte, error) { return readAll(lz4.NewReader(bytes.NewReader(b))) },
		message.Zstd: func(b []byte) ([]byte, error) {
			r, err := zstd.NewReader(bytes.NewReader(b))
			if err != nil {
				return nil, err
			}
			defer r.Close()
			return readAll(r)
		},
		message.Brotli: func(b []byte) ([]byte, error) { return readAll(brotli.NewReader(bytes.NewReader(b))) },
	}
	for a, f := range read {
		for level := LevelFastest; level < levels; level++ {
			for _, n := range []int{0, 1, 1000, len(src)} {
				enc, err := AppendCompress(nil, src[:n], a, level)
				if err != nil {
					t.Fatal(err)
				}
				got, err := f(enc)
				if err != nil || !bytes.Equal(got, src[:n]) {
					t.Errorf("%s %s %d bytes: foreign reader: %v", a, level, n, err)
				}
			}
		}
	}
}

func readAll(r interface{ Read([]byte) (int, error) }) ([]byte, error) {
	var b bytes.Buffer
	_, err := b.ReadFrom(r)
	return b.Bytes(), err
}

// TestZstdLiterals: what has no repeats but unequal frequencies becomes smaller
// at every level, and what has neither does not take the second try.
func TestZstdLiterals(t *testing.T) {
	for i, p := range payloads() {
		least := map[string]float64{"table of numbers": 2, "uuids": 1.7, "random decimals": 2, "hex of random": 1.8, "base64 of random": 1.2, "json with base64": 1.15}[p.name]
		if least == 0 {
			continue
		}
		for _, n := range []int{1 << 10, 64 << 10} {
			src := p.make(n, rand.New(rand.NewPCG(1, uint64(i))))
			for level := range levels {
				enc, err := AppendCompress(nil, src, message.Zstd, level)
				if err != nil {
					t.Fatal(err)
				}
				if r := float64(n) / float64(len(enc)); n > 1<<10 && r < least || r < 1 {
					t.Errorf("%s, %d bytes, %s: ratio %.2f, want %.2f", p.name, n, level, r, least)
				}
				if dec, err := AppendDecompress(nil, enc, message.Zstd, n, Limits{}); err != nil || !bytes.Equal(dec, src) {
					t.Errorf("%s, %d bytes, %s: %v", p.name, n, level, err)
				}
			}
		}
	}
	for l := range levels {
		zstdLiteral[l].free = nil
	}
	for _, src := range [][]byte{random(1 << 10), random(64 << 10), text(64 << 10), nil} {
		if _, err := AppendCompress(nil, src, message.Zstd, LevelFastest); err != nil || zstdLiteral[LevelFastest].free != nil {
			t.Errorf("%d bytes were tried twice, %v", len(src), err)
		}
	}
}

// TestLZ4Foreign reads frames with every feature other writers use.
func TestLZ4Foreign(t *testing.T) {
	src := text(700 << 10)
	for _, o := range [][]lz4.Option{
		{lz4.ChecksumOption(true)},
		{lz4.ChecksumOption(false), lz4.BlockSizeOption(lz4.Block64Kb)},
		{lz4.BlockChecksumOption(true), lz4.BlockSizeOption(lz4.Block256Kb)},
		{lz4.SizeOption(uint64(len(src)))},
		{lz4.CompressionLevelOption(lz4.Level9)},
	} {
		var b bytes.Buffer
		w := lz4.NewWriter(&b)
		if err := w.Apply(append(o, lz4.ConcurrencyOption(1))...); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(src); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		got, err := AppendDecompress(nil, b.Bytes(), message.LZ4, len(src), Limits{})
		if err != nil || !bytes.Equal(got, src) {
			t.Errorf("options %v: %v", o, err)
		}
	}
}

func TestBound(t *testing.T) {
	src := random(4<<20 + 3)
	sizes := []int{0, 1, 2, 11, 12, 13, 14, 20, 31, 59, 60, 61, 62, 100, 254, 255, 256, 257, 511, 1000, 1023, 1024, 1025, 4095, 4096,
		16383, 16384, 16385, 65534, 65535, 65536, 65537, 65535 * 2, 65791, 65792, 65793, 131071, 131072, 131073, 1<<18 - 1, 1 << 18, 1<<18 + 1,
		65535 * 7, 1 << 20, 1<<20 + 1, 1 << 21, 1<<22 - 1, 1 << 22, 1<<22 + 1, 1<<22 + 3}
	r := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		sizes = append(sizes, r.IntN(3000))
	}
	for range 60 {
		sizes = append(sizes, r.IntN(300000))
	}
	var buf []byte
	for _, a := range algorithms {
		met, least := 0, 1<<30
		for level := LevelFastest; level < levels; level++ {
			for _, n := range sizes {
				if level != LevelFastest && n > 1<<20 && (testing.Short() || raceEnabled) {
					continue
				}
				at := 0
				if n < len(src) {
					at = r.IntN(len(src) - n)
				}
				out, err := AppendCompress(buf[:0], src[at:at+n], a, level)
				if err != nil {
					t.Fatal(err)
				}
				buf = out
				if len(out) > Bound(a, n) {
					t.Errorf("%s %s: %d random bytes became %d, bound %d", a, level, n, len(out), Bound(a, n))
				}
				if len(out) == Bound(a, n) {
					met++
				}
				least = min(least, Bound(a, n)-len(out))
			}
		}
		t.Logf("%s: bound met by %d of %d inputs, else missed by at least %d", a, met, len(sizes)*int(levels), least)
		if met == 0 && a != message.Brotli {
			t.Errorf("%s: no input meets the bound: it is not exact", a)
		}
	}
}

// TestNoCopies: with room in dst coders stay in it, at every level and in both
// directions, and a body that is not worth compressing is not touched.
func TestNoCopies(t *testing.T) {
	same := func(a, b []byte) bool { return &a[:1][0] == &b[:1][0] }
	for _, a := range algorithms {
		for level := range levels {
			for _, src := range [][]byte{nil, random(5000), text(5000), text(300 << 10), []byte(fmt.Sprintf("%x", random(5000)))} {
				dst := make([]byte, 0, Bound(a, len(src))+1)
				enc, err := AppendCompress(dst, src, a, level)
				if err != nil {
					t.Fatal(err)
				}
				if !same(enc, dst) {
					t.Errorf("%s %s: output of %d bytes left the slice it was given", a, level, len(enc))
				}
				out := make([]byte, 0, len(src)+decodeSlack)
				dec, err := AppendDecompress(out, enc, a, len(src), Limits{})
				if err != nil || !same(dec, out) {
					t.Errorf("%s %s: %d bytes decoded into another slice, %v", a, level, len(dec), err)
				}
			}
		}
	}
	if out, a := DefaultPolicy().Compress(nil, random(64<<10)); out != nil || a != message.None {
		t.Errorf("%s: %d bytes for a body that stays as it is", a, cap(out))
	}
}

// TestBomb: a small body that expands far beyond what it declares, and
// declarations beyond the limits, take no more memory than was declared.
func TestBomb(t *testing.T) {
	const real = 16 << 20
	zeros := make([]byte, real)
	for _, a := range algorithms[1:] {
		t.Run(a.String(), func(t *testing.T) {
			bomb, err := AppendCompress(nil, zeros, a, LevelFastest)
			if err != nil {
				t.Fatal(err)
			}
			warm, err := AppendCompress(nil, []byte("warm"), a, LevelFastest)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := AppendDecompress(nil, warm, a, 4, Limits{}); err != nil {
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
				{1000, Limits{}, fault.Corrupted, 5 << 20},
				{0, Limits{}, fault.Corrupted, 5 << 20},
			} {
				before := allocated()
				out, err := AppendDecompress(nil, bomb, a, c.declared, c.lim)
				took := allocated() - before
				if !errors.Is(err, c.want) {
					t.Errorf("declared %d, limits %+v: got error %v, want %v", c.declared, c.lim, err, c.want)
				}
				if len(out) != 0 {
					t.Errorf("declared %d: %d bytes came out beside the error", c.declared, len(out))
				}
				if took > c.memory && !raceEnabled {
					t.Errorf("declared %d, limits %+v: took %d bytes, more than %d", c.declared, c.lim, took, c.memory)
				}
				var f *fault.Error
				if errors.As(err, &f) && (f.Field == "" || c.want == fault.TooLarge && (!f.HasLimit || f.Value != int64(c.declared))) {
					t.Errorf("error does not name field and limit: %+v", f)
				}
			}
		})
	}
}

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// TestBrotliWindow: a window above 4 MiB is refused before the decoder sees it.
func TestBrotliWindow(t *testing.T) {
	for lgwin := 10; lgwin <= 24; lgwin++ {
		var b bytes.Buffer
		w := brotli.NewWriterOptions(&b, brotli.WriterOptions{Quality: 5, LGWin: lgwin})
		_, _ = w.Write([]byte("hello, hello, hello"))
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if got := brotliWindow(b.Bytes()[0]); got != lgwin {
			t.Errorf("window 1<<%d read as 1<<%d", lgwin, got)
		}
		_, err := AppendDecompress(nil, b.Bytes(), message.Brotli, 19, Limits{})
		if lgwin <= brotliWindowLogMax && err != nil || lgwin > brotliWindowLogMax && !errors.Is(err, fault.TooLarge) {
			t.Errorf("window 1<<%d: %v", lgwin, err)
		}
	}
}

func TestDamage(t *testing.T) {
	src := text(3000)
	for _, a := range algorithms[1:] {
		enc, err := AppendCompress(nil, src, a, LevelFastest)
		if err != nil {
			t.Fatal(err)
		}
		for cut := range len(enc) {
			if _, err := AppendDecompress(nil, enc[:cut], a, len(src), Limits{}); err == nil {
				t.Fatalf("%s: %d of %d bytes were accepted", a, cut, len(enc))
			} else if !errors.Is(err, fault.Corrupted) && !errors.Is(err, fault.TooLarge) {
				t.Fatalf("%s cut at %d: %v is not typed as corrupted", a, cut, err)
			}
		}
		if out, err := AppendDecompress(nil, append(bytes.Clone(enc), "trailing"...), a, len(src), Limits{}); err == nil {
			t.Errorf("%s: trailing bytes were accepted, %d bytes out", a, len(out))
		}
	}
}

func TestUnknown(t *testing.T) {
	for _, a := range []message.Algorithm{6, 7, 255} {
		if _, err := AppendCompress(nil, nil, a, 0); !errors.Is(err, fault.NotSupported) {
			t.Errorf("compress with %d: %v", a, err)
		}
		if _, err := AppendDecompress(nil, nil, a, 0, Limits{}); !errors.Is(err, fault.NotSupported) {
			t.Errorf("decompress with %d: %v", a, err)
		}
	}
	if _, err := AppendCompress(nil, nil, message.Zstd, levels); !errors.Is(err, fault.Invalid) {
		t.Errorf("level %d: %v", levels, err)
	}
	if _, err := AppendDecompress(nil, []byte("ab"), message.None, 3, Limits{}); !errors.Is(err, fault.Corrupted) {
		t.Errorf("raw body of another length: %v", err)
	}
	if _, err := AppendDecompress(nil, nil, message.None, -1, Limits{}); !errors.Is(err, fault.Invalid) {
		t.Errorf("negative length: %v", err)
	}
}

// TestAllocations holds the doc's promise of none per call once warm.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	src := text(64 << 10)
	for _, a := range algorithms {
		for level := LevelFastest; level < levels; level++ {
			enc := make([]byte, 0, Bound(a, len(src)))
			dec := make([]byte, 0, len(src)+decodeSlack)
			down := testing.AllocsPerRun(20, func() {
				enc, _ = AppendCompress(enc[:0], src, a, level)
			})
			up := testing.AllocsPerRun(20, func() {
				dec, _ = AppendDecompress(dec[:0], enc, a, len(src), Limits{})
			})
			t.Logf("%s %s: %v allocations to compress, %v to decompress", a, level, down, up)
			if a != message.Brotli && (down != 0 || up != 0) {
				t.Errorf("%s %s: %v allocations to compress, %v to decompress, want none", a, level, down, up)
			}
			if a == message.Brotli && (down != 0 || up > 8) {
				t.Errorf("%s %s: %v and %v allocations, more than noted", a, level, down, up)
			}
		}
	}
}
