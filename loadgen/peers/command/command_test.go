package command

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/perf/benchfmt"

	"github.com/portask/portask/loadgen/command"
	"github.com/portask/portask/loadgen/driver"
	"github.com/portask/portask/loadgen/launch/launchtest"
	"github.com/portask/portask/loadgen/peers/compare"
	"github.com/portask/portask/loadgen/peers/nats"
	"github.com/portask/portask/loadgen/peers/server"
	"github.com/portask/portask/loadgen/peers/servertest"
)

func TestMain(m *testing.M) { servertest.Main(m) }

// execute runs the program with arguments.
func execute(ctx context.Context, stdout io.Writer, args ...string) error {
	p := command.Program{Version: "v1", Drivers: []driver.Kind{nats.JetStream}, More: Commands("v1")}
	c := p.Command()
	c.SetOut(stdout)
	c.SetErr(io.Discard)
	c.SetArgs(args)
	return c.ExecuteContext(ctx)
}

func TestCompareWritesAllFormats(t *testing.T) {
	servertest.Redis(t, server.NoPersistence) // installs it where it is missing
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	var out bytes.Buffer
	err := execute(t.Context(), &out, "compare", "--portask", launchtest.Binary(t), "--dir", dir, "--durability", "memory", "--targets", "portask,redis,nats-jetstream",
		"--points", "max", "--turns", "2", "--duration", "300ms", "--warmup", "50ms", "--set", "producers.in_flight=64",
		"--json", file("json"), "--bench", file("bench"), "--markdown", file("md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"portask ", "redis ", "nats-jetstream ", "times portask@memory", "engine memlog", "appendonly no", "storage memory"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table has no %q:\n%s", want, &out)
		}
	}
	var rep compare.Report
	b, err := os.ReadFile(file("json"))
	if err == nil {
		err = json.Unmarshal(b, &rep)
	}
	if err != nil || rep.Schema != compare.Schema || rep.Commit != "v1" || len(rep.Points) != 1 || len(rep.Points[0].Cells) != 3 {
		t.Errorf("JSON: %v, %+v", err, rep)
	}
	if b, err = os.ReadFile(file("md")); err != nil || !bytes.Contains(b, []byte("| portask | memory | 2/2 |")) {
		t.Errorf("Markdown: %v\n%s", err, b)
	}
	bench, err := os.Open(file("bench"))
	if err != nil {
		t.Fatal(err)
	}
	defer bench.Close()
	seen := map[string]int{}
	for r := benchfmt.NewReader(bench, "bench"); r.Scan(); {
		switch x := r.Result().(type) {
		case *benchfmt.Result:
			seen[x.GetConfig("target")]++
			if v, ok := x.Value("msg/s"); !ok || v <= 0 || x.GetConfig("turn") == "" || x.GetConfig("point") != "max" {
				t.Errorf("result %s: %v", x.Name, x.Values)
			}
		case *benchfmt.SyntaxError:
			t.Error(x)
		}
	}
	if len(seen) != 3 || seen["portask@memory"] != 2 || seen["redis@memory"] != 2 {
		t.Errorf("runs in the Go benchmark format: %v", seen)
	}
}

func TestCompareRefusesWhatMakesNoSense(t *testing.T) {
	portask := launchtest.Binary(t)
	for want, args := range map[string][]string{
		"want table, markdown or json":   {"-o", "xml"},
		"durability \"paper\"":           {"--durability", "paper"},
		"does not give durability disk":  {"--durability", "disk", "--targets", "portask,nats-core"},
		"that is no fair comparison":     {"--targets", "portask,nats-core@nothing"},
		"want max, or messages a second": {"--points", "min"},
		"no such file":                   {"nothing-of-this-name"},
		"want path=value":                {"--set", "x"},
		"the points say that":            {"--set", "phases.*.rate=5"},
		"producers.in_flight":            {"--set", "producers.in_flight=x"},
		"want two or more":               {"--targets", "portask"},
	} {
		err := execute(t.Context(), io.Discard, append([]string{"compare", "--portask", portask}, args...)...)
		if err == nil || !strings.Contains(err.Error(), want) || command.ExitStatus(err) != 1 {
			t.Errorf("%q: status %d, %v, want %q", args, command.ExitStatus(err), err, want)
		}
	}
}

func TestPoints(t *testing.T) {
	f := compareFlags{points: "max,500", duration: 2 * time.Second, warmup: time.Second, set: []string{"producers.in_flight=7", "payload.size=100B"}}
	ps, err := f.parsePoints("", false)
	if err != nil || len(ps) != 2 {
		t.Fatal(ps, err)
	}
	for i, p := range ps {
		s := p.Scenario
		if s.Payload.Size != "100B" || s.Duration() != 3*time.Second || s.Phases[0].Measured || !s.Phases[1].Measured {
			t.Errorf("%s: %+v", p.Name, s)
		}
		if s.Loop != []string{"closed", "open"}[i] || i == 0 && s.Producers.InFlight != 7 || i == 1 && s.Phases[1].Rate != 500 {
			t.Errorf("%s: loop %s, in flight %d, rate %v", p.Name, s.Loop, s.Producers.InFlight, s.Phases[1].Rate)
		}
	}
	// A scenario is run as it is, or at points.
	f.set = nil
	if ps, err = f.parsePoints("steady", false); err != nil || len(ps) != 1 || ps[0].Name != "steady" || ps[0].Scenario.Phases[1].Duration != 30*time.Second {
		t.Errorf("%+v, %v", ps, err)
	}
	if ps, err = f.parsePoints("steady", true); err != nil || len(ps) != 2 || ps[1].Scenario.Payload.Source != "json" || ps[1].Scenario.Phases[1].Rate != 500 {
		t.Errorf("%+v, %v", ps, err)
	}
}

// lines is a writer that tells when it has text.
type lines struct{ text chan string }

func (l lines) Write(b []byte) (int, error) {
	l.text <- string(b)
	return len(b), nil
}

// A peer serves until it is told to stop, and leaves nothing.
func TestPeerStartsAndStops(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	out := lines{make(chan string, 1)}
	ended := make(chan error, 1)
	go func() { ended <- execute(ctx, out, "peer", "nats", "--durability", "disk", "--dir", dir) }()
	var text string
	select {
	case text = <-out.text:
	case err := <-ended:
		t.Fatal(err)
	}
	m := regexp.MustCompile(`--addr (\S+) .*--ack durable .*--driver-set monitor=(\S+)`).FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("it says %q", text)
	}
	d, err := nats.OpenJetStream(ctx, m[1], map[string]string{"monitor": m[2]})
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := net.DialTimeout("tcp", m[1], time.Second); err == nil {
		t.Error("it serves still")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
