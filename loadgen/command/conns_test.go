package command

import (
	"context"
	"encoding/json"
	"runtime"
	"strings"
	"testing"

	"github.com/portask/portask/loadgen/conns"
	"github.com/portask/portask/loadgen/driver/portask"
	"github.com/portask/portask/loadgen/launch/launchtest"
)

// Connections through the command line, of a broker that is found by its port;
// the topic that was made is gone afterwards.
func TestConns(t *testing.T) {
	if runtime.GOOS != "linux" {
		out, status := do(t, "conns", "5", "--driver", "portask")
		if status != 1 {
			t.Errorf("status %d: %s", status, out)
		}
		return
	}
	b := launchtest.Start(t)
	out, status := do(t, "conns", "200", "--driver", "portask", "--addr", b.Addr(), "--steps", "10,200", "-q", "-o", "json")
	var r conns.Result
	if err := json.Unmarshal([]byte(out), &r); err != nil || status != 0 || r.Connections != 200 || len(r.Points) != 2 || r.TargetPID != b.PID() || r.Points[1].RSSBytes == 0 {
		t.Errorf("status %d, %v:\n%s", status, err, out)
	}
	out, status = do(t, "run", "connections", "--driver", "portask", "--addr", b.Addr(), "-q", "--set", "connections.count=60", "--set", "connections.steps=20,60", "--set", "connections.hold=0s", "--set", "connections.cost_at_most=1B")
	if status != 2 && status != 3 || !strings.Contains(out, "60 connections, all subscribed") { // so few may cost nothing that is seen
		t.Errorf("status %d:\n%s", status, out)
	}
	d, err := portask.Open(context.Background(), b.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := d.Lookup(t.Context(), r.Topic); err == nil {
		t.Errorf("topic %s is there still", r.Topic)
	}
	for _, tt := range []struct {
		args []string
		says string
	}{
		{[]string{"conns", "9999999", "--driver", "portask", "--addr", b.Addr()}, "ulimit -n"},
		{[]string{"conns", "0", "--driver", "portask"}, "connections.count"},
		{[]string{"conns", "5", "--driver", "portask", "--addr", b.Addr(), "--topic", "none"}, "none"},
		{[]string{"conns", "5", "--driver", "portask", "--addr", b.Addr(), "--steps", "7,5"}, "connections.steps"},
		{[]string{"conns", "5", "--driver", "loopback"}, "loopback cannot do this scenario: a scenario of kind connections"},
		{[]string{"run", "connections", "--driver", "loopback"}, "loopback cannot do this scenario"},
		{[]string{"run", "connections", "--driver", "portask", "--rate", "5"}, "phases: has a meaning only with kind load"},
	} {
		if out, status := do(t, append(tt.args, "-q")...); status != 1 || !strings.Contains(out, tt.says) {
			t.Errorf("%q: status %d, want %q: %s", tt.args, status, tt.says, out)
		}
	}
}

func TestCostVerdict(t *testing.T) {
	for _, tt := range []struct {
		slope float64
		most  int
		want  int
	}{{100, 0, 0}, {100, 100, 0}, {100.5, 100, 2}, {0, 100, 3}, {0, 0, 0}, {-5, 100, 0}} {
		if got := ExitStatus(costVerdict(&conns.Result{Slope: tt.slope}, tt.most)); got != tt.want {
			t.Errorf("slope %v of at most %d: exit status %d, want %d", tt.slope, tt.most, got, tt.want)
		}
	}
}
