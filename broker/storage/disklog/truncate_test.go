package disklog

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/portask/portask/broker/internal/vfs"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/storage"
)

// TestTruncateAtEveryLength cuts a segment of 64 KiB to every length it can
// have. What was synced and is gone is damage: its offsets stay taken, all
// that is left is served, and Verify says so. What was never synced is a torn
// tail: the log goes on behind the last whole batch.
func TestTruncateAtEveryLength(t *testing.T) {
	for _, synced := range []bool{true, false} {
		t.Run(fmt.Sprintf("synced=%t", synced), func(t *testing.T) {
			fs := vfs.NewMem()
			opts := fixed(small())
			opts.FirstBytes, opts.Spares, opts.ReserveBytes = 64<<10, -1, -1
			o := newOracle(3)
			e, err := Open(fs, "data", opts)
			check(t, err)
			l, err := e.OpenLog(testID, storage.LogOptions{})
			check(t, err)
			for l.Stats().Bytes < 60<<10 {
				check(t, o.append(l, 1, 2500))
			}
			segment := l.(*Log).segs[0].path()
			if synced {
				check(t, o.sync(l))
			}
			if l.Stats().Segments != 1 {
				t.Fatal("more than one segment")
			}
			killed := fs.Clone(vfs.CrashAll, 1)
			check(t, e.Close())
			size, err := killed.Stat(segment)
			check(t, err)

			var wg sync.WaitGroup
			for part := range int64(2) {
				wg.Go(func() {
					for n := part; n < size; n += 2 {
						if err := truncated(killed, segment, n, o, opts, synced); err != nil {
							t.Errorf("cut to %d of %d bytes: %v", n, size, err)
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

func truncated(killed *vfs.Mem, segment string, n int64, o *oracle, opts Options, synced bool) error {
	fs := killed.Clone(vfs.CrashAll, 0)
	f, err := fs.OpenFile(segment, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := f.Truncate(n); err != nil {
		return err
	}
	whole := make([]byte, n)
	if err := readAt(f, whole, 0); err != nil {
		return err
	}
	_ = f.Close()
	junk := n // end of what is not zeros: those may be what was there before
	for junk > 0 && whole[junk-1] == 0 {
		junk--
	}

	// What is left whole, and where it ends. Without the header, the id is
	// known from the durable record only.
	var end message.Offset
	pos := int64(headerBytes)
	if n < headerBytes && !synced {
		pos = n
	}
	for i := range o.batches {
		w := &o.batches[i]
		if pos+int64(len(w.bytes)) > n {
			break
		}
		pos, end = pos+int64(len(w.bytes)), w.end
	}
	if n%97 == 0 && synced { // Verify is the same code: now and then will do
		r, err := Verify(fs, "data", nil, nil)
		if err != nil {
			return err
		}
		if !r.Damaged() || filepath.Join("data", r.Problems[len(r.Problems)-1].File) != segment {
			return fmt.Errorf("Verify found %v", r.Problems)
		}
	}
	e, err := Open(fs, "data", opts)
	if err != nil {
		return err
	}
	defer e.Close()
	l, err := e.OpenLog(testID, storage.LogOptions{})
	if err != nil {
		return err
	}
	got, gaps, err := readAll(l)
	if err != nil {
		return err
	}
	if err := o.prefix(got, 0, end); err != nil {
		return err
	}
	st := l.Stats()
	if synced {
		if l.End() != o.end() || len(gaps) != 1 || gaps[0].From != end || gaps[0].Next != o.end() || st.Corruptions != 1 || st.TornBytes != 0 {
			return fmt.Errorf("damage: log ends at %d, gaps %v, %+v", l.End(), gaps, st)
		}
	} else if l.End() != end || len(gaps) != 0 || st.Corruptions != 0 || n > headerBytes && (st.TornBytes < junk-pos || st.TornBytes > n-pos) {
		return fmt.Errorf("torn: log ends at %d, want %d, gaps %v, %+v", l.End(), end, gaps, st)
	}
	// The log goes on, and what is there stays.
	end = l.End()
	more := &oracle{rng: o.rng, build: message.NewBuilder(message.DefaultLimits()), clock: o.clock + 1}
	if err := l.Append(more.at(end, l.Epoch())); err != nil {
		return err
	}
	if l.End() <= end {
		return fmt.Errorf("log ends at %d after an append at %d", l.End(), end)
	}
	return nil
}

// at makes one batch for any offset.
func (o *oracle) at(base message.Offset, epoch uint64) []storage.Batch {
	_ = o.build.Append(&message.Message{Value: []byte("more")})
	b, err := o.build.Finish(nil, message.Producer{}, nil)
	if err != nil {
		panic(err)
	}
	o.build.Reset()
	return []storage.Batch{{Bytes: b, Base: base, End: base + 1, Time: o.clock, Epoch: epoch, MaxTime: o.clock}}
}
