package adaptive

import "math"

// Limits of what an observation may say: beyond them it was not measured but
// made up, by a clock that jumped or a process that slept. It is then as if no
// time had been given.
const (
	sizeMost      = 1 << 30
	nsPerByteMost = 1e5
	// accountMost is how many times the expected time one result may be charged with.
	accountMost = 8
	// clip is how far, in binary logarithms, one time may lie from the average.
	clip = 1.0
)

// An average follows its last 1 MiB or so, and at least the last 3 batches.
const (
	halfLifeBytes = 1 << 20
	followMost    = 0.3
)

// Observe tells what became of a decision: out bytes of in, and the nanoseconds
// that encoding took, and decoding if somebody knows; 0 for a time is not
// measured. CPU time of the encoding thread is best; elapsed time serves, since
// single outliers are clipped. out is the length of the output even if it was
// dropped for being longer than KeepMost. Calls may come late, in any order, and
// not at all; after a change of the bodies those from before it say nothing, which
// the token knows. A size that makes no sense makes the call be ignored.
func (d *Decider) Observe(t Token, in, out int, encodeNs, decodeNs int64) {
	d.rec.observed(d.stream, t, in, out, encodeNs, decodeNs)
	if t.arm == Raw || !t.arm.Valid() || in < SmallBytes || in > sizeMost || out <= 0 || out > 2*in || t.class >= classes {
		return
	}
	n := float64(in)
	ns := func(v int64) float64 {
		if v <= 0 || float64(v) > float64(nsPerByteMost*n) {
			return 0
		}
		return float64(v)
	}
	encode, decode := ns(encodeNs), ns(decodeNs)

	a := t.arm
	e := &d.arms[a]
	at := places[t.class]
	low, high := &d.a.model.mean[at.s][a], &d.a.model.mean[at.s+1][a]

	// The account takes what was sent, and a time only up to the clip: it is to
	// know that an arm is slow, not that the machine paused.
	kept := float64(out)
	if out > in-int(float64(d.o.MinSaving*n))-1 {
		kept = n
		d.skipped[a]++
	}
	correction := float64((t.out - kept) * t.weight)
	if encode > 0 {
		correction += float64((t.encode - min(encode, float64(accountMost*t.encode))) * t.price)
	}
	d.credit += correction
	d.spent -= correction
	if t.regime != d.regime {
		return
	}
	// The plan in use takes the result as it is, without a regression: an arm that
	// costs more than was thought gives way at once.
	if p := &d.plan[t.class%plans]; p.class == t.class && p.regime == t.regime && p.conditions == d.conditioned {
		if encode == 0 {
			encode = t.encode
		}
		x := float64((float64(min(encode, float64(accountMost*t.encode))*d.price)+float64(kept*d.weight))/n) + p.perByte[a][decodeAxis]
		if encode = ns(encodeNs); kept == n {
			x += rawCosts[decodeAxis] - p.perByte[a][decodeAxis]
		}
		p.cost[a] += float64((x - p.cost[a]) * correctPart)
	}

	r := log2(float64(out)/n) - at.of(low[outAxis], high[outAxis])
	dev := r - e.out
	if e.nOut >= 2 && d.in.add(dev/e.deviation) {
		d.change()
		return
	}
	// An odd size counts as one at the edge of the usual, or it would hide that the
	// bodies changed: the average must not move before the detector does.
	if e.nOut >= 2 {
		most := float64(3 * e.deviation)
		dev = min(max(dev, -most), most)
	}
	e.nOut++
	follow := max(1/float64(e.nOut), min(n/halfLifeBytes, followMost))
	follow = max(follow, 1.0/64)
	e.out += step(dev, follow)
	if e.nOut > 1 {
		e.variance += float64((float64(dev*dev) - e.variance) * max(follow/2, 1/float64(e.nOut)))
	}
	if e.nOut < 16 || e.nOut%8 == 0 {
		e.deviation = max(deviationLeast, math.Sqrt(e.variance))
	}
	if encode > 0 {
		e.encode, e.nEncode = average(e.encode, log2(encode/n)-d.scale-at.of(low[encodeAxis], high[encodeAxis]), e.nEncode, n)
	}
	if decode > 0 {
		e.decode, e.nDecode = average(e.decode, log2(decode/n)-d.scale-at.of(low[decodeAxis], high[decodeAxis]), e.nDecode, n)
	}
	// What was learnt is worth a new plan when it is news: the first few, and then
	// now and again.
	if c := e.nOut; c&(c-1) == 0 || c%1024 == 0 {
		d.knowledge++
	}
}

// average moves a mean of times towards x, of the n-th observation of a body of
// size bytes. Times are clipped: pauses make them longer, never shorter, and one
// says nothing.
func average(mean, x float64, n uint32, size float64) (float64, uint32) {
	if n > 0 {
		x = min(max(x, mean-clip), mean+clip)
	}
	n++
	follow := max(1/float64(n), min(size/halfLifeBytes, followMost), 1.0/64)
	return mean + step(x-mean, follow), n
}

// step is how far the logarithm of an average moves when what is averaged is dev
// away, in binary logarithms: costs add up, so their mean is what counts, not that
// of their logarithms.
//
// Near 0 it is taken as the first two terms of its series, which is 30 ns less; the
// third is below 1 % of a step.
func step(dev, follow float64) float64 {
	if dev > -0.5 && dev < 0.5 {
		return float64(follow*dev) + float64(float64(0.34657359*float64(follow*(1-follow)))*float64(dev*dev))
	}
	return log2(1 + float64((exp2(dev)-1)*follow))
}

// correctPart is how far one result moves the cost of an arm in the plan in use.
const correctPart = 1.0 / 8

// detector finds changes of the bodies: two cumulative sums (Page, 1954) of the
// deviation of an output's size from its average, in standard deviations. slack
// is what is forgiven each time; the sums alarm at alarm.
type detector struct{ high, low float64 }

const (
	slack = 0.75
	alarm = 8
	// deviationLeast is the least standard deviation of sizes, in binary
	// logarithms, that bodies are believed to have.
	deviationLeast = 0.06
	// deviationsMost is what a single batch may add: one odd body is no change.
	deviationsMost = 5
)

func (c *detector) reset() { *c = detector{} }

// add reports whether a size z standard deviations off, with what came before,
// shows a change.
func (c *detector) add(z float64) bool {
	z = min(max(z, -deviationsMost), deviationsMost)
	c.high = max(0, c.high+z-slack)
	c.low = max(0, c.low-z-slack)
	return c.high > alarm || c.low > alarm
}

// signsAlarm is the distance of features, in root mean square of the axes, from
// their average that shows a change at once.
const signsAlarm = 0.15

// A topic whose features vary all the time needs a distance beyond what is usual:
// signsNoisy times the square of it, an average that takes in noisePart of each.
const (
	signsNoisy = 3
	noisePart  = 1.0 / 8
)

// see takes features of a body: they add to what is known of the regime, or show
// that it ended.
func (d *Decider) see(f Features) {
	d.counts.Samples++
	v := f.Vector()
	if d.nSigns > 0 {
		sum := 0.0
		for i := range Axes {
			dev := v[i] - d.signs[i]
			sum += float64(dev * dev)
		}
		least := float64(signsAlarm * signsAlarm * Axes)
		d.noise += float64((min(sum, float64(4*least)) - d.noise) * noisePart)
		if sum > max(least, float64(signsNoisy*d.noise)) {
			d.change()
		}
	}
	if d.nSigns > 0 || !d.recall(&v) {
		d.nSigns++
		follow := max(1/float64(d.nSigns), 1.0/16)
		for i := range Axes {
			d.signs[i] += float64((v[i] - d.signs[i]) * follow)
		}
		if n := d.nSigns; n&(n-1) == 0 {
			d.knowledge++
		}
	}
	every := uint64(signsEvery)
	if d.current == Raw {
		every /= 2 // nothing else tells of a change
	}
	if d.inRegime > signsSettled {
		every *= 4
	}
	d.nextSigns = d.inRegime + min(max(d.inRegime, 1), every)
}

// signsEvery is the most batches between two looks at features of bodies that are
// compressed; raw ones are looked at twice as often.
const signsEvery = 64

// signsSettled is from how many batches of a regime on features are looked at four times as
// seldom.
const signsSettled = 512

// A glance is at so many bytes of a body. Of bodies of random bytes half have their
// highest bit set, of text hardly any: that differs by 16 with a standard deviation
// of 2.8. glanceFar is how far a count may be from the mean of the regime.
const glanceBytes, glanceFar = 32, 8

// other glances at a body that will be sent raw, and reports whether it is unlike
// those before it: nothing else tells that between two looks at the features. It
// costs some 20 ns. A false alarm, of one in 250 bodies of random bytes, costs a look.
func (d *Decider) other(body []byte) bool {
	step := len(body) / glanceBytes
	if step == 0 {
		return false
	}
	count := 0
	for i, k := 0, 0; k < glanceBytes; i, k = i+step, k+1 {
		count += int(body[i] >> 7)
	}
	x := float64(count)
	far := d.nGlances > 0 && (x > d.high+glanceFar || x < d.high-glanceFar)
	d.nGlances++
	d.high += float64((x - d.high) * max(1/float64(d.nGlances), 1.0/16))
	return far
}

// change begins a regime: what was learnt of the arms, except how fast this host
// is, is about other bodies.
func (d *Decider) change() {
	d.remember()
	d.counts.Changes++
	d.regime++
	d.inRegime, d.nextSigns, d.nSigns = 0, 0, 0
	d.signs = [Axes]float64{}
	d.arms = [Arms]estimate{}
	d.in.reset()
	d.nGlances = 0
	d.recalled = -1
	d.knowledge++
}
