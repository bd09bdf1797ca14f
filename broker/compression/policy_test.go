package compression

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

func TestPolicy(t *testing.T) {
	for _, c := range []struct {
		name string
		p    Policy
		src  []byte
		want message.Algorithm
	}{
		{"zero value", Policy{Algorithm: message.Zstd}, text(5000), message.None},
		{"never", Policy{Strategy: Never, Algorithm: message.Zstd}, text(5000), message.None},
		{"always text", Policy{Strategy: Always, Algorithm: message.Snappy}, text(5000), message.Snappy},
		{"always small", Policy{Strategy: Always, Algorithm: message.Zstd}, bytes.Repeat([]byte("ab"), 100), message.Zstd},
		{"always random", Policy{Strategy: Always, Algorithm: message.Zstd}, random(5000), message.None},
		{"always one byte", Policy{Strategy: Always, Algorithm: message.Zstd}, []byte{1}, message.None},
		{"always empty", Policy{Strategy: Always, Algorithm: message.Zstd}, nil, message.None},
		{"always with none", Policy{Strategy: Always}, text(5000), message.None},
		{"below threshold", DefaultPolicy(), text(1023), message.None},
		{"at threshold", DefaultPolicy(), text(1024), message.Zstd},
		{"saving too small", Policy{Strategy: Threshold, Algorithm: message.Zstd, MinSaving: 0.9}, text(5000), message.None},
		{"looks random", DefaultPolicy(), random(64 << 10), message.None},
		{"mixed, half saved", Policy{Strategy: Threshold, Algorithm: message.LZ4, MinSaving: 0.4}, append(random(5000), make([]byte, 5000)...), message.LZ4},
		{"mixed, not enough", Policy{Strategy: Threshold, Algorithm: message.LZ4, MinSaving: 0.6}, append(random(5000), make([]byte, 5000)...), message.None},
		{"beyond the ratio", DefaultPolicy(), make([]byte, 4<<20), message.Zstd},
		{"just beyond the ratio", DefaultPolicy(), make([]byte, 20<<10), message.Zstd},
		{"gzip beyond the ratio", Policy{Strategy: Always, Algorithm: message.Gzip, Level: LevelSmallest}, make([]byte, 4<<20), message.LZ4},
		{"beyond any ratio", Policy{Strategy: Always, Algorithm: message.Brotli, MaxRatio: 5}, make([]byte, 4<<20), message.None},
		{"filled up to nothing saved", Policy{Strategy: Always, Algorithm: message.Zstd, MaxRatio: 1}, make([]byte, 4<<10), message.None},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := c.p.Validate(); err != nil {
				t.Fatal(err)
			}
			out, a := c.p.Compress([]byte("head"), c.src)
			if a != c.want {
				t.Errorf("algorithm %s, want %s (%d -> %d bytes)", a, c.want, len(c.src), len(out)-4)
			}
			body := out[4:]
			if a == message.None {
				if len(body) != 0 {
					t.Errorf("%d bytes appended though raw was kept", len(body))
				}
				body = c.src
			}
			if len(body) > len(c.src) || string(out[:4]) != "head" {
				t.Errorf("%d bytes became %d after %q", len(c.src), len(body), out[:4])
			}
			back, err := AppendDecompress(nil, body, a, len(c.src), Limits{})
			if err != nil || !bytes.Equal(back, c.src) {
				t.Errorf("reader with default limits: %v", err)
			}
		})
	}
}

// TestPolicyDoesNotTry: what looks random costs a look and no trial.
func TestPolicyDoesNotTry(t *testing.T) {
	p := Policy{Strategy: Threshold, Algorithm: message.Brotli, Level: LevelSmallest, MinBytes: 1024, MinSaving: 0.02}
	src := random(64 << 10)
	out, a := p.Compress(nil, src)
	if a != message.None || cap(out) != 0 { // a trial would have taken Bound's room
		t.Errorf("%s, room for %d bytes taken", a, cap(out))
	}
	p.Strategy = Always
	if out, a = p.Compress(nil, src); a != message.None || cap(out) == 0 {
		t.Errorf("%s, room for %d bytes taken: Always tries", a, cap(out))
	}
	// Every kind of body that the algorithm would have saved 5 % of is compressed.
	p = DefaultPolicy()
	for i, k := range payloads() {
		src := k.make(64<<10, rand.New(rand.NewPCG(3, uint64(i))))
		p.Strategy = Always
		tried, _ := p.Compress(nil, src)
		p.Strategy = Threshold
		if out, a := p.Compress(nil, src); len(tried) > 0 && len(tried) < len(src)*19/20 && (a == message.None || len(out) != len(tried)) {
			t.Errorf("%s: %d bytes became %d by Always, %s by Threshold", k.name, len(src), len(tried), a)
		}
	}
}

func TestPolicyValidate(t *testing.T) {
	for field, p := range map[string]Policy{
		"strategy":   {Strategy: 4},
		"algorithm":  {Algorithm: 6},
		"level":      {Level: 3},
		"min_bytes":  {MinBytes: -1},
		"min_saving": {MinSaving: 1},
		"max_ratio":  {MaxRatio: -1},
	} {
		var f *fault.Error
		if err := p.Validate(); !errors.As(err, &f) || f.Code != fault.Invalid || f.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestNames(t *testing.T) {
	for s := range strategies {
		if got, err := ParseStrategy(s.String()); err != nil || got != s {
			t.Errorf("strategy %s: %v, %v", s, got, err)
		}
	}
	for l := range levels {
		if got, err := ParseLevel(l.String()); err != nil || got != l {
			t.Errorf("level %s: %v, %v", l, got, err)
		}
	}
	if _, err := ParseStrategy("often"); !errors.Is(err, fault.Invalid) {
		t.Error(err)
	}
	if _, err := ParseLevel("11"); !errors.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

func TestPolicyAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	src := text(64 << 10)
	p := DefaultPolicy()
	dst := make([]byte, 0, Bound(message.Zstd, len(src)))
	if n := testing.AllocsPerRun(50, func() { dst, _ = p.Compress(dst[:0], src) }); n != 0 {
		t.Errorf("%v allocations per batch", n)
	}
}

func ExamplePolicy_Compress() {
	p := DefaultPolicy()
	body := bytes.Repeat([]byte("temperature=21.5 "), 1000)
	out, algorithm := p.Compress(nil, body)
	back, err := AppendDecompress(nil, out, algorithm, len(body), Limits{})
	fmt.Println(algorithm, len(out) < len(body)/10, bytes.Equal(back, body), err)
	// Output: zstd true true <nil>
}
