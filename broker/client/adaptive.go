package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/compression/adaptive"
	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/wire"
)

// WithPolicyArtefact replaces the prior of adaptive compression that package
// adaptive carries by another, as perflab trains it. One that is refused is not
// used: the reason is logged and shown by Producer.Explain and in what the broker
// shows, and the embedded one decides.
func WithPolicyArtefact(b []byte) Option { return func(c *config) { c.artefact = b } }

// WithDecisionLog records what adaptive compression decides, and by what, to w:
// at most maxBytes, 0 for no limit, for perflab policy replay. What was gathered
// is written every 32 KiB and by Client.Close; an error of w ends the log and is
// logged. w is used by one goroutine at a time. Clients that are given the same
// Option write one log, if they have the same artefact; one with another does not.
func WithDecisionLog(w io.Writer, maxBytes int64) Option {
	l := &decisionLog{w: w, most: maxBytes}
	return func(c *config) { c.decisions = l }
}

// decisionLog is what clients record to together.
type decisionLog struct {
	w    io.Writer
	most int64

	mu   sync.Mutex
	rec  *adaptive.Recorder // nil before the first client; guarded by mu
	hash uint64             // of its artefact; guarded by mu
}

// recorder returns the log's recorder; nil if it is for another artefact than a.
func (l *decisionLog) recorder(a *adaptive.Artefact) *adaptive.Recorder {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rec == nil {
		most := l.most
		if most <= 0 {
			most = math.MaxInt64
		}
		l.rec, l.hash = adaptive.NewRecorder(l.w, a, most), a.Hash()
	}
	if l.hash != a.Hash() {
		return nil
	}
	return l.rec
}

// WithLatencyBudget bounds, for adaptive compression, the time from a message's
// Send to its batch being encoded: algorithms that are expected to need more than
// is left of it are not used. Default 0: no bound.
func WithLatencyBudget(d time.Duration) ProducerOption {
	return func(o *producerConfig) { o.budget = d }
}

// policies is what the deciders of a client have in common. Immutable after Dial.
type policies struct {
	artefact *adaptive.Artefact
	note     string // why it is not the one that was given
	rec      *adaptive.Recorder
}

func (c *config) policies() (p policies) {
	p.artefact = adaptive.Embedded()
	if c.artefact != nil {
		var err error
		if p.artefact, err = adaptive.Load(c.artefact); err != nil {
			p.note = "the embedded artefact decides: " + err.Error()
			c.log.Warn("the policy of adaptive compression cannot be used; the embedded one decides", "error", err)
		}
	}
	if c.decisions != nil {
		if p.rec = c.decisions.recorder(p.artefact); p.rec == nil {
			c.log.Warn("decisions are not recorded: the log is for another artefact")
		}
	}
	return p
}

// brokerPolicy is the artefact that the broker hands out, got by the first producer
// that needs it. Safe for concurrent use.
type brokerPolicy struct {
	mu sync.Mutex
	id uint64
	p  *policies // nil: none was got
}

// get returns the broker's policy id, over l.
func (b *brokerPolicy) get(ctx context.Context, l *link, id uint64) (*policies, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.p != nil && b.id == id {
		return b.p, nil
	}
	var resp copied
	if err := l.call(ctx, wire.OpPolicyGet, new(wire.Empty), &resp, true, nil); err != nil {
		return nil, err
	}
	a, err := adaptive.Parse(resp.Bytes)
	if err != nil {
		return nil, err
	}
	if a.Hash() != id {
		return nil, fault.New(fault.ProtocolViolation, "get policy").WithField("policy").
			WithDetail("%016x came instead of %016x", a.Hash(), id).WithCause(errPolicyChanged)
	}
	b.id, b.p = id, &policies{artefact: a}
	return b.p, nil
}

// policyAdvised makes the broker's artefact decide from now on, or the client's own
// if the broker has none. A program that gave one, or records decisions, which name
// one artefact, keeps its own. mu is held.
func (p *Producer) policyAdvised() {
	id := p.advice.policy
	if p.c.cfg.artefact != nil || p.c.policies.rec != nil {
		return
	}
	switch {
	case id == 0 || id == p.c.policies.artefact.Hash():
		p.decideBy(&p.c.policies)
	case p.policies.artefact.Hash() == id:
		p.decideBy(p.policies)
	case id != p.noPolicy && !p.getting && p.err == nil:
		p.getting = true
		p.fetches.Go(func() { p.getPolicy(id) })
	}
}

// policyTries is how often a policy is asked for that has become another between the
// broker's advice and its answer, and how long is waited before the second time;
// twice as long before each further one.
const (
	policyTries = 6
	policyWait  = 50 * time.Millisecond
)

// errPolicyChanged is the answer's being another policy than was advised.
var errPolicyChanged = errors.New("it has changed meanwhile")

// getPolicy gets the broker's policy id and makes it decide, if that is still what
// the broker advises when it has come.
func (p *Producer) getPolicy(id uint64) {
	wait := policyWait
	for try := 1; ; try++ {
		got, err := p.c.brokerPolicy.get(p.life, p.l, id)
		p.mu.Lock()
		if p.advice.policy != id { // it has advised another meanwhile
			p.getting = false
			p.policyAdvised()
			p.follow()
			p.mu.Unlock()
			return
		}
		if err == nil || try == policyTries || !errors.Is(err, errPolicyChanged) || p.closing {
			p.getting = false
			if err == nil {
				p.decideBy(got)
				p.follow()
			} else {
				p.noPolicy = id
				p.c.cfg.log.Warn("the broker's policy of adaptive compression cannot be used; the one before goes on", "error", err)
				p.policyNote = "the broker's artefact is not used: " + err.Error()
				if p.chooser != nil {
					p.chooser.remark(p.policyNote)
				}
			}
			p.mu.Unlock()
			return
		}
		p.mu.Unlock()
		select {
		case <-time.After(wait):
			wait *= 2
		case <-p.life.Done():
		}
	}
}

// decideBy makes x the policy. mu is held.
func (p *Producer) decideBy(x *policies) {
	p.noPolicy, p.policyNote = 0, ""
	if p.policies == x {
		if p.chooser != nil {
			p.chooser.remark(x.note)
		}
		return
	}
	p.policies = x
	if old := p.chooser; old != nil {
		p.chooser = old.successor(x)
		if p.method.chooser == old {
			p.method = newMethod(p.method.policy, p.chooser)
		}
	}
}

// close writes the rest of the log, and returns what kept it from being whole.
func (p *policies) close(c *config) error {
	if p.rec == nil {
		return nil
	}
	err := p.rec.Flush()
	if err != nil {
		c.log.Warn("the log of decisions ended early", "error", err)
		err = fmt.Errorf("write the log of decisions: %w", err)
	}
	return err
}

// hostSpeed is measured once a process, in some 40 ms, when the first producer
// becomes adaptive.
var hostSpeed = sync.OnceValues(adaptive.Measure)

// chooser decides how the bodies of one producer are encoded, and counts.
//
// Bodies are encoded concurrently, by the sender and by encoders, each of which
// holds mu for a decision and for telling what came of it, not meanwhile. Lock
// order: Producer.mu, chooser.mu.
type chooser struct {
	policies *policies
	names    adaptive.Options
	raw      atomic.Bool // the last body is sent as it is: encoding takes no time

	mu         sync.Mutex
	d          *adaptive.Decider       // guarded by mu, as all below
	told       adaptive.Conditions     // that d was told last
	toldAt     time.Time               // when; zero: never
	note       string                  // why another artefact does not decide
	arms       adaptive.ArmSet         // that d may use
	dictionary *compression.Dictionary // of zstd; nil: none
	size       int                     // of the last body
	last       adaptive.Arm            // in use, probes apart
	chosen     adaptive.Arm            // for the last body
	reason     adaptive.Reason
	begun      bool // a body was decided on
	batches    uint64
	switches   uint64
	count      [adaptive.Arms]armCount
	turns      [wire.MaxSwitches]wire.ReportSwitch // a ring
	turned     int
}

// lz4Arm is the arm of lz4 in arms.
var lz4Arm, _ = adaptive.ParseArm(message.LZ4.String() + "-" + compression.LevelFastest.String())

// armCount counts the bodies that an arm was chosen for.
type armCount struct {
	batches, in, out, discarded uint64
	encodeNs, timed             uint64 // of those that were timed, and how many bytes they had
}

// newChooser makes a decider for a producer on topic. It may take 40 ms, once a
// process.
func newChooser(p *policies, topic, producer string) *chooser {
	o := adaptive.Options{Topic: topic, Producer: producer, HostScale: 1}
	if ns, err := hostSpeed(); err == nil {
		o.HostScale = p.artefact.HostScale(ns)
	}
	ch := &chooser{policies: p, names: o, note: p.note}
	ch.allow(adaptive.AllArms)
	return ch
}

// successor decides by another artefact, and goes on counting.
func (ch *chooser) successor(p *policies) *chooser {
	n := newChooser(p, ch.names.Topic, ch.names.Producer) // the host was measured for ch
	ch.mu.Lock()
	defer ch.mu.Unlock()
	n.size, n.last, n.chosen, n.reason, n.begun = ch.size, ch.last, ch.chosen, ch.reason, ch.begun
	n.batches, n.switches, n.count, n.turns, n.turned = ch.batches, ch.switches, ch.count, ch.turns, ch.turned
	n.dictionary, n.arms = ch.dictionary, ch.arms
	n.told, n.toldAt = ch.told, ch.toldAt
	n.d = nil
	n.renew()
	return n
}

// remark notes why another artefact does not decide.
func (ch *chooser) remark(note string) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	ch.note = note
}

// allow makes ch choose among arms from the next body on. What was learnt is
// forgotten if they are others than before.
func (ch *chooser) allow(arms adaptive.ArmSet) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if arms |= 1 << adaptive.Raw; arms == ch.arms && ch.d != nil {
		return
	}
	ch.arms = arms
	ch.renew()
}

// renew begins to learn anew. mu is held, or ch is nobody else's yet.
func (ch *chooser) renew() {
	o := ch.names
	o.Arms = ch.arms
	ch.d = adaptive.New(ch.policies.artefact, o)
	if ch.policies.rec != nil {
		ch.d.Record(ch.policies.rec)
	}
	if ch.dictionary != nil {
		ch.d.SetDictionary(true)
	}
	if !ch.toldAt.IsZero() { // the world is as before, and a little older
		ch.d.SetConditions(ch.told.Aged(time.Since(ch.toldAt).Nanoseconds()))
	}
}

// use makes zstd use d from the next body on; nil is none.
func (ch *chooser) use(d *compression.Dictionary) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if d != ch.dictionary {
		ch.dictionary = d
		ch.d.SetDictionary(d != nil)
	}
}

// conditions says what the world is like.
func (ch *chooser) conditions(c adaptive.Conditions) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	ch.told, ch.toldAt = c, time.Now()
	ch.d.SetConditions(c)
}

// decide chooses for a body; lz4 says whether the broker takes that, whatever is
// chosen.
func (ch *chooser) decide(body []byte) (d adaptive.Decision, dictionary *compression.Dictionary, lz4 bool) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	d = ch.d.Decide(body)
	if r := d.Arm == adaptive.Raw; r != ch.raw.Load() {
		ch.raw.Store(r)
	}
	ch.batches++
	ch.size, ch.chosen, ch.reason = len(body), d.Arm, d.Reason
	if d.Reason != adaptive.Probe && d.Reason != adaptive.Small && (d.Arm != ch.last || !ch.begun) {
		ch.turn(d.Arm, d.Reason)
	}
	a := &ch.count[d.Arm]
	a.batches++
	a.in += uint64(len(body))
	if d.Arm == adaptive.Raw {
		a.out += uint64(len(body))
	}
	return d, ch.dictionary, ch.arms.Has(lz4Arm)
}

// turn notes that another arm is in use. mu is held.
func (ch *chooser) turn(a adaptive.Arm, why adaptive.Reason) {
	from := uint8(ch.last)
	if !ch.begun {
		ch.begun, from = true, wire.NoArm
	} else {
		ch.switches++
	}
	ch.last = a
	at := time.Now().UnixMicro()
	if ch.turned > 0 {
		at = max(at, ch.turns[(ch.turned-1)%len(ch.turns)].AtUs+1)
	}
	ch.turns[ch.turned%len(ch.turns)] = wire.ReportSwitch{AtUs: at, From: from, To: uint8(a), Reason: uint8(why)}
	ch.turned++
}

// observe tells what came of a decision; ns is 0 if nobody looked.
func (ch *chooser) observe(d adaptive.Decision, in, out int, kept bool, ns int64) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	a := &ch.count[d.Arm]
	if kept {
		a.out += uint64(out)
	} else {
		a.out += uint64(in)
		a.discarded++
	}
	if ns > 0 {
		a.encodeNs += uint64(ns)
		a.timed += uint64(in)
	}
	ch.d.Observe(d.Token, in, out, ns, 0)
}

// compress has the form that message.Builder.Finish wants.
func (ch *chooser) compress(dst, src []byte) ([]byte, message.Algorithm) {
	d, dictionary, lz4 := ch.decide(src)
	if d.Arm == adaptive.Raw {
		return dst, message.None
	}
	// A body that becomes too small for any reader is compressed by lz4 instead, or
	// sent as it is if the broker does not take that. zstd fills it up.
	p := compression.Policy{Strategy: compression.Always, Algorithm: d.Arm.Algorithm(), Level: d.Arm.Level()}
	if p.Algorithm == message.Zstd {
		p.Dictionary = dictionary
	} else if !lz4 {
		p.MaxRatio = math.MaxInt32
	}
	var began threadClock
	if d.Measure {
		began = beginThread()
	}
	out, used := p.Compress(dst, src)
	var ns int64
	if d.Measure {
		ns = began.end()
	}
	size := len(out) - len(dst)
	if used == message.None {
		size = len(src) // no output was worth keeping, by a byte or more
	}
	kept := used != message.None && size <= d.KeepMost && len(src) <= size*compression.DefaultRatio
	ch.observe(d, len(src), size, kept, ns)
	if !kept {
		return dst, message.None
	}
	return out, used
}

// bound is the most that compress appends for a body of n bytes.
func (ch *chooser) bound(n int) (most int) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	for a := range adaptive.Arm(adaptive.Arms) {
		if a != adaptive.Raw && ch.arms.Has(a) {
			most = max(most, compression.Policy{Strategy: compression.Always, Algorithm: a.Algorithm(), Level: a.Level()}.Bound(n))
		}
	}
	if ch.dictionary != nil {
		most = max(most, ch.dictionary.Bound(n))
	}
	return most
}

// ArmUse counts the bodies that one way to compress was chosen for, since the
// producer became adaptive.
type ArmUse struct {
	Arm       adaptive.Arm
	Batches   uint64
	In, Out   uint64        // bytes before and after; the same for those sent as they were
	Discarded uint64        // of Batches: the output saved too little, and they were sent as they were
	Encode    time.Duration // processor time of all, from those that were timed
	// What a body like the last one would cost by this arm, as the policy predicts
	// it and as the last results say; Observed is 0 if there are none.
	Predicted, Observed time.Duration
}

// ArmTurn is a change of the way that is in use.
type ArmTurn struct {
	At     time.Time
	First  bool // there was none before; From means nothing
	From   adaptive.Arm
	To     adaptive.Arm
	Reason adaptive.Reason
}

// Choices explain adaptive compression; see Producer.Explain.
type Choices struct {
	adaptive.Explanation
	Artefact string // names what decides
	Note     string // why it is not the one that was given; empty if it is
	Chosen   adaptive.Arm
	Why      adaptive.Reason // that Chosen was chosen for the last body
	Switches uint64
	Uses     []ArmUse // by arm
	Turns    []ArmTurn
}

// Explain says how the producer compresses and why; ok is false if it never was
// adaptive, or nothing was sent since. It takes some 20 µs, in which the producer
// decides nothing.
func (p *Producer) Explain() (c Choices, ok bool) {
	p.mu.Lock()
	ch := p.chooser
	p.mu.Unlock()
	if ch == nil {
		return Choices{}, false
	}
	return ch.explain()
}

func (ch *chooser) explain() (c Choices, ok bool) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if ch.batches == 0 {
		return Choices{}, false
	}
	e := ch.d.Explain(ch.size)
	e.Batches = ch.batches // those before other arms or another artefact too
	c = Choices{Explanation: e, Artefact: fmt.Sprintf("%016x", ch.policies.artefact.Hash()), Note: ch.note,
		Chosen: ch.chosen, Why: ch.reason, Switches: ch.switches}
	for _, v := range e.Arms {
		n := &ch.count[v.Arm]
		u := ArmUse{Arm: v.Arm, Batches: n.batches, In: n.in, Out: n.out, Discarded: n.discarded, Predicted: nanos(v.Cost)}
		if n.timed > 0 {
			u.Encode = nanos(float64(n.encodeNs) / float64(n.timed) * float64(n.in))
		}
		if v.Observed > 0 && v.ObservedRatio > 0 {
			more := float64(e.Size) * (1/v.ObservedRatio - 1/v.Ratio) * e.ByteNs
			if v.ObservedEncodeNs > 0 {
				more += (v.ObservedEncodeNs - v.EncodeNs) * e.Price
			}
			u.Observed = nanos(v.Cost + more)
		} else if v.Arm == adaptive.Raw && n.batches > 0 {
			u.Observed = u.Predicted // nothing of it is uncertain
		}
		c.Uses = append(c.Uses, u)
	}
	for i := max(ch.turned-len(ch.turns), 0); i < ch.turned; i++ {
		t := ch.turns[i%len(ch.turns)]
		turn := ArmTurn{At: time.UnixMicro(t.AtUs), First: t.From == wire.NoArm, To: adaptive.Arm(t.To), Reason: adaptive.Reason(t.Reason)}
		if !turn.First {
			turn.From = adaptive.Arm(t.From)
		}
		c.Turns = append(c.Turns, turn)
	}
	return c, true
}

// nanos is a duration of ns nanoseconds, 0 for what is none.
func nanos(ns float64) time.Duration {
	if !(ns > 0 && ns < math.MaxInt64) {
		return 0
	}
	return time.Duration(ns)
}

// report is what the broker is told.
func (ch *chooser) report(strategy compression.Strategy) (x wire.Report, ok bool) {
	c, ok := ch.explain()
	if !ok {
		return x, false
	}
	x = wire.Report{Strategy: uint8(strategy), Chosen: uint8(c.Chosen), Reason: uint8(c.Why), CPU: wire.LoadUnknown,
		Batches: ch.decided(), Switches: c.Switches, Artefact: c.Artefact, Note: c.Note}
	if r := c.Conditions.CPU; r.Source != adaptive.Unknown {
		x.CPU = uint8(100 * min(max(r.Value, 0), 1))
	}
	if r := c.Conditions.FanOut; r.Source != adaptive.Unknown {
		x.FanOut = uint16(min(r.Value, math.MaxUint16))
	}
	if r := c.Conditions.Link; r.Source != adaptive.Unknown {
		x.Link = uint64(r.Value)
	}
	for _, u := range c.Uses {
		x.Arms = append(x.Arms, wire.ReportArm{Algorithm: u.Arm.Algorithm(), Level: uint8(u.Arm.Level()), Batches: u.Batches, In: u.In, Out: u.Out,
			Discarded: u.Discarded, EncodeNs: uint64(u.Encode), Predicted: uint64(u.Predicted), Observed: uint64(u.Observed)})
	}
	for _, t := range c.Turns {
		s := wire.ReportSwitch{AtUs: t.At.UnixMicro(), From: uint8(t.From), To: uint8(t.To), Reason: uint8(t.Reason)}
		if t.First {
			s.From = wire.NoArm
		}
		x.Recent = append(x.Recent, s)
	}
	return x, true
}

// now is how the last body was encoded.
func (ch *chooser) now() (a message.Algorithm, l compression.Level, dictionary uint32) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	a, l = ch.chosen.Algorithm(), ch.chosen.Level()
	if ch.dictionary != nil && a == message.Zstd {
		dictionary = ch.dictionary.ID()
	}
	return a, l, dictionary
}

// decided counts the bodies decided on.
func (ch *chooser) decided() uint64 {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	return ch.batches
}
