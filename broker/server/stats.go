package server

import (
	"sync/atomic"
	"time"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/mempool"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/monitor/latency"
	"github.com/portask/portask/broker/partition"
	"github.com/portask/portask/broker/server/evloop"
	"github.com/portask/portask/broker/storage"
)

// Stats are the broker's figures since its start; see the parts for theirs.
type Stats struct {
	Counters
	Loops   evloop.Stats
	Pool    mempool.Stats
	Storage storage.EngineStats
}

// Counters count what passed. Batches in are counted when they were checked,
// batches out when the first byte of their frame was written.
type Counters struct {
	Opened, Closed                       uint64 // connections
	Frames, Errors                       uint64 // frames taken, ERROR frames sent
	BatchesIn, MessagesIn, BytesIn, Acks uint64
	// UncompressedIn is what the batches in said to be uncompressed, envelopes
	// apart; BatchesBy counts them by algorithm.
	UncompressedIn                        uint64
	BatchesBy                             [Algorithms]uint64
	Duplicates                            uint64 // acks of batches that were stored before
	Delivers, BatchesOut, BytesOut        uint64
	MessagesOut                           uint64
	HistoryReads                          uint64 // DELIVER frames that were read from the log
	Leases                                uint64 // half-written frames whose memory was gone, and that went on from the log
	Connections, Producers, Subscriptions uint64 // now
	RecordBytes                           uint64 // now: slabs of producers and subscriptions
}

// loopStats are counted by the loop in plain fields.
type loopStats struct {
	opened, closed, frames, errors       uint64
	batchesIn, messagesIn, bytesIn, acks uint64
	uncompressedIn                       uint64
	batchesBy                            [Algorithms]uint64
	duplicates                           uint64
	delivers, batchesOut, bytesOut       uint64
	messagesOut                          uint64
	historyReads, leases                 uint64
}

// published is what others may read of a loop's counters. The loop stores what
// has changed at its ticks, of which one follows traffic within 100 ms, so that
// readers cost it nothing, whoever and however many they are, and a reader waits
// for nobody. (At the end of each turn it was a percent of the smallest turns.)
type published struct {
	last Counters // what was stored; the loop's own
	now  [numCounters]atomic.Uint64
	// failed counts ERROR frames by code: too few to be collected first.
	failed [codes]atomic.Uint64
}

// codes is above all codes of fault.
const codes = 256

// fields are the counters in the order of published.now.
func (c *Counters) fields() [numCounters]*uint64 {
	return [...]*uint64{&c.Opened, &c.Closed, &c.Frames, &c.Errors, &c.BatchesIn, &c.MessagesIn, &c.BytesIn, &c.Acks, &c.Duplicates,
		&c.Delivers, &c.BatchesOut, &c.BytesOut, &c.MessagesOut, &c.HistoryReads, &c.Leases, &c.Connections, &c.Producers, &c.Subscriptions, &c.UncompressedIn, &c.RecordBytes,
		&c.BatchesBy[0], &c.BatchesBy[1], &c.BatchesBy[2], &c.BatchesBy[3], &c.BatchesBy[4], &c.BatchesBy[5]}
}

// Algorithms is the number of compression algorithms, none included.
const Algorithms = int(message.Brotli) + 1

const numCounters = 20 + Algorithms

func (l *loop) publish() {
	c := l.counters()
	if c == l.shared.last {
		return
	}
	now, last := c.fields(), l.shared.last.fields()
	for i, v := range now {
		if *v != *last[i] {
			l.shared.now[i].Store(*v)
		}
	}
	l.shared.last = c
}

// counters are those of one loop as it published them last.
func (p *published) counters() (c Counters) {
	for i, v := range c.fields() {
		*v = p.now[i].Load()
	}
	return c
}

// Stats returns the figures, those of the loops up to 100 ms old. It waits for no
// loop and wakes none.
func (s *Server) Stats() Stats {
	out := Stats{Loops: s.ev.Stats(), Pool: s.pool.Stats(), Storage: s.opts.Engine.Stats()}
	for _, l := range s.loops {
		c := l.shared.counters()
		sum := out.fields()
		for i, v := range c.fields() {
			*sum[i] += *v
		}
	}
	return out
}

func (l *loop) counters() Counters {
	t := &l.stats
	return Counters{Opened: t.opened, Closed: t.closed, Frames: t.frames, Errors: t.errors, BatchesIn: t.batchesIn, MessagesIn: t.messagesIn,
		BytesIn: t.bytesIn, Acks: t.acks, Duplicates: t.duplicates, Delivers: t.delivers, BatchesOut: t.batchesOut, BytesOut: t.bytesOut,
		MessagesOut: t.messagesOut, HistoryReads: t.historyReads, Leases: t.leases, Connections: t.opened - t.closed,
		Producers: uint64(l.prods.Live()), Subscriptions: uint64(l.subs.Live()),
		UncompressedIn: t.uncompressedIn, BatchesBy: t.batchesBy,
		RecordBytes: uint64(l.prods.Stats().Bytes + l.subs.Stats().Bytes)}
}

// Errors counts the ERROR frames that were sent, by code; those of codes that
// this version does not know are under the last one.
func (s *Server) Errors() map[fault.Code]uint64 {
	all := make(map[fault.Code]uint64)
	for _, l := range s.loops {
		for c := range l.shared.failed {
			if n := l.shared.failed[c].Load(); n > 0 {
				all[fault.Code(c)] += n
			}
		}
	}
	return all
}

// turnClock is the time at which a turn took its first batch, read once: the
// zero value has not been read. All batches of the turn were in the socket by
// then, or came while it lasted.
type turnClock struct {
	wall int64 // µs since the Unix epoch
	mono int64 // latency.Now
}

// received reads the turn's clock.
func (l *loop) received() int64 {
	if l.turn.mono == 0 {
		now := time.Now()
		l.turn = turnClock{wall: now.UnixMicro(), mono: latency.At(now)}
	}
	return l.turn.mono
}

// recordAcks measures the produce requests that were just answered. Those of one
// turn have come at the same time, so they are counted together.
func (l *loop) recordAcks(acks []partition.Completion) {
	if l.lat == nil || len(acks) == 0 {
		return
	}
	now := latency.Now()
	for i := 0; i < len(acks); {
		a, n := &acks[i], i+1
		for n < len(acks) && acks[n].Received == a.Received && acks[n].Level == a.Level && acks[n].Err == nil {
			n++
		}
		if a.Err == nil && a.Received != 0 {
			switch a.Level {
			case message.AckAccepted:
				l.lat.Record(latency.Accepted, now-a.Received, uint64(n-i))
			case message.AckDurable:
				l.lat.Record(latency.Durable, now-a.Received, uint64(n-i))
			}
		}
		i = n
	}
}

// waitedFor notes since when a frame that ends at end, and was just written, could
// have been delivered to s.
func (l *loop) waitedFor(s *subscription, p *partition.Partition, since int64, end message.Offset) {
	if since != 0 && s.flags&subLate == 0 && len(l.waited) < deliverBatches {
		l.waited = append(l.waited, since)
	}
	if end >= p.Visible() {
		s.flags &^= subLate // what comes from now on finds it waiting
	}
}

// recordDelivers measures the frames that were just written.
func (l *loop) recordDelivers() {
	if len(l.waited) == 0 {
		return
	}
	now := latency.Now()
	for _, at := range l.waited {
		l.lat.Record(latency.Deliver, now-at, 1)
	}
	l.waited = l.waited[:0]
}
