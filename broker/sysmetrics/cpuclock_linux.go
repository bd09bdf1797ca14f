package sysmetrics

import (
	"time"

	"golang.org/x/sys/unix"
)

// cpuClock reads the CPU clock of a process. The clock's number is the pid,
// inverted, above three bits that say "whole process, scheduler's count"
// (clock_getcpuclockid(3); include/linux/posix-timers.h).
func cpuClock(pid int) (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|2), &ts); err != nil {
		return 0, err
	}
	return time.Duration(ts.Nano()), nil
}
