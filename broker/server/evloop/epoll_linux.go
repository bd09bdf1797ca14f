package evloop

import (
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const defaultEngine = EngineEpoll

// iovMax is the kernel's UIO_MAXIOV: buffers per writev.
const iovMax = 1024

// Reserved generations in the events' data; connections have odd ones.
const (
	genWake   = 0
	genListen = 2
)

// epoll is the netio of Linux. All sockets are registered once, edge-triggered
// for both directions; nothing is changed there afterwards.
type epoll struct {
	fd       int
	listener int      // the listener, -1 in all loops but the first
	highest  int      // descriptors from here on are not the connections'
	options  *Options // set on each connection; nil: inherited from the listener
	events   []unix.EpollEvent
	iov      []unix.Iovec
	two      [2]unix.Iovec

	mu     sync.Mutex // guards wakeFD against use after close
	wakeFD int        // eventfd, -1 after close
}

// newEpoll takes over the descriptor of ln. The sockets inherit its options
// (on Linux accept copies the listener's socket), so that accepting a
// connection takes one system call and registering it another.
func newEpoll(ln net.Listener, o *Options) ([]netio, error) {
	sc, ok := ln.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("evloop: %T has no descriptor for epoll", ln)
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("evloop: listener: %w", err)
	}
	lfd := -1
	var derr error
	if err := rc.Control(func(fd uintptr) {
		lfd, derr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	}); err != nil {
		return nil, fmt.Errorf("evloop: listener: %w", err)
	}
	if derr != nil {
		return nil, os.NewSyscallError("dup listener", derr)
	}
	if u, ok := ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	ln.Close() // out of the runtime's poller, which would wake up for nobody
	if err := unix.SetNonblock(lfd, true); err != nil {
		unix.Close(lfd)
		return nil, os.NewSyscallError("listener non-blocking", err)
	}
	// The protocol is not known (an error) only of exotic listeners.
	proto, _ := unix.GetsockoptInt(lfd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if proto == unix.IPPROTO_TCP {
		if err := setOptions(lfd, o); err != nil {
			unix.Close(lfd)
			return nil, err
		}
	}
	var ios []netio
	for i := range o.Loops {
		p, err := newEpollOne()
		if err == nil && proto == unix.IPPROTO_MPTCP {
			p.options = o
		}
		if err == nil && i == 0 {
			p.listener = lfd
			err = p.ctl(unix.EPOLL_CTL_ADD, lfd, unix.EPOLLIN, Conn{Gen: genListen})
		}
		if err != nil {
			if p != nil {
				p.close()
			}
			for _, n := range ios {
				n.close()
			}
			if i == 0 && (p == nil || p.listener < 0) {
				unix.Close(lfd)
			}
			return nil, err
		}
		ios = append(ios, p)
	}
	return ios, nil
}

func newEpollOne() (*epoll, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	p := &epoll{fd: fd, listener: -1, wakeFD: -1, highest: connectionDescriptors()}
	if p.wakeFD, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		p.close()
		return nil, os.NewSyscallError("eventfd", err)
	}
	// Edge-triggered: every write is an event, and nobody needs to read it.
	if err := p.ctl(unix.EPOLL_CTL_ADD, p.wakeFD, unix.EPOLLIN|unix.EPOLLET, Conn{Gen: genWake}); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func setOptions(fd int, o *Options) error {
	set := func(name string, level, opt, v int) error {
		return os.NewSyscallError(name, unix.SetsockoptInt(fd, level, opt, v))
	}
	secs := func(d time.Duration) int { return max(1, int(d.Seconds())) }
	if !o.Delay {
		if err := set("TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
			return err
		}
	}
	if o.KeepAlive > 0 {
		if err := set("SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1); err != nil {
			return err
		}
		if err := set("TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, secs(o.KeepAlive)); err != nil {
			return err
		}
		if err := set("TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, secs(o.KeepAlive/4)); err != nil {
			return err
		}
	} else if err := set("SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 0); err != nil {
		return err
	}
	if o.UserTimeout > 0 {
		if err := set("TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(o.UserTimeout.Milliseconds())); err != nil {
			return err
		}
	}
	if o.SendBufferBytes > 0 {
		if err := set("SO_SNDBUF", unix.SOL_SOCKET, unix.SO_SNDBUF, o.SendBufferBytes); err != nil {
			return err
		}
	}
	if o.RecvBufferBytes > 0 {
		if err := set("SO_RCVBUF", unix.SOL_SOCKET, unix.SO_RCVBUF, o.RecvBufferBytes); err != nil {
			return err
		}
	}
	return nil
}

func (p *epoll) ctl(op, fd int, events uint32, c Conn) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(c.Index), Pad: int32(c.Gen)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(p.fd, op, fd, &ev))
}

func (p *epoll) wait(ev []event, timeoutMs int) (int, error) {
	if p.events == nil {
		p.events = make([]unix.EpollEvent, len(ev))
	}
	n, err := unix.EpollWait(p.fd, p.events, timeoutMs)
	if err == unix.EINTR {
		return 0, nil
	}
	if err != nil {
		return 0, os.NewSyscallError("epoll_wait", err)
	}
	k := 0
	for i := range n {
		e := &p.events[i]
		c := Conn{uint32(e.Fd), uint32(e.Pad)}
		switch c.Gen {
		case genWake:
			continue
		case genListen:
			ev[k] = event{bits: evAccept}
			k++
			continue
		}
		var bits uint8
		if e.Events&unix.EPOLLIN != 0 {
			bits |= evIn
		}
		if e.Events&unix.EPOLLOUT != 0 {
			bits |= evOut
		}
		if e.Events&unix.EPOLLRDHUP != 0 {
			bits |= evHup
		}
		if e.Events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
			bits |= evErr | evOut
		}
		ev[k] = event{c, bits}
		k++
	}
	return k, nil
}

func (p *epoll) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.wakeFD >= 0 {
		one := [8]byte{1} // any non-zero number, in either byte order
		// EAGAIN would mean 2^64 wakes unread: the event is pending then.
		unix.Write(p.wakeFD, one[:])
	}
}

func (p *epoll) attach(s socket, c Conn) (int32, error) {
	fd := int(s.fd)
	if p.options != nil {
		// Whatever of it a multipath connection does not know, it does without.
		setOptions(fd, p.options)
	}
	err := p.ctl(unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN|unix.EPOLLOUT|unix.EPOLLRDHUP|unix.EPOLLET, c)
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return s.fd, nil
}

func (p *epoll) read(fd int32, a, b []byte) (int, error) {
	for {
		var n int
		var err error
		switch {
		case len(b) == 0:
			n, err = unix.Read(int(fd), a)
		case len(a) == 0:
			n, err = unix.Read(int(fd), b)
		default:
			setIov(&p.two[0], a)
			setIov(&p.two[1], b)
			n, err = p.vector(unix.SYS_READV, fd, p.two[:])
		}
		if err == nil {
			return n, nil
		}
		if err != unix.EINTR {
			return 0, mapErr("read", err)
		}
	}
}

func (p *epoll) write(fd int32, b []byte) (int, error) {
	for {
		n, err := unix.Write(int(fd), b)
		if err == nil {
			return n, nil
		}
		if err != unix.EINTR {
			return 0, mapErr("write", err)
		}
	}
}

// writev writes all buffers, iovMax at a time.
func (p *epoll) writev(fd int32, bufs [][]byte) (int, error) {
	total := 0
	for len(bufs) > 0 {
		k, want := 0, 0
		p.iov = p.iov[:0]
		for _, b := range bufs {
			if k++; len(b) > 0 {
				p.iov = append(p.iov, unix.Iovec{})
				setIov(&p.iov[len(p.iov)-1], b)
				want += len(b)
			}
			if len(p.iov) == iovMax {
				break
			}
		}
		bufs = bufs[k:]
		if want == 0 {
			break
		}
		n, err := p.vector(unix.SYS_WRITEV, fd, p.iov)
		for err == unix.EINTR {
			n, err = p.vector(unix.SYS_WRITEV, fd, p.iov)
		}
		clear(p.iov)
		if err != nil {
			if total > 0 && err == unix.EAGAIN {
				return total, nil
			}
			return total, mapErr("writev", err)
		}
		if total += n; n < want {
			break
		}
	}
	return total, nil
}

func setIov(v *unix.Iovec, b []byte) {
	v.Base = &b[0]
	v.SetLen(len(b))
}

// vector calls readv or writev. unix.Readv and unix.Writev take slices of
// slices and allocate the vector anew on each call.
func (p *epoll) vector(trap uintptr, fd int32, iov []unix.Iovec) (int, error) {
	n, _, errno := unix.Syscall(trap, uintptr(fd), uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func (p *epoll) sendfile(fd int32, f *os.File, pos int64, n int) (int, error) {
	defer runtime.KeepAlive(f)
	in := int(f.Fd())
	for {
		at := pos
		sent, err := unix.Sendfile(int(fd), in, &at, n)
		if err == nil {
			return sent, nil
		}
		if err != unix.EINTR {
			return 0, mapErr("sendfile", err)
		}
	}
}

func (p *epoll) shutdown(fd int32) error {
	return os.NewSyscallError("shutdown", unix.Shutdown(int(fd), unix.SHUT_WR))
}

// closeSocket is gentle always: the kernel sends what it took.
func (p *epoll) closeSocket(fd int32, _ bool) { unix.Close(int(fd)) }

func (p *epoll) peer(fd int32) netip.AddrPort {
	sa, err := unix.Getpeername(int(fd))
	if err != nil {
		return netip.AddrPort{}
	}
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return netip.AddrPort{}
}

// connectionDescriptors is the exclusive end of the descriptors that connections
// may take. The kernel gives the lowest free number, so the number of a new
// connection tells how many are in use, by whomever; the last sixteenth is for
// files: a flood of connections must not stop the log.
func connectionDescriptors() int {
	var lim unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &lim) != nil || lim.Cur > math.MaxInt32 {
		return math.MaxInt32
	}
	n := int(lim.Cur)
	return n - min(max(n/16, 64), 4096, n/2)
}

func (p *epoll) accept() (socket, error) {
	if p.listener < 0 {
		return socket{}, errAgain
	}
	for {
		// unix.Accept4 would allocate the peer's address, which nobody asked
		// for. The call cannot block.
		fd, _, err := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(p.listener), 0, 0,
			unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		switch err {
		case 0:
			if int(fd) >= p.highest {
				unix.Close(int(fd))
				return socket{}, errFull
			}
			return socket{fd: int32(fd)}, nil
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return socket{}, errAgain
		case unix.ECONNABORTED, unix.EPROTO, unix.EPERM, unix.ENETDOWN, unix.EHOSTUNREACH, unix.ENETUNREACH:
			// A pending error of the new connection; accept(2) says to retry.
			return socket{}, errAborted
		}
		return socket{}, os.NewSyscallError("accept4", err)
	}
}

func (p *epoll) listen(on bool) {
	if p.listener < 0 {
		return
	}
	var events uint32
	if on {
		events = unix.EPOLLIN
	}
	p.ctl(unix.EPOLL_CTL_MOD, p.listener, events, Conn{Gen: genListen})
}

func (p *epoll) unlisten() {
	if p.listener >= 0 {
		unix.Close(p.listener)
		p.listener = -1
	}
}

func (p *epoll) close() {
	p.unlisten()
	p.mu.Lock()
	if p.wakeFD >= 0 {
		unix.Close(p.wakeFD)
		p.wakeFD = -1
	}
	p.mu.Unlock()
	if p.fd >= 0 {
		unix.Close(p.fd)
		p.fd = -1
	}
}

func mapErr(op string, err error) error {
	switch err {
	case unix.EAGAIN:
		return errAgain
	case unix.EPIPE:
		return fmt.Errorf("%s: %w", op, io.ErrClosedPipe)
	}
	return os.NewSyscallError(op, err)
}

// close ends a socket that no loop took.
func (s socket) close() {
	if s.nc != nil {
		s.nc.Close()
		return
	}
	unix.Close(int(s.fd))
}
