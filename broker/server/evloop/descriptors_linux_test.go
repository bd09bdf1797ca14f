package evloop

import (
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A flood of connections leaves descriptors for files: those beyond the share
// of connections are closed at once, and a file can still be opened.
func TestConnectionsLeaveDescriptorsForFiles(t *testing.T) {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		t.Fatal(err)
	}
	p := &epoll{listener: -1, highest: connectionDescriptors()}
	if n := uint64(p.highest); n >= lim.Cur || n < lim.Cur/2 {
		t.Fatalf("connections may take %d of %d descriptors", n, lim.Cur)
	}
	// The rule itself, with the share moved down to where this process is.
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.SetNonblock(int(f.Fd()), true); err != nil {
		t.Fatal(err)
	}
	p.listener, p.highest = int(f.Fd()), 0
	c, err := net.Dial("tcp4", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := p.accept(); err != errFull {
		t.Fatalf("accepted beyond the share: %v", err)
	}
	c.SetReadDeadline(time.Now().Add(patience))
	if _, err := c.Read(make([]byte, 1)); os.IsTimeout(err) || err == nil {
		t.Fatalf("the refused connection was left open: %v", err)
	}
}
