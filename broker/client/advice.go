package client

import (
	"math"

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
}

// wants is what the producer takes advice on: what its program says nothing of.
// mu is held.
func (p *Producer) wants() (w wire.AdviceWants) {
	if !p.o.compresses {
		w |= wire.WantCompression
	}
	if !p.o.encodes {
		w |= wire.WantEncoding
	}
	return w
}

// openedWith notes the advice that comes with a handle, which is all there is. mu is
// held.
func (p *Producer) openedWith(x *wire.Advice) {
	p.advice = advised{}
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
	p.follow()
}

// follow makes the method of the batches encoded from now on that which was
// advised, if the program set none. It never waits for a dictionary: until it is
// there, batches go without. mu is held.
func (p *Producer) follow() {
	if p.o.compresses {
		return
	}
	a := &p.advice
	var policy compression.Policy
	if a.algorithm != message.None {
		policy = compression.DefaultPolicy()
		policy.Algorithm, policy.Level = a.algorithm, a.level
		if a.algorithm != message.Zstd {
			// A body that becomes too small for any reader is sent as it is, since the
			// broker may not take another algorithm than it advises.
			policy.MaxRatio = math.MaxInt32
		}
	}
	if id := a.dictionary; id != 0 && a.algorithm == message.Zstd {
		if d := p.c.dicts.known(p.topic, id); d != nil {
			policy.Dictionary = d
		} else if id != a.missing && !p.fetching && p.err == nil {
			p.fetching = true
			p.fetches.Go(func() { p.fetchDictionary(id) })
		}
	}
	if policy != p.method.policy {
		p.method = newMethod(policy)
		p.c.cfg.log.Info("batches are compressed as the broker advises", "topic", p.topic,
			"algorithm", policy.Algorithm.String(), "level", policy.Level.String(), "dictionary", a.dictionary)
	}
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
