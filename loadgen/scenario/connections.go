package scenario

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/portask/portask/broker/config/document"
	"github.com/portask/portask/loadgen/conns"
)

// Kinds of scenarios.
const (
	KindLoad        = "load"        // messages are sent, received and verified
	KindConnections = "connections" // connections are opened, subscribed and held
)

// Connections say what a scenario of that kind does.
type Connections struct {
	Count     int
	Steps     string        // growing numbers, the last of which is Count; empty: chosen
	Heartbeat time.Duration // between signs of life of each
	Hold      time.Duration // at the last step
	// CostAtMost bounds the target's bytes for each, 0 does not.
	CostAtMost int
}

func defaultConnections() Connections {
	return Connections{Count: 10_000, Heartbeat: 10 * time.Minute}
}

func (c *Connections) table() []entry {
	return []entry{
		{name: "count", doc: "Connections in all.", v: intValue{&c.Count, 1, conns.Max}},
		{name: "steps", doc: "Numbers of connections at which memory is read, growing up to count; empty: a twentieth, a quarter, half and all.", v: parsed{&c.Steps, func(s string) error { _, err := parseSteps(s); return err }, "numbers between commas"}},
		{name: "heartbeat", doc: "Interval between signs of life of each connection.", v: durationValue{at: &c.Heartbeat, min: time.Second, max: 10 * time.Minute}},
		{name: "hold", doc: "How long all are held, beyond the moment memory takes to come to rest.", v: durationValue{at: &c.Hold, max: day}},
		{name: "cost_at_most", doc: "Objective: the target's bytes for each connection; 0: none. Exit status 2 if they are more.", v: sizeValue{&c.CostAtMost, 0, 1 << 30}},
	}
}

// Points are the numbers of connections at which memory is read; the scenario
// is valid.
func (c *Connections) Points() []int {
	if steps, _ := parseSteps(c.Steps); len(steps) > 0 {
		return steps
	}
	return conns.Steps(c.Count)
}

func parseSteps(s string) ([]int, error) {
	if s == "" {
		return nil, nil
	}
	var steps []int
	for f := range strings.SplitSeq(s, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(f))
		if err != nil {
			return nil, fmt.Errorf("%s: want numbers between commas, such as 1000,5000,10000", document.Quoted(s))
		}
		steps = append(steps, n)
	}
	return steps, conns.CheckSteps(steps)
}

func (s *Scenario) checkConnections(src *source) {
	if steps, err := parseSteps(s.Connections.Steps); err == nil && len(steps) > 0 && steps[len(steps)-1] != s.Connections.Count {
		src.bad("connections.steps", "the last is %d: want count, %d", steps[len(steps)-1], s.Connections.Count)
	}
	if len(s.Topics) != 1 {
		src.bad("topics", "%d of them: connections subscribe one", len(s.Topics))
	}
}
