package selftest

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/portask/portask/loadgen/driver/loopback"
	"github.com/portask/portask/loadgen/load"
)

// speeds are what the generator can do by itself.
func speeds(o *Options) []check {
	return []check{throughput(o), allocations(o), dispatch(o)}
}

// throughput is by processor time, which other programs disturb less than they
// do a clock on the wall.
func throughput(o *Options) check {
	return func(ctx context.Context, c *Check, h *host) error {
		c.Name, c.Target = "throughput", "null sink, 1 KiB, closed loop"
		c.Expected = fmt.Sprintf("at least %d msg/s per core", ThroughputLeast)
		res, err := execute(ctx, flood(o.Length, 1), sink(loopback.Behaviour{}), nil)
		if err != nil {
			return err
		}
		idle, err := h.settle(c)
		if err != nil {
			return err
		}
		rate := float64(res.Counts.Delivered) / res.Generator.CPUSeconds
		wall := 0.0
		if res.Measured != nil {
			wall = res.Measured.Total.Delivered
		}
		c.Found = fmt.Sprintf("%.0f msg/s per core (%.0f ns of processor time each; %.0f msg/s by the clock)", rate, 1e9/rate, wall)
		c.Figures = map[string]float64{"messages_per_core_second": rate, "messages_per_second": wall, "messages": float64(res.Counts.Delivered)}
		c.Verdict = Pass
		switch {
		case res.Counts.Violations() > 0 || res.Counts.Delivered != res.Counts.Sent:
			c.decide(Fail, "counts %+v", res.Counts)
		case rate < ThroughputLeast && !idle:
			c.decide(Inconclusive, "others took %.0f %% of the processors", 100*c.Others)
		case rate < ThroughputLeast:
			c.decide(Slow, "%.0f msg/s per core, target %d", rate, ThroughputLeast)
		}
		return nil
	}
}

// allocations are by the difference of two runs, one longer than the other: what
// both need to begin falls out.
func allocations(o *Options) check {
	return func(ctx context.Context, c *Check, h *host) error {
		c.Name, c.Target, c.Expected = "allocations", "null sink, 1 KiB, closed loop", "0 a message"
		run := func(length time.Duration) (mallocs, messages float64, err error) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			res, err := execute(ctx, flood(length, 1), sink(loopback.Behaviour{}), nil)
			if err != nil {
				return 0, 0, err
			}
			runtime.ReadMemStats(&after)
			return float64(after.Mallocs - before.Mallocs), float64(res.Counts.Sent), nil
		}
		few, n, err := run(o.Length / 4)
		if err != nil {
			return err
		}
		many, m, err := run(o.Length)
		if err != nil {
			return err
		}
		if _, err := h.settle(c); err != nil {
			return err
		}
		if m <= n {
			c.decide(Inconclusive, "the longer run sent %.0f messages, the shorter %.0f", m, n)
			return nil
		}
		each := max(0, (many-few)/(m-n))
		c.Found = fmt.Sprintf("%.4f a message", each)
		c.Figures = map[string]float64{"allocations_per_message": each, "messages": m}
		c.Verdict = Pass
		if each > AllocationsMost {
			c.decide(Slow, "%.3f allocations a message, at most %g is what a run's own buffers explain", each, AllocationsMost)
		}
		return nil
	}
}

// dispatch is how late the pacer is.
func dispatch(o *Options) check {
	return func(ctx context.Context, c *Check, h *host) error {
		c.Name, c.Target = "dispatch lag", fmt.Sprintf("null sink, %d sends a second", LagRate)
		c.Expected = fmt.Sprintf("p99 at most %v on an idle machine", LagMost)
		res, err := execute(ctx, plan(o.Length, LagRate, "1KiB"), sink(loopback.Behaviour{}), nil)
		if err != nil {
			return err
		}
		idle, err := h.settle(c)
		if err != nil {
			return err
		}
		m := measured(res)
		lag := m.Total.Latency.Lag
		c.Found = fmt.Sprintf("p99 %v, p50 %v", short(lag.P99), short(lag.P50))
		c.Figures = map[string]float64{"p50_ns": float64(lag.P50), "p99_ns": float64(lag.P99), "max_ns": float64(lag.Max)}
		c.Verdict = Pass
		switch late := time.Duration(lag.P99) > LagMost; {
		case late && !idle:
			c.decide(Inconclusive, "others took %.0f %% of the processors%s", 100*c.Others, invalid(res))
		case late:
			c.decide(Slow, "p99 %v, target %v%s", short(lag.P99), LagMost, invalid(res))
		}
		return nil
	}
}

// invalid says in a half sentence whether a run is.
func invalid(res *load.Result) string {
	if res.Valid() {
		return ""
	}
	return "; the run declares itself INVALID: " + res.Invalid[0].String()
}
