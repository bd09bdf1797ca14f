package payload

import (
	"fmt"
	"math"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/message"
)

// Stats tell what was sent, since a broker that compresses is measured by what
// it is given. Sizes are of every value, encoded; the rest is of samples, which
// are whole batches: values of one partition one after the other, as many as a
// batch of the producers takes, without keys and framing. (Where few messages
// come in a linger, batches are smaller.)
type Stats struct {
	Messages  uint64  `json:"messages"`
	Bytes     uint64  `json:"bytes"`
	MeanBytes float64 `json:"mean_bytes"` // of a value
	Sizes     Sizes   `json:"sizes"`

	// Entropy of single bytes (order 0), bits of 8. It sees no repetition.
	Entropy float64 `json:"entropy_bits_per_byte"`
	// Zstd1 is the size of batches over that of the same compressed with zstd at
	// level 1, as a batch is; Zstd1Single the same of single messages, which is
	// what is left to a system that compresses each by itself.
	Zstd1       float64 `json:"zstd1_ratio"`
	Zstd1Single float64 `json:"zstd1_single_ratio"`

	SampledBatches  int `json:"sampled_batches"`
	SampledMessages int `json:"sampled_messages"` // of those batches
	SampledBytes    int `json:"sampled_bytes"`
}

// Sizes are quantiles of sizes in bytes: Min and Max exact, the others to 1 %.
type Sizes struct {
	Min int `json:"min"`
	P10 int `json:"p10"`
	P50 int `json:"p50"`
	P90 int `json:"p90"`
	P99 int `json:"p99"`
	Max int `json:"max"`
}

// String says it on a line.
func (s Stats) String() string {
	size := fmt.Sprintf("%.0f B", s.MeanBytes)
	if s.Sizes.Min != s.Sizes.Max {
		size = fmt.Sprintf("%.0f B in the mean (p10 %d, p50 %d, p99 %d, max %d)", s.MeanBytes, s.Sizes.P10, s.Sizes.P50, s.Sizes.P99, s.Sizes.Max)
	}
	return fmt.Sprintf("%s, %.2f bits a byte, zstd-1 %.2f : 1 (each by itself %.2f : 1)", size, s.Entropy, s.Zstd1, s.Zstd1Single)
}

// singlesMax messages are compressed each by itself: some 10 us each.
const singlesMax = 2048

// Summarise says what the producers sent. It compresses the samples, at most 4
// MiB at the usual size of batches: some 50 ms.
func Summarise(meters []*Meter) (Stats, error) {
	var st Stats
	var sizes [sizeBuckets]uint64
	var samples []*sample
	st.Sizes.Min = math.MaxInt
	for _, m := range meters {
		for i, n := range m.sizes {
			sizes[i] += n
			st.Messages += n
		}
		st.Bytes += m.bytes
		st.Sizes.Min, st.Sizes.Max = min(st.Sizes.Min, m.min), max(st.Sizes.Max, m.max)
		samples = append(samples, m.samples...)
	}
	if st.Messages == 0 {
		return Stats{}, nil
	}
	if len(samples) == 0 { // a short run
		for _, m := range meters {
			if m.open != nil {
				samples = append(samples, m.open)
			}
		}
	}
	st.MeanBytes = float64(st.Bytes) / float64(st.Messages)
	st.Sizes.quantiles(&sizes, st.Messages)
	return st, st.samples(samples)
}

func (s *Sizes) quantiles(sizes *[sizeBuckets]uint64, n uint64) {
	at := []struct {
		q  float64
		to *int
	}{{0.1, &s.P10}, {0.5, &s.P50}, {0.9, &s.P90}, {0.99, &s.P99}}
	seen := uint64(0)
	for b, k := range sizes {
		seen += k
		for len(at) > 0 && float64(seen) >= at[0].q*float64(n) {
			*at[0].to = min(max(middle(b), s.Min), s.Max)
			at = at[1:]
		}
	}
}

func (st *Stats) samples(all []*sample) (err error) {
	var counts [256]int
	var out []byte
	compressed := func(b []byte) (int, error) {
		if out, err = compression.AppendCompress(out[:0], b, message.Zstd, compression.LevelFastest); err != nil {
			return 0, fmt.Errorf("compress payloads: %w", err)
		}
		return min(len(out), len(b)), nil
	}
	batches := 0
	for _, s := range all {
		st.SampledBatches++
		st.SampledMessages += len(s.ends)
		st.SampledBytes += len(s.bytes)
		for _, c := range s.bytes {
			counts[c]++
		}
		n, err := compressed(s.bytes)
		if err != nil {
			return err
		}
		batches += n
	}
	if st.SampledBytes == 0 {
		return nil
	}
	st.Zstd1 = float64(st.SampledBytes) / float64(batches)
	for _, c := range counts {
		if c > 0 {
			p := float64(c) / float64(st.SampledBytes)
			st.Entropy -= p * math.Log2(p)
		}
	}
	// Every step-th message of the samples.
	step := (st.SampledMessages + singlesMax - 1) / singlesMax
	whole, single, i := 0, 0, 0
	for _, s := range all {
		from := 0
		for _, end := range s.ends {
			if i%step == 0 {
				n, err := compressed(s.bytes[from:end])
				if err != nil {
					return err
				}
				whole += end - from
				single += n
			}
			i++
			from = end
		}
	}
	st.Zstd1Single = float64(whole) / float64(max(single, 1))
	return nil
}
