package compression

import (
	"bytes"
	"errors"
	"testing"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

// TestTrainGain: bodies that the training never saw become much smaller.
func TestTrainGain(t *testing.T) {
	d := parsed(t, trained())
	var raw, with, without int
	for _, src := range orders(200, 42) {
		a, _ := d.AppendCompress(nil, src, LevelFastest)
		b, _ := AppendCompress(nil, src, message.Zstd, LevelFastest)
		raw, with, without = raw+len(src), with+len(a), without+len(b)
	}
	t.Logf("dictionary of %d bytes: ratio %.2f, without %.2f", len(d.Bytes()), float64(raw)/float64(with), float64(raw)/float64(without))
	if with*2 > without {
		t.Errorf("%d bytes with, %d without a dictionary", with, without)
	}
}

func TestTrainDeterministic(t *testing.T) {
	again, err := TrainDictionary(orders(400, 1), TrainOptions{})
	if err != nil || !bytes.Equal(again, trained()) {
		t.Fatalf("the same samples gave another dictionary: %v", err)
	}
	other, err := TrainDictionary(orders(400, 2), TrainOptions{})
	if err != nil || parsed(t, other).ID() == parsed(t, trained()).ID() {
		t.Fatalf("other samples gave the same id: %v", err)
	}
	chosen, err := TrainDictionary(orders(400, 1), TrainOptions{ID: 12, MaxBytes: 2000})
	if err != nil || parsed(t, chosen).ID() != 12 || len(chosen) > 2000+512 {
		t.Fatalf("%d bytes, %v", len(chosen), err)
	}
}

func TestTrainRefuses(t *testing.T) {
	unlike := make([][]byte, 100)
	for i := range unlike {
		unlike[i] = random(100 * 300)[i*300:][:300]
	}
	for _, c := range []struct {
		name    string
		samples [][]byte
		o       TrainOptions
		code    fault.Code
		field   string
		limit   int64
	}{
		{"none", nil, TrainOptions{}, fault.Invalid, "samples", TrainSamplesMin},
		{"too few", orders(TrainSamplesMin-1, 1), TrainOptions{}, fault.Invalid, "samples", TrainSamplesMin},
		{"too short", bytes.Split(bytes.Repeat([]byte("1234567 "), 1000), []byte(" ")), TrainOptions{}, fault.Invalid, "samples", TrainSamplesMin},
		{"too few bytes", bytes.SplitAfter(bytes.Repeat([]byte("12345678 "), 100), []byte(" ")), TrainOptions{}, fault.Invalid, "samples", TrainBytesMin},
		{"nothing shared", unlike, TrainOptions{}, fault.Invalid, "samples", 0},
		{"small content", orders(50, 1), TrainOptions{MaxBytes: 255}, fault.Invalid, "max_bytes", 256},
		{"negative content", orders(50, 1), TrainOptions{MaxBytes: -1}, fault.Invalid, "max_bytes", 256},
		{"large content", orders(50, 1), TrainOptions{MaxBytes: 1 << 20}, fault.TooLarge, "max_bytes", 1 << 19},
	} {
		b, err := TrainDictionary(c.samples, c.o)
		var f *fault.Error
		if b != nil || !errors.As(err, &f) || f.Code != c.code || f.Field != c.field || f.Limit != c.limit {
			t.Errorf("%s: %d bytes, %v", c.name, len(b), err)
		}
	}
}

// TestTrainBounded: what is above the limits is left out evenly.
func TestTrainBounded(t *testing.T) {
	long := bytes.Repeat([]byte("x"), trainSampleMax+1)
	var samples [][]byte
	for range 200 {
		samples = append(samples, long, long[:9], long[:3])
	}
	out, total := thin(samples)
	if total > trainBytesMax || len(out) < 50 {
		t.Errorf("%d samples of %d bytes", len(out), total)
	}
	sum := 0
	for _, s := range out {
		if sum += len(s); len(s) > trainSampleMax || len(s) < trainSampleMin {
			t.Fatalf("a sample of %d bytes", len(s))
		}
	}
	if sum != total {
		t.Errorf("total %d, sum %d", total, sum)
	}
	samples = samples[:0]
	for i := range 3 * trainSamplesMax {
		samples = append(samples, []byte{byte(i), byte(i >> 8), byte(i >> 16), 0, 0, 0, 0, 0})
	}
	if out, _ = thin(samples); len(out) != trainSamplesMax || !bytes.Equal(out[1], samples[3]) || !bytes.Equal(out[len(out)-1], samples[3*(trainSamplesMax-1)]) {
		t.Errorf("%d samples, the second %v", len(out), out[1])
	}
}

// TestTrainShapes: samples unlike those it is made for end in a dictionary that
// helps or in a typed error.
func TestTrainShapes(t *testing.T) {
	var one, zeros, runs, long, mixed [][]byte
	for i := range 64 {
		one = append(one, text(500))
		zeros = append(zeros, make([]byte, 500))
		runs = append(runs, bytes.Repeat([]byte{byte(i)}, 300))
		long = append(long, text(100 << 10)[i*1000:])
		mixed = append(mixed, append(random(64 * 1024)[i*1024:][:1024], "the same end of all of them"...))
	}
	for name, samples := range map[string][][]byte{"one": one, "zeros": zeros, "runs": runs, "long": long, "mixed": mixed} {
		b, err := TrainDictionary(samples, TrainOptions{})
		if err != nil {
			if !errors.Is(err, fault.Invalid) {
				t.Errorf("%s: %v", name, err)
			}
			t.Logf("%s: %v", name, err)
			continue
		}
		d := parsed(t, b)
		enc, err := d.AppendCompress(nil, samples[3], LevelFastest)
		if err != nil {
			t.Fatal(err)
		}
		out, err := d.AppendDecompress(nil, enc, len(samples[3]), Limits{})
		if err != nil || !bytes.Equal(out, samples[3]) {
			t.Errorf("%s: %v", name, err)
		}
		t.Logf("%s: %d bytes, a sample of %d becomes %d", name, len(b), len(samples[3]), len(enc))
	}
}
