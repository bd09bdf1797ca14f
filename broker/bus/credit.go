package bus

import (
	"sync/atomic"

	"github.com/portask/portask/broker/fault"
)

// Credit bounds something that is held for a while, requests or bytes: it is
// taken before and given back after. Whoever asks for more than is left is
// refused at once; nobody waits for it, so an event loop may ask. What is refused
// is not held. All methods may be called from any goroutine.
type Credit struct {
	op, field, what string
	code            fault.Code
	most            int64

	held    atomic.Int64
	highest atomic.Int64
	refused atomic.Uint64
}

// NewCredit makes a credit of most. A refusal is a fault of the given code, whose
// text says that there is too much of what.
func NewCredit(most int64, code fault.Code, op, field, what string) *Credit {
	return &Credit{op: op, field: field, what: what, code: code, most: most}
}

// Take holds n, or returns the refusal.
func (c *Credit) Take(n int64) error {
	for {
		held := c.held.Load()
		if held+n > c.most {
			c.refused.Add(1)
			return fault.New(c.code, c.op).WithField(c.field).WithDetail("too many %s", c.what).WithLimit(held+n, c.most)
		}
		if c.held.CompareAndSwap(held, held+n) {
			c.note(held + n)
			return nil
		}
	}
}

// Force holds n whatever the bound says: for what was done already and cannot be
// refused any more. Others are refused the longer for it.
func (c *Credit) Force(n int64) { c.note(c.held.Add(n)) }

func (c *Credit) note(held int64) {
	for h := c.highest.Load(); held > h && !c.highest.CompareAndSwap(h, held); h = c.highest.Load() {
	}
}

// Give returns n of what was taken.
func (c *Credit) Give(n int64) { c.held.Add(-n) }

// CreditStats are a credit's figures.
type CreditStats struct {
	Held, Highest, Most int64
	Refused             uint64
}

// Stats takes a snapshot.
func (c *Credit) Stats() CreditStats {
	return CreditStats{Held: c.held.Load(), Highest: c.highest.Load(), Most: c.most, Refused: c.refused.Load()}
}
