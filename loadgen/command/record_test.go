package command

import (
	"bufio"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portask/portask/loadgen/pace"
)

// record tells its address, ends by an interrupt and leaves a trace; what is not
// Portask's is passed and told.
func TestRecordCommand(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.ptrace")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, in := io.Pipe()
	var errs strings.Builder
	c := program().Command()
	c.SetOut(in)
	c.SetErr(&errs)
	c.SetArgs([]string{"record", file, "--addr", "127.0.0.1:1"})
	ended := make(chan error, 1)
	go func() { ended <- c.ExecuteContext(ctx) }()
	if addr, err := bufio.NewReader(out).ReadString('\n'); err != nil || !strings.HasPrefix(addr, "127.0.0.1:") {
		t.Fatalf("%q, %v", addr, err)
	}
	cancel()
	if err := <-ended; err != nil || !strings.HasPrefix(errs.String(), "0 messages of 0 topics recorded, 0 dropped") {
		t.Errorf("%v, %q", err, errs.String())
	}
	if info, err := os.Stat(file); err != nil || info.Size() == 0 {
		t.Errorf("%v", err)
	}
	for _, args := range [][]string{{"record"}, {"record", file}, {"record", file + "2", "--max-bytes", "x"}, {"record", file + "3", "--addr", "nowhere"}} {
		if out, status := do(t, args...); status != 1 {
			t.Errorf("%s: status %d, %s", args, status, out)
		}
	}
}

func TestReplayCommand(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "x.ptrace")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	w, err := pace.NewTraceWriter(f)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 400 {
		if err := w.Add(pace.Item{At: int64(i) * 1e6, Size: 300, Topic: uint32(1 + i%2), Key: uint64(1 + i%5)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(pace.Recorded{}); err != nil {
		t.Fatal(err)
	}
	f.Close()
	for _, tt := range []struct {
		args []string
		says []string
	}{
		{[]string{"--speed", "4"}, []string{`"sent": 400`, `"mean_bytes": 300,`, `"name": "replay-2-`, `"lost": 0`}},
		{[]string{"--speed", "4", "--shape-only", "--size", "100"}, []string{`"sent": 400`, `"mean_bytes": 100,`, `"name": "loadgen-`}},
	} {
		out, status := do(t, append([]string{"replay", name, "--quiet", "--driver", "loopback", "-o", "json"}, tt.args...)...)
		if status != 0 && status != 3 { // a busy machine makes a run invalid
			t.Errorf("%v: status %d", tt.args, status)
		}
		for _, x := range tt.says {
			if !strings.Contains(out, x) {
				t.Errorf("%v: no %s in %.3000s", tt.args, x, out)
			}
		}
	}
	for _, args := range [][]string{{"replay"}, {"replay", name + "x"}, {"replay", name, "--speed", "0"}} {
		if out, status := do(t, args...); status != 1 {
			t.Errorf("%s: status %d, %s", args, status, out)
		}
	}
}
