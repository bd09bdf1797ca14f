package fleet_test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/portask/portask/loadgen/fleet"
	"github.com/portask/portask/loadgen/launch"
	"github.com/portask/portask/loadgen/launch/launchtest"
	"github.com/portask/portask/loadgen/load"
	"github.com/portask/portask/loadgen/pace"
)

func TestMain(m *testing.M) { launchtest.Main(m, func() error { return goleak.Find() }) }

// buildLoadgen builds the command.
func buildLoadgen(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "loadgen")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-pgo=off", "-o", name, "github.com/portask/portask/loadgen/cmd/loadgen").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return name
}

// startAgents starts agents as processes of their own.
func startAgents(t *testing.T, binary string, n int) (all []*launch.Broker, addrs string) {
	t.Helper()
	var names []string
	for range n {
		dir := t.TempDir()
		file := filepath.Join(dir, "addr")
		a, err := launch.Command(t.Context(), exec.Command(binary, "agent", "--listen", "127.0.0.1:0", "--addr-file", file), filepath.Join(dir, "log"), func() (string, error) {
			b, err := os.ReadFile(file)
			if errors.Is(err, os.ErrNotExist) {
				err = nil
			}
			return strings.TrimSpace(string(b)), err
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(a.Kill)
		all = append(all, a)
		names = append(names, a.Addr())
	}
	return all, strings.Join(names, ",")
}

// execute runs a command line; each line it says meanwhile goes to said.
func execute(t *testing.T, said func(string), binary string, args ...string) (out string, status int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary, args...)
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	var all strings.Builder
	read := make(chan struct{})
	go func() {
		defer close(read)
		buf := make([]byte, 4096)
		for {
			n, err := r.Read(buf)
			all.Write(buf[:n])
			if said != nil && n > 0 {
				said(all.String())
			}
			if err != nil {
				return
			}
		}
	}()
	err := cmd.Run()
	w.Close()
	<-read
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatal(err)
	}
	return all.String(), cmd.ProcessState.ExitCode()
}

func readResult(t *testing.T, file string) *load.Result {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	res := new(load.Result)
	if err := json.Unmarshal(b, res); err != nil {
		t.Fatal(err)
	}
	return res
}

func measured(res *load.Result) *load.Measured {
	if res.Measured != nil {
		return res.Measured
	}
	return res.Rejected
}

// Three agents and a broker, each a process: counts are exact, the histograms of
// all are in the merged one, and clock bounds are told. A wrong token and a
// killed agent end as they must.
func TestProcesses(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	binary := buildLoadgen(t)
	broker := launchtest.Start(t)
	t.Setenv(fleet.TokenVariable, "0123456789abcdef-test")
	agents, addrs := startAgents(t, binary, 3)
	file := filepath.Join(t.TempDir(), "result.json")
	args := []string{"run", "--agents", addrs, "--addr", broker.Addr(), "--plain", "--json", file, "--rate", "1500", "--warmup", "500ms",
		"--partitions", "6", "--producers", "4", "--consumers", "3", "--ack", "accepted", "--size", "200", "--arrival", "poisson", "--set", "keys.count=50"}

	out, status := execute(t, nil, binary, append(args, "--duration", "2s", "--codec", "json")...)
	res := readResult(t, file)
	c := res.Counts
	// Whether the latencies mean anything is the machine's affair.
	if status != 0 && status != 3 || len(res.Violations) > 0 || len(res.Agents) != 3 || c.Sent < 2000 || c.Sent != c.Acked || c.Sent != c.Delivered || !res.Complete {
		t.Fatalf("status %d, counts %+v, invalid %v, violations %v:\n%s", status, c, res.Invalid, res.Violations, out)
	}
	var sent, delivered, inSeries uint64
	producers := 0
	for i, a := range res.Agents {
		sent += a.Counts.Sent
		delivered += a.Counts.Delivered
		if a.FirstProducer != producers || a.Partitions != 2 || a.Counts.Sent == 0 || a.ClockError <= 0 || a.ClockError > int64(50*time.Millisecond) || a.Name != agents[i].Addr() || a.Lost {
			t.Errorf("agent %d: %+v", i, a)
		}
		producers += a.Producers
		if want := "agent " + a.Name + ":"; !strings.Contains(out, want) || !strings.Contains(out, "clock known to") {
			t.Errorf("no bound of agent %s's clock in:\n%s", a.Name, out)
		}
	}
	if sent != c.Sent || delivered != c.Delivered || producers != 4 || res.Payload.Messages != c.Sent {
		t.Errorf("agents sent %d and delivered %d of %+v; %d producers, payload of %d", sent, delivered, c, producers, res.Payload.Messages)
	}
	m := measured(res)
	for _, v := range m.Series {
		inSeries += v.Delivered
	}
	if inSeries != c.Delivered {
		t.Errorf("%d delivered in the series of %d", inSeries, c.Delivered)
	}
	// The total is the sum of its only measured phase, and has every message that
	// was due in it.
	h := m.Total.Histograms
	if n := h.E2E.TotalCount(); n != m.Total.Latency.E2E.Count || n != h.Ack.TotalCount() || n != m.Phases[1].Histograms.E2E.TotalCount() || float64(n) < 0.9*m.Total.Offered*1.5 || float64(n) > m.Total.Offered*1.5+0.5 {
		t.Errorf("%d latencies, offered %v a second for 1.5 s", n, m.Total.Offered)
	}

	t.Setenv(fleet.TokenVariable, "0123456789abcdef-else")
	if out, status := execute(t, nil, binary, append(args, "--duration", "1s")...); status != 1 || strings.Count(out, "the token is another one") != 3 {
		t.Errorf("wrong token: status %d:\n%s", status, out)
	}
	t.Setenv(fleet.TokenVariable, "0123456789abcdef-test")

	killed := false
	out, status = execute(t, func(all string) {
		if !killed && strings.Contains(all, "delivered") { // the first second was told
			killed = true
			agents[1].Kill()
		}
	}, binary, append(args, "--duration", "60s")...)
	res = readResult(t, file)
	if status != 3 || res.Measured != nil || !res.Agents[1].Lost || res.Agents[0].Lost || res.Agents[2].Lost || res.Agents[0].Counts.Delivered == 0 {
		t.Errorf("status %d, %+v:\n%s", status, res.Agents, out)
	}
	named := false
	for _, p := range res.Invalid {
		named = named || p.Kind == load.AgentLost && strings.Contains(p.Text, agents[1].Addr())
	}
	if !named {
		t.Errorf("invalid %v", res.Invalid)
	}
	if out, status := execute(t, nil, binary, append(args, "--duration", "1s")...); status != 1 || !strings.Contains(out, agents[1].Addr()) {
		t.Errorf("an agent that is not there: status %d:\n%s", status, out)
	}
}

// Merging loses nothing: the sum of histograms, sent as they are sent, has every
// count of each.
func TestHistogramsSurviveTheWire(t *testing.T) {
	var sum load.Histograms
	want := pace.NewHistogram()
	for i := range int64(3) {
		h := load.Histograms{E2E: pace.NewHistogram()}
		for v := int64(1000); v < 1e9; v = v*11/10 + i {
			h.E2E.RecordValue(v)
			want.RecordValue(v)
		}
		b, err := json.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		var back load.Histograms
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatal(err)
		}
		sum.Merge(back)
	}
	if !sum.E2E.Equals(want) {
		t.Errorf("%d counts, want %d", sum.E2E.TotalCount(), want.TotalCount())
	}
}
