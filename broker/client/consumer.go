package client

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/wire"
)

// Start says where a Consumer begins in each partition.
type Start struct {
	kind  wire.StartKind
	value int64
}

// Earliest is the oldest message there is, Latest the first one that becomes
// visible after the subscription.
var (
	Earliest = Start{kind: wire.StartEarliest}
	Latest   = Start{kind: wire.StartLatest}
)

// At is the message at offset o.
func At(o message.Offset) Start { return Start{kind: wire.StartOffset, value: int64(o)} }

// Since is the first batch with a message not older than t, by the producers'
// clocks.
func Since(t time.Time) Start { return Start{kind: wire.StartTime, value: t.UnixMicro()} }

// ConsumerOption changes a Consumer's defaults.
type ConsumerOption func(*consumerConfig)

type consumerConfig struct {
	start      Start
	partitions []uint32
	window     int
	frame      int
	unexpired  bool
}

// DefaultCredit lets a broker send ahead 16 full batches per partition, more
// than is in flight on any network that a consumer keeps up with.
const DefaultCredit = 1 << 20

// DefaultDeliverBytes is the most a broker is asked to put into one delivery:
// where a read costs no less per byte if it is larger, and a quarter of the
// default credit, so that credit comes back before it is used up.
const DefaultDeliverBytes = 256 << 10

// From sets where to begin. Default Latest.
func From(s Start) ConsumerOption { return func(o *consumerConfig) { o.start = s } }

// Partitions chooses partitions. Default: all there are at the time of the
// call.
func Partitions(p ...uint32) ConsumerOption {
	return func(o *consumerConfig) { o.partitions = p }
}

// WithCredit sets how many bytes, as on the wire, the broker may send ahead of
// the application for each partition. Default DefaultCredit.
func WithCredit(bytes int) ConsumerOption { return func(o *consumerConfig) { o.window = bytes } }

// WithDeliverBytes sets the size of one delivery unless a single batch is
// larger. Default DefaultDeliverBytes, at most the credit.
func WithDeliverBytes(n int) ConsumerOption { return func(o *consumerConfig) { o.frame = n } }

// SkipExpired passes over messages whose expiry is past, by the consumer's
// clock, when they would be iterated. Without it they come like all others.
func SkipExpired() ConsumerOption { return func(o *consumerConfig) { o.unexpired = true } }

func (o *consumerConfig) validate() error {
	bad := func(field, detail string, args ...any) error {
		return fault.New(fault.Invalid, "open consumer").WithField(field).WithDetail(detail, args...).
			WithCategory(fault.CategoryConfiguration)
	}
	switch {
	case o.start.kind == wire.StartOffset && o.start.value < 0:
		return bad("from", "offset %d is negative", o.start.value)
	case o.window < 1 || o.window > wire.MaxCreditBytes:
		return fault.New(fault.Invalid, "open consumer").WithField("credit").WithLimit(int64(o.window), wire.MaxCreditBytes)
	case o.frame < 1:
		return bad("deliver bytes", "is %d, must be at least 1", o.frame)
	}
	return nil
}

// Consumer receives messages of one topic. Poll, PollRaw and the batches they
// return belong to one goroutine at a time; the other methods may be called
// from any.
type Consumer struct {
	c     *Client
	l     *link
	topic string
	o     consumerConfig

	wake chan struct{} // capacity 1: something arrived
	quit chan struct{} // closed by Close

	mu     sync.Mutex
	cn     *conn                    // nil while there is none; guarded by mu
	subs   map[uint32]*subscription // by partition; guarded by mu
	queue  fifo                     // received, not polled; guarded by mu
	closed bool                     // guarded by mu
	stats  ConsumerStats            // guarded by mu
	timers sync.WaitGroup           // attempts to subscribe again that wait

	current *delivery // what the last Poll returned; owned by the polling goroutine
}

// Consumer subscribes to a topic and waits until the broker has accepted all
// subscriptions.
//
// Errors: fault.NotFound for the topic or a partition, fault.OutOfRange for an
// offset outside the log (with the valid range), fault.Invalid for an option,
// the context's.
func (c *Client) Consumer(ctx context.Context, topic string, opts ...ConsumerOption) (*Consumer, error) {
	k := &Consumer{
		c: c, l: c.link(), topic: topic,
		o:    consumerConfig{start: Latest, window: DefaultCredit, frame: DefaultDeliverBytes},
		wake: make(chan struct{}, 1), quit: make(chan struct{}),
		subs: make(map[uint32]*subscription),
	}
	for _, o := range opts {
		o(&k.o)
	}
	if err := k.o.validate(); err != nil {
		return nil, err
	}
	if err := wire.CheckTopicName(topic); err != nil {
		return nil, err
	}
	k.o.frame = min(k.o.frame, k.o.window)
	partitions := k.o.partitions
	if len(partitions) == 0 {
		t, err := c.Admin().DescribeTopic(ctx, topic)
		if err != nil {
			return nil, err
		}
		for _, p := range t.Partitions {
			partitions = append(partitions, p.Index)
		}
	}
	for _, p := range partitions {
		if k.subs[p] == nil {
			k.subs[p] = newSubscription(k, p)
		}
	}
	c.dicts.use(topic)
	if err := c.register("consume "+topic, k); err != nil {
		c.dicts.unuse(topic)
		return nil, err
	}
	k.l.use(k)
	for _, s := range k.subs {
		var err error
		select {
		case <-s.ready:
			k.mu.Lock()
			err = s.err
			k.mu.Unlock()
		case <-ctx.Done():
			err = ctxErr(ctx, "subscribe to "+topic, "no answer from "+c.addr)
		case <-c.ctx.Done():
			err = closedErr("subscribe to " + topic)
		}
		if err != nil {
			_ = k.Close() // it has no other error to tell
			return nil, err
		}
	}
	return k, nil
}

// Batch is what one delivery of the broker holds: messages of one partition,
// in order. It and the messages are valid until Release, or until the next
// Poll, which releases it.
type Batch struct {
	Topic     string
	Partition uint32
	// First and End are the offsets covered, half-open. Messages need not
	// exist for all of them.
	First, End message.Offset
	HWM        message.Offset // exclusive; messages below it are visible
	LogStart   message.Offset

	d   *delivery
	gen uint64
}

// Poll waits for messages and returns those of one delivery. Checksums are
// checked and bodies decompressed while iterating.
//
// Errors: the context's; fault.Closed; *GapError where offsets are missing (the
// next Poll goes on behind them); fault.OutOfRange and other errors of a
// partition's subscription, which ends with them while the others go on (see
// Seek); *DictionaryError likewise; fault.ProtocolViolation for a delivery that
// contradicts itself.
func (k *Consumer) Poll(ctx context.Context) (Batch, error) {
	d, err := k.next(ctx, true)
	if err != nil {
		return Batch{}, err
	}
	return Batch{
		Topic: k.topic, Partition: d.sub.partition, First: d.first, End: d.end,
		HWM: d.head.HWM, LogStart: d.head.LogStart, d: d, gen: d.gen,
	}, nil
}

// Raw is a delivery as it came: whole encoded batches, neither checked nor
// decompressed. It is valid until Release or the next poll.
type Raw struct {
	Topic     string
	Partition uint32
	HWM       message.Offset
	LogStart  message.Offset
	// Wanted: messages of the first batch below it are not wanted.
	Wanted message.Offset
	// Ranges, if there are any, are the only offsets delivered.
	Ranges []wire.Range
	// Runs describe Batches: consecutive batches that share a seed for their
	// header checksums.
	Runs []wire.Run
	// Batches are whole batches back to back.
	Batches []byte

	d   *delivery
	gen uint64
}

// PollRaw is Poll for tools that look at batches themselves. Errors as of Poll.
func (k *Consumer) PollRaw(ctx context.Context) (Raw, error) {
	d, err := k.next(ctx, false)
	if err != nil {
		return Raw{}, err
	}
	return Raw{
		Topic: k.topic, Partition: d.sub.partition,
		HWM: d.head.HWM, LogStart: d.head.LogStart, Wanted: d.wanted,
		Ranges: d.head.Ranges, Runs: d.head.Runs, Batches: d.batches, d: d, gen: d.gen,
	}, nil
}

// Release gives the memory back and credit to the broker. It does nothing when
// called again or after the next poll.
func (b Batch) Release() { b.d.releaseOf(b.gen) }

// Release gives the memory back and credit to the broker. It does nothing when
// called again or after the next poll.
func (r Raw) Release() { r.d.releaseOf(r.gen) }

// next waits for a delivery with something in it. decode: its messages will be
// looked at, so the dictionaries they need are got.
func (k *Consumer) next(ctx context.Context, decode bool) (*delivery, error) {
	if k.current != nil {
		k.current.release()
	}
	for {
		k.mu.Lock()
		if k.closed {
			k.mu.Unlock()
			return nil, closedErr("consume " + k.topic)
		}
		it, ok := k.queue.pop()
		if gap, is := it.err.(*GapError); is {
			it.sub.position = max(it.sub.position, gap.Next)
		}
		k.mu.Unlock()
		if !ok {
			select {
			case <-k.wake:
			case <-k.quit:
			case <-ctx.Done():
				return nil, ctxErr(ctx, "poll "+k.topic, "nothing came")
			}
			continue
		}
		if it.err != nil {
			return nil, it.err
		}
		d, err := k.open(ctx, it, decode)
		if d != nil || err != nil {
			return d, err
		}
	}
}

// Waiting says in words why no messages can come at present, and is empty while
// every partition that is consumed is subscribed. It is for people: its text may
// change.
func (k *Consumer) Waiting() string {
	lost := k.l.reason() // its lock goes before ours
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.cn == nil {
		text := "no connection to " + k.c.addr
		if lost != nil {
			text += ": " + lost.Error()
		}
		return text
	}
	var first *subscription // the same one each time: the text is compared
	for _, s := range k.subs {
		if s.err == nil && s.handle == 0 && (first == nil || s.partition < first.partition) {
			first = s
		}
	}
	switch {
	case first == nil:
		return ""
	case first.refusal != nil:
		return first.op("subscribing again to") + ": " + first.refusal.Error()
	}
	return first.op("subscribing to") + ": no answer yet"
}

// Position is where a Consumer stands in a partition.
type Position struct {
	Partition uint32
	Offset    message.Offset // the next message to be polled
	HWM       message.Offset // as last heard
	LogStart  message.Offset // as last heard
	Err       error          // why the partition is not consumed any more; nil if it is
}

// Lag is the number of visible messages not yet polled.
func (p Position) Lag() int64 { return max(0, int64(p.HWM-p.Offset)) }

// Positions returns where the consumer stands, in no particular order. HWM is
// as of the last delivery or subscription.
func (k *Consumer) Positions() []Position {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := make([]Position, 0, len(k.subs))
	for _, s := range k.subs {
		all = append(all, Position{Partition: s.partition, Offset: s.position, HWM: s.hwm, LogStart: s.logStart, Err: s.err})
	}
	return all
}

// Lag is the sum of the lags of all partitions.
func (k *Consumer) Lag() int64 {
	var sum int64
	for _, p := range k.Positions() {
		if lag := p.Lag(); sum > math.MaxInt64-lag {
			return math.MaxInt64
		} else {
			sum += lag
		}
	}
	return sum
}

// Seek moves a partition to another place, also after its subscription ended
// with an error, and waits until the broker has accepted it. What was received
// of the partition and not polled is discarded. It must not be called while a
// Batch of the partition is in use.
//
// Errors: fault.NotFound if the consumer does not have the partition,
// fault.OutOfRange, the context's.
func (k *Consumer) Seek(ctx context.Context, partition uint32, to Start) error {
	op := "seek " + k.topic
	k.mu.Lock()
	old := k.subs[partition]
	if old == nil || k.closed {
		k.mu.Unlock()
		if old == nil {
			return fault.New(fault.NotFound, op).WithField("partition").WithDetail("the consumer does not have partition %d", partition)
		}
		return closedErr(op)
	}
	s := newSubscription(k, partition)
	s.start = to
	k.subs[partition] = s
	now := time.Now()
	for _, it := range k.queue.remove(func(it item) bool { return it.sub == old }) {
		k.discard(&it, now)
	}
	old.stop(k.cn)
	if k.cn != nil {
		s.subscribe(k.cn)
	}
	k.mu.Unlock()
	select {
	case <-s.ready:
		k.mu.Lock()
		defer k.mu.Unlock()
		return s.err
	case <-ctx.Done():
		return ctxErr(ctx, op, "no answer from "+k.c.addr)
	case <-k.quit:
		return closedErr(op)
	}
}

// Close ends all subscriptions. A Poll that waits gets fault.Closed. It may be
// called more than once; it returns no error.
func (k *Consumer) Close() error {
	k.abort()
	return nil
}

func (k *Consumer) abort() {
	k.l.leave(k)
	k.mu.Lock()
	if k.closed {
		k.mu.Unlock()
		k.timers.Wait()
		return
	}
	k.closed = true
	close(k.quit)
	for _, s := range k.subs {
		s.stop(k.cn)
	}
	now := time.Now()
	for {
		it, ok := k.queue.pop()
		if !ok {
			break
		}
		k.discard(&it, now)
	}
	k.mu.Unlock()
	k.timers.Wait()
	k.c.dicts.unuse(k.topic)
	k.c.unregister(k)
}

// connected implements user.
func (k *Consumer) connected(cn *conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return
	}
	k.cn = cn
	for _, s := range k.subs {
		if s.err == nil {
			s.wait.reset()
			s.subscribe(cn)
		}
	}
}

// disconnected implements user.
func (k *Consumer) disconnected(*conn, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cn = nil
	for _, s := range k.subs {
		s.handle, s.asked = 0, false
	}
}

// arrive queues it and wakes the poller. mu is held.
func (k *Consumer) arrive(it item) {
	k.queue.push(it)
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// item is a received delivery, or an error, of a subscription.
type item struct {
	sub   *subscription
	frame *frame
	err   error
	life  message.Lifecycle // of the delivery
}

// fifo is a queue of items whose memory is reused.
type fifo struct {
	items []item
	head  int
}

func (q *fifo) push(it item) {
	if q.head > 0 && len(q.items) == cap(q.items) {
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	q.items = append(q.items, it)
}

func (q *fifo) pop() (item, bool) {
	if q.head == len(q.items) {
		return item{}, false
	}
	it := q.items[q.head]
	q.items[q.head] = item{}
	if q.head++; q.head == len(q.items) {
		q.items, q.head = q.items[:0], 0
	}
	return it, true
}

// remove takes out the items for which f is true.
func (q *fifo) remove(f func(item) bool) (out []item) {
	kept := q.items[:0]
	for _, it := range q.items[q.head:] {
		if f(it) {
			out = append(out, it)
		} else {
			kept = append(kept, it)
		}
	}
	clear(q.items[len(kept):])
	q.items, q.head = kept, 0
	return out
}

// isLost reports whether err is the end of a connection, which the consumer
// gets over by itself.
func isLost(err error) bool {
	return errors.Is(err, fault.ConnectionLost) || errors.Is(err, fault.HandleUnknown)
}

// unpop puts the item last popped back to the front.
func (q *fifo) unpop(it item) {
	if q.head > 0 {
		q.head--
		q.items[q.head] = it
		return
	}
	q.items = append([]item{it}, q.items...)
}
