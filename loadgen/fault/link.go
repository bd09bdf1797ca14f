package fault

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/portask/portask/loadgen/relay"
)

// link shares a rate among connections: a token bucket by bytes, kept as the
// time at which the link is free again. Chunks are small, so that connections
// take turns and nothing comes in bursts. Safe for concurrent use.
type link struct {
	mu   sync.Mutex
	free time.Time // when the last chunk has left
}

const (
	// quantumTime is how long a chunk occupies the link.
	quantumTime = time.Millisecond
	// quantumMin is an Ethernet frame.
	quantumMin = 1500
	// queueTime is how much the link takes in advance. A goroutine that wakes
	// late, by a millisecond on an idle machine and tens on a busy one, leaves
	// the link no gap.
	queueTime = 50 * time.Millisecond
	// catchUp is how late a sender may come all the same and still be on time.
	// It bounds the burst after a pause, and with it the error over a second.
	catchUp = 40 * time.Millisecond
)

// quantum is how much may be taken at once.
func (l *link) quantum(rate int) int {
	if rate <= 0 {
		return chunkBytes
	}
	return min(chunkBytes, max(quantumMin, int(int64(rate)*int64(quantumTime)/int64(time.Second))))
}

// take reserves the link for n bytes and returns when they have left.
func (l *link) take(rate, n int, now time.Time) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if rate <= 0 {
		l.free = time.Time{}
		return now
	}
	if earliest := now.Add(-catchUp); l.free.Before(earliest) {
		l.free = earliest
	}
	l.free = l.free.Add(time.Duration(float64(n) / float64(rate) * float64(time.Second)))
	if l.free.Before(now) {
		return now // nothing leaves before it is there
	}
	return l.free
}

// delays says when what passes in one direction of one connection arrives. It
// has no clock: it is told when a piece has left. For one goroutine.
type delays struct {
	jitter *rand.Rand
	way    int
	reads  int       // to the target, of those that count for hiccups
	last   time.Time // when the piece before is due
}

func newDelays(seed, number uint64, way int) *delays {
	return &delays{jitter: rand.New(rand.NewPCG(seed, number<<1|uint64(way))), way: way}
}

// due is when n bytes that have left arrive, n = 0 for the end; hiccup: they are
// late because of one. What left first arrives first.
func (d *delays) due(net *Network, n int, left time.Time) (due time.Time, hiccup bool) {
	due = left.Add(net.Latency)
	if net.Jitter > 0 {
		due = due.Add(time.Duration(d.jitter.Int64N(int64(net.Jitter))))
	}
	if n > 0 && d.way == relay.ToTarget && net.HiccupEvery > 0 {
		if d.reads++; d.reads%net.HiccupEvery == 0 {
			due, hiccup = due.Add(net.Hiccup), true
		}
	}
	if due.Before(d.last) {
		due = d.last
	}
	d.last = due
	return due, hiccup
}

// queue holds the chunks on their way in one direction of one connection.
type queue struct {
	mu     sync.Mutex
	moved  sync.Cond
	chunks []chunk
	bytes  int
	// ended: nothing more is put; closed: nothing more is taken either.
	ended, closed bool
}

func newQueue() *queue {
	q := &queue{}
	q.moved.L = &q.mu
	return q
}

// put waits for room; false if the queue is closed.
func (q *queue) put(x chunk) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.bytes > 0 && q.bytes+len(x.data) > queueBytes && !q.closed {
		q.moved.Wait()
	}
	if q.closed {
		return false
	}
	q.chunks = append(q.chunks, x)
	q.bytes += len(x.data)
	q.moved.Broadcast()
	return true
}

// take waits for a chunk; false if there are no more.
func (q *queue) take() (chunk, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.chunks) == 0 && !q.ended && !q.closed {
		q.moved.Wait()
	}
	if len(q.chunks) == 0 || q.closed {
		return chunk{}, false
	}
	x := q.chunks[0]
	q.chunks[0] = chunk{}
	q.chunks = q.chunks[1:]
	q.bytes -= len(x.data)
	q.moved.Broadcast()
	return x, true
}

func (q *queue) finish() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = true
	q.moved.Broadcast()
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.moved.Broadcast()
}
