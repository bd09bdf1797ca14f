package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portask/portask/broker/client"
	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

// TestWaiting is the story of a command whose broker goes away twice.
func TestWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out lockedText
		var now waitState
		w := &waiting{op: "produce t", stderr: &out, limit: 10 * time.Second}
		be := func(s waitState) { w.on(func() waitState { return s }); now = s }
		be(waitState{})
		ctx, end := context.WithCancelCause(t.Context())
		defer end(nil)
		ended := make(chan struct{})
		go func() { defer close(ended); w.run(ctx, end) }()
		pass := func(d time.Duration, want string) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if got := out.take(); got != want {
				t.Fatalf("%v of %+v: %q, want %q", d, now, got, want)
			}
		}
		pass(time.Minute, "") // nothing is waited for
		be(waitState{what: "an answer", limit: true})
		pass(1900*time.Millisecond, "") // a broker that restarts
		be(waitState{what: "an answer", done: 1, limit: true})
		pass(1900*time.Millisecond, "") // the wait began anew
		be(waitState{what: "no connection: lost", done: 1, limit: true})
		pass(time.Second, "portask: waiting: no connection: lost\n")
		be(waitState{what: "no connection: refused", done: 1, limit: true})
		pass(time.Second, "") // too soon to speak again
		pass(5*time.Second, "portask: waiting: no connection: refused\n")
		be(waitState{what: "an answer", done: 2, limit: true})
		pass(time.Second, "portask: goes on after 8.9s\n")
		pass(8*time.Second, "portask: waiting: an answer\n")
		select {
		case <-ended:
			t.Fatal("it ended before the limit")
		default:
		}
		pass(1200*time.Millisecond, "")
		<-ended
		if err := context.Cause(ctx); fault.CodeOf(err) != fault.Timeout || !strings.Contains(err.Error(), "an answer") {
			t.Fatalf("at the limit: %v", err)
		}
	})
}

// lockedText is what several goroutines write.
type lockedText struct {
	mu sync.Mutex
	b  strings.Builder
}

func (w *lockedText) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(b)
}

func (w *lockedText) take() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.b.Reset()
	return w.b.String()
}

// TestWaitingForever: a wait without limit ends with the context.
func TestWaitingForever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		w := &waiting{stderr: &out, limit: time.Second, state: func() waitState { return waitState{what: "a broker"} }}
		ctx, end := context.WithCancelCause(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); w.run(ctx, end) }()
		time.Sleep(time.Hour)
		end(nil)
		<-ended
		if out.String() != "portask: waiting: a broker\n" || !errors.Is(context.Cause(ctx), context.Canceled) {
			t.Fatalf("%q, %v", out.String(), context.Cause(ctx))
		}
	})
}

// TestBrokerGone: the broker is killed while a command produces and another
// follows. They say what they wait for, and go on when another broker serves the
// same log; every line arrives.
func TestBrokerGone(t *testing.T) {
	dir := t.TempDir()
	first := startProcess(t, "--data", dir, "--listen", "127.0.0.1:0")
	g := &globals{server: first.addr, output: "table", timeout: patience}
	c, err := g.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Admin().CreateTopic(t.Context(), client.TopicConfig{Name: "t"}); err != nil {
		t.Fatal(err)
	}
	c.Close()
	path, err := exec.LookPath("portask")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "produce", "t", "--server", first.addr, "--timeout", patience.String())
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	producer := follow(t, cmd)
	say := func(s string) {
		t.Helper()
		if _, err := io.WriteString(stdin, s+"\n"); err != nil {
			t.Fatal(err)
		}
	}
	consume := exec.Command(path, "consume", "t", "--server", first.addr, "--from", "earliest", "--follow", "--count", "3")
	printed, err := consume.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	consumer := follow(t, consume)
	lines := bufio.NewReader(printed)
	say("one")
	visible(t, g, 1)
	if line, err := lines.ReadString('\n'); err != nil { // it has connected
		t.Fatal(line, err)
	}
	first.cmd.Process.Kill()
	first.rest.Wait()
	say("two")
	producer.until("portask: waiting: no connection to " + first.addr)
	consumer.until("portask: waiting: no connection to " + first.addr)
	startProcess(t, "--data", dir, "--listen", first.addr)
	say("three")
	producer.until("portask: goes on after ")
	stdin.Close()
	visible(t, g, 3)
	producer.rest.Wait()
	if err := cmd.Wait(); err != nil {
		t.Fatalf("the producer ended with %v", err)
	}
	if _, err := io.Copy(io.Discard, lines); err != nil {
		t.Fatal(err)
	}
	consumer.rest.Wait()
	if err := consumer.cmd.Wait(); err != nil {
		t.Fatalf("the consumer ended with %v", err)
	}
}

// follow starts a command of the binary whose standard error is read line by
// line.
func follow(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: cmd, lines: make(chan string, 10_000)}
	p.rest.Go(func() {
		defer close(p.lines)
		for s := bufio.NewScanner(stderr); s.Scan(); {
			p.lines <- s.Text()
		}
	})
	t.Cleanup(func() {
		cmd.Process.Kill()
		p.rest.Wait()
	})
	return p
}

// visible waits until the topic t has n messages.
func visible(t *testing.T, g *globals, n message.Offset) {
	t.Helper()
	c, err := g.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for deadline := time.Now().Add(patience); ; {
		o, err := c.Admin().ListOffsets(t.Context(), "t", 0, client.Latest)
		if err == nil && o.HWM == n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("offsets %+v, %v: want %d messages", o, err, n)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
