package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portask/portask/broker/compression/adaptive"
	"github.com/portask/portask/broker/monitor"
)

// call runs the command in this process.
func call(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(args, strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

// What an adaptive producer chose is explained by itself, by the broker, and by
// metrics; its log replays.
func TestCompressExplain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "admin")
	p := startProcess(t, "--data", filepath.Join(dir, "data"), "--listen", "127.0.0.1:0", "--admin-addr-file", file)
	a := adminOf(t, file)
	must := func(want int, args ...string) (string, string) {
		t.Helper()
		code, out, errs := call(t, append(args, "--server", p.addr)...)
		if code != want {
			t.Fatalf("%v: %d, want %d\n%s%s", args, code, want, out, errs)
		}
		return out, errs
	}
	must(0, "topic", "create", "orders", "--compression-strategy", "adaptive")
	if out, _ := must(0, "topic", "describe", "orders"); !strings.Contains(out, "strategy adaptive") {
		t.Errorf("described as\n%s", out)
	}
	must(2, "topic", "alter", "orders", "--compression-strategy", "clever")
	if _, errs := must(3, "compress", "explain", "--topic", "orders", "--admin", a.addr); !strings.Contains(errs, "none is adaptive") {
		t.Errorf("before anything was sent: %s", errs)
	}
	var lines bytes.Buffer
	for i := range 20_000 {
		fmt.Fprintf(&lines, `{"order":%d,"status":"delivered","country":"NL","amount":%d}`+"\n", i, i*7919%10000)
	}
	input, log, bad := filepath.Join(dir, "lines"), filepath.Join(dir, "decisions"), filepath.Join(dir, "bad")
	for name, b := range map[string][]byte{input: lines.Bytes(), bad: []byte(`{"format":"something"}`)} {
		if err := os.WriteFile(name, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	_, errs := must(0, "produce", "orders", input, "--compression", "adaptive", "--explain", "--decision-log", log, "--artefact", bad)
	for _, want := range []string{"bad is not used", "producer: adaptive", "chosen ", "raw ", "zstd-fastest ", "the embedded artefact decides"} {
		if !strings.Contains(errs, want) {
			t.Errorf("--explain does not say %q:\n%s", want, errs)
		}
	}
	must(2, "produce", "orders", input, "--compress", "adaptive")
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	r, err := adaptive.Replay(bytes.NewReader(b), adaptive.Embedded(), nil, false)
	if err != nil || r.Differ != 0 || r.Decisions == 0 {
		t.Errorf("replayed %+v, %v", r, err)
	}

	out, _ := must(0, "compress", "explain", "--topic", "orders", "--admin", a.addr)
	if !strings.Contains(out, fmt.Sprintf("topic orders: %d batches", r.Decisions)) || !strings.Contains(out, "changes") {
		t.Errorf("explained as\n%s", out)
	}
	out, _ = must(0, "compress", "explain", "--admin", a.addr, "-o", "json")
	var explained monitor.Explained
	if err := json.Unmarshal([]byte(out), &explained); err != nil || len(explained.Topics) != 1 ||
		explained.Topics[0].Batches != r.Decisions || len(explained.Topics[0].Arms) == 0 || len(explained.Topics[0].Recent) == 0 {
		t.Errorf("%v: %s", err, out)
	}
	if status, text := a.get("/debug/compression?topic=orders&format=text"); status != 200 || !strings.Contains(text, "topic orders") {
		t.Errorf("%d %s", status, text)
	}
	if status, _ := a.get("/debug/compression?topic=other"); status != 404 {
		t.Errorf("of another topic: %d", status)
	}
	if status, _ := a.get("/debug/compression?format=xml"); status != 400 {
		t.Errorf("in another format: %d", status)
	}
	if _, text := a.get("/metrics"); !strings.Contains(text, `portask_adaptive_batches_total{compression="`) || !strings.Contains(text, `portask_adaptive_switches_total{topic="orders"}`) {
		t.Error("no metrics of it")
	}
	must(2, "compress", "explain", "--topic", "no/name", "--admin", a.addr)
	must(2, "compress", "explain", "--admin", "nowhere")
	if _, err := os.Stat("/dev/full"); err == nil {
		if _, errs := must(1, "produce", "orders", input, "--compression", "adaptive", "--decision-log", "/dev/full"); !strings.Contains(errs, "log of decisions") {
			t.Errorf("of a log that could not be written it says %q", errs)
		}
	}
}
