package adaptive

import (
	"math"
	"testing"

	"github.com/portask/portask/broker/message"
)

func local(v float64) Reading { return Reading{Value: v, Source: Local} }

func TestConstraints(t *testing.T) {
	slow := Conditions{CPU: local(0), Link: link(5)}
	choice := func(c Conditions, o Options) (Arm, Reason) {
		d := New(Embedded(), o)
		d.SetConditions(c)
		e := d.Explain(64 << 10)
		return e.Current, e.Reason
	}
	free, _ := choice(slow, Options{})
	if free < 6 {
		t.Fatalf("on a link of 5 Mbit/s and an idle CPU the choice is %s", free)
	}
	with := func(f func(c *Conditions)) Conditions { c := slow; f(&c); return c }
	a, why := choice(with(func(c *Conditions) { c.Latency = local(100_000) }), Options{})
	if why != LatencyBound || a == free {
		t.Errorf("100 µs left: %s, %s", a, why)
	}
	a, why = choice(with(func(c *Conditions) { c.Memory = local(0.97) }), Options{})
	if why != MemoryBound || arms[a].memoryMiB >= 2 {
		t.Errorf("memory nearly used up: %s, %s", a, why)
	}
	// Batches wait and the link could take more than the encoder of the choice gives.
	a, why = choice(Conditions{CPU: local(0.9), Link: link(4000), Disk: local(100), Queue: local(20)}, Options{})
	calm, _ := choice(Conditions{CPU: local(0.9), Link: link(4000), Disk: local(100)}, Options{})
	if why != QueueBound || a == calm {
		t.Errorf("20 batches wait: %s, %s; with none %s", a, why, calm)
	}
	only := ArmsFor(func(a message.Algorithm) bool { return a == message.LZ4 })
	a, why = choice(slow, Options{Arms: only})
	if a.Algorithm() != message.LZ4 || why != Excluded || !only.Has(Raw) {
		t.Errorf("only lz4 allowed: %s, %s", a, why)
	}
}

// A link that becomes slow makes compression stronger at once, and a busy CPU
// weaker.
func TestConditionsAreFollowed(t *testing.T) {
	d := New(Embedded(), Options{})
	body := text(64 << 10)
	d.SetConditions(Conditions{CPU: local(0.8), Link: link(10_000)})
	run(t, d, body, 100)
	fast := d.Explain(len(body))
	d.SetConditions(Conditions{CPU: local(0.1), Link: link(10)})
	run(t, d, body, 100)
	slow := d.Explain(len(body))
	if fast.Arms[fast.Current].Ratio >= slow.Arms[slow.Current].Ratio {
		t.Errorf("fast link %s, slow link %s", fast.Current, slow.Current)
	}
	if len(slow.History) == 0 || slow.Counts.Switches == 0 {
		t.Error("the switch is not told")
	}
}

// The cost of a topic stays near that of raw whatever its bodies do: here every
// arm is ten times as slow as the profiles say and saves nothing.
func TestRawGuard(t *testing.T) {
	d := New(Embedded(), Options{})
	d.SetConditions(Conditions{CPU: local(0.5), Link: link(500)})
	const size = 16 << 10
	cost, raw := 0.0, 0.0
	for range 2000 {
		x := d.DecideFrom(size, Features{})
		raw += d.rawCost(size)
		if x.Arm == Raw {
			cost += d.rawCost(size)
			continue
		}
		ns := 10 * x.Token.encode
		cost += (ns+baseNs)*d.price + size*d.weight
		d.Observe(x.Token, size, size-1, int64(ns), 0)
	}
	if over := cost/raw - 1; over > rawBound+0.02 {
		t.Errorf("%.1f %% over raw, of %v", 100*over, d.used)
	}
	if e := d.Explain(size); e.Cost > 1.1*e.RawCost {
		t.Errorf("the account says %v beside %v", e.Cost, e.RawCost)
	}
}

func TestBodiesThatChange(t *testing.T) {
	d := New(Embedded(), Options{})
	d.SetConditions(Conditions{CPU: local(0.2), Link: link(100)})
	const size = 64 << 10
	if a := most(run(t, d, text(size), 200)); a == Raw {
		t.Fatal("text is sent raw")
	}
	before := d.Counts().Changes
	if a := most(run(t, d, random(size), 200)); a != Raw {
		t.Errorf("random bodies after text: %s", a)
	}
	if a := most(run(t, d, text(size), 200)); a == Raw {
		t.Error("text after random bodies is sent raw")
	}
	if got := d.Counts().Changes - before; got < 2 || got > 6 {
		t.Errorf("%d changes found, of 2", got)
	}
	// What comes of decisions before the change says nothing after it.
	old := d.DecideFrom(size, Features{}).Token
	d.change()
	was := d.arms
	d.Observe(old, size, size/2, 1000, 1000)
	if d.arms != was {
		t.Error("a result of the regime before was taken")
	}
}

// Times that no clock can have measured, and sizes that cannot be, change nothing
// of what is known.
func TestObservationsThatMakeNoSense(t *testing.T) {
	d := New(Embedded(), Options{})
	d.SetConditions(Conditions{Link: link(50)})
	const size = 16 << 10
	x := d.DecideFrom(size, Features{})
	if x.Arm == Raw {
		t.Fatal("raw")
	}
	was := d.arms
	for _, o := range [][2]int{{0, 10}, {size, 0}, {size, -1}, {-size, 5}, {size, 3 * size}, {math.MaxInt, 10}} {
		d.Observe(x.Token, o[0], o[1], 1000, 0)
	}
	d.Observe(Token{arm: 200}, size, 100, 1, 1)
	d.Observe(Token{arm: 1, class: 255}, size, 100, 1, 1)
	if d.arms != was {
		t.Error("a size that makes no sense was taken")
	}
	for _, ns := range []int64{0, -1, math.MinInt64, math.MaxInt64} {
		d.Observe(x.Token, size, size/4, ns, ns)
	}
	if e := d.arms[x.Arm]; e.nOut != 4 || e.nEncode != 0 || e.nDecode != 0 {
		t.Errorf("%+v", e)
	}
	// One pause of a second moves an average no further than the clip.
	d.Observe(x.Token, size, size/4, int64(x.Token.encode), 0)
	before := d.arms[x.Arm].encode
	d.Observe(x.Token, size, size/4, 1e9, 0)
	if moved := d.arms[x.Arm].encode - before; moved > clip {
		t.Errorf("the average moved by %v", moved)
	}
}

func TestHostScale(t *testing.T) {
	a := Embedded()
	twice := a.Reference
	for i := range twice {
		twice[i] *= 2
	}
	if got := a.HostScale(twice); math.Abs(got-2) > 1e-4 {
		t.Errorf("twice the time is a scale of %v", got)
	}
	for _, bad := range [][2]float64{{0, 1}, {math.NaN(), 1}, {math.Inf(1), 5}, {-1, -1}} {
		if got := a.HostScale(bad); got != 1 {
			t.Errorf("%v: %v", bad, got)
		}
	}
	if got := a.HostScale([2]float64{1e300, 1e300}); got != 16 {
		t.Errorf("absurdly slow: %v", got)
	}
	fast, slow := New(a, Options{HostScale: 1}), New(a, Options{HostScale: 4})
	if x, y := fast.Explain(4096).Arms[4], slow.Explain(4096).Arms[4]; math.Abs(y.EncodeNs/x.EncodeNs-4) > 1e-3 || x.Ratio != y.Ratio {
		t.Errorf("%+v\n%+v", x, y)
	}
	if ns, err := Measure(); err != nil || ns[0] < 1 || ns[1] < 1 {
		t.Errorf("%v, %v", ns, err)
	}
}

// Explaining changes nothing, and says of each arm what is predicted and why it
// is not used.
func TestExplain(t *testing.T) {
	d := New(Embedded(), Options{Topic: "orders", Producer: "p1"})
	d.SetConditions(Conditions{CPU: local(0.3), Link: link(100)})
	run(t, d, text(16<<10), 50)
	was := *d
	e := d.Explain(16 << 10)
	if *d != was {
		t.Error("Explain changed the decider")
	}
	if e.Topic != "orders" || len(e.Arms) != Arms || e.Batches != 50 || e.RawCost <= e.Cost || len(e.Profiles) == 0 {
		t.Errorf("%+v", e)
	}
	if v := e.Arms[e.Current]; v.Observed == 0 || v.ObservedRatio < 2 || v.Used == 0 || v.ObservedEncodeNs <= 0 {
		t.Errorf("the arm in use: %+v", v)
	}
	sum := 0.0
	for _, p := range e.Profiles {
		sum += p.Weight
	}
	if math.Abs(sum-1) > 1e-9 {
		t.Errorf("weights add up to %v", sum)
	}
}

func TestSmallBodies(t *testing.T) {
	d := New(Embedded(), Options{})
	for _, n := range []int{0, 1, SmallBytes - 1} {
		if x := d.Decide(make([]byte, n)); x.Arm != Raw || x.Reason != Small {
			t.Errorf("%d bytes: %s, %s", n, x.Arm, x.Reason)
		}
	}
	for _, n := range []int{SmallBytes, 511, 512, 1 << 25} {
		if x := d.DecideFrom(n, Features{}); x.Arm.Valid() == false || x.KeepMost >= n {
			t.Errorf("%d bytes: %+v", n, x)
		}
	}
}
