package fault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/portask/portask/loadgen/relay"
)

// Network is what the way between the clients and the target is like, each way.
// The zero Network passes everything at once.
type Network struct {
	// Latency is added to all that passes, and up to Jitter more, at random;
	// what was sent first arrives first.
	Latency, Jitter time.Duration
	// Rate is bytes a second, shared by all connections; 0: no limit.
	Rate int
	// Hiccup delays every HiccupEvery-th read of each connection on its way to
	// the target, and what comes behind it meanwhile; 0: none.
	Hiccup      time.Duration
	HiccupEvery int
}

// Bounds of a Proxy.
const (
	// socketBytes is the proxy's receive buffer on each side: what a router
	// would queue. Without a bound the kernel takes megabytes, and a slow link
	// would show as seconds of delay.
	socketBytes = 256 << 10
	// chunkBytes are read at once at most; a connection that waits holds two such
	// buffers.
	chunkBytes = 32 << 10
	// queueBytes are on their way on one connection in one direction at most:
	// above it the link is slower than its rate. 4 MiB are 100 ms of 40 MB/s.
	queueBytes = 4 << 20
)

// ProxyOptions of Listen.
type ProxyOptions struct {
	// Listen is a loopback address; empty: 127.0.0.1 and a free port.
	Listen string
	Seed   uint64 // of the jitter
}

// Proxy passes TCP connections on to a target, and makes the network between
// bad when told. It listens on the loopback interface only. Its memory is
// bounded by the connections, each of which has two buffers of at most 4 MiB.
// Safe for concurrent use.
type Proxy struct {
	target   string
	seed     uint64
	listener net.Listener
	links    [2]link // to the target, and back
	work     sync.WaitGroup
	ctx      context.Context // ends with Close
	stop     context.CancelFunc

	passed  [2]atomic.Int64 // bytes
	hiccups atomic.Uint64

	mu      sync.Mutex
	state   *state // current; replaced as a whole
	conns   map[*pipe]struct{}
	opened  uint64 // connections
	dropped uint64 // connections refused: reset, too many, no target
}

// state is what a Proxy does; immutable but for changed, which is closed when
// there is a next one.
type state struct {
	net         Network
	partitioned bool
	resetting   bool
	changed     chan struct{}
}

// Stats of a Proxy.
type Stats struct {
	Conns            int // open
	Opened, Refused  uint64
	ToTarget, ToBack int64  // bytes
	Hiccups          uint64 // see Network
}

// Listen opens a proxy before target, host:port.
func Listen(target string, o ProxyOptions) (*Proxy, error) {
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	at, err := netip.ParseAddrPort(o.Listen)
	if err != nil || !at.Addr().IsLoopback() {
		return nil, fmt.Errorf("proxy on %q: want a loopback address and a port", o.Listen)
	}
	if _, _, err := net.SplitHostPort(target); err != nil {
		return nil, fmt.Errorf("proxy to %q: %w", target, err)
	}
	p := &Proxy{target: target, seed: o.Seed, conns: map[*pipe]struct{}{}, state: &state{changed: make(chan struct{})}}
	if p.listener, err = net.Listen("tcp", o.Listen); err != nil {
		return nil, err
	}
	p.ctx, p.stop = context.WithCancel(context.Background())
	p.work.Go(func() {
		n := uint64(0)
		relay.Accept(p.ctx, p.listener, func(c *net.TCPConn) {
			p.accept(n, c)
			n++
		})
	})
	return p, nil
}

// Addr is where clients connect.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Stats of now.
func (p *Proxy) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Stats{len(p.conns), p.opened, p.dropped, p.passed[0].Load(), p.passed[1].Load(), p.hiccups.Load()}
}

// Close resets every connection and returns when all is over.
func (p *Proxy) Close() {
	p.listener.Close()
	p.stop()
	p.Reset()
	p.work.Wait()
}

// change replaces the state.
func (p *Proxy) change(f func(*state)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := *p.state
	f(&next)
	next.changed = make(chan struct{})
	close(p.state.changed)
	p.state = &next
}

func (p *Proxy) now() *state {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state
}

// Shape makes the network like n, from the next byte on; what is on its way
// arrives as before.
func (p *Proxy) Shape(n Network) { p.change(func(s *state) { s.net = n }) }

// Partition cuts the network, or heals it: nothing passes, and new connections
// stay without answer. What was sent meanwhile arrives afterwards.
func (p *Proxy) Partition(on bool) { p.change(func(s *state) { s.partitioned = on }) }

// Refuse resets every connection, and new ones until it is called with false.
func (p *Proxy) Refuse(on bool) {
	p.change(func(s *state) { s.resetting = on })
	if on {
		p.Reset()
	}
}

// Reset resets every connection.
func (p *Proxy) Reset() { p.resetAll(func(*pipe) bool { return true }) }

func (p *Proxy) resetAll(which func(*pipe) bool) {
	p.mu.Lock()
	var all []*pipe
	for c := range p.conns {
		if which(c) {
			all = append(all, c)
		}
	}
	p.mu.Unlock()
	for _, c := range all {
		c.Reset()
	}
}

// Silence makes the connections of now half-open: nothing passes on them any
// more, neither bytes nor an end, and neither side is told. New ones work. It
// returns a function that resets those that are still there.
func (p *Proxy) Silence() (end func()) {
	p.mu.Lock()
	silent := make(map[*pipe]bool, len(p.conns))
	for c := range p.conns {
		c.silent.Store(true)
		silent[c] = true
	}
	p.mu.Unlock()
	p.change(func(*state) {}) // wakes those that wait to pass something on
	return func() { p.resetAll(func(c *pipe) bool { return silent[c] }) }
}

// accept is called by one goroutine; number is of the connection.
func (p *Proxy) accept(number uint64, client *net.TCPConn) {
	c := &pipe{Conn: relay.New(p.ctx, client), p: p, number: number}
	p.mu.Lock()
	refuse := p.state.resetting || len(p.conns) >= relay.ConnsMax
	if refuse {
		p.dropped++
	} else {
		p.opened++
		p.conns[c] = struct{}{}
	}
	p.mu.Unlock()
	if refuse {
		c.Reset()
		return
	}
	p.work.Go(c.run)
}

// pipe is one connection.
type pipe struct {
	*relay.Conn
	p      *Proxy
	number uint64
	silent atomic.Bool
}

func (c *pipe) run() {
	defer func() {
		c.p.mu.Lock()
		delete(c.p.conns, c)
		c.p.mu.Unlock()
	}()
	// A partition is waited out before the target is dialled.
	if !c.wait(time.Time{}) || c.Dial(c.p.target) != nil {
		c.p.mu.Lock()
		c.p.dropped++
		c.p.mu.Unlock()
		c.Reset()
		return
	}
	c.Run(c.pass)
}

// wait returns at time t, or when a partition that lasts then is healed; false
// if the connection has ended. A silent one waits for its end.
func (c *pipe) wait(t time.Time) bool {
	for {
		s := c.p.now()
		d := time.Until(t)
		blocked := s.partitioned || c.silent.Load()
		if !blocked && d <= 0 {
			return c.Context().Err() == nil
		}
		if blocked {
			select {
			case <-s.changed:
			case <-c.Context().Done():
				return false
			}
			continue
		}
		timer := time.NewTimer(d)
		select {
		case <-timer.C:
		case <-s.changed:
		case <-c.Context().Done():
			timer.Stop()
			return false
		}
		timer.Stop()
	}
}

// chunk is on its way.
type chunk struct {
	due  time.Time
	data []byte // nil: the end
	buf  *[chunkBytes]byte
}

// buffers are those of chunks that have been delivered.
var buffers = sync.Pool{New: func() any { return new([chunkBytes]byte) }}

// pass copies one direction until its end, which it passes on.
func (c *pipe) pass(way int, from, to *net.TCPConn) error {
	from.SetReadBuffer(socketBytes)
	from.SetNoDelay(true)
	delays := newDelays(c.p.seed, c.number, way)
	q := newQueue()
	defer q.close()
	failed := make(chan error, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := c.deliver(way, q, to); err != nil {
			failed <- err
			c.Reset() // wakes the reader
		}
	}()
	defer func() { <-done }()
	for {
		if !c.wait(time.Time{}) {
			q.close()
			return net.ErrClosed
		}
		buf := buffers.Get().(*[chunkBytes]byte)
		n, err := from.Read(buf[:c.p.links[way].quantum(c.p.now().net.Rate)])
		// What was read has left its sender: a cut now loses it to nobody, it
		// waits in the queue.
		left := time.Now()
		s := c.p.now()
		if n > 0 {
			left = c.p.links[way].take(s.net.Rate, n, left)
		}
		due, late := delays.due(&s.net, n, left)
		if late {
			c.p.hiccups.Add(1)
		}
		if n > 0 && !q.put(chunk{due, buf[:n], buf}) {
			break
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				q.put(chunk{due: due})
				q.finish()
				<-done
				select {
				case err := <-failed:
					return err
				default:
					return nil
				}
			}
			q.close()
			return err
		}
		// Read no more than the link's short queue takes: what waits longer
		// waits with its sender.
		if d := time.Until(left) - queueTime; d > 0 && !c.sleep(d) {
			q.close()
			return net.ErrClosed
		}
	}
	<-done
	return <-failed
}

func (c *pipe) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.Context().Done():
		return false
	}
}

// deliver writes what is due.
func (c *pipe) deliver(way int, q *queue, to *net.TCPConn) error {
	defer q.close() // nobody takes any more: a put must not wait
	for {
		x, ok := q.take()
		if !ok {
			return nil
		}
		if !c.wait(x.due) {
			return net.ErrClosed
		}
		if x.data == nil {
			return to.CloseWrite()
		}
		c.p.passed[way].Add(int64(len(x.data))) // first: who has received them sees them counted
		if _, err := to.Write(x.data); err != nil {
			return err
		}
		buffers.Put(x.buf)
	}
}
