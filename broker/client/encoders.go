package client

import (
	"sync"
	"time"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/message"
)

// method is how a producer encodes batches; immutable, replaced as a whole.
type method struct {
	policy   compression.Policy
	compress func(dst, src []byte) ([]byte, message.Algorithm) // nil: never; bound once, so that no batch allocates it
	chooser  *chooser                                          // of adaptive compression, else nil
}

// newMethod makes a method of p; ch is needed for adaptive compression.
func newMethod(p compression.Policy, ch *chooser) *method {
	m := &method{policy: p}
	switch {
	case p.Strategy == compression.Adaptive:
		m.compress, m.chooser = ch.compress, ch
	case p.Strategy != compression.Never && p.Algorithm != message.None:
		m.compress = p.Compress
	}
	return m
}

// bound is the most bytes that compress needs for a body of n bytes.
func (m *method) bound(n int) int {
	if m.chooser != nil {
		return m.chooser.bound(n)
	}
	return m.policy.Bound(n)
}

// aheadBytes is the body from which encoding is worth handing over: the fastest
// algorithms take 5 µs for it and zstd 25, an encoder's start and its two turns
// at the lock one or two.
const aheadBytes = 16 << 10

// slow reports whether encoding b takes long. It does not if the batch before was
// not compressed: a hand-over to an encoder costs 10 % of the processor time of
// such a batch's whole way, and the rare trial of an arm may hold the sender up.
func (m *method) slow(b *batch) bool {
	if m.chooser != nil && m.chooser.raw.Load() {
		return false
	}
	return m.compress != nil && b.builder != nil && b.builder.Bytes() >= aheadBytes
}

// Where the encoding of a batch stands. Guarded by the producer's mutex.
type job uint8

const (
	jobNone    job = iota // not begun, nobody's; or done
	jobQueued             // waits for an encoder; the sender may take it first
	jobRunning            // an encoder has builder and memory
)

// encoders compress the batches of a client's producers that wait behind others,
// so that compressing, sending and waiting for answers overlap. A batch that
// nothing stands before stays with its sender: it would only be later.
//
// The goroutines, at most max, are started by batches and end when there is
// nothing to do: an idle client has none. Lock order: Producer.mu, encoders.mu.
type encoders struct {
	max int // 0: senders do everything; immutable
	wg  sync.WaitGroup

	mu      sync.Mutex
	queue   []encoding // first in, first out; guarded by mu
	head    int
	running int // guarded by mu
}

// encoding names a batch that waited when it was queued. By the time it is taken
// it may be something else: encodeAhead looks.
type encoding struct {
	p *Producer
	b *batch
}

// add queues a batch. The mutex of p is held.
func (e *encoders) add(p *Producer, b *batch) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.head > 0 && len(e.queue) == cap(e.queue) {
		n := copy(e.queue, e.queue[e.head:])
		clear(e.queue[n:])
		e.queue, e.head = e.queue[:n], 0
	}
	e.queue = append(e.queue, encoding{p, b})
	if e.running < e.max {
		e.running++
		e.wg.Go(e.run)
	}
}

// run encodes until the queue is empty.
func (e *encoders) run() {
	for {
		e.mu.Lock()
		if e.head == len(e.queue) {
			e.queue, e.head = e.queue[:0], 0
			e.running--
			e.mu.Unlock()
			return
		}
		x := e.queue[e.head]
		e.queue[e.head] = encoding{}
		e.head++
		e.mu.Unlock()
		x.p.encodeAhead(x.b)
	}
}

// encodeAhead encodes b unless that was done or given up meanwhile.
func (p *Producer) encodeAhead(b *batch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if b.job != jobQueued {
		return
	}
	b.job = jobRunning
	p.encoding++
	p.encode(b)
	b.job = jobNone
	p.encoding--
	p.stats.EncodedAhead++
	if q := b.lane.queue; len(q) > 0 && q[0] == b || p.closing || p.dead() {
		p.poke() // the sender may have waited for this
	}
}

// encode turns the messages of b into bytes; b.err says why it could not. mu is
// held, and released meanwhile: b is in a queue and stays there, since nobody
// takes a batch that is being encoded out of it.
func (p *Producer) encode(b *batch) {
	builder, m, mem := b.builder, p.method, b.mem
	if m.chooser != nil {
		p.watched()
		if p.o.budget > 0 {
			p.held += (b.life.Age(time.Now()) - p.held) / 8
		}
	}
	p.mu.Unlock()
	raw := builder.Bytes()
	need := raw + message.EnvelopeBytes + 64
	if p.o.keyHashes {
		need += 4 * builder.Count()
	}
	if m.compress != nil {
		need += max(m.bound(raw)-raw, 0)
	}
	if cap(mem) < need {
		mem = make([]byte, 0, need)
	}
	var env message.Envelope
	buf, err := builder.Finish(mem[:0], message.Producer{}, m.compress)
	if err == nil {
		env, err = message.ParseEnvelope(buf, &p.c.cfg.lim)
	}
	builder.Reset()
	p.mu.Lock()
	p.builders = append(p.builders, builder)
	b.builder, b.mem, b.env = nil, buf, env
	if b.err = err; err == nil {
		b.buf = buf
	}
}
