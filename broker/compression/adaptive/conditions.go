package adaptive

import "math"

// Source says where a reading comes from.
type Source uint8

// The sources.
const (
	Unknown Source = iota // no reading: the default of its kind is used
	Local                 // measured by this process
	Broker                // told by the broker
	sources
)

var sourceNames = [sources]string{"unknown", "local", "broker"}

// String returns the source's name.
func (s Source) String() string {
	if s < sources {
		return sourceNames[s]
	}
	return "invalid"
}

// A Reading is one measured value. The zero value is an unknown one.
type Reading struct {
	Value  float64
	Source Source
	// Age is how old the value is, in nanoseconds, by a clock that never goes
	// back. Readings older than StaleAfter are unknown; a negative age is one too,
	// since it comes from a clock that jumped.
	Age int64
}

// StaleAfter is the age, in nanoseconds, up to which a reading counts: 10 s.
// Brokers send their load when it changes, and at least every few seconds.
const StaleAfter = 10_000_000_000

// Conditions are what the world is like, as read by producer and broker. They are
// given to a Decider when they change or about every 100 ms; each batch until the
// next ones is decided by them. The zero value knows nothing and is valid.
//
// No value is trusted: see SetConditions.
type Conditions struct {
	// CPU is the share of the processors that compress which is busy, in [0, 1].
	// Unknown is 0.25. Above 0.9 it counts as 0.9.
	CPU Reading
	// Link is how many bytes a second can still be sent on the narrowest link
	// between producer, broker and subscribers. Unknown, or zero, is 125e6, a
	// network of 1 Gbit/s; it counts as at least 1e4 and at most 1e11.
	Link Reading
	// FanOut is how many subscriptions take each batch, plus how many copies are
	// sent on the way to them; the link is paid for each. Unknown is 1; it counts
	// as at least 1 and at most 1,000.
	FanOut Reading
	// Disk is what a byte stored costs in nanoseconds. Unknown is 1; at most 1,000.
	Disk Reading
	// Memory is the share of the memory allowed that is in use, in [0, 1]. From
	// 0.85 on arms whose encoder holds 4 MiB or more are left out, from 0.95 on
	// those of 2 MiB. Unknown is 0.
	Memory Reading
	// Queue is how many batches of this producer wait. From 4 on, an arm that
	// would be slower than the link is used only if every other is slower still.
	// Unknown is 0.
	Queue Reading
	// Latency is how many nanoseconds are left for encoding one batch. Unknown or
	// zero is no limit.
	Latency Reading
}

// readings, in the order of the fields of Conditions; also that of the event log.
const readings = 7

// at returns the i-th reading.
func (c *Conditions) at(i int) *Reading {
	return [readings]*Reading{&c.CPU, &c.Link, &c.FanOut, &c.Disk, &c.Memory, &c.Queue, &c.Latency}[i]
}

// ranges of the readings: what is used when one is unknown, and what it is held
// between.
var ranges = [readings]struct {
	name               string
	unknown, low, high float64
	zero               bool // zero is a value
}{
	{"cpu", 0.25, 0, 0.9, true},
	{"link", 125e6, 1e4, 1e11, false},
	{"fan-out", 1, 1, 1000, false},
	{"disk", 1, 0, 1000, true},
	{"memory", 0, 0, 1, true},
	{"queue", 0, 0, 1e6, true},
	{"latency", 0, 1, 1e15, false},
}

// Aged returns c with all readings older by ns nanoseconds, which are not negative.
func (c Conditions) Aged(ns int64) Conditions {
	for i := range readings {
		if r := c.at(i); r.Age >= 0 && ns > 0 {
			if r.Age += ns; r.Age < 0 {
				r.Age = math.MaxInt64
			}
		}
	}
	return c
}

// Sanitised returns c as a decision uses it: each reading that is NaN, infinite,
// negative, stale, zero where zero means nothing, or of an unknown source has
// become the default of its kind, its source Unknown and its age 0; the others
// are held within their range. Sanitising twice changes nothing.
func (c Conditions) Sanitised() Conditions {
	for i := range readings {
		r, rng := c.at(i), &ranges[i]
		v := r.Value
		bad := r.Source == Unknown || r.Source >= sources || r.Age < 0 || r.Age > StaleAfter ||
			math.IsNaN(v) || math.IsInf(v, 0) || v < 0 || v == 0 && !rng.zero
		if bad {
			*r = Reading{Value: rng.unknown}
			continue
		}
		r.Value, r.Age = min(max(v, rng.low), rng.high), 0
	}
	return c
}
