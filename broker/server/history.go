package server

import (
	"sync"

	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/partition"
	"github.com/portask/portask/broker/server/evloop"
	"github.com/portask/portask/broker/storage"
)

// job asks for a piece of a partition's history. A subscription has at most one
// under way, which bounds the list.
type job struct {
	loop   *loop
	conn   evloop.Conn
	handle uint32
	part   *partition.Partition
	from   message.Offset
	max    int
}

type jobResult struct {
	job
	runs []storage.Run
	err  error
}

// history finds batches that left memory, on goroutines of its own: looking
// them up, and bringing cold pages in, may wait for the disk, and an event loop
// never does. What it hands back is in the page cache, for sendfile.
type history struct {
	mu      sync.Mutex
	more    sync.Cond // on mu
	jobs    []job     // guarded by mu
	closing bool      // guarded by mu
	wg      sync.WaitGroup
}

const historyWorkers = 2

func newHistory() *history {
	h := &history{}
	h.more.L = &h.mu
	for range historyWorkers {
		h.wg.Go(h.run)
	}
	return h
}

func (h *history) add(j job) {
	h.mu.Lock()
	h.jobs = append(h.jobs, j)
	h.more.Signal()
	h.mu.Unlock()
}

func (h *history) run() {
	var scratch []byte
	for {
		h.mu.Lock()
		for len(h.jobs) == 0 && !h.closing {
			h.more.Wait()
		}
		if len(h.jobs) == 0 {
			h.mu.Unlock()
			return
		}
		j := h.jobs[0]
		n := copy(h.jobs, h.jobs[1:])
		h.jobs[n] = job{}
		h.jobs = h.jobs[:n]
		h.mu.Unlock()

		r := jobResult{job: j}
		r.runs, r.err = j.part.Read(j.from, j.max, nil)
		for k := range r.runs {
			scratch = warm(&r.runs[k], scratch)
		}
		b := &j.loop.box
		b.mu.Lock()
		wake := b.empty()
		b.results = append(b.results, r)
		b.mu.Unlock()
		if wake {
			j.loop.ev.Wake()
		}
	}
}

func (h *history) close() {
	h.mu.Lock()
	h.closing = true
	h.more.Broadcast()
	h.mu.Unlock()
	h.wg.Wait()
}
