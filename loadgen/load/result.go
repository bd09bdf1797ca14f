package load

import (
	"context"
	"fmt"
	"time"

	"github.com/portask/portask/loadgen/pace"
	"github.com/portask/portask/loadgen/verify"
)

// Result is the outcome of a run, also as JSON. Latencies are of messages due
// in the measured part; counts are of the whole run, warm-up included.
type Result struct {
	Schema int    `json:"schema"` // 1
	RunID  string `json:"run_id"`

	Mode       Mode    `json:"mode"`
	Arrival    Arrival `json:"arrival,omitempty"`
	Ack        string  `json:"ack"`
	Visibility string  `json:"visibility"`
	Producers  int     `json:"producers"`
	Consumers  int     `json:"consumers"`
	Partitions int     `json:"partitions"`
	Seconds    float64 `json:"measured_s"`

	Counts      verify.Counts `json:"counts"`
	OffsetsBack uint64        `json:"offsets_back"` // deliveries at an offset already passed

	// Messages a second in the measured part. Offered is what the schedule
	// wanted, 0 in closed mode.
	Offered       float64 `json:"offered_per_s,omitempty"`
	Sent          float64 `json:"sent_per_s"`
	Acked         float64 `json:"acked_per_s"`
	Delivered     float64 `json:"delivered_per_s"`
	DeliveredMBps float64 `json:"delivered_mb_per_s"` // 1 MB = 1e6 B of values

	// In closed mode Ack and E2E count from the send, and are service times.
	AckLatency Quantiles `json:"ack_latency"`     // intended to acknowledged
	Service    Quantiles `json:"service_latency"` // sent to acknowledged
	E2E        Quantiles `json:"e2e_latency"`     // intended to delivered and verified
	Outage     *Outage   `json:"outage,omitempty"`

	// The generator's own error.
	Lag          Quantiles `json:"dispatch_lag"`
	HeldBack     uint64    `json:"held_back"`        // messages sent late because the client's buffer was full
	HeldBackMax  int64     `json:"held_back_max_ns"` //
	ExactPacing  bool      `json:"exact_pacing"`
	GeneratorCPU float64   `json:"generator_cpu_s"`
	Generator    float64   `json:"generator_share"` // of the machine's processors
	Steal        float64   `json:"steal"`

	MessagesPerBatch float64 `json:"messages_per_batch"`
	WireBytes        uint64  `json:"wire_bytes"` // produced, frames and retries included
	RawBytes         uint64  `json:"raw_bytes"`  // of batch bodies before compression
	// Compression is RawBytes / WireBytes: above 1 if compression pays.
	Compression float64 `json:"compression_ratio"`
	Retries     uint64  `json:"retries"`    // batches sent again
	Duplicates  uint64  `json:"duplicates"` // of those, recognised by the broker

	Target *TargetUse `json:"target,omitempty"`

	Complete    bool     `json:"complete"` // everything was settled before the drain gave up
	Interrupted bool     `json:"interrupted"`
	Errors      []string `json:"errors,omitempty"`
	// Violations are promises the broker broke, Invalid why latencies and rates
	// say nothing about it. Empty is good.
	Violations []string `json:"violations,omitempty"`
	Invalid    []string `json:"invalid,omitempty"`
	Notes      []string `json:"notes,omitempty"`
}

const (
	// lagShare: a generator later than this part of what it reports is what it
	// measured.
	lagShare = 0.1
	// rateShare: of the offered rate may be missed.
	rateShare = 0.005
	// generatorShare of the processors: above it the generator may be the limit.
	generatorShare = 0.8
)

func (r *Run) result() *Result {
	c := &r.cfg
	res := &Result{
		Schema: 1, RunID: fmt.Sprintf("%016x", c.Source.Run()), Mode: c.Mode, Ack: c.Ack.String(), Visibility: c.Visibility.String(),
		Producers: c.Producers, Consumers: c.Consumers, Partitions: c.Partitions,
		Seconds: float64(r.till-r.from) / 1e9,
		Counts:  r.tracker.Counts(), OffsetsBack: r.offsetsBack.Load(),
	}
	if c.Mode == Open {
		res.Arrival = c.Arrival
		res.Offered = c.Rate
	}
	res.Sent = float64(r.sentIn.Load()) / res.Seconds
	res.Acked = float64(r.ackedIn.Load()) / res.Seconds
	res.Delivered = float64(r.deliveredIn.Load()) / res.Seconds
	res.DeliveredMBps = float64(r.bytesIn.Load()) / res.Seconds / 1e6

	e2e := pace.NewHistogram()
	var batches, messages uint64
	for _, p := range r.producers {
		s := p.out.Stats()
		batches += s.Batches
		messages += s.Messages
		res.WireBytes += s.Bytes
		res.RawBytes += s.RawBytes
		res.Retries += s.Retries
		res.Duplicates += s.Duplicates
	}
	for _, k := range r.consumers {
		k.e2e.addTo(e2e)
	}
	res.AckLatency, res.Service, res.E2E = quantiles(merged(r.acks[:])), quantiles(merged(r.services[:])), quantiles(e2e)
	res.Outage = r.outage.result()
	if batches > 0 {
		res.MessagesPerBatch = float64(messages) / float64(batches)
	}
	if res.WireBytes > 0 {
		res.Compression = float64(res.RawBytes) / float64(res.WireBytes)
	}
	res.Target = r.target.use(res.Counts.Delivered)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stats.Lag != nil {
		res.Lag = quantiles(r.stats.Lag)
		res.HeldBack, res.HeldBackMax, res.ExactPacing = r.stats.HeldBack, r.stats.HeldBackMax, r.stats.Exact
	}
	for _, err := range r.errs {
		res.Errors = append(res.Errors, err.Error())
	}
	return res
}

// judge fills Violations and Invalid.
func (res *Result) judge() {
	violated := func(n uint64, what string) {
		if n > 0 {
			res.Violations = append(res.Violations, fmt.Sprintf("%d %s", n, what))
		}
	}
	c := res.Counts
	if res.Ack != "none" { // nothing is promised there
		violated(c.Lost, "acknowledged and not delivered")
	}
	violated(c.Duplicated, "delivered more than once")
	violated(c.Reordered, "delivered out of order")
	violated(c.Corrupt, "corrupt")
	violated(c.Phantom, "delivered that were never sent")
	violated(c.Misplaced, "delivered by another partition")
	violated(res.OffsetsBack, "delivered at an offset already used")

	invalid := func(format string, args ...any) { res.Invalid = append(res.Invalid, fmt.Sprintf(format, args...)) }
	if res.Interrupted {
		invalid("interrupted")
		return
	}
	if !res.Complete {
		invalid("%d messages without an answer and %d acknowledged but not delivered when the drain gave up", c.Unanswered, c.Lost)
	}
	if res.Mode != Open {
		return
	}
	if reported := min(res.E2E.P99, res.AckLatency.P99); reported > 0 && float64(res.Lag.P99) > lagShare*float64(reported) {
		invalid("the generator's dispatch lag, p99 %v, is more than %.0f %% of the p99 it reports, %v", time.Duration(res.Lag.P99), 100*lagShare, time.Duration(reported))
	}
	if res.Arrival == Constant && res.Sent < res.Offered*(1-rateShare) {
		invalid("%.0f messages a second were sent, %.0f offered", res.Sent, res.Offered)
	}
	if res.Generator > generatorShare {
		invalid("the generator used %.0f %% of the processors", 100*res.Generator)
	}
}

// ExitStatus is what a command ends with: 4 for a violation, 3 for an invalid
// run, 0 otherwise.
func (res *Result) ExitStatus() int {
	switch {
	case len(res.Violations) > 0:
		return 4
	case len(res.Invalid) > 0:
		return 3
	}
	return 0
}

// Snapshot is a run's state while it goes on. Rates and quantiles are of the
// time since the snapshot before.
type Snapshot struct {
	Elapsed, Planned time.Duration
	Sent, Acked      uint64
	Delivered        uint64
	Failed           uint64
	SentPerSec       float64
	DeliveredPerSec  float64
	E2E              Quantiles
	Outstanding      uint64 // sent, and neither delivered nor given up
	TargetCPU        float64
	TargetRSS        int64
}

// watch calls Progress about once a second until ctx ends.
func (r *Run) watch(ctx context.Context, start int64) {
	const every = time.Second
	tick := time.NewTicker(every)
	defer tick.Stop()
	var last Snapshot
	at, cpu := r.clock.Now(), time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := r.clock.Now()
		seconds := float64(now-at) / 1e9
		s := Snapshot{
			Elapsed: time.Duration(now - start), Planned: r.cfg.Duration,
			Sent: r.sent.Load(), Acked: r.acked.Load(), Delivered: r.delivered.Load(), Failed: r.failed.Load(),
		}
		s.SentPerSec = float64(s.Sent-last.Sent) / seconds
		s.DeliveredPerSec = float64(s.Delivered-last.Delivered) / seconds
		h := pace.NewHistogram()
		for _, k := range r.consumers {
			k.e2e.drainTo(h)
		}
		r.outage.all.drainTo(h)
		s.E2E = quantiles(h)
		if done := s.Delivered + s.Failed; s.Sent > done {
			s.Outstanding = s.Sent - done
		}
		if t := r.target; t != nil {
			t.sample()
			t.mu.Lock()
			total := t.ended + t.cpu
			s.TargetCPU, s.TargetRSS = (total-cpu).Seconds()/seconds, t.rss
			cpu = total
			t.mu.Unlock()
		}
		last, at = s, now
		if r.cfg.Progress != nil {
			r.cfg.Progress(s)
		}
	}
}
