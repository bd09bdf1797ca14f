package adaptive

import "testing"

// Bodies that go back and forth are learnt once: later turns begin with what the
// first ones found out.
func TestBodiesThatComeBack(t *testing.T) {
	d := New(Embedded(), Options{})
	d.SetConditions(Conditions{CPU: Reading{Value: 0.3, Source: Local}, Link: link(100)})
	kinds := [][]byte{text(64 << 10), random(64 << 10)}
	var probes []uint64
	var last [2][Arms]int
	for turn := range 12 {
		before := d.Counts().Probes
		last[turn%2] = run(t, d, kinds[turn%2], 150)
		probes = append(probes, d.Counts().Probes-before)
	}
	c := d.Counts()
	if c.Changes < 10 || c.Recalls < 8 {
		t.Errorf("%d changes, %d of them to what is remembered; want nearly all 11", c.Changes, c.Recalls)
	}
	if first, late := probes[0]+probes[1], probes[10]+probes[11]; late*2 > first {
		t.Errorf("%d trials in the first two turns, %d in the last two: %v", first, late, probes)
	}
	for i, used := range last {
		if n := used[most(used)]; n < 140 {
			t.Errorf("turn %d: %d of 150 by the arm used most: %v", 10+i, n, used)
		}
	}
	if most(last[0]) == Raw || most(last[1]) != Raw {
		t.Errorf("text by %s, random bytes by %s", most(last[0]), most(last[1]))
	}
}

// A regime that was recalled and ends at once was another: it is forgotten, or it
// would be recalled again and again.
func TestWrongRecallIsForgotten(t *testing.T) {
	d := New(Embedded(), Options{})
	d.signs, d.nSigns, d.inRegime = [Axes]float64{0.5, 0.5, 0.5, 0.5, 0.5}, 4, 100
	d.arms[1] = estimate{out: -1, nOut: 300}
	d.change()
	signs := [Axes]float64{0.5, 0.5, 0.5, 0.5, 0.51}
	if !d.recall(&signs) || d.arms[1].out != -1 || d.arms[1].nOut != trustMost {
		t.Fatalf("not recalled: %+v", d.arms[1])
	}
	d.inRegime = rememberLeast - 1
	d.change()
	if d.recall(&signs) {
		t.Error("what was recalled in vain is recalled again")
	}
	// No more than so many, and the oldest goes.
	for i := range regimesMost + 1 {
		d.batches += 100
		d.signs, d.nSigns, d.inRegime = [Axes]float64{float64(i)}, 4, 100
		d.change()
	}
	if d.recall(&[Axes]float64{0}) || !d.recall(&[Axes]float64{1}) {
		t.Error("not the oldest was forgotten")
	}
}

// Another dictionary makes what is remembered of zstd wrong too.
func TestAnotherDictionaryIsForgottenEverywhere(t *testing.T) {
	d := New(Embedded(), Options{})
	d.signs, d.nSigns, d.inRegime = [Axes]float64{0.5}, 4, 100
	zstd, ok := ParseArm("zstd-fastest")
	if !ok {
		t.Fatal("no such arm")
	}
	d.arms[zstd], d.arms[1] = estimate{out: -1, nOut: 9}, estimate{out: -2, nOut: 9}
	d.change()
	d.SetDictionary(true)
	if !d.recall(&[Axes]float64{0.5}) || d.arms[zstd].nOut != 0 || d.arms[1].nOut != 9 {
		t.Errorf("recalled zstd %+v, %s %+v", d.arms[zstd], Arm(1), d.arms[1])
	}
}
