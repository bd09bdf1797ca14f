package vfs

import (
	"errors"
	"io"
	"os"
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// iovMax is the kernel's bound on the buffers of one pwritev (UIO_MAXIOV).
const iovMax = 1024

// iovecs lends the arrays that describe the buffers of a write to the kernel.
// x/sys allocates one for each call with more than eight buffers.
var iovecs = sync.Pool{New: func() any { return new([iovMax]unix.Iovec) }}

// writevAt writes bufs at off with one pwritev for each iovMax buffers. The
// caller keeps f open meanwhile.
func writevAt(f *os.File, bufs [][]byte, off int64) (int, error) {
	if off < 0 {
		return 0, unix.EINVAL
	}
	n, err := gather(int(f.Fd()), pwritev, bufs, off)
	runtime.KeepAlive(f)
	return n, err
}

// gather writes bufs with as few calls of write as it can, continuing after
// short writes.
func gather(fd int, write func(fd int, vec []unix.Iovec, off int64) (int, error), bufs [][]byte, off int64) (int, error) {
	vec := iovecs.Get().(*[iovMax]unix.Iovec)
	defer iovecs.Put(vec)
	total, skip := 0, 0 // skip: bytes of bufs[0] written already
	for len(bufs) > 0 {
		count, want := 0, 0
		for _, b := range bufs {
			if count == iovMax {
				break
			}
			if count == 0 {
				b = b[skip:]
			}
			// An empty buffer takes a slot, so that count buffers are
			// exactly bufs[:count]; the kernel ignores its address.
			vec[count].Base = unsafe.SliceData(b)
			vec[count].SetLen(len(b))
			want += len(b)
			count++
		}
		n := 0
		var err error
		if want > 0 {
			n, err = write(fd, vec[:count], off)
			if err == nil && n == 0 {
				err = io.ErrShortWrite
			}
		}
		clear(vec[:count]) // the pool must not keep the caller's memory alive
		total += n
		off += int64(n)
		if err != nil {
			return total, err
		}
		if n == want {
			bufs, skip = bufs[count:], 0
			continue
		}
		n += skip
		for len(bufs[0]) <= n {
			n -= len(bufs[0])
			bufs = bufs[1:]
		}
		skip = n
	}
	return total, nil
}

// pwritev is the system call, repeated when a signal interrupts it. The
// position travels as two words, low first; on 64-bit systems the kernel takes
// the low one alone.
func pwritev(fd int, vec []unix.Iovec, off int64) (int, error) {
	for {
		n, _, errno := unix.Syscall6(unix.SYS_PWRITEV, uintptr(fd),
			uintptr(unsafe.Pointer(&vec[0])), uintptr(len(vec)),
			uintptr(off), uintptr(uint64(off)>>32), 0)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return 0, errno
		}
		return int(n), nil
	}
}

// dataSync is fdatasync, repeated only when a signal interrupts it: any other
// error must reach the caller the first time.
func dataSync(f *os.File) error {
	fd := int(f.Fd())
	for {
		err := unix.Fdatasync(fd)
		if err != unix.EINTR {
			runtime.KeepAlive(f)
			return err
		}
	}
}

func allocate(f *os.File, size int64) error {
	if size <= 0 {
		return nil
	}
	fd := int(f.Fd())
	for {
		err := unix.Fallocate(fd, 0, 0, size)
		switch {
		case err == unix.EINTR:
			continue
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			return extend(f, size)
		}
		runtime.KeepAlive(f)
		return err
	}
}
