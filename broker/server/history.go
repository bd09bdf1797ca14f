package server

import (
	"sync"

	"github.com/portask/portask/broker/bus"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/partition"
	"github.com/portask/portask/broker/server/evloop"
	"github.com/portask/portask/broker/storage"
)

// The lanes of the server's workers: requests are control traffic and overtake
// reads of history, however many wait. Neither takes the last worker from the
// other. Syncs and deferred appends have workers of their own, the committer's, so
// a disk that hangs in a sync keeps nobody from reading.
const (
	laneRequest = iota
	laneHistory
)

// workName and laneNames are for Stats.
const workName = "serve"

var laneNames = [...]string{laneRequest: "request", laneHistory: "history"}

func newWork(workers int) *bus.Pool {
	return bus.New(bus.Options{Name: workName, Workers: workers,
		Lanes: []bus.Lane{laneRequest: {Name: laneNames[laneRequest], Control: true}, laneHistory: {Name: laneNames[laneHistory]}}})
}

// read finds batches that left memory, on a worker: looking them up, and
// bringing cold pages in, may wait for the disk, and an event loop never does.
// What it finds is in the page cache, for sendfile. A subscription has at most
// one under way, which bounds them. The loop makes reads, lends them to a worker
// by scheduling them, gets them back in its mailbox and uses them again.
type read struct {
	bus.Task
	loop   *loop
	conn   evloop.Conn
	handle uint32
	part   *partition.Partition
	from   message.Offset
	max    int

	runs []storage.Run // the result: owned by who has the read
	err  error
}

// readsKept is how many idle reads a loop keeps.
const readsKept = 64

// newRead takes a read that nobody uses.
func (l *loop) newRead() *read {
	if n := len(l.spareReads); n > 0 {
		r := l.spareReads[n-1]
		l.spareReads[n-1] = nil
		l.spareReads = l.spareReads[:n-1]
		return r
	}
	r := &read{loop: l}
	r.Bind(l.srv.work, laneHistory, r.run)
	return r
}

// forget drops the runs, whose leases are another's now or released.
func (r *read) forget() {
	clear(r.runs)
	r.runs = r.runs[:0]
}

// dropRead takes a read back that is done with, and releases what it holds.
func (l *loop) dropRead(r *read) {
	releaseRuns(r.runs)
	r.forget()
	r.part, r.err = nil, nil
	if len(l.spareReads) < readsKept {
		l.spareReads = append(l.spareReads, r)
	}
}

// run is the work, on a worker. The last line gives the read back to its loop,
// which may schedule it anew before run has returned.
func (r *read) run() bool {
	r.runs, r.err = r.part.Read(r.from, r.max, r.runs[:0])
	scratch, _ := warmers.Get().(*[]byte)
	if scratch == nil {
		scratch = new([]byte)
	}
	for k := range r.runs {
		*scratch = warm(&r.runs[k], *scratch)
	}
	warmers.Put(scratch)
	if l := r.loop; l.box.reads.Put(r) {
		l.news(-1)
	}
	return false
}

// warmers are buffers for warm, one for each worker that reads.
var warmers sync.Pool
