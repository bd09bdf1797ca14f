package adaptive

// Counts are what a Decider did since New.
type Counts struct {
	Switches    uint64 // changes of the arm in use, without probes
	Probes      uint64 // trials of other arms
	Changes     uint64 // of the bodies, as detected
	Recalls     uint64 // of them, to bodies that are remembered
	Samples     uint64 // features taken
	Plans       uint64 // made, with or without a regression before
	Regressions uint64
	RawBytes    uint64 // sent without an attempt
}

// A Change is a switch of the arm in use.
type Change struct {
	Batch    uint64 // number of the batch, from 1, that was the first of the new arm
	From, To Arm
	Reason   Reason
}

// ArmView is what is known of one arm for bodies of the size in question.
type ArmView struct {
	Arm Arm
	// Cost is the predicted cost of a body in nanoseconds, base included; Ratio,
	// EncodeNs and DecodeNs what it is made of: input for a byte of output, and
	// times for the whole body.
	Cost, Ratio, EncodeNs, DecodeNs float64
	// Observed is how many results count at present; the averages of what they
	// said, for a body of this size, are 0 if there are none. They differ from the
	// prediction by what the profiles know.
	Observed                        uint32
	ObservedRatio, ObservedEncodeNs float64
	// Used is how often the arm was chosen since New, Dropped how often its output
	// was not worth keeping.
	Used, Dropped uint64
	// Why says why the arm is not the one in use: Cheapest for the one that is, or
	// that simply costs more.
	Why Reason
}

// Explanation is a Decider's state in terms of the decision.
type Explanation struct {
	Topic, Producer string
	Size            int
	Conditions      Conditions // as they are used
	Price           float64    // of a nanosecond of CPU
	ByteNs          float64    // cost of a byte sent and stored
	Current         Arm        // what the next body would get, but for a probe or the guard
	Reason          Reason
	Batches         uint64
	InRegime        uint64  // since the bodies changed
	Cost, RawCost   float64 // since New, in ns: as decided, and had all been raw
	Counts          Counts
	Arms            []ArmView
	History         []Change // the last ones, oldest first
	Profiles        []Likeness
}

// Counts returns what d did since New.
func (d *Decider) Counts() Counts { return d.counts }

// Likeness says how much a profile of the artefact counts at present.
type Likeness struct {
	Class  string
	Weight float64 // the sum over all is 1
}

// Explain says how a body of size bytes would be decided now, and what led to it.
// It changes nothing, and allocates.
func (d *Decider) Explain(size int) Explanation {
	size = max(size, SmallBytes)
	at := *d // plans and regression are made on a copy
	p := &plan{}
	if kept := &at.plan[classOf(size)%plans]; kept.made && kept.class == classOf(size) {
		*p = *kept
	}
	at.makePlan(p, classOf(size))
	n := float64(size)
	base := float64(baseNs * d.price)
	e := Explanation{
		Topic: d.o.Topic, Producer: d.o.Producer, Size: size, Conditions: d.conditions, Price: d.price, ByteNs: d.weight,
		Current: p.best, Reason: p.reason, Batches: d.batches, InRegime: d.inRegime, Cost: d.spent, RawCost: d.rawly, Counts: d.counts,
	}
	where := places[p.class]
	for a := range Arm(Arms) {
		b, x := &p.perByte[a], &d.arms[a]
		v := ArmView{
			Arm: a, Cost: float64(p.cost[a]*n) + base, Ratio: 1 / b[outAxis], EncodeNs: b[encodeAxis] * n, DecodeNs: b[decodeAxis] * n,
			Observed: x.nOut, Used: d.used[a], Dropped: d.skipped[a], Why: p.exclude[a],
		}
		low, high := &d.a.model.mean[where.s][a], &d.a.model.mean[where.s+1][a]
		if x.nOut > 0 {
			v.ObservedRatio = 1 / exp2(x.out+where.of(low[outAxis], high[outAxis]))
		}
		if x.nEncode > 0 {
			v.ObservedEncodeNs = exp2(x.encode+d.scale+where.of(low[encodeAxis], high[encodeAxis])) * n
		}
		e.Arms = append(e.Arms, v)
	}
	for i := max(d.historyLength, changes) - changes; i < d.historyLength; i++ {
		e.History = append(e.History, d.history[i%changes])
	}
	for i := range at.kernel.n {
		e.Profiles = append(e.Profiles, Likeness{Class: d.a.Profiles[at.kernel.index[i]].Class, Weight: at.kernel.weight[i]})
	}
	return e
}
