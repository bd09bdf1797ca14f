//go:build unix

package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// unread tells whether f is a pipe or the like that has no reader.
func unread(f *os.File) bool {
	p := []unix.PollFd{{Fd: int32(f.Fd())}}
	for {
		n, err := unix.Poll(p, 0)
		if err == unix.EINTR {
			continue
		}
		return err == nil && n == 1 && p[0].Revents&unix.POLLERR != 0
	}
}
