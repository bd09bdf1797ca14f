package monitor

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/compression/adaptive"
	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/server"
	"github.com/portask/portask/broker/wire"
)

// Explained is what /debug/compression answers with.
type Explained struct {
	Topics []TopicChoices `json:"topics"` // in the order of the names
	// NotKept are open producers that reported of topics of which nothing is kept,
	// since open producers of other topics have all places.
	NotKept int `json:"producers_not_kept"`
	// LeftOut are topics that would make the answer longer than explainedBytes; each
	// can be asked for by name.
	LeftOut int `json:"topics_left_out"`
}

// explainedBytes bounds an answer, as indented JSON: below what portask reads.
const explainedBytes = 3 << 20

// fit leaves out the last topics until x is short enough, and of a topic that is too
// long by itself the last producers, which are counted with its others.
func (x *Explained) fit(most int) {
	used := 0
	for i := range x.Topics {
		t := &x.Topics[i]
		n := t.bytes()
		for i == 0 && n > most && len(t.Producers) > 0 {
			keep := len(t.Producers) / 2
			t.Others += len(t.Producers) - keep
			t.Producers = t.Producers[:keep]
			n = t.bytes()
		}
		if used += n; used > most {
			x.LeftOut = len(x.Topics) - i
			x.Topics = x.Topics[:i]
			return
		}
	}
}

// bytes is the length of t in an answer.
func (t *TopicChoices) bytes() int {
	b, err := json.MarshalIndent(t, "    ", "  ")
	if err != nil {
		return 0 // and the answer fails too
	}
	return len(b)
}

// TopicChoices is how the producers of a topic that choose how to compress each
// batch do so, as they reported it.
type TopicChoices struct {
	Topic string `json:"topic"` // empty: of topics that were deleted or gave way to others
	// Batches that were chosen for, and changes of the choice, since the broker
	// started, by all producers.
	Batches  uint64 `json:"batches"`
	Switches uint64 `json:"switches"`
	// SkippedBytes are those of the bodies that were sent as they are without an
	// attempt.
	SkippedBytes uint64            `json:"skipped_bytes"`
	Arms         []ArmChoice       `json:"arms"`
	Producers    []ProducerChoices `json:"producers"`
	Others       int               `json:"other_producers"` // open ones whose report is not kept
	Recent       []Turn            `json:"recent"`          // changes of the choice, oldest first
}

// ProducerChoices is the latest report of an open producer.
type ProducerChoices struct {
	Producer string `json:"producer"`
	AgeMs    int64  `json:"age_ms"` // of the report
	Strategy string `json:"strategy"`
	Chosen   string `json:"chosen"` // for the last batch
	Reason   string `json:"reason"`
	Why      string `json:"why"` // Reason in words
	// What the last decision went by; nil or 0: not known.
	CPUPercent *int   `json:"cpu_percent"`
	FanOut     int    `json:"fan_out"`
	LinkBytes  uint64 `json:"link_bytes_per_second"`

	Batches  uint64      `json:"batches"`
	Switches uint64      `json:"switches"`
	Artefact string      `json:"artefact"`
	Note     string      `json:"note,omitempty"` // why it is not the one that was given
	Arms     []ArmChoice `json:"arms"`
}

// ArmChoice counts what was sent by one algorithm at one level. The costs are those
// of a batch like the last one, of a producer; 0 is not known.
type ArmChoice struct {
	Arm         string `json:"arm"`
	Batches     uint64 `json:"batches"`
	BytesIn     uint64 `json:"bytes_in"`
	BytesOut    uint64 `json:"bytes_out"`
	Discarded   uint64 `json:"discarded"` // batches that were sent as they were, since too little was saved
	EncodeNs    uint64 `json:"encode_ns"`
	PredictedNs uint64 `json:"predicted_ns,omitempty"`
	ObservedNs  uint64 `json:"observed_ns,omitempty"`
}

// Turn is a change of a producer's choice.
type Turn struct {
	At       time.Time `json:"at"` // the producer's clock
	Producer string    `json:"producer"`
	From     string    `json:"from,omitempty"` // empty for the first choice
	To       string    `json:"to"`
	Reason   string    `json:"reason"`
}

// Choices are what the producers of a topic, or of all for "", reported.
func (m *Monitor) Choices(topic string) Explained {
	all := Explained{Topics: []TopicChoices{}}
	s := m.broker.Load()
	if s == nil {
		return all
	}
	now := time.Now()
	all.NotKept = s.ChoicesNowhere()
	for _, c := range s.Choices(topic) {
		t := TopicChoices{Topic: c.Topic, Batches: c.Batches, Switches: c.Switches, Others: c.Others, Producers: []ProducerChoices{}, Recent: []Turn{}, Arms: []ArmChoice{}}
		for _, a := range c.Arms {
			if a.Algorithm == message.None {
				t.SkippedBytes += a.In
			}
			t.Arms = append(t.Arms, ArmChoice{Arm: armName(a.Algorithm, a.Level), Batches: a.Batches, BytesIn: a.In, BytesOut: a.Out, Discarded: a.Discarded, EncodeNs: a.EncodeNs})
		}
		for i := range c.Producers {
			p := &c.Producers[i]
			x := ChoicesOf(&p.Report)
			x.Producer, x.AgeMs = p.Producer, max(now.Sub(p.At), 0).Milliseconds()
			t.Producers = append(t.Producers, x)
		}
		for _, r := range c.Recent {
			turn := Turn{At: r.At, Producer: r.Producer, To: armName(r.To.Algorithm, r.To.Level), Reason: adaptive.Reason(r.Reason).String()}
			if r.From.Level != wire.NoArm {
				turn.From = armName(r.From.Algorithm, r.From.Level)
			}
			t.Recent = append(t.Recent, turn)
		}
		all.Topics = append(all.Topics, t)
	}
	all.fit(explainedBytes)
	return all
}

// ChoicesOf says a report in words. Producer and age are the caller's.
func ChoicesOf(r *wire.Report) ProducerChoices {
	x := ProducerChoices{Strategy: compression.Strategy(r.Strategy).String(), Reason: adaptive.Reason(r.Reason).String(), Why: Why(adaptive.Reason(r.Reason)),
		FanOut: int(r.FanOut), LinkBytes: r.Link, Batches: r.Batches, Switches: r.Switches, Artefact: printable(r.Artefact), Note: printable(r.Note), Arms: []ArmChoice{}}
	if r.CPU <= 100 {
		n := int(r.CPU)
		x.CPUPercent = &n
	}
	for i := range r.Arms {
		a := &r.Arms[i]
		x.Arms = append(x.Arms, ArmChoice{Arm: armName(a.Algorithm, a.Level), Batches: a.Batches, BytesIn: a.In, BytesOut: a.Out, Discarded: a.Discarded,
			EncodeNs: a.EncodeNs, PredictedNs: a.Predicted, ObservedNs: a.Observed})
		if i == int(r.Chosen) {
			x.Chosen = x.Arms[i].Arm
		}
	}
	return x
}

// printable is what a peer wrote as a terminal may print it: on one line, without
// control characters.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

// armName is the name that package adaptive gives to algorithm and level.
func armName(a message.Algorithm, level uint8) string {
	switch a {
	case message.None:
		return adaptive.Raw.String()
	case server.OtherArm:
		return otherArm
	}
	return a.String() + "-" + compression.Level(level).String()
}

// Why says a reason in words.
func Why(r adaptive.Reason) string {
	switch r {
	case adaptive.Cheapest:
		return "it is expected to cost the least"
	case adaptive.Held:
		return "another is expected to be cheaper, but by less than a change is worth"
	case adaptive.Probe:
		return "what it costs is worth knowing"
	case adaptive.RawGuard:
		return "a cheaper one might cost more than sending everything as it is, beyond the bound"
	case adaptive.LatencyBound:
		return "a cheaper one would take longer than the latency budget"
	case adaptive.MemoryBound:
		return "a cheaper one needs memory that is short"
	case adaptive.QueueBound:
		return "batches wait, and a cheaper one is slower than the link"
	case adaptive.Small:
		return "the body is too small to be worth an attempt"
	case adaptive.Excluded:
		return "a cheaper one is not accepted by the broker"
	}
	return "for a reason that this version does not know"
}

// otherArm names all arms that this version does not know.
const otherArm = "other"

// WriteText writes x as plain text.
func (x *Explained) WriteText(w io.Writer) error {
	for i := range x.Topics {
		if i > 0 {
			if _, err := fmt.Fprintln(w); err != nil {
				return err
			}
		}
		if err := x.Topics[i].WriteText(w); err != nil {
			return err
		}
	}
	if x.LeftOut > 0 {
		if _, err := fmt.Fprintf(w, "\nand %d topics more; ask for one by its name\n", x.LeftOut); err != nil {
			return err
		}
	}
	if x.NotKept > 0 {
		if _, err := fmt.Fprintf(w, "\nand %d producers of other topics, for which there is no place\n", x.NotKept); err != nil {
			return err
		}
	}
	return nil
}

// Unexplained says why x, asked for topic, has nothing.
func (x *Explained) Unexplained(topic string) string {
	why := fmt.Sprintf("nothing is kept that producers of %.300q reported: none is adaptive, none has sent anything, or all are closed and the topic gave way to others", topic)
	if x.NotKept > 0 {
		why += fmt.Sprintf("; or it is one of those for which there is no place, with %d open producers", x.NotKept)
	}
	return why
}

// WriteText writes t as plain text.
func (t *TopicChoices) WriteText(w io.Writer) error {
	name := t.Topic
	if name == "" {
		name = "(topics that are no longer kept)"
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tw, "topic %s: %d batches, %d changes of the choice, %d bytes not tried\n", name, t.Batches, t.Switches, t.SkippedBytes)
	armTable(tw, t.Arms, false)
	for i := range t.Producers {
		fmt.Fprintln(tw)
		t.Producers[i].text(tw)
	}
	if t.Others > 0 {
		fmt.Fprintf(tw, "\nand %d producers more, whose reports are not kept\n", t.Others)
	}
	if len(t.Recent) > 0 {
		fmt.Fprintln(tw, "\nchanges\tproducer\tfrom\tto\treason")
		for _, r := range t.Recent {
			from := r.From
			if from == "" {
				from = "-"
			}
			fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\n", r.At.UTC().Format("15:04:05.000"), r.Producer, from, r.To, r.Reason)
		}
	}
	return tw.Flush()
}

// WriteText writes x as plain text.
func (x *ProducerChoices) WriteText(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	x.text(tw)
	return tw.Flush()
}

func (x *ProducerChoices) text(w io.Writer) {
	head := "producer"
	if x.Producer != "" {
		head = fmt.Sprintf("producer %s, %d ms ago", x.Producer, x.AgeMs)
	}
	fmt.Fprintf(w, "%s: %s, %d batches, %d changes\n", head, x.Strategy, x.Batches, x.Switches)
	fmt.Fprintf(w, "chosen %s: %s\n", x.Chosen, x.Why)
	known := []string{}
	if x.CPUPercent != nil {
		known = append(known, fmt.Sprintf("processors %d %% busy", *x.CPUPercent))
	}
	if x.LinkBytes > 0 {
		known = append(known, fmt.Sprintf("link %.1f MB/s", float64(x.LinkBytes)/1e6))
	} else {
		known = append(known, "link not known to be narrow")
	}
	if x.FanOut > 0 {
		known = append(known, fmt.Sprintf("each byte sent %d times", x.FanOut))
	}
	fmt.Fprintf(w, "by %s; artefact %s\n", strings.Join(known, ", "), x.Artefact)
	if x.Note != "" {
		fmt.Fprintln(w, x.Note)
	}
	armTable(w, x.Arms, true)
}

func armTable(w io.Writer, arms []ArmChoice, costs bool) {
	head := "arm\tbatches\tbytes in\tbytes out\tratio\tencode ns/B\tdiscarded"
	if costs {
		head += "\tpredicted us\tobserved us"
	}
	fmt.Fprintln(w, head)
	number := func(v float64, ok bool) string {
		if !ok {
			return "-"
		}
		return fmt.Sprintf("%.2f", v)
	}
	for _, a := range arms {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%s\t%s\t%d", a.Arm, a.Batches, a.BytesIn, a.BytesOut, number(float64(a.BytesIn)/float64(a.BytesOut), a.BytesOut > 0),
			number(float64(a.EncodeNs)/float64(a.BytesIn), a.BytesIn > 0 && a.EncodeNs > 0), a.Discarded)
		if costs {
			fmt.Fprintf(w, "\t%s\t%s", number(float64(a.PredictedNs)/1000, a.PredictedNs > 0), number(float64(a.ObservedNs)/1000, a.ObservedNs > 0))
		}
		fmt.Fprintln(w)
	}
}

// debugCompression answers /debug/compression?topic=T&format=text.
func (m *Monitor) debugCompression(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	topic := q.Get("topic")
	all := m.Choices(topic)
	if topic != "" && len(all.Topics) == 0 {
		answer(w, http.StatusNotFound, struct {
			refusal
			Explained
		}{refusalOf(fault.New(fault.NotFound, "explain compression").WithField("topic").WithDetail("%s", all.Unexplained(topic))), all})
		return
	}
	switch q.Get("format") {
	case "", "json":
		answer(w, http.StatusOK, all)
	case "text":
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_ = all.WriteText(w) // an error is the connection's, which is gone
	default:
		refuse(w, fault.New(fault.Invalid, "explain compression").WithField("format").WithDetail("%.40q is neither json nor text", q.Get("format")))
	}
}

// choices emits the sums by topic and arm; own are the topics with series of their
// own.
func (e emitter) choices(s *server.Server, own map[string]bool) {
	type key struct{ topic, compression, level string }
	sums := map[key]server.ChosenArm{}
	switches := map[string]uint64{}
	for _, c := range s.Choices("") {
		name := c.Topic
		if !own[name] {
			name = otherTopics
		}
		switches[name] += c.Switches
		for _, a := range c.Arms {
			k := key{name, a.Algorithm.String(), compression.Level(a.Level).String()}
			if a.Algorithm == server.OtherArm {
				k.compression, k.level = otherArm, ""
			}
			x := sums[k]
			x.Add(&a)
			sums[k] = x
		}
	}
	for k, x := range sums {
		e.count(dChosen, x.Batches, k.topic, k.compression, k.level)
		e.count(dChosenIn, x.In, k.topic, k.compression, k.level)
		e.count(dChosenOut, x.Out, k.topic, k.compression, k.level)
		e.count(dDiscarded, x.Discarded, k.topic, k.compression, k.level)
	}
	for name, n := range switches {
		e.count(dSwitches, n, name)
	}
}
