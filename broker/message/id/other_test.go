package id

import (
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestShort(t *testing.T) {
	seen := make(map[Short]bool)
	for range 1000 {
		s := NewShort()
		text := s.String()
		if len(text) != 8 || strings.Trim(text, alphabet) != "" {
			t.Fatalf("%q", text)
		}
		for _, in := range []string{text, strings.ToUpper(text)} {
			if back, err := ParseShort(in); back != s || err != nil {
				t.Fatalf("%q back as %v, %v", in, back, err)
			}
		}
		seen[s] = true
	}
	if len(seen) < 999 { // two the same in 2 million runs
		t.Errorf("%d different of 1000", len(seen))
	}
	for s, text := range map[Short]string{0: "00000000", 1<<40 - 1: "zzzzzzzz", 1 << 35: "10000000", 31: "0000000z"} {
		if s.String() != text {
			t.Errorf("%d is %q, want %q", uint64(s), s, text)
		}
	}
	for _, bad := range []string{"", "0000000", "000000000", "0000000i", "0000000l", "0000000o", "0000000u", "0000000-", "0000000\xff", "000000é"} {
		if s, err := ParseShort(bad); err == nil {
			t.Errorf("%q is %v", bad, s)
		}
	}
}

func FuzzParseShort(f *testing.F) {
	f.Add("00000000")
	f.Add("zzzzzzzz")
	f.Add("abcDEFgh")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseShort(text)
		if err == nil && s.String() != strings.ToLower(text) {
			t.Errorf("%q is %v", text, s)
		}
	})
}

func TestNumericParts(t *testing.T) {
	g, err := NewNumericGenerator(777)
	if err != nil {
		t.Fatal(err)
	}
	before := time.Now().Truncate(time.Millisecond)
	n := g.New()
	if at := n.Time(); at.Before(before.Add(-time.Millisecond)) || at.After(before.Add(time.Minute)) || n.Node() != 777 {
		t.Errorf("%d: %v, node %d", n, at, n.Node())
	}
	for _, node := range []int{-1, NodesMax} {
		if _, err := NewNumericGenerator(node); err == nil {
			t.Errorf("node %d was taken", node)
		}
	}
	g.now = func() int64 { return numericEpoch + 5 }
	g.last = -1
	for i := range 3 {
		if n := g.New(); n != Numeric(5<<22|777<<12|i) || n.Sequence() != i || !n.Time().Equal(time.UnixMilli(numericEpoch+5)) {
			t.Errorf("%d is %d, sequence %d, %v", i, n, n.Sequence(), n.Time())
		}
	}
}

// Whatever the clock does, the identifiers increase; when it is well again they
// follow it.
func TestNumericAndStepsOfTheClock(t *testing.T) {
	g, err := NewNumericGenerator(NodesMax - 1)
	if err != nil {
		t.Fatal(err)
	}
	ms := int64(numericEpoch)
	g.now = func() int64 { return ms }
	r := rand.New(rand.NewPCG(1, 2))
	prev := Numeric(-1)
	highest := ms
	for i := range 200_000 {
		switch r.IntN(20) {
		case 0:
			ms -= r.Int64N(10_000) // set back
		case 1:
			ms += r.Int64N(10_000) // set ahead
		case 2:
			ms += r.Int64N(3)
		}
		highest = max(highest, ms)
		n := g.New()
		if n <= prev || n.Node() != NodesMax-1 {
			t.Fatalf("%d: %d after %d, clock at %d", i, n, prev, ms)
		}
		prev = n
	}
	ms = highest + 1000
	if at := g.New().Time().UnixMilli(); at != ms {
		t.Errorf("made at %d, the clock says %d", at, ms)
	}
	// More than a millisecond holds: the next ones are borrowed.
	var last Numeric
	for range 3 * 4096 {
		last = g.New()
	}
	if at := last.Time().UnixMilli(); at != ms+3 || last.Sequence() != 0 {
		t.Errorf("the last was made at %d+%d, sequence %d", ms, at-ms, last.Sequence())
	}
	// Another process of the same node that is told of the last.
	other, err := NewNumericGenerator(NodesMax - 1)
	if err != nil {
		t.Fatal(err)
	}
	other.now = func() int64 { return ms - 5000 }
	other.After(last)
	if n := other.New(); n <= last {
		t.Errorf("%d is not after %d", n, last)
	}
	// A clock beyond what a number can hold is not followed.
	for _, ms = range []int64{1 << 60, -1 << 60, numericEpoch + 1<<41, numericEpoch - 1} {
		if n := g.New(); n != last+1 {
			t.Errorf("%d at %d, want %d", n, ms, last+1)
		}
		last++
	}
}

func TestNumericUnique(t *testing.T) {
	const goroutines, each = 64, 2000
	ids := make([][]Numeric, goroutines)
	var gens [4]*NumericGenerator
	for i := range gens {
		g, err := NewNumericGenerator(i)
		if err != nil {
			t.Fatal(err)
		}
		gens[i] = g
	}
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			for range each {
				ids[i] = append(ids[i], gens[i%len(gens)].New())
			}
		})
	}
	wg.Wait()
	for _, of := range ids {
		if !slices.IsSorted(of) {
			t.Error("a goroutine saw identifiers out of order")
		}
	}
	all := slices.Concat(ids...)
	slices.Sort(all)
	if n := len(slices.Compact(all)); n != goroutines*each {
		t.Errorf("%d different of %d", n, goroutines*each)
	}
}
