package pace

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// precise prepares the calling, locked thread: timer slack, and the highest
// priority that the process may give it. Sleeping through Go's Syscall lends the
// thread's scheduler slot (its P) to others meanwhile.
func precise() (sleep func(int64), restore func(), exact bool, priority string) {
	old, _ := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	exact = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) == nil
	sleep = func(ns int64) {
		ts := unix.NsecToTimespec(ns)
		// An early return (EINTR) is the caller's loop to notice.
		if err := unix.ClockNanosleep(unix.CLOCK_MONOTONIC, 0, &ts, nil); err != nil && err != unix.EINTR {
			time.Sleep(time.Duration(ns))
		}
	}
	priority, lower := raise()
	restore = func() {
		lower()
		if exact && old > 0 {
			unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(old), 0, 0, 0)
		}
	}
	return sleep, restore, exact, priority
}

const (
	schedNormal     = 0
	schedRoundRobin = 2
	niceBest        = -20
	// realTime is the lowest real-time priority: above every ordinary thread,
	// below what the machine itself needs in time.
	realTime = 1
)

func roundRobin() *unix.SchedAttr {
	return &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: schedRoundRobin, Priority: realTime}
}

// raise puts the calling thread before ordinary ones, so that the kernel runs it
// when its sleep ends, also where the target keeps all processors busy: round
// robin, which needs CAP_SYS_NICE or a limit rtprio, or else a better nice value,
// which needs a limit nice. The thread sleeps between messages, so it takes from
// others what it would have taken anyway, only in time; the kernel bounds a
// real-time thread to 95 % of a processor.
func raise() (priority string, lower func()) {
	before, err := unix.SchedGetAttr(0, 0)
	switch {
	case err != nil:
		return Ordinary, func() {}
	case before.Policy != schedNormal: // RaiseProcess, or whoever started the program
		return fmt.Sprintf("%d of scheduling policy %d, as the process", before.Priority, before.Policy), func() {}
	}
	before.Size = unix.SizeofSchedAttr
	lower = func() { _ = unix.SchedSetAttr(0, before, 0) }
	if unix.SchedSetAttr(0, roundRobin(), 0) == nil {
		return fmt.Sprintf("real time (round robin %d)", realTime), lower
	}
	for nice := int32(niceBest); nice < before.Nice; nice++ {
		attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: schedNormal, Nice: nice}
		if unix.SchedSetAttr(0, &attr, 0) == nil {
			return fmt.Sprintf("nice %d", nice), lower
		}
	}
	return Ordinary, func() {}
}

// RaiseProcess makes all threads of the process round robin, those to come
// included, until lower is called; processes that it starts meanwhile would be,
// too. It is for a pacer that shares its processors with the target: Go's
// scheduler interrupts a thread that has run for 10 ms, and where the thread that
// is to let it go on waits behind the target, that takes milliseconds. What the
// process needs for its work it then takes first, at the target's cost, so it is
// for rates far below what the machine could do. An error means that the process
// may not, and that nothing has changed.
func RaiseProcess() (lower func(), err error) {
	before, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return nil, err
	}
	before.Size = unix.SizeofSchedAttr
	if before.Policy != schedNormal {
		return func() {}, nil
	}
	if err := everyThread(roundRobin()); err != nil {
		_ = everyThread(before)
		return nil, fmt.Errorf("real-time priority needs CAP_SYS_NICE or a limit rtprio (ulimit -r %d): %w", realTime, err)
	}
	return func() { _ = everyThread(before) }, nil
}

// everyThread sets all threads, and those that were made meanwhile.
func everyThread(attr *unix.SchedAttr) error {
	for range 3 { // who made one late inherited from one that was set
		all, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		for _, x := range all {
			tid, err := strconv.Atoi(x.Name())
			if err != nil {
				continue
			}
			if err := unix.SchedSetAttr(tid, attr, 0); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
		}
	}
	return nil
}
