package storage

import (
	"io"
	"os"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
)

// Run is a row of consecutive whole batches that share a seed, as they are
// stored: in memory (Mem) or in a file (File, Pos), never both.
//
// A Run holds a lease: until it is released its bytes do not change and are not
// given to another use, whatever Retain, RemoveLog or Close do. A copy of a Run
// shares the lease. Its methods are not for concurrent use on one Run.
type Run struct {
	Seed    message.Seed   // of the header CRCs of all its batches
	First   message.Offset // of its first message
	End     message.Offset // one past its last message
	Batches int
	Mem     []byte   // the bytes if they are in memory; read-only
	File    SendFile // else where they are
	Pos     int64    // position of the first byte in File
	Len     int      // bytes, also of Mem

	lease Lease
}

// SendFile is a file that runs lie in.
type SendFile interface {
	io.ReaderAt
	// OS returns the kernel's file, for sendfile; nil if there is none and
	// the bytes must be read.
	OS() *os.File
}

// Lease keeps the memory or file under a run as it is. Its methods may be
// called from any goroutine.
type Lease interface {
	// Retain adds a reference; the caller must hold one.
	Retain()
	// Release drops a reference; with the last one the bytes may go.
	Release()
}

// SetLease hands the run a reference that Release will drop. For engines.
func (r *Run) SetLease(l Lease) { r.lease = l }

// Retain adds a reference for a copy of the run that is to be released on its
// own.
func (r *Run) Retain() {
	if r.lease != nil {
		r.lease.Retain()
	}
}

// Release ends the use of the run: it must be called once, and clears the run
// so that bytes are not used by mistake afterwards.
func (r *Run) Release() {
	l := r.lease
	*r = Run{}
	if l != nil {
		l.Release()
	}
}

// ReadAt reads the run's bytes from memory or file, with the meaning of
// io.ReaderAt and positions counted from the run's first byte.
func (r *Run) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fault.New(fault.Invalid, "read run").WithField("position").WithDetail("is negative")
	}
	if off >= int64(r.Len) {
		return 0, io.EOF
	}
	short := int64(len(p)) > int64(r.Len)-off
	if short {
		p = p[:int64(r.Len)-off]
	}
	var n int
	var err error
	if r.File == nil {
		n = copy(p, r.Mem[off:])
	} else {
		n, err = r.File.ReadAt(p, r.Pos+off)
		if err == io.EOF && n == len(p) {
			err = nil
		}
	}
	if err == nil && short {
		err = io.EOF
	}
	return n, err
}
