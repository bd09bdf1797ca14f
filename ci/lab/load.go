package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Scenario is a run of loadgen against a broker of its own: one producer, one
// consumer, one partition, messages of 1 KiB.
type Scenario struct {
	Name string `json:"name"`
	// Ack is the level of acknowledgement, and the topic's visibility.
	Ack string `json:"ack"`
	// Rate in messages a second; 0: as fast as answers come.
	Rate        int           `json:"rate"`
	Payload     string        `json:"payload"`
	Compression string        `json:"compression,omitempty"`
	Duration    time.Duration `json:"duration_ns"` // measured; half a second of warm-up comes before
	// Linger is how long a batch may wait to fill, 0: as the client has it. Seed
	// fixes the messages and their times; 0: loadgen's default.
	Linger time.Duration `json:"linger_ns,omitempty"`
	Seed   uint64        `json:"seed,omitempty"`
}

// Wire is a scenario whose bytes on the wire are the same whenever it runs, to
// 0.02 %: batches close by their size only.
var Wire = Scenario{Name: "wire", Ack: "accepted", Rate: 4000, Payload: "json", Duration: time.Second, Linger: 10 * time.Second, Seed: 7}

// LoadRun is what came of a Scenario.
type LoadRun struct {
	Scenario      Scenario `json:"scenario"`
	Rate          float64  `json:"msg_per_s"` // delivered
	E2EP50        float64  `json:"e2e_p50_ns"`
	E2EP99        float64  `json:"e2e_p99_ns"`
	AckP50        float64  `json:"ack_p50_ns"`
	AckP99        float64  `json:"ack_p99_ns"`
	LagP99        float64  `json:"lag_p99_ns"`
	CPUPerMillion float64  `json:"cpu_s_per_million"` // of the broker
	PerBatch      float64  `json:"messages_per_batch"`
	Ratio         float64  `json:"compression_ratio"`
	WirePerMsg    float64  `json:"wire_bytes_per_message"`
	RSSBytes      int64    `json:"rss_max_bytes"`
	Steal         float64  `json:"steal"`
	// Invalid are the kinds of reasons for which loadgen calls the run invalid:
	// dispatch_lag, rate_missed and others (docs/results.md).
	Invalid []string `json:"invalid,omitempty"`
}

// Late tells that the generator's own delay is in the latencies, or that the
// target took less than was due, and that nothing else is wrong with the run:
// the latencies are upper limits.
func (r *LoadRun) Late() bool { return len(r.Invalid) > 0 && r.CPUHolds() }

// only tells that the run is invalid for none but the given kinds.
func (r *LoadRun) only(kinds ...string) bool {
	for _, k := range r.Invalid {
		found := false
		for _, want := range kinds {
			found = found || k == want
		}
		if !found {
			return false
		}
	}
	return true
}

// CPUHolds tells that the broker's CPU per message is that of the scenario: the
// messages came at least at four fifths of the rate, however late.
func (r *LoadRun) CPUHolds() bool {
	return r.only("dispatch_lag", "generator_cpu", "rate_missed", "saturated") && r.Rate >= 0.8*float64(r.Scenario.Rate)
}

// loadResult is the part of loadgen's result that is used; schema 2.
type loadResult struct {
	Schema             int `json:"schema"`
	Measured, Rejected *struct {
		Total struct {
			Delivered float64 `json:"delivered_per_s"`
			Latency   struct {
				E2E, Ack, Lag struct {
					P50 float64 `json:"p50_ns"`
					P99 float64 `json:"p99_ns"`
				}
			} `json:"latency"`
		} `json:"total"`
	}
	Wire struct {
		PerBatch float64 `json:"messages_per_batch"`
		Ratio    float64 `json:"compression_ratio"`
		Bytes    float64 `json:"bytes"`
	} `json:"wire"`
	Counts struct {
		Sent float64 `json:"sent"`
	} `json:"counts"`
	Target struct {
		CPUPerMillion float64 `json:"cpu_s_per_million"`
		RSS           int64   `json:"rss_max_bytes"`
	} `json:"target"`
	Generator struct {
		Steal float64 `json:"steal"`
	} `json:"generator"`
	Invalid []struct {
		Kind string `json:"kind"`
	} `json:"invalid"`
	Violations []struct {
		Kind string `json:"kind"`
		Text string `json:"text"`
	} `json:"violations"`
}

// ErrViolated reports that loadgen found a message lost, duplicated, reordered
// or corrupt.
var ErrViolated = errors.New("a promise was broken")

// RunLoad runs a scenario once, on a fresh broker with fresh data. An invalid run
// is no error: see LoadRun.Invalid.
func (l *Lab) RunLoad(ctx context.Context, s Scenario) (LoadRun, error) {
	r := LoadRun{Scenario: s}
	const warm = 500 * time.Millisecond
	args := []string{"run", "--start-broker", l.Portask, "--quiet", "--output", "json", "--scenario", s.Name,
		"--producers", "1", "--consumers", "1", "--partitions", "1", "--size", "1KiB", "--payload", s.Payload,
		"--ack", s.Ack, "--visibility", s.Ack, "--warmup", warm.String(), "--duration", (warm + s.Duration).String(), "--drain", "20s"}
	if s.Compression != "" {
		args = append(args, "--compression", s.Compression)
	}
	if s.Linger > 0 {
		args = append(args, "--linger", s.Linger.String())
	}
	if s.Seed > 0 {
		args = append(args, "--seed", strconv.FormatUint(s.Seed, 10))
	}
	if s.Rate > 0 {
		args = append(args, "--rate", strconv.Itoa(s.Rate))
	} else {
		args = append(args, "--mode", "closed")
	}
	var stdout bytes.Buffer
	p, err := start(ctx, "loadgen run", l.Loadgen, args, nil, &stdout)
	if err != nil {
		return r, err
	}
	<-p.ended
	return r, r.read(stdout.Bytes(), p.err, p.stderr.String())
}

// read takes what loadgen printed; ended is how it ended.
func (r *LoadRun) read(out []byte, ended error, said string) error {
	exit, _ := errors.AsType[*exec.ExitError](ended)
	if ended != nil && (exit == nil || exit.ExitCode() < 2 || exit.ExitCode() > 4) {
		return fmt.Errorf("loadgen run %s: %w: %s", r.Scenario.Name, ended, said)
	}
	var res loadResult
	if err := json.Unmarshal(out, &res); err != nil {
		return fmt.Errorf("loadgen run %s: %w: %s", r.Scenario.Name, err, said)
	}
	if len(res.Violations) > 0 {
		return fmt.Errorf("loadgen run %s: %w: %s: %s", r.Scenario.Name, ErrViolated, res.Violations[0].Kind, res.Violations[0].Text)
	}
	for _, i := range res.Invalid {
		r.Invalid = append(r.Invalid, i.Kind)
	}
	m := res.Measured
	if m == nil {
		m = res.Rejected
	}
	if m == nil || res.Schema != 2 {
		return fmt.Errorf("loadgen run %s: schema %d, measured or rejected missing", r.Scenario.Name, res.Schema)
	}
	t := &m.Total
	r.Rate, r.E2EP50, r.E2EP99 = t.Delivered, t.Latency.E2E.P50, t.Latency.E2E.P99
	r.AckP50, r.AckP99, r.LagP99 = t.Latency.Ack.P50, t.Latency.Ack.P99, t.Latency.Lag.P99
	r.CPUPerMillion, r.RSSBytes = res.Target.CPUPerMillion, res.Target.RSS
	r.PerBatch, r.Ratio, r.Steal = res.Wire.PerBatch, res.Wire.Ratio, res.Generator.Steal
	if res.Counts.Sent > 0 {
		r.WirePerMsg = res.Wire.Bytes / res.Counts.Sent
	}
	return nil
}

// LoadLine is one run for people.
func LoadLine(r LoadRun) string {
	s := fmt.Sprintf("%-16s %8.0f msg/s  broker %.3f CPU s per million  e2e p50 %s p99 %s  ack p50 %s  %.1f msgs/batch, %.2f : 1",
		r.Scenario.Name, r.Rate, r.CPUPerMillion, short(r.E2EP50), short(r.E2EP99), short(r.AckP50), r.PerBatch, r.Ratio)
	if len(r.Invalid) > 0 {
		s += "  INVALID: " + strings.Join(r.Invalid, ", ")
	}
	return s
}

func short(ns float64) string { return time.Duration(ns).Round(10 * time.Microsecond).String() }

// IdleMemory is what a broker takes that has one topic and nothing to do.
type IdleMemory struct {
	// Private is memory that is no file's page: heap, stacks, what the program
	// mapped for itself. RSS holds the pages of the program's own file too.
	PrivateBytes int64 `json:"private_bytes"`
	RSSBytes     int64 `json:"rss_bytes"`
}

// Idle starts a broker, makes a topic, and reads its memory.
func (l *Lab) Idle(ctx context.Context) (*IdleMemory, error) {
	dir, remove, err := l.scratch()
	if err != nil {
		return nil, err
	}
	defer remove()
	s, err := l.broker(ctx, dir+"/data", dir+"/addr")
	if err != nil {
		return nil, err
	}
	defer s.kill()
	if err := l.createTopic(ctx, s.addr, "durable"); err != nil {
		return nil, err
	}
	f, err := os.Open("/proc/" + strconv.Itoa(s.cmd.Process.Pid) + "/status")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	m, err := parseStatus(f)
	if err != nil {
		return nil, err
	}
	return m, s.signal(syscall.SIGTERM, stopTimeout)
}

// parseStatus reads the lines of /proc/PID/status that tell of memory.
func parseStatus(r io.Reader) (*IdleMemory, error) {
	b, err := io.ReadAll(io.LimitReader(r, 64<<10))
	if err != nil {
		return nil, err
	}
	m := new(IdleMemory)
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 3 || f[2] != "kB" {
			continue
		}
		n, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("status of a process, line %q: %w", strings.TrimSpace(line), err)
		}
		switch f[0] {
		case "RssAnon:", "RssShmem:":
			m.PrivateBytes += n << 10
		case "VmRSS:":
			m.RSSBytes = n << 10
		}
	}
	if m.PrivateBytes == 0 || m.RSSBytes == 0 {
		return nil, errors.New("status of a process: RssAnon or VmRSS missing")
	}
	return m, nil
}
