package compression

import (
	"bytes"
	"errors"
	"testing"

	"github.com/pierrec/lz4/v4"

	"github.com/portask/portask/broker/fault"
)

func TestLZ4Block(t *testing.T) {
	prefix := []byte("what stood before")
	for level := range levels {
		for _, in := range inputs() {
			if level != LevelFastest && len(in.b) > 1<<20 && (testing.Short() || raceEnabled) {
				continue
			}
			enc, err := AppendLZ4Block(bytes.Clone(prefix), in.b, level)
			if err != nil || !bytes.HasPrefix(enc, prefix) {
				t.Fatalf("%s %s: %v", level, in.name, err)
			}
			enc = enc[len(prefix):]
			if len(enc) == 0 || len(enc) > LZ4BlockBound(len(in.b)) {
				t.Errorf("%s %s: %d bytes became %d", level, in.name, len(in.b), len(enc))
			}
			dec, err := AppendDecompressLZ4Block(bytes.Clone(prefix), enc, len(in.b), Limits{})
			if err != nil || !bytes.HasPrefix(dec, prefix) || !bytes.Equal(dec[len(prefix):], in.b) {
				t.Errorf("%s %s: %v", level, in.name, err)
			}
			own := make([]byte, len(in.b))
			if n, err := lz4.UncompressBlock(enc, own); err != nil || !bytes.Equal(own[:n], in.b) {
				t.Errorf("%s %s: the library's reader: %v", level, in.name, err)
			}
		}
	}
	if _, err := AppendLZ4Block(nil, nil, levels); !errors.Is(err, fault.Invalid) {
		t.Error(err)
	}
	if _, err := AppendLZ4Block(nil, make([]byte, DefaultBytes+1), 0); !errors.Is(err, fault.TooLarge) {
		t.Error(err)
	}
}

// TestLZ4BlockBomb: the bound holds for a bare block, which says nothing itself.
func TestLZ4BlockBomb(t *testing.T) {
	const real = 16 << 20
	bomb, err := AppendLZ4Block(nil, make([]byte, real), LevelFastest)
	if err != nil {
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
		{real - 1, Limits{}, fault.Corrupted, real + real/2},
		{real + 1, Limits{}, fault.Corrupted, real + real/2},
		{1000, Limits{}, fault.Corrupted, 64 << 10},
		{0, Limits{}, fault.Corrupted, 64 << 10},
		{-1, Limits{}, fault.Invalid, 8 << 10},
	} {
		before := allocated()
		out, err := AppendDecompressLZ4Block(nil, bomb, c.declared, c.lim)
		took := allocated() - before
		if !errors.Is(err, c.want) || len(out) != 0 {
			t.Errorf("declared %d, limits %+v: %d bytes, error %v, want %v", c.declared, c.lim, len(out), err, c.want)
		}
		if took > c.memory && !raceEnabled {
			t.Errorf("declared %d, limits %+v: took %d bytes, more than %d", c.declared, c.lim, took, c.memory)
		}
	}
	src := text(3000)
	enc, _ := AppendLZ4Block(nil, src, LevelFastest)
	for cut := 1; cut < len(enc); cut++ {
		if _, err := AppendDecompressLZ4Block(nil, enc[:cut], len(src), Limits{Ratio: len(src)}); !errors.Is(err, fault.Corrupted) {
			t.Fatalf("cut at %d: %v", cut, err)
		}
	}
}

func TestLZ4BlockAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	src := text(64 << 10)
	for level := range levels {
		enc := make([]byte, 0, LZ4BlockBound(len(src)))
		dec := make([]byte, 0, len(src)+decodeSlack)
		down := testing.AllocsPerRun(20, func() { enc, _ = AppendLZ4Block(enc[:0], src, level) })
		up := testing.AllocsPerRun(20, func() { dec, _ = AppendDecompressLZ4Block(dec[:0], enc, len(src), Limits{}) })
		if down != 0 || up != 0 {
			t.Errorf("%s: %v allocations to compress, %v to decompress", level, down, up)
		}
	}
}

func FuzzLZ4Block(f *testing.F) {
	for _, src := range [][]byte{nil, {1}, make([]byte, 300), random(200), text(700)} {
		enc, err := AppendLZ4Block(nil, src, LevelFastest)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(enc, uint32(len(src)))
		f.Add(enc, uint32(len(src)/2))
	}
	lim := Limits{Bytes: 1 << 20, Ratio: 300}
	f.Fuzz(func(t *testing.T, src []byte, declared uint32) {
		out, err := AppendDecompressLZ4Block([]byte("before"), src, int(declared), lim)
		if err != nil {
			if !errors.Is(err, fault.Corrupted) && !errors.Is(err, fault.TooLarge) || string(out) != "before" {
				t.Fatalf("%v beside %q", err, out)
			}
		} else if len(out)-6 != int(declared) || !bytes.HasPrefix(out, []byte("before")) {
			t.Fatalf("%d bytes, %d declared", len(out)-6, declared)
		}
		for level := range levels {
			enc, err := AppendLZ4Block(nil, src, level)
			if err != nil {
				t.Fatal(err)
			}
			if dec, err := AppendDecompressLZ4Block(nil, enc, len(src), Limits{}); err != nil || !bytes.Equal(dec, src) {
				t.Fatalf("%s: %v", level, err)
			}
		}
	})
}
