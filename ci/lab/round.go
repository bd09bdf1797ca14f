package lab

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/portask/portask/broker/sysmetrics"
)

// Variant is a server and how it is used.
type Variant struct {
	// Name is "kernel" or "portask".
	Name string `json:"name"`
	// Ack and Visibility of a broker's topic: "accepted" or "durable". The
	// kernel knows one level, that of the operating system.
	Ack        string `json:"ack"`
	Visibility string `json:"visibility"`
}

func (v Variant) String() string {
	if v.Name == "kernel" {
		return "kernel"
	}
	return v.Name + "/" + v.Ack
}

// The three variants whose ratios are the gate's.
var (
	Kernel   = Variant{Name: "kernel", Ack: "accepted", Visibility: "accepted"}
	Accepted = Variant{Name: "portask", Ack: "accepted", Visibility: "accepted"}
	Durable  = Variant{Name: "portask", Ack: "durable", Visibility: "durable"}
)

// Load is what both clients do. Zero fields take their defaults.
type Load struct {
	BatchMessages int // 64
	MessageBytes  int // 1024
	WindowBytes   int // sent and not acknowledged, 4 MiB
	// WarmBytes go through before anything is measured, 1 GiB: several times
	// the size at which the broker begins to recycle its segments.
	WarmBytes int64
	Measured  time.Duration // 3 s
	// CountSyscalls adds a phase of one second whose system calls of the
	// server are counted; the figures of the other phases stay undisturbed.
	CountSyscalls bool
	// Profile is a file for the kernel's CPU profile; ignored by a broker.
	Profile string
}

func (o *Load) setDefaults() {
	for _, f := range []struct {
		v   *int
		def int
	}{{&o.BatchMessages, 64}, {&o.MessageBytes, 1024}, {&o.WindowBytes, 4 << 20}} {
		if *f.v == 0 {
			*f.v = f.def
		}
	}
	if o.WarmBytes == 0 {
		o.WarmBytes = 1 << 30
	}
	if o.Measured == 0 {
		o.Measured = 3 * time.Second
	}
}

// Round is one measurement: fresh processes, fresh data, one producer, one
// consumer, saturated.
type Round struct {
	Variant          Variant `json:"variant"`
	Messages         int64   `json:"messages"`
	Seconds          float64 `json:"seconds"`
	MsgPerSec        float64 `json:"msg_per_s"`
	BytesPerSec      float64 `json:"bytes_per_s"`
	ServerCPU        float64 `json:"server_cpu_s_per_million"`
	ProducerCPU      float64 `json:"producer_cpu_s_per_million"`
	ConsumerCPU      float64 `json:"consumer_cpu_s_per_million"`
	MessagesPerBatch float64 `json:"messages_per_batch"`
	// SyscallsPerBatch is 0 if they were not counted; see Syscalls.
	SyscallsPerBatch float64 `json:"syscalls_per_batch,omitempty"`
	SyscallCounter   string  `json:"syscall_counter,omitempty"`
	// Steal is the share of the machine that the hypervisor took, 0 to 1.
	Steal       float64 `json:"steal"`
	ServerRSS   int64   `json:"server_rss_bytes"`
	ServerStats string  `json:"-"` // what the kernel printed at its end
}

// phase mirrors what the lean clients print.
type phase struct {
	Messages   int64   `json:"messages"`
	Batches    int64   `json:"batches"`
	Bytes      int64   `json:"bytes"`
	StartNs    int64   `json:"start_ns"`
	EndNs      int64   `json:"end_ns"`
	CPUSeconds float64 `json:"cpu_seconds"`
}

// topic is the one the lean clients use.
const topic = "lean"

// serve starts the variant's server on fresh data in dir, with its topic.
func (l *Lab) serve(ctx context.Context, v Variant, dir, profile string, stdout io.Writer) (*server, error) {
	addrFile := filepath.Join(dir, "addr")
	switch v.Name {
	case "kernel":
		args := []string{"kernel", "--file", filepath.Join(dir, "region"), "--addr-file", addrFile}
		if profile != "" {
			args = append(args, "--cpuprofile", profile)
		}
		return startServer(ctx, "kernel", l.Perflab, args, addrFile, stdout)
	case "portask":
		s, err := l.broker(ctx, filepath.Join(dir, "data"), addrFile)
		if err != nil {
			return nil, err
		}
		// Segments are recycled once retention is at work, as the kernel's
		// region is: neither side's figures hold the first touch of a page.
		if err := l.createTopic(ctx, s.addr, v.Visibility, "--retention-bytes", strconv.Itoa(256<<20)); err != nil {
			s.kill()
			return nil, err
		}
		return s, nil
	}
	return nil, fmt.Errorf("variant %q: want kernel or portask", v.Name)
}

func (l *Lab) broker(ctx context.Context, data, addrFile string) (*server, error) {
	return startServer(ctx, "portask", l.Portask, []string{"serve", "--data", data, "--listen", "127.0.0.1:0",
		"--addr-file", addrFile, "--engine", "disklog", "--log-level", "warn"}, addrFile, io.Discard)
}

func (l *Lab) createTopic(ctx context.Context, addr, visibility string, more ...string) error {
	args := append([]string{"topic", "create", topic, "--server", addr, "--partitions", "1", "--visibility", visibility}, more...)
	out, err := exec.CommandContext(ctx, l.Portask, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("create topic: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// pair is the two clients of a round.
type pair struct{ producer, consumer *client }

// clients starts both; produce are more flags of the producer.
func (l *Lab) clients(ctx context.Context, v Variant, addr, dir string, o Load, produce ...string) (*pair, error) {
	common := []string{"--target", v.Name, "--addr", addr, "--topic", topic, "--ack", v.Ack, "--progress", filepath.Join(dir, "progress")}
	consumer, err := startClient(ctx, "consumer", l.Loadgen, append([]string{"lean", "consume"}, common...))
	if err != nil {
		return nil, err
	}
	args := append([]string{"lean", "produce", "--batch", strconv.Itoa(o.BatchMessages), "--size", strconv.Itoa(o.MessageBytes),
		"--window", strconv.Itoa(o.WindowBytes)}, common...)
	producer, err := startClient(ctx, "producer", l.Loadgen, append(args, produce...))
	if err != nil {
		consumer.close()
		return nil, err
	}
	return &pair{producer, consumer}, nil
}

// close ends the consumer's input first, so that it does not take the end of
// the stream for a failure.
func (p *pair) close() {
	p.consumer.close()
	p.producer.close()
}

// run is one phase through both clients. amount is a duration or a number of
// batches.
func (p *pair) run(ctx context.Context, amount string) (produced, consumed phase, err error) {
	if err := p.producer.send("run " + amount); err != nil {
		return produced, consumed, err
	}
	if err := p.producer.answer(ctx, &produced); err != nil {
		return produced, consumed, err
	}
	if err := p.consumer.answer(ctx, &consumed); err != nil {
		return produced, consumed, err
	}
	if produced.Messages != consumed.Messages || produced.Batches != consumed.Batches {
		return produced, consumed, fmt.Errorf("%d messages in %d batches were sent, %d in %d received",
			produced.Messages, produced.Batches, consumed.Messages, consumed.Batches)
	}
	return produced, consumed, nil
}

// Round measures one variant once. The clients verify every batch; a wrong one
// is an error, not a slow round.
func (l *Lab) Round(ctx context.Context, v Variant, o Load) (Round, error) {
	o.setDefaults()
	r := Round{Variant: v}
	dir, remove, err := l.scratch()
	if err != nil {
		return r, err
	}
	defer remove()
	var stdout bytes.Buffer
	s, err := l.serve(ctx, v, dir, o.Profile, &stdout)
	if err != nil {
		return r, err
	}
	defer s.kill()
	p, err := l.clients(ctx, v, s.addr, dir, o)
	if err != nil {
		return r, fmt.Errorf("%w; the server's last words: %s", err, s.stderr)
	}
	defer p.close()
	if err := l.measure(ctx, &r, s, p, o); err != nil {
		return r, fmt.Errorf("%v: %w; the server's last words: %s", v, err, s.stderr)
	}
	p.close()
	if v.Name == "kernel" {
		<-s.ended // by itself, once its producer is gone
	} else if err := s.signal(syscall.SIGTERM, stopTimeout); err != nil {
		return r, err
	}
	r.ServerStats = stdout.String()
	return r, nil
}

func (l *Lab) measure(ctx context.Context, r *Round, s *server, p *pair, o Load) error {
	if _, _, err := p.run(ctx, strconv.FormatInt(o.WarmBytes/int64(o.BatchMessages*o.MessageBytes)+1, 10)); err != nil {
		return err
	}
	host0, err := sysmetrics.Host()
	if err != nil {
		return err
	}
	cpu0, err := s.metrics.CPUTime()
	if err != nil {
		return err
	}
	produced, consumed, err := p.run(ctx, o.Measured.String())
	if err != nil {
		return err
	}
	after, err := s.metrics.Sample()
	if err != nil {
		return err
	}
	host1, err := sysmetrics.Host()
	if err != nil {
		return err
	}
	millions := float64(consumed.Messages) / 1e6
	r.Messages = consumed.Messages
	r.Seconds = float64(consumed.EndNs-produced.StartNs) / 1e9
	r.MsgPerSec = float64(consumed.Messages) / r.Seconds
	r.BytesPerSec = float64(consumed.Bytes) / r.Seconds
	r.ServerCPU = (after.CPU - cpu0).Seconds() / millions
	r.ProducerCPU = produced.CPUSeconds / millions
	r.ConsumerCPU = consumed.CPUSeconds / millions
	r.MessagesPerBatch = float64(consumed.Messages) / float64(consumed.Batches)
	r.Steal = sysmetrics.StealShare(host0, host1)
	r.ServerRSS = after.RSSBytes
	if !o.CountSyscalls {
		return nil
	}
	counter, err := countSyscalls(ctx, s.cmd.Process.Pid)
	if err != nil {
		return err
	}
	_, consumed, err = p.run(ctx, "1s")
	n, stopErr := counter.stop()
	if err != nil {
		return err
	}
	if stopErr != nil {
		return stopErr
	}
	r.SyscallsPerBatch, r.SyscallCounter = float64(n)/float64(consumed.Batches), counter.name
	return nil
}
