package scenario

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

const faultyHead = `version: 1
phases:
  - {name: main, duration: 20s, rate: 100}
faults:
`

// Faults are read with their defaults, and every kind is written so that it is
// read back.
func TestFaults(t *testing.T) {
	text := faultyHead
	for i, k := range FaultKinds {
		at := string(rune('0'+2*i/10)) + string(rune('0'+2*i%10))
		text += "  - {kind: " + k + ", at: " + at + "s"
		switch k {
		case SlowNetwork:
			text += ", for: 500ms, latency: 20ms, jitter: 5ms, rate: 1MiB"
		case SlowConsumer:
			text += ", consumers: 2"
		case Reset:
			text += ", for: 0s"
		}
		text += "}\n"
	}
	s, err := Parse("x.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Faults) != len(FaultKinds) || s.Faults[0].String() != "slow-network for 500ms (latency 20ms, jitter 5ms, rate 1MiB/s)" || s.Faults[1].For.Seconds() != 1 ||
		s.Faults[7].String() != "slow-consumer for 1s (2 of the consumers)" || s.Faults[3].String() != "reset" {
		t.Errorf("%v", s.Faults)
	}
	again, err := Parse("y.yaml", s.YAML())
	if err != nil || !slices.Equal(again.Faults, s.Faults) {
		t.Errorf("%v: %v", err, again)
	}
	network, process := 0, 0
	for i := range s.Faults {
		if s.Faults[i].OfNetwork() {
			network++
		}
		if s.Faults[i].OfProcess() {
			process++
		}
	}
	if network != 4 || process != 3 {
		t.Errorf("%d faults of the network, %d of the process", network, process)
	}
}

func TestFaultProblems(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		line int
		path string
		says string
	}{
		"unknown kind":   {"  - {kind: slow-netwrok, at: 1s}\n", 5, "faults.0.kind", "did you mean slow-network?"},
		"too late":       {"  - {kind: freeze, at: 19500ms}\n", 5, "faults.0.at", "ends at 20.5s"},
		"no time":        {"  - kind: freeze\n    at: 1s\n    for: 0s\n", 7, "faults.0.for", "a freeze lasts"},
		"no effect":      {"  - {kind: slow-network, at: 1s}\n", 5, "faults.0.latency", "neither latency"},
		"no meaning":     {"  - {kind: kill, at: 1s, latency: 5ms}\n", 5, "faults.0.latency", "has a meaning only with slow-network"},
		"two at once":    {"  - {kind: kill, at: 1s, for: 5s}\n  - {kind: freeze, at: 4s}\n", 6, "faults.1.at", "while fault 0 lasts, from 1s to 6s"},
		"many consumers": {"  - {kind: slow-consumer, at: 1s, consumers: 3}\n", 5, "faults.0.consumers", "there are 2 consumers"},
		"too many":       {strings.Repeat("  - {kind: reset, at: 1s}\n", 33), 4, "faults", "33 items: want at most 32"},
	} {
		_, err := Parse("x.yaml", []byte(faultyHead+tt.text))
		e, ok := errors.AsType[*Error](err)
		if !ok {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if p := e.Problems[0]; p.Line != tt.line || p.Path != tt.path || !strings.Contains(p.String(), tt.says) {
			t.Errorf("%s: %s, want line %d, %s, %q", name, p, tt.line, tt.path, tt.says)
		}
	}
	s := Default()
	s.Topics[0].Partitions, s.Producers.Count = PartitionsMax, 200
	s.Faults = []Fault{{Kind: Reset}, {Kind: Reset, At: 5e9}}
	if err := s.Validate(); err == nil || !strings.Contains(err.Error(), "in product") {
		t.Errorf("many lanes: %v", err)
	}
}
