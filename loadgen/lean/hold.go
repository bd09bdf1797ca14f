//go:build linux

package lean

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portask/portask/broker/wire"
)

// Holder keeps idle connections, each with one subscription at the end of
// partition 0, and spends a descriptor and 4 bytes on each. Not safe for
// concurrent use.
type Holder struct {
	addr  netip.AddrPort
	hello []byte // what each connection says, in one write
	fds   []int32
}

const (
	// perSource connections come from one loopback address, 127.0.0.2 and up,
	// far fewer than an address has ephemeral ports.
	perSource = 4096
	// holdGroup connections are opened before their answers are read, so that
	// opening is not a round trip each.
	holdGroup = 64
	// holdCredit is what an idle subscriber grants.
	holdCredit = 64 << 10
)

// NewHolder prepares to hold connections to addr.
func NewHolder(addr netip.AddrPort, topic string) *Holder {
	b := wire.AppendPreface(nil, wire.Version, wire.Version)
	b = wire.AppendFrame(b, wire.Header{Opcode: wire.OpHello, Correlation: 1}, &wire.Hello{
		MaxFrame: wire.DefaultMaxFrame, HeartbeatMs: uint32(wire.MaxHeartbeat.Milliseconds()), ClientName: "portask-loadgen-hold",
	})
	b = wire.AppendFrame(b, wire.Header{Opcode: wire.OpSubscribe, Correlation: 2}, &wire.Subscribe{
		Topic: topic, Partition: partition, Start: wire.StartLatest, Credit: holdCredit,
	})
	return &Holder{addr: addr, hello: b}
}

// Close closes all connections.
func (h *Holder) Close() {
	for _, fd := range h.fds {
		unix.Close(int(fd))
	}
	h.fds = nil
}

// Hold opens connections until there are n, then checks that every one is
// still open and silent.
func (h *Holder) Hold(n int) error {
	for len(h.fds) < n {
		from := len(h.fds)
		for len(h.fds) < min(n, from+holdGroup) {
			if err := h.open(); err != nil {
				return fmt.Errorf("connection %d: %w", len(h.fds)+1, err)
			}
		}
		for i := from; i < len(h.fds); i++ {
			if err := h.subscribed(&conn{fd: int(h.fds[i])}); err != nil {
				return fmt.Errorf("connection %d: %w", i+1, err)
			}
		}
	}
	var b [1]byte
	for i, fd := range h.fds {
		n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_DONTWAIT|unix.MSG_PEEK)
		if err != unix.EAGAIN {
			return fmt.Errorf("connection %d is not idle: %d bytes, %v", i+1, n, err)
		}
	}
	return nil
}

func (h *Holder) open() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	h.fds = append(h.fds, int32(fd))
	source := 2 + (len(h.fds)-1)/perSource
	if source > 250 {
		return fmt.Errorf("more than %d connections", 249*perSource)
	}
	// Without this option bind would reserve a port for the address alone.
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, byte(source)}}); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: h.addr.Addr().As4(), Port: int(h.addr.Port())}); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	return (&conn{fd: fd}).write(h.hello)
}

// subscribed reads the answers to HELLO and SUBSCRIBE.
func (h *Holder) subscribed(c *conn) error {
	if _, err := readAnswer(c, wire.OpHello, 1, new(wire.HelloOK)); err != nil {
		return err
	}
	_, err := readAnswer(c, wire.OpSubscribe, 2, new(wire.SubscribeOK))
	return err
}

// Serve lets a driver control the holder: "ready", then for each line
// "hold 5000" a line {"connections":5000}, until in ends.
func (h *Holder) Serve(in io.Reader, out io.Writer) error {
	if _, err := fmt.Fprintln(out, "ready"); err != nil {
		return err
	}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		var n int
		if _, err := fmt.Sscanf(lines.Text(), "hold %d", &n); err != nil || n < len(h.fds) {
			return fmt.Errorf("command %q: want \"hold N\", at least the %d that are held", lines.Text(), len(h.fds))
		}
		if err := h.Hold(n); err != nil {
			return err
		}
		if err := json.NewEncoder(out).Encode(map[string]int{"connections": n}); err != nil {
			return err
		}
	}
	return nil
}

// FirstAnswer waits for a broker to write its address to a file and asks it for
// the topic's metadata: the first answer of a starting broker. It prints
// "ready" before waiting and one line of JSON after.
func FirstAnswer(addrFile, topic string, timeout time.Duration, out io.Writer) error {
	if _, err := fmt.Fprintln(out, "ready"); err != nil {
		return err
	}
	var text string
	for deadline := time.Now().Add(timeout); ; time.Sleep(500 * time.Microsecond) {
		b, err := os.ReadFile(addrFile)
		if text = strings.TrimSpace(string(b)); err == nil && text != "" {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no address in %s within %v", addrFile, timeout)
		}
	}
	addr, err := netip.ParseAddrPort(text)
	if err != nil {
		return err
	}
	c, err := dial(addr)
	if err != nil {
		return err
	}
	defer c.close()
	var t portaskTarget
	if _, err := t.hello(c); err != nil {
		return err
	}
	var m wire.Metadata
	if _, err := t.request(c, wire.OpMetadata, &wire.MetadataRequest{Topics: []string{topic}}, &m); err != nil {
		return err
	}
	if len(m.Topics) != 1 || len(m.Topics[0].Partitions) == 0 {
		return fmt.Errorf("metadata tells of %d topics, want topic %q", len(m.Topics), topic)
	}
	return json.NewEncoder(out).Encode(map[string]int64{
		"partitions": int64(len(m.Topics[0].Partitions)),
		"log_end":    int64(m.Topics[0].Partitions[0].LogEnd),
	})
}
