package adaptive

// A topic may go back and forth between kinds of bodies. What was learnt of a regime
// is remembered when it ends; a new one whose first features are those of one that is
// remembered begins with that, and need not learn anew.

// regimesMost is how many regimes are remembered.
const regimesMost = 4

const (
	// rememberLeast is from how many batches on a regime is worth remembering. One
	// that was recalled and ended sooner was another after all, and is forgotten.
	rememberLeast = 16
	// alike is the distance of features, in root mean square of the axes, up to which a
	// regime is taken for one that is remembered; that of a change is signsAlarm.
	alike = 0.04
	// trustMost is the most observations that an average counts for when it is
	// recalled: it may have become another meanwhile.
	trustMost = 16
)

// regime is what is remembered of one.
type regime struct {
	batches uint64 // that it had when it ended; 0: empty
	ended   uint64 // the batch with which it ended
	signs   [Axes]float64
	arms    [Arms]estimate
}

// distance is the square of the distance of features.
func distance(a, b *[Axes]float64) (sum float64) {
	for i := range Axes {
		dev := a[i] - b[i]
		sum += float64(dev * dev)
	}
	return sum
}

// remember keeps the regime that ends, in the place of one like it, or of the one that
// ended first. One whose features are not known cannot be recognised.
func (d *Decider) remember() {
	place := d.recalled
	if place < 0 {
		if d.nSigns == 0 || d.inRegime < rememberLeast {
			return
		}
		place = d.nearest(&d.signs)
	}
	if place < 0 {
		place = 0
		for i := range d.past {
			if d.past[i].ended < d.past[place].ended {
				place = i
			}
		}
	}
	if d.inRegime < rememberLeast {
		d.past[place] = regime{}
		return
	}
	d.past[place] = regime{batches: d.inRegime, ended: d.batches, signs: d.signs, arms: d.arms}
}

// nearest is the place of what is remembered and has such features, -1 if none has.
func (d *Decider) nearest(signs *[Axes]float64) int {
	place, least := -1, float64(alike*alike*Axes)
	for i := range d.past {
		if d.past[i].batches > 0 {
			if x := distance(&d.past[i].signs, signs); x < least {
				place, least = i, x
			}
		}
	}
	return place
}

// recall begins a regime whose first features are v with what is remembered of such
// bodies, and reports whether there is any.
func (d *Decider) recall(v *[Axes]float64) bool {
	place := d.nearest(v)
	if place < 0 {
		return false
	}
	r := &d.past[place]
	d.recalled = place
	d.counts.Recalls++
	d.signs, d.nSigns = r.signs, 2
	for a := range r.arms {
		e := r.arms[a]
		if now := &d.arms[a]; now.nOut > 0 {
			continue // it was tried before features were looked at
		}
		e.nOut, e.nEncode, e.nDecode = min(e.nOut, trustMost), min(e.nEncode, trustMost), min(e.nDecode, trustMost)
		d.arms[a] = e
	}
	d.knowledge++
	return true
}
