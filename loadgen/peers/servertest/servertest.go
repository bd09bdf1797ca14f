// Package servertest starts the real servers for tests.
package servertest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/portask/portask/loadgen/launch/launchtest"
	"github.com/portask/portask/loadgen/peers/server"
)

// Main is a package's TestMain. The test binary is also the nats-server that the
// tests start. extra runs after the tests and may fail them.
func Main(m *testing.M, extra ...func() error) {
	if len(os.Args) > 1 && os.Args[1] == server.NATSCommand {
		if err := server.RunNATS(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	launchtest.Main(m, extra...)
}

// NATS starts a nats-server of the test's.
func NATS(t testing.TB, jetStream, syncAlways bool) *server.Server {
	t.Helper()
	return started(t)(server.NATS(t.Context(), server.Options{Dir: t.TempDir(), Program: os.Args[0]}, jetStream, syncAlways))
}

// Redis starts a redis-server of the test's, which is installed if it is
// missing.
func Redis(t testing.TB, persistence string) *server.Server {
	t.Helper()
	if err := needRedis(); err != nil {
		t.Fatal(err)
	}
	return started(t)(server.Redis(t.Context(), server.Options{Dir: t.TempDir()}, persistence))
}

func started(t testing.TB) func(*server.Server, error) *server.Server {
	return func(s *server.Server, err error) *server.Server {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Kill)
		return s
	}
}

// needRedis runs the repository's .ci/need once.
var needRedis = sync.OnceValue(func() error {
	if _, err := exec.LookPath("redis-server"); err == nil {
		return nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	for {
		need := filepath.Join(dir, ".ci", "need")
		if _, err := os.Stat(need); err == nil {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
			defer cancel()
			out, err := exec.CommandContext(ctx, need, "redis-server", "redis-server").CombinedOutput()
			fmt.Fprintf(os.Stderr, "%s", out)
			if err != nil {
				return fmt.Errorf("install redis-server: %w", err)
			}
			return nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return server.ErrNoRedis
		}
		dir = parent
	}
})
