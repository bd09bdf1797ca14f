package evloop

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/portask/portask/broker/mempool"
)

// Server is a listener and its loops.
type Server struct {
	o     Options
	loops []*Loop
	start time.Time
	addr  net.Addr
	std   *stdListener // nil with epoll

	tickBusy int64 // ms, immutable
	deadline struct{ pre, partial, pressed, idle, close uint32 }

	refused      atomic.Uint64
	acceptErrors atomic.Uint64 // of the std listener
	serving      atomic.Bool
	closing      sync.Once
	ended        chan struct{} // closed when all loops have ended
}

// Listen listens on plain TCP (or another network of net.Listen), as suits New.
// net.Listen itself gives multipath TCP on Linux: there all options must be set
// anew on each connection, and each starts as a pair of sockets.
func Listen(network, address string) (net.Listener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	return lc.Listen(context.Background(), network, address)
}

// New makes a server of ln, which it owns from here on, also if it fails. With
// epoll ln must be a TCP or Unix listener; with std any will do. Nothing is
// accepted before Serve; Close frees what New took.
func New(ln net.Listener, o Options) (*Server, error) {
	if err := o.fill(); err != nil {
		ln.Close()
		return nil, err
	}
	s := &Server{o: o, start: time.Now(), addr: ln.Addr(), ended: make(chan struct{})}
	ms := func(d time.Duration) uint32 { return uint32(min(d.Milliseconds(), 1<<31-1)) }
	s.deadline.pre, s.deadline.partial, s.deadline.pressed = ms(o.PreTimeout), ms(o.PartialTimeout), ms(o.PressedTimeout)
	s.deadline.idle, s.deadline.close = ms(o.IdleTimeout), ms(o.CloseTimeout)
	s.tickBusy = tickBusy
	for _, t := range []uint32{s.deadline.pre, s.deadline.partial, s.deadline.pressed, s.deadline.idle, s.deadline.close} {
		if t > 0 {
			s.tickBusy = max(5, min(s.tickBusy, int64(t/4)))
		}
	}
	var ios []netio
	var err error
	switch o.Engine {
	case EngineEpoll:
		ios, err = newEpoll(ln, &s.o)
	case EngineStd:
		s.std = &stdListener{ln: ln, stopped: make(chan struct{})}
		ios = newStd(&s.o)
	default:
		err = fmt.Errorf("evloop: engine %q is not known", o.Engine)
	}
	if err != nil {
		ln.Close()
		return nil, err
	}
	for i, n := range ios {
		if o.wrap != nil {
			n = o.wrap(i, n)
		}
		s.loops = append(s.loops, s.newLoop(i, n))
	}
	return s, nil
}

func (s *Server) newLoop(i int, n netio) *Loop {
	return &Loop{
		id: i, srv: s, o: &s.o, io: n, h: s.o.Handler(i), now: 1,
		events: make([]event, eventsPerWait), reasons: make(map[Conn]error),
		recvSize: mempool.NewSizer(min(minRecv, s.o.ReadBytes), s.o.ReadBytes, s.o.ReadMaxBytes), slab: newSlab(),
		listening: true, done: make(chan struct{}),
	}
}

// Addr returns the listener's address.
func (s *Server) Addr() net.Addr { return s.addr }

// Loops returns the loops; the slice must not be changed.
func (s *Server) Loops() []*Loop { return s.loops }

// Serve runs the loops and returns when all have ended, after Close or
// Shutdown. It may be called once.
func (s *Server) Serve() error {
	if s.serving.Swap(true) {
		return errors.New("evloop: Serve was called before, or after Close")
	}
	for _, l := range s.loops[1:] {
		go l.run()
	}
	var wg sync.WaitGroup
	if s.std != nil {
		wg.Go(func() { s.std.run(s) })
	}
	s.loops[0].run()
	for _, l := range s.loops {
		<-l.done
	}
	if s.std != nil {
		s.std.stop()
	}
	wg.Wait()
	close(s.ended)
	return nil
}

// Shutdown stops accepting, lets every handler see Draining (through Woken), and
// waits until they have closed all connections; then it ends the loops and
// returns nil. If ctx ends first, the rest is closed as by Close, and ctx's
// error is returned.
func (s *Server) Shutdown(ctx context.Context) error {
	if s.std != nil {
		s.std.stop()
	}
	for _, l := range s.loops {
		l.command(orderDrain)
	}
	// Shutdown is rare and connections end at their own pace; a poll is simpler
	// than counting ends across loops.
	t := time.NewTicker(5 * time.Millisecond)
	defer t.Stop()
	var err error
	for err == nil && s.serving.Load() && s.connections() > 0 {
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case <-s.ended:
			return nil
		case <-t.C:
		}
	}
	s.Close()
	return err
}

// Close ends all connections at once, with ErrServerClosed, and waits until the
// loops have ended. It may be called more than once, but not by a handler.
func (s *Server) Close() {
	s.closing.Do(func() {
		if s.std != nil {
			s.std.stop()
		}
		if !s.serving.Swap(true) { // Serve never ran: no loop will clean up
			for _, l := range s.loops {
				close(l.done)
				l.io.close()
			}
			close(s.ended)
			return
		}
		for _, l := range s.loops {
			l.command(orderStop)
		}
	})
	<-s.ended
}

func (s *Server) connections() int {
	n := 0
	for _, l := range s.loops {
		n += int(l.conns.Load())
	}
	return n
}

// Stats sums the loops' figures. Any goroutine may call it.
func (s *Server) Stats() Stats {
	var t Stats
	for _, l := range s.loops {
		t.add(l.Stats())
	}
	t.Refused += s.refused.Load()
	t.AcceptErrors += s.acceptErrors.Load()
	return t
}

// place gives an accepted socket to the loop with the fewest connections. With
// few but busy connections that balances better than the kernel's hashing over
// one listener per loop. here is the calling loop, nil for other goroutines.
func (s *Server) place(k socket, here *Loop) {
	total := 0
	least := s.loops[0]
	fewest := least.conns.Load()
	for _, l := range s.loops {
		n := l.conns.Load()
		total += int(n)
		if n < fewest {
			least, fewest = l, n
		}
	}
	if total >= s.o.MaxConns {
		s.refused.Add(1)
		k.close()
		return
	}
	least.conns.Add(1)
	if least == here && !here.stopping {
		here.open(k)
		return
	}
	if !least.post(k) {
		least.conns.Add(-1)
		k.close()
	}
}
