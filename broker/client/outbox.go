package client

import "github.com/portask/portask/broker/wire"

// outbox is what waits to be written to a connection, in order: small frames
// back to back in an arena, and batches by reference. The connection's mutex
// guards it; only the writer takes.
//
// It is not bounded here: requests are bounded by their waiting callers,
// batches by the producers' buffers and credit, CREDIT and PONG frames by what
// the broker sends.
type outbox struct {
	bufs   [][]byte
	arena  []byte
	tail   int      // start in arena of the last element of bufs if that is open, else -1
	notify []*batch // those in bufs that want to know when they were written

	spare *outbox // empty, from the last take
}

// arenaBytes holds 170 PRODUCE heads, more than a writev of 64 KiB batches
// ever has.
const arenaBytes = 4 << 10

// begin returns where to append one small frame of at most n bytes. end must
// follow before anything else.
func (o *outbox) begin(n int) []byte {
	if cap(o.arena)-len(o.arena) < n {
		// Slices of the old arena stay referenced by bufs.
		o.arena = make([]byte, 0, max(n, arenaBytes))
		o.tail = -1
	}
	return o.arena
}

// end takes over what was appended to begin's slice.
func (o *outbox) end(b []byte) {
	from := len(o.arena)
	o.arena = b
	if len(o.bufs) > 0 && o.tail >= 0 {
		o.bufs[len(o.bufs)-1] = b[o.tail:]
		return
	}
	o.tail = from
	o.bufs = append(o.bufs, b[from:])
}

// add appends b by reference; it must not change until it was written.
func (o *outbox) add(b []byte) {
	o.bufs = append(o.bufs, b)
	o.tail = -1
}

func (o *outbox) empty() bool { return len(o.bufs) == 0 }

// take hands everything to the writer and leaves the box empty. What it
// returns goes back by recycle once written.
func (o *outbox) take() *outbox {
	full := o.spare
	if full == nil {
		full = new(outbox)
	}
	o.spare = nil
	full.bufs, o.bufs = o.bufs, full.bufs
	full.arena, o.arena = o.arena, full.arena
	full.notify, o.notify = o.notify, full.notify
	o.tail = -1
	return full
}

func (o *outbox) recycle(x *outbox) {
	clear(x.bufs)
	clear(x.notify)
	x.bufs, x.notify, x.arena = x.bufs[:0], x.notify[:0], x.arena[:0]
	if cap(x.arena) > 4*arenaBytes {
		x.arena = nil
	}
	o.spare = x
}

// frameRoom is enough for any frame that begin is called for with it: PING,
// CREDIT, the head of a PRODUCE and empty payloads.
const frameRoom = wire.HeaderBytes + wire.ProduceHeadBytes + 16
