package disklog

import "slices"

// check makes sure that the batches in the intervals [first, last] of v are as
// they were written. Bytes that this process wrote or read through at open are
// believed; all others are read and checked once before they are served for
// the first time. damaged: one does not check; it is a gap of the segment, and
// in v, from now on.
func (l *Log) check(v *view, first, last int) (damaged bool, err error) {
	s := v.s
	if s.trusted {
		return false, nil
	}
	s.checkMu.Lock()
	defer s.checkMu.Unlock()
	if need := (len(v.entries) + 63) / 64; len(s.checked) < need {
		s.checked = append(s.checked, make([]uint64, need-len(s.checked))...)
	}
	for i := first; i <= last; i++ {
		if s.checked[i/64]>>(i%64)&1 != 0 {
			continue
		}
		bad, err := v.checkInterval(i)
		if err != nil {
			return false, err
		}
		s.checked[i/64] |= 1 << (i % 64)
		if len(bad) > 0 {
			l.addGaps(s, bad)
			damaged = true
		}
	}
	if damaged {
		l.mu.Lock()
		v.gaps = s.gaps
		l.mu.Unlock()
	}
	return damaged, nil
}

// checkInterval returns what is bad in interval i and not in a known gap.
func (v *view) checkInterval(i int) (bad []badRange, err error) {
	c, end := v.interval(i)
	sc := newScan(v.s.file, end.pos, v.s.seed)
	defer sc.done()
	for c = v.skipGap(c); c.pos < end.pos; c = v.skipGap(c) {
		f, err := sc.next(c.pos, c.off)
		if err != nil {
			return nil, err
		}
		if f.kind == foundBatch && f.env.EndOffset() <= end.off {
			c.pos, c.off = f.end, f.env.EndOffset()
			continue
		}
		r := f.badRange
		if f.kind == foundBatch { // the index does not agree with it
			r.end, r.class = end.pos, BatchMissing
		}
		if f.kind == foundEnd {
			r.class = BatchHeader
		}
		if r.end >= end.pos || r.next > end.off {
			r.end, r.next = end.pos, end.off
		}
		bad = append(bad, r)
		c.pos, c.off = r.end, r.next
	}
	if c.off < end.off {
		bad = append(bad, badRange{pos: c.pos, end: c.pos, from: c.off, next: end.off, class: BatchMissing})
	}
	return bad, nil
}

// addGaps makes what is bad gaps of a segment, if it is not in one already.
func (l *Log) addGaps(s *segment, bad []badRange) {
	l.mu.Lock()
	var fresh []badRange
	for _, b := range bad {
		if !slices.ContainsFunc(s.gaps, func(g gap) bool { return g.from <= b.from && b.next <= g.next && int64(g.pos) <= b.pos }) {
			fresh = append(fresh, b)
		}
	}
	s.gaps = mergeGaps(s.gaps, gapsOf(fresh))
	l.mu.Unlock()
	for i := range fresh {
		l.report(fresh[i].problem(s.rel()))
	}
}

// mergeGaps returns both in order, in new memory.
func mergeGaps(a, b []gap) []gap {
	out := make([]gap, 0, len(a)+len(b))
	for len(a) > 0 || len(b) > 0 {
		if len(b) == 0 || len(a) > 0 && a[0].pos <= b[0].pos {
			out, a = append(out, a[0]), a[1:]
		} else {
			out, b = append(out, b[0]), b[1:]
		}
	}
	return out
}

func (r *badRange) problem(file string) Problem {
	return Problem{Class: r.class, File: file, Pos: r.pos, Len: r.end - r.pos, From: r.from, Next: r.next, Detail: r.detail}
}
