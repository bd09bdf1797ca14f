package scenario

import (
	"fmt"
	"strings"
	"time"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/config/document"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/loadgen/corpus"
	"github.com/portask/portask/loadgen/driver"
	"github.com/portask/portask/loadgen/payload"
)

// Limits of settings.
const (
	PartitionsMax = 4096 // of all topics
	ClientsMax    = 1024 // producers, and consumers
	topicsMax     = 64
	phasesMax     = 64
	objectivesMax = 64
	rateMax       = 1e8
	day           = 24 * time.Hour
)

// entry is one line of the table: a setting, a table of settings, or a list of
// tables.
type entry struct {
	name, doc string
	v         value   // a setting
	table     []entry // a table
	list      *list   // a list of tables
	// only: the setting has a meaning; nil: always. A setting without meaning
	// is not written, and giving it is a Problem.
	only func() bool
	when string // only in words: "arrival bursts"
}

// list is a list of tables.
type list struct {
	max   int
	len   func() int
	clear func()
	// add appends an item with its defaults.
	add func()
	// at is the table of item i; name is its name, for paths.
	at   func(i int) []entry
	name func(i int) string
}

// table is everything a file may say, bound to s.
func (s *Scenario) table() []entry {
	load := func() bool { return s.Kind == KindLoad }
	const loads = "kind load"
	return []entry{
		{name: "name", doc: "What the scenario is called in results: letters, digits, dots and dashes.", v: parsed{&s.Name, checkName, "a name"}},
		{name: "about", doc: "What it is for, on one line.", v: stringValue{&s.About, 200, ""}},
		{name: "seed", doc: "Fixes arrivals, payloads and keys: the same seed sends the same messages at the same times.", v: uintValue{&s.Seed}},
		{name: "kind", doc: "load: messages are sent, received and verified. connections: connections are opened, each subscribes the topic, and their cost is measured.", v: oneOf{&s.Kind, []string{KindLoad, KindConnections}}},
		{name: "loop", doc: "open: messages are due at times fixed in advance, and latency counts from then. closed: each producer sends when an earlier message is answered; its latencies are service times, and say nothing about a load that does not wait.", v: oneOf{&s.Loop, []string{OpenLoop, ClosedLoop}}, only: load, when: loads},
		{name: "topics", doc: "The topics that are loaded.", list: &list{
			max: topicsMax, len: func() int { return len(s.Topics) }, clear: func() { s.Topics = nil },
			add: func() { s.Topics = append(s.Topics, defaultTopic()) },
			at:  func(i int) []entry { return s.Topics[i].table() }, name: func(i int) string { return s.Topics[i].Name },
		}},
		{name: "producers", doc: "How messages are sent.", table: s.Producers.table(s), only: load, when: loads},
		{name: "consumers", doc: "How messages are received.", table: s.Consumers.table(), only: load, when: loads},
		{name: "payload", doc: "What values are.", table: s.Payload.table(), only: load, when: loads},
		{name: "keys", doc: "What keys messages have. A key chooses the partition.", table: s.Keys.table(), only: load, when: loads},
		{name: "phases", doc: "What happens, one after the other.", only: load, when: loads, list: &list{
			max: phasesMax, len: func() int { return len(s.Phases) }, clear: func() { s.Phases = nil },
			add: func() { s.Phases = append(s.Phases, defaultPhase()) },
			at:  func(i int) []entry { return s.Phases[i].table(s) }, name: func(i int) string { return s.Phases[i].Name },
		}},
		{name: "faults", doc: "What goes wrong meanwhile, one after the other.", only: load, when: loads, list: &list{
			max: faultsMax, len: func() int { return len(s.Faults) }, clear: func() { s.Faults = nil },
			add: func() { s.Faults = append(s.Faults, defaultFault()) },
			at:  func(i int) []entry { return s.Faults[i].table() }, name: func(i int) string { return s.Faults[i].Kind },
		}},
		{name: "objectives", doc: "What the run must reach; exit status 2 if it does not.", only: load, when: loads, list: &list{
			max: objectivesMax, len: func() int { return len(s.Objectives) }, clear: func() { s.Objectives = nil },
			add: func() { s.Objectives = append(s.Objectives, Objective{}) },
			at:  func(i int) []entry { return s.Objectives[i].table() }, name: func(int) string { return "" },
		}},
		{name: "limits", doc: "What ends or bounds the run.", table: s.Limits.table(), only: load, when: loads},
		{name: "connections", doc: "What is opened and held, instead of a load.", table: s.Connections.table(), only: func() bool { return s.Kind == KindConnections }, when: "kind connections"},
	}
}

func (t *Topic) table() []entry {
	made := func() bool { return !t.Existing }
	return []entry{
		{name: "name", doc: "A run creates <name>-<run id> and deletes it at its end, unless the topic is an existing one.", v: parsed{&t.Name, checkTopic, "a topic's name"}},
		{name: "existing", doc: "The topic is there, under this very name, and stays. What is produced from the start of the run on is consumed.", v: boolValue{&t.Existing}},
		{name: "partitions", doc: "Of the new topic.", v: intValue{&t.Partitions, 1, PartitionsMax}, only: made, when: "a new topic"},
		{name: "visibility", doc: "What a message must have reached before it is consumed; ack: the producers' level.", v: oneOf{&t.Visibility, []string{"ack", "accepted", "durable"}}, only: made, when: "a new topic"},
		{name: "retention", doc: "Age at which messages may be removed; 0: the broker's default.", v: durationValue{at: &t.Retention, max: 365 * day}, only: made, when: "a new topic"},
		{name: "retention_bytes", doc: "Size of a partition from which messages may be removed; 0: the broker's default.", v: sizeValue{&t.RetentionBytes, 0, 1 << 40}, only: made, when: "a new topic"},
		{name: "share", doc: "Of the messages, relative to the other topics' shares.", v: intValue{&t.Share, 1, 1000}},
	}
}

func (p *Producers) table(s *Scenario) []entry {
	return []entry{
		{name: "count", doc: "Producers, each with a connection of its own. Together they send at the phases' rates, to all topics.", v: intValue{&p.Count, 1, ClientsMax}},
		{name: "ack", doc: "What an acknowledgement means.", v: oneOf{&p.Ack, []string{"none", "accepted", "durable"}}},
		{name: "batch", doc: "Size at which a batch is sent.", v: sizeValue{&p.Batch, 1, 32 << 20}},
		{name: "linger", doc: "How long a batch may wait to fill.", v: durationValue{at: &p.Linger, max: 10 * time.Second, auto: "client"}},
		{name: "compression", doc: "When batches are compressed (never, always, threshold: where it pays) and how (threshold:zstd); adaptive has the client choose both for each batch; auto leaves it to the deployment, whose advice the client follows.", v: parsed{&p.Compression, func(s string) error { _, err := parseCompression(s); return err }, "never, always:<algorithm>, threshold:<algorithm>, adaptive or auto; " + strings.Join(algorithms(), ", ")}},
		{name: "codec", doc: "How values are encoded: raw bytes, or a document with the fields of the header and the body, encoded by the broker's serialization and verified after decoding.", v: oneOf{&p.Codec, codecs()}},
		{name: "in_flight", doc: "Messages of each producer that may be unanswered.", v: intValue{&p.InFlight, 1, 1 << 20}, only: func() bool { return s.Loop == ClosedLoop }, when: "loop closed"},
		{name: "buffer", doc: "What each producer may hold before it makes the generator wait; 0: the client's default.", v: sizeValue{&p.Buffer, 0, 1 << 30}},
	}
}

func (c *Consumers) table() []entry {
	modes := make([]string, len(driver.Modes))
	for i, m := range driver.Modes {
		modes[i] = string(m)
	}
	return []entry{
		{name: "count", doc: "Consumers, each with a connection of its own; the partitions are shared out among them.", v: intValue{&c.Count, 1, ClientsMax}},
		{name: "delivery", doc: "How messages are handed to them. A system that has no such mode refuses the scenario.", v: oneOf{&c.Delivery, modes}},
	}
}

func (p *Payload) table() []entry {
	bySize := func() bool { return p.Split == SplitSize }
	return []entry{
		{name: "source", doc: "Where bodies come from: a generated kind (" + strings.Join(corpus.Kinds, ", ") + ", entropy:0.3) or several with commas between them, modules (test data of Go modules), a directory or a file.", v: stringValue{&p.Source, 1000, "kinds, modules, or a path"}},
		{name: "split", doc: "How bodies are cut from the source: size: pieces of the wanted size, beginning anywhere; line: lines, whose lengths are the sizes.", v: oneOf{&p.Split, []string{SplitSize, SplitLine}}},
		{name: "turn", doc: "So many values of a producer in a partition are of the first kind or file, as many of the next, and so on in a ring, so that what is sent changes; 0: each value is of any.", v: intValue{&p.Turn, 0, 1 << 30}, only: bySize, when: "split size"},
		{name: "distribution", doc: "Of sizes: uniform over the range; lognormal: its ends are three deviations from the median; zipf: as likely as small; empirical: a file's.", v: oneOf{&p.Distribution, []string{string(payload.Uniform), string(payload.LogNormal), string(payload.Zipf), Empirical}}, only: bySize, when: "split size"},
		{name: "size", doc: fmt.Sprintf("Bytes of a value, its header of %d included, or a range 200B..4KiB.", payload.HeaderBytes), v: parsed{&p.Size, func(s string) error { _, _, err := parseSizeRange(s); return err }, "a size or a range of sizes"}, only: func() bool { return bySize() && p.Distribution != Empirical }, when: "split size and a distribution over a range"},
		{name: "sizes", doc: "File of the empirical distribution: lines of size,weight, at most 10,000.", v: stringValue{&p.Sizes, 1000, "a path"}, only: func() bool { return bySize() && p.Distribution == Empirical }, when: "distribution empirical"},
	}
}

func (k *Keys) table() []entry {
	return []entry{
		{name: "count", doc: "Different keys; 0: messages have none and go to the partitions in turn.", v: intValue{&k.Count, 0, 100_000_000}},
		{name: "skew", doc: "Exponent of Zipf's law; 0: every key is as likely, 0.99: as in many caches.", v: floatValue{&k.Skew, 0, 3, ""}, only: func() bool { return k.Count > 0 && k.Hot == 0 }, when: "keys, none of which is hot"},
		{name: "hot", doc: "So many of the keys are hot; 0: none.", v: intValue{&k.Hot, 0, 100_000_000}, only: func() bool { return k.Count > 0 && k.Skew == 0 }, when: "keys without skew"},
		{name: "hot_share", doc: "Share of the messages that have one of the hot keys, each as likely; the other keys share the rest.", v: floatValue{&k.HotShare, 0, 1, ""}, only: func() bool { return k.Count > 0 && k.Skew == 0 && k.Hot > 0 }, when: "hot keys"},
	}
}

// Arrivals are the shapes of a phase.
var Arrivals = []string{"constant", "poisson", "bursts", "sine", "ramp", "staircase", "trace"}

func (p *Phase) table(s *Scenario) []entry {
	open := func() bool { return s.Loop == OpenLoop }
	of := func(arrivals ...string) (func() bool, string) {
		return func() bool {
			for _, a := range arrivals {
				if open() && p.Arrival == a {
					return true
				}
			}
			return false
		}, "arrival " + strings.Join(arrivals, ", ")
	}
	e := func(name, doc string, v value, arrivals ...string) entry {
		x := entry{name: name, doc: doc, v: v}
		x.only, x.when = of(arrivals...)
		return x
	}
	return []entry{
		{name: "name", doc: "For objectives and results; no other phase has it.", v: parsed{&p.Name, checkName, "a name"}},
		{name: "duration", doc: "How long it lasts.", v: durationValue{at: &p.Duration, min: 10 * time.Millisecond, max: day}},
		{name: "measured", doc: "Whether its latencies and rates are part of the result. Messages of all phases are verified.", v: boolValue{&p.Measured}},
		{name: "arrival", doc: "The rate over time. poisson is constant with spacing poisson.", v: oneOf{&p.Arrival, Arrivals}, only: open, when: "loop open"},
		e("spacing", "How messages lie within the shape: evenly, or at random, as those of many independent senders do.", oneOf{&p.Spacing, []string{"even", "poisson"}}, "constant", "bursts", "sine", "ramp", "staircase"),
		e("rate", "Messages a second in all: constant, in bursts, the middle of a sine, or at the beginning.", floatValue{&p.Rate, 0.1, rateMax, "messages a second"}, "constant", "poisson", "bursts", "sine", "ramp", "staircase"),
		e("to", "The rate at the end.", floatValue{&p.To, 0.1, rateMax, "messages a second"}, "ramp", "staircase"),
		e("steps", "Levels from rate to to, equally long.", intValue{&p.Steps, 2, 1000}, "staircase"),
		e("base", "The rate between bursts.", floatValue{&p.Base, 0, rateMax, "messages a second"}, "bursts"),
		e("on", "Length of a burst.", durationValue{at: &p.On, min: time.Millisecond, max: day}, "bursts"),
		e("off", "Time between bursts.", durationValue{at: &p.Off, min: time.Millisecond, max: day}, "bursts"),
		e("amplitude", "The rate swings by so much to both sides.", floatValue{&p.Amplitude, 0, rateMax, "messages a second"}, "sine"),
		e("period", "Of the sine.", durationValue{at: &p.Period, min: 10 * time.Millisecond, max: day}, "sine"),
		e("file", "Trace to be replayed: arrivals, sizes and keys, see below.", stringValue{&p.File, 1000, "a path"}, "trace"),
		e("speed", "How much faster than recorded it is replayed.", floatValue{&p.Speed, 0.01, 1000, ""}, "trace"),
		e("shape_only", "Only the times are the trace's; sizes, keys and topics are the scenario's.", boolValue{&p.ShapeOnly}, "trace"),
	}
}

func (o *Objective) table() []entry {
	return []entry{
		{name: "metric", doc: "What is judged. e2e: from the intended time to the verified delivery; ack: from the intended time to the acknowledgement; service: from the send to the acknowledgement.", v: oneOf{&o.Metric, Metrics}},
		{name: "at_most", doc: "The most a latency may be.", v: durationValue{at: &o.AtMost, min: time.Microsecond, max: 10 * time.Minute}, only: func() bool { return !o.isRate() }, when: "latencies"},
		{name: "at_least", doc: "The least a rate may be.", v: floatValue{&o.AtLeast, 0.1, rateMax, "messages a second"}, only: o.isRate, when: "rates"},
		{name: "phase", doc: "The phase it holds for; empty: all measured phases together.", v: stringValue{&o.Phase, 100, "a phase's name"}},
	}
}

func (l *Limits) table() []entry {
	return []entry{
		{name: "drain", doc: "How long to wait at the end, without any progress, for what is outstanding.", v: durationValue{at: &l.Drain, min: 10 * time.Millisecond, max: time.Hour}},
		{name: "window", doc: "Messages of a producer in a partition that may be unsettled (not acknowledged or not delivered) before the generator waits. Each costs three bits.", v: intValue{&l.Window, 64, 1 << 30}},
		{name: "quantum", doc: "Shortest sleep of the pacer: what falls due meanwhile leaves together, each with its own intended time.", v: durationValue{at: &l.Quantum, max: 10 * time.Millisecond}},
		{name: "on_time", doc: "A partition has recovered from a fault when a message of each producer is delivered so soon after its intended time.", v: durationValue{at: &l.OnTime, min: time.Millisecond, max: 10 * time.Minute}},
	}
}

// Metrics are what an objective may judge.
var Metrics = metrics()

func metrics() []string {
	var all []string
	for _, l := range []string{"e2e", "ack", "service"} {
		for _, q := range []string{"p50", "p90", "p99", "p99_9", "max"} {
			all = append(all, l+"_"+q)
		}
	}
	return append(all, "delivered_rate", "acked_rate")
}

func (o *Objective) isRate() bool { return strings.HasSuffix(o.Metric, "_rate") }

func algorithms() []string {
	var all []string
	for a := message.None + 1; a <= message.Brotli; a++ {
		all = append(all, a.String())
	}
	return all
}

func codecs() []string {
	var all []string
	for e := message.Raw; e.Valid(); e++ {
		all = append(all, e.String())
	}
	return all
}

func checkName(s string) error {
	if len(s) == 0 || len(s) > 60 {
		return fmt.Errorf("%d letters: want 1 to 60", len(s))
	}
	for _, r := range s {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.' || r == '_') {
			return fmt.Errorf("%s: want letters, digits, dots, dashes and underscores", document.Quoted(s))
		}
	}
	return nil
}

// checkTopic leaves the broker's rule to the broker: other systems have others.
func checkTopic(s string) error {
	if len(s) == 0 || len(s) > 200 {
		return fmt.Errorf("%d bytes: want a name of 1 to 200", len(s))
	}
	return nil
}

func parseSizeRange(s string) (lo, hi int, err error) {
	from, to, isRange := strings.Cut(s, "..")
	if !isRange {
		to = from
	}
	if lo, err = ParseSize(from); err != nil {
		return 0, 0, err
	}
	if hi, err = ParseSize(to); err != nil {
		return 0, 0, err
	}
	if lo < payload.HeaderBytes || hi > payload.SizeMax || lo > hi {
		return 0, 0, fmt.Errorf("%s: want %s (the header) to %s, the smaller first", document.Quoted(s), document.FormatSize(payload.HeaderBytes), document.FormatSize(payload.SizeMax))
	}
	return lo, hi, nil
}

func parsePolicy(s string, p compression.Policy) (driver.Compression, error) {
	strategy, algorithm, named := strings.Cut(s, ":")
	var err error
	if p.Strategy, err = compression.ParseStrategy(strategy); err != nil {
		return driver.Compression{}, fmt.Errorf("%s: want never, always, threshold (with an algorithm: threshold:zstd), adaptive or auto", document.Quoted(s))
	}
	if named {
		if p.Algorithm, err = message.ParseAlgorithm(algorithm); err != nil || p.Strategy == compression.Never || p.Strategy == compression.Adaptive {
			return driver.Compression{}, fmt.Errorf("%s: want one of the algorithms %s", document.Quoted(s), strings.Join(algorithms(), ", "))
		}
	}
	if p.Strategy == compression.Adaptive {
		p = compression.Policy{Strategy: compression.Adaptive}
	}
	return driver.Compression{Policy: p}, nil
}
