package scenario

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/portask/portask/broker/config/document"
)

// Fault is something that goes wrong for a while.
type Fault struct {
	Kind string        // see FaultKinds
	At   time.Duration // since the first phase began
	For  time.Duration // 0: a moment

	// What happens to the network between the clients and the target; Rate is
	// bytes a second each way, 0: as fast as it goes.
	Latency, Jitter time.Duration // each way
	Rate            int
	Consumers       int // slow-consumer: of how many
}

// The kinds of faults. Those of the network happen in a proxy between the
// clients and the target; those of the process need a target that loadgen
// started.
const (
	SlowNetwork  = "slow-network"  // Latency, Jitter and Rate hold
	Partition    = "partition"     // nothing passes, no connection is opened; then what was held up goes on
	HalfOpen     = "half-open"     // connections fall silent for good, new ones work; at the end the silent are reset
	Reset        = "reset"         // every connection is reset, and new ones are while it lasts
	Freeze       = "freeze"        // SIGSTOP, at the end SIGCONT
	Kill         = "kill"          // SIGKILL, at the end started again
	Restart      = "restart"       // SIGTERM, and started again For later
	SlowConsumer = "slow-consumer" // consumers take nothing
)

// FaultKinds are all kinds.
var FaultKinds = []string{SlowNetwork, Partition, HalfOpen, Reset, Freeze, Kill, Restart, SlowConsumer}

// OfNetwork reports whether it needs the proxy, OfProcess whether it needs a
// target that loadgen started.
func (f *Fault) OfNetwork() bool {
	return slices.Contains([]string{SlowNetwork, Partition, HalfOpen, Reset}, f.Kind)
}

// OfProcess reports whether it happens to the target's process.
func (f *Fault) OfProcess() bool { return slices.Contains([]string{Freeze, Kill, Restart}, f.Kind) }

// faultsMax bounds faults; faultLanesMax those times producers and partitions:
// each lane is remembered at the beginning and the end of each fault.
const (
	faultsMax     = 32
	faultLanesMax = 1 << 20
)

func defaultFault() Fault {
	return Fault{Kind: SlowNetwork, For: time.Second, Consumers: 1}
}

func (f *Fault) table() []entry {
	of := func(kinds ...string) func() bool {
		return func() bool { return slices.Contains(kinds, f.Kind) }
	}
	return []entry{
		{name: "kind", doc: "What goes wrong, see below.", v: oneOf{&f.Kind, FaultKinds}},
		{name: "at", doc: "When, since the first phase began.", v: durationValue{at: &f.At, max: day}},
		{name: "for", doc: "How long; the process stays down, or stopped, so long.", v: durationValue{at: &f.For, max: day}},
		{name: "latency", doc: "Added each way.", v: durationValue{at: &f.Latency, max: time.Minute}, only: of(SlowNetwork), when: "slow-network"},
		{name: "jitter", doc: "At most so much more, at random; the order stays.", v: durationValue{at: &f.Jitter, max: time.Minute}, only: of(SlowNetwork), when: "slow-network"},
		{name: "rate", doc: "Bytes a second each way, of all connections together; 0: no limit.", v: sizeValue{&f.Rate, 0, 1 << 40}, only: of(SlowNetwork), when: "slow-network"},
		{name: "consumers", doc: "How many of the consumers take nothing.", v: intValue{&f.Consumers, 1, ClientsMax}, only: of(SlowConsumer), when: "slow-consumer"},
	}
}

func (s *Scenario) checkFaults(src *source) {
	if n := len(s.Faults) * s.Producers.Count * s.Partitions(); n > faultLanesMax {
		src.bad("faults", "%d faults with %d producers and %d partitions: want at most %d in product", len(s.Faults), s.Producers.Count, s.Partitions(), faultLanesMax)
	}
	total := s.Duration()
	for i := range s.Faults {
		f := &s.Faults[i]
		at := "faults." + strconv.Itoa(i)
		if f.At+f.For > total {
			src.bad(at+".at", "ends at %s: want an end before that of the last phase, %s", document.FormatDuration(f.At+f.For), document.FormatDuration(total))
		}
		if f.For == 0 && f.Kind != Reset && f.Kind != Restart && f.Kind != Kill {
			src.bad(at+".for", "is 0: a %s lasts", f.Kind)
		}
		if f.Kind == SlowNetwork && f.Latency == 0 && f.Jitter == 0 && f.Rate == 0 {
			src.bad(at+".latency", "neither latency nor jitter nor rate is given")
		}
		if f.Kind == SlowConsumer && f.Consumers > s.Consumers.Count {
			src.bad(at+".consumers", "%d: there are %d consumers", f.Consumers, s.Consumers.Count)
		}
		// One after the other: two at once on the same thing have no meaning, and
		// a recovery could not be told to be of the one or the other.
		for k := range i {
			g := &s.Faults[k]
			if f.At <= g.At+g.For && g.At <= f.At+f.For {
				src.bad(at+".at", "while fault %d lasts, from %s to %s: want one after the other", k, document.FormatDuration(g.At), document.FormatDuration(g.At+g.For))
				break
			}
		}
	}
}

// String says what it is: "slow-network for 5s (latency 20ms, rate 1MiB/s)".
func (f *Fault) String() string {
	s := f.Kind
	if f.For > 0 {
		s += " for " + document.FormatDuration(f.For)
	}
	var more []string
	if f.Latency > 0 {
		more = append(more, "latency "+document.FormatDuration(f.Latency))
	}
	if f.Jitter > 0 {
		more = append(more, "jitter "+document.FormatDuration(f.Jitter))
	}
	if f.Rate > 0 {
		more = append(more, "rate "+document.FormatSize(int64(f.Rate))+"/s")
	}
	if f.Kind == SlowConsumer {
		more = append(more, strconv.Itoa(f.Consumers)+" of the consumers")
	}
	if len(more) > 0 {
		s += " (" + strings.Join(more, ", ") + ")"
	}
	return s
}
