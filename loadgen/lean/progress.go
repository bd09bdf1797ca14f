//go:build linux

package lean

import (
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Progress is a counter that two processes share through a mapped file: the
// batches that the consumer has verified. With it a producer keeps the backlog
// bounded, so that a saturated run measures what goes all the way through and
// not how far a log can run ahead of its reader. A server that sends each batch
// on before it reads the next bounds the backlog by itself; both kinds are
// driven with the same bound.
type Progress struct {
	mem []byte
}

const progressBytes = 4096

// OpenProgress maps the file, which it creates if need be.
func OpenProgress(file string) (*Progress, error) {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("progress: %w", err)
	}
	defer f.Close()
	if err := f.Truncate(progressBytes); err != nil {
		return nil, fmt.Errorf("progress: %w", err)
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, progressBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("progress: map: %w", err)
	}
	return &Progress{mem: mem}, nil
}

func (p *Progress) counter() *atomic.Uint64 { return (*atomic.Uint64)(unsafe.Pointer(&p.mem[0])) }

// add counts verified batches. A nil Progress counts nothing.
func (p *Progress) add(batches int64) {
	if p != nil {
		p.counter().Add(uint64(batches))
	}
}

// wait returns when at most `most` of the sent batches are not verified yet. It
// looks every 50 µs: a few hundred batches take longer than that to verify.
func (p *Progress) wait(sent uint64, most int) {
	if p == nil {
		return
	}
	for sent-p.counter().Load() > uint64(most) {
		pause := unix.NsecToTimespec(50_000)
		_ = unix.Nanosleep(&pause, nil) // interrupted early is no matter
	}
}
