package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

// pair is a relay of one connection before a target: both far ends, and a wait
// for the relay's own end.
func pair(t *testing.T, ctx context.Context, pass func(way int, from, to *net.TCPConn) error) (client, server *net.TCPConn, c *Conn, wait func()) {
	t.Helper()
	listen := func() *net.TCPListener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l.(*net.TCPListener)
	}
	front, target := listen(), listen()
	dialled, err := net.Dial("tcp", front.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := front.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	c = New(ctx, accepted)
	if err := c.Dial(target.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = target.AcceptTCP(); err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() { c.Run(pass) })
	client = dialled.(*net.TCPConn)
	for _, x := range []*net.TCPConn{client, server} {
		x.SetDeadline(time.Now().Add(patience))
		t.Cleanup(func() { x.Close() })
	}
	t.Cleanup(func() { c.Reset(); work.Wait() })
	return client, server, c, work.Wait
}

func plain(_ int, from, to *net.TCPConn) error {
	if _, err := io.Copy(to, from); err != nil {
		return err
	}
	return to.CloseWrite()
}

func expect(t *testing.T, c net.Conn, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != want {
		t.Fatalf("%q, %v: want %q", b, err, want)
	}
}

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// A side that has said all it has to say still hears the other.
func TestHalfClose(t *testing.T) {
	client, server, c, wait := pair(t, t.Context(), plain)
	io.WriteString(client, "question")
	client.CloseWrite()
	expect(t, server, "question")
	if _, err := server.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("the end was passed on as %v", err)
	}
	io.WriteString(server, "answer")
	expect(t, client, "answer")
	server.CloseWrite()
	if _, err := client.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("the other end was passed on as %v", err)
	}
	wait()
	if c.Context().Err() == nil {
		t.Error("the connection's context outlives it")
	}
}

// What breaks one side, or the relay, resets both.
func TestResets(t *testing.T) {
	for name, end := range map[string]func(client, server *net.TCPConn, c *Conn, cancel context.CancelFunc){
		"client":  func(client, _ *net.TCPConn, _ *Conn, _ context.CancelFunc) { client.SetLinger(0); client.Close() },
		"server":  func(_, server *net.TCPConn, _ *Conn, _ context.CancelFunc) { server.SetLinger(0); server.Close() },
		"relay":   func(_, _ *net.TCPConn, c *Conn, _ context.CancelFunc) { c.Reset() },
		"context": func(_, _ *net.TCPConn, _ *Conn, cancel context.CancelFunc) { cancel() },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			client, server, c, wait := pair(t, ctx, plain)
			io.WriteString(client, "x")
			expect(t, server, "x")
			end(client, server, c, cancel)
			wait()
			for side, x := range map[string]net.Conn{"client": client, "server": server} {
				if _, err := x.Read(make([]byte, 1)); side != name && !isReset(err) {
					t.Errorf("the %s was told %v", side, err)
				}
			}
		})
	}
	t.Run("pass", func(t *testing.T) {
		broken := errors.New("broken")
		client, server, _, wait := pair(t, t.Context(), func(way int, from, to *net.TCPConn) error {
			if way == ToClient {
				return broken
			}
			return plain(way, from, to)
		})
		wait()
		for _, x := range []net.Conn{client, server} {
			if _, err := x.Read(make([]byte, 1)); !isReset(err) {
				t.Errorf("an end was told %v", err)
			}
		}
	})
}

// A connection that was reset before it was dialled takes no target along.
func TestDialAfterReset(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	x, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := New(t.Context(), x.(*net.TCPConn))
	c.Reset()
	if err := c.Dial(l.Addr().String()); err == nil {
		t.Error("dialled")
	}
}

// flaky fails now and then, as accept does without descriptors.
type flaky struct {
	net.Listener
	calls int
}

func (f *flaky) Accept() (net.Conn, error) {
	if f.calls++; f.calls%2 == 1 {
		return nil, os.NewSyscallError("accept4", syscall.EMFILE)
	}
	return f.Listener.Accept()
}

func TestAcceptGoesOn(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan struct{}, 3)
	var work sync.WaitGroup
	work.Go(func() {
		Accept(t.Context(), &flaky{Listener: l}, func(c *net.TCPConn) { c.Close(); got <- struct{}{} })
	})
	for range 3 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		<-got
		c.Close()
	}
	l.Close()
	work.Wait()
}
