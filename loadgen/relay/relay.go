// Package relay passes TCP connections on to a target: it accepts, dials, runs
// both directions and sees to it that both sides learn how it ended. What is
// done to the bytes on their way is its users' matter: they bring the function
// that copies one direction.
package relay

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

const (
	// ConnsMax is how many connections a relay has at once at most: it bounds
	// the descriptors, of which each connection has two.
	ConnsMax    = 4096
	dialTimeout = 10 * time.Second
	// acceptPause is waited when the process is out of descriptors.
	acceptPause = 10 * time.Millisecond
)

// Accept gives each connection of l to take, until l is closed or ctx ends.
func Accept(ctx context.Context, l net.Listener, take func(*net.TCPConn)) {
	for ctx.Err() == nil {
		c, err := l.Accept()
		switch {
		case err == nil:
			take(c.(*net.TCPConn))
		case errors.Is(err, net.ErrClosed):
			return
		default: // out of descriptors
			select {
			case <-time.After(acceptPause):
			case <-ctx.Done():
			}
		}
	}
}

// Conn is a client's connection and the one to the target. Reset may be called
// from any goroutine; Dial and Run are for one.
type Conn struct {
	// Client is the side that was accepted; immutable.
	Client *net.TCPConn

	ctx    context.Context
	cancel context.CancelFunc

	mu     sync.Mutex
	server *net.TCPConn // nil until dialled; guarded by mu
	dead   bool         // guarded by mu
}

// New takes client over, which is reset when ctx ends. Run or Reset gives back
// what it holds.
func New(ctx context.Context, client *net.TCPConn) *Conn {
	c := &Conn{Client: client}
	c.ctx, c.cancel = context.WithCancel(ctx)
	return c
}

// Context ends with the connection.
func (c *Conn) Context() context.Context { return c.ctx }

// Reset ends both sides with RST.
func (c *Conn) Reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dead = true
	c.cancel()
	for _, s := range []*net.TCPConn{c.Client, c.server} {
		if s != nil {
			s.SetLinger(0)
			s.Close()
		}
	}
}

// Dial connects to the target. On an error the client's side is left as it is.
func (c *Conn) Dial(target string) error {
	d := net.Dialer{Timeout: dialTimeout}
	s, err := d.DialContext(c.ctx, "tcp", target)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		s.Close()
		return net.ErrClosed
	}
	c.server = s.(*net.TCPConn)
	return nil
}

// The directions.
const (
	ToTarget = iota
	ToClient
	Ways
)

// Run copies both directions of a connection that was dialled, each on a
// goroutine, with pass, which returns nil when it has passed the end on
// (CloseWrite). An error on one side resets both; so does the end of the
// context. It returns when both directions have ended.
func (c *Conn) Run(pass func(way int, from, to *net.TCPConn) error) {
	c.mu.Lock()
	server := c.server
	c.mu.Unlock()
	stop := context.AfterFunc(c.ctx, c.Reset)
	var failed [Ways]error
	var both sync.WaitGroup
	for way, x := range [Ways]struct{ from, to *net.TCPConn }{{c.Client, server}, {server, c.Client}} {
		both.Go(func() {
			if failed[way] = pass(way, x.from, x.to); failed[way] != nil {
				c.Reset()
			}
		})
	}
	both.Wait()
	stop()
	if failed[ToTarget] == nil && failed[ToClient] == nil { // both sides had ended in order
		c.Client.Close()
		server.Close()
		c.cancel()
	}
}
