package selftest

import (
	"context"
	"fmt"
	"strings"

	"github.com/portask/portask/loadgen/driver/loopback"
	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/verify"
)

// defects are checks by counts: each is exact, whatever the machine does.
func defects(o *Options) []check {
	one := fmt.Sprintf("one message in %d", o.Every)
	return []check{
		counted(o, "healthy", "faultless", loopback.Behaviour{}, func(loopback.Did) verify.Counts { return verify.Counts{} }),
		counted(o, "drop", one+" dropped", loopback.Behaviour{DropEvery: o.Every}, func(d loopback.Did) verify.Counts { return verify.Counts{Lost: d.Dropped} }),
		counted(o, "duplicate", one+" delivered twice", loopback.Behaviour{DuplicateEvery: o.Every}, func(d loopback.Did) verify.Counts { return verify.Counts{Duplicated: d.Duplicated} }),
		counted(o, "reorder", one+" after its successor", loopback.Behaviour{ReorderEvery: o.Every}, func(d loopback.Did) verify.Counts { return verify.Counts{Reordered: d.Reordered} }),
		// What a flipped bit spoils was acknowledged and did not arrive as sent: it
		// counts as corrupt and as lost.
		counted(o, "flip", one+" with one bit flipped", loopback.Behaviour{FlipEvery: o.Every}, func(d loopback.Did) verify.Counts {
			return verify.Counts{Corrupt: d.Flipped, Lost: d.Flipped}
		}),
		counted(o, "refuse", one+" refused and delivered", loopback.Behaviour{RefuseEvery: o.Every}, func(d loopback.Did) verify.Counts {
			return verify.Counts{Failed: d.Refused, UnackedDelivered: d.Refused}
		}),
	}
}

// counted floods a target and compares the run's counts with what follows from
// what the target says it did.
func counted(o *Options, name, target string, b loopback.Behaviour, want func(loopback.Did) verify.Counts) check {
	return func(ctx context.Context, c *Check, h *host) error {
		c.Name, c.Target = name, target
		d := sink(b)
		s := flood(o.Length, 2)
		res, err := execute(ctx, s, d, nil)
		if err != nil {
			return err
		}
		if _, err := h.settle(c); err != nil {
			return err
		}
		did := d.Did()
		c.compare(want(did), found(res))
		c.Figures["sent"] = float64(res.Counts.Sent)
		c.Found = fmt.Sprintf("%s of %d", c.Found, res.Counts.Sent)
		faulty := b != loopback.Behaviour{}
		switch {
		case faulty && did.Served != res.Counts.Sent:
			c.decide(Fail, "the target served %d messages, the run counts %d", did.Served, res.Counts.Sent)
		case faulty && did.Dropped+did.Duplicated+did.Reordered+did.Flipped+did.Refused == 0:
			c.decide(Inconclusive, "too few messages were sent for a defect: %d", did.Served)
		case res.Counts.Unanswered > 0:
			c.decide(Fail, "%d messages without an answer", res.Counts.Unanswered)
		}
		return nil
	}
}

// found are a run's counts of what went wrong. A value whose first bytes are
// spoilt is beyond recognition and counts as nobody's: as corrupt, here.
func found(res *load.Result) verify.Counts {
	x := res.Counts
	return verify.Counts{
		Failed: x.Failed, Lost: x.Lost, Duplicated: x.Duplicated, Reordered: x.Reordered, Corrupt: x.Corrupt + x.Phantom,
		Foreign: x.Foreign, Misplaced: x.Misplaced, UnackedDelivered: x.UnackedDelivered,
	}
}

// compare passes if both are the same.
func (c *Check) compare(want, got verify.Counts) {
	c.Expected, c.Found, c.Figures = words(want), words(got), map[string]float64{}
	for name, v := range named(want) {
		c.Figures["expected_"+name] = float64(v)
	}
	for name, v := range named(got) {
		c.Figures["found_"+name] = float64(v)
	}
	c.Verdict = Pass
	if want != got {
		c.decide(Fail, "expected %s, found %s", c.Expected, c.Found)
	}
}

var countNames = []string{"lost", "duplicated", "reordered", "corrupt", "foreign", "misplaced", "failed", "unacked_delivered"}

func named(x verify.Counts) map[string]uint64 {
	v := []uint64{x.Lost, x.Duplicated, x.Reordered, x.Corrupt, x.Foreign, x.Misplaced, x.Failed, x.UnackedDelivered}
	out := map[string]uint64{}
	for i, name := range countNames {
		if v[i] > 0 {
			out[name] = v[i]
		}
	}
	return out
}

func words(x verify.Counts) string {
	all := named(x)
	var out []string
	for _, name := range countNames {
		if all[name] > 0 {
			out = append(out, fmt.Sprintf("%d %s", all[name], strings.ReplaceAll(name, "_", " ")))
		}
	}
	if len(out) == 0 {
		return "nothing wrong"
	}
	return strings.Join(out, ", ")
}
