package record

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"

	"github.com/portask/portask/loadgen/relay"
)

const copyBytes = 64 << 10

// Proxy passes connections on to a broker and shows them to a Recorder.
type Proxy struct {
	r        *Recorder
	target   string
	listener net.Listener
	ctx      context.Context // ends with Close
	stop     context.CancelFunc
	work     sync.WaitGroup
	slots    chan struct{} // one for each connection
}

// Listen opens a proxy on address before target. It takes 4,096 connections at
// once; more wait in the kernel's queue.
func Listen(address, target string, r *Recorder) (*Proxy, error) {
	if _, _, err := net.SplitHostPort(target); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	p := &Proxy{r: r, target: target, listener: l, slots: make(chan struct{}, relay.ConnsMax)}
	p.ctx, p.stop = context.WithCancel(context.Background())
	p.work.Go(p.accept)
	return p, nil
}

// Addr is where clients connect.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Close ends all connections and returns when nothing is shown to the recorder
// any more.
func (p *Proxy) Close() {
	p.stop()
	p.listener.Close()
	p.work.Wait()
}

// accept waits for a slot: what connects meanwhile stays in the kernel's queue.
func (p *Proxy) accept() {
	relay.Accept(p.ctx, p.listener, func(c *net.TCPConn) {
		conn := relay.New(p.ctx, c)
		select {
		case p.slots <- struct{}{}:
		case <-p.ctx.Done():
			conn.Reset()
			return
		}
		p.work.Go(func() {
			defer func() { <-p.slots }()
			p.pass(conn)
		})
	})
}

// pass copies both ways until both sides have ended.
func (p *Proxy) pass(c *relay.Conn) {
	if c.Dial(p.target) != nil {
		c.Reset()
		return
	}
	tap := p.r.Tap()
	defer tap.Close()
	show := [relay.Ways]func([]byte){relay.ToTarget: tap.Client, relay.ToClient: tap.Server}
	c.Run(func(way int, from, to *net.TCPConn) error { return tee(to, from, show[way]) })
}

// tee copies, showing each piece first: what is answered was seen before.
func tee(to, from *net.TCPConn, show func([]byte)) error {
	buf := make([]byte, copyBytes)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			show(buf[:n])
			if _, err := to.Write(buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return to.CloseWrite()
		}
		if err != nil {
			return err
		}
	}
}
