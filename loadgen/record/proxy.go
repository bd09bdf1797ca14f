package record

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

const (
	connsMax    = 4096
	dialTimeout = 10 * time.Second
	copyBytes   = 64 << 10
)

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
	p := &Proxy{r: r, target: target, listener: l, slots: make(chan struct{}, connsMax)}
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

func (p *Proxy) accept() {
	for {
		select {
		case p.slots <- struct{}{}:
		case <-p.ctx.Done():
			return
		}
		c, err := p.listener.Accept()
		if err != nil {
			<-p.slots
			if errors.Is(err, net.ErrClosed) {
				return
			}
			select { // out of descriptors
			case <-time.After(10 * time.Millisecond):
				continue
			case <-p.ctx.Done():
				return
			}
		}
		p.work.Go(func() {
			defer func() { <-p.slots }()
			p.pass(c.(*net.TCPConn))
		})
	}
}

// pass copies both ways until both sides have ended.
func (p *Proxy) pass(client *net.TCPConn) {
	defer client.Close()
	d := net.Dialer{Timeout: dialTimeout}
	s, err := d.DialContext(p.ctx, "tcp", p.target)
	if err != nil {
		client.SetLinger(0)
		return
	}
	server := s.(*net.TCPConn)
	defer server.Close()
	closeBoth := func() {
		client.SetLinger(0)
		server.SetLinger(0)
		client.Close()
		server.Close()
	}
	stop := context.AfterFunc(p.ctx, closeBoth)
	defer stop()
	tap := p.r.Tap()
	defer tap.Close()
	var both sync.WaitGroup
	both.Go(func() {
		if tee(server, client, tap.Client) != nil {
			closeBoth() // an error on one side is one on the other
		}
	})
	both.Go(func() {
		if tee(client, server, tap.Server) != nil {
			closeBoth()
		}
	})
	both.Wait()
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
