package main

import (
	"context"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/portask/portask/ci/bench"
	"github.com/portask/portask/ci/explain"
	"github.com/portask/portask/ci/internal/counters"
	"github.com/portask/portask/ci/sample"
	"github.com/portask/portask/ci/verdict"
)

// explain says of the worst benchmarks which functions they spend more in. What
// cannot be explained is failed all the same.
func (g *gateRun) explain(ctx context.Context, s *bench.Session, v *verdict.Verdict) {
	var failed []*verdict.Entry
	for i := range v.Entries {
		if e := &v.Entries[i]; e.Decision == verdict.Fail && e.Waived == nil {
			failed = append(failed, e)
		}
	}
	slices.SortFunc(failed, func(a, b *verdict.Entry) int {
		switch {
		case a.Effect.Effect > b.Effect.Effect:
			return -1
		case a.Effect.Effect < b.Effect.Effect:
			return 1
		}
		return 0
	})
	for i, e := range failed {
		if i == g.explained || ctx.Err() != nil {
			return
		}
		x, err := explain.Explain(ctx, explain.Options{
			Base: s.Root(sample.Base), Head: s.Root(sample.Head), Bench: e.Bench, OneCPU: e.Metric == sample.CPU.String(),
			Seed: v.Seed, Keep: filepath.Join(g.below(g.out), "profiles"), Progress: progress,
		})
		if err != nil {
			e.Notes = append(e.Notes, "not explained: "+err.Error())
			continue
		}
		x.Apply(e)
	}
}

// explainCounters says of each counter that failed what there is to see. Of
// allocations, the functions that cause them, for as many benchmarks as are
// explained at all; of others, and beyond those, the command that shows more.
func (g *gateRun) explainCounters(ctx context.Context, s *bench.Session, v *verdict.Verdict) {
	type explained struct {
		at  string
		top []verdict.Function // those that allocate
	}
	known := make(map[sample.Bench]explained)
	for _, e := range v.Entries {
		if len(e.Top) > 0 {
			sampled := func(f verdict.Function) bool { return f.Kind != "alloc" }
			known[e.Bench] = explained{e.Bench.String(), slices.DeleteFunc(slices.Clone(e.Top), sampled)}
		}
	}
	left := g.explained
	for i := range v.Counters {
		c := &v.Counters[i]
		if c.Decision != verdict.Fail || c.Waived != nil || ctx.Err() != nil {
			continue
		}
		base := v.Base.Commit
		if g.accepted != nil && c.Accepted() {
			base = g.accepted.Revision
			c.Notes = append(c.Notes, "more: perflab baseline")
		}
		what, ok := benchOf(c, v, s.Root(sample.Head))
		if !ok {
			if !c.Accepted() {
				c.Notes = append(c.Notes, fmt.Sprintf("more: perflab counters --base %.10s", base))
			}
			continue
		}
		allocates := strings.HasPrefix(c.Unit, "allocs/") || c.Unit == "B/op"
		switch {
		case allocates && !c.Accepted() && known[what].at != "":
			c.Top, c.Notes = known[what].top, append(c.Notes, "explained at "+known[what].at)
			continue
		case allocates && !c.Accepted() && left > 0:
			left--
			keep := path.Join("profiles", fmt.Sprintf("allocations-%d", g.explained-left))
			x, err := explain.Allocations(ctx, explain.Options{
				Base: s.Root(sample.Base), Head: s.Root(sample.Head), Bench: what, OneCPU: true, Seed: v.Seed,
				Keep: filepath.Join(g.below(g.out), filepath.FromSlash(keep)), Progress: progress,
			})
			if err == nil {
				c.Top, c.Notes = x.Top, append(c.Notes, x.Notes...)
				known[what] = explained{at: c.Name}
				c.Notes = append(c.Notes, fmt.Sprintf("more: go tool pprof -sample_index=alloc_objects -diff_base %s/base.alloc.pb.gz %s/head.alloc.pb.gz, in the report's directory", keep, keep))
				continue
			}
			c.Notes = append(c.Notes, "not explained: "+err.Error())
		}
		c.Notes = append(c.Notes, fmt.Sprintf("more: perflab explain %s --base %.10s", what, base))
	}
}

// benchOf is the benchmark that a counter was counted in, by the last word of
// its name: one of the run, one of the budgets, or one whose directory the head
// has.
func benchOf(c *verdict.Counter, v *verdict.Verdict, root string) (sample.Bench, bool) {
	words := strings.Fields(c.Name)
	if len(words) < 2 {
		return sample.Bench{}, false
	}
	name := words[len(words)-1]
	for _, e := range v.Entries {
		if e.Bench.String() == name {
			return e.Bench, true
		}
	}
	for _, b := range counters.Budgets {
		if b.Bench == name {
			return sample.Bench{Module: b.Module, Package: b.Package, Name: b.Bench}, true
		}
	}
	b, err := explain.Locate(root, name)
	return b, err == nil
}
