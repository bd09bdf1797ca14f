package demo

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// built is the directory of the broker's binary, empty if no test needed it.
var built string

// buildBroker builds the broker once for all tests.
var buildBroker = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "portask-test-")
	if err != nil {
		return "", err
	}
	built = dir
	name := filepath.Join(dir, "portask")
	out, err := exec.Command("go", "build", "-buildvcs=false", "-pgo=off", "-o", name, "github.com/portask/portask/broker/cmd/portask").CombinedOutput()
	if err != nil {
		return "", errors.Join(err, errors.New(string(out)))
	}
	return name, nil
})

func TestMain(m *testing.M) {
	status := m.Run()
	if built != "" {
		os.RemoveAll(built)
	}
	os.Exit(status)
}

// log collects what the demo tells. Safe for concurrent use.
type log struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *log) line(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b.WriteString(s + "\n")
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func options(t *testing.T, l *log, out *bytes.Buffer) Options {
	t.Helper()
	name, err := buildBroker()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir) // whatever is left behind is found there
	return Options{Binary: name, Payloads: "testdata", Duration: 3 * time.Second, Rate: 4000, Event: l.line, Progress: func(string) {}, Out: out}
}

func leftBehind(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(os.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// The real broker, killed in the middle of three seconds: nothing is lost.
func TestKilledBrokerLosesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a broker")
	}
	var l log
	var out bytes.Buffer
	if err := Run(context.Background(), options(t, &l, &out)); err != nil {
		t.Fatalf("%v\n%s%s", err, l.String(), out.String())
	}
	for _, want := range []string{"12,000 sent, 12,000 acknowledged, 12,000 delivered", "fault kill", "target's process"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
	for _, want := range []string{"kill for 500ms begins", "serves on the same data and port"} {
		if !strings.Contains(l.String(), want) {
			t.Errorf("no %q in:\n%s", want, l.String())
		}
	}
	goleak.VerifyNone(t)
	if names := leftBehind(t); len(names) > 0 {
		t.Errorf("left behind: %v", names)
	}
}

func TestInterruptStopsEverything(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a broker")
	}
	var l log
	var out bytes.Buffer
	o := options(t, &l, &out)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	o.Duration = time.Minute
	o.Progress = func(string) { cancel() }
	err := Run(ctx, o)
	if !errors.Is(err, ErrUnfinished) {
		t.Errorf("error %v, want ErrUnfinished\n%s", err, out.String())
	}
	if !strings.Contains(out.String(), "interrupted") {
		t.Errorf("the table does not say so:\n%s", out.String())
	}
	goleak.VerifyNone(t)
	if names := leftBehind(t); len(names) > 0 {
		t.Errorf("left behind: %v", names)
	}
	for line := range strings.Lines(l.String()) {
		if pid, ok := strings.CutPrefix(line, "broker: process "); ok {
			pid, _, _ = strings.Cut(pid, " ")
			if _, err := os.Stat("/proc/self"); err != nil {
				return
			}
			if _, err := os.Stat("/proc/" + pid); err == nil {
				t.Errorf("broker process %s is still there", pid)
			}
			return
		}
	}
	t.Errorf("no process was named:\n%s", l.String())
}

func TestMissingBrokerIsExplained(t *testing.T) {
	o := Options{Binary: filepath.Join(t.TempDir(), "nothing"), Payloads: "testdata", Event: func(string) {}, Out: new(bytes.Buffer)}
	if err := Run(context.Background(), o); err == nil || !strings.Contains(err.Error(), "nothing") {
		t.Errorf("error %v", err)
	}
	o.Payloads = t.TempDir()
	if err := Run(context.Background(), o); err == nil || !strings.Contains(err.Error(), "no file") {
		t.Errorf("empty payload directory: %v", err)
	}
}
