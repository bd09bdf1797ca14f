package load

import (
	"fmt"
	"strings"
	"time"

	"github.com/portask/portask/loadgen/scenario"
)

const (
	// lagShare: a generator later than this part of what it reports is what it
	// measured.
	lagShare = 0.1
	// rateShare: of the offered rate may be missed.
	rateShare = 0.005
	// generatorShare of the processors: above it the generator may be the limit.
	generatorShare = 0.8
)

// judge fills Violations, Invalid and Missed, and takes the measurements of an
// invalid run away.
func (res *Result) judge(s *scenario.Scenario) {
	res.violations()
	res.validity()
	if !res.Valid() {
		res.Measured, res.Rejected = nil, res.Measured
		return
	}
	res.objectives(s)
}

// JudgeShared fills the verdicts of a result that was put together from those of
// several processes: each of them judged whether it was itself the limit, and
// invalid is what they and their coordinator found.
func (res *Result) JudgeShared(s *scenario.Scenario, invalid []Problem) {
	res.Violations, res.Invalid, res.Missed = nil, invalid, nil
	res.violations()
	if !res.Valid() {
		res.Measured, res.Rejected = nil, res.Measured
		return
	}
	res.objectives(s)
}

func (res *Result) violations() {
	c := res.Counts
	violated := func(n uint64, kind, what string) {
		if n > 0 {
			res.Violations = append(res.Violations, Problem{Kind: kind, Text: fmt.Sprintf("%d %s", n, what)})
		}
	}
	if res.Ack != "none" { // nothing is promised there
		violated(c.Lost, Lost, "acknowledged and not delivered")
	}
	violated(c.Duplicated, Duplicated, "delivered more than once")
	violated(c.Reordered, Reordered, "delivered out of order")
	violated(c.Corrupt, Corrupt, "corrupt")
	violated(c.Phantom, Phantom, "delivered that were never sent")
	violated(c.Misplaced, Misplaced, "delivered by another partition")
	violated(res.OffsetsBack, OffsetUsed, "delivered at an offset already used")
}

func (res *Result) validity() {
	invalid := func(kind, phase, format string, args ...any) {
		res.Invalid = append(res.Invalid, Problem{kind, phase, fmt.Sprintf(format, args...)})
	}
	c := res.Counts
	if res.Interrupted {
		invalid(Interrupted, "", "interrupted")
		return
	}
	switch {
	case res.Complete:
	case c.Unanswered == 0 && c.Lost == 0: // the target is gone
		invalid(Unsettled, "", "what is stored could not be read to its end when the drain gave up: %d messages were given up by the client, and %d of them are known to have arrived", c.Failed, c.UnackedDelivered)
	default:
		invalid(Unsettled, "", "%d messages without an answer and %d acknowledged but not delivered when the drain gave up", c.Unanswered, c.Lost)
	}
	if c.Delivered == 0 {
		invalid(Empty, "", "nothing was delivered")
	}
	if res.Loop != scenario.OpenLoop {
		return
	}
	for i := range res.Measured.Phases {
		p := &res.Measured.Phases[i]
		if !p.Measured {
			continue
		}
		l := &p.Latency
		if reported := l.reported(); l.Late() {
			invalid(DispatchLag, p.Name, "the generator's dispatch lag, p99 %v, is %.0f %% of the p99 it would report, more than %.0f %%",
				time.Duration(l.Lag.P99), 100*float64(l.Lag.P99)/float64(reported), 100*lagShare)
		}
		// One message may lie on each end of the phase.
		if p.Sent*p.Seconds < p.Offered*p.Seconds*(1-rateShare)-2 {
			kind, why := RateMissed, "the generator did not keep up"
			if p.HeldBack > 0 {
				kind, why = Saturated, fmt.Sprintf("the target held %d messages back, the longest for %v", p.HeldBack, time.Duration(p.HeldBackMax))
			}
			invalid(kind, p.Name, "%.0f messages a second were sent of %.0f offered: %s", p.Sent, p.Offered, why)
		}
	}
	if g := &res.Generator; g.Share > generatorShare {
		invalid(BusyCPU, "", "the generator's work took %.0f %% of the processors", 100*g.Share)
	}
}

// reported is the p99 that the lag is held against.
func (l *Latencies) reported() int64 { return min(l.E2E.P99, l.Ack.P99) }

// Late reports whether the generator's dispatch lag is so much of what would be
// reported that the latencies are no result.
func (l *Latencies) Late() bool {
	reported := l.reported()
	return reported > 0 && float64(l.Lag.P99) > lagShare*float64(reported)
}

// objectives judges a valid run.
func (res *Result) objectives(s *scenario.Scenario) {
	for i := range s.Objectives {
		o := &s.Objectives[i]
		p := res.Measured.phase(o.Phase)
		if p == nil {
			continue // the scenario was validated: there is one
		}
		missed := func(format string, args ...any) {
			res.Missed = append(res.Missed, Problem{o.Metric, o.Phase, fmt.Sprintf(format, args...)})
		}
		switch o.Metric {
		case "delivered_rate", "acked_rate":
			got := p.Delivered
			if o.Metric == "acked_rate" {
				got = p.Acked
			}
			if got < o.AtLeast {
				missed("%s %.0f messages a second, objective %.0f", o.Metric, got, o.AtLeast)
			}
		default:
			if got := time.Duration(p.Latency.Metric(o.Metric)); got > o.AtMost {
				missed("%s %v, objective %v", o.Metric, got, o.AtMost)
			}
			if q, at := p.Latency.of(o.Metric); at == "p99" && !q.Enough(0.99) || at == "p99_9" && !q.Enough(0.999) {
				res.Notes = append(res.Notes, fmt.Sprintf("%s is of %d values: fewer than %d of them lie beyond it", o.Metric, q.Count, tailCount))
			}
		}
	}
}

// phase is the one of that name, the total for an empty name.
func (m *Measured) phase(name string) *Phase {
	if name == "" {
		return &m.Total
	}
	for i := range m.Phases {
		if m.Phases[i].Name == name {
			return &m.Phases[i]
		}
	}
	return nil
}

// Metric is the value of an objective's metric, ns: e2e_p99.
func (l *Latencies) Metric(name string) int64 {
	q, quantile := l.of(name)
	return map[string]int64{"p50": q.P50, "p90": q.P90, "p99": q.P99, "p99_9": q.P999, "max": q.Max}[quantile]
}

// of is the latency of an objective's metric, and which quantile of it.
func (l *Latencies) of(metric string) (q *Quantiles, quantile string) {
	of, quantile, _ := strings.Cut(metric, "_")
	return map[string]*Quantiles{"e2e": &l.E2E, "ack": &l.Ack, "service": &l.Service}[of], quantile
}

// ExitStatus is what a command ends with: 4 for a violation, 3 for an invalid
// run, 2 for a missed objective, 0 otherwise. Data come before validity, and
// validity before objectives, since an invalid run cannot miss one.
func (res *Result) ExitStatus() int {
	switch {
	case len(res.Violations) > 0:
		return 4
	case len(res.Invalid) > 0:
		return 3
	case len(res.Missed) > 0:
		return 2
	}
	return 0
}
