package payload

import (
	"fmt"
	"math"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/message"
)

// Stats tell how well values compress, since a broker that compresses is
// measured by what it is given.
type Stats struct {
	MeanBytes float64 `json:"mean_bytes"` // of a value, encoded
	// Entropy of single bytes, bits of 8. It sees no repetition.
	Entropy float64 `json:"entropy_bits_per_byte"`
	// Zstd1 is the size of values over that of 64 KiB of them compressed with
	// zstd at level 1, headers included.
	Zstd1 float64 `json:"zstd1_ratio"`
}

const (
	statsBytes = 1 << 20
	statsBatch = 64 << 10
)

// Stats are those of the first MiB of values that producer 0 sends to
// partition 0 with x's encoding.
func (s *Source) Stats(e message.Encoding) (Stats, error) {
	x, err := s.Encoder(e)
	if err != nil {
		return Stats{}, err
	}
	var counts [256]int
	var batch, out []byte
	n, bytes, small := 0, 0, 0
	flush := func() error {
		if out, err = compression.AppendCompress(out[:0], batch, message.Zstd, compression.LevelFastest); err != nil {
			return fmt.Errorf("compress payloads: %w", err)
		}
		small += min(len(out), len(batch))
		batch = batch[:0]
		return nil
	}
	for ; bytes < statsBytes; n++ {
		at := len(batch)
		if batch, err = x.Append(batch, Header{Sequence: uint64(n), Intended: int64(n) * 100_000}); err != nil {
			return Stats{}, err
		}
		for _, c := range batch[at:] {
			counts[c]++
		}
		bytes += len(batch) - at
		if len(batch) >= statsBatch {
			if err := flush(); err != nil {
				return Stats{}, err
			}
		}
	}
	if len(batch) > 0 {
		if err := flush(); err != nil {
			return Stats{}, err
		}
	}
	st := Stats{MeanBytes: float64(bytes) / float64(n), Zstd1: float64(bytes) / float64(small)}
	for _, c := range counts {
		if c > 0 {
			p := float64(c) / float64(bytes)
			st.Entropy -= p * math.Log2(p)
		}
	}
	return st, nil
}
