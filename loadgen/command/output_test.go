package command

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portask/portask/loadgen/report/folder"
)

// A run leaves its directory, from which the reports come again; its exit status
// is that of the reports, too.
func TestRunOut(t *testing.T) {
	admin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(`{"version": "9", "uptime_ns": 1}`))
	}))
	defer admin.Close()
	dir := filepath.Join(t.TempDir(), "out")
	run := []string{"run", "--quiet", "--driver", "loopback", "--mode", "closed", "--duration", "1500ms", "--warmup", "200ms", "--out", dir, "--admin", admin.URL, "--profile", "0",
		"--label", "role=head", "--pid", "0"}
	out, status := do(t, run...)
	if status != 0 || !strings.Contains(out, filepath.Join(dir, folder.Page)) {
		t.Fatalf("status %d: %s", status, out)
	}
	for _, name := range []string{folder.Result, folder.Log, folder.Intervals, folder.Bench, folder.Page, folder.Summary, folder.Scenario, folder.Evidence + "/stats-after.json"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if out, status := do(t, run...); status != 1 || !strings.Contains(out, "not overwritten") {
		t.Errorf("a second run into it: status %d: %s", status, out)
	}

	page := filepath.Join(dir, folder.Page)
	if err := os.Remove(page); err != nil {
		t.Fatal(err)
	}
	if out, status := do(t, "report", dir); status != 0 || strings.TrimSpace(out) != page {
		t.Errorf("status %d: %s", status, out)
	}
	if _, err := os.Stat(page); err != nil {
		t.Error(err)
	}
	for format, want := range map[string]string{
		"table": "delivered and verified", "json": `"schema": `, "csv": "start_s,", "md": "# adhoc: VALID", "bench": "role: head\nBenchmarkLoad/", "html": "<!doctype html>",
	} {
		if out, status := do(t, "report", filepath.Join(dir, folder.Result), "--format", format); status != 0 || !strings.Contains(out, want) {
			t.Errorf("%s: status %d, no %q in %.200q", format, status, want, out)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, folder.Result)); err != nil || !strings.Contains(string(b), `"version": "9"`) {
		t.Errorf("the result says nothing of the admin listener: %v", err)
	}

	for _, args := range [][]string{
		{"report"}, {"report", t.TempDir()}, {"report", dir, "--format", "pdf"}, {"run", "--driver", "loopback", "--label", "Role=x"}, {"run", "--driver", "loopback", "--label", "role"},
		{"run", "--driver", "loopback", "--out", page}, {"run", "--driver", "loopback", "--out", filepath.Join(t.TempDir(), "x"), "--admin", "no such:thing:1"},
	} {
		if out, status := do(t, args...); status != 1 {
			t.Errorf("%v: status %d: %.200s", args, status, out)
		}
	}
}

// A run that cannot begin leaves no directory.
func TestRunOutThatFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	if out, status := do(t, "run", "--quiet", "--driver", "loopback", "--payload", "nothing", "--out", dir); status != 1 {
		t.Errorf("status %d: %s", status, out)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("there is %s: %v", dir, err)
	}
}

// What could not be written after the run, or asked during it, is found before
// anything is started: there is no run, and no file.
func TestOutputsAreTriedFirst(t *testing.T) {
	dir := t.TempDir()
	nowhere, there := filepath.Join(dir, "no", "such", "file"), filepath.Join(dir, "there")
	if err := os.WriteFile(there, []byte("kept"), 0o666); err != nil {
		t.Fatal(err)
	}
	other := httptest.NewServer(http.NotFoundHandler()) // listens, but is no broker
	defer other.Close()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	fresh := filepath.Join(dir, "fresh")
	run := []string{"run", "--driver", "loopback", "--addr", "nowhere", "--quiet"}
	for want, args := range map[string][]string{
		"--json: open " + nowhere:  append(run, "--json", nowhere),
		"--json: open " + dir:      append(run, "--json", dir),
		"--bench: open " + nowhere: append(run, "--bench", nowhere, "--json", there),
		"--slopes: open":           {"soak", "--driver", "loopback", "--for", "10s", "--quiet", "--slopes", nowhere, "--bench", fresh},
		"--json: open":             {"search", "--driver", "loopback", "--p99", "1ms", "--json", nowhere},
		"--json:":                  {"conns", "5", "--json", nowhere},
		"--admin: GET":             append(run, "--admin", other.URL),
		"connection refused":       append(run, "--admin", gone.URL),
	} {
		if out, status := do(t, args...); status != 1 || !strings.Contains(out, want) {
			t.Errorf("%v: status %d, want %q: %.300s", args, status, want, out)
		}
	}
	if b, err := os.ReadFile(there); err != nil || string(b) != "kept" {
		t.Errorf("what was there is now %q, %v", b, err)
	}
	if _, err := os.Stat(fresh); !os.IsNotExist(err) {
		t.Errorf("the attempt left %s: %v", fresh, err)
	}
}

// A message names the flag that was given.
func TestProblemsNameTheirFlag(t *testing.T) {
	for want, args := range map[string][]string{
		"--rate: phases.0.rate":         {"run", "--driver", "loopback", "--rate", "-1"},
		"--size: payload.size":          {"run", "--driver", "loopback", "--size", "1..x"},
		"--ack: producers.ack":          {"search", "--driver", "loopback", "--p99", "1ms", "--ack", "perhaps"},
		"--set: producers.ack":          {"run", "--driver", "loopback", "--ack", "durable", "--set", "producers.ack=perhaps"},
		"N: connections.count":          {"conns", "many"},
		"--steps: connections.steps":    {"conns", "5", "--steps", "x"},
		"--duration: phases.1.duration": {"run", "--driver", "loopback", "--duration", "1ms"},
		"--scenario: name":              {"run", "--driver", "loopback", "--scenario", "a/b"},
	} {
		if out, status := do(t, args...); status != 1 || !strings.Contains(out, want) {
			t.Errorf("%v: status %d, want %q: %.300s", args, status, want, out)
		}
	}
}
