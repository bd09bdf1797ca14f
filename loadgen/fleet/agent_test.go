package fleet

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/portask/portask/loadgen/driver"
)

// serveAgent runs an agent in this process, until the test's end.
func serveAgent(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	a := &Agent{Token: testToken, Version: "test", Open: func(context.Context, string, driver.Options) (driver.Driver, error) {
		return nil, errors.New("no driver here")
	}}
	go func() { served <- a.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

func dial(t *testing.T, addr string) *conn {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return &conn{c: nc, max: helloBytesMax}
}

// ends waits for the agent to hang up.
func ends(t *testing.T, c *conn, within time.Duration) {
	t.Helper()
	c.c.SetReadDeadline(time.Now().Add(within))
	if _, err := io.Copy(io.Discard, c.c); err != nil {
		if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
			t.Error("the agent goes on listening")
		}
	}
}

// Strangers get nowhere, and do not keep those who know the token out.
func TestHostilePeers(t *testing.T) {
	addr := serveAgent(t)
	for name, bytes := range map[string]string{
		"garbage":       "GET / HTTP/1.1\r\n\r\n",
		"giant length":  "\xff\xff\xff\xff",
		"no proof":      "\x00\x00\x00\x10{\"kind\":\"hello\"}",
		"run at once":   "\x00\x00\x00\x12{\"kind\":\"prepare\"}",
		"half a frame ": "\x00\x00\x00\x10{\"ki",
	} {
		c := dial(t, addr)
		if _, err := c.read(time.Now().Add(helloTimeout)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		io.WriteString(c.c, bytes)
		c.c.(*net.TCPConn).CloseWrite()
		ends(t, c, helloTimeout)
	}
	// All places are taken by peers that say nothing: a further one is turned
	// away at once, and each place is free again when its time is up.
	var silent []*conn
	for range connsMax {
		c := dial(t, addr)
		if _, err := c.read(time.Now().Add(helloTimeout)); err != nil {
			t.Fatal(err)
		}
		c.c.Write([]byte{0}) // slow: one byte of four
		silent = append(silent, c)
	}
	ends(t, dial(t, addr), time.Second)
	for _, c := range silent {
		ends(t, c, helloTimeout+2*time.Second)
	}
	c := dial(t, addr)
	if version, err := c.introduce(testToken); err != nil || version != "test" {
		t.Fatalf("%q, %v", version, err)
	}
}

// Whoever knows the token is bounded too, and runs one at a time.
func TestCoordinatorsAreBounded(t *testing.T) {
	addr := serveAgent(t)
	for name, send := range map[string]func(*conn){
		"giant length": func(c *conn) { c.c.Write(binary.BigEndian.AppendUint32(nil, orderBytesMax+1)) },
		"unknown":      func(c *conn) { c.write(&frame{Kind: "dance"}) },
		"out of turn":  func(c *conn) { c.write(&frame{Kind: kindStart}) },
		"three orders": func(c *conn) {
			for range 3 {
				c.write(&frame{Kind: kindPrepare})
			}
		},
	} {
		c := dial(t, addr)
		if _, err := c.introduce(testToken); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		send(c)
		ends(t, c, 2*time.Second)
	}
	first := dial(t, addr)
	if _, err := first.introduce(testToken); err != nil {
		t.Fatal(err)
	}
	// The agent has taken it once it answers.
	first.write(&frame{Kind: kindPing})
	if f, err := first.read(time.Now().Add(helloTimeout)); err != nil || f.Kind != kindPong {
		t.Fatalf("%+v, %v", f, err)
	}
	second := &member{conn: dial(t, addr)}
	if _, err := second.introduce(testToken); err != nil {
		t.Fatal(err)
	}
	if _, err := second.expect(kindReady, time.Now().Add(helloTimeout)); err == nil || !strings.Contains(err.Error(), "has a run already") {
		t.Errorf("error %v", err)
	}
	// What it refuses it says, and is free again.
	first.write(&frame{Kind: kindPrepare, Order: &order{Driver: "x", Scenario: "version: 1\npayload: {source: /etc/passwd}\n"}})
	if _, err := (&member{conn: first}).expect(kindReady, time.Now().Add(helloTimeout)); err == nil || !strings.Contains(err.Error(), "agents have no files") {
		t.Errorf("error %v", err)
	}
	third := &member{conn: dial(t, addr)}
	if _, err := third.introduce(testToken); err != nil {
		t.Fatal(err)
	}
	third.max = tellBytesMax
	third.write(&frame{Kind: kindPrepare, Order: &order{Driver: "x", Scenario: "version: 1\n"}})
	if _, err := third.expect(kindReady, time.Now().Add(helloTimeout)); err == nil || !strings.Contains(err.Error(), "no driver here") {
		t.Errorf("error %v", err)
	}
}
