package storagetest

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/portask/portask/broker/fault"
	"github.com/portask/portask/broker/message"
	"github.com/portask/portask/broker/storage"
)

// testConcurrent runs what the contract allows at the same time, and is meant
// for the race detector. Readers check every batch they see by its checksums,
// and that none is missing or twice.
func testConcurrent(t *testing.T, g *Target) {
	e := g.open(t)
	l, m := newLog(t, e, g.small())
	const appends = 150
	var end atomic.Int64 // of acknowledged appends
	var now atomic.Int64
	now.Store(m.now)
	done := make(chan struct{})
	var wg sync.WaitGroup

	wg.Go(func() { // a syncer
		durable := message.Offset(0)
		for over := false; !over; {
			select {
			case <-done:
				over = true
			default:
			}
			before := message.Offset(end.Load())
			d, err := l.Sync()
			if !e.Levels().Has(message.AckDurable) {
				if fault.CodeOf(err) != fault.LevelUnavailable {
					t.Errorf("Sync: %v", err)
				}
				return
			}
			if err != nil || d < before || d < durable || l.Durable() < d || l.Durable() > l.End() {
				t.Errorf("synced to %d, %v; was at %d, %d appended before", d, err, durable, before)
				return
			}
			durable = d
		}
	})
	wg.Go(func() { // a cleaner
		for {
			select {
			case <-done:
				return
			default:
			}
			below := message.Offset(end.Load()) / 2
			if _, err := l.Retain(storage.Retention{MaxBytes: 30_000}, now.Load(), below); err != nil {
				t.Errorf("Retain: %v", err)
				return
			}
			if l.Start() > below {
				t.Errorf("start %d is above %d", l.Start(), below)
				return
			}
			if _, err := l.OffsetForTime(now.Load()); err != nil {
				t.Errorf("OffsetForTime: %v", err)
				return
			}
			_, _ = l.Stats(), e.Stats()
		}
	})
	for i := range 3 {
		wg.Go(func() {
			if err := readConcurrently(l, &end, done, 1000*(1+3*i)); err != nil {
				t.Error(err)
			}
		})
	}

	for range appends {
		batches := m.make(t, make([]shape, 1+m.rng.IntN(4))...)
		now.Store(m.now)
		if err := l.Append(batches); err != nil {
			t.Errorf("Append: %v", err)
			break
		}
		m.accept(t, batches)
		end.Store(int64(m.end()))
	}
	close(done)
	wg.Wait()
	if !t.Failed() {
		m.trimmed(t, l)
		m.checkAll(t, l, 1<<20)
	}
}

// readConcurrently follows a log until done is closed and all that was appended
// by then is read.
func readConcurrently(l storage.Log, end *atomic.Int64, done <-chan struct{}, maxBytes int) error {
	from := message.Offset(0)
	var runs []storage.Run
	for over := false; ; {
		select {
		case <-done:
			over = true
		default:
		}
		visible := message.Offset(end.Load())
		if from >= visible {
			if over {
				return nil
			}
			runtime.Gosched()
			continue
		}
		var err error
		runs, err = l.Read(from, visible, maxBytes, runs[:0])
		if fault.CodeOf(err) == fault.OutOfRange && l.Start() > from {
			from = l.Start() // the cleaner was faster
			continue
		}
		if err != nil {
			return fmt.Errorf("read at %d of %d: %w", from, visible, err)
		}
		if len(runs) == 0 {
			return fmt.Errorf("read at %d gave nothing, %d are visible", from, visible)
		}
		for i := range runs {
			next, err := verifyRun(&runs[i], from)
			if err == nil && next > visible {
				err = fmt.Errorf("ends at %d, visible are %d", next, visible)
			}
			runs[i].Release()
			if err != nil {
				return fmt.Errorf("run at %d: %w", from, err)
			}
			from = next
		}
	}
}

// verifyRun checks the batches of a run without knowing them, of which the
// first contains from, and returns where it ends.
func verifyRun(r *storage.Run, from message.Offset) (message.Offset, error) {
	b := make([]byte, r.Len)
	if n, err := r.ReadAt(b, 0); n != r.Len {
		return 0, fmt.Errorf("%d of %d bytes: %w", n, r.Len, err)
	}
	next := r.First
	for n := range r.Batches {
		e, err := message.ParseEnvelope(b, nil)
		if err == nil {
			err = message.VerifyHeader(b, r.Seed)
		}
		if err == nil {
			err = message.VerifyBody(b[:e.Bytes()])
		}
		if err != nil {
			return 0, fmt.Errorf("batch %d: %w", n, err)
		}
		if e.BaseOffset != next || n == 0 && (from < e.BaseOffset || from >= e.EndOffset()) {
			return 0, fmt.Errorf("batch %d is [%d, %d), want it at %d", n, e.BaseOffset, e.EndOffset(), next)
		}
		next, from = e.EndOffset(), e.EndOffset()
		b = b[e.Bytes():]
	}
	if next != r.End || len(b) > 0 {
		return 0, fmt.Errorf("ends at %d with %d bytes left, want %d", next, len(b), r.End)
	}
	return next, nil
}
