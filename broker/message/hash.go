package message

import "encoding/binary"

// KeyHash is the hash behind the choice of a partition by key: MurmurHash2 in
// its 32-bit form (Austin Appleby, public domain) with the seed of Kafka's
// default partitioner, so that the same key meets the same partition in both.
func KeyHash(key []byte) uint32 {
	const (
		seed = 0x9747b28c
		m    = 0x5bd1e995
		r    = 24
	)
	h := uint32(seed) ^ uint32(len(key))
	for len(key) >= 4 {
		k := binary.LittleEndian.Uint32(key)
		key = key[4:]
		k *= m
		k ^= k >> r
		k *= m
		h *= m
		h ^= k
	}
	switch len(key) {
	case 3:
		h ^= uint32(key[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(key[1]) << 8
		fallthrough
	case 1:
		h ^= uint32(key[0])
		h *= m
	}
	h ^= h >> 13
	h *= m
	h ^= h >> 15
	return h
}

// PartitionFor returns the partition, 0 to n-1, of a key on a topic with n
// partitions, as Kafka's default partitioner does: the hash without its sign
// bit, modulo n. It is 0 for n < 1.
func PartitionFor(key []byte, n int) int {
	if n < 1 {
		return 0
	}
	return int(KeyHash(key)&0x7fffffff) % n
}
