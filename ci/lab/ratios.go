package lab

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
)

// Names of objectives in configs/slo.yaml that a Ratios measures.
const (
	ThroughputOverKernel = "accepted-throughput-over-kernel"
	CPUOverKernel        = "accepted-cpu-over-kernel"
	DurableOverAccepted  = "durable-throughput-over-accepted"
	SyscallsPerBatch     = "syscalls-per-batch"
	KernelShare          = "kernel-cpu-in-syscalls-and-crc"
	IdleConnectionBytes  = "idle-connection-bytes"
	Start1GiB            = "start-1gib-log"
)

// Spread is a median with the extremes beside it.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// NewSpread summarises values, which it does not change. Of no values, all is 0.
func NewSpread(values []float64) Spread {
	if len(values) == 0 {
		return Spread{}
	}
	v := slices.Sorted(slices.Values(values))
	mid := v[len(v)/2]
	if len(v)%2 == 0 {
		mid = (v[len(v)/2-1] + mid) / 2
	}
	return Spread{Median: mid, Min: v[0], Max: v[len(v)-1]}
}

func (s Spread) String() string { return fmt.Sprintf("%.3f (%.3f to %.3f)", s.Median, s.Min, s.Max) }

// Ratios is the outcome of interleaved rounds.
type Ratios struct {
	Rounds []Round `json:"rounds"`
	// Ratio is computed within each turn, then summarised: a machine that is
	// slow for a minute slows all variants of that turn.
	Ratio map[string]Spread `json:"ratio"`
	// Samples are the ratios of each turn.
	Samples map[string][]float64 `json:"samples"`
}

// Of summarises one figure of a variant's rounds.
func (r *Ratios) Of(v Variant, figure func(Round) float64) Spread {
	var values []float64
	for _, round := range r.Rounds {
		if round.Variant == v {
			values = append(values, figure(round))
		}
	}
	return NewSpread(values)
}

// Interleave runs turns of the three variants. Each turn has its own random
// order, seeded, so that no variant always follows the same other. progress is
// called after each round.
func (l *Lab) Interleave(ctx context.Context, turns int, seed uint64, o Load, progress func(turn int, r Round)) (*Ratios, error) {
	var out Ratios
	perTurn := map[string][]float64{}
	random := rand.New(rand.NewPCG(seed, 0))
	for turn := range turns {
		rounds, ratio, err := l.Turn(ctx, random, o, func(r Round) {
			if progress != nil {
				progress(turn, r)
			}
		})
		if err != nil {
			return nil, err
		}
		out.Rounds = append(out.Rounds, rounds...)
		for name, v := range ratio {
			perTurn[name] = append(perTurn[name], v)
		}
	}
	out.Samples = perTurn
	out.Ratio = make(map[string]Spread, len(perTurn))
	for name, v := range perTurn {
		out.Ratio[name] = NewSpread(v)
	}
	return &out, nil
}

// Turn runs each of the three variants once, in random order, and tells the
// turn's ratios by the name of their objective.
func (l *Lab) Turn(ctx context.Context, random *rand.Rand, o Load, progress func(r Round)) (rounds []Round, ratio map[string]float64, err error) {
	variants := []Variant{Kernel, Accepted, Durable}
	got := map[Variant]Round{}
	for _, i := range random.Perm(len(variants)) {
		load := o
		load.CountSyscalls = o.CountSyscalls && variants[i] != Kernel
		r, err := l.Round(ctx, variants[i], load)
		if err != nil {
			return nil, nil, err
		}
		got[variants[i]] = r
		rounds = append(rounds, r)
		progress(r)
	}
	k, a, d := got[Kernel], got[Accepted], got[Durable]
	ratio = map[string]float64{
		ThroughputOverKernel: a.MsgPerSec / k.MsgPerSec,
		CPUOverKernel:        a.ServerCPU / k.ServerCPU,
		DurableOverAccepted:  d.MsgPerSec / a.MsgPerSec,
	}
	if a.SyscallsPerBatch > 0 {
		ratio[SyscallsPerBatch] = max(a.SyscallsPerBatch, d.SyscallsPerBatch)
	}
	return rounds, ratio, nil
}
