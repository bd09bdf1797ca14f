package disklog

import (
	"fmt"
	"math/bits"

	"github.com/portask/portask/broker/internal/vfs"
	"github.com/portask/portask/broker/message"
)

// Bytes that are no valid batch, in front of valid ones and above the durable
// point, are either unsynced sectors that a power cut lost or damage. The
// functions here decide which: FORMAT.md, "Damaged or unwritten".

// damaged reports whether r looks changed rather than unwritten, and how.
// followed says that a valid batch begins at its end.
func (s *scan) damaged(r *badRange, zeroed, followed bool) (bool, string, error) {
	switch {
	case r.class == BatchCut:
		return false, "", nil // the file was never that long
	case r.pos == r.end:
		return true, "no bytes are missing between two batches", nil
	}
	pos, bit, ok, err := s.flipped(r)
	if err != nil {
		return false, "", err
	}
	if ok {
		return true, fmt.Sprintf("bit %d of the byte at position %d is turned over", bit, pos), nil
	}
	if !zeroed {
		return false, "", nil
	}
	lost, err := s.hasZeroSector(r.pos, r.end, followed)
	if err != nil || lost {
		return false, "", err
	}
	return true, "every sector was written", nil
}

// hasZeroSector reports whether a sector of [pos, end), or the part of one with
// which the range begins or ends, is still as it was before the first write. If
// a valid batch follows, the part at the end was written: the batch came to the
// same sector later.
func (s *scan) hasZeroSector(pos, end int64, followed bool) (bool, error) {
	for pos < end {
		stop := (pos/vfs.SectorBytes + 1) * vfs.SectorBytes
		if stop > end {
			if followed {
				return false, nil
			}
			stop = end
		}
		if stop > s.size {
			return true, nil // behind the end of the file
		}
		b, err := s.bytes(pos, int(stop-pos))
		if err != nil {
			return false, err
		}
		if zeroBytes(b) {
			return true, nil
		}
		pos = stop
	}
	return false, nil
}

// flipped searches the one bit of the batch at r.pos that has to be turned over
// to make it valid. A chance agreement is as likely as bits in the batch times
// 2^-32.
func (s *scan) flipped(r *badRange) (pos int64, bit int, ok bool, err error) {
	if s.size-r.pos < message.EnvelopeBytes {
		return 0, 0, false, nil
	}
	b, err := s.bytes(r.pos, message.EnvelopeBytes)
	if err != nil {
		return 0, 0, false, err
	}
	if s.headerHolds(b) {
		if r.class != BatchBody {
			return 0, 0, false, nil
		}
		env, err := message.ParseEnvelope(b, &wideLimits)
		if err != nil {
			return 0, 0, false, nil
		}
		whole, err := s.bytes(r.pos, env.Bytes())
		if err != nil {
			return 0, 0, false, err
		}
		i, bit, ok := flippedInBatch(whole, &env)
		return r.pos + int64(i), bit, ok, nil
	}
	head := [message.EnvelopeBytes]byte(b)
	i, bit, ok := flippedBit(head[:], func(b []byte) bool {
		if !s.headerHolds(b) {
			return false
		}
		env, err := message.ParseEnvelope(b, &wideLimits)
		return err == nil && env.BaseOffset == r.from
	})
	if !ok {
		return 0, 0, false, nil
	}
	// One bit and no more: the body must be as the header says. Otherwise a lost
	// sector that differs from what was written by one bit in the header, and by
	// a whole body behind it, would pass for damage.
	head[i] ^= 1 << bit
	env, err := message.ParseEnvelope(head[:], &wideLimits)
	if err != nil || s.size-r.pos < int64(env.Bytes()) {
		return 0, 0, false, nil
	}
	b, err = s.bytes(r.pos, env.Bytes())
	if err != nil {
		return 0, 0, false, err
	}
	whole := append(head[:], b[message.EnvelopeBytes:]...)
	if message.VerifyBody(whole) != nil {
		return 0, 0, false, nil
	}
	return r.pos + int64(i), bit, true, nil
}

// flippedBit tries every bit of b, a short block, until holds.
func flippedBit(b []byte, holds func([]byte) bool) (i, bit int, ok bool) {
	for i := range b {
		for bit := range 8 {
			b[i] ^= 1 << bit
			ok := holds(b)
			b[i] ^= 1 << bit
			if ok {
				return i, bit, true
			}
		}
	}
	return 0, 0, false
}

// flippedInBatch finds the bit in the section or the body of a whole batch
// whose header holds.
func flippedInBatch(b []byte, env *message.Envelope) (i, bit int, ok bool) {
	const head = message.EnvelopeBytes
	if n := env.SectionBytes(); n > 0 {
		section := b[head : head+n]
		if diff := le.Uint32(section) ^ uint32(n); diff != 0 {
			at := bits.TrailingZeros32(diff)
			return head + at/8, at % 8, bits.OnesCount32(diff) == 1
		}
		if diff := crc(section[8:]) ^ le.Uint32(section[4:]); diff != 0 {
			if bits.OnesCount32(diff) == 1 {
				at := bits.TrailingZeros32(diff)
				return head + 4 + at/8, at % 8, true
			}
			i, bit, ok := flippedByCRC(diff, n-8)
			return head + 8 + i, bit, ok
		}
	}
	body := b[head+env.SectionBytes():]
	i, bit, ok = flippedByCRC(crc(body)^env.BodyCRC, len(body))
	return head + env.SectionBytes() + i, bit, ok
}

// flippedByCRC finds the single bit of n bytes that changes their CRC32C by
// diff. The change is a function of the bit's distance from the end alone, and
// the polynomial tells all distances below 2^31 bits apart.
func flippedByCRC(diff uint32, n int) (i, bit int, ok bool) {
	if diff == 0 {
		return 0, 0, false
	}
	var change [8]uint32
	for bit := range change {
		change[bit] = castagnoli[1<<bit]
	}
	for i := n - 1; i >= 0; i-- {
		for bit, c := range change {
			if c == diff {
				return i, bit, true
			}
			change[bit] = castagnoli[byte(c)] ^ c>>8
		}
	}
	return 0, 0, false
}
