package gate

import (
	"context"
	"math"
	"math/rand/v2"
	"time"

	"github.com/portask/portask/ci/sample"
)

// simSubject is a benchmark of the simulated machine.
type simSubject struct {
	Subject
	cpu, wall float64 // true effects, logarithms
	floor     float64 // luck of a round, standard deviation
	layout    float64 // luck of a layout
	pair      float64 // scale of a pair's noise
	dropped   bool    // every round is disturbed beyond use
	err       error
	allocs    [2]int64 // per operation
	cost      time.Duration
}

// sim is a machine as the study measured one: pairs with heavy tails whose
// noise follows its predecessor, luck of each process, luck of each layout, and
// a clock that moves only while a round runs.
type sim struct {
	rng      *rand.Rand
	subjects []simSubject
	now      time.Time
	rounds   []int
	stages   []map[sample.Stage]int
	luck     map[[3]int]float64
	order    []int // subjects in the order they ran
}

func newSim(seed uint64, subjects ...simSubject) *sim {
	s := &sim{
		rng: rand.New(rand.NewPCG(seed, 0x73696d)), subjects: subjects, now: time.Unix(1e9, 0),
		rounds: make([]int, len(subjects)), luck: make(map[[3]int]float64),
	}
	for i := range subjects {
		if subjects[i].Bench.Name == "" {
			subjects[i].Bench = sample.Bench{Module: ".", Package: "./p", Name: string(rune('A' + i))}
		}
		if subjects[i].floor == 0 {
			subjects[i].floor = 0.01
		}
		if subjects[i].pair == 0 {
			subjects[i].pair = 0.02
		}
		if subjects[i].cost == 0 {
			subjects[i].cost = 1100 * time.Millisecond
		}
		s.stages = append(s.stages, make(map[sample.Stage]int))
	}
	return s
}

func (s *sim) Now() time.Time { return s.now }

func (s *sim) Subjects() []Subject {
	out := make([]Subject, len(s.subjects))
	for i := range s.subjects {
		out[i] = s.subjects[i].Subject
	}
	return out
}

func (s *sim) risk(b sample.Bench) int {
	for i := range s.subjects {
		if s.subjects[i].Bench == b {
			return s.subjects[i].Risk
		}
	}
	return -1
}

func (s *sim) Series(i int) sample.Series {
	return sample.Series{Bench: s.subjects[i].Bench, Metric: s.subjects[i].Metric, Control: s.subjects[i].Control, N: 100}
}

func (s *sim) layoutLuck(subject, side, seed int, sd float64) float64 {
	key := [3]int{subject, side, seed}
	v, ok := s.luck[key]
	if !ok {
		v = sd * s.rng.NormFloat64()
		s.luck[key] = v
	}
	return v
}

func (s *sim) Round(ctx context.Context, i int, stage sample.Stage) (sample.Round, error) {
	if err := ctx.Err(); err != nil {
		return sample.Round{}, err
	}
	sub := &s.subjects[i]
	s.now = s.now.Add(sub.cost)
	if sub.err != nil {
		return sample.Round{}, sub.err
	}
	s.order = append(s.order, i)
	s.stages[i][stage]++
	s.rounds[i]++
	n := s.rounds[i]
	seeds := [2]int{n, n} // each round has layouts of its own
	r := sample.Round{Index: s.rounds[i], Stage: stage, Seeds: seeds, Env: sample.Environment{Seconds: sub.cost.Seconds(), BusyShare: 0.5}}
	luck := sub.floor*s.rng.NormFloat64() + s.layoutLuck(i, 1, seeds[1], sub.layout) - s.layoutLuck(i, 0, seeds[0], sub.layout)
	wallLuck := 2 * sub.floor * s.rng.NormFloat64()
	pairs := 30
	if sub.dropped {
		pairs = 3
		r.Dropped, r.Interference = 27, "other work"
	}
	ar := 0.0
	for range pairs {
		t2 := s.rng.NormFloat64() / math.Sqrt(s.rng.ExpFloat64())
		ar = 0.4*ar + sub.pair*t2
		cpu := 1e7 * math.Exp(0.05*s.rng.NormFloat64())
		base := sample.Slice{N: 100, CPUNs: int64(cpu), Ns: int64(1.1 * cpu), Allocs: 100 * sub.allocs[0], Bytes: 1600 * sub.allocs[0]}
		head := sample.Slice{
			N: 100, CPUNs: int64(cpu * math.Exp(sub.cpu+luck+ar)), Ns: int64(1.1 * cpu * math.Exp(sub.wall+luck+wallLuck+2*ar)),
			Allocs: 100 * sub.allocs[1], Bytes: 1600 * sub.allocs[1],
		}
		r.Pairs = append(r.Pairs, sample.Pair{HeadFirst: s.rng.IntN(2) == 0, Base: base, Head: head})
	}
	return r, nil
}
