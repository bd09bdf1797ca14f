package server

import (
	"encoding/binary"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/portask/portask/broker/mempool"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/server/evloop"
	"github.com/portask/portask/broker/storage"
	"github.com/portask/portask/broker/storage/memlog"
	"github.com/portask/portask/broker/topic"
	"github.com/portask/portask/broker/wire"
)

// rig is one loop of a broker without sockets: frames go in as bytes, what the
// session sends is recorded, and turns happen when the test says so.
type rig struct {
	t    *testing.T
	s    *Server
	l    *loop
	pool *mempool.Pool
	wake chan struct{}

	users  map[evloop.Conn]*[4]uint32
	out    map[evloop.Conn][]byte // bytes the "socket" took
	queue  map[evloop.Conn][]byte // Sends of this turn
	held   map[evloop.Conn]bool
	room   map[evloop.Conn]int // bytes the socket still takes; absent = any
	ended  map[evloop.Conn]error
	next   uint32
	corr   uint32
	wished bool
	want   map[evloop.Conn]bool // WantWritable
}

func newRig(t *testing.T, o Options) *rig {
	t.Helper()
	if o.Engine == nil {
		o.Engine = openMem(t, 64<<20)
	}
	o.Loops = 1
	s, err := build(o)
	if err == nil {
		err = s.opts.complete()
	}
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, s: s, l: s.loops[0], pool: mempool.NewPool(mempool.Options{}), wake: make(chan struct{}, 1),
		users: map[evloop.Conn]*[4]uint32{}, out: map[evloop.Conn][]byte{}, queue: map[evloop.Conn][]byte{},
		held: map[evloop.Conn]bool{}, room: map[evloop.Conn]int{}, ended: map[evloop.Conn]error{}, want: map[evloop.Conn]bool{}}
	r.l.ev = r
	t.Cleanup(func() {
		for c := range r.users {
			r.end(c, nil)
		}
		if err := s.teardown(); err != nil {
			t.Errorf("teardown: %v", err)
		}
	})
	return r
}

func openMem(t *testing.T, max int64) storage.Engine {
	t.Helper()
	e, err := memlog.Open(memlog.Options{MaxBytes: max})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Errorf("close engine: %v", err)
		}
	})
	return e
}

// The output interface.

func (r *rig) Wake() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *rig) Send(c evloop.Conn, b []byte) error {
	if r.users[c] == nil {
		return evloop.ErrClosed
	}
	r.queue[c] = append(r.queue[c], b...)
	return nil
}

func (r *rig) take(c evloop.Conn, b []byte) (int, bool) {
	n := len(b)
	if room, bounded := r.room[c]; bounded {
		n = min(n, room)
		r.room[c] = room - n
	}
	r.out[c] = append(r.out[c], b[:n]...)
	return n, n < len(b)
}

func (r *rig) flush(c evloop.Conn) bool {
	if r.held[c] {
		return false
	}
	n, blocked := r.take(c, r.queue[c])
	r.queue[c] = append([]byte(nil), r.queue[c][n:]...)
	return !blocked
}

func (r *rig) Writev(c evloop.Conn, bufs [][]byte) (int, bool, error) {
	if r.users[c] == nil {
		return 0, false, evloop.ErrClosed
	}
	if !r.held[c] && !r.flush(c) {
		return 0, true, nil
	}
	total := 0
	for _, b := range bufs {
		n, blocked := r.take(c, b)
		total += n
		if blocked {
			return total, true, nil
		}
	}
	return total, false, nil
}

func (r *rig) SendFile(c evloop.Conn, f *os.File, pos int64, n int) (int, bool, error) {
	b := make([]byte, n)
	if _, err := f.ReadAt(b, pos); err != nil {
		return 0, false, err
	}
	return r.Writev(c, [][]byte{b})
}

func (r *rig) Hold(c evloop.Conn)                       { r.held[c] = true }
func (r *rig) Unhold(c evloop.Conn)                     { r.held[c] = false }
func (r *rig) User(c evloop.Conn) *[4]uint32            { return r.users[c] }
func (r *rig) SetIdle(evloop.Conn, time.Duration)       {}
func (r *rig) Established(evloop.Conn)                  {}
func (r *rig) Close(c evloop.Conn, err error)           { r.end(c, err) }
func (r *rig) CloseAfterFlush(c evloop.Conn, err error) { r.flush(c); r.end(c, err) }
func (r *rig) WantTick(time.Duration)                   { r.wished = true }
func (r *rig) Pause(evloop.Conn)                        {}
func (r *rig) Resume(evloop.Conn)                       {}
func (r *rig) WantWritable(c evloop.Conn)               { r.want[c] = true }
func (r *rig) Queued(c evloop.Conn) int                 { return len(r.queue[c]) }
func (r *rig) Each(f func(evloop.Conn)) {
	for c := range r.users {
		f(c)
	}
}

func (r *rig) end(c evloop.Conn, err error) {
	if r.users[c] == nil {
		return
	}
	r.ended[c] = err
	r.l.closed(c, err)
	delete(r.users, c)
}

// The test's side.

// connect opens a connection without a word.
func (r *rig) connect() evloop.Conn {
	r.next++
	c := evloop.Conn{Index: r.next, Gen: 1}
	r.users[c] = new([4]uint32)
	r.l.opened(c)
	return c
}

// open connects and says hello.
func (r *rig) open() evloop.Conn {
	r.t.Helper()
	c := r.connect()
	r.bytes(c, wire.AppendPreface(nil, 1, 1))
	r.request(c, 0, wire.OpHello, &wire.Hello{ClientName: "rig"})
	var ok wire.HelloOK
	r.answer(c, wire.OpHello.Response(), &ok)
	return c
}

// bytes gives the session units as the event loop would.
func (r *rig) bytes(c evloop.Conn, b []byte) {
	r.t.Helper()
	ch := r.pool.Get(max(len(b), 64))
	copy(ch.B, b)
	b = ch.B[:len(b):len(b)]
	for len(b) > 0 && r.users[c] != nil {
		n, err := r.l.size(c, b)
		if err == nil && (n == 0 || n > len(b)) {
			r.t.Fatalf("a unit of %d bytes, %d there", n, len(b))
		}
		if err == nil {
			err = r.l.unit(c, b[:n:n], ch)
			b = b[n:]
		}
		if err != nil {
			r.flush(c)
			r.end(c, err)
		}
	}
	r.pool.Retire(ch)
}

func (r *rig) request(c evloop.Conn, handle uint32, op wire.Opcode, p wire.Payload) uint32 {
	r.t.Helper()
	r.corr++
	r.bytes(c, wire.AppendFrame(nil, wire.Header{Opcode: op, Correlation: r.corr, Handle: handle}, p))
	return r.corr
}

// turn ends a turn and writes what was queued.
func (r *rig) turn() {
	r.l.turnEnd()
	for c := range r.users {
		for r.flush(c) && r.want[c] {
			delete(r.want, c)
			r.l.writable(c)
		}
	}
}

// frame returns the next frame sent to c; it waits for wakes if there is none.
func (r *rig) frame(c evloop.Conn) (wire.Header, []byte) {
	r.t.Helper()
	deadline := time.After(patience)
	for {
		r.turn()
		if b := r.out[c]; len(b) >= wire.HeaderBytes {
			h, err := wire.ParseHeader(b, wire.DefaultMaxFrame)
			if err != nil {
				r.t.Fatal(err)
			}
			if n := h.FrameBytes(); len(b) >= n {
				r.out[c] = b[n:]
				return h, b[wire.HeaderBytes:n]
			}
		}
		select {
		case <-r.wake:
		case <-deadline:
			r.t.Fatal("no frame came")
		}
	}
}

// answer expects a frame of the opcode and parses it.
func (r *rig) answer(c evloop.Conn, op wire.Opcode, p wire.Payload) wire.Header {
	r.t.Helper()
	h, b := r.frame(c)
	if h.Opcode != op {
		if h.Opcode == wire.OpError.Response() {
			var e wire.Error
			if err := e.Parse(b); err == nil {
				r.t.Fatalf("%v came instead of %v: %v", h.Opcode, op, e.Err())
			}
		}
		r.t.Fatalf("%v came instead of %v", h.Opcode, op)
	}
	if err := p.Parse(b); err != nil {
		r.t.Fatal(err)
	}
	return h
}

// quiet checks that nothing was sent to c.
func (r *rig) quiet(c evloop.Conn) {
	r.t.Helper()
	r.turn()
	if n := len(r.out[c]); n > 0 {
		h, _ := r.frame(c)
		r.t.Fatalf("%d unexpected bytes, the first frame is %v", n, h.Opcode)
	}
}

func (r *rig) topic(name string, partitions uint32, visibility message.AckLevel) {
	r.t.Helper()
	if _, err := r.s.cat.Create(name, topic.Config{Partitions: partitions, Visibility: visibility}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) producer(c evloop.Conn, name string, ack message.AckLevel, idempotent bool) (uint32, wire.OpenProducerOK) {
	r.t.Helper()
	r.request(c, 0, wire.OpOpenProducer, &wire.OpenProducer{Topic: name, Ack: ack, Idempotent: idempotent})
	var ok wire.OpenProducerOK
	h := r.answer(c, wire.OpOpenProducer.Response(), &ok)
	return h.Handle, ok
}

func (r *rig) subscribe(c evloop.Conn, m *wire.Subscribe) (uint32, wire.SubscribeOK) {
	r.t.Helper()
	r.request(c, 0, wire.OpSubscribe, m)
	var ok wire.SubscribeOK
	h := r.answer(c, wire.OpSubscribe.Response(), &ok)
	return h.Handle, ok
}

func (r *rig) produce(c evloop.Conn, handle, part uint32, batch []byte) uint32 {
	r.t.Helper()
	r.corr++
	b := wire.AppendProduceFrame(nil, wire.Header{Opcode: wire.OpProduce, Correlation: r.corr, Handle: handle}, part, len(batch))
	r.bytes(c, append(b, batch...))
	return r.corr
}

// batchOf builds a batch of messages "prefix-0", "prefix-1", …
func batchOf(t testing.TB, p message.Producer, prefix string, n int) []byte {
	t.Helper()
	b := message.NewBuilder(message.DefaultLimits())
	for i := range n {
		if err := b.Append(&message.Message{Value: fmt.Appendf(nil, "%s-%d", prefix, i), Timestamp: 1}); err != nil {
			t.Fatal(err)
		}
	}
	out, err := b.Finish(nil, p, nil)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// delivered is one DELIVER taken apart and checked.
type delivered struct {
	head   wire.DeliverHead
	values []string
	frame  int
}

// deliver expects a DELIVER (or an answer to FETCH) and verifies every batch.
func (r *rig) deliver(c evloop.Conn, op wire.Opcode) delivered {
	r.t.Helper()
	h, b := r.frame(c)
	if h.Opcode != op {
		r.t.Fatalf("%v came instead of %v", h.Opcode, op)
	}
	d := delivered{frame: h.FrameBytes()}
	rest, err := wire.ParseDeliver(b, &d.head)
	if err != nil {
		r.t.Fatal(err)
	}
	lim := message.DefaultLimits()
	for _, run := range d.head.Runs {
		at := run.First
		for range run.Batches {
			n := message.EnvelopeBytes + int(binary.LittleEndian.Uint32(rest[4:]))
			e, sec, err := message.Validate(rest[:n], run.Seed, &lim)
			if err != nil {
				r.t.Fatal(err)
			}
			if e.BaseOffset != at {
				r.t.Fatalf("batch at %d, expected %d", e.BaseOffset, at)
			}
			at = e.EndOffset()
			_, body, err := message.Split(rest[:n], &e)
			if err != nil {
				r.t.Fatal(err)
			}
			var rd message.Reader
			rd.Reset(&e, body, &lim)
			rd.SetSection(&sec)
			var m message.Message
			for rd.Next(&m) {
				if m.Offset >= d.head.Wanted {
					d.values = append(d.values, string(m.Value))
				}
			}
			if rd.Err() != nil {
				r.t.Fatal(rd.Err())
			}
			rest = rest[n:]
		}
		if at != run.End {
			r.t.Fatalf("the run ends at %d, not %d", at, run.End)
		}
	}
	if len(rest) != 0 {
		r.t.Fatalf("%d bytes behind the runs", len(rest))
	}
	return d
}
