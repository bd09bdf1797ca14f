// Package scenario reads, checks and writes scenarios: what a run of the load
// generator does, as a file of YAML or JSON.
//
// A scenario says everything that decides what is sent and when, so the same
// scenario with the same seed is the same stream of messages. It says nothing
// of the deployment: addresses and drivers belong to the command.
//
// Reading is strict. An unknown name, a value of another type or out of its
// limits, a name given twice, a setting that has no meaning beside the others:
// each is a Problem, and Parse reports all of them at once, with file, line,
// path and, for an unknown name, the nearest known one. The one table of
// settings is in schema.go; docs/scenarios.md is made from it.
//
// What ran is kept as the resolved scenario: every setting with its value,
// defaults included (YAML), and its Hash.
package scenario

import (
	"crypto/sha256"
	"encoding/hex"
	"time"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/loadgen/driver"
)

// Version of the format.
const Version = 1

// Scenario is one, resolved: every field has its value. Make it with Default,
// Parse or Load; after changing fields by hand, call Validate.
type Scenario struct {
	Name  string // of the file without extension, if it does not say
	About string // one line
	Seed  uint64
	// Kind is what the run does: KindLoad or KindConnections.
	Kind string
	// Loop is how messages are timed: "open" (a schedule fixed in advance) or
	// "closed" (when earlier ones are answered; latencies are service times).
	Loop string

	Topics     []Topic
	Producers  Producers
	Consumers  Consumers
	Payload    Payload
	Keys       Keys
	Phases     []Phase
	Faults     []Fault
	Objectives []Objective
	Limits     Limits

	Connections Connections // KindConnections

	// Dir is where relative paths of the scenario begin; not part of it.
	Dir string
}

// The loops.
const (
	OpenLoop   = "open"
	ClosedLoop = "closed"
)

// Topic is one of the topics that are loaded.
type Topic struct {
	Name string
	// Existing: the topic is there, under this very name, and stays. Otherwise
	// a run creates its own, <name>-<run id>, and deletes it.
	Existing       bool
	Partitions     int    // of an existing topic: what it has
	Visibility     string // accepted, durable, or ack: as the producers' level
	Retention      time.Duration
	RetentionBytes int
	// Share of the messages, relative to the other topics'.
	Share int
}

// Producers say how messages are sent.
type Producers struct {
	Count int
	Ack   string
	Batch int // bytes
	// Linger is how long a batch may wait to fill, -1 the client's default.
	Linger      time.Duration
	Compression string // never, always:zstd, threshold:zstd, adaptive, auto
	Codec       string // raw, cbor, json, msgpack
	// InFlight messages a producer, closed loop.
	InFlight int
	// Buffer bounds what a producer holds, bytes; 0 the client's default.
	Buffer int
}

// AckLevel is Ack; the scenario is valid.
func (p *Producers) AckLevel() message.AckLevel {
	a, _ := message.ParseAckLevel(p.Ack)
	return a
}

// Encoding is Codec; the scenario is valid.
func (p *Producers) Encoding() message.Encoding {
	e, _ := message.ParseEncoding(p.Codec)
	return e
}

// CompressionPolicy is Compression; the scenario is valid.
func (p *Producers) CompressionPolicy() driver.Compression {
	c, _ := parseCompression(p.Compression)
	return c
}

// VisibilityLevel is Visibility of a topic to which p produces.
func (t *Topic) VisibilityLevel(p *Producers) message.AckLevel {
	if t.Visibility == "ack" {
		return max(p.AckLevel(), message.AckAccepted)
	}
	a, _ := message.ParseAckLevel(t.Visibility)
	return a
}

// Consumers say how messages are received.
type Consumers struct {
	Count    int
	Delivery string // stream, group, queue
}

// Payload says what values are.
type Payload struct {
	// Source is a generated kind, "modules", a directory or a file.
	Source string
	Split  string // SplitSize, SplitLine
	// Distribution of sizes: one of package payload, or Empirical.
	Distribution string
	// Size of values: "1KiB", or a range "200B..4KiB".
	Size  string
	Sizes string // file of an empirical distribution
	// Turn is how many values of a producer in a partition are of one file, or kind,
	// before the next one's turn; 0: of any.
	Turn int
}

// Ways to cut bodies, and the distribution that a file gives.
const (
	SplitSize = "size"
	SplitLine = "line"
	Empirical = "empirical"
)

// SizeRange is Size; the scenario is valid.
func (p *Payload) SizeRange() (lo, hi int) {
	lo, hi, _ = parseSizeRange(p.Size)
	return lo, hi
}

// Keys say what keys messages have.
type Keys struct {
	Count int     // of different keys; 0: no keys
	Skew  float64 // exponent of Zipf's law; 0: all keys are as likely
	// Hot keys share HotShare of the messages evenly, the others the rest; 0: no
	// key is hot. Excludes Skew.
	Hot      int
	HotShare float64
}

// Phase is a stretch of the run.
type Phase struct {
	Name     string
	Duration time.Duration
	// Measured: its latencies and rates are part of the result. What is not
	// measured is verified all the same.
	Measured bool

	// Open loop only. Rates are messages a second in all.
	Arrival   string // constant, poisson, bursts, sine, ramp, staircase, trace
	Spacing   string // even, poisson: how messages lie within the shape
	Rate      float64
	To        float64 // ramp, staircase: the rate at the end
	Steps     int     // staircase
	Base      float64 // bursts: the rate between bursts
	On, Off   time.Duration
	Amplitude float64 // sine: Rate ± Amplitude
	Period    time.Duration
	File      string  // trace
	Speed     float64 // trace
	ShapeOnly bool    // trace: only its times
}

// Objective is what a run must reach: exit status 2 if it does not.
type Objective struct {
	Metric string // e2e_p99, delivered_rate, ...
	// AtMost bounds a latency from above, AtLeast a rate from below; the other
	// is 0.
	AtMost  time.Duration
	AtLeast float64
	// Phase it holds for; empty: all measured ones together.
	Phase string
}

// Limits end or bound a run.
type Limits struct {
	Drain   time.Duration // without progress, at the end
	Window  int           // unsettled messages a lane
	Quantum time.Duration // shortest sleep of the pacer
	OnTime  time.Duration // latency that ends a fault's recovery
}

// Default is what a file need not say: ten seconds of 10,000 messages of 1 KiB a
// second after a second of warm-up.
func Default() *Scenario {
	s := &Scenario{
		Name: "adhoc", Seed: 1, Kind: KindLoad, Loop: OpenLoop, Connections: defaultConnections(),
		Producers: Producers{Count: 2, Ack: "durable", Batch: 64 << 10, Linger: -1, Compression: "never", Codec: "raw", InFlight: 4096},
		Consumers: Consumers{Count: 2, Delivery: string(driver.Stream)},
		Payload:   Payload{Source: "random", Split: SplitSize, Distribution: "uniform", Size: "1KiB"},
		Keys:      Keys{HotShare: 0.9},
		Limits:    Limits{Drain: 15 * time.Second, Window: 4 << 20, Quantum: 50 * time.Microsecond, OnTime: 50 * time.Millisecond},
	}
	s.Topics = []Topic{defaultTopic()}
	warm, main := defaultPhase(), defaultPhase()
	warm.Name, warm.Duration, warm.Measured = "warm-up", time.Second, false
	main.Name, main.Duration = "main", 9*time.Second
	s.Phases = []Phase{warm, main}
	return s
}

func defaultTopic() Topic {
	return Topic{Name: "loadgen", Partitions: 4, Visibility: "ack", Share: 1}
}

func defaultPhase() Phase {
	return Phase{Name: "phase", Duration: 10 * time.Second, Measured: true, Arrival: "constant", Spacing: "even", Rate: 10_000, Speed: 1}
}

// Duration of all phases, or for which connections are held.
func (s *Scenario) Duration() time.Duration {
	if s.Kind == KindConnections {
		return s.Connections.Hold
	}
	var d time.Duration
	for i := range s.Phases {
		d += s.Phases[i].Duration
	}
	return d
}

// Partitions of all topics together.
func (s *Scenario) Partitions() int {
	n := 0
	for i := range s.Topics {
		n += s.Topics[i].Partitions
	}
	return n
}

// Needs are what the scenario asks of a driver.
func (s *Scenario) Needs() driver.Needs {
	n := driver.Needs{
		Mode: driver.Mode(s.Consumers.Delivery), Ack: s.Producers.AckLevel(), Encoding: s.Producers.Encoding(),
		Compression: s.Producers.CompressionPolicy(), Keys: s.Keys.Count > 0,
	}
	for i := range s.Topics {
		t := &s.Topics[i]
		n.Partitions = max(n.Partitions, t.Partitions)
		n.Visibility = max(n.Visibility, t.VisibilityLevel(&s.Producers))
		n.Retention = n.Retention || t.Retention > 0 || t.RetentionBytes > 0
		n.Existing = n.Existing || t.Existing
	}
	return n
}

// Hash names what is run: of the resolved scenario without its name and its
// description. Two runs with the same hash were meant to be the same.
func (s *Scenario) Hash() string {
	x := *s
	x.Name, x.About = "", ""
	sum := sha256.Sum256(x.YAML())
	return hex.EncodeToString(sum[:8])
}

// parseCompression reads "never", "auto", "adaptive", "threshold" or "always:lz4".
func parseCompression(s string) (driver.Compression, error) {
	if s == "auto" {
		return driver.Compression{Auto: true}, nil
	}
	return parsePolicy(s, compression.DefaultPolicy())
}
