package command

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portask/portask/loadgen/search"
)

// A search through the command line, of a target that sustains all that is
// allowed, or was too much for this machine.
func TestSearchCommand(t *testing.T) {
	file := filepath.Join(t.TempDir(), "search.json")
	out, status := do(t, "search", "--p99", "1s", "--p50", "500ms", "--from", "200", "--max", "800", "--resolution", "0.4", "--probe", "200ms", "--warmup", "50ms",
		"--size", "100", "--payload", "text", "--drain", "1s", "--json", file)
	var res search.Result
	data, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(data, &res)
	}
	if err != nil || res.Schema != search.Schema || len(res.Points) < 3 || len(res.Curve) == 0 || res.System != "loopback" || res.Hash == "" {
		t.Fatalf("status %d, %v: %s", status, err, out)
	}
	if status != res.ExitStatus() || !strings.Contains(out, res.String()) || !strings.Contains(out, "e2e_p50 at most 500ms and e2e_p99 at most 1s") || strings.Count(out, "bracket") < 3 {
		t.Errorf("status %d, want %d:\n%s", status, res.ExitStatus(), out)
	}
	if out, status := do(t, "search", "--p99", "1s", "--driver-set", "drop=10", "--probe", "100ms", "--warmup", "20ms", "--max", "1000", "--drain", "100ms", "--quiet", "--probes", "3"); status != 4 || !strings.Contains(out, "messages were lost") {
		t.Errorf("a target that drops messages: status %d\n%s", status, out)
	}
	for says, args := range map[string][]string{
		"no objective":         {"search"},
		"a closed loop":        {"search", "--p99", "1s", "--mode", "closed"},
		"faults":               {"search", "--p99", "1s", "partitioned"},
		"want one of":          {"search", "--p99", "1s", "--latency", "lag"},
		"want 0.005 to 0.5":    {"search", "--p99", "1s", "--resolution", "2"},
		"want them in order":   {"search", "--p99", "1s", "--from", "1"},
		"phases.1.duration":    {"search", "--p99", "1s", "--probe", "1ms"},
		"a duration, 1us to 1": {"search", "--p99", "1h"},
	} {
		if out, status := do(t, args...); status != 1 || !strings.Contains(strings.ReplaceAll(out, "µ", "u"), says) {
			t.Errorf("%s: status %d, no %q in %s", args, status, says, out)
		}
	}
}
