package yardstick

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"
)

// connected returns both ends of a TCP connection over loopback.
func connected() (a, b net.Conn, err error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	if a, err = net.DialTimeout("tcp4", l.Addr().String(), 10*time.Second); err != nil {
		return nil, nil, err
	}
	if b, err = l.Accept(); err != nil {
		a.Close()
		return nil, nil, err
	}
	return a, b, nil
}

// MeasureEcho times round trips of 256 B over loopback between two goroutines,
// through the runtime's poller as any Go server's are.
func MeasureEcho(d time.Duration) (Reading, error) {
	a, b, err := connected()
	if err != nil {
		return Reading{}, fmt.Errorf("echo: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, 256)
		for {
			if _, err := io.ReadFull(b, buf); err != nil {
				return
			}
			if _, err := b.Write(buf); err != nil {
				return
			}
		}
	}()
	defer func() {
		a.Close()
		b.Close()
		<-ended
	}()
	buf := make([]byte, 256)
	times := make([]float64, 0, 1<<16)
	const warm = 100
	for begin, i := time.Now(), 0; len(times) < cap(times) && (len(times) < 100 || time.Since(begin) < d); i++ {
		t := time.Now()
		if _, err := a.Write(buf); err != nil {
			return Reading{}, fmt.Errorf("echo: %w", err)
		}
		if _, err := io.ReadFull(a, buf); err != nil {
			return Reading{}, fmt.Errorf("echo: %w", err)
		}
		if i >= warm {
			times = append(times, float64(time.Since(t)))
		}
	}
	return reading(Echo, times), nil
}

// MeasureStream times how long 64 KiB take one way over loopback, in groups of
// 4 MiB, counted where they arrive.
func MeasureStream(d time.Duration) (Reading, error) {
	a, b, err := connected()
	if err != nil {
		return Reading{}, fmt.Errorf("stream: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for buf := make([]byte, 64<<10); ; {
			if _, err := a.Write(buf); err != nil {
				return
			}
		}
	}()
	defer func() {
		a.Close()
		b.Close()
		<-ended
	}()
	const group = 4 << 20
	buf := make([]byte, 256<<10)
	var times []float64
	for begin := time.Now(); len(times) < 3 || time.Since(begin) < d; {
		t, n := time.Now(), 0
		for n < group {
			k, err := b.Read(buf)
			if err != nil {
				return Reading{}, fmt.Errorf("stream: %w", err)
			}
			n += k
		}
		times = append(times, float64(time.Since(t))/(float64(n)/(64<<10)))
	}
	r := reading(Stream, times)
	r.P99 = r.Ns
	return r, nil
}

// MeasureSync times a write of 4 KiB followed by fdatasync, at the end of a file
// whose blocks are written before, in dir. The file is removed.
func MeasureSync(dir string, d time.Duration) (r Reading, err error) {
	f, err := os.CreateTemp(dir, "portask-yardstick-")
	if err != nil {
		return r, fmt.Errorf("fdatasync: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(filepath.Clean(f.Name()))) }()
	const size, piece = 4 << 20, 4 << 10
	if _, err := f.Write(make([]byte, size)); err != nil {
		return r, fmt.Errorf("fdatasync: %w", err)
	}
	if err := f.Sync(); err != nil {
		return r, fmt.Errorf("fdatasync: %w", err)
	}
	buf := make([]byte, piece)
	var times []float64
	for begin, i := time.Now(), 0; len(times) < 4096 && (len(times) < 5 || time.Since(begin) < d); i++ {
		buf[0] = byte(i)
		t := time.Now()
		if _, err := f.WriteAt(buf, int64(i*piece%size)); err != nil {
			return r, fmt.Errorf("fdatasync: %w", err)
		}
		if err := datasync(f); err != nil {
			return r, fmt.Errorf("fdatasync: %w", err)
		}
		times = append(times, float64(time.Since(t)))
	}
	return reading(Sync, times), nil
}
