package pace

import (
	"time"

	"golang.org/x/sys/unix"
)

// precise prepares the calling, locked thread. Sleeping through Go's Syscall
// lends the thread's processor to others meanwhile.
func precise() (sleep func(int64), restore func(), exact bool) {
	old, _ := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	exact = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) == nil
	sleep = func(ns int64) {
		ts := unix.NsecToTimespec(ns)
		// An early return (EINTR) is the caller's loop to notice.
		if err := unix.ClockNanosleep(unix.CLOCK_MONOTONIC, 0, &ts, nil); err != nil && err != unix.EINTR {
			time.Sleep(time.Duration(ns))
		}
	}
	restore = func() {
		if exact && old > 0 {
			unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(old), 0, 0, 0)
		}
	}
	return sleep, restore, exact
}
