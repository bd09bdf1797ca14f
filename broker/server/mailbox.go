package server

import (
	"math/bits"
	"sync/atomic"

	"github.com/portask/portask/broker/bus"
	"github.com/portask/portask/broker/partition"
	"github.com/portask/portask/broker/server/evloop"
)

// mailbox is what other goroutines leave for an event loop, in boxes that the
// loop empties in this order: what a client waits for and what an operator asks
// (shutdown, answers to requests) goes before batches to deliver. Nobody can
// leave more than he was granted: acks are bounded by the producers' credit,
// calls by requestsMax and a few of the server's own, reads by the subscriptions,
// which have one under way each, and parts by the partitions, each of which is in
// it once.
//
// The loop is woken once for all that comes until it looks: told is set by the
// first who put something into an empty box, and cleared before the boxes are
// emptied.
type mailbox struct {
	told  atomic.Bool
	acks  bus.Box[partition.Completion]
	calls bus.Box[func(*loop)]
	reads bus.Box[*read]
	parts bus.Box[*partition.Partition]
}

// mail is one emptying of a mailbox.
type mail struct {
	acks  []partition.Completion
	calls []func(*loop)
	reads []*read
	parts []*partition.Partition
}

// take empties the boxes into m, which holds what it held the time before.
func (b *mailbox) take(m *mail) (empty bool) {
	if b.told.Load() {
		b.told.Store(false)
	}
	m.acks = b.acks.Take(m.acks)
	m.calls = b.calls.Take(m.calls)
	m.reads = b.reads.Take(m.reads)
	m.parts = b.parts.Take(m.parts)
	return len(m.acks) == 0 && len(m.calls) == 0 && len(m.reads) == 0 && len(m.parts) == 0
}

// Complete routes acks to the loops of their connections.
func (s *Server) Complete(self int, cs []partition.Completion) {
	for len(cs) > 0 {
		n := 1
		for n < len(cs) && cs[n].Loop == cs[0].Loop {
			n++
		}
		l := s.loops[cs[0].Loop]
		if l.box.acks.Put(cs[:n]...) {
			l.news(self)
		}
		cs = cs[n:]
	}
}

// Advanced tells the loops that have subscriptions of p.
func (s *Server) Advanced(self int, p *partition.Partition) {
	for set := p.Interest(); set != 0; set &= set - 1 {
		l := s.loops[bits.TrailingZeros64(set)]
		if p.Tell(l.id) && l.box.parts.Put(p) {
			l.news(self)
		}
	}
}

// call runs f on the loop's goroutine.
func (l *loop) call(f func(*loop)) {
	if l.box.calls.Put(f) {
		l.news(-1)
	}
}

// news wakes the loop, unless it was told and has not looked, or the caller is
// on it (self): it looks before its turn ends.
func (l *loop) news(self int) {
	if !l.box.told.Swap(true) && l.id != self {
		l.ev.Wake()
	}
}

func connBits(c evloop.Conn) uint64 { return uint64(c.Gen)<<32 | uint64(c.Index) }

func connOf(b uint64) evloop.Conn { return evloop.Conn{Index: uint32(b), Gen: uint32(b >> 32)} }
