//go:build unix

package client

import (
	"syscall"
	"time"
)

// cpuTime is what the process has used, both sides of a benchmark together.
func cpuTime() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
