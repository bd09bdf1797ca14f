//go:build unix

package server

import "syscall"

// setReceiveBuffer bounds what the kernel keeps for a peer that does not read.
func setReceiveBuffer(rc syscall.RawConn, n int) error {
	var err error
	if cerr := rc.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, n)
	}); cerr != nil {
		return cerr
	}
	return err
}
