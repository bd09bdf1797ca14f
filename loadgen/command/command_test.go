package command

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/portask/portask/loadgen/driver"
	"github.com/portask/portask/loadgen/driver/loopback"
	"github.com/portask/portask/loadgen/driver/portask"
	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/scenario"
)

func program() *Program {
	return &Program{Version: "test", Drivers: []driver.Kind{loopback.Kind, portask.Kind}}
}

// do runs a command line.
func do(t *testing.T, args ...string) (out string, status int) {
	t.Helper()
	c := program().Command()
	var b bytes.Buffer
	c.SetOut(&b)
	c.SetErr(&b)
	c.SetArgs(args)
	err := c.ExecuteContext(t.Context())
	if err != nil {
		b.WriteString(err.Error())
	}
	return b.String(), ExitStatus(err)
}

func TestVerdict(t *testing.T) {
	problem := []load.Problem{{Text: "x"}}
	for _, tt := range []struct {
		name string
		res  load.Result
		want int
	}{
		{"all well", load.Result{}, 0},
		{"missed", load.Result{Missed: problem}, 2},
		{"invalid", load.Result{Invalid: problem}, 3},
		{"lost and invalid", load.Result{Violations: problem, Invalid: problem}, 4},
	} {
		if got := ExitStatus(Verdict(&tt.res)); got != tt.want {
			t.Errorf("%s: exit status %d, want %d", tt.name, got, tt.want)
		}
	}
	if got := ExitStatus(fmt.Errorf("wrapped: %w", &StatusError{4, errors.New("x")})); got != 4 {
		t.Errorf("a wrapped status became %d", got)
	}
	if got := ExitStatus(errors.New("usage")); got != 1 {
		t.Errorf("an ordinary error became %d", got)
	}
}

// A full disk does not hide a broken promise from whoever looks at the exit
// status, and is told all the same.
func TestVerdictBeforeFiles(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("no /dev/full")
	}
	out, status := do(t, "run", "--driver", "loopback", "--driver-set", "drop=50", "--duration", "200ms", "--rate", "1000", "-q", "--json", "/dev/full")
	if status != 4 || !strings.Contains(out, "acknowledged and not delivered") || !strings.Contains(out, "/dev/full") {
		t.Errorf("exit status %d, want 4:\n%s", status, out)
	}
}

// Flags are short for settings; without a file the scenario is a warm-up and
// one phase.
func TestFlagsMakeAScenario(t *testing.T) {
	parse := func(name string, args ...string) (*scenario.Scenario, error) {
		var f scenarioFlags
		fs := pflag.NewFlagSet("run", pflag.ContinueOnError)
		f.add(fs)
		if err := fs.Parse(args); err != nil {
			t.Fatal(err)
		}
		return f.open(name, fs)
	}
	s, err := parse("", "--rate", "500", "--duration", "3s", "--warmup", "500ms", "--size", "200..400", "--ack", "accepted", "--topic", "mine",
		"--slo-p99", "5ms", "--slo-rate", "400", "--arrival", "poisson", "--set", "phases.main.rate=700", "--scenario", "kv")
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Phases) != 2 || s.Phases[0].Rate != 500 || s.Phases[1].Rate != 700 || s.Phases[0].Duration != 500*time.Millisecond || s.Phases[1].Duration != 2500*time.Millisecond ||
		s.Phases[1].Arrival != "poisson" || s.Payload.Size != "200..400" || s.Producers.Ack != "accepted" || !s.Topics[0].Existing || s.Topics[0].Name != "mine" ||
		len(s.Objectives) != 2 || s.Name != "kv" {
		t.Errorf("%s", s.YAML())
	}
	if s, err = parse("", "--duration", "400ms"); err != nil || s.Duration() != 400*time.Millisecond || s.Phases[0].Duration != 200*time.Millisecond {
		t.Errorf("%v, %v", s.Duration(), err)
	}
	if s, err = parse("staircase", "--duration", "1s", "--warmup", "100ms", "--rate", "100"); err != nil || s.Duration() != 4100*time.Millisecond || s.Phases[3].Rate != 100 {
		t.Errorf("%s, %v", s.YAML(), err)
	}
	for _, args := range [][]string{{"--size", "1..x"}, {"--ack", "perhaps"}, {"--compression", "x"}, {"--visibility", "maybe"}, {"--size", "10"}, {"--rate", "-1"}, {"--set", "x"}, {"--duration", "1ms"}} {
		if s, err := parse("", args...); err == nil {
			t.Errorf("%s was accepted:\n%s", args, s.YAML())
		}
	}
}

func TestValidateAndList(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("version: 1\nsede: 1\nloop: opne\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	out, status := do(t, "validate", "steady", bad)
	if status != 1 || !strings.Contains(out, "steady: steady, 2 phases, 33s, hash ") || !strings.Contains(out, bad+":2: sede: unknown setting; did you mean seed?") ||
		!strings.Contains(out, bad+":3: loop") {
		t.Errorf("status %d:\n%s", status, out)
	}
	if out, status := do(t, "validate", "--resolved", "--set", "seed=9", "steady"); status != 0 || !strings.Contains(out, "\nseed: 9\n") {
		t.Errorf("status %d:\n%s", status, out)
	}
	if out, status := do(t, "scenarios"); status != 0 || !strings.Contains(out, "steady") || strings.Count(out, "\n") != len(scenario.Shipped()) {
		t.Errorf("status %d:\n%s", status, out)
	}
	if out, status := do(t, "scenarios", "--reference"); status != 0 || out != string(scenario.Reference()) {
		t.Errorf("status %d", status)
	}
}

// Runs through the command line, against a target in this process.
func TestRuns(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "result.json")
	quick := []string{"run", "--quiet", "--rate", "500", "--duration", "300ms", "--warmup", "100ms", "--payload", "text", "--size", "100", "--drain", "300ms"}
	with := func(args ...string) []string { return append(slices.Clone(quick), args...) }
	for _, tt := range []struct {
		name   string
		args   []string
		status int
		says   string
	}{
		{"lost messages", with("--driver-set", "drop=20"), 4, "acknowledged and not delivered"},
		{"flipped bits", with("--driver-set", "flip=20"), 4, "corrupt"},
		{"messages delivered twice", with("--driver-set", "duplicate=20"), 4, "delivered more than once"},
		{"nothing promised, bits flipped", with("--driver-set", "flip=20", "--ack", "none"), 4, "corrupt"},
		{"a mode that is not there", with("--set", "consumers.delivery=queue"), 1, "loopback cannot do this scenario: delivery mode queue"},
		{"an unknown driver", with("--driver", "kafka"), 1, "want one of loopback, portask"},
		{"a bad setting of the driver", with("--driver-set", "drop"), 1, "want key=value"},
		{"no such scenario", with("nonsense.yaml"), 1, "no such file"},
	} {
		if out, status := do(t, tt.args...); status != tt.status || !strings.Contains(out, tt.says) {
			t.Errorf("%s: status %d, want %d with %q:\n%s", tt.name, status, tt.status, tt.says, out)
		}
	}
	out, status := do(t, with("--json", file, "-o", "json")...)
	var res load.Result
	if err := json.Unmarshal([]byte(out[:strings.LastIndexByte(out, '}')+1]), &res); err != nil || res.Counts.Sent != 150 || res.Counts.Delivered != 150 || status != res.ExitStatus() {
		t.Errorf("status %d, %v:\n%s", status, err, out)
	}
	if b, err := os.ReadFile(file); err != nil || !strings.HasPrefix(out, string(b)) {
		t.Errorf("the file differs from what was printed: %v", err)
	}
}

func TestUsageErrorsAreStatusOne(t *testing.T) {
	for _, args := range [][]string{
		{"run", "--output", "xml"}, {"run", "--ack", "perhaps"}, {"run", "--payload", "nothing"}, {"run", "--nonsense"}, {"nonsense"}, {"run", "a", "b"}, {"validate"},
		{"run", "--quiet", "--driver", "portask", "--addr", "127.0.0.1:1"},
	} {
		if out, got := do(t, args...); got != 1 {
			t.Errorf("%s: exit status %d, want 1: %s", strings.Join(args, " "), got, out)
		}
	}
}

func TestProgressOverwritesOnTerminalOnly(t *testing.T) {
	var b bytes.Buffer
	p := newProgress(&b)
	p.line("one, and long")
	p.event("two")
	p.end()
	if got := b.String(); got != "one, and long\ntwo\n" {
		t.Errorf("a file got %q", got)
	}
	b.Reset()
	p.terminal = true
	p.line("one, and long")
	p.event("two")
	p.end()
	if got := b.String(); got != "\rone, and long\rtwo          \n" {
		t.Errorf("a terminal got %q", got)
	}
}
