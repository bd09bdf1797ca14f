package evloop

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// The std engine gives net.Conns the manners of non-blocking sockets: a reader
// goroutine per connection waits in Read, hands over what came and waits until
// the loop has taken it; a writer goroutine exists while there is something to
// write and drains a bounded buffer. Both tell the loop by edges, as epoll does.

const (
	// stdOutBytes bounds the buffer between loop and writer, as a socket's send
	// buffer would.
	stdOutBytes = 256 << 10
	// stdInMin and stdInMax bound the reader's buffer: it grows while reads
	// fill it, so an idle connection keeps little.
	stdInMin = 512
	stdInMax = 64 << 10
	// stdKeep is the largest output buffer kept between bursts.
	stdKeep = 1 << 10
)

// stdIO is the netio of one loop.
type stdIO struct {
	kick  chan struct{} // capacity 1: look at ready
	timer *time.Timer

	closeTimeout time.Duration // immutable

	socks []*stdSock // owned by the loop, by fd
	free  []int32
	wg    sync.WaitGroup // readers, writers, closers

	mu    sync.Mutex
	ready []*stdSock // have bits, in order of arrival; guarded by mu
}

// stdSock is one connection.
type stdSock struct {
	io     *stdIO
	nc     net.Conn
	conn   Conn
	more   chan struct{} // capacity 1: the loop took everything
	closed chan struct{}

	bits uint8 // guarded by io.mu

	mu      sync.Mutex // guards what follows
	in      []byte     // read, not yet taken
	inErr   error      // comes after in
	out     []byte     // given by the loop, not yet with the writer
	spare   []byte     // the writer's last buffer
	flying  int        // bytes the writer is writing
	writing bool       // a writer runs
	full    bool       // the loop was refused and waits for evOut
	shut    bool       // announce our end after out
	last    bool       // close after out
	outErr  error
}

func newStd(o *Options) []netio {
	var ios []netio
	for range o.Loops {
		t := time.NewTimer(time.Hour)
		t.Stop()
		ios = append(ios, &stdIO{kick: make(chan struct{}, 1), timer: t, closeTimeout: o.CloseTimeout})
	}
	return ios
}

func (p *stdIO) wake() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// post notes an edge for the loop. Any goroutine.
func (p *stdIO) post(s *stdSock, bits uint8) {
	p.mu.Lock()
	if s.bits == 0 {
		p.ready = append(p.ready, s)
	}
	s.bits |= bits
	p.mu.Unlock()
	p.wake()
}

func (p *stdIO) collect(ev []event) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := min(len(p.ready), len(ev))
	for i, s := range p.ready[:n] {
		ev[i] = event{s.conn, s.bits}
		s.bits = 0
	}
	rest := copy(p.ready, p.ready[n:])
	clear(p.ready[rest:])
	p.ready = p.ready[:rest]
	return n
}

func (p *stdIO) wait(ev []event, timeoutMs int) (int, error) {
	if n := p.collect(ev); n > 0 || timeoutMs == 0 {
		return n, nil
	}
	var after <-chan time.Time
	if timeoutMs > 0 {
		p.timer.Reset(time.Duration(timeoutMs) * time.Millisecond)
		after = p.timer.C
	}
	select {
	case <-p.kick:
		p.timer.Stop()
	case <-after:
	}
	return p.collect(ev), nil
}

func (p *stdIO) attach(k socket, c Conn) (int32, error) {
	s := &stdSock{io: p, nc: k.nc, conn: c, more: make(chan struct{}, 1), closed: make(chan struct{})}
	var fd int32
	if n := len(p.free); n > 0 {
		fd = p.free[n-1]
		p.free = p.free[:n-1]
		p.socks[fd] = s
	} else {
		fd = int32(len(p.socks))
		p.socks = append(p.socks, s)
	}
	p.wg.Go(s.readAll)
	return fd, nil
}

// readAll is the reader goroutine; it ends with the connection's input.
func (s *stdSock) readAll() {
	buf := make([]byte, stdInMin)
	for {
		n, err := s.nc.Read(buf)
		if n == 0 && err == nil {
			continue
		}
		s.mu.Lock()
		s.in, s.inErr = buf[:n], err
		s.mu.Unlock()
		switch {
		case err == nil:
			s.io.post(s, evIn)
		case errors.Is(err, io.EOF):
			s.io.post(s, evIn|evHup)
			return
		default:
			s.io.post(s, evIn|evErr)
			return
		}
		select {
		case <-s.more:
		case <-s.closed:
			return
		}
		switch {
		case n == len(buf) && n < stdInMax:
			buf = make([]byte, 4*len(buf))
		case n < len(buf)/8 && len(buf) > stdInMin:
			buf = make([]byte, len(buf)/4)
		}
	}
}

func (p *stdIO) read(fd int32, a, b []byte) (int, error) {
	s := p.socks[fd]
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.in) > 0 {
		n := copy(a, s.in)
		n += copy(b, s.in[n:])
		s.in = s.in[n:]
		if len(s.in) == 0 && s.inErr == nil {
			s.in = nil
			s.more <- struct{}{} // the reader takes one for each hand-over
		}
		return n, nil
	}
	switch {
	case s.inErr == nil:
		return 0, errAgain
	case errors.Is(s.inErr, io.EOF):
		return 0, nil
	}
	return 0, s.inErr
}

// room returns how many bytes the buffer takes and starts the writer if there
// will be any; mu is held.
func (s *stdSock) room(want int) (int, error) {
	if s.outErr != nil {
		return 0, s.outErr
	}
	n := min(want, stdOutBytes-len(s.out)-s.flying)
	if n < want {
		s.full = true
	}
	if n == 0 && want > 0 {
		return 0, errAgain
	}
	return n, nil
}

func (s *stdSock) startWriter() {
	if !s.writing {
		s.writing = true
		s.io.wg.Go(s.writeAll)
	}
}

func (p *stdIO) write(fd int32, b []byte) (int, error) {
	s := p.socks[fd]
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.room(len(b))
	if err == nil {
		s.out = append(s.out, b[:n]...)
		s.startWriter()
	}
	return n, err
}

func (p *stdIO) writev(fd int32, bufs [][]byte) (int, error) {
	s := p.socks[fd]
	s.mu.Lock()
	defer s.mu.Unlock()
	want := 0
	for _, b := range bufs {
		want += len(b)
	}
	n, err := s.room(want)
	if err != nil {
		return 0, err
	}
	left := n
	for _, b := range bufs {
		b = b[:min(len(b), left)]
		s.out = append(s.out, b...)
		left -= len(b)
	}
	s.startWriter()
	return n, nil
}

func (p *stdIO) sendfile(fd int32, f *os.File, pos int64, n int) (int, error) {
	s := p.socks[fd]
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.room(n)
	if err != nil {
		return 0, err
	}
	have := len(s.out)
	if cap(s.out)-have < n {
		s.out = append(make([]byte, 0, have+n), s.out...)
	}
	k, err := f.ReadAt(s.out[have:have+n], pos)
	s.out = s.out[:have+k]
	if k > 0 {
		s.startWriter()
		return k, nil
	}
	if errors.Is(err, io.EOF) {
		err = nil // 0, nil: the file's end
	}
	return 0, err
}

// writeAll is the writer goroutine; it ends when there is nothing to write.
func (s *stdSock) writeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.outErr == nil && len(s.out) > 0 {
		b := s.out
		s.out, s.spare, s.flying = s.spare[:0], nil, len(b)
		s.mu.Unlock()
		_, err := s.nc.Write(b)
		s.mu.Lock()
		s.flying = 0
		if cap(b) <= stdKeep || len(s.out) > 0 {
			s.spare = b[:0]
		}
		if err != nil {
			s.outErr = err
			s.io.post(s, evOut|evErr)
		} else if s.full {
			s.full = false
			s.io.post(s, evOut)
		}
	}
	if cap(s.out) > stdKeep {
		s.out = nil
	}
	if cap(s.spare) > stdKeep {
		s.spare = nil
	}
	s.writing = false
	switch {
	case s.last:
		s.close()
	case s.shut && s.outErr == nil:
		s.mu.Unlock()
		s.closeWrite()
		s.mu.Lock()
	}
}

func (s *stdSock) closeWrite() {
	if cw, ok := s.nc.(interface{ CloseWrite() error }); ok {
		if cw.CloseWrite() == nil {
			return
		}
	}
	s.nc.Close() // no half-close: the reader sees the end
}

// shutdown leaves it to the writer, since announcing the end may block (TLS).
func (p *stdIO) shutdown(fd int32) error {
	s := p.socks[fd]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.outErr != nil {
		return s.outErr
	}
	s.shut = true
	s.startWriter()
	return nil
}

func (p *stdIO) closeSocket(fd int32, gently bool) {
	s := p.socks[fd]
	p.socks[fd] = nil
	p.free = append(p.free, fd)
	close(s.closed)
	s.mu.Lock()
	s.last = gently && s.writing && s.outErr == nil
	writerCloses := s.last
	s.mu.Unlock()
	if writerCloses {
		s.nc.SetDeadline(time.Now().Add(p.closeTimeout)) // the reader's too
		return
	}
	s.close()
}

// close ends the connection without waiting.
func (s *stdSock) close() {
	switch s.nc.(type) {
	case *net.TCPConn, *net.UnixConn:
		s.nc.Close()
	default: // may block to say goodbye
		s.io.wg.Go(func() { s.nc.Close() })
	}
}

func (p *stdIO) peer(fd int32) netip.AddrPort {
	if a, ok := p.socks[fd].nc.RemoteAddr().(*net.TCPAddr); ok {
		ap := a.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}

func (p *stdIO) accept() (socket, error) { return socket{}, errAgain }
func (p *stdIO) listen(bool)             {}
func (p *stdIO) unlisten()               {}

// close waits for the goroutines of all connections; the sockets are closed.
func (p *stdIO) close() { p.wg.Wait() }

// stdListener accepts for all loops of a server.
type stdListener struct {
	ln      net.Listener
	stopped chan struct{}
	once    sync.Once
}

func (a *stdListener) stop() {
	a.once.Do(func() {
		close(a.stopped)
		a.ln.Close()
	})
}

// run accepts until stop. After an error, for instance a lack of descriptors,
// it waits a tick.
func (a *stdListener) run(s *Server) {
	for {
		nc, err := a.ln.Accept()
		if err != nil {
			select {
			case <-a.stopped:
				return
			case <-time.After(tickBusy * time.Millisecond):
				s.acceptErrors.Add(1)
				continue
			}
		}
		if tc, ok := nc.(*net.TCPConn); ok {
			setStdOptions(tc, &s.o)
		}
		s.place(socket{nc: nc}, nil)
	}
}

// setStdOptions sets what there is; a connection without it works too.
func setStdOptions(c *net.TCPConn, o *Options) {
	if o.Delay {
		c.SetNoDelay(false)
	}
	c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: o.KeepAlive > 0, Idle: o.KeepAlive, Interval: o.KeepAlive / 4})
	if o.SendBufferBytes > 0 {
		c.SetWriteBuffer(o.SendBufferBytes)
	}
	if o.RecvBufferBytes > 0 {
		c.SetReadBuffer(o.RecvBufferBytes)
	}
}
