package payload

import (
	"bytes"
	"math"
	"strings"
	"testing"
)

func draw(t *testing.T, s *Source, n int) []int {
	t.Helper()
	out := make([]int, n)
	var v []byte
	for i := range out {
		v = s.Append(v[:0], Header{Sequence: uint64(i), Intended: 1})
		if _, err := s.Check(v); err != nil {
			t.Fatal(err)
		}
		out[i] = len(v)
	}
	return out
}

// The share of sizes below some bound is what the distribution says.
func TestDistributions(t *testing.T) {
	const lo, hi, n = 100, 10_000, 20_000
	for d, share := range map[Distribution]map[int]float64{
		Uniform:   {1090: 0.1, 5050: 0.5, 9010: 0.9},
		LogNormal: {1000: 0.5, 464: 0.159, 2154: 0.841}, // the median; one deviation to each side
		Zipf:      {1000: 0.5, 200: 0.1505, 5000: 0.8495},
	} {
		s := source(t, 1, 1, lo, hi)
		if err := s.SetDistribution(d); err != nil {
			t.Fatal(err)
		}
		sizes := draw(t, s, n)
		for bound, want := range share {
			below := 0
			for _, b := range sizes {
				if b < lo || b > hi {
					t.Fatalf("%s: %d bytes", d, b)
				}
				if b < bound {
					below++
				}
			}
			if got := float64(below) / n; math.Abs(got-want) > 0.015 {
				t.Errorf("%s: %.3f of the sizes are below %d, want %.3f", d, got, bound, want)
			}
		}
	}
	if err := source(t, 1, 1, lo, hi).SetDistribution("bell"); err == nil {
		t.Error("an unknown distribution was accepted")
	}
}

func TestEmpiricalSizes(t *testing.T) {
	all, err := ReadSizes(strings.NewReader("# bytes,weight\n10,0\n100, 3\n200,1\n\n"))
	if err != nil {
		t.Fatal(err)
	}
	s := source(t, 1, 1, 50, 60)
	s.SetSizes(all)
	count := map[int]int{}
	for _, b := range draw(t, s, 10_000) {
		count[b]++
	}
	if len(count) != 2 || math.Abs(float64(count[100])-7500) > 250 {
		t.Errorf("sizes %v, want 7500 of 100 and 2500 of 200", count)
	}
	for text, want := range map[string]string{
		"": "no size has a weight", "1,0\n": "no size has a weight", "5\n": "line 1", "x,1\n": "line 1", "1,1\n2,-1\n": "line 2", "99999999,1\n": "line 1",
		strings.Repeat("1,1\n", sizeWeightsMax+1): "line 10001: more than", strings.Repeat("#\n", sizesLinesMax+1): "line 100001: more than",
		"1,1\n#" + strings.Repeat("x", 70_000): "line 2", "1,NaN\n": "line 1", "1,Inf\n": "line 1", "1,1e13\n": "line 1",
	} {
		if _, err := ReadSizes(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v, want %q", text, err, want)
		}
	}
}

func TestLines(t *testing.T) {
	s, err := New(1, 1, 48, 48, [][]byte{[]byte("one\n\ntwo lines\n"), []byte("the third"), bytes.Repeat([]byte("x"), SizeMax+5)})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SplitLines(); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for i := range 400 {
		v := s.Append(nil, Header{Sequence: uint64(i)})
		if _, err := s.Check(v); err != nil {
			t.Fatal(err)
		}
		body := v[HeaderBytes:]
		seen[string(body[:min(len(body), 20)])]++
		if len(v) > SizeMax {
			t.Fatalf("a value of %d bytes", len(v))
		}
	}
	if len(seen) != 4 || seen["one"] < 50 || seen["two lines"] < 50 || seen["the third"] < 50 {
		t.Errorf("bodies %v", seen)
	}
	empty, err := New(1, 1, 48, 48, [][]byte{[]byte("\n\n\n")})
	if err != nil {
		t.Fatal(err)
	}
	if err := empty.SplitLines(); err == nil {
		t.Error("empty lines were accepted")
	}
}

func FuzzReadSizes(f *testing.F) {
	f.Add([]byte("# x\n100,3\n200,0.5\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := ReadSizes(bytes.NewReader(b))
		if err != nil {
			return
		}
		s, err := New(1, 1, 48, 48, [][]byte{[]byte("x")})
		if err != nil {
			t.Fatal(err)
		}
		s.SetSizes(all)
		if len(s.sizes) != quantiles {
			t.Errorf("%d quantiles", len(s.sizes))
		}
	})
}
