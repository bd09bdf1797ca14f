package command

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portask/portask/loadgen/launch/launchtest"
	"github.com/portask/portask/loadgen/load"
)

func TestMain(m *testing.M) { launchtest.Main(m) }

// The command brings a broker along, kills it in the middle and leaves nothing.
func TestRunWithABrokerOfItsOwn(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a broker")
	}
	binary := launchtest.Binary(t)
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	file := filepath.Join(dir, "result.json")
	out, status := do(t, "run", "broker-killed", "--driver", "portask", "--start-broker", binary, "--json", file, "--rate", "1000", "--warmup", "200ms", "--duration", "2s",
		"--set", "faults.0.at=500ms", "--set", "faults.1.at=1200ms", "--set", "faults.1.for=100ms")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("status %d, %v: %s", status, err, out)
	}
	var res load.Result
	if err := json.Unmarshal(data, &res); err != nil {
		t.Fatal(err)
	}
	// Whether the latencies mean anything is the machine's affair.
	if status != 0 && status != 3 || len(res.Violations) > 0 || len(res.Faults) != 2 || res.Counts.Sent != 2200 || res.Target == nil || res.Target.CPUSeconds == 0 {
		t.Errorf("status %d, violations %v, faults %v, counts %+v, target %+v", status, res.Violations, res.Faults, res.Counts, res.Target)
	}
	for _, want := range []string{"fault kill", "serves on the same data and port"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	os.Remove(file)
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestRigRefuses(t *testing.T) {
	for name, args := range map[string][]string{
		"want --start-broker": {"run", "broker-killed"},
		"excludes --addr":     {"run", "--driver", "portask", "--start-broker", "x", "--addr", "127.0.0.1:1"},
		"other drivers":       {"run", "--driver", "loopback", "--start-broker", "x"},
		"start x":             {"run", "--driver", "portask", "--start-broker", "x"},
		"want a duration":     {"run", "--driver", "portask", "--driver-set", "heartbeat=1"},
	} {
		if out, status := do(t, args...); status != 1 || !strings.Contains(out, name) {
			t.Errorf("%s: status %d, %s", args, status, out)
		}
	}
}
