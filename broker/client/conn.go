package client

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/wire"
)

// conn is one connection between its handshake and its loss. Its reader
// goroutine is the link's, which calls run.
type conn struct {
	c    *Client
	addr string
	nc   net.Conn
	in   *frameReader // owned by the reader

	hello wire.HelloOK // immutable
	begun time.Time    // when hello came; immutable

	mu       sync.Mutex
	out      outbox              // guarded by mu
	pending  map[uint32]answerer // by correlation; guarded by mu; nil after the loss
	lastCorr uint32              // guarded by mu
	err      error               // why the connection ends; guarded by mu
	draining bool                // GOAWAY came: no new request; guarded by mu
	moved    string              // where GOAWAY said to go; guarded by mu

	handles map[uint32]handled // by handle; owned by the reader

	vec  net.Buffers      // being written; owned by the writer
	head wire.DeliverHead // scratch; owned by the reader

	wake chan struct{} // capacity 1: there is something to write
	dead chan struct{} // closed by fail
	beat *time.Timer   // heartbeat; its function runs in a goroutine of its own

	reads, writes         atomic.Uint64 // completed system calls, for the heartbeat
	seenReads, seenWrites uint64        // by the last beat; owned by the beat
	silent                int           // beats without a read; owned by the beat
}

// answerer gets what comes for one request. Its methods run on the reader
// goroutine, or on the one that ends the connection; payload is valid during
// the call.
type answerer interface {
	// answer is called for each frame of the answer, the last without FlagMore,
	// or once with an error: that of an ERROR frame, or the connection's loss.
	answer(cn *conn, h wire.Header, payload []byte, err error)
}

// handled gets what the broker sends to an open handle by itself. Its methods
// run on the reader goroutine.
type handled interface {
	// admit says whether a DELIVER of n bytes on the wire may be received, before
	// memory is taken for it. An error ends the connection.
	admit(cn *conn, n int) error
	// deliver takes over f, a whole DELIVER.
	deliver(cn *conn, f *frame)
	grant(cn *conn, x wire.Credit)
	// failed reports an ERROR without a request; closed: the handle is gone.
	failed(cn *conn, err error, closed bool)
}

func newConn(c *Client, addr string, nc net.Conn, in *frameReader, hello wire.HelloOK) *conn {
	return &conn{
		c: c, addr: addr, nc: nc, in: in, hello: hello, begun: time.Now(),
		pending: make(map[uint32]answerer),
		handles: make(map[uint32]handled),
		wake:    make(chan struct{}, 1),
		dead:    make(chan struct{}),
	}
}

// run reads until the connection ends, for whatever reason, and returns it. On
// return the socket is closed, the writer has ended (nothing refers to queued
// batches any more) and all pending requests were answered with the error.
func (cn *conn) run() error {
	interval := time.Duration(wire.NegotiateHeartbeat(cn.hello.HeartbeatMs)) * time.Millisecond
	cn.mu.Lock()
	cn.beat = time.AfterFunc(interval, func() { cn.heartbeat(interval) })
	cn.mu.Unlock()

	written := make(chan struct{})
	go func() {
		defer close(written)
		cn.writeLoop()
	}()
	cn.fail(cn.readLoop())
	<-written

	cn.mu.Lock()
	err, pending, unwritten := cn.err, cn.pending, cn.out.notify
	cn.pending, cn.out = nil, outbox{}
	cn.beat.Stop()
	cn.mu.Unlock()
	for _, b := range unwritten {
		b.wrote(err, false)
	}
	for _, a := range pending {
		a.answer(cn, wire.Header{}, nil, err)
	}
	return err
}

// fail ends the connection with err unless it has ended. Any goroutine may
// call it; run does the rest.
func (cn *conn) fail(err error) {
	cn.mu.Lock()
	defer cn.mu.Unlock()
	if cn.err != nil {
		return
	}
	cn.err = lostErr(cn.addr, err)
	close(cn.dead)
	_ = cn.nc.Close() // the error that matters is err
}

// lost returns why the connection ended, nil while it works.
func (cn *conn) lost() error {
	cn.mu.Lock()
	defer cn.mu.Unlock()
	return cn.err
}

func (cn *conn) signal() {
	select {
	case cn.wake <- struct{}{}:
	default:
	}
}

// request queues a request; a gets the answer, always exactly once, unless an
// error is returned.
func (cn *conn) request(op wire.Opcode, handle uint32, p wire.Payload, a answerer) error {
	cn.mu.Lock()
	defer cn.mu.Unlock()
	if err := cn.usable(); err != nil {
		return err
	}
	h := wire.Header{Opcode: op, Correlation: cn.await(a), Handle: handle}
	b := wire.AppendFrame(nil, h, p)
	if len(b) > int(cn.hello.MaxFrame) {
		delete(cn.pending, h.Correlation)
		return fault.New(fault.TooLarge, "send "+op.String()).WithField("frame").
			WithLimit(int64(len(b)), int64(cn.hello.MaxFrame))
	}
	cn.out.add(b)
	cn.signal()
	return nil
}

// produce queues a PRODUCE. b.buf must not change until b was answered, or
// written if no answer is expected.
func (cn *conn) produce(handle, partition uint32, b *batch, answered bool) error {
	cn.mu.Lock()
	defer cn.mu.Unlock()
	if err := cn.usable(); err != nil {
		return err
	}
	h := wire.Header{Handle: handle}
	if answered {
		h.Correlation = cn.await(b)
	}
	cn.out.end(wire.AppendProduceFrame(cn.out.begin(frameRoom), h, partition, len(b.buf)))
	cn.out.add(b.buf)
	if !answered {
		cn.out.notify = append(cn.out.notify, b)
	}
	cn.signal()
	return nil
}

// credit queues a CREDIT for a subscription.
func (cn *conn) credit(handle uint32, bytes uint64) {
	cn.mu.Lock()
	defer cn.mu.Unlock()
	if cn.err != nil {
		return
	}
	b, mark := wire.BeginFrame(cn.out.begin(frameRoom), wire.Header{Opcode: wire.OpCredit, Handle: handle})
	x := wire.Credit{Bytes: bytes}
	cn.out.end(wire.EndFrame(x.Append(b), mark))
	cn.signal()
}

func (cn *conn) ping(h wire.Header, nonce uint64) {
	cn.mu.Lock()
	defer cn.mu.Unlock()
	if cn.err != nil {
		return
	}
	b, mark := wire.BeginFrame(cn.out.begin(frameRoom), h)
	x := wire.Ping{Nonce: nonce}
	cn.out.end(wire.EndFrame(x.Append(b), mark))
	cn.signal()
}

// usable reports whether new requests are taken. mu is held.
func (cn *conn) usable() error {
	switch {
	case cn.err != nil:
		return cn.err
	case cn.draining:
		return fault.New(fault.ShuttingDown, "connection to "+cn.addr).WithDetail("the broker said GOAWAY")
	}
	return nil
}

// await registers a and returns its correlation. mu is held.
func (cn *conn) await(a answerer) uint32 {
	for {
		cn.lastCorr++
		if cn.lastCorr == 0 {
			continue // 0 means that nothing was asked
		}
		if _, taken := cn.pending[cn.lastCorr]; !taken {
			cn.pending[cn.lastCorr] = a
			return cn.lastCorr
		}
	}
}

// forget makes the answer to a request whose caller gave up be ignored.
func (cn *conn) forget(a answerer) {
	cn.mu.Lock()
	defer cn.mu.Unlock()
	for corr, b := range cn.pending {
		if a == b {
			cn.pending[corr] = ignored{}
		}
	}
}

type ignored struct{}

func (ignored) answer(*conn, wire.Header, []byte, error) {}

// heartbeat looks after every interval whether anything came or went, and asks
// for a sign of life if not. After wire.HeartbeatMisses intervals of silence
// the broker is dead.
func (cn *conn) heartbeat(interval time.Duration) {
	reads, writes := cn.reads.Load(), cn.writes.Load()
	if reads != cn.seenReads {
		cn.silent = 0
	} else if cn.silent++; cn.silent >= wire.HeartbeatMisses {
		cn.fail(fault.New(fault.Timeout, "heartbeat").WithDetail("nothing came from the broker for %d intervals of %v", wire.HeartbeatMisses, interval))
		return
	}
	if reads == cn.seenReads || writes == cn.seenWrites {
		cn.ping(wire.Header{Opcode: wire.OpPing}, reads)
	}
	cn.seenReads, cn.seenWrites = reads, writes
	cn.mu.Lock()
	if cn.err == nil && !cn.draining { // while draining, beat is another timer
		cn.beat.Reset(interval)
	}
	cn.mu.Unlock()
}

// writeLoop writes what is queued, everything there is with one system call.
func (cn *conn) writeLoop() {
	for {
		cn.mu.Lock()
		if cn.out.empty() {
			cn.mu.Unlock()
			select {
			case <-cn.wake:
			case <-cn.dead:
				return
			}
			continue
		}
		o := cn.out.take()
		cn.mu.Unlock()
		cn.vec = o.bufs
		_, err := cn.vec.WriteTo(cn.nc)
		for _, b := range o.notify {
			b.wrote(err, true)
		}
		if err != nil {
			cn.fail(err)
			return
		}
		cn.writes.Add(1)
		cn.mu.Lock()
		cn.out.recycle(o)
		cn.mu.Unlock()
	}
}

// readLoop reads and dispatches frames until an error.
func (cn *conn) readLoop() error {
	for {
		h, n, err := cn.in.header(int(cn.hello.MaxFrame))
		if err != nil {
			return err
		}
		if h.Opcode == wire.OpDeliver {
			err = cn.readDeliver(h, n)
		} else {
			err = cn.readFrame(h, n)
		}
		if err != nil {
			return err
		}
	}
}

func (cn *conn) readDeliver(h wire.Header, n int) error {
	to := cn.handles[h.Handle]
	if to == nil {
		// A handle stays known until the broker has confirmed its end, so this
		// is no late delivery. To pass over it could lose messages.
		return fault.New(fault.ProtocolViolation, "read frame").WithField("handle").
			WithDetail("DELIVER for %d, which is not open", h.Handle)
	}
	if err := to.admit(cn, n); err != nil {
		return err
	}
	f := cn.c.frames.get(n)
	if err := cn.in.read(f.b); err != nil {
		cn.c.frames.put(f)
		return err
	}
	to.deliver(cn, f)
	return nil
}

func (cn *conn) readFrame(h wire.Header, n int) error {
	if b, err := cn.in.view(n); b != nil || err != nil {
		if err != nil {
			return err
		}
		return cn.dispatch(h, b[wire.HeaderBytes:])
	}
	f := cn.c.frames.get(n) // larger than the read buffer
	defer cn.c.frames.put(f)
	if err := cn.in.read(f.b); err != nil {
		return err
	}
	return cn.dispatch(h, f.b[wire.HeaderBytes:])
}

// dispatch handles one frame. payload is valid during the call.
func (cn *conn) dispatch(h wire.Header, payload []byte) error {
	switch h.Opcode {
	case wire.OpPing:
		var x wire.Ping
		if err := x.Parse(payload); err != nil {
			return err
		}
		cn.ping(wire.Header{Opcode: wire.OpPing.Response(), Correlation: h.Correlation}, x.Nonce)
		return nil
	case wire.OpPing.Response():
		if h.Correlation == 0 {
			return nil // the heartbeat's: it counted as a read
		}
	case wire.OpCredit:
		var x wire.Credit
		if err := x.Parse(payload); err != nil {
			return err
		}
		if to := cn.handles[h.Handle]; to != nil {
			to.grant(cn, x)
		}
		return nil
	case wire.OpAdvice:
		var x wire.Advice
		if err := x.Parse(payload); err != nil {
			if fault.CodeOf(err) == fault.NotSupported { // for a later client
				cn.c.cfg.log.Warn("advice that cannot be followed", "error", err)
				return nil
			}
			return err
		}
		if to, ok := cn.handles[h.Handle].(*Producer); ok {
			to.advise(cn, &x)
		}
		return nil
	case wire.OpGoAway:
		var x wire.GoAway
		if err := x.Parse(payload); err != nil {
			return err
		}
		cn.drain(x)
		return nil
	}
	var failure error
	if h.Opcode == wire.OpError.Response() {
		var x wire.Error
		if err := x.Parse(payload); err != nil {
			return err
		}
		failure = x.Err()
		if x.Bits&fault.BitClosesConnection != 0 {
			return failure
		}
		if h.Correlation == 0 {
			if to := cn.handles[h.Handle]; to != nil {
				closed := x.Bits&fault.BitClosesHandle != 0
				if closed {
					delete(cn.handles, h.Handle)
				}
				to.failed(cn, failure, closed)
			}
			return nil
		}
	} else if !h.Opcode.IsResponse() {
		return fault.New(fault.ProtocolViolation, "read frame").WithField("opcode").
			WithDetail("the broker sent %v, which it may not", h.Opcode)
	}
	cn.mu.Lock()
	a := cn.pending[h.Correlation]
	if a != nil && (failure != nil || h.Flags&wire.FlagMore == 0) {
		delete(cn.pending, h.Correlation)
	}
	drained := cn.draining && len(cn.pending) == 0
	cn.mu.Unlock()
	if a == nil {
		return fault.New(fault.ProtocolViolation, "read frame").WithField("correlation").
			WithDetail("%v answers a request that was not made", h.Opcode)
	}
	if failure != nil {
		payload = nil
	}
	a.answer(cn, h, payload, failure)
	if drained {
		return errDrained
	}
	return nil
}

var errDrained = fault.New(fault.ConnectionLost, "drain").WithDetail("the broker said GOAWAY and all answers came")

// drain stops new requests and ends the connection when the last answer came
// or the broker's time is over. Runs on the reader goroutine.
func (cn *conn) drain(x wire.GoAway) {
	cn.c.cfg.log.Info("broker goes away", "addr", cn.addr, "reason", x.Reason, "drain_ms", x.DrainMs, "node", x.Node)
	cn.mu.Lock()
	cn.draining, cn.moved = true, x.Node
	idle := len(cn.pending) == 0 && cn.out.empty()
	// The heartbeat's timer becomes the drain's: one of the two is enough now.
	cn.beat.Stop()
	cn.beat = time.AfterFunc(time.Duration(x.DrainMs)*time.Millisecond, func() { cn.fail(errDrained) })
	cn.mu.Unlock()
	if idle {
		cn.fail(errDrained)
	}
}
