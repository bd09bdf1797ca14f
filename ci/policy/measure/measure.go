// Package measure finds out what compressing costs: it runs every algorithm and
// level over batches of many sizes, cut from the files of directories, with the
// processors kept busy to a given share. What it finds are rows.
//
// Times are CPU time of the measuring thread, the least of a few repetitions, so
// that a machine that is busy with other work matters little; bodies are warm in
// the cache, encoders and buffers are reused.
package measure

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/portask/portask/broker/compression"
	"github.com/portask/portask/broker/compression/adaptive"
	"github.com/portask/portask/broker/sysmetrics"
	"github.com/portask/portask/ci/policy/rows"
)

// Options of a sweep.
type Options struct {
	Dirs    []string // each with files in a directory per class, or a file per extension, or of neither
	Batches int      // of one file and size, at most
	Repeat  int      // the least time of so many counts
	Loads   []int    // percent of the processors kept busy; the first is of all batches, the others of every fourth
	Log     io.Writer
}

const (
	fileBytesMax = 512 << 10
	filesMax     = 4096
	fileLeast    = 1 << 10
)

// A file of payloads.
type file struct {
	class, hash string
	b           []byte
}

// unnamed is the class of files right below a directory without an extension.
const unnamed = "other"

// files below dir: the class is the first directory below it, the extension of a
// file right below it, or unnamed. Of a file that is longer, its first 512 KiB are
// taken. What is left out is counted, and told to log.
func files(dir string, log io.Writer) ([]file, error) {
	var out []file
	short, special := 0, 0
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if !d.Type().IsRegular() {
			special++
			return nil
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		class, _, below := strings.Cut(filepath.ToSlash(rel), "/")
		if !below {
			class = strings.ToLower(strings.TrimPrefix(filepath.Ext(rel), "."))
			if strings.EqualFold(rel, "manifest.md") {
				return nil // of the corpus, not in it
			}
			class = cmp.Or(class, unnamed)
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, fileBytesMax))
		if err != nil {
			return err
		}
		if len(b) < fileLeast {
			short++
			return nil
		}
		if len(out) == filesMax {
			return fmt.Errorf("%s: more than %d files", dir, filesMax)
		}
		out = append(out, file{class, fmt.Sprintf("%x", sha256.Sum256(b))[:16], b})
		return nil
	})
	if err == nil && len(out) == 0 {
		err = fmt.Errorf("%s: no file of %d bytes or more; %d shorter ones, %d that are no regular files", dir, fileLeast, short, special)
	}
	if err == nil && short+special > 0 {
		fmt.Fprintf(log, "%s: left out %d files shorter than %d bytes, %d that are no regular files\n", dir, short, fileLeast, special)
	}
	return out, err
}

// batches cuts a file: evenly over all of it, overlapping where it is short. A
// file nearly as long as a batch is one.
func batches(b []byte, size, most int) (out [][]byte) {
	if len(b) < size {
		if len(b) >= size-size/8 {
			out = append(out, b)
		}
		return out
	}
	n := min(most, max(1, 2*len(b)/size-1))
	for i := range n {
		at := 0
		if n > 1 {
			at = i * (len(b) - size) / (n - 1)
		}
		out = append(out, b[at:at+size])
	}
	return out
}

// Sweep measures. The rows are in an order that depends on the files' bytes only.
func Sweep(ctx context.Context, o Options) ([]rows.Row, error) {
	if o.Log == nil {
		o.Log = io.Discard
	}
	var all []file
	for _, dir := range o.Dirs {
		fs, err := files(dir, o.Log)
		if err != nil {
			return nil, err
		}
		all = append(all, fs...)
	}
	slices.SortFunc(all, func(a, b file) int {
		return strings.Compare(a.class+" "+a.hash, b.class+" "+b.hash)
	})
	all = slices.CompactFunc(all, func(a, b file) bool { return a.hash == b.hash })
	var out []rows.Row
	for i, load := range o.Loads {
		stop := burn(load)
		for n, f := range all {
			if ctx.Err() != nil {
				stop()
				return nil, ctx.Err()
			}
			if o.Log != nil && n%16 == 0 {
				fmt.Fprintf(o.Log, "load %d %%: file %d of %d\n", load, n+1, len(all))
			}
			rs, err := o.file(f, load, i > 0)
			if err != nil {
				stop()
				return nil, err
			}
			out = append(out, rs...)
		}
		stop()
	}
	return out, nil
}

// file measures the batches of one file. few takes every fourth of them.
func (o *Options) file(f file, load int, few bool) (out []rows.Row, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := sysmetrics.Host()
	if err != nil {
		return nil, err
	}
	for _, size := range adaptive.Sizes {
		for i, b := range batches(f.b, size, o.Batches) {
			if few && i%4 != 1 {
				continue
			}
			r := rows.Row{Class: f.class, File: f.hash, Size: size, Index: i, In: len(b), Load: load}
			r.Signs, _ = compression.SignsOf(b)
			for _, e := range rows.Encoders {
				c, err := o.cell(e, b)
				if err != nil {
					return nil, fmt.Errorf("class %s, file %s, %s: %w", f.class, f.hash, e, err)
				}
				r.Cells = append(r.Cells, c)
			}
			out = append(out, r)
		}
	}
	after, err := sysmetrics.Host()
	if err != nil {
		return nil, err
	}
	busy, total := after.Busy-before.Busy, (after.Busy-before.Busy)+(after.Idle-before.Idle)+(after.IOWait-before.IOWait)
	for i := range out {
		if total > 0 {
			out[i].CPU = int(100 * busy / total)
		}
		out[i].Steal = int(100 * sysmetrics.StealShare(before, after))
		out[i].AvailableMiB, out[i].Load1 = int(after.AvailableBytes>>20), int(100*after.Load1)
	}
	return out, nil
}

var room []byte // for outputs, reused

// cell measures one encoder on one batch, and checks the round trip.
func (o *Options) cell(e rows.Encoder, b []byte) (c rows.Cell, err error) {
	if n := compression.Bound(e.Algorithm, len(b)) + len(b) + 64; cap(room) < n {
		room = make([]byte, 0, n)
	}
	enc, err := compression.AppendCompress(room[:0], b, e.Algorithm, e.Level)
	if err != nil {
		return c, err
	}
	c.Out = int64(len(enc))
	back := enc[len(enc):cap(enc)]
	limits := compression.Limits{Bytes: len(b), Ratio: 1 << 20}
	dec, err := compression.AppendDecompress(back[:0], enc, e.Algorithm, len(b), limits)
	if err != nil {
		return c, err
	}
	if !bytes.Equal(dec, b) {
		return c, fmt.Errorf("the round trip gives other bytes")
	}
	c.DecodeNs, err = o.least(func() error {
		_, err := compression.AppendDecompress(back[:0], enc, e.Algorithm, len(b), limits)
		return err
	})
	if err != nil {
		return c, err
	}
	c.EncodeNs, err = o.least(func() error {
		_, err := compression.AppendCompress(room[:0], b, e.Algorithm, e.Level)
		return err
	})
	return c, err
}

// countAtLeast is the time that one count should take: reading the clock is a
// system call.
const countAtLeast = 20 * time.Microsecond

// least returns the nanoseconds of f, the least of Repeat counts.
func (o *Options) least(f func() error) (int64, error) {
	times, best := 1, int64(0)
	for i := 0; i < o.Repeat; i++ {
		from := threadTime()
		for range times {
			if err := f(); err != nil {
				return 0, err
			}
		}
		took := int64(threadTime() - from)
		if i == 0 && took < int64(countAtLeast) {
			times = int(int64(countAtLeast)/max(took, 1)) + 1
			times = min(times, 1000)
			best = max(took, 1)
			continue
		}
		if took /= int64(times); best == 0 || took < best {
			best = max(took, 1)
		}
	}
	return best, nil
}

// burn keeps all processors busy for a share of the time, in percent, until stop:
// a thread for each, that works and sleeps in periods of 5 ms.
func burn(percent int) (stop func()) {
	if percent <= 0 {
		return func() {}
	}
	const period = 5 * time.Millisecond
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range runtime.NumCPU() {
		wg.Go(func() {
			x := make([]byte, 64<<10) // also takes its share of the caches
			for {
				for begin := time.Now(); time.Since(begin) < period*time.Duration(percent)/100; {
					for i := 0; i < len(x); i += 64 {
						x[i]++
					}
				}
				select {
				case <-done:
					return
				case <-time.After(period * time.Duration(100-percent) / 100):
				}
			}
		})
	}
	return func() { close(done); wg.Wait() }
}
