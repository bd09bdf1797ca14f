package command

import (
	"bufio"
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// The proxy by itself: its address comes first, what passes is late, and at the
// end it tells what passed.
func TestProxyCommand(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				io.Copy(c, c)
				c.Close()
			}()
		}
	}()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, in := io.Pipe()
	var errs strings.Builder
	c := program().Command()
	c.SetOut(in)
	c.SetErr(&errs)
	c.SetArgs([]string{"proxy", l.Addr().String(), "--latency", "20ms"})
	ended := make(chan error, 1)
	go func() { ended <- c.ExecuteContext(ctx) }()
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", strings.TrimSpace(addr))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	began := time.Now()
	conn.SetDeadline(began.Add(10 * time.Second))
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 5)); err != nil || time.Since(began) < 40*time.Millisecond {
		t.Errorf("an answer after %v, %v", time.Since(began), err)
	}
	cancel()
	if err := <-ended; err != nil || errs.String() != "1 connections, 0 refused; 5 bytes to the target, 5 back\n" {
		t.Errorf("%v, %q", err, errs.String())
	}
	for _, args := range [][]string{{"proxy"}, {"proxy", "nowhere"}, {"proxy", "a:1", "--rate", "x"}, {"proxy", "a:1", "--listen", "0.0.0.0:0"}, {"proxy", "a:1", "--latency", "-1s"}} {
		if out, status := do(t, args...); status != 1 {
			t.Errorf("%s: status %d, %s", args, status, out)
		}
	}
}
