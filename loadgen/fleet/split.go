package fleet

import (
	"errors"
	"fmt"
	"slices"

	"github.com/portask/portask/loadgen/corpus"
	"github.com/portask/portask/loadgen/scenario"
)

// Split deals s out to n agents: each gets the nth part of the rates, as even a
// part of producers and consumers as can be, and a seed of its own, the first
// one the scenario's. Objectives stay with the coordinator, which alone has all
// that they are about.
//
// Errors: what cannot be dealt out, all of it at once.
func Split(s *scenario.Scenario, n int) ([]*scenario.Scenario, error) {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if n < 1 || n > AgentsMax {
		return nil, fmt.Errorf("%d agents: want 1 to %d", n, AgentsMax)
	}
	if s.Kind != scenario.KindLoad {
		bad("a scenario of kind %s is not shared among agents", s.Kind)
	}
	if len(s.Faults) > 0 {
		bad("faults: %d: a run with faults is not shared among agents", len(s.Faults))
	}
	if s.Producers.Count < n {
		bad("producers.count: %d for %d agents: want at least one each", s.Producers.Count, n)
	}
	if s.Consumers.Count < n {
		bad("consumers.count: %d for %d agents: want at least one each", s.Consumers.Count, n)
	}
	for i := range s.Topics {
		if t := &s.Topics[i]; !t.Existing && t.Partitions%n != 0 {
			bad("topics.%d.partitions: %d for %d agents: want as many for each", i, t.Partitions, n)
		}
	}
	if err := readsFiles(s); err != nil {
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	out := make([]*scenario.Scenario, n)
	for i := range out {
		x := *s
		x.Dir, x.Objectives = "", nil
		x.Topics, x.Phases = slices.Clone(s.Topics), slices.Clone(s.Phases)
		x.Seed = s.Seed + uint64(i)*0x9e3779b97f4a7c15 // the golden ratio: far apart, also for neighbours' seeds
		x.Producers.Count = part(s.Producers.Count, i, n)
		x.Consumers.Count = part(s.Consumers.Count, i, n)
		for k := range x.Phases {
			p := &x.Phases[k]
			for _, rate := range []*float64{&p.Rate, &p.To, &p.Base, &p.Amplitude} {
				*rate /= float64(n)
			}
		}
		if err := x.Validate(); err != nil {
			return nil, fmt.Errorf("share of agent %d: %w", i, err)
		}
		out[i] = &x
	}
	return out, nil
}

// part is share i of count things among n.
func part(count, i, n int) int {
	p := count / n
	if i < count%n {
		p++
	}
	return p
}

// readsFiles refuses scenarios that need files, which agents do not have, and
// which are not the coordinator's to read.
func readsFiles(s *scenario.Scenario) error {
	if s.Payload.Split == scenario.SplitSize && s.Payload.Distribution == scenario.Empirical {
		return errors.New("payload.distribution: empirical is a file's, which agents do not have")
	}
	for i := range s.Phases {
		if s.Loop == scenario.OpenLoop && s.Phases[i].Arrival == "trace" {
			return fmt.Errorf("phases.%d.arrival: a trace is a file, which agents do not have", i)
		}
	}
	if what := s.Payload.Source; what != "modules" {
		if _, err := corpus.Generate(what, 1, 1); err != nil {
			return fmt.Errorf("payload.source: agents have no files, and %w", err)
		}
	}
	return nil
}
