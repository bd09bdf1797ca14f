package server

import (
	"github.com/portask/portask/broker/monitor/latency"
	"github.com/portask/portask/broker/server/evloop"
	"github.com/portask/portask/broker/storage"
	"github.com/portask/portask/broker/topic"
)

// Space is the engine's, as the server last looked: once a second.
type Space struct {
	FreeBytes, TotalBytes int64
	Full                  bool // producing is refused until there is more
}

// Health is what decides whether a broker should be sent work.
type Health struct {
	Serving  bool // connections are accepted
	Draining bool // it is stopping, or has stopped
	Space    Space
	// Failed are partitions that take no more batches, of Partitions in all;
	// FailedTopic is the topic of the first.
	Failed, Partitions int
	FailedTopic        string
}

// Health looks at every partition. Any goroutine but an event loop's may call it.
func (s *Server) Health() Health {
	h := Health{Serving: s.serving.Load(), Space: s.Space()}
	select {
	case <-s.stop:
		h.Draining = true
	default:
	}
	for _, t := range s.cat.List() {
		for _, p := range t.Partitions {
			h.Partitions++
			if p.Marks().Failed {
				if h.Failed++; h.Failed == 1 {
					h.FailedTopic = t.Name
				}
			}
		}
	}
	return h
}

// Space returns what the last look at the engine's space found.
func (s *Server) Space() Space { return *s.space.Load() }

// Topics lists the topics by name.
func (s *Server) Topics() []*topic.Topic { return s.cat.List() }

// Engine is the name of the storage engine.
func (s *Server) Engine() string { return s.opts.Engine.Name() }

// Levels are the ack levels that the engine gives.
func (s *Server) Levels() storage.Levels { return s.opts.Engine.Levels() }

// ClusterID is the id that clients are told.
func (s *Server) ClusterID() string { return s.cat.ClusterID() }

// Latency has the durations that the broker measures; nil without
// Options.Measure.
func (s *Server) Latency() *latency.Set { return s.latency }

// CreditFreeBytes is what producers may still be granted.
func (s *Server) CreditFreeBytes() int64 {
	s.budget.mu.Lock()
	defer s.budget.mu.Unlock()
	return s.budget.free
}

// LoopStats are the figures of one event loop.
type LoopStats struct {
	Counters
	Network evloop.Stats
}

// LoopStats returns the figures of each event loop, as Stats does their sums.
func (s *Server) LoopStats() []LoopStats {
	out := make([]LoopStats, len(s.loops))
	for i, l := range s.ev.Loops() {
		out[i] = LoopStats{Counters: s.loops[i].shared.counters(), Network: l.Stats()}
	}
	return out
}
