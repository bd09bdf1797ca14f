//go:build linux

// Package lean holds the cheapest producer and consumer that can be written in
// Go: one thread, blocking sockets, batches encoded once. They exist so that a
// measured rate tells about the server and not about its clients, and so that
// two servers can be driven with identical client work: the code is shared, and
// a Target supplies only the few bytes around a batch that differ.
//
// A run is made of phases. The producer sends for some time, ends the phase
// with one batch of priority 7 and waits for its acknowledgements; the consumer
// checks every batch (CRC32C, count, sequence) and reports when it sees that
// batch. Between phases nothing is in flight, which is when a driver reads the
// server's CPU time.
//
// This is no load generator for applications: see package load for that.
package lean

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/portask/portask/broker/message"
)

// Phase is what one side saw of one phase. Times are of the machine's
// monotonic clock, so those of two processes compare.
type Phase struct {
	Messages int64 `json:"messages"`
	Batches  int64 `json:"batches"`
	Bytes    int64 `json:"bytes"` // of batches, framing excluded
	StartNs  int64 `json:"start_ns"`
	EndNs    int64 `json:"end_ns"`
	// CPUSeconds is this process's, for the phase.
	CPUSeconds float64 `json:"cpu_seconds"`
	// Syscalls is the number of reads and writes on the socket.
	Syscalls int64 `json:"syscalls"`
}

// endPriority marks the batch that ends a phase. The others have priority 0.
const endPriority = message.MaxPriority

// Target is one kind of server.
type Target interface {
	// openProducer and openConsumer do whatever precedes the first batch.
	openProducer(c *conn) (producerEnd, error)
	openConsumer(c *conn) (consumerEnd, error)
}

// producerEnd frames batches and reads answers. Not safe for concurrent use.
type producerEnd interface {
	// id is what the batches must carry.
	id() message.Producer
	// appendHead appends what stands before a batch of n bytes on the wire.
	appendHead(dst []byte, n int) []byte
	// stamp completes the head in frame for the nth batch sent.
	stamp(frame []byte, n uint32)
	// room is how many bytes the server allows to be sent now, beyond what the
	// producer's own window says; math.MaxInt64 if it does not limit.
	room() int64
	// answers reads the whole answers at the front of b: how many bytes they
	// took and how many batches they acknowledge.
	answers(b []byte) (used, batches int, err error)
}

// consumerEnd unframes batches. Not safe for concurrent use.
type consumerEnd interface {
	// next returns the batches of the unit at the front of b, back to back, and
	// the unit's length on the wire. If the unit is incomplete, batches is nil
	// and size is its length, or 0 if that cannot be told yet.
	next(b []byte) (batches []byte, size int, err error)
	// consumed is called after each read with the bytes that were used up.
	consumed(c *conn, n int) error
}

// conn is a blocking socket. Reads and writes go around Go's poller: with one
// thread that has nothing else to do, a blocking call costs one system call
// where the poller's costs two or three.
type conn struct {
	fd       int
	syscalls int64
}

func dial(addr netip.AddrPort) (*conn, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	c := &conn{fd: fd}
	if !addr.Addr().Is4() {
		c.close()
		return nil, fmt.Errorf("address %v: want IPv4", addr)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: addr.Addr().As4(), Port: int(addr.Port())}); err != nil {
		c.close()
		return nil, fmt.Errorf("connect to %v: %w", addr, err)
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		c.close()
		return nil, fmt.Errorf("nodelay: %w", err)
	}
	return c, nil
}

func (c *conn) close() { unix.Close(c.fd) }

func (c *conn) write(p []byte) error {
	for len(p) > 0 {
		c.syscalls++
		n, err := unix.Write(c.fd, p)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("write: %w", err)
		}
		p = p[max(n, 0):]
	}
	return nil
}

// read waits for at least one byte.
func (c *conn) read(p []byte) (int, error) {
	for {
		c.syscalls++
		n, err := unix.Read(c.fd, p)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, fmt.Errorf("read: %w", err)
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// usage is the CPU time of this process in seconds.
func usage() float64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// monotonic is the machine's monotonic clock, ns.
func monotonic() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0
	}
	return ts.Nano()
}

// NewTarget returns the target of that name: "kernel" for the calibration
// kernel, "portask" for a broker. topic, level and partition mean nothing to
// the kernel, which acknowledges what the operating system has.
func NewTarget(name, topic string, level message.AckLevel) (Target, error) {
	switch name {
	case "kernel":
		return kernelTarget{}, nil
	case "portask":
		return &portaskTarget{topic: topic, level: level}, nil
	}
	return nil, fmt.Errorf("target %q: want kernel or portask", name)
}

// kernelTarget speaks the calibration kernel's conversation: u32 length and
// batch both ways, one u64 for each batch back.
type kernelTarget struct{}

func (kernelTarget) openProducer(c *conn) (producerEnd, error) {
	return kernelTarget{}, c.write([]byte{'P'})
}

func (kernelTarget) openConsumer(c *conn) (consumerEnd, error) {
	return kernelTarget{}, c.write([]byte{'C'})
}

func (kernelTarget) id() message.Producer { return message.Producer{ID: 1} }

func (kernelTarget) appendHead(dst []byte, n int) []byte {
	return binary.LittleEndian.AppendUint32(dst, uint32(n))
}

func (kernelTarget) stamp([]byte, uint32) {}

func (kernelTarget) room() int64 { return math.MaxInt64 }

func (kernelTarget) answers(b []byte) (used, batches int, err error) {
	return len(b) &^ 7, len(b) / 8, nil
}

func (kernelTarget) next(b []byte) ([]byte, int, error) {
	if len(b) < 4 {
		return nil, 0, nil
	}
	n := int(binary.LittleEndian.Uint32(b))
	if n < message.EnvelopeBytes || n > message.DefaultLimits().BatchBytes {
		return nil, 0, fmt.Errorf("batch of %d bytes", n)
	}
	if len(b) < 4+n {
		return nil, 4 + n, nil
	}
	return b[4 : 4+n : 4+n], 4 + n, nil
}

func (kernelTarget) consumed(*conn, int) error { return nil }

// errClosed tells a peer's close from a failure.
func errClosed(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("the server closed the connection")
	}
	return err
}
