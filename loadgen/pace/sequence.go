package pace

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// Never is the intended time behind the last message.
const Never = math.MaxInt64

// Schedule yields the intended times of successive messages, ns, never
// decreasing; Never when there are no more. Not safe for concurrent use.
type Schedule interface {
	Next() int64
	// Rate is about that of the messages to come, a second. It decides for how
	// long Run may spin.
	Rate() float64
}

// Sequence is phases one after the other. The same seed gives the same times.
// Not safe for concurrent use but for Due.
type Sequence struct {
	start  int64
	phases []Phase
	begins []int64 // of phases, and the end of the last

	at     int // phase of the last message
	n      int // messages of the phase so far
	mass   float64
	last   int64
	random *rand.Rand
	seed   uint64
	item   Item
}

// NewSequence begins at start.
func NewSequence(start int64, seed uint64, phases ...Phase) (*Sequence, error) {
	s := &Sequence{start: start, phases: phases, begins: []int64{start}, seed: seed, last: start}
	if len(phases) == 0 {
		return nil, fmt.Errorf("no phases")
	}
	for i := range phases {
		if err := phases[i].validate(); err != nil {
			return nil, fmt.Errorf("phase %d: %w", i, err)
		}
		s.begins = append(s.begins, s.begins[i]+int64(phases[i].Length))
	}
	s.enter(0)
	return s, nil
}

func (s *Sequence) enter(phase int) {
	s.at, s.n, s.mass = phase, 0, 0
	if phase < len(s.phases) && s.phases[phase].Random {
		s.random = rand.New(rand.NewPCG(s.seed, 0x9e3779b97f4a7c15*uint64(phase+1)))
	}
}

// Next implements Schedule.
func (s *Sequence) Next() int64 {
	for s.at < len(s.phases) {
		p := &s.phases[s.at]
		var t float64 // ns since the phase began
		switch {
		case p.Trace != nil:
			t = math.Inf(1)
			if s.n < len(p.Trace.items) {
				s.item = p.Trace.items[s.n]
				t = float64(s.item.At) / p.Speed
			}
		case p.Random:
			s.mass += s.random.ExpFloat64()
			t = p.Shape.When(s.mass)
		default:
			t = p.Shape.When(float64(s.n))
		}
		if t < float64(p.Length) {
			s.n++
			s.last = max(s.last, s.begins[s.at]+int64(t))
			return s.last
		}
		s.item = Item{}
		s.enter(s.at + 1)
	}
	return Never
}

// Rate implements Schedule.
func (s *Sequence) Rate() float64 {
	if s.at >= len(s.phases) {
		return 0
	}
	p := &s.phases[s.at]
	if p.Trace != nil {
		return p.Trace.Rate() * p.Speed
	}
	return p.Shape.Rate(time.Duration(s.last - s.begins[s.at]))
}

// Phase is that of the last message.
func (s *Sequence) Phase() int { return s.at }

// Item is the last message's line of a trace; the zero value without a trace.
func (s *Sequence) Item() Item { return s.item }

// Begins are the times at which the phases begin, and behind them the end.
func (s *Sequence) Begins() []int64 { return s.begins }

// Due is the number of messages due in [from, to), on average where phases are
// random. It may be called concurrently.
func (s *Sequence) Due(from, to int64) float64 {
	sum := 0.0
	for i := range s.phases {
		a, b := max(from, s.begins[i]), min(to, s.begins[i+1])
		if a < b {
			p := &s.phases[i]
			sum += p.Due(time.Duration(b-s.begins[i])) - p.Due(time.Duration(a-s.begins[i]))
		}
	}
	return sum
}
