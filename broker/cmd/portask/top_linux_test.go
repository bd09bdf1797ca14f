package main

import (
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is the user's side of a pseudo terminal, pty(7).
type terminal struct {
	t    *testing.T
	f    *os.File
	mu   sync.Mutex
	seen strings.Builder
	more chan struct{} // capacity 1
}

// onTerminal starts a command on a terminal of its own.
func onTerminal(t *testing.T, cmd *exec.Cmd, columns, lines uint16) *terminal {
	t.Helper()
	f, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo terminals here: %v", err)
	}
	t.Cleanup(func() { f.Close() })
	fd := int(f.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	x := &terminal{t: t, f: f, more: make(chan struct{}, 1)}
	x.resize(columns, lines)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the file
		for b := make([]byte, 4096); ; {
			n, err := f.Read(b)
			x.mu.Lock()
			x.seen.Write(b[:n])
			x.mu.Unlock()
			select {
			case x.more <- struct{}{}:
			default:
			}
			if err != nil {
				return
			}
		}
	}()
	return x
}

func (x *terminal) resize(columns, lines uint16) {
	x.t.Helper()
	if err := unix.IoctlSetWinsize(int(x.f.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: lines, Col: columns}); err != nil {
		x.t.Fatal(err)
	}
}

func (x *terminal) press(keys string) {
	x.t.Helper()
	if _, err := io.WriteString(x.f, keys); err != nil {
		x.t.Fatal(err)
	}
}

// until waits for texts that no earlier call has seen, in any order: what of the
// screen is drawn before the first figures come, and not again, is chance.
func (x *terminal) until(texts ...string) {
	x.t.Helper()
	timeout := time.After(patience)
	for {
		x.mu.Lock()
		all := x.seen.String()
		end, missing := 0, ""
		for _, text := range texts {
			i := strings.Index(all, text)
			if i < 0 {
				missing = text
			}
			end = max(end, i+len(text))
		}
		if missing == "" {
			x.seen.Reset()
			x.seen.WriteString(all[end:])
		}
		x.mu.Unlock()
		if missing == "" {
			return
		}
		select {
		case <-x.more:
		case <-timeout:
			x.t.Fatalf("the terminal did not get %q: %q", missing, all)
		}
	}
}

// TestTopTerminal is the real command on a terminal: it takes the screen, follows
// a change of size and keys, says that the broker is gone, and gives the screen
// back.
func TestTopTerminal(t *testing.T) {
	addr, gone := fakeAdmin(t)
	path, err := exec.LookPath("portask")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "top", "--admin", addr, "--interval", "100ms")
	cmd.Env = append(os.Environ(), "TERM=xterm-256color", "LC_ALL=C.UTF-8", "NO_COLOR=1")
	x := onTerminal(t, cmd, 80, 24)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer cmd.Process.Kill()
	x.until("\x1b[?1049h") // the other screen
	x.until("portask top", "msg/s", "evil?[2J", "quit")
	x.press("?")
	x.until("figures stay as they are")
	x.press("?")
	x.resize(140, 40)
	x.until("VISIBLE")
	gone.Store(true)
	x.until("STALE")
	gone.Store(false)
	x.until("ready")
	x.press("q")
	x.until("\x1b[?1049l")
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("it does not end")
	}
}
