package server

import (
	"github.com/portask/portask/broker/mempool"
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
	Opened, Closed                        uint64 // connections
	Frames, Errors                        uint64 // frames taken, ERROR frames sent
	BatchesIn, MessagesIn, BytesIn, Acks  uint64
	Delivers, BatchesOut, BytesOut        uint64
	HistoryReads                          uint64 // DELIVER frames that were read from the log
	Leases                                uint64 // half-written frames whose memory was gone, and that went on from the log
	Connections, Producers, Subscriptions uint64 // now
}

type loopStats struct {
	opened, closed, frames, errors       uint64
	batchesIn, messagesIn, bytesIn, acks uint64
	delivers, batchesOut, bytesOut       uint64
	historyReads, leases                 uint64
}

// Stats asks every loop for its counters; it must not be called on one.
func (s *Server) Stats() Stats {
	out := Stats{Loops: s.ev.Stats(), Pool: s.pool.Stats(), Storage: s.opts.Engine.Stats()}
	parts := make(chan Counters, len(s.loops))
	asked := 0
	for _, l := range s.loops {
		select {
		case <-s.stop: // the loops may have ended
		default:
			l.call(func(l *loop) { parts <- l.counters() })
			asked++
		}
	}
	for range asked {
		select {
		case c := <-parts:
			out.add(c)
		case <-s.stop:
			return out
		}
	}
	return out
}

func (l *loop) counters() Counters {
	t := &l.stats
	return Counters{Opened: t.opened, Closed: t.closed, Frames: t.frames, Errors: t.errors, BatchesIn: t.batchesIn, MessagesIn: t.messagesIn,
		BytesIn: t.bytesIn, Acks: t.acks, Delivers: t.delivers, BatchesOut: t.batchesOut, BytesOut: t.bytesOut,
		HistoryReads: t.historyReads, Leases: t.leases, Connections: t.opened - t.closed,
		Producers: l.prods.live(), Subscriptions: l.subs.live()}
}

func (c *Counters) add(o Counters) {
	c.Opened += o.Opened
	c.Closed += o.Closed
	c.Frames += o.Frames
	c.Errors += o.Errors
	c.BatchesIn += o.BatchesIn
	c.MessagesIn += o.MessagesIn
	c.BytesIn += o.BytesIn
	c.Acks += o.Acks
	c.Delivers += o.Delivers
	c.BatchesOut += o.BatchesOut
	c.BytesOut += o.BytesOut
	c.HistoryReads += o.HistoryReads
	c.Leases += o.Leases
	c.Connections += o.Connections
	c.Producers += o.Producers
	c.Subscriptions += o.Subscriptions
}
