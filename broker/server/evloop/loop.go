package evloop

import (
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/portask/portask/broker/mempool"
)

const (
	// readsPerTurn is how often one connection is read before the others get
	// their turn.
	readsPerTurn = 4
	// acceptsPerTurn bounds a storm of connections against running traffic.
	acceptsPerTurn = 64
	// tickBusy and tickIdle are the ticks' distances in ms.
	tickBusy = 100
	tickIdle = 1000
	// eventsPerWait sizes the event buffer.
	eventsPerWait = 256
)

// Loop is one event loop. Its methods belong to its own goroutine, the one that
// calls its handler, unless they say otherwise.
type Loop struct {
	id  int
	srv *Server
	o   *Options
	h   Handler
	io  netio

	now    int64 // coarse ms since the server's start, never 0
	slab   slab
	events []event

	recv     *mempool.Chunk // receive chunk, nil while idle
	recvPos  int            // bytes of it in use
	recvSize mempool.Sizer  // size of the next one

	ins     []inBuf // borrowed input, by record.in - 1
	insFree []uint32
	inBytes int  // sum of their chunks
	inOver  Conn // the one that may exceed the budget, zero if none
	tight   bool // the read under work may not borrow beyond what arrives
	inFreed bool // chunks were given back since the last retry

	outs     []outBuf // output queues, by record.out - 1
	outsFree []uint32
	outBytes int // sum of their chunks

	runq    []Conn // to be read although no event comes
	runqOld []Conn // the list under work, swapped with runq
	dirty   []Conn // have output to write at the turn's end
	starved []Conn // left unread for lack of memory
	reaped  []Conn // to be told Closed
	reasons map[Conn]error

	timed     bool  // some connection may have a short deadline: see scan
	timedSeen bool  // what timed becomes when the sweep ends
	lastTick  int64 // when Tick ran
	wantTick  int64 // when it must run again, 0 = no wish
	busy      bool  // something happened since the last tick
	scanAt    uint32
	idleTicks int
	listening bool // accept events are on

	draining bool // Shutdown was called
	stopping bool // Close was called: no new connections

	n counters // owned by the loop

	// Below: shared with other goroutines.
	conns    atomic.Int32 // connections and sockets on the way, counted by place
	woken    atomic.Bool  // Wake was called
	posted   atomic.Bool  // sockets or orders wait
	sleeping atomic.Bool  // the loop waits or is about to; whoever clears it wakes
	mu       sync.Mutex
	sockets  []socket // guarded by mu
	order    order    // guarded by mu
	done     chan struct{}
}

// order is what the server tells its loops.
type order uint8

const (
	orderNone order = iota
	orderDrain
	orderStop
)

// ID returns the loop's number, from 0. Any goroutine may call it.
func (l *Loop) ID() int { return l.id }

// Now returns coarse monotonic milliseconds, read once per turn. They begin
// near 1 at the server's start.
func (l *Loop) Now() int64 { return l.now }

// Draining reports that Shutdown was called: the handler says goodbye and closes
// its connections, now or when their work is done. Woken runs after the change.
func (l *Loop) Draining() bool { return l.draining }

// WantTick asks for a Tick in at most d, once; the earliest wish counts.
func (l *Loop) WantTick(d time.Duration) {
	at := l.now + max(1, d.Milliseconds())
	if l.wantTick == 0 || at < l.wantTick {
		l.wantTick = at
	}
}

// Wake makes the loop call Woken soon. Any goroutine may call it at any time.
// Wakes before the loop gets to it are one, and only a sleeping loop costs a
// system call.
func (l *Loop) Wake() {
	if !l.woken.Swap(true) {
		l.rouse()
	}
}

// rouse ends the loop's wait if it waits. The caller has stored what the loop
// shall find before; the loop stores sleeping before it looks. So either the
// loop sees the news or the caller sees it sleeping.
func (l *Loop) rouse() {
	if l.sleeping.Load() && l.sleeping.CompareAndSwap(true, false) {
		l.io.wake()
	}
}

// post hands a socket to the loop; false if the loop has ended. Any goroutine.
func (l *Loop) post(s socket) bool {
	l.mu.Lock()
	if l.order == orderStop {
		l.mu.Unlock()
		return false
	}
	l.sockets = append(l.sockets, s)
	l.posted.Store(true)
	l.mu.Unlock()
	l.rouse()
	return true
}

// command gives an order. Any goroutine.
func (l *Loop) command(o order) {
	l.mu.Lock()
	l.order = max(l.order, o)
	l.posted.Store(true)
	l.mu.Unlock()
	l.rouse()
}

// run is the loop. It returns after all its connections were closed.
func (l *Loop) run() {
	defer close(l.done)
	l.clock()
	for !l.stopping {
		n := l.wait()
		l.clock()
		for i := range n {
			l.dispatch(l.events[i])
		}
		l.runQueued()
		l.receiveOrders()
		if l.woken.Load() {
			l.woken.Store(false)
			l.n.v[kWakes]++
			l.h.Woken(l)
		}
		l.tick()
		l.endTurn()
	}
	l.stopAll()
}

// endTurn is the end of every turn: TurnEnd, output, closings.
func (l *Loop) endTurn() {
	l.reap()
	l.h.TurnEnd(l)
	l.reap()
	l.flushDirty()
	l.reap()
	// Closed may have queued output for other connections.
	for len(l.dirty) > 0 {
		l.flushDirty()
		l.reap()
	}
	if l.inFreed && len(l.starved) > 0 {
		l.retryStarved()
	}
	l.inFreed = false
	l.n.v[kTurns]++
	l.publish()
}

// wait gets events: without blocking if there is other work, and first without
// blocking in any case, since under load events are there already and a call
// that cannot block is cheaper.
func (l *Loop) wait() int {
	n := l.poll(0)
	if n > 0 || len(l.runq) > 0 {
		return n
	}
	timeout := l.timeout()
	if timeout == 0 {
		return 0
	}
	l.sleeping.Store(true)
	if l.woken.Load() || l.posted.Load() {
		l.sleeping.Store(false)
		return 0
	}
	n = l.poll(timeout)
	l.sleeping.Store(false)
	return n
}

func (l *Loop) poll(timeoutMs int) int {
	l.n.v[kWaits]++
	n, err := l.io.wait(l.events, timeoutMs)
	if err != nil {
		panic("evloop: wait: " + err.Error()) // a bad descriptor: our own fault
	}
	if n > 0 {
		l.busy = true
	}
	return n
}

func (l *Loop) clock() { l.now = time.Since(l.srv.start).Milliseconds() + 1 }

// timeout returns how long the loop may sleep, in ms; -1 without end.
func (l *Loop) timeout() int {
	at := int64(-1)
	if l.busy || l.timed || len(l.starved) > 0 || !l.listening {
		at = l.lastTick + l.srv.tickBusy
	} else if l.slab.Live() > 0 {
		at = l.lastTick + tickIdle
	}
	if l.wantTick != 0 && (at < 0 || l.wantTick < at) {
		at = l.wantTick
	}
	if at < 0 {
		return -1
	}
	l.clock()
	return int(max(0, at-l.now))
}

// tick runs what is due.
func (l *Loop) tick() {
	due := l.wantTick != 0 && l.now >= l.wantTick
	switch {
	case due:
	case l.busy || l.timed || len(l.starved) > 0 || !l.listening:
		due = l.now >= l.lastTick+l.srv.tickBusy
	case l.slab.Live() > 0:
		due = l.now >= l.lastTick+tickIdle
	}
	if !due {
		return
	}
	idle := !l.busy
	l.busy = false
	passed := l.now - l.lastTick
	l.lastTick = l.now
	if l.wantTick != 0 && l.now >= l.wantTick {
		l.wantTick = 0
	}
	l.scan(passed)
	l.shed()
	l.retryStarved()
	if !l.listening {
		l.listen(true)
	}
	l.tidy(idle)
	l.h.Tick(l, l.now)
}

// tidy gives memory back after a quiet while. What the pool has too much is its
// owner's affair.
func (l *Loop) tidy(idle bool) {
	l.idleTicks++
	if !idle {
		l.idleTicks = 0
	}
	l.recvSize.Idle(l.now)
	l.slab.Shrink()
	if l.idleTicks == 1 || l.slab.Live() == 0 {
		l.dropRecv()
		l.runqOld = nil
		for _, list := range []*[]Conn{&l.runq, &l.dirty, &l.reaped, &l.starved} {
			if len(*list) == 0 {
				*list = nil
			}
		}
		if len(l.reasons) == 0 {
			l.reasons = make(map[Conn]error)
		}
	}
}

// dispatch handles one event.
func (l *Loop) dispatch(e event) {
	if e.bits&evAccept != 0 {
		l.acceptSome()
		return
	}
	r := l.slab.get(e.conn)
	if r == nil {
		return // closed earlier in this turn
	}
	if e.bits&evOut != 0 && r.flags&fBlocked != 0 {
		l.unblocked(e.conn, r)
	}
	if e.bits&(evHup|evErr) != 0 {
		r.flags |= fHup
	}
	if e.bits&(evIn|evHup|evErr) == 0 {
		return
	}
	switch r.state {
	case stOpen:
		if r.flags&fPaused != 0 {
			r.flags |= fReadable
			if e.bits&evErr != 0 { // no need to read to see this end
				l.close(e.conn, r, syscall.ECONNRESET)
			}
			return
		}
		if r.flags&fRunq == 0 {
			l.input(e.conn, r)
		}
	case stFlush:
		if e.bits&evErr != 0 {
			l.close(e.conn, r, nil)
		}
	case stLinger:
		l.discard(e.conn, r)
	}
}

// enqueue puts a connection in the run queue.
func (l *Loop) enqueue(c Conn, r *record) {
	if r.flags&fRunq == 0 {
		r.flags |= fRunq
		l.runq = append(l.runq, c)
	}
}

// runQueued reads the connections that waited at the beginning of this turn;
// those that ask again come in the next.
func (l *Loop) runQueued() {
	if len(l.runq) == 0 {
		return
	}
	l.busy = true
	l.runqOld, l.runq = l.runq, l.runqOld[:0]
	for _, c := range l.runqOld {
		if r := l.slab.get(c); r != nil {
			r.flags &^= fRunq
			switch {
			case r.state == stLinger:
				l.discard(c, r)
			case r.state == stOpen && r.flags&fPaused == 0:
				l.input(c, r)
			case r.state == stOpen:
				r.flags |= fReadable
			}
		}
	}
}

// receiveOrders takes over new sockets and the server's orders.
func (l *Loop) receiveOrders() {
	if !l.posted.Load() {
		return
	}
	l.posted.Store(false)
	l.mu.Lock()
	socks, o := l.sockets, l.order
	l.sockets = nil
	l.mu.Unlock()
	for _, s := range socks {
		l.open(s)
	}
	if o >= orderDrain && !l.draining {
		l.draining = true
		l.io.unlisten()
		l.listening = true // nothing to retry
		l.woken.Store(true)
	}
	if o == orderStop {
		l.stopping = true
	}
}

// open makes a socket a connection of this loop.
func (l *Loop) open(s socket) {
	c, r := l.slab.take()
	fd, err := l.io.attach(s, c)
	if err != nil {
		l.slab.put(c, r)
		l.conns.Add(-1)
		l.n.v[kRefused]++
		return
	}
	r.fd = fd
	r.last = uint32(l.now)
	l.busy = true
	l.n.v[kOpened]++
	if l.o.PreTimeout <= 0 {
		r.flags |= fEstablished
	}
	l.markTimed()
	l.h.Opened(l, c)
}

// acceptSome takes waiting connections from the listener, loop 0 only.
func (l *Loop) acceptSome() {
	for range acceptsPerTurn {
		s, err := l.io.accept()
		if err == errAgain {
			return
		}
		l.n.v[kAccepts]++
		if err != nil {
			if err == errAborted {
				continue // the peer was gone before we came
			}
			if err == errFull {
				l.srv.refused.Add(1)
				continue
			}
			// Out of descriptors or memory: the listener would report ready for
			// ever. Try again at the next tick.
			l.n.v[kAcceptErrors]++
			l.listen(false)
			return
		}
		l.srv.place(s, l)
	}
}

// listen switches accept events.
func (l *Loop) listen(on bool) {
	if on != l.listening && !l.draining {
		l.io.listen(on)
		l.listening = on
	}
}
