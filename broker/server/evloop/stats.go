package evloop

import "sync/atomic"

// Stats are the sums over all loops, as of the end of their last turns.
// Counters never go down.
type Stats struct {
	Connections int // open now, those on the way to their loop included

	Opened, Closed, Refused uint64 // connections; refused: over MaxConns, or failed to register
	BytesIn, BytesOut       uint64
	Units                   uint64
	Turns, Wakes            uint64 // turns of the loops; calls of Woken
	Starved                 uint64 // times a connection was left unread for lack of memory

	// System calls by kind, tries that would have blocked included.
	Reads, Writes, Sendfiles, Waits, Accepts uint64
	AcceptErrors                             uint64 // out of descriptors or the like

	InBorrowedBytes int64 // chunks that incomplete units hold
	OutQueuedBytes  int64 // chunks that queued output holds
	RecordBytes     int64 // slabs of the connections' records
}

// Kinds of counters, the order of counters.v.
const (
	kOpened = iota
	kClosed
	kRefused
	kBytesIn
	kBytesOut
	kUnits
	kTurns
	kWakes
	kStarved
	kReads
	kWrites
	kSendfiles
	kWaits
	kAccepts
	kAcceptErrors
	kInBorrowed // a gauge
	kOutQueued  // a gauge
	kRecords    // a gauge
	nKinds
)

// counters belong to the loop, which counts in plain fields and publishes them
// at the turn's end, so that readers cost it no more than a store per changed
// counter and turn.
type counters struct {
	v      [nKinds]uint64
	last   [nKinds]uint64 // what was published
	shared [nKinds]atomic.Uint64
}

func (l *Loop) publish() {
	n := &l.n
	n.v[kInBorrowed] = uint64(l.inBytes)
	n.v[kOutQueued] = uint64(l.outBytes)
	n.v[kRecords] = uint64(l.slab.Stats().Bytes)
	for i := range n.v {
		if n.v[i] != n.last[i] {
			n.last[i] = n.v[i]
			n.shared[i].Store(n.v[i])
		}
	}
}

// Stats returns the loop's own figures. Any goroutine may call it.
func (l *Loop) Stats() Stats {
	at := func(i int) uint64 { return l.n.shared[i].Load() }
	return Stats{
		Connections: int(l.conns.Load()),
		Opened:      at(kOpened), Closed: at(kClosed), Refused: at(kRefused),
		BytesIn: at(kBytesIn), BytesOut: at(kBytesOut), Units: at(kUnits),
		Turns: at(kTurns), Wakes: at(kWakes), Starved: at(kStarved),
		Reads: at(kReads), Writes: at(kWrites), Sendfiles: at(kSendfiles),
		Waits: at(kWaits), Accepts: at(kAccepts), AcceptErrors: at(kAcceptErrors),
		InBorrowedBytes: int64(at(kInBorrowed)), OutQueuedBytes: int64(at(kOutQueued)), RecordBytes: int64(at(kRecords)),
	}
}

func (s *Stats) add(t Stats) {
	s.Connections += t.Connections
	s.Opened += t.Opened
	s.Closed += t.Closed
	s.Refused += t.Refused
	s.BytesIn += t.BytesIn
	s.BytesOut += t.BytesOut
	s.Units += t.Units
	s.Turns += t.Turns
	s.Wakes += t.Wakes
	s.Starved += t.Starved
	s.Reads += t.Reads
	s.Writes += t.Writes
	s.Sendfiles += t.Sendfiles
	s.Waits += t.Waits
	s.Accepts += t.Accepts
	s.AcceptErrors += t.AcceptErrors
	s.InBorrowedBytes += t.InBorrowedBytes
	s.OutQueuedBytes += t.OutQueuedBytes
	s.RecordBytes += t.RecordBytes
}
