package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/portask/portask/broker/client"
	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

// process is a running `portask serve` whose log is read line by line.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	addr  string
	lines chan string // of the log
	all   strings.Builder
	rest  sync.WaitGroup
}

// startProcess runs the real binary; see TestMain.
func startProcess(t *testing.T, args ...string) *process {
	t.Helper()
	path, err := exec.LookPath("portask")
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: exec.Command(path, append([]string{"serve"}, args...)...), lines: make(chan string, 10_000)}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.rest.Go(func() {
		defer close(p.lines)
		for s := bufio.NewScanner(stderr); s.Scan(); {
			p.lines <- s.Text()
		}
	})
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		p.rest.Wait()
		p.cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	addr, ok := strings.CutPrefix(line, "portask: serving on ")
	if err != nil || !ok {
		t.Fatalf("the broker did not start: %q %v", line, err)
	}
	p.addr = strings.TrimSpace(addr)
	return p
}

// until reads the log up to a line with the text, which it returns.
func (p *process) until(text string) string {
	p.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case line, ok := <-p.lines:
			p.all.WriteString(line + "\n")
			if !ok {
				p.t.Fatalf("the broker ended before it logged %q:\n%s", text, p.all.String())
			}
			if strings.Contains(line, text) {
				return line
			}
		case <-timeout:
			p.t.Fatalf("the broker did not log %q:\n%s", text, p.all.String())
		}
	}
}

// replace writes a configuration as a deployment does: whole, by renaming.
func replace(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file+".tmp", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".tmp", file); err != nil {
		t.Fatal(err)
	}
}

// traffic sends numbered messages and reads them back, all the time.
type traffic struct {
	t        *testing.T
	dials    atomic.Int32
	client   *client.Client
	producer *client.Producer
	consumer *client.Consumer
	stopped  chan struct{} // the producer is to end
	final    chan struct{} // it has, and sent is final
	window   chan struct{} // one for each message sent and not yet read
	progress chan struct{} // something was read
	sending  sync.WaitGroup
	reading  sync.WaitGroup
	sent     atomic.Uint64
	acked    atomic.Uint64
	read     atomic.Uint64
}

func startTraffic(t *testing.T, addr, topic string) *traffic {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	f := &traffic{t: t, stopped: make(chan struct{}), final: make(chan struct{}), window: make(chan struct{}, 2000), progress: make(chan struct{}, 1)}
	var err error
	must := func(e error) {
		t.Helper()
		if e != nil {
			t.Fatal(e)
		}
	}
	f.client, err = client.Dial(ctx, addr, client.WithDialer(func(ctx context.Context, network, addr string) (net.Conn, error) {
		f.dials.Add(1)
		return new(net.Dialer).DialContext(ctx, network, addr)
	}))
	must(err)
	_, err = f.client.Admin().CreateTopic(ctx, client.TopicConfig{Name: topic, Partitions: 1})
	must(err)
	f.producer, err = f.client.Producer(ctx, topic, client.WithCompression(compression.Policy{Strategy: compression.Always, Algorithm: message.Zstd}), client.WithLinger(time.Millisecond))
	must(err)
	f.consumer, err = f.client.Consumer(ctx, topic, client.From(client.Earliest))
	must(err)
	f.sending.Go(f.produce)
	f.reading.Go(f.consume)
	return f
}

func (f *traffic) produce() {
	for n := uint64(0); ; n++ {
		select {
		case <-f.stopped:
			return
		case f.window <- struct{}{}: // as fast as it is read, and no faster
		}
		m := message.Message{Value: append(binary.LittleEndian.AppendUint64(nil, n), make([]byte, 200)...)}
		err := f.producer.SendAsync(f.t.Context(), &m, func(_ client.Receipt, err error) {
			if err != nil {
				f.t.Errorf("message %d: %v", n, err)
			}
			f.acked.Add(1)
		})
		if err != nil {
			f.t.Errorf("send %d: %v", n, err)
			return
		}
		f.sent.Add(1)
	}
}

// consume reads until everything that was sent has been read after the end.
func (f *traffic) consume() {
	next := uint64(0)
	var last time.Time // to read the rest
	for {
		select {
		case <-f.final:
			if next == f.sent.Load() {
				return
			}
			if last.IsZero() {
				last = time.Now().Add(patience)
			} else if time.Now().After(last) {
				f.t.Errorf("%d messages were read, then none", next)
				return
			}
		default:
		}
		poll, done := context.WithTimeout(f.t.Context(), 50*time.Millisecond)
		b, err := f.consumer.Poll(poll)
		done()
		if errors.Is(err, context.DeadlineExceeded) {
			continue
		}
		if err != nil {
			f.t.Errorf("poll: %v", err)
			return
		}
		for m, err := range b.Messages() {
			if err != nil {
				f.t.Errorf("message %d: %v", next, err)
				return
			}
			if got := binary.LittleEndian.Uint64(m.Value); got != next {
				f.t.Errorf("message %d came instead of %d", got, next)
				return
			}
			next++
			<-f.window
		}
		b.Release()
		f.read.Store(next)
		select {
		case f.progress <- struct{}{}:
		default:
		}
	}
}

// flows waits until some more messages have gone round.
func (f *traffic) flows() {
	f.t.Helper()
	goal := f.read.Load() + 500
	timeout := time.After(patience)
	for f.read.Load() < goal && !f.t.Failed() {
		select {
		case <-f.progress:
		case <-timeout:
			f.t.Fatalf("the traffic stopped: %d sent, %d acknowledged, %d read", f.sent.Load(), f.acked.Load(), f.read.Load())
		}
	}
}

// end stops and checks that every message was acknowledged and read, over the
// connections of the beginning.
func (f *traffic) end() {
	f.t.Helper()
	dials := f.dials.Load()
	close(f.stopped)
	f.sending.Wait()
	close(f.final)
	ctx, cancel := context.WithTimeout(f.t.Context(), patience)
	defer cancel()
	if err := f.producer.Flush(ctx); err != nil {
		f.t.Errorf("flush: %v", err)
	}
	f.reading.Wait()
	if s, a, r := f.sent.Load(), f.acked.Load(), f.read.Load(); s != a || s != r {
		f.t.Errorf("%d sent, %d acknowledged, %d read", s, a, r)
	}
	if n := f.dials.Load(); n != 1 || dials != 1 {
		f.t.Errorf("%d connections were made", n)
	}
	if err := f.client.Close(); err != nil {
		f.t.Errorf("close: %v", err)
	}
}

// A running broker under load takes a new configuration, refuses a wrong one,
// names what needs a restart, and no connection notices.
func TestReloadUnderTraffic(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there is no SIGHUP to send")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "broker.yaml")
	replace(t, file, "version: 1\nlogging: {level: info}\ntopics: {segment: 1MiB}\n")
	p := startProcess(t, "--config", file, "--listen", "127.0.0.1:0", "--data", filepath.Join(dir, "data"))
	f := startTraffic(t, p.addr, "flow")
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	partitions := func(topic string) int {
		t.Helper()
		info, err := f.client.Admin().CreateTopic(ctx, client.TopicConfig{Name: topic})
		if err != nil {
			t.Fatal(err)
		}
		return len(info.Partitions)
	}
	f.flows()
	if n := partitions("one"); n != 1 {
		t.Errorf("%d partitions before", n)
	}

	// The file is replaced: what can change does, the rest is named.
	replace(t, file, `version: 1
logging: {level: debug}
topics: {segment: 1MiB, partitions: 3, retention_interval: 100ms}
network: {slow_consumer: 5s, max_connections: 77}
performance: {producer_memory: 128KiB, deliver_frame: 16KiB, gc_percent: 50}
`)
	for _, want := range []string{
		`msg="setting needs a restart" key=network.max_connections runs=1000000 configured=77 origin=` + file + ":4",
		`msg="setting changed" key=topics.partitions from=1 to=3 origin=` + file + ":3",
		`msg="configuration reloaded" why="the file has changed" file=` + file + " changed=7 need_restart=1",
	} {
		p.until(want)
	}
	f.flows()
	if n := partitions("three"); n != 3 {
		t.Errorf("%d partitions after the reload", n)
	}

	// A wrong one changes nothing.
	replace(t, file, "version: 1\ntopics:\n  partitions: 5\n  partition: 5\n")
	p.until(`level=ERROR msg="configuration refused, the old one stays"`)
	p.until(file + ":4: topics.partition: unknown key; did you mean topics.partitions?")
	if n := partitions("still-three"); n != 3 {
		t.Errorf("%d partitions after a refused reload", n)
	}
	f.flows()

	// What clients may send changes under their hands: the algorithm in use goes
	// on, another is refused by name.
	lz4 := func() error {
		q, err := f.client.Producer(ctx, "one", client.WithCompression(compression.Policy{Strategy: compression.Always, Algorithm: message.LZ4}))
		if err != nil {
			t.Fatal(err)
		}
		defer q.Close(ctx)
		_, err = q.Send(ctx, &message.Message{Value: make([]byte, 4096)})
		return err
	}
	if err := lz4(); err != nil {
		t.Errorf("lz4 is refused too early: %v", err)
	}
	// What producers are advised changes for those that are open and follow.
	q, err := f.client.Producer(ctx, "one")
	if err != nil {
		t.Fatal(err)
	}
	if s := q.Stats(); s.Algorithm != message.None || s.Encoding != message.Raw {
		t.Errorf("%+v", s)
	}
	replace(t, file, "version: 1\nlogging: {level: debug}\ntopics: {segment: 1MiB}\ncompression: {default: snappy, level: smallest}\nserialization: {default: cbor}\n")
	p.until("key=compression.default from=none to=snappy")
	p.until("key=compression.level from=fastest to=smallest")
	p.until("key=serialization.default from=raw to=cbor")
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		s := q.Stats()
		if s.Algorithm == message.Snappy && s.Level == compression.LevelSmallest && s.Encoding == message.CBOR {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the producer does not follow: %+v", s)
		}
	}
	if err := q.Close(ctx); err != nil {
		t.Error(err)
	}
	f.flows()
	replace(t, file, "version: 1\ncompression: {default: lz4, accept: [none, zstd]}\n")
	p.until("configuration refused")
	p.until("lz4 is the default, and not accepted")
	replace(t, file, "version: 1\nlogging: {level: debug}\ntopics: {segment: 1MiB}\ncompression: {accept: [none, zstd]}\nserialization: {accept: [raw, json]}\n")
	p.until("key=compression.accept")
	p.until(`msg="configuration reloaded"`)
	if err := lz4(); !errors.Is(err, fault.NotSupported) || !strings.Contains(err.Error(), "lz4") {
		t.Errorf("lz4: %v", err)
	}
	f.flows()

	// SIGHUP reads again what has not changed.
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	p.until(`msg="configuration reloaded" why=SIGHUP file=` + file + " changed=0 need_restart=0")
	f.flows()
	f.end()
	if strings.Contains(p.all.String(), `msg="connection closed"`) {
		t.Errorf("a connection was closed:\n%s", p.all.String())
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.until("stopped")
}

// Without a file, SIGHUP is a reload of nothing, not the end.
func TestHangupWithoutFile(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there is no SIGHUP to send")
	}
	p := startProcess(t, "--engine", "memlog", "--listen", "127.0.0.1:0", "--default-partitions", "2")
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	p.until(`msg="configuration reloaded" why=SIGHUP file="" changed=0 need_restart=0`)
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.until("stopped")
}
