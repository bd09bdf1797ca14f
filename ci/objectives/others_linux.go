package objectives

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// usage is CPU time since the machine or the program began.
type usage struct {
	at time.Time
	// all is user and system time of every task; interrupts are not in it, since
	// those of our own packets are nobody's.
	all, steal time.Duration
	// own is the time of this program and of the children that it has waited for,
	// and they for theirs.
	own time.Duration
}

func readUsage() (usage, error) {
	u := usage{at: time.Now()}
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return u, err
	}
	if u.all, u.steal, err = parseStat(string(b)); err != nil {
		return u, err
	}
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var r syscall.Rusage
		if err := syscall.Getrusage(who, &r); err != nil {
			return u, err
		}
		u.own += time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	return u, nil
}

// parseStat reads the first line of /proc/stat, in hundredths of a second:
// "cpu  user nice system idle iowait irq softirq steal ...".
func parseStat(stat string) (all, steal time.Duration, err error) {
	line, _, _ := strings.Cut(stat, "\n")
	f := strings.Fields(line)
	if len(f) < 9 || f[0] != "cpu" {
		return 0, 0, fmt.Errorf("/proc/stat begins with %q", line)
	}
	for i, to := range map[int]*time.Duration{1: &all, 2: &all, 3: &all, 8: &steal} {
		n, err := strconv.ParseInt(f[i], 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("/proc/stat begins with %q: %w", line, err)
		}
		*to += time.Duration(n) * (time.Second / 100)
	}
	return all, steal, nil
}
