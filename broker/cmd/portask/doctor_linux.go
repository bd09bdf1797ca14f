package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func checkDescriptors() finding {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return finding{Check: "descriptors", Verdict: unknown, Value: err.Error()}
	}
	return judgeDescriptors(r.Cur, r.Max)
}

// fileSystem names the file system of dir and tells whether it lives in memory.
func fileSystem(dir string) (name string, inMemory bool) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return "file system unknown", false
	}
	// The width of Type differs between architectures.
	switch magic := int64(s.Type) & 0xffffffff; magic {
	case unix.TMPFS_MAGIC:
		return "tmpfs", true
	case unix.RAMFS_MAGIC:
		return "ramfs", true
	case unix.EXT4_SUPER_MAGIC:
		return "ext4", false
	case unix.XFS_SUPER_MAGIC:
		return "xfs", false
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs", false
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlayfs", false
	case unix.NFS_SUPER_MAGIC:
		return "nfs", false
	default:
		return fmt.Sprintf("file system 0x%x", magic), false
	}
}

func checkClockSource() finding {
	source := "source unknown"
	if b, err := os.ReadFile("/sys/devices/system/clocksource/clocksource0/current_clocksource"); err == nil {
		source = strings.TrimSpace(string(b))
	}
	return judgeClockSource(source, clockCost())
}

// checkClockSync asks the kernel whether something disciplines its clock.
// Offsets by time, retention by age and expiry use it.
func checkClockSync() finding {
	f := finding{Check: "clock sync", Verdict: good}
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return finding{Check: f.Check, Verdict: unknown, Value: err.Error()}
	}
	const timeError = 5 // TIME_ERROR of adjtimex(2): not synchronised
	if state == timeError || t.Status&unix.STA_UNSYNC != 0 {
		f.Verdict, f.Value = warn, "not synchronised"
		f.Advice = "run chrony or another NTP client: retention by age and --from time: follow this clock"
		return f
	}
	f.Value = fmt.Sprintf("synchronised, estimated error %v", time.Duration(t.Esterror)*time.Microsecond)
	return f
}
