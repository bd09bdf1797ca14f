package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/fault"
)

func TestCompressBodies(t *testing.T) {
	d := &data{files: [][]byte{[]byte("aaaa\nbb\ncccccccccccc\nd\n"), []byte("eeeeee\nffff"), nil}}
	for _, c := range []struct {
		size  int
		whole bool
		want  string
	}{
		{4, false, "aaaa|\nbb\n|cccc|cccc|cccc|eeee|ee\nf"},
		{8, false, "aaaa\nbb\n|cccccccc|eeeeee\nf"},
		{100, false, ""},
		// The line of c is longer than a body; what stood before it is one.
		{8, true, "aaaa\nbb\n|eeeeee\n|ffff"},
		{16, true, "aaaa\nbb\n|cccccccccccc\nd\n|eeeeee\nffff"},
		// Less than half a body is left out.
		{10, true, "aaaa\nbb\n|eeeeee\n"},
		{6, true, "aaaa\n|bb\n|ffff"},
	} {
		var got []string
		for _, b := range d.bodies(c.size, c.whole) {
			got = append(got, string(b))
			if len(b) > c.size || cap(b) != len(b) {
				t.Errorf("size %d: %q, room for %d", c.size, b, cap(b))
			}
		}
		if s := strings.Join(got, "|"); s != c.want {
			t.Errorf("size %d, whole lines %t: %q, want %q", c.size, c.whole, s, c.want)
		}
	}
}

func TestCompressRead(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "ten")
	if err := os.WriteFile(name, []byte("0123456789"), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := readData([]string{name, "-", name}, strings.NewReader("abc"), 23)
	if err != nil || d.bytes != 23 || len(d.files) != 3 || string(d.files[1]) != "abc" {
		t.Errorf("%+v, %v", d, err)
	}
	var f *fault.Error
	for _, names := range [][]string{{name, "-", name}, {"-", name, name}} {
		if _, err := readData(names, strings.NewReader("abc"), 22); !errors.As(err, &f) || f.Code != fault.TooLarge || f.Limit != 22 {
			t.Error(err)
		}
	}
	if _, err := readData([]string{"-"}, strings.NewReader(strings.Repeat("x", 100)), 22); !errors.Is(err, fault.TooLarge) {
		t.Error(err)
	}
	if _, err := readData([]string{"-"}, strings.NewReader(""), 22); !errors.Is(err, fault.Invalid) {
		t.Error(err)
	}
	if _, err := readData([]string{filepath.Join(dir, "none")}, nil, 22); !errors.Is(err, fault.NotFound) {
		t.Error(err)
	}
}

// TestCompressMeasure: each row comes back as it was, its sizes are those of the
// library, and a canceled run ends.
func TestCompressMeasure(t *testing.T) {
	var bodies [][]byte
	for i := range 40 {
		bodies = append(bodies, []byte(strings.Repeat(fmt.Sprintf(`{"order":%d,"state":"paid","city":"Bonn"}`, i*i), 5)))
	}
	b, err := compression.TrainDictionary(bodies, compression.TrainOptions{})
	if err != nil {
		t.Fatal(err)
	}
	d, err := compression.ParseDictionary(b)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range coderNames {
		for level := compression.LevelFastest; level <= compression.LevelSmallest; level++ {
			c, err := newCoder(name, level, d)
			if err != nil {
				t.Fatal(err)
			}
			m, err := measure(t.Context(), c, bodies, time.Microsecond)
			if err != nil {
				t.Fatal(err)
			}
			want := 0
			for _, b := range bodies {
				enc, _ := c.compress(nil, b)
				want += len(enc)
			}
			if m.Compressed != int64(want) || m.Bodies != 40 || m.Ratio < 1.5 || m.EncodeNs <= 0 || m.DecodeNs <= 0 || m.EncodeLoops < 1 || m.DecodeLoops < 1 {
				t.Errorf("%s %s: %+v, want %d compressed bytes", name, level, m, want)
			}
		}
	}
	c, _ := newCoder("zstd", 0, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := measure(ctx, c, bodies, time.Hour); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	c.decompress = func(dst, src []byte, n int) ([]byte, error) { return append(dst, make([]byte, n)...), nil }
	if _, err := measure(t.Context(), c, bodies, 1); !errors.Is(err, fault.Internal) {
		t.Errorf("a body that came back changed: %v", err)
	}
}

func TestCompressSpread(t *testing.T) {
	var bodies [][]byte
	for i := range 100 {
		bodies = append(bodies, []byte{byte(i), 0})
	}
	for _, c := range []struct {
		n, want int
		most    int64
	}{{10, 10, 1000}, {1000, 100, 1000}, {1000, 25, 50}, {1000, 1, 1}} {
		if got := spread(bodies, c.n, c.most); len(got) != c.want || got[0][0] != 0 {
			t.Errorf("at most %d and %d bytes: %d bodies", c.n, c.most, len(got))
		}
	}
}

// run2 is a run with known figures.
func run2() *bench {
	return &bench{
		Files: []string{"a"}, Bytes: 1 << 20, Split: "size", System: benchSystem{OS: "linux", Arch: "amd64", CPU: "Test CPU", Processors: 2, Go: "go1.26"},
		Sizes: []benchSize{{SizeBytes: 65536, Bodies: 16, Bytes: 1 << 20, Estimate: 3.3, Dictionary: 16384}},
		Cells: []*cell{
			{Algorithm: "snappy", Level: "fastest", SizeBytes: 65536, Bodies: 16, Bytes: 1 << 20, Compressed: 1 << 19, Ratio: 2, EncodeNs: 0.5, DecodeNs: 0.25, EncodeLoops: 3, DecodeLoops: 4},
			{Algorithm: "gzip", Level: "smallest", SizeBytes: 65536, Bodies: 16, Bytes: 1 << 20, Compressed: 1 << 18, Ratio: 4, EncodeNs: 32, DecodeNs: 2, EncodeLoops: 1, DecodeLoops: 2},
			{Algorithm: "brotli", Level: "fastest", SizeBytes: 65536, Bodies: 16, Bytes: 1 << 20, Compressed: 1 << 18, Ratio: 3, EncodeNs: 128, DecodeNs: 4, EncodeLoops: 1, DecodeLoops: 2},
		},
	}
}

func TestCompressTable(t *testing.T) {
	var b bytes.Buffer
	if err := run2().table(&b); err != nil {
		t.Fatal(err)
	}
	want := `1.0 MiB in 1 file(s), split by size; Test CPU, one goroutine

64KiB: 16 bodies measured, 1.0 MiB; dictionary of 16.0 KiB; a sample says 3.3
                             ratio               encode ns/B          decode ns/B
* snappy           fastest    2.00 ████            0.50 ▎               0.25 ▎
* gzip             smallest   4.00 ████████████    32.0 █████████       2.00 █████████
  brotli           fastest    3.00 ████████         128 ████████████    4.00 ████████████

* no other row of the size has a better ratio and encodes faster. Bars: ratio from 1, times logarithmic.
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
	for part, want := range map[float64]string{0: "            ", 1: "████████████", 0.5: "██████      ", -3: "            ", 7: "████████████", 0.01: "▏           "} {
		if got := bar(part); got != want {
			t.Errorf("bar(%v) = %q", part, got)
		}
	}
}

// TestCompressBenchfmt: the format of Go benchmarks, whose parser is run over a
// real run in the laboratory's tests.
func TestCompressBenchfmt(t *testing.T) {
	var b bytes.Buffer
	if err := run2().benchfmt(&b); err != nil {
		t.Fatal(err)
	}
	want := `goos: linux
goarch: amd64
cpu: Test CPU
go: go1.26
split: size
BenchmarkCompress/algorithm=snappy/level=fastest/size=64KiB/do=encode	48	32768.0 ns/op	2000.00 MB/s	0.5000 ns/B	2.0000 ratio
BenchmarkCompress/algorithm=snappy/level=fastest/size=64KiB/do=decode	64	16384.0 ns/op	4000.00 MB/s	0.2500 ns/B	2.0000 ratio
`
	if !strings.HasPrefix(b.String(), want) {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
	line := regexp.MustCompile(`^(Benchmark[A-Z]\S*\t[0-9]+(\t[0-9.]+ \S+)+|[a-z][a-z-]*: \S.*)$`)
	for l := range strings.Lines(b.String()) {
		if !line.MatchString(strings.TrimSuffix(l, "\n")) {
			t.Errorf("no line of a benchmark: %q", l)
		}
	}
}
