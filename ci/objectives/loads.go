package objectives

import (
	"context"
	"math"
	"time"

	"github.com/portask/portask/ci/lab"
	"github.com/portask/portask/ci/yardstick"
)

// saturatedTurn is the log kernel, the broker at accepted and the broker at
// durable, in random order.
func (s *session) saturatedTurn(ctx context.Context) error {
	rounds, ratio, err := s.Lab.Turn(ctx, s.random, s.Load, func(r lab.Round) { s.printf("%s", lab.RoundLine(r)) })
	if err != nil {
		return err
	}
	s.Rounds = append(s.Rounds, rounds...)
	for name, v := range ratio {
		s.sample(name, v, false)
	}
	// Scaled by the kernel's constant, the ratio is CPU seconds per million.
	s.sample("broker-cpu-per-million", ratio[lab.CPUOverKernel], false)
	for _, r := range rounds {
		if r.Variant == lab.Kernel {
			s.kernelCPU = r.ServerCPU
		}
	}
	return nil
}

func (s *session) kernelProfile(ctx context.Context) error {
	share, r, err := s.Lab.KernelProfile(ctx, s.Load)
	if err != nil {
		return err
	}
	s.printf("%s  profiled, not in the ratios", lab.RoundLine(r))
	s.count(lab.KernelShare, share)
	return nil
}

// measured is the measured part of a run of loadgen: 150,000 messages at the
// rates of most scenarios.
const measured = 1500 * time.Millisecond

// The scenarios of the load lane. The latency is judged at half of the rate that
// loadgen itself gets through on the machine, in a closed loop.
var (
	most         = lab.Scenario{Name: "most", Ack: "accepted", Payload: "random", Duration: measured}
	random100k   = lab.Scenario{Name: "random-100k", Ack: "accepted", Rate: 100_000, Payload: "random", Duration: measured}
	json100k     = lab.Scenario{Name: "json-100k", Ack: "accepted", Rate: 100_000, Payload: "json", Compression: "always:zstd", Duration: measured}
	halfAccepted = lab.Scenario{Name: "half-accepted", Ack: "accepted", Payload: "random", Duration: measured}
	halfDurable  = lab.Scenario{Name: "half-durable", Ack: "durable", Payload: "random", Duration: measured}
	lowDurable   = lab.Scenario{Name: "low-durable", Ack: "durable", Rate: 200, Payload: "random", Duration: time.Second}
)

// loadTurn runs each scenario once, in random order.
func (s *session) loadTurn(ctx context.Context) error {
	if s.halfOfMost == 0 {
		r, err := s.run(ctx, most)
		if err != nil {
			return err
		}
		s.halfOfMost = int(r.Rate / 2)
		s.printf("half of the most that loadgen gets through here: %d msg/s", s.halfOfMost)
	}
	turns := []func(context.Context) error{
		func(ctx context.Context) error { return s.share(ctx, random100k, "cpu-share-100k-random") },
		func(ctx context.Context) error { return s.share(ctx, json100k, "cpu-share-100k-compressible") },
		func(ctx context.Context) error { return s.tail(ctx, halfAccepted, "e2e-p99-accepted") },
		func(ctx context.Context) error { return s.tail(ctx, halfDurable, "e2e-p99-durable") },
		s.durableAck,
	}
	for _, i := range s.random.Perm(len(turns)) {
		if err := turns[i](ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) run(ctx context.Context, sc lab.Scenario) (lab.LoadRun, error) {
	r, err := s.Lab.RunLoad(ctx, sc)
	if err != nil {
		return r, err
	}
	s.Loads = append(s.Loads, r)
	s.printf("%s", lab.LoadLine(r))
	return r, nil
}

// share is the part of a core that the broker spends on a rate: scaled by the
// log kernel's constant, what the reference machine would spend.
func (s *session) share(ctx context.Context, sc lab.Scenario, objective string) error {
	r, err := s.run(ctx, sc)
	if err != nil {
		return err
	}
	v := math.NaN()
	if r.CPUHolds() {
		v = r.CPUPerMillion * float64(sc.Rate) / 1e6 / s.kernelCPU
	}
	s.sample(objective, v, false)
	return nil
}

// tail is the 99th percentile of the latency to the verified delivery, over that
// of a loopback echo just before and after: what a busy machine adds to one it
// adds to the other. A late generator's figure is an upper limit.
func (s *session) tail(ctx context.Context, sc lab.Scenario, objective string) error {
	sc.Rate = s.halfOfMost
	const reading = 250 * time.Millisecond // of the echo, before and after
	before, err := yardstick.MeasureEcho(reading)
	if err != nil {
		return err
	}
	r, err := s.run(ctx, sc)
	if err != nil {
		return err
	}
	after, err := yardstick.MeasureEcho(reading)
	if err != nil {
		return err
	}
	s.Kernels = append(s.Kernels, before, after)
	v := math.NaN()
	if len(r.Invalid) == 0 || r.Late() {
		v = r.E2EP99 / ((before.P99 + after.P99) / 2)
	}
	s.sample(objective, v, r.Late())
	return nil
}

// syncNsMin stands in for a faster fdatasync, as of a directory in memory: the
// ratio then tells of the broker's own part only.
const syncNsMin = 100_000

// durableAck is the time to an answer that survives power loss, at a rate at
// which hardly any two messages share a sync, over a bare fdatasync's.
func (s *session) durableAck(ctx context.Context) error {
	const reading = 250 * time.Millisecond
	before, err := yardstick.MeasureSync(s.Lab.Dir, reading)
	if err != nil {
		return err
	}
	r, err := s.run(ctx, lowDurable)
	if err != nil {
		return err
	}
	after, err := yardstick.MeasureSync(s.Lab.Dir, reading)
	if err != nil {
		return err
	}
	s.Kernels = append(s.Kernels, before, after)
	v := math.NaN()
	if len(r.Invalid) == 0 || r.Late() {
		v = r.AckP50 / max((before.Ns+after.Ns)/2, syncNsMin)
	}
	s.sample("durable-ack-p50-over-fdatasync", v, r.Late())
	return nil
}
