package bus

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/puzpuzpuz/xsync/v4"
)

// The queues that were measured against each other for the two paths of the bus,
// behind one shape. Offers that find a queue full are made again.

// queueOf is a queue of values: put takes a batch whole or in part, one after
// the other; get returns some of what waits, in get's own memory.
type queueOf[T any] interface {
	put(v []T) (n int)
	get(dst []T) []T
}

const rivalCapacity = ringSlots

// vyukov is a bounded ring whose slots carry sequence numbers, after Dmitry
// Vyukov's bounded MPMC queue (1024cores.net).
type vyukov[T any] struct {
	_     [64]byte
	head  atomic.Uint64
	_     [64]byte
	tail  atomic.Uint64
	_     [64]byte
	slots [rivalCapacity]struct {
		seq atomic.Uint64
		v   T
	}
}

func newVyukov[T any]() *vyukov[T] {
	q := &vyukov[T]{}
	for i := range q.slots {
		q.slots[i].seq.Store(uint64(i))
	}
	return q
}

func (q *vyukov[T]) put(v []T) int {
	for i := range v {
		for pos := q.head.Load(); ; pos = q.head.Load() {
			s := &q.slots[pos%rivalCapacity]
			if d := int64(s.seq.Load() - pos); d < 0 {
				return i
			} else if d == 0 && q.head.CompareAndSwap(pos, pos+1) {
				s.v = v[i]
				s.seq.Store(pos + 1)
				break
			}
		}
	}
	return len(v)
}

func (q *vyukov[T]) get(dst []T) []T {
	for len(dst) < cap(dst) {
		pos := q.tail.Load()
		s := &q.slots[pos%rivalCapacity]
		if d := int64(s.seq.Load() - pos - 1); d < 0 {
			break
		} else if d == 0 && q.tail.CompareAndSwap(pos, pos+1) {
			dst = append(dst, s.v)
			var zero T
			s.v = zero
			s.seq.Store(pos + rivalCapacity)
		}
	}
	return dst
}

// mutexRing is a ring under a lock.
type mutexRing[T any] struct {
	mu         sync.Mutex
	slots      [rivalCapacity]T
	head, tail int
}

func (q *mutexRing[T]) put(v []T) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(len(v), rivalCapacity-(q.head-q.tail))
	for i := range n {
		q.slots[(q.head+i)%rivalCapacity] = v[i]
	}
	q.head += n
	return n
}

func (q *mutexRing[T]) get(dst []T) []T {
	q.mu.Lock()
	defer q.mu.Unlock()
	var zero T
	for ; len(dst) < cap(dst) && q.tail < q.head; q.tail++ {
		s := &q.slots[q.tail%rivalCapacity]
		dst = append(dst, *s)
		*s = zero
	}
	return dst
}

type channel[T any] chan T

func (q channel[T]) put(v []T) int {
	for i := range v {
		select {
		case q <- v[i]:
		default:
			return i
		}
	}
	return len(v)
}

func (q channel[T]) get(dst []T) []T {
	for len(dst) < cap(dst) {
		select {
		case v := <-q:
			dst = append(dst, v)
		default:
			return dst
		}
	}
	return dst
}

// xsyncMPMC is the bounded ring of xsync. Its TryEnqueue also fails when another
// producer was faster, which is not the same as full.
type xsyncMPMC[T any] struct{ *xsync.MPMCQueue[T] }

func (q xsyncMPMC[T]) put(v []T) int {
	for i := range v {
		if !q.TryEnqueue(v[i]) {
			return i
		}
	}
	return len(v)
}

func (q xsyncMPMC[T]) get(dst []T) []T {
	for len(dst) < cap(dst) {
		v, ok := q.TryDequeue()
		if !ok {
			break
		}
		dst = append(dst, v)
	}
	return dst
}

// xsyncCounted is that with what a lane needs besides: a count, since the ring
// itself cannot be asked whether it is empty.
type xsyncCounted[T any] struct {
	xsyncMPMC[T]
	n atomic.Int64
}

func (q *xsyncCounted[T]) put(v []T) int {
	k := q.xsyncMPMC.put(v)
	q.n.Add(int64(k))
	return k
}

func (q *xsyncCounted[T]) get(dst []T) []T {
	if q.n.Load() <= 0 {
		return dst
	}
	dst = q.xsyncMPMC.get(dst)
	q.n.Add(-int64(len(dst)))
	return dst
}

// xsyncUMPSC is the unbounded queue of xsync for one consumer. It can only be
// asked for an item that will come, so the count of what was put stands beside.
type xsyncUMPSC[T any] struct {
	*xsync.UMPSCQueue[T]
	n atomic.Int64
}

func (q *xsyncUMPSC[T]) put(v []T) int {
	for i := range v {
		q.Enqueue(v[i])
	}
	q.n.Add(int64(len(v)))
	return len(v)
}

func (q *xsyncUMPSC[T]) get(dst []T) []T {
	n := min(q.n.Load(), int64(cap(dst)-len(dst)))
	for range n {
		dst = append(dst, q.Dequeue())
	}
	q.n.Add(-n)
	return dst
}

// ownBox is the Box of the product; get hands its slice through.
type ownBox[T any] struct {
	Box[T]
	last []T
}

func (q *ownBox[T]) put(v []T) int { q.Put(v...); return len(v) }

func (q *ownBox[T]) get([]T) []T { q.last = q.Take(q.last); return q.last }

// mutexTasks is a list of tasks under a lock: what lane would be without its
// stack.
type mutexTasks struct {
	mu          sync.Mutex
	first, last *Task
}

func (q *mutexTasks) put(v []*Task) int {
	q.mu.Lock()
	for _, t := range v {
		if q.first == nil {
			q.first = t
		} else {
			q.last.next = t
		}
		q.last = t
	}
	q.mu.Unlock()
	return len(v)
}

func (q *mutexTasks) get(dst []*Task) []*Task {
	q.mu.Lock()
	t := q.first
	if t != nil {
		q.first, t.next = t.next, nil
		dst = append(dst, t)
	}
	q.mu.Unlock()
	return dst
}

// ownLane is the lane of the product.
type ownLane struct{ lane }

func newOwnLane() *ownLane {
	q := &ownLane{}
	q.ring.init()
	return q
}

func (q *ownLane) put(v []*Task) int {
	for _, t := range v {
		q.push(t)
	}
	return len(v)
}

func (q *ownLane) get(dst []*Task) []*Task {
	if t := q.pop(); t != nil {
		dst = append(dst, t)
	}
	return dst
}

// stackTasks is a stack that producers push to by compare and swap and consumers,
// under a lock, take whole and turn round.
type stackTasks struct {
	_    [64]byte
	top  atomic.Pointer[Task]
	_    [64]byte
	mu   sync.Mutex
	rest atomic.Int64
	list *Task
}

func (q *stackTasks) put(v []*Task) int {
	for _, t := range v {
		for {
			t.next = q.top.Load()
			if q.top.CompareAndSwap(t.next, t) {
				break
			}
		}
	}
	return len(v)
}

func (q *stackTasks) get(dst []*Task) []*Task {
	if q.top.Load() == nil && q.rest.Load() == 0 {
		return dst
	}
	q.mu.Lock()
	if q.list == nil {
		n := int64(0)
		for t := q.top.Swap(nil); t != nil; n++ {
			next := t.next
			t.next = q.list
			q.list, t = t, next
		}
		q.rest.Store(n)
	}
	if t := q.list; t != nil {
		q.list, t.next = t.next, nil
		q.rest.Add(-1)
		dst = append(dst, t)
	}
	q.mu.Unlock()
	return dst
}

// ack has the size of what a storage worker hands to an event loop for each
// batch, and pointers as that.
type ack struct {
	producer, seq int
	_             [8]uint64
	_             error
}

func mailQueues() map[string]func() queueOf[ack] {
	return map[string]func() queueOf[ack]{
		"box":         func() queueOf[ack] { return &ownBox[ack]{} },
		"vyukov":      func() queueOf[ack] { return newVyukov[ack]() },
		"mutex-ring":  func() queueOf[ack] { return &mutexRing[ack]{} },
		"channel":     func() queueOf[ack] { return make(channel[ack], rivalCapacity) },
		"xsync-mpmc":  func() queueOf[ack] { return xsyncMPMC[ack]{xsync.NewMPMCQueue[ack](rivalCapacity)} },
		"xsync-umpsc": func() queueOf[ack] { return &xsyncUMPSC[ack]{UMPSCQueue: xsync.NewUMPSCQueue[ack]()} },
	}
}

func taskQueues() map[string]func() queueOf[*Task] {
	return map[string]func() queueOf[*Task]{
		"lane":       func() queueOf[*Task] { return newOwnLane() },
		"stack":      func() queueOf[*Task] { return &stackTasks{} },
		"mutex-list": func() queueOf[*Task] { return &mutexTasks{} },
		"vyukov":     func() queueOf[*Task] { return newVyukov[*Task]() },
		"mutex-ring": func() queueOf[*Task] { return &mutexRing[*Task]{} },
		"channel":    func() queueOf[*Task] { return make(channel[*Task], rivalCapacity) },
		"xsync-mpmc": func() queueOf[*Task] { return xsyncMPMC[*Task]{xsync.NewMPMCQueue[*Task](rivalCapacity)} },
		"xsync-counted": func() queueOf[*Task] {
			return &xsyncCounted[*Task]{xsyncMPMC: xsyncMPMC[*Task]{xsync.NewMPMCQueue[*Task](rivalCapacity)}}
		},
	}
}

// window is how much of one producer is under way at most, as credit does it.
const window = 64

// pump moves total items from producers to consumers. make returns batch number
// n of producer p (in memory of its own until window items later were got); got
// is told of each item on its consumer's goroutine and names the producer.
func pump[T any](q queueOf[T], total, producers, consumers, batch, most int, make_ func(p, n int) []T, got func(c int, v T) (p int)) {
	var free [8]struct {
		n atomic.Int64
		_ [64]byte
	}
	var done atomic.Int64
	var wg sync.WaitGroup
	each := total / producers / batch
	for p := range producers {
		wg.Go(func() {
			for n := range each {
				for int64((n+1)*batch)-free[p].n.Load() > window {
					runtime.Gosched()
				}
				for v := make_(p, n); ; runtime.Gosched() {
					k := q.put(v)
					if v = v[k:]; len(v) == 0 {
						break
					}
				}
			}
		})
	}
	all := int64(each * batch * producers)
	for c := range consumers {
		wg.Go(func() {
			dst := make([]T, 0, most)
			for done.Load() < all {
				dst = q.get(dst[:0])
				if len(dst) == 0 {
					runtime.Gosched()
					continue
				}
				for i := range dst {
					free[got(c, dst[i])].n.Add(1)
				}
				done.Add(int64(len(dst)))
			}
		})
	}
	wg.Wait()
}

// mailPump is pump for acks; it returns for each producer the numbers that came.
func mailPump(q queueOf[ack], total, producers, batch int, keep bool) [8][]int {
	var came [8][]int
	var batches [8][]ack
	for p := range batches {
		batches[p] = make([]ack, batch)
	}
	pump(q, total, producers, 1, batch, 256, func(p, n int) []ack {
		for i := range batches[p] {
			batches[p][i].producer, batches[p][i].seq = p, n*batch+i
		}
		return batches[p]
	}, func(_ int, v ack) int {
		if keep {
			came[v.producer] = append(came[v.producer], v.seq)
		}
		return v.producer
	})
	return came
}

// taskPump is pump for tasks, whose place says whose they are.
func taskPump(q queueOf[*Task], total, producers, consumers int, keep bool) [8][]int {
	type owned struct {
		Task
		producer int
		count    atomic.Int64
	}
	var came [8][]int
	tasks := make([]owned, producers*window)
	ring := make([][]*Task, producers)
	for i := range tasks {
		tasks[i].producer = i / window
		ring[i/window] = append(ring[i/window], &tasks[i].Task)
	}
	pump(q, total, producers, consumers, 1, 1, func(p, n int) []*Task {
		i := n % window
		return ring[p][i : i+1]
	}, func(_ int, t *Task) int {
		o := (*owned)(unsafe.Pointer(t)) // its first field
		if keep {
			o.count.Add(1)
		}
		return o.producer
	})
	if keep {
		for i := range tasks {
			came[tasks[i].producer] = append(came[tasks[i].producer], int(tasks[i].count.Load()))
		}
	}
	return came
}

// A queue that loses what it accepted is no candidate, however fast: from eight
// producers everything comes once and in order.
func TestEveryCandidateAccounts(t *testing.T) {
	const each = 200 * window
	for name, make := range mailQueues() {
		for _, batch := range []int{1, 16} {
			for p, seqs := range mailPump(make(), producers*each, producers, batch, true) {
				if len(seqs) != each || !slices.IsSorted(seqs) || seqs[0] != 0 || seqs[each-1] != each-1 {
					t.Errorf("%s, batches of %d: %d of %d of producer %d, in order: %v", name, batch, len(seqs), each, p, slices.IsSorted(seqs))
				}
			}
		}
	}
	for name, make := range taskQueues() {
		for p, counts := range taskPump(make(), producers*each, producers, 4, true) {
			if len(counts) != window || slices.Min(counts) != each/window || slices.Max(counts) != each/window {
				t.Errorf("%s: tasks of producer %d came %d to %d times, not %d", name, p, slices.Min(counts), slices.Max(counts), each/window)
			}
		}
	}
}
