package client

import (
	"time"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/wire"
)

// lane is a producer's part for one partition. The producer's mutex guards it.
//
// A batch goes open -> queue -> sent, and leaves sent from the front only, so
// callbacks come in order. Only the sender moves it on from queue.
type lane struct {
	index uint32
	open  *batch   // takes messages; nil if none came since the last was shut
	queue []*batch // shut, never sent
	sent  []*batch // sent at least once; at most inFlightBatches

	urgent bool // open is waited for
	due    bool // open has lingered
	active bool // in Producer.active
	resend bool // going through sent, sending again what needs it

	known     bool   // the broker has stored a batch of ours here
	next      uint32 // sequence of the next batch sent for the first time
	hole      bool   // a batch was refused for good: what follows takes its sequence, holeAt
	holeAt    uint32
	doubts    []uint32  // sequences, ascending, of batches given up that may be stored
	notBefore time.Time // after a retryable error
	wait      backoff
}

// last returns the youngest batch whose callbacks are still to come.
func (l *lane) last() *batch {
	if l.open != nil {
		return l.open
	}
	if n := len(l.queue); n > 0 {
		return l.queue[n-1]
	}
	for i := len(l.sent) - 1; i >= 0; i-- {
		if !l.sent[i].told {
			return l.sent[i]
		}
	}
	return nil
}

// batch is one batch of a producer, reused. The producer's mutex guards it, but
// for builder and buf while the sender encodes, and the bytes of buf while it is
// on the wire.
type batch struct {
	p    *Producer
	lane *lane

	builder  *message.Builder // until encoded
	job      job              // who encodes
	buf      []byte           // when encoded
	mem      []byte           // backs buf unless external
	env      message.Envelope // of buf
	external bool             // buf is the application's, until its callback

	entries []entry
	flushes []*flush
	charge  int // bytes counted in Producer.buffered

	// pending: in a lane's queue, or in sent to be sent again; processing: on
	// the wire; acknowledged: stored; expired, dead: failed.
	life   message.Lifecycle
	handle uint32 // it was sent to
	frame  int    // bytes on the wire
	// delivered is what flow said when it was sent, in adaptive compression.
	delivered uint64
	told      bool // the callbacks have had an error; kept to close the gap in the sequence
	unsure    bool // an attempt may have been stored: the sequence must not change
	shift     bool // to be renumbered: it stands behind a hole
	ok        wire.ProduceOK
	err       error
}

// to changes the state of b.
func (b *batch) to(s message.State, now time.Time) {
	if err := b.life.To(s, now); err != nil {
		panic("client: a batch: " + err.Error())
	}
}

// onWire reports whether b was sent and is not answered: nobody may touch its
// bytes.
func (b *batch) onWire() bool { return b.life.State() == message.Processing }

// entry is who wants to know of one message: a callback, a waiter, or nobody.
type entry struct {
	cb func(Receipt, error)
	w  *waiter
}

// entryBytes is counted for each message beside its body: an entry, and about
// the framing Builder adds.
const entryBytes = 24

// completion is a batch whose callbacks are due.
type completion struct {
	b       *batch // to be released after; nil if it lives on
	entries []entry
	flushes []*flush
	r       Receipt
	step    message.Offset // from one entry to the next
	err     error
}

// flush is a call of Flush.
type flush struct {
	left int // batches to wait for; guarded by the producer's mutex
	done chan struct{}
}

// newBatch takes a batch from the free list. mu is held.
func (p *Producer) newBatch(l *lane) *batch {
	var b *batch
	if n := len(p.batches); n > 0 {
		b = p.batches[n-1]
		p.batches = p.batches[:n-1]
	} else {
		b = new(batch)
	}
	b.p, b.lane = p, l
	p.live++
	return b
}

// release takes a batch back. What it holds beyond twice the usual size is
// given to the collector. mu is held.
func (p *Producer) release(b *batch) {
	p.buffered -= b.charge
	p.live--
	clear(b.entries)
	clear(b.flushes)
	mem := b.mem
	if cap(mem) > 2*p.o.batchBytes+4096 {
		mem = nil
	}
	*b = batch{mem: mem[:0], entries: b.entries[:0], flushes: b.flushes[:0]}
	if len(p.batches) < 2+p.o.maxBuffered/p.o.batchBytes && len(p.batches) < 1024 {
		p.batches = append(p.batches, b)
	}
}

// start opens a batch for messages. mu is held.
func (p *Producer) start(l *lane) *batch {
	b := p.newBatch(l)
	if n := len(p.builders); n > 0 {
		b.builder = p.builders[n-1]
		p.builders = p.builders[:n-1]
	} else {
		b.builder = message.NewBuilder(p.lim)
		b.builder.KeyHashes = p.o.keyHashes
	}
	b.builder.Encoding = p.o.encoding
	now := time.Now()
	b.life = message.NewLifecycle(now)
	l.open = b
	p.activate(l)
	p.opens++
	if p.opens == 1 {
		p.lingerAt = p.lastSend.Add(p.o.linger)
		if p.lingerAt.Before(now) {
			p.lingerAt = now
		}
		if p.sleepTill.IsZero() || p.lingerAt.Before(p.sleepTill) {
			p.poke()
		}
	}
	return b
}

// drop takes back an open batch that got no message. mu is held.
func (p *Producer) drop(l *lane) {
	b := l.open
	p.builders = append(p.builders, b.builder)
	b.builder.Reset()
	p.unopen(l)
	p.release(b)
}

// unopen leaves l without an open batch. mu is held.
func (p *Producer) unopen(l *lane) {
	l.open, l.due = nil, false
	p.opens--
	if l.urgent {
		l.urgent = false
		p.urgent--
	}
}

// shut moves the open batch of l, if there is one, to its queue. mu is held.
func (p *Producer) shut(l *lane) {
	b := l.open
	if b == nil {
		return
	}
	p.unopen(l)
	p.push(l, b)
	if l.index == p.sticky {
		p.sticky = (p.sticky + 1) % uint32(len(p.lanes))
	}
}

// push queues a shut batch. mu is held.
func (p *Producer) push(l *lane, b *batch) {
	l.queue = append(l.queue, b)
	p.ready++
	p.activate(l)
	awake := true // the sender is busy, or has to wait before it can send
	if (len(l.sent) == 0 || l.known && len(l.sent) < inFlightBatches) && p.credit > 0 {
		awake = !p.sleeping
		p.poke()
	}
	if e := &p.c.encoders; awake && e.max > 0 && p.method.slow(b) {
		b.job = jobQueued
		e.add(p, b)
	}
}

func (p *Producer) activate(l *lane) {
	if !l.active {
		l.active = true
		p.active = append(p.active, l)
	}
}
