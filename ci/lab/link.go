package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// LinkScenario is a run of loadgen over a link: one producer and one consumer that
// go as fast as answers come, at ack level accepted.
type LinkScenario struct {
	Name        string        `json:"name"`
	LinkBytes   int64         `json:"link_bytes_per_s"` // each way, for all connections together; 0: loopback
	Payload     string        `json:"payload"`          // kinds, with commas between them
	Turn        int           `json:"turn,omitempty"`   // values of a kind before the next kind's turn
	InFlight    int           `json:"in_flight"`        // messages that may be unanswered
	Warmup      time.Duration `json:"warmup_ns"`
	Duration    time.Duration `json:"duration_ns"` // measured
	Compression string        `json:"compression"`
}

// LinkRun is what came of it. CPU is of the whole run, warm-up, making the payload
// and verifying it included, in seconds for a million messages delivered.
type LinkRun struct {
	Rate         float64  `json:"msg_per_s"` // delivered while measured
	P99          float64  `json:"p99_ns"`    // from send to acknowledgement
	BrokerCPU    float64  `json:"broker_cpu_s_per_million"`
	GeneratorCPU float64  `json:"generator_cpu_s_per_million"` // producer and consumer
	WirePerMsg   float64  `json:"wire_bytes_per_message"`      // from the producer
	Ratio        float64  `json:"compression_ratio"`
	Steal        float64  `json:"steal"`
	Invalid      []string `json:"invalid,omitempty"`
}

// RunLink runs s once, on a fresh broker with fresh data.
func (l *Lab) RunLink(ctx context.Context, s LinkScenario) (r LinkRun, err error) {
	dir, remove, err := l.scratch()
	if err != nil {
		return r, err
	}
	defer remove()
	broker, err := l.broker(ctx, filepath.Join(dir, "data"), filepath.Join(dir, "addr"))
	if err != nil {
		return r, err
	}
	defer broker.kill()
	addr := broker.addr
	if s.LinkBytes > 0 {
		var end func()
		if addr, end, err = l.proxy(ctx, broker.addr, s.LinkBytes); err != nil {
			return r, err
		}
		defer end()
	}
	args := []string{"run", "--quiet", "--output", "json", "--scenario", s.Name, "--addr", addr, "--pid", strconv.Itoa(broker.cmd.Process.Pid),
		"--mode", "closed", "--in-flight", strconv.Itoa(s.InFlight), "--producers", "1", "--consumers", "1", "--partitions", "1", "--size", "1KiB",
		"--payload", s.Payload, "--set", "payload.turn=" + strconv.Itoa(s.Turn), "--ack", "accepted", "--visibility", "accepted",
		"--compression", s.Compression, "--warmup", s.Warmup.String(), "--duration", (s.Warmup + s.Duration).String(), "--drain", "60s"}
	var stdout bytes.Buffer
	p, err := start(ctx, "loadgen run", l.Loadgen, args, nil, &stdout)
	if err != nil {
		return r, err
	}
	<-p.ended
	if err := r.read(stdout.Bytes(), p.err, p.stderr.String(), s.Name); err != nil {
		return r, fmt.Errorf("%w; the broker's last words: %s", err, broker.stderr)
	}
	return r, broker.signal(syscall.SIGTERM, stopTimeout)
}

// proxy limits a link; its first line of output is the address to connect to.
func (l *Lab) proxy(ctx context.Context, addr string, rate int64) (at string, end func(), err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return "", nil, err
	}
	p, err := start(ctx, "loadgen proxy", l.Loadgen, []string{"proxy", addr, "--rate", strconv.FormatInt(rate, 10)}, nil, w)
	w.Close()
	if err != nil {
		r.Close()
		return "", nil, err
	}
	end = func() {
		_ = p.signal(os.Interrupt, stopTimeout) // it is killed if it does not stop
		r.Close()
	}
	line := make([]byte, 256)
	if err := r.SetReadDeadline(time.Now().Add(startTimeout)); err != nil && !errors.Is(err, os.ErrNoDeadline) {
		end()
		return "", nil, err
	}
	n, err := r.Read(line)
	at = strings.TrimSpace(string(line[:n]))
	if _, _, bad := net.SplitHostPort(at); err != nil && err != io.EOF || bad != nil {
		end()
		return "", nil, fmt.Errorf("loadgen proxy began with %q: %w; its last words: %s", at, errors.Join(err, bad), p.stderr)
	}
	return at, end, nil
}

// read takes what loadgen printed; ended is how it ended.
func (r *LinkRun) read(out []byte, ended error, said, name string) error {
	exit, _ := errors.AsType[*exec.ExitError](ended)
	if ended != nil && (exit == nil || exit.ExitCode() < 2 || exit.ExitCode() > 4) {
		return fmt.Errorf("loadgen run %s: %w: %s", name, ended, said)
	}
	var res struct {
		Schema             int `json:"schema"`
		Measured, Rejected *struct {
			Total struct {
				Delivered float64 `json:"delivered_per_s"`
				Latency   struct {
					Service struct {
						P99 float64 `json:"p99_ns"`
					} `json:"service"`
				} `json:"latency"`
			} `json:"total"`
		}
		Wire struct {
			Ratio float64 `json:"compression_ratio"`
			Bytes float64 `json:"bytes"`
		} `json:"wire"`
		Counts struct {
			Sent      float64 `json:"sent"`
			Delivered float64 `json:"delivered"`
		} `json:"counts"`
		Target struct {
			CPUPerMillion float64 `json:"cpu_s_per_million"`
		} `json:"target"`
		Generator struct {
			CPU   float64 `json:"cpu_s"`
			Spin  float64 `json:"spin_s"`
			Steal float64 `json:"steal"`
		} `json:"generator"`
		Invalid    []struct{ Kind string } `json:"invalid"`
		Violations []struct{ Kind, Text string }
	}
	if err := json.Unmarshal(out, &res); err != nil {
		return fmt.Errorf("loadgen run %s: %w: %s", name, err, said)
	}
	if len(res.Violations) > 0 {
		return fmt.Errorf("loadgen run %s: %w: %s: %s", name, ErrViolated, res.Violations[0].Kind, res.Violations[0].Text)
	}
	m := res.Measured
	if m == nil {
		m = res.Rejected
	}
	if m == nil || res.Schema != 2 || res.Counts.Sent == 0 {
		return fmt.Errorf("loadgen run %s: schema %d, %v messages sent, measured or rejected missing", name, res.Schema, res.Counts.Sent)
	}
	for _, i := range res.Invalid {
		r.Invalid = append(r.Invalid, i.Kind)
	}
	r.Rate, r.P99, r.BrokerCPU = m.Total.Delivered, m.Total.Latency.Service.P99, res.Target.CPUPerMillion
	r.GeneratorCPU = (res.Generator.CPU - res.Generator.Spin) * 1e6 / res.Counts.Sent
	r.WirePerMsg, r.Ratio, r.Steal = res.Wire.Bytes/res.Counts.Sent, res.Wire.Ratio, res.Generator.Steal
	return nil
}
