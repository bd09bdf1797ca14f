package selftest

import (
	"context"
	"fmt"
	"time"

	"github.com/portask/portask/loadgen/driver/loopback"
	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/pace"
)

const (
	// slowRate leaves 0.25 ms between messages: a pause of 5 ms is felt by the
	// twenty messages that are due in it, each by a quarter of a millisecond less
	// than the one before. That is less than the tolerance: where other messages
	// are late too, the quantiles move by one such step.
	slowRate  = 4_000
	slowFor   = 5 * time.Millisecond
	slowEvery = 100
	stallRate = 1_000
	// Tolerance of a quantile: a part of what is expected, and what a timer and
	// a switch between goroutines cost.
	toleranceShare = 0.03
	toleranceTime  = 300 * time.Microsecond
)

// latencies are checks of quantiles.
func latencies(o *Options) []check {
	return []check{
		timed("slow", fmt.Sprintf("%v on 1 %% of the requests", slowFor), slowRate, 2*o.Length, loopback.Behaviour{Slow: slowFor, SlowEvery: slowEvery}),
		timed("stall", fmt.Sprintf("stalls for %v", o.Stall), stallRate, o.Stall+o.Length, loopback.Behaviour{Stall: o.Stall, StallAt: o.Length / 2}),
	}
}

// timed loads a target that pauses and compares the quantiles from the intended
// times with those that follow from the pauses as the target timed them.
func timed(name, target string, rate float64, length time.Duration, b loopback.Behaviour) check {
	return func(ctx context.Context, c *Check, h *host) error {
		c.Name, c.Target = name, target
		d := sink(b)
		res, err := execute(ctx, plan(length, rate, "100B"), d, nil)
		if err != nil {
			return err
		}
		idle, err := h.settle(c)
		if err != nil {
			return err
		}
		did := d.Did()
		if did.Paused == 0 || did.Paused != uint64(len(did.Pauses)) {
			c.decide(Fail, "the target paused %d times", did.Paused)
			return nil
		}
		want := expected(int(did.Served), time.Duration(1e9/rate), did.Pauses)
		c.quantiles(want, res, toleranceTime, toleranceTime, idle)
		return nil
	}
}

// expected are the latencies of n messages, one each interval, in a queue before
// one server that takes no time but for the pauses, each of which holds up the
// messages First to Message: Lindley's recursion.
func expected(n int, interval time.Duration, pauses []loopback.Pause) load.Quantiles {
	h := pace.NewHistogram()
	free := time.Duration(0) // when the server is
	next := 1                // message
	for _, p := range pauses {
		first, last := int(p.First), int(p.Message)
		for ; next < first && next <= n; next++ {
			at := time.Duration(next-1) * interval
			free = max(free, at)
			h.RecordValue(int64(free - at))
		}
		// What waits in the same load is there when the pause begins, and answered
		// when the load is.
		free = max(free, time.Duration(min(first, last)-1)*interval, time.Duration(next-1)*interval) + p.Took
		for ; next <= last && next <= n; next++ {
			h.RecordValue(int64(max(0, free-time.Duration(next-1)*interval)))
		}
	}
	for ; next <= n; next++ {
		at := time.Duration(next-1) * interval
		free = max(free, at)
		h.RecordValue(int64(free - at))
	}
	return load.Summarise(h)
}

// quantiles compares p99 and p99.9 of e2e. Below what is expected is a failure
// whatever the machine does: time that passed was not seen. Above it is one if
// the machine was idle. less and more are the tolerance beside toleranceShare.
func (c *Check) quantiles(want load.Quantiles, res *load.Result, less, more time.Duration, idle bool) {
	m := measured(res)
	got, lag := m.Total.Latency.E2E, m.Total.Latency.Lag
	c.Expected, c.Found = inWords(want), inWords(got)
	c.Figures = map[string]float64{
		"expected_p99_ns": float64(want.P99), "expected_p99_9_ns": float64(want.P999), "found_p99_ns": float64(got.P99), "found_p99_9_ns": float64(got.P999),
		"tolerance_below_ns": float64(less), "tolerance_above_ns": float64(more), "tolerance_share": toleranceShare, "lag_p99_ns": float64(lag.P99), "messages": float64(got.Count),
	}
	c.Verdict = Pass
	for _, q := range []struct {
		name      string
		want, got int64
	}{{"p99", want.P99, got.P99}, {"p99.9", want.P999, got.P999}} {
		off := float64(q.got - q.want)
		within := fmt.Sprintf("%s: expected %v, found %v, tolerance %g %% and -%v +%v", q.name, short(q.want), short(q.got), 100*toleranceShare, less, more)
		switch {
		case off < -toleranceShare*float64(q.want)-float64(less):
			c.decide(Fail, "%s", within)
			return
		case off <= toleranceShare*float64(q.want)+float64(more):
		case idle:
			c.decide(Fail, "%s", within)
			return
		default:
			c.decide(Inconclusive, "%s; others took %.0f %% of the processors, dispatch lag p99 %v", within, 100*c.Others, short(lag.P99))
		}
	}
	if c.Verdict == Pass && !res.Valid() {
		c.decide(Inconclusive, "the run is invalid: %s", res.Invalid[0])
	}
}

func inWords(q load.Quantiles) string {
	return fmt.Sprintf("p99 %v, p99.9 %v", short(q.P99), short(q.P999))
}

// short rounds to what can be read.
func short(ns int64) time.Duration {
	d := time.Duration(ns)
	switch {
	case d > time.Second:
		return d.Round(time.Millisecond)
	case d > time.Millisecond:
		return d.Round(10 * time.Microsecond)
	}
	return d.Round(100 * time.Nanosecond)
}
