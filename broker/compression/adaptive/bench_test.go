package adaptive

import (
	"fmt"
	"testing"

	"github.com/portask/portask/broker/compression"
)

// BenchmarkDecide is what a batch costs, all in: the decision, the observation,
// and the share of features, regressions and plans as they come.
func BenchmarkDecide(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10} {
		for _, payload := range []string{"text", "random"} {
			b.Run(fmt.Sprintf("size=%dKiB/payload=%s", size>>10, payload), func(b *testing.B) {
				body := text(size)
				if payload == "random" {
					body = random(size)
				}
				d := New(Embedded(), Options{})
				d.SetConditions(Conditions{Link: link(100)})
				run(b, d, body, 300)
				var out [Arms]int
				for a := Arm(1); a < Arms; a++ {
					enc, err := compression.AppendCompress(nil, body, a.Algorithm(), a.Level())
					if err != nil {
						b.Fatal(err)
					}
					out[a] = len(enc)
				}
				b.ReportAllocs()
				for b.Loop() {
					x := d.Decide(body)
					if x.Arm != Raw {
						ns := int64(0)
						if x.Measure {
							ns = int64(x.Token.encode)
						}
						d.Observe(x.Token, len(body), out[x.Arm], ns, 0)
					}
				}
			})
		}
	}
}

// BenchmarkParts are the parts: what package sim charges.
func BenchmarkParts(b *testing.B) {
	d := New(Embedded(), Options{})
	d.SetConditions(Conditions{Link: link(100)})
	body := text(64 << 10)
	run(b, d, body, 300)
	b.Run("part=decision", func(b *testing.B) {
		for b.Loop() {
			d.DecideFrom(len(body), Features{})
		}
	})
	b.Run("part=observation", func(b *testing.B) {
		x := d.DecideFrom(len(body), Features{})
		for b.Loop() {
			d.Observe(x.Token, len(body), int(x.Token.out), 0, 0)
		}
	})
	b.Run("part=features", func(b *testing.B) {
		for b.Loop() {
			FeaturesOf(body)
		}
	})
	b.Run("part=regression", func(b *testing.B) {
		for b.Loop() {
			d.regress(places[classOf(len(body))])
		}
	})
	b.Run("part=plan", func(b *testing.B) {
		for b.Loop() {
			d.kernel.knowledge, d.kernel.made = d.knowledge, true
			d.makePlan(&d.plan[0], classOf(len(body)))
		}
	})
}

// A batch allocates nothing, with everything in it.
func TestDecidingAllocatesNothing(t *testing.T) {
	d := New(Embedded(), Options{})
	d.SetConditions(Conditions{Link: link(100)})
	body, other := text(16<<10), random(16<<10)
	n := 0
	per := testing.AllocsPerRun(2000, func() {
		b := body
		if n++; n/500%2 == 1 {
			b = other // changes, probes and new plans are part of it
		}
		if n%100 == 0 {
			d.SetConditions(Conditions{Link: link(float64(n))})
		}
		x := d.Decide(b)
		if x.Arm != Raw {
			d.Observe(x.Token, len(b), len(b)/3, 50_000, 0)
		}
	})
	if per != 0 {
		t.Errorf("%v allocations a batch", per)
	}
	if d.Counts().Changes == 0 {
		t.Error("no change of bodies was found, so the test says less than it should")
	}
}
