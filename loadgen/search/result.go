package search

import (
	"fmt"
	"math"
	"slices"

	"github.com/portask/portask/loadgen/trend"
)

// Schema is the version of Result as JSON. Fields are added without changing
// it.
const Schema = 1

// Result of a search.
type Result struct {
	Schema   int    `json:"schema"`
	Scenario string `json:"scenario,omitempty"` // set by the caller, as are the two below
	Hash     string `json:"scenario_hash,omitempty"`
	System   string `json:"system,omitempty"`
	// Objective in words: "e2e_p99 at most 1ms".
	Objective string  `json:"objective"`
	Seconds   float64 `json:"seconds"`

	Outcome Outcome `json:"outcome"`
	// Value is the highest sustainable rate, in messages a second: Found, and
	// confirmed; AtLeast: the highest that was allowed. Otherwise 0.
	Value float64 `json:"value_per_s"`
	// Refuted is the next rate that fails, Resolution what lies between: with
	// Found, Refuted = Value (1 + Resolution).
	Refuted    float64 `json:"refuted_per_s"`
	Resolution float64 `json:"resolution"`
	// Limited is the rate at which the generator was the limit.
	Limited float64 `json:"generator_limit_per_s,omitempty"`
	Reason  string  `json:"reason,omitempty"` // of any other outcome

	Points []Point `json:"points"` // in the order in which they were probed
	Curve  []Level `json:"curve"`  // by rate
}

// Level is what all probes of one rate say together: medians of their figures.
type Level struct {
	Offered  float64 `json:"offered_per_s"`
	Achieved float64 `json:"achieved_per_s"`
	P50      int64   `json:"p50_ns"`
	P99      int64   `json:"p99_ns"`
	P999     int64   `json:"p99_9_ns"` // 0: no probe had enough messages for one
	Backlog  float64 `json:"backlog_slope_per_s"`
	Passed   int     `json:"passed"`
	Failed   int     `json:"failed"`
	Invalid  int     `json:"invalid"`
}

// Result is what is known; the search may still go on.
func (s *Search) Result() *Result {
	r := &Result{Schema: Schema, Outcome: s.outcome, Reason: s.reason, Limited: s.limited, Points: s.points, Curve: curve(s.points)}
	switch s.outcome {
	case Found:
		r.Value, r.Refuted = s.rate(s.value), s.rate(s.above)
		r.Resolution = r.Refuted/r.Value - 1
	case AtLeast:
		r.Value = s.rate(s.value)
	}
	return r
}

// curve puts points together by rate, lowest first. Invalid ones are counted
// only.
func curve(points []Point) []Level {
	by := map[float64][]Point{}
	for _, p := range points {
		by[p.Offered] = append(by[p.Offered], p)
	}
	var out []Level
	for rate, all := range by {
		l := Level{Offered: rate}
		var achieved, p50, p99, p999, backlog []float64
		for _, p := range all {
			switch p.Verdict {
			case Pass:
				l.Passed++
			case Fail:
				l.Failed++
			default:
				l.Invalid++
				continue
			}
			achieved, backlog = append(achieved, p.Achieved), append(backlog, p.Backlog)
			p50, p99 = append(p50, float64(p.P50)), append(p99, float64(p.P99))
			if p.P999 > 0 {
				p999 = append(p999, float64(p.P999))
			}
		}
		l.Achieved, l.Backlog = trend.Median(achieved), trend.Median(backlog)
		l.P50, l.P99, l.P999 = int64(trend.Median(p50)), int64(trend.Median(p99)), int64(trend.Median(p999))
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b Level) int {
		if a.Offered < b.Offered {
			return -1
		}
		return 1
	})
	return out
}

// Violated reports whether the system broke a promise in some probe.
func (r *Result) Violated() bool {
	return slices.ContainsFunc(r.Points, func(p Point) bool { return len(p.Violations) > 0 })
}

// ExitStatus is what a command ends with: 4 for a broken promise, 3 where there
// is no number, 2 if even the lowest rate fails.
func (r *Result) ExitStatus() int {
	switch {
	case r.Violated():
		return 4
	case r.Outcome == Below:
		return 2
	case r.Outcome != Found && r.Outcome != AtLeast:
		return 3
	}
	return 0
}

// String says the outcome in a sentence.
func (r *Result) String() string {
	n := len(r.Points)
	switch r.Outcome {
	case Found:
		return fmt.Sprintf("%s messages a second are sustained with %s; %s are not (resolution %.1f %%, %d probes)",
			round(r.Value), r.Objective, round(r.Refuted), 100*r.Resolution, n)
	case AtLeast:
		return fmt.Sprintf("%s messages a second, the most that was allowed, are sustained with %s (%d probes)", round(r.Value), r.Objective, n)
	case Below:
		return fmt.Sprintf("not even the lowest rate is sustained with %s: %s (%d probes)", r.Objective, r.Reason, n)
	case Generator:
		return fmt.Sprintf("the generator was the limit at %s messages a second: %s (%d probes)", round(r.Limited), r.Reason, n)
	}
	return fmt.Sprintf("no result: %s (%d probes)", r.Reason, n)
}

// round writes a rate with three digits.
func round(v float64) string {
	if v <= 0 {
		return "0"
	}
	unit := math.Pow(10, math.Floor(math.Log10(v))-2)
	return fmt.Sprintf("%.0f", math.Round(v/unit)*unit)
}
