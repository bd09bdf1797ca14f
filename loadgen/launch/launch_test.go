package launch

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// role makes this test binary a broker that serves nothing.
const role = "LAUNCH_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "":
		os.Exit(m.Run())
	case "refuse":
		os.Stderr.WriteString("data directory in use\n")
		os.Exit(7)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	if os.Getenv(role) != "silent" {
		i := slices.Index(os.Args, "--addr-file")
		os.WriteFile(os.Args[i+1], []byte("127.0.0.1:9\n"), 0o666)
	}
	for range stop {
		if os.Getenv(role) != "stubborn" {
			os.Exit(0)
		}
	}
}

func options(t *testing.T, as string) Options {
	t.Helper()
	t.Setenv(role, as)
	dir := t.TempDir()
	return Options{Binary: os.Args[0], Data: dir, Listen: "127.0.0.1:0", AddrFile: filepath.Join(dir, "addr"), LogFile: filepath.Join(dir, "log")}
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

func TestStartAndStop(t *testing.T) {
	o := options(t, "serve")
	if err := os.WriteFile(o.AddrFile, []byte("of an earlier one"), 0o666); err != nil {
		t.Fatal(err)
	}
	b, err := Start(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	if b.Addr() != "127.0.0.1:9" || !alive(b.PID()) {
		t.Errorf("address %q, alive %v", b.Addr(), alive(b.PID()))
	}
	for range 2 { // the second time there is nothing to do
		if err := b.Stop(10 * time.Second); err != nil {
			t.Error(err)
		}
	}
	if alive(b.PID()) {
		t.Error("alive after Stop")
	}
}

func TestKill(t *testing.T) {
	b, err := Start(context.Background(), options(t, "stubborn"))
	if err != nil {
		t.Fatal(err)
	}
	b.Kill()
	if alive(b.PID()) {
		t.Error("alive after Kill")
	}
	b.Kill()
}

func TestStopKillsTheStubborn(t *testing.T) {
	b, err := Start(context.Background(), options(t, "stubborn"))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Stop(50 * time.Millisecond); err == nil || alive(b.PID()) {
		t.Errorf("error %v, alive %v", err, alive(b.PID()))
	}
}

func TestStartExplainsFailure(t *testing.T) {
	_, err := Start(context.Background(), options(t, "refuse"))
	if err == nil || !strings.Contains(err.Error(), "data directory in use") || !strings.Contains(err.Error(), "exit status 7") {
		t.Errorf("error %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := Start(ctx, options(t, "silent")); err == nil {
		t.Error("a broker that never serves was accepted")
	}
}
