package evloop

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portask/portask/broker/mempool"
)

func TestTimeouts(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		const short, long = 60 * time.Millisecond, time.Hour
		established := func(l *Loop, c Conn) { l.Established(c) }
		for _, c := range []struct {
			name     string
			pre      time.Duration
			partial  time.Duration
			idle     time.Duration
			opened   func(l *Loop, c Conn)
			send     []byte
			want     error
			survives bool
		}{
			{name: "pre", pre: short, partial: long, idle: long, want: ErrPre},
			{name: "pre although units come", pre: short, partial: long, idle: long, send: unitOf(10, 1), want: ErrPre},
			{name: "partial inline", pre: long, partial: short, idle: long, opened: established, send: unitOf(10, 1)[:5], want: ErrPartial},
			{name: "partial borrowed", pre: long, partial: short, idle: long, opened: established, send: unitOf(100, 1)[:50], want: ErrPartial},
			{name: "partial before established", pre: long, partial: short, idle: long, send: unitOf(100, 1)[:50], want: ErrPartial},
			{name: "idle", pre: long, partial: long, idle: short, opened: established, send: unitOf(10, 1), want: ErrIdle},
			{name: "idle of one", pre: long, partial: long, idle: long, want: ErrIdle,
				opened: func(l *Loop, c Conn) { l.Established(c); l.SetIdle(c, short) }},
			{name: "no pre", pre: -1, partial: long, idle: short, want: ErrIdle},
		} {
			t.Run(c.name, func(t *testing.T) {
				reasons := make(chan error, 1)
				h := &hooks{opened: c.opened, closed: func(_ *Loop, _ Conn, err error) { reasons <- err }}
				f := serve(t, engine, func(int) Handler { return h }, func(o *Options) {
					o.PreTimeout, o.PartialTimeout, o.IdleTimeout = c.pre, c.partial, c.idle
				})
				begin := time.Now()
				k := f.dial()
				mustWrite(t, k, c.send)
				if err := wait(t, reasons, "Closed"); !errors.Is(err, c.want) {
					t.Errorf("reason %v, want %v", err, c.want)
				}
				if d := time.Since(begin); d < short-5*time.Millisecond {
					t.Errorf("closed after %v, before the timeout", d)
				}
			})
		}
	})
}

// Progress does not extend the time of a unit: bytes come one by one, each as
// soon as the one before was read.
func TestDribblingDoesNotEvadePartialTimeout(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		reasons := make(chan error, 1)
		h := &hooks{closed: func(_ *Loop, _ Conn, err error) { reasons <- err }}
		f := serve(t, engine, func(int) Handler { return h }, func(o *Options) { o.PartialTimeout = 100 * time.Millisecond })
		c := f.dial()
		u := unitOf(8<<20, 1)
		for i := range u {
			if _, err := c.Write(u[i : i+1]); err != nil {
				break
			}
			select {
			case err := <-reasons:
				if err != ErrPartial {
					t.Errorf("reason %v", err)
				}
				return
			default:
			}
		}
		if err := wait(t, reasons, "Closed"); err != ErrPartial {
			t.Errorf("reason %v", err)
		}
	})
}

// listenerOf is a net.Listener over pipes, for virtual time.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (p *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipeListener) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// In virtual time: the default timeouts exactly, pauses, and how often ticks run.
func TestTimeoutsToTheSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
		type end struct {
			at  time.Duration
			err error
		}
		var mu sync.Mutex
		start := time.Now()
		restart := func() {
			mu.Lock()
			start = time.Now()
			mu.Unlock()
		}
		ends := make(chan end, 1)
		var conn Conn
		var ticks atomic.Int64
		h := &hooks{
			opened: func(_ *Loop, c Conn) { conn = c },
			closed: func(_ *Loop, _ Conn, err error) {
				mu.Lock()
				ends <- end{time.Since(start), err}
				mu.Unlock()
			},
			tick: func(*Loop, int64) { ticks.Add(1) },
			unit: func(l *Loop, c Conn, u []byte, _ *mempool.Chunk) error {
				l.Established(c)
				return nil
			},
		}
		k := onLoop(h)
		f := serveOn(t, ln, EngineStd, func(int) Handler { return k }, func(o *Options) { o.PreTimeout = 0 })
		dial := func() net.Conn {
			a, b := net.Pipe()
			ln.conns <- b
			restart()
			return a
		}
		check := func(what string, at time.Duration, want error) {
			t.Helper()
			e := <-ends
			if e.err != want || e.at < at || e.at > at+1100*time.Millisecond {
				t.Errorf("%s: after %v: %v, want after %v: %v", what, e.at, e.err, at, want)
			}
		}
		a := dial()
		check("silent", 5*time.Second, ErrPre)
		a.Close()

		a = dial()
		a.Write(unitOf(10, 1))
		a.Write(unitOf(10, 1)[:1])
		go func(c net.Conn) { // one more byte each 4 seconds
			for i := range 9 {
				time.Sleep(4 * time.Second)
				if _, err := c.Write(unitOf(10, 1)[i+1 : i+2]); err != nil {
					return
				}
			}
		}(a)
		check("dribbling", 30*time.Second, ErrPartial)
		a.Close()

		a = dial()
		a.Write(unitOf(10, 1))
		synctest.Wait()
		time.Sleep(2 * time.Second)
		before := ticks.Load()
		time.Sleep(100 * time.Second)
		if n := ticks.Load() - before; n < 95 || n > 105 {
			t.Errorf("%d ticks in 100 idle seconds", n)
		}
		check("idle", 5*time.Minute, ErrIdle)
		a.Close()
		synctest.Wait()

		// Without connections nothing ticks, unless asked for.
		time.Sleep(10 * time.Second)
		before = ticks.Load()
		time.Sleep(time.Hour)
		if n := ticks.Load() - before; n != 0 {
			t.Errorf("%d ticks in an hour without connections", n)
		}
		k.do(t, f.srv.Loops()[0], func(l *Loop) { l.WantTick(30 * time.Millisecond); l.WantTick(time.Hour) })
		time.Sleep(31 * time.Millisecond)
		synctest.Wait()
		if n := ticks.Load() - before; n != 1 {
			t.Errorf("%d ticks after WantTick", n)
		}

		// A pause stops the clocks of a unit and of idleness.
		a = dial()
		a.Write(unitOf(10, 1))
		a.Write(unitOf(10, 1)[:5])
		synctest.Wait()
		k.do(t, f.srv.Loops()[0], func(l *Loop) { l.Pause(conn) })
		time.Sleep(time.Hour)
		k.do(t, f.srv.Loops()[0], func(l *Loop) { l.Resume(conn) })
		restart()
		check("after the pause", 30*time.Second, ErrPartial)
		a.Close()
		f.stop()
	})
}

// Clients that come and go at random against a handler that closes at random
// and writes to names old and new: at the end all is given back.
func TestCloseRaces(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		handler := func(loop int) Handler {
			rng := rand.New(rand.NewPCG(uint64(loop), 1))
			var names []Conn
			live := map[Conn]bool{}
			h := &hooks{}
			h.opened = func(_ *Loop, c Conn) { names = append(names, c); live[c] = true }
			h.unit = func(l *Loop, c Conn, u []byte, ch *mempool.Chunk) error {
				if !live[c] {
					t.Error("a unit of a connection that is not open")
				}
				l.Send(c, u)
				other := names[rng.IntN(len(names))]
				switch rng.IntN(12) {
				case 0:
					l.Close(c, errTestSize)
				case 1:
					l.CloseAfterFlush(c, errTestSize)
				case 2:
					return errTestSize
				case 3:
					l.Close(other, errTestSize)
				case 4:
					l.CloseAfterFlush(other, errTestSize)
				case 5:
					l.Writev(other, [][]byte{u})
				case 6:
					l.Pause(other)
					l.Resume(other)
				case 7:
					l.Send(other, u)
				}
				return nil
			}
			h.closed = func(l *Loop, c Conn, err error) {
				if !live[c] || err == nil {
					t.Errorf("Closed(%v, %v), open %v", c, err, live[c])
				}
				delete(live, c)
				l.Send(names[rng.IntN(len(names))], []byte{1, 2, 3})
			}
			return h
		}
		f := serve(t, engine, handler, func(o *Options) { o.Loops = 2; o.CloseTimeout = 200 * time.Millisecond })
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(i), 2))
				for range 60 {
					c := f.dial()
					for range rng.IntN(10) {
						if _, err := c.Write(unitOf(4+rng.IntN(3000), 1)); err != nil {
							break
						}
					}
					switch rng.IntN(3) {
					case 0:
						c.SetLinger(0) // reset
					case 1:
						c.CloseWrite()
						io.Copy(io.Discard, c)
					}
					c.Close()
				}
			})
		}
		wg.Wait()
		f.stop() // checks the accounts
	})
}

func TestShutdownWaitsForTheHandler(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		goodbye := []byte("goodbye")
		var conns []Conn
		opened := make(chan struct{}, 2)
		h := &hooks{
			opened: func(_ *Loop, c Conn) { conns = append(conns, c); opened <- struct{}{} },
			woken: func(l *Loop) {
				if l.Draining() {
					for _, c := range conns {
						l.Send(c, goodbye)
						l.CloseAfterFlush(c, ErrServerClosed)
					}
				}
			},
		}
		f := serve(t, engine, func(int) Handler { return h }, nil)
		a, b := f.dial(), f.dial()
		wait(t, opened, "a")
		wait(t, opened, "b")
		result := make(chan error, 1)
		go func() { result <- f.srv.Shutdown(context.Background()) }()
		for _, c := range []*net.TCPConn{a, b} {
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, goodbye) {
				t.Errorf("client read %q, %v", got, err)
			}
			c.Close()
		}
		if err := wait(t, result, "Shutdown"); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if c, err := net.Dial("tcp", f.srv.Addr().String()); err == nil {
			c.Close()
			t.Error("the server still accepts")
		}
		f.srv.Loops()[0].Wake() // after the end: harmless
	})
}

func TestShutdownOutOfTimeClosesTheRest(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		reasons := make(chan error, 1)
		opened := make(chan struct{}, 1)
		h := &hooks{
			opened: func(*Loop, Conn) { opened <- struct{}{} },
			closed: func(_ *Loop, _ Conn, err error) { reasons <- err },
		}
		f := serve(t, engine, func(int) Handler { return h }, nil)
		c := f.dial()
		wait(t, opened, "the connection")
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		if err := f.srv.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Shutdown: %v", err)
		}
		if err := wait(t, reasons, "Closed"); err != ErrServerClosed {
			t.Errorf("reason %v", err)
		}
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("the client's connection is open")
		}
	})
}

func TestCloseBeforeServe(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		ln, err := Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s, err := New(ln, Options{Handler: func(int) Handler { return &hooks{} }, Engine: engine})
		if err != nil {
			t.Fatal(err)
		}
		s.Loops()[0].Wake()
		s.Close()
		s.Close()
		if err := s.Serve(); err == nil {
			t.Error("Serve after Close")
		}
	})
}
