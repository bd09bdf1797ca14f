package adaptive

// What deciding itself costs, in nanoseconds of an idle processor, as measured
// by BenchmarkDecide and its parts. It is charged to the budgets: learning must
// not cost more than it brings.
const (
	signsNs = 700  // FeaturesOf
	planNs  = 2500 // a regression and a plan
	batchNs = 75   // a decision and an observation
)

const (
	// baseNs is what sending any batch costs: its share of a write, an answer and
	// the batch's own checksum.
	baseNs = 2500

	priceMost = 10 // of CPU, at a load of 0.9

	// switchGain is what another arm must save, of the cost, to replace the one in
	// use.
	switchGain = 0.02

	// rawBound is the part by which the cost may exceed that of sending everything
	// raw, besides an advance of rawAdvance batches.
	rawBound   = 0.03
	rawAdvance = 1

	// Parts of the cost that may be spent on finding out: by features and
	// regression, and by trying arms. A regime begins with the same for so many
	// batches to come.
	learnPart, learnAhead = 0.01, 24
	tryPart, tryAhead     = 0.02, 24

	// A regime within so many batches of the last one begins with what is left.
	grantEvery = 32

	// ahead of this many batches nothing is saved up: an advantage of long ago is
	// no reason to lose now.
	saveMost = 32

	// horizonMost is the most batches that a trial may count on to pay it back.
	horizonMost = 1024
)

// SetConditions says what the world is like from the next batch on. Readings that
// make no sense are not used; see Conditions.Sanitised. The same conditions again
// cost nothing.
func (d *Decider) SetConditions(c Conditions) {
	d.rec.conditions(d.stream, &c)
	c = c.Sanitised()
	if d.conditioned != 0 && c == d.conditions {
		return
	}
	d.conditions = c
	d.conditioned++
	d.price = min(1/(1-c.CPU.Value), priceMost)
	d.weight = float64(c.FanOut.Value*1e9)/c.Link.Value + c.Disk.Value
}

// SetDictionary says whether zstd bodies are compressed with a dictionary of the
// topic from the next batch on. A change of it, or of the dictionary, forgets what
// was learnt of zstd.
func (d *Decider) SetDictionary(present bool) {
	d.rec.dictionary(d.stream, present)
	d.dictionary = present
	for a := range Arm(Arms) {
		if a.isZstd() {
			d.arms[a] = estimate{}
			for i := range d.past {
				d.past[i].arms[a] = estimate{}
			}
		}
	}
	d.knowledge++
	d.regime++ // outstanding observations are of the other dictionary
	d.in.reset()
}

// Wants reports whether the next Decide should have features of a body of size
// bytes.
func (d *Decider) Wants(size int) bool {
	if size < 512 || d.inRegime < d.nextSigns {
		return false
	}
	credit := d.learning
	if d.inRegime == 0 {
		credit += float64(learnPart * learnAhead * d.rawCost(size))
	}
	return credit >= float64((signsNs+planNs)*d.price)
}

func (d *Decider) rawCost(size int) float64 {
	n := float64(size)
	return float64((baseNs+float64(n*rawCosts[encodeAxis]))*d.price) + float64(n*(d.weight+rawCosts[decodeAxis]))
}

// Decide chooses an arm for body, of which it may look at a sample. It keeps no
// reference to it.
func (d *Decider) Decide(body []byte) (r Decision) {
	var f Features
	if d.Wants(len(body)) || d.current == Raw && d.other(body) && d.learning >= float64((signsNs+planNs)*d.price) {
		f = FeaturesOf(body)
	}
	d.decide(&r, len(body), &f)
	return r
}

// DecideFrom is Decide for a body that is known by its size and, if they are
// valid, its features.
func (d *Decider) DecideFrom(size int, f Features) (r Decision) {
	d.decide(&r, size, &f)
	return r
}

// decide is DecideFrom into r, which is empty: copies of it would be a tenth of all.
func (d *Decider) decide(r *Decision, size int, f *Features) {
	if size < SmallBytes {
		r.Reason = Small
		d.rec.decided(d.stream, size, f, r)
		return
	}
	if f.Valid {
		d.see(*f)
	}
	d.batches++
	d.inRegime++
	n := float64(size)
	raw := d.rawCost(size)
	if d.inRegime == 1 && d.batches >= d.granted {
		d.granted = d.batches + grantEvery
		d.learning += float64(learnPart * learnAhead * raw)
		d.trying += float64(tryPart * tryAhead * raw)
		if d.batches == 1 {
			d.credit = rawAdvance * raw
		}
	}
	if f.Valid {
		d.learning -= float64(signsNs * d.price)
		d.credit -= float64(signsNs * d.price)
	}
	p := d.planFor(classOf(size))
	base := float64(baseNs * d.price)
	if p.exclude[p.second] == Cheapest && float64(p.cost[p.best]*n)+base > float64((1+switchGain)*(float64(p.cost[p.second]*n)+base)) {
		p.best, p.second, p.reason = p.second, p.best, Cheapest
	}
	arm, reason := p.best, p.reason
	if p.probe != Raw {
		if loss := float64(p.loss * n); loss <= d.trying && p.loss < float64(p.gain*float64(min(d.inRegime, horizonMost))) {
			d.trying -= loss
			arm, reason = p.probe, Probe
			d.counts.Probes++
		}
	}
	cost := float64(p.cost[arm]*n) + base
	if arm != Raw {
		if d.credit+float64((1+rawBound)*raw) < d.risk(p, arm, n)+base {
			arm, reason = d.cautious(p, n, base, raw), RawGuard
			cost = float64(p.cost[arm]*n) + base
		}
		if arm == p.probe {
			p.probe = Raw // until something new is known
		}
	}
	d.credit = min(d.credit+float64((1+rawBound)*raw)-cost-float64(batchNs*d.price), float64(saveMost*raw))
	d.learning = min(d.learning+float64(learnPart*cost), float64(saveMost*learnPart*raw)+float64(2*(signsNs+planNs)*d.price))
	d.trying = min(d.trying+float64(tryPart*cost), float64(saveMost*tryPart*raw))
	d.spent += cost
	d.rawly += raw
	d.used[arm]++
	if arm == Raw {
		d.counts.RawBytes += uint64(size)
	}
	if arm != d.current && reason != Probe {
		d.changed(arm, reason)
	}

	r.Arm, r.Reason = arm, reason
	r.Token.regime, r.Token.arm, r.Token.class, r.Token.weight, r.Token.price = d.regime, arm, p.class, d.weight, d.price
	r.Token.out, r.Token.encode = float64(p.perByte[arm][outAxis]*n), float64(p.perByte[arm][encodeAxis]*n)
	if arm != Raw {
		r.KeepMost = size - int(float64(d.o.MinSaving*n)) - 1
		e := &d.arms[arm]
		r.Measure = e.nEncode < 16 || d.batches%64 == 0
	}
	d.rec.decided(d.stream, size, f, r)
}

// risk is what an arm costs for n bytes if it goes badly: as predicted for one
// that was tried, and otherwise without any gain and in half as much time again.
func (d *Decider) risk(p *plan, a Arm, n float64) float64 {
	if d.arms[a].nOut > 0 {
		return float64(p.cost[a] * n)
	}
	return float64((float64(1.5*float64(p.perByte[a][encodeAxis]*d.price)) + d.weight) * n)
}

// cautious is the cheapest arm that the account against raw allows.
func (d *Decider) cautious(p *plan, n, base, raw float64) Arm {
	best := Raw
	for a := Arm(1); a < Arms; a++ {
		if p.exclude[a] == Cheapest && p.cost[a] < p.cost[best] && d.credit+float64((1+rawBound)*raw) >= d.risk(p, a, n)+base {
			best = a
		}
	}
	return best
}

func (d *Decider) changed(a Arm, why Reason) {
	d.history[d.historyLength%changes] = Change{Batch: d.batches, From: d.current, To: a, Reason: why}
	d.historyLength++
	if d.batches > 1 {
		d.counts.Switches++
	}
	d.current = a
}

// planFor returns the plan of a class, made anew if it must be, or if something
// was learnt and there is credit for it.
func (d *Decider) planFor(class uint8) *plan {
	p := &d.plan[class%plans]
	if p.made && p.class == class && p.regime == d.regime && p.conditions == d.conditioned {
		if p.knowledge == d.knowledge || d.learning < float64(planNs*d.price) {
			return p
		}
		d.learning -= float64(planNs * d.price)
		d.credit -= float64(planNs * d.price)
	}
	d.makePlan(p, class)
	return p
}
