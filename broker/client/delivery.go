package client

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

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

	life     message.Lifecycle // pending until polled, final when released
	messages uint64            // given to the application
	expired  uint64            // messages passed over
	damaged  uint64            // encoded batches that could not be read

	head       wire.DeliverHead
	batches    []byte                    // part of f
	dicts      []*compression.Dictionary // that its batches need
	first, end message.Offset            // end may be before the batches' own: see open
	wanted     message.Offset            // messages below it are not passed on

	seq    iter.Seq2[*message.Message, error] // iterate, bound once
	reader message.Reader
	msg    message.Message
	body   []byte // decompressed
}

// keepBody is the largest decompressed body whose memory a consumer keeps: a
// few times a full batch.
const keepBody = 1 << 20

// open makes it the current delivery. Both results are nil if there is nothing
// new in it. If a batch needs a dictionary that cannot be got, the delivery ends
// before it, and the subscription with it.
func (k *Consumer) open(ctx context.Context, it item, decode bool) (*delivery, error) {
	d := k.current
	if d == nil {
		d = &delivery{k: k}
		d.seq = d.iterate
		k.current = d
	}
	d.sub, d.f, d.life = it.sub, it.frame, it.life
	d.messages, d.expired, d.damaged = 0, 0, 0
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
	d.dicts = d.dicts[:0]
	if decode {
		k.mu.Unlock()
		missing, err := d.getDictionaries(ctx)
		k.mu.Lock()
		if err != nil { // the next poll tries again
			k.queue.unpop(it)
			k.mu.Unlock()
			d.f = nil
			return nil, err
		}
		if missing != nil {
			later := missing.From > d.first
			d.sub.broke(missing, later)
			if !later {
				k.mu.Unlock()
				d.release()
				return nil, missing
			}
			d.end = missing.From
		}
	}
	d.sub.position = d.end
	k.mu.Unlock()
	d.to(message.Processing, time.Now())
	return d, nil
}

// getDictionaries gets what the delivery's batches need of dictionaries. It looks
// at headers that are not verified yet: where something is wrong with them it
// leaves that to iterate. missing is the first batch that cannot be read; err
// says that getting it may work another time.
func (d *delivery) getDictionaries(ctx context.Context) (missing *DictionaryError, err error) {
	k, rest := d.k, d.batches
	for i := range d.head.Runs {
		left := rest[:d.head.Runs[i].Bytes]
		rest = rest[len(left):]
		for len(left) >= message.EnvelopeBytes {
			size, zstd := message.Peek(left)
			if size > len(left) {
				break
			}
			b := left[:size]
			left = left[size:]
			if !zstd {
				continue
			}
			e, perr := message.ParseEnvelope(b, &k.c.cfg.lim)
			if perr != nil || e.EndOffset() <= d.first {
				continue
			}
			_, body, perr := message.Split(b, &e)
			id, _ := compression.FrameDictionary(body)
			if perr != nil || id == 0 || d.dictionary(id) != nil {
				continue
			}
			dict, err := k.c.dicts.get(ctx, k.l, k.topic, id)
			if err == nil && len(d.dicts) == dictionariesKept {
				err = fault.New(fault.TooLarge, "read delivery").WithField("dictionaries").
					WithDetail("one delivery needs more").WithLimit(dictionariesKept+1, dictionariesKept)
			}
			switch {
			case err == nil:
				d.dicts = append(d.dicts, dict)
			case ctx.Err() != nil || fault.Retryable(err) || isLost(err) || errors.Is(err, fault.Closed):
				return nil, err
			default:
				return &DictionaryError{Topic: k.topic, Partition: d.sub.partition, ID: id, From: e.BaseOffset, Next: e.EndOffset(), Err: err}, nil
			}
		}
	}
	return nil, nil
}

// dictionary returns one that getDictionaries got.
func (d *delivery) dictionary(id uint32) *compression.Dictionary {
	for _, x := range d.dicts {
		if x.ID() == id {
			return x
		}
	}
	return nil
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
	now := time.Now()
	d.k.mu.Lock()
	d.count(n, now)
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
			b, err := d.checkHead(left, run, next, n)
			if err != nil {
				d.damaged++
				if !yield(nil, err) {
					return
				}
				break // the length cannot be trusted
			}
			left = left[b.Size():]
			from := next
			next = b.Envelope().EndOffset()
			if next <= d.wanted {
				continue
			}
			if from >= d.end {
				return
			}
			if !d.batch(&b, from, yield) {
				return
			}
		}
	}
}

// checkHead checks that left begins with a batch that may stand here and returns
// it.
func (d *delivery) checkHead(left []byte, run *wire.Run, next message.Offset, n uint32) (message.Batch, error) {
	lim := &d.k.c.cfg.lim
	lies := func(field, detail string, args ...any) error {
		return d.at(next, fault.New(fault.ProtocolViolation, "read delivery").WithField(field).WithDetail(detail, args...))
	}
	if n >= run.Batches || len(left) == 0 {
		return message.Batch{}, lies("batches", "the run of %d batches holds %d", run.Batches, n)
	}
	b, _, err := message.ParseBatch(left, lim)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return message.Batch{}, lies("body_len", "%v", err)
	}
	if err == nil {
		err = message.VerifyHeader(left, run.Seed)
	}
	if err != nil {
		return message.Batch{}, d.at(next, err)
	}
	if e := b.Envelope(); n == 0 && e.BaseOffset != run.First || e.BaseOffset < next || e.EndOffset() > run.End {
		return message.Batch{}, lies("base_offset", "a batch of offsets [%d, %d) in the run [%d, %d)", e.BaseOffset, e.EndOffset(), run.First, run.End)
	}
	return b, nil
}

// batch yields the messages of one encoded batch whose header was checked. It
// returns false if the application has seen enough.
func (d *delivery) batch(b *message.Batch, from message.Offset, yield func(*message.Message, error) bool) bool {
	lim := &d.k.c.cfg.lim
	e := b.Envelope()
	if e.Attributes.Control() {
		return true // the broker's own
	}
	var section message.Section
	var body []byte
	err := message.VerifyBody(b.Bytes())
	if err == nil {
		section, body, err = b.Body()
	}
	if err == nil && d.k.o.unexpired && section.Expiry != 0 && time.Now().UnixMicro() >= section.Expiry {
		d.expired += uint64(e.Count)
		return true
	}
	if a := e.Attributes.Algorithm(); err == nil && a != message.None {
		d.body, err = d.decompress(body, a, int(e.UncompressedLen))
		body = d.body
	}
	if err != nil {
		d.damaged++
		return yield(nil, d.at(from, err))
	}
	b.Messages(&d.reader, &section, body, lim)
	for d.reader.Next(&d.msg) {
		if d.msg.Offset < d.wanted || !d.inRanges(d.msg.Offset) {
			continue
		}
		d.messages++
		if !yield(&d.msg, nil) {
			return false
		}
	}
	if err := d.reader.Err(); err != nil {
		d.damaged++
		return yield(nil, d.at(from, err))
	}
	return true
}

// decompress uses the memory of the body before.
func (d *delivery) decompress(body []byte, a message.Algorithm, declared int) ([]byte, error) {
	lim := compression.Limits{Bytes: d.k.c.cfg.lim.DecompressedBytes, Ratio: d.k.c.cfg.lim.DecompressedRatio}
	if a == message.Zstd && len(d.dicts) > 0 {
		if id, _ := compression.FrameDictionary(body); id != 0 {
			if x := d.dictionary(id); x != nil {
				return x.AppendDecompress(d.body[:0], body, declared, lim)
			}
		}
	}
	return compression.AppendDecompress(d.body[:0], body, a, declared, lim)
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
