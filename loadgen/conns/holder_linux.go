package conns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/portask/portask/broker/wire"
)

const (
	// credit is what a subscription grants; it is given back by halves. Idle
	// topics need none of it.
	credit = 64 << 10
	// frameMax bounds a frame that is read whole; deliveries are not.
	frameMax = 64 << 10
	// stuckAfter ends the opening of connections that makes no progress.
	stuckAfter = 30 * time.Second
	// turn is the longest wait for events, and so for a look at a context.
	turn = 100 * time.Millisecond
)

// state of a connection.
type state uint8

const (
	connecting  state = iota // the kernel does
	greeting                 // HELLO and SUBSCRIBE were sent
	subscribing              // HELLO was answered
	ready
)

// conn is all that is kept of a connection: 20 bytes.
type conn struct {
	fd     int32
	handle uint32 // of the subscription
	used   uint32 // of the credit
	skip   uint32 // bytes left of a delivery
	state  state
	silent uint8 // heartbeats without anything from the broker
}

// Holder keeps connections. Not safe for concurrent use: it works while one of
// its methods runs, and a broker that hears nothing for three heartbeats closes
// connections.
type Holder struct {
	o       Options
	epoll   int
	hello   [][]byte // what a connection says first, by partition
	conns   []conn
	left    map[int32][]byte // of a connection, a frame that is not whole
	opening int
	stats   Stats
	system  system

	// ping goes round: next is the connection whose heartbeat is next, beat the
	// time at which one was last.
	ping []byte
	next int
	beat time.Time

	events []unix.EpollEvent
	in     []byte
	out    []byte
}

// Open prepares to hold connections; Hold opens them. targetPID is the target's
// process if it is on this machine, 0 otherwise: its limits are checked too.
func Open(o Options, targetPID int) (*Holder, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	h := &Holder{
		o: o, epoll: epoll, left: map[int32][]byte{}, system: readSystem(o.Addr.Addr().IsLoopback(), targetPID),
		events: make([]unix.EpollEvent, 256), in: make([]byte, frameMax), beat: time.Now(),
		ping: wire.AppendFrame(nil, wire.Header{Opcode: wire.OpPing, Correlation: 3}, &wire.Ping{}),
	}
	for p := range o.Partitions {
		b := wire.AppendPreface(nil, wire.Version, wire.Version)
		b = wire.AppendFrame(b, wire.Header{Opcode: wire.OpHello, Correlation: 1}, &wire.Hello{
			MaxFrame: wire.DefaultMaxFrame, HeartbeatMs: uint32(o.Heartbeat.Milliseconds()), ClientName: "portask-loadgen-conns",
		})
		h.hello = append(h.hello, wire.AppendFrame(b, wire.Header{Opcode: wire.OpSubscribe, Correlation: 2}, &wire.Subscribe{
			Topic: o.Topic, Partition: uint32(p), Start: wire.StartLatest, Credit: credit,
		}))
	}
	return h, nil
}

// RecordBytes is the memory allocated for connections: their records, room for
// more included, and frames of which only a part has come. The heap holds nothing
// else for them; sockets are the kernel's.
func (h *Holder) RecordBytes() int64 {
	n := cap(h.conns) * int(unsafe.Sizeof(conn{}))
	for _, b := range h.left {
		n += cap(b)
	}
	return int64(n)
}

// Close closes all connections.
func (h *Holder) Close() error {
	for i := range h.conns {
		unix.Close(int(h.conns[i].fd))
	}
	h.conns = nil
	clear(h.left)
	if h.epoll < 0 {
		return nil
	}
	err := unix.Close(h.epoll)
	h.epoll = -1
	return err
}

// Stats counts since Open.
func (h *Holder) Stats() Stats { return h.stats }

// Hold opens connections until n are subscribed, n at least those there are.
//
// Errors: a *LimitError, or several joined, if the system's limits do not allow
// it, before a connection is opened; what ended a connection, of which none may
// end.
func (h *Holder) Hold(ctx context.Context, n int) error {
	if n < len(h.conns) || n > Max {
		return fmt.Errorf("hold %d connections: want %d, which are held, to %d", n, len(h.conns), Max)
	}
	if err := h.system.check(n, len(h.conns)); err != nil {
		return err
	}
	// To the byte: growing by doubling would double what a connection costs.
	if grown := make([]conn, len(h.conns), n); n > cap(h.conns) {
		copy(grown, h.conns)
		h.conns = grown
	}
	last, at := h.stats.Connections, time.Now()
	for h.stats.Connections < n {
		for h.opening < h.o.Opening && len(h.conns) < n {
			if err := h.open(); err != nil {
				return fmt.Errorf("connection %d: %w", len(h.conns), err)
			}
		}
		if err := h.poll(ctx, turn); err != nil {
			return err
		}
		if h.stats.Connections != last {
			last, at = h.stats.Connections, time.Now()
		}
		if time.Since(at) > stuckAfter {
			return fmt.Errorf("%d of %d connections are subscribed, and none of the %d under way got further for %v", last, n, h.opening, stuckAfter)
		}
	}
	return nil
}

// Serve answers heartbeats for d. The error is what ended a connection.
func (h *Holder) Serve(ctx context.Context, d time.Duration) error {
	for end := time.Now().Add(d); ; {
		left := time.Until(end)
		if left <= 0 {
			return nil
		}
		if err := h.poll(ctx, min(left, turn)); err != nil {
			return err
		}
	}
}

func (h *Holder) open() error {
	i := len(h.conns)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
			if limit := readSystem(h.system.local, 0); limit.check(i+1, i) != nil {
				return limit.check(i+1, i)
			}
		}
		return fmt.Errorf("socket: %w", err)
	}
	h.conns = append(h.conns, conn{fd: int32(fd)})
	h.opening++
	if h.system.local {
		// Without this option bind would reserve a port for the address alone.
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
			return fmt.Errorf("bind: %w", err)
		}
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: source(i / h.system.perSource())}); err != nil {
			return fmt.Errorf("bind: %w", err)
		}
	}
	err = unix.Connect(fd, &unix.SockaddrInet4{Addr: h.o.Addr.Addr().As4(), Port: int(h.o.Addr.Port())})
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return fmt.Errorf("connect: %w", err)
	}
	return h.watch(unix.EPOLL_CTL_ADD, i, unix.EPOLLOUT)
}

// source is the nth loopback address from 127.0.0.2 on, without those that end
// in 0, 1 or 255.
func source(n int) [4]byte {
	return [4]byte{127, byte(n / (253 * 256)), byte(n / 253), byte(2 + n%253)}
}

// watch registers connection i: an event carries its index, not its descriptor,
// so that nothing has to be looked up.
func (h *Holder) watch(op, i int, events uint32) error {
	if err := unix.EpollCtl(h.epoll, op, int(h.conns[i].fd), &unix.EpollEvent{Events: events, Fd: int32(i)}); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	return nil
}

// poll waits for events, at most for d, and handles them.
func (h *Holder) poll(ctx context.Context, d time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := h.heartbeats(time.Now()); err != nil {
		return err
	}
	n, err := unix.EpollWait(h.epoll, h.events, int((d+time.Millisecond-1)/time.Millisecond))
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("epoll: %w", err)
	}
	for i := range max(n, 0) {
		at := h.events[i].Fd
		c := &h.conns[at]
		if c.state == connecting {
			err = h.connected(int(at), c)
		} else {
			err = h.read(at, c)
		}
		if err != nil {
			return fmt.Errorf("connection %d of %d: %w", at+1, len(h.conns), err)
		}
	}
	return nil
}

// heartbeats sends those that are due: one to each connection in an interval,
// evenly over it.
func (h *Holder) heartbeats(now time.Time) error {
	if len(h.conns) == 0 {
		h.beat = now
		return nil
	}
	every := h.o.Heartbeat / time.Duration(len(h.conns))
	for n := 0; n < len(h.conns) && now.Sub(h.beat) >= every; n++ {
		h.beat = h.beat.Add(every)
		i := h.next
		h.next = (h.next + 1) % len(h.conns)
		c := &h.conns[i]
		if c.state != ready {
			continue
		}
		if c.silent++; c.silent > wire.HeartbeatMisses {
			return fmt.Errorf("connection %d of %d: nothing came from the broker for %d heartbeats", i+1, len(h.conns), wire.HeartbeatMisses)
		}
		if err := c.write(h.ping); err != nil {
			return fmt.Errorf("connection %d of %d: heartbeat: %w", i+1, len(h.conns), err)
		}
		h.stats.Heartbeats++
	}
	if now.Sub(h.beat) > h.o.Heartbeat { // nothing ran for longer than an interval
		h.beat = now
	}
	return nil
}

// connected is called when the kernel has connected, or failed to.
func (h *Holder) connected(i int, c *conn) error {
	code, err := unix.GetsockoptInt(int(c.fd), unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && code != 0 {
		err = unix.Errno(code)
	}
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	c.state = greeting
	if err := c.write(h.hello[i%len(h.hello)]); err != nil {
		return err
	}
	return h.watch(unix.EPOLL_CTL_MOD, i, unix.EPOLLIN)
}

// write sends a few bytes. A socket whose buffer has no room for them belongs to
// a broker that does not read.
func (c *conn) write(b []byte) error {
	for {
		n, err := unix.Write(int(c.fd), b)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("write: %w", err)
		case n < len(b):
			return fmt.Errorf("write: %w", io.ErrShortWrite)
		default:
			return nil
		}
	}
}

// read takes what is there, frame by frame.
func (h *Holder) read(i int32, c *conn) error {
	kept := copy(h.in, h.left[i])
	delete(h.left, i)
	n, err := unix.Read(int(c.fd), h.in[kept:])
	switch {
	case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
		n = 0
	case err != nil:
		return fmt.Errorf("read: %w", err)
	case n == 0:
		return errors.New("the broker closed it")
	}
	c.silent = 0
	b := h.in[:kept+n]
	for len(b) > 0 {
		if c.skip > 0 {
			n := min(len(b), int(c.skip))
			c.skip -= uint32(n)
			b = b[n:]
			continue
		}
		if len(b) < wire.HeaderBytes {
			break
		}
		head, err := wire.ParseHeader(b, wire.DefaultMaxFrame)
		if err != nil {
			return err
		}
		size := head.FrameBytes()
		if head.Opcode == wire.OpDeliver && c.state == ready {
			h.stats.Deliveries++
			h.stats.DeliveredBytes += uint64(size)
			c.skip = uint32(size)
			if err := h.spend(c, size); err != nil {
				return err
			}
			continue
		}
		if size > frameMax {
			return fmt.Errorf("%v of %d bytes: want at most %d", head.Opcode, size, frameMax)
		}
		if len(b) < size {
			break
		}
		if err := h.frame(c, head, b[wire.HeaderBytes:size]); err != nil {
			return err
		}
		b = b[size:]
	}
	if len(b) > 0 {
		h.left[i] = slices.Clone(b)
	}
	return nil
}

// spend counts a delivery against the credit, and gives it back by halves.
func (h *Holder) spend(c *conn, size int) error {
	if c.used += uint32(size); c.used < credit/2 {
		return nil
	}
	h.out = wire.AppendFrame(h.out[:0], wire.Header{Opcode: wire.OpCredit, Handle: c.handle}, &wire.Credit{Bytes: uint64(c.used)})
	c.used = 0
	return c.write(h.out)
}

// frame handles a whole one.
func (h *Holder) frame(c *conn, head wire.Header, payload []byte) error {
	switch {
	case head.Opcode == wire.OpPing.Response():
		h.stats.Answered++
		return nil
	case head.Opcode == wire.OpPing:
		out, mark := wire.BeginFrame(h.out[:0], wire.Header{Opcode: wire.OpPing.Response(), Correlation: head.Correlation})
		h.out = wire.EndFrame(append(out, payload...), mark)
		return c.write(h.out)
	case head.Opcode == wire.OpError.Response():
		var e wire.Error
		if err := e.Parse(payload); err != nil {
			return err
		}
		return e.Err()
	case head.Opcode == wire.OpGoAway:
		return errors.New("the broker is going away")
	case head.Opcode == wire.OpHello.Response() && c.state == greeting:
		c.state = subscribing
		return new(wire.HelloOK).Parse(payload)
	case head.Opcode == wire.OpSubscribe.Response() && c.state == subscribing:
		c.state, c.handle = ready, head.Handle
		h.opening--
		h.stats.Connections++
		return new(wire.SubscribeOK).Parse(payload)
	}
	return fmt.Errorf("unexpected %v", head.Opcode)
}
