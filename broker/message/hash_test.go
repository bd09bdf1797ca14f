package message

import (
	"fmt"
	"testing"
)

// The first six are the vectors of Kafka's own test (UtilsTest.testMurmur2);
// they are signed there.
func TestKeyHashVectors(t *testing.T) {
	tests := []struct {
		key  string
		want int32
	}{
		{"21", -973932308},
		{"foobar", -790332482},
		{"a-little-bit-long-string", -985981536},
		{"a-little-bit-longer-string", -1486304829},
		{"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971},
		{"abc", 479470107},
		{"", 275646681},
	}
	for _, tt := range tests {
		if got := int32(KeyHash([]byte(tt.key))); got != tt.want {
			t.Errorf("%q: %d, want %d", tt.key, got, tt.want)
		}
	}
}

func TestPartitionFor(t *testing.T) {
	// A negative hash loses its sign bit, it is not made absolute.
	if got, want := PartitionFor([]byte("21"), 1000), int((uint32(0xffffffff)-973932307)&0x7fffffff)%1000; got != want {
		t.Errorf("got %d, want %d", got, want)
	}
	for _, n := range []int{-1, 0, 1} {
		if got := PartitionFor([]byte("k"), n); got != 0 {
			t.Errorf("%d partitions: %d", n, got)
		}
	}
	const partitions, keys = 12, 12_000
	var hits [partitions]int
	for i := range keys {
		hits[PartitionFor(fmt.Appendf(nil, "user-%d", i), partitions)]++
	}
	for p, n := range hits {
		if n < 800 || n > 1200 { // 1000 expected, 6.6 standard deviations
			t.Errorf("partition %d has %d of %d keys", p, n, keys)
		}
	}
}
