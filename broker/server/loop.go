package server

import (
	"os"
	"time"

	"github.com/portask/portask/broker/mempool"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/monitor/latency"
	"github.com/portask/portask/broker/partition"
	"github.com/portask/portask/broker/server/evloop"
	"github.com/portask/portask/broker/storage"
	"github.com/portask/portask/broker/wire"
)

// output is what a session needs of its event loop. *evloop.Loop is the real
// one; tests of the session put a recorder in its place.
type output interface {
	Wake()
	Send(c evloop.Conn, b []byte) error
	Writev(c evloop.Conn, bufs [][]byte) (n int, blocked bool, err error)
	SendFile(c evloop.Conn, f *os.File, pos int64, n int) (sent int, blocked bool, err error)
	Hold(c evloop.Conn)
	Unhold(c evloop.Conn)
	User(c evloop.Conn) *[4]uint32
	SetIdle(c evloop.Conn, d time.Duration)
	Established(c evloop.Conn)
	Close(c evloop.Conn, reason error)
	CloseAfterFlush(c evloop.Conn, reason error)
	WantTick(d time.Duration)
	Pause(c evloop.Conn)
	Resume(c evloop.Conn)
	WantWritable(c evloop.Conn)
	Queued(c evloop.Conn) int
	Each(f func(evloop.Conn))
}

// loop is the protocol side of one event loop: it owns the sessions of the
// loop's connections, their producers and subscriptions. All its methods run on
// the loop's goroutine, except call.
type loop struct {
	srv *Server
	id  int
	ev  output
	box mailbox

	mail       mail
	prods      mempool.Slab[producer]
	subs       mempool.Slab[subscription]
	byPart     []partSubs // by partition Num
	flushes    []*partition.Partition
	ready      []uint32             // subscriptions to serve this turn
	half       map[uint32]*delivery // by connection index: a frame that is half written
	spareReads []*read
	fetches    map[uint32]*fetchWait   // by subscription index
	ahead      map[uint32]*read        // by subscription index: history read ahead of its turn
	long       map[uint32]*longAnswers // by connection index
	advising   uint32                  // the next producer to be looked at, 0 = none; see advice.go
	adviseTo   uint32                  // of Server.changes: who knows that many needs no look
	drain      bool
	drainEnd   int64

	// msg holds frames while they are read or written: passed as interfaces, they
	// would go to the heap each time.
	msg struct {
		hello   wire.Hello
		helloOK wire.HelloOK
		sub     wire.Subscribe
		subOK   wire.SubscribeOK
		report  wire.Report
		advice  wire.Advice
	}

	buf      []byte // scratch for one small frame
	iov      [][]byte
	slices   []partition.Slice
	runs     []wire.Run
	head     wire.DeliverHead
	spare    []*delivery
	useCount uint8 // of handles
	stats    loopStats
	shared   published
	ticked   bool              // in this turn
	lat      *latency.Recorder // nil: nothing is measured
	turn     turnClock
	waited   []int64 // of what this round delivered: when it became visible
}

type partSubs struct {
	first uint32 // subscription list, linked by partNext
	count uint32
}

// deliverBatches bounds the batches of one DELIVER frame served from memory: a
// writev takes 1024 pieces at most.
const deliverBatches = 256

func newLoop(s *Server, id int) *loop {
	return &loop{
		srv: s, id: id, lat: s.latency.At(id),
		half: map[uint32]*delivery{}, fetches: map[uint32]*fetchWait{}, ahead: map[uint32]*read{}, long: map[uint32]*longAnswers{},
		slices: make([]partition.Slice, 0, deliverBatches), iov: make([][]byte, 0, deliverBatches+1),
	}
}

// handler adapts a loop to evloop.Handler.
type handler struct{ *loop }

func (h handler) Opened(l *evloop.Loop, c evloop.Conn) {
	if h.ev == nil {
		h.ev = l
	}
	h.opened(c)
}
func (h handler) Size(_ *evloop.Loop, c evloop.Conn, head []byte) (int, error) {
	return h.size(c, head)
}
func (h handler) Unit(_ *evloop.Loop, c evloop.Conn, unit []byte, ch *mempool.Chunk) error {
	return h.unit(c, unit, ch)
}
func (h handler) Writable(_ *evloop.Loop, c evloop.Conn) { h.writable(c) }
func (h handler) Closed(_ *evloop.Loop, c evloop.Conn, reason error) {
	h.closed(c, reason)
	h.publish() // no tick may follow
}
func (h handler) TurnEnd(*evloop.Loop) {
	h.turnEnd()
	h.turn = turnClock{}
	if h.ticked {
		h.ticked = false
		h.publish() // the next tick may be a second away
	}
}
func (h handler) Woken(*evloop.Loop) {} // turnEnd follows in the same turn
func (h handler) Tick(_ *evloop.Loop, now int64) {
	h.tick(now)
	h.ticked = true // its turn ends soon
}

// turnRounds bounds the rounds of serving in one turn, so that a fast consumer
// does not keep the loop from reading.
const turnRounds = 8

// turnEnd writes what the turn received, answers it, and serves the
// subscriptions that have something to get.
func (l *loop) turnEnd() {
	if l.advising != 0 {
		l.adviseSome()
	}
	l.flush()
	for round := 0; ; round++ {
		if l.box.take(&l.mail) && len(l.ready) == 0 {
			return
		}
		for i := range l.mail.acks {
			l.complete(&l.mail.acks[i])
		}
		l.recordAcks(l.mail.acks)
		for _, f := range l.mail.calls {
			f(l)
		}
		for _, r := range l.mail.reads {
			l.history(r)
		}
		for _, p := range l.mail.parts {
			p.Told(l.id)
			l.advanced(p)
		}
		l.serveReady()
		l.flush()
		if round == turnRounds && len(l.ready) > 0 {
			l.ev.Wake() // the rest in the next turn
			return
		}
	}
}

// flush runs the appends whose writer role this loop took.
func (l *loop) flush() {
	for i, p := range l.flushes {
		l.flushes[i] = nil
		if p.Deferred() {
			l.srv.committer.Write(p)
		} else {
			p.Flush(l.id)
		}
	}
	l.flushes = l.flushes[:0]
}

// advanced marks the subscriptions of p that wait at its end.
func (l *loop) advanced(p *partition.Partition) {
	if int(p.Num()) >= len(l.byPart) {
		return
	}
	visible := p.Visible()
	for i := l.byPart[p.Num()].first; i != 0; {
		s := l.subs.At(i)
		next := s.partNext
		if message.Offset(s.cursor) < visible || p.Closed() {
			l.enqueue(i, s)
		}
		i = next
	}
}

// enqueue puts a subscription into this turn's ready list, once.
func (l *loop) enqueue(i uint32, s *subscription) {
	if s.flags&subReady == 0 {
		s.flags |= subReady
		l.ready = append(l.ready, i)
	}
}

func (l *loop) serveReady() {
	n := len(l.ready)
	for k := 0; k < n; k++ {
		i := l.ready[k]
		s := l.subs.Slot(i)
		if s.flags&subReady == 0 {
			continue // closed since
		}
		s.flags &^= subReady
		l.serve(i, s)
	}
	l.ready = append(l.ready[:0], l.ready[n:]...)
	l.recordDelivers()
}

// send builds and queues one small frame.
func (l *loop) send(c evloop.Conn, h wire.Header, p wire.Payload) error {
	l.buf = wire.AppendFrame(l.buf[:0], h, p)
	return l.ev.Send(c, l.buf)
}

// tick looks after deadlines: half-written frames that make no progress, and
// fetches that wait.
func (l *loop) tick(int64) {
	now, slow := l.now(), l.srv.live.Load().slowConsumer
	for idx, d := range l.half {
		if d.conn.Index == idx && now-d.since > slow.Milliseconds() {
			l.ev.Close(d.conn, errSlow(slow))
		}
	}
	for _, a := range l.long {
		if now-a.since > slow.Milliseconds() {
			l.ev.Close(a.conn, errSlow(slow))
		}
	}
	for i, f := range l.fetches {
		if now >= f.deadline {
			l.fetchEnd(i, l.subs.At(i))
		}
	}
	l.prods.Shrink()
	if len(l.ready) == 0 { // it may name subscriptions that are gone
		l.subs.Shrink()
	}
	if l.drain {
		if now >= l.drainEnd {
			l.endDrain()
		}
		l.ev.WantTick(tickEvery)
	}
	if len(l.half) > 0 || len(l.long) > 0 || len(l.fetches) > 0 {
		l.ev.WantTick(tickEvery)
	}
}

const tickEvery = 100 * time.Millisecond

func (l *loop) now() int64 { return time.Since(l.srv.began).Milliseconds() }

// partSlot returns the subscription list of a partition.
func (l *loop) partSlot(num uint32) *partSubs {
	for int(num) >= len(l.byPart) {
		l.byPart = append(l.byPart, partSubs{})
	}
	return &l.byPart[num]
}

// releaseRuns gives leases back.
func releaseRuns(runs []storage.Run) {
	for i := range runs {
		runs[i].Release()
	}
}
