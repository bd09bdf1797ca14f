//go:build unix

package evidence

import "golang.org/x/sys/unix"

// openFiles is the soft limit of descriptors.
func openFiles() int64 {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil || uint64(l.Cur) > 1<<40 {
		return 0
	}
	return int64(l.Cur)
}
