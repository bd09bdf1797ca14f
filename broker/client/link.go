package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/wire"
)

// link keeps one connection to the broker and replaces it when it is lost. Its
// goroutine is the connection's reader while there is one.
type link struct {
	c *Client

	mu    sync.Mutex
	cn    *conn             // nil while there is none; guarded by mu
	up    chan struct{}     // closed when cn is set, replaced when it is cleared; guarded by mu
	users map[user]struct{} // guarded by mu
	why   error             // the last loss or failed attempt; guarded by mu
}

// user is a producer or consumer that lives across connections. The methods
// run on the link's goroutine and must not block.
type user interface {
	connected(cn *conn)
	// disconnected comes after every request pending on cn was answered with
	// the loss; nothing refers to queued batches any more.
	disconnected(cn *conn, err error)
}

func newLink(c *Client) *link {
	return &link{c: c, up: make(chan struct{}), users: make(map[user]struct{})}
}

// run serves first and its successors until the client is closed.
func (l *link) run(first *conn) {
	wait := backoff{least: l.c.cfg.backoffLeast, most: l.c.cfg.backoffMost}
	cn, addr := first, l.c.addr
	for {
		if cn == nil {
			var err error
			if cn, err = l.c.connect(l.c.ctx, addr); err != nil {
				if l.c.ctx.Err() != nil {
					return
				}
				l.mu.Lock()
				l.why = err
				l.mu.Unlock()
				d := wait.next()
				l.c.cfg.log.Warn("cannot connect", "addr", addr, "error", err, "retry_in", d)
				addr = l.c.addr // if GOAWAY had sent us elsewhere, that did not work
				if !l.c.sleep(d) {
					return
				}
				continue
			}
		}
		began := time.Now()
		l.attach(cn)
		err := cn.run()
		l.detach(cn, err)
		if l.c.ctx.Err() != nil {
			return
		}
		l.c.cfg.log.Warn("connection lost", "addr", addr, "error", err)
		if cn.moved != "" { // nobody else has cn any more
			addr = cn.moved
		}
		cn = nil
		// A broker that accepts and hangs up at once must not be met in a tight
		// loop; one that served for a while is worth an immediate attempt.
		if time.Since(began) > l.c.cfg.backoffMost {
			wait.reset()
		} else if !l.c.sleep(wait.next()) {
			return
		}
	}
}

func (l *link) attach(cn *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cn, l.why = cn, nil
	close(l.up)
	if l.c.ctx.Err() != nil { // Close did not see cn
		cn.fail(closedErr("client"))
	}
	for u := range l.users {
		u.connected(cn)
	}
}

func (l *link) detach(cn *conn, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cn, l.why = nil, err
	l.up = make(chan struct{})
	for u := range l.users {
		u.disconnected(cn, err)
	}
}

// use adds u; if there is a connection, u.connected is called before use
// returns.
func (l *link) use(u user) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.users[u] = struct{}{}
	if l.cn != nil {
		u.connected(l.cn)
	}
}

func (l *link) leave(u user) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.users, u)
}

// reason is why there is no connection, as far as is known; nil while there is
// one.
func (l *link) reason() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.why
}

// current waits for a connection.
func (l *link) current(ctx context.Context, op string) (*conn, error) {
	for {
		l.mu.Lock()
		cn, up := l.cn, l.up
		l.mu.Unlock()
		if cn != nil {
			return cn, nil
		}
		select {
		case <-up:
		case <-ctx.Done():
			detail := "no connection to " + l.c.addr
			l.mu.Lock()
			if l.why != nil {
				detail += " (" + l.why.Error() + ")"
			}
			l.mu.Unlock()
			return nil, ctxErr(ctx, op, detail)
		case <-l.c.ctx.Done():
			return nil, closedErr(op)
		}
	}
}

// call sends a request and parses its answer into resp, waiting for a
// connection if there is none. A request that can be repeated (reading) is,
// when the connection is lost before its answer. each, if not nil, is called
// after every frame of the answer but the last.
func (l *link) call(ctx context.Context, op wire.Opcode, req, resp wire.Payload, repeat bool, each func()) error {
	name := op.String()
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, l.c.cfg.request)
		defer cancel()
	}
	wait := backoff{least: l.c.cfg.backoffLeast, most: l.c.cfg.backoffMost}
	for {
		cn, err := l.current(ctx, name)
		if err != nil {
			return err
		}
		w := &call{resp: resp, each: each, done: make(chan error, 1)}
		if err = cn.request(op, 0, req, w); err == nil {
			select {
			case err = <-w.done:
			case <-ctx.Done():
				if w.give() {
					cn.forget(w)
					return ctxErr(ctx, name, "no answer from "+l.c.addr)
				}
				err = <-w.done
			}
		}
		lost := errors.Is(err, fault.ConnectionLost) || errors.Is(err, fault.ShuttingDown)
		if err == nil || !lost || !repeat {
			return err
		}
		if l.c.ctx.Err() != nil {
			return closedErr(name)
		}
		select {
		case <-time.After(wait.next()):
		case <-ctx.Done():
			return ctxErr(ctx, name, err.Error())
		case <-l.c.ctx.Done():
			return closedErr(name)
		}
	}
}

// call is a request that a goroutine waits for.
type call struct {
	resp wire.Payload
	each func()
	done chan error // capacity 1

	mu    sync.Mutex
	given bool // the caller gave up: resp is no longer ours; guarded by mu
}

// give ends the wait and reports whether no answer was being parsed.
func (w *call) give() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.done) > 0 {
		return false
	}
	w.given = true
	return true
}

func (w *call) answer(cn *conn, h wire.Header, payload []byte, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.given || len(w.done) > 0 {
		return
	}
	if err == nil {
		err = w.resp.Parse(payload)
	}
	if err == nil && h.Flags&wire.FlagMore != 0 {
		if w.each != nil {
			w.each()
		}
		return
	}
	w.done <- err
}

// connect opens a connection to addr and shakes hands.
func (c *Client) connect(ctx context.Context, addr string) (*conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.cfg.dialTimeout, fault.Timeout)
	defer cancel()
	nc, err := c.cfg.dial(ctx, "tcp", addr)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctxErr(ctx, "connect to "+addr, err.Error())
		}
		return nil, fault.New(fault.ConnectionLost, "connect to "+addr).WithDetail("no connection").WithCause(err)
	}
	stop := context.AfterFunc(ctx, func() { _ = nc.Close() })
	cn, err := c.shake(nc, addr)
	if !stop() && err == nil { // the time ended between the last read and here
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = nc.Close()
		if ctx.Err() != nil {
			return nil, ctxErr(ctx, "connect to "+addr, "no HELLO_OK: "+err.Error())
		}
		if fault.Find(err) != nil { // refused, or not our protocol: keep the code
			return nil, fmt.Errorf("connect to %s: %w", addr, err)
		}
		return nil, lostErr(addr, err)
	}
	return cn, nil
}

// shake sends preface and HELLO and reads HELLO_OK.
func (c *Client) shake(nc net.Conn, addr string) (*conn, error) {
	hello := wire.Hello{
		MaxFrame:      wire.DefaultMaxFrame,
		HeartbeatMs:   uint32(c.cfg.heartbeat.Milliseconds()),
		ClientName:    c.cfg.name,
		ClientVersion: version,
	}
	b := wire.AppendPreface(nil, wire.Version, wire.Version)
	b = wire.AppendFrame(b, wire.Header{Opcode: wire.OpHello, Correlation: 1}, &hello)
	if _, err := nc.Write(b); err != nil {
		return nil, err
	}
	in := newFrameReader(nc)
	h, n, err := in.header(wire.MinMaxFrame)
	if err != nil {
		return nil, err
	}
	frame := make([]byte, n)
	if err := in.read(frame); err != nil {
		return nil, err
	}
	payload := wire.PayloadOf(frame)
	switch h.Opcode {
	case wire.OpError.Response():
		var x wire.Error
		if err := x.Parse(payload); err != nil {
			return nil, err
		}
		return nil, x.Err()
	case wire.OpHello.Response():
	default:
		return nil, fault.New(fault.ProtocolViolation, "handshake").WithField("opcode").
			WithDetail("%v instead of HELLO_OK", h.Opcode)
	}
	var ok wire.HelloOK
	if err := ok.Parse(payload); err != nil {
		return nil, err
	}
	if ok.Version != wire.Version {
		return nil, fault.New(fault.VersionUnsupported, "handshake").WithField("version").
			WithLimit(int64(ok.Version), wire.Version)
	}
	ok.MaxFrame = wire.NegotiateMaxFrame(hello.MaxFrame, ok.MaxFrame)
	c.server.Store(&Server{Version: ok.ServerVersion, ClusterID: ok.ClusterID, NodeID: ok.NodeID})
	cn := newConn(c, addr, nc, in, ok)
	in.reads = &cn.reads
	return cn, nil
}
