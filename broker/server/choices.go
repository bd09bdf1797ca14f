package server

import (
	"cmp"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/server/evloop"
	"github.com/portask/portask/broker/topic"
	"github.com/portask/portask/broker/wire"
)

// Producers that choose how to compress each batch report what they chose. The
// broker decides nothing by it: it keeps the latest report of a bounded number of
// producers, and for each topic sums that never fall, for people to read. When there
// are more topics than are kept, the one that was heard of the longest ago, and that
// no open producer reports of, gives way: its sums go to those of deleted topics, so
// that nothing is lost from the sum of all, and begin anew if it comes back. Whatever a
// peer writes, arms are those that this version knows and one more, OtherArm: they
// become names of series.

// Bounds of what is kept. A report takes at most 1.2 KiB, so the producers' are 1.2
// MiB and the topics' sums 0.7 MiB at most.
const (
	choosersMax     = 1024 // producers whose report is kept, of all topics
	chosenTopicsMax = 512  // topics with sums of their own
	recentMax       = 64   // changes of the choice kept for a topic
)

// OtherArm is the algorithm, at level 0, that stands for all that this version does
// not know: a later client's, or a liar's.
const OtherArm = message.Algorithm(0xff)

// fold makes an arm one that is known, or OtherArm.
func fold(a *wire.ReportArm) {
	switch {
	case (compression.Policy{Algorithm: a.Algorithm, Level: compression.Level(a.Level)}).Validate() != nil:
		a.Algorithm, a.Level = OtherArm, 0
	case a.Algorithm == message.None:
		a.Level = 0 // it means nothing
	}
}

// Choices are what producers reported of how they compress the batches of one
// topic.
type Choices struct {
	Topic string
	// Producers are those that are open, most batches first. Others were left out
	// because the broker keeps 1,024.
	Producers []Chooser
	Others    int
	// Of all producers since the broker started, those gone included.
	Batches, Switches uint64
	Arms              []ChosenArm  // of those that were used
	Recent            []ChosenTurn // changes of the choice, of all producers: the last that were told of, oldest first
}

// Chooser is one open producer.
type Chooser struct {
	Producer string    // as it is named in Recent
	At       time.Time // of its latest report, by the broker's clock
	Report   wire.Report
}

// ChosenArm sums what was sent by one arm; see wire.ReportArm.
type ChosenArm struct {
	Algorithm                             message.Algorithm // or OtherArm
	Level                                 uint8
	Batches, In, Out, Discarded, EncodeNs uint64 // they stop at the largest number
}

// Add adds the counters of b.
func (a *ChosenArm) Add(b *ChosenArm) {
	a.Batches, a.In, a.Out = plus(a.Batches, b.Batches), plus(a.In, b.In), plus(a.Out, b.Out)
	a.Discarded, a.EncodeNs = plus(a.Discarded, b.Discarded), plus(a.EncodeNs, b.EncodeNs)
}

// plus adds, and stops at the largest number.
func plus(a, b uint64) uint64 {
	if sum := a + b; sum >= a {
		return sum
	}
	return math.MaxUint64
}

// reported sums the arms of x that are algorithm and level.
func reported(x *wire.Report, algorithm message.Algorithm, level uint8) (s ChosenArm) {
	for i := range x.Arms {
		if a := &x.Arms[i]; a.Algorithm == algorithm && a.Level == level {
			s.Add(&ChosenArm{Batches: a.Batches, In: a.In, Out: a.Out, Discarded: a.Discarded, EncodeNs: a.EncodeNs})
		}
	}
	return s
}

// ChosenTurn is a change of a producer's choice.
type ChosenTurn struct {
	At       time.Time // the producer's clock
	Producer string
	From, To wire.ReportArm // algorithm and level; From.Level is wire.NoArm for the first choice
	Reason   uint8
}

// lastMicro is the end of the year 9999, beyond which a time cannot be written.
const lastMicro = 253_402_300_799_999_999

// choices is the table behind Server.Choices.
type choices struct {
	mu     sync.Mutex
	open   map[chooserKey]*chooser // guarded by mu, as all below
	topics map[*topic.Topic]*chosen
	gone   chosen // sums of topics that were deleted or gave way
	heard  uint64 // reports taken: the order of chosen.last
	// nowhere are the open producers that reported of topics for which there was no
	// place.
	nowhere int
	// held says that an open producer holds each place, until one closes.
	held bool
}

// chooserKey names a producer of a loop.
type chooserKey struct {
	loop   int
	handle uint32
}

type chooser struct {
	t      *topic.Topic
	name   string
	at     time.Time
	report wire.Report
}

// Where a producer's REPORT went.
const (
	reportNone    = iota // it sent none
	reportKept           // it is among choices.open, unless the topic was deleted
	reportOther          // it is counted in chosen.others
	reportNowhere        // it is counted in choices.nowhere
)

type chosen struct {
	batches, switches uint64
	arms              []ChosenArm
	recent            []ChosenTurn // as they came: a clock that is ahead drives out no others
	open, others      int          // open producers whose report is kept, and those whose is not
	last              uint64       // the number of the latest report
}

// report takes a REPORT. What a closed producer says is ignored: the two frames
// crossed.
func (l *loop) report(c evloop.Conn, h wire.Header, payload []byte) error {
	m := &l.msg.report
	if err := m.Parse(payload); err != nil {
		return err
	}
	i, p := l.producerOf(c, h.Handle)
	if p == nil {
		return nil
	}
	if len(m.Arms) > 0 { // else it says what the producer wants, and no more
		l.srv.choices.take(chooserKey{l.id, h.Handle}, p, m)
	}
	if m.HasWants && m.Wants != p.wants {
		p.wants = m.Wants
		now := l.srv.advice(l.srv.live.Load(), p.topic, p.wants)
		x := now.opening(p.wants) // all of it: what it did not want it does not know
		l.note(p, now)
		if !x.Empty() {
			return l.send(c, wire.Header{Opcode: wire.OpAdvice, Handle: handleOf(i, p.use)}, &x)
		}
	}
	return nil
}

// take notes the report m of the producer k, and folds its arms.
func (x *choices) take(k chooserKey, p *producer, m *wire.Report) {
	for i := range m.Arms {
		fold(&m.Arms[i])
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.open == nil {
		x.open, x.topics = map[chooserKey]*chooser{}, map[*topic.Topic]*chosen{}
	}
	t := x.topics[p.topic]
	if t == nil {
		if len(x.topics) >= chosenTopicsMax && !x.giveWay() {
			if p.reports == reportNone {
				x.nowhere++
				p.reports = reportNowhere
			}
			return
		}
		t = new(chosen)
		x.topics[p.topic] = t
	}
	if p.reports == reportNowhere { // there is a place for its topic now
		x.nowhere--
		p.reports = reportNone
	}
	x.heard++
	t.last = x.heard
	q := x.open[k]
	if q == nil {
		if len(x.open) >= choosersMax {
			if p.reports != reportOther {
				t.others++
				p.reports = reportOther
			}
			return
		}
		if p.reports == reportOther && t.others > 0 { // there is room for it now
			t.others--
		}
		p.reports = reportKept
		t.open++
		q = &chooser{t: p.topic, name: chooserName(k)}
		x.open[k] = q
	}
	t.add(q, m)
	q.at = time.Now()
	arms, recent := q.report.Arms, q.report.Recent
	q.report = *m
	q.report.Arms, q.report.Recent = append(arms[:0], m.Arms...), append(recent[:0], m.Recent...)
}

// giveWay frees the place of the topic that was heard of the longest ago among those
// that no open producer reports of; false if there is none.
func (x *choices) giveWay() bool {
	if x.held {
		return false
	}
	var oldest *topic.Topic
	for t, c := range x.topics {
		if c.open == 0 && c.others == 0 && (oldest == nil || c.last < x.topics[oldest].last) {
			oldest = t
		}
	}
	if oldest == nil {
		x.held = true
		return false
	}
	x.gone.sum(x.topics[oldest])
	delete(x.topics, oldest)
	return true
}

// add adds what is new in m against the last report of q.
func (t *chosen) add(q *chooser, m *wire.Report) {
	old := &q.report
	more := func(old, now uint64) uint64 {
		if now < old {
			return 0 // a counter that fell: nothing can be said
		}
		return now - old
	}
	t.batches = plus(t.batches, more(old.Batches, m.Batches))
	t.switches = plus(t.switches, more(old.Switches, m.Switches))
	for i := range m.Arms {
		alg, level := m.Arms[i].Algorithm, m.Arms[i].Level
		now := reported(m, alg, level)
		if now.Batches == 0 || slices.ContainsFunc(m.Arms[:i], func(b wire.ReportArm) bool { return b.Algorithm == alg && b.Level == level }) {
			continue // unused, or counted with the first of its kind
		}
		was := reported(old, alg, level)
		t.arm(alg, level).Add(&ChosenArm{Batches: more(was.Batches, now.Batches), In: more(was.In, now.In), Out: more(was.Out, now.Out),
			Discarded: more(was.Discarded, now.Discarded), EncodeNs: more(was.EncodeNs, now.EncodeNs)})
	}
	last := int64(0)
	if n := len(old.Recent); n > 0 {
		last = old.Recent[n-1].AtUs
	}
	arm := func(i uint8) wire.ReportArm {
		if int(i) < len(m.Arms) {
			return wire.ReportArm{Algorithm: m.Arms[i].Algorithm, Level: m.Arms[i].Level}
		}
		return wire.ReportArm{Level: wire.NoArm}
	}
	for _, s := range m.Recent {
		if s.AtUs <= last || s.AtUs > lastMicro {
			continue
		}
		if len(t.recent) == recentMax {
			t.recent = t.recent[:copy(t.recent, t.recent[1:])]
		}
		t.recent = append(t.recent, ChosenTurn{At: time.UnixMicro(s.AtUs), Producer: q.name, From: arm(s.From), To: arm(s.To), Reason: s.Reason})
	}
}

// sum adds the counts of c.
func (t *chosen) sum(c *chosen) {
	t.batches, t.switches = plus(t.batches, c.batches), plus(t.switches, c.switches)
	for i := range c.arms {
		t.arm(c.arms[i].Algorithm, c.arms[i].Level).Add(&c.arms[i])
	}
}

// arm is the sum of one arm, which is folded, made if it is new.
func (t *chosen) arm(a message.Algorithm, level uint8) *ChosenArm {
	j := slices.IndexFunc(t.arms, func(b ChosenArm) bool { return b.Algorithm == a && b.Level == level })
	if j < 0 {
		t.arms = append(t.arms, ChosenArm{Algorithm: a, Level: level})
		j = len(t.arms) - 1
	}
	return &t.arms[j]
}

func chooserName(k chooserKey) string {
	const digits = "0123456789abcdef"
	b := []byte{'p', digits[k.loop>>4&15], digits[k.loop&15], '-', 0, 0, 0, 0, 0, 0, 0, 0}
	for i := range 8 {
		b[4+i] = digits[k.handle>>(28-4*i)&15]
	}
	return string(b)
}

// forget takes the closed producer p out; its sums stay.
func (x *choices) forget(k chooserKey, p *producer) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.held = false
	t := x.topics[p.topic]
	if _, ok := x.open[k]; ok {
		delete(x.open, k)
		if t != nil {
			t.open--
		}
		return
	}
	switch {
	case p.reports == reportNowhere:
		x.nowhere--
	case p.reports == reportOther && t != nil && t.others > 0:
		t.others--
	}
}

// sweep takes topics out that are gone. Only housekeeping calls it.
func (x *choices) sweep(known func(*topic.Topic) bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for t, c := range x.topics {
		if !known(t) {
			x.gone.sum(c)
			delete(x.topics, t)
			x.held = false
		}
	}
	for k, q := range x.open {
		if x.topics[q.t] == nil {
			delete(x.open, k)
		}
	}
}

// Choices are what producers reported, by topic, in the order of the names. name,
// unless empty, is the only topic asked for; with all of them come the sums of
// topics that were deleted or gave way to others, without a name.
func (s *Server) Choices(name string) []Choices {
	x := &s.choices
	x.mu.Lock()
	defer x.mu.Unlock()
	var all []Choices
	at := map[*topic.Topic]int{}
	for t, c := range x.topics {
		if name != "" && t.Name != name {
			continue
		}
		at[t] = len(all)
		all = append(all, Choices{Topic: t.Name, Others: c.others, Batches: c.batches, Switches: c.switches,
			Arms: slices.Clone(c.arms), Recent: slices.Clone(c.recent)})
	}
	if name == "" && x.gone.batches > 0 {
		all = append(all, Choices{Batches: x.gone.batches, Switches: x.gone.switches, Arms: slices.Clone(x.gone.arms)})
	}
	for _, q := range x.open {
		i, ok := at[q.t]
		if !ok {
			continue
		}
		r := q.report
		r.Arms, r.Recent = slices.Clone(r.Arms), slices.Clone(r.Recent)
		all[i].Producers = append(all[i].Producers, Chooser{Producer: q.name, At: q.at, Report: r})
	}
	for i := range all {
		slices.SortFunc(all[i].Producers, func(a, b Chooser) int {
			return cmp.Or(cmp.Compare(b.Report.Batches, a.Report.Batches), cmp.Compare(a.Producer, b.Producer))
		})
		slices.SortStableFunc(all[i].Recent, func(a, b ChosenTurn) int { return a.At.Compare(b.At) })
		slices.SortFunc(all[i].Arms, func(a, b ChosenArm) int {
			return cmp.Or(cmp.Compare(a.Algorithm, b.Algorithm), cmp.Compare(a.Level, b.Level))
		})
	}
	slices.SortFunc(all, func(a, b Choices) int { return cmp.Compare(a.Topic, b.Topic) })
	return all
}

// ChoicesNowhere are the open producers that reported of topics of which nothing is
// kept, since open producers of 512 others have all places.
func (s *Server) ChoicesNowhere() int {
	s.choices.mu.Lock()
	defer s.choices.mu.Unlock()
	return s.choices.nowhere
}
