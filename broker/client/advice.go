package client

import (
	"cmp"
	"math"
	"time"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/wire"
)

// advised is what the broker last advised, as far as this client understands it.
type advised struct {
	algorithm  message.Algorithm
	level      compression.Level
	encoding   message.Encoding
	dictionary uint32
	missing    uint32 // a dictionary that could not be got: not asked for again
	strategy   compression.Strategy
	accept     uint16 // bit i: the broker takes algorithm i; meaningless without hasAccept
	hasAccept  bool
	policy     uint64 // of the broker; 0: it has none
}

// wants is what the producer takes advice on: what its program says nothing of.
// mu is held.
func (p *Producer) wants() (w wire.AdviceWants) {
	switch {
	case !p.o.compresses:
		w |= wire.WantCompression | wire.WantStrategy
	case p.o.policy.Strategy == compression.Adaptive:
		w |= wire.WantLoad
	}
	if !p.o.encodes {
		w |= wire.WantEncoding
	}
	return w
}

// openedWith notes the advice that comes with a handle, which is all there is. mu is
// held.
func (p *Producer) openedWith(x *wire.Advice) {
	p.advice = advised{strategy: compression.Threshold}
	p.hints = hints{load: wire.UnknownLoad}
	p.take(x)
}

// advise takes an ADVICE.
func (p *Producer) advise(cn *conn, x *wire.Advice) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cn == cn && p.handle != 0 {
		p.take(x)
	}
}

// take notes what x says, leaves the rest as it was, and follows. What this
// client does not know it cannot follow: it goes on as before. mu is held.
func (p *Producer) take(x *wire.Advice) {
	a := &p.advice
	if x.HasCompression {
		level := compression.Level(x.Level)
		if err := (compression.Policy{Algorithm: x.Algorithm, Level: level}).Validate(); err == nil {
			a.algorithm, a.level = x.Algorithm, level
		}
	}
	if x.HasEncoding && x.Encoding.Valid() {
		a.encoding = x.Encoding
	}
	if x.HasDictionary {
		a.dictionary = x.Dictionary
	}
	if x.HasStrategy {
		s := compression.Strategy(x.Strategy)
		if err := (compression.Policy{Strategy: s}).Validate(); err == nil {
			a.strategy = s
		}
	}
	if x.HasAccept {
		a.accept, a.hasAccept = x.Accept, true
	}
	if x.HasPolicy {
		a.policy = x.Policy
	}
	p.hint(x, time.Now())
	p.follow()
}

// follow makes the method of the batches encoded from now on that which the program
// set, or the broker advised if it set none. It never waits: until a dictionary is
// there, batches go without, and until the host's speed is measured, adaptive
// compression has not begun. mu is held.
func (p *Producer) follow() {
	a := &p.advice
	policy := p.o.policy
	switch {
	case p.o.compresses:
	case a.strategy == compression.Adaptive:
		policy = compression.Policy{Strategy: compression.Adaptive}
	case a.algorithm != message.None && a.strategy != compression.Never:
		policy = compression.DefaultPolicy()
		policy.Strategy, policy.Algorithm, policy.Level = a.strategy, a.algorithm, a.level
		if a.algorithm != message.Zstd {
			// A body that becomes too small for any reader is sent as it is, since the
			// broker may not take another algorithm than it advises.
			policy.MaxRatio = math.MaxInt32
		}
	default:
		policy = compression.Policy{}
	}
	var d *compression.Dictionary
	if !p.o.compresses && (policy.Strategy == compression.Adaptive || policy.Algorithm == message.Zstd) {
		d = p.advisedDictionary()
	}
	if policy.Strategy == compression.Adaptive {
		if !p.chooses() {
			return // once the host is measured this is called again
		}
		p.chooser.use(cmp.Or(d, policy.Dictionary))
	} else if d != nil {
		policy.Dictionary = d
	}
	if policy == p.method.policy && (policy.Strategy != compression.Adaptive || p.method.chooser == p.chooser) {
		return
	}
	p.method = newMethod(policy, p.chooser)
	switch {
	case policy.Strategy == compression.Adaptive:
		p.c.cfg.log.Info("batches are compressed as each is worth", "topic", p.topic)
	case !p.o.compresses:
		p.c.cfg.log.Info("batches are compressed as the broker advises", "topic", p.topic, "strategy", policy.Strategy.String(),
			"algorithm", policy.Algorithm.String(), "level", policy.Level.String(), "dictionary", a.dictionary)
	}
}

// advisedDictionary is the one that the broker advises, if it is there; else it is
// being fetched, unless that failed. mu is held.
func (p *Producer) advisedDictionary() *compression.Dictionary {
	id := p.advice.dictionary
	if id == 0 {
		return nil
	}
	if d := p.c.dicts.known(p.topic, id); d != nil {
		return d
	}
	if id != p.advice.missing && !p.fetching && p.err == nil {
		p.fetching = true
		p.fetches.Go(func() { p.fetchDictionary(id) })
	}
	return nil
}

// SetCompression makes the producer compress as WithCompression with policy would,
// from its next batch on; nil leaves it to the broker's advice, as without
// WithCompression. Order and acknowledgements are as if nothing had happened. A
// broker of before REPORT says what it advises only when the producer is opened.
//
// Errors: fault.Invalid, with the field, and nothing is changed.
func (p *Producer) SetCompression(policy *compression.Policy) error {
	if policy != nil {
		if err := policy.Validate(); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.wants()
	if p.o.compresses = policy != nil; p.o.compresses {
		p.o.policy = *policy
	} else {
		p.o.policy = compression.Policy{}
	}
	if w := p.wants(); w != old && p.cn != nil && p.handle != 0 {
		p.cn.report(p.handle, &wire.Report{HasWants: true, Wants: w})
	}
	p.follow()
	return nil
}

// fetchDictionary gets a dictionary and follows the advice once more.
func (p *Producer) fetchDictionary(id uint32) {
	_, err := p.c.dicts.get(p.life, p.l, p.topic, id)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fetching = false
	if err != nil {
		p.advice.missing = id
		p.c.cfg.log.Warn("cannot get a dictionary; batches are compressed without", "topic", p.topic, "dictionary", id, "error", err)
	}
	p.follow() // the advice may be another by now
}

// valueEncoding is how Encode encodes. mu is held.
func (p *Producer) valueEncoding() message.Encoding {
	if p.o.encodes {
		return p.o.encoding
	}
	return p.advice.encoding
}
