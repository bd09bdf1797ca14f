//go:build !linux

package vfs

import "os"

// Systems without a pwritev and fdatasync that we trust: one write for each
// buffer, and os.File.Sync, which on darwin asks for the full flush
// (F_FULLFSYNC) that its fsync does not give.

func writevAt(f *os.File, bufs [][]byte, off int64) (int, error) { return writeEach(f, bufs, off) }
func dataSync(f *os.File) error                                  { return f.Sync() }
func allocate(f *os.File, size int64) error                      { return extend(f, size) }
