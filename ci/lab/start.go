package lab

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// Start is how long a broker takes to answer on existing data.
type Start struct {
	LogBytes int64 `json:"log_bytes"`
	// Clean and Killed are seconds from exec to the first answered request,
	// after a graceful stop and after SIGKILL, one for each repetition. The
	// data is in the page cache.
	Clean  []float64 `json:"clean_s"`
	Killed []float64 `json:"killed_s"`
}

// StartTime fills a log with at least logBytes at ack level accepted and starts
// a broker on it, repeat times after each kind of end.
func (l *Lab) StartTime(ctx context.Context, logBytes int64, repeat int) (*Start, error) {
	dir, remove, err := l.scratch()
	if err != nil {
		return nil, err
	}
	defer remove()
	data := filepath.Join(dir, "data")
	s, err := l.broker(ctx, data, filepath.Join(dir, "addr"))
	if err != nil {
		return nil, err
	}
	defer s.kill()
	if err := l.createTopic(ctx, s.addr, "accepted", "--retention-bytes", "unlimited"); err != nil {
		return nil, err
	}
	var o Load
	o.setDefaults()
	p, err := l.clients(ctx, Accepted, s.addr, dir, o)
	if err != nil {
		return nil, err
	}
	batches := logBytes/int64(o.BatchMessages*o.MessageBytes) + 1
	_, _, err = p.run(ctx, strconv.FormatInt(batches, 10))
	p.close()
	if err != nil {
		return nil, fmt.Errorf("%w; the broker's last words: %s", err, s.stderr)
	}
	out := new(Start)
	if out.LogBytes, err = treeBytes(data); err != nil {
		return nil, err
	}
	if out.LogBytes < logBytes {
		return nil, fmt.Errorf("the data directory holds %d bytes after %d were produced", out.LogBytes, logBytes)
	}
	if err := s.signal(syscall.SIGTERM, stopTimeout); err != nil {
		return nil, err
	}
	for i := range 2 * repeat {
		killed := i >= repeat
		end := syscall.SIGTERM
		if i >= repeat-1 { // what ends this start decides what the next one finds
			end = syscall.SIGKILL
		}
		d, err := l.oneStart(ctx, data, filepath.Join(dir, fmt.Sprintf("addr%d", i)), end)
		if err != nil {
			return nil, err
		}
		if killed {
			out.Killed = append(out.Killed, d.Seconds())
		} else {
			out.Clean = append(out.Clean, d.Seconds())
		}
	}
	return out, nil
}

// oneStart times one start and ends the broker with a signal. The client that
// asks is running before, so that its own start is not in the figure.
func (l *Lab) oneStart(ctx context.Context, data, addrFile string, end syscall.Signal) (time.Duration, error) {
	c, err := startClient(ctx, "first-answer", l.Loadgen, []string{"lean", "first-answer", "--addr-file", addrFile, "--topic", topic})
	if err != nil {
		return 0, err
	}
	defer c.close()
	begin := time.Now()
	s, err := l.broker(ctx, data, addrFile)
	if err != nil {
		return 0, err
	}
	defer s.kill()
	var answer struct {
		Partitions int   `json:"partitions"`
		LogEnd     int64 `json:"log_end"`
	}
	if err := c.answer(ctx, &answer); err != nil {
		return 0, fmt.Errorf("%w; the broker's last words: %s", err, s.stderr)
	}
	took := time.Since(begin)
	if answer.Partitions != 1 || answer.LogEnd == 0 {
		return 0, fmt.Errorf("the broker answered with %d partitions and log end %d", answer.Partitions, answer.LogEnd)
	}
	return took, s.signal(end, stopTimeout)
}

// treeBytes is the disk space of the files below dir, by length.
func treeBytes(dir string) (int64, error) {
	var n int64
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := os.Stat(name)
		if err == nil {
			n += info.Size()
		}
		return err
	})
	return n, err
}
