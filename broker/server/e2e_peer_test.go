package server

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/internal/vfs"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/server/evloop"
	"github.com/portask/portask/broker/storage"
	"github.com/portask/portask/broker/storage/disklog"
	"github.com/portask/portask/broker/storage/memlog"
	"github.com/portask/portask/broker/topic"
	"github.com/portask/portask/broker/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen; it is waited for in
// full only by a test that fails.
const patience = 30 * time.Second

// setting is a pair of engines to test with.
type setting struct{ events, store string }

// onAll runs a test on every pair of engines, all at once.
func onAll(t *testing.T, f func(t *testing.T, s setting)) {
	t.Helper()
	on(t, f, setting{evloop.EngineStd, "memlog"}, setting{evloop.EngineStd, "disklog"},
		setting{evloop.EngineEpoll, "memlog"}, setting{evloop.EngineEpoll, "disklog"})
}

// onEach runs a test on every engine once: it is about one of the two sides.
func onEach(t *testing.T, f func(t *testing.T, s setting)) {
	t.Helper()
	on(t, f, setting{evloop.EngineStd, "memlog"}, setting{evloop.EngineEpoll, "disklog"})
}

func on(t *testing.T, f func(t *testing.T, s setting), all ...setting) {
	t.Helper()
	for _, s := range all {
		t.Run(fmt.Sprintf("events=%s/engine=%s", s.events, s.store), func(t *testing.T) {
			if s.events == evloop.EngineEpoll && runtime.GOOS != "linux" {
				t.Skip("epoll is Linux's")
			}
			t.Parallel()
			f(t, s)
		})
	}
}

// open opens the storage engine; dir matters to the one on disk.
func (s setting) open(t testing.TB, dir string) storage.Engine {
	t.Helper()
	var e storage.Engine
	var err error
	if s.store == "disklog" {
		e, err = disklog.Open(vfs.OS(), dir, disklog.Options{SegmentBytes: 1 << 20, Spares: -1})
	} else {
		e, err = memlog.Open(memlog.Options{MaxBytes: 256 << 20})
	}
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// broker is a Server that serves, and its engine.
type broker struct {
	*Server
	t      testing.TB
	served chan error
	once   sync.Once
}

// Stats are the server's, with the turns included that are under way: the counts
// of loops, and those of their event loops, which tell them at the ends of turns.
func (b *broker) Stats() Stats {
	for i, l := range b.loops {
		turn := func() (ended uint64, ok bool) {
			turns := make(chan uint64, 1)
			l.call(func(l *loop) { l.publish(); turns <- b.ev.Loops()[i].Stats().Turns })
			select {
			case ended = <-turns:
				return ended, true
			case <-b.stop: // the loops may have ended
				return 0, false
			}
		}
		first, ok := turn()
		for next := first; ok && next == first; {
			next, ok = turn()
		}
	}
	return b.Server.Stats()
}

// start serves o on a free port until the test ends. With no engine in o it
// opens one of the setting.
func (s setting) start(t testing.TB, o Options) *broker {
	t.Helper()
	if o.Engine == nil {
		o.Engine = s.open(t, t.TempDir())
	}
	if o.Topics.SegmentBytes == 0 {
		o.Topics.SegmentBytes = 1 << 20
	}
	o.Listen, o.EventEngine = "127.0.0.1:0", s.events
	srv, err := New(o)
	if err != nil {
		t.Fatal(errors.Join(err, o.Engine.Close()))
	}
	b := &broker{Server: srv, t: t, served: make(chan error, 1)}
	go func() { b.served <- srv.Serve() }()
	t.Cleanup(b.end)
	return b
}

// end closes the server, if it is open, and then the engine.
func (b *broker) end() {
	b.once.Do(func() {
		if err := b.Close(); err != nil {
			b.t.Errorf("close server: %v", err)
		}
		if err := <-b.served; err != nil {
			b.t.Errorf("serve: %v", err)
		}
		if st := b.pool.Stats(); st.LiveBytes != 0 || st.FreeBytes != 0 {
			b.t.Errorf("the pool after the end: %v", st)
		}
		if st := b.opts.Engine.Stats(); st.HeldBytes != 0 {
			b.t.Errorf("%d bytes are still leased from the log", st.HeldBytes)
		}
		if err := b.opts.Engine.Close(); err != nil {
			b.t.Errorf("close engine: %v", err)
		}
	})
}

func (b *broker) topic(name string, c topic.Config) {
	b.t.Helper()
	if _, err := b.cat.Create(name, c); err != nil {
		b.t.Fatal(err)
	}
}

// failer is whom a peer reports to: a test on its own goroutine, a worker on
// any other.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// workers are goroutines whose failures become the test's.
type workers struct {
	t  testing.TB
	wg sync.WaitGroup
}

// worker ends its goroutine by a panic that workers.start recovers.
type worker struct{}

type workerFailure string

func (worker) Helper() {}

func (worker) Fatalf(format string, args ...any) { panic(workerFailure(fmt.Sprintf(format, args...))) }

func (ws *workers) start(name string, f func(w failer)) {
	ws.wg.Go(func() {
		defer func() {
			switch v := recover().(type) {
			case nil:
			case workerFailure:
				ws.t.Errorf("%s: %s", name, string(v))
			default:
				panic(v)
			}
		}()
		f(worker{})
	})
}

// wait ends the test if a worker failed.
func (ws *workers) wait() {
	ws.t.Helper()
	ws.wg.Wait()
	if ws.t.Failed() {
		ws.t.FailNow()
	}
}

// peer is the client end of one connection: frames as bytes, one goroutine, all
// memory reused.
type peer struct {
	failer
	c     net.Conn
	in    []byte // in[r:w] was received and not yet taken
	r, w  int
	chunk int // most bytes of one read, 0 = no limit
	out   []byte
	corr  uint32
	hello wire.HelloOK
	head  wire.DeliverHead
	lim   message.Limits
	rd    message.Reader
	m     message.Message
}

// dial connects without a word. recv, if not 0, is the receive buffer: what the
// kernel takes of what the peer does not read.
func dial(f failer, b *broker, recv int) *peer {
	f.Helper()
	var d net.Dialer
	if recv > 0 {
		// Before connecting, so that the window is never larger.
		d.Control = func(_, _ string, rc syscall.RawConn) error { return setReceiveBuffer(rc, recv) }
	}
	c, err := d.Dial("tcp", b.Addr().String())
	if err != nil {
		f.Fatalf("dial: %v", err)
	}
	p := &peer{failer: f, c: c, in: make([]byte, 64<<10), lim: message.DefaultLimits()}
	b.t.Cleanup(p.cut)
	return p
}

// join connects and says hello.
func join(f failer, b *broker) *peer {
	f.Helper()
	p := dial(f, b, 0)
	p.greet(&wire.Hello{ClientName: "peer"})
	return p
}

func (p *peer) greet(h *wire.Hello) {
	p.Helper()
	p.write(wire.AppendPreface(nil, 1, 1))
	p.call(0, wire.OpHello, h, &p.hello)
}

// cut ends the connection from this side.
func (p *peer) cut() { p.c.Close() }

func (p *peer) write(b []byte) {
	if _, err := p.c.Write(b); err != nil {
		p.Helper()
		p.Fatalf("write %d bytes: %v", len(b), err)
	}
}

// ask sends one request and returns its correlation.
func (p *peer) ask(handle uint32, op wire.Opcode, x wire.Payload) uint32 {
	p.Helper()
	p.corr++
	p.out = wire.AppendFrame(p.out[:0], wire.Header{Opcode: op, Correlation: p.corr, Handle: handle}, x)
	p.write(p.out)
	return p.corr
}

// call asks and expects the answer as the next frame.
func (p *peer) call(handle uint32, op wire.Opcode, x, answer wire.Payload) wire.Header {
	p.Helper()
	return p.answer(p.ask(handle, op, x), op, answer)
}

// answer expects the next frame to be the answer to a request.
func (p *peer) answer(corr uint32, op wire.Opcode, x wire.Payload) wire.Header {
	p.Helper()
	h, b := p.frame()
	if h.Opcode != op.Response() || h.Correlation != corr {
		p.Fatalf("%s, instead of the answer to %v %d", describe(h, b), op, corr)
	}
	if err := x.Parse(b); err != nil {
		p.Fatalf("parse the answer to %v: %v", op, err)
	}
	return h
}

func describe(h wire.Header, b []byte) string {
	var e wire.Error
	if h.Opcode == wire.OpError.Response() && e.Parse(b) == nil {
		return fmt.Sprintf("ERROR to %v %d: %v", e.Opcode, h.Correlation, e.Err())
	}
	return fmt.Sprintf("%v (correlation %d, handle %d)", h.Opcode, h.Correlation, h.Handle)
}

// frame waits for the next frame; its payload is valid until the next call.
func (p *peer) frame() (wire.Header, []byte) {
	p.Helper()
	h, b, err := p.tryFrame()
	if err != nil {
		p.Fatalf("read a frame: %v", err)
	}
	return h, b
}

func (p *peer) tryFrame() (wire.Header, []byte, error) {
	if err := p.fill(wire.HeaderBytes); err != nil {
		return wire.Header{}, nil, err
	}
	h, err := wire.ParseHeader(p.in[p.r:p.w], wire.MaxMaxFrame)
	if err == nil {
		err = p.fill(h.FrameBytes())
	}
	if err != nil {
		return h, nil, err
	}
	b := p.in[p.r+wire.HeaderBytes : p.r+h.FrameBytes()]
	p.r += h.FrameBytes()
	return h, b, nil
}

// fill waits until n unread bytes are there.
func (p *peer) fill(n int) error {
	for p.w-p.r < n {
		if p.r > 0 {
			p.w = copy(p.in, p.in[p.r:p.w])
			p.r = 0
		}
		if n > len(p.in) {
			p.in = append(p.in, make([]byte, n-len(p.in))...)
		}
		if err := p.c.SetReadDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		room := p.in[p.w:]
		if p.chunk > 0 {
			room = room[:min(len(room), p.chunk)]
		}
		k, err := p.c.Read(room)
		p.w += k
		if err != nil && p.w-p.r < n {
			if err == io.EOF && p.w > p.r {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// refused expects an ERROR as the next frame. Correlation 0 is for news.
func (p *peer) refused(corr uint32, code fault.Code, field string) wire.Error {
	p.Helper()
	h, b := p.frame()
	var e wire.Error
	if h.Opcode != wire.OpError.Response() || h.Correlation != corr {
		p.Fatalf("%s, instead of a refusal of %d with %v", describe(h, b), corr, code)
	}
	if err := e.Parse(b); err != nil {
		p.Fatalf("parse ERROR: %v", err)
	}
	if e.Code != code || e.Field != field {
		p.Fatalf("refused with %v, field %q, instead of %v, field %q", e.Err(), e.Field, code, field)
	}
	return e
}

// ended expects nothing more but the end of the connection.
func (p *peer) ended() {
	p.Helper()
	if h, b, err := p.tryFrame(); err == nil {
		p.Fatalf("%s, instead of the end", describe(h, b))
	} else if errors.Is(err, io.ErrUnexpectedEOF) {
		p.Fatalf("the connection ends in a frame: %d bytes", p.w-p.r)
	} else if !closedByPeer(err) {
		p.Fatalf("the connection is open: %v", err)
	}
	p.cut()
}

// lost reads and forgets until the connection ends.
func (p *peer) lost() {
	p.Helper()
	for {
		p.r, p.w = 0, 0
		if err := p.fill(1); closedByPeer(err) {
			break
		} else if err != nil {
			p.Fatalf("the connection is open: %v", err)
		}
	}
	p.cut()
}

func closedByPeer(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// ping makes a round trip: all that was sent before has been taken.
func (p *peer) ping() {
	p.Helper()
	var pong wire.Ping
	p.call(0, wire.OpPing, &wire.Ping{Nonce: 7}, &pong)
}

func (p *peer) subscribe(m wire.Subscribe) (uint32, wire.SubscribeOK) {
	p.Helper()
	var ok wire.SubscribeOK
	h := p.call(0, wire.OpSubscribe, &m, &ok)
	return h.Handle, ok
}

func (p *peer) grant(handle uint32, n uint64) {
	p.Helper()
	p.out = wire.AppendFrame(p.out[:0], wire.Header{Opcode: wire.OpCredit, Handle: handle}, &wire.Credit{Bytes: n})
	p.write(p.out)
}

// batches checks the payload of a DELIVER, every batch in it, and calls f for
// each message that is wanted, in order.
func (p *peer) batches(b []byte, f func(part uint32, m *message.Message)) {
	p.Helper()
	rest, err := wire.ParseDeliver(b, &p.head)
	if err != nil {
		p.Fatalf("%v", err)
	}
	for _, run := range p.head.Runs {
		at := run.First
		for range run.Batches {
			n := message.EnvelopeBytes + int(binary.LittleEndian.Uint32(rest[4:]))
			if n > len(rest) {
				p.Fatalf("a batch of %d bytes, %d are there", n, len(rest))
			}
			e, sec, err := message.Validate(rest[:n], run.Seed, &p.lim)
			if err != nil {
				p.Fatalf("batch at %d: %v", at, err)
			}
			if e.BaseOffset != at {
				p.Fatalf("a batch at %d, %d is next", e.BaseOffset, at)
			}
			at = e.EndOffset()
			_, body, err := message.Split(rest[:n], &e)
			if err != nil {
				p.Fatalf("%v", err)
			}
			p.rd.Reset(&e, body, &p.lim)
			p.rd.SetSection(&sec)
			for p.rd.Next(&p.m) {
				if p.m.Offset >= p.head.Wanted {
					f(p.head.Partition, &p.m)
				}
			}
			if err := p.rd.Err(); err != nil {
				p.Fatalf("messages at %d: %v", e.BaseOffset, err)
			}
			rest = rest[n:]
		}
		if at != run.End || at > p.head.HWM {
			p.Fatalf("a run ends at %d, declared %d, visible %d", at, run.End, p.head.HWM)
		}
	}
}
