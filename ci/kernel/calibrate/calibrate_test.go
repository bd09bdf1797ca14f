package calibrate

import (
	"crypto/sha256"
	"encoding/hex"
	"testing"
)

// A changed kernel would make a history of ratios to it worthless. Whoever must
// change one starts the history anew and says so.
func TestKernelsAreFrozen(t *testing.T) {
	const frozen = "408e53ac1cb18dc3450809b2a2eb1bb0b12a08d76f76c14038e01337e8263182"
	sum := sha256.Sum256([]byte(Source))
	if got := hex.EncodeToString(sum[:]); got != frozen {
		t.Errorf("kernels_test.go has the hash %s, frozen is %s", got, frozen)
	}
}
