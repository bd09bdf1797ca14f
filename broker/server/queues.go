package server

import "github.com/portask/portask/broker/bus"

// Queue is what waits for a worker, for an event loop or for somebody else's
// credit.
type Queue struct {
	Name            string
	Depth, Capacity int // a capacity of 0: bounded by what the entries belong to
	Deepest         int // most at once since the start; 0 where it is not counted
	Added           uint64
	Waited          uint64 // that found all workers busy
	Refused         uint64 // offers that found it full
}

// Queues returns what waits now, and what has.
func (s *Server) Queues() []Queue {
	s.budget.mu.Lock()
	credit := len(s.budget.waiting)
	s.budget.mu.Unlock()
	out := []Queue{{Name: "credit", Depth: credit, Capacity: waitingMax}}
	for _, w := range s.Workers() {
		for _, l := range w.Lanes {
			q := Queue{Name: l.Name, Depth: l.Depth, Deepest: l.Deepest, Added: l.Taken + uint64(l.Depth), Waited: l.Waited}
			if w.Name == workName && l.Name == laneNames[laneRequest] {
				q.Capacity, q.Refused = requestsMax, s.offload.requests.Stats().Refused+s.offload.waiting.Stats().Refused
			}
			out = append(out, q)
		}
	}
	var acks, calls, reads, news bus.BoxStats
	for _, l := range s.loops {
		acks.Add(l.box.acks.Stats())
		calls.Add(l.box.calls.Stats())
		reads.Add(l.box.reads.Stats())
		news.Add(l.box.parts.Stats())
	}
	for _, b := range []struct {
		name string
		bus.BoxStats
	}{{"mail-acks", acks}, {"mail-calls", calls}, {"mail-reads", reads}, {"mail-news", news}} {
		out = append(out, Queue{Name: b.name, Depth: b.Depth, Deepest: b.Deepest, Added: b.Put})
	}
	return out
}

// Workers are the goroutines beside the event loops that may wait for a disk: the
// committer's, which sync and write, and the server's, which answer requests and
// read history.
func (s *Server) Workers() []bus.Stats { return []bus.Stats{s.committer.Stats(), s.work.Stats()} }
