//go:build linux

// Package kernel is the calibration kernel: the least a log server can do, as
// the yardstick for Portask's throughput and CPU on whatever machine runs both.
//
// For each batch that arrives from one producer it checks the CRC32C, writes
// the batch into a file with one pwrite, answers the producer with 8 bytes and
// sends the batch to one consumer with one sendfile. There is nothing else: no
// offsets, no index, no recovery, no second connection, no growth. Its figures
// are therefore a floor, not a rival.
//
// The conversation, all little-endian:
//
//	client   -> kernel    1 byte   'P' producer or 'C' consumer, once
//	producer -> kernel    u32 n    4 bytes: length of the batch that follows
//	                      n bytes  the batch: a Portask batch without section,
//	                               whose bytes 36..40 are the CRC32C of bytes 80..n
//	kernel   -> producer  u64      messages stored so far, one answer a batch;
//	                               answers of one read leave in one write
//	kernel   -> consumer  the producer's stream, byte for byte
//
// The file is a region of fixed size that was written once before the clients
// are accepted and is used round and round, so that neither the first touch of
// a page nor the growth of a file is in the figures. A batch never straddles
// the end of the region.
//
// One goroutine does all of it with blocking calls: an epoll call a turn would
// be one call more. On two shared cores with batches of 64 x 1 KiB it spends
// 0.47 CPU seconds per million messages with a receive buffer of 1 MiB, 0.65
// with 256 KiB and 0.73 with 128 KiB (fewer reads, answers and wake-ups), and
// 0.44 with Gather.
package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/netip"
	"os"
	"syscall"
	"time"
)

const (
	envelopeBytes = 80 // of a Portask batch, before its body
	bodyCRCAt     = 36
	countAt       = 40
	prefixBytes   = 4
	ackBytes      = 8

	// BatchBytesMax is the largest batch, Portask's own limit.
	BatchBytesMax = 4 << 20
)

// Options of one kernel.
type Options struct {
	// File is created, filled and, at the end, removed.
	File string
	// RegionBytes is the size of the file; default 256 MiB. It must hold at
	// least the bytes that two socket buffers may hold (8 MiB on Linux's
	// defaults), because sendfile lends pages to the socket and a page must not
	// be overwritten before the consumer has it.
	RegionBytes int64
	// ReadBytes is the size of the receive buffer; default 1 MiB.
	ReadBytes int
	// Gather writes and sends all batches of one read with one pwrite and one
	// sendfile, instead of one each a batch.
	Gather bool
}

func (o *Options) setDefaults() error {
	if o.RegionBytes == 0 {
		o.RegionBytes = 256 << 20
	}
	if o.ReadBytes == 0 {
		o.ReadBytes = 1 << 20
	}
	if o.RegionBytes < 64<<20 || o.RegionBytes > 16<<30 {
		return fmt.Errorf("region of %d bytes: want 64 MiB to 16 GiB", o.RegionBytes)
	}
	if o.ReadBytes < 4<<10 || o.ReadBytes > 64<<20 {
		return fmt.Errorf("receive buffer of %d bytes: want 4 KiB to 64 MiB", o.ReadBytes)
	}
	return nil
}

// Stats is what one kernel did from its first byte to the end of the producer.
type Stats struct {
	Messages int64 `json:"messages"`
	Batches  int64 `json:"batches"`
	Bytes    int64 `json:"bytes"`
	Reads    int64 `json:"reads"`
	Writes   int64 `json:"writes"`
	Sends    int64 `json:"sends"`
	Acks     int64 `json:"acks"`
	// CPUSeconds is user and system time of the process, filling the file excluded.
	CPUSeconds float64 `json:"cpu_seconds"`
}

// Server is a kernel that listens. Its methods are for one goroutine.
type Server struct {
	o      Options
	file   *os.File
	listen int
	addr   netip.AddrPort
}

// Listen prepares the file and listens on a free port of 127.0.0.1.
func Listen(o Options) (*Server, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(o.File, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	s := &Server{o: o, file: f, listen: -1}
	if err := s.prepare(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Server) prepare() error {
	fill := make([]byte, 1<<20)
	for at := int64(0); at < s.o.RegionBytes; at += int64(len(fill)) {
		n := min(int64(len(fill)), s.o.RegionBytes-at)
		if _, err := s.file.WriteAt(fill[:n], at); err != nil {
			return fmt.Errorf("fill the region: %w", err)
		}
	}
	if err := s.file.Sync(); err != nil {
		return fmt.Errorf("fill the region: %w", err)
	}
	var err error
	if s.listen, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0); err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	if err := syscall.Bind(s.listen, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	if err := syscall.Listen(s.listen, 8); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	sa, err := syscall.Getsockname(s.listen)
	if err != nil {
		return fmt.Errorf("getsockname: %w", err)
	}
	in, ok := sa.(*syscall.SockaddrInet4)
	if !ok {
		return fmt.Errorf("getsockname: unexpected address %T", sa)
	}
	s.addr = netip.AddrPortFrom(netip.AddrFrom4(in.Addr), uint16(in.Port))
	return nil
}

// Addr is where the clients connect.
func (s *Server) Addr() netip.AddrPort { return s.addr }

// Close ends listening and removes the file.
func (s *Server) Close() error {
	if s.listen >= 0 {
		syscall.Close(s.listen)
	}
	return errors.Join(s.file.Close(), os.Remove(s.file.Name()))
}

// Serve accepts one producer and one consumer, in any order, and copies until
// the producer closes; then it closes the consumer. A batch that fails its
// checksum or breaks a limit ends it with an error.
func (s *Server) Serve() (Stats, error) {
	before := cpuTime()
	var producer, consumer = -1, -1
	defer func() {
		for _, fd := range []int{producer, consumer} {
			if fd >= 0 {
				syscall.Close(fd)
			}
		}
	}()
	for producer < 0 || consumer < 0 {
		fd, _, err := syscall.Accept4(s.listen, syscall.SOCK_CLOEXEC)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return Stats{}, fmt.Errorf("accept: %w", err)
		}
		if err := syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1); err != nil {
			syscall.Close(fd)
			return Stats{}, fmt.Errorf("nodelay: %w", err)
		}
		var role [1]byte
		if n, err := read(fd, role[:]); n != 1 {
			syscall.Close(fd)
			return Stats{}, fmt.Errorf("role of a client: %w", err)
		}
		switch {
		case role[0] == 'P' && producer < 0:
			producer = fd
		case role[0] == 'C' && consumer < 0:
			consumer = fd
		default:
			syscall.Close(fd)
			return Stats{}, fmt.Errorf("client with role %q: want one 'P' and one 'C'", role[0])
		}
	}
	c := copier{file: int(s.file.Fd()), region: s.o.RegionBytes, gather: s.o.Gather, from: producer, to: consumer, buf: make([]byte, s.o.ReadBytes)}
	err := c.run()
	c.CPUSeconds = (cpuTime() - before).Seconds()
	return c.Stats, err
}

// copier is the hot loop's state.
type copier struct {
	Stats
	file, from, to int
	region, at     int64 // at: where the next batch is written
	gather         bool
	buf            []byte
	acks           []byte
}

// run reads as much as there is, then serves every whole batch of it. What
// remains of an incomplete batch moves to the front of the buffer, which grows
// to the size of the largest batch and no further.
func (c *copier) run() error {
	held := 0
	for {
		n, err := read(c.from, c.buf[held:])
		if n == 0 && err == io.EOF && held == 0 {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read with %d bytes of a batch held: %w", held, err)
		}
		c.Reads++
		held += n
		used, need, err := c.batches(c.buf[:held])
		if err != nil {
			return err
		}
		held = copy(c.buf, c.buf[used:held])
		if need > len(c.buf) {
			grown := make([]byte, need)
			copy(grown, c.buf[:held])
			c.buf = grown
		}
		if len(c.acks) > 0 {
			if err := write(c.from, c.acks); err != nil {
				return fmt.Errorf("ack: %w", err)
			}
			c.Acks++
			c.acks = c.acks[:0]
		}
	}
}

// batches serves the whole batches at the front of b. used counts their bytes;
// need is the size of the incomplete one behind them, 0 if even its length is
// missing.
func (c *copier) batches(b []byte) (used, need int, err error) {
	first := 0 // of the batches that are checked but not yet stored, with Gather
	for len(b)-used >= prefixBytes {
		n := int(binary.LittleEndian.Uint32(b[used:]))
		if n < envelopeBytes || n > BatchBytesMax {
			return used, 0, fmt.Errorf("batch of %d bytes: want %d to %d", n, envelopeBytes, BatchBytesMax)
		}
		need = prefixBytes + n
		if len(b)-used < need {
			break
		}
		batch := b[used+prefixBytes : used+need]
		if got, want := crc32.Checksum(batch[envelopeBytes:], castagnoli), binary.LittleEndian.Uint32(batch[bodyCRCAt:]); got != want {
			return used, 0, fmt.Errorf("batch %d: CRC32C %08x, want %08x", c.Batches, got, want)
		}
		used += need
		need = 0
		c.Batches++
		c.Messages += int64(binary.LittleEndian.Uint32(batch[countAt:]))
		c.acks = binary.LittleEndian.AppendUint64(c.acks, uint64(c.Messages))
		if !c.gather {
			if err := c.store(b[first:used]); err != nil {
				return used, 0, err
			}
			first = used
		}
	}
	if first < used {
		err = c.store(b[first:used])
	}
	return used, need, err
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// store writes p into the region and sends it from there to the consumer.
func (c *copier) store(p []byte) error {
	if c.at+int64(len(p)) > c.region {
		c.at = 0
	}
	for done := 0; done < len(p); {
		n, err := syscall.Pwrite(c.file, p[done:], c.at+int64(done))
		if err != nil && err != syscall.EINTR {
			return fmt.Errorf("pwrite at %d: %w", c.at, err)
		}
		c.Writes++
		done += max(n, 0)
	}
	for at, end := c.at, c.at+int64(len(p)); at < end; {
		_, err := syscall.Sendfile(c.to, c.file, &at, int(end-at))
		if err != nil && err != syscall.EINTR {
			return fmt.Errorf("sendfile at %d: %w", at, err)
		}
		c.Sends++
	}
	c.at += int64(len(p))
	c.Bytes += int64(len(p))
	return nil
}

// read is one read that is repeated only if a signal interrupted it.
func read(fd int, p []byte) (int, error) {
	for {
		n, err := syscall.Read(fd, p)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

func write(fd int, p []byte) error {
	for len(p) > 0 {
		n, err := syscall.Write(fd, p)
		if err != nil && err != syscall.EINTR {
			return err
		}
		p = p[max(n, 0):]
	}
	return nil
}

// cpuTime is user and system time of this process so far.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
