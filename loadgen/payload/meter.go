package payload

import (
	"math"
	"math/bits"
)

const (
	// sampledBatches are kept of a run, all producers together, and so at most
	// 16 MiB: 64 of the largest sample.
	sampledBatches = 64
	// sampleBytesMax bounds one of them; the last message may exceed it.
	sampleBytesMax = 256 << 10
	// sampleMessagesMax bounds the messages of one.
	sampleMessagesMax = 1 << 16
	// sampleStride is how many messages lie between samples at first. It doubles
	// whenever the samples have become too many, and every second is dropped: they
	// are spread over the run, however long it gets.
	sampleStride = 64
)

// sizeBuckets count sizes: exact below 128 bytes, to 1.6 % above.
const sizeBuckets = 17 * 64

// Meter measures what one producer sends: the size of every message, and samples
// of whole batches. The same messages give the same samples. For one goroutine;
// Summarise reads it when that has ended.
type Meter struct {
	sizes    [sizeBuckets]uint64
	bytes    uint64
	min, max int

	// wait messages are not looked at.
	wait, stride uint64
	keep         int // samples
	batchBytes   int
	open         *sample
	lane         uint32
	samples      []*sample
	spare        []*sample
}

// sample is messages of one partition, as a batch would hold them.
type sample struct {
	bytes []byte
	ends  []int
}

// NewMeter measures one of so many producers, whose client sends batches of
// batchBytes.
func NewMeter(producer, producers, batchBytes int) *Meter {
	m := &Meter{min: math.MaxInt, stride: sampleStride, batchBytes: min(max(batchBytes, 1), sampleBytesMax)}
	switch {
	case producers <= sampledBatches:
		m.keep = sampledBatches / max(producers, 1)
	case producer < sampledBatches:
		m.keep = 1
	default:
		m.wait = math.MaxUint64
	}
	return m
}

// Sent notes a value that was handed to the client, for a lane: a topic's
// partition. The bytes are copied if they are kept.
func (m *Meter) Sent(lane uint32, v []byte) {
	n := len(v)
	m.sizes[bucket(n)]++
	m.bytes += uint64(n)
	m.min, m.max = min(m.min, n), max(m.max, n)
	if m.wait > 0 {
		m.wait--
		return
	}
	m.sample(lane, v)
}

// bucket is n below 128; above, the seven highest bits and their place.
func bucket(n int) int {
	shift := max(bits.Len(uint(n))-7, 0)
	return min(shift*64+n>>shift, sizeBuckets-1)
}

// middle of a bucket.
func middle(b int) int {
	if b < 128 {
		return b
	}
	shift := b/64 - 1
	return (b-shift*64)<<shift + 1<<shift/2
}

func (m *Meter) sample(lane uint32, v []byte) {
	s := m.open
	switch {
	case s == nil:
		if n := len(m.spare); n > 0 {
			s, m.spare = m.spare[n-1], m.spare[:n-1]
		} else {
			s = &sample{bytes: make([]byte, 0, m.batchBytes+len(v))}
		}
		m.open, m.lane = s, lane
	case lane != m.lane:
		return
	}
	s.bytes = append(s.bytes, v...)
	s.ends = append(s.ends, len(s.bytes))
	if len(s.bytes) < m.batchBytes && len(s.ends) < sampleMessagesMax {
		return
	}
	m.samples, m.open, m.wait = append(m.samples, s), nil, m.stride
	if len(m.samples) <= m.keep {
		return
	}
	if m.keep == 1 { // the later of two, half of the times
		m.samples[0], m.samples[1] = m.samples[1], m.samples[0]
	}
	kept := m.samples[:0]
	for i, x := range m.samples {
		if i%2 == 0 {
			kept = append(kept, x)
			continue
		}
		x.bytes, x.ends = x.bytes[:0], x.ends[:0]
		m.spare = append(m.spare, x)
	}
	m.samples, m.stride = kept, m.stride*2
}
