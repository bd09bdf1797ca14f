package partition

import (
	"encoding/binary"
	"slices"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

// A snapshot is the part of the State that lies in batches which a recovery
// does not read again: those of sealed segments. The engine keeps it beside
// them, checksummed. Little-endian; producers in order of their ids and without
// the place holders of batches taken back, so equal states are equal bytes.
//
//	u8 version 1 · i64 append time, µs: not below any sealed batch's
//	u32 producers · each: u64 id · u8 n, 1 to 5 · n x sent, oldest first
//	sent: u32 sequence · u32 count · u32 span · u16 epoch · i64 base offset · i64 append time
const (
	snapshotV1        = 1
	snapshotHeadBytes = 1 + 8 + 4
	producerHeadBytes = 8 + 1
	sentBytes         = 4 + 4 + 4 + 2 + 8 + 8
)

// AppendSnapshot appends the state after the batches below `below` to dst, and
// without those at or above it, which may be admitted but are not in the log as
// far as the engine knows.
func (s *State) AppendSnapshot(dst []byte, below message.Offset) []byte {
	dst = append(dst, snapshotV1)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(s.lastTime))
	return s.producers.appendSnapshot(dst, below)
}

// LoadSnapshot replaces the producers by those of a snapshot and takes its
// append time over if it is later. The error is fault.Corrupted, and nothing is
// changed then.
func (s *State) LoadSnapshot(b []byte) error {
	if len(b) < snapshotHeadBytes || b[0] != snapshotV1 {
		return badSnapshot("unknown version or short")
	}
	if err := s.producers.loadSnapshot(b[snapshotHeadBytes-4:]); err != nil {
		return err
	}
	s.lastTime = max(s.lastTime, int64(binary.LittleEndian.Uint64(b[1:])))
	return nil
}

func badSnapshot(what string) error {
	return fault.New(fault.Corrupted, "load producer snapshot").WithField("snapshot").WithDetail("%s", what)
}

func (p *producers) appendSnapshot(dst []byte, below message.Offset) []byte {
	ids := make([]uint64, 0, len(p.by))
	for id := range p.by {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	countAt, count := len(dst), uint32(0)
	dst = binary.LittleEndian.AppendUint32(dst, 0)
	before := p.below(below)
	for _, id := range ids {
		s := before[id]
		if s == nil {
			s = p.by[id]
		}
		n, nAt := byte(0), len(dst)+producerHeadBytes-1
		dst = append(binary.LittleEndian.AppendUint64(dst, id), 0)
		for i := range s.last[:s.n] {
			b := &s.last[i]
			if b.count == 0 || b.end() > below {
				continue
			}
			dst = binary.LittleEndian.AppendUint32(dst, b.sequence)
			dst = binary.LittleEndian.AppendUint32(dst, b.count)
			dst = binary.LittleEndian.AppendUint32(dst, b.span)
			dst = binary.LittleEndian.AppendUint16(dst, b.epoch)
			dst = binary.LittleEndian.AppendUint64(dst, uint64(b.base))
			dst = binary.LittleEndian.AppendUint64(dst, uint64(b.time))
			n++
		}
		if n == 0 {
			dst = dst[:nAt+1-producerHeadBytes]
			continue
		}
		dst[nAt] = n
		count++
	}
	binary.LittleEndian.PutUint32(dst[countAt:], count)
	return dst
}

// loadSnapshot reads what appendSnapshot wrote, and accepts nothing else.
func (p *producers) loadSnapshot(b []byte) error {
	n := binary.LittleEndian.Uint32(b)
	b = b[4:]
	if n > producersMax || int(n)*(producerHeadBytes+sentBytes) > len(b) {
		return badSnapshot("more producers than bytes or than the limit")
	}
	by := make(map[uint64]*producer, n)
	last := uint64(0)
	for range n {
		if len(b) < producerHeadBytes {
			return badSnapshot("short producer")
		}
		id := binary.LittleEndian.Uint64(b)
		s := &producer{n: b[8]}
		b = b[producerHeadBytes:]
		if s.n == 0 || s.n > window || len(b) < int(s.n)*sentBytes {
			return badSnapshot("bad count of batches")
		}
		if id <= last { // 0 is no producer
			return badSnapshot("producers out of order")
		}
		last = id
		for i := range s.n {
			s.last[i] = sent{
				sequence: binary.LittleEndian.Uint32(b), count: binary.LittleEndian.Uint32(b[4:]), span: binary.LittleEndian.Uint32(b[8:]),
				epoch: binary.LittleEndian.Uint16(b[12:]),
				base:  message.Offset(binary.LittleEndian.Uint64(b[14:])), time: int64(binary.LittleEndian.Uint64(b[22:])),
			}
			b = b[sentBytes:]
			if x := &s.last[i]; x.count == 0 || x.span < x.count || x.base < 0 || x.end() < 0 || i > 0 && x.base < s.last[i-1].end() {
				return badSnapshot("batches out of order")
			}
		}
		by[id] = s
	}
	if len(b) != 0 {
		return badSnapshot("trailing bytes")
	}
	*p = producers{by: by}
	return nil
}
