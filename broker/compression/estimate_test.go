package compression

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/portask/portask/broker/message"
)

// payload is a kind of body, of any length.
type payload struct {
	name string
	make func(n int, r *rand.Rand) []byte
}

func noise(n int, r *rand.Rand) []byte {
	b := make([]byte, n+8)
	for i := 0; i < n; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], r.Uint64())
	}
	return b[:n]
}

// until calls fn until b has n bytes and cuts it there.
func until(n int, fn func(b *bytes.Buffer)) []byte {
	var b bytes.Buffer
	for b.Len() < n {
		fn(&b)
	}
	return b.Bytes()[:n]
}

// payloads are the kinds that batches are made of, from what compresses best to
// what does not compress at all.
func payloads() []payload {
	words := strings.Fields("the of and a to in is you that it he was for on are as with his they I at be this have from or one had by word but not what all were we when your can said there use an each which she do how their if will up other about out many then them these so some her would make like him into time has look two more write go see number no way could people my than first water been call who oil its now find long down day did get come made may part")
	w := func(r *rand.Rand) string { return words[int(float64(len(words))*r.Float64()*r.Float64())] }
	prose := func(n int, r *rand.Rand) []byte {
		return until(n, func(b *bytes.Buffer) { b.WriteString(w(r) + " ") })
	}
	// batch puts messages of about size bytes behind the headers of a batch.
	batch := func(n, size int, r *rand.Rand, body func(i int) []byte) []byte {
		i := 0
		return until(n, func(b *bytes.Buffer) {
			p := body(i)
			i++
			b.Write(binary.AppendUvarint(nil, uint64(len(p)+20)))
			b.WriteByte(1)
			b.Write(binary.AppendVarint(nil, int64(r.IntN(2000))))
			b.Write(binary.AppendUvarint(nil, uint64(i)))
			b.Write(noise(16, r)) // an identifier
			b.Write(p)
		})
	}
	return []payload{
		{"zeros", func(n int, _ *rand.Rand) []byte { return make([]byte, n) }},
		{"one byte in 64 set", func(n int, r *rand.Rand) []byte {
			b := make([]byte, n)
			for i := 0; i < n; i += 64 {
				b[i+r.IntN(min(64, n-i))] = byte(r.Uint32())
			}
			return b
		}},
		{"log lines", func(n int, _ *rand.Rand) []byte { return text(n) }},
		{"orders", func(n int, r *rand.Rand) []byte {
			return batch(n, 300, r, func(int) []byte { return orders(1, r.Uint64())[0] })
		}},
		{"prose", prose},
		{"prose, utf-16", func(n int, r *rand.Rand) []byte {
			var b []byte
			for _, u := range utf16.Encode([]rune(string(prose(n/2+1, r)))) {
				b = binary.LittleEndian.AppendUint16(b, u)
			}
			return b[:n]
		}},
		{"cyrillic", func(n int, r *rand.Rand) []byte {
			return until(n, func(b *bytes.Buffer) {
				for _, c := range w(r) {
					b.WriteRune('а' + (c-'a')%32)
				}
				b.WriteByte(' ')
			})
		}},
		{"table of numbers", func(n int, r *rand.Rand) []byte {
			return until(n, func(b *bytes.Buffer) { fmt.Fprintf(b, "%d,%.3f,%d\n", r.IntN(1e9), r.Float64()*100, r.IntN(7)) })
		}},
		{"uuids", func(n int, r *rand.Rand) []byte {
			return until(n, func(b *bytes.Buffer) {
				x := noise(16, r)
				fmt.Fprintf(b, "%x-%x-%x-%x-%x\n", x[:4], x[4:6], x[6:8], x[8:10], x[10:])
			})
		}},
		{"random decimals", func(n int, r *rand.Rand) []byte {
			return until(n, func(b *bytes.Buffer) { fmt.Fprint(b, r.Uint64()) })
		}},
		{"hex of random", func(n int, r *rand.Rand) []byte { return []byte(hex.EncodeToString(noise(n, r))[:n]) }},
		{"base64 of random", func(n int, r *rand.Rand) []byte {
			return []byte(base64.StdEncoding.EncodeToString(noise(n, r))[:n])
		}},
		{"json with base64", func(n int, r *rand.Rand) []byte {
			return batch(n, 900, r, func(i int) []byte {
				return fmt.Appendf(nil, `{"id":%d,"image":"%s"}`, i, base64.StdEncoding.EncodeToString(noise(600, r)))
			})
		}},
		{"dna", func(n int, r *rand.Rand) []byte {
			return until(n, func(b *bytes.Buffer) { b.WriteByte("ACGT"[r.IntN(4)]) })
		}},
		{"counters", func(n int, r *rand.Rand) []byte {
			i := r.Uint32()
			return until(n, func(b *bytes.Buffer) { i++; b.Write(binary.LittleEndian.AppendUint32(nil, i)) })
		}},
		{"small 64-bit integers", func(n int, r *rand.Rand) []byte {
			return until(n, func(b *bytes.Buffer) { b.Write(binary.LittleEndian.AppendUint64(nil, uint64(r.IntN(1e6)))) })
		}},
		{"timestamps", func(n int, r *rand.Rand) []byte {
			at := uint64(1.7e15)
			return until(n, func(b *bytes.Buffer) { at += uint64(r.IntN(1e6)); b.Write(binary.LittleEndian.AppendUint64(nil, at)) })
		}},
		{"random walk of float64", func(n int, r *rand.Rand) []byte {
			x := 100.0
			return until(n, func(b *bytes.Buffer) {
				x += r.NormFloat64()
				b.Write(binary.LittleEndian.AppendUint64(nil, math.Float64bits(x)))
			})
		}},
		{"float32 samples", func(n int, r *rand.Rand) []byte {
			i := 0.0
			return until(n, func(b *bytes.Buffer) {
				i++
				b.Write(binary.LittleEndian.AppendUint32(nil, math.Float32bits(float32(math.Sin(i/50)+r.NormFloat64()/100))))
			})
		}},
		{"varints", func(n int, r *rand.Rand) []byte {
			return until(n, func(b *bytes.Buffer) { b.Write(binary.AppendUvarint(nil, uint64(r.ExpFloat64()*5000))) })
		}},
		{"one random kilobyte again and again", func(n int, r *rand.Rand) []byte {
			p := noise(1000, r)
			return batch(n, 1000, r, func(int) []byte { return p })
		}},
		{"five random payloads in turn", func(n int, r *rand.Rand) []byte {
			p := noise(5*700, r)
			return batch(n, 700, r, func(i int) []byte { return p[i%5*700:][:700] })
		}},
		{"random with text between", func(n int, r *rand.Rand) []byte {
			return batch(n, 500, r, func(int) []byte { return append(noise(300, r), prose(200, r)...) })
		}},
		{"half random, half text", func(n int, r *rand.Rand) []byte { return append(noise(n/2, r), prose(n-n/2, r)...) }},
		{"an eighth of text, then random", func(n int, r *rand.Rand) []byte { return append(prose(n/8, r), noise(n-n/8, r)...) }},
		{"random, then an eighth of text", func(n int, r *rand.Rand) []byte { return append(noise(n-n/8, r), prose(n/8, r)...) }},
		{"random with a header of 60 bytes each 600", func(n int, r *rand.Rand) []byte {
			return batch(n, 600, r, func(i int) []byte {
				return append(fmt.Appendf(nil, "content-type: image/jpeg; name=picture-%06d.jpg; version=1.0; ", i), noise(540, r)...)
			})
		}},
		{"compressed", func(n int, r *rand.Rand) []byte {
			return until(n, func(b *bytes.Buffer) {
				g := gzip.NewWriter(b)
				_, _ = g.Write(prose(4*n+1000, r))
				_ = g.Close()
			})
		}},
		{"random in messages of 4 KiB", func(n int, r *rand.Rand) []byte {
			return batch(n, 4096, r, func(int) []byte { return noise(4096, r) })
		}},
		{"random", noise},
	}
}

// saving is the part of b that the best of the algorithms at hand saves.
func saving(b []byte) (best float64, zstd float64) {
	var buf []byte
	for _, c := range []struct {
		a message.Algorithm
		l Level
	}{{message.Zstd, LevelFastest}, {message.Zstd, LevelSmallest}, {message.Gzip, LevelBalanced}, {message.Brotli, LevelBalanced}} {
		buf, _ = AppendCompress(buf[:0], b, c.a, c.l)
		s := 1 - float64(len(buf))/float64(len(b))
		best = max(best, s)
		if c.a == message.Zstd && c.l == LevelFastest {
			zstd = max(0, s)
		}
	}
	return best, zstd
}

// TestEstimate: over kinds and sizes of bodies the guess ranks them as the
// algorithms do, and nothing that any algorithm saves 5 % of is called random.
func TestEstimate(t *testing.T) {
	sizes := []int{1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10}
	if testing.Short() || raceEnabled {
		sizes = sizes[:3]
	}
	for _, n := range sizes {
		var guess, real []float64
		var worst string
		least, most := math.Inf(1), 0.0
		for i, p := range payloads() {
			b := p.make(n, rand.New(rand.NewPCG(uint64(n), uint64(i))))
			if len(b) != n {
				t.Fatalf("%s: %d bytes, not %d", p.name, len(b), n)
			}
			best, zstd := saving(b)
			g, r := EstimateRatio(b), 1/(1-best)
			guess, real = append(guess, g), append(real, r)
			if best >= 0.02 {
				if best >= 0.05 && n >= estimateMinBytes && !compressible(b) {
					t.Errorf("%s, %d bytes: called random, %.0f %% can be saved", p.name, n, 100*best)
				}
				if g < least {
					least, worst = g, p.name
				}
			} else {
				most = max(most, g)
			}
			if n == 64<<10 {
				t.Logf("%-44s guess %6.2f  best %8.2f  zstd %8.2f  compressible %t", p.name, g, r, 1/(1-zstd), compressible(b))
			}
		}
		c := rankCorrelation(guess, real)
		t.Logf("%d KiB: rank correlation %.3f; least guess of what compresses %.2f (%s), highest of what does not %.2f", n>>10, c, least, worst, most)
		if c < 0.85 {
			t.Errorf("%d bytes: rank correlation %.3f", n, c)
		}
	}
}

// TestEstimateRandom: random bytes are called random, but for three in a hundred.
func TestEstimateRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, n := range []int{512, 1 << 10, 16 << 10, 64 << 10} {
		wrong := 0
		for range 2000 {
			b := noise(n, r)
			if compressible(b) {
				wrong++
			}
			if g := EstimateRatio(b); g > 1.4 {
				t.Errorf("%d random bytes: guess %.2f", n, g)
			}
		}
		t.Logf("%d bytes: %d of 2000 not called random", n, wrong)
		if wrong > 60 {
			t.Errorf("%d bytes: %d of 2000 not called random", n, wrong)
		}
	}
}

// TestEstimateNeverSkips: many bodies of each kind that compresses, at lengths
// that Policy estimates; none of which 5 % can be saved may be called random.
func TestEstimateNeverSkips(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	rounds := 60
	if testing.Short() || raceEnabled {
		rounds = 5
	}
	for _, p := range payloads() {
		skipped, worth := 0, 0
		for range rounds {
			b := p.make(estimateMinBytes+r.IntN(60<<10), r)
			if compressible(b) {
				continue
			}
			skipped++
			if best, _ := saving(b); best >= 0.05 {
				worth++
			}
		}
		if worth > 0 {
			t.Errorf("%s: %d of %d would be left raw though they compress", p.name, worth, rounds)
		}
		if skipped > 0 {
			t.Logf("%s: %d of %d need not be tried", p.name, skipped, rounds)
		}
	}
}

func TestEstimateEdges(t *testing.T) {
	for n := range 700 {
		if g := EstimateRatio(make([]byte, n)); g < 2 || n < estimateLeast && g != 2 {
			t.Fatalf("%d zeros: %v", n, g)
		}
		if !compressible(make([]byte, n)) {
			t.Fatalf("%d zeros are called random", n)
		}
	}
	if raceEnabled {
		return
	}
	b := random(64 << 10)
	if n := testing.AllocsPerRun(100, func() { EstimateRatio(b) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// rankCorrelation is Spearman's, ties sharing the mean of their ranks.
func rankCorrelation(x, y []float64) float64 {
	rank := func(v []float64) []float64 {
		sorted := slices.Clone(v)
		slices.Sort(sorted)
		out := make([]float64, len(v))
		for i, e := range v {
			first, _ := slices.BinarySearch(sorted, e)
			last := first
			for last < len(sorted) && sorted[last] == e {
				last++
			}
			out[i] = float64(first+last-1) / 2
		}
		return out
	}
	a, b := rank(x), rank(y)
	mean := float64(len(x)-1) / 2
	var ab, aa, bb float64
	for i := range a {
		ab += (a[i] - mean) * (b[i] - mean)
		aa += (a[i] - mean) * (a[i] - mean)
		bb += (b[i] - mean) * (b[i] - mean)
	}
	return ab / math.Sqrt(aa*bb)
}

// BenchmarkEstimate shows the cost beside the one that it may save, of trying.
func BenchmarkEstimate(b *testing.B) {
	for _, s := range benchSizes {
		for _, in := range benchInputs(s.n) {
			b.Run("do=estimate/size="+s.name+"/payload="+in.name, func(b *testing.B) {
				b.SetBytes(int64(len(in.b)))
				b.ReportAllocs()
				for b.Loop() {
					EstimateRatio(in.b)
				}
			})
		}
	}
	src := random(64 << 10)
	for _, a := range algorithms[1:] {
		for l := range levels {
			b.Run(fmt.Sprintf("do=try/size=64KiB/payload=random/algorithm=%s/level=%s", a, l), func(b *testing.B) {
				dst := make([]byte, 0, Bound(a, len(src)))
				b.SetBytes(int64(len(src)))
				b.ReportAllocs()
				for b.Loop() {
					dst, _ = AppendCompress(dst[:0], src, a, l)
				}
			})
		}
	}
}
