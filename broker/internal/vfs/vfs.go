// Package vfs is the file system as the storage engine needs it: few calls,
// each with a durability meaning that is written down, so that a real disk, a
// memory disk that can lose power, and a disk that fails on request are
// interchangeable.
//
// OS is the real one. Mem keeps everything in memory and can be cloned as it
// would look after a power cut. Fault wraps either and makes chosen calls fail.
//
// # What is durable when
//
// The contract below is the conservative reading of POSIX and of what ext4 and
// xfs do. Mem implements exactly it; code that is correct on Mem is correct on
// a real journalling file system.
//
//   - Bytes written with WriteAt or WritevAt, and sizes set by Truncate or
//     Allocate or by writing past the end, are durable when a later Sync or
//     SyncAll of the same file returned nil. Before that any subset of the
//     512-byte sectors may be on the device. A sector is never torn.
//   - An entry of a directory (a file or directory created, renamed or
//     removed) is durable when a later SyncDir of that directory returned nil;
//     for a rename between two directories it is the target's SyncDir that
//     counts. Before that it may be lost or kept. A rename is atomic: after a
//     crash the file has its old or its new name, never both or neither.
//   - Syncing a file does not make its name durable, and syncing a directory
//     does not make the contents of its files durable.
//   - After a failed Sync nothing is known about the bytes written since the
//     last good one: the kernel may have dropped them while still showing them
//     to readers. Do not sync again and believe it.
//
// All methods of an FS may be called concurrently. The methods of a File may be
// called concurrently with each other and with Close; calls that start after
// Close fail with fs.ErrClosed.
package vfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// SectorBytes is the unit a device writes atomically: the smallest any disk
// still in use has. Larger physical sectors only make crashes kinder.
const SectorBytes = 512

// FS is a file system. Names are paths in the host's syntax.
type FS interface {
	// OpenFile opens a file as os.OpenFile does. Flags: one of os.O_RDONLY,
	// os.O_WRONLY, os.O_RDWR, with any of os.O_CREATE, os.O_EXCL, os.O_TRUNC.
	// os.O_APPEND is refused: every write here names its position. A
	// directory cannot be opened.
	OpenFile(name string, flag int, perm fs.FileMode) (File, error)
	// Rename moves a file or directory, replacing a file that has the new
	// name. Open handles of either file stay valid.
	Rename(oldName, newName string) error
	// Remove deletes a file or an empty directory. Open handles stay valid.
	Remove(name string) error
	// MkdirAll creates a directory and its missing parents. Each new entry
	// is durable only after SyncDir of the directory that holds it.
	MkdirAll(dir string, perm fs.FileMode) error
	// ReadDir returns the names in a directory, sorted, without their path.
	ReadDir(dir string) ([]string, error)
	// SyncDir makes the entries of dir durable (not of its subdirectories).
	SyncDir(dir string) error
	// Stat returns the size of a file in bytes, 0 for a directory.
	Stat(name string) (size int64, err error)
	// Lock takes an exclusive lock named by a file, creating the file if
	// missing. It fails at once with ErrLocked if another holder, in this
	// process or another, has it. The lock ends with Close, or with the
	// process; the file stays.
	Lock(name string) (io.Closer, error)
	// Space returns the bytes free for an unprivileged user, and the total,
	// of the file system that holds dir.
	Space(dir string) (free, total int64, err error)
}

// File is an open file.
type File interface {
	io.ReaderAt
	io.WriterAt
	// WritevAt writes the buffers one after the other at off, as if they
	// were one: with one pwritev(2) for each 1,024 buffers where the system
	// has it. It returns the bytes written; less than the sum comes with an
	// error. The buffers are not kept, and the slice of buffers is not
	// changed.
	WritevAt(bufs [][]byte, off int64) (int, error)
	// Sync makes the file's bytes and size durable: fdatasync(2).
	Sync() error
	// SyncAll makes all metadata durable too: fsync(2).
	SyncAll() error
	// Truncate sets the size. Bytes beyond the old end read as zeros.
	Truncate(size int64) error
	// Allocate reserves space for the first size bytes and makes the file at
	// least that long: fallocate(2). Existing bytes are kept, new ones read
	// as zeros. Where the system cannot reserve, it only extends the file.
	Allocate(size int64) error
	// Size returns the size in bytes.
	Size() (int64, error)
	// Close releases the handle. It implies no sync.
	Close() error
	// OS returns the kernel's file, for sendfile; nil when there is none.
	// The caller must not close it.
	OS() *os.File
}

// ErrLocked is returned by Lock while another holder has the lock.
var ErrLocked = errors.New("locked by another holder")

// IsNoDescriptor reports whether err says that the process or the system has no
// file descriptor left: nothing was done, and the call may succeed later.
func IsNoDescriptor(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// IsNoSpace reports whether err says that the device (or a quota) is full.
func IsNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || isQuota(err)
}

// errAppend refuses os.O_APPEND.
var errAppend = errors.New("O_APPEND is not supported: writes name their position")
