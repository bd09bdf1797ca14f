package evloop

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/portask/portask/broker/mempool"
)

func TestRecordIsOneCacheLine(t *testing.T) {
	if n := unsafe.Sizeof(record{}); n != recordBytes {
		t.Fatalf("a record has %d bytes, want %d", n, recordBytes)
	}
}

func TestSlab(t *testing.T) {
	s := newSlab()
	defer s.Drop()
	var conns []Conn
	for range 3 * mempool.SlabRecords / 2 {
		c, r := s.take()
		if r.gen%2 != 1 || s.get(c) != r {
			t.Fatalf("take: %+v", c)
		}
		r.user[3] = 7
		conns = append(conns, c)
	}
	if st := s.Stats(); st.Bytes != 2*recordBytes*mempool.SlabRecords || st.Live != len(conns) {
		t.Fatalf("%+v", st)
	}
	for _, c := range conns {
		s.put(c, s.get(c))
		if s.get(c) != nil {
			t.Fatalf("%+v is alive after put", c)
		}
	}
	for _, shrunk := range []bool{false, true} { // a name stays stale although its memory is new
		if shrunk {
			s.Shrink()
			if st := s.Stats(); st.Bytes != 0 {
				t.Fatalf("no connection is left: %+v", st)
			}
		}
		var again []Conn
		for range conns {
			c, r := s.take()
			if r.user != [4]uint32{} {
				t.Fatal("a record was not cleared")
			}
			again = append(again, c)
		}
		for _, c := range conns {
			if s.get(c) != nil {
				t.Fatalf("the old name %+v works again", c)
			}
		}
		if st := s.Stats(); st.Bytes != 2*recordBytes*mempool.SlabRecords {
			t.Fatalf("freed slots were not taken again: %+v", st)
		}
		for _, c := range again {
			s.put(c, s.get(c))
		}
	}
	for _, c := range []Conn{{}, {Index: 1 << 31, Gen: 1}, {Index: s.Top(), Gen: 1}} {
		if s.get(c) != nil {
			t.Errorf("%+v is alive", c)
		}
	}
}

// A name from an earlier connection in the same place reaches nobody.
func TestStaleNamesAreRefused(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		opened := make(chan Conn, 1)
		closed := make(chan Conn, 1)
		h := &hooks{
			opened: func(_ *Loop, c Conn) { opened <- c },
			closed: func(_ *Loop, c Conn, _ error) { closed <- c },
		}
		k := onLoop(h)
		f := serve(t, engine, func(int) Handler { return k }, nil)
		l := f.srv.Loops()[0]
		a := f.dial()
		old := wait(t, opened, "a")
		a.Close()
		if c := wait(t, closed, "a's end"); c != old {
			t.Fatalf("Closed(%v), want %v", c, old)
		}
		b := f.dial()
		now := wait(t, opened, "b")
		if now.Index != old.Index || now.Gen == old.Gen {
			t.Fatalf("%v after %v: the slot was not taken again", now, old)
		}
		k.do(t, l, func(l *Loop) {
			if err := l.Send(old, []byte("lost")); err != ErrClosed {
				t.Errorf("Send: %v", err)
			}
			if _, _, err := l.Writev(old, [][]byte{{1}}); err != ErrClosed {
				t.Errorf("Writev: %v", err)
			}
			if _, _, err := l.SendFile(old, nil, 0, 1); err != ErrClosed {
				t.Errorf("SendFile: %v", err)
			}
			if l.User(old) != nil || l.Alive(old) || l.Queued(old) != 0 || l.Activity(old) != 0 || l.RemoteAddr(old).IsValid() {
				t.Error("the stale name has properties")
			}
			l.Pause(old)
			l.Hold(old)
			l.Resume(old)
			l.Unhold(old)
			l.Established(old)
			l.SetIdle(old, time.Nanosecond)
			l.WantWritable(old)
			l.Close(old, io.EOF)
			l.CloseAfterFlush(old, io.EOF)
			if !l.Alive(now) {
				t.Error("the new connection was hit")
			}
			if got, want := l.RemoteAddr(now).String(), b.LocalAddr().String(); got != want {
				t.Errorf("RemoteAddr %s, want %s", got, want)
			}
			l.Send(now, []byte("found"))
		})
		mustReadUnit(t, b, []byte("found"))
	})
}

func TestEachVisitsTheOpen(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		opened := make(chan Conn, 4)
		h := &hooks{opened: func(_ *Loop, c Conn) { opened <- c }}
		k := onLoop(h)
		f := serve(t, engine, func(int) Handler { return k }, nil)
		names := map[Conn]bool{}
		var first Conn
		for range 4 {
			f.dial()
			first = wait(t, opened, "a connection")
			names[first] = true
		}
		k.do(t, f.srv.Loops()[0], func(l *Loop) {
			l.CloseAfterFlush(first, io.EOF)
			delete(names, first)
			l.Each(func(c Conn) {
				if !names[c] {
					t.Errorf("%v is visited, twice or after its end", c)
				}
				delete(names, c)
			})
			if len(names) != 0 {
				t.Errorf("%d connections were left out", len(names))
			}
		})
	})
}

func TestUserWordsBelongToTheConnection(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		sums := make(chan uint32, 10)
		h := &hooks{
			opened: func(l *Loop, c Conn) {
				if *l.User(c) != [4]uint32{} {
					t.Error("not zero when opened")
				}
			},
			unit: func(l *Loop, c Conn, u []byte, _ *mempool.Chunk) error {
				l.User(c)[2] += uint32(len(u))
				return nil
			},
			closed: func(l *Loop, c Conn, _ error) { sums <- l.User(c)[2] },
		}
		f := serve(t, engine, func(int) Handler { return h }, nil)
		for range 3 {
			c := f.dial()
			for range 5 {
				mustWrite(t, c, unitOf(10, 1))
			}
			c.Close()
			if got := wait(t, sums, "Closed"); got != 50 {
				t.Errorf("the words say %d, want 50", got)
			}
		}
	})
}

func TestWakesBecomeOne(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		inside, leave := make(chan struct{}), make(chan struct{})
		var calls atomic.Int64
		woken := make(chan struct{}, 100)
		first := true
		h := &hooks{woken: func(*Loop) {
			calls.Add(1)
			woken <- struct{}{}
			if first {
				first = false
				close(inside)
				<-leave
			}
		}}
		f := serve(t, engine, func(int) Handler { return h }, nil)
		l := f.srv.Loops()[0]
		l.Wake()
		wait(t, inside, "the first Woken")
		m := f.meters[0]
		m.mu.Lock()
		before := m.wakes
		m.mu.Unlock()
		for range 1000 { // the loop is busy: these are one, without a system call
			l.Wake()
		}
		m.mu.Lock()
		if m.wakes != before {
			t.Errorf("%d system calls to wake a loop that does not sleep", m.wakes-before)
		}
		sleeps := m.waits
		m.mu.Unlock()
		close(leave)
		wait(t, woken, "Woken")
		wait(t, woken, "Woken")
		m.await(t, "the loop to sleep", func() bool { return m.waits > sleeps })
		if n := calls.Load(); n != 2 {
			t.Errorf("%d calls for 1001 wakes", n)
		}
		// Asleep, many at once cost one system call each sleep.
		m.mu.Lock()
		before = m.wakes
		m.mu.Unlock()
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(l.Wake)
		}
		wg.Wait()
		wait(t, woken, "Woken")
		m.mu.Lock()
		if n := m.wakes - before; n > int(calls.Load()) {
			t.Errorf("%d system calls for %d calls of Woken", n, calls.Load())
		}
		m.mu.Unlock()
	})
}

// Wakes from many goroutines against a loop that falls asleep all the time: no
// wake may be lost.
func TestNoWakeIsLost(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		var posted, seen atomic.Int64
		news := make(chan struct{}, 1)
		h := &hooks{woken: func(*Loop) {
			seen.Store(posted.Load())
			select {
			case news <- struct{}{}:
			default:
			}
		}}
		f := serve(t, engine, func(int) Handler { return h }, nil)
		l := f.srv.Loops()[0]
		for range 3000 {
			want := posted.Add(1)
			l.Wake()
			for seen.Load() < want {
				wait(t, news, "the news")
			}
		}
	})
}

func TestConnectionsAreBalanced(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		opened := make(chan struct{}, 20)
		h := &hooks{opened: func(*Loop, Conn) { opened <- struct{}{} }}
		f := serve(t, engine, func(int) Handler { return h }, func(o *Options) { o.Loops = 4 })
		var conns []net.Conn
		for range 20 {
			conns = append(conns, f.dial())
		}
		for range conns {
			wait(t, opened, "a connection")
		}
		for _, l := range f.srv.Loops() {
			if n := l.Stats().Connections; n != 5 {
				t.Errorf("loop %d has %d of 20 connections", l.ID(), n)
			}
		}
		for _, c := range conns {
			c.Close()
		}
	})
}

func TestTooManyConnectionsAreRefused(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		opened := make(chan struct{}, 10)
		h := &hooks{opened: func(*Loop, Conn) { opened <- struct{}{} }}
		f := serve(t, engine, func(int) Handler { return h }, func(o *Options) { o.MaxConns = 2 })
		a, b := f.dial(), f.dial()
		wait(t, opened, "a")
		wait(t, opened, "b")
		c := f.dial()
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("the third was not closed")
		}
		if s := f.srv.Stats(); s.Refused != 1 || s.Connections != 2 {
			t.Errorf("%+v", s)
		}
		a.Close()
		b.Close()
	})
}

func TestAcceptErrorsPauseTheListener(t *testing.T) {
	var fails atomic.Int32
	fails.Store(3)
	opened := make(chan struct{}, 1)
	h := &hooks{opened: func(*Loop, Conn) { opened <- struct{}{} }}
	ln, err := Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := serveOn(t, ln, defaultEngine, func(int) Handler { return h }, func(o *Options) {
		wrap := o.wrap
		o.wrap = func(i int, n netio) netio {
			m := wrap(i, n).(*meter)
			m.onAcc = func() error {
				switch fails.Add(-1) {
				case 2:
					return errAborted
				case 1, 0:
					return errors.New("too many open files")
				}
				return nil
			}
			return m
		}
	})
	if defaultEngine != EngineEpoll {
		t.Skip("a goroutine accepts here")
	}
	f.dial()
	wait(t, opened, "the connection")
	f.stop()
	if s := f.srv.Stats(); s.AcceptErrors != 2 {
		t.Errorf("%d accept errors, want 2", s.AcceptErrors)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	h := func(int) Handler { return &hooks{} }
	for name, o := range map[string]Options{
		"Handler": {}, "MinHead": {Handler: h, MinHead: 17}, "UnitMaxBytes": {Handler: h, UnitMaxBytes: 1 << 30},
		"ReadMaxBytes": {Handler: h, ReadBytes: 1 << 20, ReadMaxBytes: 1}, "engine": {Handler: h, Engine: "kqueue"},
	} {
		ln, err := Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := New(ln, o); err == nil {
			t.Errorf("%s: no error", name)
		} else if !bytes.Contains([]byte(err.Error()), []byte(name)) {
			t.Errorf("%s: %v does not name it", name, err)
		}
	}
}
