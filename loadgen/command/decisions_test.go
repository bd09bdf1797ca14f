package command

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portask/portask/loadgen/launch/launchtest"
)

// What all producers of a run decide is in one log, which perflab policy replay
// reads; its own tests and the client's hold that it makes the same decisions again.
func TestRunRecordsDecisions(t *testing.T) {
	b := launchtest.Start(t)
	log := filepath.Join(t.TempDir(), "decisions")
	out, status := do(t, "run", "--addr", b.Addr(), "--driver", "portask", "--compression", "adaptive", "--producers", "3", "--ack", "accepted", "--mode", "closed",
		"--size", "2000", "--duration", "1s", "--decision-log", log)
	if status != 0 && status != 3 { // the machine may be too busy for figures
		t.Fatalf("exit status %d:\n%s", status, out)
	}
	got, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) < 300 || !bytes.HasPrefix(got, []byte("PADL\x01")) || bytes.Count(got, []byte("PADL")) != 1 {
		t.Fatalf("%d bytes, which begin with %.20q", len(got), got)
	}
	// Each producer says once who it is.
	if n := bytes.Count(got, []byte("portask-loadgen ")); n != 3 {
		t.Errorf("%d producers in the log, want 3:\n%s", n, out)
	}

	if _, err := os.Stat("/dev/full"); err == nil {
		out, status := do(t, "run", "--addr", b.Addr(), "--driver", "portask", "--compression", "adaptive", "--ack", "accepted", "--duration", "300ms", "--rate", "1000",
			"--decision-log", "/dev/full")
		if status == 0 || !strings.Contains(out, "--decision-log: write /dev/full") {
			t.Errorf("exit status %d of a log that cannot be written:\n%s", status, out)
		}
	}
}

// A log of nothing is refused before anything runs.
func TestDecisionLogIsRefused(t *testing.T) {
	log := filepath.Join(t.TempDir(), "decisions")
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--driver", "loopback", "--compression", "adaptive"}, "producers of loopback do not decide"},
		{[]string{"--driver", "portask", "--compression", "always:zstd"}, "producers.compression is always:zstd"},
		{[]string{"--driver", "portask"}, "producers.compression is never"},
		{[]string{"--driver", "portask", "--compression", "adaptive", "--agents", "127.0.0.1:1"}, "excludes --agents"},
		{[]string{"--driver", "portask", "--compression", "adaptive", "--decision-log", t.TempDir()}, "is a directory"},
	} {
		out, status := do(t, append([]string{"run", "--decision-log", log}, c.args...)...)
		if status != 1 || !strings.Contains(out, "--decision-log") || !strings.Contains(out, c.want) {
			t.Errorf("%q: exit status %d, want %q:\n%s", c.args, status, c.want, out)
		}
	}
	if _, err := os.Stat(log); err == nil {
		t.Error("a file was made")
	}
}
