package lab

import (
	"bytes"
	"context"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/perf/benchfmt"

	"github.com/portask/portask/broker/sysmetrics"
)

func TestSpread(t *testing.T) {
	for _, tt := range []struct {
		in   []float64
		want Spread
	}{
		{nil, Spread{}},
		{[]float64{3}, Spread{3, 3, 3}},
		{[]float64{4, 1}, Spread{2.5, 1, 4}},
		{[]float64{9, 1, 5}, Spread{5, 1, 9}},
	} {
		in := append([]float64(nil), tt.in...)
		if got := NewSpread(in); got != tt.want {
			t.Errorf("%v: %v, want %v", tt.in, got, tt.want)
		}
		for i := range in {
			if in[i] != tt.in[i] {
				t.Errorf("%v was reordered", tt.in)
			}
		}
	}
}

func TestSyscallAndCRCShare(t *testing.T) {
	const top = `File: perflab
Type: cpu
Duration: 2s, Total samples = 1000ms
      flat  flat%   sum%        cum   cum%
     600ms 60.00% 60.00%      600ms 60.00%  internal/runtime/syscall/linux.Syscall6
     250ms 25.00% 85.00%      250ms 25.00%  hash/crc32.ieeeCLMUL (inline)
     100ms 10.00% 95.00%      100ms 10.00%  runtime.memmove
      50ms  5.00%   100%       50ms  5.00%  github.com/portask/portask/ci/kernel.(*copier).batches
         0     0%   100%     1000ms   100%  main.main
`
	got, err := syscallAndCRCShare(top)
	if err != nil || math.Abs(got-0.85) > 1e-9 {
		t.Errorf("share %v, %v; want 0.85", got, err)
	}
	for _, bad := range []string{"", "flat flat% sum% cum cum%\n", "flat  flat%\n  x% 1% 1% 1 1% f\n"} {
		if got, err := syscallAndCRCShare(bad); err == nil {
			t.Errorf("%q: share %v", bad, got)
		}
	}
}

func TestCounterOutputs(t *testing.T) {
	if n, err := parsePerf("1198728,,raw_syscalls:sys_enter,1198728,100.00,,\n"); n != 1198728 || err != nil {
		t.Errorf("perf: %d, %v", n, err)
	}
	if n, err := parsePerf("Error: no permission\n"); err == nil {
		t.Errorf("perf's complaint read as %d", n)
	}
	const strace = `% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 90.00    0.000010           1        20           read
------ ----------- ----------- --------- --------- ----------------
100.00    0.000011           0        29         1 total
`
	if n, err := parseStrace(strace); n != 29 || err != nil {
		t.Errorf("strace: %d, %v", n, err)
	}
	if n, err := parseStrace("strace: attach: Operation not permitted"); err == nil {
		t.Errorf("strace's complaint read as %d", n)
	}
}

// The file must be what benchstat reads: parsed by its own parser, every line
// with its configuration.
func TestBenchFormat(t *testing.T) {
	rounds := []Round{
		{Variant: Kernel, Messages: 3_000_000, Seconds: 2, MsgPerSec: 1.5e6, BytesPerSec: 1.5e9, ServerCPU: 0.5, MessagesPerBatch: 64},
		{Variant: Durable, Messages: 1_000_000, Seconds: 2, MsgPerSec: 5e5, BytesPerSec: 5e8, ServerCPU: 0.75, MessagesPerBatch: 64, SyscallsPerBatch: 3.25},
	}
	var b bytes.Buffer
	if err := WriteBench(&b, rounds, sysmetrics.Machine{CPU: "some cpu", Cores: 2, Kernel: "linux 6", Go: "go1.26"}, "abc123"); err != nil {
		t.Fatal(err)
	}
	r := benchfmt.NewReader(bytes.NewReader(b.Bytes()), "test")
	var results []*benchfmt.Result
	for r.Scan() {
		switch rec := r.Result().(type) {
		case *benchfmt.Result:
			results = append(results, rec.Clone())
		case *benchfmt.SyntaxError:
			t.Fatal(rec)
		}
	}
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
	if len(results) != 2 {
		t.Fatalf("%d results in:\n%s", len(results), b.String())
	}
	d := results[1]
	if got := d.Name.Full(); string(got) != "Saturated/server=portask/ack=durable/visibility=durable/batch=64-2" {
		t.Errorf("name %s", got)
	}
	for unit, want := range map[string]float64{"msg/s": 5e5, "cpu-sec/msg": 750e-9, "syscalls/batch": 3.25} {
		if got, ok := d.Value(unit); !ok || math.Abs(got-want) > want*1e-9 {
			t.Errorf("%s: %v, %v; want %v", unit, got, ok, want)
		}
	}
	if got := d.GetConfig("commit"); got != "abc123" {
		t.Errorf("commit %q", got)
	}
	if got := d.GetConfig("round"); got != "1" {
		t.Errorf("round %q", got)
	}
}

func TestKeep(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	base, err := Keep(dir, "ratios", "abc", &Ratios{Ratio: map[string]Spread{"x": {1, 1, 1}}}, []Round{{Variant: Kernel, Messages: 1, Seconds: 1}})
	if err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{".json", ".txt"} {
		b, err := os.ReadFile(base + suffix)
		if err != nil || !bytes.Contains(b, []byte("kernel")) && suffix == ".txt" || !bytes.Contains(b, []byte("abc")) {
			t.Errorf("%s: %v\n%s", suffix, err, b)
		}
	}
}

// helper turns this test binary into a server or client of the protocol that a
// Lab speaks with its processes.
const helper = "LAB_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(helper) {
	case "":
		os.Exit(m.Run())
	case "echo": // a client: ready, then {"n":length} for each line
		io.WriteString(os.Stdout, "ready\n")
		b, _ := io.ReadAll(os.Stdin)
		for range bytes.Count(b, []byte("\n")) {
			io.WriteString(os.Stdout, `{"n":7}`+"\n")
		}
	case "refuse":
		io.WriteString(os.Stderr, "no such luck\n")
		os.Exit(3)
	}
	os.Exit(0)
}

func TestClientConversation(t *testing.T) {
	t.Setenv(helper, "echo")
	c, err := startClient(context.Background(), "echo", os.Args[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if err := c.send("hello"); err != nil {
		t.Fatal(err)
	}
	c.in.Close()
	var v struct{ N int }
	if err := c.answer(context.Background(), &v); err != nil || v.N != 7 {
		t.Errorf("answer %+v, %v", v, err)
	}
	if err := c.answer(context.Background(), &v); err == nil {
		t.Error("an answer after the end")
	}
}

func TestProcessThatDoesNotStartIsExplained(t *testing.T) {
	t.Setenv(helper, "refuse")
	if _, err := startClient(context.Background(), "refuser", os.Args[0], nil); err == nil || !strings.Contains(err.Error(), "no such luck") {
		t.Errorf("client: %v, want its last words", err)
	}
	_, err := startServer(context.Background(), "refuser", os.Args[0], nil, filepath.Join(t.TempDir(), "addr"), io.Discard)
	if err == nil || !strings.Contains(err.Error(), "no such luck") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("server: %v, want its last words and status", err)
	}
}

func TestCancelledContextKillsProcess(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	p, err := start(ctx, "sleep", "sleep", []string{"600"}, nil, io.Discard)
	if err != nil {
		t.Skip("no sleep command")
	}
	cancel()
	select {
	case <-p.ended:
	case <-time.After(30 * time.Second):
		p.kill()
		t.Error("the process outlived its context")
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	var tl tail
	for range 100 {
		tl.Write(bytes.Repeat([]byte("x"), 100))
	}
	io.WriteString(&tl, "the end\n")
	if s := tl.String(); len(s) > tailBytes || !strings.HasSuffix(s, "the end") {
		t.Errorf("%d bytes ending %q", len(s), s[max(0, len(s)-20):])
	}
}
