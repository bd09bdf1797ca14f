package selftest

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/portask/portask/ci/bench"
	"github.com/portask/portask/ci/gate"
	"github.com/portask/portask/ci/internal/jsonl"
	"github.com/portask/portask/ci/sample"
	"github.com/portask/portask/ci/trial"
	"github.com/portask/portask/ci/verdict"
)

// Options of a campaign.
type Options struct {
	// Repo is the repository whose benchmarks are used; Commit is the revision.
	Repo, Commit string
	// Dir keeps the campaign.
	Dir string
	// Plan has suite, slices, pairs and layouts; its revisions, edits, controls
	// and seed are the campaign's.
	Plan bench.Plan
	// Want is how many gates of each kind shall be done in all.
	Want map[Kind]int
	// Percent of CPU.
	Percent float64
	Seed    uint64
	// Budget of the rounds of one gate.
	Budget time.Duration
	// Until is when no further gate begins; zero is never.
	Until    time.Time
	Progress func(string)
}

// tailLeast is the least time of an operation, in nanoseconds, that is long
// enough for the tail: with shorter ones, a slice of ten milliseconds would
// sleep for seconds.
const tailLeast = 20e3

// counterBudget is for the rounds of a gate whose injection a counter must
// find: noise does not touch it, so a few rounds do.
const counterBudget = 8 * time.Second

// Run begins gates until there are as many of each kind as wanted, the kind
// that lacks most first. What earlier runs did counts. It returns nil if all
// are done, or at Options.Until.
func Run(ctx context.Context, o Options) error {
	c := &campaign{Options: o, log: filepath.Join(o.Dir, GatesFile)}
	var err error
	if c.gates, err = ReadGates(o.Dir); err != nil {
		return err
	}
	if err := c.find(ctx); err != nil {
		return err
	}
	for {
		kind, ok := c.next()
		if !ok {
			return nil
		}
		if !o.Until.IsZero() && time.Now().After(o.Until) {
			o.Progress("out of time; run again to go on")
			return nil
		}
		if err := c.one(ctx, kind); err != nil {
			return err
		}
	}
}

type campaign struct {
	Options
	log   string
	gates []Gate
	// benches are the suite's, with the entry that selects each and the time of
	// an operation.
	benches []target
}

type target struct {
	bench sample.Bench
	entry bench.Entry
	ns    float64
}

// find asks for the suite's benchmarks, and how long each takes.
func (c *campaign) find(ctx context.Context) error {
	for _, e := range c.Plan.Suite.Entries {
		plan := c.Plan
		plan.Repo, plan.Base, plan.Head, plan.Controls = c.Repo, c.Commit, c.Commit, -1
		plan.Suite.Entries = []bench.Entry{e}
		plan.Pairs = 2
		err := func() (err error) {
			s, err := bench.Prepare(ctx, plan, nil)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.Close()) }()
			subjects := s.Benches()
			if len(subjects) != 1 {
				return fmt.Errorf("entry %s %s %s selects %d benchmarks, must be 1", e.Module, e.Package, e.Match, len(subjects))
			}
			r, err := s.Round(ctx, subjects[0], sample.Screen)
			if err != nil {
				return err
			}
			p := r.Pairs[0].Base
			c.benches = append(c.benches, target{subjects[0].Bench, e, float64(p.Ns) / float64(p.N)})
			return nil
		}()
		if err != nil {
			return err
		}
	}
	if len(c.benches) == 0 {
		return errors.New("the suite is empty")
	}
	return nil
}

func (c *campaign) done(k Kind) (n int) {
	for _, g := range c.gates {
		if g.Kind == k && g.State == done {
			n++
		}
	}
	return n
}

// next is the kind of which the least part is done.
func (c *campaign) next() (Kind, bool) {
	var best Kind
	least := 1.0
	for _, k := range Kinds {
		if c.Want[k] <= 0 {
			continue
		}
		if part := float64(c.done(k)) / float64(c.Want[k]); part < least {
			best, least = k, part
		}
	}
	return best, best != ""
}

// pick is the benchmark of the n-th gate of a kind: each in turn.
func (c *campaign) pick(k Kind, n int) (target, error) {
	var fit []target
	for _, t := range c.benches {
		if k != Tail || t.ns >= tailLeast {
			fit = append(fit, t)
		}
	}
	if len(fit) == 0 {
		return target{}, fmt.Errorf("no benchmark of the suite takes %.0f us, which kind %s needs", tailLeast/1e3, k)
	}
	return fit[n%len(fit)], nil
}

func seedOf(campaign uint64, id string) uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d %s", campaign, id)
	return h.Sum64()
}

// one runs one gate. It is in the log before it begins.
func (c *campaign) one(ctx context.Context, k Kind) error {
	attempts := 0
	for _, g := range c.gates {
		if g.Kind == k {
			attempts++
		}
	}
	id := fmt.Sprintf("%s-%03d", k, attempts)
	g := Gate{Version: Version, State: begun, ID: id, Kind: k, Seed: seedOf(c.Seed, id), Commit: c.Commit, When: time.Now().UTC().Truncate(time.Second)}
	t, err := c.pick(k, c.done(k))
	if err != nil {
		return err
	}
	if k != AA {
		g.Bench = t.bench.String()
	}
	if k == CPU {
		g.Percent = c.Percent
	}
	if err := jsonl.Append(c.log, g); err != nil {
		return err
	}
	c.gates = append(c.gates, g)
	rounds, err := c.gate(ctx, &g, t)
	if err != nil {
		return fmt.Errorf("gate %s: %w", id, err)
	}
	g.State = done
	if k == AA {
		if err := jsonl.Append(filepath.Join(c.Dir, RoundsFile), record(id, rounds)...); err != nil {
			return err
		}
	}
	if err := jsonl.Append(c.log, g); err != nil {
		return err
	}
	c.gates[len(c.gates)-1] = g
	word := "WRONG"
	if g.Right {
		word = "right"
	}
	c.Progress(fmt.Sprintf("%s %s: %s %s, %d rounds, %.0f s: %s", word, id, g.Decision, g.Bench, g.Rounds, g.Seconds, g.Reason))
	return nil
}

// gate runs the whole gate with the injection and fills g with what it said.
func (c *campaign) gate(ctx context.Context, g *Gate, t target) ([]sample.Series, error) {
	plan := c.Plan
	plan.Repo, plan.Base, plan.Head, plan.Seed = c.Repo, c.Commit, c.Commit, g.Seed
	budget := c.Budget
	// A control can only make a gate invalid; its own alarms are counted in the
	// A/A gates.
	plan.Controls = -1
	switch g.Kind {
	case AA:
		plan.Controls = 1
	case Alloc, Syscall:
		budget = min(budget, counterBudget)
	}
	targets := []target{t}
	if g.Kind == AA {
		targets = c.benches
	} else {
		plan.Suite.Entries = []bench.Entry{t.entry}
	}
	edits, err := c.edits(ctx, targets, g)
	if err != nil {
		return nil, err
	}
	plan.HeadEdits = edits
	rules := gate.DefaultRules()
	rules.BudgetSeconds = budget.Seconds()
	begin := time.Now()
	v, series, err := trial.Run(ctx, plan, gate.Options{Rules: rules, Force: true}, func(string) {},
		func(ctx context.Context, s *bench.Session, v *verdict.Verdict, _ []sample.Series) error {
			if g.Kind != AA && g.Kind != Syscall {
				return nil
			}
			for _, t := range targets {
				counter, err := trial.Syscalls(ctx, s, t.bench)
				if err != nil {
					return err
				}
				v.Counters = append(v.Counters, counter)
			}
			v.Combine()
			return nil
		})
	if err != nil {
		return nil, err
	}
	g.Seconds = time.Since(begin).Seconds()
	g.conclude(v)
	return series, nil
}

// edits makes the injection, in a copy of the commit's files.
func (c *campaign) edits(ctx context.Context, targets []target, g *Gate) (map[string][]byte, error) {
	tmp, err := os.MkdirTemp("", "perflab-selftest-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	root := filepath.Join(tmp, "files")
	if _, err := bench.Checkout(ctx, c.Repo, c.Commit, root); err != nil {
		return nil, err
	}
	edits := make(map[string][]byte)
	for _, t := range targets {
		one, err := Inject(root, t.bench, g.Kind, g.Percent)
		if err != nil {
			return nil, err
		}
		for name, text := range one {
			edits[name] = text
		}
	}
	return edits, nil
}

// conclude says whether the gate was right, and by the means meant for it.
func (g *Gate) conclude(v *verdict.Verdict) {
	g.Decision, g.Rounds, g.Disturbed, g.Load = v.Decision, v.Rounds, v.Disturbed, v.Environment.Load1
	for _, f := range v.Machine {
		if f.Key == "cpu" {
			g.CPU = f.Value
		}
	}
	if len(v.Reasons) > 0 {
		g.Reason = v.Reasons[0]
	}
	counted := func(unit string) bool {
		for _, c := range v.Counters {
			if c.Name == unit+" "+g.Bench && c.Decision == verdict.Fail {
				g.Reason = c.Name + ": " + c.Reason
				return true
			}
		}
		return false
	}
	switch g.Kind {
	case AA:
		g.Right = v.Decision == verdict.Pass || v.Decision == verdict.Inconclusive
	case Alloc:
		g.Right = v.Decision == verdict.Fail && counted("allocs/op")
	case Syscall:
		g.Right = v.Decision == verdict.Fail && counted("syscalls/op")
	default:
		for _, e := range v.Entries {
			if e.Bench.String() != g.Bench {
				continue
			}
			g.Effect, g.Reason = e.Effect.Effect, strings.TrimSuffix(e.Reason, "; the benchmark's own source differs")
			g.Right = v.Decision == verdict.Fail && e.Decision == verdict.Fail
		}
	}
}
