package sysmetrics

import (
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// device names the block device under a path: /sys/dev/block has a link from its
// number to its place, whose last element is the name in /proc/diskstats. A file
// system without a device of its own (overlay, btrfs, tmpfs) has none there.
func device(path string) string {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return ""
	}
	dev := uint64(st.Dev)
	link := "/sys/dev/block/" + strconv.Itoa(int(unix.Major(dev))) + ":" + strconv.Itoa(int(unix.Minor(dev)))
	to, err := os.Readlink(link)
	if err != nil {
		return ""
	}
	return filepath.Base(to)
}

// descriptorLimit is the soft limit of open descriptors, 0 if there is none.
func descriptorLimit() int64 {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil || l.Cur == unix.RLIM_INFINITY {
		return 0
	}
	return int64(l.Cur)
}
