package partition

import (
	"encoding/binary"
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
	// word. 10,000 producers are 1.6 MB.
	producersMax = 10_000
	snapshotV1   = 1
)

type sent struct {
	sequence uint32 // first sequence of the batch
	count    uint32
	base     message.Offset
	end      message.Offset
	time     int64
}

// producer is what a partition knows of one idempotent producer.
type producer struct {
	epoch uint16
	n     uint8        // batches in last, oldest first
	last  [window]sent // last[n-1] is the newest
}

// producers is the idempotence state of a partition. Not concurrent.
type producers struct {
	by map[uint64]*producer
}

func (p *producers) init() { p.by = make(map[uint64]*producer) }

// check answers (duplicate, true, nil) for a batch already admitted,
// (_, false, nil) for the next one in order, and an error otherwise.
func (p *producers) check(e *message.Envelope) (Admission, bool, error) {
	s := p.by[e.ProducerID]
	if s == nil || s.n == 0 {
		return Admission{}, false, nil
	}
	if e.ProducerEpoch < s.epoch {
		return Admission{}, false, fault.New(fault.Fenced, "produce").WithField("producer_epoch").
			WithDetail("epoch %d of producer %d was superseded by %d", e.ProducerEpoch, e.ProducerID, s.epoch)
	}
	if e.ProducerEpoch > s.epoch {
		if e.BaseSequence != 0 {
			return Admission{}, false, fault.New(fault.OutOfSequence, "produce").WithField("base_sequence").
				WithDetail("a new producer epoch begins at sequence 0, not %d", e.BaseSequence)
		}
		return Admission{}, false, nil
	}
	newest := s.last[s.n-1]
	want := newest.sequence + newest.count
	if e.BaseSequence == want {
		return Admission{}, false, nil
	}
	for i := int(s.n) - 1; i >= 0; i-- {
		if b := s.last[i]; b.sequence == e.BaseSequence && b.count == e.Count {
			return Admission{Base: b.base, End: b.end, Time: b.time, Duplicate: true}, true, nil
		}
	}
	// Sequences wrap, so "before" is a signed distance.
	if int32(e.BaseSequence-want) < 0 {
		return Admission{}, false, fault.New(fault.DuplicateSequence, "produce").WithField("base_sequence").
			WithDetail("sequence %d was stored before; the next is %d", e.BaseSequence, want)
	}
	return Admission{}, false, fault.New(fault.OutOfSequence, "produce").WithField("base_sequence").
		WithDetail("sequence %d came, %d is next", e.BaseSequence, want)
}

func (p *producers) add(e *message.Envelope, a Admission) {
	s := p.by[e.ProducerID]
	if s == nil {
		if len(p.by) >= producersMax {
			p.forgetOldest()
		}
		s = &producer{}
		p.by[e.ProducerID] = s
	}
	s.epoch = e.ProducerEpoch
	if s.n == window {
		copy(s.last[:], s.last[1:])
		s.n--
	}
	s.last[s.n] = sent{sequence: e.BaseSequence, count: e.Count, base: a.Base, end: a.End, time: a.Time}
	s.n++
}

// cut forgets the batches at and above from.
func (p *producers) cut(from message.Offset) {
	for id, s := range p.by {
		for s.n > 0 && s.last[s.n-1].base >= from {
			s.n--
		}
		if s.n == 0 {
			delete(p.by, id)
		}
	}
}

// forgetOldest removes the tenth of the producers that wrote longest ago, so
// that the scan is paid once per thousand new producers.
func (p *producers) forgetOldest() {
	ends := make([]message.Offset, 0, len(p.by))
	for _, s := range p.by {
		ends = append(ends, s.last[s.n-1].end)
	}
	slices.Sort(ends)
	limit := ends[len(ends)/10]
	for id, s := range p.by {
		if s.last[s.n-1].end <= limit {
			delete(p.by, id)
		}
	}
}

// appendSnapshot writes the state of the batches below `below` to dst:
//
//	u8 version 1 · u32 producers · each: u64 id · u16 epoch · u8 n · n × (u32 sequence · u32 count · i64 base · i64 end · i64 time)
//
// little-endian, producers in order of their ids, so equal states are equal
// bytes.
func (p *producers) appendSnapshot(dst []byte, below message.Offset) []byte {
	ids := make([]uint64, 0, len(p.by))
	for id, s := range p.by {
		if s.last[0].end <= below {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	dst = append(dst, snapshotV1)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(ids)))
	for _, id := range ids {
		s := p.by[id]
		n := int(s.n)
		for n > 0 && s.last[n-1].end > below {
			n--
		}
		dst = binary.LittleEndian.AppendUint64(dst, id)
		dst = binary.LittleEndian.AppendUint16(dst, s.epoch)
		dst = append(dst, byte(n))
		for _, b := range s.last[:n] {
			dst = binary.LittleEndian.AppendUint32(dst, b.sequence)
			dst = binary.LittleEndian.AppendUint32(dst, b.count)
			dst = binary.LittleEndian.AppendUint64(dst, uint64(b.base))
			dst = binary.LittleEndian.AppendUint64(dst, uint64(b.end))
			dst = binary.LittleEndian.AppendUint64(dst, uint64(b.time))
		}
	}
	return dst
}

const (
	producerHeadBytes = 8 + 2 + 1
	sentBytes         = 4 + 4 + 8 + 8 + 8
)

// loadSnapshot replaces the state by what appendSnapshot wrote.
func (p *producers) loadSnapshot(b []byte) error {
	bad := func(what string) error {
		return fault.New(fault.Corrupted, "load producer snapshot").WithField("snapshot").WithDetail("%s", what)
	}
	if len(b) < 5 || b[0] != snapshotV1 {
		return bad("unknown version or short")
	}
	n := binary.LittleEndian.Uint32(b[1:])
	b = b[5:]
	if n > producersMax || int(n)*producerHeadBytes > len(b) {
		return bad("more producers than bytes or than the limit")
	}
	by := make(map[uint64]*producer, n)
	for range n {
		if len(b) < producerHeadBytes {
			return bad("short producer")
		}
		id := binary.LittleEndian.Uint64(b)
		s := &producer{epoch: binary.LittleEndian.Uint16(b[8:]), n: b[10]}
		b = b[producerHeadBytes:]
		if s.n == 0 || s.n > window || len(b) < int(s.n)*sentBytes {
			return bad("bad batch count")
		}
		for i := range s.n {
			s.last[i] = sent{
				sequence: binary.LittleEndian.Uint32(b), count: binary.LittleEndian.Uint32(b[4:]),
				base: message.Offset(binary.LittleEndian.Uint64(b[8:])), end: message.Offset(binary.LittleEndian.Uint64(b[16:])),
				time: int64(binary.LittleEndian.Uint64(b[24:])),
			}
			b = b[sentBytes:]
		}
		by[id] = s
	}
	if len(b) != 0 {
		return bad("trailing bytes")
	}
	p.by = by
	return nil
}

// replayed takes a batch found in the log during recovery.
func (p *producers) replayed(e *message.Envelope) {
	if e.ProducerID == 0 {
		return
	}
	if s := p.by[e.ProducerID]; s != nil && s.n > 0 && s.last[s.n-1].base >= e.BaseOffset {
		return // the snapshot already has it
	}
	p.add(e, Admission{Base: e.BaseOffset, End: e.EndOffset(), Time: e.AppendTime})
}
