//go:build !leasecheck

package mempool

import (
	"testing"
	"unsafe"
)

// Without the tag the checks have no size; the benchmarks tell that they have no
// instructions either.
func TestChecksHaveNoSize(t *testing.T) {
	if n := unsafe.Sizeof(trace{}) + unsafe.Sizeof(ledger{}) + unsafe.Sizeof(slabTrace{}); n != 0 {
		t.Errorf("%d bytes", n)
	}
	if n := unsafe.Sizeof(Chunk{}); n > 56 {
		t.Errorf("a chunk's header has %d bytes", n)
	}
}
