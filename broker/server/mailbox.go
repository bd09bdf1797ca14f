package server

import (
	"math/bits"
	"sync"

	"github.com/portask/portask/broker/partition"
	"github.com/portask/portask/broker/server/evloop"
)

// mailbox is what other goroutines leave for an event loop. Each kind has its
// own slice, swapped out whole by the loop, so that a warm mailbox allocates
// nothing. All are bounded: acks by the producers' credit, parts by the number
// of partitions, results by the subscriptions (one job each at most), calls by
// the admin queue and the number of topics.
type mailbox struct {
	mu      sync.Mutex
	acks    []partition.Completion
	parts   []*partition.Partition
	queued  map[uint32]struct{} // Num of each in parts
	results []jobResult
	calls   []func(*loop)
}

func (m *mailbox) empty() bool {
	return len(m.acks) == 0 && len(m.parts) == 0 && len(m.results) == 0 && len(m.calls) == 0
}

// mail is one emptying of a mailbox.
type mail struct {
	acks    []partition.Completion
	parts   []*partition.Partition
	results []jobResult
	calls   []func(*loop)
}

// take swaps the content with the emptied slices of the last time.
func (m *mailbox) take(last *mail) {
	m.mu.Lock()
	m.acks, last.acks = last.acks[:0], m.acks
	m.parts, last.parts = last.parts[:0], m.parts
	m.results, last.results = last.results[:0], m.results
	m.calls, last.calls = last.calls[:0], m.calls
	clear(m.queued)
	m.mu.Unlock()
}

func (l *mail) empty() bool {
	return len(l.acks) == 0 && len(l.parts) == 0 && len(l.results) == 0 && len(l.calls) == 0
}

// forget drops what the slices point to.
func (l *mail) forget() {
	clear(l.acks)
	clear(l.parts)
	clear(l.results)
	clear(l.calls)
}

// Complete routes acks to the loops of their connections.
func (s *Server) Complete(self int, cs []partition.Completion) {
	for len(cs) > 0 {
		n := 1
		for n < len(cs) && cs[n].Loop == cs[0].Loop {
			n++
		}
		l := s.loops[cs[0].Loop]
		l.box.mu.Lock()
		wake := l.box.empty()
		l.box.acks = append(l.box.acks, cs[:n]...)
		l.box.mu.Unlock()
		if wake && int(cs[0].Loop) != self {
			l.ev.Wake()
		}
		cs = cs[n:]
	}
}

// Advanced tells the loops that have subscriptions of p.
func (s *Server) Advanced(self int, p *partition.Partition) {
	for set := p.Interest(); set != 0; set &= set - 1 {
		id := bits.TrailingZeros64(set)
		l := s.loops[id]
		l.box.mu.Lock()
		wake := l.box.empty()
		if _, in := l.box.queued[p.Num()]; !in {
			l.box.queued[p.Num()] = struct{}{}
			l.box.parts = append(l.box.parts, p)
		}
		l.box.mu.Unlock()
		if wake && id != self {
			l.ev.Wake()
		}
	}
}

// call runs f on the loop's goroutine.
func (l *loop) call(f func(*loop)) {
	l.box.mu.Lock()
	wake := l.box.empty()
	l.box.calls = append(l.box.calls, f)
	l.box.mu.Unlock()
	if wake {
		l.ev.Wake()
	}
}

func connBits(c evloop.Conn) uint64 { return uint64(c.Gen)<<32 | uint64(c.Index) }

func connOf(b uint64) evloop.Conn { return evloop.Conn{Index: uint32(b), Gen: uint32(b >> 32)} }
