package compression

import (
	"fmt"
	"testing"

	"github.com/portask/portask/broker/message"
)

var benchSizes = []struct {
	name string
	n    int
}{{"1KiB", 1 << 10}, {"64KiB", 64 << 10}, {"256KiB", 256 << 10}}

func benchInputs(n int) []input { return []input{{"text", text(n)}, {"random", random(n)}} }

func BenchmarkCompress(b *testing.B) {
	for _, a := range algorithms[1:] {
		for l := range levels {
			for _, s := range benchSizes {
				for _, in := range benchInputs(s.n) {
					b.Run(fmt.Sprintf("algorithm=%s/level=%s/size=%s/payload=%s", a, l, s.name, in.name), func(b *testing.B) {
						dst := make([]byte, 0, Bound(a, len(in.b)))
						b.SetBytes(int64(len(in.b)))
						b.ReportAllocs()
						for b.Loop() {
							dst, _ = AppendCompress(dst[:0], in.b, a, l)
						}
						b.ReportMetric(float64(len(in.b))/float64(len(dst)), "ratio")
					})
				}
			}
		}
	}
}

func BenchmarkDecompress(b *testing.B) {
	for _, a := range algorithms[1:] {
		for _, s := range benchSizes {
			for _, in := range benchInputs(s.n) {
				b.Run(fmt.Sprintf("algorithm=%s/size=%s/payload=%s", a, s.name, in.name), func(b *testing.B) {
					enc, err := AppendCompress(nil, in.b, a, LevelFastest)
					if err != nil {
						b.Fatal(err)
					}
					dst := make([]byte, 0, len(in.b)+decodeSlack)
					b.SetBytes(int64(len(in.b)))
					b.ReportAllocs()
					for b.Loop() {
						if dst, err = AppendDecompress(dst[:0], enc, a, len(in.b), Limits{}); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
		}
	}
}

// BenchmarkPolicy shows what Threshold saves on bodies that do not compress, and
// what it costs on others, beside Always, which looks at no sample.
func BenchmarkPolicy(b *testing.B) {
	for _, in := range benchInputs(64 << 10) {
		for _, c := range []struct {
			a message.Algorithm
			l Level
		}{{message.Zstd, LevelFastest}, {message.Zstd, LevelSmallest}, {message.Gzip, LevelBalanced}, {message.Brotli, LevelBalanced}} {
			for _, s := range []Strategy{Always, Threshold} {
				b.Run(fmt.Sprintf("strategy=%s/algorithm=%s/level=%s/size=64KiB/payload=%s", s, c.a, c.l, in.name), func(b *testing.B) {
					p := DefaultPolicy()
					p.Strategy, p.Algorithm, p.Level = s, c.a, c.l
					dst := make([]byte, 0, p.Bound(len(in.b)))
					b.SetBytes(int64(len(in.b)))
					b.ReportAllocs()
					for b.Loop() {
						dst, _ = p.Compress(dst[:0], in.b)
					}
				})
			}
		}
	}
}
