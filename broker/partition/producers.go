package partition

import (
	"slices"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

const (
	// window is how many batches of a producer are remembered: the most a client
	// may have in flight per partition, as in Kafka's idempotent producer.
	window = 5
	// producersMax bounds the remembered producers of a partition. The one that
	// wrote longest ago is forgotten first; its next batch is then taken at its
	// word. 10,000 producers are 1.7 MB.
	producersMax = 10_000
)

// sent is a batch of a producer. One of no messages is a place holder: a batch
// of that sequence was admitted as the producer's first and taken back, and is
// the only one that may come next.
type sent struct {
	sequence uint32 // of the first message
	count    uint32 // messages
	span     uint32 // offsets
	epoch    uint16 // of the producer
	base     message.Offset
	time     int64 // append time, µs
}

func (b *sent) end() message.Offset { return b.base + message.Offset(b.span) }

// next is the sequence that follows; it wraps.
func (b *sent) next() uint32 { return b.sequence + b.count }

// producer is what a partition knows of one idempotent producer.
type producer struct {
	n    uint8        // batches in last, at least 1
	last [window]sent // oldest first
}

func (s *producer) newest() *sent { return &s.last[s.n-1] }

// push adds a batch and returns the one it pushed out of a full window.
func (s *producer) push(b sent) (out sent, full bool) {
	if full = s.n == window; full {
		out = s.last[0]
		copy(s.last[:], s.last[1:])
		s.n--
	}
	s.last[s.n] = b
	s.n++
	return out, full
}

// admitted is one push that can be undone, until its batch is written.
type admitted struct {
	id   uint64
	in   sent
	out  sent // what in pushed out of the window
	full bool // there is such a batch
}

// undo takes a.in back, the newest batch of s, and brings back what it pushed
// out (s may not know a.in if it was forgotten and came anew). Without any other batch a place holder stays: otherwise the next batch of
// the producer to arrive, sent before it learned of the failure, would be taken
// for its first, and this one, sent again, for a duplicate.
func (s *producer) undo(a *admitted) {
	if b := s.newest(); b.base == a.in.base || b.count == 0 {
		s.n--
	}
	if a.full {
		copy(s.last[1:], s.last[:s.n])
		s.last[0] = a.out
		s.n++
	}
	if s.n == 0 {
		s.n = 1
		s.last[0] = sent{sequence: a.in.sequence, epoch: a.in.epoch, base: a.in.base, time: a.in.time}
	}
}

// producers is the idempotence state of a partition. Not concurrent.
type producers struct {
	by map[uint64]*producer
	// log[head:] are the pushes of batches that are not yet written, oldest
	// first, so that a failed append and a snapshot below it find the state as
	// it was. It is as long as the queue of the partition.
	log  []admitted
	head int
}

func (p *producers) init() { p.by = make(map[uint64]*producer) }

// check answers (duplicate, true, nil) for a batch already admitted,
// (_, false, nil) for the next one in order, and an error otherwise.
func (p *producers) check(e *message.Envelope) (Admission, bool, error) {
	s := p.by[e.ProducerID]
	if s == nil {
		return Admission{}, false, nil
	}
	newest := s.newest()
	if e.ProducerEpoch < newest.epoch {
		return Admission{}, false, fault.New(fault.Fenced, "produce").WithField("producer_epoch").
			WithDetail("epoch %d of producer %d was superseded by %d", e.ProducerEpoch, e.ProducerID, newest.epoch)
	}
	outOfSequence := func(format string, args ...any) (Admission, bool, error) {
		return Admission{}, false, fault.New(fault.OutOfSequence, "produce").WithField("base_sequence").WithDetail(format, args...)
	}
	if e.ProducerEpoch > newest.epoch {
		if e.BaseSequence != 0 {
			return outOfSequence("a new producer epoch begins at sequence 0, not %d", e.BaseSequence)
		}
		return Admission{}, false, nil
	}
	want := newest.next()
	if e.BaseSequence == want {
		return Admission{}, false, nil
	}
	for i := int(s.n) - 1; i >= 0; i-- {
		if b := &s.last[i]; b.sequence == e.BaseSequence && b.count == e.Count && b.epoch == e.ProducerEpoch {
			return Admission{Base: b.base, End: b.end(), Time: b.time, Duplicate: true}, true, nil
		}
	}
	// Sequences wrap, so "before" is a signed distance.
	if int32(e.BaseSequence-want) > 0 {
		return outOfSequence("sequence %d came, %d is next", e.BaseSequence, want)
	}
	// A window that never overflowed begins with the first batch that this
	// partition knows. What lies before may have been stored and forgotten, or
	// refused before it came here: to call it stored could lose it.
	if oldest := &s.last[0]; s.n < window && oldest.epoch == e.ProducerEpoch && int32(e.BaseSequence-oldest.sequence) < 0 {
		return outOfSequence("sequence %d came, the first one known is %d", e.BaseSequence, oldest.sequence)
	}
	return Admission{}, false, fault.New(fault.DuplicateSequence, "produce").WithField("base_sequence").
		WithDetail("sequence %d was stored before; the next is %d", e.BaseSequence, want)
}

// add remembers a batch that was admitted, until settled or cut.
func (p *producers) add(e *message.Envelope, a Admission) {
	in := sentOf(e, a)
	out, full := p.push(e.ProducerID, in)
	p.log = append(p.log, admitted{id: e.ProducerID, in: in, out: out, full: full})
}

func sentOf(e *message.Envelope, a Admission) sent {
	return sent{sequence: e.BaseSequence, count: e.Count, span: uint32(a.End - a.Base), epoch: e.ProducerEpoch, base: a.Base, time: a.Time}
}

func (p *producers) push(id uint64, b sent) (out sent, full bool) {
	s := p.by[id]
	if s == nil {
		if len(p.by) >= producersMax {
			p.forgetOldest()
		}
		s = &producer{}
		p.by[id] = s
	}
	return s.push(b)
}

// settled says that the batches below end are written and cannot be cut.
func (p *producers) settled(end message.Offset) {
	for p.head < len(p.log) && p.log[p.head].in.base < end {
		p.head++
	}
	if p.head == len(p.log) {
		p.log, p.head = roomy(p.log), 0
	} else if p.head > keepEntries {
		p.log = p.log[:copy(p.log, p.log[p.head:])]
		p.head = 0
	}
}

// cut takes the batches at and above from back, newest first.
func (p *producers) cut(from message.Offset) {
	for len(p.log) > p.head && p.log[len(p.log)-1].in.base >= from {
		a := &p.log[len(p.log)-1]
		if s := p.by[a.id]; s != nil { // else it was forgotten meanwhile
			s.undo(a)
		}
		p.log = p.log[:len(p.log)-1]
	}
}

// below returns the producers as they were before the batches at and above end
// were admitted; the ones it does not contain are unchanged.
func (p *producers) below(end message.Offset) map[uint64]*producer {
	changed := map[uint64]*producer{}
	for i := len(p.log) - 1; i >= p.head && p.log[i].in.base >= end; i-- {
		a := &p.log[i]
		s := changed[a.id]
		if s == nil {
			live := p.by[a.id]
			if live == nil {
				continue
			}
			c := *live
			s = &c
			changed[a.id] = s
		}
		s.undo(a)
	}
	return changed
}

// forgetOldest removes the tenth of the producers that wrote longest ago, so
// that the scan is paid once per thousand new producers.
func (p *producers) forgetOldest() {
	ends := make([]message.Offset, 0, len(p.by))
	for _, s := range p.by {
		ends = append(ends, s.newest().end())
	}
	slices.Sort(ends)
	limit := ends[len(ends)/10]
	for id, s := range p.by {
		if s.newest().end() <= limit {
			delete(p.by, id)
		}
	}
}

// replayed takes a batch found in the log during recovery.
func (p *producers) replayed(e *message.Envelope) {
	if e.ProducerID == 0 {
		return
	}
	if s := p.by[e.ProducerID]; s != nil && s.newest().base >= e.BaseOffset {
		return // the snapshot already has it
	}
	p.push(e.ProducerID, sentOf(e, Admission{Base: e.BaseOffset, End: e.EndOffset(), Time: e.AppendTime}))
}
