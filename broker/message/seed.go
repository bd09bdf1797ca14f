package message

import "hash/crc32"

// Seed makes a header checksum valid in one place only. A log on disk takes the
// id of the segment, so that a batch left over in a recycled file never
// validates; batches in a PRODUCE request and in engines without segments have
// seed 0.
type Seed uint64

// headerCRC computes the header checksum of the envelope at b: of the seed and
// of the 80 bytes without the checksum itself.
func headerCRC(b []byte, seed Seed) uint32 {
	crc := crc32.Update(seedCRC(seed), castagnoli, b[:posHeaderCRC])
	return crc32.Update(crc, castagnoli, b[posHeaderCRC+4:EnvelopeBytes])
}

// seedCRC is CRC32C of seed's eight bytes, little-endian. It goes through the
// table since handing a local array to crc32.Update, which calls a function
// variable, would put it on the heap. It costs 4 ns; a cached value would save
// them once a batch and be one more thing to keep beside each seed.
func seedCRC(seed Seed) uint32 {
	crc := ^uint32(0)
	for range 8 {
		crc = castagnoli[byte(crc)^byte(seed)] ^ crc>>8
		seed >>= 8
	}
	return ^crc
}
