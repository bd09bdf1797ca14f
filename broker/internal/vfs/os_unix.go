//go:build unix

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

func isQuota(err error) bool { return errors.Is(err, syscall.EDQUOT) }

// syncDir opens the directory and syncs it: the only portable way on unix.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	st, err := d.Stat()
	if err == nil && !st.IsDir() {
		err = &os.PathError{Op: "sync", Path: dir, Err: errNotDir}
	}
	if err == nil {
		err = d.Sync()
	}
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}
