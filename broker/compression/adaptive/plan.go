package adaptive

// kernel says how much each profile counts: those that are like what was seen.
type kernel struct {
	made      bool
	knowledge uint32
	n         int
	index     [profilesMax]uint8
	weight    [profilesMax]float64 // of the n; the sum is 1
	// Deviation of arms from what the profiles say, as a part of a logarithm.
	out, encode, decode [Arms]float64
}

// wideMost is how much wider the kernel becomes at most.
const wideMost = 2.5

// weightLeast is the least weight of a profile that is still counted.
const weightLeast = 0.004

// regress computes the kernel for bodies at a place: a profile counts with the
// Gaussian of its distance from what was observed, each deviation divided by the
// width of its kind (Nadaraya and Watson, 1964). An average of few batches is
// itself uncertain, which widens its kernel.
func (d *Decider) regress(at place) {
	m, k := &d.a.model, &d.kernel
	k.made, k.knowledge, k.n = true, d.knowledge, 0
	d.counts.Regressions++
	s := at.s
	if at.f >= 0.5 {
		s++
	}
	var far [profilesMax]float64
	nearest, dims := 0.0, 0.0
	least := 0.0
	for i := range m.profiles {
		x := 0.0
		if d.nSigns > 0 {
			w := 1 / float64(m.SignWidth*m.SignWidth)
			for j := range Axes {
				dev := d.signs[j] - m.signs[i][s][j]
				x += float64(float64(dev*dev) * w)
			}
		}
		for a := Arm(1); a < Arms; a++ {
			e := &d.arms[a]
			if e.nOut == 0 {
				continue
			}
			l, mean := &m.logs[i][s][a], &m.mean[s][a]
			dev := e.out - (l[outAxis] - mean[outAxis])
			x += float64(dev*dev) / (float64(m.OutWidth*m.OutWidth) + e.variance/float64(e.nOut))
			if e.nEncode > 0 {
				dev = e.encode - (l[encodeAxis] - mean[encodeAxis])
				x += float64(dev*dev) / float64(m.TimeWidth*m.TimeWidth)
			}
		}
		if i == 0 || x < nearest {
			nearest = x
		}
		// One that is twice as likely from the start is nearer by 2 ln 2.
		far[i] = x - float64(1.386294361*log2(m.weight[i]))
		if i == 0 || far[i] < least {
			least = far[i]
		}
	}
	// Bodies that are like no profile are not like the nearest one either: the more
	// all are off, the wider the kernel.
	if d.nSigns > 0 {
		dims += Axes / 2
	}
	for a := Arm(1); a < Arms; a++ {
		if d.arms[a].nOut > 0 {
			dims += 2
		}
	}
	wide := min(max(1, nearest/max(dims, 1)), wideMost)
	sum := 0.0
	for i := range m.profiles {
		w := exp2(float64(-0.7213475204*(far[i]-least)) / wide)
		if w < weightLeast && (d.nSigns > 0 || d.knowledge > 0) {
			continue
		}
		k.index[k.n], k.weight[k.n] = uint8(i), w
		k.n++
		sum += w
	}
	for i := range k.n {
		k.weight[i] /= sum
	}
	d.deviate(s)
}

// deviate finds how far each arm is from the profiles: its own average for one
// that was tried often, and for the others a part of what those have in common.
func (d *Decider) deviate(s int) {
	m, k := &d.a.model, &d.kernel
	var shared [costAxes]float64
	var counted [costAxes]float64
	var own [Arms][costAxes]float64
	for a := Arm(1); a < Arms; a++ {
		e := &d.arms[a]
		for axis, v := range [costAxes]struct {
			x float64
			n uint32
		}{{e.out, e.nOut}, {e.encode, e.nEncode}, {e.decode, e.nDecode}} {
			if v.n == 0 {
				continue
			}
			dev := v.x + m.mean[s][a][axis]
			for i := range k.n {
				dev -= float64(k.weight[i] * m.logs[k.index[i]][s][a][axis])
			}
			own[a][axis] = dev
			shared[axis] += dev
			counted[axis]++
		}
	}
	for axis := range costAxes {
		if counted[axis] > 0 {
			shared[axis] = float64(shared[axis]*m.Shared) / counted[axis]
		}
	}
	k.out[Raw], k.encode[Raw], k.decode[Raw] = 1, 1, 1
	scale := exp2(d.scale)
	for a := Arm(1); a < Arms; a++ {
		e := &d.arms[a]
		mix := func(axis int, n uint32) float64 {
			if n == 0 {
				return shared[axis]
			}
			trust := float64(n) / (float64(n) + m.Trust)
			return float64(own[a][axis]*trust) + float64(shared[axis]*(1-trust))
		}
		k.out[a] = exp2(mix(outAxis, e.nOut))
		k.encode[a] = float64(exp2(mix(encodeAxis, e.nEncode)) * scale)
		k.decode[a] = float64(exp2(mix(decodeAxis, e.nDecode)) * scale)
		if d.dictionary && a.isZstd() && e.nOut == 0 {
			// What a trained dictionary did to bodies of 1 KiB; larger ones gain less,
			// which the first observation tells.
			k.out[a] *= 0.75
			k.encode[a] *= 1.5
		}
	}
}

// makePlan computes what is expected of each arm, the best of them and the one
// most worth trying.
func (d *Decider) makePlan(p *plan, class uint8) {
	at := places[class]
	d.counts.Plans++
	if !d.kernel.made || d.kernel.knowledge != d.knowledge {
		d.regress(at)
	}
	m, k := &d.a.model, &d.kernel
	was, had := p.best, p.made && p.class == class
	*p = plan{class: class, made: true, regime: d.regime, knowledge: d.knowledge, conditions: d.conditioned}

	for i := range k.n {
		lin, w := &m.lin[k.index[i]], k.weight[i]
		low, high := &lin[at.s], &lin[at.s+1]
		for a := Arm(1); a < Arms; a++ {
			for axis := range costAxes {
				p.perByte[a][axis] += float64(w * max(at.of(low[a][axis], high[a][axis]), 0))
			}
		}
	}
	p.perByte[Raw] = rawCosts
	for a := Arm(1); a < Arms; a++ {
		b := &p.perByte[a]
		b[outAxis] = float64(b[outAxis] * k.out[a])
		b[encodeAxis] = float64(b[encodeAxis] * k.encode[a])
		b[decodeAxis] = float64(b[decodeAxis] * k.decode[a])
	}
	for a := range Arm(Arms) {
		p.cost[a] = d.costOf(&p.perByte[a])
	}
	d.constrain(p, classBytes(class))
	free := Raw
	for a := Arm(1); a < Arms; a++ {
		if p.cost[a] < p.cost[free] {
			free = a
		}
		if p.exclude[a] == Cheapest && p.cost[a] < p.cost[p.best] {
			p.best = a
		}
	}
	if free != p.best {
		p.reason = p.exclude[free]
	}
	// The base is part of what a switch must save a part of.
	base := float64(baseNs*d.price) / classBytes(class)
	// Nor is an arm held that saves nothing: it would be tried in vain for ever.
	had = had && (was == Raw || p.perByte[was][outAxis] <= 1-d.o.MinSaving)
	if had && was != p.best && p.exclude[was] == Cheapest && p.cost[was]+base <= float64((1+switchGain)*(p.cost[p.best]+base)) {
		p.best, p.reason = was, Held
	}
	if p.best == Raw {
		p.second = 1
	}
	for a := Arm(0); a < Arms; a++ {
		if a != p.best && p.exclude[a] == Cheapest && (p.cost[a] < p.cost[p.second] || p.second == p.best || p.exclude[p.second] != Cheapest) {
			p.second = a
		}
	}
	d.worth(p, at)
}

// costOf is what a byte of input costs, without the base. An output that saves
// too little is not sent, and not decoded.
func (d *Decider) costOf(b *[costAxes]float64) float64 {
	if b[outAxis] > 1-d.o.MinSaving {
		return float64(b[encodeAxis]*d.price) + d.weight + rawCosts[decodeAxis]
	}
	return float64(b[encodeAxis]*d.price) + float64(b[outAxis]*d.weight) + b[decodeAxis]
}

// doubt is the probability that the bodies are like none of the profiles that
// they look like, and like any other.
const doubt = 0.003

// worth finds the untried arm whose trial promises most: gain is what could be
// saved for a byte if it turns out better, profile by profile, than the arm in
// use (Mockus' expected improvement), loss what the trial costs beyond it.
func (d *Decider) worth(p *plan, at place) {
	m, k := &d.a.model, &d.kernel
	known := p.best == Raw || d.arms[p.best].nOut > 0
	for a := Arm(1); a < Arms; a++ {
		if d.arms[a].nOut > 0 || p.exclude[a] != Cheapest || a == p.best {
			continue
		}
		gain := 0.0
		for i := range k.n {
			lin := &m.lin[k.index[i]]
			best := p.cost[p.best]
			if !known {
				best = d.profileCost(lin, at, p.best)
			}
			if c := d.profileCost(lin, at, a); c < best {
				gain += float64(k.weight[i] * (best - c))
			}
		}
		if known {
			surprise := 0.0
			for i := range m.profiles {
				if c := d.profileCost(&m.lin[i], at, a); c < p.cost[p.best] {
					surprise += float64(m.weight[i] * (p.cost[p.best] - c))
				}
			}
			gain = float64(gain*(1-doubt)) + float64(surprise*doubt)
		}
		loss := max(p.cost[a]-p.cost[p.best], 0)
		if gain > 0 && (p.probe == Raw || float64(gain*(p.loss+float64(0.01*p.cost[p.best]))) > float64(p.gain*(loss+float64(0.01*p.cost[p.best])))) {
			p.probe, p.gain, p.loss = a, gain, loss
		}
	}
}

// profileCost is what arm a costs if the bodies are like one profile.
func (d *Decider) profileCost(lin *[len(Sizes)]costs, at place, a Arm) float64 {
	k := &d.kernel
	low, high := &lin[at.s][a], &lin[at.s+1][a]
	b := [costAxes]float64{
		float64(max(at.of(low[outAxis], high[outAxis]), 0) * k.out[a]),
		float64(max(at.of(low[encodeAxis], high[encodeAxis]), 0) * k.encode[a]),
		float64(max(at.of(low[decodeAxis], high[decodeAxis]), 0) * k.decode[a]),
	}
	return d.costOf(&b)
}

// constrain finds the arms that may not be used for n bytes. Raw always may.
func (d *Decider) constrain(p *plan, n float64) {
	c := &d.conditions
	memory := 1 << 30
	switch {
	case c.Memory.Value >= 0.95:
		memory = 2
	case c.Memory.Value >= 0.85:
		memory = 4
	}
	// The pace of an arm is the slower of its encoder and the link.
	waits := c.Queue.Value >= queueMany
	byteNs := float64(c.FanOut.Value*1e9) / c.Link.Value
	pace := func(a Arm) float64 {
		return max(float64(p.perByte[a][encodeAxis]*d.price), float64(min(p.perByte[a][outAxis], 1)*byteNs))
	}
	fastest := pace(Raw)
	for a := Arm(1); waits && a < Arms; a++ {
		if d.o.Arms.Has(a) {
			fastest = min(fastest, pace(a))
		}
	}
	for a := Arm(1); a < Arms; a++ {
		switch {
		case !d.o.Arms.Has(a):
			p.exclude[a] = Excluded
		case arms[a].memoryMiB >= memory:
			p.exclude[a] = MemoryBound
		case c.Latency.Source != Unknown && float64(float64(p.perByte[a][encodeAxis]*n)*d.price) > c.Latency.Value:
			p.exclude[a] = LatencyBound
		case waits && float64(p.perByte[a][encodeAxis]*d.price) > byteNs && pace(a) > float64(1.1*fastest):
			p.exclude[a] = QueueBound
		}
	}
}

// queueMany is from how many waiting batches on the pace counts: with fewer, the
// link is kept busy anyway.
const queueMany = 4
