package client

import (
	"net"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// tcpState is what the kernel knows of a connection (tcp_info, Linux 4.9 and
// later). The counters are since its beginning.
type tcpState struct {
	ok         bool
	rate       float64       // delivered bytes a second, as last measured
	appLimited bool          // the sender had nothing to send meanwhile: the link may be faster
	acked      uint64        // bytes
	busy       time.Duration // something was unacknowledged
}

// readTCP asks the kernel, which takes a microsecond. ok is false for what is no
// TCP connection.
func readTCP(nc net.Conn) (s tcpState) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return s
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return s
	}
	_ = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return
		}
		// The bit tcpi_delivery_rate_app_limited has no name in package unix: it is
		// the lowest of the eighth byte (include/uapi/linux/tcp.h).
		bits := (*[8]byte)(unsafe.Pointer(info))[7]
		s = tcpState{ok: true, rate: float64(info.Delivery_rate), appLimited: bits&1 != 0, acked: info.Bytes_acked,
			busy: time.Duration(info.Busy_time) * time.Microsecond}
	})
	return s
}
