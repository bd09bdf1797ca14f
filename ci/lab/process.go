// Package lab starts servers and clients as processes of their own and measures
// the servers: throughput, CPU per message, system calls per batch, bytes per
// connection, time to start. It knows binaries and text only, nothing of the
// broker's packages.
//
// Whatever a Lab starts it stops, by process id, when the context ends or the
// measurement returns.
package lab

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/portask/portask/broker/sysmetrics"
)

// Lab is a set of binaries and a place to work. Its methods may be called one
// after another; measurements side by side would disturb each other.
type Lab struct {
	Portask, Loadgen, Perflab string // binaries
	// Dir is the directory for data of servers; each measurement makes its own
	// below it and removes it.
	Dir string
}

// New finds the binaries beside this program, which is how `make build` places
// them, and checks that they are there.
func New(dir string) (*Lab, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	l := &Lab{
		Portask: filepath.Join(filepath.Dir(self), "portask"),
		Loadgen: filepath.Join(filepath.Dir(self), "loadgen"),
		Perflab: self,
		Dir:     dir,
	}
	for _, b := range []string{l.Portask, l.Loadgen} {
		if _, err := os.Stat(b); err != nil {
			return nil, fmt.Errorf("%w (make build places portask and loadgen beside perflab)", err)
		}
	}
	return l, nil
}

// scratch makes a directory for one measurement.
func (l *Lab) scratch() (dir string, remove func(), err error) {
	dir, err = os.MkdirTemp(l.Dir, "portask-lab-")
	if err != nil {
		return "", nil, err
	}
	return dir, func() { os.RemoveAll(dir) }, nil
}

const (
	// startTimeout bounds the wait for a server's address.
	startTimeout = 60 * time.Second
	// stopTimeout bounds a graceful stop; SIGKILL follows.
	stopTimeout = 20 * time.Second
)

// process is one started command. wait ends it; stop and kill are idempotent.
type process struct {
	name   string
	cmd    *exec.Cmd
	stderr *tail
	ended  chan struct{}
	err    error // of Wait; valid once ended is closed
}

// start runs a command whose end is noticed even if nobody waits. The process
// gets SIGKILL when ctx ends.
func start(ctx context.Context, name, binary string, args []string, stdin io.Reader, stdout io.Writer) (*process, error) {
	p := &process{name: name, stderr: new(tail), ended: make(chan struct{})}
	p.cmd = exec.CommandContext(ctx, binary, args...)
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = stdin, stdout, p.stderr
	ownGroup(p.cmd)
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// failed explains a process's end by what it said last.
func (p *process) failed(what string) error {
	<-p.ended
	err := p.err
	if err == nil {
		err = errors.New("it ended without an error")
	}
	return fmt.Errorf("%s %s: %w; its last words: %s", p.name, what, err, p.stderr)
}

func (p *process) signal(s os.Signal, wait time.Duration) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	select {
	case <-p.ended:
		return nil
	case <-time.After(wait):
		p.kill()
		return fmt.Errorf("%s did not stop within %v of %v; its last words: %s", p.name, wait, s, p.stderr)
	}
}

func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.ended
}

// tail keeps the last bytes written to it. Safe for concurrent use.
type tail struct {
	mu sync.Mutex
	b  []byte
}

const tailBytes = 4 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if n := len(t.b) - tailBytes; n > 0 {
		t.b = append(t.b[:0], t.b[n:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.b))
}

// server is a running kernel or broker.
type server struct {
	*process
	addr    string
	metrics *sysmetrics.Process
}

// startServer runs a command that writes its address to addrFile once it serves.
func startServer(ctx context.Context, name, binary string, args []string, addrFile string, stdout io.Writer) (*server, error) {
	p, err := start(ctx, name, binary, args, nil, stdout)
	if err != nil {
		return nil, err
	}
	deadline := time.After(startTimeout)
	for {
		b, err := os.ReadFile(addrFile)
		if err == nil && len(b) > 0 {
			m, err := sysmetrics.OpenProcess(p.cmd.Process.Pid)
			if err != nil {
				p.kill()
				return nil, err
			}
			return &server{process: p, addr: strings.TrimSpace(string(b)), metrics: m}, nil
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			p.kill()
			return nil, err
		}
		select {
		case <-p.ended:
			return nil, p.failed("did not start")
		case <-deadline:
			p.kill()
			return nil, fmt.Errorf("%s wrote no address to %s within %v", name, addrFile, startTimeout)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// client is a process that reads commands line by line and answers each with a
// line of JSON, after a first line "ready".
type client struct {
	*process
	in    io.WriteCloser
	lines chan []byte
}

func startClient(ctx context.Context, name, binary string, args []string) (*client, error) {
	inR, inW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		inR.Close()
		inW.Close()
		return nil, err
	}
	p, err := start(ctx, name, binary, args, inR, outW)
	inR.Close()
	outW.Close()
	if err != nil {
		inW.Close()
		outR.Close()
		return nil, err
	}
	c := &client{process: p, in: inW, lines: make(chan []byte, 16)}
	go func() {
		defer close(c.lines)
		defer outR.Close()
		for s := bufio.NewScanner(outR); s.Scan(); {
			c.lines <- bytes.Clone(s.Bytes())
		}
	}()
	first, err := c.line(ctx)
	if err == nil && string(first) != "ready" {
		err = fmt.Errorf("%s began with %q", name, first)
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *client) send(line string) error {
	_, err := io.WriteString(c.in, line+"\n")
	return err
}

func (c *client) line(ctx context.Context) ([]byte, error) {
	select {
	case b, ok := <-c.lines:
		if !ok {
			return nil, c.failed("closed its output")
		}
		return b, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// answer reads one line of JSON into v.
func (c *client) answer(ctx context.Context, v any) error {
	b, err := c.line(ctx)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s answered %q: %w", c.name, b, err)
	}
	return nil
}

// close ends the client's input, which ends the client.
func (c *client) close() {
	c.in.Close()
	select {
	case <-c.ended:
	case <-time.After(5 * time.Second):
		c.kill()
	}
	for range c.lines {
	}
}
