package evloop

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/portask/portask/broker/mempool"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen; it is never waited
// for in full unless the test fails.
const patience = 30 * time.Second

// engines runs a test on each engine of this system.
func engines(t *testing.T, f func(t *testing.T, engine string)) {
	names := []string{EngineStd}
	if runtime.GOOS == "linux" {
		names = append(names, EngineEpoll)
	}
	for _, e := range names {
		t.Run("engine="+e, func(t *testing.T) { f(t, e) })
	}
}

// The tests' protocol: a unit is u32 little-endian whole length, then bytes.

const testUnitMax = 9 << 20

var errTestSize = errors.New("bad length")

func testSize(head []byte) (int, error) {
	if len(head) < 4 {
		return 0, nil
	}
	n := int(binary.LittleEndian.Uint32(head))
	if n < 4 || n > testUnitMax {
		return 0, errTestSize
	}
	return n, nil
}

// unitOf makes a unit of n bytes whose content depends on seed.
func unitOf(n int, seed byte) []byte {
	b := make([]byte, n)
	fillUnit(b, seed)
	return b
}

func fillUnit(b []byte, seed byte) {
	x := uint32(seed)*2654435761 + uint32(len(b))
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	binary.LittleEndian.PutUint32(b, uint32(len(b)))
}

// hooks is a Handler made of optional functions.
type hooks struct {
	opened   func(l *Loop, c Conn)
	size     func(l *Loop, c Conn, head []byte) (int, error)
	unit     func(l *Loop, c Conn, u []byte, ch *mempool.Chunk) error
	writable func(l *Loop, c Conn)
	closed   func(l *Loop, c Conn, reason error)
	turnEnd  func(l *Loop)
	woken    func(l *Loop)
	tick     func(l *Loop, now int64)
}

func (h *hooks) Opened(l *Loop, c Conn) {
	if h.opened != nil {
		h.opened(l, c)
	}
}

func (h *hooks) Size(l *Loop, c Conn, head []byte) (int, error) {
	if h.size != nil {
		return h.size(l, c, head)
	}
	return testSize(head)
}

func (h *hooks) Unit(l *Loop, c Conn, u []byte, ch *mempool.Chunk) error {
	if h.unit != nil {
		return h.unit(l, c, u, ch)
	}
	return nil
}

func (h *hooks) Writable(l *Loop, c Conn) {
	if h.writable != nil {
		h.writable(l, c)
	}
}

func (h *hooks) Closed(l *Loop, c Conn, reason error) {
	if h.closed != nil {
		h.closed(l, c, reason)
	}
}

func (h *hooks) TurnEnd(l *Loop) {
	if h.turnEnd != nil {
		h.turnEnd(l)
	}
}

func (h *hooks) Woken(l *Loop) {
	if h.woken != nil {
		h.woken(l)
	}
}

func (h *hooks) Tick(l *Loop, now int64) {
	if h.tick != nil {
		h.tick(l, now)
	}
}

// echo sends every unit back. It stops reading while much is queued, so any
// amount can be echoed in bounded memory.
func echo() *hooks {
	var h hooks
	h.unit = func(l *Loop, c Conn, u []byte, _ *mempool.Chunk) error {
		if err := l.Send(c, u); err != nil {
			return err
		}
		if l.Queued(c) >= l.o.OutPerConnBytes/2 {
			l.Pause(c)
			l.WantWritable(c)
		}
		return nil
	}
	h.writable = func(l *Loop, c Conn) { l.Resume(c) }
	return &h
}

// meter stands between a loop and its sockets, counts, and lets tests wait for
// a count. Functions may inject faults.
type meter struct {
	netio
	mu      sync.Mutex
	changed chan struct{} // closed and replaced at each change
	in, out int
	wakes   int
	waits   int
	names   map[int32]Conn // owned by the loop

	onRead  func(fd int32, n int) (limit int, again bool)
	onWrite func(fd int32, n int) (limit int, again bool)
	onAcc   func() error
}

func newMeter(n netio) *meter {
	return &meter{netio: n, changed: make(chan struct{}), names: map[int32]Conn{}}
}

func (m *meter) attach(s socket, c Conn) (int32, error) {
	fd, err := m.netio.attach(s, c)
	if err == nil {
		m.names[fd] = c
	}
	return fd, err
}

func (m *meter) note(f func()) {
	m.mu.Lock()
	f()
	close(m.changed)
	m.changed = make(chan struct{})
	m.mu.Unlock()
}

// await blocks until ok holds; ok runs under the meter's lock.
func (m *meter) await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for {
		m.mu.Lock()
		done, ch := ok(), m.changed
		m.mu.Unlock()
		if done {
			return
		}
		select {
		case <-ch:
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func (m *meter) awaitRead(t *testing.T, total int) {
	t.Helper()
	m.await(t, fmt.Sprintf("%d bytes read", total), func() bool { return m.in >= total })
}

// rearm makes the system tell again what is ready, after a fault hid it.
func (m *meter) rearm(fd int32) {
	switch p := m.netio.(type) {
	case *stdIO:
		p.post(p.socks[fd], evIn|evOut)
	default:
		rearmEpoll(p, fd, m.names[fd])
	}
}

func (m *meter) wait(ev []event, ms int) (int, error) {
	if ms != 0 {
		m.note(func() { m.waits++ })
	}
	return m.netio.wait(ev, ms)
}

func (m *meter) wake() {
	m.note(func() { m.wakes++ })
	m.netio.wake()
}

func (m *meter) read(fd int32, a, b []byte) (int, error) {
	if m.onRead != nil {
		limit, again := m.onRead(fd, len(a)+len(b))
		if again {
			m.rearm(fd)
			return 0, errAgain
		}
		if limit < len(a)+len(b) {
			m.rearm(fd)
			a = a[:min(len(a), limit)]
			b = b[:min(len(b), limit-len(a))]
			if len(a) == 0 {
				a, b = b, nil
			}
		}
	}
	n, err := m.netio.read(fd, a, b)
	if err == nil {
		m.note(func() { m.in += n })
	}
	return n, err
}

func (m *meter) write(fd int32, b []byte) (int, error) {
	if m.onWrite != nil {
		limit, again := m.onWrite(fd, len(b))
		if again {
			m.rearm(fd)
			return 0, errAgain
		}
		if limit < len(b) {
			m.rearm(fd)
			b = b[:limit]
		}
	}
	n, err := m.netio.write(fd, b)
	m.note(func() { m.out += n })
	return n, err
}

func (m *meter) writev(fd int32, bufs [][]byte) (int, error) {
	if m.onWrite != nil {
		total := 0
		for _, b := range bufs {
			total += len(b)
		}
		limit, again := m.onWrite(fd, total)
		if again {
			m.rearm(fd)
			return 0, errAgain
		}
		if limit < total {
			m.rearm(fd)
			var cut [][]byte
			for _, b := range bufs {
				b = b[:min(len(b), limit)]
				limit -= len(b)
				cut = append(cut, b)
			}
			bufs = cut
		}
	}
	n, err := m.netio.writev(fd, bufs)
	m.note(func() { m.out += n })
	return n, err
}

func (m *meter) sendfile(fd int32, f *os.File, pos int64, n int) (int, error) {
	if m.onWrite != nil {
		limit, again := m.onWrite(fd, n)
		if again {
			m.rearm(fd)
			return 0, errAgain
		}
		if limit < n {
			m.rearm(fd)
			n = limit
		}
	}
	k, err := m.netio.sendfile(fd, f, pos, n)
	m.note(func() { m.out += k })
	return k, err
}

func (m *meter) accept() (socket, error) {
	if m.onAcc != nil {
		if err := m.onAcc(); err != nil {
			return socket{}, err
		}
	}
	return m.netio.accept()
}

// fixture is a running server.
type fixture struct {
	t      *testing.T
	srv    *Server
	pool   *mempool.Pool
	meters []*meter
	served chan error
}

// serve starts a server with one loop unless set says otherwise, and checks at
// the end that every chunk came back.
func serve(t *testing.T, engine string, h func(loop int) Handler, set func(o *Options)) *fixture {
	t.Helper()
	ln, err := Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, ln, engine, h, set)
}

func serveOn(t *testing.T, ln net.Listener, engine string, h func(loop int) Handler, set func(o *Options)) *fixture {
	t.Helper()
	f := &fixture{t: t, served: make(chan error, 1)}
	o := Options{Loops: 1, Handler: h, Engine: engine, PreTimeout: -1}
	o.wrap = func(_ int, n netio) netio {
		m := newMeter(n)
		f.meters = append(f.meters, m)
		return m
	}
	if set != nil {
		set(&o)
	}
	if o.Pool == nil {
		o.Pool = mempool.NewPool(mempool.Options{Poison: true})
	}
	f.pool = o.Pool
	var err error
	if f.srv, err = New(ln, o); err != nil {
		t.Fatal(err)
	}
	go func() { f.served <- f.srv.Serve() }()
	t.Cleanup(f.stop)
	return f
}

func (f *fixture) stop() {
	if f.served == nil {
		return
	}
	f.srv.Close()
	if err := <-f.served; err != nil {
		f.t.Errorf("Serve: %v", err)
	}
	f.served = nil
	f.pool.DropKept()
	if s := f.pool.Stats(); s.LiveBytes != 0 {
		f.t.Errorf("chunks were not given back: %v", s)
	}
	f.pool.Close()
	if s := f.srv.Stats(); s.Connections != 0 || s.Opened != s.Closed {
		f.t.Errorf("%d connections left, %d opened, %d closed", s.Connections, s.Opened, s.Closed)
	}
}

func (f *fixture) dial() *net.TCPConn {
	f.t.Helper()
	c, err := net.Dial("tcp", f.srv.Addr().String())
	if err != nil {
		f.t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(patience))
	f.t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// within runs f on the loop's goroutine and waits for it. The handler must be
// made by onLoop.
type caller struct {
	*hooks
	mu   sync.Mutex
	jobs []func(l *Loop)
}

// onLoop adds to a handler the running of jobs given by caller.do.
func onLoop(h *hooks) *caller {
	c := &caller{hooks: h}
	inner := h.woken
	h.woken = func(l *Loop) {
		c.mu.Lock()
		jobs := c.jobs
		c.jobs = nil
		c.mu.Unlock()
		for _, j := range jobs {
			j(l)
		}
		if inner != nil {
			inner(l)
		}
	}
	return c
}

// do runs job on the loop and waits until it is done.
func (c *caller) do(t *testing.T, l *Loop, job func(l *Loop)) {
	t.Helper()
	done := make(chan struct{})
	c.mu.Lock()
	c.jobs = append(c.jobs, func(l *Loop) { job(l); close(done) })
	c.mu.Unlock()
	l.Wake()
	wait(t, done, "a job on the loop")
}

// settle waits until everything that happened before is in the Stats.
func (c *caller) settle(t *testing.T, l *Loop) {
	t.Helper()
	for range 2 { // the second turn begins after the first was published
		c.do(t, l, func(*Loop) {})
	}
}

func wait[T any](t *testing.T, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

func mustWrite(t *testing.T, c net.Conn, b []byte) {
	t.Helper()
	if _, err := c.Write(b); err != nil {
		t.Fatalf("client write: %v", err)
	}
}

// mustReadUnit reads one unit and checks it against want.
func mustReadUnit(t *testing.T, c net.Conn, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil {
		t.Fatalf("client read: %d of %d bytes: %v", n, len(want), err)
	}
	if string(got) != string(want) {
		t.Fatalf("got another unit of %d bytes than was sent", len(want))
	}
}
