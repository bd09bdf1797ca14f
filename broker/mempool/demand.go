package mempool

import "time"

// How a pool follows the demand. All of it happens in Tune, which its owner
// calls about once a second; nothing of it is on the path of Get and Release
// but two counters under the lock that they hold anyway.
//
// Caps. A class may own, lent or free, as many chunks as were lent at the same
// time at the peak of the last Window. What it owns beyond goes back to the
// system. So traffic that comes in waves finds its memory at the next wave, and
// an idle pool has given everything back one Window after its last use.
//
// Classes. A step between two powers of two becomes a class of its own when in
// the last Window at least fineGets chunks fitted it and they were at least a
// quarter of what its power of two was asked for; it ceases to be one below an
// eighth. The gap between the two keeps a size at the border from going back
// and forth. Of each doubling there are at most three, so the classes stay
// bounded whatever is asked for.
//
// Kept chunks. Retired chunks are given up KeepFor after they were retired, even
// if there is room.
const (
	// Window is how long a peak counts.
	Window = windowSlots * tuneEvery

	windowSlots = 10
	tuneEvery   = time.Second

	fineGets = 64
)

// demand is what a class knows of its use.
type demand struct {
	lent int32 // chunks with a holder
	high int32 // highest lent since the last slot was closed
	gets uint64

	// asked counts, in a power of two, the Gets that would have fitted the steps
	// below it, whether those are classes or not, and all Gets in the last.
	asked [steps]uint32

	peaks    [windowSlots]int32
	wants    [windowSlots][steps]uint32
	nextSlot int
}

// took notes a chunk lent.
func (d *demand) took() {
	d.gets++
	d.lent++
	d.high = max(d.high, d.lent)
}

// ask notes a Get of the size of a place on the grid, in the power of two at or
// above it.
func (d *demand) ask(place int) {
	d.asked[steps-1]++
	if s := place % steps; s != 0 {
		d.asked[s-1]++
	}
}

// close ends n slots at once; nothing is known of when in them the peak was, so
// it goes to the youngest.
func (d *demand) close(n int) {
	for i := range min(n, windowSlots) {
		last := i == min(n, windowSlots)-1
		d.peaks[d.nextSlot], d.wants[d.nextSlot] = d.lent, [steps]uint32{}
		if last {
			d.peaks[d.nextSlot], d.wants[d.nextSlot] = d.high, d.asked
		}
		d.nextSlot = (d.nextSlot + 1) % windowSlots
	}
	d.high, d.asked = d.lent, [steps]uint32{}
}

// peak is the most chunks lent at the same time in the window.
func (d *demand) peak() int {
	p := d.high
	for _, v := range d.peaks {
		p = max(p, v)
	}
	return int(p)
}

// wanted sums the window's Gets by step.
func (d *demand) wanted() (w [steps]uint64) {
	for _, slot := range d.wants {
		for i, n := range slot {
			w[i] += uint64(n)
		}
	}
	return w
}

// isClass decides whether a step with n of all Gets is a class from now on.
func isClass(is bool, n, all uint64) bool {
	if is {
		return n*8 >= all && n >= fineGets/4
	}
	return n*4 >= all && n >= fineGets
}

// Tune lets the pool follow the demand up to now, whose monotonic clock counts:
// see above. It may be called at any distance; within a second it does nothing.
func (p *Pool) Tune(now time.Time) {
	t := &p.tuning
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last.IsZero() {
		t.last = now
		return
	}
	n := int(min(now.Sub(t.last)/tuneEvery, 1<<30))
	if n < 1 {
		return
	}
	t.last = t.last.Add(time.Duration(n) * tuneEvery)
	second := p.second.Add(int64(n))
	p.dropKeptBefore(second - p.keepFor)
	// From above: a step that ceases to be a class is then trimmed as what it
	// is, one that nobody asks for.
	for i := classes - 1; i >= 0; i-- {
		k := &p.classes[i]
		k.mu.Lock()
		k.demand.close(n)
		var wanted [steps]uint64
		if i%steps == 0 {
			wanted = k.demand.wanted()
		}
		surplus := k.takeOldest(min(len(k.free), max(0, int(k.demand.lent)+len(k.free)-k.demand.peak())))
		k.mu.Unlock()
		p.trimmed.Add(int64(len(surplus)) * int64(sizeOf(i)))
		p.discard(surplus)
		if i%steps == 0 && i > 0 && sizeOf(i-steps) >= fineFrom {
			for s := 1; s < steps; s++ {
				f := &p.fine[i-steps+s]
				f.Store(isClass(f.Load(), wanted[s-1], wanted[steps-1]))
			}
		}
	}
}

// ClassStats are the figures of one class.
type ClassStats struct {
	Bytes int    // of a chunk
	Lent  int    // chunks with a holder, kept ones included
	Free  int    // in the free list
	Peak  int    // most lent at the same time in the last Window
	Gets  uint64 // since the pool was made
}

// Classes appends the figures of all classes that were ever used to dst, from
// small to large.
func (p *Pool) Classes(dst []ClassStats) []ClassStats {
	for i := range p.classes {
		k := &p.classes[i]
		k.mu.Lock()
		if k.demand.gets > 0 {
			dst = append(dst, ClassStats{Bytes: sizeOf(i), Lent: int(k.demand.lent), Free: len(k.free), Peak: k.demand.peak(), Gets: k.demand.gets})
		}
		k.mu.Unlock()
	}
	return dst
}
