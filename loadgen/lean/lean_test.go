//go:build linux

package lean

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/portask/portask/broker/message"
)

// relay is a kernel without a file: it acknowledges each batch and passes it on
// after change, which may alter it, or drop it by returning nil.
func relay(t *testing.T, change func(n int, batch []byte) []byte) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		var producer, consumer net.Conn
		for producer == nil || consumer == nil {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			var role [1]byte
			if _, err := io.ReadFull(c, role[:]); err != nil {
				return
			}
			if role[0] == 'P' {
				producer = c
			} else {
				consumer = c
			}
		}
		in := bufio.NewReaderSize(producer, 1<<20)
		var stored uint64
		for n := 0; ; n++ {
			var prefix [4]byte
			if _, err := io.ReadFull(in, prefix[:]); err != nil {
				return
			}
			batch := make([]byte, binary.LittleEndian.Uint32(prefix[:]))
			if _, err := io.ReadFull(in, batch); err != nil {
				return
			}
			stored += uint64(binary.LittleEndian.Uint32(batch[40:]))
			if _, err := producer.Write(binary.LittleEndian.AppendUint64(nil, stored)); err != nil {
				return
			}
			if batch = change(n, batch); batch == nil {
				continue
			}
			if _, err := consumer.Write(append(binary.LittleEndian.AppendUint32(nil, uint32(len(batch))), batch...)); err != nil {
				return
			}
		}
	}()
	return netip.MustParseAddrPort(ln.Addr().String())
}

func asIs(_ int, b []byte) []byte { return b }

func dialBoth(t *testing.T, addr netip.AddrPort, o ProducerOptions) (*Producer, *Consumer) {
	t.Helper()
	target, err := NewTarget("kernel", "", message.AckAccepted)
	if err != nil {
		t.Fatal(err)
	}
	k, err := DialConsumer(addr, target, ConsumerOptions{ReadBytes: 8 << 10})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	p, err := DialProducer(addr, target, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p, k
}

func TestPhases(t *testing.T) {
	// A batch is larger than the consumer's buffer, and the window is smaller
	// than what one write would take.
	p, k := dialBoth(t, relay(t, asIs), ProducerOptions{BatchMessages: 16, MessageBytes: 1000, Distinct: 3, WindowBytes: 100_000})
	for i, amount := range []struct {
		d       time.Duration
		batches int64
	}{{0, 1}, {0, 100}, {20 * time.Millisecond, 0}} {
		type outcome struct {
			Phase
			error
		}
		got := make(chan outcome, 1)
		go func() {
			ph, err := k.Run()
			got <- outcome{ph, err}
		}()
		sent, err := p.Run(amount.d, amount.batches)
		if err != nil {
			t.Fatal(err)
		}
		g := <-got
		if g.error != nil {
			t.Fatal(g.error)
		}
		if g.Batches != sent.Batches || g.Messages != sent.Messages || g.Bytes != sent.Bytes || sent.Messages != 16*sent.Batches {
			t.Errorf("phase %d: sent %+v, received %+v", i, sent, g.Phase)
		}
		if amount.batches > 0 && sent.Batches != amount.batches+1 { // and the one that ends the phase
			t.Errorf("phase %d: %d batches, want %d and the last", i, sent.Batches, amount.batches)
		}
		if g.EndNs < sent.StartNs || sent.EndNs < sent.StartNs {
			t.Errorf("phase %d: from %d to %d and %d", i, sent.StartNs, sent.EndNs, g.EndNs)
		}
	}
}

func TestConsumerFindsFaults(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		change     func(n int, b []byte) []byte
	}{
		{"flipped bit", "batch 5: ", func(n int, b []byte) []byte {
			if n == 5 {
				b[len(b)-1] ^= 1
			}
			return b
		}},
		{"lost batch", "batch 5: sequence 384, want 320", func(n int, b []byte) []byte {
			if n == 5 {
				return nil
			}
			return b
		}},
		{"batch twice", "batch 6: sequence 320, want 384", func(n int, b []byte) []byte {
			if n == 6 {
				binary.LittleEndian.PutUint32(b[52:], 320)
			}
			return b
		}},
		{"cut batch", "batch of 79 bytes", func(n int, b []byte) []byte {
			if n == 5 {
				return b[:79]
			}
			return b
		}},
	} {
		p, k := dialBoth(t, relay(t, tt.change), ProducerOptions{MessageBytes: 100})
		if _, err := p.Run(0, 20); err != nil {
			t.Fatal(err)
		}
		if _, err := k.Run(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one with %q", tt.name, err, tt.want)
		}
	}
}

func TestServeThroughPipes(t *testing.T) {
	p, k := dialBoth(t, relay(t, asIs), ProducerOptions{MessageBytes: 100})
	consumerIn, endConsumer := io.Pipe()
	// A pipe of the system holds what the consumer says until the test reads it,
	// as it does between processes; the consumer would wait at an io.Pipe.
	consumerOut, consumerW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer consumerOut.Close()
	defer consumerW.Close()
	ended := make(chan error, 1)
	go func() { ended <- k.Serve(consumerIn, consumerW) }()
	received := bufio.NewScanner(consumerOut)
	if !received.Scan() || received.Text() != "ready" {
		t.Fatalf("consumer began with %q", received.Text())
	}
	var out strings.Builder
	if err := p.Serve(strings.NewReader("run 3\nrun 5\n"), &out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 3 || lines[0] != "ready" {
		t.Fatalf("producer said %q", lines)
	}
	for _, line := range lines[1:] {
		var sent, got Phase
		if err := json.Unmarshal([]byte(line), &sent); err != nil {
			t.Fatal(err)
		}
		if !received.Scan() {
			t.Fatal("the consumer ended")
		}
		if err := json.Unmarshal(received.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if sent.Messages == 0 || sent.Messages != got.Messages {
			t.Errorf("sent %d messages, received %d", sent.Messages, got.Messages)
		}
	}
	endConsumer.Close()
	if err := <-ended; err != nil {
		t.Errorf("the consumer's end: %v", err)
	}
}

func TestParseRun(t *testing.T) {
	if d, n, err := parseRun("run 3s"); d != 3*time.Second || n != 0 || err != nil {
		t.Errorf("%v, %d, %v", d, n, err)
	}
	if d, n, err := parseRun(" run 1000\n"); d != 0 || n != 1000 || err != nil {
		t.Errorf("%v, %d, %v", d, n, err)
	}
	for _, bad := range []string{"", "run", "run x", "run -3s", "run 0", "run 2h", "walk 3s"} {
		if _, _, err := parseRun(bad); err == nil {
			t.Errorf("%q: accepted", bad)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	if _, err := NewTarget("kafka", "", message.AckDurable); err == nil {
		t.Error("an unknown target was accepted")
	}
	addr := netip.MustParseAddrPort("127.0.0.1:1")
	for _, o := range []ProducerOptions{{BatchMessages: -1}, {MessageBytes: 2 << 20}, {WindowBytes: -1}, {Distinct: 5000}, {WriteBytes: 1 << 30}} {
		if _, err := DialProducer(addr, kernelTarget{}, o); err == nil || !strings.Contains(err.Error(), "want 1 to") {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if _, err := DialConsumer(addr, kernelTarget{}, ConsumerOptions{ReadBytes: 1}); err == nil {
		t.Error("a receive buffer of one byte was accepted")
	}
	if _, err := DialProducer(netip.MustParseAddrPort("[::1]:1"), kernelTarget{}, ProducerOptions{}); err == nil {
		t.Error("IPv6 was accepted")
	}
}
