package server

import (
	"golang.org/x/sys/unix"

	"github.com/portask/portask/broker/storage"
)

// warmBytes is read at a time to bring cold pages in.
const warmBytes = 128 << 10

// warm makes sure that sendfile of r will not wait for the disk. It asks the
// kernel whether both ends are in the page cache (a read that must not block)
// and reads the whole run if they are not.
func warm(r *storage.Run, scratch []byte) []byte {
	if r.Mem != nil || r.File == nil || r.File.OS() == nil || r.Len == 0 {
		return scratch
	}
	fd := int(r.File.OS().Fd())
	if resident(fd, r.Pos) && resident(fd, r.Pos+int64(r.Len)-1) {
		return scratch
	}
	if scratch == nil {
		scratch = make([]byte, warmBytes)
	}
	for pos, end := r.Pos, r.Pos+int64(r.Len); pos < end; pos += warmBytes {
		b := scratch[:min(warmBytes, end-pos)]
		if _, err := r.File.ReadAt(b, pos); err != nil {
			return scratch // sendfile will meet the error and report it
		}
	}
	return scratch
}

func resident(fd int, pos int64) bool {
	var b [1]byte
	n, err := unix.Preadv2(fd, [][]byte{b[:]}, pos, unix.RWF_NOWAIT)
	return err == nil && n == 1
}
