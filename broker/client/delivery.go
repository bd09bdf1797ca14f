package client

import (
	"iter"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/wire"
)

// delivery is one DELIVER being read by the application. There is one per
// consumer, reused, so that a poll allocates nothing.
type delivery struct {
	k   *Consumer
	sub *subscription
	f   *frame // nil once released
	gen uint64 // counts openings, so that an old Batch releases nothing

	head       wire.DeliverHead
	batches    []byte // part of f
	first, end message.Offset
	wanted     message.Offset // messages below it are not passed on

	seq    iter.Seq2[*message.Message, error] // iterate, bound once
	reader message.Reader
	msg    message.Message
	body   []byte // decompressed
}

// keepBody is the largest decompressed body whose memory a consumer keeps: a
// few times a full batch.
const keepBody = 1 << 20

// open makes it the current delivery. Both results are nil if there is nothing
// new in it.
func (k *Consumer) open(it item) (*delivery, error) {
	d := k.current
	if d == nil {
		d = &delivery{k: k}
		d.seq = d.iterate
		k.current = d
	}
	d.sub, d.f = it.sub, it.frame
	d.gen++
	var err error
	if d.batches, err = wire.ParseDeliver(wire.PayloadOf(d.f.b), &d.head); err != nil {
		d.release() // cannot happen: the reader has parsed it before
		return nil, err
	}
	k.mu.Lock()
	d.sub.hwm, d.sub.logStart = max(d.sub.hwm, d.head.HWM), max(d.sub.logStart, d.head.LogStart)
	expected := d.sub.position
	if n := len(d.head.Runs); n > 0 {
		d.first, d.end = d.head.Runs[0].First, d.head.Runs[n-1].End
	} else {
		d.first, d.end = expected, expected
	}
	d.wanted = max(d.head.Wanted, expected)
	if d.end <= expected { // nothing but news of the high-water mark, or old
		k.mu.Unlock()
		d.release()
		return nil, nil
	}
	if d.first > expected && len(d.head.Ranges) == 0 {
		// Report the gap first; the same delivery is polled again.
		d.sub.position = d.first
		k.queue.unpop(it)
		k.mu.Unlock()
		d.f = nil // it is in the queue again
		return nil, &GapError{Topic: k.topic, Partition: d.sub.partition, From: expected, Next: d.first}
	}
	d.first = max(d.first, expected)
	d.sub.position = d.end
	k.mu.Unlock()
	return d, nil
}

// releaseOf is release for a Batch made by opening gen.
func (d *delivery) releaseOf(gen uint64) {
	if d != nil && d.gen == gen {
		d.release()
	}
}

// release gives memory and credit back.
func (d *delivery) release() {
	if d.f == nil {
		return
	}
	n := len(d.f.b)
	d.k.c.frames.put(d.f)
	d.f, d.batches = nil, nil
	if cap(d.body) > keepBody {
		d.body = nil
	}
	d.k.mu.Lock()
	d.sub.released(n)
	d.k.mu.Unlock()
}

// Messages iterates over the batch's messages in order. A message is valid
// until the next one; Clone it to keep it. An error comes with a nil message,
// names the offset, and concerns one encoded batch of several: iterating on
// passes over that batch (or what is left, if its length cannot be trusted).
//
// Errors: fault.Corrupted for a checksum or a body that does not hold,
// fault.TooLarge beyond the client's limits, fault.ProtocolViolation if batches
// are not where the delivery says.
func (b Batch) Messages() iter.Seq2[*message.Message, error] {
	if b.d == nil {
		return func(func(*message.Message, error) bool) {}
	}
	return b.d.seq
}

func (d *delivery) iterate(yield func(*message.Message, error) bool) {
	rest := d.batches
	for i := range d.head.Runs {
		run := &d.head.Runs[i]
		left := rest[:run.Bytes]
		rest = rest[run.Bytes:]
		next := run.First
		for n := uint32(0); len(left) > 0 || n < run.Batches; n++ {
			size, end, err := d.checkHead(left, run, next, n)
			if err != nil {
				if !yield(nil, err) {
					return
				}
				break // the length cannot be trusted
			}
			b := left[:size]
			left = left[size:]
			from := next
			next = end
			if end <= d.wanted {
				continue
			}
			if !d.batch(b, from, yield) {
				return
			}
		}
	}
}

// checkHead checks that left begins with a batch that may stand here and returns
// its size and the offset behind it.
func (d *delivery) checkHead(left []byte, run *wire.Run, next message.Offset, n uint32) (int, message.Offset, error) {
	lim := &d.k.c.cfg.lim
	lies := func(field, detail string, args ...any) error {
		return d.at(next, fault.New(fault.ProtocolViolation, "read delivery").WithField(field).WithDetail(detail, args...))
	}
	if n >= run.Batches || len(left) == 0 {
		return 0, 0, lies("batches", "the run of %d batches holds %d", run.Batches, n)
	}
	e, err := message.ParseEnvelope(left, lim)
	if err != nil {
		return 0, 0, d.at(next, err)
	}
	if e.Bytes() > len(left) {
		return 0, 0, lies("body_len", "a batch of %d bytes where %d are left", e.Bytes(), len(left))
	}
	if err := message.VerifyHeader(left, run.Seed); err != nil {
		return 0, 0, d.at(next, err)
	}
	if n == 0 && e.BaseOffset != run.First || e.BaseOffset < next || e.EndOffset() > run.End {
		return 0, 0, lies("base_offset", "a batch of offsets [%d, %d) in the run [%d, %d)", e.BaseOffset, e.EndOffset(), run.First, run.End)
	}
	return e.Bytes(), e.EndOffset(), nil
}

// batch yields the messages of one encoded batch whose header was checked. It
// returns false if the application has seen enough.
func (d *delivery) batch(b []byte, from message.Offset, yield func(*message.Message, error) bool) bool {
	lim := &d.k.c.cfg.lim
	e, err := message.ParseEnvelope(b, lim)
	if err == nil && e.Attributes.Control() {
		return true // the broker's own
	}
	var section message.Section
	var body []byte
	if err == nil {
		err = message.VerifyBody(b)
	}
	if err == nil {
		section, body, err = message.Split(b, &e)
	}
	if a := e.Attributes.Algorithm(); err == nil && a != message.None {
		d.body, err = compression.AppendDecompress(d.body[:0], body, a, int(e.UncompressedLen),
			compression.Limits{Bytes: lim.DecompressedBytes, Ratio: lim.DecompressedRatio})
		body = d.body
	}
	if err != nil {
		return yield(nil, d.at(from, err))
	}
	d.reader.Reset(&e, body, lim)
	d.reader.SetSection(&section)
	for d.reader.Next(&d.msg) {
		if d.msg.Offset < d.wanted || !d.inRanges(d.msg.Offset) {
			continue
		}
		if !yield(&d.msg, nil) {
			return false
		}
	}
	if err := d.reader.Err(); err != nil {
		return yield(nil, d.at(from, err))
	}
	return true
}

// inRanges reports whether offset o is to be delivered.
func (d *delivery) inRanges(o message.Offset) bool {
	if len(d.head.Ranges) == 0 {
		return true
	}
	for i := range d.head.Ranges {
		if r := &d.head.Ranges[i]; o >= r.First && o < r.End {
			return true
		}
	}
	return false
}

// at adds topic, partition and offset to err.
func (d *delivery) at(o message.Offset, err error) error {
	return &placeError{op: d.sub.op("consume"), offset: o, err: err}
}
