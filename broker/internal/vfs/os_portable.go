//go:build !linux

package vfs

import (
	"io"
	"os"
)

// Systems without a pwritev and fdatasync that we trust: one write for each
// buffer, and os.File.Sync, which on darwin asks for the full flush
// (F_FULLFSYNC) that its fsync does not give.

func writevAt(f *os.File, bufs [][]byte, off int64) (int, error) { return writeEach(f, bufs, off) }
func dataSync(f *os.File) error                                  { return f.Sync() }
func allocate(f *os.File, size int64) error                      { return extend(f, size) }

// writeEach is WritevAt by one WriteAt for each buffer, where there is no
// pwritev.
func writeEach(f io.WriterAt, bufs [][]byte, off int64) (int, error) {
	total := 0
	for _, b := range bufs {
		if len(b) == 0 {
			continue
		}
		n, err := f.WriteAt(b, off)
		total += n
		off += int64(n)
		if err != nil {
			return total, err
		}
	}
	return total, nil
}
