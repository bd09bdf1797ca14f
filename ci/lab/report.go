package lab

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/portask/portask/broker/sysmetrics"
)

// RoundHeader heads the lines of RoundLine.
const RoundHeader = "server              msg/s     MB/s   CPU s per million: server producer consumer   msgs/batch  syscalls/batch  RSS MiB  steal"

// RoundLine is one round for people.
func RoundLine(r Round) string {
	calls := "-"
	if r.SyscallsPerBatch > 0 {
		calls = fmt.Sprintf("%.2f (%s)", r.SyscallsPerBatch, r.SyscallCounter)
	}
	return fmt.Sprintf("%-16s %8.0f %8.1f %26.3f %8.3f %8.3f %12.1f %15s %8.1f %5.1f%%", r.Variant, r.MsgPerSec, r.BytesPerSec/1e6,
		r.ServerCPU, r.ProducerCPU, r.ConsumerCPU, r.MessagesPerBatch, calls, float64(r.ServerRSS)/(1<<20), 100*r.Steal)
}

// benchUnits tell benchstat which way is better; `msg/s` has no direction of
// its own.
const benchUnits = `Unit msg/s better=higher
Unit MB/s better=higher
Unit cpu-ns/msg better=lower
Unit producer-cpu-ns/msg better=lower
Unit consumer-cpu-ns/msg better=lower
Unit syscalls/batch better=lower
Unit msgs/batch better=higher
`

// WriteBench writes rounds in the Go benchmark format: one line a round, the
// machine and commit as configuration, ready for benchstat.
func WriteBench(w io.Writer, rounds []Round, m sysmetrics.Machine, commit string) error {
	var b strings.Builder
	b.WriteString(benchUnits)
	fmt.Fprintf(&b, "goos: %s\ngoarch: %s\ncpu: %s\nos: %s\ngo: %s\ncommit: %s\n", runtime.GOOS, runtime.GOARCH, m.CPU, m.Kernel, m.Go, commit)
	for i, r := range rounds {
		fmt.Fprintf(&b, "round: %d\nsteal: %.3f\n", i, r.Steal)
		fmt.Fprintf(&b, "BenchmarkSaturated/server=%s/ack=%s/visibility=%s/batch=%.0f-%d\t%d\t%.1f ns/msg\t%.0f msg/s\t%.1f MB/s\t%.1f cpu-ns/msg\t%.1f producer-cpu-ns/msg\t%.1f consumer-cpu-ns/msg\t%.2f msgs/batch",
			r.Variant.Name, r.Variant.Ack, r.Variant.Visibility, r.MessagesPerBatch, m.Cores, r.Messages,
			r.Seconds*1e9/float64(r.Messages), r.MsgPerSec, r.BytesPerSec/1e6, r.ServerCPU*1e3, r.ProducerCPU*1e3, r.ConsumerCPU*1e3, r.MessagesPerBatch)
		if r.SyscallsPerBatch > 0 {
			fmt.Fprintf(&b, "\t%.3f syscalls/batch", r.SyscallsPerBatch)
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Record is what a measurement keeps: the result with all that one must know
// to compare it.
type Record struct {
	Schema  int                `json:"schema"` // 1
	What    string             `json:"what"`
	When    time.Time          `json:"when"`
	Commit  string             `json:"commit"`
	Machine sysmetrics.Machine `json:"machine"`
	Command []string           `json:"command"`
	Result  any                `json:"result"`
}

// Keep writes result to dir as WHAT-TIME.json and, if rounds are given, the
// rounds as WHAT-TIME.txt in the Go benchmark format. It returns the common
// part of the names.
func Keep(dir, what, commit string, result any, rounds []Round) (string, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return "", err
	}
	rec := Record{
		Schema: 1, What: what, When: time.Now().UTC().Truncate(time.Second), Commit: commit,
		Machine: sysmetrics.ThisMachine(), Command: os.Args, Result: result,
	}
	base := filepath.Join(dir, what+"-"+rec.When.Format("20060102T150405Z"))
	b, err := json.MarshalIndent(rec, "", "  ")
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(base+".json", append(b, '\n'), 0o666); err != nil {
		return "", err
	}
	if len(rounds) == 0 {
		return base, nil
	}
	f, err := os.Create(base + ".txt")
	if err != nil {
		return "", err
	}
	err = WriteBench(f, rounds, rec.Machine, commit)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return base, err
}
