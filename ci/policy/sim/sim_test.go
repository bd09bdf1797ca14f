package sim

import (
	"math"
	"testing"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/compression/adaptive"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/ci/policy/rows"
)

// made are rows of files of which every encoder but one is bad.
func made(load int, slower int64) (all []rows.Row) {
	for f := range 2 {
		for i := range 4 {
			r := rows.Row{Class: "made", File: string(rune('a' + f)), Size: 4096, Index: i, In: 4096, Load: load}
			for e := range rows.Encoders {
				c := rows.Cell{Out: 4000, EncodeNs: 100_000 * slower, DecodeNs: 1000}
				if e == column(message.Zstd, compression.LevelFastest) {
					c = rows.Cell{Out: 1000, EncodeNs: 10_000 * slower, DecodeNs: 2000}
				}
				r.Cells = append(r.Cells, c)
			}
			all = append(all, r)
		}
	}
	return all
}

func TestCostsByHand(t *testing.T) {
	d := Arrange(made(0, 1))
	zstd := column(message.Zstd, compression.LevelFastest)
	c := Conditions{Load: 50, Mbit: 1000, FanOut: 3}
	o := d.outcomes([]Batch{{d.Files[0].Batches[1][0], c}})[0]
	// (10 µs + 2.5 µs) twice, 1000 B at 3 · 8 ns + 1 ns, and decoding.
	if want := 12_500*2 + 1000*25 + 2000.0; o.cost[zstd] != want || o.best != zstd {
		t.Errorf("zstd costs %v, want %v; best is %d", o.cost[zstd], want, o.best)
	}
	if want := (0.02*4096+2500)*2 + 4096*25 + 0.02*4096; math.Abs(o.cost[Raw]-want) > 1e-6 {
		t.Errorf("raw costs %v, want %v", o.cost[Raw], want)
	}
	if got := (Conditions{Load: 99}).price(); got != 10 {
		t.Errorf("CPU at a load of 99 %% costs %v", got)
	}
	for _, s := range Run(d, d.Stationary(16), []Policy{each("best here", func(*Stream, *Batch) int { return zstd }, 1), Table(d, true)}) {
		if s.Policy != "best here" && s.Mean > 1e-12 {
			t.Errorf("%s: regret %v where one encoder is best in each cell", s.Policy, s.Mean)
		}
		if s.WorstVsRaw < s.VsRaw || s.WorstCell < s.Mean {
			t.Errorf("%+v", s)
		}
	}
}

func TestLoadMakesSlower(t *testing.T) {
	d := Arrange(append(made(0, 1), append(made(50, 2), made(90, 4)...)...))
	for load, want := range map[int]float64{10: 1, 30: 1.5, 50: 2, 70: 3, 90: 4, 95: 4} {
		if got := d.slower(d.encode, 0, load); math.Abs(got-want) > 1e-9 {
			t.Errorf("at %d %%: %v times as long, want %v", load, got, want)
		}
	}
	if got := d.slower(d.decode, 0, 90); got != 1 {
		t.Errorf("decoding took %v times as long, and was given as equal", got)
	}
}

func TestOutputsThatNoReaderTakes(t *testing.T) {
	r := made(0, 1)[0]
	r.Cells[column(message.Brotli, 0)].Out = 3
	r.Cells[column(message.Zstd, 0)].Out = 3
	lz4 := r.Cells[column(message.LZ4, 0)]
	got := sendable(&r)
	if c := got[column(message.Zstd, 0)]; c.Out != 5 {
		t.Errorf("zstd is filled up to %d bytes, want 5", c.Out)
	}
	if c := got[column(message.Brotli, 0)]; c.Out != lz4.Out || c.EncodeNs != 200_000 {
		t.Errorf("brotli became %+v", c)
	}
}

// The adaptive policy finds the one encoder that is good, which its profiles
// would never name: nothing else is any good on these bodies.
func TestAdaptiveFindsTheBest(t *testing.T) {
	d := Arrange(made(0, 1))
	scores := Run(d, d.Stationary(StreamBatches), []Policy{Adaptive(adaptive.Embedded()), Static()[0]})
	if s := scores[0]; s.Mean > scores[1].Mean/2 || s.WorstVsRaw > 0.15 {
		t.Errorf("mean regret %v (raw has %v), worst against raw %v", s.Mean, scores[1].Mean, s.WorstVsRaw)
	}
}
