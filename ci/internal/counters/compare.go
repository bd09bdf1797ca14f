package counters

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/portask/portask/ci/lab"
	"github.com/portask/portask/ci/verdict"
)

// Limits by which a count may grow, as shares of the base. They are not there
// for noise of the machine, which counts do not have, but for what a count
// itself varies by: a loop that now and then finds two events instead of one.
const (
	limitCalls        = 0.005 // system calls, syncs, allocations, bytes on the wire
	limitInstructions = 0.01  // callgrind repeats to 0.1 %
	limitStatements   = 0.01
	limitBytes        = 0.01 // heap, disk
)

// repeats of each count: all must agree before one fails. Of counts that vary at
// all, chance alone sets three apart from three in one case of 20, so what fails
// is counted afresh, confirmRepeats times a side, which chance sets apart in one
// case of 924; only then does it fail.
const (
	repeats        = 3
	confirmRepeats = 6
)

// clockSyncs a batch are those that the broker's clock asks for while batches
// are counted one at a time: a slower run has more of them.
const clockSyncs = 0.05

// decide holds repeated counts of the head against those of the base. It fails
// only if the least of the head's is beyond the limit over the greatest of the
// base's: every repetition agrees.
func decide(name, unit string, base, head []float64, limit float64) verdict.Counter {
	return decideBeyond(0, name, unit, base, head, limit)
}

// decideBeyond is decide with slack, in the count's unit, for what is not the
// change's doing.
func decideBeyond(slack float64, name, unit string, base, head []float64, limit float64) verdict.Counter {
	c := verdict.Counter{Name: name, Unit: unit, Limit: limit, Decision: verdict.Skipped}
	if len(base) == 0 || len(head) == 0 {
		c.Reason = "not counted on both sides"
		return c
	}
	c.Base, c.Head, c.Decision = middle(base), middle(head), verdict.Pass
	if least, most := slices.Min(head), slices.Max(base); least > most*(1+limit)+slack+1e-9 {
		c.Decision = verdict.Fail
		c.Reason = fmt.Sprintf("%.4g %s, was %.4g; at most %g %% more is allowed", c.Head, unit, c.Base, 100*limit)
	}
	return c
}

func middle(values []float64) float64 {
	x := slices.Sorted(slices.Values(values))
	return x[len(x)/2]
}

// Tree is one side of a comparison.
type Tree struct {
	// Root of its files.
	Root string
	// Lab has the side's broker and, on both sides, the head's lean clients.
	Lab *lab.Lab
	// Loadgen is the side's own, whose Go client makes the bytes on the wire;
	// empty if it cannot be built.
	Loadgen string
}

// Compare counts on both sides. What a side cannot do, because the tool is
// missing or the base has no such benchmark, is Skipped with the reason. out
// receives a line for each count.
func Compare(ctx context.Context, base, head Tree, out io.Writer) ([]verdict.Counter, error) {
	var all []verdict.Counter
	for _, part := range []func(context.Context, Tree, Tree) ([]verdict.Counter, error){compareBudgets, compareSteps, compareWire, compareWork} {
		got, err := part(ctx, base, head)
		if err != nil {
			return all, err
		}
		for _, c := range got {
			fmt.Fprintln(out, Line(c))
		}
		all = append(all, got...)
	}
	return all, nil
}

// Line is a counter on one line.
func Line(c verdict.Counter) string {
	s := fmt.Sprintf("%-12s %-60s %12.6g %12.6g %s", c.Decision, c.Name, c.Base, c.Head, c.Unit)
	if c.Reason != "" {
		s += "  " + c.Reason
	}
	return s
}

// compareBudgets counts the whole broker's allocations.
func compareBudgets(ctx context.Context, base, head Tree) ([]verdict.Counter, error) {
	of := func(t Tree) (map[string][]float64, error) {
		values, err := Measure(ctx, t.Root, Budgets, io.Discard)
		got := make(map[string][]float64)
		for _, v := range values {
			got[v.Bench] = append(got[v.Bench], v.Value)
		}
		return got, err
	}
	h, err := of(head)
	if err != nil {
		return nil, err
	}
	b, err := of(base)
	if err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		return []verdict.Counter{{Name: "allocs/batch", Decision: verdict.Skipped, Reason: "the base cannot: " + err.Error()}}, nil
	}
	var out []verdict.Counter
	for _, s := range Budgets {
		// Fractions of an allocation a batch come from what is amortised over many;
		// a whole new one in every batch is what must not be.
		out = append(out, decide(s.Unit+" "+s.Bench, s.Unit, ceilings(b[s.Bench]), ceilings(h[s.Bench]), limitCalls))
	}
	return out, nil
}

// ceilings rounds to the next half: 0.10 and 0.14 allocations a batch are both
// "hardly any".
func ceilings(values []float64) []float64 {
	out := make([]float64, len(values))
	for i, v := range values {
		for out[i] < v {
			out[i] += 0.5
		}
	}
	return out
}

// stepBatches is how many batches are counted, one after the other.
const stepBatches = 400

// compareSteps counts what the broker asks of the operating system for a batch.
func compareSteps(ctx context.Context, base, head Tree) ([]verdict.Counter, error) {
	var out []verdict.Counter
	for _, v := range []lab.Variant{lab.Accepted, lab.Durable} {
		got, err := countSteps(ctx, base, head, v, repeats)
		if err == nil && slices.ContainsFunc(got, failed) {
			got, err = countSteps(ctx, base, head, v, confirmRepeats)
		}
		if errors.Is(err, lab.ErrNoCounter) {
			return []verdict.Counter{{Name: "syscalls/batch", Decision: verdict.Skipped, Reason: err.Error()}}, nil
		}
		if err != nil {
			return nil, err
		}
		out = append(out, got...)
	}
	return out, nil
}

func failed(c verdict.Counter) bool { return c.Decision == verdict.Fail }

// countSteps counts one variant n times a side, in turns.
func countSteps(ctx context.Context, base, head Tree, v lab.Variant, n int) ([]verdict.Counter, error) {
	var calls, syncs, disk [2][]float64
	for range n {
		for side, t := range []Tree{base, head} {
			s, err := t.Lab.Steps(ctx, v, stepBatches)
			if err != nil {
				return nil, err
			}
			calls[side], syncs[side] = append(calls[side], s.Calls), append(syncs[side], s.Syncs)
			disk[side] = append(disk[side], s.DiskBytes)
		}
	}
	of := " one batch at a time, ack=" + v.Ack
	return []verdict.Counter{
		decide("syscalls/batch"+of, "syscalls/batch", calls[0], calls[1], limitCalls),
		decideBeyond(clockSyncs, "syncs/batch"+of, "syncs/batch", syncs[0], syncs[1], limitCalls),
		decide("disk-B/msg"+of, "B/msg", disk[0], disk[1], limitBytes),
	}, nil
}

// compareWire counts what the Go client puts on the wire for a message.
func compareWire(ctx context.Context, base, head Tree) ([]verdict.Counter, error) {
	const name, unit = "wire-B/msg client, JSON of 1 KiB, full batches", "B/msg"
	for _, t := range []Tree{base, head} {
		if t.Loadgen == "" {
			return []verdict.Counter{{Name: name, Unit: unit, Limit: limitCalls, Decision: verdict.Skipped, Reason: "the load generator in " + t.Root + " cannot be built"}}, nil
		}
	}
	var bytes [2][]float64
	for range repeats {
		for side, t := range []Tree{base, head} {
			l := *t.Lab
			l.Loadgen = t.Loadgen
			r, err := l.RunLoad(ctx, lab.Wire)
			if err != nil && side == 0 && ctx.Err() == nil {
				return []verdict.Counter{{Name: name, Unit: unit, Limit: limitCalls, Decision: verdict.Skipped, Reason: "the base cannot: " + err.Error()}}, nil
			}
			if err != nil {
				return nil, err
			}
			bytes[side] = append(bytes[side], r.WirePerMsg)
		}
	}
	return []verdict.Counter{decide(name, unit, bytes[0], bytes[1], limitCalls)}, nil
}
