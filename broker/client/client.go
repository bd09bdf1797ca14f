package client

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/portask/portask/broker/fault"
)

// version is told to the broker in HELLO.
const version = "0.1.0"

// Client is a connection to a broker, or several, and what was opened on them.
// Its methods may be called from any goroutine.
type Client struct {
	addr   string
	cfg    config
	links  []*link // immutable after Dial
	frames framePool
	dicts  dictionaries

	encoders     encoders // of producers
	policies     policies // of adaptive producers
	brokerPolicy brokerPolicy

	// ctx ends when Close is called: the end of all waiting.
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup // links' goroutines

	server atomic.Pointer[Server] // of the last handshake

	turn atomic.Uint32 // link for the next producer or consumer

	mu     sync.Mutex
	open   map[closer]struct{} // producers and consumers; guarded by mu
	closed bool                // guarded by mu
}

// closer is a producer or consumer that Close has to end.
type closer interface{ abort() }

// Dial connects to the broker at addr (host:port) and returns when the first
// connection is ready. ctx bounds this first attempt only; Dial does not try
// again. Close must be called.
//
// Errors: fault.Invalid for an option; fault.ConnectionLost if nobody answers
// or what answers is no broker; fault.Timeout; fault.VersionUnsupported.
func Dial(ctx context.Context, addr string, opts ...Option) (*Client, error) {
	c := &Client{addr: addr, cfg: defaults(), open: make(map[closer]struct{})}
	for _, o := range opts {
		o(&c.cfg)
	}
	if err := c.cfg.validate(); err != nil {
		return nil, err
	}
	c.encoders.max, c.policies = c.cfg.encoders, c.cfg.policies()
	first, err := c.connect(ctx, addr)
	if err != nil {
		return nil, err
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	for range c.cfg.conns {
		l := newLink(c)
		c.links = append(c.links, l)
	}
	for i, l := range c.links {
		cn := first
		if i > 0 {
			cn = nil // these connect by themselves
		}
		c.wg.Go(func() { l.run(cn) })
	}
	return c, nil
}

// Close ends producers (without flushing: see Producer.Close), consumers and
// connections, and returns when no goroutine of the client is left. Callbacks
// of messages not yet acknowledged get fault.Closed before it returns; so do
// calls that wait. It may be called more than once. The error is that of the writer
// of WithDecisionLog, whose log is not whole then; everything is closed even so.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	var all []closer
	for x := range c.open {
		all = append(all, x)
	}
	c.mu.Unlock()
	c.cancel()
	for _, l := range c.links {
		l.mu.Lock()
		if l.cn != nil {
			l.cn.fail(closedErr("client"))
		}
		l.mu.Unlock()
	}
	for _, x := range all {
		x.abort()
	}
	c.encoders.wg.Wait()
	c.wg.Wait()
	return c.policies.close(&c.cfg)
}

// Addr returns the address given to Dial.
func (c *Client) Addr() string { return c.addr }

// link returns the link for the next producer or consumer, in turn.
func (c *Client) link() *link {
	return c.links[int(c.turn.Add(1)-1)%len(c.links)]
}

// register adds x to what Close ends.
func (c *Client) register(op string, x closer) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return fault.New(fault.Closed, op)
	}
	c.open[x] = struct{}{}
	return nil
}

func (c *Client) unregister(x closer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, x)
}

// sleep waits for d and reports whether the client is still open.
func (c *Client) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.ctx.Done():
		return false
	}
}
