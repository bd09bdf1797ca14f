package message

import (
	"time"

	"github.com/portask/portask/broker/fault"
)

// State is where a message, or a batch of them, stands with whoever has it: a
// producer until the broker has answered, a queue until a consumer has.
type State uint8

// The states. A message that is given back, because an attempt failed or the
// receiver did not want it, is pending again. The last three are final.
//
//	          begin               done
//	pending ─────────▶ processing ─────▶ acknowledged
//	   │ ◀───────────── │
//	   │   given back   │
//	   ├────────────────┴──▶ expired   its time was over
//	   └────────────────┴──▶ dead      refused for good, or given up
const (
	Pending State = iota
	Processing
	Acknowledged
	Expired
	Dead
	numStates
)

var stateNames = [numStates]string{"pending", "processing", "acknowledged", "expired", "dead"}

// String returns the lower-case name.
func (s State) String() string { return nameOf(stateNames[:], uint8(s), "state") }

// Final reports whether nothing follows.
func (s State) Final() bool { return s >= Acknowledged }

// follows are the states that may follow each.
var follows = [numStates][]State{
	Pending:    {Processing, Expired, Dead},
	Processing: {Pending, Acknowledged, Expired, Dead},
}

// Lifecycle is the state of a message with the times of its changes. It belongs
// to one goroutine at a time, and begins with [NewLifecycle].
type Lifecycle struct {
	created    time.Time
	began      time.Duration // of the attempt, after created
	processing time.Duration // of the attempts that ended
	total      time.Duration // at the final state
	attempts   int
	state      State
}

// NewLifecycle returns the life of a message that is pending from now on.
func NewLifecycle(now time.Time) Lifecycle { return Lifecycle{created: now} }

// To changes the state. The error is a fault.Invalid, and nothing has changed,
// if s does not follow the state it is in.
func (l *Lifecycle) To(s State, now time.Time) error {
	for _, f := range follows[l.state] {
		if f == s {
			l.change(s, now.Sub(l.created))
			return nil
		}
	}
	return invalid("change state", "state", "%v does not follow %v", s, l.state).
		With("from", l.state.String()).With("to", s.String()).WithCategory(fault.CategoryMessage)
}

func (l *Lifecycle) change(s State, at time.Duration) {
	if l.state == Processing {
		l.processing += max(0, at-l.began)
	}
	switch {
	case s == Processing:
		l.began = at
		l.attempts++
	case s.Final():
		l.total = max(0, at)
	}
	l.state = s
}

// State returns the state it is in.
func (l *Lifecycle) State() State { return l.state }

// Attempts is how often processing began.
func (l *Lifecycle) Attempts() int { return l.attempts }

// Age is the time since it was created, or, in a final state, until then.
func (l *Lifecycle) Age(now time.Time) time.Duration {
	if l.state.Final() {
		return l.total
	}
	return max(0, now.Sub(l.created))
}

// Attempt is how long the attempt that goes on takes by now; 0 if none does.
func (l *Lifecycle) Attempt(now time.Time) time.Duration {
	if l.state != Processing {
		return 0
	}
	return max(0, now.Sub(l.created)-l.began)
}

// Processing is the sum of all attempts, with the one that goes on.
func (l *Lifecycle) Processing(now time.Time) time.Duration { return l.processing + l.Attempt(now) }

// Created is when it began to be pending.
func (l *Lifecycle) Created() time.Time { return l.created }
