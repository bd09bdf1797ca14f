package evloop

import (
	"errors"
	"net"
	"net/netip"
	"os"
)

// event says what happened to a connection since the last event of its kind:
// events are edges, not levels.
type event struct {
	conn Conn
	bits uint8
}

const (
	evIn  uint8 = 1 << iota // bytes or an end to read
	evOut                   // takes data again
	evHup                   // the peer will send no more: read to the end
	evErr                   // failed or closed in both directions
	evAccept
)

// errAgain is the answer of a socket that would have to wait.
var errAgain = errors.New("evloop: would block")

// errAborted is accept's answer for a peer that was gone before it was accepted.
var errAborted = errors.New("evloop: connection aborted")

// errFull says that a connection was accepted and closed: descriptors are short.
var errFull = errors.New("evloop: no descriptor to spare for a connection")

// socket is an accepted connection on its way to a loop.
type socket struct {
	fd int32
	nc net.Conn // std
}

// netio is what a loop needs of the system: non-blocking sockets and a way to
// wait for them. One instance serves one loop and is called by its goroutine
// only, except wake. Reads and writes that cannot go on return errAgain and
// promise an event. A write that took less than offered promises one too, and
// so does a read that got less than it had room for.
type netio interface {
	// wait blocks up to timeoutMs (< 0 without end, 0 not at all) and fills ev.
	wait(ev []event, timeoutMs int) (int, error)
	// wake ends a wait, from any goroutine, also after close.
	wake()

	// attach takes over a socket and names its events; it returns the number
	// by which the other methods know the socket.
	attach(s socket, c Conn) (fd int32, err error)
	// read fills a and then b (which may be empty); 0, nil is the peer's end.
	read(fd int32, a, b []byte) (int, error)
	write(fd int32, b []byte) (int, error)
	writev(fd int32, bufs [][]byte) (int, error)
	sendfile(fd int32, f *os.File, pos int64, n int) (int, error)
	// shutdown announces our end to the peer after all that was written.
	shutdown(fd int32) error
	// closeSocket ends it; gently, what was written still goes its way.
	closeSocket(fd int32, gently bool)
	peer(fd int32) netip.AddrPort

	// accept returns the next waiting connection; listen switches its events
	// on and off. Only loop 0 has a listener, and with std none has: there a
	// goroutine accepts.
	accept() (socket, error)
	listen(on bool)
	// unlisten closes the listener; waiting and later peers are refused.
	unlisten()

	close()
}
