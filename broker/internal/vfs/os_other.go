//go:build !unix

package vfs

import (
	"errors"
	"os"
	"syscall"
)

const (
	errIsDir    = syscall.EISDIR
	errNotDir   = syscall.ENOTDIR
	errNotEmpty = syscall.ENOTEMPTY
	errBadFile  = syscall.EBADF
)

// errorDiskFull is what windows reports in place of ENOSPC.
const errorDiskFull = syscall.Errno(112)

func isQuota(err error) bool { return errors.Is(err, errorDiskFull) }

// syncDir only checks that the directory is there: windows has no call that
// syncs one; NTFS journals the entries in order.
func syncDir(dir string) error {
	_, err := os.ReadDir(dir)
	return err
}
