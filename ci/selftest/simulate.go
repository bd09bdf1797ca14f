package selftest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/portask/portask/ci/gate"
	"github.com/portask/portask/ci/sample"
	"github.com/portask/portask/ci/verdict"
)

// Simulated is what gates over recorded rounds said.
type Simulated struct {
	Gates, Failed, Invalid, Open int
	// Pool is how many rounds there were to draw from.
	Pool int
	Seed uint64
}

// poolMin is the least number of recorded rounds of a benchmark.
const poolMin = 10

// Simulate runs n whole AA gates over recorded rounds: each round is drawn from
// those of its benchmark, and a coin decides whether its sides are exchanged,
// which changes nothing in an AA run. Screen and confirmation, looks and levels
// are the gate's own. What it cannot show is tails that were not recorded.
func Simulate(ctx context.Context, dir string, n int, seed uint64) (*Simulated, error) {
	gates, err := ReadGates(dir)
	if err != nil {
		return nil, err
	}
	complete := make(map[string]bool)
	for _, g := range gates {
		if g.Kind == AA && g.State == done {
			complete[g.ID] = true
		}
	}
	rounds, err := ReadRounds(dir, func(id string) bool { return complete[id] })
	if err != nil {
		return nil, err
	}
	pool := newPool(rounds)
	if len(pool.benches) == 0 {
		return nil, errors.New("no rounds of complete AA gates are recorded")
	}
	for i := range pool.benches {
		if len(pool.rounds[i]) < poolMin {
			return nil, fmt.Errorf("%s has %d recorded rounds, too few to draw from", pool.benches[i].Bench, len(pool.rounds[i]))
		}
	}
	out := &Simulated{Pool: len(rounds), Seed: seed}
	rules := gate.DefaultRules()
	for i := range n {
		pool.rng = rand.New(rand.NewPCG(seed, uint64(i)))
		pool.next = 0
		v, _, err := gate.Run(ctx, pool, gate.Options{Rules: rules, Seed: seed + uint64(i), Force: true, Now: func() time.Time { return time.Time{} }})
		if err != nil {
			return nil, err
		}
		out.Gates++
		switch v.Combine() {
		case verdict.Fail:
			out.Failed++
		case verdict.Invalid:
			out.Invalid++
		case verdict.Inconclusive:
			out.Open++
		}
	}
	return out, nil
}

// pool is a gate.Source that draws recorded rounds.
type pool struct {
	rng     *rand.Rand
	benches []gate.Subject
	rounds  [][]Recorded
	next    int
}

func newPool(rounds []Recorded) *pool {
	p := new(pool)
	at := make(map[sample.Bench]int)
	for _, r := range rounds {
		i, ok := at[r.Bench]
		if !ok {
			i = len(p.benches)
			at[r.Bench] = i
			m := sample.CPU
			if r.Metric == sample.Wall.String() {
				m = sample.Wall
			}
			p.benches = append(p.benches, gate.Subject{Bench: r.Bench, Metric: m, Control: r.Control})
			p.rounds = append(p.rounds, nil)
		}
		p.rounds[i] = append(p.rounds[i], r)
	}
	return p
}

func (p *pool) Subjects() []gate.Subject { return slices.Clone(p.benches) }

func (p *pool) Series(i int) sample.Series {
	return sample.Series{Bench: p.benches[i].Bench, Metric: p.benches[i].Metric, Control: p.benches[i].Control, N: 1}
}

// Round draws one. A drawn round keeps its pairs; its layouts are counted on,
// since those of a real gate come by turns.
func (p *pool) Round(ctx context.Context, i int, stage sample.Stage) (sample.Round, error) {
	if err := ctx.Err(); err != nil {
		return sample.Round{}, err
	}
	r := p.rounds[i][p.rng.IntN(len(p.rounds[i]))]
	sign := float64(1 - 2*p.rng.IntN(2))
	p.next++
	out := sample.Round{Index: p.next, Stage: stage, Seeds: [2]int{p.next, p.next}, Pairs: make([]sample.Pair, len(r.CPU))}
	const ns = 1e9 // long, so that a ratio's digits are kept
	for k := range out.Pairs {
		out.Pairs[k] = sample.Pair{
			Base: sample.Slice{N: 1, Ns: ns, CPUNs: ns},
			Head: sample.Slice{N: 1, Ns: int64(ns * math.Exp(sign*r.Wall[k])), CPUNs: int64(ns * math.Exp(sign*r.CPU[k]))},
		}
	}
	return out, nil
}

// String is one line.
func (s *Simulated) String() string {
	var parts []string
	for _, p := range []struct {
		n    int
		word string
	}{{s.Failed, "FAIL"}, {s.Invalid, "INVALID"}, {s.Open, "INCONCLUSIVE"}} {
		parts = append(parts, fmt.Sprintf("%d %s", p.n, p.word))
	}
	return fmt.Sprintf("%d simulated AA gates over %d recorded rounds: %s", s.Gates, s.Pool, strings.Join(parts, ", "))
}
