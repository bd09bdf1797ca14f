package message

import (
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"testing"
)

// The plain definition is the oracle of the allocation-free one.
func TestSeedCRC(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	seeds := []Seed{0, 1, 255, 256, 1 << 63, ^Seed(0)}
	for range 1000 {
		seeds = append(seeds, Seed(r.Uint64()))
	}
	for _, s := range seeds {
		want := crc32.Checksum(binary.LittleEndian.AppendUint64(nil, uint64(s)), castagnoli)
		if got := seedCRC(s); got != want {
			t.Errorf("seedCRC(%d) = %#08x, want %#08x", uint64(s), got, want)
		}
	}
}
