package sim

import (
	"fmt"
	"math"
	"slices"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/compression/adaptive"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/ci/policy/rows"
)

func cell(s int, c Conditions) string {
	return fmt.Sprintf("size=%dKiB load=%d%% link=%gMbit fan-out=%g", adaptive.Sizes[s]>>10, c.Load, c.Mbit, c.FanOut)
}

func weatherCell(s int, fan float64) string {
	return fmt.Sprintf("size=%dKiB load and link change fan-out=%g", adaptive.Sizes[s]>>10, fan)
}

// A Policy chooses for a stream. It returns the cost of each batch and how often
// it changed its choice.
type Policy struct {
	Name string
	run  func(d *Data, s *Stream, o []Outcome) (cost float64, switches int)
}

func column(a message.Algorithm, l compression.Level) int {
	return slices.Index(rows.Encoders, rows.Encoder{Algorithm: a, Level: l})
}

// each is a policy that chooses by batch, without history.
func each(name string, choose func(s *Stream, b *Batch) int, keepOnly float64) Policy {
	return Policy{name, func(_ *Data, s *Stream, o []Outcome) (cost float64, switches int) {
		last := -1
		for i := range o {
			e := choose(s, &s.Batches[i])
			if last >= 0 && e != last {
				switches++
			}
			last = e
			cost += o[i].kept(e, &s.Batches[i], keepOnly)
		}
		return cost, switches
	}}
}

// kept is the cost with encoder e if outputs above a part of the input are dropped.
func (o *Outcome) kept(e int, b *Batch, part float64) float64 {
	if e < Raw && float64(b.Row.Cells[e].Out) > part*float64(b.Row.In) {
		return o.unsent[e]
	}
	return o.cost[e]
}

// Static are the policies that always choose the same; Never among them.
func Static() (all []Policy) {
	all = append(all, each("never", func(*Stream, *Batch) int { return Raw }, 1))
	for e, x := range rows.Encoders {
		all = append(all, each("always "+x.String(), func(*Stream, *Batch) int { return e }, 1))
	}
	return all
}

// Threshold is the strategy of that name: the fastest level of zstd for bodies
// from 1 KiB that do not look random, outputs kept that save 2 %. Its look is
// taken to be never wrong, and free.
func Threshold() Policy {
	zstd := column(message.Zstd, compression.LevelFastest)
	return each("threshold", func(_ *Stream, b *Batch) int {
		if b.Row.In >= 8<<10 && !slices.ContainsFunc(b.Row.Cells, func(c rows.Cell) bool { return float64(c.Out) < 0.98*float64(b.Row.In) }) {
			return Raw
		}
		return zstd
	}, 0.98)
}

// CPURule is the simple rule of many systems: compress while the processors are
// at most 80 % busy.
func CPURule() Policy {
	zstd := column(message.Zstd, compression.LevelFastest)
	return each("CPU threshold", func(_ *Stream, b *Batch) int {
		if b.Load > 80 {
			return Raw
		}
		return zstd
	}, 1)
}

// Table is the trained static table: for each size, load and link (and fan-out if
// fan) the encoder of the least mean of cost over the best, on the training data.
func Table(train *Data, fan bool) Policy {
	type key struct {
		size, load int
		mbit, fan  float64
	}
	choice := map[key]int{}
	for s := range adaptive.Sizes {
		for _, load := range Loads {
			for _, link := range Links {
				sums := map[float64][]float64{}
				for _, f := range FanOuts {
					k := 0.0
					if fan {
						k = f
					}
					if sums[k] == nil {
						sums[k] = make([]float64, columns)
					}
					for i := range train.Files {
						rs := train.Files[i].Batches[s]
						var stream []Batch
						for _, r := range rs {
							stream = append(stream, Batch{r, Conditions{load, link, f}})
						}
						best, cost := 0.0, make([]float64, columns)
						for _, o := range train.outcomes(stream) {
							best += o.cost[o.best]
							for e := range cost {
								cost[e] += o.cost[e]
							}
						}
						for e := range cost {
							if best > 0 {
								sums[k][e] += cost[e] / best
							}
						}
					}
				}
				for f, sum := range sums {
					least := 0
					for e := range sum {
						if sum[e] < sum[least] {
							least = e
						}
					}
					choice[key{s, load, link, f}] = least
				}
			}
		}
	}
	name := "trained table (size, load, link)"
	if fan {
		name = "trained table (size, load, link, fan-out)"
	}
	return each(name, func(s *Stream, b *Batch) int {
		k := key{s.Size, b.Load, b.Mbit, 0}
		if fan {
			k.fan = b.FanOut
		}
		return choice[k]
	}, 1)
}

// What the policy's own work takes, in nanoseconds of an idle processor:
// BenchmarkDecide and its neighbours of package adaptive, rounded up.
const (
	decideNs     = 30
	observeNs    = 45
	signsNs      = 720
	planNs       = 1750
	regressionNs = 1550
)

// Adaptive is the policy with an artefact. It sees sizes of outputs as they are,
// and times as a live system does: up to a sixth off in either direction, and one
// in 50 three times as long.
func Adaptive(a *adaptive.Artefact) Policy {
	var col [adaptive.Arms]int
	col[adaptive.Raw] = Raw
	for arm := adaptive.Arm(1); arm < adaptive.Arms; arm++ {
		col[arm] = column(arm.Algorithm(), arm.Level())
	}
	return Policy{"adaptive", func(_ *Data, s *Stream, o []Outcome) (cost float64, switches int) {
		d := adaptive.New(a, adaptive.Options{})
		var at Conditions
		noise := uint64(len(s.Cell)) * 0x9E3779B97F4A7C15
		for i := range o {
			b := &s.Batches[i]
			if b.Conditions != at {
				at = b.Conditions
				local := func(v float64) adaptive.Reading { return adaptive.Reading{Value: v, Source: adaptive.Local} }
				d.SetConditions(adaptive.Conditions{CPU: local(float64(at.Load) / 100), Link: local(at.Mbit * 125e3), FanOut: local(at.FanOut), Disk: local(diskNs)})
			}
			var f adaptive.Features
			if d.Wants(b.Row.In) {
				f = adaptive.Features{Valid: true, Signs: b.Row.Signs}
			}
			x := d.DecideFrom(b.Row.In, f)
			e := col[x.Arm]
			cost += o[i].cost[e]
			if x.Arm != adaptive.Raw {
				if b.Row.Cells[e].Out > int64(x.KeepMost) {
					cost += o[i].unsent[e] - o[i].cost[e]
				}
				encode := int64(0)
				if x.Measure {
					noise = noise*6364136223846793005 + 1442695040888963407
					u := float64(noise>>33) / (1 << 31)
					t := o[i].encode[e] * math.Exp2(0.5*(u-0.5))
					if noise>>58 == 0 {
						t *= 3
					}
					encode = int64(t)
				}
				d.Observe(x.Token, b.Row.In, int(b.Row.Cells[e].Out), encode, 0)
				cost += observeNs * b.price()
			}
		}
		c := d.Counts()
		work := decideNs*float64(len(o)) + signsNs*float64(c.Samples) + planNs*float64(c.Plans) + regressionNs*float64(c.Regressions)
		price := 0.0
		for i := range s.Batches {
			price += s.Batches[i].price()
		}
		return cost + work*price/float64(len(o)), int(c.Switches)
	}}
}
