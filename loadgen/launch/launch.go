// Package launch starts and stops a broker as a process of its own, for runs
// that bring their broker along. Nothing it started is left behind: not after
// an error, a Ctrl-C or, on Linux, the death of this program.
package launch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Options of a broker.
type Options struct {
	Binary string // portask
	Data   string // data directory
	Listen string // address; port 0 takes a free one
	// AddrFile receives the address; it is removed first.
	AddrFile string
	// LogFile receives standard output and error, appended.
	LogFile string
	Args    []string // more arguments of `portask serve`
}

// Broker is a running broker. Its methods are for one goroutine.
type Broker struct {
	cmd   *exec.Cmd
	addr  string
	ended chan struct{}
	err   error // of Wait; valid once ended is closed
}

// Start runs a broker and waits until it serves. It must be ended with Kill or
// Stop, whatever becomes of ctx, which bounds the wait only.
func Start(ctx context.Context, o Options) (*Broker, error) {
	if err := os.Remove(o.AddrFile); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	args := append([]string{"serve", "--data", o.Data, "--listen", o.Listen, "--addr-file", o.AddrFile}, o.Args...)
	return Command(ctx, exec.Command(o.Binary, args...), o.LogFile, func() (string, error) {
		text, err := os.ReadFile(o.AddrFile)
		if errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		return strings.TrimSpace(string(text)), err
	})
}

// Command is Start for any server: cmd, whose output is appended to logFile,
// serves once ready returns an address. ready is asked every few milliseconds;
// its error ends the attempt.
func Command(ctx context.Context, cmd *exec.Cmd, logFile string, ready func() (addr string, err error)) (*Broker, error) {
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o666)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	b := &Broker{cmd: cmd, ended: make(chan struct{})}
	b.cmd.Stdout, b.cmd.Stderr = log, log
	setProcess(b.cmd)
	if err := b.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	go func() {
		b.err = b.cmd.Wait()
		close(b.ended)
	}()
	for {
		b.addr, err = ready()
		if err != nil {
			b.Kill()
			return nil, err
		}
		if b.addr != "" {
			return b, nil
		}
		select {
		case <-b.ended:
			return nil, fmt.Errorf("%s ended before it served: %w; its last words: %s", cmd.Path, orNone(b.err), lastLines(logFile))
		case <-ctx.Done():
			b.Kill()
			return nil, fmt.Errorf("%s does not serve: %w; its last words: %s", cmd.Path, ctx.Err(), lastLines(logFile))
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func orNone(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// Addr is where it serves.
func (b *Broker) Addr() string { return b.addr }

// PID is its process.
func (b *Broker) PID() int { return b.cmd.Process.Pid }

// Ended is closed when the process has ended, for whatever reason.
func (b *Broker) Ended() <-chan struct{} { return b.ended }

// Kill sends SIGKILL and waits for the end.
func (b *Broker) Kill() {
	b.cmd.Process.Kill() // an error means that it ended before
	<-b.ended
}

// Stop asks for a graceful end, and kills what has not ended after timeout:
// that is an error, as is an exit status other than 0.
func (b *Broker) Stop(timeout time.Duration) error {
	select {
	case <-b.ended:
		return nil
	default:
	}
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		b.Kill()
		return fmt.Errorf("stop the broker: %w", err)
	}
	select {
	case <-b.ended:
		if b.err != nil {
			return fmt.Errorf("the broker's graceful stop: %w", b.err)
		}
		return nil
	case <-time.After(timeout):
		b.Kill()
		return fmt.Errorf("the broker did not stop within %v and was killed", timeout)
	}
}

// lastLines is the end of a log, for an error's text.
func lastLines(name string) string {
	b, err := os.ReadFile(name)
	if err != nil {
		return err.Error()
	}
	const most = 1000
	b = b[max(0, len(b)-most):]
	return strings.TrimSpace(string(b))
}
