package load

import (
	"fmt"
	"time"

	"github.com/portask/portask/loadgen/driver"
	"github.com/portask/portask/loadgen/payload"
	"github.com/portask/portask/loadgen/scenario"
	"github.com/portask/portask/loadgen/verify"
)

// Schema is the version of Result as JSON. Fields are added without changing
// it; docs/results.md describes them.
const Schema = 2

// Result is the outcome of a run, also as JSON. Counts are of the whole run,
// all phases and topics; latencies and rates are in Measured.
type Result struct {
	Schema int       `json:"schema"`
	RunID  string    `json:"run_id"`
	Began  time.Time `json:"began"`

	Scenario string `json:"scenario"` // its name
	Hash     string `json:"scenario_hash"`
	Resolved string `json:"resolved"` // the scenario with every setting, YAML

	System     driver.Description `json:"system"`
	Durability driver.Durability  `json:"durability"` // of an acknowledged message, as the system says
	Topics     []TopicInfo        `json:"topics"`
	Loop       string             `json:"loop"` // open, closed: then latencies are service times
	Ack        string             `json:"ack"`
	Visibility string             `json:"visibility"` // of the topics; "mixed" if they differ
	Producers  int                `json:"producers"`
	Consumers  int                `json:"consumers"`
	Partitions int                `json:"partitions"` // of all topics
	Payload    PayloadInfo        `json:"payload"`

	Counts      verify.Counts `json:"counts"`
	OffsetsBack uint64        `json:"offsets_back"` // deliveries at an offset already passed

	// Measured is nil if the run is invalid. What was measured all the same is
	// then Rejected, for finding out why; it is no result and is not to be
	// shown as one.
	Measured *Measured `json:"measured,omitempty"`
	Rejected *Measured `json:"rejected,omitempty"`

	Wire      Wire       `json:"wire"`
	Generator Generator  `json:"generator"`
	Target    *TargetUse `json:"target,omitempty"`
	Faults    []Fault    `json:"faults,omitempty"` // those of the scenario that took place
	Agents    []Agent    `json:"agents,omitempty"` // the processes that shared the run, if several did

	Complete    bool     `json:"complete"` // everything was settled before the drain gave up
	Interrupted bool     `json:"interrupted"`
	Errors      []string `json:"errors,omitempty"` // the clients' first few
	// Violations are promises the target broke, Invalid why latencies and rates
	// say nothing about it, Missed the objectives that were not reached. Empty
	// is good.
	Violations []Problem `json:"violations,omitempty"`
	Invalid    []Problem `json:"invalid,omitempty"`
	Missed     []Problem `json:"missed,omitempty"`
	Notes      []string  `json:"notes,omitempty"`
}

// Agent is one of the processes that shared a run.
type Agent struct {
	Name    string `json:"name"` // its address
	Version string `json:"version"`
	Lost    bool   `json:"lost"` // it did not tell what came of its share
	// Its share: producers, of which the first has the id FirstProducer in
	// messages, consumers and partitions.
	Producers     int `json:"producers"`
	FirstProducer int `json:"first_producer"`
	Consumers     int `json:"consumers"`
	Partitions    int `json:"partitions"`

	// ClockError bounds how far its clock was from the coordinator's when it
	// began: half of the shortest round trip. ClockDrift is how much further the
	// clocks were apart at the end; it is known to as much.
	ClockError int64 `json:"clock_error_ns"`
	ClockDrift int64 `json:"clock_drift_ns"`
	// Late is how long after the agreed time it was ready to begin; 0: it was
	// in time.
	Late int64 `json:"late_ns"`

	Counts    verify.Counts `json:"counts"`
	Generator Generator     `json:"generator"`
}

// TopicInfo is a topic of a run.
type TopicInfo struct {
	Name       string `json:"name"` // on the target
	Partitions int    `json:"partitions"`
	Visibility string `json:"visibility"`
}

// PayloadInfo is what values were.
type PayloadInfo struct {
	Source   string `json:"source"` // as the scenario says
	Describe string `json:"describe"`
	Size     string `json:"size"` // of values before encoding, as the scenario says; "lines", "empirical"
	Codec    string `json:"codec"`
	Keys     string `json:"keys"` // how many and how they are spread
	// Stats are of what was sent, warm-up included.
	payload.Stats
}

// Measured are the measurements of a run.
type Measured struct {
	// Total is of all measured phases together, Phases each by itself, in order,
	// the ones not measured included, without latencies.
	Total  Phase      `json:"total"`
	Phases []Phase    `json:"phases"`
	Series []Interval `json:"series"`
}

// Phase is what was measured of a phase. Messages belong to the phase in which
// they were due; rates are of what happened during it.
type Phase struct {
	Name     string  `json:"name"`
	Measured bool    `json:"measured"`
	Start    float64 `json:"start_s"`
	Seconds  float64 `json:"seconds"`

	// Messages a second. Offered is what was due, 0 in a closed loop.
	Offered       float64 `json:"offered_per_s,omitempty"`
	Sent          float64 `json:"sent_per_s"`
	Acked         float64 `json:"acked_per_s"`
	Delivered     float64 `json:"delivered_per_s"`
	DeliveredMBps float64 `json:"delivered_mb_per_s"` // 1 MB = 1e6 B of values

	Latency Latencies `json:"latency"`
	// HeldBack messages left late because the target, through its client, took
	// no more; HeldBackMax is the longest wait, ns.
	HeldBack    uint64 `json:"held_back"`
	HeldBackMax int64  `json:"held_back_max_ns"`

	Histograms Histograms `json:"histograms"`
}

// Wire is what producers' clients count.
type Wire struct {
	Batches          uint64  `json:"batches"`
	MessagesPerBatch float64 `json:"messages_per_batch"`
	Bytes            uint64  `json:"bytes"`     // sent, frames and retries included
	RawBytes         uint64  `json:"raw_bytes"` // of batch bodies before compression
	// Compression is RawBytes / Bytes: above 1 if compression pays.
	Compression float64 `json:"compression_ratio"`
	Retries     uint64  `json:"retries"`    // batches sent again
	Duplicates  uint64  `json:"duplicates"` // of those, recognised by the target
}

// Generator is what the generator itself took, the drain included.
type Generator struct {
	CPUSeconds  float64 `json:"cpu_s"`
	SpinSeconds float64 `json:"spin_s"` // of those, the pacer's spinning: no work
	Share       float64 `json:"share"`  // of the processors, spinning left out
	Steal       float64 `json:"steal"`  // of the machine's time, by its host
	ExactPacing bool    `json:"exact_pacing"`
	// Priority is that of the pacer's thread: "ordinary" where the process may
	// not have a better one. Empty in a closed loop.
	Priority string `json:"pacer_priority,omitempty"`
}

// Problem is a reason for a verdict.
type Problem struct {
	Kind  string `json:"kind"`            // see the constants, or an objective's metric
	Phase string `json:"phase,omitempty"` // empty: of the whole run
	Text  string `json:"text"`
}

// String returns the text, with the phase.
func (p Problem) String() string {
	if p.Phase != "" {
		return p.Phase + ": " + p.Text
	}
	return p.Text
}

// Kinds of Problem.
const (
	Lost       = "lost"
	Duplicated = "duplicated"
	Reordered  = "reordered"
	Corrupt    = "corrupt"
	Phantom    = "phantom"
	Misplaced  = "misplaced"
	OffsetUsed = "offset_used_again"

	Interrupted = "interrupted"
	Unsettled   = "unsettled"     // messages without a fate when the drain gave up
	DispatchLag = "dispatch_lag"  // the generator was late
	RateMissed  = "rate_missed"   // fewer were sent than were due, and the target held nothing back
	Saturated   = "saturated"     // fewer were sent than were due, since the target took no more
	BusyCPU     = "generator_cpu" // the generator had no processor left
	Empty       = "empty"         // nothing was measured
	AgentLost   = "agent_lost"    // a process that shared the run did not end it
	AgentLate   = "agent_late"    // it did not begin with the others
	ClockBound  = "clock_bound"   // when it began is not known well enough
)

// Valid reports whether the measurements are a result.
func (res *Result) Valid() bool { return len(res.Invalid) == 0 }

func (r *Run) result(used Generator) *Result {
	s := r.s
	res := &Result{
		Schema: Schema, RunID: fmt.Sprintf("%016x", r.id), Began: r.began,
		Scenario: s.Name, Hash: s.Hash(), Resolved: string(s.YAML()),
		System: r.system, Loop: s.Loop, Ack: s.Producers.Ack, Producers: len(r.producers), Consumers: len(r.consumers), Partitions: len(r.places),
		Payload: PayloadInfo{Source: s.Payload.Source, Describe: r.describe, Size: sizes(&s.Payload), Codec: s.Producers.Codec, Keys: keysInWords(&s.Keys)},
		Counts:  r.tracker.Counts(), OffsetsBack: r.offsetsBack.Load(), Generator: used,
		Faults: r.faultResults(), Notes: r.remarks,
	}
	var meters []*payload.Meter
	for _, p := range r.producers {
		meters = append(meters, p.meter)
	}
	var err error
	if res.Payload.Stats, err = payload.Summarise(meters); err != nil {
		r.note(err)
	}
	res.Durability, _ = r.system.Gives(s.Producers.AckLevel())
	for i := range r.topics {
		t := &r.topics[i]
		v := t.Visibility.String()
		res.Topics = append(res.Topics, TopicInfo{t.Name, t.Partitions, v})
		if i > 0 && v != res.Visibility {
			v = "mixed"
		}
		res.Visibility = v
	}
	res.Measured = r.measured()
	res.Wire = r.wire()
	res.Target = r.target.use(res.Counts.Delivered)
	r.mu.Lock()
	defer r.mu.Unlock()
	res.Generator.ExactPacing, res.Generator.Priority = r.paced.Exact, r.paced.Priority
	for _, err := range r.errs {
		res.Errors = append(res.Errors, err.Error())
	}
	return res
}

// sizes says in a word what sizes values have.
func sizes(p *scenario.Payload) string {
	switch {
	case p.Split == scenario.SplitLine:
		return "lines"
	case p.Distribution == scenario.Empirical:
		return scenario.Empirical
	case p.Distribution != string(payload.Uniform):
		return p.Distribution + ":" + p.Size
	}
	return p.Size
}

// keysInWords says how keys are spread.
func keysInWords(k *scenario.Keys) string {
	switch {
	case k.Count == 0:
		return "none"
	case k.Hot > 0:
		return fmt.Sprintf("%d, %g %% of the messages have one of %d", k.Count, 100*k.HotShare, k.Hot)
	case k.Skew > 0:
		return fmt.Sprintf("%d, Zipf %g", k.Count, k.Skew)
	}
	return fmt.Sprintf("%d, each as likely", k.Count)
}

func (r *Run) wire() Wire {
	var w Wire
	var messages uint64
	for _, p := range r.producers {
		for _, o := range p.outs {
			s := o.d.Stats()
			messages += s.Messages
			w.Batches += s.Batches
			w.Bytes += s.WireBytes
			w.RawBytes += s.RawBytes
			w.Retries += s.Retries
			w.Duplicates += s.Duplicates
		}
	}
	if w.Batches > 0 {
		w.MessagesPerBatch = float64(messages) / float64(w.Batches)
	}
	if w.Bytes > 0 {
		w.Compression = float64(w.RawBytes) / float64(w.Bytes)
	}
	return w
}

// measured is called when watch has ended.
func (r *Run) measured() *Measured {
	m := &Measured{Series: r.series.list(), Total: Phase{Name: "total", Measured: true, Start: -1}}
	var all struct{ due, sent, acked, delivered, bytes float64 }
	for i := range r.s.Phases {
		x := &r.s.Phases[i]
		p := Phase{
			Name: x.Name, Measured: x.Measured, Start: float64(r.timeline[i]-r.timeline[0]) / 1e9, Seconds: x.Duration.Seconds(),
			HeldBack: uint64(r.held[i].Load()), HeldBackMax: r.heldMax[i].Load(),
		}
		var sent, acked, delivered, bytes uint64
		for _, q := range r.producers {
			sent += q.sent[i].Load()
			acked += q.acked[i].Load()
		}
		for _, q := range r.readers {
			delivered += q.delivered[i].Load()
			bytes += q.bytes[i].Load()
		}
		due := float64(r.due[i].Load())
		p.Offered, p.Sent, p.Acked = due/p.Seconds, float64(sent)/p.Seconds, float64(acked)/p.Seconds
		p.Delivered, p.DeliveredMBps = float64(delivered)/p.Seconds, float64(bytes)/p.Seconds/1e6
		if x.Measured {
			p.Histograms = r.totals[i]
			p.Latency = p.Histograms.summarise()
			t := &m.Total
			if t.Start < 0 {
				t.Start = p.Start
			}
			t.Seconds += p.Seconds
			t.HeldBack += p.HeldBack
			t.HeldBackMax = max(t.HeldBackMax, p.HeldBackMax)
			t.Histograms.Merge(p.Histograms)
			all.due += due
			all.sent += float64(sent)
			all.acked += float64(acked)
			all.delivered += float64(delivered)
			all.bytes += float64(bytes)
		}
		m.Phases = append(m.Phases, p)
	}
	t := &m.Total
	t.Latency = t.Histograms.summarise()
	t.Offered, t.Sent, t.Acked = all.due/t.Seconds, all.sent/t.Seconds, all.acked/t.Seconds
	t.Delivered, t.DeliveredMBps = all.delivered/t.Seconds, all.bytes/t.Seconds/1e6
	return m
}
