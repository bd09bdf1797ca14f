// Package launchtest starts real brokers for tests.
package launchtest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/portask/portask/loadgen/launch"
)

var (
	mu     sync.Mutex
	binary string // built; guarded by mu
)

func build() (string, error) {
	mu.Lock()
	defer mu.Unlock()
	if binary != "" {
		return binary, nil
	}
	dir, err := os.MkdirTemp("", "portask-launchtest-")
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "portask")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-pgo=off", "-o", name, "github.com/portask/portask/broker/cmd/portask").CombinedOutput(); err != nil {
		os.RemoveAll(dir)
		return "", fmt.Errorf("build the broker: %w\n%s", err, out)
	}
	binary = name
	return name, nil
}

// Main is a package's TestMain: it runs the tests and removes the binary that
// Start built. extra runs after the tests and may fail them.
func Main(m *testing.M, extra ...func() error) {
	code := m.Run()
	for _, f := range extra {
		if err := f(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	mu.Lock()
	if binary != "" {
		os.RemoveAll(filepath.Dir(binary))
	}
	mu.Unlock()
	os.Exit(code)
}

// Binary builds the broker, once for a test binary.
func Binary(t testing.TB) string {
	t.Helper()
	name, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// Start builds the broker, once for a test binary, and starts it on a free port
// with its data in a directory of the test's. It is killed at the test's end.
func Start(t testing.TB, args ...string) *launch.Broker {
	t.Helper()
	name := Binary(t)
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	b, err := launch.Start(ctx, launch.Options{
		Binary: name, Data: filepath.Join(dir, "data"), Listen: "127.0.0.1:0",
		AddrFile: filepath.Join(dir, "addr"), LogFile: filepath.Join(dir, "broker.log"), Args: args,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Kill)
	return b
}
