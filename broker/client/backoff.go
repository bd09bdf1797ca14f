package client

import (
	"math/rand/v2"
	"time"
)

// backoff yields growing waits: drawn from the upper half of an interval that
// starts at least and doubles up to most, so that clients that lost a broker at
// the same instant do not come back at the same instant.
type backoff struct {
	least, most time.Duration
	tries       int
}

func (b *backoff) next() time.Duration {
	d := b.most
	if b.tries < 32 && b.least<<b.tries < b.most && b.least<<b.tries > 0 {
		d = b.least << b.tries
	}
	b.tries++
	return d/2 + rand.N(d/2+1)
}

func (b *backoff) reset() { b.tries = 0 }
