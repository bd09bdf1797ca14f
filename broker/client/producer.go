package client

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/message/id"
	"github.com/portask/portask/broker/wire"
)

// Receipt says where a message was stored.
type Receipt struct {
	Partition  uint32
	Offset     message.Offset // message.NoOffset at ack level none and for some duplicates
	AppendTime time.Time      // the broker's clock; zero at ack level none
	Duplicate  bool           // stored by an earlier attempt whose answer was lost
}

// Producer sends messages to one topic. Its methods may be called from any
// number of goroutines; messages for one partition are stored in the order in
// which the calls took the producer's lock, retries included (but see
// WithIdempotence).
//
// Callbacks are called in that order per partition, all from one goroutine. A
// callback may call SendAsync, with a context that ends, since it is what frees
// the buffer; it must not wait for anything else of the producer or the client
// (Send, Flush, Close).
type Producer struct {
	c     *Client
	l     *link
	topic string
	op    string // "produce orders"
	o     producerConfig

	life    context.Context // ends with the producer
	end     context.CancelFunc
	fetches sync.WaitGroup // of dictionaries
	left    sync.Once      // the topic's dictionaries

	wake   chan struct{} // capacity 1: for the sender
	called chan struct{} // capacity 1: for the callback goroutine
	space  chan struct{} // capacity 1: for one goroutine that waits for buffer
	ended  chan struct{} // closed when the sender has ended
	quit   chan struct{} // closed when the callback goroutine has ended

	waiters sync.Pool // of *waiter; its own, since a channel belongs to a synctest bubble

	mu      sync.Mutex
	ids     *id.Generator // of messages, and their clock; guarded by mu
	err     error         // why nothing more is sent; guarded by mu, like all that follows
	closing bool          // the sender is to fail what is left and end
	lanes   []*lane       // by partition; grows when the topic does
	active  []*lane       // those that may have something to send
	rotor   int           // where in active the next search begins
	sticky  uint32        // partition of messages without key

	buffered int // bytes of messages held, see batch.charge
	waiting  int // goroutines that wait for buffer
	ready    int // batches in queues, or to be sent again
	urgent   int // lanes whose open batch must not linger
	flushing int // calls of Flush: nothing lingers
	opens    int // lanes with an open batch
	live     int // batches not released

	lingerAt  time.Time // when open batches are sent; meaningful while opens > 0
	lastSend  time.Time
	sleeping  bool      // the sender waits
	sleepTill time.Time // until then; zero: until woken
	checkAt   time.Time // next look at timeouts

	cn       *conn // nil while there is none that takes requests
	handle   uint32
	opening  bool // an OPEN_PRODUCER is unanswered
	opened   bool // once
	openAt   time.Time
	openWait backoff
	first    chan struct{} // closed when opened for the first time or err is set
	id       uint64
	epoch    uint16
	credit   int64
	reason   wire.CreditReason
	refusal  error          // the last answer that a retry may change; nil once a batch is stored
	lim      message.Limits // ours, cut to the broker's

	method   *method // of batches encoded from now on
	advice   advised
	fetching bool // a dictionary is being fetched
	encoding int  // batches that encoders have

	// Of adaptive compression; see conditions.go.
	chooser    *chooser      // nil: the producer has never been adaptive
	policies   *policies     // of chooser
	noPolicy   uint64        // a policy of the broker that cannot be used
	policyNote string        // why
	getting    bool          // the broker's policy is being got
	choosing   bool          // it is being made
	watching   bool          // the watch runs
	stirred    bool          // a batch came since it looked
	flow       *flow         // nil without chooser
	hints      hints         // of the broker
	held       time.Duration // how long batches have been held when they are encoded, on average, if there is a budget
	asked      time.Time     // when the OPEN_PRODUCER was sent

	done, spareDone []completion // for the callback goroutine
	batches         []*batch     // for reuse
	builders        []*message.Builder
	stats           ProducerStats
}

// ProducerStats counts since the producer was opened, but for the last three.
type ProducerStats struct {
	Messages   uint64 // accepted by Send
	Batches    uint64 // sent, retries not counted
	Bytes      uint64 // of frames sent, retries included
	RawBytes   uint64 // of batch bodies before compression, retries not counted
	Retries    uint64 // batches sent again
	Duplicates uint64 // batches the broker had stored by an earlier attempt
	Failed     uint64 // messages whose callback got an error
	Dropped    uint64 // batches refused by the broker at ack level none
	// EncodedAhead are the batches that were encoded while they waited behind
	// others, beside the producer's own goroutine.
	EncodedAhead uint64

	// Of batches acknowledged: how many, and the sums of the time on the wire,
	// attempts that failed included, and from the first message to the answer.
	Acknowledged   uint64
	InFlight, Held time.Duration

	Buffered     int // bytes held now
	Credit       int64
	CreditReason wire.CreditReason // why there is no more credit

	// What holds for the next batch and the next call of Encode, by the program's
	// choice or the broker's advice.
	Algorithm  message.Algorithm
	Level      compression.Level
	Dictionary uint32 // 0: none
	Encoding   message.Encoding
	// Strategy is when batches are compressed. While it is compression.Adaptive,
	// Algorithm and Level are those of the last batch; see Producer.Explain.
	Strategy compression.Strategy
}

// Producer opens a producer on a topic and waits until the broker has accepted
// it.
//
// Errors: fault.NotFound for the topic, fault.LevelUnavailable if its engine
// does not give the ack level, fault.Invalid for an option, the context's.
func (c *Client) Producer(ctx context.Context, topic string, opts ...ProducerOption) (*Producer, error) {
	p := &Producer{
		c: c, l: c.link(), topic: topic, op: "produce " + topic,
		o: producerConfig{
			ack:         message.AckDurable,
			idempotent:  true,
			linger:      DefaultLinger,
			batchBytes:  DefaultBatchBytes,
			maxBuffered: DefaultMaxBuffered,
			delivery:    DefaultDeliveryTimeout,
		},
		wake: make(chan struct{}, 1), called: make(chan struct{}, 1), space: make(chan struct{}, 1),
		ended: make(chan struct{}), quit: make(chan struct{}), first: make(chan struct{}),
		openWait: backoff{least: c.cfg.backoffLeast, most: c.cfg.backoffMost},
		lim:      c.cfg.lim,
		ids:      id.NewGenerator(),
	}
	for _, o := range opts {
		o(&p.o)
	}
	if p.o.ack == message.AckNone {
		p.o.idempotent = false
	}
	if err := p.o.validate(); err != nil {
		return nil, err
	}
	if err := wire.CheckTopicName(topic); err != nil {
		return nil, err
	}
	p.hints, p.policies = hints{load: wire.UnknownLoad}, &c.policies
	if p.o.compresses && p.o.policy.Strategy == compression.Adaptive {
		p.chooser, p.flow = newChooser(&c.policies, topic, c.cfg.name), new(flow)
		p.chooser.use(p.o.policy.Dictionary)
	}
	p.method = newMethod(p.o.policy, p.chooser)
	p.life, p.end = context.WithCancel(c.ctx)
	c.dicts.use(topic)
	if err := c.register(p.op, p); err != nil {
		p.end()
		c.dicts.unuse(topic)
		return nil, err
	}
	go p.send()
	go p.callBack()
	p.l.use(p)
	select {
	case <-p.first:
	case <-ctx.Done():
		p.abort()
		return nil, ctxErr(ctx, "open producer "+topic, "no answer from "+c.addr)
	case <-c.ctx.Done():
		p.abort()
		return nil, closedErr("open producer " + topic)
	}
	p.mu.Lock()
	err := p.err
	p.mu.Unlock()
	if err != nil {
		p.abort()
		return nil, err
	}
	return p, nil
}

// Partitions returns the number of the topic's partitions, as of the last time
// the producer was opened.
func (p *Producer) Partitions() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.lanes)
}

// Stats returns the counters.
func (p *Producer) Stats() ProducerStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.Buffered, s.Credit, s.CreditReason = p.buffered, p.credit, p.reason
	s.Encoding = p.valueEncoding()
	m := p.method
	s.Strategy = m.policy.Strategy
	switch {
	case m.chooser != nil:
		s.Algorithm, s.Level, s.Dictionary = m.chooser.now()
	case m.compress != nil:
		s.Algorithm, s.Level = m.policy.Algorithm, m.policy.Level
		if m.policy.Dictionary != nil && s.Algorithm == message.Zstd {
			s.Dictionary = m.policy.Dictionary.ID()
		}
	}
	return s
}

// SendAsync hands over a copy of m and returns; it waits only while the buffer
// is full. A message without Timestamp gets the current time. cb, if not nil,
// is called once m is acknowledged or has failed for good; see Producer. After
// an error cb is never called.
//
// Errors: fault.TooLarge and fault.Invalid for m; the context's, whose text
// tells what the buffer waits for; fault.Closed; the error that ended the
// producer (fault.Fenced, fault.OutOfSequence, fault.NotFound).
func (p *Producer) SendAsync(ctx context.Context, m *message.Message, cb func(Receipt, error)) error {
	return p.enqueue(ctx, anyPartition, m, entry{cb: cb})
}

// SendAsyncTo is SendAsync for a given partition.
func (p *Producer) SendAsyncTo(ctx context.Context, partition uint32, m *message.Message, cb func(Receipt, error)) error {
	return p.enqueue(ctx, int64(partition), m, entry{cb: cb})
}

// Send is SendAsync that waits for the outcome. While a goroutine waits its
// batch does not linger: it is sent as soon as the one before is acknowledged.
// If ctx ends first, the message may still be stored.
func (p *Producer) Send(ctx context.Context, m *message.Message) (Receipt, error) {
	return p.sendWait(ctx, anyPartition, m)
}

// SendTo is Send for a given partition.
func (p *Producer) SendTo(ctx context.Context, partition uint32, m *message.Message) (Receipt, error) {
	return p.sendWait(ctx, int64(partition), m)
}

// waiter is a goroutine in Send.
type waiter struct {
	done chan struct{} // capacity 1
	r    Receipt
	err  error
}

func (p *Producer) sendWait(ctx context.Context, partition int64, m *message.Message) (Receipt, error) {
	w, _ := p.waiters.Get().(*waiter)
	if w == nil {
		w = &waiter{done: make(chan struct{}, 1)}
	}
	if err := p.enqueue(ctx, partition, m, entry{w: w}); err != nil {
		p.waiters.Put(w)
		return Receipt{}, err
	}
	select {
	case <-w.done:
		r, err := w.r, w.err
		*w = waiter{done: w.done}
		p.waiters.Put(w)
		return r, err
	case <-ctx.Done():
		// w is left to the callback goroutine and then to the collector.
		return Receipt{}, ctxErr(ctx, p.op, p.state())
	}
}

// SendBatch sends a batch that was finished before, without looking inside. It
// belongs to the producer until cb was called: with the offset of the first
// message, or an error. An idempotent producer writes its id, epoch and
// sequence into the envelope, another one sends the batch as it is.
//
// Errors as for SendAsync, and those of message.ParseEnvelope.
func (p *Producer) SendBatch(ctx context.Context, partition uint32, b []byte, cb func(Receipt, error)) error {
	e, err := message.ParseEnvelope(b, &p.c.cfg.lim)
	if err != nil {
		return err
	}
	if e.Bytes() != len(b) {
		return fault.New(fault.Invalid, p.op).WithField("body_len").
			WithDetail("the envelope makes the batch %d bytes long, it has %d", e.Bytes(), len(b))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.acquire(ctx, len(b)); err != nil {
		return err
	}
	l, err := p.lane(int64(partition), nil)
	if err != nil {
		return err
	}
	if len(b) > p.lim.BatchBytes {
		return fault.New(fault.TooLarge, p.op).WithField("batch").WithLimit(int64(len(b)), int64(p.lim.BatchBytes))
	}
	p.shut(l)
	x := p.newBatch(l)
	x.buf, x.env, x.external = b, e, true
	x.entries = append(x.entries, entry{cb: cb})
	x.charge, x.life = len(b), message.NewLifecycle(time.Now())
	p.buffered += x.charge
	p.stats.Messages += uint64(e.Count)
	p.push(l, x)
	return nil
}

// Flush sends what lingers and waits until all messages handed over before the
// call are acknowledged or have failed, and their callbacks were called. It
// must not be called from a callback.
func (p *Producer) Flush(ctx context.Context) error {
	f := &flush{done: make(chan struct{})}
	p.mu.Lock()
	for _, l := range p.lanes {
		if b := l.last(); b != nil {
			f.left++
			b.flushes = append(b.flushes, f)
		}
	}
	// What is resolved already waits for its callbacks, in order: an empty
	// completion behind it tells when they were called.
	f.left++
	p.complete(completion{flushes: []*flush{f}})
	p.flushing++
	p.poke()
	p.mu.Unlock()
	var err error
	select {
	case <-f.done:
	case <-p.quit: // closed: every callback was called
	case <-ctx.Done():
		err = ctxErr(ctx, "flush "+p.topic, p.state())
	}
	p.mu.Lock()
	p.flushing--
	p.mu.Unlock()
	return err
}

// Close refuses new messages, flushes and closes the producer. If ctx ends
// before, the callbacks of what is left get fault.Closed, and the error is the
// context's. A batch given to SendBatch that is on its way then may be read
// until Client.Close. Close may be called more than once.
func (p *Producer) Close(ctx context.Context) error {
	p.mu.Lock()
	if p.err == nil {
		p.err = closedErr(p.op)
	}
	p.letIn()
	p.mu.Unlock()
	err := p.Flush(ctx)
	p.mu.Lock()
	cn, handle := p.cn, p.handle
	p.mu.Unlock()
	if err == nil && cn != nil && handle != 0 {
		p.lastReport(cn, handle)
		w := &call{resp: new(wire.Empty), done: make(chan error, 1)}
		if cn.request(wire.OpCloseProducer, handle, new(wire.CloseProducer), w) == nil {
			select {
			case <-w.done: // an error here means that the handle is gone, which is what was wanted
			case <-ctx.Done():
				cn.forget(w)
				err = ctxErr(ctx, "close producer "+p.topic, "no answer from "+p.c.addr)
			}
		}
	}
	p.abort()
	return err
}

// abort ends both goroutines. Messages not acknowledged fail with fault.Closed.
func (p *Producer) abort() {
	p.l.leave(p)
	p.mu.Lock()
	if p.err == nil {
		p.err = closedErr(p.op)
	}
	p.closing = true
	p.poke()
	p.mu.Unlock()
	<-p.ended
	<-p.quit
	p.end()
	p.fetches.Wait()
	p.left.Do(func() { p.c.dicts.unuse(p.topic) })
	p.c.unregister(p)
}

// Waiting says in words what the messages that were handed over wait for, and
// why; it is empty when all were answered. It is for people: its text may
// change.
func (p *Producer) Waiting() string {
	lost := p.l.reason() // its lock goes before ours
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.live == 0:
		return ""
	case p.cn == nil && lost != nil:
		return p.stateLocked() + ": " + lost.Error()
	}
	return p.stateLocked()
}

// state says in words what messages wait for.
func (p *Producer) state() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stateLocked()
}

func (p *Producer) stateLocked() string {
	switch {
	case p.cn == nil:
		return "no connection to " + p.c.addr
	case p.handle == 0 && p.refusal != nil:
		return "the broker does not open the producer: " + p.refusal.Error()
	case p.handle == 0:
		return "the producer is being opened"
	case p.refusal != nil:
		return "the broker refuses for now: " + p.refusal.Error()
	case p.credit <= 0 && p.reason != wire.CreditNormal:
		return "the broker gives no credit: " + p.reason.String()
	case p.credit <= 0:
		return "the broker gives no credit yet"
	}
	return "waiting for acknowledgements"
}

// anyPartition lets the producer choose.
const anyPartition = -1

// lane returns the lane for m. mu is held.
func (p *Producer) lane(partition int64, m *message.Message) (*lane, error) {
	n := len(p.lanes)
	if partition == anyPartition {
		switch {
		case p.o.partitioner != nil:
			partition = int64(p.o.partitioner(m, n))
		case m.Key != nil:
			partition = int64(message.PartitionFor(m.Key, n))
		default:
			partition = int64(p.sticky)
		}
	}
	if partition < 0 || partition >= int64(n) {
		return nil, fault.New(fault.NotFound, p.op).WithField("partition").WithLimit(partition, int64(n)-1)
	}
	return p.lanes[partition], nil
}

// acquire waits until n more bytes may be buffered. mu is held, and released
// while waiting.
func (p *Producer) acquire(ctx context.Context, n int) error {
	for {
		if p.err != nil {
			p.letIn() // whoever else waits has to know
			return p.err
		}
		// A message larger than the whole buffer is let in alone.
		if p.buffered+n <= p.o.maxBuffered || p.buffered == 0 {
			if p.waiting > 0 && p.buffered+n < p.o.maxBuffered {
				p.letIn() // the next one may fit as well
			}
			return nil
		}
		p.waiting++
		p.poke() // open batches may be what fills the buffer
		p.mu.Unlock()
		var err error
		select {
		case <-p.space:
		case <-ctx.Done():
			err = ctxErr(ctx, p.op, "")
		case <-p.ended:
			err = closedErr(p.op)
		}
		p.mu.Lock()
		p.waiting--
		if err != nil {
			var f *fault.Error
			if errors.As(err, &f) && f.Code != fault.Closed {
				f.Detail = "the buffer is full, " + p.stateLocked()
			}
			p.letIn() // pass on a signal that may have been for us
			return err
		}
	}
}

// letIn wakes one goroutine that waits for buffer. mu is held.
func (p *Producer) letIn() {
	if p.waiting > 0 {
		select {
		case p.space <- struct{}{}:
		default:
		}
	}
}

// poke wakes the sender if it sleeps. mu is held.
func (p *Producer) poke() {
	if p.sleeping {
		p.sleeping = false
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
}

// enqueue appends a copy of m to the open batch of its lane.
func (p *Producer) enqueue(ctx context.Context, partition int64, m *message.Message, e entry) error {
	size := m.Bytes() + entryBytes
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.acquire(ctx, size); err != nil {
		return err
	}
	l, err := p.lane(partition, m)
	if err != nil {
		return err
	}
	// Reaching the size is the rule, passing it by a quarter the exception: 64
	// messages of 1 KiB are to fill 64 KiB whatever the framing adds.
	if l.open != nil && l.open.builder.Bytes()+size > p.o.batchBytes+p.o.batchBytes/4 {
		p.shut(l)
	}
	// Other variables than m, which a partitioner makes escape to the heap.
	x, stamped := m, message.Message{}
	if wantID := p.o.ids && m.ID.IsZero(); wantID || m.Timestamp == 0 {
		stamped = *m
		x = &stamped
		now := p.ids.Micros()
		if wantID {
			x.ID = p.ids.At(now / 1000)
		}
		if x.Timestamp == 0 {
			x.Timestamp = now
		}
	}
	b := l.open
	if b == nil {
		b = p.start(l)
	}
	before := b.builder.Bytes()
	if err = b.builder.Append(x); errors.Is(err, message.ErrBatchFull) || errors.Is(err, message.ErrMixed) {
		p.shut(l)
		b = p.start(l)
		before = 0
		err = b.builder.Append(x)
	}
	if err != nil {
		if b.builder.Count() == 0 {
			p.drop(l)
		}
		return err
	}
	b.entries = append(b.entries, e)
	n := b.builder.Bytes() - before + entryBytes
	b.charge += n
	p.buffered += n
	p.stats.Messages++
	if e.w != nil && !l.urgent {
		l.urgent = true
		p.urgent++
		p.poke()
	}
	if b.builder.Bytes() >= p.o.batchBytes {
		p.shut(l)
	}
	return nil
}
