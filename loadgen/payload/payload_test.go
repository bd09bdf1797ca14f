package payload

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"testing"
)

func files(n ...int) [][]byte {
	r := rand.NewChaCha8([32]byte{9})
	var out [][]byte
	for _, size := range n {
		b := make([]byte, size)
		r.Read(b)
		out = append(out, b)
	}
	return out
}

func source(t testing.TB, run, seed uint64, lo, hi int) *Source {
	t.Helper()
	s, err := New(run, seed, lo, hi, files(5000, 100, 0, 70_000))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestEveryValueIsRecognised(t *testing.T) {
	s := source(t, 7, 1, HeaderBytes, 8000)
	other := source(t, 7, 1, HeaderBytes, 8000)
	sizes := map[int]bool{}
	for i := range 2000 {
		h := Header{Run: 7, Producer: uint32(i % 3), Partition: uint32(i % 4), Sequence: uint64(i), Intended: int64(i) * 1000, Key: uint32(i % 5)}
		v := s.Append([]byte("before"), h)
		if string(v[:6]) != "before" {
			t.Fatal("Append overwrote what was there")
		}
		v = v[6:]
		got, err := other.Check(v)
		h.Size = uint32(len(v))
		if err != nil || got != h {
			t.Fatalf("message %d: %+v, %v", i, got, err)
		}
		if len(v) < HeaderBytes || len(v) > 8000 {
			t.Fatalf("message %d has %d bytes", i, len(v))
		}
		sizes[len(v)] = true
	}
	if len(sizes) < 1000 {
		t.Errorf("only %d different sizes among 2000 messages", len(sizes))
	}
}

// The same seed gives the same bytes, on every machine and in every version
// that claims the magic PLG1.
func TestDeterministic(t *testing.T) {
	s, err := New(0x1122334455667788, 42, 64, 64, [][]byte{[]byte("abcdefghijklmnopqrstuvwxyz")})
	if err != nil {
		t.Fatal(err)
	}
	v := s.Append(nil, Header{Producer: 1, Partition: 2, Sequence: 3, Intended: 4})
	const want = "504c4731b5da9d03887766554433221101000000020000000300000000000000040000000000000040000000000000007a6162636465666768696a6b6c6d6e6f"
	if got := hex.EncodeToString(v); got != want {
		t.Errorf("value\n%s, want\n%s", got, want)
	}
	differ := func(what string, h Header) {
		if w := s.Append(nil, h); bytes.Equal(w[HeaderBytes:], v[HeaderBytes:]) {
			t.Errorf("another %s has the same body %q", what, w[HeaderBytes:])
		}
	}
	differ("sequence", Header{Producer: 1, Partition: 2, Sequence: 4})
	differ("producer", Header{Producer: 3, Partition: 2, Sequence: 3})
	differ("partition", Header{Producer: 1, Partition: 0, Sequence: 3})
}

func TestEveryFlippedBitIsFound(t *testing.T) {
	s := source(t, 7, 1, 200, 200)
	v := s.Append(nil, Header{Producer: 1, Partition: 2, Sequence: 99, Intended: 12345})
	for bit := range len(v) * 8 {
		v[bit/8] ^= 1 << (bit % 8)
		if h, err := s.Check(v); err == nil {
			t.Fatalf("bit %d flipped: accepted as %+v", bit, h)
		} else if bit >= 32 && !errors.Is(err, ErrCorrupt) {
			t.Fatalf("bit %d flipped: %v, want ErrCorrupt", bit, err)
		}
		v[bit/8] ^= 1 << (bit % 8)
	}
	for n := range len(v) {
		if _, err := s.Check(v[:n]); err == nil {
			t.Fatalf("cut to %d bytes: accepted", n)
		}
	}
}

// A value with a valid checksum that nobody sent is still found.
func TestInventedValues(t *testing.T) {
	s := source(t, 7, 1, 200, 300)
	otherSeed := source(t, 7, 2, 200, 300)
	otherRun := source(t, 8, 1, 200, 300)
	h := Header{Producer: 1, Partition: 2, Sequence: 99}
	if _, err := s.Check(otherSeed.Append(nil, h)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("body of another seed: %v, want ErrCorrupt", err)
	}
	if _, err := s.Check(otherRun.Append(nil, h)); !errors.Is(err, ErrForeign) {
		t.Errorf("value of another run: %v, want ErrForeign", err)
	}
	for _, v := range [][]byte{nil, []byte("hello"), make([]byte, 500)} {
		if _, err := s.Check(v); !errors.Is(err, ErrForeign) {
			t.Errorf("%d bytes of something else: %v, want ErrForeign", len(v), err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for _, tt := range []struct {
		lo, hi int
		files  [][]byte
	}{
		{HeaderBytes - 1, 100, files(10)},
		{100, SizeMax + 1, files(10)},
		{200, 100, files(10)},
		{100, 200, nil},
		{100, 200, [][]byte{{}, nil}},
	} {
		if _, err := New(1, 1, tt.lo, tt.hi, tt.files); err == nil {
			t.Errorf("sizes %d..%d with %d files: accepted", tt.lo, tt.hi, len(tt.files))
		}
	}
}

// Taking turns, bodies are of one file after the other, and still verified.
func TestTurns(t *testing.T) {
	s, err := New(1, 1, 64, 64, [][]byte{bytes.Repeat([]byte{'a'}, 1000), bytes.Repeat([]byte{'b'}, 30)})
	if err != nil {
		t.Fatal(err)
	}
	s.TakeTurns(10)
	for i := range uint64(100) {
		v := s.Append(nil, Header{Producer: 3, Sequence: i})
		if want := "ab"[i/10%2]; v[HeaderBytes] != want || v[len(v)-1] != want {
			t.Fatalf("value %d is of %c", i, v[HeaderBytes])
		}
		if _, err := s.Check(v); err != nil {
			t.Fatal(err)
		}
	}
}

// Every byte of the pool begins a body about equally often, whatever its file.
func TestWindowsCoverThePool(t *testing.T) {
	s, err := New(1, 1, 64, 64, files(10, 30, 60))
	if err != nil {
		t.Fatal(err)
	}
	hits := map[int]int{}
	for i := range 10_000 {
		file, from := s.window(s.random(Header{Sequence: uint64(i)}), uint64(i))
		hits[len(file)*1000+from]++
	}
	if len(hits) != 100 {
		t.Errorf("%d of 100 places were used", len(hits))
	}
	for place, n := range hits {
		if n < 50 || n > 160 {
			t.Errorf("place %d used %d times of 100 expected", place, n)
		}
	}
}

func FuzzCheck(f *testing.F) {
	s := source(f, 7, 1, 48, 300)
	f.Add(s.Append(nil, Header{Sequence: 1}))
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, v []byte) {
		h, err := s.Check(v)
		if err != nil {
			return
		}
		if again := s.Append(nil, h); !bytes.Equal(again, v) {
			t.Errorf("accepted %x, which the source makes as %x", v, again)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	s := source(b, 7, 1, 1024, 1024)
	var v []byte
	b.SetBytes(1024)
	b.ReportAllocs()
	var i uint64
	for b.Loop() {
		v = s.Append(v[:0], Header{Sequence: i})
		i++
	}
}

func BenchmarkCheck(b *testing.B) {
	s := source(b, 7, 1, 1024, 1024)
	v := s.Append(nil, Header{Sequence: 5})
	b.SetBytes(1024)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Check(v); err != nil {
			b.Fatal(err)
		}
	}
}
