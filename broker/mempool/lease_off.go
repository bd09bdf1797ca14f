//go:build !leasecheck

package mempool

// LeaseCheck tells whether this build checks leases: see the package comment.
const LeaseCheck = false

// Without the tag none of this has a size or an instruction.
type (
	trace     struct{}
	ledger    struct{}
	slabTrace struct{}
)

type event uint8

const (
	tookRetain event = iota
	tookTryRetain
	gaveRelease
	heldRetire
)

func (*trace) begin()          {}
func (*trace) note(event)      {}
func (*trace) history() string { return "" }

func (*ledger) add(*Chunk)    {}
func (*ledger) remove(*Chunk) {}
func (*ledger) close(*Pool)   {}

func (c *Chunk) ended()         {}
func (c *Chunk) reborn() *Chunk { return c }

func (*slabTrace) take(uint32) {}
func (*slabTrace) put(uint32)  {}
func (*slabTrace) use(uint32)  {}
func (*slabTrace) drop(uint32) {}
