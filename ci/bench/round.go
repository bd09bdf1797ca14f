package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/portask/portask/ci/sample"
)

// delayedShare is the part of a slice's time that its process may wait for a
// processor; above, the pair is left out.
const delayedShare = 0.3

// tooSlow: a pair of a subject may take so many times Plan.RoundMax divided by
// MinPairs.
const tooSlow = 4

// Round runs one round of a subject: fresh processes of both sides, started in
// an order that chance decides, of which one at a time works. After some slices
// to warm up, the pairs run, as many with the head first as with the base
// first. The first round of a subject also finds its number of iterations, on
// the base.
//
// A pair in which a side waited too long for a processor is left out, both
// slices, if at least half of the pairs stay; else all stay and the round says
// so. Nothing else is left out.
//
// The error concerns the subject, unless the context has ended: its benchmark
// fails, hangs (ErrStuck), takes too long, or its program does not link. The
// session can go on with others.
func (s *Session) Round(ctx context.Context, subject *Subject, stage sample.Stage) (sample.Round, error) {
	r, err := s.round(ctx, subject, stage)
	if err != nil {
		if ctx.Err() != nil {
			return r, ctx.Err()
		}
		return r, fmt.Errorf("%s: %w", subject.Bench, err)
	}
	return r, nil
}

func (s *Session) round(ctx context.Context, subject *Subject, stage sample.Stage) (sample.Round, error) {
	if s.closed {
		return sample.Round{}, errors.New("session is closed")
	}
	pair := s.byKey[subject.key]
	if subject.New || pair == nil || pair[0] == nil || pair[1] == nil {
		return sample.Round{}, errors.New("the base has no such benchmark")
	}
	if subject.n == 0 {
		if err := s.calibrate(ctx, subject, pair[sample.Base]); err != nil {
			return sample.Round{}, err
		}
	}
	rng := s.random(subject, subject.rounds)
	r := sample.Round{Index: subject.rounds, Stage: stage}
	subject.rounds++
	for side := range r.Seeds {
		r.Seeds[side] = s.layout(subject, r.Index, sample.Side(side))
	}
	files, err := s.link(ctx, subject, r.Seeds)
	if err != nil {
		return r, err
	}
	before := s.readMachine()
	var workers [2]*worker
	defer func() {
		for _, w := range workers {
			if w != nil {
				w.kill()
			}
		}
	}()
	for _, side := range rng.Perm(2) {
		w, err := s.serve(ctx, subject, pair[side], files[side])
		if err != nil {
			return r, fmt.Errorf("%s: %w", sample.Side(side), err)
		}
		workers[side] = w
	}
	for range warmUps {
		for side, w := range workers {
			if _, err := w.run(ctx, subject.n); err != nil {
				return r, fmt.Errorf("%s: %w", sample.Side(side), err)
			}
		}
	}
	var pairs []sample.Pair
	var delayed []bool
	// Whole blocks, so that the order is balanced wherever time ends the round.
	for begin := time.Now(); len(pairs) < s.plan.Pairs && (len(pairs) < MinPairs || time.Since(begin) < s.plan.RoundMax); {
		block, late, err := runPairs(ctx, workers, subject.n, balanced(rng, min(MinPairs, s.plan.Pairs-len(pairs))))
		if err != nil {
			return r, err
		}
		pairs, delayed = append(pairs, block...), append(delayed, late...)
	}
	r.Pairs, r.Dropped = pairs, 0
	waited := 0
	for _, d := range delayed {
		if d {
			waited++
		}
	}
	if waited > 0 && waited <= len(pairs)/2 {
		r.Pairs = make([]sample.Pair, 0, len(pairs)-waited)
		for i, p := range pairs {
			if !delayed[i] {
				r.Pairs = append(r.Pairs, p)
			}
		}
		r.Dropped = waited
	}
	after := s.readMachine()
	r.Env = environment(before, after)
	r.Env.BaseRSS, r.Env.HeadRSS = workers[0].residentBytes(), workers[1].residentBytes()
	for _, w := range workers {
		r.Env.ContextSwitches += w.end(5 * time.Second)
	}
	r.Interference = interference(r.Env, waited, len(pairs), r.Dropped > 0)
	return r, nil
}

// runPairs runs a pair for each element of headFirst and says which of them
// were delayed.
func runPairs(ctx context.Context, workers [2]*worker, n int, headFirst []bool) ([]sample.Pair, []bool, error) {
	pairs := make([]sample.Pair, len(headFirst))
	delayed := make([]bool, len(headFirst))
	for i, hf := range headFirst {
		order := [2]sample.Side{sample.Base, sample.Head}
		if hf {
			order = [2]sample.Side{sample.Head, sample.Base}
		}
		pairs[i].HeadFirst = hf
		for _, side := range order {
			c, err := workers[side].run(ctx, n)
			if err != nil {
				return nil, nil, fmt.Errorf("%s: %w", side, err)
			}
			if float64(c.DelayNs) > delayedShare*float64(c.elapsed) {
				delayed[i] = true
			}
			if side == sample.Base {
				pairs[i].Base = c.Slice
			} else {
				pairs[i].Head = c.Slice
			}
		}
	}
	return pairs, delayed, nil
}

// balanced is a random order of as many true as false values, one more or less
// if n is odd.
func balanced(rng *rand.Rand, n int) []bool {
	out := make([]bool, n)
	for i := range out {
		out[i] = i%2 == 0
	}
	if n%2 == 1 && rng.IntN(2) == 0 {
		out[n-1] = !out[n-1]
	}
	rng.Shuffle(n, func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// layoutBlock is how many layouts are drawn in an order of their own: the first so
// many rounds of every gate have the same ones, which the cache then holds.
const layoutBlock = 8

// layout of a side in a round. No layout comes again before all were used, so that
// rounds are independent of each other, and what a confirmation measures is not the
// luck of the layouts that made a benchmark suspicious: where code lies made a
// benchmark of 0.6 us 10 to 30 % slower with one layout of eight, and 24 rounds of
// eight layouts knew its effect no better than to 5 %.
func (s *Session) layout(subject *Subject, round int, side sample.Side) int {
	round %= s.plan.Layouts
	block := round / layoutBlock
	first := block * layoutBlock
	order := s.random(subject, -1-int(side)-2*block).Perm(min(layoutBlock, s.plan.Layouts-first))
	return firstLayout + first + order[round-first]
}

// link makes the programs of a round, both at once.
func (s *Session) link(ctx context.Context, subject *Subject, layouts [2]int) (files [2]string, err error) {
	var errs [2]error
	var wait sync.WaitGroup
	pair := s.byKey[subject.key]
	same := pair[0].fingerprint == pair[1].fingerprint && layouts[0] == layouts[1]
	for side := range files {
		if same && side == 1 {
			break // two at once would link the same twice; the second finds it
		}
		wait.Go(func() { files[side], errs[side] = s.file(ctx, pair[side], layouts[side]) })
	}
	wait.Wait()
	if same && errs[0] == nil {
		files[1], errs[1] = s.file(ctx, pair[1], layouts[1])
	}
	return files, errors.Join(errs[:]...)
}

// longSlice bounds what a slice becomes: so many times the plan's.
const longSlice = 5

// calibrate finds how many iterations fill a slice: it runs one, then so many
// as the last calls promise to take a slice, at most a hundred times as many as
// before, until they come near. Of three calls the smallest counts, since a
// disturbance only makes them longer; and CPU time where that is judged, since
// it has less of them. A benchmark that prepares something at each call gets
// slices as long as that takes, or most of a round would measure nothing.
func (s *Session) calibrate(ctx context.Context, subject *Subject, p *program) error {
	w, err := s.serve(ctx, subject, p, p.layouts[firstLayout])
	if err != nil {
		return fmt.Errorf("base: %w", err)
	}
	defer w.kill()
	goal := s.plan.Slice.Nanoseconds()
	n := 1
	var took, inside, outside int64 // the least of each, at n iterations
	for range 12 {
		took, inside, outside = math.MaxInt64, math.MaxInt64, math.MaxInt64
		for range 3 {
			next, err := w.run(ctx, n)
			if err != nil {
				return fmt.Errorf("base: %w", err)
			}
			ns := next.Ns
			if subject.Metric == sample.CPU && next.CPUNs > 0 {
				// What mostly waits shall not wait for a full slice of work.
				ns = max(next.CPUNs, next.Ns/longSlice)
			}
			took, inside, outside = min(took, ns), min(inside, next.Ns), min(outside, max(0, next.elapsed.Nanoseconds()-next.Ns))
			if next.Ns > 2*longSlice*goal {
				break
			}
		}
		if 4*took >= 3*goal {
			break
		}
		n = iterations(goal, n, took, 100)
	}
	want := iterations(min(max(goal, outside), longSlice*goal), n, took, 2*longSlice)
	inside = int64(float64(inside) * float64(want) / float64(n))
	if pair, longest := 2*time.Duration(inside+outside), tooSlow*s.plan.RoundMax/MinPairs; pair > longest {
		return fmt.Errorf("a pair of slices takes %v, more than %v", pair.Round(time.Millisecond), longest)
	}
	subject.n = want
	subject.setup = float64(outside) / float64(max(1, inside+outside))
	w.end(5 * time.Second)
	return nil
}

// iterations is how many take goal nanoseconds if n took ns, from 1 to growth
// times n, and never more than a billion.
func iterations(goal int64, n int, ns int64, growth int) int {
	next := float64(goal) / float64(max(ns, 1)) * float64(n)
	return int(max(1, min(next, float64(n)*float64(growth), 1e9)))
}
