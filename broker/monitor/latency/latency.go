// Package latency measures durations on the hot path: a writer records into
// buckets of its own, with one atomic addition and no lock, and whoever wants to
// know sums the buckets of all writers later.
//
// Its main types are Recorder, of one writer, and Set, of a broker. Quantiles,
// intervals and export are package monitor's.
//
// # Buckets
//
// They follow HdrHistogram's idea (Gil Tene): linear within a power of two, so
// that the relative error is bounded. A value is counted in units of 64 ns; each
// power of two of units from 32 on has 32 buckets, so a bucket is at most 1/32 of
// its values wide, and values below 2 us have buckets of 64 ns. The last bucket
// takes everything from 134 s on. All recorders share this one layout; that is
// what lets them be summed.
package latency

import (
	"math/bits"
	"sync/atomic"
	"time"
)

const (
	unitBits = 6 // a unit is 64 ns
	subBits  = 5 // 32 buckets for each power of two
	topBits  = 31
	sub      = 1 << subBits

	// Buckets is the number of buckets of a distribution.
	Buckets = (topBits - subBits + 1) * sub
	// Max is the smallest duration, in ns, that the layout does not tell from
	// larger ones.
	Max = 1 << (topBits + unitBits)
)

// bucket returns where a duration in ns is counted; a negative one, which a
// clock that is read on two processors may give, is 0.
func bucket(ns int64) int {
	if ns < 0 {
		ns = 0
	}
	u := uint64(ns) >> unitBits
	e := bits.Len64(u>>subBits) - 1 // power of two above the linear part
	if e < 0 {
		return int(u)
	}
	if e > topBits-subBits-1 {
		return Buckets - 1
	}
	return e<<subBits + int(u>>e)
}

// Lower is the smallest duration in ns that bucket i counts; Lower(Buckets) is
// Max. Bucket i counts [Lower(i), Lower(i+1)), the last one all above it too.
func Lower(i int) int64 {
	if i < 2*sub {
		return int64(i) << unitBits
	}
	e := i>>subBits - 1
	return int64(sub|i&(sub-1)) << (e + unitBits)
}

// Kind says what a duration is of.
type Kind uint8

// The kinds. Package monitor says what each begins and ends with.
const (
	Accepted Kind = iota // a produce request at ack level accepted
	Durable              // and at durable
	Append               // a gathered append to a log
	Sync                 // a sync of a log
	Deliver              // from visible to handed to the kernel
	Kinds
)

// Recorder belongs to one writer, or to several that meet seldom: recording is
// atomic, and costs a cache miss when two writers alternate. A nil Recorder
// records nothing.
type Recorder struct {
	kinds [Kinds][Buckets]atomic.Uint64
}

// Record counts n durations of ns each.
func (r *Recorder) Record(k Kind, ns int64, n uint64) {
	if r != nil {
		r.kinds[k][bucket(ns)].Add(n)
	}
}

// Set has a Recorder for each event loop and one for all other goroutines. A nil
// Set measures nothing.
type Set struct {
	recorders []*Recorder // the last one is the others'
}

// NewSet makes a Set for that many loops; 35 KiB for each.
func NewSet(loops int) *Set {
	s := &Set{recorders: make([]*Recorder, loops+1)}
	for i := range s.recorders {
		s.recorders[i] = new(Recorder)
	}
	return s
}

// At is the Recorder of a loop, or for -1 that of the other goroutines; nil of a
// nil Set.
func (s *Set) At(loop int) *Recorder {
	if s == nil {
		return nil
	}
	if loop < 0 || loop >= len(s.recorders) {
		loop = len(s.recorders) - 1
	}
	return s.recorders[loop]
}

// Counts is a distribution as of one moment, bucket by bucket.
type Counts [Buckets]uint64

// Read replaces dst by the sums over all recorders. Recording goes on meanwhile;
// no count ever goes down.
func (s *Set) Read(k Kind, dst *Counts) {
	*dst = Counts{}
	if s == nil {
		return
	}
	for _, r := range s.recorders {
		for i := range dst {
			dst[i] += r.kinds[k][i].Load()
		}
	}
}

// Middle stands for all durations of bucket i: within 1/64 of each, or 32 ns. A
// sum of durations is told from it, since counting one besides would double the
// cost of recording.
func Middle(i int) int64 { return (Lower(i) + Lower(i+1)) / 2 }

var base = time.Now()

// Now is the clock of all durations: monotonic ns since the program began.
func Now() int64 { return int64(time.Since(base)) }

// At is what Now was when t was read from the clock.
func At(t time.Time) int64 { return int64(t.Sub(base)) }
